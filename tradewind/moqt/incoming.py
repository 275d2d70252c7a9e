"""One data stream of the peer's each: its decoder's items as events, and waiting where it came too early.

`tradewind.moqt.data` opens them and says what they belong to. `receive` is the path of every object: past the decoder
it costs one event an item. Sources: draft-20, "Subgroup Header", "Closing Subgroup Streams", "Fetch Header".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tradewind.moqt.aliases import Alias
from tradewind.moqt.errors import ResetCode
from tradewind.moqt.events import (
    FetchClosed,
    FetchObjectStarted,
    FetchOpened,
    FetchRangeEnded,
    ObjectData,
    ObjectStarted,
    SubgroupClosed,
    SubgroupOpened,
)
from tradewind.moqt.fetched import FetchDecoder, RangeMark, decode_fetch_header
from tradewind.moqt.model import GroupOrder, ObjectHeader, SubgroupHeader
from tradewind.moqt.objects import SubgroupDecoder
from tradewind.moqt.pieces import ObjectTooLarge, Piece

if TYPE_CHECKING:
    from tradewind.moqt.data import DataStreams


class DataStream:
    """What subgroup and fetch streams share: being read, waiting, and being over."""

    __slots__ = ("_context", "_data", "_held", "_held_fin", "held_bytes", "is_over", "since", "stream", "waits")

    def __init__(self, data: DataStreams, stream: int) -> None:
        self._data = data
        self._context = data.context
        self.stream = stream
        self.is_over = False
        self.waits = False
        """For a control message; then `since` and `held_bytes` count."""
        self.since = 0.0
        self.held_bytes = 0
        self._held: list[bytes] = []
        self._held_fin = False

    def receive(self, data: bytes, fin: bool) -> None:
        """Read the next bytes, or keep them while the stream waits."""
        if self.waits:
            self._held.append(data)
        else:
            self._read(data)
            if not self.waits:
                self._context.transport.consumed(self.stream, len(data))
                if fin and not self.is_over:
                    self._finish()
                return
        self._held_fin = fin
        self._data.keep(self, len(data))

    def reset(self, code: int) -> None:
        """The peer abandoned the stream."""
        if self.waits:
            self._data.lose(self)
        self.announce_closed(code)
        self._data.close(self)

    def stopped(self, code: int) -> None:
        """We send nothing on it."""

    def resume(self) -> None:
        """What it waited for has come: read what was kept."""
        self.waits = False
        held, self._held = self._held, []
        self._start()
        for data in held:
            if self.is_over:
                return
            self._read(data)
        if self._held_fin and not self.is_over:
            self._finish()

    def _start(self) -> None:
        raise NotImplementedError

    def _read(self, data: bytes) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def announce_closed(self, code: int | None) -> None:
        """Tell the owner, if it was told of the stream's beginning and of no end."""
        raise NotImplementedError

    def _too_large(self) -> None:
        """The draft sets no limit on an object, so ours costs the stream and not the session."""
        self._context.counters["objects_too_large"] += 1
        self.announce_closed(ResetCode.EXCESSIVE_LOAD)
        self._data.abandon(self, ResetCode.EXCESSIVE_LOAD)


