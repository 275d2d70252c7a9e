"""SUBSCRIBE and PUBLISH at one relay: one upstream subscription for all, who is answered what, and when."""

from __future__ import annotations

from relay.forwarding.book import ForwardingSettings
from tests.relay.forwarding.fakes import NAMESPACE, World
from tradewind.moqt.errors import RequestCode, ResetCode
from tradewind.moqt.model import FilterSubject, FullTrackName, Location, Parameters, RangeFilter


def test_one_upstream_subscription_however_many_viewers() -> None:
    world = World()
    ours, _ = world.serve()
    for viewer in range(3, 8):
        world.join(viewer)
        world.subscribe(viewer)
    assert world.peers[1].verbs().count("subscribe") == 1
    stream = world.open(1, ours, group=4)
    world.send(1, stream, 0, b"key")
    world.send(1, stream, 1, b"delta")
    world.close(1, stream)
    for viewer in range(2, 8):
        (out,) = world.sinks[viewer].streams
        assert out.objects == [(0, b"key"), (1, b"delta")]
        assert out.fin


def test_viewers_wait_for_subscribe_ok() -> None:
    world = World()
    world.join(1)
    viewer = world.join(2)
    world.announce(1)
    request = world.subscribe(2)
    assert viewer.said == []
    world.agree(1, largest=Location(3, 9), properties=((0x0E, 7), (0x21, b"x")))
    assert viewer.said == [("accept_subscribe", request, Location(3, 9), ((0x0E, 7), (0x21, b"x")))]


def test_refusal_is_passed_on() -> None:
    world = World()
    world.join(1)
    viewer = world.join(2)
    world.announce(1)
    request = world.subscribe(2)
    world.forwarder.receive_error(1, world.asked(1), RequestCode.DOES_NOT_EXIST, "no", world.now)
    assert viewer.said == [("reject", request, RequestCode.DOES_NOT_EXIST)]
    assert world.forwarder.statistics().tracks == 0


def test_nobody_publishes() -> None:
    world = World()
    viewer = world.join(2)
    request = world.subscribe(2)
    assert viewer.said == [("reject", request, RequestCode.DOES_NOT_EXIST)]
    assert world.forwarder.statistics().tracks == 0


def test_rendezvous_waits_for_a_publisher_and_gives_up_in_time() -> None:
    world = World()
    viewer = world.join(2)
    request = world.subscribe(2, parameters=Parameters(rendezvous_timeout_ms=3000))
    other = world.subscribe(2, FullTrackName(NAMESPACE, b"other"), Parameters(rendezvous_timeout_ms=1000))
    world.wait(1.5)
    assert viewer.said == [("reject", other, RequestCode.TIMEOUT)]
    world.join_publisher(1)
    assert viewer.said[-1][:2] == ("accept_subscribe", request)


def test_publisher_that_never_answers() -> None:
    world = World()
    publisher = world.join(1)
    viewer = world.join(2)
    world.announce(1)
    request = world.subscribe(2)
    world.wait(10)
    assert viewer.said == [("reject", request, RequestCode.TIMEOUT)]
    assert "cancel" in publisher.verbs()


def test_second_publisher_of_the_namespace_is_subscribed_as_well() -> None:
    world = World()
    world.serve()
    world.join(3)
    world.announce(3)
    assert world.asked(3) is not None


def test_duplicate_subscription_where_the_draft_forbids_it() -> None:
    world = World()
    world.serve(shares_subscriptions=False)
    request = world.subscribe(2)
    assert world.peers[2].said[-1] == ("reject", request, RequestCode.DUPLICATE_SUBSCRIPTION)


def test_publish_reaches_who_subscribed_to_tracks() -> None:
    world = World()
    viewer = world.join(2)
    world.forwarder.receive_subscribe_tracks(2, world.request(2), (b"live",), Parameters(), world.now)
    publisher = world.join(1)
    ours = world.publish(1)
    assert publisher.said[0][:2] == ("accept", ours)
    offered = world.asked(2, "publish")
    world.forwarder.receive_ok(2, offered, Parameters(), (), world.now)
    stream = world.open(1, ours, group=0)
    world.send(1, stream, 0, b"hello")
    assert world.sinks[2].streams[0].objects == [(0, b"hello")]
    assert viewer.verbs().count("publish") == 1


def test_publish_answers_a_waiting_subscribe_and_is_not_offered_to_it() -> None:
    world = World()
    viewer = world.join(2)
    world.forwarder.receive_subscribe_tracks(2, world.request(2), (b"live",), Parameters(), world.now)
    request = world.subscribe(2, parameters=Parameters(rendezvous_timeout_ms=5000))
    world.join(1)
    world.publish(1)
    assert ("accept_subscribe", request, None, ()) in viewer.said
    assert "publish" not in viewer.verbs()


def test_tracks_are_offered_by_their_properties() -> None:
    world = World()
    world.join(2)
    wanted = RangeFilter(FilterSubject.TRACK_PROPERTY, 0, 8, ((1, 1),))
    world.forwarder.receive_subscribe_tracks(2, world.request(2), (), Parameters(range_filters=(wanted,)), world.now)
    world.join(1)
    for name, value in ((b"no", 0), (b"yes", 1)):
        track = FullTrackName(NAMESPACE, name)
        world.forwarder.receive_publish(1, world.request(1), track, Parameters(), ((8, value),), world.now)
    offered = [entry[2] for entry in world.peers[2].said if entry[0] == "publish"]
    assert offered == [FullTrackName(NAMESPACE, b"yes")]


def test_forward_is_asked_for_when_somebody_wants_objects() -> None:
    world = World()
    publisher = world.join(1)
    ours = world.publish(1, parameters=Parameters(forward=False))
    world.join(2)
    request = world.subscribe(2, parameters=Parameters(forward=False))
    assert "update" not in publisher.verbs()
    world.forwarder.receive_update(2, request, 2, Parameters(forward=True), world.now)
    assert ("update", ours, Parameters(forward=True)) in publisher.said
    assert ("accept_update", request, 2, None) in world.peers[2].said


def test_forward_zero_sends_nothing() -> None:
    world = World()
    ours, request = world.serve()
    stream = world.open(1, ours, group=0)
    world.send(1, stream, 0, b"a")
    world.forwarder.receive_update(2, request, 2, Parameters(forward=False), world.now)
    world.send(1, stream, 1, b"b")
    assert world.sinks[2].streams[0].objects == [(0, b"a")]
    assert world.sinks[2].streams[0].code == ResetCode.CANCELLED
    world.forwarder.receive_update(2, request, 4, Parameters(forward=True), world.now)
    world.send(1, stream, 2, b"c")
    assert world.sinks[2].streams[1].objects == [(2, b"c")]


def test_new_group_request_goes_up_once() -> None:
    world = World()
    ours, request = world.serve(largest=Location(4, 0), properties=((0x30, 1),))
    for update in (2, 4):
        world.forwarder.receive_update(2, request, update, Parameters(new_group=5), world.now)
    wishes = [entry for entry in world.peers[1].said if entry[0] == "update"]
    assert wishes == [("update", ours, Parameters(new_group=5))]


def test_last_viewer_leaves_and_upstream_follows_after_a_while() -> None:
    world = World(ForwardingSettings(linger_s=2.0))
    ours, request = world.serve()
    world.forwarder.receive_cancel(2, request, world.now)
    world.wait(1.0)
    assert "cancel" not in world.peers[1].verbs()
    world.wait(1.5)
    assert ("cancel", ours) in world.peers[1].said
    assert world.forwarder.statistics().tracks == 0
