"""The two halves of one QUIC stream, as data: what we still have to send, and what has arrived out of order.

aioquic's own stream objects copy every byte twice on the way out and allocate whatever gap a peer claims on the way in,
so `core` uses these instead. Nothing here knows packets, keys or time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from aioquic.quic.rangeset import RangeSet

from tradewind.quic.egress import Part

CHUNK_OVERHEAD_BYTES = 128
"""What holding one chunk out of order costs besides its bytes: two list slots, a dict entry, an object header."""
TRIM_PARTS = 32


class FinalSizeError(Exception):
    """The peer contradicted the final size of a stream (RFC 9000, Stream Final Size)."""


class Outgoing:
    """Our sending half: parts offered, how far they were sent, what was acknowledged and what was lost."""

    __slots__ = (
        "_acked_beyond",
        "_cursor",
        "_parts",
        "_starts",
        "acked",
        "control",
        "end",
        "fin",
        "fin_acked",
        "fin_sent",
        "finished",
        "limit",
        "lost",
        "prefix",
        "queued",
        "reset_code",
        "sent",
    )

    def __init__(self, limit: int, control: bool) -> None:
        self.control = control
        self.limit = limit
        self.end = 0
        self.sent = 0
        self.acked = 0
        self.fin = self.fin_sent = self.fin_acked = False
        self.finished = False
        self.reset_code: int | None = None
        self.lost: RangeSet | None = None
        self.queued = False
        self.prefix: bytes | None = None
        """Goes out before the first byte written (WebTransport's stream header)."""
        self._parts: list[memoryview] = []
        self._starts: list[int] = []
        self._cursor = 0
        self._acked_beyond: RangeSet | None = None

    @property
    def open(self) -> bool:
        """Whether more may be written."""
        return not self.fin and self.reset_code is None and not self.finished

    @property
    def pending(self) -> bool:
        """Whether a STREAM frame would carry something new: bytes within the peer's limit, or a bare FIN."""
        if self.reset_code is not None:
            return False
        return (self.sent < self.end and self.sent < self.limit) or (
            self.fin and not self.fin_sent and self.sent == self.end
        )

    @property
    def blocked_bytes(self) -> int:
        """Bytes offered that the peer's limit for this stream keeps back."""
        if self.end <= self.limit or self.reset_code is not None:
            return 0
        return self.end - max(self.sent, self.limit)

    @property
    def unsent_bytes(self) -> int:
        """Bytes offered that no packet has carried yet."""
        return 0 if self.reset_code is not None else self.end - self.sent

    def write(self, parts: Sequence[Part], fin: bool) -> int:
        """Append `parts`; returns how many bytes they hold."""
        end = before = self.end
        for part in parts:
            size = len(part)
            if size:
                self._parts.append(part if type(part) is memoryview else memoryview(part))
                self._starts.append(end)
                end += size
        self.end = end
        self.fin = fin
        return end - before

    def take(self, most: int) -> tuple[int, list[memoryview], int]:
        """Take up to `most` new bytes within the peer's limit: (offset, slices, how many). Advances `sent`."""
        offset = self.sent
        size = min(most, self.end - offset, self.limit - offset)
        if size <= 0:
            return offset, [], 0
        self.sent = offset + size
        index = self._cursor
        skip = offset - self._starts[index]
        part = self._parts[index]
        if len(part) - skip > size:
            return offset, [part[skip : skip + size]], size
        slices, self._cursor = self._slices(index, offset, size)
        return offset, slices, size

    def take_lost(self, most: int) -> tuple[int, list[memoryview], int, bool]:
        """Take up to `most` bytes of the first lost range: (offset, slices, how many, whether more is lost)."""
        assert self.lost is not None
        first = self.lost[0]
        size = min(most, first.stop - first.start)
        self.lost.subtract(first.start, first.start + size)
        if not len(self.lost):
            self.lost = None
        slices, _ = self._slices(bisect_right(self._starts, first.start) - 1, first.start, size)
        return first.start, slices, size, self.lost is not None

    def acknowledge(self, start: int, stop: int, fin: bool) -> bool:
        """Note that [start, stop) arrived, and the FIN with it if `fin`; True when all of the stream has."""
        if self.reset_code is not None:
            return False
        if start == self.acked:
            self.acked = stop
            if self._acked_beyond is not None:
                self._merge_acked()
            if self._starts and len(self._starts) >= TRIM_PARTS:
                self._trim()
        elif stop > start:
            if self._acked_beyond is None:
                self._acked_beyond = RangeSet()
            self._acked_beyond.add(start, stop)
        if fin:
            self.fin_acked = True
        self.finished = self.fin_acked and self.acked == self.end
        if self.finished:
            self._drop()
        return self.finished

    def lose(self, start: int, stop: int, fin: bool) -> None:
        """Note that a packet with [start, stop) was lost: it goes out again."""
        if self.reset_code is not None or self.finished:
            return
        if stop > start:
            if self.lost is None:
                self.lost = RangeSet()
            self.lost.add(start, stop)
        if fin:
            self.fin_sent = False

    def reset(self, code: int) -> None:
        """Abandon the stream: nothing more is sent, and no part is kept."""
        self.reset_code = code
        self.lost = None
        self._drop()

    def _slices(self, index: int, offset: int, size: int) -> tuple[list[memoryview], int]:
        """Cut [offset, offset + size) out of the parts; `offset` lies in part `index`. Returns the next index too."""
        parts = self._parts
        skip = offset - self._starts[index]
        part = parts[index]
        left = len(part) - skip
        if left > size:
            return [part[skip : skip + size]], index
        slices = [part[skip:] if skip else part]
        size -= left
        index += 1
        while size:
            part = parts[index]
            if len(part) > size:
                slices.append(part[:size])
                break
            slices.append(part)
            size -= len(part)
            index += 1
        return slices, index

    def _merge_acked(self) -> None:
        beyond = self._acked_beyond
        assert beyond is not None
        while len(beyond) and beyond[0].start <= self.acked:
            self.acked = max(self.acked, beyond.shift().stop)
        if not len(beyond):
            self._acked_beyond = None

    def _trim(self) -> None:
        """Let go of parts that were acknowledged whole, a batch at a time so that long streams stay O(1) a byte."""
        done = bisect_right(self._starts, self.acked) - 1
        if done >= TRIM_PARTS:
            del self._parts[:done], self._starts[:done]
            self._cursor -= done

    def _drop(self) -> None:
        self._parts = []
        self._starts = []
        self._acked_beyond = None


class Incoming:
    """The peer's sending half as we receive it: in-order bytes come out, what came early waits, counted."""

    __slots__ = (
        "_chunks",
        "_starts",
        "consumed",
        "delivered",
        "final_size",
        "finished",
        "held_bytes",
        "highest",
        "limit",
        "stop_code",
        "window",
    )

    def __init__(self, window: int) -> None:
        self.window = window
        self.limit = window
        self.highest = 0
        self.delivered = 0
        self.consumed = 0
        self.final_size: int | None = None
        self.finished = False
        self.stop_code: int | None = None
        self.held_bytes = 0
        """Memory held by chunks that came early, their overhead included."""
        self._starts: list[int] = []
        self._chunks: dict[int, bytes] = {}

    def receive(self, offset: int, data: bytes, fin: bool) -> tuple[bytes, bool] | None:
        """Take one STREAM frame; returns (bytes now in order, whether the stream ends with them) or None.

        The caller has checked flow control. Raises `FinalSizeError`.
        """
        end = offset + len(data)
        self._check_final(end, fin)
        self.highest = max(self.highest, end)
        if self.finished:
            return None
        if offset == self.delivered and not self._starts:
            self.delivered = end
            self.finished = end == self.final_size
            return (data, self.finished) if data or self.finished else None
        if offset < self.delivered:
            data = data[self.delivered - offset :]
            offset = self.delivered
        if data:
            self._hold(offset, data)
        ready = self._pull()
        self.finished = self.delivered == self.final_size
        return (ready, self.finished) if ready or self.finished else None

    def abandon(self, final_size: int) -> bool:
        """Take a RESET_STREAM; returns whether the owner should hear of it. Raises `FinalSizeError`."""
        if (self.final_size is not None and final_size != self.final_size) or final_size < self.highest:
            raise FinalSizeError("final size changed")
        self.final_size = self.highest = final_size
        if self.finished:
            return False
        self.finished = True
        self.forget()
        return True

    def consume(self, size: int) -> bool:
        """Count bytes dealt with; True when the limit moved and the peer should hear of it."""
        self.consumed = min(self.consumed + size, self.delivered)
        target = self.consumed + self.window
        if self.final_size is not None or target - self.limit < self.window // 2:
            return False
        self.limit = target
        return True

    def forget(self) -> None:
        """Let go of what came early."""
        self._starts = []
        self._chunks = {}
        self.held_bytes = 0

    def _check_final(self, end: int, fin: bool) -> None:
        if self.final_size is not None:
            if end > self.final_size or (fin and end != self.final_size):
                raise FinalSizeError("data beyond the final size")
        elif fin:
            if end < self.highest:
                raise FinalSizeError("final size below data received")
            self.final_size = end

    def _hold(self, offset: int, data: bytes) -> None:
        """Keep a chunk that came early. Chunks never overlap; one that covers others replaces them."""
        starts, chunks = self._starts, self._chunks
        at = bisect_right(starts, offset)
        if at:
            previous_end = starts[at - 1] + len(chunks[starts[at - 1]])
            if previous_end > offset:
                data = data[previous_end - offset :]
                offset = previous_end
        end = offset + len(data)
        last = bisect_left(starts, end)
        if last > at:
            last_end = starts[last - 1] + len(chunks[starts[last - 1]])
            if last_end > end:
                last -= 1
                data = data[: starts[last] - offset]
            for start in starts[at:last]:
                self.held_bytes -= len(chunks.pop(start)) + CHUNK_OVERHEAD_BYTES
            del starts[at:last]
        if data:
            starts.insert(at, offset)
            chunks[offset] = data
            self.held_bytes += len(data) + CHUNK_OVERHEAD_BYTES

    def _pull(self) -> bytes:
        starts, chunks = self._starts, self._chunks
        ready: list[bytes] = []
        while starts and starts[len(ready)] == self.delivered:
            chunk = chunks.pop(self.delivered)
            ready.append(chunk)
            self.delivered += len(chunk)
            if len(ready) == len(starts):
                break
        if not ready:
            return b""
        del starts[: len(ready)]
        data = ready[0] if len(ready) == 1 else b"".join(ready)
        self.held_bytes -= len(data) + CHUNK_OVERHEAD_BYTES * len(ready)
        return data


class Stream:
    """Both halves under one id; `kind` belongs to the layer above (WebTransport marks what a stream carries)."""

    __slots__ = ("id", "incoming", "kind", "outgoing", "wire_id")

    def __init__(self, stream_id: int, outgoing: Outgoing | None, incoming: Incoming | None) -> None:
        self.id = stream_id
        self.outgoing = outgoing
        self.incoming = incoming
        self.kind: object = None
        self.wire_id: bytes | None = None
        """The id as frames carry it, once one has."""

    @property
    def finished(self) -> bool:
        """Whether both halves are over, so that the stream can be forgotten."""
        incoming, outgoing = self.incoming, self.outgoing
        return (incoming is None or incoming.finished) and (outgoing is None or outgoing.finished)
