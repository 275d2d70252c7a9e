"""Requests that a session refuses before their owner sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.moqt.pair import DRAFTS, Peer, made
from tests.moqt.requesting import CANCELLED, OTHER, TRACK, peer, raw, refusal
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import (
    Fill,
    FilterKind,
    FilterSubject,
    FullTrackName,
    Location,
    LocationFilter,
    Parameters,
    RangeFilter,
)
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.session import SessionSettings


@pytest.mark.parametrize("draft", DRAFTS)
def test_reserved_namespaces_never_reach_the_owner(draft: int) -> None:
    there = peer(draft)
    expected = RequestCode.DOES_NOT_EXIST if draft >= 18 else None
    for first in (b".", b".session"):
        assert refusal(there, m.Subscribe(there.id(), FullTrackName((first, b"a"), b""))) == expected
        assert refusal(there, m.PublishNamespace(there.id(), (first,))) == expected
        assert refusal(there, m.TrackStatus(there.id(), FullTrackName((first,), b"x"))) == expected
    assert refusal(there, m.PublishNamespace(there.id(), (b".other",))) is None


@pytest.mark.parametrize("draft", DRAFTS)
def test_open_requests_are_limited(draft: int) -> None:
    there = peer(draft, settings=SessionSettings(max_requests=2, overload_retry_ms=70))
    assert refusal(there, m.Subscribe(there.id(), TRACK)) is None
    assert refusal(there, m.Subscribe(there.id(), OTHER)) is None
    code = RequestCode.EXCESSIVE_LOAD if draft >= 18 else RequestCode.INTERNAL_ERROR
    assert refusal(there, m.PublishNamespace(there.id(), (b"live",))) == code
    there.session.reject(0, RequestCode.DOES_NOT_EXIST, "")
    assert refusal(there, m.PublishNamespace(there.id(), (b"live",))) is None


@pytest.mark.parametrize("draft", DRAFTS)
def test_prefixes_of_one_kind_may_not_overlap(draft: int) -> None:
    there = peer(draft)
    overlap = RequestCode.PREFIX_OVERLAP
    assert refusal(there, m.SubscribeNamespace(there.id(), (b"a", b"b"), options=1)) is None
    for prefix in ((), (b"a",), (b"a", b"b"), (b"a", b"b", b"c")):
        assert refusal(there, m.SubscribeNamespace(there.id(), prefix, options=1)) == overlap
    assert refusal(there, m.SubscribeNamespace(there.id(), (b"a", b"c"), options=1)) is None
    if draft >= 18:
        assert refusal(there, m.SubscribeTracks(there.id(), (b"a",))) is None
    else:
        assert refusal(there, m.SubscribeNamespace(there.id(), (b"a",), options=0)) == overlap
    there.session.cancel(0)
    assert refusal(there, m.SubscribeNamespace(there.id(), (b"a", b"b", b"c"), options=1)) is None


@pytest.mark.parametrize("draft", DRAFTS)
def test_second_subscription_in_one_role_up_to_draft_18(draft: int) -> None:
    there = peer(draft)
    expected = RequestCode.DUPLICATE_SUBSCRIPTION if draft <= 18 else None
    assert refusal(there, m.Subscribe(there.id(), TRACK)) is None
    assert refusal(there, m.Subscribe(there.id(), TRACK)) == expected
    assert refusal(there, m.Publish(there.id(), TRACK, 1)) is None
    assert refusal(there, m.Publish(there.id(), TRACK, 1)) == expected


@pytest.mark.parametrize("draft", [16, 18])
def test_our_pending_subscription_gives_way_to_their_publish(draft: int) -> None:
    there = peer(draft)
    number = made(there.session.subscribe(TRACK))
    there.open(m.Publish(0, TRACK, 1))
    assert isinstance(there.side.take()[-1], e.PublishRequested)
    there.session.accept(0)
    # Nobody has to speak for the owner to hear of it.
    assert there.side.wait(0.0) == [e.RequestCancelled(number, CANCELLED)]
    assert there.session.statistics().requests_ours == 0


def test_unknown_mandatory_property_refuses_the_track() -> None:
    mandatory = ((0x4001, b"x"),)
    there = peer()
    assert refusal(there, m.Publish(there.id(), TRACK, 1, properties=mandatory)) == RequestCode.UNSUPPORTED_EXTENSION
    number = made(there.session.subscribe(TRACK))
    there.heard()
    there.say(1, m.SubscribeOk(2, properties=mandatory))
    (event,) = there.side.take()
    assert isinstance(event, e.RequestRefused) and event.code == RequestCode.UNSUPPORTED_EXTENSION
    assert event.request == number
    assert there.heard() == [(1, ("reset", CANCELLED)), (1, ("stop", CANCELLED))]
    fetch = made(there.session.fetch(TRACK, LocationFilter(FilterKind.NONE)))
    there.say(5, m.FetchOk(Location(1, 1), properties=mandatory))
    (event,) = there.side.take()
    assert isinstance(event, e.RequestRefused) and event.request == fetch
    known = peer(settings=SessionSettings(known_mandatory_properties=frozenset({0x4001})))
    assert refusal(known, m.Publish(0, TRACK, 1, properties=mandatory)) is None
    assert refusal(peer(16), m.Publish(0, TRACK, 1, properties=mandatory)) is None


def test_too_many_filter_ranges_refuse_the_request() -> None:
    many = (RangeFilter(FilterSubject.OBJECT_ID, 0, None, tuple((n * 4, n * 4 + 1) for n in range(5))),)
    there = peer(settings=SessionSettings(max_filter_ranges=4))
    assert (
        refusal(there, m.Subscribe(there.id(), TRACK, raw(Parameters(range_filters=many))))
        == RequestCode.INVALID_FILTER
    )
    fill = Parameters(fill=Fill(range_filters=many))
    assert refusal(there, m.Subscribe(there.id(), TRACK, raw(fill))) == RequestCode.INVALID_FILTER
    assert refusal(there, m.Fetch(there.id(), TRACK, parameters=raw(Parameters(range_filters=many)))) is not None
    stream = there.open(m.Subscribe(there.id(), TRACK))
    there.heard()
    there.say(stream, m.RequestUpdate(there.id(), raw(Parameters(range_filters=many))))
    assert there.heard()[0][1].code == RequestCode.INVALID_FILTER
    asker = Peer(20, setup=SetupOptions(max_filter_ranges=4))
    asker.session.subscribe(TRACK, Parameters(range_filters=many))
    assert asker.heard() == [(1, m.Subscribe(1, TRACK))]


@pytest.mark.parametrize("draft", [16, 18])
def test_flaw_in_a_range_refuses_the_request(draft: int) -> None:
    there = peer(draft)
    backwards = LocationFilter(FilterKind.ABSOLUTE, start=Location(5, 3), end_group=5, end_object=1)
    assert refusal(there, m.Fetch(there.id(), TRACK, backwards)) == RequestCode.INVALID_RANGE
    assert refusal(there, m.Fetch(there.id(), TRACK, replace(backwards, end_object=3))) is None
