"""The structures that control messages are made of: locations, names, phrases and Key-Value-Pairs.

`Reader` walks one whole message body, whose end is known: running past it is the peer's fault, never "not enough
bytes". Callers: messages, parameters, properties. Source: draft-20, "Notational Conventions" and "Track Naming".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tradewind.moqt.errors import MisuseError, ProtocolViolation, SessionCode
from tradewind.moqt.model import FullTrackName, Location, Namespace, Properties
from tradewind.moqt.varint import Buffer

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile
    from tradewind.moqt.varint import VarintCodec

MAX_NAMESPACE_FIELDS = 32
MAX_TRACK_NAME_BYTES = 4096
"""A namespace, or a namespace and a track name together: the sum of their fields' lengths."""
MAX_REASON_BYTES = 1024
MAX_URI_BYTES = 8192
MAX_VALUE_BYTES = 0xFFFF
"""An odd Key-Value-Pair's value."""
MAX_TYPE = 2**64 - 1
MAX_PAIRS = 256
"""Key-Value-Pairs in one place. The draft sets no limit, but two bytes on the wire are a hundred in memory."""


class Quirks(Protocol):
    """Which named leniences are on; a call that returns True is counted as a use."""

    def allows(self, name: str) -> bool: ...


class _Strict:
    def allows(self, name: str) -> bool:
        return False


STRICT: Quirks = _Strict()
"""No lenience at all."""


def violation(reason: str, code: SessionCode = SessionCode.PROTOCOL_VIOLATION) -> ProtocolViolation:
    """The exception to raise for what the peer may not say."""
    return ProtocolViolation(code, reason)


class Reader:
    """Reads fields one after another out of one body; every method raises ProtocolViolation at the body's end."""

    __slots__ = ("_buffer", "_decode", "end", "offset", "profile", "quirks")

    def __init__(self, profile: Profile, buffer: Buffer, quirks: Quirks = STRICT) -> None:
        self.profile = profile
        self.quirks = quirks
        self.offset = 0
        self.end = len(buffer)
        self._buffer = buffer
        self._decode = profile.varint.decode

    def varint(self) -> int:
        """A variable-length integer of the profile's kind."""
        decoded = self._decode(self._buffer, self.offset)
        if decoded is None:
            raise violation("cut short inside an integer")
        value, self.offset = decoded
        return value

    def byte(self) -> int:
        """A single byte."""
        if self.offset >= self.end:
            raise violation("cut short")
        self.offset += 1
        return self._buffer[self.offset - 1]

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        if length > self.end - self.offset:
            raise violation("cut short inside a field")
        self.offset += length
        return bytes(self._buffer[self.offset - length : self.offset])

    def prefixed(self, limit: int, what: str) -> bytes:
        """A length and that many bytes, of which at most `limit` are allowed."""
        length = self.varint()
        if length > limit:
            raise violation(f"{what} of {length} bytes, over {limit}")
        return self.take(length)

    def rest(self) -> bytes:
        """Everything up to the end."""
        return self.take(self.end - self.offset)

    def nested(self, what: str) -> Reader:
        """A length, and a reader over only that many bytes, which this reader skips."""
        return Reader(self.profile, self.prefixed(self.end - self.offset, what), self.quirks)

    def finish(self, what: str) -> None:
        """Raise ProtocolViolation unless everything was read."""
        if self.offset != self.end:
            raise violation(f"{self.end - self.offset} bytes too many in {what}")


def read_location(reader: Reader) -> Location:
    """A Location: group, then object."""
    return Location(reader.varint(), reader.varint())


def write_number(profile: Profile, value: int) -> bytes:
    """An integer that may come from another session: one too large for this draft becomes its largest."""
    return profile.varint.encode(min(value, profile.varint.maximum))


def write_location(profile: Profile, location: Location) -> bytes:
    """A Location; see `read_location` and `write_number`."""
    return write_number(profile, location.group) + write_number(profile, location.object)


def write_prefixed(profile: Profile, value: bytes) -> bytes:
    """`value` behind its length."""
    return profile.varint.encode(len(value)) + value


def read_namespace(reader: Reader, fewest: int = 0) -> Namespace:
    """A Track Namespace, a prefix or a suffix of one: at least `fewest` fields, none of them empty."""
    count = reader.varint()
    if not fewest <= count <= MAX_NAMESPACE_FIELDS:
        raise violation(f"a namespace of {count} fields")
    fields = []
    total = 0
    for _ in range(count):
        field = reader.prefixed(MAX_TRACK_NAME_BYTES, "a namespace field")
        total += len(field)
        if not field:
            raise violation("an empty namespace field")
        if total > MAX_TRACK_NAME_BYTES:
            raise violation(f"a namespace over {MAX_TRACK_NAME_BYTES} bytes")
        fields.append(field)
    return tuple(fields)


def write_namespace(profile: Profile, namespace: Namespace) -> bytes:
    """A Track Namespace; MisuseError where no peer may accept it."""
    _check_name(namespace, b"")
    encode = profile.varint.encode
    return encode(len(namespace)) + b"".join(encode(len(field)) + field for field in namespace)


def read_track(reader: Reader) -> FullTrackName:
    """A Full Track Name: namespace, then name."""
    namespace = read_namespace(reader, reader.profile.fewest_namespace_fields)
    return FullTrackName(namespace, read_track_name(reader, namespace))


