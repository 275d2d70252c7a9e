"""1-RTT packets with our frames: built, sealed and registered with aioquic's loss recovery.

aioquic's packet builder costs three quarters of a packet, so established connections do not go through it. Only `core`
uses this; together they are the two files that lean on aioquic's private names.
"""

from __future__ import annotations

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicFrameType, QuicPacketType, push_ack_frame
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.tls import Epoch

from tradewind.quic.config import Address
from tradewind.quic.sending import Handler, SendQueue
from tradewind.quic.statistics import Counters

TAG_BYTES = 16
HEADER_BYTES = 3
"""First byte and a two-byte packet number, the connection id apart: aioquic's choice, and its receivers'."""
ACK_BYTES = 96
"""What an ACK frame may take of a packet: the newest dozen ranges or so."""
ACK_OF_ACK_EVERY = 8
"""Every so many bare ACKs with gaps carry a PING: only what is acknowledged lets old ranges be forgotten."""
PACING_GRANULARITY_S = 0.001
"""Wake for several paced packets at once: a wake-up costs more than a packet."""
EPOCH, ONE_RTT = Epoch.ONE_RTT, QuicPacketType.ONE_RTT
NO_LOG: list[dict[str, object]] = []


class PacketWriter:
    """Writes the packets of one established connection."""

    __slots__ = ("_counters", "_crypto", "_queue", "_quic", "_recovery", "_space")

    def __init__(self, quic: QuicConnection, queue: SendQueue, counters: Counters) -> None:
        self._quic = quic
        self._queue = queue
        self._counters = counters
        self._crypto = quic._cryptos[EPOCH]
        self._space = quic._spaces[EPOCH]
        self._recovery = quic._loss

    def room(self) -> int:
        """Bytes of frames that fit one packet."""
        return self._quic._max_datagram_size - HEADER_BYTES - len(self._quic._peer_cid.cid) - TAG_BYTES

    def write(self, datagrams: list[tuple[bytes, Address]], now: float) -> None:
        """Append packets while there is something to send and congestion control and pacing allow.

        An acknowledgement that is due leaves whatever they say; one that is not yet rides along with data. On a path
        not validated yet all of it stays within three times what came (RFC 9000, Address Validation).
        """
        quic, queue, space = self._quic, self._queue, self._space
        controller, pacer = self._recovery._cc, self._recovery._pacer
        path = quic._network_paths[0]
        address = path.addr
        largest, size = self.room(), quic._max_datagram_size
        while path.is_validated or path.can_send(size):
            frames: list[bytes | memoryview] = []
            handlers: list[Handler] = []
            left = room = largest
            if space.ack_at is not None and len(space.ack_queue):
                left = room = largest - self._acknowledge(frames, handlers, now)
            if queue and controller.bytes_in_flight + size <= controller.congestion_window:
                wake: float | None = pacer.next_send_time(now=now)
                if wake is None:
                    left = queue.fill(room, now, frames, handlers)
                else:
                    quic._pacing_at = max(wake, now + min(PACING_GRANULARITY_S, pacer.bucket_max))
            eliciting = left < room
            if not eliciting and (space.ack_at is None or space.ack_at > now or not frames):
                return
            space.ack_at = None
            if not eliciting and quic._packet_number % ACK_OF_ACK_EVERY == 0 and len(space.ack_queue) > 1:
                frames.append(b"\x01")
                eliciting = True
            datagram = self._seal(b"".join(frames), handlers, eliciting, now)
            path.bytes_sent += len(datagram)
            datagrams.append((datagram, address))
            if eliciting:
                pacer.update_after_send(now=now)

    def _acknowledge(self, frames: list[bytes | memoryview], handlers: list[Handler], now: float) -> int:
        """Put an ACK frame in front; returns its size. It only counts once the packet is sealed."""
        space, quic = self._space, self._quic
        buf = Buffer(capacity=ACK_BYTES + 1)
        buf.push_uint_var(QuicFrameType.ACK)
        delay = int((now - (space.largest_received_time or now)) * 1_000_000) >> quic._local_ack_delay_exponent
        push_ack_frame(buf, space.ack_queue, delay, ACK_BYTES)
        frame = buf.data
        frames.append(frame)
        handlers.append((quic._on_ack_delivery, (space, space.largest_received_packet)))
        return len(frame)

    def _seal(self, payload: bytes, handlers: list[Handler], eliciting: bool, now: float) -> bytes:
        """Encrypt one packet and register it with loss recovery."""
        quic = self._quic
        number = quic._packet_number
        quic._packet_number = number + 1
        datagram = seal(self._crypto, quic._peer_cid.cid, quic._spin_bit, number, payload)
        size = len(datagram)
        packet = QuicSentPacket(EPOCH, eliciting, eliciting, False, number, ONE_RTT, now, size, handlers, NO_LOG)
        self._recovery.on_packet_sent(packet=packet, space=self._space)
        if eliciting and not quic._ack_eliciting_sent_since_receipt:
            quic._close_at = now + quic._idle_timeout()
            quic._ack_eliciting_sent_since_receipt = True
        counters = self._counters
        counters.packets_sent += 1
        counters.bytes_sent += size
        return datagram


def seal(crypto: CryptoPair, cid: bytes, spin: bool, number: int, payload: bytes) -> bytes:
    """One protected 1-RTT packet (RFC 9001, Packet Protection): what `CryptoPair.encrypt_packet` gives, cheaper.

    It builds the header's masked bytes directly instead of copying the whole packet to change three of them.
    """
    first = 0x41 | spin << 5 | crypto.key_phase << 2
    truncated = number & 0xFFFF
    header = b"%c%b%b" % (first, cid, truncated.to_bytes(2, "big"))
    send = crypto.send
    aead = send.aead
    if aead is None or crypto._update_key_requested:
        return crypto.encrypt_packet(header, payload, number)
    protected = aead._aead.encrypt((aead._iv ^ number).to_bytes(12, "big"), payload, header)
    assert send.hp is not None
    mask = send.hp._mask(protected[2:18])
    masked = truncated ^ (mask[1] << 8 | mask[2])
    return b"%c%b%b%b" % (first ^ mask[0] & 0x1F, cid, masked.to_bytes(2, "big"), protected)
