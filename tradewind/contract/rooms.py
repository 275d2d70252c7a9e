"""What is said in a room, as bytes: writers and readers are applications, so relays and clients both link this.

A room is a namespace, by custom (app..., "r", name). Anything that speaks MoQT can take part; a body is opaque.

    who publishes        namespace             track      one object is
    the room's home      room, <epoch>         log        one `Record`; seq = group * 256 + object
    the room's home      room                  epochs     one `Opening`; group = epoch, object 0
    a writer             room, "w", <writer>   pub        one `Publish`; any group, objects in order
    the writer's relay   room, "a", <writer>   ack        one `Ack` or `Nak`; a group of its own each

A writer's name is its user: a token that may publish `<room>/w/ann` writes as `ann`, and one more field may follow for
a device. <epoch> is decimal. The track `log` of an epoch holds the whole order as that epoch's home has it, from seq 0:
a reader needs one SUBSCRIBE with a joining FETCH (or a fill), and never merges. A Location never carries two payloads,
because no two orders are ever published in one namespace; a record keeps the epoch in which it got its place.
`docs/rooms.md` says how these travel and what is promised.

A message is a msgpack map with small integer keys. `decode` refuses everything else with `RoomMessageError`: unknown or
repeated keys, wrong types, lengths over the bounds below, trailing bytes, and records whose checksum is wrong. A record
ends in its checksum: key 15 and a big-endian CRC-32, always five bytes, of everything before its last four.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple, TypeAlias

import msgpack  # type: ignore[import-untyped]

RoomName: TypeAlias = tuple[bytes, ...]

KEY_BYTES = 16
CHAIN_BYTES = 8
MAX_BODY_BYTES = 16_384
MAX_MESSAGE_BYTES = 24_576
MAX_ROOM_FIELDS = 28
"""A namespace has 32; a room's own tracks need three of them."""
MAX_FIELD_BYTES = 255
MAX_NUMBER = 2**53
GROUP_OBJECTS = 256
"""Records in a group of the track `log`: a group that is full never changes again."""
NO_CHAIN = bytes(CHAIN_BYTES)
"""What the first record of a room follows."""

LOG_TRACK, EPOCHS_TRACK, PUB_TRACK, ACK_TRACK = b"log", b"epochs", b"pub", b"ack"
WRITERS, ANSWERS = b"w", b"a"


class RoomMessageError(Exception):
    """Bytes that are no message of a room; says why."""


class Class(IntEnum):
    """What a message is to its room: who is refused first when there is too much."""

    CONTROL = 0
    """Mute, kick, pin, recall."""
    VALUE = 1
    """Gifts, orders, polls."""
    VOICE = 2
    """Host, moderators, replies."""
    CROWD = 3
    """Comments of everybody."""


class Why(Enum):
    """Every reason for which a message is not taken: a closed list. The wire has the number."""

    RATE = 1
    """Too many, from this writer or in this room."""
    SIZE = 2
    """The body is longer than this room takes."""
    MOVED = 3
    """The home is another relay: see `home`."""
    FULL = 4
    """The disk took nothing."""
    EXPIRED = 5
    """Its own deadline had passed."""
    CAS = 6
    """`expect_seq` is not the next place."""
    FENCED = 7
    """This relay was the home; a newer epoch exists."""
    NO_HOME = 8
    """Nobody orders this room now."""
    NO_QUORUM = 9
    """The home is cut off from its second copy, and cannot know that it is still the home."""
    MALFORMED = 10
    """The bytes are no PUB of this room. `key` is zeros where none could be read."""
    DENIED = 11
    """This writer may not write here."""


@dataclass(frozen=True, slots=True)
class Publish:
    """PUB: what a writer wants in the order, once: the same key again is the same message."""

    room: RoomName
    key: bytes
    cls: int
    sent_ms: int
    """The writer's wall clock, milliseconds."""
    body: bytes
    lang: str | None = None
    reply_to: int | None = None
    """The seq that this answers."""
    expect_seq: int | None = None
    """Take it only at this place."""
    deadline_ms: int | None = None
    """Take it only if it gets its place this soon after it came to the home."""


@dataclass(frozen=True, slots=True)
class Ack:
    """ACK: the place of a key, for ever. May come again with `stored` 2 after it came with 1."""

    key: bytes
    epoch: int
    seq: int
    dup: bool
    """The key had its place before this PUB."""
    stored: int
    """Relays with it on their disk: 1 or 2."""
    at_ms: int


