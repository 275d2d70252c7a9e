"""Which objects and tracks pass a subscriber's Range Filters.

A request's filters are turned into one `Sieve` when it is made or updated; None stands for no filter, so that requests
without any pay nothing. Filters with equal set ids are AND'd, different ones OR'd, ranges in one filter OR'd.
Source: draft-20, "Range Filters".
"""

from __future__ import annotations

from collections.abc import Iterable

from tradewind.moqt.model import FilterSubject, Properties, RangeFilter


class Sieve:
    """The object filters of one request."""

    __slots__ = ("_sets",)

    def __init__(self, filters: Iterable[RangeFilter]) -> None:
        sets: dict[int, list[RangeFilter]] = {}
        for one in filters:
            sets.setdefault(one.set_id, []).append(one)
        self._sets = tuple(tuple(members) for members in sets.values())

    def passes(self, subgroup: int | None, object_id: int, priority: int, properties: Properties) -> bool:
        """Whether an object passes; one that was sent as a datagram has no subgroup, and passes no filter of them."""
        return any(
            all(_holds(one, subgroup, object_id, priority, properties) for one in members) for members in self._sets
        )


def sieve(filters: Iterable[RangeFilter]) -> Sieve | None:
    """The sieve of a request's filters on objects; None where it has none."""
    chosen = [one for one in filters if one.subject is not FilterSubject.TRACK_PROPERTY and one.ranges]
    return Sieve(chosen) if chosen else None


def updated(old: tuple[RangeFilter, ...], changes: tuple[RangeFilter, ...]) -> tuple[RangeFilter, ...]:
    """A request's filters after a REQUEST_UPDATE: each one given replaces its like, one without ranges removes it."""
    kept = {_likeness(one): one for one in old}
    for change in changes:
        if change.ranges:
            kept[_likeness(change)] = change
        else:
            kept.pop(_likeness(change), None)
    return tuple(kept.values())


def track_passes(filters: Iterable[RangeFilter], properties: Properties) -> bool:
    """Whether a track passes a SUBSCRIBE_TRACKS' filters on Track Properties."""
    sets: dict[int, list[RangeFilter]] = {}
    for one in filters:
        if one.subject is FilterSubject.TRACK_PROPERTY and one.ranges:
            sets.setdefault(one.set_id, []).append(one)
    return not sets or any(
        all(_in_ranges(one, _property(properties, one.property_type)) for one in members) for members in sets.values()
    )


def _likeness(one: RangeFilter) -> tuple[FilterSubject, int, int | None]:
    return one.subject, one.set_id, one.property_type


def _holds(one: RangeFilter, subgroup: int | None, object_id: int, priority: int, properties: Properties) -> bool:
    match one.subject:
        case FilterSubject.SUBGROUP:
            return _in_ranges(one, subgroup)
        case FilterSubject.OBJECT_ID:
            return _in_ranges(one, object_id)
        case FilterSubject.PRIORITY:
            return _in_ranges(one, priority)
        case FilterSubject.OBJECT_PROPERTY:
            return _in_ranges(one, _property(properties, one.property_type))
        case FilterSubject.TRACK_PROPERTY:
            return True


def _in_ranges(one: RangeFilter, value: int | None) -> bool:
    return value is not None and any(start <= value and (end is None or value <= end) for start, end in one.ranges)


def _property(properties: Properties, kind: int | None) -> int | None:
    """An integer property among the mutable ones. Those inside Immutable Properties are the publisher's own bytes."""
    for found, value in properties:
        if found == kind and isinstance(value, int):
            return value
    return None
