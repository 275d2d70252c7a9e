"""A connection's streams and datagrams, in place of aioquic's: what the rooms above do with them, and what frames do.

aioquic's own grow with what a peer claims, walk every open stream for every packet, and take any amount without a way
to ask how much is unsent. Its tables of streams and datagrams stay empty, so its writer finds nothing to do but its own
frames. `core` makes a connection of this; `ingest` and aioquic bring the frames.
"""

from __future__ import annotations

from typing import Any, Protocol

from aioquic.buffer import UINT_VAR_MAX, Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    QuicConnection,
    QuicConnectionError,
    QuicReceiveContext,
    stream_is_client_initiated,
    stream_is_unidirectional,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.stream import StreamFinishedError

from tradewind.quic.config import Limits
from tradewind.quic.credit import PeerStreams, ReceiveCredit
from tradewind.quic.sending import SendQueue
from tradewind.quic.signals import Signals
from tradewind.quic.streams import FinalSizeError, Incoming, Outgoing, Stream

ACKED = QuicDeliveryState.ACKED


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


class StreamCore(QuicConnection):
    """The part of a connection that carries what is ours; `face` hears what happens."""

    def __init__(self, configuration: QuicConfiguration, limits: Limits, **aioquics: Any) -> None:
        super().__init__(configuration=configuration, **aioquics)
        self.face: Face | None = None
        self.limits = limits
        self.ended = False
        """The close was announced; nothing more reaches the face."""
        self.may_send = False
        """Keys and the peer's limits are there."""
        self.streams: dict[int, Stream] = {}
        self.queue = SendQueue(self._on_stream_delivery, limits.datagram_backlog_bytes)
        self.credit = ReceiveCredit(limits.session_window_bytes)
        self.peer_streams = (PeerStreams(limits.bidi_streams), PeerStreams(limits.uni_streams))
        self._signals = Signals(self.queue, self.credit, self.peer_streams, self._settle)
        self._allow_streams(limits.bidi_streams, limits.uni_streams)

    # What connection and webtransport call.

    def open_stream(self, unidirectional: bool, control: bool) -> Stream | None:
        """Open a stream; None where the peer's limit leaves no room or the connection is not open."""
        if not self.may_send or self.ended:
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

    # Frames: `ingest` calls `receive_*`, aioquic the others.

    def _on_stream_delivery(self, state: QuicDeliveryState, stream: Stream, start: int, stop: int, fin: bool) -> None:
        outgoing = stream.outgoing
        assert outgoing is not None
        if state is not ACKED:
            self.queue.lose(stream, start, stop, fin)
        elif outgoing.acknowledge(start, stop, fin):
            if self.face is not None and not self.ended:
                self.face.released(stream)
            self._settle(stream)

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

    def _allow_streams(self, bidi: int, uni: int) -> None:
        """How many streams the peer may have open; to be said before it can open any."""
        for streams, most in zip(self.peer_streams, (bidi, uni), strict=True):
            streams.window = streams.announced = most
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = bidi
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = uni

    # For tests and on demand.

    def check_streams(self) -> None:
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
        assert not self._streams, "aioquic owns a stream"
        assert not self._datagrams_pending, "aioquic holds a datagram"
