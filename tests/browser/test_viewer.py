"""Our viewer page in Chromium, through our relay."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.browser.chromium import HERE, ROOT, Browser, Page, Site
from tests.browser.conftest import CLIPS, Publish
from tests.browser.watching import wait_until
from tests.interop.conftest import Meshes, Relays
from tests.interop.ends import Ends
from tests.interop.peer_process import PeerProcess
from tests.interop.relay_process import STAND_IN, RelayProcess

pytestmark = pytest.mark.browser

SNAPSHOT = "tradewind.snapshot()"
# Where to keep what the page looks like, for the README and for whoever reviews a change of it.
SCREENSHOTS = os.environ.get("TRADEWIND_SCREENSHOTS")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A UDP port that takes everything and answers nothing, as a firewall does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        yield udp.getsockname()[1]


def test_logic_of_the_page(node: Path) -> None:
    ran = subprocess.run([node, "--test", "test/"], cwd=ROOT / "web", capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_shows_the_picture_and_says_how_it_goes(
    chromium: Browser, site: Site, publish: Publish, tmp_path: Path
) -> None:
    publish()
    with chromium.open(site.url("/")) as page:
        wait_until(page, SNAPSHOT, lambda now: now["state"] == "live", within_s=10)
        first = page.evaluate(SNAPSHOT)
        # 25 a second: of those in ten seconds, four fifths at least.
        last = wait_until(page, SNAPSHOT, lambda now: now["frames"] - first["frames"] > 200, within_s=10)
        assert 0 <= last["latency_ms"] < 1000, last
        assert (last["stalls"], last["problem"], last["relay"]) == (0, None, "test-1"), last
        assert last["rendition"] == last["renditions"][-1], last
        assert last["version"] == "moq-transport-16", last
        assert page.evaluate("document.getElementById('latency').textContent").isdigit()
        assert page.evaluate("document.getElementById('status-text').textContent") == "Live"
        keep(page, tmp_path, "viewer.png")
        assert [line for line in page.console() if " pageerror: " in line] == []


@pytest.mark.skipif(STAND_IN, reason="the stand-in has no neighbours")
def test_plays_from_another_relay(chromium: Browser, site: Site, publish: Publish, meshes: Meshes) -> None:
    ends = Ends(*meshes())
    publisher = publish(to=ends.publishing)
    query = urlencode({"relay": ends.playing.url("https"), "certificate": ends.playing.certificate_sha256()})
    with chromium.open(site.url(f"/?{query}")) as page:
        now = wait_until(page, SNAPSHOT, lambda now: now["state"] == "live" and now["frames"] > 50, within_s=10)
        assert len(now["renditions"]) == len(CLIPS), now
        assert now["rendition"] == now["renditions"][-1], now
        assert 0 <= now["latency_ms"] < 1000, now
        publisher.kill()
        wait_until(page, SNAPSHOT, lambda now: now["state"] != "live", within_s=10)
        frames = page.evaluate(SNAPSHOT)["frames"]
        publish(to=ends.publishing)
        wait_until(page, SNAPSHOT, lambda now: now["state"] == "live" and now["frames"] > frames + 25, within_s=10)
    ends.assert_crossed()


def test_a_late_viewer_has_a_picture_within_a_second(chromium: Browser, site: Site, publish: Publish) -> None:
    publish()
    for _ in range(3):
        with chromium.open(site.url("/")) as page:
            wait_until(page, SNAPSHOT, lambda now: now["state"] == "live", within_s=10)
            now = page.evaluate(SNAPSHOT)
            picture = next(event for event in now["events"] if event["type"] == "picture")
            assert picture["at"] - now["started_at_ms"] < 1000, now


def test_fits_a_phone(chromium: Browser, site: Site, publish: Publish, tmp_path: Path) -> None:
    publish()
    with chromium.open(site.url("/"), width=390, height=844, scale=2) as page:
        wait_until(page, SNAPSHOT, lambda now: now["state"] == "live", within_s=10)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        keep(page, tmp_path, "viewer-phone.png")


def test_goes_on_when_the_publisher_comes_back(chromium: Browser, site: Site, publish: Publish) -> None:
    publisher = publish()
    with chromium.open(site.url("/")) as page:
        wait_until(page, SNAPSHOT, lambda now: now["state"] == "live", within_s=10)
        publisher.kill()
        wait_until(page, SNAPSHOT, lambda now: now["state"] != "live", within_s=10)
        frames = page.evaluate(SNAPSHOT)["frames"]
        publish()
        wait_until(page, SNAPSHOT, lambda now: now["state"] == "live" and now["frames"] > frames + 25, within_s=10)


def test_follows_the_link(chromium: Browser, site: Site, relay: RelayProcess, publish: Publish) -> None:
    publish()
    with PeerProcess(str(HERE / "peers/narrow_link.py"), str(relay.port)) as link:
        port = link.wait_for(lambda words: "port" in words)["port"]
        with chromium.open(site.url(f"/?relay=https://127.0.0.1:{port}/")) as page:
            high = wait_until(page, SNAPSHOT, lambda now: now["state"] == "live", within_s=10)["renditions"][-1]
            wait_until(page, SNAPSHOT, lambda now: now["rendition"] == high, within_s=10)
            time.sleep(3)
            link.order("600kbit,2%")
            narrowed = time.time()
            down = wait_until(page, switches_after(narrowed), bool, within_s=5)[0]
            assert down["to"] != high, down
            assert down["wall"] / 1000 - narrowed < 1, down
            time.sleep(12)
            # Whatever it tries meanwhile, a narrow link is no reason to change to and fro.
            assert len(page.evaluate(switches_after(narrowed))) <= 3, page.evaluate(SNAPSHOT)
            wait_until(page, SNAPSHOT, lambda now: now["rendition"] != high, within_s=5)
            link.order("")
            widened = time.time()
            up = wait_until(page, switches_after(widened), bool, within_s=15)[-1]
            assert (up["to"], up["wall"] / 1000 - widened < 10) == (high, True), up
            wait_until(page, SNAPSHOT, lambda now: now["state"] == "live" and now["rendition"] == high, within_s=5)


def test_viewers_chat(chromium: Browser, site: Site, publish: Publish, tmp_path: Path) -> None:
    publish()
    with chromium.open(site.url("/")) as ada, chromium.open(site.url("/")) as bo:
        for page in (ada, bo):
            wait_until(page, SNAPSHOT, lambda now: now["state"] == "live", within_s=10)
        say(ada, "Ada", "Is it in blue, too?")
        wait_until(bo, LOG, lambda log: log == ["Ada: Is it in blue, too?"], within_s=5)
        say(bo, "Bo", "<b>Yes</b>")
        wait_until(ada, LOG, lambda log: log == ["Ada: Is it in blue, too?", "Bo: <b>Yes</b>"], within_s=5)
        keep(ada, tmp_path, "viewer-chat.png")
        # Whoever comes later hears what the relay still holds: each sender's last message.
        with chromium.open(site.url("/")) as late:
            wait_until(late, LOG, lambda log: sorted(log) == ["Ada: Is it in blue, too?", "Bo: <b>Yes</b>"], within_s=5)


@pytest.mark.parametrize(
    ("missing", "kind"), [("WebTransport", "no-webtransport"), ("VideoDecoder", "no-decoder")], ids=str
)
def test_says_what_the_browser_lacks(chromium: Browser, site: Site, missing: str, kind: str) -> None:
    with chromium.open(site.url("/"), init=f"delete globalThis.{missing}") as page:
        wait_until(page, SNAPSHOT, lambda now: now["problem"] == kind, within_s=5)
        wait_until(page, NOTICE, lambda text: "This browser" in text, within_s=2)


def test_says_that_udp_does_not_get_through(chromium: Browser, site: Site, silent_port: int, tmp_path: Path) -> None:
    with chromium.open(site.url(f"/?relay=https://127.0.0.1:{silent_port}/")) as page:
        now = wait_until(page, SNAPSHOT, lambda now: now["problem"] is not None, within_s=5)
        assert (now["problem"], now["since_start_ms"] < 4000) == ("no-udp", True), now
        wait_until(page, NOTICE, lambda text: f"127.0.0.1:{silent_port} does not answer over UDP." in text, within_s=2)
        keep(page, tmp_path, "viewer-no-udp.png")


def test_says_that_the_relay_refused(chromium: Browser, site: Site) -> None:
    with chromium.open(site.url(f"/?certificate={'ab' * 32}")) as page:
        assert wait_until(page, SNAPSHOT, lambda now: now["problem"], within_s=5)["problem"] == "refused"


@pytest.mark.skipif(STAND_IN, reason="the stand-in answers a version that was not offered")
def test_says_that_the_versions_differ(chromium: Browser, site: Site, relays: Relays) -> None:
    other = relays(20)
    query = urlencode({"relay": other.url("https"), "certificate": other.certificate_sha256()})
    with chromium.open(site.url(f"/?{query}")) as page:
        now = wait_until(page, SNAPSHOT, lambda now: now["problem"], within_s=8)
        assert now["problem"] == "no-common-version", now
        wait_until(page, NOTICE, lambda text: "different versions" in text, within_s=2)


def test_says_that_nobody_broadcasts_and_starts_when_somebody_does(
    chromium: Browser, site: Site, publish: Publish
) -> None:
    # A broadcast of its own: a publisher that an earlier test has killed may still count as being there.
    with chromium.open(site.url("/?namespace=live/later")) as page:
        wait_until(page, SNAPSHOT, lambda now: now["problem"] == "no-publisher", within_s=15)
        wait_until(page, NOTICE, lambda text: "Nobody is broadcasting live/later right now." in text, within_s=2)
        publish("live/later")
        wait_until(page, SNAPSHOT, lambda now: now["state"] == "live", within_s=10)
        wait_until(page, NOTICE, lambda text: text == "", within_s=2)


NOTICE = "document.getElementById('notice').hidden ? '' : document.getElementById('notice').innerText"
LOG = """[...document.querySelectorAll('#log li')].map(
    (item) => `${item.querySelector('b').textContent}: ${item.lastChild.textContent}`)"""


def switches_after(wall_s: float) -> str:
    """Asks the page for its changes of rendition since a moment."""
    return f"{SNAPSHOT}.events.filter((event) => event.type === 'switch' && event.wall >= {wall_s * 1000:.0f})"


def say(page: Page, name: str, text: str) -> None:
    page.fill("#name", name)
    page.fill("#text", text)
    page.press("#text", "Enter")


def keep(page: Page, directory: Path, name: str) -> None:
    """Keep a picture of the page."""
    target = Path(SCREENSHOTS) if SCREENSHOTS else directory
    target.mkdir(parents=True, exist_ok=True)
    page.screenshot(target / name)
