"""EDGE: a small HTTP/1.1 server for a few endpoints, on h11.

`relay.ops` answers operators and players with it, `control.web` serves pages, `control.api` takes orders. Why not a
framework: a few answers need no routing, and a listener beside a relay must hold where strangers reach it, so every
wait has a deadline and every count a bound, all in this one file.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeAlias

import h11
import trio

log = logging.getLogger(__name__)

METHODS = ("GET", "HEAD", "OPTIONS")
"""What every listener takes; POST only where `HttpLimits.body_bytes` lets bodies in."""
_TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection, and of no HTTP request."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case; of repeated ones the last."""
    query: str = ""
    """What stood behind the question mark, as it was written."""
    body: bytes = b""
    address: str = ""
    """The other side's, without its port; empty where it has none."""
    secure: bool = False
    """Whether it came through TLS."""


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    body: bytes = b""
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one listener bears."""

    connections: int = 64
    """Open at once; further ones are closed as they come."""
    requests: int = 100
    """On one connection, then it is closed."""
    read_s: float = 5.0
    """For a whole request to arrive, once the connection is open or the last answer sent."""
    write_s: float = 10.0
    """For an answer to leave."""
    header_bytes: int = 8192
    body_bytes: int = 0
    """Of one request; 0: none is taken."""


@dataclass(slots=True)
class HttpStatistics:
    """What a listener has seen."""

    open: int = 0
    accepted: int = 0
    refused: int = 0
    """Connections closed because too many were open."""
    timed_out: int = 0
    requests: int = 0


@dataclass(slots=True)
class HttpServer:
    """Answers requests on any number of listeners. `serve` it, or hand `serve_connection` streams in a test.

    With `tls` the same listeners take both: a connection that begins with a TLS handshake gets one.
    """

    handler: Handler
    limits: HttpLimits = HttpLimits()
    tls: ssl.SSLContext | None = None
    statistics: HttpStatistics = field(default_factory=HttpStatistics)

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Serve for ever."""
        await trio.serve_listeners(self.serve_connection, listeners)

    async def serve_connection(self, stream: trio.abc.Stream) -> None:
        """Answer one connection until it is over. Whatever the other side does, this only returns."""
        self.statistics.accepted += 1
        if self.statistics.open >= self.limits.connections:
            self.statistics.refused += 1
            await trio.aclose_forcefully(stream)
            return
        self.statistics.open += 1
        peer = _Peer(_address(stream))
        try:
            if self.tls is not None and isinstance(stream, trio.SocketStream):
                with trio.move_on_after(self.limits.read_s):
                    peer.secure = await stream.socket.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE
                if peer.secure:
                    stream = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
            await self._converse(stream, peer)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        finally:
            self.statistics.open -= 1
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream, peer: _Peer) -> None:
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=self.limits.header_bytes)
        for left in range(self.limits.requests, 0, -1):
            request = None
            with trio.move_on_after(self.limits.read_s) as reading:
                request = await _next_request(protocol, stream, self.limits.body_bytes, peer)
            if reading.cancelled_caught:
                self.statistics.timed_out += 1
            if request is None:
                return
            self.statistics.requests += 1
            response = request if isinstance(request, Response) else await self._answer(request)
            head = not isinstance(request, Response) and request.method == "HEAD"
            with trio.move_on_after(self.limits.write_s) as writing:
                await _send(protocol, stream, response, head=head, last=left == 1)
            if writing.cancelled_caught:
                self.statistics.timed_out += 1
                return
            if protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE:
                return
            protocol.start_next_cycle()

    async def _answer(self, request: Request) -> Response:
        taken = METHODS if not self.limits.body_bytes else (*METHODS, "POST")
        if request.method not in taken:
            refusal = f"only {taken[0]}\n" if len(taken) == len(METHODS) else f"only {', '.join(taken)}\n"
            return Response(refusal.encode(), HTTPStatus.METHOD_NOT_ALLOWED, headers=(("Allow", ", ".join(taken)),))
        try:
            return await self.handler(request)
        except Exception:
            # Whatever a view got wrong is told in the log, not to strangers, and the relay goes on.
            log.exception("%s failed", request.path)
            return Response(b"failed\n", HTTPStatus.INTERNAL_SERVER_ERROR)


@dataclass(slots=True)
class _Peer:
    """Who is at the other end of one connection."""

    address: str
    secure: bool = False


async def _next_request(
    protocol: h11.Connection, stream: trio.abc.Stream, body_bytes: int, peer: _Peer
) -> Request | Response | None:
    """The next request; the answer where it is none that we take; None where the other side is gone."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        try:
            event = protocol.next_event()
        except h11.RemoteProtocolError as error:
            return Response(b"bad request\n", HTTPStatus(error.error_status_hint))
        if event is h11.NEED_DATA:
            protocol.receive_data(bytes(await stream.receive_some(4096)))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request(head, bytes(body), peer)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > body_bytes:
                refusal = f"at most {body_bytes} bytes\n" if body_bytes else "no body is taken here\n"
                return Response(refusal.encode(), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            return None


def _request(head: h11.Request, body: bytes, peer: _Peer) -> Request:
    path, _, query = head.target.decode("ascii", "replace").partition("?")
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode("ascii", "replace"), path, headers, query, body, peer.address, peer.secure)


def _address(stream: trio.abc.Stream) -> str:
    """Where a connection comes from; empty where that cannot be told any more, or never could."""
    if not isinstance(stream, trio.SocketStream):
        return ""
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return ""


async def _send(
    protocol: h11.Connection, stream: trio.abc.Stream, response: Response, *, head: bool, last: bool
) -> None:
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        *response.headers,
    ]
    if last or protocol.their_state is not h11.DONE:
        headers.append(("Connection", "close"))
    out = (
        protocol.send(h11.Response(status_code=response.status, headers=headers, reason=response.status.phrase)) or b""
    )
    if response.body and not head:
        out += protocol.send(h11.Data(data=response.body)) or b""
    out += protocol.send(h11.EndOfMessage()) or b""
    await stream.send_all(out)
