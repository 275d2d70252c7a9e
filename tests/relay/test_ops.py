"""HTTP for operators and players: right answers, and a listener that slow, rude or many clients cannot hold up."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from relay.metrics import Metrics
from relay.ops import LAG_PERIOD_S, Views, listen, measure_lag, ops_server, public_server, versions
from tradewind.http1 import HttpLimits, HttpServer, Request, Response
from tradewind.metering import Histogram
from tradewind.settings.values import Address


def views(not_ready: str | None = None) -> Views:
    return Views(lambda: not_ready, lambda: {"sessions": 3}, {"tradewind": "1"}, Metrics())


async def ask(server: HttpServer, *requests: bytes) -> bytes:
    """Everything the server says to these requests on one connection."""
    client, stream = memory_stream_pair()
    said = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, stream)
        # It may have closed the connection already, having said why.
        with contextlib.suppress(trio.BrokenResourceError):
            for request in requests:
                await client.send_all(request)
        await client.send_stream.aclose()
        async for data in client:
            said += data
    return said


def get(path: str, method: str = "GET", headers: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()


def status(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


def body(said: bytes) -> bytes:
    return said.partition(b"\r\n\r\n")[2]


async def test_liveness_and_readiness_are_two_things() -> None:
    ready, draining = ops_server(views()), ops_server(views("draining"))
    assert body(await ask(ready, get("/livez"))) == body(await ask(ready, get("/readyz"))) == b"ok\n"
    assert status(await ask(draining, get("/livez"))) == 200
    said = await ask(draining, get("/readyz"))
    assert (status(said), body(said)) == (503, b"draining\n")


async def test_metrics_come_as_they_are_asked_for() -> None:
    said = await ask(ops_server(views()), get("/metrics"))
    assert b"tradewind_sessions_opened_total" in said
    assert b"process_resident_memory_bytes" in said
    said = await ask(ops_server(views()), get("/metrics", headers="Accept: application/openmetrics-text\r\n"))
    assert b"application/openmetrics-text" in said
    assert said.endswith(b"# EOF\n")


async def test_state_and_version_are_json() -> None:
    assert json.loads(body(await ask(ops_server(views()), get("/state?pretty")))) == {"sessions": 3}
    assert json.loads(body(await ask(ops_server(views()), get("/version")))) == {"tradewind": "1"}
    assert set(versions()) == {"python", "tradewind", "aioquic", "trio"}


async def test_players_of_any_origin_learn_the_hash() -> None:
    server = public_server(lambda: "ab" * 32)
    said = await ask(server, get("/certificate.sha256", headers="Origin: https://player.example\r\n"))
    assert body(said) == b"ab" * 32
    assert b"Access-Control-Allow-Origin: *" in said
    assert status(await ask(server, get("/certificate.sha256", "OPTIONS"))) == 204
    for path in ("/", "/metrics", "/state"):
        assert status(await ask(server, get(path))) == 404


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (get("/nothing"), 404),
        (get("/livez", "POST"), 405),
        (get("/livez", "GET", "Content-Length: 3\r\n") + b"abc", 413),
        (get("/livez", "GET", "Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n", 413),
        (b"GET /livez\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00rubbish\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (get("/" + "x" * 20_000), 431),
        (get("/livez", headers="X: " + "y" * 20_000 + "\r\n"), 431),
    ],
)
async def test_what_is_not_a_question(request_: bytes, expected: int) -> None:
    server = ops_server(views())
    said = await ask(server, request_)
    assert status(said) == expected
    assert server.statistics.open == 0
    assert status(await ask(server, get("/livez"))) == 200


async def test_a_head_has_no_body() -> None:
    said = await ask(ops_server(views()), get("/livez", "HEAD"))
    assert b"Content-Length: 3" in said
    assert body(said) == b""


async def test_a_connection_serves_several_and_then_ends() -> None:
    server = HttpServer(ops_server(views()).handler, HttpLimits(requests=3))
    said = await ask(server, *[get("/livez")] * 5)
    assert said.count(b"HTTP/1.1 200") == 3
    assert said.count(b"Connection: close") == 1


async def test_a_view_that_fails_fails_alone() -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError("secret detail")

    server = ops_server(replace(views(), state=broken))
    said = await ask(server, get("/state"), get("/livez"))
    assert status(said) == 500
    assert b"secret" not in said
    assert b"HTTP/1.1 200" in said


async def test_slow_askers_are_let_go(autojump_clock: MockClock) -> None:
    server = HttpServer(ops_server(views()).handler, HttpLimits(read_s=5.0))
    async with trio.open_nursery() as nursery:
        idle, stream = memory_stream_pair()
        nursery.start_soon(server.serve_connection, stream)
        dripping, stream = memory_stream_pair()
        nursery.start_soon(server.serve_connection, stream)
        letters = iter(get("/livez"))
        with contextlib.suppress(trio.BrokenResourceError):
            for letter in letters:
                await dripping.send_all(bytes([letter]))
                await trio.sleep(1.0)
        assert next(letters, None) is not None
        assert trio.current_time() <= 7.0
        assert await idle.receive_some() == b""
    assert server.statistics.timed_out == 2
    assert server.statistics.open == 0


class NeverReads(trio.abc.Stream):
    """A peer that asks and never reads: sending to it waits for ever."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        request, self._request = self._request, b""
        return request

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.sleep_forever()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


