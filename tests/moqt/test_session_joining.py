"""Joining FETCH, up to draft 18: it names a subscription, which may come after it or never."""

from __future__ import annotations

import pytest

from tests.moqt.requesting import OTHER, TRACK, peer, raw, refusal
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import RequestCode, SessionCode
from tradewind.moqt.model import NO_PARAMETERS, FilterKind, LocationFilter, Parameters


@pytest.mark.parametrize("draft", [16, 18])
def test_joining_fetch_takes_its_track_from_the_subscription(draft: int) -> None:
    there = peer(draft)
    latest = LocationFilter(FilterKind.NEXT_OBJECT)
    there.open(m.Subscribe(there.id(), TRACK, raw(Parameters(filter=latest))))
    there.side.take()
    there.open(m.Fetch(there.id(), None, joining=0, joining_groups=1))
    assert there.side.take() == [e.FetchRequested(2, TRACK, LocationFilter(FilterKind.NONE), NO_PARAMETERS, 0, 1, None)]
    assert refusal(there, m.Fetch(there.id(), None, joining=2, joining_groups=1)) is not None


def test_joining_fetch_may_overtake_its_subscription() -> None:
    there = peer(18)
    there.open(m.Fetch(2, None, joining=0, joining_start=4))
    assert there.side.take() == []
    there.open(m.Subscribe(0, TRACK))
    assert [type(event) for event in there.side.take()] == [e.SubscribeRequested, e.FetchRequested]
    stream = there.open(m.Fetch(6, None, joining=4, joining_start=4))
    there.heard()
    assert there.side.wait(0.5) == [] and there.heard() == []
    there.side.wait(0.6)
    assert there.heard()[0] == (
        stream,
        m.RequestError(RequestCode.INVALID_JOINING_REQUEST_ID, "no such subscription to join"),
    )
    there.open(m.Subscribe(4, OTHER))
    assert [type(event) for event in there.side.take()] == [e.SubscribeRequested]


def test_parked_fetch_that_is_cancelled_is_forgotten() -> None:
    there = peer(18)
    stream = there.open(m.Fetch(2, None, joining=0, joining_start=4))
    there.reset(stream)
    there.open(m.Subscribe(0, TRACK))
    assert [type(event) for event in there.side.take()] == [e.SubscribeRequested]


def test_joining_fetch_on_16_wants_the_largest_object_filter() -> None:
    there = peer(16)
    there.open(m.Subscribe(there.id(), TRACK))
    there.open(m.Fetch(there.id(), None, joining=0, joining_groups=1))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION
