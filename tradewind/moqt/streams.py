"""Control and request streams of drafts from 17 on: messages in, messages out, FIN, RESET_STREAM and STOP_SENDING.

`Router` says what a new stream of the peer's is for, `StreamWire` carries the requests. Draft 16 has
`tradewind.moqt.adapter16` instead of both. Sources: draft-20, "Session initialization", "Unidirectional Stream
Types", "Graceful Request Stream Closure", "Request Cancellation and Rejection".
"""

from __future__ import annotations

from tradewind.moqt import messages as m
from tradewind.moqt.admission import Admission
from tradewind.moqt.context import Context
from tradewind.moqt.data import DataStreams
from tradewind.moqt.errors import ResetCode, SessionCode
from tradewind.moqt.events import GoawayReceived
from tradewind.moqt.handshake import Handshake
from tradewind.moqt.objects import StreamKind, stream_kind
from tradewind.moqt.parameters import Scope
from tradewind.moqt.receiving import Receiver
from tradewind.moqt.requests import Request, Requests
from tradewind.moqt.states import Kind
from tradewind.moqt.table import UNIDIRECTIONAL, Discard, EarlyStreams, StreamTable, Untyped


class StreamWire:
    """Requests on bidirectional streams of their own, and a unidirectional control stream each way."""

    __slots__ = ("_context", "_control", "_handshake", "_requests", "_router", "_table")

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
        self._handshake = handshake
        self._control: int | None = None
        self._router = Router(self, context, table, data, admission, receiver, requests)

    # --- What the session asks ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send our SETUP; take what waited for it. Raises ProtocolViolation for what that holds."""
        context = self._context
        self._control = context.transport.open_uni()
        if self._control is None:
            raise context.violation("no unidirectional stream for SETUP is allowed", SessionCode.INTERNAL_ERROR)
        assert self._handshake.ours is not None
        self._write(self._control, m.Setup(self._handshake.ours))
        self._become_ready()

    def open(self, stream: int, data: bytes, fin: bool) -> None:
        """The first bytes of a new stream of the peer's."""
        self._router.open(stream, data, fin)

    def stopped(self, stream: int) -> None:
        """STOP_SENDING on a stream that has no handler: only our control stream matters."""
        if stream == self._control:
            raise self._context.violation("the control stream was stopped")

    @property
    def early(self) -> EarlyStreams:
        """Streams that wait for SETUP."""
        return self._router.early

    # --- What requests ask --------------------------------------------------------------------------------------------

    def reserve(self, kind: Kind, request: int) -> int | None:
        """A new bidirectional stream, where the peer's limit allows one."""
        return self._context.transport.open_bidi()

    def may_send(self, request: int) -> bool:
        """Only streams are limited."""
        return True

    def send(self, request: Request, message: m.Message, *, fin: bool = False, scope: Scope | None = None) -> None:
        """Send a message on the request's stream."""
        stream = request.stream
        if request.ours and stream not in self._table.handlers and not self._table.is_over(stream):
            self._router.adopt(stream, request)
        if request.we_finished:
            return
        self._write(stream, message, fin, scope)
        if fin:
            self._close(request)

    def finish(self, request: Request) -> None:
        """FIN."""
        self._context.transport.send(request.stream, b"", True)
        self._close(request)

    def abort(self, request: Request, code: int) -> None:
        """RESET_STREAM and STOP_SENDING where a direction is still open."""
        context = self._context
        code = context.to_wire(code)
        if not request.we_finished:
            request.we_finished = True
            context.transport.reset(request.stream, code)
        if not request.peer_finished:
            request.peer_finished = True
            context.transport.stop(request.stream, code)
        if request.stream in self._table.handlers:
            self._table.drop(request.stream)

    def session_goaway(self, message: m.Goaway) -> None:
        """GOAWAY on the control stream."""
        assert self._control is not None
        self._write(self._control, message)

    def over(self, request: Request) -> None:
        """Streams end by themselves."""

    # --- Inside -------------------------------------------------------------------------------------------------------

    def setup(self, options_of: m.Message) -> None:
        """The first message on the peer's control stream."""
        if not isinstance(options_of, m.Setup):
            raise self._context.violation("the control stream begins without SETUP")
        self._handshake.receive(options_of.options)
        self._become_ready()

    def goaway(self, message: m.Goaway) -> None:
        """GOAWAY on the peer's control stream, for the first time."""
        context = self._context
        if message.uri and not context.is_client:
            raise context.violation("a client may not send a server elsewhere")
        first = message.first_unprocessed
        if context.rules.goaway_first_unprocessed and first is not None and first & 1 == context.is_client:
            raise context.violation("GOAWAY names a request of its sender", SessionCode.INVALID_REQUEST_ID)
        context.events.append(GoawayReceived(None, message.uri, message.timeout_ms))

    def _become_ready(self) -> None:
        if self._control is not None and self._handshake.received and not self._context.ready:
            self._context.ready = True
            self._router.early.release(self._router.open)

    def _write(self, stream: int, message: m.Message, fin: bool = False, scope: Scope | None = None) -> None:
        self._context.transport.send(stream, m.encode(self._context.profile, message, scope), fin)

    def _close(self, request: Request) -> None:
        request.we_finished = True
        if request.peer_finished and request.stream in self._table.handlers:
            self._table.drop(request.stream)


