"""Admission: who may do what, checked against the slow, obvious way that moq-relay's documentation describes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.access import MAX_FIELDS, Access, AccessSettings, Grant, Reason, Refusal, split_target
from tradewind.contract.token import Claims, parse_keys, sign
from tradewind.moqt.errors import RequestCode, SessionCode
from tradewind.moqt.model import Namespace

NOW = 1_795_000_000.0
KEY = parse_keys(json.dumps({"kty": "oct", "alg": "HS256", "k": "c" * 43, "key_ops": ["sign", "verify"]}))[0]
ACCESS = Access((KEY,))


def token(root: str = "", put: Any = (), get: Any = (), **more: Any) -> str:
    return sign(Claims(root, tuple(put), tuple(get), **more), KEY)


def granted(answer: Grant | Refusal) -> Grant:
    assert isinstance(answer, Grant), answer
    return answer


def refused(answer: Grant | Refusal) -> Reason:
    assert isinstance(answer, Refusal), answer
    return answer.reason


def ns(path: str) -> Namespace:
    return tuple(field.encode() for field in path.split("/") if field)


# The table of moq-relay's doc/bin/relay/auth.md, "Path matching", and its neighbours.
@pytest.mark.parametrize(
    ("dialled", "may", "may_not"),
    [
        ("/demo/bar", ["demo/bar", "demo/bar/x"], ["demo", "demo/foo", "other", ""]),
        ("/demo", ["demo", "demo/bar"], ["other", ""]),
        ("/", ["demo", "demo/bar"], ["other", "", "demolition"]),
    ],
)
def test_where_a_client_dials(dialled: str, may: list[str], may_not: list[str]) -> None:
    grant = granted(ACCESS.grant(token("demo", put=[""]), dialled, NOW))
    assert [path for path in may + may_not if grant.may_publish(ns(path))] == may
    assert not any(grant.may_subscribe(ns(path)) for path in may)


def test_prefixes_stand_under_the_root() -> None:
    grant = granted(ACCESS.grant(token("rooms/123", put=["alice"], get=[""]), "/rooms/123", NOW))
    assert grant.root == ns("rooms/123")
    assert grant.may_publish(ns("rooms/123/alice/cam"))
    assert not grant.may_publish(ns("rooms/123/bob"))
    assert not grant.may_publish(ns("rooms/123/alices"))
    assert grant.may_subscribe(ns("rooms/123/bob"))
    assert not grant.may_subscribe(ns("rooms/124/bob"))


@pytest.mark.parametrize("dialled", ["/other", "/dem", "/demonstration", "/shop/demo"])
def test_elsewhere_is_refused(dialled: str) -> None:
    assert refused(ACCESS.grant(token("demo", put=[""]), dialled, NOW)) is Reason.OUTSIDE_TOKEN


def test_a_token_that_grants_nothing_here_is_refused() -> None:
    assert refused(ACCESS.grant(token("demo", put=["a"]), "/demo/b", NOW)) is Reason.OUTSIDE_TOKEN


@pytest.mark.parametrize(
    ("text", "reason", "session_code", "request_code"),
    [
        (None, Reason.TOKEN_MISSING, SessionCode.UNAUTHORIZED, RequestCode.UNAUTHORIZED),
        ("", Reason.TOKEN_MISSING, SessionCode.UNAUTHORIZED, RequestCode.UNAUTHORIZED),
        ("rubbish", Reason.TOKEN_MALFORMED, SessionCode.MALFORMED_AUTH_TOKEN, RequestCode.MALFORMED_AUTH_TOKEN),
        (token(get=[""])[:-4] + "AAAA", Reason.TOKEN_UNTRUSTED, SessionCode.UNAUTHORIZED, RequestCode.UNAUTHORIZED),
        (
            token(get=[""], expires_at=NOW),
            Reason.TOKEN_EXPIRED,
            SessionCode.EXPIRED_AUTH_TOKEN,
            RequestCode.EXPIRED_AUTH_TOKEN,
        ),
        (
            token(get=[""], not_before=NOW + 3600),
            Reason.TOKEN_NOT_YET_VALID,
            SessionCode.UNAUTHORIZED,
            RequestCode.UNAUTHORIZED,
        ),
    ],
)
def test_refusals(text: str | None, reason: Reason, session_code: SessionCode, request_code: RequestCode) -> None:
    answer = ACCESS.grant(text, "/live", NOW)
    assert isinstance(answer, Refusal)
    assert (answer.reason, answer.session_code, answer.request_code) == (reason, session_code, request_code)


def test_a_grant_ends_with_its_token_and_is_known_by_it() -> None:
    one = granted(ACCESS.grant(token(get=[""], expires_at=NOW + 60, subject="ann"), "/", NOW))
    again = granted(ACCESS.grant(token(get=[""], expires_at=NOW + 60, subject="ann"), "/live", NOW))
    other = granted(ACCESS.grant(token(get=[""], id="t7"), "/", NOW))
    assert (one.expires_at, one.subject, other.token_id) == (NOW + 60, "ann", "t7")
    assert one.token_id == again.token_id != other.token_id


def test_anonymous_is_for_development() -> None:
    dev = Access(settings=AccessSettings(anonymous=True))
    grant = granted(dev.grant(None, "/live", NOW))
    assert grant.may_publish(ns("live/x"))
    assert grant.may_subscribe(ns("live"))
    assert not grant.may_publish(ns("other"))
    assert grant.token_id is None
    assert granted(dev.grant("cannot be checked", "/live", NOW)) == grant
    # With keys a token is checked even in development.
    assert refused(Access((KEY,), dev.settings).grant("rubbish", "/live", NOW)) is Reason.TOKEN_MALFORMED


def test_public_prefixes_need_no_token() -> None:
    access = Access(settings=AccessSettings(public_publish=("anon",), public_subscribe=("anon", "demo")))
    anon = granted(access.grant(None, "/anon/room", NOW))
    assert anon.may_publish(ns("anon/room/cam"))
    assert not anon.may_publish(ns("anon/other"))
    top = granted(access.grant(None, "/", NOW))
    assert top.may_subscribe(ns("demo/x"))
    assert not top.may_publish(ns("demo/x"))
    assert refused(access.grant(None, "/secret", NOW)) is Reason.TOKEN_MISSING
    assert refused(access.grant("a.b.c", "/anon", NOW)) is Reason.TOKEN_UNWANTED


def test_only_known_paths_may_be_dialled() -> None:
    access = Access(settings=AccessSettings(paths=("/live", "demo"), anonymous=True))
    for known in ("/live", "/live/shop", "demo/"):
        assert granted(access.grant(None, known, NOW)).token_id is None
    for unknown in ("/", "/livestock", "/other"):
        answer = access.grant(None, unknown, NOW)
        assert refused(answer) is Reason.UNKNOWN_PATH
        assert isinstance(answer, Refusal)
        assert answer.session_code is SessionCode.INVALID_PATH


def test_nothing_is_public_by_default() -> None:
    assert refused(Access().grant(None, "/", NOW)) is Reason.TOKEN_MISSING


def test_discovery_asks_for_more_than_it_is_told() -> None:
    grant = granted(ACCESS.grant(token("live", get=["shop1"]), "/", NOW))
    assert [p for p in ("", "live", "live/shop1", "live/shop1/a", "live/shop2") if grant.may_discover(ns(p))] == [
        "",
        "live",
        "live/shop1",
        "live/shop1/a",
    ]
    assert not grant.may_subscribe(ns("live"))


def test_a_request_token_counts_for_that_request() -> None:
    session = granted(ACCESS.grant(token("live", get=[""], expires_at=NOW + 100), "/live", NOW))
    wider = granted(ACCESS.for_request(session, token("live", put=["a"], expires_at=NOW + 50), NOW))
    assert wider.may_publish(ns("live/a"))
    assert wider.may_subscribe(ns("live/b"))
    assert wider.expires_at == NOW + 50
    assert not session.may_publish(ns("live/a"))
    assert refused(ACCESS.for_request(session, "rubbish", NOW)) is Reason.TOKEN_MALFORMED
    assert refused(ACCESS.for_request(session, token("other", put=[""]), NOW)) is Reason.OUTSIDE_TOKEN
    assert refused(Access().for_request(session, "x", NOW)) is Reason.TOKEN_UNWANTED
    assert Access(settings=AccessSettings(anonymous=True)).for_request(session, "x", NOW) == session


def test_the_wire_and_the_relay_name_things_differently() -> None:
    grant = granted(Access(settings=AccessSettings(anonymous=True)).grant(None, "/live/shop", NOW))
    assert grant.to_global((b"cam",)) == ns("live/shop/cam")
    assert grant.to_wire(ns("live/shop/cam")) == (b"cam",)
    assert grant.to_wire(ns("live/shop")) == ()
    assert grant.to_wire(ns("live")) is None
    assert grant.to_wire(ns("live/other/cam")) is None
    assert grant.to_global((b"x",) * (MAX_FIELDS - 2)) is not None
    assert grant.to_global((b"x",) * (MAX_FIELDS - 1)) is None
    assert grant.to_global((b"x" * 5000,)) is None


def test_a_path_has_limits_too() -> None:
    dev = Access(settings=AccessSettings(anonymous=True))
    assert refused(dev.grant(None, "/x" * 33, NOW)) is Reason.BAD_PATH
    assert refused(dev.grant(None, "/" + "x" * 5000, NOW)) is Reason.BAD_PATH


@pytest.mark.parametrize(
    ("target", "path", "jwt"),
    [
        ("/live", "/live", None),
        ("/live?jwt=a.b.c", "/live", "a.b.c"),
        ("/live?x=1&jwt=&jwt=a%2Eb&jwt=", "/live", "a.b"),
        ("?jwt=a#f", "", "a"),
        ("/live?JWT=a", "/live", None),
        ("/live?" + "x" * 20_000 + "&jwt=a", "/live", None),
    ],
)
def test_targets(target: str, path: str, jwt: str | None) -> None:
    assert split_target(target) == (path, jwt)


# The slow twin: moq-relay's own words, on strings, for one whole path at a time.


def obviously_may(root: str, prefixes: list[str], dialled: str, whole: str) -> bool:
    """A path may be used where it is inside what was dialled and inside root + prefix, on whole segments."""

    def inside(path: str, prefix: str) -> bool:
        path, prefix = "/".join(filter(None, path.split("/"))), "/".join(filter(None, prefix.split("/")))
        return not prefix or path == prefix or path.startswith(prefix + "/")

    return inside(whole, dialled) and any(inside(whole, f"{root}/{prefix}") for prefix in prefixes)


def obviously_admitted(root: str, prefixes: list[str], dialled: str) -> bool:
    """A session is let in where anything at all could be done in it."""
    tails = ["", *(f"{root}/{prefix}" for prefix in prefixes)]
    return any(obviously_may(root, prefixes, dialled, tail) for tail in [*tails, dialled])


segments = st.sampled_from(["a", "b", "ab", "", "a/b"])
paths = st.lists(segments, max_size=4).map("/".join)


@given(root=paths, put=st.lists(paths, max_size=2), get=st.lists(paths, max_size=2), dialled=paths, asked=paths)
def test_scoping_agrees_with_the_obvious_way(
    root: str, put: list[str], get: list[str], dialled: str, asked: str
) -> None:
    if not put and not get:
        return
    answer = ACCESS.grant(token(root, put=put, get=get), dialled, NOW)
    assert isinstance(answer, Grant) == obviously_admitted(root, put + get, dialled)
    if isinstance(answer, Refusal):
        return
    whole = f"{dialled}/{asked}"
    namespace = answer.to_global(ns(asked))
    assert namespace == ns(whole)
    assert answer.may_publish(namespace) == obviously_may(root, put, dialled, whole)
    assert answer.may_subscribe(namespace) == obviously_may(root, get, dialled, whole)
    assert answer.to_wire(namespace) == ns(asked)
    if answer.may_subscribe(namespace):
        assert all(answer.may_discover(namespace[:length]) for length in range(len(answer.root), len(namespace) + 1))
