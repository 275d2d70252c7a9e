"""SETUP: its options, what may come before it, what must not come after it, and how long it may take."""

from __future__ import annotations

from typing import Any

import pytest

from tests.moqt.pair import DRAFTS, Bytes, Peer, Side, subgroup_bytes
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import MisuseError, ResetCode, SessionCode
from tradewind.moqt.model import FullTrackName, ObjectHeader, SubgroupHeader, Token, TokenUse
from tradewind.moqt.parameters import RawToken, SetupOptions
from tradewind.moqt.session import SessionSettings

TRACK = FullTrackName((b"live",), b"video")
REFUSED = ResetCode.EXCESSIVE_LOAD


def fresh(draft: int = 20, **options: Any) -> Peer:
    return Peer(draft, **options)


def say_setup(there: Peer, setup: SetupOptions) -> list[e.Event]:
    """The peer's SETUP, where the draft has it."""
    if there.profile.request_streams:
        there.control = there.uni_id()
        return there.say(there.control, m.Setup(setup))
    if there.session._context.is_client:
        there.control = 0
        return there.say(0, m.ServerSetup(setup))
    there.control = there.bidi_id()
    return there.say(there.control, m.ClientSetup(setup))


@pytest.mark.parametrize("draft", DRAFTS)
def test_setup_says_our_limits(draft: int) -> None:
    settings = SessionSettings(request_window=7, max_token_cache_bytes=99, max_filter_ranges=5, max_request_updates=3)
    there = fresh(draft, settings=settings)
    there.session.start(SetupOptions(implementation="tradewind"))
    say_setup(there, SetupOptions())
    ((_, setup),) = there.heard()
    told = setup.options
    assert (told.implementation, told.max_token_cache_bytes) == ("tradewind", 99)
    assert (told.max_filter_ranges, told.max_request_updates) == ((5, 3) if draft >= 19 else (0, 0))
    assert told.max_request_id == (14 if draft == 16 else 0)
    assert there.session.is_ready


@pytest.mark.parametrize("draft", DRAFTS)
def test_server_may_hear_setup_before_it_starts(draft: int) -> None:
    there = fresh(draft)
    assert say_setup(there, SetupOptions(path="/x")) == [e.SetupReceived("", "/x", (), "")]
    before = there.session.is_ready
    there.session.start(SetupOptions())
    assert (before, there.session.is_ready) == (False, True)
    with pytest.raises(MisuseError):
        there.session.start(SetupOptions())


def test_nothing_can_be_asked_before_start() -> None:
    there = fresh()
    with pytest.raises(MisuseError):
        there.session.subscribe(TRACK)
    there.session.start(SetupOptions())
    # Before the peer's SETUP is here, but after ours: that is what request streams are for.
    assert there.session.subscribe(TRACK) == 1
    old = fresh(16, is_client=True)
    old.session.start(SetupOptions())
    assert old.session.subscribe(TRACK) is None


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize(
    ("options", "is_client", "webtransport", "code"),
    [
        (SetupOptions(path="/live?x=1", authority="h:443"), False, False, None),
        (SetupOptions(path="", authority="[2001:db8::1]:443"), False, False, None),
        (SetupOptions(path="/live"), False, True, SessionCode.INVALID_PATH),
        (SetupOptions(path="/live"), True, False, SessionCode.INVALID_PATH),
        (SetupOptions(authority="h"), False, True, SessionCode.INVALID_AUTHORITY),
        (SetupOptions(authority="h"), True, True, SessionCode.INVALID_AUTHORITY),
        (SetupOptions(path="live"), False, False, SessionCode.MALFORMED_PATH),
        (SetupOptions(path="/a b"), False, False, SessionCode.MALFORMED_PATH),
        (SetupOptions(path="/" + "x" * 5000), False, False, SessionCode.MALFORMED_PATH),
        (SetupOptions(authority="a/b"), False, False, SessionCode.MALFORMED_AUTHORITY),
        (SetupOptions(authority=""), False, False, SessionCode.MALFORMED_AUTHORITY),
        (SetupOptions(authority=":443"), False, False, SessionCode.MALFORMED_AUTHORITY),
        (SetupOptions(authority="h:x"), False, False, SessionCode.MALFORMED_AUTHORITY),
        (SetupOptions(authority="[::1"), False, False, SessionCode.MALFORMED_AUTHORITY),
        (SetupOptions(authority="u@[::1]x"), False, False, SessionCode.MALFORMED_AUTHORITY),
        (SetupOptions(authority="x" * 600), False, False, SessionCode.MALFORMED_AUTHORITY),
    ],
)
def test_path_and_authority(
    draft: int, options: SetupOptions, is_client: bool, webtransport: bool, code: int | None
) -> None:
    there = fresh(draft, is_client=is_client, webtransport=webtransport)
    there.session.start(SetupOptions())
    events = say_setup(there, options)
    assert there.closed == code
    assert isinstance(events[-1], e.SetupReceived if code is None else e.SessionClosed)


