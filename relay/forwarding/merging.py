"""What can be true of one track together, whoever sends it: objects, their ends, and gaps between them.

`track` and `filling` ask here as objects come. Source: draft-20, "Malformed Tracks" and "Multiple Publishers".
"""

from __future__ import annotations

from relay.forwarding.cache import CachedGroup, CachedObject, TrackCache
from tradewind.moqt.model import Location, ObjectHeader, ObjectStatus

PRIOR_GROUP_GAP, PRIOR_OBJECT_GAP = 0x3C, 0x3E


class MalformedTrack(Exception):
    """A source sent what cannot belong to one track."""


def compare(known: CachedObject, header: ObjectHeader, subgroup: int | None) -> None:
    """An object comes once more: it must have the fields that it had."""
    if known.subgroup != subgroup or known.length != header.length or known.status != header.status:
        raise MalformedTrack("one object with two sets of fields")


def complete(cache: TrackCache, group: CachedGroup, item: CachedObject) -> None:
    """An object is whole: its status may say that its group, or the track, ends with it."""
    if item.status is ObjectStatus.END_OF_GROUP:
        end_group(group, item.id)
    elif item.status is ObjectStatus.END_OF_TRACK:
        end_group(group, item.id)
        cache.end = Location(group.id, item.id + 1)


def end_group(group: CachedGroup, final: int) -> None:
    """Nothing may come after `final` in a group."""
    if group.order and group.order[-1] > final:
        raise MalformedTrack("an object after the end of its group")
    group.final = final


def apply_gaps(cache: TrackCache, group: CachedGroup, item: CachedObject) -> None:
    """Note what the gap properties of an object say does not exist."""
    for kind, value in item.properties:
        if kind == PRIOR_OBJECT_GAP and isinstance(value, int) and value:
            if value > item.id or group.next_from(item.id - value) is not item:
                raise MalformedTrack("a Prior Object ID Gap over an object that exists")
            group.absent.add(item.id - value, item.id - 1)
        elif kind == PRIOR_GROUP_GAP and isinstance(value, int) and value:
            gap = range(group.id - value, group.id)
            if value > group.id or any(known in gap for known in cache.order):
                raise MalformedTrack("a Prior Group ID Gap over a group that exists")
            cache.absent_groups.add(group.id - value, group.id - 1)
