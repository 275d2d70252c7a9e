"""How far a subscriber has read: one cursor a downstream stream, one item a datagram, one cursor a fetch.

Cursors are what `egress_order` schedules. They take bytes from the cache by reference and hand them to the sink.
Inside a stream nothing is reordered or skipped: what cannot go on resets its stream, and says why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from relay.forwarding.cache import CachedObject, CachedSubgroup, TrackCache, after, before
from relay.forwarding.egress_order import STREAM_UNSENT_BYTES, Key, Outbox, Outcome, Turn
from relay.forwarding.peers import DropReason, Room, Sink
from relay.forwarding.range_filters import Sieve
from tradewind.moqt.errors import ResetCode
from tradewind.moqt.model import MAX_VARINT, GroupOrder, Location, ObjectStatus, RangeEnd, SubgroupHeader

if TYPE_CHECKING:
    from relay.forwarding.subscription import Subscription

FILL, DATAGRAM, SUBGROUP = 0, 1, 2
"""Ties inside one group: fill first, then datagrams, then subgroups (draft-20, "Scheduling Algorithm", rule 4)."""

DATAGRAM_LIFE_S = 0.5
"""How long a datagram without a delivery timeout may wait: later than that nobody can use it."""


class Cursor(Protocol):
    """Something that reads a cached subgroup and wants to know when it grows."""

    def wake(self) -> None: ...

    def shift(self, index: int, item: CachedObject) -> None:
        """`item` came in before what had this index; everything before it moved down by one."""

    def evict(self) -> None:
        """The cache lets the subgroup go: hold on to nothing of it."""


class StreamCursor:
    """One subgroup on its way to one subscriber."""

    __slots__ = (
        "behind",
        "chunk",
        "chunk_at",
        "closed",
        "handle",
        "index",
        "open_object",
        "previous",
        "queued",
        "subgroup",
        "subscription",
        "turn",
    )

    def __init__(self, subscription: Subscription, subgroup: CachedSubgroup, index: int) -> None:
        self.subscription = subscription
        self.subgroup = subgroup
        self.turn = subscription.turn
        self.queued = False
        self.closed = False
        self.handle: int | None = None
        self.index = index
        self.open_object = False
        """The header of the object at `index` is sent, its payload not all."""
        self.chunk = 0
        self.chunk_at = 0
        self.previous: CachedObject | None = None
        """The last object sent on this stream."""
        self.behind: CachedObject | None = None
        """The last object accounted for on this stream: sent, or filtered out behind one that was."""

    def key(self) -> Key:
        subscription, subgroup = self.subscription, self.subgroup
        priority = subgroup.priority if subgroup.priority is not None else subscription.default_priority
        group = subgroup.group if subscription.order is GroupOrder.ASCENDING else -subgroup.group
        return subscription.priority, priority, 0, group, SUBGROUP, subgroup.id

    def wake(self) -> None:
        if not self.closed:
            self.subscription.outbox.push(self)

    def shift(self, index: int, item: CachedObject) -> None:
        """See `Cursor.shift`: what comes next to be sent stays the same, unless that is the new object."""
        wanted_next = (
            self.index == index and not self.open_object and (self.previous is not None and self.previous.id < item.id)
        )
        if self.index < index or wanted_next:
            self.index -= 1

    def lag_s(self, now: float) -> float:
        """How long the next object to send has been waiting; 0 where none does."""
        if self.subgroup.dropped <= self.index < self.subgroup.end:
            return now - self.subgroup.at(self.index).started_at
        return 0.0

    def send(self, sink: Sink, limit: int, room: Room, now: float) -> tuple[int, Outcome]:
        """Hand over objects from where the last call stopped; see `Schedulable.send`."""
        subgroup = self.subgroup
        if self.closed:
            return 0, Outcome.IDLE
        if self.index < subgroup.dropped:
            return self._skip_lost(sink)
        subscription = self.subscription
        if subgroup.group < subscription.newest_group and self.lag_s(now) > subscription.max_lag_s:
            self.abandon(ResetCode.TOO_FAR_BEHIND, DropReason.TOO_FAR_BEHIND)
            return 0, Outcome.IDLE
        if self.handle is None:
            self._skip_unwanted()
            if self.index >= subgroup.end:
                return self._without_objects()
            if not self._open(sink):
                return 0, Outcome.BLOCKED
        assert self.handle is not None
        if sink.unsent(self.handle) >= STREAM_UNSENT_BYTES:
            return 0, Outcome.BLOCKED
        parts: list[bytes | memoryview] = []
        size = self._gather(sink, parts, limit, now)
        if size < 0:
            return 0, Outcome.IDLE
        done = self.index >= subgroup.end and subgroup.finished
        if (parts or done) and not sink.offer(self.handle, parts, done):
            self.abandon(ResetCode.CANCELLED, DropReason.STOPPED)
            return 0, Outcome.IDLE
        if done:
            self._leave()
            return max(size, 1), Outcome.IDLE
        if size >= limit:
            return size, Outcome.MORE
        if subgroup.reset_code is not None and self.index >= subgroup.end - 1:
            self.abandon(subgroup.reset_code, DropReason.UPSTREAM_RESET)
        elif self._broken_off:
            return size, Outcome.MORE
        return size, Outcome.IDLE

    def evict(self) -> None:
        """See `Cursor.evict`: who has read all of it but the end may still be told that this was the end."""
        if self.index >= self.subgroup.end and self.subgroup.finished:
            if self.handle is not None:
                self.subscription.outbox.sink.offer(self.handle, (), True)
            self._leave()
        else:
            self.abandon(ResetCode.TOO_FAR_BEHIND, DropReason.EVICTED)

    def time_out(self, now: float) -> None:
        """The subgroup's delivery timeout is over: reset what is not acknowledged; a finished stream is left alone."""
        if self.handle is not None:
            self.subscription.outbox.sink.reset(self.handle, ResetCode.DELIVERY_TIMEOUT)
        if self.subscription.cursors.get((self.subgroup.group, self.subgroup.id)) is self:
            self.abandon(ResetCode.DELIVERY_TIMEOUT, DropReason.DELIVERY_TIMEOUT)

    def abandon(self, code: int, reason: DropReason | None) -> None:
        """Reset the stream, if there is one, and never open another for this subgroup."""
        if reason is not None:
            self.subscription.outbox.drops[reason] += 1
        if self.handle is not None:
            self.subscription.outbox.sink.reset(self.handle, code)
        self.subscription.bury((self.subgroup.group, self.subgroup.id))
        self._leave()

    @property
    def _broken_off(self) -> bool:
        """The next object may not follow on this stream: another one must be opened for it."""
        return self.handle is None and self.index < self.subgroup.end

    def _skip_unwanted(self) -> None:
        """Before a stream is opened: pass over objects before the subscription's start and those it filters out."""
        start, subgroup = self.subscription.range.start, self.subgroup
        first = start.object if subgroup.group == start.group else 0
        while self.index < subgroup.end:
            item = subgroup.at(self.index)
            if item.id >= first and self.subscription.passes(item):
                return
            self.index += 1

    def _open(self, sink: Sink) -> bool:
        subgroup = self.subgroup
        self.handle = sink.open_subgroup(
            SubgroupHeader(
                alias=self.subscription.alias,
                group=subgroup.group,
                subgroup=subgroup.id,
                priority=subgroup.priority,
                end_of_group=subgroup.end_of_group,
                first_object=subgroup.first_object and self.index == 0,
                has_properties=subgroup.has_properties,
            )
        )
        if self.handle is None:
            return False
        self.subscription.streams_opened += 1
        self.previous = self.behind = None
        return True

    def _gather(self, sink: Sink, parts: list[bytes | memoryview], limit: int, now: float) -> int:
        """Collect up to about `limit` bytes from here on; -1 where the stream had to be given up."""
        subgroup = self.subgroup
        objects, dropped, count = subgroup.objects, subgroup.dropped, subgroup.end
        subscription = self.subscription
        timeout = subscription.object_timeout_s(subgroup)
        end = subscription.range.end
        size = 0
        while size < limit and self.index < count:
            item = objects[self.index - dropped]
            if not self.open_object:
                if end is not None and (subgroup.group, item.id) > end:
                    self.abandon(ResetCode.CANCELLED, None)
                    return -1
                if subscription.sieve is not None and not subscription.passes(item):
                    # What a filter takes out does not break the stream ("Closing Subgroup Streams").
                    if self.behind is not None and self._follows(item):
                        self.behind = item
                    self.index += 1
                    continue
                if timeout is not None and now - item.started_at > timeout:
                    self.abandon(ResetCode.DELIVERY_TIMEOUT, DropReason.DELIVERY_TIMEOUT)
                    return -1
                if self.behind is not None and not self._follows(item):
                    return self._break_off(sink, parts, size)
                header = sink.object_header(item, self.previous.id if self.previous else None, subgroup.has_properties)
                parts.append(header)
                size += len(header)
                self.open_object = True
            size += self._payload(item, parts, limit - size)
            if self.chunk < len(item.chunks) or not item.complete:
                break
            self.previous = self.behind = item
            self.index += 1
            self.open_object = False
            self.chunk = self.chunk_at = 0
        return size

    def _payload(self, item: CachedObject, parts: list[bytes | memoryview], limit: int) -> int:
        chunks, size = item.chunks, 0
        while self.chunk < len(chunks) and size < limit:
            data = chunks[self.chunk]
            left = len(data) - self.chunk_at
            if left <= limit - size:
                parts.append(memoryview(data)[self.chunk_at :] if self.chunk_at else data)
                self.chunk += 1
                self.chunk_at = 0
                size += left
            else:
                take = limit - size
                parts.append(memoryview(data)[self.chunk_at : self.chunk_at + take])
                self.chunk_at += take
                size += take
        return size

    def _follows(self, item: CachedObject) -> bool:
        """The draft's next-Object rule ("Closing Subgroup Streams")."""
        behind = self.behind
        assert behind is not None
        return item.id == behind.id + 1 or item.follows == behind.id

    def _break_off(self, sink: Sink, parts: list[bytes | memoryview], size: int) -> int:
        """Reset this stream after what was gathered, and go on with a new one at the next chance."""
        assert self.handle is not None
        if parts:
            sink.offer(self.handle, parts, False)
            parts.clear()
        sink.reset(self.handle, ResetCode.CANCELLED)
        self.handle = None
        self.previous = self.behind = None
        self.wake()
        return -1

    def _without_objects(self) -> tuple[int, Outcome]:
        subgroup = self.subgroup
        if subgroup.finished or subgroup.reset_code is not None:
            self._leave()
        return 0, Outcome.IDLE

    def _skip_lost(self, sink: Sink) -> tuple[int, Outcome]:
        """The cache let go of what comes next: go on, on a new stream, with the first object that is still here."""
        self.subscription.outbox.drops[DropReason.EVICTED] += self.subgroup.dropped - self.index
        if self.handle is not None:
            sink.reset(self.handle, ResetCode.TOO_FAR_BEHIND)
            self.handle = None
        self.index = self.subgroup.dropped
        self.open_object = False
        self.chunk = self.chunk_at = 0
        return 0, Outcome.MORE

    def _leave(self) -> None:
        subscription = self.subscription
        self.closed = True
        subscription.outbox.withdraw(self)
        if subscription.cursors.pop((self.subgroup.group, self.subgroup.id), None) is not None:
            if self in self.subgroup.cursors:
                self.subgroup.cursors.remove(self)
            subscription.settle()


