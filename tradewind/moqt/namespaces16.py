"""Draft 16's SUBSCRIBE_NAMESPACE streams: one wire request that may ask for namespaces, for tracks, or for both.

The session knows two requests, SUBSCRIBE_NAMESPACE and SUBSCRIBE_TRACKS. Where one wire request asks for both, they
are two halves of it: the second has the first's number with TWIN set. The wire says REQUEST_OK as soon as a half is
accepted and REQUEST_ERROR once none is left to accept. `tradewind.moqt.adapter16` opens these streams. Source:
draft-16, "SUBSCRIBE_NAMESPACE".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tradewind.moqt import messages as m
from tradewind.moqt.admission import Admission
from tradewind.moqt.context import Context
from tradewind.moqt.errors import ResetCode
from tradewind.moqt.model import TokenUse
from tradewind.moqt.parameters import RawParameters, RawToken, Scope
from tradewind.moqt.receiving import Receiver
from tradewind.moqt.requests import TWIN, Request
from tradewind.moqt.states import Kind, Phase
from tradewind.moqt.table import StreamTable

if TYPE_CHECKING:
    from tradewind.moqt.adapter16 import ControlWire

_TRACKS, _NAMESPACES, _BOTH = 0, 1, 2
_OPTIONS: Final = {Kind.SUBSCRIBE_TRACKS: _TRACKS, Kind.SUBSCRIBE_NAMESPACE: _NAMESPACES}


class NamespaceStream:
    """One bidirectional stream with a SUBSCRIBE_NAMESPACE, ours or the peer's."""

    __slots__ = (
        "_admission",
        "_answered",
        "_context",
        "_decoder",
        "_halves",
        "_peer_finished",
        "_receiver",
        "_stream",
        "_table",
        "_we_finished",
        "_wire",
    )

    def __init__(
        self,
        context: Context,
        table: StreamTable,
        admission: Admission,
        receiver: Receiver,
        wire: ControlWire,
        stream: int,
        request: Request | None = None,
    ) -> None:
        self._context = context
        self._table = table
        self._admission = admission
        self._receiver = receiver
        self._wire = wire
        self._stream = stream
        self._decoder = m.ControlDecoder(context.profile, context.quirks)
        self._halves: list[Request] = [] if request is None else [request]
        self._answered = False
        self._we_finished = False
        self._peer_finished = False

    # --- What arrives -------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, fin: bool) -> None:
        """Carry out every whole message."""
        self._context.transport.consumed(self._stream, len(data))
        self._decoder.receive(data)
        while (message := self._decoder.next_message()) is not None:
            self._message(message)
            if self._stream not in self._table.handlers:
                return
        if fin:
            self._decoder.finish()
            self._finished()

    def reset(self, code: int) -> None:
        """The peer gave it up."""
        self._peer_finished = True
        for half in self._halves:
            self._receiver.reset(half, code)
        self._give_up()

    def stopped(self, code: int) -> None:
        """The peer wants no more of what we send."""
        self._we_finished = True
        for half in self._halves:
            self._receiver.stopped(half, code)
        self._give_up()

    def _message(self, message: m.Message) -> None:
        if not self._halves:
            self._first(message)
            return
        if not self._halves[0].ours:
            raise self._context.violation(f"{type(message).__name__} after SUBSCRIBE_NAMESPACE")
        if isinstance(message, (m.RequestOk, m.RequestError)) and message.request != self._halves[0].id:
            raise self._context.violation("an answer for another request")
        self._receiver.message(self._halves[0], message)

    def _first(self, message: m.Message) -> None:
        if not isinstance(message, m.SubscribeNamespace):
            raise self._context.violation("a stream that begins with another message than SUBSCRIBE_NAMESPACE")
        self._wire.check_id(message.request, on_control=False)
        tracks = m.SubscribeTracks(message.request, message.prefix, message.parameters)
        opener = tracks if message.options == _TRACKS else message
        # The answer may be sent while the request is opened, and finds its way here by the table.
        first = self._admission.first(opener, self._stream)
        if not self._halves:
            self._halves.append(first)
        if message.options == _BOTH and first.phase is Phase.PENDING:
            twin = Request(message.request | TWIN, Kind.SUBSCRIBE_TRACKS, ours=False, stream=self._stream)
            self._halves.append(twin)
            self._admission.open(twin, replace(tracks, request=twin.id, parameters=_again(message.parameters)))
        self._wire.granted()

    def _finished(self) -> None:
        if not self._halves:
            raise self._context.violation("a stream without its SUBSCRIBE_NAMESPACE")
        self._peer_finished = True
        for half in self._halves:
            self._receiver.finished(half)
        self._drop_if_over()

    # --- What requests ask --------------------------------------------------------------------------------------------

    def send(self, request: Request, message: m.Message, *, fin: bool, scope: Scope | None) -> None:
        """Send a message of one half."""
        if request not in self._halves:
            self._halves.append(request)
        if isinstance(message, m.RequestOk):
            if not self._answered:
                self._write(replace(message, request=self._number), scope=scope)
            self._answered = True
        elif isinstance(message, m.RequestError):
            request.we_finished = True
            self._refuse(replace(message, request=self._number))
        else:
            self._write(_translated(message), scope=scope)

    def finish(self, request: Request) -> None:
        """One half has no more to say."""
        request.we_finished = True
        if not self._has_others(request):
            self._end()

    def abort(self, request: Request, code: int) -> None:
        """End one half; with the last, the stream."""
        if self._has_others(request):
            return
        code = self._context.to_wire(code)
        if not self._we_finished:
            self._we_finished = True
            self._context.transport.reset(self._stream, code)
        if not self._peer_finished:
            self._peer_finished = True
            self._context.transport.stop(self._stream, code)
        self._drop_if_over()

    # --- Inside -------------------------------------------------------------------------------------------------------

    @property
    def _number(self) -> int:
        return self._halves[0].id & ~TWIN

    def _has_others(self, request: Request) -> bool:
        return any(half is not request and half.phase in _ALIVE and not half.we_finished for half in self._halves)

    def _refuse(self, error: m.RequestError) -> None:
        if any(half.phase in _ALIVE and not half.we_finished for half in self._halves):
            return
        if self._answered:
            self._end()
        else:
            self._answered = True
            self._write(error, fin=True)

    def _write(self, message: m.Message, *, fin: bool = False, scope: Scope | None = None) -> None:
        if self._we_finished:
            return
        self._context.transport.send(self._stream, m.encode(self._context.profile, message, scope), fin)
        if fin:
            self._we_finished = True
            self._drop_if_over()

    def _end(self) -> None:
        if not self._we_finished:
            self._we_finished = True
            self._context.transport.send(self._stream, b"", True)
            self._drop_if_over()

    def _drop_if_over(self) -> None:
        if self._we_finished and self._peer_finished and self._stream in self._table.handlers:
            self._table.drop(self._stream)

    def _give_up(self) -> None:
        if self._stream in self._table.handlers:
            self._table.give_up(self._stream, ResetCode.CANCELLED)


_ALIVE: Final = frozenset({Phase.PENDING, Phase.ESTABLISHED})


def _translated(message: m.Message) -> m.Message:
    """Both openers are one message on the wire."""
    if isinstance(message, m.SubscribeTracks):
        return m.SubscribeNamespace(message.request, message.prefix, message.parameters, _TRACKS)
    if isinstance(message, m.SubscribeNamespace):
        return replace(message, options=_NAMESPACES)
    return message


def _again(raw: RawParameters) -> RawParameters:
    """The parameters for the second half, whose tokens are registered and deleted already."""
    tokens = [
        RawToken(TokenUse.USE_VALUE, None, token.type, token.value) if token.use is TokenUse.REGISTER else token
        for token in raw.tokens
        if token.use is not TokenUse.DELETE
    ]
    return replace(raw, tokens=tuple(tokens))
