"""The flows of `bench.longhaul` over real UDP: receiver, shaper and senders in processes of their own, on loopback.

`measure` starts them and puts together what they say; each says it as a line of JSON. A run in which the shaper itself
passed packets on late says nothing about the controller: it is void. They are started as
`python -m bench.real_haul receive|shape|send JSON`.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import trio

from bench.haul import Path, quantile
from control.demo.shaper import LinkShape, Narrow, Shaper
from tests.quic.certificates import CERTIFICATE
from tradewind.quic.config import QuicSettings, ServerTrust
from tradewind.quic.connection import Connection
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Event, Opened, StreamData
from tradewind.quic.udp import UdpSocket

HOST = "127.0.0.1"
OBJECT_BYTES = 20_000
LATE_S = 0.020


@dataclass(frozen=True, slots=True)
class RealRun:
    """One run: each flow's part of the bottleneck, the queue, and whether the shaper kept its times."""

    parts: tuple[float, ...]
    queue_p50_s: float
    queue_p95_s: float
    late_p99_s: float

    @property
    def void(self) -> bool:
        """Whether the machine was too busy for this to count."""
        return self.late_p99_s > LATE_S


@dataclass(slots=True)
class Watched(Narrow):
    """One direction that writes down how long packets waited in it, and how late it was asked for them."""

    waits_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)

    def put(self, data: bytes, where: Any, now: float) -> None:
        self.waits_s.append(max(self.free_at - now, 0.0))
        Narrow.put(self, data, where, now)

    def take(self, now: float) -> list[tuple[bytes, Any]]:
        self.late_s += [now - due for due, _, _ in _until(self, now)]
        return Narrow.take(self, now)


def measure(path: Path, controllers: Sequence[str], warm_up_s: float, seconds: float) -> RealRun:
    """Run flows with these controllers beside each other. Raises RuntimeError where a process fails."""
    told = {"path": asdict(path), "controllers": list(controllers), "warm_up_s": warm_up_s, "seconds": seconds}
    started: list[subprocess.Popen[str]] = []
    try:
        receiver = _start("receive", told, started)
        shaper = _start("shape", told | {"port": _line(receiver)["port"]}, started)
        _start("send", told | {"port": _line(shaper)["port"]}, started)
        _line(receiver)
        _say(shaper, "mark")
        had = _line(receiver)["bytes"]
        _say(shaper, "report")
        watched = _line(shaper)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    parts = tuple(had[str(number)] * 8 / seconds / path.rate_bit_per_s for number in range(len(controllers)))
    return RealRun(parts, watched["queue_p50_s"], watched["queue_p95_s"], watched["late_p99_s"])


def main(arguments: Sequence[str]) -> None:
    """Be one of the processes."""
    role, told = arguments[0], json.loads(arguments[1])
    trio.run({"receive": _receive, "shape": _shape, "send": _send}[role], told)


async def _receive(told: dict[str, Any]) -> None:
    """Count each flow's bytes; the first byte of a piece says whose it is."""
    had = dict.fromkeys(range(len(told["controllers"])), 0)
    settings = QuicSettings(protocols=("moqt-20",), certificate=CERTIFICATE)
    sock = UdpSocket(HOST)
    opened = trio.Event()

    def heed(events: Sequence[Event], _: float) -> None:
        for event in events:
            if isinstance(event, Opened):
                opened.set()
            elif isinstance(event, StreamData) and event.data:
                had[event.data[0]] += len(event.data)
                event.connection.consumed(event.stream, len(event.data))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_drive, Endpoint(settings), sock, heed)
        _tell({"port": sock.address[1]})
        await opened.wait()
        await trio.sleep(told["warm_up_s"])
        before = dict(had)
        _tell({"warm": True})
        await trio.sleep(told["seconds"])
        _tell({"bytes": {number: had[number] - before[number] for number in had}})
        await trio.sleep_forever()


async def _send(told: dict[str, Any]) -> None:
    """Always have more, on a connection for each controller."""
    async with trio.open_nursery() as nursery:
        for number, controller in enumerate(told["controllers"]):
            settings = QuicSettings(
                protocols=("moqt-20",), trust=ServerTrust(verify=False), congestion_control=controller
            )
            endpoint, sock = Endpoint(settings, is_client=True), UdpSocket(HOST)
            where = (HOST, told["port"])
            connection = endpoint.connect(where, trio.current_time(), server_name="relay.test")
            nursery.start_soon(_drive, endpoint, sock, _Supply(connection, bytes([number]) * OBJECT_BYTES))


async def _shape(told: dict[str, Any]) -> None:
    path, dice = Path(**told["path"]), random.Random()
    shape = LinkShape(path.rate_bit_per_s, path.loss_ratio, path.rtt_s / 2)
    up = Watched(shape, dice, queue_s=path.queue_s)
    down = Watched(replace(shape, rate_bit_per_s=None, loss_ratio=0.0), dice)
    shaper = Shaper((HOST, told["port"]), shape, up=up, down=down)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shaper.run)
        _tell({"port": shaper.port})
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            if line.strip() == "mark":
                for way in (up, down):
                    way.waits_s.clear()
                    way.late_s.clear()
            else:
                late = quantile(up.late_s + down.late_s, 0.99)
                queue = {"queue_p50_s": quantile(up.waits_s, 0.5), "queue_p95_s": quantile(up.waits_s, 0.95)}
                _tell(queue | {"late_p99_s": late})
        nursery.cancel_scope.cancel()


@dataclass(slots=True)
class _Supply:
    """Hands over objects as the connection takes them."""

    connection: Connection
    payload: bytes
    opened: bool = False

    def __call__(self, events: Sequence[Event], now: float) -> None:
        connection = self.connection
        self.opened = self.opened or any(isinstance(event, Opened) for event in events)
        while self.opened and connection.writable_bytes(now) > 0:
            stream = connection.open_uni()
            if stream is None:
                return
            connection.offer(stream, (self.payload,), True)


async def _drive(endpoint: Endpoint, sock: UdpSocket, heed: Any) -> None:
    """A socket's loop: take, act, send, wait."""
    while True:
        now = trio.current_time()
        heed(endpoint.receive_datagrams(sock.receive(), now), now)
        due = endpoint.next_deadline()
        if due is not None and due <= now:
            heed(endpoint.handle_deadline(now), now)
        while batches := endpoint.datagrams_to_send(now):
            sock.send(batches)
            heed((), now)
        due = endpoint.next_deadline()
        with trio.move_on_at(float("inf") if due is None else due):
            await sock.wait_readable()


def _until(narrow: Narrow, now: float) -> list[tuple[float, bytes, Any]]:
    found = []
    for entry in narrow.waiting:
        if entry[0] > now:
            break
        found.append(entry)
    return found


def _start(role: str, told: dict[str, Any], started: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.real_haul", role, json.dumps(told)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    started.append(process)
    return process


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended without a word")
    told: dict[str, Any] = json.loads(line)
    return told


def _say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


def _tell(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
