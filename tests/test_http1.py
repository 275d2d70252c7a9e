"""The short way of plain requests against h11's: the same is seen and the same is said, whatever comes."""

from __future__ import annotations

import contextlib
from http import HTTPStatus

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from tradewind import http1
from tradewind.http1 import HttpLimits, HttpServer, Request, Response

TARGETS = st.sampled_from(["/", "/v1/place?jwt=x.y-z_&rtt=fra:1", "/a%20b?c=%C3%A4&&=", "*", "/a b", "/ä"])
PIPELINED = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"
LINES = st.sampled_from(
    [
        *(
            "Host: here",
            "HOST:there",
            "Accept: */*",
            "X-A:",
            "X-A:  two  words ",
            "x-a: again",
            "Connection: keep-alive",
        ),
        *("Connection: close", "Connection: Keep-Alive, Upgrade", "Upgrade: websocket", "Expect: 100-continue"),
        *(
            "Content-Length: 0",
            "Content-Length: 3",
            "Transfer-Encoding: chunked",
            "Bad Name: 1",
            "Tab:\tone",
            " folded",
        ),
        *("X-B: \x7f", "X-C: ä", ": none", "no colon", "Authorization: Bearer a.b.c", "X-D: a\x00b"),
    ]
)
REQUESTS = st.builds(
    lambda method, target, version, lines: "\r\n".join([f"{method} {target} {version}", *lines, "", ""]).encode(
        "latin-1"
    ),
    st.sampled_from(["GET", "HEAD", "OPTIONS", "POST", "get", "PRI"]),
    TARGETS,
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0"]),
    st.lists(LINES, max_size=5).map(lambda lines: ["Host: here", *lines] if len(lines) % 2 else lines),
)


class Seen:
    """A server that remembers what it was asked."""

    def __init__(self, limits: HttpLimits) -> None:
        self.asked: list[Request] = []
        self.server = HttpServer(self._answer, limits)

    async def _answer(self, request: Request) -> Response:
        self.asked.append(request)
        return Response(b"well\n", HTTPStatus.ACCEPTED, "text/x", (("X-One", "1"), ("Retry-After", "3")))


async def talk(server: HttpServer, pieces: list[bytes]) -> bytes:
    client, stream = memory_stream_pair()
    said = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, stream)
        with contextlib.suppress(trio.BrokenResourceError):
            for piece in pieces:
                await client.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
        await client.send_stream.aclose()
        async for data in client:
            said += data
    return said


def both(requests: list[bytes], limits: HttpLimits) -> None:
    """Whole requests may go the short way; in two pieces each they cannot."""
    short, long = Seen(limits), Seen(limits)
    said = trio.run(talk, short.server, requests)
    pieces = [piece for request in requests for piece in (request[:7], request[7:])]
    assert trio.run(talk, long.server, pieces) == said
    assert short.asked == long.asked
    assert short.server.statistics == long.server.statistics


@given(st.lists(REQUESTS, min_size=1, max_size=3), st.sampled_from([1, 2, 100]))
@example([b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"], 1)
@example([b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"], 9)
@example(
    [b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /c HTTP/1.1\r\nHost: a\r\n\r\n"], 9
)
@example([b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"GET /c HTTP/1.1\r\nHost: a\r\n\r\n"], 9)
def test_both_ways_say_the_same(requests: list[bytes], most: int) -> None:
    both(requests, HttpLimits(requests=most, body_bytes=16))


def test_plain_requests_do_go_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(http1, "_next_request")
    seen = Seen(HttpLimits())
    plain = b"GET /v1/place?a=b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n"
    said = trio.run(talk, seen.server, [plain, plain.replace(b"GET", b"HEAD")])
    assert said.count(b"HTTP/1.1 202 Accepted\r\n") == 2 and said.count(b"well\n") == 1
    assert seen.asked[0].query == "a=b" and seen.asked[0].headers["accept"] == "*/*"


@pytest.mark.parametrize(
    "hostile",
    [b"a:" + b" " * 16_000, b"a: " + b"b " * 8_000 + b"\x01", b"a: b\r\n" * 2_600 + b"x", b"a" * 16_000],
)
def test_no_bytes_take_long_to_be_refused(hostile: bytes) -> None:
    """Steps, not time: the pattern has no two ways through a line, so that it cannot try them all."""
    data = b"GET / HTTP/1.1\r\n" + hostile
    assert http1._plain_request(data, 32_768, http1._Peer("")) is None


async def test_a_refused_head_has_no_body_and_ends_nothing_else() -> None:
    seen = Seen(HttpLimits())
    said = await talk(seen.server, [b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"])
    assert said.startswith(b"HTTP/1.1 413 ") and said.endswith(b"\r\n\r\n") and not seen.asked


def test_a_header_of_ours_has_one_line() -> None:
    with pytest.raises(ValueError, match="line's end"):
        http1._plain_response(Response(headers=(("X", "a\r\nb: c"),)), head=False, last=False)
