"""What subgroup and fetch streams have in common: headers cut anywhere, and payload handed on as it comes.

`tradewind.moqt.objects` and `tradewind.moqt.fetched` build on it. Source: draft-20, "Streams".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from tradewind.moqt.errors import ProtocolViolation, SessionCode
from tradewind.moqt.fields import decode_pairs, violation
from tradewind.moqt.model import Properties
from tradewind.moqt.varint import QUIC_MAX

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ObjectLimits:
    """What one object may take."""

    payload_bytes: int = 16 * 1024 * 1024
    properties_bytes: int = 64 * 1024
    largest_id: int = QUIC_MAX
    """Group, subgroup and object ids: what every draft can carry, so that any object can be sent to anyone."""


DEFAULT_LIMITS: Final = ObjectLimits()


class ObjectTooLarge(ProtocolViolation):
    """An object over our limits, which are not the draft's: a session may stop just this stream."""

    def __init__(self, reason: str) -> None:
        super().__init__(SessionCode.INTERNAL_ERROR, reason)


class Piece(NamedTuple):
    """The next bytes of the payload of the object last announced; `last`: there are no more."""

    data: bytes
    last: bool


class StreamDecoder(Generic[Item]):
    """Headers that may be cut anywhere, each followed by as much payload as it says.

    Subclasses set `_next`, which reads one header at an offset of the bytes at hand: it returns the header and the
    offset behind it and sets `_left` to the payload's length, or returns None where the bytes end too early. It may
    then set `_need`, how many bytes from there on are worth another try. Holds the bytes of at most one incomplete
    header, bounded by `ObjectLimits.properties_bytes`.
    """

    __slots__ = (
        "_decode",
        "_largest",
        "_left",
        "_limits",
        "_maximum",
        "_need",
        "_next",
        "_one",
        "_pending",
        "_profile",
    )

    _next: Callable[[bytes, int], tuple[Item, int] | None]

    def __init__(self, profile: Profile, limits: ObjectLimits = DEFAULT_LIMITS) -> None:
        self._profile = profile
        self._limits = limits
        self._decode = profile.varint.decode
        self._one = profile.varint.one_byte_limit
        self._largest = min(limits.largest_id, profile.varint.maximum)
        self._pending = bytearray()
        self._need = 0
        self._left = 0

    def receive(self, data: bytes) -> Iterator[Item | Piece]:
        """What the next bytes of the stream complete, in order; raises ProtocolViolation where they break the draft.

        It has to be exhausted before the next call.
        """
        offset = 0
        if self._left:
            offset = min(self._left, len(data))
            if offset:
                self._left -= offset
                yield Piece(data[:offset], not self._left)
        elif self._pending:
            completed = self._complete(data)
            if completed is None:
                return
            data = completed
        size = len(data)
        while offset < size:
            found = self._next(data, offset)
            if found is None:
                self._pending += data[offset:]
                return
            item, offset = found
            yield item
            if self._left:
                end = min(offset + self._left, size)
                if end > offset:
                    self._left -= end - offset
                    yield Piece(data[offset:end], not self._left)
                offset = end

    def finish(self) -> None:
        """The stream ended with FIN here: raises ProtocolViolation in the middle of a header or a payload."""
        if self._pending or self._left:
            raise violation("a stream ended inside an object")

    @property
    def buffered_bytes(self) -> int:
        """Bytes of an incomplete header that are held."""
        return len(self._pending)

    def _complete(self, data: bytes) -> bytes | None:
        """What is held with `data` behind it, where that may be enough to go on."""
        pending = self._pending
        pending += data
        if len(pending) < self._need:
            return None
        data = bytes(pending)
        pending.clear()
        self._need = 0
        return data

    def _check_id(self, id: int) -> None:
        if id > self._profile.varint.maximum:
            raise violation("an id is over the largest integer")
        if id > self._largest:
            raise ObjectTooLarge(f"id {id} is over {self._largest}")

    def _payload_length(self, length: int) -> int:
        if length > self._limits.payload_bytes:
            raise ObjectTooLarge(f"an object of {length} bytes, over {self._limits.payload_bytes}")
        return length

    def _properties(self, data: bytes, start: int, offset: int) -> tuple[Properties, int] | None:
        """Properties behind their length at `offset`, in a header that began at `start`."""
        found = self._decode(data, offset)
        if found is None:
            return None
        length, offset = found
        if length == 0:
            return (), offset
        if length > self._limits.properties_bytes:
            raise ObjectTooLarge(f"properties of {length} bytes, over {self._limits.properties_bytes}")
        end = offset + length
        if end > len(data):
            self._need = end - start
            return None
        return decode_pairs(self._profile.varint, data, offset, end), end
