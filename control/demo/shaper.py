"""EDGE: a narrow, lossy link in user space: a UDP relay between a viewer and a relay that shapes what passes.

`tradewind demo --viewer-link 600kbit,2%,40ms` puts one before its relay. Each direction has a rate, a queue of as many
seconds as `QUEUE_S`, random loss and a delay; what does not fit into the queue is dropped, as a router would.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from tradewind.quic.udp import UdpSocket

QUEUE_S = 0.25
"""What the narrow place holds: a quarter of a second, as a mobile network's buffer might."""
MAX_VIEWERS = 64
IDLE_S = 60.0

_RATES = {"bit": 1, "kbit": 1_000, "mbit": 1_000_000}


class LinkError(ValueError):
    """A link's description cannot be read; says which part."""


@dataclass(frozen=True, slots=True)
class LinkShape:
    """What one direction of a link does to datagrams. `rate_bit_per_s` None: as fast as they come."""

    rate_bit_per_s: float | None = None
    loss_ratio: float = 0.0
    delay_s: float = 0.0

    def __str__(self) -> str:
        rate = "as fast as it goes" if self.rate_bit_per_s is None else f"{self.rate_bit_per_s / 1000:g} kbit/s"
        return f"{rate}, {self.loss_ratio:.1%} loss, {self.delay_s * 1000:g} ms"


def parse_schedule(texts: Sequence[str]) -> tuple[tuple[float, LinkShape], ...]:
    """Read links that follow each other: `600kbit,2%@10s` begins ten seconds after the show does, others with it.

    Raises LinkError.
    """
    schedule = []
    for text in texts:
        shape, _, when = text.partition("@")
        matched = re.fullmatch(r"(\d+(?:\.\d+)?)s?", when or "0")
        if matched is None:
            raise LinkError(f"{when!r} is not a time such as 10s")
        schedule.append((float(matched[1]), parse_link(shape)))
    return tuple(sorted(schedule, key=lambda entry: entry[0]))


def parse_link(text: str) -> LinkShape:
    """Read `600kbit,2%,40ms`: rate, loss and one-way delay, in any order, each optional. Raises LinkError."""
    rate, loss, delay = None, 0.0, 0.0
    for part in filter(None, (piece.strip().lower() for piece in text.split(","))):
        matched = re.fullmatch(r"(\d+(?:\.\d+)?)(mbit|kbit|bit|%|ms|s)", part)
        if matched is None:
            raise LinkError(f"{part!r} is not a rate (600kbit), a loss (2%) or a delay (40ms)")
        value, unit = float(matched[1]), matched[2]
        if unit in _RATES:
            rate = value * _RATES[unit]
            if not rate:
                raise LinkError("a rate of 0 lets nothing through")
        elif unit == "%":
            if value > 100:
                raise LinkError(f"{part!r} is more than everything")
            loss = value / 100
        else:
            delay = value / 1000 if unit == "ms" else value
    return LinkShape(rate, loss, delay)


@dataclass(slots=True)
class Narrow:
    """One direction: when each datagram comes out at the other end. No clock, no socket."""

    shape: LinkShape
    dice: random.Random
    free_at: float = 0.0
    """When the last datagram let in will have passed the narrow place."""
    lost: int = 0
    overflowed: int = 0
    passed: int = 0
    waiting: deque[tuple[float, bytes, Any]] = field(default_factory=deque)
    queue_s: float = QUEUE_S

    def put(self, data: bytes, where: Any, now: float) -> None:
        """Let one datagram in, or lose it."""
        if self.shape.loss_ratio and self.dice.random() < self.shape.loss_ratio:
            self.lost += 1
            return
        start = max(now, self.free_at)
        if self.shape.rate_bit_per_s is not None:
            if start - now > self.queue_s:
                self.overflowed += 1
                return
            self.free_at = start + len(data) * 8 / self.shape.rate_bit_per_s
        else:
            self.free_at = now
        self.passed += 1
        self.waiting.append((self.free_at + self.shape.delay_s, data, where))

    def take(self, now: float) -> list[tuple[bytes, Any]]:
        """What has come out by now, in order."""
        out = []
        while self.waiting and self.waiting[0][0] <= now:
            _, data, where = self.waiting.popleft()
            out.append((data, where))
        return out

    def next_at(self) -> float:
        return self.waiting[0][0] if self.waiting else float("inf")


class Shaper:
    """Listens where viewers dial, and passes on what they say through a socket of its own for each of them."""

    def __init__(
        self,
        relay: tuple[str, int],
        shape: LinkShape,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        up: Narrow | None = None,
        down: Narrow | None = None,
    ) -> None:
        """`up` (from those who dial) and `down` stand in for directions of the shape."""
        self.front = UdpSocket(host, port)
        self.shape = shape
        self._relay = relay
        self._dice = random.Random()  # noqa: S311 - loss, not secrets
        self._down = down or Narrow(shape, self._dice)
        self._up = up or Narrow(shape, self._dice)
        self._backs: dict[Any, UdpSocket] = {}
        self._timer = trio.CancelScope()

    @property
    def port(self) -> int:
        return int(self.front.address[1])

    def reshape(self, shape: LinkShape) -> None:
        """The link changes from now on; what is on it keeps its time."""
        self.shape = self._down.shape = self._up.shape = shape

    def close(self) -> None:
        """Close every socket."""
        self.front.close()
        for back in self._backs.values():
            back.close()

    async def run(self) -> None:
        """Pass datagrams on, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_time)
            while True:
                await self.front.wait_readable()
                now = trio.current_time()
                for data, viewer in self.front.receive():
                    if viewer not in self._backs:
                        if len(self._backs) >= MAX_VIEWERS:
                            continue
                        self._backs[viewer] = UdpSocket(self._relay[0].replace("localhost", "127.0.0.1"))
                        nursery.start_soon(self._listen_back, viewer)
                    self._up.put(data, viewer, now)
                self._pass(now)

    async def _listen_back(self, viewer: Any) -> None:
        """Take what the relay answers one viewer, until it is silent for long."""
        back = self._backs[viewer]
        while True:
            with trio.move_on_after(IDLE_S) as idle:
                await back.wait_readable()
            if idle.cancelled_caught:
                break
            now = trio.current_time()
            for data, _ in back.receive():
                self._down.put(data, viewer, now)
            self._pass(now)
        del self._backs[viewer]
        back.close()

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._due()) as self._timer:
                await trio.sleep_forever()
            self._pass(trio.current_time())

    def _pass(self, now: float) -> None:
        for data, viewer in self._up.take(now):
            back = self._backs.get(viewer)
            if back is not None:
                back.send([(self._relay, [data])])
        for data, viewer in self._down.take(now):
            self.front.send([(viewer, [data])])
        self._timer.deadline = self._due()

    def _due(self) -> float:
        return min(self._down.next_at(), self._up.next_at())
