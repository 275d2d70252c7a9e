"""Draft 16's one control stream, shown to the session as a request stream for each request: tables both ways.

A message that opens a request opens a virtual stream; answers find it by the Request ID that they name; what later
drafts say with FIN, RESET_STREAM and STOP_SENDING draft 16 says with messages (`_ABORTS` out, `_CANCELS` in). Request
IDs come in order and under a credit, MAX_REQUEST_ID. SUBSCRIBE_NAMESPACE has a real stream (`namespaces16`).
`tradewind.moqt.session` uses `ControlWire` where later drafts have `streams.StreamWire`. Source: draft-16, "Control
Messages", "Request ID", "MAX_REQUEST_ID".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from tradewind.moqt import messages as m
from tradewind.moqt.admission import Admission
from tradewind.moqt.context import Context
from tradewind.moqt.data import DataStreams
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode, SessionCode
from tradewind.moqt.events import GoawayReceived
from tradewind.moqt.handshake import Handshake
from tradewind.moqt.namespaces16 import NamespaceStream
from tradewind.moqt.objects import stream_kind
from tradewind.moqt.parameters import Scope
from tradewind.moqt.receiving import Receiver
from tradewind.moqt.requests import NO_STREAM, TWIN, Request, Requests
from tradewind.moqt.states import FIRST, PREFIX_KINDS, Kind, Phase
from tradewind.moqt.table import UNIDIRECTIONAL, EarlyStreams, StreamTable, Untyped

_Cancel: TypeAlias = m.Unsubscribe | m.FetchCancel | m.PublishNamespaceDone | m.PublishNamespaceCancel


class ControlWire:
    """All requests of a draft-16 session."""

    __slots__ = (
        "_admission",
        "_blocked_at",
        "_context",
        "_control",
        "_data",
        "_goaway",
        "_granted",
        "_handshake",
        "_last_on_control",
        "_limit",
        "_receiver",
        "_requests",
        "_table",
        "_updates",
        "early",
    )

    def __init__(
        self,
        context: Context,
        table: StreamTable,
        requests: Requests,
        data: DataStreams,
        handshake: Handshake,
        admission: Admission,
        receiver: Receiver,
    ) -> None:
        self._context = context
        self._table = table
        self._requests = requests
        self._data = data
        self._handshake = handshake
        self._admission = admission
        self._receiver = receiver
        self.early = EarlyStreams(context, table)
        self._control: int | None = None
        self._limit = 0
        """Ids of ours must stay below it."""
        self._blocked_at = 0
        """The limit at which we last said REQUESTS_BLOCKED."""
        self._granted = 0
        """Ids of the peer's must stay below it."""
        self._last_on_control = -1
        self._updates: dict[int, Request] = {}
        """Updates of ours that wait for an answer."""
        self._goaway = False

    # --- What the session asks ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """A client sends CLIENT_SETUP; a server answers one, now or when it comes."""
        context = self._context
        if not context.is_client:
            if self._handshake.received:
                self._answer_setup()
            return
        self._control = context.transport.open_bidi()
        if self._control is None:
            raise context.violation("no stream for CLIENT_SETUP is allowed", SessionCode.INTERNAL_ERROR)
        self._table.put(self._control, _Control(self, context, self._control))
        assert self._handshake.ours is not None
        self._granted = self._handshake.ours.max_request_id
        self._write(m.ClientSetup(self._handshake.ours))

    def open(self, stream: int, data: bytes, fin: bool) -> None:
        """The first bytes of a new stream of the peer's."""
        if not stream & UNIDIRECTIONAL:
            self._open_bidi(stream, data, fin)
        elif self._context.ready:
            self._open_uni(stream, data, fin)
        else:
            self.early.hold(stream, data, fin)

    def stopped(self, stream: int) -> None:
        """Every stream that matters has a handler."""

    # --- What requests ask --------------------------------------------------------------------------------------------

    def reserve(self, kind: Kind, request: int) -> int | None:
        """Credit for one more request, and a stream where it has one of its own."""
        if not self.may_send(request):
            return None
        return self._context.transport.open_bidi() if kind in PREFIX_KINDS else NO_STREAM

    def may_send(self, request: int) -> bool:
        """Whether the peer's MAX_REQUEST_ID allows this id; says REQUESTS_BLOCKED once where not."""
        if request < self._limit:
            return True
        if self._context.ready and self._blocked_at != self._limit:
            self._blocked_at = self._limit
            self._write(m.RequestsBlocked(self._limit))
        return False

    def send(self, request: Request, message: m.Message, *, fin: bool = False, scope: Scope | None = None) -> None:
        """Send a message of this request, on the stream where draft 16 has it."""
        if isinstance(message, m.RequestUpdate):
            self._updates[message.request] = request
        elif request.stream != NO_STREAM:
            self._namespace_stream(request).send(request, message, fin=fin, scope=scope)
            return
        if request.kind is Kind.PUBLISH and isinstance(message, m.RequestOk) and message.request == request.id:
            self._write(m.PublishOk(message.parameters, message.request), scope)
        else:
            self._write(message, scope)
        if fin:
            request.we_finished = True

    def finish(self, request: Request) -> None:
        """Only a namespace subscription has a stream to end."""
        if request.stream != NO_STREAM:
            self._namespace_stream(request).finish(request)
        request.we_finished = True

    def abort(self, request: Request, code: int) -> None:
        """Say in draft 16's words that a request is over."""
        if request.stream != NO_STREAM:
            self._namespace_stream(request).abort(request, code)
        elif not request.peer_finished:
            build = _ABORTS.get((request.kind, request.ours, request.phase))
            if build is not None:
                self._write(build(request.id, code))
        request.we_finished = request.peer_finished = True

    def session_goaway(self, message: m.Goaway) -> None:
        """GOAWAY; nothing before CLIENT_SETUP has come, when there is nobody to tell."""
        if self._context.ready:
            self._write(message)

    def over(self, request: Request) -> None:
        """A request has left the table: its updates have no answer, and there may be room for one more."""
        for update in request.updates_sent:
            self._updates.pop(update, None)
        if not request.ours:
            self._grant()

    # --- What arrives -------------------------------------------------------------------------------------------------

    def message(self, message: m.Message) -> None:
        """A message on the control stream."""
        handle = _HANDLERS.get(type(message))
        if not self._handshake.received:
            self._setup(message)
        elif handle is not None:
            handle(self, message)
        elif type(message) in FIRST and not isinstance(message, m.SubscribeNamespace):
            opener: Any = message
            self.check_id(opener.request, on_control=True)
            self._admission.first(message, NO_STREAM)
            self._grant()
        else:
            raise self._context.violation(f"{type(message).__name__} on the control stream")

    def check_id(self, number: int, *, on_control: bool) -> None:
        """Raise ProtocolViolation for an id over the credit, or out of order.

        SUBSCRIBE_NAMESPACE takes its ids on streams of its own, which may overtake and be overtaken: on the control
        stream ids only have to grow.
        """
        if number >= self._granted:
            raise self._context.violation("a Request ID over MAX_REQUEST_ID", SessionCode.TOO_MANY_REQUESTS)
        if on_control:
            if number <= self._last_on_control:
                raise self._context.violation("a Request ID out of order", SessionCode.INVALID_REQUEST_ID)
            self._last_on_control = number

    def granted(self) -> None:
        """A request came on a stream of its own."""
        self._grant()

    def _setup(self, message: m.Message) -> None:
        expected = m.ServerSetup if self._context.is_client else m.ClientSetup
        if not isinstance(message, expected):
            raise self._context.violation("the control stream begins without SETUP")
        self._handshake.receive(message.options)
        self._limit = message.options.max_request_id
        if self._context.is_client:
            self._become_ready()
        elif self._handshake.ours is not None:
            self._answer_setup()

    def _max_request_id(self, message: m.MaxRequestId) -> None:
        if message.limit <= self._limit:
            raise self._context.violation("MAX_REQUEST_ID does not grow")
        self._limit = message.limit

    def _requests_blocked(self, message: m.RequestsBlocked) -> None:
        self._context.counters["requests_blocked"] += 1

    def _session_goaway(self, message: m.Goaway) -> None:
        if self._goaway:
            raise self._context.violation("a second GOAWAY")
        if message.uri and not self._context.is_client:
            raise self._context.violation("a client may not send a server elsewhere")
        self._goaway = True
        self._context.events.append(GoawayReceived(None, message.uri, message.timeout_ms))

    def _update(self, message: m.RequestUpdate) -> None:
        self.check_id(message.request, on_control=True)
        assert message.existing is not None
        table = self._requests.table
        request = table.get(message.existing) or table.get(message.existing | TWIN)
        if request is not None:
            self._receiver.message(request, message)
        else:
            self._update_nothing(message.request, message.existing)
        self._grant()

    def _update_nothing(self, update: int, existing: int) -> None:
        """The request is over, or it is a SUBSCRIBE_NAMESPACE whose own stream is late."""
        self._requests.check_peer_id(update)
        overtook = existing & 1 == update & 1 and existing < update
        if not overtook or self._receiver.was_used(existing):
            self._check_known(existing)
        else:
            self._write(m.RequestError(RequestCode.DOES_NOT_EXIST, "no such request yet", request=update))

    def _answer(self, message: m.SubscribeOk | m.FetchOk | m.RequestOk | m.RequestError) -> None:
        assert message.request is not None
        request = self._updates.pop(message.request, None)
        if request is not None:
            if request.ours and request.phase is Phase.PENDING:
                raise self._context.violation("an update answered before its request")
            self._receiver.message(request, message)
            return
        request = self._requests.table.get(message.request)
        if request is None:
            self._check_known(message.request)
            if isinstance(message, m.SubscribeOk):
                self._data.retire(message.alias, None)
            return
        wrong = isinstance(message, m.RequestOk) and request.kind is Kind.PUBLISH
        if not request.ours or request.stream != NO_STREAM or wrong:
            raise self._context.violation(f"{type(message).__name__} for a request that it does not answer")
        self._receiver.message(request, message)

    def _publish_ok(self, message: m.PublishOk) -> None:
        assert message.request is not None
        request = self._requests.table.get(message.request)
        if request is None:
            self._check_known(message.request)
            return
        if not request.ours or request.kind is not Kind.PUBLISH:
            raise self._context.violation("PUBLISH_OK for no PUBLISH")
        self._receiver.message(request, m.RequestOk(message.parameters, request=message.request))

    def _publish_done(self, message: m.PublishDone) -> None:
        assert message.request is not None
        request = self._requests.table.get(message.request)
        if request is None:
            self._check_known(message.request)
        else:
            self._receiver.message(request, message)

    def _cancel(self, message: _Cancel) -> None:
        request = self._requests.table.get(message.request)
        if request is None:
            self._check_known(message.request)
            return
        if (request.kind, request.ours) not in _CANCELS[type(message)]:
            raise self._context.violation(f"{type(message).__name__} for another kind of request")
        code: int = ResetCode.CANCELLED
        if isinstance(message, m.PublishNamespaceCancel):
            code = _FROM_REQUEST_CODE.get(message.code, ResetCode.CANCELLED)
        self._receiver.reset(request, code)

    def _check_known(self, number: int) -> None:
        """A request that is not in the table may be over, and the message late; if it never was, that is a fault."""
        if not self._receiver.was_used(number):
            raise self._context.violation("a message for a request that never was")
        self._context.counters["late_messages"] += 1

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _open_bidi(self, stream: int, data: bytes, fin: bool) -> None:
        found = self._context.profile.varint.decode(data, 0)
        if found is None and not fin:
            self._table.put(stream, Untyped(self._open_bidi, self._table, stream, data))
        elif found is not None and found[0] == self._context.profile.by_class[m.ClientSetup][0]:
            if self._context.is_client or self._control is not None:
                raise self._context.violation("a second control stream")
            self._control = stream
            control = _Control(self, self._context, stream)
            self._table.put(stream, control)
            control.receive(data, fin)
        elif self._context.ready:
            namespaces = NamespaceStream(self._context, self._table, self._admission, self._receiver, self, stream)
            self._table.put(stream, namespaces)
            namespaces.receive(data, fin)
        else:
            self.early.hold(stream, data, fin)

    def _open_uni(self, stream: int, data: bytes, fin: bool) -> None:
        kind = stream_kind(self._context.profile, data)
        if kind is not None:
            self._data.open(stream, kind, data, fin)
        elif fin:
            raise self._context.violation("a stream that ends before its type")
        else:
            self._table.put(stream, Untyped(self._open_uni, self._table, stream, data))

    def _namespace_stream(self, request: Request) -> NamespaceStream:
        handler = self._table.handlers.get(request.stream)
        if isinstance(handler, NamespaceStream):
            return handler
        handler = NamespaceStream(
            self._context, self._table, self._admission, self._receiver, self, request.stream, request
        )
        if not self._table.is_over(request.stream):
            self._table.put(request.stream, handler)
        return handler

    def _answer_setup(self) -> None:
        assert self._handshake.ours is not None
        self._granted = self._handshake.ours.max_request_id
        self._write(m.ServerSetup(self._handshake.ours))
        self._become_ready()

    def _become_ready(self) -> None:
        self._context.ready = True
        self.early.release(self.open)

    def _grant(self) -> None:
        """Raise MAX_REQUEST_ID once half of the window is used, as long as more requests may be open."""
        settings, used = self._context.settings, self._requests.next_peer_id
        if self._granted - used > settings.request_window or self._requests.counts[False] >= settings.max_requests:
            return
        self._granted = used + 2 * settings.request_window
        self._write(m.MaxRequestId(self._granted))

    def _write(self, message: m.Message, scope: Scope | None = None) -> None:
        assert self._control is not None
        self._context.transport.send(self._control, m.encode(self._context.profile, message, scope))


