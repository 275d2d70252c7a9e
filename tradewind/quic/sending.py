"""What leaves a connection next: the frames of the next packet, in order, without looking at idle streams.

`core` asks for one packet's frames at a time and seals them. Order inside a connection: signals (resets, credit),
lost bytes, control streams, datagrams, then media streams in the order they were offered: the rooms above decide
priority and hand over at most `EGRESS_BYTES` at once, so reordering here would only undo their work. No stream
waits in a list unless it has something to send, so a thousand idle request streams cost nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from aioquic.buffer import encode_uint_var

from tradewind.quic.egress import Part, Writable
from tradewind.quic.streams import Stream

EGRESS_BYTES = 16 * 1024
"""Media bytes that may wait unsent in one connection."""
BLOCKED_BYTES = 4 * 1024
"""What bytes blocked by their own stream's flow control count for in that sum, at most."""
SMALLEST_STREAM_ROOM = 24
"""Below this much room in a packet no further STREAM frame is started: header and a few bytes would not pay."""
STREAM_FRAME = 0x08
OFFSET_BIT, LENGTH_BIT, FIN_BIT = 0x04, 0x02, 0x01
DATAGRAM_FRAME = 0x31

Handler: TypeAlias = tuple[Callable[..., None], tuple[Any, ...]]
"""Called with the delivery state and these arguments when the packet is acknowledged or lost."""
Delivered: TypeAlias = Callable[..., None]


@dataclass(slots=True)
class Datagram:
    """One datagram that waits: its frame, and when it is not worth sending any more."""

    frame: bytes
    expires: float


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
        self._datagrams: deque[Datagram] = deque()
        self.signals: deque[tuple[bytes, Handler]] = deque()
        """Frames ready to go with what to do on their delivery: credit, resets, stops."""
        self.backlog_limit = backlog_limit
        self.max_data = 0
        self.max_data_used = 0
        self.control_unsent_bytes = 0
        self.media_unsent_bytes = 0
        self.blocked_bytes = 0
        self.datagram_bytes = 0
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
        self._datagrams.append(Datagram(frame, expires))
        self.datagram_bytes += len(frame)
        while self.datagram_bytes > self.backlog_limit and len(self._datagrams) > 1:
            self.datagram_bytes -= len(self._datagrams.popleft().frame)
            self.datagrams_dropped += 1

    def writable(self, streams: int, datagram_room: int) -> Writable:
        """What media may be offered now, given how many streams may be opened and how large a datagram may be."""
        blocked = self.blocked_bytes
        ready = self.media_unsent_bytes - blocked
        room = EGRESS_BYTES - ready - (min(BLOCKED_BYTES, blocked))
        return Writable(max(0, room), streams, datagram_room)

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
        while datagrams:
            first = datagrams[0]
            size = len(first.frame)
            if first.expires <= now:
                self.datagrams_expired += 1
            elif size > room:
                break
            else:
                frames.append(first.frame)
                room -= size
            datagrams.popleft()
            self.datagram_bytes -= size
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
            overhead = _overhead(stream.id, outgoing.lost[0].start)
            offset, slices, size, more = outgoing.take_lost(room - overhead)
            fin = outgoing.fin and not outgoing.fin_sent and offset + size == outgoing.end
            outgoing.fin_sent = outgoing.fin_sent or fin
            self._push(stream, offset, slices, size, fin, frames, handlers)
            room -= overhead + size
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
            overhead = _overhead(stream.id, outgoing.sent)
            credit = self.max_data - self.max_data_used
            most = room - overhead
            offset, slices, size = outgoing.take(min(credit, most))
            fin = outgoing.fin and outgoing.sent == outgoing.end
            if not size and not fin:
                break
            outgoing.fin_sent = fin
            self.max_data_used += size
            if outgoing.control:
                self.control_unsent_bytes -= size
            else:
                self.media_unsent_bytes -= size
            self._push(stream, offset, slices, size, fin, frames, handlers)
            room -= overhead + size
        return room

    def _push(
        self,
        stream: Stream,
        offset: int,
        slices: list[memoryview],
        size: int,
        fin: bool,
        frames: list[bytes | memoryview],
        handlers: list[Handler],
    ) -> None:
        kind = STREAM_FRAME | LENGTH_BIT | (FIN_BIT if fin else 0)
        if offset:
            header = bytes((kind | OFFSET_BIT,)) + encode_uint_var(stream.id) + encode_uint_var(offset)
        else:
            header = bytes((kind,)) + encode_uint_var(stream.id)
        frames.append(header + (size | 0x4000).to_bytes(2, "big"))
        frames += slices
        handlers.append((self._delivered, (stream, offset, offset + size, fin)))


def _overhead(stream_id: int, offset: int) -> int:
    """Bytes of a STREAM frame's header with an explicit two-byte length."""
    size = 4 if stream_id < 64 else 5 if stream_id < 16384 else 7 if stream_id < 1 << 30 else 11
    if offset:
        size += 1 if offset < 64 else 2 if offset < 16384 else 4 if offset < 1 << 30 else 8
    return size
