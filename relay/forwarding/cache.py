"""What a relay holds of one track: groups, their subgroups and objects, and what is known not to exist.

`track` fills it, cursors read it. Payload bytes exist here once, in the pieces in which they arrived; nothing is
copied or re-encoded for a subscriber. A location is in one of three states (draft-20, "Objects"): it exists, it is
known not to exist, or it is unknown, and only the first two may be told to others as facts.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.forwarding.absence import Intervals, after, before
from tradewind.moqt.model import MAX_VARINT, Location, ObjectStatus, Properties

if TYPE_CHECKING:
    from relay.forwarding.cursors import Cursor

JOINED_BYTES = 32 * 1024
"""How large a piece of payload may become by joining smaller ones: copying once is cheaper than many parts for all."""

OBJECT_OVERHEAD_BYTES = 512
"""What an object costs beside its payload, so that a flood of empty objects is bounded by bytes as well."""


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """Bounds of what one track may keep, and of all tracks together."""

    total_bytes: int = 512 * 2**20
    track_bytes: int = 64 * 2**20
    track_groups: int = 32
    age_s: float = 30.0


class CachedObject:
    """One object, whole or still arriving."""

    __slots__ = (
        "chunks",
        "encodings",
        "ends_group",
        "follows",
        "group",
        "id",
        "length",
        "priority",
        "properties",
        "received",
        "started_at",
        "status",
        "subgroup",
    )

    def __init__(
        self,
        group: int,
        id: int,
        subgroup: int | None,
        priority: int | None,
        length: int,
        status: ObjectStatus,
        properties: Properties,
        started_at: float,
    ) -> None:
        self.group = group
        self.id = id
        self.subgroup = subgroup
        """None: sent as a datagram."""
        self.priority = priority
        """None: the track's default."""
        self.length = length
        self.status = status
        self.properties = properties
        self.started_at = started_at
        self.received = 0
        self.chunks: list[bytes] = []
        self.follows: int | None = None
        """The object before it on an upstream stream: proof that nothing stands between them."""
        self.ends_group = False
        """A datagram that says that its group has no larger object."""
        self.encodings: dict[object, bytes] = {}
        """Headers already written for some draft; the sinks' own."""

    @property
    def location(self) -> Location:
        return Location(self.group, self.id)

    @property
    def complete(self) -> bool:
        return self.received == self.length

    def append(self, data: bytes) -> None:
        """Take the next bytes of the payload, in order."""
        self.chunks.append(data)
        self.received += len(data)

    def piece(self, offset: int, limit: int) -> bytes | memoryview:
        """Up to `limit` bytes of the payload from `offset` on, by reference; empty where no more has come.

        Payload comes in packets; whoever finds it in small pieces joins them, once for everybody who reads it later.
        """
        chunks, index, start = self.chunks, len(self.chunks), self.received
        if offset >= start:
            return b""
        while start > offset:
            index -= 1
            start -= len(chunks[index])
        data, at = chunks[index], offset - start
        if not at and len(data) < limit and index + 1 < len(chunks):
            data = self._join(index)
        if not at and len(data) <= limit:
            return data
        return memoryview(data)[at : at + limit]

    def payload(self) -> bytes:
        """All bytes so far, as one."""
        if len(self.chunks) != 1:
            self.chunks = [b"".join(self.chunks)]
        return self.chunks[0]

    def agrees(self, offset: int, data: bytes) -> bool:
        """Whether `data` at `offset` repeats what is here, as far as both reach."""
        overlap = min(self.received - offset, len(data))
        if overlap <= 0:
            return True
        position = 0
        for chunk in self.chunks:
            end = position + len(chunk)
            if end > offset:
                start = max(offset, position)
                stop = min(offset + overlap, end)
                if chunk[start - position : stop - position] != data[start - offset : stop - offset]:
                    return False
                if stop == offset + overlap:
                    break
            position = end
        return True

    def _join(self, index: int) -> bytes:
        """Make one piece of the one at `index` and what follows, as long as it stays small."""
        chunks = self.chunks
        end, size = index + 1, len(chunks[index])
        while end < len(chunks) and size + len(chunks[end]) <= JOINED_BYTES:
            size += len(chunks[end])
            end += 1
        if end > index + 1:
            chunks[index:end] = [b"".join(chunks[index:end])]
        return chunks[index]


