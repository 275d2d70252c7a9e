"""Data streams and datagrams of the peer's: what each belongs to, and their decoders' items as events.

`tradewind.moqt.requests` and its users say which track aliases and fetch streams to expect; the routers open streams
here once their type is known. What comes before the control message that explains it waits, within limits and without
giving its receive credit back; what comes after the end of its request is stopped and thrown away. Sources: draft-20,
"Track Alias", "Subgroup Header", "Fetch Header", "Fill Semantics", "PUBLISH_DONE".
"""

from __future__ import annotations

from typing import Protocol

from tradewind.moqt.aliases import Aliases
from tradewind.moqt.context import Context
from tradewind.moqt.errors import ResetCode, SessionCode
from tradewind.moqt.events import DatagramArrived
from tradewind.moqt.incoming import DataStream, FetchStream, FetchTarget, SubgroupStream
from tradewind.moqt.model import DatagramObject, FullTrackName, GroupOrder
from tradewind.moqt.objects import StreamKind, decode_datagram
from tradewind.moqt.pieces import ObjectTooLarge
from tradewind.moqt.table import StreamTable


class Owner(Protocol):
    """What data streams ask of the requests."""

    def drained(self, request: int) -> None:
        """A subscription that is done needs no more streams."""

    def fetch_over(self, request: int) -> None:
        """The data stream of a FETCH of ours is over."""

    def was_used(self, number: int) -> bool:
        """Whether a Request ID, of either side, has been used."""


