"""Fan-out with aioquic and nothing else: the yardstick for what the relay adds, or saves.

    python -m bench.bare HOST PORT CERTIFICATE KEY

Whoever connects with ALPN `fan-in` is the publisher; whatever it sends, by datagram or on a stream, goes as it is to
everybody who connected with `fan-out`. One process, one socket, no event loop between aioquic and the kernel: one wait,
one timer, `sendto` for each packet. The congestion controller is aioquic's default.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from heapq import heappop, heappush
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic import events as q
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from aioquic.tls import CipherSuite

from tradewind.quic.udp import SOCKET_BUFFER_BYTES

IN, OUT = "fan-in", "fan-out"
DATAGRAM_BYTES = 1232
CID_BYTES = 8
BATCH = 64
Address = tuple[Any, ...]


class Served:
    """One connection, and the streams that carry on what the publisher's do."""

    def __init__(self, quic: QuicConnection, address: Address) -> None:
        self.quic = quic
        self.address = address
        self.copies: dict[int, int] = {}
        """The publisher's stream: ours."""
        self.armed = float("inf")


class BareServer:
    """All connections of one socket."""

    def __init__(self, host: str, port: int, configuration: QuicConfiguration) -> None:
        self._configuration = configuration
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self._socket.bind((host, port))
        self._routes: dict[bytes, Served] = {}
        self._audience: dict[int, Served] = {}
        self._timers: list[tuple[float, int, Served]] = []
        self._count = 0

    def serve(self) -> None:
        """For ever."""
        poll = select.epoll()
        poll.register(self._socket.fileno(), select.EPOLLIN)
        while True:
            wait = max(self._timers[0][0] - time.monotonic(), 0.0) if self._timers else -1.0
            poll.poll(wait)
            touched = self._receive(time.monotonic())
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                _, _, served = heappop(self._timers)
                served.armed = float("inf")
                timer = served.quic.get_timer()
                if timer is not None and timer <= now:
                    served.quic.handle_timer(now)
                touched[id(served)] = served
            for served in touched.values():
                self._flush(served, now)

    def _receive(self, now: float) -> dict[int, Served]:
        touched: dict[int, Served] = {}
        with contextlib.suppress(BlockingIOError):
            for _ in range(BATCH):
                data, address = self._socket.recvfrom(4096)
                served = self._routes.get(data[1:9]) if not data[0] & 0x80 else self._long(data, address)
                if served is not None:
                    served.quic.receive_datagram(data, address, now)
                    touched[id(served)] = served
                    self._drain(served, touched)
        return touched

    def _long(self, data: bytes, address: Address) -> Served | None:
        header = pull_quic_header(Buffer(data=data), host_cid_length=CID_BYTES)
        served = self._routes.get(header.destination_cid)
        if served is None and header.packet_type == QuicPacketType.INITIAL:
            quic = QuicConnection(
                configuration=self._configuration, original_destination_connection_id=header.destination_cid
            )
            quic._local_max_streams_uni.value = quic._local_max_streams_uni.sent = 1 << 20
            served = Served(quic, address)
            self._routes[header.destination_cid] = self._routes[quic.host_cid] = served
        return served

    def _drain(self, served: Served, touched: dict[int, Served]) -> None:
        while (event := served.quic.next_event()) is not None:
            if isinstance(event, q.HandshakeCompleted):
                if event.alpn_protocol == OUT:
                    self._audience[id(served)] = served
            elif isinstance(event, q.ConnectionIdIssued):
                self._routes[event.connection_id] = served
            elif isinstance(event, q.ConnectionIdRetired):
                self._routes.pop(event.connection_id, None)
            elif isinstance(event, q.ConnectionTerminated):
                self._audience.pop(id(served), None)
            elif isinstance(event, q.DatagramFrameReceived):
                for viewer in self._audience.values():
                    viewer.quic.send_datagram_frame(event.data)
                touched.update(self._audience)
            elif isinstance(event, q.StreamDataReceived) and event.stream_id & 2:
                self._pass_on(event)
                touched.update(self._audience)

    def _pass_on(self, event: q.StreamDataReceived) -> None:
        for viewer in self._audience.values():
            stream = viewer.copies.get(event.stream_id)
            if stream is None:
                stream = viewer.quic.get_next_available_stream_id(is_unidirectional=True)
                viewer.copies[event.stream_id] = stream
            viewer.quic.send_stream_data(stream, event.data, event.end_stream)
            if event.end_stream:
                del viewer.copies[event.stream_id]

    def _flush(self, served: Served, now: float) -> None:
        for data, address in served.quic.datagrams_to_send(now):
            with contextlib.suppress(BlockingIOError):
                self._socket.sendto(data, address)
        timer = served.quic.get_timer()
        if timer is not None and timer < served.armed:
            served.armed = timer
            self._count += 1
            heappush(self._timers, (timer, self._count, served))


def main(arguments: list[str]) -> None:
    host, port, certificate, key = arguments
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=[IN, OUT],
        cipher_suites=[CipherSuite.AES_128_GCM_SHA256],
        max_datagram_frame_size=65536,
        max_datagram_size=DATAGRAM_BYTES,
        max_data=1 << 30,
        max_stream_data=1 << 24,
    )
    configuration.load_cert_chain(certificate, key)
    BareServer(host, int(port), configuration).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
