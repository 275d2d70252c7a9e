"""What forwarding sees of a log, against a list; lineages, against a list of epochs; and what relays say, as bytes."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.rooms.effects import Entry, Outcome, Stored, Write, Written
from relay.rooms.log import RoomLog
from relay.rooms.standing import (
    Standing,
    StandingError,
    epoch_at,
    first_difference,
    opened,
    pack_standing,
    unpack_standing,
)
from tests.relay.rooms.town import ROOM, key_of
from tradewind.contract import copies
from tradewind.contract.copies import Answered, Carried, Copied, Copy, Run
from tradewind.contract.rooms import NO_CHAIN, RoomMessageError
from tradewind.moqt.model import Location, Range

counts = st.integers(0, 2**53)
starts = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12)), max_size=6)


def log_of(records: int, tail: int) -> RoomLog:
    log = RoomLog(ROOM, Stored(), tail)
    entries = tuple(Entry(key_of(seq), b"%d" % seq) for seq in range(records))
    write = Write(1, ROOM, 0, entries)
    log.apply(write, Written(1, ROOM, Outcome.STORED, {}))
    return log


@given(st.integers(0, 700), st.integers(0, 700), st.integers(0, 100), st.data())
def test_spans(records: int, visible: int, tail: int, data: st.DataObject) -> None:
    log = log_of(records, tail)
    log.show(visible)
    log.check_invariants()
    places = st.builds(Location, st.integers(0, 4), st.integers(0, 300))
    chosen = Range(data.draw(places), data.draw(st.none() | places))
    wanted = [seq for seq in range(min(visible, records)) if Location(*divmod(seq, 256)) in chosen]
    found = []
    for span in log.spans(chosen):
        seqs = list(range(span.first, span.first + span.count))
        found += seqs
        assert span.start == Location(*divmod(seqs[0], 256))
        assert len({seq // 256 for seq in seqs}) == 1
        assert span.closes_group == (seqs[-1] % 256 == 255)
        if span.payloads is not None:
            assert list(span.payloads) == [b"%d" % seq for seq in seqs]
        else:
            assert seqs[0] < records - tail
    assert found == wanted
    assert log.largest == (Location(*divmod(min(visible, records) - 1, 256)) if min(visible, records) else None)


def test_what_is_cut_is_not_seen() -> None:
    log = log_of(10, 4)
    log.show(9)
    log.apply(Write(2, ROOM, 5, cut_from=5), Written(2, ROOM, Outcome.STORED, {}, NO_CHAIN))
    assert (log.records, log.visible, log.withdrawn) == (5, 5, 5)
    assert log.newest(4, 1) is None
    log.show(9)
    log.check_invariants()


@given(starts, starts, st.integers(0, 15))
def test_lineages(ours: list[tuple[int, int]], theirs: list[tuple[int, int]], held: int) -> None:
    made = []
    for steps in (ours, theirs):
        lineage: tuple[Run, ...] = ()
        epochs: list[int] = []
        epoch = start = 0
        for more, longer in steps:
            epoch, start = epoch + more, start + longer
            lineage = opened(lineage, epoch, start)
            epochs[start:] = [epoch] * (100 - start)
            epochs = epochs if len(epochs) == 100 else [0] * start + [epoch] * (100 - start)
        made.append((lineage, epochs or [0] * 100))
        assert [epoch_at(lineage, seq) for seq in range(100)] == made[-1][1]
    (one, a), (other, b) = made
    slow = next((seq for seq in range(held) if a[seq] and b[seq] and a[seq] != b[seq]), held)
    assert first_difference(one, held, other) == slow
    standing = Standing(9, "a", 8, one)
    assert unpack_standing(pack_standing(standing)) == standing


@pytest.mark.parametrize("data", [b"", b"[]", b"[1,2,3,4]", b'[1,"a",1,[[1]]]', b"\xff"])
def test_what_is_no_standing(data: bytes) -> None:
    with pytest.raises(StandingError):
        unpack_standing(data)


MESSAGES = [
    Copy(ROOM, 3, (Run(1, 0), Run(3, 70)), 69, (b"one", b"two"), 5),
    Copied(ROOM, 3, 70, 71, True),
    Carried(ROOM, (b"ann", b"phone"), 7, b"pub"),
    Answered(ROOM, 7, b"ack"),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_between_relays(message: copies.BetweenRelays) -> None:
    data = copies.encode(message)
    assert copies.decode(data) == message
    for bad in (data[:-1], data + b"\0", b"", msgspec.msgpack.encode({"t": "other"})):
        with pytest.raises(RoomMessageError):
            copies.decode(bad)


@pytest.mark.parametrize("lineage", [(Run(2, 0), Run(1, 5)), (Run(1, 5), Run(2, 5))])
def test_a_lineage_grows(lineage: tuple[Run, ...]) -> None:
    with pytest.raises(RoomMessageError):
        copies.decode(copies.encode(Copy(ROOM, 3, lineage, 0)))


@given(st.sampled_from(MESSAGES), st.data())
def test_any_bytes_between_relays(message: copies.BetweenRelays, data: st.DataObject) -> None:
    whole = bytearray(copies.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for bad in (bytes(whole), data.draw(st.binary(max_size=60)), b"\x91" * 3000):
        with contextlib.suppress(RoomMessageError):
            copies.decode(bad)
