"""Authorization tokens: aliases registered, used and deleted, and every way to get that wrong."""

from __future__ import annotations

import pytest

from tests.moqt.pair import DRAFTS, Peer
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import RequestCode, SessionCode
from tradewind.moqt.model import FullTrackName, Parameters, Token, TokenUse
from tradewind.moqt.parameters import RawParameters, RawToken, SetupOptions
from tradewind.moqt.session import SessionSettings

TRACK = FullTrackName((b"live",), b"video")
UNKNOWN = SessionCode.UNKNOWN_AUTH_TOKEN_ALIAS


def register(alias: int, value: bytes = b"secret") -> RawToken:
    return RawToken(TokenUse.REGISTER, alias, 1, value)


def use(alias: int) -> RawToken:
    return RawToken(TokenUse.USE_ALIAS, alias)


def delete(alias: int) -> RawToken:
    return RawToken(TokenUse.DELETE, alias)


def value(text: bytes) -> RawToken:
    return RawToken(TokenUse.USE_VALUE, None, 1, text)


def peer(draft: int = 20, limit: int = 100) -> Peer:
    return Peer(draft, setup=SetupOptions(), settings=SessionSettings(max_token_cache_bytes=limit))


def ask(there: Peer, *tokens: RawToken) -> tuple[Token, ...] | int:
    """The tokens that the owner sees in a TRACK_STATUS, or the code of its refusal."""
    there.side.take()
    there.heard()
    there.open(m.TrackStatus(there.id(), TRACK, RawParameters(tokens=tokens)))
    events = there.side.take()
    if events and isinstance(events[0], e.TrackStatusRequested):
        return events[0].parameters.tokens
    ((_, error), *_) = there.heard()
    assert isinstance(error, m.RequestError)
    return error.code


@pytest.mark.parametrize("draft", DRAFTS)
def test_register_use_delete(draft: int) -> None:
    there = peer(draft)
    secret = Token(1, b"secret")
    assert ask(there, register(3)) == (secret,)
    assert ask(there, use(3), value(b"other")) == (secret, Token(1, b"other"))
    assert ask(there, delete(3)) == ()
    assert ask(there, use(3)) == UNKNOWN
    assert ask(there, delete(3)) == UNKNOWN
    assert ask(there, register(3)) == (secret,)
    assert there.session.statistics().token_cache_bytes == 22
    assert there.closed is None


def test_alias_registered_twice() -> None:
    there = peer()
    ask(there, register(3))
    there.open(m.TrackStatus(there.id(), TRACK, RawParameters(tokens=(register(3),))))
    assert there.closed == SessionCode.DUPLICATE_AUTH_TOKEN_ALIAS


def test_full_cache_closes_the_session() -> None:
    there = peer(limit=45)
    ask(there, register(1), register(2, b"x"))
    assert there.session.statistics().token_cache_bytes == 39
    there.open(m.TrackStatus(there.id(), TRACK, RawParameters(tokens=(register(3, b""),))))
    assert there.closed == SessionCode.AUTH_TOKEN_CACHE_OVERFLOW


def test_refused_request_registers_nevertheless() -> None:
    there = peer()
    assert ask(there, use(9), register(3)) == UNKNOWN
    assert ask(there, use(3)) == (Token(1, b"secret"),)
    there.open(m.PublishNamespace(there.id(), (b".",), RawParameters(tokens=(register(4, b"x"),))))
    assert ask(there, use(4)) == (Token(1, b"x"),)


def test_same_token_twice_is_malformed() -> None:
    there = peer()
    assert ask(there, register(3), use(3)) == RequestCode.MALFORMED_AUTH_TOKEN
    assert ask(there, value(b"a"), value(b"a")) == RequestCode.MALFORMED_AUTH_TOKEN


def test_too_many_tokens_refuse_the_request() -> None:
    there = peer()
    assert ask(there, *(value(bytes([n])) for n in range(17))) == RequestCode.EXCESSIVE_LOAD


def test_update_with_an_unknown_alias_ends_the_request() -> None:
    there = peer()
    stream = there.open(m.PublishNamespace(there.id(), (b"live",)))
    there.session.accept(0)
    there.heard()
    there.say(stream, m.RequestUpdate(there.id(), RawParameters(tokens=(use(1),))))
    assert there.heard() == [(stream, m.RequestError(UNKNOWN, "unknown authorization token alias")), (stream, "fin")]


def test_late_update_registers_too() -> None:
    there = peer()
    stream = there.open(m.PublishNamespace(there.id(), (b"live",)))
    there.session.reject(0, RequestCode.UNINTERESTED, "")
    there.say(stream, m.RequestUpdate(there.id(), RawParameters(tokens=(register(1), use(7)))))
    assert ask(there, use(1)) == (Token(1, b"secret"),)


def test_our_tokens_go_out_whole() -> None:
    there = peer()
    there.session.subscribe(TRACK, Parameters(tokens=(Token(1, b"a"), Token(0, b"b"))))
    ((_, subscribe),) = there.heard()
    assert subscribe.parameters.tokens == (value(b"a"), RawToken(TokenUse.USE_VALUE, None, 0, b"b"))
