"""The operators' calls: who may make which, what they say, and the line that each leaves."""

from __future__ import annotations

import json
import logging
from typing import Any, cast
from urllib.parse import urlencode

import pytest

from control.api import Api
from control.controller import Controller
from control.outgoing import Reply
from control.state import Order
from tests.control.fleet import FakeRelay, Fleet
from tradewind.contract.messages import Command, Origin, Question, StreamReport
from tradewind.contract.roles import Operator, OperatorRole, sign_operator
from tradewind.contract.token import generate_key, parse_keys
from tradewind.http1 import Request

(KEY,) = parse_keys(json.dumps(generate_key("HS256", "ops")))
TOKENS = {role: sign_operator(Operator(f"a {role.name.lower()}", role), KEY, 0.0, 4e9) for role in OperatorRole}
VIEWER, OPERATOR, ADMIN = OperatorRole
DEMO = (b"live", b"demo")


class FakeController:
    """A plane whose relays answer at once."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    @property
    def plane(self) -> Any:
        return self.fleet.plane

    async def order(self, order: Order) -> Reply:
        return self._done(self.plane.order(order, self.fleet.now, self.fleet.wall_now))

    async def ask(self, relay: str, question: Question) -> Reply:
        return self._done(self.plane.ask(relay, question, self.fleet.now))

    def _done(self, ticket: int) -> Reply:
        self.fleet.flush()
        return self.fleet.replies[ticket]


class Desk:
    """An API, and somebody who calls it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fleet = Fleet({"a": "eu", "b": "us", "c": "us"})
        self.api = Api(cast("Controller", FakeController(self.fleet)), (KEY,))
        self._routes = self.api._routes()
        monkeypatch.setattr("control.api.trio.current_time", lambda: self.fleet.now)
        self.fleet.run(2)

    async def call(self, path: str, role: OperatorRole | None = VIEWER, body: Any = None) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {TOKENS[role]}"} if role else {}
        path, _, query = path.partition("?")
        method, data = ("GET", b"") if body is None else ("POST", json.dumps(body).encode())
        request = Request(method, path, headers, query, data, "203.0.113.9")
        answer = await self.api._answer(self._routes, request)
        return int(answer.status), json.loads(answer.body)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def questions(relay: FakeRelay) -> list[Question]:
    return [message for message in relay.received if isinstance(message, Question)]


def row(source: str, namespace: tuple[bytes, ...] = DEMO, **more: Any) -> StreamReport:
    return StreamReport(namespace, source, **{"tracks": 2, "subscribers": 20, "bytes_per_s": 123456.4, **more})


# --- Streams ---


async def test_streams_have_a_row_for_each_relay(desk: Desk) -> None:
    relays = desk.fleet.relays
    relays["a"].told = {"streams": (row("publisher"),), "tracks": 2}
    relays["b"].told = {"streams": (row("a"), row("", (b"lost",))), "streams_more": 7}
    desk.fleet.run(1.5)
    status, found = await desk.call("/v1/streams")
    assert status == 200
    figures = {"tracks": 2, "subscribers": 20, "bytes_per_s": 123456}
    assert found == {
        "streams": [
            {"namespace": "live/demo", "relay": "a", "source": "publisher", **figures},
            {"namespace": "live/demo", "relay": "b", "source": "a", **figures},
            {"namespace": "lost", "relay": "b", "source": "", **figures},
        ],
        "more": {"b": 7},
    }
    nodes = {node["id"]: node for node in (await desk.call("/v1/nodes"))[1]}
    assert [(nodes[id]["tracks"], nodes[id]["streams"]) for id in "abc"] == [(2, 1), (0, 9), (None, 0)]
    relays["a"].silent = True
    desk.fleet.run(6)
    assert "a" not in {one["relay"] for one in (await desk.call("/v1/streams"))[1]["streams"]}


