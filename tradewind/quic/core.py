"""One QUIC connection: aioquic with our own streams, packets and recovery.

aioquic keeps what is rare and hard: handshake, TLS, keys, Retry, connection ids, paths, closing. Streams and credit are
ours (`stream_core`), and so are packets once a connection is steady: in (`ingest`), out (`packets`), lost (`recovery`).
These five lean on aioquic's private names; `tests/quic/test_core_contract.py` fails loudly where one of those changes
its meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    END_STATES,
    QuicConnectionError,
    QuicConnectionId,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.recovery import QuicPacketNumberWindow
from aioquic.tls import (  # type: ignore[attr-defined]
    AlertNoApplicationProtocol,
    Encoding,
    Epoch,
    Group,
    pull_client_hello,
)

from tradewind.quic.config import Address, Limits, PrivateProtocols
from tradewind.quic.ingest import PacketReader, never_sent
from tradewind.quic.packets import PacketWriter
from tradewind.quic.recovery import Recovery
from tradewind.quic.statistics import ConnectionStatistics, Counters, Mismatch
from tradewind.quic.stream_core import Face, StreamCore

ACKED = QuicDeliveryState.ACKED
ONE_RTT = Epoch.ONE_RTT
DATAGRAM_HEADER_BYTES = 3
REASON_BYTES = 512
CLIENT_GROUPS = (Group.SECP256R1, Group.X25519)
"""Every server has one of these; more would each cost a key in every hello."""
BAD_CERTIFICATE = QuicErrorCode.CRYPTO_ERROR + 42


class Silence:
    """Stands where aioquic keeps a logger: it warns for every packet that breaks a rule, and a peer can send many."""

    def _say_nothing(self, *arguments: object) -> None:
        pass

    debug = info = warning = _say_nothing


SILENCE: Any = Silence()


class _Watched(QuicPacketNumberWindow):
    """The packet numbers that came, by whichever way, told to somebody else as well."""

    def __init__(self, before: QuicPacketNumberWindow, core: QuicCore, watch: Callable[[int, float], None]) -> None:
        self.__dict__.update(before.__dict__)
        self._core = core
        self._watch = watch

    def add(self, packet_number: int) -> None:
        super().add(packet_number)
        self._watch(packet_number, self._core.heard_at)


class QuicCore(StreamCore):
    """One QUIC connection. `face` hears what happens; `endpoint` feeds datagrams and time."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        limits: Limits,
        *,
        original_destination: bytes | None = None,
        retry_source: bytes | None = None,
        pinned_sha256: bytes | None = None,
        private: PrivateProtocols | None = None,
        ack_delay_s: float | None = None,
    ) -> None:
        super().__init__(
            configuration,
            limits,
            original_destination_connection_id=original_destination,
            retry_source_connection_id=retry_source,
        )
        self.make_face: Callable[[QuicCore], Face] | None = None
        """Builds the face once the protocol is known, where it is not known from the start (servers)."""
        self.steady = False
        """The handshake is behind us, there is one path, and aioquic has nothing to send: what is usual may go our own
        short ways. Whatever lets aioquic act ends it; `collect` finds out whether it holds again."""
        self.issued: list[bytes] = []
        self.retired: list[bytes] = []
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
        self._private = private
        self._ack_delay_s = ack_delay_s
        self._writer: PacketWriter | None = None
        self._reader: PacketReader | None = None
        self._idle_s: float | None = None
        """The idle timeout that both agreed on, once they have."""
        self._unsent_cids = False
        self.heard_at = 0.0
        """When the last datagram came."""
        self.mismatch: Mismatch | None = None
        """What the client offered, where that is nothing that we speak."""

    # What endpoint and its faces call.

    def disagree(self, offered: Sequence[str], supported: Sequence[str], transport: str) -> None:
        """The client offered nothing that is spoken here: `endpoint` is to know of it."""
        self.mismatch = Mismatch.of(str(self._network_paths[0].addr[0]), transport, offered, supported)

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
        self.heard_at = now
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

    # What connection and webtransport call, besides streams.

    def datagram_room(self) -> int:
        """The largest DATAGRAM payload that fits one packet to this peer; 0 where it takes none."""
        most = self._remote_max_datagram_frame_size
        if not most:
            return 0
        room = 0 if self._writer is None else self._writer.room()
        return max(0, min(room, most) - DATAGRAM_HEADER_BYTES)

    def watch_packets(self, watch: Callable[[int, float], None]) -> None:
        """Have `watch` told the number of every 1-RTT packet that comes, once, and when; what came before it is not."""
        space = self._spaces[ONE_RTT]
        space.received_packets = _Watched(space.received_packets, self, watch)

    def measure_only(self) -> None:
        """Send each DATAGRAM in a packet of its own, at once: the loss or delay of one is the path's and no other's."""
        self.queue.datagrams_apart = True
        self.recovery.stop_controlling(self._max_datagram_size)

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

    def certificate_der(self) -> bytes:
        """The server's certificate of this connection, whichever end we are; empty before the handshake."""
        certificate = self.tls._peer_certificate if self._is_client else self.tls.certificate
        return b"" if certificate is None else certificate.public_bytes(Encoding.DER)

    def certificate_sha256(self) -> bytes:
        """SHA-256 over `certificate_der`; empty before the handshake."""
        der = self.certificate_der()
        return sha256(der).digest() if der else b""

    def check_invariants(self) -> None:
        """Raise AssertionError where sums kept in passing differ from what they sum."""
        if self.steady:
            assert self._is_settled() and not self._has_own_frames(), "steady"
            assert self.get_timer() == super().get_timer(), "timers"
        self.check_streams()

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

    def _idle_timeout(self) -> float:
        if self._idle_s is None:
            return super()._idle_timeout()
        return max(self._idle_s, 3 * self.recovery.probe_timeout_s)

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

    # Receiving: frames that aioquic deals with, once they have been looked at.

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        if buf.pull_uint_var() >= self._packet_number:
            raise never_sent(frame_type)
        buf.seek(start)
        super()._handle_ack_frame(context, frame_type, buf)

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
        self.may_send = True
        if self.face is None and self.make_face is not None:
            self.face = self.make_face(self)
        if self.face is not None:
            self.face.negotiated()

    def _open(self) -> None:
        if self._writer is None:
            self._begin()
        self._reader = PacketReader(self)
        if self._ack_delay_s is not None:
            # Not before: a handshake waits for its acknowledgements.
            self._ack_delay = self._ack_delay_s
        theirs = self._remote_max_idle_timeout
        self._idle_s = (
            self._configuration.idle_timeout if theirs is None else min(self._configuration.idle_timeout, theirs)
        )
        if self._pinned_sha256 is not None and self.certificate_sha256() != self._pinned_sha256:
            self.close(BAD_CERTIFICATE, QuicFrameType.CRYPTO, "the certificate is not the pinned one")
        elif self.face is not None:
            self.face.opened()

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        if self._is_client:
            # It makes a key for each group that it offers, and two of its four cost ten times as much as the others.
            self.tls._supported_groups = list(CLIENT_GROUPS)
        handle = self.tls._server_handle_hello
        if self._private is not None:
            handle = partial(self._choose_certificate, self._private, handle)
        self.tls._server_handle_hello = partial(self._receive_hello, handle)  # type: ignore[method-assign]

    def _receive_hello(self, handle: Callable[[Buffer, Buffer, Buffer], None], hello: Buffer, *out: Buffer) -> None:
        """TLS looks at the hello; what was offered in vain is kept."""
        start = hello.tell()
        try:
            handle(hello, *out)
        except AlertNoApplicationProtocol:
            hello.seek(start)
            offered = pull_client_hello(hello).alpn_protocols or []
            self.disagree(offered, self._configuration.alpn_protocols or [], "quic")
            raise

    def _choose_certificate(
        self, private: PrivateProtocols, handle: Callable[[Buffer, Buffer, Buffer], None], hello: Buffer, *out: Buffer
    ) -> None:
        """Before TLS looks at the hello, and at which signatures our key can make: a node gets what is for nodes."""
        start = hello.tell()
        offered = pull_client_hello(hello).alpn_protocols or []
        hello.seek(start)
        if next((name for name in self._configuration.alpn_protocols or [] if name in offered), "") in private.names:
            self.tls.certificate, *self.tls.certificate_chain = private.certificate.chain
            self.tls.certificate_private_key = private.certificate.key
            self._allow_streams(private.bidi_streams, private.uni_streams)
            extensions = self.tls.handshake_extensions
            extensions[0] = (extensions[0][0], self._serialize_transport_parameters())
        handle(hello, *out)

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