@dataclass(frozen=True, slots=True)
class Nak:
    """NAK: this PUB has no place and will get none; the same key may be tried again."""

    key: bytes
    why: Why
    retry_ms: int | None = None
    """None: trying again is no use."""
    home: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """LOG: one place of the order. `prev` is `chain` of the record before it."""

    epoch: int
    seq: int
    key: bytes
    user: bytes
    cls: int
    sent_ms: int
    at_ms: int
    """The home's wall clock when it took the message in."""
    body: bytes
    prev: bytes
    lang: str | None = None
    reply_to: int | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """EPOCH: a home's life begins. What a reader has of older epochs from `start` on was taken back."""

    epoch: int
    start: int
    home: str


Message: TypeAlias = Publish | Ack | Nak | Record | Opening


class Place(NamedTuple):
    """Where a key stands."""

    epoch: int
    seq: int
    at_ms: int


def encode(message: Message) -> bytes:
    """The bytes of one message. Raises RoomMessageError for values that `decode` would refuse."""
    shape = _SHAPE_OF[type(message)]
    fields: dict[int, Any] = {0: shape.tag}
    for number, name, check, _ in shape.fields:
        value = getattr(message, name)
        if value is not None:
            check(value, name)
            fields[number] = value.value if type(value) is Why else value
    if shape.tag != _RECORD_TAG:
        return bytes(msgpack.packb(fields))
    fields[_SUM_KEY] = 0xFFFFFFFF
    packed = msgpack.packb(fields)[:-4]
    return bytes(packed + zlib.crc32(packed).to_bytes(4, "big"))


def decode(data: bytes | memoryview) -> Message:
    """One message out of exactly these bytes. Raises RoomMessageError for anything else."""
    fields = unpack(data, MAX_MESSAGE_BYTES)
    shape = _SHAPE_BY_TAG.get(_only_int(fields.pop(0, None)))
    if shape is None:
        raise RoomMessageError("no such message")
    if shape.tag == _RECORD_TAG:
        _check_sum(data, fields.pop(_SUM_KEY, None))
    values: dict[str, Any] = {}
    for number, name, check, required in shape.fields:
        value = fields.pop(number, None)
        if value is not None:
            values[name] = check(value, name)
        elif required:
            raise RoomMessageError(f"{name} is missing")
    if fields:
        raise RoomMessageError("unknown fields")
    return shape.make(**values)


def decode_record(data: bytes | memoryview) -> Record:
    """One record; its checksum is right. Raises RoomMessageError."""
    message = decode(data)
    if not isinstance(message, Record):
        raise RoomMessageError("not a record")
    return message


def unpack(data: bytes | memoryview, limit: int) -> dict[Any, Any]:
    """A msgpack map of at most `limit` bytes, no key twice, nothing after it. Raises RoomMessageError."""
    if len(data) > limit:
        raise RoomMessageError("too long")
    try:
        fields = msgpack.unpackb(
            data, strict_map_key=False, use_list=False, object_pairs_hook=_once, max_ext_len=0, max_map_len=32
        )
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise RoomMessageError("not a map in msgpack") from error
    if type(fields) is not dict:
        raise RoomMessageError("not a map")
    return fields


def chain_of(payload: bytes) -> bytes:
    """What the record after this one carries as `prev`: 8 bytes of BLAKE2b over the whole encoded record."""
    return hashlib.blake2b(payload, digest_size=CHAIN_BYTES).digest()


def location_of(seq: int) -> tuple[int, int]:
    """(group, object) of a seq in the track `log`."""
    return divmod(seq, GROUP_OBJECTS)


def log_namespace(room: RoomName, epoch: int) -> RoomName:
    """Where the track `log` of an epoch lives; what relays say to each other of a room stands below it."""
    return (*room, b"%d" % epoch)


def writer_namespace(room: RoomName, writer: RoomName) -> RoomName:
    """Where a writer publishes; `writer` is its user, and a device if it has several."""
    return (*room, WRITERS, *writer)


def answers_namespace(room: RoomName, writer: RoomName) -> RoomName:
    """Where a writer reads its answers."""
    return (*room, ANSWERS, *writer)


def writer_of(room: RoomName, namespace: RoomName) -> RoomName | None:
    """(user,) or (user, device) of a namespace that a writer of this room publishes; None: it is none."""
    size = len(room)
    if namespace[:size] != room or namespace[size : size + 1] != (WRITERS,):
        return None
    writer = namespace[size + 1 :]
    return writer if 1 <= len(writer) <= 2 and all(0 < len(field) <= MAX_FIELD_BYTES for field in writer) else None


# --- Fields ---

_Check: TypeAlias = Callable[[Any, str], Any]
_RECORD_TAG, _SUM_KEY = 4, 15


class _Field(NamedTuple):
    number: int
    name: str
    check: _Check
    required: bool = True


class _Shape(NamedTuple):
    tag: int
    make: Callable[..., Message]
    fields: tuple[_Field, ...]


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError
    return fields


