"""One client connection of a bench: aioquic, a UDP socket of its own, and a MoQT session or none.

`bench.load` dials a publisher and its viewers with this; `detach` then hands a viewer's keys to `receiving.Receiver`.
aioquic is used as it is, and not our own room on top of it, so that no bench weighs one of our faults with another.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from aioquic.quic import events as q
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import CipherSuite, Epoch

from bench.receiving import Keys
from tradewind.moqt import events as e
from tradewind.moqt.model import FullTrackName, Namespace, Parameters
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.profiles import PROFILES
from tradewind.moqt.session import Session
from tradewind.moqt.settings import SessionSettings
from tradewind.quic.udp import SOCKET_BUFFER_BYTES

DATAGRAM_BYTES = 1232
"""UDP payload of our own packets, as the relay's: 1,202 bytes fit a DATAGRAM frame."""
RECEIVE_BYTES = 4096
NAMESPACE: Namespace = (b"bench", b"fanout")
WIDE = 1 << 20


def client_configuration(alpn: str) -> QuicConfiguration:
    """A client that grants more credit than any run uses, so that receivers never have to."""
    return QuicConfiguration(
        is_client=True,
        alpn_protocols=[alpn],
        verify_mode=0,
        cipher_suites=[CipherSuite.AES_128_GCM_SHA256],
        max_datagram_frame_size=65536,
        max_datagram_size=DATAGRAM_BYTES,
        max_data=1 << 40,
        max_stream_data=1 << 30,
        idle_timeout=60.0,
    )


class DialError(Exception):
    """A connection or a request came to nothing."""


