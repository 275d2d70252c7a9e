"""Clients that speak nothing we speak: what they offered is kept against what is supported, for the relay's log."""

from __future__ import annotations

import json
import logging

import pytest

from relay import journal
from tests.quic.hand import Hand
from tests.quic.pair import client_settings, make_pair
from tradewind.quic.statistics import MOST_NAME, MOST_NAMES, Mismatch

OURS = ("moqt-20", "moqt-16")


def test_raw_quic():
    pair = make_pair(client=client_settings(protocols=("moqt-99", "moqt-98")), open_it=False)
    pair.run(3.0)
    (one,) = pair.server.endpoint.mismatches
    assert (one.host, one.transport, one.offered) == ("192.0.2.1", "quic", ("moqt-99", "moqt-98"))
    assert "moqt-20" in one.supported


def test_who_agrees_leaves_nothing():
    pair = make_pair()
    pair.run(0.5)
    pair.at_client.close(0, "")
    pair.run(3.0)
    assert not pair.server.endpoint.mismatches


@pytest.mark.parametrize(
    ("origin", "offered", "supported"),
    [(b"https://shop.test", ("moqt-20",), ("moqt-16",)), (None, ("moqt-99",), OURS), (None, (), OURS)],
)
def test_webtransport(origin: bytes | None, offered: tuple[str, ...], supported: tuple[str, ...]):
    hand = Hand(protocols=OURS, browser_protocols=("moqt-16",))
    hand.connect(origin=origin, offered=offered)
    hand.run()
    (one,) = hand.server.endpoint.mismatches
    assert (one.transport, one.offered, one.supported) == ("webtransport", offered, supported)


def test_a_client_says_no_more_than_anybody_reads():
    one = Mismatch.of("192.0.2.9", "quic", ["x" * 255] * 200, OURS)
    assert len(one.offered) == MOST_NAMES
    assert set(map(len, one.offered)) == {MOST_NAME}


def test_the_log_has_both(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("relay"), "propagate", True)
    pair = make_pair(client=client_settings(protocols=("moqt-\x1b99",)), open_it=False)
    pair.run(3.0)
    with caplog.at_level(logging.INFO, "relay"):
        journal.versions_differ(pair.server.endpoint.mismatches)
        journal.versions_differ(pair.server.endpoint.mismatches)
    (line,) = caplog.records
    assert line.getMessage() == "no common version"
    assert json.loads(json.dumps(vars(line)["offered"])) == ["moqt-\\x1b99"]
    assert "moqt-20" in vars(line)["supported"]
