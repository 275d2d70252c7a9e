"""Upstream FETCHes: what comes on their streams fills the cache of a track.

`fetching` asks, `intake` calls `receive_*` for what the publisher answers. What lies between two objects of an answer
does not exist, and the frontier says to those who wait how far everything is settled.
"""

from __future__ import annotations

from relay.forwarding.cache import OBJECT_OVERHEAD_BYTES, CachedGroup, CachedObject, CachedSubgroup
from relay.forwarding.fetch_cursor import Frontier
from relay.forwarding.merging import MalformedTrack, compare, complete
from relay.forwarding.routes import Party
from relay.forwarding.track import Track
from tradewind.moqt.model import FetchObject, Location, Range, RangeEnd


class FetchInlet:
    """One upstream fetch stream filling the cache."""

    __slots__ = ("current", "end", "frontier", "heard_at", "offset", "party", "position", "track")

    def __init__(self, party: Party, track: Track, frontier: Frontier, wanted: Range | None) -> None:
        self.party = party
        """The FETCH of ours that it answers."""
        self.track = track
        self.frontier = frontier
        self.position = wanted.start if wanted is not None else None
        """Everything before is settled; None until the first object of a range that starts we know not where."""
        self.end = wanted.end if wanted is not None else None
        self.current: CachedObject | None = None
        self.offset = 0
        self.heard_at = float("-inf")
        """When it last began an object."""

    def receive_object(self, found: FetchObject, now: float) -> None:
        """An object begins on a fetch stream of ours: what lies between it and the one before does not exist."""
        location = Location(found.group, found.header.id)
        self._absent_until(location)
        group = self.track.cache.group(found.group, now)
        known = group.objects.get(found.header.id)
        self.offset = 0
        if known is not None:
            compare(known, found.header, found.subgroup)
            self.current = known
        else:
            self.current = self._fetched_object(group, found, now)
        self.position = Location(found.group, found.header.id + 1)
        if found.header.length == 0:
            complete(self.track.cache, group, self.current)
            self.frontier.advance(location)
        else:
            self.frontier.wake()

    def receive_data(self, data: bytes, last: bool) -> None:
        """Payload on a fetch stream of ours."""
        item, cache = self.current, self.track.cache
        start = self.offset
        self.offset += len(data)
        if item is not None and item.group in cache.groups:
            if start < item.received and not item.agrees(start, data):
                raise MalformedTrack("one object with two payloads")
            if self.offset > item.received:
                fresh = data[item.received - start :]
                group = cache.groups[item.group]
                item.append(fresh)
                cache.charge(group, len(fresh))
                if item.complete:
                    complete(cache, group, item)
                if item.subgroup is not None and item.subgroup in group.subgroups:
                    group.subgroups[item.subgroup].wake()
        if last and self.position is not None:
            self.frontier.advance(Location(self.position.group, self.position.object - 1))

    def receive_gap(self, kind: RangeEnd, location: Location) -> None:
        """An End of Range marker: everything up to `location` is what it says."""
        if kind is RangeEnd.DOES_NOT_EXIST:
            self._absent_until(Location(location.group, location.object + 1))
        self.position = Location(location.group, location.object + 1)
        self.frontier.advance(location)

    def close(self, code: int | None) -> None:
        """A fetch stream of ours ended; cleanly: nothing else exists up to its end."""
        if code is not None and self.current is not None and not self.current.complete:
            self._break_off(self.current, code)
        if code is None and self.end is not None:
            self._absent_until(Location(self.end.group, self.end.object + 1))
        self.frontier.advance(self.end if code is None else None, done=True)

    # --- Private ---

    def _fetched_object(self, group: CachedGroup, found: FetchObject, now: float) -> CachedObject:
        header = found.header
        item = CachedObject(
            group.id, header.id, found.subgroup, found.priority, header.length, header.status, header.properties, now
        )
        if found.subgroup is not None:
            self._place_fetched(group, found, item, now)
        group.insert(item)
        self.track.cache.charge(group, OBJECT_OVERHEAD_BYTES)
        return item

    def _place_fetched(self, group: CachedGroup, found: FetchObject, item: CachedObject, now: float) -> None:
        """Put a fetched object into its subgroup: who joins later reads it from there."""
        assert found.subgroup is not None
        subgroup = group.subgroups.get(found.subgroup)
        if subgroup is None:
            subgroup = CachedSubgroup(group.id, found.subgroup, found.priority, False, found.header.id == 0, True)
            group.subgroups[found.subgroup] = subgroup
            self.track.cache.charge(group, OBJECT_OVERHEAD_BYTES)
            for subscription in self.track.subscriptions.values():
                if subscription.from_group_start:
                    subscription.offer_subgroup(subgroup, now)
        subgroup.insert(item)
        subgroup.wake()

    def _break_off(self, item: CachedObject, code: int) -> None:
        """The rest of an object was being fetched and will not come: who reads it is told, unless others feed it."""
        group = self.track.cache.groups.get(item.group)
        subgroup = group.subgroups.get(item.subgroup) if group is not None and item.subgroup is not None else None
        if subgroup is not None and not subgroup.sources and not subgroup.finished:
            subgroup.reset_code = code
            subgroup.wake()

    def _absent_until(self, location: Location) -> None:
        """Note that nothing exists from the inlet's position up to just before `location`."""
        start, cache = self.position, self.track.cache
        if start is None or start >= location:
            return
        if start.group == location.group:
            self._absent_in(start.group, start.object, location.object - 1)
            return
        self._absent_in(start.group, start.object, None)
        position = start.group + 1
        for group_id in tuple(cache.order):
            if start.group < group_id < location.group:
                cache.absent_groups.add(position, group_id - 1)
                self._absent_in(group_id, 0, None)
                position = group_id + 1
        cache.absent_groups.add(position, location.group - 1)
        self._absent_in(location.group, 0, location.object - 1)

    def _absent_in(self, group_id: int, start: int, end: int | None) -> None:
        """Nothing exists in a group from `start` to `end` (None: to its end), but for what is here already."""
        cache = self.track.cache
        group = cache.groups.get(group_id)
        if group is None:
            if start == 0 and end is None:
                cache.absent_groups.add(group_id, group_id)
            return
        if end is None:
            if not group.order or group.order[-1] < start:
                group.final = max(start - 1, -1)
        else:
            held = group.next_from(start)
            if held is None or held.id > end:
                group.absent.add(start, end)
