"""EDGE: the controller over HTTP: probes and metrics, `/v1/place` for viewers, and operators' calls under `/v1/`.

    GET  /livez /readyz /metrics /state /version              the operators' listener alone, without a token
    GET  /v1/place?namespace=...                              viewers, with their access token
    GET  /v1/nodes /v1/nodes/ID /v1/links /v1/rooms
    GET  /v1/streams[?namespace=...][&limit=]                 what is published where, a row for each relay that has it
    GET  /v1/sessions?node=ID[&after=][&limit=][&namespace=][&match=]    in pages, asked of that relay
    GET  /v1/tracks?node=ID[&match=][&limit=]                 the same, all at once
    GET  /v1/routes?relay=ID&origin=ID                        why a route is what it is
    GET  /v1/overrides                                        where relays go another way than their tables say
    GET  /v1/place/explain?namespace=...[&from=...|&jwt=...&address=...]  why a viewer would be sent where
    GET  /v1/events?after=N[&limit=]   /v1/commands[/ID]   /v1/audit[?limit=]
    GET  /map /place.js                                       pages; what the map shows takes an operator's token
    POST /v1/commands   {"id": "...", "relay": "...", "action": "drain", ...}

Operators show a bearer token with a role (`tradewind.contract.roles`). Looking takes a viewer, commands an operator,
the audit an admin. Every call is logged with who made it (`control.audit`); commands are journaled before they act.
Refusals are JSON: {"error": "..."}.
"""

from __future__ import annotations

import logging
import platform
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec
import trio
from msgspec import Meta, Struct
from prometheus_client import GC_COLLECTOR, ProcessCollector

from control import views
from control.commands import MAX_ID_LENGTH
from control.controller import Controller
from control.outgoing import Reply
from control.state import Action, Order
from control.web import map_routes
from tradewind.contract.ids import is_name
from tradewind.contract.messages import Amount, Count, Name, NamespaceFields, Question
from tradewind.contract.roles import Operator, OperatorRole, verify_operator
from tradewind.contract.token import Key, TokenError, split_path
from tradewind.http1 import HttpLimits, HttpServer, Request, Response
from tradewind.metering import render
from tradewind.placing.answering import PlaceAnswer, PlaceRequest, Refused, read_request
from tradewind.placing.locating import parse_address

audit = logging.getLogger("control.audit")

