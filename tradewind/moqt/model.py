"""MoQT's nouns, the same for every draft: names, locations, filters, objects.

Everything here is a frozen value. The codec reads and writes them, sessions pass them on, and `relay.forwarding`
is built on them; nothing here knows a wire format. Source: draft-ietf-moq-transport-20, "Object Data Model" and
"Publishing and Retrieving Tracks".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, TypeAlias

MAX_VARINT = 2**64 - 1

Namespace: TypeAlias = tuple[bytes, ...]
"""A Track Namespace, or a prefix of one: 0 to 32 non-empty fields."""

Properties: TypeAlias = tuple[tuple[int, int | bytes], ...]
"""Track or Object Properties in wire order: even types carry an int, odd types bytes. Unknown ones included."""


class FullTrackName(NamedTuple):
    """A track's namespace and its name inside it: unique in a scope."""

    namespace: Namespace
    name: bytes

    def __str__(self) -> str:
        return f"{format_namespace(self.namespace)}--{format_field(self.name)}"


def format_field(field: bytes) -> str:
    """One namespace field or track name in the draft's safe form ("Representing Namespace and Track Names")."""
    return "".join(chr(c) if chr(c).isascii() and (chr(c).isalnum() or c == 0x5F) else f".{c:02x}" for c in field)


def format_namespace(namespace: Namespace) -> str:
    """A namespace in the draft's safe form: fields joined by hyphens."""
    return "-".join(format_field(field) for field in namespace)


class Location(NamedTuple):
    """Where an object stands in its track."""

    group: int
    object: int


class GroupOrder(IntEnum):
    """In which order groups of one subscription or fetch are sent."""

    ASCENDING = 1
    DESCENDING = 2


class ObjectStatus(IntEnum):
    """Draft-20, "Object Status"."""

    NORMAL = 0
    DOES_NOT_EXIST = 1  # drafts up to 16 only
    END_OF_GROUP = 3
    END_OF_TRACK = 4


class Preference(Enum):
    """Object Forwarding Preference: how the publisher sends an object."""

    SUBGROUP = "subgroup"
    DATAGRAM = "datagram"


class FilterKind(Enum):
    """The kinds of Location Filter that any draft can say."""

    NONE = "none"
    """Everything that arrives."""
    RELATIVE_GROUP = "relative-group"
    """From `{Largest.Group + 1 - groups, 0}`: 0 is the next group, 1 the current one."""
    NEXT_OBJECT = "next-object"
    """From the object after the largest ("Largest Object" in drafts up to 18)."""
    ABSOLUTE = "absolute"
    """From `start` to the end, if there is one."""


@dataclass(frozen=True, slots=True)
class LocationFilter:
    """Which locations of a track are wanted (draft-20, "Location Filters")."""

    kind: FilterKind
    groups: int = 0
    start: Location = Location(0, 0)
    end_group: int | None = None
    end_object: int | None = None
    """The last object wanted in the last group; None: all of it."""


NO_FILTER = LocationFilter(FilterKind.NONE)
NEXT_OBJECT = LocationFilter(FilterKind.NEXT_OBJECT)
NEXT_GROUP = LocationFilter(FilterKind.RELATIVE_GROUP, groups=0)
CURRENT_GROUP = LocationFilter(FilterKind.RELATIVE_GROUP, groups=1)


class Range(NamedTuple):
    """Locations from `start` to `end`, both inclusive; `end` None: open."""

    start: Location
    end: Location | None

    def __contains__(self, location: object) -> bool:
        assert isinstance(location, tuple)
        return location >= self.start and (self.end is None or location <= self.end)


def resolve(chosen: LocationFilter, largest: Location | None) -> Range:
    """Turn a filter into a range, as the publisher that knows `largest` does when it processes the message.

    Source: draft-20, "Location Filters": computed groups are clamped to 0..2^64-1, and "Next Object" before any
    object exists starts at {0, 0}.
    """
    match chosen.kind:
        case FilterKind.NONE:
            return Range(Location(0, 0), None)
        case FilterKind.NEXT_OBJECT:
            return Range(Location(largest.group, largest.object + 1) if largest else Location(0, 0), None)
        case FilterKind.RELATIVE_GROUP:
            next_group = largest.group + 1 if largest else 0
            return Range(Location(min(max(next_group - chosen.groups, 0), MAX_VARINT), 0), None)
        case FilterKind.ABSOLUTE:
            if chosen.end_group is None:
                return Range(chosen.start, None)
            end_object = MAX_VARINT if chosen.end_object is None else chosen.end_object
            return Range(chosen.start, Location(chosen.end_group, end_object))


