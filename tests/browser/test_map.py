"""The operators' map in a real Chromium, served by a real controller process with relays on control links."""

from __future__ import annotations

import json
import math
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from relay.control_link import ControlLink, ControlSettings
from relay.orders import Orders
from tests.browser.chromium import ROOT, Browser, Page
from tests.control.mesh import hello, link, report
from tests.control.test_process import Control, FakeMesh, Town
from tradewind.contract.messages import LinkReport, Origin, Report
from tradewind.contract.roles import OperatorRole
from tradewind.placing.locating import distance_km
from tradewind.settings.values import Address

pytestmark = pytest.mark.browser
WAIT_S = 30.0
PLACES = {"eu": (50.1, 8.7), "us": (39.0, -77.5), "sg": (1.35, 103.8), "hk": (22.3, 114.2), "br": (-23.5, -46.6)}
RELAYS = {"fra-1": "eu", "fra-2": "eu", "iad-1": "us", "sin-1": "sg", "hkg-1": "hk", "hkg-2": "hk", "gru-1": "br"}
LOSSY, BAD = ("sin-1", "fra-1"), ("gru-1", "iad-1")
"""Directed links that are not well, sender first."""
SHOP = (b"live", b"shop")
NEW_STREAMS = [
    ("hkg-1", "publisher", 3),
    ("sin-1", "hkg-1", 120),
    ("fra-1", "hkg-1", 410),
    ("iad-1", "fra-1", 38),
    ("fra-2", "fra-1", 377),
]


class Mesh(FakeMesh):
    """One relay's part."""

    def __init__(self, id: str, others: list[str]) -> None:
        super().__init__(others)
        self.id = id

    def report(self, sequence: int, now: float, wall_now: float) -> Report:
        number = list(RELAYS).index(self.id)
        origins = (Origin(SHOP, 1),) if self.id == "hkg-1" else ()
        carried = (SHOP,) if self.id in {"sin-1", "fra-1"} else ()
        return report(
            [self._link(other) for other in self.others],
            sequence=sequence,
            stage=self.stage,
            sessions=120 * number + 7,
            load=0.12 * number + 0.05,
            egress_bytes_per_s=9e6 * (number + 1),
            origins=origins,
            carried=carried,
        )

    def _link(self, other: str) -> LinkReport:
        here, there = PLACES[RELAYS[self.id]], PLACES[RELAYS[other]]
        rtt_ms = 1.5 + distance_km(*here, *there) * 0.016
        state = "bad" if (other, self.id) == BAD else "up"
        away = "bad" if (self.id, other) == BAD else "up"
        loss = 0.034 if (other, self.id) == LOSSY else 0.0004 * math.log(rtt_ms)
        return link(other, rtt_ms, state, loss_ratio=loss, away_state=away)


class Relays:
    """Relays without media in a thread of their own."""

    def __init__(self, town: Town, port: int) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._cancel = trio.CancelScope()
        self.fakes: dict[str, Mesh] = {}
        links = []
        for number, (id, region) in enumerate(RELAYS.items(), 20):
            # Nobody measures everybody: hubs have all, the others their own region and the hubs.
            others = [one for one in RELAYS if one != id and ({one, id} & {"fra-1", "hkg-1"} or RELAYS[one] == region)]
            others += [one for one in ("iad-1", "gru-1") if {one, id} == {"iad-1", "gru-1"}]
            others += [one for one in ("sin-1", "fra-1") if {one, id} == {"sin-1", "fra-1"} and one not in others]
            self.fakes[id] = Mesh(id, others)
            settings = ControlSettings((Address("127.0.0.1", port),), town.directory / id)
            orders, papers = Orders("shop", id, town.authority), town.papers(id, region, number)
            links.append(ControlLink(settings, papers, hello(number), orders, self.fakes[id]))
        self._thread = threading.Thread(target=trio.run, args=(self._run, links))
        self._thread.start()

    async def _run(self, links: list[ControlLink]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._cancel:
            async with trio.open_nursery() as nursery:
                for one in links:
                    nursery.start_soon(one.run)

    def close(self) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._cancel.cancel)
        self._thread.join(10)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    subprocess.run([ROOT / "web/build"], check=True)
    where = ",".join(f"{region}={north}/{east}" for region, (north, east) in PLACES.items())
    running = Control(Town(tmp_path_factory.mktemp("map")), flags=("--control.places", where))
    yield running
    if running.process.poll() is None:
        running.process.terminate()
    running.process.wait(10)


@pytest.fixture(scope="module")
def relays(control: Control) -> Iterator[Relays]:
    running = Relays(control.town, control.port)
    yield running
    running.close()


