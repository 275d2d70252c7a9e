"""One track at one relay: its upstream sources merged by byte, its cache, its downstream subscriptions.

`intake` finds the track and calls `receive_*` for what sources send. The source that first reaches the next byte
of an object is the one that is kept; others are compared with it, and a difference makes the track malformed
(draft-20, "Malformed Tracks" and "Multiple Publishers"). Losing a source is neither the end of a subgroup nor of the
track: another source, or the same one come back, goes on where it stopped.
"""

from __future__ import annotations

from collections import Counter

from relay.forwarding.cache import (
    OBJECT_OVERHEAD_BYTES,
    CacheBudget,
    CachedGroup,
    CachedObject,
    CachedSubgroup,
    TrackCache,
)
from relay.forwarding.egress_order import ReadyQueue
from relay.forwarding.feed import Feed, Source
from relay.forwarding.fetch_cursor import Frontier
from relay.forwarding.merging import MalformedTrack, apply_gaps, compare, complete, end_group
from relay.forwarding.neighbours import Neighbours
from relay.forwarding.peers import DropReason
from relay.forwarding.routes import Party
from relay.forwarding.subscription import DatagramFan, Subscription
from tradewind.moqt.model import (
    DatagramObject,
    FullTrackName,
    GroupOrder,
    Location,
    ObjectHeader,
    ObjectStatus,
    Properties,
    Range,
    SubgroupHeader,
)

OBJECT_TIMEOUT, MAX_CACHE_DURATION, SUBGROUP_TIMEOUT = 0x02, 0x04, 0x06
DEFAULT_PRIORITY, DEFAULT_ORDER, DYNAMIC_GROUPS = 0x0E, 0x22, 0x30
RESUMED_GROUPS = 4
"""How far back another source is asked for what the last one did not finish."""


class NewLife(Exception):
    """A publisher has begun the track anew, with locations that it used before for other objects."""


class Inlet:
    """One upstream subgroup stream: where in its subgroup it is."""

    __slots__ = ("current", "offset", "previous", "source", "subgroup")

    def __init__(self, source: Source, subgroup: CachedSubgroup) -> None:
        self.source = source
        self.subgroup = subgroup
        self.current: CachedObject | None = None
        self.offset = 0
        self.previous: int | None = None


