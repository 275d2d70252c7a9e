"""`tradewind node show`: everything that is known of one relay, for people and for programs."""

from __future__ import annotations

import json

import pytest

from tests.control.test_operators import Canned, node

LINK = {"neighbour": "hkg-1", "state": "up", "away_state": "bad", "rtt_ms": 201.5, "jitter_ms": 3.0}
RELAY = node(
    "fra-1",
    links=[{**LINK, "loss_ratio": 0.002, "away_loss_ratio": 0.2, "carried_bytes_per_s": 1.0}],
    origins=["live/demo", "live/r/lobby"],
    overrides=[{"origin": "hkg-1", "instead_of": "hkg-1", "next_hop": "sin-1", "cause": "the link is bad: lossy"}],
    home_of=["live/r/lobby"],
    follower_of=[],
    commands=[{"id": "x1", "action": "cordon", "by": "ann", "progress": "done", "detail": ""}],
)


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Canned:
    made = Canned(monkeypatch)
    made.answers = {"/v1/nodes/fra-1": lambda _asked, _body: RELAY}
    return made


def test_people_see_what_there_is_and_not_how_much(canned: Canned) -> None:
    code, text, _ = canned.run("node", "show", "fra-1")
    assert code == 0
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "origins live/demo live/r/lobby" in lines
    assert "follower_of -" in lines
    assert lines[lines.index("links") + 2] == "hkg-1 up bad 201.5 3 0.002 0.2"
    assert lines[lines.index("overrides") + 2] == "hkg-1 hkg-1 sin-1 the link is bad: lossy"
    assert lines[lines.index("commands") + 2] == "x1 cordon ann done -"


def test_programs_get_the_document(canned: Canned) -> None:
    code, text, _ = canned.run("node", "show", "fra-1", "-o", "json")
    assert (code, json.loads(text)) == (0, RELAY)
