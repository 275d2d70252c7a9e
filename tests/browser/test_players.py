"""Players that nobody here wrote, unmodified, in Chromium, through our relay."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.browser.chromium import Browser, Site
from tests.browser.conftest import NAMESPACE, Publish
from tests.browser.watching import wait_until, watch
from tests.interop.conftest import Between
from tests.interop.ends import Ends
from tests.interop.relay_process import STAND_IN, RelayProcess

pytestmark = pytest.mark.browser

PLAYERS = ("watch", "shaka")
PLAYS_FOR_S, PLAYS_ACROSS_FOR_S = 10.0, 4.0
JOINS_WITHIN_MS = 1000.0
RECOVERS_WITHIN_S = 10.0


@pytest.fixture
def ends(between: Between) -> Ends:
    """One relay with every draft on offer, or two; the stand-in does not know what browsers can do and has 16 alone."""
    return between(16) if STAND_IN else between()


@pytest.mark.parametrize("player", PLAYERS)
def test_plays(chromium: Browser, site: Site, ends: Ends, publish: Publish, player: str) -> None:
    publish(to=ends.publishing)
    with chromium.open(address(site, ends.playing, player)) as page:
        wait_until(page, "probe()", lambda probe: probe["changes"] > 0, within_s=10)
        watched = watch(page, PLAYS_ACROSS_FOR_S if ends.are_two else PLAYS_FOR_S)
        # A player that began at the oldest frame it got may catch up with the live edge meanwhile.
        assert watched.seconds - 0.5 < watched.media_seconds < watched.seconds + 2, watched
        assert watched.picture_changes > 10 * watched.seconds, watched
        assert watched.longest_still_s < 1, watched
        assert page.evaluate("probe().errors") == []
    ends.assert_crossed()


@pytest.mark.parametrize("player", PLAYERS)
def test_a_late_joiner_sees_a_picture_within_a_second(
    chromium: Browser, site: Site, ends: Ends, publish: Publish, player: str
) -> None:
    publish(to=ends.publishing)
    with chromium.open(address(site, ends.playing, player)) as first:
        wait_until(first, "probe()", lambda probe: probe["changes"] > 30, within_s=10)
        # Somewhere in the middle of a group, wherever that is when the page has loaded.
        for _ in range(1 if ends.are_two else 3):
            with chromium.open(address(site, ends.playing, player)) as late:
                took_ms = wait_until(late, "probe().firstPictureMs", lambda value: value is not None, within_s=10)
                assert took_ms < JOINS_WITHIN_MS
    ends.assert_crossed()


@pytest.mark.parametrize("player", PLAYERS)
def test_survives_the_publishers_reconnect(
    chromium: Browser, site: Site, ends: Ends, publish: Publish, player: str
) -> None:
    publisher = publish(to=ends.publishing)
    with chromium.open(address(site, ends.playing, player)) as page:
        wait_until(page, "probe()", lambda probe: probe["changes"] > 30, within_s=10)
        publisher.kill()
        wait_until(page, "probe()", lambda probe: probe["sinceChangeMs"] > 700, within_s=10)
        publish(to=ends.publishing)
        page.evaluate("probeAnew()")
        wait_until(page, "probe()", lambda probe: probe["changes"] > 10, within_s=RECOVERS_WITHIN_S)
        watched = watch(page, 4.0)
        assert watched.picture_changes > 40, watched
        assert watched.seconds - 1 < watched.media_seconds < watched.seconds + 3, watched
    ends.assert_crossed()


def address(site: Site, relay: RelayProcess, player: str) -> str:
    """A player's page for the broadcast."""
    query = {"namespace": NAMESPACE, "relay": relay.url("https")}
    certificate_page = f"http://127.0.0.1:{relay.port}/certificate.sha256"
    if player == "shaka":
        query["fingerprint"] = site.url("/certificate.sha256") if STAND_IN else certificate_page
    elif STAND_IN:
        query["certificate"] = relay.certificate_sha256()
    else:
        # With http:// the element asks the relay itself for the hash of its certificate.
        query["relay"] = f"http://127.0.0.1:{relay.port}/"
    return site.url(f"/players/{player}.html?{urlencode(query)}")
