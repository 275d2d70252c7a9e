"""New Session URIs: that they can be dialled as they are, whom they admit, and what they never say."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from relay.access import Access, AccessSettings, Grant, Placement, split_target
from relay.leaving import MAX_URI_BYTES, Here, NoUri, NowhereReason, dialled, new_uri
from relay.placing import Placing
from tests.sim.tokens import KEY, token
from tradewind.contract.admission import admission_keys, admission_of, announced_key, relay_signer
from tradewind.contract.messages import MarketEntry, RelayEntry, RouteTable
from tradewind.placing.policy import Reason

NOW, WALL = 100.0, 1_800_000_000.0
OWN = relay_signer("eu-0", bytes(range(32)))
TOKEN = token("live", get=[""])
HERE = Here(7, "192.0.2.9", 0.020, None)


def entry(id: str, region: str = "eu", **more: object) -> RelayEntry:
    fields = {"stage": "serving", "load": 0.1, "headroom_sessions": 700, "placement_key": announced_key(OWN)}
    made = RelayEntry(id, region, f"https://{id}.example:4433", (id, 443), **fields)  # type: ignore[arg-type]
    return replace(made, **more)


def table(*relays: RelayEntry, **more: object) -> RouteTable:
    return replace(RouteTable("mesh", "eu-0", 7, 41, WALL, (), relays, ()), **more)


FOUR = table(*(entry(f"eu-{number}") for number in range(4)))


def placing(made: RouteTable | None = FOUR, stage: str = "draining") -> Placing:
    found = Placing("eu-0", OWN, [])
    if made is not None:
        found.apply_table(made, NOW)
    found.note_stage(stage, NOW)  # type: ignore[arg-type]
    return found


def asked(
    target: str, access: str | None = None, *, webtransport: bool = True, made: Placing | None = None, here: Here = HERE
) -> str | NowhereReason:
    """Where a session goes that dialled `target`, with `access` in SETUP where it is not in there."""
    token_ = split_target(target)[1] or access
    return new_uri(made or placing(), dialled(target, token_, webtransport=webtransport), here, NOW, WALL)


def admitted(uri: str | NowhereReason, access: str | None = None) -> bool:
    """Whether the relay that a URI names lets in who dials it as it is, and shows `access` in SETUP."""
    assert isinstance(uri, str), uri
    parts = urlsplit(uri)
    relay = str(parts.hostname).partition(".")[0]
    settings = AccessSettings(placement=Placement.REQUIRED, relay=relay)
    rules = Access((KEY,), settings, admission_keys(FOUR))
    target = f"{parts.path}?{parts.query}"
    path, jwt = split_target(target)
    return isinstance(rules.grant(jwt or access, path, WALL + 1, admission_of(target)), Grant)


# --- What it says ---


def test_who_came_with_a_token_in_the_query_comes_so_again() -> None:
    uri = asked(f"/live/shop1?jwt={TOKEN}&place=old&debug=1&place=older")
    assert isinstance(uri, str) and admitted(uri)
    assert uri.startswith("https://eu-") and f"/live/shop1?jwt={TOKEN}&debug=1&place=" in uri
    assert uri.count("place=") == 1 and "eu-0." not in uri


def test_a_token_from_setup_is_in_no_uri() -> None:
    uri = asked("/live", TOKEN, webtransport=False)
    assert isinstance(uri, str) and uri.startswith("moqt://eu-")
    assert TOKEN not in uri and "jwt" not in uri
    assert admitted(uri, TOKEN)
    assert not admitted(uri), "without rights of its own it opens nothing"
    assert not admitted(uri, token("live", get=["other"])), "nor for somebody else"


@pytest.mark.parametrize(("target", "path"), [("", "/"), ("/", "/"), ("/live", "/live"), ("/live/", "/live/")])
def test_paths_stay_as_they_were_dialled(target: str, path: str) -> None:
    uri = asked(target, TOKEN, webtransport=False)
    assert isinstance(uri, str) and urlsplit(uri).path == path
    assert admitted(uri, TOKEN)


def test_it_admits_elsewhere_only_and_no_longer_than_the_access_token() -> None:
    uri = asked("/live", TOKEN, here=Here(7, "", 0.0, WALL + 0.5))
    assert not admitted(uri, TOKEN)
    assert admitted(asked("/live", TOKEN, here=Here(7, "", 0.0, WALL + 60)), TOKEN)


def test_its_repr_says_no_token() -> None:
    assert TOKEN not in repr(dialled(f"/live?jwt={TOKEN}", TOKEN, webtransport=True))


# --- When there is none ---


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (placing(None), Reason.NO_TABLE),
        (placing(table(entry("eu-0"))), Reason.NO_RELAY),
        (placing(table(entry("eu-0"), entry("eu-1", stage="draining"))), Reason.NO_RELAY),
        (placing(table(entry("eu-0"), entry("eu-1", load=1.0, headroom_sessions=0))), Reason.NO_CAPACITY),
        (placing(table(entry("eu-0"), entry("us-1", "us"), markets=(MarketEntry("*", ("eu",)),))), Reason.NO_RELAY),
    ],
)
def test_nowhere_to_go(made: Placing, reason: Reason) -> None:
    assert asked("/live", TOKEN, made=made) is reason


def test_never_here_whatever_the_table_and_the_stage_say() -> None:
    assert asked("/live", TOKEN, made=placing(table(entry("eu-0")), "serving")) is Reason.NO_RELAY


def test_a_relay_that_looks_dead_is_not_named() -> None:
    made = placing()
    made.note_suspects({"eu-1", "eu-2"}, NOW)
    names = {str(asked("/live", TOKEN, made=made, here=Here(n, "", 0.0, None)))[8:12] for n in range(20)}
    assert names == {"eu-3"}
    made.note_suspects((), NOW)
    names = {str(asked("/live", TOKEN, made=made, here=Here(n, "", 0.0, None)))[8:12] for n in range(20)}
    assert names == {"eu-1", "eu-2", "eu-3"}


@pytest.mark.parametrize(
    "target",
    [
        "/l\u00efve",
        "/live?x=\u00e9",
        "live",
        "/a b",
        "/a#b",
        '/a"b',
        "/live/../b",
        "/live/%2E",
        "/live?x=<y>",
        "/live?" + "x" * MAX_URI_BYTES,
        "/" + "x" * 4000,
    ],
)
def test_what_makes_no_uri_of_the_drafts(target: str) -> None:
    made = placing()
    assert asked(target, TOKEN, made=made) in {NoUri.UNFIT_TARGET, Reason.BAD_REQUEST}


def test_a_token_follows_no_uri_that_proves_nobody() -> None:
    def plain(host: str) -> Placing:
        return placing(table(entry("eu-0"), entry("eu-1", uri=f"http://{host}:4433")))

    assert asked(f"/live?jwt={TOKEN}", made=plain("192.0.2.1")) is NoUri.NOT_SAFE
    assert str(asked("/live", TOKEN, made=plain("192.0.2.1"))).startswith("http://192.0.2.1:4433/live?place=")
    assert str(asked(f"/live?jwt={TOKEN}", made=plain("127.0.0.1"))).startswith("http://127.0.0.1:4433/live?jwt=")
    raw = asked(f"/live?jwt={TOKEN}", made=plain("192.0.2.1"), webtransport=False)
    assert str(raw).startswith("moqt://192.0.2.1:4433/")


# --- Many ---

LIKELY = st.text('ab./#?%=&2e"+ place', max_size=20)


def test_those_of_one_token_and_address_spread() -> None:
    made = placing(table(*(entry(f"eu-{number}", load=0.5, headroom_sessions=100) for number in range(5))))
    went = Counter(
        urlsplit(str(asked("/live", TOKEN, made=made, here=Here(n, "192.0.2.9", 0.02, None)))).hostname
        for n in range(200)
    )
    assert len(went) == 4 and max(went.values()) <= 1.25 * 50


def test_no_relay_gets_more_than_it_can_take() -> None:
    relays = [entry("eu-0"), *(entry(f"eu-{n}", load=0.9, headroom_sessions=5) for n in range(1, 5))]
    made = placing(table(*relays))
    went = Counter(
        str(asked("/live", TOKEN, made=made, here=Here(n, "", 0.0, None))).partition("?")[0] for n in range(40)
    )
    places = {name: count for name, count in went.items() if name.startswith("https")}
    assert max(places.values()) <= 3, "up to 95 % of 50 sessions"
    assert went[str(Reason.NO_CAPACITY)] == 40 - sum(places.values())


def test_the_same_region_before_others() -> None:
    """Of somebody of whom nobody knows where it is we know that it is near to us."""
    there: dict[str, Any] = {"latitude": 50.0, "longitude": 8.0}
    far: dict[str, Any] = {"latitude": 1.0, "longitude": 103.0}
    relays = [entry("eu-0", **there), entry("eu-1", **there), *(entry(f"as-{n}", "as", **far) for n in range(6))]
    for number in range(20):
        uri = asked("/live", TOKEN, made=placing(table(*relays)), here=Here(number, "", 0.015, None))
        assert str(uri).startswith("https://eu-1.")


@given(st.text(max_size=60) | LIKELY, st.text(max_size=40) | LIKELY, st.booleans())
def test_any_target_gives_a_uri_that_admits_or_none(path: str, query: str, webtransport: bool) -> None:
    target = f"/live/{path}?{query}"
    uri = asked(target, TOKEN, webtransport=webtransport)
    if isinstance(uri, str):
        assert len(uri) <= MAX_URI_BYTES and uri.isascii() and uri.isprintable() and " " not in uri
        # Another token that stands in the query counts instead, now as before.
        assert admitted(uri, TOKEN) or split_target(target)[1] is not None