class DataStreams:
    """All incoming data of one session."""

    __slots__ = (
        "_aliases",
        "_datagram_bytes",
        "_datagrams",
        "_fetches",
        "_fills",
        "_lingering",
        "_table",
        "_waiting",
        "context",
        "owner",
        "waiting_bytes",
    )

    owner: Owner

    def __init__(self, context: Context, table: StreamTable) -> None:
        self.context = context
        self._table = table
        self._aliases = Aliases(context.settings.max_retired_aliases)
        self._fetches: dict[int, FetchTarget] = {}
        self._fills: dict[int, list[int]] = {}
        """The fetch streams that each request of the table may bring."""
        self._lingering: dict[int, tuple[float, int | None]] = {}
        """Subscriptions after PUBLISH_DONE: until when, and how many streams in all. The first is due first."""
        self._waiting: dict[int, DataStream] = {}
        self.waiting_bytes = 0
        self._datagrams: list[tuple[float, DatagramObject, int]] = []
        self._datagram_bytes = 0

    # --- What requests say --------------------------------------------------------------------------------------------

    def check_alias(self, number: int, track: FullTrackName) -> None:
        """Raise ProtocolViolation where the alias stands for another track."""
        alias = self._aliases.table.get(number)
        if alias is None or alias.track == track:
            return
        if any(request not in self._lingering for request in alias.requests):
            raise self.context.violation("one Track Alias for two tracks", SessionCode.DUPLICATE_TRACK_ALIAS)
        for request in alias.requests:
            self.owner.drained(request)

    def bind(self, number: int, track: FullTrackName, request: int) -> None:
        """From now on an alias stands for this request too; read what waited for it."""
        alias = self._aliases.bind(number, track, request)
        for stream in [waiting for waiting in self._waiting.values() if _awaits_alias(waiting, number)]:
            self._release(stream)
        if not self._datagrams:
            return
        waiting, self._datagrams, self._datagram_bytes = self._datagrams, [], 0
        for since, datagram, size in waiting:
            if datagram.alias == number:
                self.context.events.append(DatagramArrived(alias.requests, datagram))
            else:
                self._datagrams.append((since, datagram, size))
                self._datagram_bytes += size

    def revive(self, track: FullTrackName) -> None:
        """The track is asked for again: what comes under its former alias waits for the answer."""
        self._aliases.revive(track)

    def retire(self, number: int, track: FullTrackName | None) -> None:
        """Objects under this alias are not wanted, unless it stands for something. `track`: what it stands for."""
        self._aliases.retire(number, track)
        if number in self._aliases.retired:
            for stream in [waiting for waiting in self._waiting.values() if _awaits_alias(waiting, number)]:
                self.abandon(stream, ResetCode.CANCELLED)

    def expect(
        self,
        number: int,
        request: int,
        *,
        subscription: int | None = None,
        order: GroupOrder | None,
        ready: bool = True,
    ) -> None:
        """A fetch stream that names `number` may come; with `ready` False it waits for `establish`."""
        self._fetches[number] = FetchTarget(number, request, subscription, order, ready=ready)
        self._fills.setdefault(request, []).append(number)
        if ready:
            self._wake_fetch(number)

    def establish(self, request: int, order: GroupOrder) -> None:
        """A subscription is accepted: its fills may be read, in `order` where they asked for none of their own."""
        for number in self._fills.get(request, ()):
            target = self._fetches.get(number)
            if target is not None and not target.ready:
                target.ready = True
                target.order = target.order or order
                self._wake_fetch(number)

    def fetch_is_over(self, request: int) -> bool:
        """Whether the data stream of a FETCH has ended."""
        target = self._fetches.get(request)
        return target is not None and target.over

    def linger(self, request: int, stream_count: int | None) -> bool:
        """A subscription is done. True where all its streams are in; else `owner.drained` will say so."""
        self._lingering[request] = (self.context.now + self.context.settings.done_linger_s, stream_count)
        if not self._is_drained(request):
            return False
        del self._lingering[request]
        return True

    def forget(self, request: int, *, quiet: bool) -> None:
        """A request is over: stop what still comes for it, and unless `quiet` say that it ended."""
        self._lingering.pop(request, None)
        alias = self._aliases.unbind(request)
        streams = sorted(alias.streams) if alias is not None else []
        for number in self._fills.pop(request, ()):
            target = self._fetches.pop(number, None)
            if target is not None and target.stream is not None and not target.over:
                streams.append(target.stream)
        for stream in streams:
            handler = self._table.handlers[stream]
            assert isinstance(handler, DataStream)
            if not quiet:
                handler.announce_closed(ResetCode.CANCELLED)
            self.abandon(handler, ResetCode.CANCELLED)

    def stop(self, stream: int, code: int) -> None:
        """The owner does not want the rest of a stream."""
        handler = self._table.handlers.get(stream)
        if isinstance(handler, DataStream):
            self.abandon(handler, code)

    # --- What arrives -------------------------------------------------------------------------------------------------

    def open(self, stream: int, kind: StreamKind, data: bytes, fin: bool) -> None:
        """A new subgroup or fetch stream with its first bytes."""
        handler = SubgroupStream(self, stream) if kind is StreamKind.SUBGROUP else FetchStream(self, stream)
        self._table.put(stream, handler)
        self.context.counters["data_streams"] += 1
        handler.receive(data, fin)

    def datagram(self, data: bytes) -> None:
        """One datagram, whole."""
        try:
            datagram = decode_datagram(self.context.profile, data)
        except ObjectTooLarge:
            self.context.counters["objects_too_large"] += 1
            return
        if datagram is None:
            return
        alias = self._aliases.table.get(datagram.alias)
        if alias is not None:
            self.context.events.append(DatagramArrived(alias.requests, datagram))
            return
        settings = self.context.settings
        full = (
            len(self._datagrams) >= settings.max_waiting_datagrams
            or self._datagram_bytes + len(data) > settings.max_waiting_datagram_bytes
        )
        if full or datagram.alias in self._aliases.retired:
            self.context.counters["datagrams_dropped"] += 1
            return
        self._datagrams.append((self.context.now, datagram, len(data)))
        self._datagram_bytes += len(data)

    def place_subgroup(self, stream: SubgroupStream) -> None:
        """Find what a subgroup stream's alias stands for, or let it wait, or end it."""
        assert stream.header is not None
        number = stream.header.alias
        alias = self._aliases.table.get(number)
        if alias is not None:
            stream.alias = alias
            alias.streams.add(stream.stream)
            alias.opened += 1
        elif number in self._aliases.retired:
            self.context.counters["late_streams_stopped"] += 1
            self.abandon(stream, ResetCode.CANCELLED)
        else:
            self._let_wait(stream)

    def place_fetch(self, stream: FetchStream) -> None:
        """Find what a fetch stream answers, or let it wait, or end it. Raises ProtocolViolation for a second one."""
        assert stream.number is not None
        target = self._fetches.get(stream.number)
        if target is None:
            self._place_unexpected(stream, stream.number)
        elif target.stream is not None:
            raise self.context.violation("a second fetch stream for one request")
        elif target.ready:
            stream.target = target
            target.stream = stream.stream
        else:
            self._let_wait(stream)

    def _place_unexpected(self, stream: FetchStream, number: int) -> None:
        """Either the request is over, or it is a PUBLISH that its own fill has overtaken."""
        is_ours = number & 1 != self.context.is_client
        if self.owner.was_used(number):
            self.context.counters["late_streams_stopped"] += 1
            self.abandon(stream, ResetCode.CANCELLED)
        elif is_ours or not self.context.rules.fills:
            raise self.context.violation("a fetch stream for no request")
        else:
            self._let_wait(stream)

    def keep(self, stream: DataStream, size: int) -> None:
        """Count bytes that a waiting stream holds; abandon it where they, or the streams, are too many."""
        settings = self.context.settings
        self._waiting[stream.stream] = stream
        stream.held_bytes += size
        self.waiting_bytes += size
        if len(self._waiting) > settings.max_waiting_streams or self.waiting_bytes > settings.max_waiting_bytes:
            self.context.counters["waiting_streams_refused"] += 1
            self.abandon(stream, ResetCode.EXCESSIVE_LOAD)

    def lose(self, stream: DataStream) -> None:
        """A stream no longer waits: its bytes count as read."""
        if self._waiting.pop(stream.stream, None) is not None:
            self.waiting_bytes -= stream.held_bytes
            self.context.transport.consumed(stream.stream, stream.held_bytes)
            stream.held_bytes = 0

    def close(self, stream: DataStream) -> None:
        """A stream has ended by itself."""
        stream.is_over = True
        self._table.drop(stream.stream)
        self._detach(stream)

    def abandon(self, stream: DataStream, code: int) -> None:
        """Stop a stream; nothing more comes of it."""
        if stream.waits:
            self.lose(stream)
        stream.is_over = True
        self._table.abandon(stream.stream, code)
        self._detach(stream)

    # --- Time ---------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When something has waited or lingered long enough."""
        moments: list[float] = []
        for until, _ in self._lingering.values():
            moments.append(until)
            break
        timeout_s = self.context.settings.waiting_timeout_s
        for stream in self._waiting.values():
            moments.append(stream.since + timeout_s)
            break
        if self._datagrams:
            moments.append(self._datagrams[0][0] + timeout_s)
        return min(moments, default=None)

    def handle_deadline(self, now: float) -> None:
        """Give up what has waited too long, and end subscriptions whose late streams had their time."""
        timeout_s = self.context.settings.waiting_timeout_s
        for stream in [waiting for waiting in self._waiting.values() if waiting.since + timeout_s <= now]:
            self.context.counters["waiting_streams_expired"] += 1
            self.abandon(stream, ResetCode.CANCELLED)
        self._datagrams = [held for held in self._datagrams if held[0] + timeout_s > now]
        self._datagram_bytes = sum(size for _, _, size in self._datagrams)
        for request, (until, count) in list(self._lingering.items()):
            if until > now:
                continue
            if self._open_streams(request):
                # State goes when the timer has run out and every open stream has closed.
                del self._lingering[request]
                self._lingering[request] = now + self.context.settings.done_linger_s, count
            else:
                self.owner.drained(request)

    # --- Accounts -----------------------------------------------------------------------------------------------------

    @property
    def waiting_streams(self) -> int:
        """Data streams that wait for a control message."""
        return len(self._waiting)

    @property
    def alias_count(self) -> int:
        """Aliases in use."""
        return len(self._aliases.table)

    @property
    def retired_alias_count(self) -> int:
        """Aliases remembered after their end."""
        return len(self._aliases.retired)

    def check_invariants(self) -> None:
        """Assert that what is counted is what is held, and in bounds."""
        settings = self.context.settings
        self._aliases.check_invariants()
        assert self.waiting_bytes == sum(stream.held_bytes for stream in self._waiting.values())
        assert self.waiting_bytes <= settings.max_waiting_bytes
        assert len(self._waiting) <= settings.max_waiting_streams
        assert all(stream.waits and not stream.is_over for stream in self._waiting.values())
        assert len(self._datagrams) <= settings.max_waiting_datagrams
        assert self._datagram_bytes == sum(size for _, _, size in self._datagrams)
        open_streams = {stream for alias in self._aliases.table.values() for stream in alias.streams}
        assert open_streams <= self._table.handlers.keys()
        numbers = [number for fills in self._fills.values() for number in fills]
        assert sorted(numbers) == sorted(self._fetches)

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _let_wait(self, stream: DataStream) -> None:
        stream.waits = True
        stream.since = self.context.now

    def _wake_fetch(self, number: int) -> None:
        for stream in list(self._waiting.values()):
            if isinstance(stream, FetchStream) and stream.number == number:
                self._release(stream)

    def _release(self, stream: DataStream) -> None:
        self.lose(stream)
        stream.resume()

    def _detach(self, stream: DataStream) -> None:
        """Tell whoever counts a stream that it is over."""
        if isinstance(stream, SubgroupStream) and stream.alias is not None:
            stream.alias.streams.discard(stream.stream)
            for request in stream.alias.requests:
                self._check_drained(request)
        elif isinstance(stream, FetchStream) and stream.target is not None:
            stream.target.over = True
            if stream.target.subscription is None:
                self.owner.fetch_over(stream.target.request)
            else:
                self._check_drained(stream.target.request)

    def _check_drained(self, request: int) -> None:
        if request in self._lingering and self._is_drained(request):
            self.owner.drained(request)

    def _is_drained(self, request: int) -> bool:
        """Whether as many streams have come and gone as PUBLISH_DONE counted. Of 0 or unknown ones time is the judge:
        datagrams may still be on their way.
        """
        count = self._lingering[request][1]
        if not count or self._open_streams(request):
            return False
        alias = self._aliases.of(request)
        fills = sum(self._fetches[number].stream is not None for number in self._fills.get(request, ()))
        return (alias.opened if alias is not None else 0) + fills >= count

    def _open_streams(self, request: int) -> int:
        alias = self._aliases.of(request)
        targets = (self._fetches[number] for number in self._fills.get(request, ()))
        fills = sum(target.stream is not None and not target.over for target in targets)
        return fills + (len(alias.streams) if alias is not None else 0)


def _awaits_alias(stream: DataStream, number: int) -> bool:
    return isinstance(stream, SubgroupStream) and stream.header is not None and stream.header.alias == number
