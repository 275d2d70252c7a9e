"""What a draft or a player lacks is left out of what we send, and what cannot be written is taken back."""

from __future__ import annotations

import pytest

from tests.moqt.pair import Peer, made
from tests.moqt.requesting import TRACK, peer, raw
from tradewind.moqt import messages as m
from tradewind.moqt.errors import MisuseError
from tradewind.moqt.model import Fill, FilterKind, LocationFilter, Parameters
from tradewind.moqt.parameters import SetupOptions


def test_what_a_draft_lacks_is_left_out() -> None:
    there = peer(16)
    number = made(there.session.subscribe(TRACK, Parameters(forward=True, fill=Fill(), rendezvous_timeout_ms=4)))
    assert there.heard() == [(there.control, m.Subscribe(number, TRACK, raw(Parameters(forward=True))))]
    there.open(m.Subscribe(0, TRACK))
    there.session.accept_subscribe(0, 1)
    there.heard()
    there.session.notify_state(0, Parameters(forward=True))
    there.session.goaway_request(0)
    assert there.heard() == []


def test_shaka_gets_its_subscribe_ok_without_properties() -> None:
    there = Peer(16, setup=SetupOptions(implementation="ShakaPlayer/5.2"), quirks=frozenset({"bare-subscribe-ok"}))
    there.open(m.Subscribe(0, TRACK))
    there.session.accept_subscribe(0, 1, properties=((0x0E, 3),))
    assert there.heard() == [(there.control, m.SubscribeOk(1, request=0))]


@pytest.mark.parametrize("draft", [20, 22])
def test_request_that_cannot_be_written_is_taken_back(draft: int) -> None:
    there = peer(draft)
    with pytest.raises(MisuseError):
        there.session.fetch(TRACK, LocationFilter(FilterKind.NONE), joining=1, joining_groups=0)
    there.session.check_invariants()
    assert there.session.statistics().requests_ours == 0
    assert there.heard() == [(1, ("reset", 0))]
