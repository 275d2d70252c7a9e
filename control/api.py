"""EDGE: the controller over HTTP: probes and metrics, `/v1/place` for viewers, and operators' calls under `/v1/`.

    GET  /livez /readyz /metrics /state /version              the operators' listener alone, without a token
    GET  /v1/place?namespace=...                              viewers, with their access token
    GET  /v1/nodes /v1/nodes/ID /v1/links /v1/streams /v1/rooms
    GET  /v1/sessions?node=ID[&match=][&limit=]  /v1/tracks ...    asked of that relay
    GET  /v1/routes?relay=ID&origin=ID                        why a route is what it is
    GET  /v1/place/explain?namespace=...&jwt=...&address=...  why a viewer would be sent where
    GET  /v1/events?after=N[&limit=]   /v1/commands[/ID]
    GET  /map /place.js                                       pages; what the map shows takes an operator's token
    POST /v1/commands   {"id": "...", "relay": "...", "action": "drain", ...}

Operators show a bearer token with a role (`tradewind.contract.roles`). Looking takes a viewer, drain and cordon an
operator, kick an admin. Refusals are JSON: {"error": "..."}.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
import trio
from msgspec import Meta, Struct
from prometheus_client import GC_COLLECTOR, ProcessCollector

from control import views
from control.commands import MAX_ID_LENGTH
from control.controller import Controller
from control.plane import Reply
from control.state import Action, Order
from control.web import map_routes
from tradewind.contract.ids import is_name
from tradewind.contract.messages import Amount, Count, Name
from tradewind.contract.roles import Operator, OperatorRole, verify_operator
from tradewind.contract.token import Key, TokenError
from tradewind.http1 import HttpLimits, HttpServer, Request, Response
from tradewind.metering import render
from tradewind.placing.answering import PlaceAnswer, PlaceRequest, Refused, read_request

OPS_LIMITS = HttpLimits(connections=64, requests=1000, read_s=30.0, body_bytes=16_384)
PUBLIC_LIMITS = HttpLimits(connections=1024, requests=100, body_bytes=16_384, header_bytes=32_768)
MAX_EVENTS = 1000
ASKABLE = ("sessions", "tracks", "rooms", "state")
NEEDS = {"kick": OperatorRole.ADMIN}
"""What takes more than an operator."""
_JSON = "application/json"
_PACKAGES = ("tradewind", "aioquic", "trio")


class _Ordered(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/commands."""

    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[A-Za-z0-9._:-]+\Z")]
    relay: Name
    action: Action
    deadline_s: Amount = 0.0
    session: Count = 0
    reason: Annotated[str, Meta(max_length=256)] = ""


