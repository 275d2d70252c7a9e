"""One stream's two halves against slow obvious twins."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.quic.streams import CHUNK_OVERHEAD_BYTES, FinalSizeError, Incoming, Outgoing

BODY = bytes(Random(5).randbytes(400))


@st.composite
def fragments(draw):
    """A body cut anywhere, pieces overlapping and repeated, in any order."""
    size = draw(st.integers(0, len(BODY)))
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=12)))
    bounds = [0, *cuts, size]
    pieces = list(pairwise(bounds))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, size))
        pieces.append((start, draw(st.integers(start, size))))
    pieces = draw(st.permutations(pieces))
    return size, pieces


@given(fragments())
def test_incoming_gives_each_byte_once_and_in_order(case):
    size, pieces = case
    incoming = Incoming(1000)
    got, ended = b"", 0
    for start, stop in pieces:
        ready = incoming.receive(start, BODY[start:stop], stop == size)
        if ready is not None:
            got += ready[0]
            ended += ready[1]
        held = sum(len(chunk) + CHUNK_OVERHEAD_BYTES for chunk in incoming._chunks.values())
        assert incoming.held_bytes == held
        ends = [start + len(incoming._chunks[start]) for start in incoming._starts]
        assert all(end <= start for end, start in zip(ends, incoming._starts[1:])), "chunks overlap"
    assert got == BODY[:size]
    assert ended == 1
    assert incoming.finished
    assert incoming.held_bytes == 0


@pytest.mark.parametrize(
    "frames",
    [
        [(0, b"abc", True), (0, b"abcd", False)],
        [(0, b"abc", True), (0, b"ab", True)],
        [(4, b"x", False), (0, b"abc", True)],
        [(5, b"", True), (5, b"y", True)],
    ],
)
def test_incoming_holds_the_peer_to_its_final_size(frames):
    incoming = Incoming(100)
    with pytest.raises(FinalSizeError):
        for frame in frames:
            incoming.receive(*frame)


def test_incoming_reset_lets_go_of_what_was_held_and_is_told_once():
    incoming = Incoming(100)
    incoming.receive(10, b"later", False)
    assert incoming.held_bytes
    with pytest.raises(FinalSizeError):
        incoming.abandon(14)
    assert incoming.abandon(15)
    assert not incoming.abandon(15)
    assert incoming.held_bytes == 0
    assert incoming.receive(0, b"x", False) is None


def test_incoming_credit_moves_in_half_windows_and_never_past_the_end():
    incoming = Incoming(100)
    incoming.receive(0, bytes(60), False)
    assert not incoming.consume(49)
    assert incoming.consume(1)
    assert incoming.limit == 150
    assert not incoming.consume(1_000)
    assert incoming.consumed == 60
    incoming.receive(60, bytes(60), True)
    assert not incoming.consume(60)


@given(st.data())
def test_outgoing_delivers_everything_through_any_loss(data):
    """Random writes, packets, losses and acknowledgements; the receiver is a byte array."""
    outgoing = Outgoing(limit=0, control=False)
    written = b""
    received: dict[int, int] = {}
    flying: list[tuple[int, int, bool]] = []
    for _ in range(data.draw(st.integers(5, 40))):
        action = data.draw(st.sampled_from(["write", "send", "resend", "ack", "lose", "credit"]))
        if action == "write" and outgoing.open:
            parts = data.draw(st.lists(st.binary(max_size=30), max_size=3))
            outgoing.write(parts, data.draw(st.booleans()) and len(written) > 20)
            written += b"".join(parts)
        elif action == "credit":
            outgoing.limit += data.draw(st.integers(0, 50))
        else:
            step(outgoing, action, data.draw(st.integers(1, 25)), flying, received)
        assert outgoing.unsent_bytes == len(written) - outgoing.sent
        assert outgoing.blocked_bytes == max(0, len(written) - max(outgoing.sent, outgoing.limit))
        assert outgoing.sent <= max(outgoing.limit, 0)
    if outgoing.open:
        outgoing.write([], True)
    outgoing.limit = len(written)
    for _ in range(1000):
        for action in ("resend", "send", "ack"):
            step(outgoing, action, 25, flying, received)
        if outgoing.finished:
            break
    assert outgoing.finished
    assert bytes(received[offset] for offset in range(len(written))) == written
    assert not outgoing._parts


def step(outgoing, action, size, flying, received) -> None:
    if action == "send":
        offset, slices, taken = outgoing.take(size)
        fin = outgoing.fin and not outgoing.fin_sent and outgoing.sent == outgoing.end
        outgoing.fin_sent = outgoing.fin_sent or fin
        if taken or fin:
            note(received, offset, slices)
            flying.append((offset, offset + taken, fin))
    elif action == "resend" and outgoing.lost is not None:
        offset, slices, taken, more = outgoing.take_lost(size)
        assert more == (outgoing.lost is not None)
        note(received, offset, slices)
        flying.append((offset, offset + taken, False))
    elif action == "ack" and flying:
        outgoing.acknowledge(*flying.pop(size % len(flying)))
    elif action == "lose" and flying:
        outgoing.lose(*flying.pop(size % len(flying)))


def note(received, offset, slices) -> None:
    for value in b"".join(slices):
        assert received.setdefault(offset, value) == value
        offset += 1


def test_a_long_stream_keeps_no_acknowledged_parts():
    outgoing = Outgoing(limit=1 << 40, control=True)
    for number in range(5000):
        outgoing.write([bytes([number & 255]) * 10], False)
        offset, slices, size = outgoing.take(100)
        assert b"".join(slices) == bytes([number & 255]) * 10
        outgoing.acknowledge(offset, offset + size, False)
    assert len(outgoing._parts) < 100
