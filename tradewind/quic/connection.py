"""One connection as the rooms above see it: control streams, media egress, events.

`Connection` is a raw QUIC connection; `webtransport.WebTransportConnection` is one WebTransport session and wears the
same face. `endpoint` makes both. Control (`send`) and media (`offer`) never share a stream: the first of the two called
on a stream decides which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tradewind.quic.config import Address
from tradewind.quic.core import QuicCore
from tradewind.quic.egress import Offered, Part, Writable
from tradewind.quic.events import Closed, DatagramReceived, Event, Opened, Released, Stopped, StreamData, StreamReset
from tradewind.quic.sending import BLOCKED_BYTES
from tradewind.quic.statistics import ConnectionStatistics
from tradewind.quic.streams import Outgoing, Stream

INTERNAL_ERROR = 0x1


class Connection:
    """A raw QUIC connection. Satisfies `egress.Egress`; every call is synchronous and none of them blocks.

    Calls about streams that are unknown, finished or stopped change nothing, so that a race with the peer needs no
    care.
    """

    transport = "quic"

    def __init__(self, core: QuicCore, number: int, events: list[Event], touched: set[int]) -> None:
        self.id = number
        """Unique in its endpoint; never used again."""
        self.protocol = ""
        """The protocol chosen ("moqt-20"); empty before `Opened`."""
        self.authority = ""
        self.path = ""
        """With its query; empty on raw QUIC, where the protocol carries it."""
        self.origin: str | None = None
        self.offered: tuple[str, ...] = ()
        """What the peer offered, for logs; a raw server only knows what was chosen."""
        self.deadline: float | None = None
        """When `handle_deadline` wants to be called; only the endpoint asks."""
        self._core = core
        self._events = events
        self._touched = touched

    def __repr__(self) -> str:
        return f"<{self.transport} {self.id} {self.protocol or 'opening'} {self.peer_address}>"

    @property
    def is_client(self) -> bool:
        """Whether we connected."""
        return self._core.is_client

    @property
    def peer_address(self) -> Address:
        """Where packets go now; a client that migrates changes it."""
        return self._core.get_peer_address() or ()

    @property
    def is_closed(self) -> bool:
        """Whether `Closed` was told, or is about to be."""
        return self._core.ended

    # The control path.

    def open_bidi(self) -> int | None:
        """Open a bidirectional stream; None where the peer's limit leaves no room."""
        return self._open(unidirectional=False, control=True)

    def open_uni(self) -> int | None:
        """Open a unidirectional stream; None where the peer's limit leaves no room."""
        return self._open(unidirectional=True, control=False)

    def send(self, stream: int, data: bytes, fin: bool = False) -> None:
        """Send control bytes; never blocks. A peer that leaves too many unread has its connection closed."""
        known = self._core.streams.get(stream)
        if known is None or known.outgoing is None or not known.outgoing.open:
            return
        if known.outgoing.end == 0:
            known.outgoing.control = True
        self._touched.add(self.id)
        self._core.write(known, (data,), fin)
        if self._core.queue.control_unsent_bytes > self._core.limits.control_backlog_bytes:
            self._core.close(INTERNAL_ERROR, 0, "control backlog: the peer does not read")

    def reset(self, stream: int, code: int) -> None:
        """Abandon our sending half with an application error code."""
        known = self._core.streams.get(stream)
        if known is not None:
            self._touched.add(self.id)
            self._core.reset(known, self._wire_code(code))

    def stop(self, stream: int, code: int) -> None:
        """Ask the peer to stop sending (STOP_SENDING); what still arrives is dropped and not told."""
        known = self._core.streams.get(stream)
        if known is not None:
            self._touched.add(self.id)
            self._core.stop(known, self._wire_code(code))

    def consumed(self, stream: int, size: int) -> None:
        """Give receive credit back for `size` bytes that were told and dealt with, also on streams that are over."""
        if self._core.consumed(stream, size):
            self._touched.add(self.id)

    def close(self, code: int, reason: str) -> None:
        """End the connection with an application error code; `Closed` follows with the next events."""
        self._touched.add(self.id)
        self._core.close(code, None, reason)

    # Media: the egress contract.

    def offer(self, stream: int, parts: Sequence[Part], fin: bool) -> Offered:
        """Append `parts` to a stream. They must stay unchanged until `Released` for the stream."""
        known = self._core.streams.get(stream)
        if known is None or known.outgoing is None or not known.outgoing.open:
            return Offered.STOPPED
        self._touched.add(self.id)
        self._core.queue.write(known, parts, fin)
        return Offered.TAKEN

    def offer_many(self, streams: Sequence[int], parts: Sequence[Part], fin: bool) -> None:
        """Append the same `parts` to several streams of this connection."""
        for stream in streams:
            self.offer(stream, parts, fin)

    def unsent(self, stream: int) -> int:
        """Bytes offered on this stream that no packet has carried yet."""
        outgoing = self._outgoing(stream)
        return 0 if outgoing is None else outgoing.unsent_bytes

    def room(self, stream: int) -> int:
        """Bytes this stream may still be offered: what its own flow control lets pass, and at most 4 kB beyond."""
        outgoing = self._outgoing(stream)
        return 0 if outgoing is None else max(0, outgoing.limit + BLOCKED_BYTES - outgoing.end)

    def datagram(self, parts: Sequence[Part], expires: float) -> bool:
        """Queue one datagram until `expires` (monotonic seconds); False where it is larger than fits."""
        return self._queue_datagram(b"".join(parts), expires)

    def writable(self, now: float) -> Writable:
        """What may be offered now. Bytes on a stream that its own flow control blocks count for at most 4 kB."""
        core = self._core
        if core.ended:
            return Writable(0, 0, 0)
        return Writable(core.queue.writable_bytes(), core.streams_openable(), self._datagram_room())

    def writable_bytes(self, now: float) -> int:
        """The first of what `writable` says, for less."""
        core = self._core
        return 0 if core.ended else core.queue.writable_bytes()

    # For operators and for proving who is who.

    def statistics(self) -> ConnectionStatistics:
        """A snapshot of RTT, congestion, bytes, packets and queues."""
        return self._core.statistics()

    @property
    def bytes_received(self) -> int:
        """UDP payload that came on this connection."""
        return self._core.counters.bytes_received

    def ping(self) -> None:
        """Have the peer say that it is there: look at `bytes_received` a round trip later."""
        if not self._core.ended:
            self._touched.add(self.id)
            self._core.ping()

    def watch_packets(self, watch: Callable[[int, float], None]) -> None:
        """Have `watch(number, now)` told of every packet that comes from here on: see `relay.links`."""
        self._core.watch_packets(watch)

    def measure_only(self) -> None:
        """Send each datagram in a packet of its own and at once, whatever becomes of it; the caller bounds how many."""
        self._core.measure_only()

    def certificate_der(self) -> bytes:
        """The server's certificate (DER) as this connection's TLS has it, on both ends; empty before the handshake."""
        return self._core.certificate_der()

    def certificate_sha256(self) -> bytes:
        """SHA-256 of the server's certificate (DER), the same on both ends: identities are signed over it."""
        return self._core.certificate_sha256()

    def check_invariants(self) -> None:
        """Raise AssertionError where the bookkeeping contradicts itself; for tests and on demand."""
        self._core.check_invariants()

    def handle_deadline(self, now: float) -> None:
        """Act on `deadline`; a raw connection has none of its own."""

    # What core tells (see `core.Face`).

    def negotiated(self) -> None:
        """Packets may be sent; what is ours to say waits for `opened`."""

    def opened(self) -> None:
        """The handshake is complete."""
        self.protocol = self._core.alpn
        self.offered = self.offered or (self.protocol,)
        self._events.append(Opened(self))

    def stream_data(self, stream: Stream, data: bytes, fin: bool) -> None:
        """Bytes in order."""
        self._events.append(StreamData(self, stream.id, data, fin))

    def stream_reset(self, stream: Stream, code: int) -> None:
        """The peer abandoned its sending half."""
        self._events.append(StreamReset(self, stream.id, code))

    def stopped(self, stream: Stream, code: int) -> None:
        """The peer asked us to stop."""
        self._events.append(Stopped(self, stream.id, code))

    def released(self, stream: Stream) -> None:
        """Everything sent on a stream arrived, or it was abandoned: a media stream's parts may change."""
        if stream.outgoing is not None and not stream.outgoing.control:
            self._events.append(Released(self, stream.id))

    def datagram_received(self, data: bytes) -> None:
        """One datagram."""
        self._events.append(DatagramReceived(self, data))

    def closed(self, code: int | None, reason: str, by_peer: bool) -> None:
        """The end, told where a beginning was or was asked for."""
        if self.protocol or self.is_client:
            self._events.append(Closed(self, code, reason, by_peer))

    # What WebTransport does otherwise.

    def _open(self, unidirectional: bool, control: bool) -> int | None:
        stream = self._core.open_stream(unidirectional, control)
        return None if stream is None else stream.id

    def _wire_code(self, code: int) -> int:
        return code

    def _datagram_room(self) -> int:
        return self._core.datagram_room()

    def _queue_datagram(self, payload: bytes, expires: float) -> bool:
        size = len(payload)
        core = self._core
        if core.ended or size > core.datagram_room():
            return False
        self._touched.add(self.id)
        core.queue.datagram(b"\x31" + (size | 0x4000).to_bytes(2, "big") + payload, expires)
        return True

    def _outgoing(self, stream: int) -> Outgoing | None:
        known = self._core.streams.get(stream)
        return None if known is None else known.outgoing
