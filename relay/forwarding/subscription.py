"""One downstream subscription: what it wants, and its streams and datagrams on the way out.

A subscriber costs the relay a few cursors, never a copy: see `cursors`. `track` hands a subscription every new
subgroup and datagram; `subscribing` makes, updates and ends it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from relay.forwarding.cache import CachedObject, CachedSubgroup
from relay.forwarding.cursors import DatagramItem, StreamCursor
from relay.forwarding.egress_order import Outbox, Turn
from relay.forwarding.fetch_cursor import FetchCursor
from relay.forwarding.peers import DropReason, Peer
from relay.forwarding.range_filters import Sieve, sieve
from relay.forwarding.routes import Party
from tradewind.moqt.errors import ResetCode
from tradewind.moqt.model import GroupOrder, Location, Range, RangeFilter

DEAD_SUBGROUPS = 256
"""Subgroups remembered as not to be sent again; the oldest are forgotten first."""


def shorter(one_ms: int | None, other_ms: int | None) -> float | None:
    """The smaller of a subscriber's and a publisher's timeout in seconds; 0 and None stand for none."""
    given = [value for value in (one_ms, other_ms) if value]
    return min(given) / 1000 if given else None


class Subscription:
    """A subscriber's side of a track: Established from its construction."""

    __slots__ = (
        "_ended",
        "alias",
        "asked_at",
        "cursors",
        "datagram_timeout_s",
        "dead",
        "default_priority",
        "ending",
        "fetches",
        "forward",
        "from_group_start",
        "join_waits_s",
        "largest_at_start",
        "max_datagrams",
        "max_lag_s",
        "newest_group",
        "order",
        "outbox",
        "peer",
        "priority",
        "range",
        "range_filters",
        "request",
        "session",
        "sieve",
        "streams_opened",
        "timeouts_ms",
        "track_timeouts_ms",
        "turn",
    )

    def __init__(
        self,
        session: int,
        request: int,
        peer: Peer,
        outbox: Outbox,
        alias: int,
        *,
        range: Range,
        forward: bool,
        priority: int,
        default_priority: int,
        order: GroupOrder,
        max_datagrams: int,
        max_lag_s: float,
    ) -> None:
        self.session = session
        self.request = request
        self.peer = peer
        self.outbox = outbox
        self.alias = alias
        self.range = range
        self.forward = forward
        self.priority = priority
        self.default_priority = default_priority
        self.order = order
        self.max_datagrams = max_datagrams
        self.max_lag_s = max_lag_s
        self.newest_group = -1
        self.turn = Turn()
        self.range_filters: tuple[RangeFilter, ...] = ()
        self.sieve: Sieve | None = None
        self.from_group_start = False
        """It starts with what is here of its first group, not with the next object."""
        self.largest_at_start: Location | None = None
        """The Largest Location told when it began, or began to forward: joining fetches end there."""
        self.timeouts_ms: tuple[int | None, int | None] = (None, None)
        """The subscriber's OBJECT_ and SUBGROUP_DELIVERY_TIMEOUT."""
        self.track_timeouts_ms: tuple[int | None, int | None] = (None, None)
        self.datagram_timeout_s: float | None = None
        self.cursors: dict[tuple[int, int], StreamCursor] = {}
        self.fetches: list[FetchCursor] = []
        """Its fill fetch streams."""
        self.dead: dict[tuple[int, int], None] = {}
        self.asked_at: float | None = None
        """When it was asked for; None once its first object was handed over."""
        self.join_waits_s: deque[float] | None = None
        self.streams_opened = 0
        self.ending: tuple[int, str] | None = None
        """The status and reason of the PUBLISH_DONE that follows its last stream."""
        self._ended: Callable[[], object] | None = None

    def set_filters(self, filters: tuple[RangeFilter, ...]) -> None:
        """Take other Range Filters, all of them."""
        self.range_filters = filters
        self.sieve = sieve(filters)

    def passes(self, item: CachedObject) -> bool:
        """Whether an object passes the Range Filters."""
        if self.sieve is None:
            return True
        priority = self.default_priority if item.priority is None else item.priority
        return self.sieve.passes(item.subgroup, item.id, priority, item.properties)

    def set_timeouts(self, object_ms: int | None, subgroup_ms: int | None) -> None:
        """Take the subscriber's delivery timeouts; None leaves one as it is."""
        old_object, old_subgroup = self.timeouts_ms
        self.timeouts_ms = (
            old_object if object_ms is None else object_ms,
            old_subgroup if subgroup_ms is None else subgroup_ms,
        )
        limits = [shorter(mine, track) for mine, track in zip(self.timeouts_ms, self.track_timeouts_ms, strict=True)]
        self.datagram_timeout_s = min((limit for limit in limits if limit is not None), default=None)

    def object_timeout_s(self, subgroup: CachedSubgroup) -> float | None:
        """OBJECT_DELIVERY_TIMEOUT in force for a subgroup, seconds."""
        own = subgroup.timeouts_ms[0]
        return shorter(self.timeouts_ms[0], self.track_timeouts_ms[0] if own is None else own)

    def subgroup_timeout_s(self, subgroup: CachedSubgroup) -> float | None:
        """SUBGROUP_DELIVERY_TIMEOUT in force for a subgroup, seconds."""
        own = subgroup.timeouts_ms[1]
        return shorter(self.timeouts_ms[1], self.track_timeouts_ms[1] if own is None else own)

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
        if outbox.waiting_datagrams >= self.max_datagrams:
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
        if self.asked_at is not None and self.join_waits_s is not None:
            self.join_waits_s.append(now - self.asked_at)
        self.asked_at = None

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

    def end_after_streams(self, status: int, reason: str, ended: Callable[[], object]) -> None:
        """Send PUBLISH_DONE when the last stream is closed (draft-20, "PUBLISH_DONE"), and call `ended`."""
        if self.ending is None:
            self.ending = (status, reason)
            self._ended = ended
            self.settle()

    def settle(self) -> None:
        """A stream is gone: say PUBLISH_DONE if it was the last one of an ending subscription."""
        if self.ending is not None and not self.cursors and not self.fetches:
            status, reason = self.ending
            ended, self._ended = self._ended, None
            if ended is not None:
                ended()
                self.peer.publish_done(self.request, status, self.streams_opened, reason)

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
