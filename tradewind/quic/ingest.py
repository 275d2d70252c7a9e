"""1-RTT packets that arrive: opened, checked and read frame by frame, without aioquic where all is as usual.

As usual means: the handshake is confirmed, the packet came by the one validated path with the connection id in use and
under the keys in use. Whatever is not, aioquic gets whole; frames that are rare it gets where they stand in a packet.
RFC 9000, "Packets and Frames"; `tests/quic/test_ingest.py` lets aioquic and this read the same packets.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from aioquic.quic.connection import QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, decode_packet_number
from aioquic.quic.recovery import MAX_ACK_RANGES
from aioquic.quic.stream import StreamFinishedError
from aioquic.tls import Epoch
from cryptography.exceptions import InvalidTag

from tradewind.quic.config import Address
from tradewind.quic.wire import pull_varint

if TYPE_CHECKING:
    from tradewind.quic.core import QuicCore

CID_END = 9
SAMPLE_START, SAMPLE_END = CID_END + 4, CID_END + 4 + 16
RESERVED_BITS = 0x18
ACKNOWLEDGED_AT_ONCE = 10
"""So many packets are acknowledged without waiting for the timer: a burst in the turn that brought it."""
PADDING, PING, ACK = 0x00, 0x01, 0x02
STREAM, LAST_STREAM = 0x08, 0x0F
DATAGRAM, DATAGRAM_WITH_LENGTH = 0x30, 0x31
OFFSET_BIT, LENGTH_BIT = 0x04, 0x02


class PacketReader:
    """Reads the packets of one established connection."""

    __slots__ = ("_core", "_crypto", "_unacknowledged", "space")

    def __init__(self, core: QuicCore) -> None:
        self._core = core
        self._crypto = core._cryptos[Epoch.ONE_RTT]
        self.space = core._spaces[Epoch.ONE_RTT]
        self._unacknowledged = 0

    def receive(self, data: bytes, address: Address, now: float) -> bool:
        """Take one datagram of a steady connection; False leaves it, untouched, to aioquic."""
        core, space, keys = self._core, self.space, self._crypto.recv
        if len(data) < SAMPLE_END or data[1:CID_END] != core.host_cid or core._network_paths[0].addr != address:
            return False
        if keys.aead is None or keys.hp is None:
            return False
        mask = keys.hp._mask(data[SAMPLE_START:SAMPLE_END])
        first = data[0] ^ mask[0] & 0x1F
        if first & RESERVED_BITS or first >> 2 & 1 != keys.key_phase:
            return False
        size = (first & 3) + 1
        end = CID_END + size
        truncated = int.from_bytes(data[CID_END:end], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        number = decode_packet_number(truncated, 8 * size, space.expected_packet_number)
        header = b"%c%b%b" % (first, data[1:CID_END], truncated.to_bytes(size, "big"))
        try:
            plain = keys.aead._aead.decrypt((keys.aead._iv ^ number).to_bytes(12, "big"), data[end:], header)
        except InvalidTag:
            return False
        if number in space.received_packets:
            return True
        if number >= space.expected_packet_number:
            space.expected_packet_number = number + 1
        if number > core._spin_highest_pn:
            core._spin_bit = bool(first & 0x20) != core._is_client
            core._spin_highest_pn = number
        try:
            eliciting = self._read(plain, now)
        except QuicConnectionError as error:
            core.close(error.error_code, error.frame_type, error.reason_phrase)
            return True
        if not core.receiving:
            return True
        self._note(number, eliciting, now)
        return True

    def _note(self, number: int, eliciting: bool, now: float) -> None:
        """A packet was read: it is to be acknowledged some time, and the connection lives."""
        core, space = self._core, self.space
        core._close_at = now + core._idle_timeout()
        core._ack_eliciting_sent_since_receipt = False
        if number > space.largest_received_packet:
            space.largest_received_packet = number
            space.largest_received_time = now
        space.ack_queue.add(number)
        space.received_packets.add(number)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        if eliciting:
            self._unacknowledged += 1
            if space.ack_at is None:
                self._unacknowledged = 1
                space.ack_at = now + core._ack_delay
            elif self._unacknowledged >= ACKNOWLEDGED_AT_ONCE:
                space.ack_at = now

    def _read(self, plain: bytes, now: float) -> bool:
        """Act on the frames of one packet; returns whether any asks for an acknowledgement."""
        at, size = 0, len(plain)
        if not size:
            raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, PADDING, "Packet contains no frames")
        eliciting = False
        while at < size:
            kind = plain[at]
            if kind == ACK:
                at = self._read_ack(plain, at + 1, now)
            elif STREAM <= kind <= LAST_STREAM:
                at = self._read_stream(kind, plain, at + 1)
                eliciting = True
            elif kind in {DATAGRAM, DATAGRAM_WITH_LENGTH}:
                at = self._read_datagram(kind, plain, at + 1)
                eliciting = True
            elif kind == PADDING:
                at = size - len(plain[at:].lstrip(b"\x00"))
            elif kind == PING:
                at += 1
                eliciting = True
            else:
                return self._read_rest(plain[at:], now) or eliciting
        return eliciting

    def _read_ack(self, plain: bytes, at: int, now: float) -> int:
        """An ACK frame, from after its type; returns where it ends. RFC 9000, "ACK Frames"."""
        core = self._core
        largest, at = _varint(ACK, plain, at)
        if largest >= core._packet_number:
            raise never_sent(ACK)
        delay, at = _varint(ACK, plain, at)
        count, at = _varint(ACK, plain, at)
        length, at = _varint(ACK, plain, at)
        stop, start = largest + 1, largest - length
        ranges = [(start, stop)]
        for _ in range(count):
            gap, at = _varint(ACK, plain, at)
            length, at = _varint(ACK, plain, at)
            stop = start - gap - 1
            start = stop - 1 - length
            ranges.append((start, stop))
        if start < 0:
            raise QuicConnectionError(QuicErrorCode.FRAME_ENCODING_ERROR, ACK, "a packet number below zero")
        if count:
            ranges.reverse()
        delay_s = (delay << core._remote_ack_delay_exponent) / 1_000_000
        core.recovery.receive_ack(ranges, delay_s, now, self.space)
        return at

    def _read_stream(self, kind: int, plain: bytes, at: int) -> int:
        """A STREAM frame, from after its type; returns where it ends."""
        stream, at = _varint(kind, plain, at)
        offset = 0
        end = len(plain)
        if kind & OFFSET_BIT:
            offset, at = _varint(kind, plain, at)
        if kind & LENGTH_BIT:
            length, at = _varint(kind, plain, at)
            end = at + length
            if end > len(plain):
                raise _malformed(kind)
        with suppress(StreamFinishedError):
            self._core.receive_stream_frame(kind, stream, offset, plain[at:end])
        return end

    def _read_datagram(self, kind: int, plain: bytes, at: int) -> int:
        """A DATAGRAM frame, from after its type; returns where it ends. RFC 9221."""
        end = len(plain)
        if kind == DATAGRAM_WITH_LENGTH:
            length, at = _varint(kind, plain, at)
            end = at + length
            if end > len(plain):
                raise _malformed(kind)
        self._core.receive_datagram_frame(plain[at:end])
        return end

    def _read_rest(self, plain: bytes, now: float) -> bool:
        """Frames that are rare, from here to the packet's end: aioquic's."""
        core = self._core
        core.steady = False
        context = QuicReceiveContext(Epoch.ONE_RTT, core.host_cid, core._network_paths[0], None, now, core._version)
        eliciting, _ = core._payload_received(context, plain)
        return eliciting


def _varint(kind: int, data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer and where it ends. Raises QuicConnectionError where it is not whole."""
    if at < len(data) and data[at] < 0x40:
        return data[at], at + 1
    found = pull_varint(data, at)
    if found is None:
        raise _malformed(kind)
    return found


def never_sent(kind: int) -> QuicConnectionError:
    """An acknowledgement of what does not exist (RFC 9000, "Sending ACK Frames")."""
    return QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, kind, "a packet that was never sent")


def _malformed(kind: int) -> QuicConnectionError:
    return QuicConnectionError(QuicErrorCode.FRAME_ENCODING_ERROR, kind, "Failed to parse frame")