class FilterSubject(Enum):
    """What a Range Filter looks at (draft-20, "Range Filters")."""

    SUBGROUP = 0x25
    OBJECT_ID = 0x26
    PRIORITY = 0x27
    OBJECT_PROPERTY = 0x28
    TRACK_PROPERTY = 0x29


@dataclass(frozen=True, slots=True)
class RangeFilter:
    """One Range Filter parameter: ranges are OR'd in it, equal `set_id`s AND'd, different ones OR'd."""

    subject: FilterSubject
    set_id: int
    property_type: int | None
    ranges: tuple[tuple[int, int | None], ...]
    """Absolute, inclusive; None: no upper bound. Empty in an update: remove this filter."""


class TokenUse(IntEnum):
    """Draft-20, "AUTHORIZATION TOKEN Parameter": Alias Type."""

    DELETE = 0
    REGISTER = 1
    USE_ALIAS = 2
    USE_VALUE = 3


@dataclass(frozen=True, slots=True)
class Token:
    """An authorization token with its aliases already resolved by the session."""

    type: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Fill:
    """FILL_PARAMETERS: fetch this range on a stream of its own. None: as the subscription has it."""

    filter: LocationFilter | None = None
    priority: int | None = None
    order: GroupOrder | None = None
    timeout_ms: int | None = None
    range_filters: tuple[RangeFilter, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameters:
    """Message Parameters of every message, decoded; None or empty: the message did not carry it.

    Which may stand in which message, and how each is written, is the profile's business (`moqt.profiles`). A caller
    may fill in a field that the negotiated draft lacks: the session leaves it out.
    """

    tokens: tuple[Token, ...] = ()
    object_timeout_ms: int | None = None
    subgroup_timeout_ms: int | None = None
    rendezvous_timeout_ms: int | None = None
    fill_timeout_ms: int | None = None
    expires_ms: int | None = None
    largest: Location | None = None
    forward: bool | None = None
    priority: int | None = None
    filter: LocationFilter | None = None
    order: GroupOrder | None = None
    fill: Fill | None = None
    range_filters: tuple[RangeFilter, ...] = ()
    new_group: int | None = None
    prefix: Namespace | None = None
    include_properties: bool | None = None
    hop_path: tuple[int, ...] | None = None
    """Between relays: the Hop IDs that a namespace came by, the Original Publisher's first."""
    route_cost: int | None = None
    tracks: frozenset[bytes] | None = None
    """Between relays: the names of a namespace's tracks that came with PUBLISH."""
    announced: bool | None = None
    """Between relays: False where a namespace is here only because tracks of it are."""
    rank: int | None = None
    """Between relays: of a SUBSCRIBE, below whom its sender stays; of others, how many relays may still be asked."""


NO_PARAMETERS = Parameters()


@dataclass(frozen=True, slots=True)
class ObjectHeader:
    """An object's fields without its payload, as a codec yields it and as the cache keeps it."""

    id: int
    length: int
    status: ObjectStatus = ObjectStatus.NORMAL
    properties: Properties = ()


@dataclass(frozen=True, slots=True)
class SubgroupHeader:
    """What a subgroup stream says first."""

    alias: int
    group: int
    subgroup: int | None
    """None until the first object is known, where its id is the subgroup's."""
    priority: int | None
    """None: the track's default publisher priority."""
    end_of_group: bool = False
    first_object: bool = False
    """The first object on the stream is the first ever published in the subgroup (drafts from 18)."""
    has_properties: bool = True


@dataclass(frozen=True, slots=True)
class DatagramObject:
    """One whole object in a datagram."""

    alias: int
    group: int
    header: ObjectHeader
    priority: int | None
    end_of_group: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class FetchObject:
    """One object's fields on a fetch stream; `subgroup` None: its forwarding preference is Datagram."""

    group: int
    subgroup: int | None
    header: ObjectHeader
    priority: int


class RangeEnd(Enum):
    """What a fetch stream says of locations up to and including one ("End of Range")."""

    DOES_NOT_EXIST = 0x8C
    UNKNOWN = 0x10C
    TIMED_OUT = 0x20C
