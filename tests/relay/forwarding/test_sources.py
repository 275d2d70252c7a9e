"""What publishers send, merged by byte: cut, doubled, contradicting, out of order or ended."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay.forwarding.fakes import World
from tradewind.moqt.errors import DoneCode, ResetCode
from tradewind.moqt.model import ObjectHeader, ObjectStatus


def test_pieces_go_out_as_they_come() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=0)
    world.send(1, stream, 0, b"0123456789", upto=4)
    assert world.sinks[2].streams[0].objects == [(0, b"0123")]
    world.more(1, stream, b"456789")
    assert world.sinks[2].streams[0].objects == [(0, b"0123456789")]
    assert not world.sinks[2].streams[0].fin


@pytest.mark.parametrize("cut", range(1, 31))
def test_upstream_cut_at_every_byte_of_three_objects(cut: int) -> None:
    """A publisher dies after `cut` bytes; another one, or itself come back, sends the subgroup again from its start."""
    world = World()
    ours, _ = world.serve()
    objects = [b"first-----", b"second----", b"third-----"]
    stream = world.open(1, ours, group=7, first_object=True)
    sent = 0
    for number, payload in enumerate(objects):
        if sent <= cut:
            world.send(1, stream, number, payload, upto=min(len(payload), cut - sent))
        sent += len(payload)
    world.leave(1)
    (out,) = world.sinks[2].streams
    assert b"".join(payload for _, payload in out.objects) == b"".join(objects)[:cut]
    assert not out.fin
    assert out.code is None

    world.wait(1.0)
    again = world.join_publisher(3)
    stream = world.open(3, again, group=7, first_object=True)
    for number, payload in enumerate(objects):
        world.send(3, stream, number, payload)
    world.close(3, stream)
    (out,) = world.sinks[2].streams
    assert out.objects == list(enumerate(objects))
    assert out.fin
    assert "publish_done" not in world.peers[2].verbs()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_sources_merge_by_byte_in_any_interleaving(data: st.DataObject) -> None:
    """Two publishers send the same subgroup, each cut into pieces anyhow: a viewer gets each byte once, in order."""
    world = World()
    ours, _ = world.serve()
    theirs = world.join_publisher(3)
    payloads = data.draw(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=4))
    scripts = {}
    for session, request in ((1, ours), (3, theirs)):
        steps: list[tuple[int, bytes | None]] = []
        for number, payload in enumerate(payloads):
            steps.append((number, None))
            position = 0
            while position < len(payload):
                size = data.draw(st.integers(1, len(payload) - position))
                steps.append((number, payload[position : position + size]))
                position += size
        scripts[session] = (world.open(session, request, group=1), steps)
    while any(steps for _, steps in scripts.values()):
        session = data.draw(st.sampled_from([key for key, (_, steps) in scripts.items() if steps]))
        stream, steps = scripts[session]
        number, piece = steps.pop(0)
        if piece is None:
            header = ObjectHeader(number, len(payloads[number]))
            world.forwarder.intake.receive_object(session, stream, header, world.now)
            world.settle()
        else:
            world.more(session, stream, piece, last=False)
        if not steps:
            world.close(session, stream)
    (out,) = world.sinks[2].streams
    assert out.objects == list(enumerate(payloads))
    assert out.fin


@pytest.mark.parametrize("change", ["payload", "length", "status"])
def test_sources_that_contradict_each_other_end_the_track(change: str) -> None:
    world = World()
    ours, request = world.serve()
    theirs = world.join_publisher(3)
    first = world.open(1, ours, group=1)
    world.send(1, first, 0, b"same")
    second = world.open(3, theirs, group=1)
    if change == "status":
        world.send(3, second, 0, b"", status=ObjectStatus.END_OF_GROUP)
    else:
        world.send(3, second, 0, b"diff" if change == "payload" else b"longer")
    assert ("publish_done", request, DoneCode.MALFORMED_TRACK, 1) in world.peers[2].said
    assert world.sinks[2].streams[0].code == ResetCode.MALFORMED_TRACK
    assert ("cancel", ours) in world.peers[1].said
    assert ("cancel", theirs) in world.peers[3].said


def test_object_after_the_end_of_its_group() -> None:
    world = World()
    ours, request = world.serve()
    stream = world.open(1, ours, group=1, end_of_group=True)
    world.send(1, stream, 0, b"only")
    world.close(1, stream)
    stream = world.open(1, ours, group=1, subgroup=5)
    world.send(1, stream, 5, b"impossible")
    assert ("publish_done", request, DoneCode.MALFORMED_TRACK, 1) in world.peers[2].said


def test_stream_is_broken_where_an_object_may_be_missing() -> None:
    """The draft's next-Object rule: ids 0 and 3 from different upstream streams cannot share one downstream stream."""
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"zero")
    world.leave(1)
    again = world.join_publisher(3)
    stream = world.open(3, again, group=1)
    world.send(3, stream, 3, b"three")
    world.send(3, stream, 5, b"five")
    first, second = world.sinks[2].streams
    assert first.objects == [(0, b"zero")]
    assert first.code == ResetCode.CANCELLED
    assert second.objects == [(3, b"three"), (5, b"five")]
    assert second.code is None


def test_publish_done_waits_for_the_streams_it_counts() -> None:
    world = World()
    ours, request = world.serve()
    world.forwarder.receive_publish_done(1, ours, DoneCode.TRACK_ENDED, 1, "", world.now)
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"late")
    assert "publish_done" not in world.peers[2].verbs()
    world.close(1, stream)
    assert world.sinks[2].streams[0].fin
    assert ("publish_done", request, DoneCode.TRACK_ENDED, 1) in world.peers[2].said


def test_reset_upstream_is_reset_downstream_after_what_came() -> None:
    world = World()
    ours, _ = world.serve()
    stream = world.open(1, ours, group=1)
    world.send(1, stream, 0, b"whole")
    world.send(1, stream, 1, b"half-", upto=2)
    world.close(1, stream, ResetCode.DELIVERY_TIMEOUT)
    (out,) = world.sinks[2].streams
    assert out.objects == [(0, b"whole"), (1, b"ha")]
    assert out.code == ResetCode.DELIVERY_TIMEOUT
