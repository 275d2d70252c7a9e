"""aiomoqt's `moq-interop-client`, the client of englishm/moq-interop-runner: every test it has, strictly.

Between two relays the client is the same program: a `Front` sends its connections to one or the other.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.interop.conftest import Meshes, Relays
from tests.interop.ends import Ends
from tests.interop.front import Front
from tests.interop.relay_process import ALL_ACROSS, url
from tests.interop.tap import outcomes

pytestmark = pytest.mark.interop

TESTS = (
    "setup-only",
    "announce-only",
    "publish-namespace-done",
    "subscribe-error",
    "rendezvous-timeout",
    "announce-subscribe",
    "subscribe-before-announce",
    "data-subgroup-basic",
    "namespace-discovery",
    "fetch",
    "join",
    "subscribe-namespace-lifecycle",
    "publish-track-only",
    "publish-track-subscribe",
)
CONNECTIONS = ((20, "quic"), (20, "webtransport"), (16, "quic"), (16, "webtransport"), (22, "quic"), (18, "quic"))
CONNECTIONS_ACROSS = CONNECTIONS if ALL_ACROSS else ((20, "quic"), (16, "webtransport"), (18, "quic"))
# The client's own words for what a draft does not have; anything else it skips would hide something.
HAS_NO_TEST = {(16, "rendezvous-timeout"): "RENDEZVOUS_TIMEOUT is draft-18; negotiated draft-16"}
LONGEST_TEST_S = 30.0


class Crossing(NamedTuple):
    """One test between two relays: where its connections go, in their order, and what shows that it needed both."""

    test: str
    connections: str
    """P: to the publishers' relay, S: to the subscribers'."""
    asked: str = ""
    """What the publishers' relay must have been asked for, which nobody but its neighbour can have done."""
    told: str = ""
    """What the subscribers' relay must have been told, which nobody but its neighbour can have done."""
    objects: bool = False
    """Whether objects must have come to the subscribers' relay."""

    def __str__(self) -> str:
        return f"{self.test}-{self.connections}"


CROSSINGS = (
    Crossing("subscribe-error", "S"),
    Crossing("rendezvous-timeout", "S"),
    Crossing("announce-subscribe", "PS", asked="subscribe"),
    Crossing("subscribe-before-announce", "SP", told="publish_namespace"),
    Crossing("data-subgroup-basic", "PS", asked="subscribe", objects=True),
    Crossing("namespace-discovery", "PS", asked="subscribe"),
    Crossing("fetch", "PSS", asked="subscribe", objects=True),
    # What was read where the publisher is, and is fetched where nobody has read it.
    Crossing("fetch", "PPS", asked="fetch"),
    Crossing("join", "PSS", asked="subscribe", objects=True),
    Crossing("join", "PPS", objects=True),
    Crossing("subscribe-namespace-lifecycle", "SP", told="publish_namespace"),
    Crossing("publish-track-subscribe", "PS", asked="subscribe", objects=True),
)
"""All tests but those of a single publisher."""


def test_these_are_all_the_tests_it_has(aiomoqt: Path) -> None:
    listed = subprocess.run([aiomoqt / "moq-interop-client", "--list"], capture_output=True, text=True, check=True)
    assert tuple(listed.stdout.split()) == TESTS


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("draft", "transport"), CONNECTIONS, ids=str)
def test_passes(relays: Relays, aiomoqt: Path, draft: int, transport: str, test: str) -> None:
    relay = relays()
    assert_passes(aiomoqt, relay.url(transport), draft, test, relay.tail)


@pytest.mark.parametrize("crossing", CROSSINGS, ids=str)
@pytest.mark.parametrize(("draft", "transport"), CONNECTIONS_ACROSS, ids=str)
def test_passes_between_two_relays(
    meshes: Meshes, aiomoqt: Path, draft: int, transport: str, crossing: Crossing
) -> None:
    ends = Ends(*meshes())
    ports = {"P": ends.publishing.port, "S": ends.playing.port}
    wanted = [ports[end] for end in crossing.connections]
    with Front(wanted) as front:
        assert_passes(aiomoqt, url(transport, front.port), draft, crossing.test, ends.tail)
        assert front.sent_to == wanted
    if (draft, crossing.test) in HAS_NO_TEST:
        return
    assert not crossing.asked or ends.asked(crossing.asked)[0] > 0, ends.tail()
    assert not crossing.told or ends.asked(crossing.told)[1] > 0, ends.tail()
    assert not crossing.objects or ends.objects()[1] > 0, ends.tail()


def assert_passes(aiomoqt: Path, at: str, draft: int, test: str, tail: Callable[[], str]) -> None:
    """One test of the client passes, strictly; it skips nothing but what the draft does not have."""
    ran = subprocess.run(
        [
            *(aiomoqt / "moq-interop-client", "--relay", at, "--tls-disable-verify"),
            *("--draft", str(draft), "--test", test, "--verbose"),
        ],
        capture_output=True,
        text=True,
        timeout=LONGEST_TEST_S,
        check=False,
    )
    evidence = f"\n{ran.stdout}\n{ran.stderr}\n-- relay\n{tail()}"
    results = outcomes(ran.stdout)
    assert len(results) == 1, evidence
    (outcome,) = results
    assert (outcome.name, outcome.passed, ran.returncode) == (test, True, 0), evidence
    assert not outcome.lenient, evidence
    assert outcome.skipped == HAS_NO_TEST.get((draft, test), ""), evidence
