"""A controller as a process and relays' control links over loopback UDP: tables, orders, a kill, and coming back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from control.cli.main import tradewind
from relay.control_link import TABLE_FILE, ControlLink, ControlSettings
from relay.conversation import Papers
from relay.orders import Orders
from tests.contract import mesh
from tests.control.mesh import hello, link, report
from tradewind.contract.identity import Authority
from tradewind.contract.ids import Role
from tradewind.contract.issuing import Order, Terms, certificate_pem, issue, key_pem, make_authority
from tradewind.contract.messages import Answer, Command, Done, Origin, Question, Report, RouteTable
from tradewind.contract.proving import Prover
from tradewind.contract.roles import Operator, OperatorRole, sign_operator
from tradewind.contract.token import generate_key, parse_keys
from tradewind.settings.values import Address

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 20.0
OPERATORS = generate_key("HS256", "operators")
pytestmark = pytest.mark.slow


class Town:
    """A mesh's papers on disk, made now, because processes look at the real clock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wall = time.time()
        self._terms = lambda serial: Terms(serial, self.wall - 3600, self.wall + 86_400)
        self._authority = make_authority("shop", mesh.key(1), self._terms(1))
        self.authority = Authority([self._authority])
        self.write("ca.crt", certificate_pem(self._authority))
        self.write_node("main", "eu", 2, Role.CONTROLLER)
        self.write("operators.jwk", json.dumps(OPERATORS).encode())
        (signing,) = parse_keys(json.dumps(OPERATORS))
        self.tokens = {
            role: sign_operator(Operator(f"a {role.name.lower()}", role), signing, self.wall, self.wall + 3600)
            for role in OperatorRole
        }

    def write(self, name: str, data: bytes) -> None:
        (self.directory / name).write_bytes(data)

    def write_node(self, id: str, region: str, number: int, role: Role = Role.RELAY) -> None:
        self.write(f"{id}.crt", certificate_pem(self._issue(role, region, id, number)))
        self.write(f"{id}.key", key_pem(mesh.key(number)))

    def _issue(self, role: Role, region: str, id: str, number: int) -> bytes:
        order = Order("shop", role, region, id)
        return issue(order, mesh.key(number).public_key(), self._authority, mesh.key(1), self._terms(number))

    def papers(self, id: str, region: str, number: int, role: Role = Role.RELAY) -> Papers:
        return Papers(self.authority, self._issue(role, region, id, number), mesh.key(number))


