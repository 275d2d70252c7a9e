"""One MoQT session: bytes of streams and datagrams in, events out; the owner's requests and answers in, bytes out.

`relay.node` and `tradewind.client` own one for each connection, as server or client, publisher or subscriber or both.
Pure: no I/O, no clock; `now` is monotonic seconds. Drafts 16, 18, 20, 21 and 22 look the same from here, in the words
of draft 20. Objects come in through the session and go out past it (`tradewind.moqt.objects` encodes them).

Inside: `states` says who may send what, `admission` and `receiving` carry it out, `sending` does what the owner asks,
`data` reads data streams and datagrams, and a wire (`streams`, or `adapter16` for draft 16) carries requests.
Source: draft-ietf-moq-transport-20.
"""

from __future__ import annotations

from dataclasses import dataclass

from tradewind.moqt.adapter16 import ControlWire
from tradewind.moqt.admission import Admission
from tradewind.moqt.context import Context, Transport
from tradewind.moqt.data import DataStreams
from tradewind.moqt.errors import MisuseError, ProtocolViolation, ResetCode, SessionCode
from tradewind.moqt.events import Event, Redirect
from tradewind.moqt.handshake import Handshake
from tradewind.moqt.model import (
    NO_PARAMETERS,
    FullTrackName,
    Location,
    LocationFilter,
    Namespace,
    Parameters,
    Properties,
)
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.profiles import Profile
from tradewind.moqt.receiving import Receiver
from tradewind.moqt.requests import Requests
from tradewind.moqt.sending import Sender
from tradewind.moqt.settings import QuirkSet, SessionSettings
from tradewind.moqt.streams import StreamWire
from tradewind.moqt.table import StreamTable
from tradewind.moqt.tokens import TokenCache

__all__ = ["QuirkSet", "Session", "SessionSettings", "SessionStatistics", "Transport"]


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """What one session holds and has done; counts unless the name says otherwise."""

    requests_ours: int
    requests_theirs: int
    streams: int
    early_streams: int
    early_bytes: int
    waiting_streams: int
    waiting_bytes: int
    token_cache_bytes: int
    aliases: int
    retired_aliases: int
    counters: tuple[tuple[str, int], ...]
    """Totals since the session began, by name."""
    quirks: tuple[tuple[str, int], ...]
    """How often each lenience was needed."""