class _Control:
    """The bidirectional control stream, which never ends."""

    __slots__ = ("_context", "_decoder", "_stream", "_wire")

    def __init__(self, wire: ControlWire, context: Context, stream: int) -> None:
        self._wire = wire
        self._context = context
        self._stream = stream
        self._decoder = m.ControlDecoder(context.profile, context.quirks)

    def receive(self, data: bytes, fin: bool) -> None:
        """Carry out every whole message."""
        self._decoder.receive(data)
        self._context.transport.consumed(self._stream, len(data))
        while (message := self._decoder.next_message()) is not None:
            self._wire.message(message)
        if fin:
            raise self._context.violation("the control stream was closed")

    def reset(self, code: int) -> None:
        """The session cannot go on without it."""
        raise self._context.violation("the control stream was reset")

    def stopped(self, code: int) -> None:
        """The session cannot go on without it."""
        raise self._context.violation("the control stream was stopped")


_TO_REQUEST_CODE: Final[dict[int, int]] = {
    ResetCode.CANCELLED: RequestCode.UNINTERESTED,
    ResetCode.GOING_AWAY: RequestCode.GOING_AWAY,
    ResetCode.EXPIRED_AUTH_TOKEN: RequestCode.EXPIRED_AUTH_TOKEN,
    ResetCode.EXCESSIVE_LOAD: RequestCode.EXCESSIVE_LOAD,
    ResetCode.MALFORMED_TRACK: RequestCode.MALFORMED_TRACK,
}
_FROM_REQUEST_CODE: Final[dict[int, int]] = {code: reset for reset, code in _TO_REQUEST_CODE.items()}
_TO_DONE_CODE: Final[dict[int, int]] = {
    ResetCode.CANCELLED: DoneCode.SUBSCRIPTION_ENDED,
    ResetCode.GOING_AWAY: DoneCode.GOING_AWAY,
    ResetCode.TOO_FAR_BEHIND: DoneCode.TOO_FAR_BEHIND,
    ResetCode.EXPIRED_AUTH_TOKEN: DoneCode.UNAUTHORIZED,
    ResetCode.EXCESSIVE_LOAD: DoneCode.EXCESSIVE_LOAD,
    ResetCode.MALFORMED_TRACK: DoneCode.MALFORMED_TRACK,
}


