"""Players that are placed, in Chromium, between two relays with the same broadcast: one dies, leaves, or becomes bad.

Both relays get the broadcast from a publisher of their own, so that this is about viewers alone. Whoever answers
`/v1/place` here is what relays answer with, from a table of the test's making.
"""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from relay.placing import Placing
from tests.browser.chromium import HERE, ROOT, Browser, Page, Site
from tests.browser.conftest import NAMESPACE
from tests.browser.watching import wait_until
from tests.interop import relay_process
from tests.interop.peer_process import PeerProcess
from tests.interop.relay_process import STAND_IN, RelayProcess
from tradewind.contract.admission import relay_signer
from tradewind.contract.messages import RelayEntry, RouteTable
from tradewind.contract.token import Claims, generate_key, parse_keys, sign

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(STAND_IN, reason="the stand-in knows no placement"),
]

PLAYERS = ("watch", "shaka")
PLAYS_ELSEWHERE_WITHIN_S = 3.0
GRACE_S = 8


@dataclass
class Mesh:
    """Two relays, and an answerer that sends players to either."""

    relays: dict[str, RelayProcess]
    placing: Placing
    token: str
    stack: ExitStack
    """What ends with the test."""
    links: dict[str, PeerProcess] = field(default_factory=dict)
    """One that leads to each relay, once they are used."""
    answers: bool = True
    asked: list[str] = field(default_factory=list)
    _server: http.server.ThreadingHTTPServer | None = None

    def use_links(self) -> None:
        """Send players through a link to each relay from now on."""
        ports = {}
        for name, relay in self.relays.items():
            link = PeerProcess(str(HERE / "peers/narrow_link.py"), str(relay.port))
            self.links[name] = self.stack.enter_context(link)
            ports[name] = link.wait_for(lambda words: "port" in words)["port"]
        fill(self.placing, ports)

    def serve(self) -> str:
        """Answer /v1/place; returns where."""
        mesh = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mesh.asked.append(self.path)
                query = self.path.partition("?")[2]
                answer = mesh.placing.answer(query, "127.0.0.1", None, time.monotonic(), time.time())
                document = json.loads(answer.body)
                for candidate in document.get("candidates", ()):
                    # Links carry UDP alone: nobody can be asked for the hash behind them.
                    candidate["certificate_sha256"] = mesh.relays[candidate["id"]].certificate_sha256()
                self.send_response(answer.status if mesh.answers else 503)
                self.send_header("Access-Control-Allow-Origin", "*")
                self.end_headers()
                self.wfile.write(json.dumps(document if mesh.answers else {"reason": "gone"}).encode())

            def log_message(self, format: str, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Let nobody be asked any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def pages(players: Path) -> Iterator[Site]:
    subprocess.run([ROOT / "web/build"], check=True)
    site = Site(players)
    yield site
    site.close()


@pytest.fixture
def mesh(moq_rs: None, clips: dict[str, Path], tmp_path: Path) -> Iterator[Mesh]:
    written = generate_key("HS256", "shop")
    (key,) = parse_keys(json.dumps(written))
    file = tmp_path / "key.jwk"
    file.write_text(json.dumps(written))
    with ExitStack() as stack:

        def start(name: str) -> RelayProcess:
            flags = ("--node.id", name, "--auth-key", str(file), "--drain.grace_s", str(GRACE_S))
            relay = relay_process.start(tmp_path / name, (), flags)
            stack.callback(end, relay)
            publisher = PeerProcess(
                str(HERE / "peers/publish.py"), relay.url("quic"), NAMESPACE, str(clips["high"]), str(clips["low"])
            )
            stack.enter_context(publisher)
            publisher.wait_for(lambda words: "announced" in words)
            return relay

        names = ("a", "b")
        with ThreadPoolExecutor(len(names)) as both:
            relays = dict(zip(names, both.map(start, names), strict=True))
        placing = Placing("a", relay_signer("a", bytes(32)), [key])
        fill(placing, {name: relay.port for name, relay in relays.items()})
        made = Mesh(relays, placing, sign(Claims("", get=("live",)), key), stack)
        stack.callback(made.stop)
        yield made


def fill(placing: Placing, ports: dict[str, int]) -> None:
    """Hand in a table of relays at these ports."""
    entries = tuple(
        RelayEntry(name, "eu", f"https://127.0.0.1:{port}", ("127.0.0.1", port), "serving", 0.1, 1000)
        for name, port in ports.items()
    )
    placing.apply_table(RouteTable("mesh", "a", 1, 1, time.time(), (), entries, ()), time.monotonic())


def end(relay: RelayProcess) -> None:
    if relay.process.poll() is None:
        relay.process.kill()
    relay.process.wait()


def address(pages: Site, player: str, mesh: Mesh, *control: str) -> str:
    words = [("control", one) for one in control or (mesh.serve(),)]
    words += [("namespace", NAMESPACE), ("token", mesh.token)]
    return pages.url(f"/players/placed_{player}.html?{urlencode(words)}")


def plays(page: Page) -> str:
    """Wait for a steady picture; returns on which relay."""
    wait_until(page, "probe()", lambda probe: probe["changes"] > 50, within_s=20)
    return str(page.evaluate("placement.relay.id"))


def moves_within(
    page: Page, mesh: Mesh, player: str, what: str, trouble: Callable[[str], None], within_s: float
) -> Any:
    """Bring trouble upon the relay that the player is on; it has to play on the other one in time."""
    here = plays(page)
    (other,) = mesh.relays.keys() - {here}
    page.evaluate("probeAnew()")
    wait_until(page, "probe()", lambda probe: probe["changes"] > 0, within_s=5)
    began = time.time()
    trouble(here)
    wait_until(page, "placement.relay.id", lambda relay: relay == other, within_s=within_s + 5)
    moved_s = time.time() - began
    page.evaluate("globalThis.before = probe().changes")
    wait_until(page, "probe().changes - before", lambda changes: changes > 25, within_s=10)
    seen = page.evaluate("({ ...probe(), moves: globalThis.moves })")
    still_s = seen["longestStillMs"] / 1000
    reason = seen["moves"][-1]["reason"]
    print(f"{player}, {what}: left after {moved_s:.2f} s by {reason}, picture stood still for at most {still_s:.2f} s")
    return moved_s, still_s, seen


@pytest.mark.parametrize("player", PLAYERS)
def test_the_relay_dies(chromium: Browser, pages: Site, mesh: Mesh, player: str) -> None:
    def kill(relay: str) -> None:
        mesh.relays[relay].process.kill()

    with chromium.open(address(pages, player, mesh)) as page:
        _, still_s, seen = moves_within(page, mesh, player, "kill -9", kill, PLAYS_ELSEWHERE_WITHIN_S)
        assert still_s < PLAYS_ELSEWHERE_WITHIN_S, seen


@pytest.mark.parametrize("player", PLAYERS)
def test_the_relay_falls_silent(chromium: Browser, pages: Site, mesh: Mesh, player: str) -> None:
    """As when its machine loses power: nothing answers, not even that nobody is there."""

    def silence(relay: str) -> None:
        mesh.relays[relay].process.send_signal(signal.SIGSTOP)

    with chromium.open(address(pages, player, mesh)) as page:
        moved_s, _, seen = moves_within(page, mesh, player, "silence", silence, PLAYS_ELSEWHERE_WITHIN_S)
        assert moved_s < PLAYS_ELSEWHERE_WITHIN_S, seen


@pytest.mark.parametrize("player", PLAYERS)
def test_the_relay_leaves_in_order(chromium: Browser, pages: Site, mesh: Mesh, player: str) -> None:
    def drain(relay: str) -> None:
        mesh.relays[relay].process.send_signal(signal.SIGTERM)

    with chromium.open(address(pages, player, mesh)) as page:
        _, still_s, seen = moves_within(page, mesh, player, "GOAWAY", drain, GRACE_S)
        assert still_s < PLAYS_ELSEWHERE_WITHIN_S, seen


@pytest.mark.parametrize("player", PLAYERS)
def test_the_way_becomes_bad(chromium: Browser, pages: Site, mesh: Mesh, player: str) -> None:
    def spoil(relay: str) -> None:
        mesh.links[relay].order("150kbit,30%")

    mesh.use_links()
    with chromium.open(address(pages, player, mesh)) as page:
        moved_s, _, seen = moves_within(page, mesh, player, "30 % loss", spoil, 10)
        assert moved_s < 10, seen


def test_nobody_answers_any_more(chromium: Browser, pages: Site, mesh: Mesh) -> None:
    """The page of a viewer who was here before plays, and goes on when a relay dies, with every answerer gone."""
    url = address(pages, "watch", mesh)
    with chromium.open(url) as page:
        plays(page)
        memory = page.evaluate("JSON.stringify(localStorage)")
    mesh.stop()
    init = f"for (const [name, value] of Object.entries({memory})) localStorage.setItem(name, value);"
    with chromium.open(url, init=init) as page:
        plays(page)
        assert page.evaluate("moves.find(({ state }) => state === 'placed').reason") == "remembered"
        _, still_s, seen = moves_within(
            page, mesh, "watch", "kill -9, nobody to ask", lambda relay: end(mesh.relays[relay]), 3
        )
        assert still_s < PLAYS_ELSEWHERE_WITHIN_S, seen


def test_the_viewer_page_is_placed(chromium: Browser, pages: Site, mesh: Mesh) -> None:
    pages.config = {"placement": {"control": [mesh.serve()], "token": mesh.token}, "namespace": NAMESPACE}
    snapshot = "tradewind.snapshot()"
    with chromium.open(pages.url("/")) as page:
        seen = wait_until(page, snapshot, lambda now: now["state"] == "live" and now["frames"] > 50, within_s=15)
        here = seen["relay"]
        assert here in mesh.relays, seen
        began = time.time()
        mesh.relays[here].process.kill()
        seen = wait_until(
            page,
            snapshot,
            lambda now: now["relay"] not in ("", here) and now["frames"] > seen["frames"] + 50,
            within_s=15,
        )
        moved = [event for event in seen["events"] if event["type"] == "placement"]
        after = [event for event in seen["events"] if event["type"] == "placement" and event["wall"] > began * 1000]
        print(f"viewer page: moved after {after[0]['wall'] / 1000 - began:.2f} s by {after[0]['reason']}")
        assert seen["state"] == "live", seen
        assert moved[-1]["relay"] not in (None, here), moved