class Control:
    """A controller process. The second start takes the port that the first one got. `id`: of which papers."""

    def __init__(self, town: Town, id: str = "main", flags: tuple[str, ...] = (), port: int = 0) -> None:
        self.town = town
        self.id = id
        self.flags = flags
        self.port, self.ops = port, 0
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.log = self.town.directory / f"{self.id}-{self.starts}.log"
        flags = ["--cert", f"{self.id}.crt", "--key", f"{self.id}.key", "--ca", "ca.crt"]
        flags += ["--state", f"{self.id}.sqlite", "--operator-key", "operators.jwk", *self.flags]
        listen = ["--listen", f"127.0.0.1:{self.port}", "--ops", f"127.0.0.1:{self.ops}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "control.cli.main", "control", "run", *listen, *flags],
                cwd=self.town.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        pattern = (
            rf"ready: controller {self.id} of shop on udp 127\.0\.0\.1:(\d+), ops http://127\.0\.0\.1:(\d+), term (\d+)"
        )
        until = time.monotonic() + WAIT_S
        while not (found := re.search(pattern, self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)
        self.port, self.ops, self.term = map(int, found.groups())

    def call(self, path: str, role: OperatorRole | None = None, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.town.tokens[role]}"} if role else {}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{self.ops}{path}", data, headers)
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return answer.status, _read(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _read(error.read())


def _read(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode()


class FakeMesh:
    """The relay's part, without media."""

    def __init__(self, others: list[str]) -> None:
        self.others = others
        self.tables: list[RouteTable] = []
        self.obeyed: list[str] = []
        self.stage: Any = "serving"
        self.heard: list[int] = []
        """How many tables there were each time that a controller was heard."""
        self.more: dict[str, Any] = {}
        """What else it reports."""

    def report(self, sequence: int, now: float, wall_now: float) -> Report:
        links = [link(other) for other in self.others]
        return report(links, sequence=sequence, stage=self.stage, **self.more)

    def apply_table(self, table: RouteTable, now: float) -> None:
        self.tables.append(table)

    def obey(self, command: Command, now: float) -> Done | None:
        if command.id not in self.obeyed:
            self.obeyed.append(command.id)
            self.stage = "draining"
            return None
        return Done(command.id, ok=True)

    def answer(self, question: Question, now: float) -> Answer:
        return Answer(question.id, json.dumps([{"id": 1, "what": question.what}]))

    def controller_heard(self, now: float) -> None:
        self.heard.append(len(self.tables))


class Relay:
    def __init__(self, town: Town, id: str, region: str, number: int, port: int, others: list[str]) -> None:
        self.fake = FakeMesh(others)
        self.orders = Orders("shop", id, town.authority)
        self.state = town.directory / id
        settings = ControlSettings((Address("127.0.0.1", 9), Address("127.0.0.1", port)), self.state)
        self.link = ControlLink(settings, town.papers(id, region, number), hello(number), self.orders, self.fake)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    running = Control(Town(tmp_path))
    yield running
    if running.process.poll() is None:
        running.process.terminate()
    running.process.wait(10)


@asynccontextmanager
async def two_relays(control: Control) -> AsyncIterator[tuple[Relay, Relay]]:
    a = Relay(control.town, "a", "eu", 11, control.port, ["b"])
    b = Relay(control.town, "b", "us", 12, control.port, ["a"])
    async with trio.open_nursery() as nursery:
        for relay in (a, b):
            nursery.start_soon(relay.link.run)
        yield a, b
        nursery.cancel_scope.cancel()


async def until(found: Callable[[], Any], what: str) -> None:
    with trio.move_on_after(WAIT_S):
        while not found():  # noqa: ASYNC110 - the other end is a process
            await trio.sleep(0.02)
        return
    raise AssertionError(what)


def ids(relay: Relay) -> list[str]:
    return [entry.id for entry in relay.fake.tables[-1].relays] if relay.fake.tables else []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.helm.BACKOFF_MOST_S", 0.3)
    monkeypatch.setattr("relay.helm.CONNECT_S", 2.0)


async def test_tables_arrive_orders_are_done_and_a_killed_controller_is_found_again(control: Control) -> None:
    call = control.call

    async def ask(path: str, role: OperatorRole | None = None, body: Any = None) -> tuple[int, Any]:
        return await trio.to_thread.run_sync(call, path, role, body)

    async with two_relays(control) as (a, b):
        await until(lambda: ids(a) == ids(b) == ["a", "b"], "no table with both in it")
        await until(lambda: a.link.statistics.persisted, "the table was not written")
        assert a.fake.tables[-1].term == control.term and (await ask("/readyz"))[0] == 200
        stored = Orders("shop", "a", control.town.authority)
        assert stored.restore((a.state / TABLE_FILE).read_bytes()).fault is None

        assert (await ask("/v1/nodes"))[0] == 401
        order = {"id": "x1", "relay": "a", "action": "drain"}
        assert (await ask("/v1/commands", OperatorRole.VIEWER, order))[0] == 403
        status, said = await ask("/v1/commands", OperatorRole.OPERATOR, order)
        assert (status, said["progress"], said["by"]) == (202, "open", "a operator")
        await until(lambda: a.fake.obeyed == ["x1"], "the order did not come")

        def draining() -> bool:
            return any(entry.id == "a" and entry.stage == "draining" for entry in b.fake.tables[-1].relays)

        await until(draining, "nobody was told")
        assert (await ask("/v1/commands", OperatorRole.OPERATOR, order))[0] == 200
        assert (await ask("/v1/commands/x1", OperatorRole.VIEWER))[1]["progress"] == "done"
        nodes = (await ask("/v1/nodes", OperatorRole.VIEWER))[1]
        assert [(node["id"], node["stage"], node["wanted"]) for node in nodes] == [
            ("a", "draining", "draining"),
            ("b", "serving", "serving"),
        ]
        assert (await ask("/v1/sessions?node=b", OperatorRole.VIEWER))[1] == {
            "sessions": [{"id": 1, "what": "sessions"}],
            "next": None,
            "total": 1,
        }
        assert (await ask("/v1/routes?relay=a&origin=b", OperatorRole.VIEWER))[1]["cause"]
        assert (await ask("/v1/place?namespace=live/x"))[0] == 401
        assert "tradewind_control_tables_sent_total" in (await ask("/metrics"))[1]
        kinds = [event["kind"] for event in (await ask("/v1/events?after=0", OperatorRole.VIEWER))[1]]
        assert {"joined", "command", "command_done", "stage"} <= set(kinds)

        await trio.to_thread.run_sync(commands, control)
        term, tables = control.term, len(a.fake.tables)
        control.process.send_signal(signal.SIGKILL)
        control.process.wait(10)
        await trio.to_thread.run_sync(control.start)
        assert control.term > term
        await until(lambda: a.fake.tables[-1].term == b.fake.tables[-1].term == control.term, "they did not come back")
        assert len(a.fake.tables) > tables
        assert (await ask("/v1/commands/x1", OperatorRole.VIEWER))[1]["progress"] == "done"
        assert a.fake.obeyed == ["x1"]


def commands(control: Control) -> None:
    """What operators type: tables for people, JSON for programs, and codes that say what happened."""

    def said(*arguments: str, role: OperatorRole = OperatorRole.OPERATOR, ops: int = control.ops) -> tuple[int, str]:
        where = ("--controller", f"http://127.0.0.1:{ops}", "--token", control.town.tokens[role])
        result = CliRunner().invoke(tradewind, [*arguments, *where])
        return result.exit_code, result.output

    code, text = said("node", "ls")
    assert code == 0 and re.search(r"^a +eu +alive +draining +draining ", text, re.MULTILINE), text
    assert json.loads(said("node", "show", "b", "-o", "json")[1])["id"] == "b"
    assert "sender" in said("link", "ls")[1]
    code, text = said("route", "a", "b", "--explain")
    assert code == 0 and "a <- b" in text and "link b > a" in text, text
    code, text = said("events", "-n", "500")
    assert code == 0 and " joined a" in text and " command_done a" in text, text
    assert said("node", "cordon", "b", role=OperatorRole.VIEWER)[0] == 3
    assert said("node", "undrain", "nobody")[0] == 2
    assert said("node", "ls", ops=1)[0] == 4
    code, text = said("node", "undrain", "b", "--id", "x2", "--wait", "10")
    assert code == 0 and "done" in text, text


async def test_a_controller_that_says_nothing_is_heard_by_what_it_acknowledges(control: Control) -> None:
    async with two_relays(control) as (a, b):
        await until(lambda: ids(a) == ids(b) == ["a", "b"], "no table with both in it")
        assert 0 not in a.fake.heard, "rooms count on a controller only once they go by its table"
        said, heard = a.link.helm.statistics.welcomes, len(a.fake.heard)
        await trio.sleep(3.5)
        assert len(a.fake.heard) - heard >= 3, "once for each report"
        control.process.send_signal(signal.SIGSTOP)
        await trio.sleep(1.5)
        heard = len(a.fake.heard)
        await trio.sleep(1.5)
        assert len(a.fake.heard) == heard and a.link.helm.statistics.welcomes == said
        control.process.send_signal(signal.SIGCONT)


async def test_a_relay_of_the_version_before_is_steered_all_the_same(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.conversation.Prover", partial(Prover, versions=(1,)))

    async def ask(path: str, role: OperatorRole = OperatorRole.VIEWER, body: Any = None) -> tuple[int, Any]:
        return await trio.to_thread.run_sync(control.call, path, role, body)

    async with two_relays(control) as (a, b):
        a.fake.more = {"origins": (Origin((b"live",), 2**60),), "streams": (), "tracks": 3}
        await until(lambda: ids(a) == ids(b) == ["a", "b"], "no table with both in it")
        with trio.fail_after(WAIT_S):
            while not (rows := (await ask("/v1/streams"))[1]["streams"]):  # noqa: ASYNC110 - a process
                await trio.sleep(0.05)
        assert [(row["namespace"], row["relay"], row["source"]) for row in rows] == [("live", "a", "publisher")]
        assert (await ask("/v1/sessions?node=b"))[1]["sessions"] == [{"id": 1, "what": "sessions"}]
        assert (await ask("/v1/sessions?node=b&namespace=live"))[0] == 501
        order = {"id": "x1", "relay": "a", "action": "kick", "session": 7}
        assert (await ask("/v1/commands", OperatorRole.OPERATOR, order))[0] == 202
        await until(lambda: a.fake.obeyed == ["x1"], "the order did not come")


async def test_who_is_no_relay_of_the_mesh_is_told_nothing(control: Control) -> None:
    stranger = Relay(control.town, "z", "eu", 13, control.port, [])
    stranger.link._papers = control.town.papers("z", "eu", 13, Role.CONTROLLER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stranger.link.run)

        def refused() -> bool:
            return 'control_links_refused_total{reason="wrong-role"}' in control.call("/metrics")[1]

        with trio.fail_after(WAIT_S):
            while not await trio.to_thread.run_sync(refused):  # noqa: ASYNC110 - the other end is a process
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    assert not stranger.fake.heard and stranger.orders.table is None