class CachedSubgroup:
    """The objects of one subgroup in the order in which they are sent."""

    __slots__ = (
        "cursors",
        "dropped",
        "end_of_group",
        "evicted",
        "finished",
        "first_object",
        "group",
        "has_properties",
        "id",
        "objects",
        "priority",
        "reset_code",
        "sources",
        "timeouts_ms",
    )

    def __init__(
        self, group: int, id: int, priority: int | None, end_of_group: bool, first_object: bool, has_properties: bool
    ) -> None:
        self.group = group
        self.id = id
        self.priority = priority
        self.end_of_group = end_of_group
        self.first_object = first_object
        """`objects[0]` is the first ever published in the subgroup."""
        self.has_properties = has_properties
        self.objects: list[CachedObject] = []
        self.dropped = 0
        """Index `i` of a cursor is `objects[i - dropped]`: it grows as the cache lets objects go from the front, and
        shrinks as objects from the past come in before others."""
        self.finished = False
        self.reset_code: int | None = None
        self.evicted = False
        self.sources = 0
        """Upstream streams open on it now."""
        self.cursors: list[Cursor] = []
        """Downstream streams that read it."""
        self.timeouts_ms: tuple[int | None, int | None] = (None, None)
        """OBJECT_ and SUBGROUP_DELIVERY_TIMEOUT where its first object overrides the track's."""

    @property
    def end(self) -> int:
        """The index after the last object."""
        return self.dropped + len(self.objects)

    @property
    def last(self) -> CachedObject | None:
        return self.objects[-1] if self.objects else None

    def at(self, index: int) -> CachedObject:
        return self.objects[index - self.dropped]

    def index_from(self, object_id: int) -> int:
        """The index of the first object whose id is at least `object_id`."""
        return self.dropped + bisect_left(self.objects, object_id, key=lambda item: item.id)

    def insert(self, item: CachedObject) -> bool:
        """Put an object in its place; False where it came late and readers may have passed it."""
        if not self.objects or item.id > self.objects[-1].id:
            self.objects.append(item)
            return True
        place = bisect_left(self.objects, item.id, key=lambda known: known.id)
        index = self.dropped + place
        self.objects.insert(place, item)
        self.dropped -= 1
        for cursor in self.cursors:
            cursor.shift(index, item)
        return False

    def override_timeouts(self, properties: Properties) -> None:
        """Take delivery timeouts from the properties of the subgroup's first object."""
        values = dict(properties)
        chosen = [values.get(kind) for kind in (0x02, 0x06)]
        first, second = (value if isinstance(value, int) else None for value in chosen)
        self.timeouts_ms = (first, second)

    def wake(self) -> None:
        """Tell every reader that there is something new."""
        for cursor in self.cursors:
            cursor.wake()


class CachedGroup:
    """One group: its subgroups, every object by id, and what of it is known not to exist."""

    __slots__ = ("absent", "bytes", "final", "id", "objects", "opened_at", "order", "subgroups")

    def __init__(self, id: int, opened_at: float) -> None:
        self.id = id
        self.opened_at = opened_at
        self.subgroups: dict[int, CachedSubgroup] = {}
        self.objects: dict[int, CachedObject] = {}
        self.order: list[int] = []
        """Ids of `objects`, ascending."""
        self.absent = Intervals()
        self.final: int | None = None
        """The largest object id that exists, once known; -1: none does."""
        self.bytes = 0

    def insert(self, item: CachedObject) -> None:
        self.objects[item.id] = item
        if self.order and item.id < self.order[-1]:
            insort(self.order, item.id)
        else:
            self.order.append(item.id)

    def discard(self, item: CachedObject) -> None:
        if self.objects.get(item.id) is item:
            del self.objects[item.id]
            del self.order[bisect_left(self.order, item.id)]

    def next_from(self, object_id: int) -> CachedObject | None:
        """The first object held whose id is at least `object_id`."""
        index = bisect_left(self.order, object_id)
        return self.objects[self.order[index]] if index < len(self.order) else None

    def known_absent(self, start: int, end: int) -> bool:
        """Whether no object with id start..end exists, for certain."""
        held = self.next_from(start)
        if held is not None and held.id <= end:
            return False
        if self.final is not None:
            end = min(end, self.final)
        return self.absent.covers(start, end)