def _refuse(request: int, code: int) -> m.Message:
    return m.RequestError(_TO_REQUEST_CODE.get(code, RequestCode.INTERNAL_ERROR), "cancelled", request=request)


def _publish_done(request: int, code: int) -> m.Message:
    return m.PublishDone(_TO_DONE_CODE.get(code, DoneCode.INTERNAL_ERROR), None, "cancelled", request=request)


def _revoke(request: int, code: int) -> m.Message:
    return m.PublishNamespaceCancel(request, _TO_REQUEST_CODE.get(code, RequestCode.INTERNAL_ERROR), "cancelled")


_Build: TypeAlias = Callable[[int, int], m.Message]
_OURS: Final = True
_THEIRS: Final = False

_ABORTS: Final[dict[tuple[Kind, bool, Phase], _Build]] = {
    (Kind.SUBSCRIBE, _OURS, Phase.PENDING): lambda request, _: m.Unsubscribe(request),
    (Kind.SUBSCRIBE, _OURS, Phase.ESTABLISHED): lambda request, _: m.Unsubscribe(request),
    (Kind.SUBSCRIBE, _THEIRS, Phase.PENDING): _refuse,
    (Kind.SUBSCRIBE, _THEIRS, Phase.ESTABLISHED): _publish_done,
    (Kind.PUBLISH, _OURS, Phase.PENDING): _publish_done,
    (Kind.PUBLISH, _OURS, Phase.ESTABLISHED): _publish_done,
    (Kind.PUBLISH, _THEIRS, Phase.PENDING): _refuse,
    (Kind.PUBLISH, _THEIRS, Phase.ESTABLISHED): lambda request, _: m.Unsubscribe(request),
    (Kind.FETCH, _OURS, Phase.PENDING): lambda request, _: m.FetchCancel(request),
    (Kind.FETCH, _OURS, Phase.ESTABLISHED): lambda request, _: m.FetchCancel(request),
    (Kind.FETCH, _THEIRS, Phase.PENDING): _refuse,
    (Kind.TRACK_STATUS, _THEIRS, Phase.PENDING): _refuse,
    (Kind.PUBLISH_NAMESPACE, _OURS, Phase.PENDING): lambda request, _: m.PublishNamespaceDone(request),
    (Kind.PUBLISH_NAMESPACE, _OURS, Phase.ESTABLISHED): lambda request, _: m.PublishNamespaceDone(request),
    (Kind.PUBLISH_NAMESPACE, _THEIRS, Phase.PENDING): _refuse,
    (Kind.PUBLISH_NAMESPACE, _THEIRS, Phase.ESTABLISHED): _revoke,
}
"""How we end a request abruptly. What is missing has no words: the data stream says it, or nobody asks."""