def test_unknown_options_are_kept_for_extensions() -> None:
    there = fresh()
    there.session.start(SetupOptions())
    say_setup(there, SetupOptions(others=((0x40B5A, 1),)))
    assert there.session.peer.others == ((0x40B5A, 1),)


@pytest.mark.parametrize("draft", DRAFTS)
def test_tokens_in_setup(draft: int) -> None:
    there = fresh(draft, settings=SessionSettings(max_token_cache_bytes=20))
    there.session.start(SetupOptions())
    tokens = (
        RawToken(TokenUse.USE_VALUE, None, 1, b"once"),
        RawToken(TokenUse.REGISTER, 4, 1, b"kept"),
        RawToken(TokenUse.REGISTER, 5, 1, b"too large to keep, yet good"),
    )
    (received,) = say_setup(there, SetupOptions(tokens=tokens))
    assert isinstance(received, e.SetupReceived)
    assert received.tokens == tuple(Token(1, token.value or b"") for token in tokens)
    assert there.session.statistics().token_cache_bytes == 20


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (RawToken(TokenUse.DELETE, 1), SessionCode.PROTOCOL_VIOLATION),
        (RawToken(TokenUse.USE_ALIAS, 1), SessionCode.PROTOCOL_VIOLATION),
    ],
)
def test_aliases_mean_nothing_in_setup(token: RawToken, code: int) -> None:
    there = fresh()
    say_setup(there, SetupOptions(tokens=(token,)))
    assert there.closed == code


# --- Before SETUP -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", DRAFTS)
def test_early_streams_are_read_after_setup_in_their_order(draft: int) -> None:
    there = fresh(draft)
    there.session.start(SetupOptions())
    fields = SubgroupHeader(4, 0, 0, 128, has_properties=False)
    data = subgroup_bytes(there.profile, fields, [(ObjectHeader(0, 1), b"x")])
    early = there.uni(data[:2])
    opener = m.SubscribeNamespace(0, (b"live",), options=1)
    there.side.receive(Bytes(40, m.encode(there.profile, opener)))
    assert there.session.statistics().early_streams == 2
    assert early not in there.side.transport.consumed_bytes
    there.side.receive(Bytes(early, data[2:]))
    assert there.side.take() == []
    say_setup(there, SetupOptions())
    assert [type(event).__name__ for event in there.side.take()] == ["SetupReceived", "SubscribeNamespaceRequested"]
    assert there.session.statistics().early_bytes == 0
    assert there.session.statistics().waiting_streams == 1


def test_early_streams_wait_for_our_start_too() -> None:
    there = fresh()
    say_setup(there, SetupOptions())
    there.open(m.Subscribe(0, TRACK))
    assert there.side.take()[1:] == []
    there.session.start(SetupOptions())
    assert there.session.next_deadline() == there.side.now
    assert [type(event).__name__ for event in there.side.wait(0.0)] == ["SubscribeRequested"]


def test_early_streams_are_limited_in_number() -> None:
    there = fresh(settings=SessionSettings(max_early_streams=2))
    there.session.start(SetupOptions())
    there.heard()
    streams = [there.open(m.Subscribe(2 * n, TRACK)) for n in range(3)]
    assert there.heard() == [(streams[2], ("reset", REFUSED)), (streams[2], ("stop", REFUSED))]
    assert there.side.receive(Bytes(streams[2], b"more")) == []
    say_setup(there, SetupOptions())
    assert len(there.side.take()) == 3


def test_early_bytes_are_limited() -> None:
    there = fresh(settings=SessionSettings(max_early_bytes=100))
    there.session.start(SetupOptions())
    there.heard()
    first = there.bidi_id()
    there.side.receive(Bytes(first, bytes(60)))
    second = there.uni(b"\x10" + bytes(60))
    assert there.heard() == [(second, ("stop", REFUSED))]
    there.side.receive(Bytes(first, bytes(60)))
    assert there.heard() == [(first, ("reset", REFUSED)), (first, ("stop", REFUSED))]
    assert there.session.statistics().early_bytes == 0


