"""Tracks that an application publishes: what was written last, kept for whoever joins late.

An application writes to a `TrackWriter`; each session's `serving.Serving` reads from it with cursors of its own, so a
slow relay holds nothing up and a new session after a reconnect finds the current group whole. No I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tradewind.moqt.model import FullTrackName, Location, Namespace, ObjectHeader, Properties, Range

DEFAULT_PRIORITY = 128
_PRIORITY_PROPERTY = 0x0E
"""DEFAULT PUBLISHER PRIORITY (draft-20, "MOQT Properties")."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a track is kept. The newest group always is; `group_bytes` is what one may grow to."""

    groups: int = 8
    total_bytes: int = 16 << 20
    group_bytes: int = 64 << 20


DEFAULT_RETENTION = Retention()


@dataclass(slots=True)
class Group:
    """One group: a single subgroup, objects in ascending order."""

    id: int
    ids: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    properties: list[Properties] = field(default_factory=list)
    size_bytes: int = 0
    closed: bool = False
    """No object will follow."""

    def header(self, index: int) -> ObjectHeader:
        return ObjectHeader(self.ids[index], len(self.payloads[index]), properties=self.properties[index])

    def index_from(self, object_id: int) -> int:
        """The index of the first object with at least this id; the number of objects where there is none yet."""
        return bisect_left(self.ids, object_id)


class TrackWriter:
    """One track being published. Made by `Publication.track`."""

    __slots__ = (
        "_groups",
        "_retention",
        "_written",
        "ended",
        "largest",
        "name",
        "priority",
        "properties",
        "size_bytes",
    )

    def __init__(
        self,
        name: FullTrackName,
        written: Callable[[], None],
        priority: int = DEFAULT_PRIORITY,
        properties: Properties = (),
        retention: Retention = DEFAULT_RETENTION,
    ) -> None:
        """`written` is called after every change, so that sessions send it. `priority`: 0 is the most urgent."""
        self.name = name
        self.priority = priority
        self.properties = tuple(sorted({**dict(properties), _PRIORITY_PROPERTY: priority}.items()))
        """Track Properties as SUBSCRIBE_OK carries them."""
        self.largest: Location | None = None
        self.ended = False
        self.size_bytes = 0
        self._groups: deque[Group] = deque()
        self._retention = retention
        self._written = written

    def write(self, group: int, object_id: int, payload: bytes, properties: Properties = ()) -> None:
        """Publish one object. Locations must grow; a larger group ends the one before.

        Raises ValueError for a location that does not grow, after `finish`, for an empty payload, and for a group that
        becomes larger than the retention allows: it has no key frame to start another one with.
        """
        location = Location(group, object_id)
        if self.ended or not payload or (self.largest is not None and location <= self.largest):
            raise ValueError(f"object {location} of {self.name} after {self.largest}, ended: {self.ended}")
        current = self._groups[-1] if self._groups else None
        if current is None or current.id != group:
            if current is not None:
                current.closed = True
            current = Group(group)
            self._groups.append(current)
        if current.size_bytes + len(payload) > self._retention.group_bytes:
            raise ValueError(f"group {group} of {self.name} is larger than {self._retention.group_bytes} bytes")
        current.ids.append(object_id)
        current.payloads.append(payload)
        current.properties.append(properties)
        current.size_bytes += len(payload)
        self.size_bytes += len(payload)
        self.largest = location
        self._forget()
        self._written()

    def end_group(self) -> None:
        """Say that the newest group has all its objects, without waiting for the next one."""
        if self._groups and not self._groups[-1].closed:
            self._groups[-1].closed = True
            self._written()

    def forget(self) -> None:
        """Keep nothing of what was written: who subscribes from now on gets what comes, in a new group."""
        self.end_group()
        self._groups.clear()
        self.size_bytes = 0

    def finish(self) -> None:
        """Say that nothing will follow. Subscriptions end when they have had everything."""
        self.ended = True
        self.end_group()
        self._written()

    def group_from(self, group: int) -> Group | None:
        """The oldest group kept with at least this id."""
        return next((kept for kept in self._groups if kept.id >= group), None)

    def newest(self) -> Group | None:
        return self._groups[-1] if self._groups else None

    def groups_after(self, group: int) -> int:
        """How many groups newer than this one there are, of those kept."""
        return sum(kept.id > group for kept in self._groups)

    def kept(self, wanted: Range) -> Iterator[tuple[Group, int]]:
        """(group, index) of everything kept in a range, in ascending order."""
        for group in tuple(self._groups):
            for index, object_id in enumerate(group.ids):
                if (group.id, object_id) in wanted:
                    yield group, index

    def oldest(self) -> Location | None:
        """Where what is kept begins."""
        return Location(self._groups[0].id, self._groups[0].ids[0]) if self._groups else None

    def check_invariants(self) -> None:
        assert self.size_bytes == sum(group.size_bytes for group in self._groups)
        assert all(group.closed for group in list(self._groups)[:-1])
        newest = self.newest()
        assert newest is None or self.largest == (newest.id, newest.ids[-1])

    def _forget(self) -> None:
        while len(self._groups) > 1 and (
            len(self._groups) > self._retention.groups or self.size_bytes > self._retention.total_bytes
        ):
            self.size_bytes -= self._groups.popleft().size_bytes


class Publication:
    """A namespace that an application publishes, and its tracks."""

    __slots__ = ("_tracks", "_written", "moving", "namespace")

    def __init__(self, namespace: Namespace, written: Callable[[], None]) -> None:
        self.namespace = namespace
        self.moving: Callable[[], None] = lambda: None
        """Called before it is announced on another connection, whose relay then asks for the current groups."""
        self._tracks: dict[bytes, TrackWriter] = {}
        self._written = written

    def track(
        self,
        name: bytes,
        *,
        priority: int = DEFAULT_PRIORITY,
        properties: Properties = (),
        retention: Retention = DEFAULT_RETENTION,
    ) -> TrackWriter:
        """Make a track. Raises ValueError where there is one of this name already."""
        if name in self._tracks:
            raise ValueError(f"track {name!r} is there already")
        full_name = FullTrackName(self.namespace, name)
        self._tracks[name] = TrackWriter(full_name, self._written, priority, properties, retention)
        return self._tracks[name]

    def find(self, name: bytes) -> TrackWriter | None:
        return self._tracks.get(name)

    def tracks(self) -> tuple[TrackWriter, ...]:
        return tuple(self._tracks.values())
