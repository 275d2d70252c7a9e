"""One track at one relay: its upstream sources merged by byte, its cache, its downstream subscriptions.

`forwarder` finds the track and calls `receive_*` for what sources send. The source that first reaches the next byte
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
from relay.forwarding.fetch_cursor import Frontier
from relay.forwarding.peers import DropReason
from relay.forwarding.routes import Party, Way
from relay.forwarding.subscription import DatagramFan, Subscription
from tradewind.moqt.model import (
    DatagramObject,
    FetchObject,
    FullTrackName,
    GroupOrder,
    Location,
    ObjectHeader,
    ObjectStatus,
    Properties,
    Range,
    RangeEnd,
    SubgroupHeader,
)

OBJECT_TIMEOUT, MAX_CACHE_DURATION, SUBGROUP_TIMEOUT = 0x02, 0x04, 0x06
DEFAULT_PRIORITY, DEFAULT_ORDER, DYNAMIC_GROUPS = 0x0E, 0x22, 0x30
PRIOR_GROUP_GAP, PRIOR_OBJECT_GAP = 0x3C, 0x3E
RESUMED_GROUPS = 4
"""How far back another source is asked for what the last one did not finish."""


class MalformedTrack(Exception):
    """A source sent what cannot belong to one track."""


class Source:
    """One upstream subscription, or one PUBLISH, that feeds the track."""

    __slots__ = ("claim", "done", "doubles", "established_at", "forward", "inherits", "is_stranger",
                 "last_at", "party", "published", "streams_closed", "streams_open", "succeeds", "way")  # fmt: skip

    def __init__(self, party: Party, *, published: bool, forward: bool, way: Way | None = None, claim: int = 0) -> None:
        self.party = party
        self.way = way
        """By which way a neighbour had it when we asked; None: a publisher here."""
        self.claim = claim
        """The rank that we said we would not go below: see `ranks`."""
        self.doubles = False
        """It sends what another sends too, while that one's link is suspect."""
        self.succeeds: Location | None = None
        """It takes the place of others once it has reached this."""
        self.is_stranger = False
        """It is by a neighbour, and from a publisher that the track has not come from before."""
        self.published = published
        """It came as a PUBLISH of theirs, not as a SUBSCRIBE of ours."""
        self.established_at: float | None = None
        self.last_at = float("-inf")
        """When it last began an object."""
        self.forward = forward
        self.inherits = False
        """Others fed the track before it."""
        self.streams_open = 0
        self.streams_closed = 0
        self.done: tuple[int, int | None, str] | None = None
        """Status, stream count and reason of its PUBLISH_DONE."""

    @property
    def established(self) -> bool:
        return self.established_at is not None

    @property
    def is_live(self) -> bool:
        """Established, and PUBLISH_DONE has not come: it may be asked for something else."""
        return self.established and self.done is None


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


class FetchInlet:
    """One upstream fetch stream filling the cache."""

    __slots__ = ("current", "end", "frontier", "heard_at", "offset", "party", "position")

    def __init__(self, party: Party, frontier: Frontier, wanted: Range | None) -> None:
        self.party = party
        """The FETCH of ours that it answers."""
        self.frontier = frontier
        self.position = wanted.start if wanted is not None else None
        """Everything before is settled; None until the first object of a range that starts we know not where."""
        self.end = wanted.end if wanted is not None else None
        self.current: CachedObject | None = None
        self.offset = 0
        self.heard_at = float("-inf")
        """When it last began an object."""


