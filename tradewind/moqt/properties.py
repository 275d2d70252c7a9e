"""Track and Object Properties: what a relay has to understand of them.

The wire form is `fields.decode_pairs` and `encode_pairs`; this is what the values mean. Callers: `moqt.session` (what
closes a session), `relay.node` (defaults, malformed tracks). Source: draft-20, "MOQT Properties" and "Properties".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

from tradewind.moqt.errors import ProtocolViolation
from tradewind.moqt.fields import decode_pairs, violation
from tradewind.moqt.model import Properties

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile

OBJECT_DELIVERY_TIMEOUT: Final = 0x02
MAX_CACHE_DURATION: Final = 0x04
SUBGROUP_DELIVERY_TIMEOUT: Final = 0x06
IMMUTABLE: Final = 0x0B
DEFAULT_PUBLISHER_PRIORITY: Final = 0x0E
DEFAULT_PUBLISHER_GROUP_ORDER: Final = 0x22
DYNAMIC_GROUPS: Final = 0x30
PRIOR_GROUP_ID_GAP: Final = 0x3C
PRIOR_OBJECT_ID_GAP: Final = 0x3E
MANDATORY: Final = range(0x4000, 0x8000)
"""Mandatory Track Properties (drafts from 18): a track with one that we do not understand is not ours to carry."""

_ONCE: Final = (IMMUTABLE, PRIOR_GROUP_ID_GAP, PRIOR_OBJECT_ID_GAP)
_ALLOWED: Final = {
    DEFAULT_PUBLISHER_PRIORITY: range(256),
    DEFAULT_PUBLISHER_GROUP_ORDER: range(1, 3),
    DYNAMIC_GROUPS: range(2),
}


def find_property(profile: Profile, properties: Properties, type: int) -> int | bytes | None:
    """The first value of a property, whether it stands in the open or among the immutable ones.

    `profile` is that of the session that the properties came over: immutable ones keep its way to write integers.
    Immutable properties that cannot be read hold nothing.
    """
    return next((value for found, value in _every(profile, properties) if found == type), None)


def check_track_properties(profile: Profile, properties: Properties) -> None:
    """Raises ProtocolViolation for Track Properties with a value that the draft closes the session for."""
    for type, value in _every(profile, properties):
        allowed = _ALLOWED.get(type)
        if allowed is not None and value not in allowed:
            raise violation(f"track property {type:#x} has value {value!r}")
        if type == OBJECT_DELIVERY_TIMEOUT and value == 0 and profile.positive_timeouts:
            raise violation("a delivery timeout of 0")


def unknown_mandatory(profile: Profile, properties: Properties, known: Collection[int] = ()) -> int | None:
    """The first Mandatory Track Property that is not among `known`, or None. Draft 16 has none."""
    if profile.draft < 18:
        return None
    return next((type for type, _ in _every(profile, properties) if type in MANDATORY and type not in known), None)


def malformed_reason(profile: Profile, group: int, object: int, properties: Properties) -> str | None:
    """Why an object with these properties makes its track malformed, as far as one object can; None: it does not."""
    seen: set[int] = set()
    for type, value in properties:
        if type in seen and type in _ONCE:
            return f"property {type:#x} twice"
        seen.add(type)
        if type in MANDATORY and profile.draft >= 18:
            return f"track property {type:#x} on an object"
        if type == IMMUTABLE and isinstance(value, bytes):
            reason = _malformed_immutable(profile, value)
            if reason is not None:
                return reason
    return _gap_reason(profile, properties, PRIOR_GROUP_ID_GAP, group) or _gap_reason(
        profile, properties, PRIOR_OBJECT_ID_GAP, object
    )


def _every(profile: Profile, properties: Properties) -> Iterator[tuple[int, int | bytes]]:
    for type, value in properties:
        yield type, value
        if type == IMMUTABLE and isinstance(value, bytes):
            try:
                yield from decode_pairs(profile.varint, value)
            except ProtocolViolation:
                continue


def _malformed_immutable(profile: Profile, value: bytes) -> str | None:
    try:
        inner = decode_pairs(profile.varint, value)
    except ProtocolViolation:
        return "immutable properties that cannot be read"
    if any(type == IMMUTABLE for type, _ in inner):
        return "immutable properties inside immutable properties"
    return None


def _gap_reason(profile: Profile, properties: Properties, type: int, id: int) -> str | None:
    gap = find_property(profile, properties, type)
    if isinstance(gap, int) and gap > id:
        return f"a gap of {gap} before {id}"
    return None