async def test_a_stream_that_was_not_told_is_asked_for(desk: Desk) -> None:
    a, b, c = desk.fleet.relays.values()
    a.told = {"streams": (row("publisher"),)}
    b.told = {"streams": (row("a", (b"busy",)),), "streams_more": 1, "carried": ((b"busy",), DEMO)}
    c.told = {"streams": (row("b"),), "carried": (DEMO,)}
    b.body = json.dumps([{"source": "a", "tracks": 1, "subscribers": 0, "bytes_per_s": 2.0}])
    desk.fleet.run(1.5)
    found = (await desk.call("/v1/streams?namespace=/live/demo/"))[1]["streams"]
    told = [(one["relay"], one["source"], one["tracks"]) for one in found]
    assert told == [("a", "publisher", 2), ("b", "a", 1), ("c", "b", 2)]
    assert [(one.what, one.namespace) for one in questions(b)] == [("streams", DEMO)] and not questions(c)
    for nonsense in ("[{}]", "nonsense", '[{"source": 1}]'):
        b.body = nonsense
        found = (await desk.call("/v1/streams?namespace=live/demo"))[1]["streams"]
        assert [one["relay"] for one in found] == ["a", "c"]


async def test_a_relay_of_before_streams_has_names(desk: Desk) -> None:
    desk.fleet.relays["a"].told = {"origins": (Origin(DEMO, 1),)}
    desk.fleet.relays["b"].told = {"carried": (DEMO,)}
    desk.fleet.run(1.5)
    found = (await desk.call("/v1/streams"))[1]["streams"]
    assert [(one["relay"], one["source"], one["tracks"]) for one in found] == [("a", "publisher", 0), ("b", "", 0)]


async def test_an_answer_has_so_many_rows(desk: Desk) -> None:
    busy = [row("publisher", (b"live", b"%02d" % number), bytes_per_s=float(number)) for number in range(19, -1, -1)]
    desk.fleet.relays["a"].told = {"streams": tuple(busy[1::2]), "streams_more": 5}
    desk.fleet.relays["b"].told = {"streams": tuple(busy[::2])}
    desk.fleet.run(1.5)
    found = (await desk.call("/v1/streams?limit=3"))[1]
    assert [one["namespace"] for one in found["streams"]] == ["live/17", "live/18", "live/19"]
    assert found["more"] == {"a": 14, "b": 8}
    assert len((await desk.call("/v1/streams"))[1]["streams"]) == 20


async def test_a_namespace_that_is_no_text_is_found_as_it_is_written(desk: Desk) -> None:
    odd = (b"live", b"\xff\x00")
    desk.fleet.relays["a"].told = {"streams": (row("publisher", odd), row("publisher"))}
    desk.fleet.run(1.5)
    written = (await desk.call("/v1/streams"))[1]["streams"][0]["namespace"]
    assert written.startswith("live/\\xff")
    found = (await desk.call(f"/v1/streams?{urlencode({'namespace': written})}"))[1]["streams"]
    assert [one["namespace"] for one in found] == [written]
    assert (await desk.call("/v1/rooms")) == (200, [])


# --- Sessions ---


async def test_sessions_are_asked_of_their_relay(desk: Desk) -> None:
    a = desk.fleet.relays["a"]
    a.body = '{"sessions": [{"id": 5}], "next": 5, "total": 9}'
    asked = "/v1/sessions?node=a&after=4&limit=1&match=ann&namespace=live/demo"
    assert await desk.call(asked) == (200, {"sessions": [{"id": 5}], "next": 5, "total": 9})
    (question,) = questions(a)
    assert question == Question(question.id, "sessions", 1, "ann", 4, DEMO)
    assert (await desk.call("/v1/sessions"))[0] == 400
    assert (await desk.call("/v1/sessions?node=z"))[0] == 404
    assert (await desk.call("/v1/sessions?node=a&after=x"))[0] == 400
    assert (await desk.call("/v1/sessions?node=a&namespace=" + "/x" * 33))[0] == 400


async def test_sessions_of_a_relay_that_knows_no_pages(desk: Desk) -> None:
    desk.fleet.relays["a"].body = '[{"id": 5}, {"id": 6}]'
    status, found = await desk.call("/v1/sessions?node=a&after=5")
    assert (status, found) == (200, {"sessions": [{"id": 6}], "next": None, "total": 2})
    desk.fleet.relays["a"].body = "[5]"
    assert (await desk.call("/v1/sessions?node=a"))[0] == 502
    status, found = await desk.call("/v1/sessions?node=a&namespace=live")
    assert status == 501 and "release" in found["error"]


# --- Who may what ---


