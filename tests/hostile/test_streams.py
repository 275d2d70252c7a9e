"""Streams and objects that break the rules: the draft's code or a named limit closes one session, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from relay.forwarding.book import ForwardingSettings
from relay.forwarding.cache import CacheLimits
from tests.hostile.town import Town, closed_with, flat
from tests.sim.client import TRACK, Client
from tests.sim.relay import node_settings
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import DoneCode, SessionCode
from tradewind.moqt.model import FullTrackName, Location, ObjectStatus, Parameters, SubgroupHeader
from tradewind.moqt.objects import encode_subgroup_header
from tradewind.moqt.parameters import RawParameters
from tradewind.quic.config import Limits
from tradewind.quic.events import StreamReset

DRAFTS = (20, 22, 18, 16)
MINE = FullTrackName((b"mine",), b"track")


@pytest.fixture(scope="module")
def town() -> Town:
    """One relay for all the attacks of this file: what one of them leaves behind, the next one meets."""
    return Town()


def attack_on(town: Town, draft: int = 20, **how: Any) -> Client:
    return town.join(draft, **how)


def publishing(town: Town, draft: int = 20) -> tuple[Client, FullTrackName]:
    """An attacker whose PUBLISH of a track that nobody had before was accepted: alias 7 stands for it."""
    attacker = attack_on(town, draft)
    track = FullTrackName((b"mine",), b"%d" % attacker.addresses[0][1])
    attacker.ask("publish", track, 7, Parameters(forward=True))
    town.run()
    return attacker, track


def raw_uni(attacker: Client, data: bytes, fin: bool = False) -> int:
    stream = attacker.connection.open_uni()
    assert stream is not None
    attacker.connection.offer(stream, (data,), fin)
    attacker.touch()
    return stream


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_stream_of_an_unknown_type(town: Town, draft: int) -> None:
    attacker = attack_on(town, draft)
    raw_uni(attacker, b"\x3f" * 40)
    town.live()
    assert closed_with(attacker) == SessionCode.PROTOCOL_VIOLATION
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("end", ["fin", "reset", "nothing"])
def test_streams_without_a_header(town: Town, draft: int, end: str) -> None:
    """As many as the relay allows, each with less than a header."""
    attacker, _ = publishing(town, draft)
    profile = attacker.session.profile
    header = encode_subgroup_header(profile, SubgroupHeader(7, 0, 0, 1))
    streams = []
    for _ in range(100):
        stream = attacker.connection.open_uni()
        if stream is None:
            break
        attacker.connection.offer(stream, (header[:2],), end == "fin")
        streams.append(stream)
    if end == "reset":
        attacker.touch()
        for stream in streams:
            attacker.connection.reset(stream, 0)
    attacker.touch()
    town.live()
    town.live(12.0)
    if end == "fin":
        assert closed_with(attacker) == SessionCode.PROTOCOL_VIOLATION
    else:  # A slow publisher looks the same. It has used up its own streams.
        assert attacker.is_open
        attacker.close()
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_fin_in_the_middle_of_an_object(town: Town, draft: int) -> None:
    attacker, _ = publishing(town, draft)
    stream = attacker.open_subgroup(7, 0)
    stream.object(0, b"half", announced=1000)
    stream.fin()
    town.live()
    assert closed_with(attacker) == SessionCode.PROTOCOL_VIOLATION
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_an_object_announced_huge(town: Town, draft: int) -> None:
    """16 MB is the limit of one object: its stream is stopped, or never grows."""
    attacker, _ = publishing(town, draft)
    too_large = attacker.open_subgroup(7, 0)
    too_large.object(0, b"", announced=2**40)
    town.live()
    assert attacker.is_open, "our limit is not the draft's"
    for number in range(20):
        attacker.open_subgroup(7, 1 + number).object(0, b"x", announced=16 * 1024 * 1024)
    town.live()
    held = town.node.forwarder.statistics().cache_bytes
    assert held < 200_000, "what is announced and not sent costs nothing"
    attacker.close()
    town.check()


def test_a_publisher_that_fills_the_cache() -> None:
    """64 MB would be the limit of a track; here 1 MB, of all tracks together 2 MB."""
    cache = CacheLimits(total_bytes=2_000_000, track_bytes=1_000_000, track_groups=8, age_s=30.0)
    town = Town(node_settings(forwarding=ForwardingSettings(cache=cache)))
    attackers = []
    for number in range(3):
        attacker = town.join()
        attacker.ask("publish", FullTrackName((b"mine",), b"%d" % number), 7, Parameters(forward=True))
        attackers.append(attacker)
    town.run()
    for group in range(12):
        for attacker in attackers:
            attacker.send_group(7, group, [bytes(50_000)] * 4)
        town.live(0.2)
        assert town.node.forwarder.statistics().cache_bytes < 3_200_000
    town.live(1.2)
    assert town.node.forwarder.statistics().cache_bytes < 2_200_000
    town.check()


def test_one_endless_group() -> None:
    cache = CacheLimits(total_bytes=2_000_000, track_bytes=500_000, track_groups=8, age_s=30.0)
    town = Town(node_settings(forwarding=ForwardingSettings(cache=cache)))
    attacker = town.join()
    attacker.ask("publish", MINE, 7, Parameters(forward=True))
    viewer = town.join()
    request = viewer.subscribe(MINE)
    town.run()
    stream = attacker.open_subgroup(7, 0)
    for number in range(100):
        stream.object(number, bytes([number]) * 20_000)
        if number % 10 == 0:
            town.live(0.05)
        town.run(0.02)
    town.run(0.5)
    assert town.node.forwarder.statistics().cache_bytes < 600_000
    assert [payload[0] for _, payload in viewer.objects(request)] == list(range(100))
    town.check()


def test_a_million_empty_objects_cost_what_they_are_counted_for() -> None:
    cache = CacheLimits(total_bytes=500_000, track_bytes=200_000, track_groups=8, age_s=30.0)
    town = Town(node_settings(forwarding=ForwardingSettings(cache=cache)))
    attacker = town.join()
    attacker.ask("publish", MINE, 7, Parameters(forward=True))
    town.run()

    def flood(group: int) -> None:
        stream = attacker.open_subgroup(7, group, has_properties=False)
        for number in range(3000):
            stream.object(number, b"x")
        stream.fin()
        town.live(0.5)

    for group in range(3):
        flood(group)
        assert town.node.forwarder.statistics().cache_bytes < 500_000
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_publisher_that_contradicts_itself(town: Town, draft: int) -> None:
    """One object with two payloads: the track is malformed and its subscribers are told; the session stays."""
    attacker, track = publishing(town, draft)
    viewer = attack_on(town, draft)
    request = viewer.subscribe(track)
    town.run()
    attacker.send_group(7, 0, [b"one"])
    town.run()
    attacker.send_group(7, 0, [b"two"])
    town.live()
    assert [done.status for done in viewer.told(e.PublishDone)] == [DoneCode.MALFORMED_TRACK]
    assert viewer.objects(request) == [(Location(0, 0), b"one")]
    assert attacker.is_open
    attacker.close()
    viewer.close()
    town.check()


@pytest.mark.parametrize("lie", ["after end of group", "after end of track", "two priorities", "gap over an object"])
def test_other_contradictions(town: Town, lie: str) -> None:
    attacker, track = publishing(town)
    viewer = attack_on(town)
    viewer.subscribe(track)
    town.run()
    stream = attacker.open_subgroup(7, 5, priority=10)
    stream.object(3, b"x")
    if lie == "after end of group":
        stream.object(4, status=ObjectStatus.END_OF_GROUP)
        stream.fin()
        attacker.open_subgroup(7, 5, 1).object(9, b"impossible")
    elif lie == "after end of track":
        stream.object(4, status=ObjectStatus.END_OF_TRACK)
        stream.fin()
        town.run()
        attacker.open_subgroup(7, 6).object(0, b"impossible")
    elif lie == "two priorities":
        attacker.open_subgroup(7, 5, priority=11)
    else:
        stream.object(5, b"y", properties=((0x3E, 3),))
    town.live()
    assert [done.status for done in viewer.told(e.PublishDone)] == [DoneCode.MALFORMED_TRACK]
    attacker.close()
    viewer.close()
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_one_alias_for_two_tracks(town: Town, draft: int) -> None:
    attacker, _ = publishing(town, draft)
    message = m.Publish(
        attacker.session._requests.take_id(), FullTrackName((b"mine",), b"other"), 7, RawParameters(), ()
    )
    data = m.encode(attacker.session.profile, message)
    if draft > 16:
        stream = attacker.connection.open_bidi()
        assert stream is not None
        attacker.connection.send(stream, data)
    else:
        attacker.connection.send(0, data)
    attacker.touch()
    town.live()
    assert closed_with(attacker) == SessionCode.DUPLICATE_TRACK_ALIAS
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_an_alias_used_again_for_the_same_track(town: Town, draft: int) -> None:
    attacker = attack_on(town, draft)
    for _ in range(20):
        request = attacker.ask("publish", MINE, 7, Parameters(forward=True))
        town.run(0.05)
        attacker.do("cancel", request)
        town.run(0.05)
    town.live()
    assert attacker.is_open
    attacker.close()
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_objects_under_aliases_that_nobody_knows(town: Town, draft: int) -> None:
    """They wait a second for a control message, in bounds; then they are stopped."""
    attacker = attack_on(town, draft)
    for number in range(100):
        stream = attacker.connection.open_uni()
        if stream is None:
            break
        header = encode_subgroup_header(attacker.session.profile, SubgroupHeader(1000 + number, 0, 0, 1))
        attacker.connection.offer(stream, (header, b"\x00\x40\x00" + bytes(4000)), False)
    for number in range(100):
        attacker.send_datagram(2000 + number, Location(0, 0), b"x" * 900)
    town.live(0.3)
    held = next(a for a in town.node.attachments.values() if a.connection.peer_address == attacker.addresses[0])
    statistics = held.session.statistics()
    assert statistics.waiting_streams <= 64
    assert statistics.waiting_bytes <= 256 * 1024
    town.live(3.0)
    assert held.session.statistics().waiting_streams == 0
    attacker.close()
    town.check()


@pytest.mark.parametrize("count", [0, 1, 2**40])
def test_publish_done_that_counts_wrong(town: Town, count: int) -> None:
    attacker, track = publishing(town)
    viewer = attack_on(town)
    viewer.subscribe(track)
    town.run()
    for group in range(3):
        attacker.send_group(7, group, [b"x"])
    town.run()
    attacker.do("publish_done", 0, DoneCode.TRACK_ENDED, count, "")
    town.live(1.0)
    late = attacker.connection.open_uni()
    assert late is not None
    town.live(8.0)
    assert [done.status for done in viewer.told(e.PublishDone)] == [DoneCode.TRACK_ENDED]
    assert len(viewer.arrivals[0]) == 3
    attacker.close()
    viewer.close()
    town.check()


def test_the_end_of_every_window_byte_by_byte() -> None:
    """Streams whose last bytes come first, one byte each, at the end of every receive window there is."""
    town = Town(node_settings(quic_limits=Limits(stream_window_bytes=32 * 1024, session_window_bytes=256 * 1024)))
    attacker = town.join()
    core: Any = attacker.connection._core
    for _ in range(7):
        stream = attacker.connection.open_uni()
        assert stream is not None
        limit = core.streams[stream].outgoing.limit
        frame = b"\x0e" + _varint(stream) + _varint(limit - 1) + b"\x01" + b"x"
        core.queue.signals.append((frame, (lambda *_: None, ())))
        attacker.endpoint.touch(attacker.connection)
        attacker.touch()
    town.live()
    held = next(a for a in town.node.attachments.values() if a.connection.peer_address == attacker.addresses[0])
    assert held.connection.statistics().held_bytes < 8 * 4096, "gaps cost nothing"
    stream = attacker.connection.open_uni()
    assert stream is not None
    frame = b"\x0e" + _varint(stream) + _varint(core.streams[stream].outgoing.limit) + b"\x01" + b"x"
    core.queue.signals.append((frame, (lambda *_: None, ())))
    attacker.endpoint.touch(attacker.connection)
    attacker.touch()
    town.live(1.0)
    assert attacker.closed is not None, "one byte beyond it is a violation"
    town.check()


def _varint(value: int) -> bytes:
    return (value | 0x8000_0000).to_bytes(4, "big")


def test_streams_of_one_byte_do_not_grow_memory(town: Town) -> None:
    attacker, _ = publishing(town)
    header = encode_subgroup_header(attacker.session.profile, SubgroupHeader(7, 0, 0, 1))

    def flood() -> int:
        for _ in range(5):
            for _ in range(40):
                stream = attacker.connection.open_uni()
                if stream is not None:
                    attacker.connection.offer(stream, (header,), False)
                    attacker.connection.reset(stream, 1)
            attacker.touch()
            town.run(0.05)
        town.live()
        return 200

    flat(town, flood)
    assert attacker.is_open
    attacker.close()
    town.check()


def test_nobody_is_told_what_broke_a_session(town: Town) -> None:
    """A subgroup stream whose third object is garbage: what came before is forwarded, nothing of what broke it is."""
    attacker, track = publishing(town)
    viewer = attack_on(town)
    request = viewer.subscribe(track)
    town.run()
    stream = attacker.open_subgroup(7, 0)
    stream.object(0, b"good")
    town.run()
    stream.raw(b"\x00\x01\x02\x04" + bytes(40))
    town.live()
    assert closed_with(attacker) == SessionCode.KEY_VALUE_FORMATTING_ERROR
    town.live(6.0)
    assert viewer.objects(request) == [(Location(0, 0), b"good")]
    assert [type(event) for event in viewer.connection_events] == [StreamReset]
    viewer.close()
    town.check()


def test_the_honest_track_is_nobody_elses(town: Town) -> None:
    """A stranger publishes the honest track's name with other objects: its own subscription ends, if any does."""
    attacker = attack_on(town)
    attacker.ask("publish", TRACK, 9, Parameters(forward=True))
    town.run()
    assert attacker.is_open
    attacker.close()
    town.check()
