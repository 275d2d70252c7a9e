"""What rooms ask of the store and hear of it, and what they send: plain values between a pure room and its edges.

A `Write` is one transaction: cut the log, append records, write the standing, in this order, and answer `Written`. A
room has one write on its way at a time. `relay.rooms.store` is the one store of production; tests have their own.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from relay.rooms.standing import NEW, Standing
from tradewind.contract.copies import Copied, Copy
from tradewind.contract.rooms import NO_CHAIN, Ack, Nak, Place, RoomName

Writer: TypeAlias = Hashable
"""Whoever is to get the answer; rooms only hand it back."""


FORWARDING_READS = 2**62
"""Reads with this number or a higher one are forwarding's, for spans of a `RoomLog`; rooms use lower ones."""


class Outcome(Enum):
    """What became of a write."""

    STORED = "stored"
    """It is on disk, flushed."""
    DUPLICATE = "duplicate"
    """Nothing was written, because some keys have places already: see `found`."""
    REFUSED = "refused"
    """Nothing was written and nothing of it will ever appear: the disk is full."""
    FAILED = "failed"
    """Nobody knows: an I/O error. The room stops until the store was opened anew."""


class Entry(NamedTuple):
    """One record on its way to disk."""

    key: bytes
    payload: bytes
    """The encoded `Record`."""


@dataclass(frozen=True, slots=True)
class Write:
    """One transaction on one room."""

    id: int
    room: RoomName
    first: int
    """The seq of the first entry; without entries the number of records that are to be there."""
    entries: tuple[Entry, ...] = ()
    cut_from: int | None = None
    """First move every record from this seq on into quarantine."""
    standing: Standing | None = None
    lookups: tuple[bytes, ...] = ()
    """Keys whose places are asked for, and not written."""


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to the write `id`."""

    id: int
    room: RoomName
    outcome: Outcome
    found: dict[bytes, Place]
    """Places of its keys, and of its lookups, that were there before."""
    chain: bytes | None = None
    """Where the write cut: `chain_of` the last record that stayed."""


@dataclass(frozen=True, slots=True)
class Read:
    """Records of one room, in order, at most `count` and about `max_bytes`."""

    id: int
    room: RoomName
    first: int
    count: int
    max_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True)
class ReadDone:
    """The answer to the read `id`: encoded records from `first` on, up to the first damaged one or the end."""

    id: int
    room: RoomName
    first: int
    payloads: tuple[bytes, ...]
    damaged: int | None = None
    """The seq at which it stopped because what the disk gave is not what was stored."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store has of a room when it is opened."""

    records: int = 0
    chain: bytes = NO_CHAIN
    """`chain_of` the last record."""
    standing: Standing = NEW
    damaged: bool = False
    """The last record cannot be read: the room may neither order nor copy."""


class Answer(NamedTuple):
    """To a writer."""

    writer: Writer
    message: Ack | Nak


class ToRelay(NamedTuple):
    """To another relay."""

    relay: str
    message: Copy | Copied


@dataclass(frozen=True, slots=True)
class Output:
    """What a room wants done."""

    answers: tuple[Answer, ...] = ()
    to_relays: tuple[ToRelay, ...] = ()
    to_store: tuple[Write | Read, ...] = ()


class Doing(Enum):
    """What a relay does in a room; see `relay.rooms.room`."""

    WATCHING = "watching"
    """Another relay is the home and another the follower, or nobody said."""
    FOLLOWING = "following"
    GREETING = "greeting"
    """It is to be the first home, and hears first whether the follower has anything."""
    OPENING = "opening"
    """It is to be the home, and is writing that down."""
    HOME = "home"
    FENCED = "fenced"
    """It was the home; the follower knows of a newer epoch."""
    BEHIND = "behind"
    """It was named as home and may lack records that were acknowledged."""
    LOST = "lost"
    """The follower has records of its own epoch that it has not: its disk forgot."""
    DIVERGED = "diverged"
    """It follows, and has other records under the same epoch than its home."""
    BROKEN = "broken"
    """The store failed."""