def until(page: Page, expression: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (value := page.evaluate(expression)):
        assert time.monotonic() < deadline, (expression, page.console()[-5:])
        time.sleep(0.1)
    return value


def address(control: Control, role: OperatorRole | None = OperatorRole.VIEWER) -> str:
    token = f"#token={control.town.tokens[role]}" if role else ""
    return f"http://127.0.0.1:{control.ops}/map{token}"


def count(selector: str) -> str:
    return f"document.querySelectorAll({json.dumps(selector)}).length"


ALL_THERE = f"{count('#dots .node')} === {len(RELAYS)} && {count('#arcs .arc')} > 20"
TREE = [
    {"namespace": "live/shop", "relay": relay, "source": source, "tracks": 2, "subscribers": n, "bytes_per_s": n * 3e5}
    for relay, source, n in NEW_STREAMS
]
TOLD_STREAMS = f"""
const real = window.fetch;
window.asked = [];
window.fetch = (path, options) => {{
  window.asked.push(String(path));
  if (path !== "v1/streams") return real(path, options);
  return Promise.resolve(new Response(JSON.stringify({{ streams: {json.dumps(TREE)} }})));
}};
"""


def test_relays_links_streams_and_events(
    control: Control, relays: Relays, chromium: Browser, screenshots: Callable[[Page, str], None]
) -> None:
    with chromium.open(address(control), init=TOLD_STREAMS, scheme="dark") as page:
        until(page, ALL_THERE)
        until(page, f"{count('.arc[data-state=down]')} >= 1 && {count('.arc[data-state=lossy]')} >= 1")
        assert page.evaluate("document.getElementById('status').dataset.state") == "live"
        # The token is in no address: neither the page's nor any that was asked for.
        assert "#" not in page.evaluate("location.href")
        token = control.town.tokens[OperatorRole.VIEWER]
        asked = page.evaluate("[...asked, ...performance.getEntriesByType('resource').map((one) => one.name)]")
        assert asked and not any(token in one for one in asked)
        rows = page.evaluate("[...document.querySelectorAll('#nodes tr')].map((row) => row.innerText)")
        assert len(rows) == len(RELAYS) and all("serving" in row for row in rows)
        # East is right, north is up.
        spots = page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.node')].map((one) => [one.key,"
            " [one.firstChild.cx.baseVal.value, one.firstChild.cy.baseVal.value]]))"
        )
        assert spots["iad-1"][0] < spots["gru-1"][0] < spots["fra-1"][0] < spots["sin-1"][0] < spots["hkg-1"][0]
        assert spots["fra-1"][1] < spots["hkg-1"][1] < spots["sin-1"][1] < spots["gru-1"][1]
        tree = page.evaluate(
            "[...document.querySelectorAll('.tree li')].map((one) => [one.innerText, one.dataset.depth])"
        )
        assert [(words.split()[0], depth) for words, depth in tree] == [
            ("hkg-1", "0"),
            ("sin-1", "1"),
            ("fra-1", "1"),
            ("iad-1", "2"),
            ("fra-2", "2"),
        ]
        kinds = page.evaluate("[...document.querySelectorAll('.events b')].map((one) => one.innerText)")
        assert "joined" in kinds
        screenshots(page, "map-dark")
        page.evaluate("document.querySelector('.streams button').click()")
        assert page.evaluate(count(".arc[data-strong]")) == 4
        screenshots(page, "map-stream")
        page.evaluate("document.querySelector('.streams button').click()")
        page.evaluate("document.querySelector('#nodes tr').click()")
        assert "gru-1" in page.evaluate("document.getElementById('picked').innerText")
        assert not [line for line in page.console() if "error" in line]


def test_light_and_on_a_phone(
    control: Control, relays: Relays, chromium: Browser, screenshots: Callable[[Page, str], None]
) -> None:
    for name, width, height in (("map-light", 1280, 800), ("map-phone", 390, 844)):
        with chromium.open(address(control), width=width, height=height, init=TOLD_STREAMS) as page:
            until(page, ALL_THERE)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.evaluate("document.getElementById('map').getBoundingClientRect().height") > 200
            screenshots(page, name)


def test_a_token_is_asked_for_and_a_wrong_one_told(control: Control, chromium: Browser) -> None:
    with chromium.open(address(control, None)) as page:
        assert page.evaluate("!document.getElementById('gate').hidden && document.getElementById('page').hidden")
        page.fill("#token", "nonsense")
        page.press("#token", "Enter")
        until(page, "document.getElementById('gate-why').hasAttribute('data-bad')")
        page.fill("#token", control.town.tokens[OperatorRole.VIEWER])
        page.press("#token", "Enter")
        until(page, "document.getElementById('status').dataset.state === 'live'")
        assert "token" not in page.evaluate("location.href")


def test_streams_that_are_not_there_and_those_of_before(control: Control, relays: Relays, chromium: Browser) -> None:
    missing = TOLD_STREAMS.replace(
        f"new Response(JSON.stringify({{ streams: {json.dumps(TREE)} }}))", "new Response('{}', {status: 404})"
    )
    with chromium.open(address(control), init=missing) as page:
        until(page, ALL_THERE)
        assert not page.evaluate("document.getElementById('no-streams').hidden")
    with chromium.open(address(control)) as page:
        until(page, f"{count('.tree li')} >= 1")
        assert "hkg-1" in page.evaluate("document.querySelector('.tree li').innerText")


def test_a_controller_that_is_gone_is_told_and_found_again(
    control: Control, relays: Relays, chromium: Browser, screenshots: Callable[[Page, str], None]
) -> None:
    with chromium.open(address(control)) as page:
        until(page, ALL_THERE)
        control.process.kill()
        control.process.wait()
        until(page, "document.getElementById('status').dataset.state === 'gone'")
        until(page, "/as of [1-9]/.test(document.getElementById('status-text').innerText)")
        assert page.evaluate(count("#dots .node")) == len(RELAYS)
        screenshots(page, "map-gone")
        control.start()
        until(page, "document.getElementById('status').dataset.state === 'live'")
        until(page, ALL_THERE)


@pytest.fixture
def screenshots(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Page, str], None]:
    """Pictures for whoever looks: in the test's directory."""
    return lambda page, name: page.screenshot(tmp_path / f"{name}.png")