def _only_int(value: Any) -> int:
    return value if type(value) is int else -1


def _check_sum(data: bytes | memoryview, said: Any) -> None:
    if len(data) < 6 or data[-5] != 0xCE or data[-6] != _SUM_KEY:
        raise RoomMessageError("a record does not end in its checksum")
    if _only_int(said) != zlib.crc32(data[:-4]) or said != int.from_bytes(data[-4:], "big"):
        raise RoomMessageError("wrong checksum")


def _number(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        raise RoomMessageError(f"{name} is no number up to 2^53")
    return value


def _among(*allowed: int) -> _Check:
    def check(value: Any, name: str) -> int:
        if type(value) not in {int, Class} or value not in allowed:
            raise RoomMessageError(f"{name} is none of {allowed}")
        return int(value)

    return check


def _exactly(length: int) -> _Check:
    def check(value: Any, name: str) -> bytes:
        if type(value) is not bytes or len(value) != length:
            raise RoomMessageError(f"{name} is not {length} bytes")
        return value

    return check


def _at_most(length: int, least: int = 0) -> _Check:
    def check(value: Any, name: str) -> bytes:
        if type(value) is not bytes or not least <= len(value) <= length:
            raise RoomMessageError(f"{name} is not {least} to {length} bytes")
        return value

    return check


def _text(length: int) -> _Check:
    def check(value: Any, name: str) -> str:
        if type(value) is not str or not 0 < len(value) <= length:
            raise RoomMessageError(f"{name} is not 1 to {length} characters")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RoomMessageError(f"{name} is no UTF-8") from None
        return value

    return check


def _flag(value: Any, name: str) -> bool:
    if type(value) is not bool:
        raise RoomMessageError(f"{name} is neither true nor false")
    return value


def _why(value: Any, name: str) -> Why:
    if type(value) is Why:
        return value
    try:
        return Why(_only_int(value))
    except ValueError:
        raise RoomMessageError(f"{name} is no known reason") from None


def check_room(value: Any, name: str = "room") -> RoomName:
    """A room's namespace fields. Raises RoomMessageError."""
    if type(value) is not tuple or not 0 < len(value) <= MAX_ROOM_FIELDS:
        raise RoomMessageError(f"{name} is not 1 to {MAX_ROOM_FIELDS} fields")
    for field in value:
        if type(field) is not bytes or not 0 < len(field) <= MAX_FIELD_BYTES:
            raise RoomMessageError(f"a field of {name} is not 1 to {MAX_FIELD_BYTES} bytes")
    return value


_key, _class, _name = _exactly(KEY_BYTES), _among(*Class), _text(40)
_SHAPES = (
    _Shape(1, Publish, (
        _Field(1, "room", check_room), _Field(2, "key", _key), _Field(3, "cls", _class), _Field(4, "sent_ms", _number),
        _Field(5, "body", _at_most(MAX_BODY_BYTES)), _Field(6, "lang", _text(35), False),
        _Field(7, "reply_to", _number, False), _Field(8, "expect_seq", _number, False),
        _Field(9, "deadline_ms", _number, False),
    )),
    _Shape(2, Ack, (
        _Field(1, "key", _key), _Field(2, "epoch", _number), _Field(3, "seq", _number), _Field(4, "dup", _flag),
        _Field(5, "stored", _among(1, 2)), _Field(6, "at_ms", _number),
    )),
    _Shape(3, Nak, (
        _Field(1, "key", _key), _Field(2, "why", _why), _Field(3, "retry_ms", _number, False),
        _Field(4, "home", _name, False),
    )),
    _Shape(_RECORD_TAG, Record, (
        _Field(1, "epoch", _number), _Field(2, "seq", _number), _Field(3, "key", _key),
        _Field(4, "user", _at_most(MAX_FIELD_BYTES, 1)), _Field(5, "cls", _class), _Field(6, "sent_ms", _number),
        _Field(7, "at_ms", _number), _Field(8, "body", _at_most(MAX_BODY_BYTES)),
        _Field(9, "prev", _exactly(CHAIN_BYTES)), _Field(10, "lang", _text(35), False),
        _Field(11, "reply_to", _number, False),
    )),
    _Shape(5, Opening, (_Field(1, "epoch", _number), _Field(2, "start", _number), _Field(3, "home", _name))),
)  # fmt: skip
_SHAPE_BY_TAG = {shape.tag: shape for shape in _SHAPES}
_SHAPE_OF: dict[type, _Shape] = {
    Publish: _SHAPES[0], Ack: _SHAPES[1], Nak: _SHAPES[2], Record: _SHAPES[3], Opening: _SHAPES[4],
}  # fmt: skip