class TrackCache:
    """The groups of one track. `budget` counts the bytes of all tracks."""

    __slots__ = ("_budget", "absent_groups", "bytes", "end", "full", "groups", "limits", "order")

    def __init__(self, budget: CacheBudget) -> None:
        self._budget = budget
        self.limits = budget.limits
        self.full = False
        """Something was evicted for want of room: what is older than the oldest group has been here and went."""
        self.groups: dict[int, CachedGroup] = {}
        self.order: list[int] = []
        self.absent_groups = Intervals()
        self.end: Location | None = None
        """The first location that does not exist for ever: the track has ended there."""
        self.bytes = 0

    def group(self, group_id: int, now: float) -> CachedGroup:
        """The group with this id, made if it is not here."""
        found = self.groups.get(group_id)
        if found is None:
            found = self.groups[group_id] = CachedGroup(group_id, now)
            if self.order and group_id < self.order[-1]:
                insort(self.order, group_id)
            else:
                self.order.append(group_id)
            self._budget.opened(self, found)
        return found

    def charge(self, group: CachedGroup, size: int) -> None:
        """Count `size` more bytes held for `group`."""
        group.bytes += size
        self.bytes += size
        self._budget.used += size

    def next_from(self, location: Location) -> CachedObject | None:
        """The first object held at or after `location`."""
        index = bisect_left(self.order, location.group)
        while index < len(self.order):
            group = self.groups[self.order[index]]
            found = group.next_from(location.object if group.id == location.group else 0)
            if found is not None:
                return found
            index += 1
        return None

    def known_absent(self, start: Location, end: Location) -> bool:
        """Whether nothing exists from `start` to `end`, both inclusive, for certain."""
        if self.end is not None:
            if start >= self.end:
                return True
            if end >= self.end:
                end = before(self.end)
        if start > end:
            return True
        if start.group == end.group:
            return self._absent_in(start.group, start.object, end.object)
        return (
            self._absent_in(start.group, start.object, MAX_VARINT)
            and all(self._absent_in(gap, 0, MAX_VARINT) for gap in self.order if start.group < gap < end.group)
            and self._groups_absent(start.group + 1, end.group - 1)
            and self._absent_in(end.group, 0, end.object)
        )

    def first_unknown(self, start: Location, end: Location) -> Location | None:
        """The first location from `start` to `end` that is neither held nor known to be absent."""
        position = start
        while position <= end:
            item = self.next_from(position)
            gap_end = before(item.location) if item is not None and item.location <= end else end
            if (item is None or item.location != position) and not self.known_absent(position, gap_end):
                return position
            if item is None or item.location > end:
                return None
            position = after(item.location)
        return None

    def over_limits(self, now: float) -> bool:
        """Whether something of this track must go."""
        limits = self.limits
        if len(self.order) < 2:
            return self.bytes > limits.track_bytes
        oldest = self.groups[self.order[0]]
        return (
            self.bytes > limits.track_bytes
            or len(self.order) > limits.track_groups
            or now - oldest.opened_at > limits.age_s
        )

    def evict_oldest(self) -> int:
        """Let the oldest group go, or the oldest whole objects where only one group is left; returns how many."""
        if len(self.order) > 1:
            if self.bytes > self.limits.track_bytes:
                self._budget.evictions += 1
            return self.evict(self.order[0])
        return self._trim(self.groups[self.order[0]]) if self.order else 0

    def evict(self, group_id: int) -> int:
        """Let a group go: its locations become unknown and its readers are told. Returns the objects lost."""
        self.full = True
        group = self.groups.pop(group_id)
        del self.order[bisect_left(self.order, group_id)]
        self.bytes -= group.bytes
        self._budget.closed(self, group)
        for subgroup in group.subgroups.values():
            subgroup.evicted = True
            for cursor in tuple(subgroup.cursors):
                cursor.evict()
        return len(group.objects)

    def clear(self) -> None:
        for group_id in tuple(self.order):
            self.evict(group_id)
        self.absent_groups = Intervals()
        self.end = None
        self.full = False

    def check_invariants(self) -> None:
        assert self.order == sorted(self.groups)
        assert self.bytes == sum(group.bytes for group in self.groups.values())
        for group in self.groups.values():
            assert group.order == sorted(group.objects)
            for subgroup in group.subgroups.values():
                ids = [item.id for item in subgroup.objects]
                assert ids == sorted(set(ids))
                assert all(sum(map(len, item.chunks)) == item.received <= item.length for item in subgroup.objects)

    def _absent_in(self, group_id: int, start: int, end: int) -> bool:
        if group_id in self.absent_groups:
            return True
        group = self.groups.get(group_id)
        return group is not None and group.known_absent(start, end)

    def _groups_absent(self, start: int, end: int) -> bool:
        position = start
        for group_id in self.order:
            if position <= group_id <= end:
                if not self.absent_groups.covers(position, group_id - 1):
                    return False
                position = group_id + 1
        return self.absent_groups.covers(position, end)

    def _trim(self, group: CachedGroup) -> int:
        lost = 0
        target = self.limits.track_bytes * 3 // 4
        for subgroup in group.subgroups.values():
            while self.bytes > target and len(subgroup.objects) > 1 and subgroup.objects[0].complete:
                item = subgroup.objects.pop(0)
                subgroup.dropped += 1
                group.discard(item)
                self.charge(group, -(item.received + OBJECT_OVERHEAD_BYTES))
                lost += 1
            subgroup.wake()
        for item in [item for item in group.objects.values() if item.subgroup is None]:
            if self.bytes <= target:
                break
            group.discard(item)
            self.charge(group, -(item.received + OBJECT_OVERHEAD_BYTES))
            lost += 1
        return lost