class DatagramItem:
    """One object on its way to one subscriber as a datagram."""

    __slots__ = ("expires", "item", "queued", "subscription", "turn")

    def __init__(self, subscription: Subscription, item: CachedObject, now: float) -> None:
        self.subscription = subscription
        self.item = item
        self.turn = subscription.turn
        self.queued = False
        self.expires = item.started_at + (subscription.datagram_timeout_s or DATAGRAM_LIFE_S)
        subscription.outbox.waiting_datagrams += 1

    def key(self) -> Key:
        subscription, item = self.subscription, self.item
        priority = item.priority if item.priority is not None else subscription.default_priority
        group = item.group if subscription.order is GroupOrder.ASCENDING else -item.group
        return subscription.priority, priority, 0, group, DATAGRAM, item.id

    def send(self, sink: Sink, limit: int, room: Room, now: float) -> tuple[int, Outcome]:
        outbox, item = self.subscription.outbox, self.item
        outbox.waiting_datagrams -= 1
        if now > self.expires:
            outbox.drops[DropReason.DATAGRAM_EXPIRED] += 1
        elif not self.subscription.forward or self.subscription.ending is not None:
            pass
        elif sink.datagram(self.subscription.alias, item, self.expires):
            return item.length + 16, Outcome.IDLE
        else:
            outbox.drops[DropReason.DATAGRAM_TOO_LARGE] += 1
        return 0, Outcome.IDLE


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
        "_chunk",
        "_finished",
        "_item",
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
        self._chunk = 0
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

    def send(self, sink: Sink, limit: int, room: Room, now: float) -> tuple[int, Outcome]:
        """Hand over what is settled from where the last call stopped; see `Schedulable.send`."""
        if self.handle is None:
            if self._position is None and self._item is None:
                return 0, Outcome.IDLE
            self.handle = sink.open_fetch(self.request, self.order)
            if self.handle is None:
                return 0, Outcome.BLOCKED
            if self.owner is not None:
                self.owner.streams_opened += 1
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
        self._item, self._chunk = item, 0
        return size + len(header), False

    def _payload(self, item: CachedObject, parts: list[bytes | memoryview], limit: int) -> tuple[int, bool]:
        size = 0
        while self._chunk < len(item.chunks) and size < limit:
            parts.append(item.chunks[self._chunk])
            size += len(item.chunks[self._chunk])
            self._chunk += 1
        if self._chunk < len(item.chunks):
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
