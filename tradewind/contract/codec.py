"""Messages and bytes: what nodes say to each other, in versions, in frames on a stream. Links and stores call this.

A frame is a length of four bytes and an envelope: the msgpack array `[version, message]`. A node speaks the newest
version and the one before it (`VERSIONS`); both ends tell theirs while they prove who they are (`proving`), and
`choose_version` picks the one that a connection speaks for its whole life. What came with a version stands in `SINCE`:
new fields (they have defaults), new messages, new words of a closed list. In an older version the fields are left out,
the messages and words are refused, and both are refused when they come.

Any bytes give a message or `ContractError`. One message has one encoding: keys in order of the alphabet, numbers as
their field's type has them, so that a signature over bytes says something about values. What route tables need for
that stands in `tables`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Final, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar

import msgpack  # type: ignore[import-untyped]
import msgspec
from msgspec import Struct, inspect

from tradewind.contract.messages import (
    OnLink,
    PackedTable,
    Question,
    Received,
    Report,
    RouteTable,
    ToController,
    ToRelay,
)

M = TypeVar("M")
Since: TypeAlias = Mapping[type[Struct] | tuple[type[Struct], str] | tuple[type[Struct], str, str], int]
"""With which version came a message, a field of a struct, or a word that a field may hold."""

VERSION: Final = 2
VERSIONS: Final = (2, 1)
"""What we speak, newest first: the version of `messages` and, from 2 on, the one before it."""
SINCE: Final[Since] = {
    (Report, "tracks"): 2,
    (Report, "streams"): 2,
    (Report, "streams_more"): 2,
    (Report, "overstayed"): 2,
    (Report, "tables_refused"): 2,
    (Report, "table_refused"): 2,
    (Received, "leaving"): 2,
    (Question, "what", "streams"): 2,
    (Question, "after"): 2,
    (Question, "namespace"): 2,
    PackedTable: 2,
}
"""What came after version 1. Entries go when the version before theirs is not spoken any more."""

MAX_VALUES = 2_000_000
"""Values in one message: more than any that fits its type, and a bound on what 8 MB of empty lists take."""
MAX_FIELDS = 32
"""Fields of one struct."""
_LENGTH = struct.Struct(">I")
_SHOWN_CHARACTERS = 160
_BYTES = (bytes,)
_ENCODER = msgspec.msgpack.Encoder(order="sorted")


class Reason(Enum):
    """Why bytes are not a message, or a value has no bytes."""

    TOO_LONG = "too-long"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    """Not msgpack, or msgpack that we never send."""
    VERSION = "version"
    """Another version than the connection speaks, or none in common."""
    SHAPE = "shape"
    """Not one of the messages of this direction, or a value out of its bounds."""
    TOO_NEW = "too-new"
    """Something that came with a later version than the one spoken."""
    OTHER_TABLE = "other-table"
    """A difference between other tables than this one."""


class ContractError(Exception):
    """Bytes or values that are not in the contract; `reason` says why. It ends the connection that they came on."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Direction(Generic[M]):
    """Which messages go one way, and how much of them at once."""

    name: str
    kind: Any
    """The type, or union of types, that `M` is."""
    max_frame_bytes: int
    max_array: int
    """The longest tuple of any of its messages."""


TO_CONTROLLER: Final[Direction[ToController]] = Direction("to-controller", ToController, 4 * 2**20, 20_000)
TO_RELAY: Final[Direction[ToRelay]] = Direction("to-relay", ToRelay, 8 * 2**20, 20_000)
ON_LINK: Final[Direction[OnLink]] = Direction("on-link", OnLink, 4096, 16)
TABLE: Final[Direction[RouteTable]] = Direction("table", RouteTable, 8_000_000, 20_000)
"""Not a stream's: what `SignedTable.table` holds."""


def choose_version(ours: Iterable[int], theirs: Iterable[int]) -> int:
    """The highest version that both speak; raises ContractError where there is none."""
    common = set(ours) & set(theirs)
    if not common:
        raise ContractError(Reason.VERSION, "no version in common")
    return max(common)