def test_early_stream_that_is_reset_is_forgotten() -> None:
    there = fresh()
    there.session.start(SetupOptions())
    stream = there.open(m.Subscribe(0, TRACK))
    there.reset(stream)
    say_setup(there, SetupOptions())
    assert [type(event) for event in there.side.take()] == [e.SetupReceived]


@pytest.mark.parametrize("draft", DRAFTS)
def test_setup_has_its_time(draft: int) -> None:
    there = fresh(draft, settings=SessionSettings(setup_timeout_s=3.0))
    there.session.start(SetupOptions(), 0.0)
    assert there.side.wait(2.9) == []
    assert there.side.wait(0.2) == [e.SessionClosed(SessionCode.CONTROL_MESSAGE_TIMEOUT, "no SETUP in time")]
    assert there.session.next_deadline() is None
    assert there.session.receive_stream(0, b"x", False, 5.0) == []


# --- The control stream -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("how", ["fin", "reset", "stop"])
def test_control_stream_never_ends(draft: int, how: str) -> None:
    there = Peer(draft, setup=SetupOptions())
    if how == "fin":
        there.side.receive(Bytes(there.control, fin=True))
    elif how == "reset":
        there.reset(there.control)
    else:
        there.stop(3 if draft >= 17 else there.control)
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_nothing_is_ready_before_all_of_setup_is_here() -> None:
    there = fresh()
    there.session.start(SetupOptions())
    data = m.encode(there.profile, m.Setup(SetupOptions(implementation="x")))
    stream = there.uni(data[:-1])
    assert (there.session.is_ready, there.side.take()) == (False, [])
    there.side.receive(Bytes(stream, data[-1:]))
    assert there.session.is_ready


def test_second_control_stream_is_a_violation() -> None:
    there = Peer(20, setup=SetupOptions())
    there.uni(m.encode(there.profile, m.Setup(SetupOptions())))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


@pytest.mark.parametrize("message", [m.Setup(SetupOptions()), m.Subscribe(0, TRACK), m.RequestOk()])
def test_control_stream_carries_goaway_and_nothing_else(message: m.Message) -> None:
    there = Peer(20, setup=SetupOptions())
    there.say(there.control, message)
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


@pytest.mark.parametrize("message", [m.RequestOk(), m.Goaway(""), m.Setup(SetupOptions()), m.RequestUpdate(0)])
def test_request_stream_begins_with_a_request(message: m.Message) -> None:
    there = Peer(20, setup=SetupOptions())
    there.open(message)
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_empty_request_stream() -> None:
    there = Peer(20, setup=SetupOptions())
    there.reset(there.bidi_id())
    assert there.heard() == [(0, ("reset", 1)), (0, ("stop", 1))]
    there.side.receive(Bytes(there.bidi_id(), b"\x03"))
    there.reset(4)
    assert there.heard() == [(4, ("reset", 1)), (4, ("stop", 1))]
    there.side.receive(Bytes(there.bidi_id(), fin=True))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_no_stream_for_setup() -> None:
    side = Side(20, is_client=True)
    side.transport.uni_credit = 0
    side.session.start(SetupOptions())
    assert side.wait(0.0) == [
        e.SessionClosed(SessionCode.INTERNAL_ERROR, "no unidirectional stream for SETUP is allowed")
    ]


def test_after_close_nothing_happens() -> None:
    there = Peer(20, setup=SetupOptions())
    there.session.close(SessionCode.UNAUTHORIZED, "go")
    there.session.close(SessionCode.NO_ERROR, "again")
    assert there.side.transport.closed == (SessionCode.UNAUTHORIZED, "go")
    assert there.session.is_closed
    assert there.session.subscribe(TRACK) is None
    there.session.goaway()
    assert there.side.receive(Bytes(4, b"x")) == []
    assert there.heard() == []
    assert there.session.receive_datagram(b"x", 0.0) == []
    assert there.session.receive_reset(4, 0, 0.0) == there.session.receive_stopped(4, 0, 0.0) == []


def test_settings_are_checked() -> None:
    with pytest.raises(MisuseError):
        SessionSettings(max_requests=-1)
    with pytest.raises(MisuseError):
        SessionSettings(request_window=0)
