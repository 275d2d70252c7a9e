"""The streams of one session: which handler each has, which are over, and which wait for SETUP.

Every part of the session that reads streams shares one table. Source: draft-20, "Session initialization".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tradewind.moqt.context import Context, StreamHandler
from tradewind.moqt.errors import ResetCode, SessionCode
from tradewind.moqt.idset import IdSet

UNIDIRECTIONAL: Final = 2
"""Set in the id of a QUIC stream that only its opener writes."""


class StreamTable:
    """Handlers by stream id; a stream that is over is remembered, so that nothing late opens it again."""

    __slots__ = ("_context", "_over", "handlers")

    def __init__(self, context: Context) -> None:
        self._context = context
        self.handlers: dict[int, StreamHandler] = {}
        self._over = tuple(IdSet() for _ in range(4))

    def put(self, stream: int, handler: StreamHandler) -> None:
        """From now on `handler` reads the stream."""
        self.handlers[stream] = handler

    def drop(self, stream: int) -> None:
        """Nothing more of this stream matters."""
        self.handlers.pop(stream, None)
        over = self._over[stream & 3]
        over.add(stream >> 2)
        theirs = stream & 1 == self._context.is_client
        if theirs and over.ranges > self._context.settings.max_id_gaps:
            raise self._context.violation("too many streams left out", SessionCode.INTERNAL_ERROR)

    def is_over(self, stream: int) -> bool:
        """Whether the stream was dropped."""
        return stream >> 2 in self._over[stream & 3]

    def abandon(self, stream: int, code: int) -> None:
        """Stop a stream of the peer's and forget it."""
        self._context.transport.stop(stream, self._context.to_wire(code))
        self.drop(stream)

    def give_up(self, stream: int, code: int) -> None:
        """End every direction of a stream of the peer's, and forget it."""
        if not stream & UNIDIRECTIONAL:
            self._context.transport.reset(stream, self._context.to_wire(code))
        self.abandon(stream, code)

    def check_invariants(self) -> None:
        """Assert that no stream is both read and over."""
        for over in self._over:
            over.check_invariants()
        assert not any(map(self.is_over, self.handlers))


class Discard:
    """A stream that is read and thrown away: padding."""

    __slots__ = ("_context", "_stream", "_table")

    def __init__(self, context: Context, table: StreamTable, stream: int) -> None:
        self._context = context
        self._table = table
        self._stream = stream

    def receive(self, data: bytes, fin: bool) -> None:
        """Count the bytes and forget them."""
        self._context.counters["bytes_discarded"] += len(data)
        self._context.transport.consumed(self._stream, len(data))
        if fin:
            self._table.drop(self._stream)

    def reset(self, code: int) -> None:
        """The peer has enough of it."""
        self._table.drop(self._stream)

    def stopped(self, code: int) -> None:
        """We send nothing on it yet."""


class EarlyStreams:
    """Streams that came before both SETUPs were through, in the order in which they came, within limits."""

    __slots__ = ("_context", "_table", "_waiting", "size_bytes")

    def __init__(self, context: Context, table: StreamTable) -> None:
        self._context = context
        self._table = table
        self._waiting: dict[int, _Early] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def hold(self, stream: int, data: bytes, fin: bool) -> None:
        """Keep a new stream until `release`; abandon it where there is no room."""
        if len(self._waiting) >= self._context.settings.max_early_streams:
            self._refuse(stream)
            return
        early = self._waiting[stream] = _Early(self, stream)
        self._table.put(stream, early)
        early.receive(data, fin)

    def release(self, route: Callable[[int, bytes, bool], None]) -> None:
        """Setup is through: give every stream and what it brought to `route`."""
        waiting, self._waiting, self.size_bytes = self._waiting, {}, 0
        for stream, early in waiting.items():
            del self._table.handlers[stream]
            route(stream, bytes(early.data), early.fin)

    def take(self, early: _Early, data: bytes) -> None:
        """Count more bytes of a stream that waits; abandon it where they are too many."""
        self.size_bytes += len(data)
        early.data += data
        if self.size_bytes > self._context.settings.max_early_bytes:
            self.forget(early)
            self._refuse(early.stream)

    def forget(self, early: _Early) -> None:
        """A stream no longer waits."""
        del self._waiting[early.stream]
        self.size_bytes -= len(early.data)

    def lost(self, early: _Early) -> None:
        """The peer gave a stream up that waited."""
        self.forget(early)
        self._table.give_up(early.stream, ResetCode.CANCELLED)

    def check_invariants(self) -> None:
        """Assert that the size is what is held, and in bounds."""
        assert self.size_bytes == sum(len(early.data) for early in self._waiting.values())
        assert self.size_bytes <= self._context.settings.max_early_bytes
        assert len(self._waiting) <= self._context.settings.max_early_streams

    def _refuse(self, stream: int) -> None:
        self._context.counters["early_streams_refused"] += 1
        self._table.give_up(stream, ResetCode.EXCESSIVE_LOAD)


class _Early:
    """One stream that waits. Its receive credit is not given back before it is read."""

    __slots__ = ("_all", "data", "fin", "stream")

    def __init__(self, early: EarlyStreams, stream: int) -> None:
        self._all = early
        self.stream = stream
        self.data = bytearray()
        self.fin = False

    def receive(self, data: bytes, fin: bool) -> None:
        """Hold more of it."""
        self.fin = fin
        self._all.take(self, data)

    def reset(self, code: int) -> None:
        """It will never be read."""
        self._all.lost(self)

    def stopped(self, code: int) -> None:
        """A request whose answer nobody wants is no request."""
        self._all.lost(self)


class Untyped:
    """A stream whose type has not come whole: at most eight bytes, which go to `route` again with what follows."""

    __slots__ = ("_data", "_route", "_stream", "_table")

    def __init__(self, route: Callable[[int, bytes, bool], None], table: StreamTable, stream: int, data: bytes) -> None:
        self._route = route
        self._table = table
        self._stream = stream
        self._data = data

    def receive(self, data: bytes, fin: bool) -> None:
        """Look again."""
        self._data += data
        self._route(self._stream, self._data, fin)

    def reset(self, code: int) -> None:
        """It never said what it was."""
        self._table.give_up(self._stream, ResetCode.CANCELLED)

    def stopped(self, code: int) -> None:
        """We send nothing on it yet."""