_CANCELS: Final[dict[type[m.Message], frozenset[tuple[Kind, bool]]]] = {
    m.Unsubscribe: frozenset({(Kind.SUBSCRIBE, _THEIRS), (Kind.PUBLISH, _OURS)}),
    m.FetchCancel: frozenset({(Kind.FETCH, _THEIRS)}),
    m.PublishNamespaceDone: frozenset({(Kind.PUBLISH_NAMESPACE, _THEIRS)}),
    m.PublishNamespaceCancel: frozenset({(Kind.PUBLISH_NAMESPACE, _OURS)}),
}
"""What the peer's words for it may end."""

_HANDLERS: Final[dict[type[m.Message], Callable[[ControlWire, Any], None]]] = {
    m.MaxRequestId: ControlWire._max_request_id,
    m.RequestsBlocked: ControlWire._requests_blocked,
    m.Goaway: ControlWire._session_goaway,
    m.RequestUpdate: ControlWire._update,
    m.SubscribeOk: ControlWire._answer,
    m.FetchOk: ControlWire._answer,
    m.RequestOk: ControlWire._answer,
    m.RequestError: ControlWire._answer,
    m.PublishOk: ControlWire._publish_ok,
    m.PublishDone: ControlWire._publish_done,
    m.Unsubscribe: ControlWire._cancel,
    m.FetchCancel: ControlWire._cancel,
    m.PublishNamespaceDone: ControlWire._cancel,
    m.PublishNamespaceCancel: ControlWire._cancel,
}