class Codec(Generic[M]):
    """One direction in one version. Raises ValueError where `since` names what cannot be left out."""

    __slots__ = ("_absent", "_decoder", "_direction", "_head", "_older", "version")

    def __init__(self, direction: Direction[M], version: int = VERSION, since: Since = SINCE) -> None:
        self.version = version
        self._direction = direction
        kinds = _structs_of(inspect.type_info(direction.kind))
        self._absent = frozenset(kind.tag for kind in kinds if since.get(kind.cls, 0) > version)
        found = {kind.tag: _older(kind, version, since) for kind in kinds}
        self._older = {tag: older for tag, older in found.items() if older is not None}
        self._decoder = msgspec.msgpack.Decoder(direction.kind)
        self._head = b"\x92" + _ENCODER.encode(version)

    def encode(self, message: M) -> bytes:
        """The one encoding of a message, without its length. Raises ContractError where it does not fit its type."""
        try:
            # There and back: what the other end would refuse is refused here, and 1 in a float's place becomes 1.0.
            checked = self._decoder.decode(_ENCODER.encode(message))
            tag = checked.__struct_config__.tag
            self._refuse_absent(tag)
            if tag in self._older:
                tree = msgspec.to_builtins(checked, builtin_types=_BYTES, order="sorted")
                self._older[tag].leave_out(tree)
                body: bytes = msgpack.packb(tree)
            else:
                body = _ENCODER.encode(checked)
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise ContractError(Reason.SHAPE, _shown(error)) from error
        data = self._head + body
        if len(data) > self._direction.max_frame_bytes:
            raise ContractError(Reason.TOO_LONG, f"{len(data)} bytes {self._direction.name}")
        return data

    def encode_frame(self, message: M) -> bytes:
        """A message as it goes onto a stream. Raises ContractError as `encode` does."""
        return frame(self.encode(message))

    def decode(self, data: bytes) -> M:
        """The message in what `Frames` found. Raises ContractError, whatever the bytes."""
        version, tree = open_envelope(data, self._direction)
        if version != self.version:
            raise ContractError(Reason.VERSION, f"version {version} where {self.version} is spoken")
        return self.read(tree)

    def read(self, tree: dict[str, Any]) -> M:
        """The message in what msgpack made of an envelope of this version. Raises ContractError."""
        message = self._shape(tree)
        tag = tree["t"]
        self._refuse_absent(tag)
        if tag in self._older:
            self._older[tag].refuse(tree)
        return message

    def _shape(self, tree: Any) -> M:
        try:
            message: M = msgspec.convert(tree, self._direction.kind, strict=True, builtin_types=_BYTES)
        except msgspec.ValidationError as error:
            raise ContractError(Reason.SHAPE, _shown(error)) from error
        return message

    def _refuse_absent(self, tag: str) -> None:
        if tag in self._absent:
            raise ContractError(Reason.TOO_NEW, f"{tag} is not in version {self.version}")


@cache
def codec_of(direction: Direction[M], version: int) -> Codec[M]:
    """The codec of a direction in a version: the same one for all links, for it keeps nothing."""
    return Codec(direction, version)


def frame(data: bytes) -> bytes:
    """An envelope with its length before it."""
    return _LENGTH.pack(len(data)) + data


class Frames:
    """The frames in one stream's bytes, however they were cut. After an error it says the same error for ever."""

    __slots__ = ("_buffer", "_failure", "_max_frame_bytes")

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._failure: ContractError | None = None

    @property
    def held_bytes(self) -> int:
        """What came and was not taken: after `take` said None, less than one frame."""
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Keep bytes of the stream; call `take` until it says None."""
        if self._failure is None:
            self._buffer += data

    def take(self) -> bytes | None:
        """The next whole frame, None where it is not whole yet. Raises ContractError on a length out of bounds."""
        if self._failure is not None:
            raise self._failure
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if not 0 < length <= self._max_frame_bytes:
            self._fail(ContractError(Reason.TOO_LONG if length else Reason.MALFORMED, f"a frame of {length} bytes"))
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        data = bytes(memoryview(self._buffer)[_LENGTH.size : end])
        del self._buffer[:end]
        return data

    def finish(self) -> None:
        """The stream has ended. Raises ContractError where it did so inside a frame."""
        if self._failure is None and self._buffer:
            self._fail(ContractError(Reason.TRUNCATED, "the stream ended inside a frame"))

    def rest(self) -> bytes:
        """What was received and not taken, for whoever reads the stream from here on."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def _fail(self, failure: ContractError) -> NoReturn:
        self._failure = failure
        self._buffer.clear()
        raise failure


# --- Unpacking ---


def open_envelope(data: bytes, direction: Direction[Any]) -> tuple[int, dict[str, Any]]:
    """The version and the message in it, as what msgpack knows. Raises ContractError."""
    if len(data) > direction.max_frame_bytes:
        raise ContractError(Reason.TOO_LONG, f"{len(data)} bytes {direction.name}")
    tree = _unpack(data, direction.max_array)
    if not isinstance(tree, list) or len(tree) != 2 or type(tree[0]) is not int or not isinstance(tree[1], dict):
        raise ContractError(Reason.MALFORMED, "not an envelope")
    return tree[0], tree[1]


def _unpack(data: bytes, max_array: int) -> Any:
    left = MAX_VALUES

    def listed(items: list[Any]) -> list[Any]:
        nonlocal left
        left -= len(items) + 1
        if left < 0:
            raise ContractError(Reason.TOO_LONG, f"more than {MAX_VALUES} values")
        return items

    def mapped(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        listed(pairs)
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ContractError(Reason.MALFORMED, "a key stands there twice")
        return found

    try:
        return msgpack.unpackb(
            data,
            list_hook=listed,
            object_pairs_hook=mapped,
            ext_hook=_no_extension,
            # Every element takes a byte: what says more is lying, and gets no memory for it.
            max_array_len=min(max_array, len(data)),
            max_map_len=MAX_FIELDS,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise ContractError(Reason.MALFORMED, _shown(error)) from error


def _no_extension(code: int, _data: bytes) -> NoReturn:
    raise ContractError(Reason.MALFORMED, f"extension type {code}")


def _shown(error: Exception) -> str:
    """What a foreign error says: it may quote what came, so it is cut, and harmless in a log."""
    text = str(error)[:_SHOWN_CHARACTERS] or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in text)


# --- Versions ---


class _Older(NamedTuple):
    """What a version does not have yet of one struct, and of the structs in it."""

    name: str
    fields: frozenset[str]
    words: Mapping[str, frozenset[str]]
    inner: Mapping[str, _Older]

    def leave_out(self, tree: dict[str, Any]) -> None:
        """Take newer fields away; a newer word has no bytes in this version."""
        for field in self.fields:
            tree.pop(field, None)
        self._refuse_words(tree)
        for field, older in self.inner.items():
            for part in _dicts(tree.get(field)):
                older.leave_out(part)

    def refuse(self, tree: dict[str, Any]) -> None:
        """Raise ContractError where something newer came."""
        for field in self.fields & tree.keys():
            raise ContractError(Reason.TOO_NEW, f"{self.name}.{field}")
        self._refuse_words(tree)
        for field, older in self.inner.items():
            for part in _dicts(tree.get(field)):
                older.refuse(part)

    def _refuse_words(self, tree: dict[str, Any]) -> None:
        for field, words in self.words.items():
            if tree.get(field) in words:
                raise ContractError(Reason.TOO_NEW, f"{self.name}.{field} {tree[field]}")


def _older(kind: inspect.StructType, version: int, since: Since) -> _Older | None:
    """What `version` lacks of a struct; None where it lacks nothing."""
    known = {field.name: field for field in kind.fields}
    fields: set[str] = set()
    words: dict[str, set[str]] = {}
    for place, came in since.items():
        if not isinstance(place, tuple) or place[0] is not kind.cls:
            continue
        if place[1] not in known or (len(place) == 2 and known[place[1]].required):
            raise ValueError(f"{kind.cls.__name__}.{place[1]} is not a field with a default")
        if came > version and len(place) == 2:
            fields.add(place[1])
        elif came > version:
            words.setdefault(place[1], set()).update(place[2:])
    inner: dict[str, _Older] = {}
    for name, field in known.items():
        structs = _structs_of(field.type) if name not in fields else []
        if len(structs) > 1 and any(_older(struct, version, since) for struct in structs):
            raise ValueError(f"{kind.cls.__name__}.{name} holds structs of several types")
        older = _older(structs[0], version, since) if structs else None
        if older is not None:
            inner[name] = older
    if not (fields or words or inner):
        return None
    frozen = {field: frozenset(newer) for field, newer in words.items()}
    return _Older(kind.cls.__name__, frozenset(fields), frozen, inner)


def _structs_of(kind: inspect.Type) -> list[inspect.StructType]:
    """The structs that a value of this type is, or is a tuple of."""
    if isinstance(kind, inspect.StructType):
        return [kind]
    if isinstance(kind, inspect.UnionType):
        return [struct for one in kind.types for struct in _structs_of(one)]
    if isinstance(kind, inspect.VarTupleType):
        return _structs_of(kind.item_type)
    if isinstance(kind, inspect.TupleType):
        return [struct for one in kind.item_types for struct in _structs_of(one)]
    return []


def _dicts(tree: Any) -> Iterable[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    elif isinstance(tree, list | tuple):
        for one in tree:
            yield from _dicts(one)
