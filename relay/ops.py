"""EDGE: what operators, probes and players ask over HTTP, and the clock that says whether the event loop keeps up.

`/livez` says only that this process turns: nothing outside it may change the answer, or an outage elsewhere would have
every relay restarted. `/readyz` is for whoever sends traffic here, and says why not. The operators' listener asks
nobody who they are and belongs on loopback; the other one is public, on TCP at the UDP port's number: it tells players
the hash of a certificate that no authority signed, and where to go (`/v1/place`). `relay.run` passes in what to show as
plain callables; they run between two turns.
"""

from __future__ import annotations

import platform
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
import trio
from prometheus_client import GC_COLLECTOR, ProcessCollector

from relay.metrics import Metrics
from tradewind.http1 import HttpLimits, HttpServer, Request, Response
from tradewind.metering import Histogram, render
from tradewind.placing.answering import PlaceAnswer, Refused
from tradewind.settings.values import Address

OPS_LIMITS = HttpLimits(connections=64, read_s=30.0)
PUBLIC_LIMITS = HttpLimits(connections=256, requests=4, read_s=5.0, write_s=5.0)
LAG_PERIOD_S = 0.5

_PACKAGES = ("tradewind", "aioquic", "trio")
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Views:
    """What the operators' listener shows."""

    not_ready: Callable[[], str | None]
    """None: send traffic here; else why not, in a few words ("draining")."""
    state: Callable[[], Mapping[str, Any]]
    """A picture for people, made of what JSON can say."""
    version: Mapping[str, str]
    metrics: Metrics


async def listen(addresses: Sequence[Address]) -> list[trio.SocketListener]:
    """Open TCP listeners. Raises OSError where one cannot be had."""
    return [
        listener
        for address in addresses
        for listener in await trio.open_tcp_listeners(address.port, host=address.host, backlog=64)
    ]


def ops_server(views: Views) -> HttpServer:
    """The operators' endpoints."""
    return HttpServer(partial(_ops, _routes(views)), OPS_LIMITS)


@dataclass(frozen=True, slots=True)
class Questions:
    """Who answers `/v1/place`. `answer` takes query, address and Authorization header."""

    answer: Callable[[str, str, str | None], PlaceAnswer]
    plain_http: bool = False
    """Whether a question may come without TLS."""


def public_server(
    sha256: Callable[[], str], questions: Questions | None = None, tls: ssl.SSLContext | None = None
) -> HttpServer:
    """`/certificate.sha256`, and `/v1/place` where there are `questions`, for players of any origin."""

    async def certificate(_: Request) -> Response:
        return Response(sha256().encode(), headers=_ANYONE)

    routes: dict[str, Route] = {"/certificate.sha256": certificate}
    if questions is not None:
        routes["/v1/place"] = partial(_place, questions)
    return HttpServer(partial(_public, routes), PUBLIC_LIMITS, tls)


async def measure_lag(lag: Histogram) -> None:
    """Observe for ever how late the event loop wakes a timer."""
    while True:
        due = trio.current_time() + LAG_PERIOD_S
        await trio.sleep_until(due)
        lag.observe(trio.current_time() - due)


def versions() -> dict[str, str]:
    """What runs here, for `/version` and the build metric."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


Route = Callable[[Request], Awaitable[Response]]


def _routes(views: Views) -> dict[str, Route]:
    scrapes = trio.CapacityLimiter(2)
    process = [ProcessCollector(registry=None), GC_COLLECTOR]

    async def livez(_: Request) -> Response:
        return Response(b"ok\n")

    async def readyz(_: Request) -> Response:
        reason = views.not_ready()
        if reason is None:
            return Response(b"ok\n")
        return Response(f"{reason}\n".encode(), HTTPStatus.SERVICE_UNAVAILABLE)

    async def metrics(request: Request) -> Response:
        snapshot = views.metrics.snapshot()
        accept = request.headers.get("accept", "")
        # In a thread: text is made while media goes on.
        body, content_type = await trio.to_thread.run_sync(render, snapshot, accept, process, limiter=scrapes)
        return Response(body, content_type=content_type)

    async def state(_: Request) -> Response:
        return await _json(views.state(), scrapes)

    async def show_version(_: Request) -> Response:
        return await _json(views.version, scrapes)

    return {"/livez": livez, "/readyz": readyz, "/metrics": metrics, "/state": state, "/version": show_version}


async def _json(document: Mapping[str, Any], limiter: trio.CapacityLimiter) -> Response:
    def encode() -> bytes:
        return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"

    return Response(await trio.to_thread.run_sync(encode, limiter=limiter), content_type=_JSON)


async def _ops(routes: Mapping[str, Route], request: Request) -> Response:
    route = routes.get(request.path)
    if route is None:
        return Response(f"{' '.join(routes)}\n".encode(), HTTPStatus.NOT_FOUND)
    return await route(request)


_ANYONE = (("Access-Control-Allow-Origin", "*"),)
_ALLOWED = (
    *_ANYONE,
    ("Access-Control-Allow-Methods", "GET, HEAD"),
    ("Access-Control-Allow-Headers", "Authorization"),
    ("Access-Control-Max-Age", "86400"),
)


async def _public(routes: Mapping[str, Route], request: Request) -> Response:
    route = routes.get(request.path)
    if route is None:
        return Response(f"{' '.join(routes)}\n".encode(), HTTPStatus.NOT_FOUND, headers=_ANYONE)
    if request.method == "OPTIONS":
        return Response(status=HTTPStatus.NO_CONTENT, headers=_ALLOWED)
    return await route(request)


async def _place(questions: Questions, request: Request) -> Response:
    if not request.secure and not questions.plain_http:
        # The token has travelled in the clear by now; that the next ones do not is all that can be done.
        body = b'{"version":1,"reason":"bad_request","detail":"ask over https"}'
        return Response(body, HTTPStatus.FORBIDDEN, _JSON, _ANYONE)
    answer = questions.answer(request.query, request.address, request.headers.get("authorization"))
    headers = [*_ANYONE, ("Access-Control-Expose-Headers", "Retry-After")]
    if isinstance(answer, Refused) and answer.retry_s is not None:
        headers.append(("Retry-After", str(answer.retry_s)))
    if answer.status == HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", "Bearer"))
    return Response(answer.body, HTTPStatus(answer.status), _JSON, tuple(headers))
