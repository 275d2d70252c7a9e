"""Which namespaces belong to a room, and who may use which of them: the rules of docs/rooms.md as two tables.

`relay.attachment` asks before forwarding hears of a request. A room is what the route table names, and every namespace
of the form (app..., "r", name); what stands below it by other names than these is an ordinary namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from tradewind.contract.rooms import (
    ANSWERS,
    EPOCHS_TRACK,
    LOG_TRACK,
    MAX_FIELD_BYTES,
    MAX_ROOM_FIELDS,
    WRITERS,
    Class,
    RoomName,
)

BY_CUSTOM = b"r"
CLASSES = b"c"
"""Who may publish (room, "c", "0") may write messages of class 0; the class of the crowd needs no right of its own."""
MAX_EPOCH_DIGITS = 16


class Below(NamedTuple):
    """A namespace of a room."""

    room: RoomName
    rest: tuple[bytes, ...]


def split(namespace: RoomName, known: Collection[RoomName]) -> Below | None:
    """The room that a namespace belongs to; None: none. The longest room that is `known` counts before the custom."""
    for length in range(min(len(namespace), MAX_ROOM_FIELDS), 0, -1):
        if namespace[:length] in known:
            return Below(namespace[:length], namespace[length:])
    for at, field in enumerate(namespace[: MAX_ROOM_FIELDS - 1]):
        if field == BY_CUSTOM and at and at + 1 < len(namespace) and _is_name(namespace[: at + 2]):
            return Below(namespace[: at + 2], namespace[at + 2 :])
    return None


def is_epoch(field: bytes) -> bool:
    """Whether a field below a room is an epoch: what relays say to each other stands under these."""
    return field.isdigit() and len(field) <= MAX_EPOCH_DIGITS


def may_publish(found: Below, name: bytes | None) -> bool:
    """Whether an ordinary session with a right to a namespace may publish in it; `name`: this track alone."""
    rest = found.rest
    if not rest:
        return name is not None and name not in {EPOCHS_TRACK, LOG_TRACK}
    if rest[0] == WRITERS:
        return 2 <= len(rest) <= 3 and all(map(bool, rest))
    return rest[0] != ANSWERS and not is_epoch(rest[0])


def may_subscribe(found: Below, name: bytes, may_write: Callable[[RoomName], bool]) -> bool:
    """The same for a track that is read; `may_write` says whether the session may publish in a namespace."""
    rest = found.rest
    if not rest:
        return True
    if rest[0] == WRITERS:
        return False
    if rest[0] == ANSWERS:
        return may_write((*found.room, WRITERS, *rest[1:]))
    return not is_epoch(rest[0]) or (len(rest) == 1 and name == LOG_TRACK)


def classes(room: RoomName, may_write: Callable[[RoomName], bool]) -> frozenset[int]:
    """Which classes of messages a session may write in a room."""
    own = {int(cls) for cls in Class if cls is not Class.CROWD and may_write((*room, CLASSES, b"%d" % cls))}
    return frozenset(own | {int(Class.CROWD)})


def _is_name(room: RoomName) -> bool:
    return all(0 < len(field) <= MAX_FIELD_BYTES for field in room)
