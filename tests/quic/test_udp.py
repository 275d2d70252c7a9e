"""The socket and whole connections over it, on both loopback addresses."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest
import trio

from tests.quic.pair import client_settings, server_settings
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Event, Opened, StreamData
from tradewind.quic.udp import UdpSocket

HOSTS = ["127.0.0.1", "::1"]


@pytest.fixture
def open_socket():
    opened: list[UdpSocket] = []

    def open_one(host: str, **options) -> UdpSocket:
        try:
            opened.append(UdpSocket(host, **options))
        except OSError:
            pytest.skip(f"no {host} here")
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


class Runner:
    """The smallest turn loop: what relay and client run do, without their work."""

    def __init__(self, endpoint: Endpoint, udp: UdpSocket) -> None:
        self.endpoint, self.udp = endpoint, udp
        self.events: list[Event] = []
        self.heard = trio.Event()

    async def run(self) -> None:
        while True:
            now = trio.current_time()
            self.events += self.endpoint.receive_datagrams(self.udp.receive(), now)
            self.events += self.endpoint.handle_deadline(now)
            self.turn(now)
            deadline = self.endpoint.next_deadline()
            with trio.move_on_at(now + 10 if deadline is None else deadline):
                await self.udp.wait_readable()

    def turn(self, now: float) -> None:
        self.udp.send(self.endpoint.datagrams_to_send(now))
        heard, self.heard = self.heard, trio.Event()
        heard.set()

    async def until(self, condition) -> None:
        with trio.fail_after(5):
            while not condition():
                await self.heard.wait()

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.mark.parametrize("host", HOSTS)
async def test_connection_over_loopback(host, open_socket):
    server_socket, client_socket = open_socket(host), open_socket(host)
    server = Runner(Endpoint(server_settings()), server_socket)
    client = Runner(Endpoint(client_settings(), is_client=True), client_socket)
    body = bytes(range(256)) * 400
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        connection = client.endpoint.connect((host, server_socket.address[1]), trio.current_time())
        nursery.start_soon(client.run)
        await client.until(lambda: client.told(Opened))
        stream = connection.open_uni()
        assert stream is not None
        connection.offer(stream, [body], True)
        client.turn(trio.current_time())
        await server.until(lambda: any(event.fin for event in server.told(StreamData)))
        nursery.cancel_scope.cancel()
    assert b"".join(event.data for event in server.told(StreamData)) == body
    assert server_socket.statistics().dropped_errors == client_socket.statistics().dropped_errors == 0


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("offload", [True, False])
def test_runs_arrive_whole_and_in_order(host, offload, open_socket):
    sender, receiver = open_socket(host, offload=offload), open_socket(host)
    sizes = [1200] * 70 + [300, 1200, 1200, 1300, 1]
    datagrams = [bytes([number]) * size for number, size in enumerate(sizes)]
    sender.send([(receiver.address, datagrams)])
    got = [data for data, _ in receiver.receive() + receiver.receive()]
    assert got == datagrams
    statistics = sender.statistics()
    assert statistics.datagrams_sent == len(datagrams)
    if statistics.segmentation_offload:
        assert statistics.send_calls < 10


def test_receive_takes_at_most_what_was_asked_and_is_empty_after(open_socket):
    sender, receiver = open_socket("127.0.0.1"), open_socket("127.0.0.1")
    sender.send([(receiver.address, [b"a", b"b", b"c"])])
    assert [data for data, _ in receiver.receive(2)] == [b"a", b"b"]
    assert [data for data, _ in receiver.receive(2)] == [b"c"]
    assert receiver.receive() == []


class FullSocket:
    """A kernel whose buffer takes only so many sends."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[bytes] = []

    def sendto(self, data: bytes, address) -> None:
        if not self.room:
            raise BlockingIOError
        self.room -= 1
        self.sent.append(data)

    def getsockopt(self, *what: int) -> bytes:
        raise OSError("it does not say")


def test_what_the_kernel_does_not_take_waits_in_order_and_is_bounded():
    udp = UdpSocket("127.0.0.1", offload=False, backlog_bytes=40)
    udp._socket.close()
    full = FullSocket(room=2)
    udp._socket = full  # type: ignore[assignment]
    udp.send([(("192.0.2.1", 1), [b"1" * 10, b"2" * 10, b"3" * 10]), (("192.0.2.2", 1), [b"4" * 10])])
    assert len(full.sent) == 2
    udp.send([(("192.0.2.2", 1), [b"5" * 10, b"6" * 10, b"7" * 10])])
    assert udp.statistics().dropped_backlog == 3
    full.room = 1
    udp.flush()
    assert full.sent[-1] == b"3" * 10
    full.room = 10
    udp.flush()
    assert [data[:1] for data in full.sent] == [b"1", b"2", b"3", b"4"]
    assert not udp.backlogged
    assert udp.statistics().backlog_bytes == 0


def test_a_refused_datagram_is_counted_and_the_rest_goes(open_socket):
    sender, receiver = open_socket("127.0.0.1"), open_socket("127.0.0.1")
    sender.send([(("127.0.0.1", 0), [b"no such port"]), (receiver.address, [b"fine"])])
    assert sender.statistics().dropped_errors == 1
    assert [data for data, _ in receiver.receive()] == [b"fine"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what it dropped")
def test_what_the_kernel_drops_is_counted(open_socket):
    sender, receiver = open_socket("127.0.0.1"), open_socket("127.0.0.1")
    receiver._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert receiver.statistics().receive_drops == 0
    sender.send([(receiver.address, [bytes(1000)] * 200)])
    came = len(receiver.receive(200))
    assert receiver.statistics().receive_drops == 200 - came > 0


def test_a_taken_port_raises(open_socket):
    first = open_socket("127.0.0.1")
    with pytest.raises(OSError, match="in use"):
        UdpSocket("127.0.0.1", first.address[1])
