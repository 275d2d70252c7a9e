"""A receiver that costs next to nothing: what is left of a QUIC client once its connection stands.

`bench.dialing` makes the handshake with aioquic and then hands the keys over: from there on packets are opened, media
is counted and acknowledged here, in a twentieth of the time that aioquic takes, so that one core can be two hundred
viewers and still be in time. What a viewer would do with control messages is left out: none is expected any more.
Acknowledgements follow RFC 9000 and one of two policies, which decide what a sender pays for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tradewind.moqt.varint import decode_vi64

HEADER_BYTES = 9
KEY_PHASE = 0x04
"""First byte and our connection id of eight bytes."""
ACK_DELAY_EXPONENT = 3
MOST_RANGES = 32
MOST_FINISHED = 4096
DATAGRAM_LENGTH, STREAM_OFFSET, STREAM_LENGTH, STREAM_FIN = 0x01, 0x04, 0x02, 0x01
ZERO_OBJECT = 0x04

_SKIPPED = {0x04: 3, 0x05: 2, 0x10: 1, 0x11: 2, 0x12: 1, 0x13: 1, 0x14: 1, 0x15: 2, 0x16: 1, 0x17: 1, 0x19: 1}
"""Frames of integers alone, and how many: what they say changes nothing here."""


@dataclass(frozen=True, slots=True)
class AckPolicy:
    """When a receiver acknowledges: after `every` packets that ask for it, and at the latest after `delay_s`."""

    name: str
    every: int | None
    delay_s: float


ACK_POLICIES = {policy.name: policy for policy in (AckPolicy("timer", None, 0.001), AckPolicy("second", 2, 0.025))}
"""`timer`: once a burst, as aioquic does. `second`: every other packet, as RFC 9000 suggests and browsers do."""

Arrived = Callable[[int, int, int, int, float], None]
"""Told of each whole object: receiver, group, object, bytes on the wire of MoQT, when."""


class Broken(Exception):
    """The server closed, or sent what a receiver cannot go on after."""


class _Stream:
    """One unidirectional stream while it arrives."""

    __slots__ = ("data", "early", "end", "group", "next")

    def __init__(self) -> None:
        self.data = bytearray()
        self.next = 0
        self.end = -1
        self.group = -1
        self.early: dict[int, int] = {}
        """Frames that came before their turn: offset and end."""


class _Came:
    """Which packet numbers came: the newest span, and the older ones, with something missing between any two."""

    __slots__ = ("_low", "_older", "high", "high_at")

    def __init__(self, spans: tuple[tuple[int, int], ...]) -> None:
        self._low, self.high = spans[-1]
        self._older = [list(span) for span in spans[:-1]]
        self.high_at = 0.0
        """When the highest one came."""

    def note(self, number: int, now: float) -> bool:
        """Remember one; False where it has been here."""
        if number == self.high + 1:
            self.high, self.high_at = number, now
            return True
        if number > self.high:
            self._older.append([self._low, self.high])
            self._low = self.high = number
            self.high_at = now
            del self._older[:-MOST_RANGES]
            return True
        spans = [*self._older, [self._low, self.high]]
        for at, (low, high) in enumerate(spans):
            if low <= number <= high:
                return False
            if number < low:
                spans.insert(at, [number, number])
                break
        merged: list[list[int]] = []
        for span in spans:
            if merged and merged[-1][1] + 1 == span[0]:
                merged[-1][1] = span[1]
            else:
                merged.append(span)
        self._low, self.high = merged.pop()
        self._older = merged[-MOST_RANGES:]
        return True

    def ack_frame(self, now: float) -> bytes:
        """One ACK frame of all of them."""
        delay = max(int((now - self.high_at) * 1_000_000), 0) >> ACK_DELAY_EXPONENT
        older = self._older[-MOST_RANGES:]
        parts = [b"\x02", varint(self.high), varint(delay), varint(len(older)), varint(self.high - self._low)]
        low = self._low
        for start, stop in reversed(older):
            parts += (varint(low - stop - 2), varint(stop - start))
            low = start
        return b"".join(parts)

    def check_invariants(self) -> None:
        spans = [*self._older, [self._low, self.high]]
        assert all(low <= high for low, high in spans)
        assert all(left[1] + 1 < right[0] for left, right in pairwise(spans))


class Protection:
    """The keys of a connection: opens packets that come, seals those that go."""

    __slots__ = ("_close", "_iv", "_mask", "_number", "_open", "_pair", "_peer_cid", "_phase", "_send_iv",
                 "_send_mask")  # fmt: skip

    def __init__(self, keys: Keys) -> None:
        self._pair = keys.pair
        self._mask = keys.pair.recv.hp._mask
        self._send_mask = keys.pair.send.hp._mask
        self._number = keys.next_number
        self._peer_cid = keys.peer_cid
        self._load_keys()

    def open(self, data: bytes, expected: int) -> tuple[int, bytes]:
        """The number of a packet, of which `expected` is the likeliest, and its frames."""
        mask = self._mask(data[13:29])
        first = data[0] ^ (mask[0] & 0x1F)
        size = (first & 3) + 1
        end = HEADER_BYTES + size
        truncated = int.from_bytes(data[9:end], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        number = widen(truncated, size * 8, expected)
        header = b"%c%b%b" % (first, data[1:9], truncated.to_bytes(size, "big"))
        if first & KEY_PHASE != self._phase:
            self._update_keys()
        return number, self._open((self._iv ^ number).to_bytes(12, "big"), data[end:], header)

    def seal(self, frames: bytes) -> bytes:
        """One packet with these frames."""
        number = self._number
        self._number = number + 1
        truncated = number & 0xFFFF
        first = 0x41 | self._phase
        header = b"%c%b%b" % (first, self._peer_cid, truncated.to_bytes(2, "big"))
        sealed = self._close((self._send_iv ^ number).to_bytes(12, "big"), frames, header)
        mask = self._send_mask(sealed[2:18])
        masked = truncated ^ (mask[1] << 8 | mask[2])
        return b"%c%b%b%b" % (first ^ mask[0] & 0x1F, self._peer_cid, masked.to_bytes(2, "big"), sealed)

    def _load_keys(self) -> None:
        receive, send = self._pair.recv, self._pair.send
        self._open, self._iv = receive.aead._aead.decrypt, receive.aead._iv
        self._close, self._send_iv = send.aead._aead.encrypt, send.aead._iv
        self._phase = receive.key_phase << 2

    def _update_keys(self) -> None:
        """The server has gone on to its next keys, as Rust's servers do early: so do we."""
        self._pair._update_key("remote_update")
        self._load_keys()