async def test_whoever_does_not_read_the_answer_is_let_go(autojump_clock: MockClock) -> None:
    server = HttpServer(ops_server(views()).handler, HttpLimits(write_s=5.0))
    peer = NeverReads(get("/livez"))
    await server.serve_connection(peer)
    assert trio.current_time() == 5.0
    assert peer.closed
    assert server.statistics.timed_out == 1


async def test_too_many_connections_are_closed_as_they_come(autojump_clock: MockClock) -> None:
    server = HttpServer(ops_server(views()).handler, HttpLimits(connections=2, read_s=5.0))
    async with trio.open_nursery() as nursery:
        clients = []
        for _ in range(3):
            client, stream = memory_stream_pair()
            clients.append(client)
            nursery.start_soon(server.serve_connection, stream)
            await trio.testing.wait_all_tasks_blocked()
        assert await clients[2].receive_some() == b""
        assert server.statistics.refused == 1
        await clients[0].send_all(get("/livez"))
        assert b"200" in await clients[0].receive_some()
    assert status(await ask(server, get("/livez"))) == 200


async def test_a_reset_is_nothing_special() -> None:
    _, stream = memory_stream_pair()

    async def break_it() -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    stream.receive_stream.receive_some_hook = break_it
    server = ops_server(views())
    await server.serve_connection(stream)
    assert server.statistics.open == 0


@given(st.lists(st.binary(max_size=64) | st.sampled_from([get("/livez"), b"GET ", b"\r\n\r\n"]), max_size=6))
@settings(max_examples=50)
def test_any_bytes_are_answered_or_dropped(pieces: list[bytes]) -> None:
    server = ops_server(views())

    async def main() -> None:
        await ask(server, *pieces)

    trio.run(main)
    assert server.statistics.open == 0


async def test_over_a_real_socket() -> None:
    (listener,) = await listen([Address("127.0.0.1", 0)])
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ops_server(views()).serve, [listener])
        client = await trio.open_tcp_stream("127.0.0.1", port)
        async with client:
            await client.send_all(get("/livez"))
            assert b"ok" in await client.receive_some()
        nursery.cancel_scope.cancel()


async def test_a_port_that_is_taken_is_an_os_error() -> None:
    (listener,) = await listen([Address("127.0.0.1", 0)])
    async with listener:
        with pytest.raises(OSError, match="in use"):
            await listen([Address("127.0.0.1", listener.socket.getsockname()[1])])


async def test_lag_is_measured(autojump_clock: MockClock) -> None:
    lag = Histogram((0.001, 1.0))
    with trio.move_on_after(10 * LAG_PERIOD_S + 0.1):
        await measure_lag(lag)
    assert sum(lag.counts) == 10
    assert lag.counts[0] == 10


async def test_handlers_see_what_was_asked() -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response()

    await ask(HttpServer(handler), get("/a?b=c", headers="Accept: x\r\n"))
    assert seen == [Request("GET", "/a", {"host": "localhost", "accept": "x"}, "b=c")]
