"""Location Filters and Range Filters on the wire, one pair of functions a form.

`tradewind.moqt.parameters` is the caller; which form a draft uses is in `moqt.profiles`. A filter that breaks the
encoding ends the session; one that is merely impossible (`FilterFlaw`) refuses its own request. Source: draft-20,
"Location Filters" and "Range Filters"; draft-22, "LOCATION FILTER Parameter"; draft-18, "Subscription Filters".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tradewind.moqt.errors import RequestCode
from tradewind.moqt.fields import Reader, read_location, violation, write_location, write_number, write_prefixed
from tradewind.moqt.model import (
    MAX_VARINT,
    NEXT_GROUP,
    NEXT_OBJECT,
    NO_FILTER,
    FilterKind,
    FilterSubject,
    Location,
    LocationFilter,
    RangeFilter,
)

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile

_NEXT_GROUP_START, _LARGEST_OBJECT, _ABSOLUTE_START, _ABSOLUTE_RANGE = 1, 2, 3, 4
_PROPERTY_SUBJECTS = (FilterSubject.OBJECT_PROPERTY, FilterSubject.TRACK_PROPERTY)


class Flaw(NamedTuple):
    """Why one request must be refused although the session goes on: a REQUEST_ERROR code and its reason."""

    code: int
    reason: str


class FilterFlaw(Exception):
    """A readable filter that no request can be served with; never leaves this package."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.reason)
        self.flaw = flaw


# --- Subscription Filter, drafts 16 and 18 ---------------------------------------------------------------------------


def read_subscription_filter(reader: Reader) -> LocationFilter:
    """A length and a Subscription Filter that fills it."""
    inner = reader.nested("a subscription filter")
    chosen = _read_subscription_filter(inner)
    inner.finish("a subscription filter")
    return chosen


def write_subscription_filter(profile: Profile, chosen: LocationFilter) -> bytes | None:
    """A Subscription Filter with its length; None where the draft can only say it by silence.

    What these drafts cannot say is widened, never narrowed: an end object becomes its whole group, and a start before
    the next group becomes no filter, since a subscription brings nothing old there anyway.
    """
    encode = profile.varint.encode
    if chosen.kind is FilterKind.NEXT_OBJECT:
        return write_prefixed(profile, encode(_LARGEST_OBJECT))
    if chosen.kind is FilterKind.RELATIVE_GROUP and chosen.groups == 0:
        return write_prefixed(profile, encode(_NEXT_GROUP_START))
    if chosen.kind is not FilterKind.ABSOLUTE:
        # In an update silence means "unchanged", so "everything" has to be said.
        return write_prefixed(profile, encode(_ABSOLUTE_START) + write_location(profile, Location(0, 0)))
    start = write_location(profile, chosen.start)
    if chosen.end_group is None:
        return write_prefixed(profile, encode(_ABSOLUTE_START) + start)
    end = chosen.end_group - chosen.start.group if profile.filter_end_is_delta else chosen.end_group
    return write_prefixed(profile, encode(_ABSOLUTE_RANGE) + start + write_number(profile, end))


def _read_subscription_filter(reader: Reader) -> LocationFilter:
    kind = reader.varint()
    if kind == _NEXT_GROUP_START:
        return NEXT_GROUP
    if kind == _LARGEST_OBJECT:
        return NEXT_OBJECT
    if kind == _ABSOLUTE_START:
        return LocationFilter(FilterKind.ABSOLUTE, start=read_location(reader))
    if kind != _ABSOLUTE_RANGE:
        raise violation(f"subscription filter type {kind:#x}")
    start = read_location(reader)
    end_group = reader.varint()
    if reader.profile.filter_end_is_delta:
        end_group = _add_delta(start.group, end_group)
    elif end_group < start.group:
        raise FilterFlaw(Flaw(RequestCode.INVALID_RANGE, "the end group comes before the start group"))
    return LocationFilter(FilterKind.ABSOLUTE, start=start, end_group=end_group)


# --- Location Filter by length, drafts 20 and 21 ---------------------------------------------------------------------


def read_location_filter(reader: Reader) -> LocationFilter:
    """A length and up to four integers that fill it; how many there are says what they mean."""
    inner = reader.nested("a location filter")
    fields: list[int] = []
    while inner.offset < inner.end:
        fields.append(inner.varint())
        if len(fields) > 4:
            raise violation("a location filter of more than four fields")
    if not fields:
        return NO_FILTER
    if len(fields) == 1:
        return LocationFilter(FilterKind.RELATIVE_GROUP, groups=fields[0])
    if fields == [0, 0]:
        return NEXT_OBJECT
    return _absolute(fields)


