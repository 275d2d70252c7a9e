"""Flows over one bottleneck on a virtual clock: what `bench.longhaul` and the controller's tests run.

Two of our endpoints a flow, the demo's shaper between them. A flow has a `Source`: `Greedy` always has more, `Live` has
a show's frames when they are made. The path may change while it is used (`Haul.reshape`).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Any, Protocol

from control.demo.shaper import LinkShape, Narrow
from tests.quic.certificates import CERTIFICATE
from tradewind.quic.config import QuicSettings, ServerTrust
from tradewind.quic.connection import Connection
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Opened, StreamData

OBJECT = bytes(20_000)
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Path:
    """The path between senders and receivers."""

    rtt_s: float = 0.150
    rate_bit_per_s: float = 20e6
    queue_s: float = 0.150
    loss_ratio: float = 0.0
    jitter_s: float = 0.0
    """Each packet with data takes up to so much longer, on its own: they overtake each other."""
    acks_every_s: float = 0.0
    """What comes back is held, and let go all at once this often."""


class Source(Protocol):
    """What a flow sends."""

    def offer(self, connection: Connection, now: float) -> bool:
        """Hand over what the connection takes; whether that was anything."""

    def next_at(self) -> float:
        """When there will be more."""

    def receive(self, stream: int, size: int, now: float) -> None:
        """So many more bytes of a stream arrived, in order."""


class Greedy:
    """Always has more 20 kB objects, a stream each."""

    def offer(self, connection: Connection, now: float) -> bool:
        offered = False
        while connection.writable_bytes(now) > 0:
            stream = connection.open_uni()
            if stream is None:
                break
            connection.offer(stream, (OBJECT,), True)
            offered = True
        return offered

    def next_at(self) -> float:
        return FOREVER

    def receive(self, stream: int, size: int, now: float) -> None:
        pass


@dataclass(slots=True)
class Live:
    """A show: a key frame begins each group, a stream a group, and other frames share what is left of its rate."""

    rate_bit_per_s: float = 1.5e6
    key_frame_bytes: int = 100_000
    group_s: float = 2.0
    frames: int = 60
    starts_at: float = 0.0
    delays_s: list[float] = field(default_factory=list)
    """From when each frame was made until it was there."""
    _made: int = 0
    _waiting: deque[tuple[bytes, float, bool, bool]] = field(default_factory=deque)
    _stream: int | None = None
    _under_way: dict[int, deque[tuple[int, float]]] = field(default_factory=dict)
    """Of each stream, frames' sizes and when they were made."""

    def offer(self, connection: Connection, now: float) -> bool:
        while self.next_at() <= now:
            self._make()
        offered = False
        while self._waiting and connection.writable_bytes(now) > 0:
            frame, made_at, first, last = self._waiting[0]
            if first:
                self._stream = connection.open_uni()
                if self._stream is None:
                    break
                self._under_way[self._stream] = deque()
            self._waiting.popleft()
            assert self._stream is not None
            connection.offer(self._stream, (frame,), last)
            self._under_way[self._stream].append((len(frame), made_at))
            offered = True
        return offered

    def next_at(self) -> float:
        return self.starts_at + self._made * self.group_s / self.frames

    def receive(self, stream: int, size: int, now: float) -> None:
        frames = self._under_way[stream]
        while size and frames:
            left, made_at = frames[0]
            if size < left:
                frames[0] = (left - size, made_at)
                return
            frames.popleft()
            size -= left
            self.delays_s.append(now - made_at)
        if not frames and stream != self._stream:
            del self._under_way[stream]

    def _make(self) -> None:
        number = self._made % self.frames
        rest = self.rate_bit_per_s / 8 * self.group_s - self.key_frame_bytes
        size = self.key_frame_bytes if not number else int(rest / (self.frames - 1))
        self._waiting.append((bytes(size), self.next_at(), number == 0, number == self.frames - 1))
        self._made += 1


@dataclass(slots=True, eq=False)
class Flow:
    """A sender, its receiver, and what arrived."""

    number: int
    controller: str
    source: Source
    further_s: float
    """How much longer its round trip is than the path's."""
    sender: Endpoint
    receiver: Endpoint
    connection: Connection
    opened_at: float | None = None
    bytes: int = 0


@dataclass(slots=True)
class Result:
    """What one flow had of the path, and what the queue was like."""

    part: float
    queue_s: list[float] = field(default_factory=list)
    lost: int = 0
    sent: int = 0


