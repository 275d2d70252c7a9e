"""Two endpoints joined in memory over a virtual clock: delay, loss, reordering, duplication, all from one seed.

Other rooms' tests may use `Link` between any two objects that have the endpoint's five calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

from tests.quic.certificates import AUTHORITY_PEM, CERTIFICATE
from tradewind.quic.config import Limits, QuicSettings, ServerTrust
from tradewind.quic.connection import Connection
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Event, Opened, StreamData

CLIENT = ("192.0.2.1", 1111)
SERVER = ("192.0.2.2", 4433)


@dataclass
class Weather:
    """What the network does to a datagram in one direction."""

    delay_s: float = 0.010
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    drop: Callable[[bytes], bool] | None = None


@dataclass
class End:
    """One endpoint, its address and everything it has told."""

    endpoint: Endpoint
    address: Any
    events: list[Event] = field(default_factory=list)
    on_events: Callable[[list[Event]], None] | None = None

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Link:
    """Carries datagrams between ends by address and moves the clock to whatever happens next."""

    def __init__(self, *ends: End, weather: Weather | None = None, seed: int = 1) -> None:
        self.ends = {end.address: end for end in ends}
        self.weather = weather or Weather()
        self.now = 1.0
        self.carried = 0
        self._random = Random(seed)
        self._flying: list[tuple[float, int, bytes, Any, Any]] = []
        self._order = 0

    def flush(self, end: End) -> None:
        """Put what an endpoint wants to send into the air."""
        for address, datagrams in end.endpoint.datagrams_to_send(self.now):
            for data in datagrams:
                self.throw(data, end.address, address)

    def throw(self, data: bytes, source: Any, target: Any) -> None:
        """Put one datagram into the air."""
        weather = self.weather
        self.carried += 1
        if weather.drop is not None and weather.drop(data):
            return
        if weather.loss and self._random.random() < weather.loss:
            return
        copies = 2 if weather.duplicate and self._random.random() < weather.duplicate else 1
        for _ in range(copies):
            self._order += 1
            at = self.now + weather.delay_s + weather.jitter_s * self._random.random()
            heappush(self._flying, (at, self._order, data, source, target))

    def step(self) -> bool:
        """Move to the next arrival or deadline and let it happen; False when nothing is left to wait for."""
        for end in self.ends.values():
            self.flush(end)
        moments = [self._flying[0][0]] if self._flying else []
        for end in self.ends.values():
            deadline = end.endpoint.next_deadline()
            if deadline is not None:
                moments.append(deadline)
        if not moments:
            return False
        self.now = max(self.now, min(moments))
        arrived: dict[Any, list[tuple[bytes, Any]]] = {}
        while self._flying and self._flying[0][0] <= self.now:
            _, _, data, source, target = heappop(self._flying)
            arrived.setdefault(target, []).append((data, source))
        for address, end in self.ends.items():
            events = []
            if address in arrived:
                events += end.endpoint.receive_datagrams(arrived[address], self.now)
            deadline = end.endpoint.next_deadline()
            if deadline is not None and deadline <= self.now:
                events += end.endpoint.handle_deadline(self.now)
            end.events += events
            if end.on_events is not None and events:
                end.on_events(events)
        return True

    def run(self, duration_s: float = 1.0, until: Callable[[], bool] | None = None) -> None:
        """Step until `until` holds or `duration_s` has passed on the virtual clock."""
        end = self.now + duration_s
        while until is None or not until():
            if not self._next_before(end) or not self.step():
                break
        if until is None:
            self.now = max(self.now, end)

    def _next_before(self, limit: float) -> bool:
        for end in self.ends.values():
            self.flush(end)
        moments = [self._flying[0][0]] if self._flying else []
        moments += [d for end in self.ends.values() if (d := end.endpoint.next_deadline()) is not None]
        return bool(moments) and min(moments) <= limit


@dataclass
class Pair:
    """A client and a server with one open connection between them."""

    link: Link
    client: End
    server: End
    at_client: Connection
    at_server: Connection

    def run(self, duration_s: float = 1.0, until: Callable[[], bool] | None = None) -> None:
        self.link.run(duration_s, until)

    def check(self) -> None:
        self.client.endpoint.check_invariants()
        self.server.endpoint.check_invariants()


def server_settings(**changes: Any) -> QuicSettings:
    return QuicSettings(**{"protocols": ("moqt-20", "moqt-18"), "certificate": CERTIFICATE, **changes})


def client_settings(**changes: Any) -> QuicSettings:
    return QuicSettings(
        **{"protocols": ("moqt-18", "moqt-20"), "trust": ServerTrust(authorities_pem=AUTHORITY_PEM), **changes}
    )


def make_pair(
    *,
    url: str | None = None,
    weather: Weather | None = None,
    server: QuicSettings | None = None,
    client: QuicSettings | None = None,
    client_limits: Limits | None = None,
    server_limits: Limits | None = None,
    open_it: bool = True,
    seed: int = 1,
) -> Pair:
    """Connect a client to a server over `weather` and wait until both are told that it is open."""
    server = server or server_settings(**({"limits": server_limits} if server_limits else {}))
    client = client or client_settings(**({"limits": client_limits} if client_limits else {}))
    ends = End(Endpoint(client, is_client=True), CLIENT), End(Endpoint(server), SERVER)
    link = Link(*ends, weather=weather, seed=seed)
    at_client = ends[0].endpoint.connect(SERVER, link.now, server_name="relay.test", url=url)
    link.run(10.0, until=lambda: bool(ends[0].told(Opened) and ends[1].told(Opened)) or not open_it)
    opened = ends[1].told(Opened)
    return Pair(link, *ends, at_client, opened[0].connection if opened else at_client)


def body(events: list[Any], stream: int) -> bytes:
    """What has come on a stream."""
    return b"".join(event.data for event in events if isinstance(event, StreamData) and event.stream == stream)


def open_uni(connection: Connection) -> int:
    stream = connection.open_uni()
    assert stream is not None
    return stream


def open_bidi(connection: Connection) -> int:
    stream = connection.open_bidi()
    assert stream is not None
    return stream


def inject(connection: Connection, *frames: bytes) -> None:
    """Have an otherwise honest connection send frames that no honest one would."""
    for frame in frames:
        connection._core.queue.signals.append((frame, (lambda *_: None, ())))
    connection._touched.add(connection.id)


def eat_all(pair: Pair) -> None:
    """Have both ends consume what they are told, as sessions do."""
    for end in (pair.client, pair.server):

        def eat(events: list[Any]) -> None:
            for event in events:
                if isinstance(event, StreamData):
                    event.connection.consumed(event.stream, len(event.data))

        end.on_events = eat
