"""WebTransport over HTTP/3 (draft-ietf-webtrans-http3-02, which Chromium speaks), shown as raw connections.

One session a connection: a second CONNECT is refused with 429. Every stream that belongs to the session is ours
from its first byte; HTTP's own streams and the CONNECT stream go to `http3`. `endpoint` makes these where TLS chose
`h3`.
"""

from __future__ import annotations

from enum import Enum, auto

from aioquic.h3.events import DataReceived, H3Event, HeadersReceived

from tradewind.quic.config import ConnectRequest, QuicSettings
from tradewind.quic.connection import Connection
from tradewind.quic.core import QuicCore
from tradewind.quic.early import Early, Waiting
from tradewind.quic.events import Closed, DatagramReceived, Event, Opened, Released, Stopped, StreamData, StreamReset
from tradewind.quic.http3 import (
    H3_ID_ERROR,
    H3_MESSAGE_ERROR,
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    H3_STREAM_CREATION_ERROR,
    HTTP_UNI_STREAMS,
    Http3,
)
from tradewind.quic.streams import Stream
from tradewind.quic.wire import (
    BIDI_FRAME_TYPE,
    UNI_STREAM_TYPE,
    CapsuleError,
    CapsuleReader,
    CloseCapsule,
    DrainCapsule,
    decode_protocols,
    encode_close,
    encode_protocol,
    encode_protocols,
    from_http_code,
    pull_varint,
    push_varint,
    stream_header,
    to_http_code,
)

BUFFERED_STREAM_REJECTED = 0x3994BD84
SESSION_GONE = 0x170D7B68
LINGER_S = 3.0
"""How long a closed session's connection waits for its last words to arrive before it ends all the same."""
AT_ONCE = 0.0
"""A deadline for calls that are not told the time: the endpoint comes back at once and says it."""


class Kind(Enum):
    """What a stream carries; streams not classified yet hold the bytes of their header so far instead."""

    SESSION = auto()
    HTTP = auto()
    EARLY = auto()
    """The session's, before the session was open."""
    REFUSED = auto()


class State(Enum):
    """One session's life."""

    CONNECTING = auto()
    OPEN = auto()
    OVER = auto()