class Haul:
    """Flows over one path, on a clock of their own."""

    def __init__(self, path: Path, controllers: Sequence[str], seed: int) -> None:
        self.now = 1000.0
        self.path = path
        self.dice = random.Random(seed)
        self.forth = Narrow(_forth(path), self.dice, queue_s=path.queue_s)
        self.back = Narrow(_back(path), self.dice)
        self.queue_s: list[float] = []
        """How long each packet with data had to wait at the bottleneck."""
        self.flows: list[Flow] = []
        self._late: list[tuple[float, int, bytes, Any]] = []
        self._order = 0
        for name in controllers:
            self.add(name)

    def add(self, controller: str, source: Source | None = None, further_s: float = 0.0) -> Flow:
        """A flow begins to connect now."""
        number = len(self.flows)
        settings = QuicSettings(protocols=("moqt-20",), congestion_control=controller)
        receiver = Endpoint(replace(settings, certificate=CERTIFICATE))
        sender = Endpoint(replace(settings, trust=ServerTrust(verify=False)), is_client=True)
        connection = sender.connect(("192.0.2.1", 4433 + number), self.now, server_name="relay.test")
        flow = Flow(number, controller, source or Greedy(), further_s, sender, receiver, connection)
        self.flows.append(flow)
        return flow

    def reshape(self, path: Path) -> None:
        """The path is another from now on; what is under way keeps its time."""
        self.path = path
        self.forth.shape, self.forth.queue_s, self.back.shape = _forth(path), path.queue_s, _back(path)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Let so much time pass, or less where `until` holds before."""
        end = self.now + seconds
        while self.now < end and not (until is not None and until()):
            self._send()
            self.now = max(self.now, min(end, self._next_at()))
            for data, where in self.forth.take(self.now):
                self._delay(data, where, self.now + where[0].further_s + self.path.jitter_s * self._chance())
            every = self.path.acks_every_s
            for data, where in self.back.take(self.now):
                self._delay(data, where, math.ceil(self.now / every) * every if every else self.now)
            while self._late and self._late[0][0] <= self.now:
                _, _, data, where = heappop(self._late)
                self._arrive(data, *where)
            for flow in self.flows:
                for endpoint in (flow.sender, flow.receiver):
                    due = endpoint.next_deadline()
                    if due is not None and due <= self.now:
                        self._heed(flow, endpoint.handle_deadline(self.now))

    def _next_at(self) -> float:
        moments = [self.forth.next_at(), self.back.next_at()]
        if self._late:
            moments.append(self._late[0][0])
        for flow in self.flows:
            if flow.opened_at is not None and (at := flow.source.next_at()) > self.now:
                moments.append(at)
            moments += [due for end in (flow.sender, flow.receiver) if (due := end.next_deadline()) is not None]
        return min(moments)

    def _chance(self) -> float:
        return self.dice.random() if self.path.jitter_s else 0.0

    def _delay(self, data: bytes, where: Any, at: float) -> None:
        if at <= self.now:
            self._arrive(data, *where)
        else:
            self._order += 1
            heappush(self._late, (at, self._order, data, where))

    def _send(self) -> None:
        for flow in self.flows:
            while (flow.opened_at is not None and flow.source.offer(flow.connection, self.now)) | self._pass(flow):
                pass

    def _pass(self, flow: Flow) -> bool:
        """Let both ends send; whether the sender did."""
        passed = False
        for _, datagrams in flow.sender.datagrams_to_send(self.now):
            for data in datagrams:
                self.queue_s.append(max(self.forth.free_at - self.now, 0.0))
                self.forth.put(data, (flow, flow.receiver), self.now)
                passed = True
        for _, datagrams in flow.receiver.datagrams_to_send(self.now):
            for data in datagrams:
                self.back.put(data, (flow, flow.sender), self.now)
        return passed

    def _arrive(self, data: bytes, flow: Flow, towards: Endpoint) -> None:
        number = flow.number
        address: Any = ("192.0.2.1", 4433 + number) if towards is flow.sender else ("192.0.2.9", 9000 + number)
        self._heed(flow, towards.receive_datagrams([(data, address)], self.now))

    def _heed(self, flow: Flow, events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, Opened) and event.connection is flow.connection:
                flow.opened_at = self.now
            elif isinstance(event, StreamData):
                flow.bytes += len(event.data)
                flow.source.receive(event.stream, len(event.data), self.now)
                event.connection.consumed(event.stream, len(event.data))


def measure(path: Path, controllers: Sequence[str], warm_up_s: float, seconds: float, seed: int) -> list[Result]:
    """What each of the flows had of the path after the warm-up."""
    return shares(Haul(path, controllers, seed), warm_up_s, seconds)


def shares(haul: Haul, warm_up_s: float, seconds: float) -> list[Result]:
    """What each flow has of the path after a warm-up."""
    haul.run(warm_up_s)
    before = [flow.bytes for flow in haul.flows]
    haul.queue_s.clear()
    haul.run(seconds)
    results = []
    for flow, start in zip(haul.flows, before, strict=True):
        part = (flow.bytes - start) * 8 / seconds / haul.path.rate_bit_per_s
        statistics = flow.connection.statistics()
        results.append(Result(part, haul.queue_s, statistics.packets_lost, statistics.packets_sent))
    return results


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which such a part of them lies; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


def _forth(path: Path) -> LinkShape:
    return LinkShape(path.rate_bit_per_s, path.loss_ratio, path.rtt_s / 2)


def _back(path: Path) -> LinkShape:
    # Acknowledgements are lost only where everything is.
    return LinkShape(None, 1.0 if path.loss_ratio >= 1.0 else 0.0, path.rtt_s / 2)
