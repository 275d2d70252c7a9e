"""1-RTT packets with our frames: built, sealed and registered with loss recovery, a burst at a time.

aioquic's packet builder costs three quarters of a packet, so established connections do not go through it. Only `core`
uses this; `ingest` is the way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicFrameType, push_ack_frame
from aioquic.tls import Epoch

from tradewind.quic.recovery import Sent
from tradewind.quic.sending import Handler

if TYPE_CHECKING:
    from tradewind.quic.core import QuicCore

TAG_BYTES = 16
HEADER_BYTES = 3
"""First byte and a two-byte packet number, the connection id apart: aioquic's choice, and its receivers'."""
ACK_BYTES = 96
"""What an ACK frame may take of a packet: the newest dozen ranges or so."""
ACK_OF_ACK_EVERY = 8
"""Every so many bare ACKs with gaps carry a PING: only what is acknowledged lets old ranges be forgotten."""
SAMPLE_BYTES = 16
MANY = 1 << 30
EPOCH = Epoch.ONE_RTT


class PacketWriter:
    """Writes the packets of one established connection."""

    __slots__ = ("_core", "_crypto", "_queue", "_recovery", "_space")

    def __init__(self, core: QuicCore) -> None:
        self._core = core
        self._queue = core.queue
        self._crypto = core._cryptos[EPOCH]
        self._space = core._spaces[EPOCH]
        self._recovery = core.recovery

    def room(self) -> int:
        """Bytes of frames that fit one packet."""
        core = self._core
        return core._max_datagram_size - HEADER_BYTES - len(core._peer_cid.cid) - TAG_BYTES

    def write(self, now: float) -> list[bytes]:
        """Packets to send now, while there is something to send and congestion control and pacing allow.

        An acknowledgement that is due leaves whatever they say; one that is not yet rides along with data. On a path
        not validated yet all of it stays within three times what came (RFC 9000, Address Validation).
        """
        core, queue, space = self._core, self._queue, self._space
        wanted = bool(queue)
        ack_at = space.ack_at if len(space.ack_queue) else None
        if not wanted and (ack_at is None or ack_at > now):
            return []
        path = core._network_paths[0]
        size, room = core._max_datagram_size, self.room()
        most = MANY if path.is_validated else max(3 * path.bytes_received - path.bytes_sent, 0) // size
        paced = self._recovery.allowance(size, now) if wanted else 0
        payloads: list[bytes] = []
        sent: list[Sent] = []
        number = core._packet_number
        while most > len(sent):
            frames: list[bytes | memoryview] = []
            handlers: list[Handler] = []
            left = filled = room
            if ack_at is not None:
                left = filled = room - self._acknowledge(frames, handlers, now)
            if wanted and paced > len(sent):
                left = queue.fill(filled, now, frames, handlers)
            eliciting = left < filled
            if not eliciting:
                if ack_at is None or ack_at > now:
                    break
                if number % ACK_OF_ACK_EVERY == 0 and len(space.ack_queue) > 1:
                    frames.append(b"\x01")
                    eliciting = True
            if ack_at is not None:
                space.ack_at = ack_at = None
            payload = b"".join(frames)
            payloads.append(payload)
            sent.append(Sent(number, len(payload) + size - room, now, eliciting, handlers))
            number += 1
            wanted = bool(queue)
            if not wanted:
                break
        datagrams = self._send(payloads, sent, now) if sent else []
        if not wanted:
            self._recovery.run_dry(now)
        elif paced > len(sent):
            # The peer's credit keeps the rest back: that says nothing about the path either.
            self._recovery.run_dry(now)
        else:
            core._pacing_at = self._recovery.paced_until(size, now)
        return datagrams

    def _acknowledge(self, frames: list[bytes | memoryview], handlers: list[Handler], now: float) -> int:
        """Put an ACK frame in front; returns its size. It only counts once the packet is sealed."""
        space, core = self._space, self._core
        buf = Buffer(capacity=ACK_BYTES + 1)
        buf.push_uint_var(QuicFrameType.ACK)
        delay = int((now - (space.largest_received_time or now)) * 1_000_000) >> core._local_ack_delay_exponent
        push_ack_frame(buf, space.ack_queue, delay, ACK_BYTES)
        frame: bytes = buf.data
        frames.append(frame)
        handlers.append((core._on_ack_delivery, (space, space.largest_received_packet)))
        return len(frame)

    def _send(self, payloads: Sequence[bytes], sent: Sequence[Sent], now: float) -> list[bytes]:
        """Seal the packets of one burst and register them."""
        core, counters = self._core, self._recovery.counters
        datagrams = seal(self._crypto, core._peer_cid.cid, core._spin_bit, core._packet_number, payloads)
        core._packet_number += len(sent)
        eliciting, size = self._recovery.note_sent(sent, self._space)
        core._network_paths[0].bytes_sent += size
        counters.packets_sent += len(sent)
        counters.bytes_sent += size
        if eliciting and not core._ack_eliciting_sent_since_receipt:
            core._close_at = now + core._idle_timeout()
            core._ack_eliciting_sent_since_receipt = True
        return datagrams


def seal(crypto: CryptoPair, cid: bytes, spin: bool, number: int, payloads: Sequence[bytes]) -> list[bytes]:
    """Protected 1-RTT packets from `number` on (RFC 9001, Packet Protection): what `encrypt_packet` gives, cheaper.

    Headers are built masked instead of copying a packet to change three of its bytes, and with AES, which makes each
    mask from its own block, one call makes the masks of a whole burst.
    """
    send = crypto.send
    if send.aead is None or crypto._update_key_requested:
        return [_seal_by_aioquic(crypto, cid, spin, full, payload) for full, payload in enumerate(payloads, number)]
    first = 0x41 | spin << 5 | send.key_phase << 2
    encrypt, iv = send.aead._aead.encrypt, send.aead._iv
    protected = []
    full = number
    for payload in payloads:
        header = b"%c%b%c%c" % (first, cid, full >> 8 & 0xFF, full & 0xFF)
        protected.append(encrypt((iv ^ full).to_bytes(12, "big"), payload, header))
        full += 1
    hp = send.hp
    assert hp is not None
    if hp._is_chacha20:
        masks = b"".join([hp._mask(body[2:18]).ljust(SAMPLE_BYTES) for body in protected])
    elif len(protected) == 1:
        masks = hp._encryptor.update(protected[0][2:18])
    else:
        masks = hp._encryptor.update(b"".join([body[2:18] for body in protected]))
    datagrams = []
    at = 0
    for body in protected:
        high, low = number >> 8 & 0xFF ^ masks[at + 1], number & 0xFF ^ masks[at + 2]
        datagrams.append(b"%c%b%c%c%b" % (first ^ masks[at] & 0x1F, cid, high, low, body))
        number += 1
        at += SAMPLE_BYTES
    return datagrams


def _seal_by_aioquic(crypto: CryptoPair, cid: bytes, spin: bool, number: int, payload: bytes) -> bytes:
    """One packet by the long way, which also turns the keys where that was asked for."""
    first = 0x41 | spin << 5 | crypto.key_phase << 2
    return crypto.encrypt_packet(b"%c%b%b" % (first, cid, (number & 0xFFFF).to_bytes(2, "big")), payload, number)
