"""Questions for `/v1/place` over HTTP, as many a second as are wanted, and how long each took to be answered.

`bench.placement --http` starts a controller, or a relay, on one core and asks it from another. Arrivals are Poisson's
and do not wait for answers: a question counts from when it was due, so that a server that stands still is charged for
everybody who came meanwhile. Connections stay open until the server closes them. Each question has a token of its own.
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

SETTLE_S = 2.0
"""How long after the last question is waited for answers."""
MAX_LATE_MS = 20.0
"""At p99, of the generator itself: beyond that the run is void."""


@dataclass(slots=True)
class Asked:
    """What came of a run."""

    wanted: int = 0
    answered: int = 0
    other: int = 0
    """Answers that were not 200, and connections that broke."""
    over_s: float = 0.0
    took_s: list[float] = field(default_factory=list)
    """From when each question was due to its answer's last byte."""
    late_s: list[float] = field(default_factory=list)
    """Of the generator: from when a question could be sent to when it was."""
    first_other: bytes = b""

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.answered / self.over_s if self.over_s else 0.0

    def took_ms(self, part: float) -> float:
        """How many milliseconds this part of the good answers took at most."""
        return 1000 * quantile(self.took_s, part)

    @property
    def late(self) -> bool:
        return 1000 * quantile(self.late_s, 0.99) > MAX_LATE_MS


def ask(
    address: tuple[str, int], targets: Iterator[str], rate: float, for_s: float, connections: int, seed: int = 1
) -> Asked:
    """Ask `rate` questions a second for `for_s`, over as many connections; `targets` are paths with their queries."""
    dice = random.Random(seed)
    found = Asked()
    waiting: deque[float] = deque()
    with _Clients(address, connections, found) as clients:
        began = time.monotonic()
        due, end = began, began + for_s
        while True:
            now = time.monotonic()
            while due <= now and due < end:
                waiting.append(due)
                found.wanted += 1
                due += dice.expovariate(rate)
            while waiting and clients.may_ask:
                clients.ask(next(targets), waiting.popleft(), now)
            finished = due >= end and not waiting and clients.at_rest
            if finished or now > end + SETTLE_S:
                break
            clients.take((min(due, end) - time.monotonic()) if due < end else 0.05)
        found.over_s = max(min(time.monotonic(), end) - began, 1e-9)
    return found


def quantile(values: list[float], part: float) -> float:
    """The value below which this part of them lies; 0.0 where there are none."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0


class _Client:
    """One connection; at most one question under way."""

    __slots__ = ("due", "received", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received = b""
        self.due = 0.0

    def take(self) -> tuple[int, bool] | None:
        """Read; the status, and whether the connection goes on, once the answer is whole."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return None
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return None
        return int(head[9:12]), b"connection: close" not in lower


class _Clients:
    """All connections, always as many; what comes of their questions is written to `found`."""

    def __init__(self, address: tuple[str, int], count: int, found: Asked) -> None:
        self._address = address
        self._count = count
        self._found = found
        self._head = f" HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n"
        self._poll = select.epoll()
        self._all: dict[int, _Client] = {}
        self._idle: deque[_Client] = deque()

    def __enter__(self) -> Self:
        for _ in range(self._count):
            self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._all.values():
            client.socket.close()
        self._poll.close()

    @property
    def may_ask(self) -> bool:
        """Somebody has no question under way."""
        return bool(self._idle)

    @property
    def at_rest(self) -> bool:
        """Nobody has a question under way."""
        return len(self._idle) == len(self._all)

    def ask(self, target: str, due: float, now: float) -> None:
        """Send a question that was due then, and could be sent now."""
        client = self._idle.popleft()
        client.due = due
        client.socket.send(f"GET {target}{self._head}".encode())
        self._found.late_s.append(max(0.0, time.monotonic() - now))

    def take(self, wait_s: float) -> None:
        """Take what comes within this time."""
        # epoll counts in whole milliseconds: what is due sooner is waited for awake.
        for number, _ in self._poll.poll(max(0.0, wait_s - 0.001) if wait_s > 0.001 else 0.0):
            client = self._all[number]
            try:
                answer = client.take()
            except OSError:
                answer = (0, False)
            if answer is not None:
                self._note(client, *answer)

    def _note(self, client: _Client, status: int, goes_on: bool) -> None:
        found = self._found
        if status == 200:
            found.answered += 1
            found.took_s.append(time.monotonic() - client.due)
        elif client not in self._idle:
            found.other += 1
            found.first_other = found.first_other or client.received[:300]
        client.received = b""
        if goes_on:
            self._idle.append(client)
            return
        number = client.socket.fileno()
        self._poll.unregister(number)
        client.socket.close()
        del self._all[number]
        if client in self._idle:
            self._idle.remove(client)
        self._connect()

    def _connect(self) -> None:
        client = _Client(self._address)
        self._all[client.socket.fileno()] = client
        self._poll.register(client.socket.fileno(), select.EPOLLIN)
        self._idle.append(client)