class _Stop(Exception):
    """Answer this instead."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


@dataclass(slots=True)
class Api:
    """The calls of one controller. `operator_keys` are read anew by whoever changes them."""

    controller: Controller
    operator_keys: tuple[Key, ...] = ()

    def servers(self) -> tuple[HttpServer, HttpServer]:
        """The operators' listener, and the public one."""
        everything = {**self._own_routes(), **self._routes()}
        everything |= map_routes()
        public = {"/livez": everything["/livez"], **self._routes(), **map_routes()}
        return (
            HttpServer(lambda request: self._answer(everything, request), OPS_LIMITS),
            HttpServer(lambda request: self._answer(public, request), PUBLIC_LIMITS),
        )

    def not_ready(self) -> str | None:
        """Why nobody should ask here; None: ask."""
        plane = self.controller.plane
        if self.controller.failed is not None:
            return "the store cannot be written"
        return None if plane.topology.generation else "no relay has been heard yet"

    async def _answer(self, routes: Mapping[str, Handler], request: Request) -> Response:
        head, _, rest = request.path.removeprefix("/v1/").partition("/")
        handler = routes.get(request.path)
        if handler is None and request.path.startswith("/v1/") and rest and "/" not in rest:
            handler = routes.get(f"/v1/{head}/ID")
        if handler is None:
            return _json({"error": "there is no such thing here"}, 404)
        try:
            return await handler(request)
        except _Stop as stop:
            extra = (("WWW-Authenticate", "Bearer"),) if stop.status == 401 else ()
            return _json({"error": str(stop)}, stop.status, extra)

    def _operator(self, request: Request, role: OperatorRole) -> Operator:
        """Who asks. Raises _Stop where they may not."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _Stop(401, "ask with an operator's token: Authorization: Bearer ...")
        try:
            operator = verify_operator(token.strip(), self.operator_keys, time.time())
        except TokenError as error:
            raise _Stop(401, str(error)) from error
        if operator.role < role:
            raise _Stop(403, f"{operator.name} is {operator.role.name.lower()}, and this takes {role.name.lower()}")
        return operator

    # --- The operators' listener alone ---

    def _own_routes(self) -> dict[str, Handler]:
        scrapes = trio.CapacityLimiter(2)
        process = [ProcessCollector(registry=None), GC_COLLECTOR]

        async def livez(_: Request) -> Response:
            return Response(b"ok\n")

        async def readyz(_: Request) -> Response:
            reason = self.not_ready()
            return Response(f"{reason or 'ok'}\n".encode(), HTTPStatus(503 if reason else 200))

        async def metrics(request: Request) -> Response:
            controller = self.controller
            controller.metrics.observe(controller.plane, [links.statistics() for _, _, links in controller.ports])
            snapshot, accept = controller.metrics.snapshot(), request.headers.get("accept", "")
            body, content_type = await trio.to_thread.run_sync(render, snapshot, accept, process, limiter=scrapes)
            return Response(body, content_type=content_type)

        async def state(_: Request) -> Response:
            return _json(views.state(self.controller.plane, trio.current_time()))

        async def show_version(_: Request) -> Response:
            return _json({"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}})

        return {"/livez": livez, "/readyz": readyz, "/metrics": metrics, "/state": state, "/version": show_version}

    # --- Everybody with a token ---

    def _routes(self) -> dict[str, Handler]:
        looks: dict[str, Callable[[Mapping[str, str], str], Any]] = {
            "/v1/nodes": lambda _query, _id: views.nodes(self.controller.plane, trio.current_time()),
            "/v1/nodes/ID": self._node,
            "/v1/links": lambda _query, _id: views.links(self.controller.plane, trio.current_time()),
            "/v1/streams": lambda _query, _id: views.streams(self.controller.plane, trio.current_time()),
            "/v1/rooms": lambda _query, _id: views.rooms(self.controller.plane),
            "/v1/routes": self._route,
            "/v1/events": self._events,
            "/v1/commands/ID": self._command,
        }
        routes: dict[str, Handler] = {path: self._look(look) for path, look in looks.items()}
        routes |= {f"/v1/{what}": self._asked(what) for what in ASKABLE}
        return {**routes, "/v1/place": self._place, "/v1/place/explain": self._explain, "/v1/commands": self._commands}

    def _look(self, look: Callable[[Mapping[str, str], str], Any]) -> Handler:
        async def answer(request: Request) -> Response:
            self._operator(request, OperatorRole.VIEWER)
            return _json(look(_query(request), request.path.rpartition("/")[2]))

        return answer

    def _node(self, _query: Mapping[str, str], id: str) -> Any:
        found = views.node(self.controller.plane, id, trio.current_time())
        if found is None:
            raise _Stop(404, f"there is no relay {id}")
        return found

    def _route(self, query: Mapping[str, str], _id: str) -> Any:
        relay, origin = query.get("relay", ""), query.get("origin", "")
        if not (is_name(relay) and is_name(origin)):
            raise _Stop(400, "which route? ?relay=ID&origin=ID")
        found = views.route(self.controller.plane, relay, origin, trio.current_time())
        if found is None:
            raise _Stop(404, f"there is no route from {origin} to {relay}")
        return found

    def _events(self, query: Mapping[str, str], _id: str) -> Any:
        limit = _number(query, "limit", 100, MAX_EVENTS)
        if "after" in query:
            lines = self.controller.plane.events.after(_number(query, "after", 0, 2**53), limit)
        else:
            lines = self.controller.plane.events.last(limit)
        return [views.event(line) for line in lines]

    def _command(self, _query: Mapping[str, str], id: str) -> Any:
        order = self.controller.plane.commands.order(id)
        if order is None:
            raise _Stop(404, f"there is no command {id}")
        return views.plain(order)

    def _asked(self, what: str) -> Handler:
        async def answer(request: Request) -> Response:
            self._operator(request, OperatorRole.VIEWER)
            query = _query(request)
            relay = query.get("node", "")
            if not is_name(relay):
                raise _Stop(400, "of which relay? ?node=ID")
            limit = _number(query, "limit", 1000, 10_000)
            reply = await self.controller.ask(relay, what, limit, query.get("match", "")[:512])
            if isinstance(reply.document, str):
                return Response(reply.document.encode("utf-8", "replace"), content_type=_JSON)
            return _reply(reply)

        return answer

    async def _commands(self, request: Request) -> Response:
        if request.method != "POST":
            self._operator(request, OperatorRole.VIEWER)
            return _json([views.plain(order) for order in self.controller.plane.commands.orders()[-1000:]])
        operator = self._operator(request, OperatorRole.OPERATOR)
        try:
            asked = msgspec.json.decode(request.body, type=_Ordered)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _Stop(400, str(error)[:200]) from error
        self._operator(request, NEEDS.get(asked.action, OperatorRole.OPERATOR))
        order = Order(
            asked.id,
            asked.relay,
            asked.action,
            operator.name,
            time.time(),
            asked.deadline_s,
            asked.session,
            asked.reason,
        )
        return _reply(await self.controller.order(order))

    # --- Viewers ---

    async def _place(self, request: Request) -> Response:
        asked = read_request(request.query, request.address, request.headers.get("authorization"))
        answer: PlaceAnswer = asked if isinstance(asked, Refused) else self._place_now(asked)
        headers: tuple[tuple[str, str], ...] = (("Access-Control-Allow-Origin", "*"),)
        if isinstance(answer, Refused) and answer.retry_s is not None:
            headers += (("Retry-After", str(answer.retry_s)),)
        if answer.status == 401:
            headers += (("WWW-Authenticate", "Bearer"),)
        if request.method == "OPTIONS":
            allowed = (("Access-Control-Allow-Methods", "GET"), ("Access-Control-Allow-Headers", "Authorization"))
            return Response(status=HTTPStatus.NO_CONTENT, headers=headers[:1] + allowed)
        return Response(answer.body, HTTPStatus(answer.status), _JSON, headers)

    def _place_now(self, asked: PlaceRequest) -> PlaceAnswer:
        return self.controller.plane.placement.answer(asked, trio.current_time(), time.time())

    async def _explain(self, request: Request) -> Response:
        """As the viewer at `address` would be answered: its token is in the query, the operator's is the bearer."""
        self._operator(request, OperatorRole.VIEWER)
        asked = read_request(request.query, _query(request).get("address", request.address))
        if isinstance(asked, Refused):
            raise _Stop(asked.status, asked.detail)
        found = self.controller.plane.placement.explain(asked, trio.current_time(), time.time())
        if isinstance(found, Refused):
            raise _Stop(400 if found.status == 401 else found.status, f"{found.reason.value}: {found.detail}")
        return _json(views.plain(found))


Handler = Callable[[Request], Awaitable[Response]]


def _query(request: Request) -> dict[str, str]:
    try:
        return dict(parse_qsl(request.query, max_num_fields=32))
    except ValueError as error:
        raise _Stop(400, "too many parameters") from error


def _number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise _Stop(400, f"{name}: expected a number")
    return min(int(text), most)


def _reply(reply: Reply) -> Response:
    return _json(views.plain(reply.document), reply.status)


def _json(document: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Response:
    return Response(msgspec.json.encode(document) + b"\n", HTTPStatus(status), _JSON, tuple(headers))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