class Session:
    """One side of a session. Nothing the peer does raises: the session closes, and the last event says why.

    Request methods return the request's number, or None where the peer's stream limit (draft 16: MAX_REQUEST_ID)
    leaves no room now; what to do then is the caller's business. Calls about a request that is over do nothing, since
    the peer may have ended it in the same turn; calls that its kind or state does not allow raise MisuseError.
    """

    __slots__ = (
        "_admission",
        "_context",
        "_data",
        "_goaway_sent",
        "_handshake",
        "_receiver",
        "_requests",
        "_sender",
        "_setup_deadline",
        "_table",
        "_tokens",
        "_wire",
    )

    def __init__(
        self,
        transport: Transport,
        profile: Profile,
        *,
        is_client: bool,
        webtransport: bool,
        settings: SessionSettings | None = None,
        quirks: QuirkSet | None = None,
    ) -> None:
        settings = settings or SessionSettings()
        self._context = Context(
            transport,
            profile,
            is_client=is_client,
            webtransport=webtransport,
            settings=settings,
            quirks=quirks or QuirkSet(),
        )
        self._table = StreamTable(self._context)
        self._tokens = TokenCache(settings.max_token_cache_bytes, settings.max_tokens)
        self._handshake = Handshake(self._context, self._tokens)
        self._data = DataStreams(self._context, self._table)
        self._requests = Requests(self._context, self._data, self._tokens)
        self._admission = Admission(self._requests)
        self._receiver = Receiver(self._requests, self._admission)
        self._sender = Sender(self._requests)
        wire = StreamWire if profile.request_streams else ControlWire
        self._wire: StreamWire | ControlWire = wire(
            self._context, self._table, self._requests, self._data, self._handshake, self._admission, self._receiver
        )
        self._requests.wire = self._wire
        self._data.owner = self._receiver
        self._setup_deadline: float | None = None
        self._goaway_sent = False

    @property
    def profile(self) -> Profile:
        """The draft that is spoken."""
        return self._context.profile

    @property
    def peer(self) -> SetupOptions:
        """What the peer's SETUP said, with the options of extensions; before it came, what silence means."""
        return self._context.peer

    @property
    def is_ready(self) -> bool:
        """Both SETUPs are through."""
        return self._context.ready

    @property
    def is_closed(self) -> bool:
        """The session has closed its connection, or was told to."""
        return self._context.closed

    # --- What arrives -------------------------------------------------------------------------------------------------

    def start(self, setup: SetupOptions, now: float | None = None) -> None:
        """Send our SETUP (as a draft-16 server: once the client's has come). The limits of the settings are added.

        `now` starts the setup timeout; without it the first thing that arrives does.
        """
        if self._handshake.ours is not None:
            raise MisuseError("a session starts once")
        if self._context.closed:
            return
        if now is not None:
            self._begin(now)
        self._handshake.prepare(setup)
        try:
            self._wire.start()
        except ProtocolViolation as violation:
            self._context.fail(violation)

    def receive_stream(self, stream: int, data: bytes, fin: bool, now: float) -> list[Event]:
        """Bytes in order on a stream, and whether it ends behind them. Receive credit is given back as they are read;
        streams that wait for a control message keep theirs.
        """
        context = self._context
        if context.closed:
            return []
        context.now = now
        if self._setup_deadline is None:
            self._begin(now)
        try:
            handler = self._table.handlers.get(stream)
            if handler is not None:
                handler.receive(data, fin)
            elif self._table.is_over(stream):
                context.transport.consumed(stream, len(data))
            else:
                self._wire.open(stream, data, fin)
        except ProtocolViolation as violation:
            context.fail(violation)
        return self._take_events()

    def receive_reset(self, stream: int, code: int, now: float) -> list[Event]:
        """RESET_STREAM: the peer abandoned its side of a stream with `code`, as the draft on the wire numbers it."""
        context = self._context
        if context.closed:
            return []
        context.now = now
        try:
            handler = self._table.handlers.get(stream)
            if handler is not None:
                handler.reset(context.profile.codes.reset_from_wire(code))
            elif not self._table.is_over(stream):
                self._table.give_up(stream, ResetCode.CANCELLED)
        except ProtocolViolation as violation:
            context.fail(violation)
        return self._take_events()

    def receive_stopped(self, stream: int, code: int, now: float) -> list[Event]:
        """STOP_SENDING: the peer abandoned our side of a control or request stream. Others are the egress's."""
        context = self._context
        if context.closed:
            return []
        context.now = now
        try:
            handler = self._table.handlers.get(stream)
            if handler is not None:
                handler.stopped(context.profile.codes.reset_from_wire(code))
            else:
                self._wire.stopped(stream)
        except ProtocolViolation as violation:
            context.fail(violation)
        return self._take_events()

    def receive_datagram(self, data: bytes, now: float) -> list[Event]:
        """One datagram."""
        context = self._context
        if context.closed:
            return []
        context.now = now
        try:
            self._data.datagram(data)
        except ProtocolViolation as violation:
            context.fail(violation)
        return self._take_events()

    def next_deadline(self) -> float | None:
        """When `handle_deadline` has something to do: at once while events wait that a call of the owner caused."""
        context = self._context
        if context.events:
            return context.now
        if context.closed:
            return None
        deadlines = [self._data.next_deadline(), self._admission.parked_deadline()]
        if not context.ready:
            deadlines.append(self._setup_deadline)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_deadline(self, now: float) -> list[Event]:
        """Do what is due at `now`."""
        context = self._context
        if context.closed:
            return self._take_events()
        context.now = now
        try:
            if not context.ready and self._setup_deadline is not None and now >= self._setup_deadline:
                raise context.violation("no SETUP in time", SessionCode.CONTROL_MESSAGE_TIMEOUT)
            self._data.handle_deadline(now)
            self._admission.expire_parked(now)
        except ProtocolViolation as violation:
            context.fail(violation)
        return self._take_events()

    # --- Requests of ours ---------------------------------------------------------------------------------------------

    def subscribe(self, track: FullTrackName, parameters: Parameters = NO_PARAMETERS) -> int | None:
        """SUBSCRIBE to a track; answered with SubscribeAccepted or RequestRefused."""
        return self._sender.subscribe(track, parameters) if self._is_open() else None

    def publish(
        self,
        track: FullTrackName,
        alias: int,
        parameters: Parameters = NO_PARAMETERS,
        properties: Properties = (),
    ) -> int | None:
        """PUBLISH a track under `alias`, which must stand for nothing else; objects may be sent at once."""
        return self._sender.publish(track, alias, parameters, properties) if self._is_open() else None

    def fetch(
        self,
        track: FullTrackName,
        filter: LocationFilter,
        parameters: Parameters = NO_PARAMETERS,
        joining: int | None = None,
        joining_groups: int | None = None,
        joining_start: int | None = None,
    ) -> int | None:
        """FETCH a range; FetchOpened and its objects may come before FetchAccepted or RequestRefused.

        `joining`, on drafts up to 18, is a SUBSCRIBE of ours whose Largest ends the range in place of `filter`; then
        the range begins `joining_groups` before it, or at group `joining_start`.
        """
        if not self._is_open():
            return None
        return self._sender.fetch(track, filter, parameters, joining, joining_groups, joining_start)

    def track_status(self, track: FullTrackName, parameters: Parameters = NO_PARAMETERS) -> int | None:
        """TRACK_STATUS; answered with RequestAccepted or RequestRefused."""
        return self._sender.track_status(track, parameters) if self._is_open() else None

    def publish_namespace(self, namespace: Namespace, parameters: Parameters = NO_PARAMETERS) -> int | None:
        """PUBLISH_NAMESPACE, until `cancel` withdraws it."""
        return self._sender.publish_namespace(namespace, parameters) if self._is_open() else None

    def readvertise(self, request: int, parameters: Parameters) -> None:
        """Between relays: a PUBLISH_NAMESPACE of ours again, with another way in its `parameters`."""
        if self._is_open():
            self._sender.readvertise(request, parameters)

    def subscribe_namespace(self, prefix: Namespace, parameters: Parameters = NO_PARAMETERS) -> int | None:
        """SUBSCRIBE_NAMESPACE: NamespaceFound and NamespaceGone follow RequestAccepted."""
        return self._sender.subscribe_namespace(prefix, parameters) if self._is_open() else None

    def subscribe_tracks(self, prefix: Namespace, parameters: Parameters = NO_PARAMETERS) -> int | None:
        """SUBSCRIBE_TRACKS: PublishRequested and PublishSkipped follow RequestAccepted."""
        return self._sender.subscribe_tracks(prefix, parameters) if self._is_open() else None

    def update(self, request: int, parameters: Parameters) -> int | None:
        """REQUEST_UPDATE of a request of ours, or of an accepted PUBLISH of the peer's.

        Returns the update's number, which UpdateAccepted or UpdateRefused names, and FetchOpened if it asks for a
        fill. None also where the request is over, or as many updates are unanswered as the peer allows.
        """
        return self._sender.update(request, parameters) if self._is_open() else None

    def cancel(self, request: int, code: int = ResetCode.CANCELLED) -> None:
        """End a request, ours or the peer's, at once and without an event; open data streams of ours are stopped."""
        if self._is_open():
            self._sender.cancel(request, code)

    # --- Answers ------------------------------------------------------------------------------------------------------

    def accept_subscribe(
        self,
        request: int,
        alias: int,
        parameters: Parameters = NO_PARAMETERS,
        properties: Properties = (),
    ) -> None:
        """SUBSCRIBE_OK: objects will come under `alias`."""
        if self._is_open():
            self._sender.accept_subscribe(request, alias, parameters, properties)

    def accept_fetch(
        self,
        request: int,
        end: Location,
        end_of_track: bool,
        parameters: Parameters = NO_PARAMETERS,
        properties: Properties = (),
    ) -> None:
        """FETCH_OK: the answer reaches `end`, inclusive. Call `finish` once its data stream is ended."""
        if self._is_open():
            self._sender.accept_fetch(request, end, end_of_track, parameters, properties)

    def accept(self, request: int, parameters: Parameters = NO_PARAMETERS, properties: Properties = ()) -> None:
        """REQUEST_OK for a PUBLISH, TRACK_STATUS or namespace request; `properties` only go with TRACK_STATUS."""
        if self._is_open():
            self._sender.accept(request, parameters, properties)

    def reject(
        self, request: int, code: int, reason: str, retry_ms: int | None = None, redirect: Redirect | None = None
    ) -> None:
        """REQUEST_ERROR; `retry_ms` None: it is not worth asking again."""
        if self._is_open():
            self._sender.reject(request, code, reason, retry_ms, redirect)

    def accept_update(self, request: int, update: int, parameters: Parameters = NO_PARAMETERS) -> None:
        """REQUEST_OK for an update; a new prefix counts from here on."""
        if self._is_open():
            self._sender.accept_update(request, update, parameters)

    def reject_update(self, request: int, update: int, code: int, reason: str) -> None:
        """REQUEST_ERROR for an update. A namespace request or FETCH is over with it; the publisher of a subscription
        must follow with `publish_done(request, DoneCode.UPDATE_FAILED, ...)`.
        """
        if self._is_open():
            self._sender.reject_update(request, update, code, reason)

    def publish_done(self, request: int, status: int, stream_count: int | None, reason: str = "") -> None:
        """PUBLISH_DONE: all streams of a subscription that we publish are closed; None: nobody counted them."""
        if self._is_open():
            self._sender.publish_done(request, status, stream_count, reason)

    def finish(self, request: int) -> None:
        """The data stream that answers a FETCH of the peer's is ended or reset: the request is over."""
        if self._is_open():
            self._sender.finish(request)

    def notify_namespace(self, request: int, namespace: Namespace) -> None:
        """NAMESPACE for an accepted SUBSCRIBE_NAMESPACE; `namespace` is whole."""
        if self._is_open():
            self._sender.notify_namespace(request, namespace)

    def withdraw_namespace(self, request: int, namespace: Namespace) -> None:
        """NAMESPACE_DONE for one that was notified."""
        if self._is_open():
            self._sender.withdraw_namespace(request, namespace)

    def skip_publish(self, request: int, track: FullTrackName) -> None:
        """PUBLISH_SKIPPED for an accepted SUBSCRIBE_TRACKS; nothing on drafts that lack it."""
        if self._is_open():
            self._sender.skip_publish(request, track)

    def notify_state(self, request: int, parameters: Parameters) -> None:
        """PUBLISH_STATE_NOTIFY of a subscription that we publish; nothing on drafts that lack it."""
        if self._is_open():
            self._sender.notify_state(request, parameters)

    # --- The session, and streams of the peer's -----------------------------------------------------------------------

    def goaway(self, uri: str = "", timeout_ms: int = 0) -> None:
        """GOAWAY for the whole session, once; a client's `uri` is empty. Draft 18 refuses later requests by itself."""
        if self._is_open() and not self._goaway_sent:
            self._sender.goaway(uri, timeout_ms)
            self._goaway_sent = True

    def goaway_request(self, request: int, uri: str = "", timeout_ms: int = 0) -> None:
        """GOAWAY for one request, once; nothing on draft 16."""
        if self._is_open():
            self._sender.goaway_request(request, uri, timeout_ms)

    def stop_stream(self, stream: int, code: int = ResetCode.CANCELLED) -> None:
        """STOP_SENDING on a data stream that was opened in an event: nothing more comes of it, and no closing event."""
        if not self._context.closed:
            self._data.stop(stream, code)

    def close(self, code: int = SessionCode.NO_ERROR, reason: str = "") -> None:
        """Close the connection; no event follows."""
        self._context.close(code, reason)

    def statistics(self) -> SessionStatistics:
        """What the session holds and has done."""
        context, data, early = self._context, self._data, self._wire.early
        return SessionStatistics(
            requests_ours=self._requests.counts[True],
            requests_theirs=self._requests.counts[False],
            streams=len(self._table.handlers),
            early_streams=len(early),
            early_bytes=early.size_bytes,
            waiting_streams=data.waiting_streams,
            waiting_bytes=data.waiting_bytes,
            token_cache_bytes=self._tokens.size_bytes,
            aliases=data.alias_count,
            retired_aliases=data.retired_alias_count,
            counters=tuple(sorted(context.counters.items())),
            quirks=tuple(sorted(context.quirks.uses.items())),
        )

    def check_invariants(self) -> None:
        """Assert what must hold between any two calls."""
        self._table.check_invariants()
        self._wire.early.check_invariants()
        self._data.check_invariants()
        self._requests.check_invariants()

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        self._context.now = now
        self._setup_deadline = now + self._context.settings.setup_timeout_s

    def _is_open(self) -> bool:
        if self._handshake.ours is None:
            raise MisuseError("the session has not started")
        return not self._context.closed

    def _take_events(self) -> list[Event]:
        context = self._context
        events = context.events
        if events:
            context.events = []
        return events
