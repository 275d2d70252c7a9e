"""What one session's draft can say of what another session said.

`relay.peer` asks before it passes names, ranges and Track Properties on. What only needs other bytes (integers, codes,
parameters that a draft lacks) is the codec's business; here is what cannot be said at all.
"""

from __future__ import annotations

from tradewind.moqt.fields import MAX_TRACK_NAME_BYTES
from tradewind.moqt.model import FilterKind, FullTrackName, LocationFilter, Namespace, Properties
from tradewind.moqt.profiles import Profile
from tradewind.moqt.properties import OBJECT_DELIVERY_TIMEOUT

MAX_PROPERTIES_BYTES = 32 * 1024
"""Track Properties of one track. A control message holds twice that, and needs the room for names that are longer in
another session than where they came from."""
PAIR_OVERHEAD_BYTES = 18
"""What a type and a length or value take at most."""


def can_name(profile: Profile, namespace: Namespace, name: bytes = b"") -> bool:
    """Whether a track, or a namespace, may be written in this draft, and is not longer than any draft allows."""
    if len(namespace) < profile.fewest_namespace_fields:
        return False
    return sum(map(len, namespace)) + len(name) <= MAX_TRACK_NAME_BYTES


def nameable(profile: Profile, namespace: Namespace | None, name: bytes) -> FullTrackName | None:
    """The track, where the draft can name it."""
    if namespace is None or not can_name(profile, namespace, name):
        return None
    return FullTrackName(namespace, name)


def can_fetch(profile: Profile, chosen: LocationFilter) -> bool:
    """Whether a FETCH of this range can be said: up to draft 18 it has a start and an end."""
    relative = chosen.kind in (FilterKind.RELATIVE_GROUP, FilterKind.NEXT_OBJECT)
    return not (relative and profile.joining_fetch) and chosen.start.group <= profile.varint.maximum


def are_too_many(properties: Properties) -> bool:
    """Whether Track Properties are more than every session can be told."""
    size = sum(PAIR_OVERHEAD_BYTES + (len(value) if isinstance(value, bytes) else 0) for _, value in properties)
    return size > MAX_PROPERTIES_BYTES


def properties_for(profile: Profile, properties: Properties) -> Properties:
    """Track Properties without a delivery timeout of 0, where the draft has no such word for "none"."""
    if profile.positive_timeouts and (OBJECT_DELIVERY_TIMEOUT, 0) in properties:
        return tuple(pair for pair in properties if pair != (OBJECT_DELIVERY_TIMEOUT, 0))
    return properties
