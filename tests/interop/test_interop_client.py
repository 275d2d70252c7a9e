"""aiomoqt's `moq-interop-client`, the client of englishm/moq-interop-runner: every test it has, strictly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import Relays
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
# The client's own words for what a draft does not have; anything else it skips would hide something.
HAS_NO_TEST = {(16, "rendezvous-timeout"): "RENDEZVOUS_TIMEOUT is draft-18; negotiated draft-16"}
LONGEST_TEST_S = 30.0


def test_these_are_all_the_tests_it_has(aiomoqt: Path) -> None:
    listed = subprocess.run([aiomoqt / "moq-interop-client", "--list"], capture_output=True, text=True, check=True)
    assert tuple(listed.stdout.split()) == TESTS


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("draft", "transport"), CONNECTIONS, ids=str)
def test_passes(relays: Relays, aiomoqt: Path, draft: int, transport: str, test: str) -> None:
    relay = relays()
    ran = subprocess.run(
        [
            *(aiomoqt / "moq-interop-client", "--relay", relay.url(transport), "--tls-disable-verify"),
            *("--draft", str(draft), "--test", test, "--verbose"),
        ],
        capture_output=True,
        text=True,
        timeout=LONGEST_TEST_S,
        check=False,
    )
    evidence = f"\n{ran.stdout}\n{ran.stderr}\n-- relay\n{relay.tail()}"
    results = outcomes(ran.stdout)
    assert len(results) == 1, evidence
    (outcome,) = results
    assert (outcome.name, outcome.passed, ran.returncode) == (test, True, 0), evidence
    assert not outcome.lenient, evidence
    assert outcome.skipped == HAS_NO_TEST.get((draft, test), ""), evidence