class Receiver:
    """One connection after its handshake; `receive` takes datagrams, `ack` writes what is owed."""

    __slots__ = ("_arrived", "_came", "_finished", "_floor", "_streams", "ack_at", "acks_sent", "index",
                 "kept", "media_bytes", "packets", "policy", "protection", "unacked")  # fmt: skip

    def __init__(self, index: int, keys: Keys, policy: AckPolicy, arrived: Arrived, keep: bool = False) -> None:
        self.index = index
        self.policy = policy
        self.protection = Protection(keys)
        self.ack_at: float | None = None
        """When an acknowledgement is due at the latest; None: nothing to acknowledge."""
        self.unacked = 0
        self.packets = self.acks_sent = self.media_bytes = 0
        self.kept: dict[tuple[int, int], bytes] | None = {} if keep else None
        """Objects as they came, by group and object, at a receiver whose content is compared."""
        self._arrived = arrived
        self._came = _Came(keys.received)
        self._streams: dict[int, _Stream] = {}
        self._finished: set[int] = set()
        self._floor = 0

    def receive(self, data: bytes, now: float) -> bool:
        """Take one datagram; True where the policy wants an acknowledgement at once. Raises Broken."""
        number, payload = self.protection.open(data, self._came.high + 1)
        self.packets += 1
        if not self._came.note(number, now) or not self._frames(payload, now):
            return False
        self.unacked += 1
        if self.ack_at is None:
            self.ack_at = now + self.policy.delay_s
        return self.policy.every is not None and self.unacked >= self.policy.every

    def ack(self, now: float) -> bytes:
        """One packet that acknowledges everything received."""
        self.ack_at = None
        self.unacked = 0
        self.acks_sent += 1
        return self.protection.seal(self._came.ack_frame(now))

    def ping(self) -> bytes:
        """One packet that keeps the connection alive."""
        return self.protection.seal(b"\x01\x00\x00\x00")

    def close(self) -> bytes:
        """One packet that says goodbye: an application's CONNECTION_CLOSE without a reason."""
        return self.protection.seal(b"\x1d\x00\x00\x00")

    def check_invariants(self) -> None:
        self._came.check_invariants()

    @property
    def unfinished(self) -> int:
        """Streams that have begun and not ended."""
        return len(self._streams)

    def _frames(self, data: bytes, now: float) -> bool:
        """Walk through a packet's frames; returns whether it asks for an acknowledgement."""
        at, size, eliciting = 0, len(data), False
        while at < size:
            kind = data[at]
            at += 1
            if kind == 0:
                continue
            if kind & 0xF8 == 0x08:
                at = self._stream_frame(data, at, kind, now)
            elif kind & 0xFE == 0x30:
                length = size - at
                if kind & DATAGRAM_LENGTH:
                    length, at = pull(data, at)
                self._datagram(data, at, length, now)
                at += length
            elif kind in {0x02, 0x03}:
                at = _skip_ack(data, at, kind)
                continue
            else:
                at = self._other(data, at, kind)
            eliciting = True
        return eliciting

    def _stream_frame(self, data: bytes, at: int, kind: int, now: float) -> int:
        stream_id, at = pull(data, at)
        offset = 0
        if kind & STREAM_OFFSET:
            offset, at = pull(data, at)
        length = len(data) - at
        if kind & STREAM_LENGTH:
            length, at = pull(data, at)
        if stream_id & 3 == 3 and stream_id >= self._floor and stream_id not in self._finished:
            self._stream(stream_id, offset, data[at : at + length], kind & STREAM_FIN, now)
        return at + length

    def _stream(self, stream_id: int, offset: int, data: bytes, fin: int, now: float) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = _Stream()
        end = offset + len(data)
        if offset == 0 and stream.group < 0 and data:
            stream.group = group_of(data)
        if self.kept is not None:
            stream.data.extend(bytes(max(end - len(stream.data), 0)))
            stream.data[offset:end] = data
        if fin:
            stream.end = end
        if offset <= stream.next:
            stream.next = max(stream.next, end)
            while stream.early:
                ready = [start for start in stream.early if start <= stream.next]
                if not ready:
                    break
                for start in ready:
                    stream.next = max(stream.next, stream.early.pop(start))
        else:
            stream.early[offset] = max(end, stream.early.get(offset, 0))
        if stream.next == stream.end:
            del self._streams[stream_id]
            self._finish(stream_id)
            if stream.group >= 0:
                self.media_bytes += stream.end
                if self.kept is not None:
                    self.kept[stream.group, 0] = bytes(stream.data)
                self._arrived(self.index, stream.group, 0, stream.end, now)

    def _finish(self, stream_id: int) -> None:
        """Remember a stream that is over, so that a repeated frame does not begin it again; very old ones in bulk."""
        finished = self._finished
        finished.add(stream_id)
        if len(finished) > MOST_FINISHED:
            oldest_open = min(self._streams, default=stream_id)
            self._floor = min(oldest_open, stream_id - 4 * (MOST_FINISHED // 2))
            self._finished = {known for known in finished if known >= self._floor}

    def _datagram(self, data: bytes, at: int, length: int, now: float) -> None:
        kind = data[at]
        found = decode_vi64(data, at + 1)
        group = decode_vi64(data, found[1]) if found else None
        if group is None:
            raise Broken("a datagram that is no object")
        number = 0
        if not kind & ZERO_OBJECT:
            last = decode_vi64(data, group[1])
            number = last[0] if last else 0
        self.media_bytes += length
        if self.kept is not None:
            self.kept[group[0], number] = data[at : at + length]
        self._arrived(self.index, group[0], number, length, now)

    def _other(self, data: bytes, at: int, kind: int) -> int:
        if kind in {0x01, 0x1E}:
            return at
        if kind in _SKIPPED:
            for _ in range(_SKIPPED[kind]):
                _, at = pull(data, at)
            return at
        if kind == 0x18:
            _, at = pull(data, at)
            _, at = pull(data, at)
            return at + 1 + data[at] + 16
        if kind in {0x1A, 0x1B}:
            return at + 8
        if kind in {0x06, 0x07}:
            if kind == 0x06:
                _, at = pull(data, at)
            length, at = pull(data, at)
            return at + length
        if kind in {0x1C, 0x1D}:
            code, _ = pull(data, at)
            raise Broken(f"the server closed with code {code:#x}")
        raise Broken(f"frame {kind:#x}")


@dataclass(frozen=True, slots=True)
class Keys:
    """What a connection's handshake leaves to its receiver."""

    pair: Any
    """aioquic's `CryptoPair` of 1-RTT keys; its owner uses it no more."""
    peer_cid: bytes
    next_number: int
    received: tuple[tuple[int, int], ...]
    """Packet numbers already acknowledged, as inclusive spans."""


def widen(truncated: int, bits: int, expected: int) -> int:
    """The packet number nearest to `expected` that ends in `truncated` (RFC 9000, appendix A.3)."""
    window = 1 << bits
    candidate = expected & ~(window - 1) | truncated
    if candidate + window // 2 <= expected:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate


def pull(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer of RFC 9000, and where it ends."""
    first = data[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | data[at + 1], at + 2
    size = 4 if first < 0xC0 else 8
    return int.from_bytes(data[at : at + size], "big") & ((1 << size * 8 - 2) - 1), at + size


def varint(value: int) -> bytes:
    """A variable-length integer of RFC 9000."""
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4, "big")
    return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")


def group_of(data: bytes) -> int:
    """The group of a subgroup stream that begins with `data`; -1 for streams that carry something else."""
    kind = decode_vi64(data, 0)
    if kind is None or not kind[0] & 0x10 or kind[0] >= 0x80:
        return -1
    alias = decode_vi64(data, kind[1])
    group = decode_vi64(data, alias[1]) if alias else None
    if group is None:
        raise Broken("a stream's first frame ends inside its header")
    return group[0]


def _skip_ack(data: bytes, at: int, kind: int) -> int:
    _, at = pull(data, at)
    _, at = pull(data, at)
    count, at = pull(data, at)
    for _ in range(2 * count + 1):
        _, at = pull(data, at)
    if kind == 0x03:
        for _ in range(3):
            _, at = pull(data, at)
    return at
