"""What a session's sink writes, read back by the codec: a fetch of any cache, in any order, on any draft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.forwarding.cache import CacheBudget, CachedObject, CachedSubgroup, CacheLimits, TrackCache
from relay.forwarding.egress_order import Outbox, ReadyQueue
from relay.forwarding.fetch_cursor import FetchCursor
from relay.sink import SessionSink
from tests.moqt.pair import BY_DRAFT
from tradewind.moqt.fetched import FetchDecoder, RangeMark, decode_fetch_header
from tradewind.moqt.model import FetchObject, GroupOrder, Location, ObjectStatus, Properties
from tradewind.moqt.pieces import Piece
from tradewind.quic.connection import Connection
from tradewind.quic.egress import Offered, Part, Writable

DRAFTS = (20, 22, 18, 16)
PROPERTIES: list[Properties] = [(), ((2, 5),), ((0x21, b"x"),), ((2, 2**63),)]


class Egress:
    """One stream, written down, a few bytes of room at a time."""

    def __init__(self, room: int) -> None:
        self.data = bytearray()
        self.ended = False
        self._room = room

    def open_uni(self) -> int | None:
        return 3

    def offer(self, stream: int, parts: Sequence[Part], fin: bool) -> Offered:
        assert not self.ended
        self.data += b"".join(parts)
        self.ended = fin
        return Offered.TAKEN

    def unsent(self, stream: int) -> int:
        return 0

    def reset(self, stream: int, code: int) -> None:
        raise AssertionError("nothing is given up here")

    def writable_bytes(self, now: float) -> int:
        return self._room

    def writable(self, now: float) -> Writable:
        return Writable(self._room, 1, 1200)


@st.composite
def caches(draw: st.DrawFn) -> TrackCache:
    """Objects here and there, subgroups and datagrams, groups that have ended, and gaps that are known."""
    cache = TrackCache(CacheBudget(CacheLimits()))
    for group_id in draw(st.lists(st.integers(0, 9), max_size=6, unique=True)):
        group = cache.group(group_id, 0.0)
        for number in sorted(draw(st.lists(st.integers(0, 8), min_size=1, max_size=5, unique=True))):
            subgroup_id = draw(st.sampled_from([None, 0, 0, 1, 5]))
            payload = b"%d.%d" % (group_id, number) * draw(st.integers(0, 3))
            properties = draw(st.sampled_from(PROPERTIES))
            item = CachedObject(group_id, number, subgroup_id, 7, len(payload), ObjectStatus.NORMAL, properties, 0.0)
            if payload:
                item.append(payload)
            group.insert(item)
            if subgroup_id is not None:
                subgroup = group.subgroups.setdefault(
                    subgroup_id, CachedSubgroup(group_id, subgroup_id, 7, False, False, True)
                )
                subgroup.insert(item)
        if draw(st.booleans()):
            group.final = group.order[-1]
    for start in draw(st.lists(st.integers(0, 9), max_size=3)):
        if start not in cache.groups:
            cache.absent_groups.add(start, start)
    return cache


@given(
    cache=caches(),
    bounds=st.tuples(st.integers(0, 10), st.integers(0, 9), st.integers(0, 10), st.integers(0, 9)),
    order=st.sampled_from(GroupOrder),
    draft=st.sampled_from(DRAFTS),
    room=st.sampled_from([1, 7, 100, 10_000]),
)
@settings(max_examples=150, deadline=None)
def test_any_fetch_reads_back(
    cache: TrackCache, bounds: tuple[int, int, int, int], order: GroupOrder, draft: int, room: int
) -> None:
    start, end = sorted((Location(*bounds[:2]), Location(*bounds[2:])))
    profile = BY_DRAFT[draft]
    egress = Egress(room)
    outbox = Outbox(1, SessionSink(cast("Connection", egress), profile), ReadyQueue(), 512)
    cursor = FetchCursor(
        outbox, cache, 4, start, end, order=order, priority=1, default_priority=128, frontier=None
    )  # fmt: skip
    cursor.wake()
    for _ in range(2000):
        if egress.ended:
            break
        outbox.fill(0.0)
    assert egress.ended

    header = decode_fetch_header(profile, bytes(egress.data))
    assert header is not None and header[0] == 4
    decoder = FetchDecoder(profile, order)
    objects: list[tuple[Location, int | None, bytes]] = []
    marks: list[tuple[Location | None, Location]] = []
    for item in _items(decoder, bytes(egress.data[header[1] :])):
        match item:
            case FetchObject():
                objects.append((Location(item.group, item.header.id), item.subgroup, b""))
            case Piece():
                at, subgroup, payload = objects[-1]
                objects[-1] = (at, subgroup, payload + item.data)
            case RangeMark():
                marks.append((objects[-1][0] if objects else None, item.location))
    groups = sorted(cache.groups, reverse=order is GroupOrder.DESCENDING)
    expected = [
        (Location(group, number), cache.groups[group].objects[number].subgroup, cache.groups[group].objects[number])
        for group in groups
        for number in cache.groups[group].order
        if start <= Location(group, number) <= end
    ]
    assert objects == [(at, subgroup, item.payload() if item.chunks else b"") for at, subgroup, item in expected]
    sent = {at for at, _, _ in objects}
    assert not sent & {location for _, location in marks}
    for place in (Location(group, number) for group in range(11) for number in range(10)):
        if start <= place <= end and place not in sent and order is GroupOrder.ASCENDING:
            covered = any((after is None or after < place) and place <= location for after, location in marks)
            assert covered or cache.known_absent(place, place), f"{place} is neither here nor known to be absent"


def _items(decoder: FetchDecoder, data: bytes) -> list[object]:
    found = list(decoder.receive(data))
    decoder.finish()
    return cast("list[object]", found)
