"""One downstream subscription: what it wants, and its streams and datagrams on the way out.

A subscriber costs the relay a few cursors, never a copy: see `cursors`. `track` hands a subscription every new
subgroup and datagram; `subscribing` makes, updates and ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from relay.forwarding.cache import CachedObject, CachedSubgroup
from relay.forwarding.cursors import DatagramItem, StreamCursor
from relay.forwarding.egress_order import Outbox, Turn
from relay.forwarding.fetch_cursor import FetchCursor
from relay.forwarding.peers import DropReason
from relay.forwarding.range_filters import Sieve
from relay.forwarding.routes import Party
from relay.forwarding.timeouts import Timeouts
from tradewind.moqt.errors import ResetCode
from tradewind.moqt.model import GroupOrder, Range

DEAD_SUBGROUPS = 256
"""Subgroups remembered as not to be sent again; the oldest are forgotten first."""


class Subscription:
    """A subscriber's side of a track: Established from its construction."""

    __slots__ = ("alias", "cursors", "dead", "default_priority", "ending", "fetches", "first_sent", "forward",
                 "from_group_start", "max_lag_s", "newest_group", "order", "outbox", "priority", "range", "sieve",
                 "streams_opened", "timeouts", "turn")  # fmt: skip

    def __init__(
        self,
        outbox: Outbox,
        alias: int,
        *,
        range: Range,
        forward: bool,
        priority: int,
        default_priority: int,
        order: GroupOrder,
        max_lag_s: float,
        timeouts: Timeouts,
    ) -> None:
        self.outbox = outbox
        self.alias = alias
        self.range = range
        self.forward = forward
        self.priority = priority
        self.default_priority = default_priority
        self.order = order
        self.max_lag_s = max_lag_s
        self.timeouts = timeouts
        self.newest_group = -1
        self.turn = Turn()
        self.sieve: Sieve | None = None
        """Its Range Filters; None where it has none."""
        self.from_group_start = False
        """It starts with what is here of its first group, not with the next object."""
        self.cursors: dict[tuple[int, int], StreamCursor] = {}
        self.fetches: list[FetchCursor] = []
        """Its fill fetch streams."""
        self.dead: dict[tuple[int, int], None] = {}
        self.first_sent: Callable[[float], None] | None = None
        """Called when its first object is handed over; None once that was."""
        self.streams_opened = 0
        self.ending: Callable[[int], None] | None = None
        """Called when its last stream is gone, with how many there were: nothing new is sent."""

    def passes(self, item: CachedObject) -> bool:
        """Whether an object passes the Range Filters."""
        if self.sieve is None:
            return True
        priority = self.default_priority if item.priority is None else item.priority
        return self.sieve.passes(item.subgroup, item.id, priority, item.properties)

    def offer_subgroup(self, subgroup: CachedSubgroup, now: float, *, fresh: bool = True) -> None:
        """Start reading a subgroup, if it is wanted: from its start where it is `fresh`, else from what comes next."""
        key = (subgroup.group, subgroup.id)
        if not self.forward or self.ending is not None or key in self.cursors or key in self.dead:
            return
        start, end = self.range
        if subgroup.group < start.group or (end is not None and subgroup.group > end.group):
            return
        if not fresh and not self.from_group_start:
            if subgroup.finished:
                return
            first = subgroup.end
        else:
            first = subgroup.index_from(start.object) if subgroup.group == start.group else subgroup.dropped
        cursor = StreamCursor(self, subgroup, first)
        self.cursors[key] = cursor
        subgroup.cursors.append(cursor)
        if subgroup.end > first or subgroup.finished:
            cursor.wake()

    def offer_datagram(self, item: CachedObject, now: float) -> None:
        """Queue one object that goes as a datagram, if it is wanted."""
        if not self.forward or self.ending is not None:
            return
        start, end = self.range
        location = (item.group, item.id)
        if location < start or (end is not None and location > end) or not self.passes(item):
            return
        outbox = self.outbox
        if outbox.waiting_datagrams >= outbox.max_datagrams:
            outbox.drops[DropReason.DATAGRAM_QUEUE_FULL] += 1
            return
        outbox.push(DatagramItem(self, item, now))

    def skip_behind(self, newest_group: int, now: float) -> None:
        """A newer group begins: give up older ones whose next unsent object has waited longer than `max_lag_s`, now
        and whenever they would be sent.
        """
        self.newest_group = newest_group
        if not self.cursors:
            return
        for cursor in tuple(self.cursors.values()):
            if cursor.subgroup.group < newest_group and cursor.lag_s(now) > self.max_lag_s:
                cursor.abandon(ResetCode.TOO_FAR_BEHIND, DropReason.TOO_FAR_BEHIND)

    def joined(self, now: float) -> None:
        """The first object is handed over."""
        if self.first_sent is not None:
            first_sent, self.first_sent = self.first_sent, None
            first_sent(now)

    def bury(self, key: tuple[int, int]) -> None:
        """Never open a stream for this subgroup again."""
        self.dead[key] = None
        if len(self.dead) > DEAD_SUBGROUPS:
            del self.dead[next(iter(self.dead))]

    def retarget(self, forward: bool | None, priority: int | None, range: Range | None) -> None:
        """Apply an update. Streams of groups that are no longer wanted are reset, as is all where `forward` ends."""
        if priority is not None and priority != self.priority:
            self.priority = priority
            self.outbox.reorder()
        if range is not None:
            self.range = range
        renewed = forward is True and not self.forward
        if forward is not None:
            self.forward = forward
        if renewed:
            self.dead.clear()
        for cursor in tuple(self.cursors.values()):
            group = cursor.subgroup.group
            outside = group < self.range.start.group or (self.range.end is not None and group > self.range.end.group)
            if outside or not self.forward:
                cursor.abandon(ResetCode.CANCELLED, None)
                if not self.forward:
                    self.dead.pop((group, cursor.subgroup.id), None)

    def close(self, code: int) -> None:
        """End it now: reset every stream."""
        for cursor in tuple(self.cursors.values()):
            cursor.abandon(code, None)
        for fetch in tuple(self.fetches):
            fetch.abandon(code)

    def end_after_streams(self, ended: Callable[[int], None]) -> None:
        """Send nothing new, and call `ended` when the last stream is closed (draft-20, "PUBLISH_DONE")."""
        if self.ending is None:
            self.ending = ended
            self.settle()

    def settle(self) -> None:
        """A stream is gone: say so if it was the last one of an ending subscription."""
        if self.ending is not None and not self.cursors and not self.fetches:
            ended, self.ending = self.ending, _nothing_more
            ended(self.streams_opened)

    def check_invariants(self) -> None:
        self.outbox.check_invariants()
        for key, cursor in self.cursors.items():
            assert key == (cursor.subgroup.group, cursor.subgroup.id)
            assert cursor in cursor.subgroup.cursors or cursor.subgroup.evicted


class DatagramFan:
    """Datagrams of one track on their way to its subscribers: what came in one turn goes to each of them together."""

    __slots__ = ("_all", "_waiting", "items", "under_way")

    def __init__(self, subscriptions: Mapping[Party, Subscription]) -> None:
        self.items: list[tuple[CachedObject, float]] = []
        """Objects, and when they came."""
        self.under_way = False
        """Somebody has been offered what is here: nothing may join it."""
        self._all = subscriptions
        self._waiting = iter(tuple(subscriptions.items()))

    def advance(self) -> bool:
        """See `egress_order.Fan`."""
        self.under_way = True
        for party, subscription in self._waiting:
            if self._all.get(party) is subscription:
                for item, now in self.items:
                    subscription.offer_datagram(item, now)
                return True
        self.items.clear()
        return False


def _nothing_more(streams: int) -> None:
    """It has ended, and everybody knows."""
