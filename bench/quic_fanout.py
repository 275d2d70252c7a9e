"""Cost of sending media to many connections, against bare aioquic under the same load in the same run.

    python -m bench.quic_fanout [--connections 100] [--ticks 60]

Server CPU only (writes, packets out, acknowledgements in, timers), in memory, on a virtual clock: each tick every
connection gets either ten 1,200-byte datagrams or one 20 kB object on a stream of its own; receivers are aioquic
clients that acknowledge a burst once. The congestion window is opened wide on both sides, so that packets are
measured and not waiting. Prints microseconds a packet and the ratio.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import pull_quic_header
from aioquic.tls import CipherSuite

from tests.quic.certificates import CERTIFICATE
from tradewind.quic.config import Address, Limits, QuicSettings
from tradewind.quic.connection import Connection
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Opened

SERVER = ("192.0.2.1", 443)
TICK_S = 1 / 30
PACKETS_A_TICK = 10
DATAGRAM = bytes(1200)
OBJECT = bytes(20_000)
WIDE = 1 << 20
Batch: TypeAlias = list[tuple[bytes, tuple[str, int]]]


def client_configuration() -> QuicConfiguration:
    return QuicConfiguration(
        is_client=True,
        alpn_protocols=["moqt-20"],
        verify_mode=0,
        max_datagram_frame_size=65536,
        max_datagram_size=1232,
        cipher_suites=[CipherSuite.AES_128_GCM_SHA256],
        max_data=1 << 40,
        max_stream_data=1 << 30,
    )


@dataclass
class Timer:
    """Adds up process time of what runs inside it."""

    total_ns: int = 0
    started: int = 0

    def __enter__(self) -> None:
        self.started = time.process_time_ns()

    def __exit__(self, *exc: object) -> None:
        self.total_ns += time.process_time_ns() - self.started


class Receivers:
    """N aioquic clients: they decrypt, acknowledge once a burst, and give stream credit."""

    def __init__(self, count: int) -> None:
        self.by_address = {}
        for number in range(count):
            connection = QuicConnection(configuration=client_configuration())
            # aioquic never lets a peer open more than 128 streams ahead.
            connection._local_max_streams_uni.value = 1 << 20
            self.by_address[f"10.0.{number >> 8}.{number & 255}", 1] = connection

    def connect(self, now: float) -> None:
        for connection in self.by_address.values():
            connection.connect(SERVER, now)

    def receive(self, address: tuple[str, int], datagrams: list[bytes], now: float) -> None:
        connection = self.by_address[address]
        for data in datagrams:
            connection.receive_datagram(data, SERVER, now)
        while connection.next_event() is not None:
            pass

    def send(self, now: float) -> list[tuple[bytes, tuple[str, int]]]:
        batch = []
        for address, connection in self.by_address.items():
            timer = connection.get_timer()
            if timer is not None and timer <= now:
                connection.handle_timer(now)
            batch += [(data, address) for data, _ in connection.datagrams_to_send(now)]
        return batch


class Ours:
    """Our endpoint."""

    def __init__(self) -> None:
        self.endpoint = Endpoint(
            QuicSettings(
                protocols=("moqt-20",),
                certificate=CERTIFICATE,
                congestion_control="reno",
                limits=Limits(
                    pending_handshakes_per_address=10_000, retry_above_pending=10_000, pending_handshakes=10_000
                ),
            )
        )
        self.connections: list[Connection] = []

    def receive(self, batch: Batch, now: float) -> None:
        events = self.endpoint.receive_datagrams(batch, now, new_handshakes=10_000)
        self.connections += [event.connection for event in events if isinstance(event, Opened)]
        self.endpoint.handle_deadline(now)

    def widen(self) -> None:
        for connection in self.connections:
            connection._core._loss._cc.congestion_window = WIDE

    def datagrams(self, now: float) -> None:
        for connection in self.connections:
            for _ in range(PACKETS_A_TICK):
                connection.datagram((DATAGRAM,), now + 1)

    def objects(self, now: float) -> None:
        for connection in self.connections:
            stream = connection.open_uni()
            assert stream is not None
            connection.offer(stream, (OBJECT,), True)

    def send(self, now: float) -> list[tuple[Address, list[bytes]]]:
        batches = self.endpoint.datagrams_to_send(now)
        self.endpoint.next_deadline()
        return batches


class Bare:
    """aioquic alone, driven as directly as it can be."""

    def __init__(self) -> None:
        self.configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=["moqt-20"],
            max_datagram_frame_size=65536,
            max_datagram_size=1232,
            cipher_suites=[CipherSuite.AES_128_GCM_SHA256],
        )
        self.configuration.certificate = CERTIFICATE.chain[0]
        self.configuration.certificate_chain = list(CERTIFICATE.chain[1:])
        self.configuration.private_key = CERTIFICATE.key
        self.connections: dict[tuple[str, int], QuicConnection] = {}

    def receive(self, batch: Batch, now: float) -> None:
        for data, address in batch:
            connection = self.connections.get(address)
            if connection is None:
                header = pull_quic_header(Buffer(data=data), host_cid_length=8)
                connection = self.connections[address] = QuicConnection(
                    configuration=self.configuration, original_destination_connection_id=header.destination_cid
                )
            connection.receive_datagram(data, address, now)
            while connection.next_event() is not None:
                pass
        for connection in self.connections.values():
            timer = connection.get_timer()
            if timer is not None and timer <= now:
                connection.handle_timer(now)

    def widen(self) -> None:
        for connection in self.connections.values():
            connection._loss._cc.congestion_window = WIDE

    def datagrams(self, now: float) -> None:
        for connection in self.connections.values():
            for _ in range(PACKETS_A_TICK):
                connection.send_datagram_frame(DATAGRAM)

    def objects(self, now: float) -> None:
        for connection in self.connections.values():
            stream = connection.get_next_available_stream_id(is_unidirectional=True)
            connection.send_stream_data(stream, OBJECT, end_stream=True)

    def send(self, now: float) -> list[tuple[Address, list[bytes]]]:
        batches = []
        for address, connection in self.connections.items():
            datagrams = [data for data, _ in connection.datagrams_to_send(now)]
            connection.get_timer()
            if datagrams:
                batches.append((address, datagrams))
        return batches


def measure(make: Callable[[], Ours | Bare], load: str, count: int, ticks: int) -> tuple[float, float]:
    """Run one server under one load: (microseconds a packet, packets a tick and connection)."""
    server, receivers, timer = make(), Receivers(count), Timer()
    now, packets, timed = 1.0, 0, Timer()
    receivers.connect(now)
    for tick in range(ticks + 6):
        loaded = tick >= 5
        timer = timed if tick >= 6 else Timer()
        if loaded:
            with timer:
                getattr(server, load)(now)
        for _ in range(6):
            with timer:
                batches = server.send(now)
            for address, datagrams in batches:
                packets += len(datagrams) if tick >= 6 else 0
                receivers.receive(address, datagrams, now)
            now += 0.002
            batch = receivers.send(now)
            with timer:
                server.receive(batch, now)
        server.widen()
        now += TICK_S
    return timed.total_ns / 1000 / packets, packets / ticks / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--ticks", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for load in ("datagrams", "objects"):
        results: dict[str, list[float]] = {"Bare": [], "Ours": []}
        for _ in range(options.repeats):
            for make in (Bare, Ours):
                gc.collect()
                cost, rate = measure(make, load, options.connections, options.ticks)
                results[make.__name__].append(cost)
        bare, ours = statistics.median(results["Bare"]), statistics.median(results["Ours"])
        print(
            f"{load:10} aioquic {bare:6.2f} us/packet  ours {ours:6.2f} us/packet  ratio {ours / bare:.2f}"
            f"  ({rate:.1f} packets a tick and connection)"
        )


if __name__ == "__main__":
    main()