class Track:
    """A track that somebody publishes, subscribes to or fetches here."""

    __slots__ = ("_fan", "_publishers", "_ready", "alias", "bytes_in", "cache", "children", "declined", "drops",
                 "established",
                 "established_at", "fetching", "largest", "lingers_until", "max_lag_s", "moved_at", "name",
                 "objects_in", "offers", "properties", "sources", "subscriptions", "turning", "warming",
                 "wished_group")  # fmt: skip

    def __init__(
        self, name: FullTrackName, alias: int, budget: CacheBudget, max_lag_s: float, ready: ReadyQueue
    ) -> None:
        self.name = name
        self._ready = ready
        self._fan: DatagramFan | None = None
        self.alias = alias
        """The Track Alias under which every session gets it: one number, so that headers are encoded once."""
        self.cache = TrackCache(budget)
        self.max_lag_s = max_lag_s
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
        self.sources: dict[Party, Source] = {}
        self._publishers: set[int | None] = set()
        """Hop IDs of all that it has come from; None: publishers here."""
        self.subscriptions: dict[Party, Subscription] = {}
        self.children: dict[Party, int] = {}
        """What neighbours claimed whose subscriptions wait or are served: see `ranks`."""
        self.turning: dict[Party, int] = {}
        """What neighbours claimed that feed us and ask us: they are served once they do not feed us any more."""
        self.declined: set[int] = set()
        """Neighbours' sessions that would not serve us a moment ago: see `moving`."""
        self.moved_at = float("-inf")
        """When it last began to move from one neighbour to another."""
        self.offers: dict[Party, None] = {}
        """PUBLISH messages of ours for it that nobody has answered yet."""
        self.lingers_until: float | None = None
        """Without sources: how long it is kept for one to come back."""
        self.drops: Counter[DropReason] = Counter()
        self.objects_in = 0
        self.bytes_in = 0
        self.wished_group: tuple[int, int] | None = None
        """The NEW_GROUP_REQUEST that is outstanding upstream, and the largest group when it was sent."""

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
        if first and self.largest is not None and header.group < self.largest.group and self._reborn(source):
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
            self._compare(known, header, subgroup.id)
            inlet.current = known
        else:
            inlet.current = self._new_object(group, subgroup, header, now)
            if inlet.current is not None and inlet.previous is not None:
                inlet.current.follows = inlet.previous
        inlet.previous = header.id
        self.knows_largest(Location(subgroup.group, header.id))
        if header.length == 0 and inlet.current is not None:
            self._object_complete(group, inlet.current)
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
            self._object_complete(group, item)
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
                    self._end_group(self.cache.groups[subgroup.group], last.id)
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
            self._compare(known, header, None)
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
            self._end_group(group, header.id)
        self._object_complete(group, item)
        if cache.bytes > cache.limits.track_bytes:
            self.tidy(now)
        if not self.subscriptions:
            return
        if self._fan is None or self._fan.under_way:
            self._fan = DatagramFan(self.subscriptions)
            self._ready.spread(self._fan)
        self._fan.items.append((item, now))

    # --- Fetches ---

    def receive_fetched(self, inlet: FetchInlet, found: FetchObject, now: float) -> None:
        """An object begins on a fetch stream of ours: what lies between it and the one before does not exist."""
        location = Location(found.group, found.header.id)
        self._absent_until(inlet, location)
        group = self.cache.group(found.group, now)
        known = group.objects.get(found.header.id)
        inlet.offset = 0
        if known is not None:
            self._compare(known, found.header, found.subgroup)
            inlet.current = known
        else:
            inlet.current = self._fetched_object(group, found, now)
        inlet.position = Location(found.group, found.header.id + 1)
        if inlet.current is not None and found.header.length == 0:
            self._object_complete(group, inlet.current)
        if found.header.length == 0:
            inlet.frontier.advance(location)
        else:
            inlet.frontier.wake()

    def receive_fetched_data(self, inlet: FetchInlet, data: bytes, last: bool) -> None:
        """Payload on a fetch stream of ours."""
        item = inlet.current
        start = inlet.offset
        inlet.offset += len(data)
        if item is not None and item.group in self.cache.groups:
            if start < item.received and not item.agrees(start, data):
                raise MalformedTrack("one object with two payloads")
            if inlet.offset > item.received:
                fresh = data[item.received - start :]
                group = self.cache.groups[item.group]
                item.append(fresh)
                self.cache.charge(group, len(fresh))
                if item.complete:
                    self._object_complete(group, item)
                if item.subgroup is not None and item.subgroup in group.subgroups:
                    group.subgroups[item.subgroup].wake()
        if last and inlet.position is not None:
            inlet.frontier.advance(Location(inlet.position.group, inlet.position.object - 1))

    def receive_fetch_gap(self, inlet: FetchInlet, kind: RangeEnd, location: Location) -> None:
        """An End of Range marker: everything up to `location` is what it says."""
        if kind is RangeEnd.DOES_NOT_EXIST:
            self._absent_until(inlet, Location(location.group, location.object + 1))
        inlet.position = Location(location.group, location.object + 1)
        inlet.frontier.advance(location)

    def close_fetch(self, inlet: FetchInlet, code: int | None) -> None:
        """A fetch stream of ours ended; cleanly: nothing else exists up to its end."""
        if code is not None and inlet.current is not None and not inlet.current.complete:
            self._break_off(inlet.current, code)
        if code is None and inlet.end is not None:
            self._absent_until(inlet, Location(inlet.end.group, inlet.end.object + 1))
        inlet.frontier.advance(inlet.end if code is None else None, done=True)

    def verdict(self, source: Source, problem: MalformedTrack) -> MalformedTrack | NewLife:
        """What it means that a source contradicts what is here: its publisher's new life, or a malformed track."""
        return NewLife() if self._reborn(source) else problem

    def add_source(self, source: Source) -> None:
        """A SUBSCRIBE of ours, or a PUBLISH of theirs, that is to feed the track."""
        self.sources[source.party] = source
        publisher = None if source.way is None else source.way.publisher
        source.is_stranger = publisher not in self._publishers
        self._publishers.add(publisher)

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

    def _break_off(self, item: CachedObject, code: int) -> None:
        """The rest of an object was being fetched and will not come: who reads it is told, unless others feed it."""
        group = self.cache.groups.get(item.group)
        subgroup = group.subgroups.get(item.subgroup) if group is not None and item.subgroup is not None else None
        if subgroup is not None and not subgroup.sources and not subgroup.finished:
            subgroup.reset_code = code
            subgroup.wake()

    def _reborn(self, source: Source) -> bool:
        """Whether a source took over from others of which none has sent anything since.

        From the same publisher, by another way, there is no new life.
        """
        since = source.established_at
        return (
            (source.way is None or source.is_stranger)
            and source.inherits
            and since is not None
            and all(other is source or other.last_at < since for other in self.sources.values())
        )

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
                subscription.skip_behind(group_id, self.max_lag_s, now)
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
            self._apply_gaps(group, item)
            if subgroup.first_object and subgroup.objects[0] is item:
                subgroup.override_timeouts(item.properties)
        if self.cache.bytes > self.cache.limits.track_bytes:
            self.tidy(now)
        return item

    def _fetched_object(self, group: CachedGroup, found: FetchObject, now: float) -> CachedObject | None:
        header = found.header
        item = CachedObject(
            group.id, header.id, found.subgroup, found.priority, header.length, header.status, header.properties, now
        )
        if found.subgroup is not None:
            self._place_fetched(group, found, item, now)
        group.insert(item)
        self.cache.charge(group, OBJECT_OVERHEAD_BYTES)
        return item

    def _place_fetched(self, group: CachedGroup, found: FetchObject, item: CachedObject, now: float) -> None:
        """Put a fetched object into its subgroup: who joins later reads it from there."""
        assert found.subgroup is not None
        subgroup = group.subgroups.get(found.subgroup)
        if subgroup is None:
            subgroup = CachedSubgroup(group.id, found.subgroup, found.priority, False, found.header.id == 0, True)
            group.subgroups[found.subgroup] = subgroup
            self.cache.charge(group, OBJECT_OVERHEAD_BYTES)
            for subscription in self.subscriptions.values():
                if subscription.from_group_start:
                    subscription.offer_subgroup(subgroup, now)
        subgroup.insert(item)
        subgroup.wake()

    def _compare(self, known: CachedObject, header: ObjectHeader, subgroup: int | None) -> None:
        if known.subgroup != subgroup or known.length != header.length or known.status != header.status:
            raise MalformedTrack("one object with two sets of fields")

    def _object_complete(self, group: CachedGroup, item: CachedObject) -> None:
        if item.status is ObjectStatus.END_OF_GROUP:
            self._end_group(group, item.id)
        elif item.status is ObjectStatus.END_OF_TRACK:
            self._end_group(group, item.id)
            self.cache.end = Location(group.id, item.id + 1)

    def _end_group(self, group: CachedGroup, final: int) -> None:
        if group.order and group.order[-1] > final:
            raise MalformedTrack("an object after the end of its group")
        group.final = final

    def _apply_gaps(self, group: CachedGroup, item: CachedObject) -> None:
        for kind, value in item.properties:
            if kind == PRIOR_OBJECT_GAP and isinstance(value, int) and value:
                if value > item.id or group.next_from(item.id - value) is not item:
                    raise MalformedTrack("a Prior Object ID Gap over an object that exists")
                group.absent.add(item.id - value, item.id - 1)
            elif kind == PRIOR_GROUP_GAP and isinstance(value, int) and value:
                gap = range(group.id - value, group.id)
                if value > group.id or any(known in gap for known in self.cache.order):
                    raise MalformedTrack("a Prior Group ID Gap over a group that exists")
                self.cache.absent_groups.add(group.id - value, group.id - 1)

    def _absent_until(self, inlet: FetchInlet, location: Location) -> None:
        """Note that nothing exists from the inlet's position up to just before `location`."""
        start = inlet.position
        if start is None or start >= location:
            return
        if start.group == location.group:
            self._absent_in(start.group, start.object, location.object - 1)
            return
        self._absent_in(start.group, start.object, None)
        position = start.group + 1
        for group_id in tuple(self.cache.order):
            if start.group < group_id < location.group:
                self.cache.absent_groups.add(position, group_id - 1)
                self._absent_in(group_id, 0, None)
                position = group_id + 1
        self.cache.absent_groups.add(position, location.group - 1)
        self._absent_in(location.group, 0, location.object - 1)

    def _absent_in(self, group_id: int, start: int, end: int | None) -> None:
        """Nothing exists in a group from `start` to `end` (None: to its end), but for what is here already."""
        group = self.cache.groups.get(group_id)
        if group is None:
            if start == 0 and end is None:
                self.cache.absent_groups.add(group_id, group_id)
            return
        if end is None:
            if not group.order or group.order[-1] < start:
                group.final = max(start - 1, -1)
        else:
            held = group.next_from(start)
            if held is None or held.id > end:
                group.absent.add(start, end)
