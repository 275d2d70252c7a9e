"""EDGE: the network between the demo's processes, in user space: `python -m control.demo.network`.

Every relay has a front: the address that everybody else knows. What arrives there from another relay leaves, later,
from that relay's own front, so that each direction of each pair has a delay and a loss of its own; what arrives from
anybody else goes through a socket of theirs, with an address that says where they are.

Standard input takes orders, one JSON object a line; standard output says what was done and when (`time.perf_counter`):

    {"order": 1, "from": "hkg-1", "to": "fra-1", "loss": 0.1}        one direction between two relays
    {"order": 3, "media": true}                                      which directions carry media
    {"order": 2, "viewers": [600000, 0.02, 0.04]}                    rate (or null), loss, delay before every viewer
    {"order": 4, "home": "fra"}                                      where addresses are that nobody gave out

It is a plain loop over epoll: ten thousand datagrams a second would each wake a task otherwise.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import random
import selectors
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from control.demo.shaper import LinkShape, Narrow
from control.demo.world import HOME, RELAYS, between_relays, region_of, relay_host, to_viewers

Host = tuple[str, int]
BATCH = 64
MAX_DATAGRAM = 2048
BUFFER_BYTES = 4 * 2**20
MAX_FLOWS = 4096
FLOW_IDLE_S = 60.0
SWEEP_S = 5.0
MEDIA_BYTES = 200
"""Datagrams between relays from this size on are media: probes, reports and acknowledgements are smaller."""
MEDIA_WINDOW_S = 1.0


@dataclass(slots=True)
class Way:
    """One direction of something: what comes out goes to `to` by `via`."""

    narrow: Narrow
    via: socket.socket
    to: Host
    is_due: bool = False
    media: deque[tuple[float, int]] = field(default_factory=deque)
    """Between relays: when media was put in, and how many bytes, for the last `MEDIA_WINDOW_S`."""

    def media_bytes(self, now: float) -> int:
        """How much media wanted through within the window before `now`."""
        while self.media and self.media[0][0] < now - MEDIA_WINDOW_S:
            self.media.popleft()
        return sum(size for _, size in self.media)


@dataclass(slots=True)
class Flow:
    """Somebody who is no relay, talking to one."""

    back: socket.socket
    up: Way
    down: Way
    region: str
    relay: int
    used_at: float


class Network:
    """Fronts, ways and flows; `run` passes datagrams on until it is told to end."""

    def __init__(self, ports: list[int], relay_port: int, seed: int) -> None:
        """`ports` are the fronts' on 127.0.0.1, in the order of `RELAYS`."""
        self._dice = random.Random(seed)  # noqa: S311 - loss, not secrets
        self._selector = selectors.DefaultSelector()
        self._fronts = [_udp("127.0.0.1", port) for port in ports]
        self._relays: list[Host] = [(relay_host(number), relay_port) for number in range(len(ports))]
        self._numbers = {host: number for number, host in enumerate(self._relays)}
        self._ways = {
            (one, other): self._way(
                between_relays(RELAYS[one].region, RELAYS[other].region), self._fronts[one], self._relays[other]
            )
            for one in range(len(ports))
            for other in range(len(ports))
            if one != other
        }
        self._flows: dict[tuple[Host, int], Flow] = {}
        self._viewer_link = LinkShape()
        self._home = HOME
        self._due: list[tuple[float, int, Way]] = []
        self._count = 0
        self._sweep_at = 0.0
        self._orders = b""
        self._ended = False
        for number, front in enumerate(self._fronts):
            self._selector.register(front, selectors.EVENT_READ, number)

    def run(self) -> None:
        """Pass on what comes, do what is ordered; returns when standard input ends."""
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
        os.set_blocking(sys.stdin.fileno(), False)
        while not self._ended:
            now = time.perf_counter()
            timeout = self._due[0][0] - now if self._due else SWEEP_S
            for key, _ in self._selector.select(max(0.0, timeout)):
                now = time.perf_counter()
                if key.data is None:
                    self._read_orders(now)
                elif isinstance(key.data, int):
                    self._take_front(key.data, now)
                else:
                    self._take_back(key.data, now)
            now = time.perf_counter()
            self._give(now)
            if now >= self._sweep_at:
                self._sweep(now)

    # --- Datagrams ---

    def _take_front(self, number: int, now: float) -> None:
        front = self._fronts[number]
        for data, source in _receive(front):
            other = self._numbers.get(source)
            if other is not None and other != number:
                way = self._ways[other, number]
                if len(data) >= MEDIA_BYTES:
                    way.media.append((now, len(data)))
                    if way.media[0][0] < now - MEDIA_WINDOW_S:
                        way.media_bytes(now)
            else:
                flow = self._flows.get((source, number)) or self._open(source, number)
                if flow is None:
                    continue
                flow.used_at = now
                way = flow.up
            self._put(way, data, now)

    def _take_back(self, flow: Flow, now: float) -> None:
        flow.used_at = now
        for data, _ in _receive(flow.back):
            self._put(flow.down, data, now)

    def _put(self, way: Way, data: bytes, now: float) -> None:
        narrow = way.narrow
        narrow.put(data, None, now)
        if not way.is_due and narrow.waiting:
            self._wait(way)

    def _wait(self, way: Way) -> None:
        way.is_due = True
        self._count += 1
        heapq.heappush(self._due, (way.narrow.next_at(), self._count, way))

    def _give(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, _, way = heapq.heappop(self._due)
            way.is_due = False
            for data, _ in way.narrow.take(now):
                # What the kernel does not take is lost, as on a network; a flow may be closed already.
                with contextlib.suppress(OSError):
                    way.via.sendto(data, way.to)
            if way.narrow.waiting:
                self._wait(way)

    def _way(self, shape: LinkShape, via: socket.socket, to: Host) -> Way:
        return Way(Narrow(shape, self._dice), via, to)

    # --- Those who are no relays ---

    def _open(self, source: Host, number: int) -> Flow | None:
        if len(self._flows) >= MAX_FLOWS:
            return None
        region = region_of(source[0], self._home)
        shape = to_viewers(region, RELAYS[number].region, self._viewer_link)
        back = _udp(source[0], 0)
        up = self._way(shape, back, self._relays[number])
        down = self._way(shape, self._fronts[number], source)
        flow = Flow(back, up, down, region, number, time.perf_counter())
        self._flows[source, number] = flow
        self._selector.register(back, selectors.EVENT_READ, flow)
        return flow

    def _sweep(self, now: float) -> None:
        self._sweep_at = now + SWEEP_S
        for key, flow in [(key, flow) for key, flow in self._flows.items() if flow.used_at < now - FLOW_IDLE_S]:
            self._selector.unregister(flow.back)
            flow.back.close()
            del self._flows[key]

    # --- Orders ---

    def _read_orders(self, now: float) -> None:
        data = os.read(sys.stdin.fileno(), 65_536)
        if not data:
            self._ended = True
        self._orders += data
        *lines, self._orders = self._orders.split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "media" in order:
                done = {"kind": "media", "ways": self._media(now)}
            elif "home" in order:
                self._home = order["home"]
                done = {"kind": "home", "node": self._home}
            else:
                changed = self._link_viewers(order) if "viewers" in order else self._change_way(order, now)
                done = {"kind": "fault", **changed}
            _say({"order": order["order"], "at": now, **done})

    def _media(self, now: float) -> list[tuple[str, str, int]]:
        """Every direction between relays, and how much media wanted through there within the last second."""
        return [(RELAYS[one].id, RELAYS[other].id, way.media_bytes(now)) for (one, other), way in self._ways.items()]

    def _link_viewers(self, order: dict[str, Any]) -> dict[str, Any]:
        self._viewer_link = LinkShape(*order["viewers"])
        for flow in self._flows.values():
            shape = to_viewers(flow.region, RELAYS[flow.relay].region, self._viewer_link)
            flow.up.narrow.shape = flow.down.narrow.shape = shape
        return {"what": "link", "node": "viewers"}

    def _change_way(self, order: dict[str, Any], now: float) -> dict[str, Any]:
        """One direction loses more or less; says how much media it had just before."""
        names = [spot.id for spot in RELAYS]
        one, other = names.index(order["from"]), names.index(order["to"])
        way = self._ways[one, other]
        shape = between_relays(RELAYS[one].region, RELAYS[other].region)
        loss = shape.loss_ratio if order["loss"] is None else float(order["loss"])
        way.narrow.shape = LinkShape(shape.rate_bit_per_s, loss, shape.delay_s)
        what = "heal" if order["loss"] is None else "loss"
        names_and_loss = {"node": order["from"], "to": order["to"], "loss": loss}
        return {"what": what, **names_and_loss, "media_bytes": way.media_bytes(now)}


def _udp(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    made.bind((host, port))
    return made


def _receive(front: socket.socket) -> list[tuple[bytes, Host]]:
    batch: list[tuple[bytes, Host]] = []
    # A full batch leaves the rest for the next round; errors are answers to what was sent to somebody who is gone.
    with contextlib.suppress(OSError):
        while len(batch) < BATCH:
            batch.append(front.recvfrom(MAX_DATAGRAM))
    return batch


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run `python -m control.demo.network SEED RELAY_PORT FRONT_PORT...`."""
    seed, relay_port, *ports = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Whoever started this ends it by closing standard input.
    network = Network(ports, relay_port, seed)
    _say({"kind": "ready", "at": time.perf_counter()})
    network.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
