"""One connection of a client and the MoQT session on it: an EDGE file, one task and no more.

`connect.Client` opens one at a time, and a second one while it moves after a GOAWAY. Everything that happens here is
synchronous between two waits on the socket: datagrams in, events, answers, objects, datagrams out. Writes of the
application flush at once in the application's own task, so that no object waits for this one to wake up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

import trio

from tradewind.client.exchange import DATA, Exchange, Inbox, LinkLost
from tradewind.client.serving import Serving
from tradewind.client.target import Target
from tradewind.client.tracks import Publication
from tradewind.moqt import events as e
from tradewind.moqt.errors import RequestCode, SessionCode
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.profiles import PROFILES
from tradewind.moqt.session import QuirkSet, Session, SessionSettings
from tradewind.quic import events as q
from tradewind.quic.config import Address, QuicSettings
from tradewind.quic.connection import Connection
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.statistics import ConnectionStatistics
from tradewind.quic.udp import UdpSocket

IMPLEMENTATION = "tradewind"
CLOSE_GRACE_S = 0.25
"""How long after our own close its packets may still leave."""
_BACKLOG_RETRY_S = 0.002
_TURNS_PER_FLUSH = 64
_CREDIT_PATIENCE_S = 5.0


class Link:
    """One connection. Make it, start `run` in a nursery, wait for `opened`; it ends by itself when the peer goes."""

    def __init__(
        self,
        target: Target,
        address: Address,
        quic: QuicSettings,
        protocols: Sequence[str],
        publications: Callable[[], Iterable[Publication]],
        session_settings: SessionSettings | None = None,
        source: str | None = None,
    ) -> None:
        """`source`: the local address that datagrams leave from; None: whichever the system takes. Raises OSError."""
        self.target = target
        self.address = address
        self.started = trio.Event()
        """Set when requests may be made, as soon as the draft lets us: where each has a stream of its own, before the
        relay's SETUP, one round trip earlier than `opened`. Also set when it came to nothing: look at `lost`."""
        self.opened = trio.Event()
        """Set when the relay's SETUP is there, and also when it came to nothing: look at `lost`."""
        self.ended = trio.Event()
        self.moving = trio.Event()
        """Set when the relay has sent GOAWAY: see `goaway`."""
        self.lost = ""
        """Why the connection is gone, in words; empty while it is not."""
        self.goaway: e.GoawayReceived | None = None
        self.found: Callable[[e.NamespaceFound | e.NamespaceGone], None] | None = None
        self.session: Session | None = None
        self.serving: Serving | None = None
        self._publications = publications
        self._session_settings = session_settings or SessionSettings()
        anywhere = "::" if ":" in address[0] else "0.0.0.0"  # noqa: S104 - it only answers its peer
        self._socket = UdpSocket(source or anywhere)
        self._endpoint = Endpoint(quic, is_client=True)
        self._protocols = tuple(protocols)
        self._connection: Connection | None = None
        self._exchange = Exchange()
        self._sleeping: trio.CancelScope | None = None
        self._closing: float | None = None
        self._turned = trio.Event()

    # --- The task -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Move datagrams until the connection is gone: always call `close`, cancelling does not end it.

        Whoever is cancelled still has things to say: that tracks end, that the namespace is withdrawn, goodbye.
        """
        try:
            self._connect()
            while not self.lost:
                self.flush()
                with trio.CancelScope(deadline=self._deadline(), shield=True) as scope:
                    self._sleeping = scope
                    await self._socket.wait_readable()
                self._sleeping = None
                self._turn()
        finally:
            self._lose(self.lost or "the client ended")
            self._socket.close()

    def _connect(self) -> None:
        self._connection = self._endpoint.connect(
            self.address,
            trio.current_time(),
            server_name=self.target.host,
            url=self.target.url if self.target.webtransport else None,
            protocols=self._protocols,
        )

    def _turn(self) -> None:
        self._turned.set()
        self._turned = trio.Event()
        now = trio.current_time()
        for event in self._endpoint.receive_datagrams(self._socket.receive(), now):
            self._take_quic(event, now)
        deadline = self._endpoint.next_deadline()
        if deadline is not None and deadline <= now:
            for event in self._endpoint.handle_deadline(now):
                self._take_quic(event, now)
        self._run_session_timers(now)
        if self._closing is not None and now >= self._closing:
            self._lose("closed")

    def flush(self) -> None:
        """Send what there is to send, as far as the connection takes it. Safe in any task at any time."""
        now = trio.current_time()
        if self._socket.backlogged:
            self._socket.flush()
        for _ in range(_TURNS_PER_FLUSH):
            if self.serving is not None:
                self.serving.pump(now)
            batches = self._endpoint.datagrams_to_send(now)
            if not batches:
                break
            self._socket.send(batches)
        if self._sleeping is not None:
            self._sleeping.deadline = self._deadline()

    def _deadline(self) -> float:
        moments = [self._endpoint.next_deadline(), self._closing, self._exchange.next_deadline()]
        if self.session is not None:
            moments.append(self.session.next_deadline())
        if self._socket.backlogged:
            moments.append(trio.current_time() + _BACKLOG_RETRY_S)
        return min((moment for moment in moments if moment is not None), default=inf)

    # --- Requests of ours ---------------------------------------------------------------------------------------------

    async def ask(
        self, open_request: Callable[[Session], int | None], inbox: Inbox | None = None
    ) -> tuple[int, e.Event]:
        """Make a request and wait for its answer: (its number, the accepting event).

        `inbox` gets what arrives for it. Raises RequestFailed where it is refused and LinkLost where the link is.
        """
        session = self._ready_session()
        with trio.move_on_after(_CREDIT_PATIENCE_S):
            while (request := open_request(session)) is None and not self.lost:
                await self._turned.wait()
        if request is None:
            raise LinkLost(self.lost or "the relay lets no more requests in")
        self._exchange.expect(request, inbox)
        self.flush()
        try:
            event = await self._exchange.answer(request)
        except trio.Cancelled:
            self.cancel(request)
            raise
        if event is None or isinstance(event, e.RequestCancelled):
            self._exchange.forget(request)
            raise LinkLost(self.lost or "the relay gave the request no answer")
        return request, event

    def send(self, open_request: Callable[[Session], int | None], inbox: Inbox | None = None) -> int | None:
        """Make a request whose answer nobody waits for; None where the relay lets none in now."""
        request = open_request(self._ready_session())
        if request is not None:
            self._exchange.expect(request, inbox)
        self.flush()
        return request

    def cancel(self, request: int) -> None:
        """End a request of ours."""
        self._exchange.forget(request)
        if self.session is not None:
            self.session.cancel(request)
        self.flush()

    def close(self, reason: str = "") -> None:
        """Close the session; `ended` is set once its last packets have left."""
        if self.session is not None:
            self.session.close(SessionCode.NO_ERROR, reason)
        elif self._connection is not None:
            self._connection.close(SessionCode.NO_ERROR, reason)
        if self._closing is None:
            self._closing = trio.current_time() + CLOSE_GRACE_S
        self.flush()

    def is_idle(self) -> bool:
        """Whether the peer has acknowledged everything that there was to send, and has had every track's end."""
        if self.lost or self._connection is None or self.serving is None:
            return True
        sent = self._connection.statistics()
        waiting = sent.in_flight_bytes or sent.media_unsent_bytes or sent.control_unsent_bytes
        return not waiting and not self.serving.statistics().subscriptions

    def rtt_s(self) -> float:
        """Smoothed round-trip time to the relay; 0 before it is known."""
        return self._connection.statistics().rtt_s if self._connection is not None else 0.0

    def heard_bytes(self) -> int:
        """What has come from the relay so far, of any kind."""
        return self._connection.bytes_received if self._connection is not None else 0

    def traffic(self) -> ConnectionStatistics | None:
        """Packets and bytes so far; None before there is a connection."""
        return self._connection.statistics() if self._connection is not None else None

    def ping(self) -> None:
        """Have the relay say that it is there: `heard_bytes` grows within a round trip where it is."""
        if self._connection is not None and not self.lost:
            self._connection.ping()
            self.flush()

    def _ready_session(self) -> Session:
        if self.lost or self.session is None:
            raise LinkLost(self.lost or "not connected yet")
        return self.session

    # --- Events -------------------------------------------------------------------------------------------------------

    def _take_quic(self, event: q.Event, now: float) -> None:
        match event:
            case q.Opened(connection):
                self._open_session(connection, now)
            case q.StreamData(_, stream, data, fin) if self.session is not None:
                self._take(self.session.receive_stream(stream, data, fin, now), now)
            case q.StreamReset(_, stream, code) if self.session is not None:
                self._take(self.session.receive_reset(stream, code, now), now)
            case q.Stopped(_, stream, code) if self.session is not None:
                if self.serving is not None:
                    self.serving.stopped(stream)
                self._take(self.session.receive_stopped(stream, code, now), now)
            case q.DatagramReceived(_, data) if self.session is not None:
                self._take(self.session.receive_datagram(data, now), now)
            case q.Closed():
                self._lose(event.reason or ("closed by the relay" if event.by_peer else "the connection failed"))
            case _:
                pass

    def _open_session(self, connection: Connection, now: float) -> None:
        profile = PROFILES.get(connection.protocol)
        if profile is None:
            offered = ", ".join(self._protocols)
            connection.close(SessionCode.VERSION_NEGOTIATION_FAILED, "no common version")
            self._lose(f"no common version: the relay chose {connection.protocol!r}, we offered {offered}")
            return
        webtransport = self.target.webtransport
        self.session = Session(
            connection,
            profile,
            is_client=True,
            webtransport=webtransport,
            settings=self._session_settings,
            quirks=QuirkSet(),
        )
        self.serving = Serving(self.session, connection, self._publications)
        setup = SetupOptions(implementation=IMPLEMENTATION)
        if not webtransport:
            setup = SetupOptions(path=self.target.path, authority=self.target.authority, implementation=IMPLEMENTATION)
        self.session.start(setup, now)
        if profile.request_streams:
            self.started.set()

    def _run_session_timers(self, now: float) -> None:
        if self.session is not None:
            deadline = self.session.next_deadline()
            if deadline is not None and deadline <= now:
                self._take(self.session.handle_deadline(now), now)
        self._exchange.expire(now)

    def _take(self, events: Sequence[e.Event], now: float) -> None:
        exchange = self._exchange
        for event in events:
            if type(event) in DATA:
                exchange.receive_data(event, now)
            elif self.serving is None or not self.serving.receive(event):
                self._take_event(event, now)

    def _take_event(self, event: e.Event, now: float) -> None:
        match event:
            case e.SetupReceived():
                self.started.set()
                self.opened.set()
            case e.GoawayReceived() if event.request is None:
                self.goaway = event
                self.moving.set()
            case e.SessionClosed():
                self._lose(f"session closed: {event.reason} (code {event.code:#x})")
            case e.NamespaceFound() | e.NamespaceGone():
                if self.found is not None:
                    self.found(event)
            case e.PublishRequested() | e.SubscribeTracksRequested():
                self._ready_session().reject(event.request, RequestCode.NOT_SUPPORTED, "not wanted here")
            case e.PublishNamespaceRequested():
                self._ready_session().accept(event.request)
            case _:
                self._exchange.receive(event, now)

    def _lose(self, why: str) -> None:
        if self.ended.is_set():
            return
        self.lost = self.lost or why
        self._exchange.lose(self.lost)
        self.started.set()
        self.opened.set()
        self.moving.set()
        self.ended.set()
