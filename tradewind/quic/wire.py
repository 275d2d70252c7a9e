"""Variable-length integers, and WebTransport's bytes: stream headers, capsules, error codes and protocol lists.

Pure functions and one small reader. WebTransport's values are those of draft-ietf-webtrans-http3-02, which every client
that we know accepts; error codes use the 32-bit range of later drafts, of which the older 8-bit one is the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UNI_STREAM_TYPE = 0x54
BIDI_FRAME_TYPE = 0x41
CLOSE_CAPSULE = 0x2843
DRAIN_CAPSULE = 0x78AE
CLOSE_MESSAGE_BYTES = 1024
FIRST_CODE = 0x52E4A40FA8DB
LAST_CODE = 0x52E5AC983162
PROTOCOLS = 64
SMALL = tuple(bytes((value,)) for value in range(0x40))
PROTOCOL_LIST_BYTES = 4096


class CapsuleError(Exception):
    """The CONNECT stream carries what no capsule can be."""


@dataclass(frozen=True, slots=True)
class CloseCapsule:
    """CLOSE_WEBTRANSPORT_SESSION."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class DrainCapsule:
    """DRAIN_WEBTRANSPORT_SESSION: the peer would like us to finish."""


def stream_header(unidirectional: bool, session: int) -> bytes:
    """What every WebTransport stream begins with."""
    return push_varint(UNI_STREAM_TYPE if unidirectional else BIDI_FRAME_TYPE) + push_varint(session)


def push_varint(value: int) -> bytes:
    """A QUIC variable-length integer in its shortest form (RFC 9000, "Variable-Length Integer Encoding").

    Raises ValueError from 2^62 on.
    """
    if value < 0x40:
        return SMALL[value]
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4, "big")
    if value >= 1 << 62:
        raise ValueError("too large for a variable-length integer")
    return (value | 0xC000000000000000).to_bytes(8, "big")


def pull_varint(data: bytes | bytearray, offset: int) -> tuple[int, int] | None:
    """Read a QUIC variable-length integer: (value, offset after it), or None where it is not whole."""
    if offset >= len(data):
        return None
    size = 1 << (data[offset] >> 6)
    end = offset + size
    if end > len(data):
        return None
    return int.from_bytes(data[offset:end], "big") & ((1 << (8 * size - 2)) - 1), end


def to_http_code(code: int) -> int:
    """An application's stream error code (32 bits at most) as HTTP/3 carries it, stepping over reserved codes."""
    code = min(code, 0xFFFFFFFF)
    return FIRST_CODE + code + code // 0x1E


def from_http_code(code: int) -> int | None:
    """The application's error code behind an HTTP/3 one; None where there is none."""
    if not FIRST_CODE <= code <= LAST_CODE or (code - 0x21) % 0x1F == 0:
        return None
    shifted = code - FIRST_CODE
    return shifted - shifted // 0x1F


def encode_close(code: int, reason: str) -> bytes:
    """A CLOSE_WEBTRANSPORT_SESSION capsule; the reason is cut to what it may hold."""
    message = reason.encode()[:CLOSE_MESSAGE_BYTES].decode(errors="ignore").encode()
    body = (code & 0xFFFFFFFF).to_bytes(4, "big") + message
    return push_varint(CLOSE_CAPSULE) + push_varint(len(body)) + body


class CapsuleReader:
    """Reads the capsules of one CONNECT stream, in whatever pieces they come; unknown ones are skipped unbuffered."""

    __slots__ = ("_buffer", "_skip")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0

    @property
    def midway(self) -> bool:
        """Whether a capsule has begun and is not whole."""
        return bool(self._buffer or self._skip)

    def feed(self, data: bytes) -> list[CloseCapsule | DrainCapsule]:
        """Take bytes; returns the capsules now whole that we know. Raises `CapsuleError`."""
        capsules: list[CloseCapsule | DrainCapsule] = []
        buffer = self._buffer
        buffer += data
        while buffer:
            if self._skip:
                size = min(self._skip, len(buffer))
                del buffer[:size]
                self._skip -= size
                continue
            head = _capsule_head(buffer)
            if head is None:
                break
            kind, length, start = head
            if kind == CLOSE_CAPSULE:
                if not 4 <= length <= 4 + CLOSE_MESSAGE_BYTES:
                    raise CapsuleError("length of CLOSE_WEBTRANSPORT_SESSION")
                if len(buffer) < start + length:
                    break
                capsules.append(_decode_close(bytes(buffer[start : start + length])))
                del buffer[: start + length]
                continue
            if kind == DRAIN_CAPSULE:
                capsules.append(DrainCapsule())
            del buffer[:start]
            self._skip = length
        return capsules


def encode_protocols(protocols: Sequence[str]) -> str:
    """A structured-field list of strings (WT-Available-Protocols)."""
    return ", ".join(map(encode_protocol, protocols))


def encode_protocol(protocol: str) -> str:
    """A structured-field string (WT-Protocol)."""
    escaped = protocol.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def decode_protocols(values: Iterable[bytes]) -> tuple[str, ...]:
    """The strings of a structured-field list, given its header lines; empty where it is malformed or too long.

    RFC 9651 has a recipient ignore the whole field when any of it does not parse; parameters are skipped.
    """
    text = b",".join(values).decode("ascii", errors="replace")
    if len(text) > PROTOCOL_LIST_BYTES:
        return ()
    protocols: list[str] = []
    position = 0
    while len(protocols) < PROTOCOLS:
        position = _skip_blanks(text, position)
        item = _pull_string(text, position)
        if item is None:
            return ()
        protocol, position = item
        protocols.append(protocol)
        position = _skip_blanks(text, _skip_parameters(text, position))
        if position == len(text):
            return tuple(protocols)
        if text[position] != ",":
            return ()
        position += 1
    return ()


def _capsule_head(buffer: bytearray) -> tuple[int, int, int] | None:
    kind = pull_varint(buffer, 0)
    if kind is None:
        return None
    length = pull_varint(buffer, kind[1])
    return None if length is None else (kind[0], length[0], length[1])


def _decode_close(body: bytes) -> CloseCapsule:
    try:
        return CloseCapsule(int.from_bytes(body[:4], "big"), body[4:].decode())
    except UnicodeDecodeError as error:
        raise CapsuleError("the close message is not UTF-8") from error


def _skip_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t":
        position += 1
    return position


def _pull_string(text: str, position: int) -> tuple[str, int] | None:
    if position >= len(text) or text[position] != '"':
        return None
    position += 1
    out: list[str] = []
    while position < len(text):
        character = text[position]
        if character == '"':
            return "".join(out), position + 1
        if character == "\\":
            position += 1
            if position >= len(text) or text[position] not in '"\\':
                return None
            character = text[position]
        elif not " " <= character <= "~":
            return None
        out.append(character)
        position += 1
    return None


def _skip_parameters(text: str, position: int) -> int:
    """Step over `;key=value` parameters: everything up to a comma outside a string."""
    if position >= len(text) or text[position] != ";":
        return position
    while position < len(text) and text[position] != ",":
        if text[position] == '"':
            item = _pull_string(text, position)
            if item is None:
                return position
            position = item[1]
        else:
            position += 1
    return position