class Router:
    """What a new stream of the peer's is for, by its first bytes."""

    __slots__ = ("_admission", "_context", "_data", "_receiver", "_requests", "_table", "_wire", "control", "early")

    def __init__(
        self,
        wire: StreamWire,
        context: Context,
        table: StreamTable,
        data: DataStreams,
        admission: Admission,
        receiver: Receiver,
        requests: Requests,
    ) -> None:
        self._wire = wire
        self._context = context
        self._table = table
        self._data = data
        self._admission = admission
        self._receiver = receiver
        self._requests = requests
        self.early = EarlyStreams(context, table)
        self.control = False
        """The peer's control stream has begun."""

    def open(self, stream: int, data: bytes, fin: bool) -> None:
        """Give a new stream its handler and the handler these bytes."""
        if stream & UNIDIRECTIONAL:
            self.open_uni(stream, data, fin)
        elif self._context.ready:
            request_stream = RequestStream(self._context, self._table, self._admission, self._receiver, stream)
            self._table.put(stream, request_stream)
            request_stream.receive(data, fin)
        else:
            self.early.hold(stream, data, fin)

    def open_uni(self, stream: int, data: bytes, fin: bool) -> None:
        """Read a unidirectional stream's type, as soon as it is whole."""
        kind = stream_kind(self._context.profile, data)
        if kind is None:
            if fin:
                raise self._context.violation("a stream that ends before its type")
            self._table.put(stream, Untyped(self.open_uni, self._table, stream, data))
        elif kind is StreamKind.SETUP:
            self._open_control(stream, data, fin)
        elif kind is StreamKind.PADDING:
            discard = Discard(self._context, self._table, stream)
            self._table.put(stream, discard)
            discard.receive(data, fin)
        elif self._context.ready:
            self._data.open(stream, kind, data, fin)
        else:
            self.early.hold(stream, data, fin)

    def _open_control(self, stream: int, data: bytes, fin: bool) -> None:
        if self.control:
            raise self._context.violation("a second control stream")
        self.control = True
        control = ControlStream(self._wire, self._context, stream)
        self._table.put(stream, control)
        control.receive(data, fin)

    def adopt(self, stream: int, request: Request) -> None:
        """A request of ours opens this stream."""
        handler = RequestStream(self._context, self._table, self._admission, self._receiver, stream)
        handler.request = request
        self._table.put(stream, handler)


class ControlStream:
    """The peer's control stream: SETUP, then at most one GOAWAY, and never an end."""

    __slots__ = ("_context", "_decoder", "_goaway", "_setup", "_stream", "_wire")

    def __init__(self, wire: StreamWire, context: Context, stream: int) -> None:
        self._wire = wire
        self._context = context
        self._stream = stream
        self._decoder = m.ControlDecoder(context.profile, context.quirks)
        self._setup = False
        self._goaway = False

    def receive(self, data: bytes, fin: bool) -> None:
        """Carry out every whole message."""
        self._decoder.receive(data)
        self._context.transport.consumed(self._stream, len(data))
        while (message := self._decoder.next_message()) is not None:
            self._message(message)
        if fin:
            raise self._context.violation("the control stream was closed")

    def reset(self, code: int) -> None:
        """The session cannot go on without it."""
        raise self._context.violation("the control stream was reset")

    def stopped(self, code: int) -> None:
        """We send nothing on it."""

    def _message(self, message: m.Message) -> None:
        if not self._setup:
            self._setup = True
            self._wire.setup(message)
        elif isinstance(message, m.Goaway) and not self._goaway:
            self._goaway = True
            self._wire.goaway(message)
        else:
            raise self._context.violation(f"{type(message).__name__} on the control stream")


class RequestStream:
    """One bidirectional stream: the request that its first message opens, and what follows."""

    __slots__ = ("_admission", "_context", "_decoder", "_receiver", "_stream", "_table", "request")

    def __init__(
        self, context: Context, table: StreamTable, admission: Admission, receiver: Receiver, stream: int
    ) -> None:
        self._context = context
        self._table = table
        self._admission = admission
        self._receiver = receiver
        self._stream = stream
        self._decoder = m.ControlDecoder(context.profile, context.quirks)
        self.request: Request | None = None

    def receive(self, data: bytes, fin: bool) -> None:
        """Carry out every whole message, until one ends the stream."""
        self._context.transport.consumed(self._stream, len(data))
        self._decoder.receive(data)
        while (message := self._decoder.next_message()) is not None:
            if self.request is None:
                self.request = self._admission.first(message, self._stream)
            else:
                self._receiver.message(self.request, message)
            if self._stream not in self._table.handlers:
                return
        if fin:
            self._decoder.finish()
            self._finished()

    def reset(self, code: int) -> None:
        """The peer gave the request up, or its half of a request that is over."""
        if self.request is None:
            self._table.give_up(self._stream, ResetCode.CANCELLED)
            return
        self._receiver.reset(self.request, code)
        if self.request.we_finished:
            self._over()

    def stopped(self, code: int) -> None:
        """The peer wants no more of what we send."""
        if self.request is None:
            self._table.give_up(self._stream, ResetCode.CANCELLED)
            return
        self._receiver.stopped(self.request, code)
        if self.request.peer_finished:
            self._over()

    def _finished(self) -> None:
        if self.request is None:
            raise self._context.violation("a request stream without a request")
        self._receiver.finished(self.request)
        if self.request.we_finished:
            self._over()

    def _over(self) -> None:
        if self._stream in self._table.handlers:
            self._table.drop(self._stream)
