"""What relays say to each other of a room, and its bytes. Any message may be lost, repeated or late.

    Copy      home -> follower   records from `first` on; without records it only says where the home stands
    Copied    follower -> home   what is on the follower's disk, and from where it wants more
    Carried   edge -> home       one PUB of a writer whose session is at that edge
    Answered  home -> edge       its ACK or NAK

All come from relays whose identity is proven, and are bounded all the same. Each is a msgpack map as `msgspec` writes
tagged structs. `relay.rooms` uses them; docs/rooms.md says on which tracks they travel.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from tradewind.contract.messages import Count, Message
from tradewind.contract.rooms import (
    MAX_FIELD_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_ROOM_FIELDS,
    RoomMessageError,
)

MAX_RECORDS = 1024
"""In one Copy."""
MAX_RUNS = 1024
"""Epochs that a lineage tells apart; older ones are taken for equal."""
MAX_COPY_BYTES = 2_000_000

_Field: TypeAlias = Annotated[bytes, Meta(min_length=1, max_length=MAX_FIELD_BYTES)]
_Room: TypeAlias = Annotated[tuple[_Field, ...], Meta(min_length=1, max_length=MAX_ROOM_FIELDS)]
_Bytes: TypeAlias = Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]


class Run(NamedTuple):
    """The places from `start` on, up to the next run, were given in `epoch`."""

    epoch: Count
    start: Count


Lineage: TypeAlias = Annotated[tuple[Run, ...], Meta(max_length=MAX_RUNS)]
"""Which epoch gave which places; both numbers of a run are higher than those of the run before."""


class Copy(Message, frozen=True, tag="copy"):
    """From a home to its follower."""

    room: _Room
    epoch: Count
    lineage: Lineage
    """The home's. Empty: it has not opened its epoch, and only asks what is there."""
    first: Count
    records: Annotated[tuple[_Bytes, ...], Meta(max_length=MAX_RECORDS)] = ()
    visible: Count = 0
    """Records that readers may see."""


class Copied(Message, frozen=True, tag="copied"):
    """From a follower to its home."""

    room: _Room
    epoch: Count
    """The newest that the follower has heard of: a home of an older one is none any longer."""
    held: Count
    """Records on its disk; where `joined`, all of them are the home's, and that many are stored twice."""
    want: Count
    """The seq that it can append next, once its disk has what is on the way."""
    joined: bool
    """It has taken over the home's lineage of this epoch."""


class Carried(Message, frozen=True, tag="carried"):
    """From an edge relay to the home. The edge has checked the writer's token."""

    room: _Room
    writer: Annotated[tuple[_Field, ...], Meta(min_length=1, max_length=2)]
    """(user,) or (user, device)."""
    number: Count
    """The edge's own for this writer's session; `Answered` has it again."""
    publish: _Bytes


class Answered(Message, frozen=True, tag="answered"):
    """From the home to an edge relay."""

    room: _Room
    number: Count
    answer: _Bytes


BetweenRelays: TypeAlias = Copy | Copied | Carried | Answered


def encode(message: BetweenRelays) -> bytes:
    """The bytes of one message."""
    return _encoder.encode(message)


def decode(data: bytes | memoryview) -> BetweenRelays:
    """One message out of exactly these bytes. Raises RoomMessageError for anything else."""
    if len(data) > MAX_COPY_BYTES:
        raise RoomMessageError("too long")
    try:
        message: BetweenRelays = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RoomMessageError(f"nothing that relays say of a room: {error}") from error
    if isinstance(message, Copy):
        for before, after in zip(message.lineage, message.lineage[1:], strict=False):
            if before.epoch >= after.epoch or before.start >= after.start:
                raise RoomMessageError("a lineage does not grow")
    return message


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BetweenRelays)