def write_location_filter(profile: Profile, chosen: LocationFilter) -> bytes | None:
    """See `read_location_filter`. An open range from {0, 0} is what "no filter" means, and is written so."""
    encode = profile.varint.encode
    match chosen.kind:
        case FilterKind.NONE:
            fields: tuple[int, ...] = ()
        case FilterKind.RELATIVE_GROUP:
            fields = (chosen.groups,)
        case FilterKind.NEXT_OBJECT:
            fields = (0, 0)
        case FilterKind.ABSOLUTE:
            fields = _absolute_fields(chosen)
            fields = () if fields == (0, 0) else fields
    return write_prefixed(profile, b"".join(map(encode, fields)))


# --- Location Filter by type, from draft 22 --------------------------------------------------------------------------


def read_typed_filter(reader: Reader) -> LocationFilter:
    """A Location Filter Type and the fields that it announces; there is no length."""
    kind = reader.varint()
    if kind == 0:
        return NO_FILTER
    if kind == 1:
        return LocationFilter(FilterKind.RELATIVE_GROUP, groups=reader.varint())
    if kind == 5:
        return NEXT_OBJECT
    if kind > 5:
        raise violation(f"location filter type {kind:#x}")
    return _absolute([reader.varint() for _ in range(kind)])


def write_typed_filter(profile: Profile, chosen: LocationFilter) -> bytes | None:
    """See `read_typed_filter`."""
    encode = profile.varint.encode
    match chosen.kind:
        case FilterKind.NONE:
            return encode(0)
        case FilterKind.RELATIVE_GROUP:
            return encode(1) + encode(chosen.groups)
        case FilterKind.NEXT_OBJECT:
            return encode(5)
        case FilterKind.ABSOLUTE:
            fields = _absolute_fields(chosen)
            return encode(len(fields)) + b"".join(map(encode, fields))


# --- Range Filters, from draft 19 ------------------------------------------------------------------------------------


def read_range_filter(reader: Reader, subject: FilterSubject) -> RangeFilter:
    """A length and one Range Filter; a length of 0 removes the filter and gives no ranges.

    Raises FilterFlaw for what the draft answers with INVALID_FILTER.
    """
    inner = reader.nested("a range filter")
    if inner.offset == inner.end:
        return RangeFilter(subject, 0, None, ())
    set_id = inner.byte()
    property_type = inner.varint() if subject in _PROPERTY_SUBJECTS else None
    if property_type is not None and property_type & 1:
        raise FilterFlaw(Flaw(RequestCode.INVALID_FILTER, f"property {property_type:#x} is not an integer"))
    ranges: list[tuple[int, int | None]] = []
    last = 0
    highest = 0xFF if subject is FilterSubject.PRIORITY else MAX_VARINT
    while inner.offset < inner.end:
        start = last + inner.varint()
        end = start + inner.varint() if inner.offset < inner.end else None
        last = start if end is None else end
        if last > highest:
            raise FilterFlaw(Flaw(RequestCode.INVALID_FILTER, f"a range of {subject.name} over {highest}"))
        ranges.append((start, end))
    if not ranges:
        raise FilterFlaw(Flaw(RequestCode.INVALID_FILTER, "a range filter without ranges"))
    return RangeFilter(subject, set_id, property_type, tuple(ranges))


def write_range_filter(profile: Profile, chosen: RangeFilter) -> bytes:
    """See `read_range_filter`. The ranges stand in ascending order and only the last may be open."""
    if not chosen.ranges:
        return write_prefixed(profile, b"")
    encode = profile.varint.encode
    parts = [bytes((chosen.set_id,))]
    if chosen.property_type is not None:
        parts.append(encode(chosen.property_type))
    last = 0
    for start, end in chosen.ranges:
        parts.append(encode(start - last))
        if end is not None:
            parts.append(encode(end - start))
            last = end
    return write_prefixed(profile, b"".join(parts))


def _absolute(fields: list[int]) -> LocationFilter:
    start = Location(fields[0], fields[1])
    end_group = _add_delta(start.group, fields[2]) if len(fields) > 2 else None
    end_object = fields[3] if len(fields) > 3 else None
    return LocationFilter(FilterKind.ABSOLUTE, start=start, end_group=end_group, end_object=end_object)


def _absolute_fields(chosen: LocationFilter) -> tuple[int, ...]:
    if chosen.end_group is None:
        return chosen.start
    delta = chosen.end_group - chosen.start.group
    return (*chosen.start, delta) if chosen.end_object is None else (*chosen.start, delta, chosen.end_object)


def _add_delta(group: int, delta: int) -> int:
    if group + delta > MAX_VARINT:
        raise violation("a filter's end group is over 2^64-1")
    return group + delta