class SubgroupStream(DataStream):
    """A stream that begins with SUBGROUP_HEADER."""

    __slots__ = ("_decoder", "_header", "_items", "_opened", "alias", "header")

    def __init__(self, data: DataStreams, stream: int) -> None:
        super().__init__(data, stream)
        self._decoder = SubgroupDecoder(data.context.profile)
        self.header: SubgroupHeader | None = None
        self.alias: Alias | None = None
        self._opened = False
        self._items: Iterable[Any] = ()
        """What the decoder still has of the bytes that brought the header, while the stream waits."""

    def _read(self, data: bytes) -> None:
        self._take(self._decoder.receive(data))

    def _take(self, items: Iterable[Any]) -> None:
        events, stream = self._context.events, self.stream
        try:
            for item in items:
                kind = item.__class__
                if kind is Piece:
                    events.append(ObjectData(stream, item[0], item[1]))
                elif kind is ObjectHeader:
                    if not self._opened:
                        self._open(item.id)
                    events.append(ObjectStarted(stream, item))
                else:
                    self.header = item
                    self._data.place_subgroup(self)
                    if self.waits:
                        self._items = items
                        return
                    if self.is_over:
                        return
                    self._placed()
        except ObjectTooLarge:
            self._too_large()

    def _start(self) -> None:
        self._data.place_subgroup(self)
        self._placed()
        items, self._items = self._items, ()
        self._take(items)

    def _placed(self) -> None:
        assert self.header is not None
        if self.header.subgroup is not None:
            self._open(self.header.subgroup)

    def _open(self, subgroup: int) -> None:
        header, alias = self.header, self.alias
        assert header is not None and alias is not None
        if header.subgroup is None:
            header = replace(header, subgroup=subgroup)
        self._opened = True
        self._context.events.append(SubgroupOpened(self.stream, alias.requests, header))

    def _finish(self) -> None:
        self._decoder.finish()
        self.announce_closed(None)
        self._data.close(self)

    def announce_closed(self, code: int | None) -> None:
        """Tell the owner, if it was told of the stream's beginning and of no end."""
        if self._opened:
            self._opened = False
            self._context.events.append(SubgroupClosed(self.stream, code))


class FetchTarget:
    """A fetch stream that may come: for a FETCH of ours, or a fill."""

    __slots__ = ("id", "order", "over", "ready", "request", "stream", "subscription")

    def __init__(
        self, number: int, request: int, subscription: int | None, order: GroupOrder | None, *, ready: bool
    ) -> None:
        self.id = number
        """What FETCH_HEADER will name: the FETCH, SUBSCRIBE, REQUEST_UPDATE or PUBLISH."""
        self.request = request
        self.subscription = subscription
        self.order = order
        self.ready = ready
        """The order is known and the track is ours to take."""
        self.stream: int | None = None
        self.over = False


class FetchStream(DataStream):
    """A stream that begins with FETCH_HEADER."""

    __slots__ = ("_decoder", "_first", "_opened", "number", "target")

    def __init__(self, data: DataStreams, stream: int) -> None:
        super().__init__(data, stream)
        self._decoder: FetchDecoder | None = None
        self._first = b""
        """Bytes of the header before it is whole, then what came with its last."""
        self.number: int | None = None
        self.target: FetchTarget | None = None
        self._opened = False

    def _read(self, data: bytes) -> None:
        if self._decoder is not None:
            self._take(self._decoder, data)
            return
        self._first += data
        header = decode_fetch_header(self._context.profile, self._first)
        if header is None:
            return
        self.number = header[0]
        self._first = self._first[header[1] :]
        self._data.place_fetch(self)
        if not self.waits and not self.is_over:
            self._begin()

    def _start(self) -> None:
        self._data.place_fetch(self)
        if not self.is_over:
            self._begin()

    def _begin(self) -> None:
        target = self.target
        assert target is not None
        self._opened = True
        self._context.events.append(FetchOpened(self.stream, target.id, target.subscription))
        self._decoder = FetchDecoder(self._context.profile, target.order or GroupOrder.ASCENDING)
        first, self._first = self._first, b""
        self._take(self._decoder, first)

    def _take(self, decoder: FetchDecoder, data: bytes) -> None:
        events, stream = self._context.events, self.stream
        try:
            for item in decoder.receive(data):
                if isinstance(item, Piece):
                    events.append(ObjectData(stream, item.data, item.last))
                elif isinstance(item, RangeMark):
                    events.append(FetchRangeEnded(stream, item.kind, item.location))
                else:
                    events.append(FetchObjectStarted(stream, item))
        except ObjectTooLarge:
            self._too_large()

    def _finish(self) -> None:
        if self._decoder is None:
            raise self._context.violation("a fetch stream that ends before its header")
        self._decoder.finish()
        self.announce_closed(None)
        self._data.close(self)

    def announce_closed(self, code: int | None) -> None:
        """Tell the owner, if it was told of the stream's beginning and of no end."""
        if self._opened and self.target is not None:
            self._opened = False
            self._context.events.append(FetchClosed(self.stream, self.target.id, code))