class CacheBudget:
    """All tracks' bytes together, and which group is the oldest of all."""

    __slots__ = ("_ages", "evictions", "limits", "used")

    def __init__(self, limits: CacheLimits) -> None:
        self.limits = limits
        self.used = 0
        self.evictions = 0
        """Groups that went before their time, to make room."""
        self._ages: OrderedDict[tuple[int, int], tuple[TrackCache, CachedGroup]] = OrderedDict()

    def opened(self, cache: TrackCache, group: CachedGroup) -> None:
        self._ages[(id(cache), group.id)] = (cache, group)

    def closed(self, cache: TrackCache, group: CachedGroup) -> None:
        del self._ages[(id(cache), group.id)]
        self.used -= group.bytes

    def shrink(self) -> None:
        """Let the oldest groups of any track go until the total fits; a track's newest group goes last."""
        kept: list[tuple[int, int]] = []
        while self.used > self.limits.total_bytes and self._ages:
            key, (cache, group) = next(iter(self._ages.items()))
            if cache.order[-1] == group.id and len(kept) < len(self._ages):
                kept.append(key)
                self._ages.move_to_end(key)
                continue
            cache.evict(group.id)
            self.evictions += 1

    def expire(self, now: float) -> None:
        """Let every group go that is older than the limit and is not its track's newest."""
        stale = []
        for cache, group in self._ages.values():
            if now - group.opened_at <= self.limits.age_s:
                break
            if cache.order[-1] != group.id:
                stale.append((cache, group))
        for cache, group in stale:
            cache.evict(group.id)
