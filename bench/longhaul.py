"""A long, lossy path: what each congestion controller makes of it, alone and beside reno.

    python -m bench.longhaul [--controllers rate,cubic,reno] [--loss 0,0.1,0.5,1,2] [--seconds 60]

Two of our endpoints on a virtual clock, with the demo's shaper between them: by default 150 ms both ways together,
20 Mbit/s, a queue of one round trip, losses at random in the direction of the data. The sender always has more 20 kB
objects, a stream each. Printed are the part of the bottleneck that arrived in objects after the first `--warm-up`
seconds, how long packets waited in the queue, and what a reno flow keeps that starts together with the flow measured.
Exit code 1 where a floor is missed: 80 % up to 1 % loss, a queue of 1.25 round trips, a quarter for reno.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from control.demo.shaper import LinkShape, Narrow
from tests.quic.certificates import CERTIFICATE
from tradewind.quic.config import QuicSettings, ServerTrust
from tradewind.quic.connection import Connection
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Opened, StreamData

OBJECT = bytes(20_000)
MEASURED = "rate"
PART_FLOOR, LOSS_OF_FLOOR, QUEUE_FLOOR, RENO_FLOOR = 0.80, 1.0, 1.25, 0.25


@dataclass(frozen=True, slots=True)
class Path:
    """The path between sender and receiver."""

    rtt_s: float = 0.150
    rate_bit_per_s: float = 20e6
    queue_s: float = 0.150
    loss_ratio: float = 0.0


@dataclass(slots=True)
class Flow:
    """A sender, its receiver, and what arrived."""

    controller: str
    sender: Endpoint
    receiver: Endpoint
    connection: Connection
    opened: bool = False
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
        dice = random.Random(seed)
        shape = LinkShape(path.rate_bit_per_s, path.loss_ratio, path.rtt_s / 2)
        self.forth = Narrow(shape, dice, queue_s=path.queue_s)
        self.back = Narrow(replace(shape, rate_bit_per_s=None, loss_ratio=0.0), dice)
        self.flows = [self._flow(number, name) for number, name in enumerate(controllers)]
        self.queue_s: list[float] = []

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while self.now < end:
            self._send()
            moments = [self.forth.next_at(), self.back.next_at(), end]
            for flow in self.flows:
                moments += [due for end_ in (flow.sender, flow.receiver) if (due := end_.next_deadline()) is not None]
            self.now = max(self.now, min(moments))
            for data, (flow, towards) in self.forth.take(self.now) + self.back.take(self.now):
                self._arrive(flow, towards, data)
            for flow in self.flows:
                for endpoint in (flow.sender, flow.receiver):
                    due = endpoint.next_deadline()
                    if due is not None and due <= self.now:
                        self._heed(flow, endpoint.handle_deadline(self.now))

    def _flow(self, number: int, controller: str) -> Flow:
        settings = QuicSettings(protocols=("moqt-20",), congestion_control=controller)
        receiver = Endpoint(replace(settings, certificate=CERTIFICATE))
        sender = Endpoint(replace(settings, trust=ServerTrust(verify=False)), is_client=True)
        connection = sender.connect(("192.0.2.1", 4433 + number), self.now, server_name="relay.test")
        return Flow(controller, sender, receiver, connection)

    def _send(self) -> None:
        for flow in self.flows:
            while self._offer(flow) | self._pass(flow):
                pass

    def _offer(self, flow: Flow) -> bool:
        """Hand over what the connection takes; whether that was anything."""
        offered = False
        while flow.opened and flow.connection.writable_bytes(self.now) > 0:
            stream = flow.connection.open_uni()
            if stream is None:
                break
            flow.connection.offer(stream, (OBJECT,), True)
            offered = True
        return offered

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

    def _arrive(self, flow: Flow, towards: Endpoint, data: bytes) -> None:
        number = self.flows.index(flow)
        address: Any = ("192.0.2.1", 4433 + number) if towards is flow.sender else ("192.0.2.9", 9000 + number)
        self._heed(flow, towards.receive_datagrams([(data, address)], self.now))

    def _heed(self, flow: Flow, events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, Opened) and event.connection is flow.connection:
                flow.opened = True
            elif isinstance(event, StreamData):
                flow.bytes += len(event.data)
                event.connection.consumed(event.stream, len(event.data))


def measure(path: Path, controllers: Sequence[str], warm_up_s: float, seconds: float, seed: int) -> list[Result]:
    """What each of the flows had of the path after the warm-up."""
    haul = Haul(path, controllers, seed)
    haul.run(warm_up_s)
    before = [flow.bytes for flow in haul.flows]
    haul.queue_s.clear()
    haul.run(seconds)
    results = []
    for flow, start in zip(haul.flows, before, strict=True):
        part = (flow.bytes - start) * 8 / seconds / path.rate_bit_per_s
        statistics = flow.connection.statistics()
        results.append(Result(part, haul.queue_s, statistics.packets_lost, statistics.packets_sent))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.longhaul", description=__doc__.split("\n")[0])
    parser.add_argument("--controllers", default="rate,cubic,reno")
    parser.add_argument("--loss", default="0,0.1,0.5,1,2", help="per cent")
    parser.add_argument("--rtt", type=float, default=150.0, help="milliseconds")
    parser.add_argument("--mbit", type=float, default=20.0)
    parser.add_argument("--queue", type=float, default=1.0, help="round trips")
    parser.add_argument("--warm-up", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    rtt_s = options.rtt / 1000
    missed: list[str] = []
    print(f"{options.mbit:g} Mbit/s, {options.rtt:g} ms, queue {options.queue:g} round trips, {options.seconds:g} s")
    print("controller    loss %  of the rate  queue p50 ms   p95 ms   lost %  reno beside")
    for name in options.controllers.split(","):
        for loss in map(float, options.loss.split(",")):
            path = Path(rtt_s, options.mbit * 1e6, options.queue * rtt_s, loss / 100)
            (alone,) = measure(path, [name], options.warm_up, options.seconds, options.seed)
            _, reno = measure(path, [name, "reno"], options.warm_up, options.seconds, options.seed)
            queue = sorted(alone.queue_s)
            middle, late = queue[len(queue) // 2], queue[len(queue) * 19 // 20]
            lost = alone.lost / max(alone.sent, 1)
            figures = f"{alone.part:13.0%}{middle * 1e3:14.0f}{late * 1e3:9.0f}{lost:9.2%}{reno.part:13.0%}"
            print(f"{name:<12}{loss:8g}{figures}", flush=True)
            if name == MEASURED:
                if loss <= LOSS_OF_FLOOR and alone.part < PART_FLOOR:
                    missed.append(f"{alone.part:.0%} of the rate at {loss:g} % loss (at least {PART_FLOOR:.0%})")
                if late > QUEUE_FLOOR * rtt_s:
                    missed.append(f"a queue of {late / rtt_s:.2f} round trips at {loss:g} %")
                if not loss and reno.part < RENO_FLOOR:
                    missed.append(f"reno keeps {reno.part:.0%} beside it (at least {RENO_FLOOR:.0%})")
    for line in missed:
        print(f"FAIL  {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
