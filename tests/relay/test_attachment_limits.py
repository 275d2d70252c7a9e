"""Limits as clients meet them: what counts, what is refused or slowed down, and what is given back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.relay.admitting import DRAFTS, LOCKED, RANGE, WIDE, counts, with_limits
from tests.sim.client import TRACK, Client
from tests.sim.world import World
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode
from tradewind.moqt.model import FullTrackName, Location, Parameters


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
