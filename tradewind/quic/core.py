"""aioquic with our own streams, credit and packets. With `packets`, all that leans on aioquic's private names.

aioquic keeps what is rare and hard: handshake, TLS, keys, Retry, connection ids, paths, loss recovery, closing.
Streams, flow control and 1-RTT packets with application data are ours (`streams`, `sending`), because aioquic's
grow with what a peer claims, walk every open stream for every packet, and take any amount without a way to ask how
much is unsent. aioquic's own tables of streams and datagrams stay empty, so its writer finds nothing to do but its
own frames. `tests/quic/test_core_contract.py` fails loudly where a name used here changes its meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Protocol

from aioquic.buffer import UINT_VAR_MAX, Buffer  # type: ignore[attr-defined]
from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    END_STATES,
    QuicConnection,
    QuicConnectionError,
    QuicConnectionId,
    QuicConnectionState,
    QuicReceiveContext,
    stream_is_client_initiated,
    stream_is_unidirectional,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.stream import StreamFinishedError
from aioquic.tls import Encoding, Epoch  # type: ignore[attr-defined]

from tradewind.quic.config import Address, Limits
from tradewind.quic.credit import PeerStreams, ReceiveCredit
from tradewind.quic.ingest import PacketReader
from tradewind.quic.packets import PacketWriter
from tradewind.quic.recovery import Recovery
from tradewind.quic.sending import SendQueue
from tradewind.quic.signals import Signals
from tradewind.quic.statistics import ConnectionStatistics, Counters
from tradewind.quic.streams import FinalSizeError, Incoming, Outgoing, Stream

ACKED = QuicDeliveryState.ACKED
ONE_RTT = Epoch.ONE_RTT
DATAGRAM_HEADER_BYTES = 3
REASON_BYTES = 512
BAD_CERTIFICATE = QuicErrorCode.CRYPTO_ERROR + 42


class Silence:
    """Stands where aioquic keeps a logger: it warns for every packet that breaks a rule, and a peer can send many."""

    def _say_nothing(self, *arguments: object) -> None:
        pass

    debug = info = warning = _say_nothing


SILENCE: Any = Silence()


class Face(Protocol):
    """What the connection above is told, in the order in which it happened."""

    def negotiated(self) -> None:
        """Packets may be sent: at a server that is a round trip before the handshake is complete."""

    def opened(self) -> None:
        """The handshake is complete."""

    def stream_data(self, stream: Stream, data: bytes, fin: bool) -> None:
        """Bytes in order."""

    def stream_reset(self, stream: Stream, code: int) -> None:
        """The peer abandoned its sending half."""

    def stopped(self, stream: Stream, code: int) -> None:
        """The peer asked us to stop; our half is reset already."""

    def released(self, stream: Stream) -> None:
        """All bytes of a stream were acknowledged, or it was abandoned."""

    def datagram_received(self, data: bytes) -> None:
        """One datagram."""

    def closed(self, code: int | None, reason: str, by_peer: bool) -> None:
        """The end; called once."""


class QuicCore(QuicConnection):
    """One QUIC connection. `face` hears what happens; `endpoint` feeds datagrams and time."""

    # A hundred attributes of aioquic's fill a dictionary of many cache lines. What every packet needs stands apart,
    # theirs as well as ours, in three.
    __slots__ = (
        "_ack_eliciting_sent_since_receipt",
        "_close_at",
        "_close_pending",
        "_events",
        "_loss_at",
        "_max_datagram_size",
        "_network_paths",
        "_pacing_at",
        "_packet_number",
        "_peer_cid",
        "_reader",
        "_remote_max_datagram_frame_size",
        "_spin_bit",
        "_spin_highest_pn",
        "_state",
        "_writer",
        "ended",
        "face",
        "host_cid",
        "queue",
        "recovery",
        "steady",
        "streams",
    )


    def __init__(
        self,
        configuration: QuicConfiguration,
        limits: Limits,
        *,
        original_destination: bytes | None = None,
        retry_source: bytes | None = None,
        pinned_sha256: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination,
            retry_source_connection_id=retry_source,
        )
        self.face: Face | None = None
        self.make_face: Callable[[QuicCore], Face] | None = None
        """Builds the face once the protocol is known, where it is not known from the start (servers)."""
        self.limits = limits
        self.steady = False
        """The handshake is behind us, there is one path, and aioquic has nothing to send: what is usual may go our own
        short ways. Whatever lets aioquic act ends it; `collect` finds out whether it holds again."""
        self.streams: dict[int, Stream] = {}
        self.queue = SendQueue(self._on_stream_delivery, limits.datagram_backlog_bytes)
        self.credit = ReceiveCredit(limits.session_window_bytes)
        self.peer_streams = (PeerStreams(limits.bidi_streams), PeerStreams(limits.uni_streams))
        self._signals = Signals(self.queue, self.credit, self.peer_streams, self._settle)
        self.issued: list[bytes] = []
        self.retired: list[bytes] = []
        self.ended = False
        """The close was announced; nothing more reaches the face."""
        self.recovery = Recovery(
            configuration.congestion_control_algorithm,
            initial_rtt_s=configuration.initial_rtt,
            packet_bytes=self._max_datagram_size,
            peer_completed_address_validation=not self._is_client,
            send_probe=self._send_probe,
            others_lost=self._unsettle,
        )
        self._loss = self.recovery
        self._logger = SILENCE
        self._pinned_sha256 = pinned_sha256
        self._writer: PacketWriter | None = None
        self._reader: PacketReader | None = None
        self._unsent_cids = False
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = limits.bidi_streams
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = limits.uni_streams

    # What endpoint calls.

    @property
    def started(self) -> bool:
        """Whether a packet of the peer was ever decrypted (a client has started by itself)."""
        return self._is_client or self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def is_client(self) -> bool:
        """Whether we connected."""
        return self._is_client

    @property
    def alpn(self) -> str:
        """The protocol that TLS chose; empty before the handshake."""
        return self.tls.alpn_negotiated or ""

    @property
    def handshaken(self) -> bool:
        """Whether the handshake is complete."""
        return self._handshake_complete

    @property
    def terminated(self) -> bool:
        """Whether nothing is left to do, not even the closing period."""
        return self._state is QuicConnectionState.TERMINATED

    @property
    def counters(self) -> Counters:
        """What is counted as it goes."""
        return self.recovery.counters

    @property
    def receiving(self) -> bool:
        """Whether packets of the peer still count."""
        return self._state is QuicConnectionState.CONNECTED and not self._close_pending

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> None:
        """Take one UDP datagram."""
        counters = self.recovery.counters
        counters.bytes_received += len(data)
        if data and not data[0] & 0x80:
            counters.packets_received += 1
            if self.steady and self._reader is not None and self._reader.receive(data, addr, now):
                if self._events:
                    self._drain()
                return
        self.steady = False
        super().receive_datagram(data, addr, now)
        if self._events:
            self._drain()

    def get_timer(self) -> float | None:
        """When `handle_timer` wants to be called. A steady connection has four reasons."""
        if not self.steady or self._reader is None or self._close_at is None:
            timer: float | None = super().get_timer()
            return timer
        at = self._close_at
        space = self._reader.space
        if space.ack_at is not None and space.ack_at < at:
            at = space.ack_at
        self._loss_at = due = self.recovery.next_deadline(space)
        if due is not None and due < at:
            at = due
        if self._pacing_at is not None and self._pacing_at < at:
            at = self._pacing_at
        return at

    def handle_timer(self, now: float) -> None:
        """Let aioquic's timers act. Acknowledgements and paced packets that are due `collect` sees itself."""
        ends, probes = self._close_at, self._loss_at
        if self.steady and ends is not None and now < ends and (probes is None or now < probes):
            return
        self.steady = False
        super().handle_timer(now)
        if self._events:
            self._drain()

    def collect(self, batches: list[tuple[Address, list[bytes]]], now: float) -> None:
        """Append what to send now, by destination: aioquic's own frames, then our packets as pacing allows."""
        if not self.steady:
            if not self._network_paths:
                return
            if self._has_own_frames():
                self._collect_own(batches, now)
            self.steady = self._is_settled() and not self._has_own_frames()
            if self._writer is None or self._state in END_STATES:
                return
        assert self._writer is not None
        self._pacing_at = None
        datagrams = self._writer.write(now)
        if datagrams:
            batches.append((self._network_paths[0].addr, datagrams))

    def give_up(self, reason: str) -> None:
        """End without a word to the peer."""
        self._announce(None, reason, by_peer=False)

    def close(
        self,
        error_code: int = QuicErrorCode.NO_ERROR,
        frame_type: int | None = None,
        reason_phrase: str = "",
    ) -> None:
        """Close; `frame_type` None says with an application's error code."""
        self.steady = False
        if self._close_event is None and self._state not in END_STATES:
            reason_phrase = reason_phrase.encode()[:REASON_BYTES].decode(errors="ignore")
            super().close(error_code, frame_type, reason_phrase)
            self._announce(error_code if frame_type is None else None, reason_phrase, by_peer=False)

    def ping(self) -> None:
        """Keep the connection alive."""
        self.steady = False
        self.send_ping(0)

    # What connection and webtransport call.

    def open_stream(self, unidirectional: bool, control: bool) -> Stream | None:
        """Open a stream; None where the peer's limit leaves no room or the connection is not open."""
        if self._writer is None or self.ended:
            return None
        if unidirectional:
            stream_id = self._local_next_stream_id_uni
            most, limit = self._remote_max_streams_uni, self._remote_max_stream_data_uni
            incoming = None
        else:
            stream_id = self._local_next_stream_id_bidi
            most, limit = self._remote_max_streams_bidi, self._remote_max_stream_data_bidi_remote
            incoming = Incoming(self.limits.stream_window_bytes)
        if stream_id >> 2 >= most:
            return None
        if unidirectional:
            self._local_next_stream_id_uni = stream_id + 4
        else:
            self._local_next_stream_id_bidi = stream_id + 4
        stream = self.streams[stream_id] = Stream(stream_id, Outgoing(limit, control), incoming)
        return stream

    def streams_openable(self) -> int:
        """Unidirectional streams that the peer's limit lets us open now."""
        return self._remote_max_streams_uni - (self._local_next_stream_id_uni >> 2)

    def datagram_room(self) -> int:
        """The largest DATAGRAM payload that fits one packet to this peer; 0 where it takes none."""
        most = self._remote_max_datagram_frame_size
        if not most:
            return 0
        room = 0 if self._writer is None else self._writer.room()
        return max(0, min(room, most) - DATAGRAM_HEADER_BYTES)

    def reset(self, stream: Stream, code: int) -> None:
        """Abandon our half of a stream."""
        outgoing = stream.outgoing
        if outgoing is None or outgoing.finished or outgoing.reset_code is not None:
            return
        self.queue.abandon(stream, code)
        self._signals.reset(stream)
        if self.face is not None:
            self.face.released(stream)

    def stop(self, stream: Stream, code: int) -> None:
        """Ask the peer to stop sending; what still comes is dropped and its credit given back."""
        incoming = stream.incoming
        if incoming is None or incoming.finished or incoming.stop_code is not None:
            return
        incoming.stop_code = code
        self._signals.stop(stream)

    def consumed(self, stream_id: int, size: int) -> bool:
        """Give receive credit back, also on streams that are over; True when the peer should hear of it."""
        if self.ended:
            return False
        signalled = self.credit.consume(size)
        if signalled:
            self._signals.max_data()
        stream = self.streams.get(stream_id)
        if stream is not None and stream.incoming is not None and stream.incoming.consume(size):
            self._signals.max_stream_data(stream)
            signalled = True
        return signalled

    def write(self, stream: Stream, parts: Any, fin: bool) -> None:
        """Append to a stream that is open for writing."""
        self.queue.write(stream, parts, fin)

    def statistics(self) -> ConnectionStatistics:
        """A snapshot for metrics, links and logs."""
        recovery, counters, queue = self.recovery, self.counters, self.queue
        space = self._spaces.get(ONE_RTT)
        return ConnectionStatistics(
            rtt_s=recovery._rtt_smoothed,
            rtt_min_s=recovery._rtt_min if recovery._rtt_initialized else 0.0,
            rtt_variance_s=recovery._rtt_variance,
            congestion_window_bytes=recovery.congestion_window,
            in_flight_bytes=recovery.bytes_in_flight,
            bytes_sent=counters.bytes_sent,
            bytes_received=counters.bytes_received,
            packets_sent=counters.packets_sent,
            packets_received=counters.packets_received,
            packets_lost=counters.packets_lost,
            largest_received_packet=-1 if space is None else space.largest_received_packet,
            streams=len(self.streams),
            control_unsent_bytes=queue.control_unsent_bytes,
            media_unsent_bytes=queue.media_unsent_bytes,
            datagram_unsent_bytes=queue.datagram_bytes,
            datagrams_expired=queue.datagrams_expired,
            datagrams_dropped=queue.datagrams_dropped,
            held_bytes=self.credit.held_bytes,
        )

    def certificate_sha256(self) -> bytes:
        """SHA-256 over the DER form of the server's certificate, whichever end we are; empty before the handshake."""
        certificate = self.tls._peer_certificate if self._is_client else self._configuration.certificate
        return b"" if certificate is None else sha256(certificate.public_bytes(Encoding.DER)).digest()

    def check_invariants(self) -> None:
        """Raise AssertionError where sums kept in passing differ from what they sum."""
        held = sum(stream.incoming.held_bytes for stream in self.streams.values() if stream.incoming is not None)
        assert held == self.credit.held_bytes or self.ended, "held bytes"
        assert self.credit.received <= self.credit.limit, "receive credit"
        halves = [stream.outgoing for stream in self.streams.values() if stream.outgoing is not None]
        control = sum(half.unsent_bytes for half in halves if half.control)
        media = [half for half in halves if not half.control]
        assert control == self.queue.control_unsent_bytes, "control unsent"
        assert sum(half.unsent_bytes for half in media) == self.queue.media_unsent_bytes, "media unsent"
        assert sum(half.blocked_bytes for half in media) == self.queue.blocked_bytes, "blocked"
        if self.steady:
            assert self._is_settled() and not self._has_own_frames(), "steady"
            assert self.get_timer() == super().get_timer(), "timers"
        assert not self._streams, "aioquic owns a stream"
        assert not self._datagrams_pending, "aioquic holds a datagram"

    # Sending.

    def _collect_own(self, batches: list[tuple[Address, list[bytes]]], now: float) -> None:
        counters = self.recovery.counters
        last: Address | None = None
        for data, address in super().datagrams_to_send(now):
            if address != last:
                group: list[bytes] = []
                batches.append((address, group))
                last = address
            group.append(data)
            counters.packets_sent += 1
            counters.bytes_sent += len(data)
        self._unsent_cids = any(not connection_id.was_sent for connection_id in self._host_cids)

    def _unsettle(self) -> None:
        """Aioquic has something to send again."""
        self.steady = False

    def _is_settled(self) -> bool:
        """Whether the handshake is behind us, and there is one path, known to be the peer's."""
        paths = self._network_paths
        return (
            self._handshake_confirmed
            and self._state is QuicConnectionState.CONNECTED
            and len(paths) == 1
            and paths[0].is_validated
        )

    def _has_own_frames(self) -> bool:
        """Whether aioquic itself may have something to send; its writer is dear, so it is not asked in vain."""
        path = self._network_paths[0]
        return bool(
            not self._handshake_confirmed
            or self._close_pending
            or self._probe_pending
            or self._ping_pending
            or self._retire_connection_ids
            or self._handshake_done_pending
            or path.remote_challenges
            or not path.is_validated
            or len(self._network_paths) > 1
            or self._remote_preferred_address is not None
            or self._unsent_cids
        )

    def _on_stream_delivery(self, state: QuicDeliveryState, stream: Stream, start: int, stop: int, fin: bool) -> None:
        outgoing = stream.outgoing
        assert outgoing is not None
        if state is not ACKED:
            self.queue.lose(stream, start, stop, fin)
        elif outgoing.acknowledge(start, stop, fin):
            if self.face is not None and not self.ended:
                self.face.released(stream)
            self._settle(stream)

    # Receiving: aioquic calls these for the frames that concern streams and credit.

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        stream_id = buf.pull_uint_var()
        offset = buf.pull_uint_var() if frame_type & 4 else 0
        length = buf.pull_uint_var() if frame_type & 2 else buf.capacity - buf.tell()
        self.receive_stream_frame(frame_type, stream_id, offset, buf.pull_bytes(length))

    def receive_stream_frame(self, frame_type: int, stream_id: int, offset: int, data: bytes) -> None:
        """Act on a STREAM frame. Raises QuicConnectionError, and StreamFinishedError where the stream is over."""
        end = offset + len(data)
        if end > UINT_VAR_MAX:
            raise QuicConnectionError(QuicErrorCode.FRAME_ENCODING_ERROR, frame_type, "stream offset out of range")
        stream = self._receiving(frame_type, stream_id)
        incoming = stream.incoming
        assert incoming is not None
        self._claim(incoming, end, frame_type)
        held = incoming.held_bytes
        try:
            ready = incoming.receive(offset, data, bool(frame_type & 1))
        except FinalSizeError as error:
            raise QuicConnectionError(QuicErrorCode.FINAL_SIZE_ERROR, frame_type, str(error)) from error
        if incoming.held_bytes != held:
            self._count_held(incoming.held_bytes - held)
        if ready is not None:
            self._deliver(stream, *ready)

    def _handle_reset_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        stream_id, code, final_size = buf.pull_uint_var(), buf.pull_uint_var(), buf.pull_uint_var()
        stream = self._receiving(frame_type, stream_id)
        incoming = stream.incoming
        assert incoming is not None
        self._claim(incoming, final_size, frame_type)
        held = incoming.held_bytes
        try:
            fresh = incoming.abandon(final_size)
        except FinalSizeError as error:
            raise QuicConnectionError(QuicErrorCode.FINAL_SIZE_ERROR, frame_type, str(error)) from error
        if not fresh:
            return
        self.credit.held_bytes -= held
        if self.credit.consume(final_size - incoming.delivered):
            self._signals.max_data()
        if self.face is not None and not self.ended and incoming.stop_code is None:
            self.face.stream_reset(stream, code)
        self._settle(stream)

    def _handle_stop_sending_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        stream_id, code = buf.pull_uint_var(), buf.pull_uint_var()
        stream = self._sending(frame_type, stream_id)
        outgoing = stream.outgoing
        assert outgoing is not None
        if outgoing.finished or outgoing.reset_code is not None:
            return
        self.reset(stream, code)
        if self.face is not None and not self.ended:
            self.face.stopped(stream, code)

    def _handle_max_data_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        self.queue.max_data = max(self.queue.max_data, buf.pull_uint_var())

    def _handle_max_stream_data_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        stream_id, limit = buf.pull_uint_var(), buf.pull_uint_var()
        self.queue.raise_limit(self._sending(frame_type, stream_id), limit)

    def _handle_datagram_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        length = buf.pull_uint_var() if frame_type == QuicFrameType.DATAGRAM_WITH_LENGTH else buf.capacity - buf.tell()
        self.receive_datagram_frame(buf.pull_bytes(length))

    def receive_datagram_frame(self, data: bytes) -> None:
        """Pass a datagram on; an empty one says nothing."""
        if data and self.face is not None and not self.ended:
            self.face.datagram_received(data)

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        ahead = buf.pull_uint_var() + buf.pull_uint_var()
        buf.seek(start)
        if ahead - self._crypto_streams[context.epoch].receiver.starting_offset() > self.limits.crypto_bytes:
            # aioquic takes half a megabyte and allocates the gap, for every handshake under way.
            raise QuicConnectionError(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "too much handshake data")
        super()._handle_crypto_frame(context, frame_type, buf)
        if self._events:
            # The handshake may end inside a datagram that carries stream frames as well: keep the order.
            self._drain()

    def _handle_connection_close_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_connection_close_frame(context, frame_type, buf)
        event = self._close_event
        if event is not None:
            code = event.error_code if event.frame_type is None else None
            self._announce(code, event.reason_phrase, by_peer=True)

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> Any:
        stream = self.streams.get(stream_id)
        if stream is not None:
            return stream
        unidirectional = stream_is_unidirectional(stream_id)
        index = stream_id >> 2
        if stream_is_client_initiated(stream_id) == self._is_client:
            following = self._local_next_stream_id_uni if unidirectional else self._local_next_stream_id_bidi
            if stream_id < following:
                raise StreamFinishedError
            raise QuicConnectionError(QuicErrorCode.STREAM_STATE_ERROR, frame_type, "stream was never opened")
        count = self.peer_streams[unidirectional]
        if index < count.opened:
            raise StreamFinishedError
        if index >= count.announced:
            raise QuicConnectionError(QuicErrorCode.STREAM_LIMIT_ERROR, frame_type, "too many streams")
        # Opening a stream opens all lower ones of its kind (RFC 9000, Stream Types and Identifiers).
        for number in range(count.opened, index + 1):
            self._admit(number << 2 | stream_id & 3, unidirectional)
        count.opened = index + 1
        return self.streams[stream_id]

    def _admit(self, stream_id: int, unidirectional: bool) -> None:
        outgoing = None if unidirectional else Outgoing(self._remote_max_stream_data_bidi_local, control=True)
        self.streams[stream_id] = Stream(stream_id, outgoing, Incoming(self.limits.stream_window_bytes))

    def _receiving(self, frame_type: int, stream_id: int) -> Stream:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._assert_stream_can_receive(frame_type, stream_id)
            stream = self._get_or_create_stream(frame_type, stream_id)
        if stream.incoming is None:
            raise QuicConnectionError(QuicErrorCode.STREAM_STATE_ERROR, frame_type, "stream is send-only")
        return stream

    def _sending(self, frame_type: int, stream_id: int) -> Stream:
        self._assert_stream_can_send(frame_type, stream_id)
        stream: Stream = self._get_or_create_stream(frame_type, stream_id)
        return stream

    def _claim(self, incoming: Incoming, end: int, frame_type: int) -> None:
        """Hold the peer to the credit we gave it."""
        fresh = end - incoming.highest
        if fresh <= 0:
            return
        if end > incoming.limit:
            raise QuicConnectionError(QuicErrorCode.FLOW_CONTROL_ERROR, frame_type, "over the stream's credit")
        if not self.credit.receive(fresh):
            raise QuicConnectionError(QuicErrorCode.FLOW_CONTROL_ERROR, frame_type, "over the connection's credit")

    def _count_held(self, change: int) -> None:
        self.credit.held_bytes += change
        if self.credit.held_bytes > 2 * self.credit.window:
            raise QuicConnectionError(
                QuicErrorCode.INTERNAL_ERROR, QuicFrameType.STREAM_BASE, "too much held out of order"
            )

    def _deliver(self, stream: Stream, data: bytes, fin: bool) -> None:
        incoming = stream.incoming
        assert incoming is not None
        if incoming.stop_code is not None or self.face is None or self.ended:
            self.consumed(stream.id, len(data))
        else:
            self.face.stream_data(stream, data, fin)
        if fin:
            self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        """Forget a stream that is over in both directions; one of the peer's makes room for another."""
        if not stream.finished or self.streams.pop(stream.id, None) is None:
            return
        if stream_is_client_initiated(stream.id) != self._is_client:
            unidirectional = stream_is_unidirectional(stream.id)
            if self.peer_streams[unidirectional].finish():
                self._signals.max_streams(unidirectional)

    # Life.

    def _drain(self) -> None:
        """Read what aioquic itself has to say."""
        while (event := self.next_event()) is not None:
            if isinstance(event, quic_events.HandshakeCompleted):
                self._open()
            elif isinstance(event, quic_events.ProtocolNegotiated):
                if self._cryptos[ONE_RTT].send.is_valid():
                    self._begin()
            elif isinstance(event, quic_events.ConnectionIdIssued):
                self.issued.append(event.connection_id)
            elif isinstance(event, quic_events.ConnectionIdRetired):
                self.retired.append(event.connection_id)
            elif isinstance(event, quic_events.ConnectionTerminated):
                self._announce(None, event.reason_phrase, by_peer=False)

    def _begin(self) -> None:
        """Keys and the peer's limits are there: our packets may leave."""
        self.queue.max_data = max(self.queue.max_data, self._remote_max_data)
        self._writer = PacketWriter(self)
        if self.face is None and self.make_face is not None:
            self.face = self.make_face(self)
        if self.face is not None:
            self.face.negotiated()

    def _open(self) -> None:
        if self._writer is None:
            self._begin()
        self._reader = PacketReader(self)
        if self._pinned_sha256 is not None and self.certificate_sha256() != self._pinned_sha256:
            self.close(BAD_CERTIFICATE, QuicFrameType.CRYPTO, "the certificate is not the pinned one")
        elif self.face is not None:
            self.face.opened()

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        most = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size
        if most is not None and most < self._max_datagram_size:
            self._max_datagram_size = most

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        self._unsent_cids = True

    def _on_new_connection_id_delivery(self, delivery: QuicDeliveryState, connection_id: QuicConnectionId) -> None:
        super()._on_new_connection_id_delivery(delivery, connection_id)
        if delivery is not ACKED:
            self._unsent_cids = True

    def _announce(self, code: int | None, reason: str, by_peer: bool) -> None:
        if self.ended:
            return
        self.ended = True
        self.queue.clear()
        self.streams.clear()
        if self.face is not None:
            self.face.closed(code, reason, by_peer)