class WebTransportConnection(Connection):
    """One WebTransport session and the HTTP/3 connection that carries it."""

    transport = "webtransport"

    def __init__(
        self, core: QuicCore, number: int, events: list[Event], touched: set[int], settings: QuicSettings
    ) -> None:
        super().__init__(core, number, events, touched)
        self.peer_draining = False
        """The peer asked us to finish (DRAIN_WEBTRANSPORT_SESSION)."""
        self._settings = settings
        self._http: Http3 | None = None
        self._state = State.CONNECTING
        self._session: int | None = None
        self._waiting: tuple[int, dict[bytes, list[bytes]]] | None = None
        """A CONNECT that came before the client's SETTINGS."""
        self._capsules = CapsuleReader()
        self._early = Early(settings.limits)
        self._ends_at: float | None = None

    def request(self, authority: str, path: str, origin: str | None) -> None:
        """Client: what the CONNECT asks for once the server's settings are known."""
        self.authority, self.path, self.origin = authority, path, origin

    @property
    def is_closed(self) -> bool:
        """Whether `Closed` was told, or is about to be."""
        return self._core.ended or self._state is State.OVER

    def close(self, code: int, reason: str) -> None:
        """End the session with an application error code; the QUIC connection follows when the peer has heard."""
        if self.is_closed:
            return
        self._touched.add(self.id)
        if self._state is not State.OPEN:
            self._end(None, reason, by_peer=False)
            self._core.close(H3_REQUEST_CANCELLED, None, reason)
            return
        assert self._http is not None
        assert self._session is not None
        self._end(code, reason, by_peer=False)
        self._http.send_body(self._session, encode_close(code, reason), fin=True)

    def handle_deadline(self, now: float) -> None:
        """Give up on a session that never opened, or on a peer that does not take our goodbye."""
        if self._ends_at is None:
            patience = LINGER_S if self._state is State.OVER else self._settings.limits.handshake_timeout_s
            self._ends_at = self.deadline = now + patience
        elif now >= self._ends_at:
            self.deadline = None
            if self._state is not State.OPEN:
                self._core.close(H3_NO_ERROR, None, "" if self._state is State.OVER else "no session was opened")

    # What core tells.

    def negotiated(self) -> None:
        """Packets may be sent: HTTP/3 begins, so that a browser has our settings with the handshake's first answer."""
        self._http = Http3(self._core, self._settings.limits.http_bytes)

    def opened(self) -> None:
        """The QUIC handshake is complete: a session is awaited."""
        self.deadline = AT_ONCE

    def stream_data(self, stream: Stream, data: bytes, fin: bool) -> None:
        """Bytes in order, of any of the connection's streams."""
        kind = stream.kind
        if kind is Kind.SESSION:
            self._events.append(StreamData(self, stream.id, data, fin))
        elif kind is Kind.HTTP:
            self._feed_http(stream, data, fin)
            if fin and stream.id == self._session:
                self._maybe_finish(stream)
        elif kind is Kind.EARLY:
            self._keep_early(stream, StreamData(self, stream.id, data, fin), len(data))
        elif kind is Kind.REFUSED:
            self._core.consumed(stream.id, len(data))
        else:
            self._classify(stream, (kind if isinstance(kind, bytes) else b"") + data, fin)

    def stream_reset(self, stream: Stream, code: int) -> None:
        """The peer abandoned a stream, perhaps before its header was whole."""
        ours = from_http_code(code)
        if stream.kind is Kind.SESSION:
            self._events.append(StreamReset(self, stream.id, ours or 0))
        elif stream.kind is Kind.EARLY:
            self._keep_early(stream, StreamReset(self, stream.id, ours or 0), 0)
        elif stream.kind is Kind.HTTP or (ours is None and not stream.id & 2):
            self._http_reset(stream, code)
        elif ours is not None and self._state is State.OPEN:
            # Before its header: with one session on the connection there is no doubt whose it was.
            stream.kind = Kind.SESSION
            self._events.append(StreamReset(self, stream.id, ours))

    def stopped(self, stream: Stream, code: int) -> None:
        """The peer wants no more of a stream of ours."""
        if stream.kind is Kind.SESSION:
            self._events.append(Stopped(self, stream.id, from_http_code(code) or 0))
        elif stream.kind is Kind.EARLY:
            self._keep_early(stream, Stopped(self, stream.id, from_http_code(code) or 0), 0)
        elif stream.id == self._session:
            self._end(None, "the session's stream was stopped", by_peer=True)
        elif self._http is not None:
            self._http.stopped(stream.id, code)

    def released(self, stream: Stream) -> None:
        """Everything sent on a stream arrived."""
        if stream.id == self._session:
            self._maybe_finish(stream)
        elif stream.kind is Kind.SESSION and stream.outgoing is not None and not stream.outgoing.control:
            self._events.append(Released(self, stream.id))

    def datagram_received(self, data: bytes) -> None:
        """One HTTP datagram: a quarter of the session's stream id, then the payload."""
        head = pull_varint(data, 0)
        if head is None:
            self._core.close(H3_ID_ERROR, None, "datagram without a stream id")
        elif self._state is State.OPEN and head[0] * 4 == self._session:
            self._events.append(DatagramReceived(self, data[head[1] :]))
        elif self._state is State.CONNECTING:
            self._early.keep_datagram(head[0] * 4, DatagramReceived(self, data[head[1] :]))

    def closed(self, code: int | None, reason: str, by_peer: bool) -> None:
        """The QUIC connection ended, and the session with it. HTTP/3's code is not the application's."""
        self._end(None, reason or (f"HTTP/3 error {code:#x}" if code else ""), by_peer)

    # Streams.

    def _maybe_finish(self, connect: Stream) -> None:
        """A client ends the QUIC connection once the session's own stream is over both ways.

        A server leaves that to the client for a while: Chromium, told that the connection ends while it still hands our
        goodbye to the page, reports a lost connection instead of our reason.
        """
        if self.is_client and self._state is State.OVER and connect.finished:
            self._core.close(H3_NO_ERROR, None, "")

    def _open(self, unidirectional: bool, control: bool) -> int | None:
        if self._state is not State.OPEN or self._session is None:
            return None
        stream = self._core.open_stream(unidirectional, control)
        if stream is None or stream.outgoing is None:
            return None
        stream.kind = Kind.SESSION
        stream.outgoing.prefix = stream_header(unidirectional, self._session)
        return stream.id

    def _wire_code(self, code: int) -> int:
        return to_http_code(code)

    def _classify(self, stream: Stream, head: bytes, fin: bool) -> None:
        """Decide whose stream this is from its first bytes; `head` is all that came so far."""
        unidirectional = bool(stream.id & 2)
        kind = pull_varint(head, 0)
        if kind is None:
            stream.kind = head
            return
        if kind[0] != (UNI_STREAM_TYPE if unidirectional else BIDI_FRAME_TYPE):
            self._classify_http(stream, kind[0], head, fin)
            return
        session = pull_varint(head, kind[1])
        if session is None:
            stream.kind = head
            return
        self._core.consumed(stream.id, session[1])
        if session[0] & 3:
            self._core.close(H3_ID_ERROR, None, "not a session id")
            return
        rest = StreamData(self, stream.id, head[session[1] :], fin)
        if self._state is State.OPEN and session[0] == self._session:
            stream.kind = Kind.SESSION
            if rest.data or fin:
                self._events.append(rest)
        elif self._state is State.CONNECTING and self._early.admit(stream.id, session[0]):
            stream.kind = Kind.EARLY
            self._keep_early(stream, rest, len(rest.data))
        else:
            self._refuse(stream, BUFFERED_STREAM_REJECTED)
            self._core.consumed(stream.id, len(rest.data))

    def _classify_http(self, stream: Stream, kind: int, head: bytes, fin: bool) -> None:
        if stream.id & 2 and kind not in HTTP_UNI_STREAMS:
            # RFC 9114, Reserved Stream Types: of unknown purpose, not an error.
            self._refuse(stream, H3_STREAM_CREATION_ERROR)
            self._core.consumed(stream.id, len(head))
        elif self.is_client and not stream.id & 2:
            self._core.close(H3_STREAM_CREATION_ERROR, None, "the server opened a request stream")
        else:
            stream.kind = Kind.HTTP
            self._feed_http(stream, head, fin)

    def _refuse(self, stream: Stream, code: int) -> None:
        stream.kind = Kind.REFUSED
        self._core.stop(stream, code)
        self._core.reset(stream, code)

    def _keep_early(self, stream: Stream, event: StreamData | StreamReset | Stopped, size: int) -> None:
        if not self._early.keep(event, size):
            self._early.drop(stream.id)
            self._refuse(stream, BUFFERED_STREAM_REJECTED)

    # HTTP/3.

    def _feed_http(self, stream: Stream, data: bytes, fin: bool) -> None:
        if self._http is None or self._core.ended:
            return
        for event in self._http.receive(stream, data, fin):
            self._http_event(event)
        if self._http.settings is not None and self._state is State.CONNECTING:
            self._settings_known()

    def _http_event(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            headers: dict[bytes, list[bytes]] = {}
            for name, value in event.headers:
                headers.setdefault(name, []).append(value)
            if self.is_client:
                self._response(event.stream_id, headers, event.stream_ended)
            else:
                self._requested(event.stream_id, headers, event.stream_ended)
        elif isinstance(event, DataReceived) and event.stream_id == self._session:
            self._body(event.data, event.stream_ended)

    def _http_reset(self, stream: Stream, code: int) -> None:
        stream.kind = Kind.HTTP
        if self._http is not None:
            self._http.stream_reset(stream.id, code)
        if stream.id == self._session:
            self._end(None, "the session's stream was reset", by_peer=True)
            self._maybe_finish(stream)

    def _settings_known(self) -> None:
        """The peer's settings are there: a client asks for its session, a server answers one that waited."""
        assert self._http is not None
        if self.is_client:
            if self._session is None:
                self._send_request()
        elif self._waiting is not None:
            stream_id, headers = self._waiting
            self._waiting = None
            self._answer(stream_id, headers)

    # Client.

    def _send_request(self) -> None:
        assert self._http is not None
        if not self._http.peer_takes_webtransport:
            self._core.close(H3_NO_ERROR, None, "the server does not offer WebTransport")
            return
        self._session = self._core.get_next_available_stream_id()
        headers = [
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", self.authority.encode()),
            (b":path", self.path.encode()),
            (b":protocol", b"webtransport"),
            (b"sec-webtransport-http3-draft02", b"1"),
            (b"wt-available-protocols", encode_protocols(self.offered).encode()),
        ]
        if self.origin is not None:
            headers.append((b"origin", self.origin.encode()))
        self._http.send_headers(self._session, headers)
        stream = self._core.streams.get(self._session)
        if stream is not None:
            stream.kind = Kind.HTTP

    def _response(self, stream_id: int, headers: dict[bytes, list[bytes]], ended: bool) -> None:
        if stream_id != self._session or self._state is not State.CONNECTING:
            return
        status = headers.get(b":status", [b""])[0]
        if status.startswith(b"1"):
            return
        chosen = decode_protocols(headers.get(b"wt-protocol", ()))
        if not status.startswith(b"2"):
            self._core.close(H3_NO_ERROR, None, f"CONNECT refused with {status.decode(errors='replace')}")
        elif len(chosen) != 1 or chosen[0] not in self.offered or ended:
            self._core.close(H3_MESSAGE_ERROR, None, "the server chose no protocol that was offered")
        else:
            self._establish(chosen[0])

    # Server.

    def _requested(self, stream_id: int, headers: dict[bytes, list[bytes]], ended: bool) -> None:
        assert self._http is not None
        if headers.get(b":method") != [b"CONNECT"] or headers.get(b":protocol") != [b"webtransport"] or ended:
            self._respond(stream_id, 404)
        elif self._session is not None or self._waiting is not None:
            self._respond(stream_id, 429)
        elif self._http.settings is None:
            self._waiting = (stream_id, headers)
        else:
            self._answer(stream_id, headers)

    def _answer(self, stream_id: int, headers: dict[bytes, list[bytes]]) -> None:
        assert self._http is not None
        request = ConnectRequest(
            authority=_text(headers, b":authority") or "",
            path=_text(headers, b":path") or "",
            origin=_text(headers, b"origin"),
            offered=decode_protocols(headers.get(b"wt-available-protocols", ())),
            peer_address=self.peer_address,
        )
        choice = self._settings.choose(request) if self._http.peer_takes_webtransport else 400
        if isinstance(choice, int):
            supported = self._settings.preference(request.origin)
            if not set(supported) & set(request.offered):
                self._core.disagree(request.offered, supported, self.transport)
            self._respond(stream_id, choice)
            return
        self.authority, self.path, self.origin = request.authority, request.path, request.origin
        self.offered = request.offered
        self._session = stream_id
        self._http.send_headers(
            stream_id,
            [
                (b":status", b"200"),
                (b"sec-webtransport-http3-draft", b"draft02"),
                (b"wt-protocol", encode_protocol(choice).encode()),
            ],
        )
        self._establish(choice)

    def _respond(self, stream_id: int, status: int) -> None:
        assert self._http is not None
        self._http.send_headers(stream_id, [(b":status", b"%d" % status)], fin=True)
        for early in self._early.take(stream_id):
            self._refuse_early(early)

    # The session.

    def _establish(self, protocol: str) -> None:
        """Open the session and let in what came for it before."""
        self._state = State.OPEN
        self.protocol = protocol
        self.deadline = None
        self._events.append(Opened(self))
        assert self._session is not None
        mine = self._early.take(self._session)
        for event in mine:
            if not isinstance(event, DatagramReceived):
                stream = self._core.streams.get(event.stream)
                if stream is not None:
                    stream.kind = Kind.SESSION
            if not isinstance(event, StreamData) or event.data or event.fin:
                self._events.append(event)
        for event in self._early.take(None):
            self._refuse_early(event)

    def _refuse_early(self, event: Waiting) -> None:
        if isinstance(event, DatagramReceived):
            return
        if isinstance(event, StreamData):
            self._core.consumed(event.stream, len(event.data))
        stream = self._core.streams.get(event.stream)
        if stream is not None and stream.kind is Kind.EARLY:
            self._refuse(stream, BUFFERED_STREAM_REJECTED)

    def _body(self, data: bytes, ended: bool) -> None:
        """DATA on the CONNECT stream: capsules, and its end."""
        assert self._http is not None
        assert self._session is not None
        self._http.credit_body(self._session, len(data))
        try:
            capsules = self._capsules.feed(data)
        except CapsuleError as error:
            self._core.close(H3_MESSAGE_ERROR, None, str(error))
            return
        for capsule in capsules:
            if isinstance(capsule, CloseCapsule):
                self._end(capsule.code, capsule.reason, by_peer=True)
                return
            if isinstance(capsule, DrainCapsule):
                self.peer_draining = True
        if ended:
            self._end(0, "", by_peer=True)

    def _end(self, code: int | None, reason: str, by_peer: bool) -> None:
        """The session is over: tell it once, reset its streams, and say goodbye on the CONNECT stream."""
        if self._state is State.OVER:
            return
        told = self._state is State.OPEN or self.is_client
        self._state = State.OVER
        self._early.take(None)
        if told:
            self._events.append(Closed(self, code, reason, by_peer))
        if self._core.ended:
            return
        for stream in tuple(self._core.streams.values()):
            if stream.kind is Kind.SESSION:
                self._refuse(stream, SESSION_GONE)
        if by_peer and self._http is not None and self._session is not None:
            connect = self._core.streams.get(self._session)
            if connect is not None and connect.outgoing is not None and connect.outgoing.open:
                self._http.send_body(self._session, b"", fin=True)
        self._ends_at, self.deadline = None, AT_ONCE

    def _datagram_room(self) -> int:
        if self._session is None:
            return 0
        return max(0, self._core.datagram_room() - len(push_varint(self._session // 4)))

    def _queue_datagram(self, payload: bytes, expires: float) -> bool:
        if self._state is not State.OPEN or self._session is None:
            return False
        return super()._queue_datagram(push_varint(self._session // 4) + payload, expires)


def _text(headers: dict[bytes, list[bytes]], name: bytes) -> str | None:
    values = headers.get(name)
    return None if not values else values[0].decode("ascii", errors="replace")
