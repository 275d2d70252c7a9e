"""What leaves a connection next: the frames of the next packet, in order, without looking at idle streams.

`core` asks for one packet's frames at a time and seals them. Order inside a connection: signals (resets, credit),
lost bytes, control streams, datagrams, then media streams in the order they were offered: the rooms above decide
priority and hand over at most `EGRESS_BYTES` at once, so reordering here would only undo their work. No stream
waits in a list unless it has something to send, so a thousand idle request streams cost nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tradewind.quic.egress import Part
from tradewind.quic.streams import Stream
from tradewind.quic.wire import push_varint

EGRESS_BYTES = 16 * 1024
"""Media bytes that may wait unsent in one connection."""
BLOCKED_BYTES = 4 * 1024
"""What bytes blocked by their own stream's flow control count for in that sum, at most."""
SMALLEST_STREAM_ROOM = 24
"""Below this much room in a packet no further STREAM frame is started: header and a few bytes would not pay."""
STREAM_FRAME = 0x08
OFFSET_BIT, LENGTH_BIT, FIN_BIT = 0x04, 0x02, 0x01
TYPE_AND_LENGTH_BYTES = 3
DATAGRAM_FRAME = 0x31

Handler: TypeAlias = tuple[Callable[..., None], tuple[Any, ...]]
"""Called with the delivery state and these arguments when the packet is acknowledged or lost."""
Delivered: TypeAlias = Callable[..., None]


