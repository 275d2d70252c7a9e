"""Tokens and roots as clients meet them: who is let in, and what is refused with which code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relay.access import Access, AccessSettings, Placement, Reason
from tests.relay.admitting import DRAFTS, LOCKED, RANGE, WIDE, counts
from tests.sim.client import Client, Served
from tests.sim.tokens import KEY, token
from tests.sim.world import World
from tradewind.contract.admission import mint_admission, relay_signer, viewer_digest
from tradewind.moqt import events as e
from tradewind.moqt.errors import RequestCode, SessionCode
from tradewind.moqt.model import FullTrackName, Location, Parameters, Token


def in_the_url(jwt: str) -> dict[str, Any]:
    return {"path": f"/live?jwt={jwt}"}


def in_setup(jwt: str) -> dict[str, Any]:
    return {"path": "/live", "tokens": (jwt,)}


@pytest.mark.parametrize("webtransport", [False, True])
@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("carry", [in_the_url, in_setup])
def test_a_token_lets_in(draft: int, webtransport: bool, carry: Callable[[str], dict[str, Any]]) -> None:
    world = World(access=LOCKED)
    publisher = world.join(draft, webtransport=webtransport, **carry(token("live", put=["shop"])))
    viewer = world.join(draft, webtransport=webtransport, **carry(token("live", get=["shop"])))
    track = FullTrackName((b"shop",), b"cam")
    served = publisher.serve(track)
    publisher.announce(track.namespace)
    world.run()
    request = viewer.subscribe(track)
    world.run()
    served.group(0, [b"x"])
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"x")]


@pytest.mark.parametrize(
    ("jwt", "code"),
    [
        ("", SessionCode.UNAUTHORIZED),
        ("rubbish", SessionCode.MALFORMED_AUTH_TOKEN),
        (token("live", get=[""])[:-6] + "AAAAAA", SessionCode.UNAUTHORIZED),
        (token("live", get=[""], expires_at=1.0), SessionCode.EXPIRED_AUTH_TOKEN),
        (token("elsewhere", get=[""]), SessionCode.UNAUTHORIZED),
    ],
    ids=["none", "rubbish", "forged", "expired", "elsewhere"],
)
@pytest.mark.parametrize("webtransport", [False, True])
@pytest.mark.parametrize("draft", [20, 16])
def test_a_token_that_does_not(draft: int, webtransport: bool, jwt: str, code: SessionCode) -> None:
    world = World(access=LOCKED)
    client = world.dial(draft=draft, webtransport=webtransport, **in_the_url(jwt))
    world.run(1.0)
    assert client.closed is not None
    assert (client.closed.code, client.closed.by_peer) == (code, True)
    assert not world.node.attachments
    assert world.relay.ended[0].attachment.refusal is not None


PLACED = relay_signer("control-1", bytes(32))


def placing(placement: Placement) -> World:
    access = Access((KEY,), AccessSettings(placement=placement, relay="eu-0"))
    return World(access=access.replace_admission_keys({"control-1": PLACED.key.public_key()}))


@pytest.mark.parametrize("carry", [in_the_url, in_setup])
@pytest.mark.parametrize("webtransport", [False, True])
@pytest.mark.parametrize("draft", [20, 16])
def test_a_placement_token_lets_in_once(draft: int, webtransport: bool, carry: Callable[[str], dict[str, Any]]) -> None:
    """It comes in the address, wherever the access token comes; its end is nothing to the session."""
    world = placing(Placement.REQUIRED)
    jwt = token("live", get=[""])
    admission = mint_admission(PLACED, viewer_digest(jwt), "live", ["eu-0"], world.network.wall_now, first_s=5)
    how = carry(jwt)
    how["path"] += f"{'&' if '?' in how['path'] else '?'}place={admission}"
    client = world.join(draft, webtransport=webtransport, **how)
    world.run(10.0)
    assert client.closed is None
    late = world.dial(draft=draft, webtransport=webtransport, **how)
    world.run(1.0)
    assert late.closed is not None and late.closed.code == SessionCode.UNAUTHORIZED
    assert [ended.attachment.refusal for ended in world.relay.ended] == [Reason.PLACEMENT_EXPIRED]


def test_nobody_comes_unplaced_where_placement_is_required() -> None:
    for placement, refusals in (
        (Placement.REQUIRED, [Reason.PLACEMENT_MISSING]),
        (Placement.OFFERED, []),
        (Placement.OFF, []),
    ):
        world = placing(placement)
        world.dial(**in_the_url(token("live", get=[""])))
        world.run(1.0)
        assert [ended.attachment.refusal for ended in world.relay.ended] == refusals


def test_a_public_path_needs_no_token() -> None:
    world = World(access=LOCKED)
    client = world.join(path="/lobby")
    refused = client.announce((b"x",))
    asked = client.subscribe(FullTrackName((b"x",), b"y"))
    world.run()
    assert client.refusal(refused) == RequestCode.UNAUTHORIZED
    assert client.refusal(asked) == RequestCode.DOES_NOT_EXIST, "allowed, but nobody publishes it"


@pytest.mark.parametrize("draft", DRAFTS)
def test_what_a_token_does_not_allow_is_refused(draft: int) -> None:
    """Every kind of request, and the session goes on."""
    world = World(access=LOCKED)
    viewer = world.join(draft, path="/live?jwt=" + token("live", get=["mine"]))
    other = FullTrackName((b"others",), b"cam")
    requests = {
        "subscribe": viewer.subscribe(other),
        "fetch": viewer.ask("fetch", other, RANGE),
        "track_status": viewer.ask("track_status", other),
        "publish": viewer.ask("publish", FullTrackName((b"mine",), b"cam"), 1),
        "publish_namespace": viewer.announce((b"mine",)),
        "subscribe_namespace": viewer.ask("subscribe_namespace", (b"others",)),
        "subscribe_tracks": viewer.ask("subscribe_tracks", (b"others",)),
    }
    allowed = [viewer.ask("subscribe_namespace", ())]
    if draft > 16:  # There both share one space of prefixes.
        allowed.append(viewer.ask("subscribe_tracks", (b"mine",)))
    world.run()
    assert {verb: viewer.refusal(number) for verb, number in requests.items()} == dict.fromkeys(
        requests, RequestCode.UNAUTHORIZED
    )
    assert all(isinstance(viewer.answer(number), e.RequestAccepted) for number in allowed)
    assert viewer.is_open
    assert counts(world) == [len(allowed)]


def test_what_may_not_be_read_is_not_told() -> None:
    world = World(access=LOCKED)
    publisher = world.join(path="/?jwt=" + WIDE)
    viewer = world.join(path="/?jwt=" + token("", get=["mine"]))
    viewer.ask("subscribe_namespace", ())
    viewer.ask("subscribe_tracks", ())
    for namespace in ((b"mine", b"a"), (b"others",), (b"mineral",)):
        publisher.announce(namespace)
        publisher.ask("publish", FullTrackName(namespace, b"cam"), 40 + len(namespace[0]), Parameters(forward=True))
    world.run()
    assert [event.namespace for event in viewer.told(e.NamespaceFound)] == [(b"mine", b"a")]
    assert [event.track.namespace for event in viewer.told(e.PublishRequested)] == [(b"mine", b"a")]


def without_rights(draft: int) -> tuple[World, Served, Client]:
    """A published track, and a viewer whose session's token says nothing of it."""
    world = World(access=LOCKED)
    publisher = world.join(draft, path="/?jwt=" + WIDE)
    served = publisher.serve()
    publisher.announce()
    viewer = world.join(draft, path="/?jwt=" + token("", get=["elsewhere"]))
    world.run()
    return world, served, viewer


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_request_with_a_token_of_its_own(draft: int) -> None:
    world, served, viewer = without_rights(draft)

    def carrying(jwt: str) -> int:
        return viewer.subscribe(tokens=(Token(0, jwt.encode()),))

    without = viewer.subscribe()
    world.run()
    assert viewer.refusal(without) == RequestCode.UNAUTHORIZED
    bad = {
        "rubbish": RequestCode.MALFORMED_AUTH_TOKEN,
        token("", get=[""], expires_at=1.0): RequestCode.EXPIRED_AUTH_TOKEN,
        token("no", get=[""]): RequestCode.UNAUTHORIZED,
    }
    for jwt, code in bad.items():
        request = carrying(jwt)
        world.run()
        assert viewer.refusal(request) == code
    request = carrying(token("demo", get=[""]))
    world.run()
    served.group(0, [b"x"])
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"x")]


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_request_ends_with_the_token_of_its_own(draft: int) -> None:
    world, served, viewer = without_rights(draft)
    jwt = token("demo", get=[""], expires_at=world.network.wall_now + 3)
    request = viewer.subscribe(tokens=(Token(0, jwt.encode()),))
    world.run()
    served.group(0, [b"in time"])
    world.run(5.0)
    served.group(1, [b"too late"])
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"in time")]
    assert viewer.is_open
    assert counts(world)[-1] == 0


def test_a_namespace_subscription_may_not_move_where_it_may_not_look() -> None:
    """The refusal ends it (draft-20, "REQUEST_UPDATE"), and nothing of it stays."""
    world = World(access=LOCKED)
    publisher = world.join(path="/?jwt=" + WIDE)
    viewer = world.join(path="/?jwt=" + token("", get=["mine"]))
    request = viewer.ask("subscribe_namespace", (b"mine",))
    world.run()
    viewer.do("update", request, Parameters(prefix=(b"others",)))
    world.run()
    assert [event.code for event in viewer.told(e.UpdateRefused)] == [RequestCode.UNAUTHORIZED]
    assert counts(world) == [0, 0]
    publisher.announce((b"mine", b"new"))
    world.run()
    assert not viewer.told(e.NamespaceFound)


def test_other_keys_count_from_now_on() -> None:
    world = World(access=LOCKED)
    early = world.join(path="/?jwt=" + WIDE)
    world.node.replace_access(Access(()))
    late = world.dial(path="/?jwt=" + WIDE)
    world.run(1.0)
    assert early.is_open
    assert late.closed is not None