@pytest.mark.parametrize(
    ("path", "body", "least"),
    [
        ("/v1/nodes", None, VIEWER),
        ("/v1/streams", None, VIEWER),
        ("/v1/sessions?node=a", None, VIEWER),
        ("/v1/tracks?node=a", None, VIEWER),
        ("/v1/place/explain?namespace=live/demo", None, VIEWER),
        ("/v1/commands", None, VIEWER),
        ("/v1/commands", {"id": "x1", "relay": "a", "action": "drain"}, OPERATOR),
        ("/v1/commands", {"id": "x1", "relay": "a", "action": "kick", "session": 4}, OPERATOR),
        ("/v1/audit", None, ADMIN),
    ],
)
async def test_every_call_takes_a_role_and_leaves_a_line(
    desk: Desk, caplog: pytest.LogCaptureFixture, path: str, body: Any, least: OperatorRole
) -> None:
    caplog.set_level(logging.INFO, "control.audit")
    desk.fleet.relays["a"].body = "[]"
    for role in (None, *OperatorRole):
        caplog.clear()
        status, _ = await desk.call(path, role, body)
        wanted = 401 if role is None else 403 if role < least else {200, 202}
        assert status in wanted if isinstance(wanted, set) else status == wanted, (role, status)
        (line,) = caplog.records
        who = None if role is None else f"a {role.name.lower()}"
        assert (vars(line)["who"], vars(line)["status"]) == (who, status)
        assert vars(line)["path"] == path.partition("?")[0]


async def test_strangers_do_not_fill_the_log(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "control.audit")
    for _ in range(50):
        assert (await desk.call("/v1/nodes", None))[0] == 401
    desk.fleet.run(1.1)
    await desk.call("/v1/nodes", None)
    assert [vars(line).get("not_told") for line in caplog.records] == [None, 49]


async def test_tokens_of_viewers_are_not_written_down(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "control.audit")
    status, said = await desk.call("/v1/place/explain?namespace=live/demo&jwt=secret&viewer=ann")
    assert (status, said["error"][:9]) == (400, "token_bad")
    assert vars(caplog.records[0])["query"] == {"namespace": "live/demo", "viewer": "ann"}


async def test_a_kick_names_a_session_and_is_in_the_audit(desk: Desk) -> None:
    order = {"id": "x1", "relay": "a", "action": "kick", "session": 4, "reason": "spam"}
    assert (await desk.call("/v1/commands", OPERATOR, {**order, "session": 0}))[0] == 400
    assert (await desk.call("/v1/commands", OPERATOR, {**order, "action": "drain"}))[0] == 400
    assert (await desk.call("/v1/commands", OPERATOR, order))[0] == 202
    desk.fleet.run(0.5)
    assert (await desk.call("/v1/commands", OPERATOR, order))[1]["progress"] == "done"
    assert (await desk.call("/v1/commands", OPERATOR, {**order, "session": 5}))[0] == 409
    assert [m.session for m in desk.fleet.relays["a"].received if isinstance(m, Command)] == [4]
    lines = (await desk.call("/v1/audit?limit=1", ADMIN))[1]
    said = [(line["who"], line["what"], line["target"], line["result"]) for line in lines]
    assert said == [("a operator", "kick x1", "a/4", "done")]


# --- Placement ---


async def test_where_a_supposed_viewer_would_go(desk: Desk) -> None:
    status, found = await desk.call("/v1/place/explain?namespace=live/demo&from=de")
    assert (status, found["country"], found["refused"]) == (200, "DE", None)
    first = found["relays"][0]
    assert first["place"] == 0 and first["verdict"] == "chosen"
    parts = [name for name in first if name.endswith("_ms") and name != "cost_ms"]
    assert first["cost_ms"] == pytest.approx(sum(first[name] for name in parts), abs=1e-3) and len(parts) == 8
    assert {one["relay"] for one in found["relays"]} == {"a", "b", "c"}
    before = desk.fleet.plane.placement.statistics()
    for origin in ("203.0.113.7", "2001:db8::1", "FR"):
        assert (await desk.call(f"/v1/place/explain?namespace=live/demo&from={origin}"))[0] == 200
    assert desk.fleet.plane.placement.statistics() == before, "nobody was placed"
    for wrong in ("from=nowhere", "from=D", "from=300.1.1.1"):
        assert (await desk.call(f"/v1/place/explain?namespace=live/demo&{wrong}"))[0] == 400
    assert (await desk.call("/v1/place/explain?from=DE"))[0] == 400
