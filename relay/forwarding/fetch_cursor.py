"""The answer to one FETCH, or one fill, on its way to one subscriber, and what it waits for.

A fetch cursor walks through locations in the order that was asked for. It sends what the cache holds, passes over what
is known not to exist, waits for what an upstream fetch still owes, and marks the rest as unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.forwarding.absence import after, before
from relay.forwarding.cache import CachedObject, CachedSubgroup, TrackCache
from relay.forwarding.egress_order import FILL, STREAM_UNSENT_BYTES, Key, Outbox, Outcome, Turn
from relay.forwarding.peers import Sink
from relay.forwarding.range_filters import Sieve
from tradewind.moqt.errors import ResetCode
from tradewind.moqt.model import MAX_VARINT, GroupOrder, Location, ObjectStatus, RangeEnd

if TYPE_CHECKING:
    from relay.forwarding.subscription import Subscription


class Frontier:
    """How far an upstream fetch has told us everything: what lies before `known` is in the cache or does not exist."""

    __slots__ = ("done", "known", "timed_out", "unwanted", "waiters")

    def __init__(self) -> None:
        self.known: Location | None = None
        self.done = False
        self.timed_out = False
        self.waiters: list[FetchCursor] = []
        self.unwanted: Callable[[], None] | None = None
        """Called when the last of those who waited has gone before it was done."""

    def leave(self, waiter: FetchCursor) -> None:
        """Somebody waits no longer."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)
            if not self.waiters and not self.done and self.unwanted is not None:
                self.unwanted()

    def advance(self, location: Location | None, *, done: bool = False, timed_out: bool = False) -> None:
        """Everything up to and including `location` is settled; `done`: no more will come."""
        if location is not None and (self.known is None or location > self.known):
            self.known = location
        self.done = self.done or done
        self.timed_out = self.timed_out or timed_out
        self.wake()

    def wake(self) -> None:
        """Let who waits look again."""
        for waiter in self.waiters:
            waiter.wake()


