"""How far a subscriber has read of what is live: one cursor a downstream stream, one item a datagram.

Cursors are what `egress_order` schedules. They take bytes from the cache by reference and hand them to the sink.
Inside a stream nothing is reordered or skipped: what cannot go on resets its stream, and says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from relay.forwarding.cache import CachedObject, CachedSubgroup
from relay.forwarding.egress_order import DATAGRAM, STREAM_UNSENT_BYTES, SUBGROUP, Key, Outcome
from relay.forwarding.peers import DropReason, Sink
from tradewind.moqt.errors import ResetCode
from tradewind.moqt.model import GroupOrder, SubgroupHeader

if TYPE_CHECKING:
    from relay.forwarding.subscription import Subscription

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
        "closed",
        "handle",
        "index",
        "offset",
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
        self.offset = 0
        """Payload bytes of that object that are sent."""
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

    def send(self, sink: Sink, limit: int, now: float) -> tuple[int, Outcome]:
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
            if not self._open(sink, now):
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
            self.subscription.outbox.drops[reason] += max(1, self.subgroup.end - self.index)
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

    def _open(self, sink: Sink, now: float) -> bool:
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
        self.subscription.joined(now)
        self.previous = self.behind = None
        return True

    def _gather(self, sink: Sink, parts: list[bytes | memoryview], limit: int, now: float) -> int:
        """Collect up to about `limit` bytes from here on; -1 where the stream had to be given up."""
        subgroup = self.subgroup
        objects, dropped, count = subgroup.objects, subgroup.dropped, subgroup.end
        subscription = self.subscription
        timeout = subscription.timeouts.object_s(subgroup)
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
            if self.offset < item.received or not item.complete:
                break
            self.previous = self.behind = item
            self.index += 1
            self.open_object = False
            self.offset = 0
        return size

    def _payload(self, item: CachedObject, parts: list[bytes | memoryview], limit: int) -> int:
        size = 0
        while size < limit and self.offset < item.received:
            piece = item.piece(self.offset, limit - size)
            parts.append(piece)
            self.offset += len(piece)
            size += len(piece)
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
        self.offset = 0
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
        self.expires = item.started_at + (subscription.timeouts.datagram_s or DATAGRAM_LIFE_S)
        subscription.outbox.waiting_datagrams += 1

    def key(self) -> Key:
        subscription, item = self.subscription, self.item
        priority = item.priority if item.priority is not None else subscription.default_priority
        group = item.group if subscription.order is GroupOrder.ASCENDING else -item.group
        return subscription.priority, priority, 0, group, DATAGRAM, item.id

    def send(self, sink: Sink, limit: int, now: float) -> tuple[int, Outcome]:
        outbox, item = self.subscription.outbox, self.item
        outbox.waiting_datagrams -= 1
        if now > self.expires:
            outbox.drops[DropReason.DATAGRAM_EXPIRED] += 1
        elif not self.subscription.forward or self.subscription.ending is not None:
            pass
        elif sink.datagram(self.subscription.alias, item, self.expires):
            if self.subscription.first_sent is not None:
                self.subscription.joined(now)
            return item.length + 16, Outcome.IDLE
        else:
            outbox.drops[DropReason.DATAGRAM_TOO_LARGE] += 1
        return 0, Outcome.IDLE
