"""Sessions that come back, go away in order or run out of time; viewers that cannot keep up; and our own mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from relay.access import Access
from relay.attachment import HANDLERS, Attachment
from relay.node import Stage
from tests.sim.client import TRACK, Client
from tests.sim.network import CLEAR, mobile
from tests.sim.relay import node_settings
from tests.sim.tokens import KEY, token
from tests.sim.world import World
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode, SessionCode
from tradewind.moqt.model import FullTrackName, Location

DRAFTS = (20, 22, 18, 16)


@pytest.fixture
def world() -> World:
    return World()


# --- A publisher that comes back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("how", ["closes", "vanishes"])
def test_a_publisher_that_reconnects_continues_its_tracks(world: World, draft: int, how: str) -> None:
    publisher, served = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run()
    half = served.open(0)
    half.object(0, b"first")
    half.object(1, b"second", announced=10)
    world.run()
    if how == "closes":
        publisher.close()
    else:
        publisher.vanish()
    world.run(2.0)
    assert not viewer.told(e.PublishDone)
    _, again = world.publish(draft)
    assert len(again.feeds) == 1, "the relay asks by itself"
    whole = again.open(0)
    whole.object(0, b"first")
    whole.object(1, b"secondrest")
    whole.fin()
    again.group(1, [b"next"])
    world.run(0.5)
    if how == "vanishes":
        world.run(40.0)
    locations = [location for location in viewer.locations(request) if location != Location(0, 1)]
    assert locations == [Location(0, 0), Location(1, 0)]


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_same_bytes_go_on_where_they_stopped(world: World, draft: int) -> None:
    publisher, served = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run()
    half = served.open(0)
    half.object(0, b"first")
    half.object(1, b"sec", announced=6)
    world.run()
    publisher.close()
    world.run(1.0)
    _, again = world.publish(draft)
    again.group(0, [b"first", b"second", b"third"])
    world.run(0.5)
    assert viewer.objects(request) == [(Location(0, n), text) for n, text in enumerate([b"first", b"second", b"third"])]
    assert [closed.code for closed in viewer.told(e.SubgroupClosed)] == [None]


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_publisher_that_does_not_come_back(world: World, draft: int) -> None:
    publisher, _ = world.publish(draft)
    viewer = world.join(draft)
    viewer.subscribe()
    world.run()
    publisher.close()
    world.run(6.0)
    assert [done.status for done in viewer.told(e.PublishDone)] == [DoneCode.TRACK_ENDED]
    assert world.node.forwarder.statistics().namespaces == 0


@pytest.mark.parametrize("draft", DRAFTS)
def test_two_publishers_of_one_track(world: World, draft: int) -> None:
    """Losing one of two is nobody's business but the relay's."""
    first, one = world.publish(draft)
    _, two = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run()
    assert len(one.feeds) == len(two.feeds) == 1
    for served in (one, two):
        served.group(0, [b"same", b"bytes"])
    world.run()
    first.close()
    world.run()
    two.group(1, [b"on"])
    world.run(6.0)
    assert viewer.locations(request) == [Location(0, 0), Location(0, 1), Location(1, 0)]
    assert not viewer.told(e.PublishDone)


# --- Going away -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("webtransport", [False, True])
@pytest.mark.parametrize("draft", DRAFTS)
def test_a_drain_asks_waits_and_closes(world: World, draft: int, webtransport: bool) -> None:
    _, served = world.publish(draft, webtransport=webtransport)
    viewer = world.join(draft, webtransport=webtransport)
    request = viewer.subscribe()
    world.run()
    world.node.drain(world.network.now, 3.0)
    world.network.touch(world.relay)
    world.run()
    assert [event.request for event in viewer.told(e.GoawayReceived)] == [None]
    served.group(0, [b"still"])
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"still")], "media goes on during the grace time"
    assert world.node.stage is Stage.DRAINING
    late = world.dial(draft=draft, webtransport=webtransport)
    world.run(0.5)
    assert late.closed is not None, "nobody new is let in"
    world.run(3.0)
    assert world.node.stage is Stage.DRAINED
    assert viewer.closed is not None
    assert (viewer.closed.code, viewer.closed.by_peer) == (SessionCode.GOAWAY_TIMEOUT, True)


def test_a_drain_is_over_when_everybody_has_left(world: World) -> None:
    clients = [world.join(draft) for draft in DRAFTS]
    world.node.drain(world.network.now, 60.0)
    world.network.touch(world.relay)
    world.run()
    for client in clients:
        client.close()
    world.run(2.0)
    assert world.node.stage is Stage.DRAINED
    assert not world.node.attachments


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("webtransport", [False, True])
def test_a_drain_during_a_handshake(draft: int, webtransport: bool) -> None:
    """Whatever state a client is in when the drain begins."""
    for moment in range(12):
        world = World(seed=moment)
        client = world.dial(draft=draft, webtransport=webtransport)
        world.run(0.005 * moment)
        world.node.drain(world.network.now, 1.0)
        world.network.touch(world.relay)
        world.run(3.0)
        assert world.node.stage is Stage.DRAINED
        assert client.closed is not None


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_publisher_that_goes_away_in_order(world: World, draft: int) -> None:
    """PUBLISH_DONE with GOING_AWAY: another one, or itself elsewhere, continues."""
    publisher, served = world.publish(draft)
    viewer = world.join(draft)
    request = viewer.subscribe()
    world.run()
    served.group(0, [b"here"])
    world.run()
    served.done(DoneCode.GOING_AWAY, 1)
    world.run()
    publisher.close()
    world.run(1.0)
    _, again = world.publish(draft)
    again.group(1, [b"there"])
    world.run()
    assert viewer.objects(request) == [(Location(0, 0), b"here"), (Location(1, 0), b"there")]
    assert not viewer.told(e.PublishDone)


# --- Time runs out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_token_that_expires_ends_its_session(draft: int) -> None:
    world = World(access=Access((KEY,)))
    now = world.network.wall_now
    short = world.join(draft, path="/demo?jwt=" + token("demo", get=[""], expires_at=now + 5))
    long = world.join(draft, path="/demo?jwt=" + token("demo", get=[""], expires_at=now + 500))
    world.run(4.0)
    assert short.closed is None
    world.run(2.5)
    assert short.closed is not None
    assert short.closed.code == SessionCode.EXPIRED_AUTH_TOKEN
    assert long.closed is None


def test_a_client_that_says_nothing(world: World) -> None:
    """Without SETUP nobody stays."""
    client = world.dial()
    world.network.lossy = lambda data, source, target: source == client.addresses[0] and len(data) < 1200
    world.run(60.0)
    assert client.closed is not None
    assert not world.node.attachments


def test_an_idle_client_is_forgotten(world: World) -> None:
    client = world.join()
    client.vanish()
    world.run(31.0)
    assert not world.node.attachments
    assert not world.node.endpoints[0].statistics().connections


# --- Those who cannot keep up -----------------------------------------------------------------------------------------


FRAME = 12_500
"""At 10 frames a second this is 1 Mbit/s."""


def stream_video(world: World, served: Any, seconds: int, start: int = 0) -> list[Location]:
    """A group a second of 10 frames, one after the other as a live encoder gives them."""
    sent = []
    for group in range(start, start + seconds):
        stream = served.open(group)
        for number in range(10):
            stream.object(number, bytes([group, number]) * (FRAME // 2))
            sent.append(Location(group, number))
            world.run(0.1)
        stream.fin()
    return sent


def test_a_slow_viewer_skips_to_the_newest_group_and_stalls_nobody(world: World) -> None:
    """1 Mbit/s of video over 600 kbit/s with 2 % loss: some groups are cut, what comes is fresh and in order."""
    _, served = world.publish()
    good, slow = world.join(), world.join()
    requests = [viewer.subscribe() for viewer in (good, slow)]
    world.run()
    world.network.set_weather(world.relay.addresses[0], slow.addresses[0], mobile(600, loss=0.02))
    start = world.network.now
    sent = stream_video(world, served, 20)
    world.run(3.0)
    assert good.locations(requests[0]) == sent, "the other one has everything"
    assert max(when - start - (at.group + at.object / 10) for when, at in lateness(good, requests[0])) < 0.3
    came = lateness(slow, requests[1])
    assert 60 < len(came) < 160, "about six tenths of it"
    assert all(found.payload == bytes(at) * (FRAME // 2) for found, (_, at) in zip(slow.received(requests[1]), came))
    late = [when - start - (at.group + at.object / 10) for when, at in came]
    assert max(late) < 3.0, "the limit, and the time that what was handed over needs"
    groups = {location.group for location in slow.locations(requests[1])}
    assert max(groups) >= 18
    for group in groups:
        numbers = [location.object for location in slow.locations(requests[1]) if location.group == group]
        assert numbers == sorted(numbers)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "nothing left out inside a stream"
    assert world.node.forwarder.statistics().cache_bytes < 3 * 10 * FRAME * 32


def lateness(client: Client, request: int) -> list[tuple[float, Location]]:
    return [(when, found.location) for when, found in client.arrivals[request]]


def test_a_link_that_gets_better(world: World) -> None:
    _, served = world.publish()
    viewer = world.join()
    request = viewer.subscribe()
    world.run()
    world.network.set_weather(world.relay.addresses[0], viewer.addresses[0], mobile(300))
    stream_video(world, served, 5)
    world.network.set_weather(world.relay.addresses[0], viewer.addresses[0], CLEAR)
    stream_video(world, served, 5, start=5)
    world.run(1.0)
    assert [at for at in viewer.locations(request) if at.group >= 7] == [
        Location(group, number) for group in (7, 8, 9) for number in range(10)
    ]


def test_late_joiner_during_video(world: World) -> None:
    """Without a fill: from the next object on, at once."""
    _, served = world.publish()
    world.join().subscribe()
    world.run()
    stream_video(world, served, 2)
    late = world.join()
    request = late.subscribe()
    world.run()
    stream_video(world, served, 1, start=2)
    world.run()
    assert late.locations(request)[-10:] == [Location(2, number) for number in range(10)]


# --- Our own mistakes -------------------------------------------------------------------------------------------------


def test_a_mistake_of_ours_ends_one_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error nobody thought of is raised while one session speaks: that one is closed, the others see nothing."""
    _, served = world.publish()
    good, bad = world.join(), world.join()
    request = good.subscribe()
    world.run()
    victim = max(world.node.attachments)

    def fail(attachment: Attachment, event: e.SubscribeRequested) -> None:
        if attachment.id == victim:
            raise ZeroDivisionError(str(event.track))
        attachment.on_subscribe(event)

    monkeypatch.setitem(HANDLERS, e.SubscribeRequested, fail)
    world.relay.forgives = (ZeroDivisionError,)
    bad.subscribe(FullTrackName((b"demo",), b"poison"))
    world.run()
    assert bad.closed is not None
    assert bad.closed.code == SessionCode.INTERNAL_ERROR
    assert [(fault.session, type(fault.error)) for fault in world.relay.forgiven] == [(victim, ZeroDivisionError)]
    served.group(0, [b"on"])
    world.run()
    assert good.objects(request) == [(Location(0, 0), b"on")]
    assert good.refusal(good.subscribe(TRACK)) is None
    assert RequestCode.INTERNAL_ERROR not in {event.code for event in good.told(e.RequestRefused)}


def test_nothing_is_lost_with_a_tiny_turn() -> None:
    """A turn that may send one datagram at a time sends everything in more turns."""
    world = World(node_settings(turn_datagrams=1, turn_handshakes=1))
    _, served = world.publish()
    viewers = [world.join() for _ in range(5)]
    requests = [viewer.subscribe() for viewer in viewers]
    world.run()
    served.group(0, [bytes(100_000)] * 3)
    world.run(2.0)
    for viewer, request in zip(viewers, requests, strict=True):
        assert [len(payload) for _, payload in viewer.objects(request)] == [100_000] * 3