class Track:
    """A track that somebody publishes, subscribes to or fetches here."""

    __slots__ = ("_fan", "_ready", "alias", "bytes_in", "cache", "drops", "established", "established_at", "fetching",
                 "largest", "lingers_until", "name", "neighbours", "objects_in", "offers", "properties", "sources",
                 "subscriptions", "warming")  # fmt: skip

    def __init__(self, name: FullTrackName, alias: int, budget: CacheBudget, ready: ReadyQueue) -> None:
        self.name = name
        self._ready = ready
        self._fan: DatagramFan | None = None
        self.alias = alias
        """The Track Alias under which every session gets it: one number, so that headers are encoded once."""
        self.cache = TrackCache(budget)
        self.properties: Properties = ()
        self.established = False
        self.established_at = float("-inf")
        self.fetching: dict[Party, tuple[Range | None, Frontier]] = {}
        """Ranges that publishers were asked for (None: not known before the answer), and what has come of them: who
        wants the same waits for it too.
        """
        self.warming: list[Frontier] = []
        """Fetches that wait for a new upstream subscription to bring its current group."""
        self.largest: Location | None = None
        self.sources = Feed()
        self.subscriptions: dict[Party, Subscription] = {}
        self.neighbours = Neighbours()
        self.offers: dict[Party, None] = {}
        """PUBLISH messages of ours for it that nobody has answered yet."""
        self.lingers_until: float | None = None
        """Without sources: how long it is kept for one to come back."""
        self.drops: Counter[DropReason] = Counter()
        self.objects_in = 0
        self.bytes_in = 0

    def integer(self, kind: int, default: int) -> int:
        """An integer Track Property, or `default`."""
        for found, value in self.properties:
            if found == kind and isinstance(value, int):
                return value
        return default

    @property
    def default_priority(self) -> int:
        return self.integer(DEFAULT_PRIORITY, 128)

    @property
    def default_order(self) -> GroupOrder:
        return GroupOrder(self.integer(DEFAULT_ORDER, GroupOrder.ASCENDING))

    def resume_at(self) -> Location | None:
        """Where another source has to begin, so that nothing is missed; None: nothing has come.

        In a group of one subgroup that is the object after the last whole one; where groups have several, the
        beginning of the first of the last groups that is not whole.
        """
        groups = self.cache.groups
        recent = [groups[number] for number in list(self.cache.order)[-RESUMED_GROUPS:]]
        if not recent:
            return None
        single = all(len(group.subgroups) <= 1 for group in recent)
        for group in recent:
            unfinished = [subgroup for subgroup in group.subgroups.values() if not subgroup.finished]
            if unfinished:
                last = unfinished[0].last
                if not single or last is None:
                    return Location(group.id, 0)
                return Location(group.id, last.id + 1 if last.complete else last.id)
        order = recent[-1].order
        return Location(recent[-1].id, order[-1] + 1 if single and order else 0)

    def knows_largest(self, location: Location | None) -> None:
        """Raise the largest location, never lower it (draft-20, "LARGEST OBJECT Parameter")."""
        if location is not None and (self.largest is None or location > self.largest):
            self.largest = location

    # --- Subgroup streams ---

    def receive_subgroup(self, source: Source, header: SubgroupHeader, now: float) -> Inlet | None:
        """A source opened a subgroup stream; None where the cache has given that group up."""
        assert header.subgroup is not None
        cache = self.cache
        first = not source.streams_open and not source.streams_closed
        if first and self.largest is not None and header.group < self.largest.group and self.sources.is_reborn(source):
            raise NewLife
        if header.group not in cache.groups and not self._begin_group(header.group, now):
            return None
        group = cache.group(header.group, now)
        subgroup = group.subgroups.get(header.subgroup)
        if subgroup is None:
            subgroup = CachedSubgroup(
                header.group,
                header.subgroup,
                header.priority,
                header.end_of_group,
                header.first_object,
                header.has_properties,
            )
            group.subgroups[header.subgroup] = subgroup
            cache.charge(group, OBJECT_OVERHEAD_BYTES)
            for subscription in self.subscriptions.values():
                subscription.offer_subgroup(subgroup, now)
        elif self._effective(subgroup.priority) != self._effective(header.priority):
            raise MalformedTrack("one subgroup with two publisher priorities")
        else:
            subgroup.first_object = subgroup.first_object or (header.first_object and not subgroup.objects)
        subgroup.end_of_group = subgroup.end_of_group or header.end_of_group
        subgroup.reset_code = None
        subgroup.sources += 1
        source.streams_open += 1
        return Inlet(source, subgroup)

    def receive_object(self, inlet: Inlet, header: ObjectHeader, now: float) -> None:
        """An object begins on a subgroup stream."""
        subgroup = inlet.subgroup
        inlet.offset = 0
        inlet.source.last_at = now
        if subgroup.evicted:
            inlet.current = None
            return
        group = self.cache.groups[subgroup.group]
        known = group.objects.get(header.id)
        if known is not None:
            compare(known, header, subgroup.id)
            inlet.current = known
        else:
            inlet.current = self._new_object(group, subgroup, header, now)
            if inlet.current is not None and inlet.previous is not None:
                inlet.current.follows = inlet.previous
        inlet.previous = header.id
        self.knows_largest(Location(subgroup.group, header.id))
        if header.length == 0 and inlet.current is not None:
            complete(self.cache, group, inlet.current)
            subgroup.wake()
        for frontier in self.warming:
            frontier.wake()

    def receive_data(self, inlet: Inlet, data: bytes) -> None:
        """The next bytes of the object that began last on a subgroup stream."""
        item = inlet.current
        start = inlet.offset
        inlet.offset = end = start + len(data)
        if item is None or inlet.subgroup.evicted:
            return
        received = item.received
        if start < received and not item.agrees(start, data):
            raise MalformedTrack("one object with two payloads")
        if end <= received:
            return
        fresh = data if start == received else data[received - start :]
        item.append(fresh)
        group = self.cache.groups[item.group]
        self.cache.charge(group, len(fresh))
        if item.received == item.length:
            complete(self.cache, group, item)
        for cursor in inlet.subgroup.cursors:
            cursor.wake()

    def close_subgroup(self, inlet: Inlet, code: int | None, *, lost: bool = False) -> CachedSubgroup | None:
        """A source's stream ended: by FIN (`code` None), by reset, or because its session was `lost`.

        Returns the subgroup if that finished it: its delivery timeout starts now.
        """
        subgroup = inlet.subgroup
        subgroup.sources -= 1
        inlet.source.streams_open -= 1
        inlet.source.streams_closed += 1
        if subgroup.evicted or lost:
            return None
        if code is None:
            last = subgroup.last
            if last is not None and inlet.previous is not None and last.id > inlet.previous:
                raise MalformedTrack("an object after the end of its subgroup")
            if last is None or last.complete:
                subgroup.finished = True
                if subgroup.end_of_group and last is not None:
                    end_group(self.cache.groups[subgroup.group], last.id)
        elif subgroup.sources == 0 and not subgroup.finished:
            subgroup.reset_code = code
        subgroup.wake()
        return subgroup if subgroup.finished else None

    def abandon_orphans(self, code: int) -> None:
        """No source is left: what is open downstream ends after what came, by reset."""
        for group in self.cache.groups.values():
            for subgroup in group.subgroups.values():
                if not subgroup.finished and subgroup.cursors:
                    subgroup.reset_code = code
                    subgroup.wake()

    # --- Datagrams ---

    def receive_datagram(self, source: Source, found: DatagramObject, now: float) -> None:
        """An object came whole, in a datagram."""
        header = found.header
        cache = self.cache
        if found.group not in cache.groups and not self._begin_group(found.group, now):
            return
        group = cache.group(found.group, now)
        known = group.objects.get(header.id)
        if known is not None:
            compare(known, header, None)
            if not known.agrees(0, found.payload):
                raise MalformedTrack("one object with two payloads")
            return
        if cache.known_absent(Location(found.group, header.id), Location(found.group, header.id)):
            self.drops[DropReason.LATE_OBJECT] += 1
            return
        item = CachedObject(
            found.group, header.id, None, found.priority, header.length, header.status, header.properties, now
        )
        item.ends_group = found.end_of_group
        if found.payload:
            item.append(found.payload)
        group.insert(item)
        cache.charge(group, header.length + OBJECT_OVERHEAD_BYTES)
        self.objects_in += 1
        source.last_at = now
        self.knows_largest(item.location)
        if found.end_of_group:
            end_group(group, header.id)
        complete(self.cache, group, item)
        if cache.bytes > cache.limits.track_bytes:
            self.tidy(now)
        if not self.subscriptions:
            return
        if self._fan is None or self._fan.under_way:
            self._fan = DatagramFan(self.subscriptions)
            self._ready.spread(self._fan)
        self._fan.items.append((item, now))

    # --- Housekeeping ---

    def subscribe(self, party: Party, subscription: Subscription, now: float) -> None:
        """Begin to serve a subscription: with what is here of the groups it wants, and with all that comes."""
        self.subscriptions[party] = subscription
        self.offer_cached(subscription, now)

    def offer_cached(self, subscription: Subscription, now: float) -> None:
        """Let a subscription start on the subgroups held now; only those at or after its start are wanted."""
        for group_id in tuple(self.cache.order):
            if group_id >= subscription.range.start.group:
                for subgroup in tuple(self.cache.groups[group_id].subgroups.values()):
                    subscription.offer_subgroup(subgroup, now, fresh=False)

    def tidy(self, now: float) -> int:
        """Bring the cache within its limits; returns how many objects went."""
        lost = 0
        while self.cache.over_limits(now):
            gone = self.cache.evict_oldest()
            if not gone and len(self.cache.order) < 2:
                break
            lost += gone
        return lost

    def check_invariants(self) -> None:
        self.cache.check_invariants()
        for subscription in self.subscriptions.values():
            subscription.check_invariants()
        for party, source in self.sources.items():
            assert source.party == party

    def _effective(self, priority: int | None) -> int:
        return self.default_priority if priority is None else priority

    def _begin_group(self, group_id: int, now: float) -> bool:
        """Make room for a group that is new here; False where it is not to be had any more.

        A group older than all that the cache could keep has been here before and went; one that a gap said does not
        exist is neither cached nor forwarded (draft-20, "Caching Relays").
        """
        order = self.cache.order
        self.tidy(now)
        if group_id in self.cache.absent_groups or (order and group_id < order[0] and self.cache.full):
            self.drops[DropReason.LATE_OBJECT] += 1
            return False
        if not order or group_id > order[-1]:
            for subscription in self.subscriptions.values():
                subscription.skip_behind(group_id, now)
        return True

    def _new_object(
        self, group: CachedGroup, subgroup: CachedSubgroup, header: ObjectHeader, now: float
    ) -> CachedObject | None:
        """Make room for an object that is new here; None where it came after what it should precede."""
        location = Location(group.id, header.id)
        if self.cache.end is not None and location > self.cache.end and header.status is ObjectStatus.NORMAL:
            raise MalformedTrack("an object after the end of its track")
        if group.final is not None and header.id > group.final and header.status is ObjectStatus.NORMAL:
            raise MalformedTrack("an object after the end of its group")
        if subgroup.finished:
            raise MalformedTrack("an object after the end of its subgroup")
        if header.id in group.absent:
            self.drops[DropReason.LATE_OBJECT] += 1
            return None
        item = CachedObject(
            group.id, header.id, subgroup.id, subgroup.priority, header.length, header.status, header.properties, now
        )
        if not subgroup.insert(item):
            self.drops[DropReason.LATE_OBJECT] += 1
        group.insert(item)
        self.cache.charge(group, OBJECT_OVERHEAD_BYTES)
        self.objects_in += 1
        if item.properties:
            apply_gaps(self.cache, group, item)
            if subgroup.first_object and subgroup.objects[0] is item:
                subgroup.override_timeouts(item.properties)
        if self.cache.bytes > self.cache.limits.track_bytes:
            self.tidy(now)
        return item
