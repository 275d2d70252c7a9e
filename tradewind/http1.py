"""EDGE: a small HTTP/1.1 server for a few endpoints, on h11.

`relay.ops` answers operators and players with it, `control.web` serves pages, `control.api` takes orders. Why not a
framework: a few answers need no routing, and a listener beside a relay must hold where strangers reach it, so every
wait has a deadline and every count a bound, all in this one file.
"""

from __future__ import annotations

import logging
import math
import re
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
RECEIVE_BYTES = 16_384
_PLAIN = re.compile(
    rb"(GET|HEAD|OPTIONS) ([!-~]+) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ -~]*\r\n)*)\r\n"
)
_NOT_PLAIN = frozenset({"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"})
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
        except h11.LocalProtocolError:
            # An answer of ours that fits no request of theirs ends this connection, and never the process.
            log.exception("an answer did not fit")
        finally:
            self.statistics.open -= 1
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream, peer: _Peer) -> None:
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=self.limits.header_bytes)
        with trio.CancelScope() as patience:
            for left in range(self.limits.requests, 0, -1):
                patience.deadline = trio.current_time() + self.limits.read_s
                request: Request | Response | None = None
                plain = False
                if not protocol.trailing_data[0]:
                    data = bytes(await stream.receive_some(RECEIVE_BYTES))
                    if not data:
                        return
                    request = _plain_request(data, self.limits.header_bytes, peer)
                    plain = request is not None
                    if not plain:
                        protocol.receive_data(data)
                if not plain:
                    request = await _next_request(protocol, stream, self.limits.body_bytes, peer)
                if request is None:
                    return
                patience.deadline = math.inf
                self.statistics.requests += 1
                response = request if isinstance(request, Response) else await self._answer(request)
                head = peer.method == "HEAD"
                patience.deadline = trio.current_time() + self.limits.write_s
                if plain:
                    await stream.send_all(_plain_response(response, head=head, last=left == 1))
                    continue
                await _send(protocol, stream, response, head=head, last=left == 1)
                if protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE:
                    return
                protocol.start_next_cycle()
        if patience.cancelled_caught:
            self.statistics.timed_out += 1

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
    method: str = ""
    """Of the request under way: a refusal of a HEAD has no body either."""


async def _next_request(
    protocol: h11.Connection, stream: trio.abc.Stream, body_bytes: int, peer: _Peer
) -> Request | Response | None:
    """The next request; the answer where it is none that we take; None where the other side is gone."""
    head: h11.Request | None = None
    body = bytearray()
    peer.method = ""
    while True:
        try:
            event = protocol.next_event()
        except h11.RemoteProtocolError as error:
            return Response(b"bad request\n", HTTPStatus(error.error_status_hint))
        if event is h11.NEED_DATA:
            protocol.receive_data(bytes(await stream.receive_some(RECEIVE_BYTES)))
        elif isinstance(event, h11.Request):
            head = event
            peer.method = head.method.decode("ascii", "replace")
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request(head, bytes(body), peer)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > body_bytes:
                refusal = f"at most {body_bytes} bytes\n" if body_bytes else "no body is taken here\n"
                return Response(refusal.encode(), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            return None


def _plain_request(data: bytes, header_bytes: int, peer: _Peer) -> Request | None:
    """The request, where `data` is exactly one that leaves nothing to think about; None: h11 has to.

    That is: no body, one Host, every line in the form in which clients send it, nothing folded, no other protocol. Most
    requests are such, and take a tenth of h11's time here.
    """
    found = _PLAIN.fullmatch(data) if len(data) <= header_bytes else None
    if found is None:
        return None
    method, target, lines = found.groups()
    headers: dict[str, str] = {}
    hosts = 0
    for line in lines.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" ")
        if name == "host":
            hosts += 1
        elif name in _NOT_PLAIN and (name != "connection" or value.lower() != "keep-alive"):
            return None
        headers[name] = value
    if hosts != 1:
        return None
    path, _, query = target.decode("ascii").partition("?")
    peer.method = method.decode("ascii")
    return Request(peer.method, path, headers, query, b"", peer.address, peer.secure)


def _plain_response(response: Response, *, head: bool, last: bool) -> bytes:
    """The same bytes that h11 would make."""
    lines = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        *(f"{name}: {value}" for name, value in response.headers),
    ]
    if last:
        lines.append("Connection: close")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("a header of ours has a line's end in it")
    made = text.encode("latin-1") + b"\r\n\r\n"
    return made if head else made + response.body


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