class FetchCursor:
    """The answer to one FETCH, or one fill, on its way to one subscriber."""

    __slots__ = (
        "_broken",
        "_cache",
        "_finished",
        "_item",
        "_offset",
        "_pending",
        "_position",
        "default_priority",
        "end",
        "frontier",
        "handle",
        "opposed",
        "order",
        "outbox",
        "owner",
        "priority",
        "queued",
        "request",
        "sieve",
        "start",
        "turn",
        "waits_on",
    )

    def __init__(
        self,
        outbox: Outbox,
        cache: TrackCache,
        request: int,
        start: Location,
        end: Location,
        *,
        order: GroupOrder,
        priority: int,
        default_priority: int,
        frontier: Frontier | None,
        owner: Subscription | None = None,
        sieve: Sieve | None = None,
        finished: Callable[[], None] | None = None,
    ) -> None:
        self._finished = finished
        self.sieve = sieve
        self.outbox = outbox
        self.request = request
        self.start = start
        self.end = end
        self.order = order
        self.priority = priority
        self.default_priority = default_priority
        self.frontier = frontier
        self.owner = owner
        """The subscription that it fills; None for a FETCH."""
        self.turn = owner.turn if owner is not None else Turn()
        self.opposed = owner is not None and owner.order is not order
        self.queued = False
        self.handle: int | None = None
        self.waits_on: CachedSubgroup | None = None
        self._cache = cache
        self._position: Location | None = start if order is GroupOrder.ASCENDING else _descending_start(start, end)
        """The next location to account for; None: all are."""
        self._pending: Location | None = None
        """The last location passed that is not known to be absent: to be reported as unknown."""
        self._item: CachedObject | None = None
        """The object whose payload is being sent."""
        self._offset = 0
        self._broken = False
        if frontier is not None:
            frontier.waiters.append(self)

    @property
    def closed(self) -> bool:
        return self._position is None and self._item is None and self.handle is None

    def key(self) -> Key:
        group = self._position.group if self._position is not None else self.end.group
        if self.order is GroupOrder.DESCENDING:
            group = -group
        return self.priority, self.default_priority, int(self.opposed), group, FILL, 0

    def wake(self) -> None:
        self.outbox.push(self)

    def shift(self, index: int, item: CachedObject) -> None:
        """See `Cursor.shift`: a fetch finds its place by location."""

    def evict(self) -> None:
        """See `Cursor.evict`: half of an object was sent and the rest will not come."""
        self.abandon(ResetCode.UNKNOWN_OBJECT_STATUS)

    def send(self, sink: Sink, limit: int, now: float) -> tuple[int, Outcome]:
        """Hand over what is settled from where the last call stopped; see `Schedulable.send`."""
        if self.handle is None:
            if self._position is None and self._item is None:
                return 0, Outcome.IDLE
            self.handle = sink.open_fetch(self.request, self.order)
            if self.handle is None:
                return 0, Outcome.BLOCKED
            if self.owner is not None:
                self.owner.streams_opened += 1
                self.owner.joined(now)
        if sink.unsent(self.handle) >= STREAM_UNSENT_BYTES:
            return 0, Outcome.BLOCKED
        parts: list[bytes | memoryview] = []
        size, waits = 0, False
        while size < limit and not waits and not self._broken:
            if self._item is not None:
                step, waits = self._payload(self._item, parts, limit - size)
            elif self._position is not None:
                step, waits = self._next(sink, parts)
            else:
                break
            size += step
        if self._broken:  # Half of an object that will never be whole.
            self.abandon(ResetCode.UNKNOWN_OBJECT_STATUS)
            return 0, Outcome.IDLE
        done = self._position is None and self._item is None
        if (parts or done) and not sink.offer(self.handle, parts, done):
            self.abandon(ResetCode.CANCELLED)
            return 0, Outcome.IDLE
        if done:
            self._leave()
            return max(size, 1), Outcome.IDLE
        return size, Outcome.IDLE if waits else Outcome.MORE

    def _passes(self, item: CachedObject) -> bool:
        assert self.sieve is not None
        priority = self.default_priority if item.priority is None else item.priority
        return self.sieve.passes(item.subgroup, item.id, priority, item.properties)

    def reads(self, cache: TrackCache) -> bool:
        """Whether this is a fetch of the track with that cache."""
        return self._cache is cache

    def abandon(self, code: int) -> None:
        """Reset the stream, if it is open, and forget the rest."""
        if self.handle is not None:
            self.outbox.sink.reset(self.handle, code)
        self._position = self._item = None
        self._leave()

    def _next(self, sink: Sink, parts: list[bytes | memoryview]) -> tuple[int, bool]:
        """Go on to the next object, or to the end; returns bytes written and whether to wait."""
        assert self._position is not None and self.handle is not None
        position = self._position
        last = self.end if self.order is GroupOrder.ASCENDING else self._group_end(position.group)
        item = self._cache.next_from(position)
        gap_end = before(item.location) if item is not None and item.location <= last else last
        settled = item is not None and item.location == position
        if not settled and not self._cache.known_absent(position, gap_end):
            if self._upstream_owes(gap_end):
                return 0, True
            self._pending = gap_end
        if item is None or item.location > last:
            return self._finish_span(sink, parts, last)
        if self.sieve is not None and not self._passes(item):
            self._advance(item.location)
            return 0, False
        if item.status is not ObjectStatus.NORMAL:  # It only says what does not exist, as a gap does here.
            self._advance(item.location)
            return 0, False
        size = self._mark_unknown(sink, parts)
        header = sink.fetch_header(self.handle, item, self.default_priority)
        parts.append(header)
        self._item, self._offset = item, 0
        return size + len(header), False

    def _payload(self, item: CachedObject, parts: list[bytes | memoryview], limit: int) -> tuple[int, bool]:
        size = 0
        while self._offset < item.received and size < limit:
            piece = item.piece(self._offset, limit - size)
            parts.append(piece)
            self._offset += len(piece)
            size += len(piece)
        if self._offset < item.received:
            return size, False
        if not item.complete:
            self._watch(item)
            feeder = self.waits_on
            if feeder is None:  # It will be a datagram's: only our own fetch brings the rest.
                self._broken = self.frontier is None or self.frontier.done
            else:
                self._broken = feeder.evicted or feeder.reset_code is not None
            return size, not self._broken
        self._unwatch()
        self._item = None
        self._advance(item.location)
        return size, False

    def _advance(self, done: Location) -> None:
        """Everything up to `done` in this order is accounted for."""
        if self.order is GroupOrder.ASCENDING:
            self._position = after(done) if done < self.end else None
        elif done >= self._group_end(done.group):
            self._position = self._group_below(done.group)
        else:
            self._position = after(done)

    def _finish_span(self, sink: Sink, parts: list[bytes | memoryview], last: Location) -> tuple[int, bool]:
        """Nothing is held up to `last`: the end of the fetch, or of this group where groups descend."""
        size = 0
        if self.order is GroupOrder.ASCENDING:
            self._position = None
        else:
            size = self._mark_unknown(sink, parts)
            self._position = self._group_below(last.group)
        if self._position is None:
            size += self._mark_unknown(sink, parts)
        return size, False

    def _group_end(self, group: int) -> Location:
        return self.end if group == self.end.group else Location(group, MAX_VARINT)

    def _group_below(self, group: int) -> Location | None:
        """Where the next lower group that may hold something starts; None: the fetch is over."""
        if group <= self.start.group:
            return None
        lower = group - 1
        held = [known for known in self._cache.order if self.start.group <= known < group]
        floor = held[-1] if held else self.start.group
        if floor < lower:
            if not self._cache.known_absent(Location(floor + 1, 0), Location(lower, MAX_VARINT)):
                self._pending = Location(floor + 1, 0)
            lower = floor
        return self.start if lower == self.start.group else Location(lower, 0)

    def _mark_unknown(self, sink: Sink, parts: list[bytes | memoryview]) -> int:
        if self._pending is None:
            return 0
        assert self.handle is not None
        timed_out = self.frontier is not None and self.frontier.timed_out
        marker = sink.fetch_range_end(self.handle, RangeEnd.TIMED_OUT if timed_out else RangeEnd.UNKNOWN, self._pending)
        self._pending = None
        if marker:
            parts.append(marker)
        return len(marker)

    def _upstream_owes(self, location: Location) -> bool:
        frontier = self.frontier
        if frontier is None or frontier.done:
            return False
        return self.order is GroupOrder.DESCENDING or frontier.known is None or frontier.known < location

    def _watch(self, item: CachedObject) -> None:
        if self.waits_on is None and item.subgroup is not None:
            group = self._cache.groups.get(item.group)
            subgroup = group.subgroups.get(item.subgroup) if group else None
            if subgroup is not None:
                subgroup.cursors.append(self)
                self.waits_on = subgroup

    def _unwatch(self) -> None:
        if self.waits_on is not None:
            if self in self.waits_on.cursors:
                self.waits_on.cursors.remove(self)
            self.waits_on = None

    def _leave(self) -> None:
        self._unwatch()
        self.outbox.withdraw(self)
        self.handle = None
        if self.frontier is not None:
            self.frontier.leave(self)
        if self.owner is not None and self in self.owner.fetches:
            self.owner.fetches.remove(self)
            self.owner.settle()
        if self._finished is not None:
            finished, self._finished = self._finished, None
            finished()


def _descending_start(start: Location, end: Location) -> Location:
    return start if start.group == end.group else Location(end.group, 0)