class Dialed:
    """One connection. `step` moves it; what the session says goes to `told`."""

    def __init__(
        self,
        host: str,
        port: int,
        alpn: str,
        *,
        moqt: bool = True,
        path: str = "/",
        wire: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.socket: Any = _udp_socket(host, port) if wire is None else wire
        """A connected UDP socket, or what a bench in memory puts in its place (`recv`, `send`, `close`)."""
        self.address = (host, port)
        self._clock = clock
        self.quic = QuicConnection(configuration=client_configuration(alpn))
        # aioquic never lets a peer open more than 128 streams ahead of those that ended.
        for limit in (self.quic._local_max_streams_uni, self.quic._local_max_streams_bidi):
            limit.value = limit.sent = WIDE
        self.session: Session | None = None
        self.opened = False
        self.alias: int | None = None
        """The Track Alias under which our track goes upstream, once the relay has subscribed: the first, of several."""
        self.subscribed = False
        self.closed = ""
        self.datagrams_received = 0
        self.before_send: Callable[[], None] | None = None
        """Called once, just before the next datagrams leave: whoever stamps an object's departure."""
        self._aliases: dict[FullTrackName, int] = {}
        self._alpn, self._moqt, self._path = alpn, moqt, path

    def connect(self) -> None:
        """Send the first datagram."""
        self.quic.connect(self.address, self._clock())
        self.flush()

    def step(self) -> None:
        """Take what has arrived, act on timers that are due, send what there is."""
        now = self._clock()
        while True:
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except (BlockingIOError, ConnectionRefusedError):
                break
            self.datagrams_received += 1
            self.quic.receive_datagram(data, self.address, now)
        timer = self.quic.get_timer()
        if timer is not None and timer <= now:
            self.quic.handle_timer(now)
        self._drain(now)
        self.flush()

    def flush(self) -> None:
        """Send what aioquic has."""
        datagrams = self.quic.datagrams_to_send(self._clock())
        if datagrams and self.before_send is not None:
            told, self.before_send = self.before_send, None
            told()
        for data, _ in datagrams:
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                self.socket.send(data)

    @property
    def ready(self) -> bool:
        """The handshake is confirmed and, where there is a session, both SETUPs are through."""
        return self.opened and self.quic._handshake_confirmed and (self.session is None or self.session.is_ready)

    @property
    def quiet(self) -> bool:
        """Nothing is left to acknowledge, on either side."""
        space = self.quic._spaces[Epoch.ONE_RTT]
        return space.ack_at is None and not space.ack_eliciting_in_flight

    def announce(self, namespace: Namespace) -> None:
        """PUBLISH_NAMESPACE: the relay will subscribe to what it is asked for."""
        assert self.session is not None
        if self.session.publish_namespace(namespace) is None:
            raise DialError("no room for PUBLISH_NAMESPACE")

    def subscribe(self, track: Any) -> None:
        """SUBSCRIBE from the next object on."""
        assert self.session is not None
        if self.session.subscribe(track, Parameters(forward=True)) is None:
            raise DialError("no room for SUBSCRIBE")

    def detach(self) -> Keys:
        """Hand the connection over: from now on this object must not be stepped."""
        return keys_of(self.quic)

    def leave(self) -> None:
        """Close in order."""
        self.quic.close(0, None, "")
        self.flush()
        self.socket.close()

    # --- The session's transport ---

    def open_bidi(self) -> int | None:
        return self._open(unidirectional=False)

    def open_uni(self) -> int | None:
        return self._open(unidirectional=True)

    def send(self, stream: int, data: bytes, fin: bool = False) -> None:
        self.quic.send_stream_data(stream, data, fin)

    def reset(self, stream: int, code: int) -> None:
        self.quic.reset_stream(stream, code)

    def stop(self, stream: int, code: int) -> None:
        self.quic.stop_stream(stream, code)

    def consumed(self, stream: int, size: int) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or f"{reason} ({code:#x})"
        self.quic.close(code, None, reason)

    def _open(self, unidirectional: bool) -> int:
        stream = self.quic.get_next_available_stream_id(is_unidirectional=unidirectional)
        self.quic.send_stream_data(stream, b"")
        return stream

    def _drain(self, now: float) -> None:
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, q.HandshakeCompleted):
                self._begin(now)
            elif isinstance(event, q.ConnectionTerminated):
                self.closed = self.closed or f"{event.reason_phrase or 'closed'} ({event.error_code:#x})"
            elif self.session is not None:
                self._pass_on(self.session, event, now)
        if self.session is not None:
            due = self.session.next_deadline()
            if due is not None and due <= now:
                self._handle(self.session.handle_deadline(now))

    def _begin(self, now: float) -> None:
        self.opened = True
        if self._moqt:
            settings = SessionSettings(max_requests=WIDE)
            self.session = Session(self, PROFILES[self._alpn], is_client=True, webtransport=False, settings=settings)
            self.session.start(SetupOptions(path=self._path, authority="localhost", implementation="bench"), now)

    def _pass_on(self, session: Session, event: q.QuicEvent, now: float) -> None:
        if isinstance(event, q.StreamDataReceived):
            self._handle(session.receive_stream(event.stream_id, event.data, event.end_stream, now))
        elif isinstance(event, q.StreamReset):
            self._handle(session.receive_reset(event.stream_id, event.error_code, now))
        elif isinstance(event, q.StopSendingReceived):
            self._handle(session.receive_stopped(event.stream_id, event.error_code, now))
        elif isinstance(event, q.DatagramFrameReceived):
            self._handle(session.receive_datagram(event.data, now))

    def _handle(self, told: list[e.Event]) -> None:
        session = self.session
        assert session is not None
        for event in told:
            match event:
                case e.SubscribeRequested():
                    alias = self._aliases.setdefault(event.track, len(self._aliases) + 1)
                    self.alias = self.alias or alias
                    session.accept_subscribe(event.request, alias)
                case e.UpdateRequested():
                    session.accept_update(event.request, event.update)
                case e.SubscribeAccepted():
                    self.subscribed = True
                case e.RequestRefused():
                    self.closed = f"refused: {event.reason} ({event.code:#x})"
                case e.PublishRequested() | e.PublishNamespaceRequested() | e.SubscribeNamespaceRequested():
                    session.accept(event.request)
                case e.SessionClosed():
                    self.closed = f"{event.reason} ({event.code:#x})"
                case _:
                    pass


def keys_of(quic: QuicConnection) -> Keys:
    """What a receiver needs to take an established connection over."""
    space = quic._spaces[Epoch.ONE_RTT]
    spans = tuple((span.start, span.stop - 1) for span in space.ack_queue)
    newest = space.largest_received_packet
    return Keys(quic._cryptos[Epoch.ONE_RTT], quic._peer_cid.cid, quic._packet_number, spans or ((newest, newest),))


def _udp_socket(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    made.connect((host, port))
    return made