def read_track_name(reader: Reader, namespace: Namespace) -> bytes:
    """A track name, perhaps empty, that together with `namespace` keeps the limit."""
    name = reader.prefixed(MAX_TRACK_NAME_BYTES, "a track name")
    if sum(map(len, namespace)) + len(name) > MAX_TRACK_NAME_BYTES:
        raise violation(f"a full track name over {MAX_TRACK_NAME_BYTES} bytes")
    return name


def write_track(profile: Profile, track: FullTrackName) -> bytes:
    """A Full Track Name; MisuseError where no peer may accept it."""
    _check_name(track.namespace, track.name)
    if len(track.namespace) < profile.fewest_namespace_fields:
        raise MisuseError(f"{profile.name} has no tracks without a namespace")
    return write_namespace(profile, track.namespace) + write_prefixed(profile, track.name)


def read_reason(reader: Reader) -> str:
    """A Reason Phrase; bytes that are not UTF-8 are replaced, for it is only ever shown."""
    return reader.prefixed(MAX_REASON_BYTES, "a reason phrase").decode("utf-8", "replace")


def write_reason(profile: Profile, reason: str) -> bytes:
    """A Reason Phrase, cut to what the peer must accept."""
    encoded = reason.encode("utf-8", "replace")
    if len(encoded) > MAX_REASON_BYTES:
        # Cutting may split a character: drop its first bytes too.
        encoded = encoded[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
    return write_prefixed(profile, encoded)


def read_uri(reader: Reader) -> str:
    """A URI, perhaps empty. It has to be ASCII, as RFC 3986 has it."""
    uri = reader.prefixed(MAX_URI_BYTES, "a URI")
    if not uri.isascii():
        raise violation("a URI that is not ASCII")
    return uri.decode("ascii")


def write_uri(profile: Profile, uri: str) -> bytes:
    """A URI; MisuseError where it is too long or not ASCII."""
    if not uri.isascii() or len(uri) > MAX_URI_BYTES:
        raise MisuseError("a URI has to be ASCII and at most 8192 bytes")
    return write_prefixed(profile, uri.encode("ascii"))


def decode_pairs(codec: VarintCodec, buffer: Buffer, offset: int = 0, end: int | None = None) -> Properties:
    """Key-Value-Pairs from `offset` to `end`, which is where the last one ends.

    Raises ProtocolViolation: KEY_VALUE_FORMATTING_ERROR where the last pair is cut, PROTOCOL_VIOLATION for a type
    over 2^64-1 or a value over 2^16-1 bytes, INTERNAL_ERROR for more than `MAX_PAIRS`.
    """
    decode = codec.decode
    end = len(buffer) if end is None else end
    pairs: list[tuple[int, int | bytes]] = []
    type = 0
    while offset < end:
        delta = decode(buffer, offset)
        # The value of an even type and the length of an odd one are both integers.
        number = decode(buffer, delta[1]) if delta else None
        if delta is None or number is None or number[1] > end:
            raise violation("a key-value pair is cut short", SessionCode.KEY_VALUE_FORMATTING_ERROR)
        type += delta[0]
        if type > MAX_TYPE:
            raise violation("a key-value pair's type is over 2^64-1")
        if len(pairs) == MAX_PAIRS:
            raise violation(f"more than {MAX_PAIRS} key-value pairs", SessionCode.INTERNAL_ERROR)
        value, offset = number
        if not type & 1:
            pairs.append((type, value))
            continue
        if value > MAX_VALUE_BYTES:
            raise violation(f"a key-value pair of {value} bytes")
        if value > end - offset:
            raise violation("a key-value pair is cut short", SessionCode.KEY_VALUE_FORMATTING_ERROR)
        pairs.append((type, bytes(buffer[offset : offset + value])))
        offset += value
    return tuple(pairs)


def encode_pairs(codec: VarintCodec, pairs: Properties) -> bytes:
    """Key-Value-Pairs in ascending order of type; equal types keep the order they came in.

    A pair with a type or an integer that the draft has no room for is left out: it came over a newer one.
    """
    encode, maximum = codec.encode, codec.maximum
    parts: list[bytes] = []
    last = 0
    for type, value in sorted(pairs, key=_type_of):
        if type > maximum:
            break
        if isinstance(value, int):
            if type & 1:
                raise MisuseError(f"property {type:#x} is odd and needs bytes")
            if value > maximum:
                continue
            parts += (encode(type - last), encode(value))
        elif not type & 1 or len(value) > MAX_VALUE_BYTES:
            raise MisuseError(f"property {type:#x} cannot carry these bytes")
        else:
            parts += (encode(type - last), encode(len(value)), value)
        last = type
    return b"".join(parts)


def _type_of(pair: tuple[int, int | bytes]) -> int:
    return pair[0]


def _check_name(namespace: Namespace, name: bytes) -> None:
    if len(namespace) > MAX_NAMESPACE_FIELDS or not all(namespace):
        raise MisuseError("a namespace has at most 32 fields, none of them empty")
    if sum(map(len, namespace)) + len(name) > MAX_TRACK_NAME_BYTES:
        raise MisuseError(f"a full track name has at most {MAX_TRACK_NAME_BYTES} bytes")
