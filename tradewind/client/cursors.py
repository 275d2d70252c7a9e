"""Where each subscription and each fetch stream of one session stands in the track that it reads.

`serving` moves these cursors and does the sending; what they share with each other is the `TrackWriter` alone, so one
that stands still holds up nobody.
"""

from __future__ import annotations

from tradewind.client.tracks import DEFAULT_PRIORITY, Group, TrackWriter
from tradewind.moqt.fetched import FetchEncoder
from tradewind.moqt.model import (
    FetchObject,
    FilterKind,
    GroupOrder,
    Location,
    LocationFilter,
    Range,
    RangeEnd,
    resolve,
)
from tradewind.moqt.profiles import Profile

_END_OF_ANY_GROUP = 2**62 - 1
"""The largest object id that every draft can write."""
_STARTS_BEFORE_NOW = (FilterKind.NONE, FilterKind.ABSOLUTE, FilterKind.RELATIVE_GROUP)
"""Filters whose range holds the current group's first object: with them a subscription begins there. A relay asks
without a filter, and so has what late joiners need."""


class Feed:
    """The cursor of one subscription in its track."""

    __slots__ = (
        "alias",
        "end",
        "filter",
        "forward",
        "group",
        "has_properties",
        "index",
        "joined_at",
        "next_group",
        "offset",
        "previous",
        "priority",
        "request",
        "start_object",
        "stream",
        "streams",
        "track",
    )

    def __init__(
        self, request: int, track: TrackWriter, alias: int, priority: int | None, chosen: LocationFilter
    ) -> None:
        self.request = request
        self.track = track
        self.alias = alias
        self.forward = True
        self.streams = 0
        """Data streams opened for it: what PUBLISH_DONE says."""
        self.joined_at = track.largest
        """The Largest that SUBSCRIBE_OK told: where a joining FETCH ends."""
        self.priority = DEFAULT_PRIORITY if priority is None else priority
        self.start_at(chosen)

    @property
    def urgency(self) -> tuple[int, int, int]:
        """Draft-20, "Scheduling Algorithm": subscriber priority, publisher priority, group."""
        return self.priority, self.track.priority, self.next_group

    def start_at(self, chosen: LocationFilter) -> None:
        """Begin where a filter says. Of what exists already only the current group comes."""
        largest = self.track.largest
        wanted = resolve(chosen, largest)
        start = wanted.start
        if largest is not None and start <= largest:
            current = Location(largest.group, 0)
            following = Location(largest.group, largest.object + 1)
            start = max(start, current) if chosen.kind in _STARTS_BEFORE_NOW else following
        self.filter = chosen
        self.end = wanted.end
        self.enter(start.group, start.object)

    def enter(self, group: int, object_id: int) -> None:
        """Go to a location, on a new stream."""
        self.group: Group | None = None
        self.next_group = group
        self.start_object = object_id
        self.stream: int | None = None
        self.previous: int | None = None
        self.has_properties = False
        self.index = 0
        self.offset = 0

    def take_group(self) -> Group | None:
        """The group that the cursor is in, or the next one if there is one yet and it is wanted."""
        if self.group is None:
            found = self.track.group_from(self.next_group)
            if found is None or (self.end is not None and found.id > self.end.group):
                return None
            self.index = found.index_from(self.start_object) if found.id == self.next_group else 0
            self.next_group = found.id
            self.group = found
        return self.group

    def at_end_of(self, group: Group) -> bool:
        return self.index >= len(group.ids) or self.is_past_end(group)

    def is_past_end(self, group: Group) -> bool:
        if self.end is None or group.id < self.end.group:
            return False
        return self.index < len(group.ids) and group.ids[self.index] > self.end.object

    def next_object(self) -> None:
        assert self.group is not None
        self.previous = self.group.ids[self.index]
        self.index += 1
        self.offset = 0

    def leave_group(self) -> None:
        """Go on with the next group."""
        self.enter(self.next_group + 1, 0)

    def is_drained(self) -> bool:
        """Nothing that was written is still to be sent."""
        return self.take_group() is None or not self.forward


class Filling:
    """One fetch stream: a FETCH's answer, or a subscription's fill."""

    __slots__ = (
        "_encoder",
        "_feed_priority",
        "_left",
        "_mark",
        "_payload",
        "feed",
        "priority",
        "request",
        "stream",
        "track",
    )

    def __init__(
        self,
        profile: Profile,
        request: int,
        feed: Feed | None,
        track: TrackWriter,
        wanted: Range,
        order: GroupOrder,
        priority: int | None,
    ) -> None:
        self.request = request
        self.feed = feed
        """The subscription that this fills; None for a FETCH."""
        self.track = track
        self.priority = DEFAULT_PRIORITY if priority is None else priority
        self.stream: int | None = None
        self._encoder = FetchEncoder(profile, order)
        found = list(track.kept(wanted))
        if order is GroupOrder.DESCENDING:
            found.sort(key=lambda item: (-item[0].id, item[1]))
        self._left = iter(found)
        self._payload = memoryview(b"")
        self._mark = self._unknown_before(wanted) if order is GroupOrder.ASCENDING else None

    @property
    def urgency(self) -> tuple[int, int, int]:
        return self.priority, self.track.priority, 0

    def next_parts(self, room: int) -> tuple[bytes | memoryview, ...] | None:
        """The next bytes of the stream; None: it is complete."""
        if self._mark is not None:
            mark, self._mark = self._mark, None
            return (self._encoder.range_end(RangeEnd.UNKNOWN, mark),)
        header = b""
        if not self._payload:
            item = next(self._left, None)
            if item is None:
                return None
            group, index = item
            header = self._encoder.object(FetchObject(group.id, 0, group.header(index), self.track.priority))
            self._payload = memoryview(group.payloads[index])
        piece, self._payload = self._payload[:room], self._payload[room:]
        return (header, piece) if header else (piece,)

    def _unknown_before(self, wanted: Range) -> Location | None:
        """The last location of the range that we have forgotten, or never knew: a gap would say it does not exist."""
        oldest = self.track.oldest()
        if oldest is None or wanted.start >= oldest:
            return None
        before = (
            Location(oldest.group, oldest.object - 1)
            if oldest.object
            else Location(oldest.group - 1, _END_OF_ANY_GROUP)
        )
        return min(before, wanted.end) if wanted.end is not None else before
