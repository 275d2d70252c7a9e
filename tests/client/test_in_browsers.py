"""What `tradewind publish` publishes, in players that nobody here wrote: both read a catalogue of ours."""

# ruff: noqa: F811 - fixtures of other files are imported and then asked for by name
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from tests.browser.chromium import ROOT, Browser, Site
from tests.browser.conftest import NAMESPACE, chromium, node, players, relay, site  # noqa: F401 fixtures
from tests.browser.test_players import PLAYERS, address
from tests.browser.watching import wait_until, watch
from tests.interop.conftest import Relays, relays  # noqa: F401 fixtures
from tests.interop.relay_process import RelayProcess

pytestmark = pytest.mark.browser

CLIPS = [ROOT / f"control/demo/clip-{name}.mp4" for name in ("360p", "180p")]
Publish = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def publish(relay: RelayProcess) -> Iterator[Publish]:
    """`publish(namespace)` starts the command with the demo's clip and returns when it is ready."""
    running: list[subprocess.Popen[bytes]] = []

    def start(namespace: str) -> subprocess.Popen[bytes]:
        code = "from tradewind.client.tools.publish import command; command()"
        files = [str(clip) for clip in CLIPS]
        options = ["--to", relay.url("quic"), "--namespace", namespace, "--loop", "--insecure"]
        process = subprocess.Popen([sys.executable, "-c", code, *files, *options], cwd=ROOT, stderr=subprocess.PIPE)
        running.append(process)
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"ready: ")
        return process

    yield start
    for process in running:
        process.terminate()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("player", PLAYERS)
def test_plays(chromium: Browser, site: Site, relay: RelayProcess, publish: Publish, player: str) -> None:
    namespace = f"live/plays-{player}"
    publish(namespace)
    with chromium.open(watching(site, relay, player, namespace)) as page:
        wait_until(page, "probe()", lambda probe: probe["changes"] > 0, within_s=10)
        # Longer than the clip: the seam of the loop is in it.
        watched = watch(page, 10.0)
        assert watched.seconds - 0.5 < watched.media_seconds < watched.seconds + 2, watched
        assert watched.picture_changes > 200, watched
        assert watched.longest_still_s < 1, watched
        assert page.evaluate("probe().errors") == []


@pytest.mark.parametrize("player", PLAYERS)
def test_survives_a_new_publisher(
    chromium: Browser,
    site: Site,
    relay: RelayProcess,
    publish: Publish,
    player: str,
) -> None:
    namespace = f"live/survives-{player}"
    first = publish(namespace)
    with chromium.open(watching(site, relay, player, namespace)) as page:
        wait_until(page, "probe()", lambda probe: probe["changes"] > 30, within_s=10)
        first.kill()
        wait_until(page, "probe()", lambda probe: probe["sinceChangeMs"] > 700, within_s=10)
        publish(namespace)
        page.evaluate("probeAnew()")
        wait_until(page, "probe()", lambda probe: probe["changes"] > 10, within_s=10)
        watched = watch(page, 4.0)
        assert watched.picture_changes > 60, watched


def watching(site: Site, relay: RelayProcess, player: str, namespace: str) -> str:
    """A player's page for a broadcast of this test's own: the relay does not know yet who was killed."""
    return address(site, relay, player).replace(quote(NAMESPACE, safe=""), quote(namespace, safe=""))