OPS_LIMITS = HttpLimits(connections=64, requests=1000, read_s=30.0, body_bytes=16_384)
PUBLIC_LIMITS = HttpLimits(connections=1024, requests=100, body_bytes=16_384, header_bytes=32_768)
MAX_EVENTS = MAX_AUDIT = 1000
MAX_ASKED = 64
"""Relays that are asked for one answer."""
MAX_ROWS = 10_000
"""Of streams, in one answer."""
STRANGERS_S = 1.0
"""How often a call by somebody we do not know is worth a line."""
ASKABLE: tuple[Literal["tracks", "state"], ...] = ("tracks", "state")
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
    strangers: int = 0
    """Calls by nobody we know, of which no line tells yet."""
    strangers_at: float = float("-inf")
    """When the next of them gets one."""

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

    def _guarded(self, role: OperatorRole, work: Work) -> Handler:
        """Let in who has a role, and leave a line of audit whatever comes of it."""

        async def answer(request: Request) -> Response:
            operator: Operator | None = None
            status = 500
            try:
                operator = self._operator(request)
                if operator.role < role:
                    has, takes = operator.role.name.lower(), role.name.lower()
                    raise _Stop(403, f"{operator.name} is {has}, and this takes {takes}")
                response = await work(request, operator)
                status = response.status
            except _Stop as stop:
                status = stop.status
                raise
            finally:
                self._leave_line(request, operator, status)
            return response

        return answer

    def _leave_line(self, request: Request, operator: Operator | None, status: int) -> None:
        """Who asked for what, and what came of it. Viewers' tokens stay out of it, strangers do not fill it."""
        others = 0
        if operator is None:
            now = trio.current_time()
            self.strangers += 1
            if now < self.strangers_at:
                return
            others, self.strangers, self.strangers_at = self.strangers - 1, 0, now + STRANGERS_S
        try:
            asked = {name: value[:128] for name, value in parse_qsl(request.query, max_num_fields=32) if name != "jwt"}
        except ValueError:
            asked = {}
        who, role = (operator.name, operator.role.name.lower()) if operator else (None, None)
        said = {"method": request.method, "path": request.path[:256], "query": asked, "status": int(status)}
        if request.body and operator is not None:
            said["body"] = request.body[:512].decode("utf-8", "replace")
        if others:
            said["not_told"] = others
        audit.info("operator", extra={"who": who, "role": role, "address": request.address, **said})

    def _operator(self, request: Request) -> Operator:
        """Who asks. Raises _Stop where that is nobody we know."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _Stop(401, "ask with an operator's token: Authorization: Bearer ...")
        try:
            return verify_operator(token.strip(), self.operator_keys, time.time())
        except TokenError as error:
            raise _Stop(401, str(error)) from error

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
            "/v1/rooms": lambda _query, _id: views.rooms(self.controller.plane),
            "/v1/routes": self._route,
            "/v1/overrides": lambda _query, _id: views.overrides(self.controller.plane),
            "/v1/events": self._events,
            "/v1/commands/ID": self._command,
        }
        routes: dict[str, Handler] = {path: self._look(look) for path, look in looks.items()}
        routes |= {f"/v1/{what}": self._guarded(OperatorRole.VIEWER, self._asked(what)) for what in ASKABLE}
        routes |= {
            "/v1/sessions": self._guarded(OperatorRole.VIEWER, self._sessions),
            "/v1/streams": self._guarded(OperatorRole.VIEWER, self._streams),
            "/v1/place/explain": self._guarded(OperatorRole.VIEWER, self._explain),
            "/v1/audit": self._guarded(OperatorRole.ADMIN, self._audit),
        }
        orders = self._guarded(OperatorRole.OPERATOR, self._order)
        listed = self._look(lambda _query, _id: views.commands(self.controller.plane))

        async def commands(request: Request) -> Response:
            return await (orders if request.method == "POST" else listed)(request)

        return {**routes, "/v1/place": self._place, "/v1/commands": commands}

    def _look(self, look: Callable[[Mapping[str, str], str], Any]) -> Handler:
        async def answer(request: Request, _: Operator) -> Response:
            return _json(look(_query(request), request.path.rpartition("/")[2]))

        return self._guarded(OperatorRole.VIEWER, answer)

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

    # --- What relays are asked ---

    def _asked(self, what: Literal["tracks", "state"]) -> Work:
        async def answer(request: Request, _: Operator) -> Response:
            query = _query(request)
            limit = _number(query, "limit", 1000, 10_000)
            question = Question(0, what, limit, query.get("match", "")[:512])
            reply = await self.controller.ask(_relay(query), question)
            return _passed_on(reply) or _reply(reply)

        return answer

    async def _sessions(self, request: Request, _: Operator) -> Response:
        """A page of one relay's sessions."""
        query = _query(request)
        after, limit = _number(query, "after", 0, 2**53), max(1, _number(query, "limit", 1000, 1000))
        namespace = _namespace(query)
        question = Question(0, "sessions", limit, query.get("match", "")[:512], after, namespace)
        reply = await self.controller.ask(_relay(query), question)
        passed_on = _passed_on(reply)
        if passed_on is None or not passed_on.body.startswith(b"["):
            return passed_on or _reply(reply)
        # A relay of before pages: it looks for no namespace, and gives all it has at once.
        if namespace:
            raise _Stop(501, "the relay is of a release that finds no sessions by namespace")
        try:
            everybody = msgspec.json.decode(passed_on.body, type=list[dict[str, Any]])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise _Stop(502, "the relay's answer makes no sense") from error
        found = [one for one in everybody if one.get("id", 0) > after]
        return _json({"sessions": found, "next": None, "total": len(everybody)})

    async def _streams(self, request: Request, _: Operator) -> Response:
        """What relays told of their namespaces; of one that is asked for also what they did not tell by themselves."""
        plane, query, now = self.controller.plane, _query(request), trio.current_time()
        namespace, limit = _namespace(query), _number(query, "limit", MAX_ROWS, MAX_ROWS)
        if not namespace:
            return _json(views.streams(plane, now, limit))
        wanted = views.wanted(namespace)
        document = views.streams(plane, now, limit, wanted)
        untold = sorted(views.untold(plane, now, wanted).items())

        async def ask(relay: str, fields: NamespaceFields) -> None:
            reply = await self.controller.ask(relay, Question(0, "streams", 1, namespace=fields))
            if reply.status == 200:
                document["streams"] += views.streams_answered(relay, fields, reply.document)

        async with trio.open_nursery() as nursery:
            for relay, fields in untold[:MAX_ASKED]:
                nursery.start_soon(ask, relay, fields)
        return _json({"streams": views.in_order(document["streams"]), "more": document["more"]})

    # --- Commands ---

    async def _order(self, request: Request, operator: Operator) -> Response:
        try:
            asked = msgspec.json.decode(request.body, type=_Ordered)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _Stop(400, str(error)[:200]) from error
        if (asked.action == "kick") != bool(asked.session):
            raise _Stop(400, "kick takes a session, and nothing else does")
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

    async def _audit(self, request: Request, _: Operator) -> Response:
        limit = _number(_query(request), "limit", 100, MAX_AUDIT)
        return _json([views.plain(line) for line in self.controller.plane.commands.audit(limit)])

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

    async def _explain(self, request: Request, _: Operator) -> Response:
        """As the viewer at `address` would be answered, whose token is in the query; without one as somebody who is
        `from` an address or a country, and may ask for everything.
        """
        query, placement = _query(request), self.controller.plane.placement
        origin = query.get("from", "")
        country = origin.upper() if _COUNTRY.fullmatch(origin) else None
        if origin and country is None and parse_address(origin) is None:
            raise _Stop(400, f"from: {origin[:64]!r} is neither an address nor a country's two letters")
        address = query.get("address", request.address) if not origin else "" if country else origin
        asked = read_request(request.query, address)
        if isinstance(asked, Refused):
            raise _Stop(asked.status, asked.detail)
        if not asked.token:
            return _json(views.explained(placement.suppose(asked, trio.current_time(), country)))
        found = placement.explain(asked, trio.current_time(), time.time())
        if isinstance(found, Refused):
            raise _Stop(400 if found.status == 401 else found.status, f"{found.reason.value}: {found.detail}")
        return _json(views.explained(found))


Handler = Callable[[Request], Awaitable[Response]]
Work = Callable[[Request, Operator], Awaitable[Response]]
_COUNTRY = re.compile(r"[A-Za-z]{2}")


def _relay(query: Mapping[str, str]) -> str:
    relay = query.get("node", "")
    if not is_name(relay):
        raise _Stop(400, "of which relay? ?node=ID")
    return relay


def _namespace(query: Mapping[str, str]) -> NamespaceFields:
    found = split_path(query.get("namespace", ""))
    if len(found) > 32 or any(len(field) > 4096 for field in found):
        raise _Stop(400, "namespace: more than 32 fields, or 4096 bytes in one")
    return found


def _passed_on(reply: Reply) -> Response | None:
    """What a relay answered, as it is; None: it did not."""
    if not isinstance(reply.document, str):
        return None
    return Response(reply.document.encode("utf-8", "replace"), content_type=_JSON)


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
