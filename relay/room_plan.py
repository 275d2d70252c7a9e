"""Which tracks a relay's part in a room asks for: what it announces, publishes and reads, as docs/rooms.md lists them.

`relay.room_tracks` asks for a `Wish` whenever a room has changed, and makes what there is the same.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from relay.rooms.effects import Doing
from relay.rooms.rooms import Rooms
from tradewind.contract.copies import MAX_COPY_BYTES
from tradewind.contract.messages import RoomEntry
from tradewind.contract.rooms import (
    ACK_TRACK,
    ANSWERS,
    EPOCHS_TRACK,
    LOG_TRACK,
    MAX_MESSAGE_BYTES,
    PUB_TRACK,
    Opening,
    RoomName,
    log_namespace,
    writer_namespace,
)
from tradewind.moqt.model import FullTrackName, Namespace

IN, OUT, COPY, COPIED = b"in", b"out", b"copy", b"copied"


class Part(Enum):
    """What a track that we read has."""

    PUBLISHES = "publishes"
    CARRIED = "carried"
    ANSWERED = "answered"
    COPIES = "copies"
    COPIED = "copied"


class Reading(NamedTuple):
    """A track that we want to read: what it has, of which room, and whose it is."""

    part: Part
    room: RoomName
    whose: RoomName
    """A writer's name, or (relay,)."""


@dataclass(slots=True)
class Wish:
    """What one room's tracks should be."""

    announced: dict[Namespace, bool] = field(default_factory=dict)
    """Namespaces, and whether neighbours are not to hear of them."""
    messages: set[FullTrackName] = field(default_factory=set)
    logs: set[FullTrackName] = field(default_factory=set)
    read: dict[FullTrackName, Reading] = field(default_factory=dict)
    heard: set[Namespace] = field(default_factory=set)

    def serve(self, namespace: Namespace, name: bytes) -> None:
        """A track of messages in a namespace of its own."""
        self.announced[namespace] = False
        self.messages.add(FullTrackName(namespace, name))

    def serves(self, track: FullTrackName) -> bool:
        return track in self.messages or track in self.logs


def wish_for_relays(
    wish: Wish, me: str, entry: RoomEntry, edges: Collection[tuple[int, bytes]], *, carries: bool
) -> None:
    """Add what relays say to each other by one entry of the table; `carries`: writers here have their home there.

    `edges` are (epoch, relay) that carry messages to us.
    """
    name, room, base = me.encode(), entry.room, log_namespace(entry.room, entry.epoch)
    if entry.home == me:
        follower = entry.follower.encode()
        if follower and follower != name:
            wish.serve((*base, COPY, follower), LOG_TRACK)
            wish.read[FullTrackName((*base, COPIED, follower), LOG_TRACK)] = Reading(Part.COPIED, room, (follower,))
        wish.heard.add((*base, IN))
        for epoch, relay in edges:
            if epoch == entry.epoch:
                wish.serve((*base, OUT, relay), ACK_TRACK)
                wish.read[FullTrackName((*base, IN, relay), PUB_TRACK)] = Reading(Part.CARRIED, room, (relay,))
        return
    home = (entry.home.encode(),)
    if entry.follower == me:
        wish.serve((*base, COPIED, name), LOG_TRACK)
        wish.read[FullTrackName((*base, COPY, name), LOG_TRACK)] = Reading(Part.COPIES, room, home)
    if carries:
        wish.serve((*base, IN, name), PUB_TRACK)
        wish.read[FullTrackName((*base, OUT, name), ACK_TRACK)] = Reading(Part.ANSWERED, room, home)


def wish_for_log(wish: Wish, rooms: Rooms, room: RoomName, *, told: bool) -> None:
    """Add the log and the epochs, where this relay publishes them; `told`: it publishes the epochs already."""
    log, doing = rooms.log(room), rooms.doing(room)
    if log is not None and doing is not Doing.FENCED:
        namespace = log_namespace(room, log.epoch)
        wish.announced[namespace] = False
        wish.logs.add(FullTrackName(namespace, LOG_TRACK))
    # Who is to be the home next goes on telling of epochs while it opens its own: readers wait for just that.
    opens = told and doing in {Doing.OPENING, Doing.GREETING}
    if opens or opening(rooms, room) is not None:
        wish.announced[room] = False
        wish.messages.add(FullTrackName(room, EPOCHS_TRACK))


def wish_for_writers(wish: Wish, room: RoomName, writers: Collection[RoomName]) -> None:
    """Add what writers here say; their answers begin when they ask for them."""
    if writers:
        wish.announced[(*room, ANSWERS)] = True
    for writer in writers:
        track = FullTrackName(writer_namespace(room, writer), PUB_TRACK)
        wish.read[track] = Reading(Part.PUBLISHES, room, writer)


def opening(rooms: Rooms, room: RoomName) -> Opening | None:
    """The newest object of `epochs`: a follower says the same as its home, for when that is dead."""
    log, entry = rooms.log(room), rooms.entry_of(room)
    if rooms.doing(room) is Doing.FOLLOWING and log is not None and entry is not None:
        return Opening(entry.epoch, log.start, entry.home) if log.epoch == entry.epoch else None
    return rooms.opening(room)


def most_bytes(part: Part) -> int:
    """The longest object that a track may have."""
    return MAX_MESSAGE_BYTES if part is Part.PUBLISHES else MAX_COPY_BYTES
