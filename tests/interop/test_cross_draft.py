"""A publisher on one draft, a subscriber on another: the relay passes on the track, not the bytes of a draft."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import Relays
from tests.interop.tap import outcomes

pytestmark = pytest.mark.interop

SCRIPT = Path(__file__).with_name("peers") / "mixed_drafts.py"
DRAFTS = (16, 18, 20, 22)
# In each of these the publisher's client is made first.
TESTS = ("announce-subscribe", "data-subgroup-basic", "publish-track-subscribe", "namespace-discovery", "fetch", "join")
LONGEST_TEST_S = 30.0


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("publisher", "subscriber"), tuple(itertools.permutations(DRAFTS, 2)), ids=str)
def test_publisher_and_subscriber_need_not_agree(
    relays: Relays, aiomoqt: Path, publisher: int, subscriber: int, test: str
) -> None:
    relay = relays()
    ran = subprocess.run(
        [aiomoqt / "python", SCRIPT, relay.url("quic"), test, str(publisher), str(subscriber)],
        capture_output=True,
        text=True,
        timeout=LONGEST_TEST_S,
        check=False,
    )
    results = outcomes(ran.stdout)
    evidence = f"\n{ran.stdout}\n{ran.stderr}\n-- relay\n{relay.tail()}"
    assert [outcome.name for outcome in results] == [test], evidence
    assert results[0].passed, evidence
    assert not results[0].lenient, evidence
    assert ran.returncode == 0, evidence
