"""Frames about streams and credit that are sent until they arrive: resets, stops, and limits raised.

`core` says what to signal; each frame waits in the send queue and, should its packet be lost, is sent again as long
as it still says something new.
"""

from __future__ import annotations

from collections.abc import Callable

from aioquic.quic.packet_builder import QuicDeliveryState

from tradewind.quic.credit import PeerStreams, ReceiveCredit
from tradewind.quic.sending import SendQueue
from tradewind.quic.streams import Stream
from tradewind.quic.wire import push_varint

ACKED = QuicDeliveryState.ACKED


class Signals:
    """The signals of one connection. `settle` is called with a stream whose reset has arrived."""

    __slots__ = ("_credit", "_peer_streams", "_queue", "_settle")

    def __init__(
        self,
        queue: SendQueue,
        credit: ReceiveCredit,
        peer_streams: tuple[PeerStreams, PeerStreams],
        settle: Callable[[Stream], None],
    ) -> None:
        self._queue = queue
        self._credit = credit
        self._peer_streams = peer_streams
        self._settle = settle

    def reset(self, stream: Stream) -> None:
        """RESET_STREAM: our half ends where it was sent to."""
        outgoing = stream.outgoing
        assert outgoing is not None
        assert outgoing.reset_code is not None
        frame = _frame(0x04, stream.id, outgoing.reset_code, outgoing.sent)
        self._queue.signals.append((frame, (self._on_reset, (stream,))))

    def stop(self, stream: Stream) -> None:
        """STOP_SENDING: the peer's half is not wanted."""
        incoming = stream.incoming
        assert incoming is not None
        assert incoming.stop_code is not None
        frame = _frame(0x05, stream.id, incoming.stop_code)
        self._queue.signals.append((frame, (self._on_stop, (stream,))))

    def max_data(self) -> None:
        """MAX_DATA: the connection's receive limit moved."""
        limit = self._credit.limit
        self._queue.signals.append((_frame(0x10, limit), (self._on_max_data, (limit,))))

    def max_stream_data(self, stream: Stream) -> None:
        """MAX_STREAM_DATA: a stream's receive limit moved."""
        incoming = stream.incoming
        assert incoming is not None
        frame = _frame(0x11, stream.id, incoming.limit)
        self._queue.signals.append((frame, (self._on_max_stream_data, (stream, incoming.limit))))

    def max_streams(self, unidirectional: bool) -> None:
        """MAX_STREAMS: the peer may open more."""
        announced = self._peer_streams[unidirectional].announced
        frame = _frame(0x13 if unidirectional else 0x12, announced)
        self._queue.signals.append((frame, (self._on_max_streams, (unidirectional, announced))))

    def _on_reset(self, state: QuicDeliveryState, stream: Stream) -> None:
        if state is not ACKED:
            self.reset(stream)
            return
        assert stream.outgoing is not None
        stream.outgoing.finished = True
        self._settle(stream)

    def _on_stop(self, state: QuicDeliveryState, stream: Stream) -> None:
        if state is not ACKED and stream.incoming is not None and not stream.incoming.finished:
            self.stop(stream)

    def _on_max_data(self, state: QuicDeliveryState, limit: int) -> None:
        if state is not ACKED and limit == self._credit.limit:
            self.max_data()

    def _on_max_stream_data(self, state: QuicDeliveryState, stream: Stream, limit: int) -> None:
        incoming = stream.incoming
        if state is not ACKED and incoming is not None and limit == incoming.limit and incoming.final_size is None:
            self.max_stream_data(stream)

    def _on_max_streams(self, state: QuicDeliveryState, unidirectional: bool, announced: int) -> None:
        if state is not ACKED and announced == self._peer_streams[unidirectional].announced:
            self.max_streams(unidirectional)


def _frame(*values: int) -> bytes:
    return b"".join(map(push_varint, values))