class SendQueue:
    """Everything one connection has to send except what aioquic itself sends."""

    __slots__ = (
        "_control",
        "_datagrams",
        "_delivered",
        "_media",
        "_resend",
        "backlog_limit",
        "blocked_bytes",
        "control_unsent_bytes",
        "datagram_bytes",
        "datagrams_apart",
        "datagrams_dropped",
        "datagrams_expired",
        "max_data",
        "max_data_used",
        "media_unsent_bytes",
        "signals",
    )

    def __init__(self, delivered: Delivered, backlog_limit: int) -> None:
        self._delivered = delivered
        self._resend: deque[Stream] = deque()
        self._control: deque[Stream] = deque()
        self._media: deque[Stream] = deque()
        self._datagrams: deque[tuple[bytes, float]] = deque()
        """Frames, and when each is not worth sending any more."""
        self.signals: deque[tuple[bytes, Handler]] = deque()
        """Frames ready to go with what to do on their delivery: credit, resets, stops."""
        self.backlog_limit = backlog_limit
        self.max_data = 0
        self.max_data_used = 0
        self.control_unsent_bytes = 0
        self.media_unsent_bytes = 0
        self.blocked_bytes = 0
        self.datagram_bytes = 0
        self.datagrams_apart = False
        """Each datagram in a packet of its own."""
        self.datagrams_expired = 0
        self.datagrams_dropped = 0

    def __bool__(self) -> bool:
        """Whether a packet might carry something now, congestion and flow control aside."""
        return bool(self.signals or self._resend or self._control or self._datagrams or self._media)

    def write(self, stream: Stream, parts: Sequence[Part], fin: bool) -> None:
        """Append to a stream that is still open for writing."""
        outgoing = stream.outgoing
        assert outgoing is not None
        if outgoing.prefix is not None:
            parts = (outgoing.prefix, *parts)
            outgoing.prefix = None
        if outgoing.control:
            self.control_unsent_bytes += outgoing.write(parts, fin)
        else:
            blocked = outgoing.blocked_bytes
            self.media_unsent_bytes += outgoing.write(parts, fin)
            if outgoing.end > outgoing.limit:
                self.blocked_bytes += outgoing.blocked_bytes - blocked
        if not outgoing.queued and outgoing.pending:
            self._queue(stream)

    def raise_limit(self, stream: Stream, limit: int) -> None:
        """The peer lets us send up to `limit` on a stream."""
        outgoing = stream.outgoing
        if outgoing is None or limit <= outgoing.limit:
            return
        blocked = outgoing.blocked_bytes
        outgoing.limit = limit
        if not outgoing.control:
            self.blocked_bytes += outgoing.blocked_bytes - blocked
        if not outgoing.queued and outgoing.pending:
            self._queue(stream)

    def abandon(self, stream: Stream, code: int) -> None:
        """Reset a stream's sending half: its bytes are no longer ours to send. The frame is the caller's to signal."""
        outgoing = stream.outgoing
        assert outgoing is not None
        if outgoing.control:
            self.control_unsent_bytes -= outgoing.unsent_bytes
        else:
            self.media_unsent_bytes -= outgoing.unsent_bytes
            self.blocked_bytes -= outgoing.blocked_bytes
        outgoing.reset(code)
        if outgoing.queued:
            (self._control if outgoing.control else self._media).remove(stream)
            outgoing.queued = False

    def lose(self, stream: Stream, start: int, stop: int, fin: bool) -> None:
        """A packet with these bytes of the stream was lost."""
        outgoing = stream.outgoing
        assert outgoing is not None
        had_lost = outgoing.lost is not None
        outgoing.lose(start, stop, fin)
        if outgoing.lost is not None and not had_lost:
            self._resend.append(stream)
        elif not outgoing.queued and outgoing.pending:
            self._queue(stream)

    def datagram(self, frame: bytes, expires: float) -> None:
        """Queue one whole DATAGRAM frame; past the backlog limit the oldest waiting one is dropped."""
        self._datagrams.append((frame, expires))
        self.datagram_bytes += len(frame)
        while self.datagram_bytes > self.backlog_limit and len(self._datagrams) > 1:
            self.datagram_bytes -= len(self._datagrams.popleft()[0])
            self.datagrams_dropped += 1

    def writable_bytes(self) -> int:
        """Bytes of media that may be offered now on all streams together."""
        blocked = self.blocked_bytes
        room = EGRESS_BYTES - self.media_unsent_bytes + blocked - min(BLOCKED_BYTES, blocked)
        return max(0, room)

    def fill(self, room: int, now: float, frames: list[bytes | memoryview], handlers: list[Handler]) -> int:
        """Put at most `room` bytes of frames into `frames`, their handlers into `handlers`; returns the room left."""
        signals = self.signals
        while signals and len(signals[0][0]) <= room:
            frame, handler = signals.popleft()
            frames.append(frame)
            handlers.append(handler)
            room -= len(frame)
        if self._resend and room >= SMALLEST_STREAM_ROOM:
            room = self._fill_lost(room, frames, handlers)
        if self._control and room >= SMALLEST_STREAM_ROOM:
            room = self._fill_streams(self._control, room, frames, handlers)
        if self._datagrams:
            room = self._fill_datagrams(room, now, frames)
        if self._media and room >= SMALLEST_STREAM_ROOM:
            room = self._fill_streams(self._media, room, frames, handlers)
        return room

    def clear(self) -> None:
        """The connection is over: let go of everything."""
        self._resend.clear()
        self._control.clear()
        self._media.clear()
        self._datagrams.clear()
        self.signals.clear()
        self.control_unsent_bytes = self.media_unsent_bytes = self.blocked_bytes = self.datagram_bytes = 0

    def _queue(self, stream: Stream) -> None:
        outgoing = stream.outgoing
        assert outgoing is not None
        outgoing.queued = True
        (self._control if outgoing.control else self._media).append(stream)

    def _fill_datagrams(self, room: int, now: float, frames: list[bytes | memoryview]) -> int:
        datagrams = self._datagrams
        alone = False
        while datagrams:
            frame, expires = datagrams[0]
            size = len(frame)
            if expires <= now:
                self.datagrams_expired += 1
            elif size > room:
                break
            else:
                frames.append(frame)
                room -= size
                alone = self.datagrams_apart
                if alone:
                    room = 0
            datagrams.popleft()
            self.datagram_bytes -= size
            if alone:
                break
        return room

    def _fill_lost(self, room: int, frames: list[bytes | memoryview], handlers: list[Handler]) -> int:
        """Lost bytes go again first; flow control counted them already."""
        resend = self._resend
        while resend and room >= SMALLEST_STREAM_ROOM:
            stream = resend[0]
            outgoing = stream.outgoing
            assert outgoing is not None
            if outgoing.lost is None:
                resend.popleft()
                continue
            start = _start(stream, outgoing.lost[0].start)
            room -= len(start) + TYPE_AND_LENGTH_BYTES
            offset, slices, size, more = outgoing.take_lost(room)
            fin = outgoing.fin and not outgoing.fin_sent and offset + size == outgoing.end
            outgoing.fin_sent = outgoing.fin_sent or fin
            frames.append(_header(start, offset, size, fin))
            frames += slices
            handlers.append((self._delivered, (stream, offset, offset + size, fin)))
            room -= size
            if not more:
                resend.popleft()
                if not outgoing.queued and outgoing.pending:
                    self._queue(stream)
        return room

    def _fill_streams(
        self, queue: deque[Stream], room: int, frames: list[bytes | memoryview], handlers: list[Handler]
    ) -> int:
        while queue and room >= SMALLEST_STREAM_ROOM:
            stream = queue[0]
            outgoing = stream.outgoing
            assert outgoing is not None
            if not outgoing.pending:
                outgoing.queued = False
                queue.popleft()
                continue
            start = _start(stream, outgoing.sent)
            left = room - len(start) - TYPE_AND_LENGTH_BYTES
            credit = self.max_data - self.max_data_used
            offset, slices, size = outgoing.take(min(left, credit))
            fin = outgoing.fin and offset + size == outgoing.end
            if not size and not fin:
                break
            outgoing.fin_sent = fin
            self.max_data_used += size
            if outgoing.control:
                self.control_unsent_bytes -= size
            else:
                self.media_unsent_bytes -= size
            frames.append(_header(start, offset, size, fin))
            frames += slices
            handlers.append((self._delivered, (stream, offset, offset + size, fin)))
            room = left - size
        return room


def _start(stream: Stream, offset: int) -> bytes:
    """Stream id and offset of a STREAM frame; a stream's first frame leaves the offset out."""
    if stream.wire_id is None:
        stream.wire_id = push_varint(stream.id)
    return stream.wire_id + push_varint(offset) if offset else stream.wire_id


def _header(start: bytes, offset: int, size: int, fin: bool) -> bytes:
    """A STREAM frame up to its data, with a two-byte length."""
    kind = STREAM_FRAME | LENGTH_BIT | (OFFSET_BIT if offset else 0) | (FIN_BIT if fin else 0)
    return b"%c%b%c%c" % (kind, start, size >> 8 | 0x40, size & 0xFF)
