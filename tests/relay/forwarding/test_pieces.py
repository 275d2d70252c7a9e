"""An object's payload in pieces: whoever reads it, from wherever, while it grows and pieces are joined."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.forwarding.cache import JOINED_BYTES, CachedObject
from tradewind.moqt.model import ObjectStatus


def made(length: int) -> CachedObject:
    return CachedObject(1, 0, 0, None, length, ObjectStatus.NORMAL, (), 0.0)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40_000)),
        st.tuples(st.integers(0, 2), st.sampled_from([1, 700, 4_096, 16_384, 100_000])),
    ),
    max_size=40,
)


@given(steps)
def test_every_reader_reads_what_came(plan: list[tuple[str | int, int]]) -> None:
    item, whole = made(1 << 30), b""
    offsets = [0, 0, 0]
    read = [b"", b"", b""]
    for what, size in plan:
        if what == "append":
            data = bytes((len(whole) + index) % 251 for index in range(size))
            item.append(data)
            whole += data
        else:
            assert isinstance(what, int)
            piece = item.piece(offsets[what], size)
            assert len(piece) <= size
            assert piece or offsets[what] == len(whole)
            offsets[what] += len(piece)
            read[what] += piece
        assert sum(map(len, item.chunks)) == item.received == len(whole)
    for offset, data in zip(offsets, read, strict=True):
        assert data == whole[:offset]


def test_small_pieces_are_joined_once_for_all() -> None:
    item = made(20_000)
    for _ in range(17):
        item.append(bytes(1200)[: 20_000 - item.received])
    first, second = item.piece(0, 24_576), item.piece(0, 24_576)
    assert first is second
    assert len(first) == 20_000


def test_joined_pieces_stay_small() -> None:
    item = made(1 << 20)
    while not item.complete:
        item.append(bytes(1024))
    offset = 0
    while piece := item.piece(offset, 1 << 20):
        offset += len(piece)
    assert offset == 1 << 20
    assert max(map(len, item.chunks)) <= JOINED_BYTES
