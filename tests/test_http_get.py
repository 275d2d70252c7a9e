"""One GET: what is sent, what is taken, and what whatever answers may not do."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
import trio
import trustme

from tradewind.http1 import HttpServer, Request, Response
from tradewind.http_get import MAX_BODY_BYTES, GetFailed, Got, get


@asynccontextmanager
async def server(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, list[Request]]]:
    asked: list[Request] = []

    async def answer(request: Request) -> Response:
        asked.append(request)
        found = request.path != "/gone"
        return Response(b"here" * 10_000, HTTPStatus.OK if found else HTTPStatus.NOT_FOUND)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HttpServer(answer, tls=tls).serve, [listener])
        scheme = "https" if tls is not None else "http"
        yield f"{scheme}://127.0.0.1:{listener.socket.getsockname()[1]}", asked
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def saying(*said: bytes, stays: bool = False) -> AsyncIterator[str]:
    """Something that says this, whatever it is asked."""

    async def talk(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        for part in said:
            try:
                await stream.send_all(part)
            except trio.BrokenResourceError:
                return
        if stays:
            await trio.sleep_forever()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, talk, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


async def test_what_is_asked_and_answered() -> None:
    async with server() as (base, asked):
        assert await get(f"{base}/v1/place?a=b%2Fc&d", timeout_s=5) == Got(200, b"here" * 10_000)
        assert (asked[0].path, asked[0].query) == ("/v1/place", "a=b%2Fc&d")
        assert asked[0].headers["host"] == base.removeprefix("http://")
        assert (await get(f"{base}/gone", timeout_s=5, source="127.10.2.1")).status == 404
        assert asked[1].address == "127.10.2.1"


async def test_over_tls_only_whom_we_trust() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with server(server_side) as (base, asked):
        assert (await get(base, timeout_s=5, tls=trusting)).status == 200
        with pytest.raises(GetFailed, match="certificate"):
            await get(base, timeout_s=5)
        assert len(asked) == 1


@pytest.mark.parametrize(
    "said",
    [
        (b"rubbish\r\n\r\n",),
        (b"",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 8),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * MAX_BODY_BYTES), b"x" * 2 * MAX_BODY_BYTES),
    ],
)
async def test_what_is_not_taken(said: tuple[bytes, ...]) -> None:
    with trio.fail_after(5):
        async with saying(*said) as url:
            with pytest.raises(GetFailed):
                await get(url, timeout_s=5)


async def test_chunks_and_a_hint_before() -> None:
    heads = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with saying(heads, b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n") as url:
        assert await get(url, timeout_s=5) == Got(200, b"abc")


async def test_who_is_slow_or_not_there() -> None:
    async with saying(b"HTTP/1.1 200 OK\r\n", stays=True) as url:
        with pytest.raises(GetFailed):
            await get(url, timeout_s=0.05)
    for url in ("ftp://127.0.0.1/", "http://127.0.0.1:99999/", "nothing", "http://127.0.0.1:1/", f"http://{'x' * 80}/"):
        with pytest.raises(GetFailed):
            await get(url, timeout_s=5)


async def test_the_query_is_not_told_where_it_fails() -> None:
    with pytest.raises(GetFailed) as told:
        await get("http://127.0.0.1:1/v1/place?jwt=SECRET", timeout_s=5)
    assert "SECRET" not in str(told.value)
