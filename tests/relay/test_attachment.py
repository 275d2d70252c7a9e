"""Tokens, roots and limits as clients meet them: who is let in, what is refused with which code, what is given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relay.access import Access, AccessSettings, Placement, Reason
from relay.limits import LimitSettings
from tests.sim.client import TRACK, Client, Served
from tests.sim.relay import node_settings
from tests.sim.tokens import KEY, token
from tests.sim.world import World
from tradewind.contract.admission import mint_admission, relay_signer, viewer_digest
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode, SessionCode
from tradewind.moqt.model import FilterKind, FullTrackName, Location, LocationFilter, Parameters, Token

DRAFTS = (20, 22, 18, 16)
LOCKED = Access((KEY,), AccessSettings(public_subscribe=("lobby",)))
WIDE = token("", put=[""], get=[""])
RANGE = LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=0)


def with_limits(access: Access | None = None, **limits: int) -> World:
    world = World(node_settings(limits=LimitSettings(**limits)))
    if access is not None:
        world.node.replace_access(access)
    return world


def counts(world: World) -> list[int]:
    """What counts against limits, session by session in the order in which they came."""
    return [len(found.quota.counted) for _, found in sorted(world.node.attachments.items()) if found.quota is not None]


# --- Tokens -----------------------------------------------------------------------------------------------------------


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


# --- Limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["sessions", "sessions_per_address", "sessions_per_token"])
def test_too_many_sessions(limit: str) -> None:
    world = with_limits(LOCKED, **{limit: 2})
    address = iter(range(10))

    def dial() -> Client:
        return world.dial(path="/?jwt=" + WIDE, address=("203.0.113.7", 2000 + next(address)))

    first, second, third = dial(), dial(), dial()
    world.run(1.0)
    assert first.is_open and second.is_open
    assert third.closed is not None
    assert third.closed.by_peer
    assert limit in third.closed.reason
    first.close()
    world.run(1.0)
    again = dial()
    world.run(1.0)
    assert again.is_open, "it was given back"


@pytest.mark.parametrize("draft", DRAFTS)
def test_too_many_subscriptions(draft: int) -> None:
    world = with_limits(subscriptions_per_session=2)
    world.publish(draft)
    viewer, other = world.join(draft), world.join(draft)
    tracks = [FullTrackName((b"demo",), b"%d" % number) for number in range(4)]
    requests = [viewer.subscribe(track) for track in tracks[:3]]
    world.run()
    refused = viewer.answer(requests[2])
    assert isinstance(refused, e.RequestRefused)
    too_many = viewer.session.profile.codes.request_to_wire(RequestCode.EXCESSIVE_LOAD)
    assert (refused.code, refused.retry_ms) == (too_many, 1000)
    mine = other.subscribe()
    world.run()
    assert isinstance(other.answer(mine), e.SubscribeAccepted), "each has its own"
    viewer.do("cancel", requests[0])
    again = viewer.subscribe(tracks[3])
    world.run()
    assert viewer.refusal(again) is None
    fetch = viewer.ask("fetch", tracks[0], RANGE)
    world.run()
    assert viewer.refusal(fetch) == too_many, "fetches count too"


@pytest.mark.parametrize("verb", ["publish_namespace", "subscribe_namespace", "subscribe_tracks"])
def test_too_many_namespaces(verb: str) -> None:
    world = with_limits(namespaces_per_session=2)
    client = world.join()
    requests = [client.ask(verb, (b"%d" % number,)) for number in range(3)]
    world.run()
    assert [client.refusal(request) for request in requests] == [None, None, RequestCode.EXCESSIVE_LOAD]
    client.do("cancel", requests[1])
    again = client.ask(verb, (b"again",))
    world.run()
    assert client.refusal(again) is None


def test_offers_count_as_subscriptions() -> None:
    """SUBSCRIBE_TRACKS is no way round the limit."""
    world = with_limits(subscriptions_per_session=2)
    viewer = world.join()
    viewer.ask("subscribe_tracks", ())
    for publisher in (world.join(), world.join()):
        for number in range(2):
            name = b"%d.%d" % (publisher.addresses[0][1], number)
            publisher.ask("publish", FullTrackName((b"demo",), name), number, Parameters(forward=True))
    world.run()
    assert len(viewer.told(e.PublishRequested)) == 2
    assert len(viewer.told(e.PublishSkipped)) == 2
    for offered in viewer.told(e.PublishRequested):
        viewer.do("reject", offered.request, RequestCode.UNINTERESTED, "")
    world.run()
    assert counts(world)[0] == 1


@pytest.mark.parametrize("draft", [20, 16])
def test_a_publisher_over_its_rate_is_slowed_down_and_loses_nothing(draft: int) -> None:
    """100 kB/s with a burst of two seconds: 1 MB takes about eight seconds, and other sessions notice nothing."""
    world = with_limits(bytes_per_s_per_session=100_000)
    fast, served = world.publish(draft)
    other, unhurried = world.publish(draft, track=FullTrackName((b"other",), b"video"))
    viewer = world.join(draft)
    request, second = viewer.subscribe(), viewer.subscribe(unhurried.track)
    world.run()
    start = world.network.now
    objects = [bytes([number]) * 25_000 for number in range(40)]
    served.group(0, objects)
    sent: list[float] = []
    for number in range(10):
        unhurried.group(number, [b"on time"])
        sent.append(world.network.now)
        world.run(0.5)
    world.until(lambda: len(viewer.objects(request)) == 40, within_s=20.0)
    assert 6.0 < world.network.now - start < 11.0
    assert [payload for _, payload in viewer.objects(request)] == objects
    delays = [when - at for (when, _), at in zip(viewer.arrivals[second], sent, strict=True)]
    assert max(delays) < 0.1
    assert fast.is_open and other.is_open


def test_datagrams_over_the_rate_are_dropped() -> None:
    """Nothing can make a datagram wait: while the bucket is in debt, what comes is not forwarded."""
    world = with_limits(bytes_per_s_per_session=20_000)
    publisher, served = world.publish()
    viewer = world.join()
    request = viewer.subscribe()
    world.run()
    for number in range(200):
        served.datagram(0, number, bytes(1000))
        world.run(0.005)
    world.run(1.0)
    assert 40 <= len(viewer.objects(request)) <= 80, "20 kB/s for a second, and the burst of two"
    assert publisher.is_open
    world.run(10.0)
    served.datagram(1, 0, b"later")
    world.run()
    assert viewer.locations(request)[-1] == Location(1, 0)


# --- Given back, however a request ends -------------------------------------------------------------------------------


def subscribe_and_cancel(world: World, publisher: Client, viewer: Client) -> None:
    request = viewer.subscribe()
    world.run()
    viewer.do("cancel", request)


def subscribe_to_nothing(world: World, publisher: Client, viewer: Client) -> None:
    viewer.subscribe(FullTrackName((b"no",), b"thing"))


def subscribe_and_wait_in_vain(world: World, publisher: Client, viewer: Client) -> None:
    viewer.subscribe(FullTrackName((b"no",), b"thing"), rendezvous_timeout_ms=500)
    world.run(1.0)


def subscribe_to_a_track_that_ends(world: World, publisher: Client, viewer: Client) -> None:
    viewer.subscribe()
    world.run()
    publisher._served[TRACK].group(0, [b"x"])
    publisher._served[TRACK].done(DoneCode.TRACK_ENDED, 1)


def subscribe_to_a_publisher_that_leaves(world: World, publisher: Client, viewer: Client) -> None:
    viewer.subscribe()
    world.run()
    publisher.close()
    world.run(10.0)


def subscribe_to_a_contradiction(world: World, publisher: Client, viewer: Client) -> None:
    viewer.subscribe()
    world.run()
    served = publisher._served[TRACK]
    served.group(0, [b"one"])
    world.run()
    served.group(0, [b"two"])


def fetch_and_read(world: World, publisher: Client, viewer: Client) -> None:
    viewer.ask("fetch", TRACK, RANGE)
    world.run()
    asked = publisher.told(e.FetchRequested)[-1]
    publisher.do("accept_fetch", asked.request, Location(0, 0), False)
    publisher.answer_fetch(asked.request, [(Location(0, 0), b"x")])


def fetch_and_cancel(world: World, publisher: Client, viewer: Client) -> None:
    request = viewer.ask("fetch", TRACK, RANGE)
    world.run()
    viewer.do("cancel", request)


def fetch_and_stop(world: World, publisher: Client, viewer: Client) -> None:
    """STOP_SENDING on the data stream alone."""
    viewer.ask("fetch", TRACK, RANGE)
    world.run()
    asked = publisher.told(e.FetchRequested)[-1]
    publisher.do("accept_fetch", asked.request, Location(0, 0), False)
    stream = publisher.open_fetch(asked.request)
    stream.object(Location(0, 0), bytes(300_000))
    world.run(0.03)
    if viewer.told(e.FetchOpened):
        viewer.connection.stop(viewer.told(e.FetchOpened)[-1].stream, 0x1)
        viewer.touch()


def fetch_without_an_answer(world: World, publisher: Client, viewer: Client) -> None:
    viewer.ask("fetch", TRACK, RANGE)
    world.run(6.0)


def publish_and_be_done(world: World, publisher: Client, viewer: Client) -> None:
    request = viewer.ask("publish", FullTrackName((b"mine",), b"x"), 3, Parameters(forward=True))
    world.run()
    viewer.send_group(3, 0, [b"x"])
    viewer.do("publish_done", request, DoneCode.TRACK_ENDED, 1, "")


def publish_and_never_send_what_was_counted(world: World, publisher: Client, viewer: Client) -> None:
    request = viewer.ask("publish", FullTrackName((b"mine",), b"x"), 3, Parameters(forward=True))
    world.run()
    viewer.do("publish_done", request, DoneCode.TRACK_ENDED, 17, "")
    world.run(8.0)


def publish_and_cancel(world: World, publisher: Client, viewer: Client) -> None:
    request = viewer.ask("publish", FullTrackName((b"mine",), b"x"), 3, Parameters(forward=True))
    world.run()
    viewer.do("cancel", request)


def announce_and_withdraw(world: World, publisher: Client, viewer: Client) -> None:
    request = viewer.announce((b"mine",))
    world.run()
    viewer.do("cancel", request)


def look_and_stop_looking(world: World, publisher: Client, viewer: Client) -> None:
    requests = viewer.ask("subscribe_namespace", (b"demo",)), viewer.ask("subscribe_tracks", (b"x",))
    world.run()
    for request in requests:
        viewer.do("cancel", request)


def accept_an_offer_that_ends(world: World, publisher: Client, viewer: Client) -> None:
    look = viewer.ask("subscribe_tracks", (b"pushed",))
    offer = publisher.ask("publish", FullTrackName((b"pushed",), b"x"), 9, Parameters(forward=True))
    world.run()
    offered = viewer.told(e.PublishRequested)[-1]
    viewer.do("accept", offered.request, Parameters(forward=True))
    world.run()
    publisher.do("publish_done", offer, DoneCode.TRACK_ENDED, 0, "")
    viewer.do("cancel", look)
    world.run(3.0)


def bad_update(world: World, publisher: Client, viewer: Client) -> None:
    """An update that the session itself refuses: a reserved namespace as prefix."""
    request = viewer.ask("subscribe_namespace", (b"demo",))
    world.run()
    if viewer.session.profile.draft >= 20:
        viewer.do("update", request, Parameters(prefix=(b".",)))
    else:
        viewer.do("cancel", request)


def reset_the_stream(world: World, publisher: Client, viewer: Client) -> None:
    request = viewer.subscribe()
    world.run()
    if viewer.session.profile.request_streams:
        stream = viewer.session._requests.table[request].stream
        viewer.connection.reset(stream, ResetCode.CANCELLED)
        viewer.touch()
    else:
        viewer.do("cancel", request)


ENDINGS = [
    subscribe_and_cancel, subscribe_to_nothing, subscribe_and_wait_in_vain, subscribe_to_a_track_that_ends,
    subscribe_to_a_publisher_that_leaves, subscribe_to_a_contradiction, fetch_and_read, fetch_and_cancel,
    fetch_and_stop, fetch_without_an_answer, publish_and_be_done, publish_and_never_send_what_was_counted,
    publish_and_cancel, announce_and_withdraw, look_and_stop_looking, accept_an_offer_that_ends, bad_update,
    reset_the_stream,
]  # fmt: skip


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
def test_given_back(draft: int, ending: Callable[[World, Client, Client], None]) -> None:
    world = World()
    publisher, _ = world.publish(draft)
    viewer = world.join(draft)
    ending(world, publisher, viewer)
    world.run(1.0)
    assert counts(world)[-1] == 0
    assert viewer.is_open
