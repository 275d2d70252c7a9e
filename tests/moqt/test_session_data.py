"""Subgroup streams and datagrams: aliases, waiting, late streams, what is malformed."""

from __future__ import annotations

import pytest

from tests.moqt.pair import DRAFTS, Bytes, made, subgroup_bytes
from tests.moqt.streaming import CANCELLED, OPENED, OTHER, TRACK, datagram, names, peer, subgroup, subscribed
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import RequestCode, ResetCode, SessionCode
from tradewind.moqt.fetched import FetchEncoder, encode_fetch_header
from tradewind.moqt.model import NO_FILTER, FetchObject, FullTrackName, GroupOrder, ObjectHeader, SubgroupHeader
from tradewind.moqt.session import SessionSettings

# --- Aliases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", DRAFTS)
def test_stream_waits_for_its_alias(draft: int) -> None:
    there = peer(draft)
    number = made(there.session.subscribe(TRACK))
    data = subgroup(there, 5, count=2)
    stream = there.uni(data[:6])
    there.side.receive(Bytes(stream, data[6:], fin=True))
    assert there.side.take() == []
    assert there.session.statistics().waiting_bytes == len(data)
    assert stream not in there.side.transport.consumed_bytes
    there.say(1 if draft >= 17 else there.control, m.SubscribeOk(5, request=number))
    assert names(there.side.take()) == ["SubscribeAccepted", *OPENED, *OPENED[1:], "SubgroupClosed"]
    assert there.side.transport.consumed_bytes[stream] == len(data)
    assert there.session.statistics().waiting_streams == 0


def test_publish_explains_its_streams_before_it_is_accepted() -> None:
    there = peer()
    stream = there.uni(subgroup(there, 9))
    there.open(m.Publish(0, TRACK, 9))
    events = there.side.take()
    assert names(events) == ["PublishRequested", *OPENED]
    assert events[1] == e.SubgroupOpened(stream, (0,), SubgroupHeader(9, 0, 0, 128, has_properties=False))


def test_streams_wait_only_so_long() -> None:
    there = peer()
    stream = there.uni(subgroup(there, 5))
    there.heard()
    assert there.side.wait(0.9) == []
    assert there.heard() == []
    there.side.wait(0.2)
    assert there.heard() == [(stream, ("stop", CANCELLED))]
    assert there.side.transport.consumed_bytes[stream] == len(subgroup(there, 5))
    assert there.side.receive(Bytes(stream, b"more", fin=True)) == []
    assert there.closed is None


def test_waiting_streams_and_bytes_are_limited() -> None:
    settings = SessionSettings(max_waiting_streams=2, max_waiting_bytes=64)
    there = peer(settings=settings)
    streams = [there.uni(subgroup(there, 5)) for _ in range(3)]
    assert there.heard()[-1] == (streams[2], ("stop", ResetCode.EXCESSIVE_LOAD))
    there.side.receive(Bytes(streams[1], b"x" * 60))
    assert there.heard() == [(streams[1], ("stop", ResetCode.EXCESSIVE_LOAD))]
    assert there.session.statistics().waiting_streams == 1
    assert there.closed is None


def test_waiting_stream_that_is_reset_is_forgotten() -> None:
    there = peer()
    data = subgroup(there, 5)
    stream = there.uni(data)
    assert there.reset(stream) == []
    assert there.session.statistics().waiting_bytes == 0
    assert there.side.transport.consumed_bytes[stream] == len(data)
    there.open(m.Publish(0, TRACK, 5))
    assert names(there.side.take()) == ["PublishRequested"]


def test_one_alias_for_two_tracks_is_a_violation() -> None:
    for second in (m.Publish(0, OTHER, 5), None):
        there = subscribed()
        if second is not None:
            there.open(second)
        else:
            number = made(there.session.subscribe(OTHER))
            there.say(5, m.SubscribeOk(5, request=number))
        assert there.closed == SessionCode.DUPLICATE_TRACK_ALIAS


def test_one_alias_for_two_subscriptions_of_a_track() -> None:
    there = subscribed()
    number = made(there.session.subscribe(TRACK))
    there.say(5, m.SubscribeOk(5, request=number))
    there.side.take()
    there.uni(subgroup(there, 5))
    opened = there.side.take()[0]
    assert isinstance(opened, e.SubgroupOpened) and opened.requests == (1, number)
    there.session.cancel(1)
    assert there.heard()[-1][1] == ("stop", CANCELLED)
    there.uni(subgroup(there, 5))
    opened = there.side.take()[0]
    assert isinstance(opened, e.SubgroupOpened) and opened.requests == (number,)


@pytest.mark.parametrize("draft", DRAFTS)
def test_streams_after_the_end_are_stopped_quietly(draft: int) -> None:
    there = subscribed(draft)
    first = there.uni(subgroup(there, 5))
    there.side.take()
    there.session.cancel(1)
    assert (first, ("stop", CANCELLED)) in there.heard()
    late = there.uni(subgroup(there, 5))
    assert there.heard() == [(late, ("stop", CANCELLED))]
    assert there.side.receive(Bytes(first, b"rest of it", fin=True)) == []
    assert there.session.receive_datagram(datagram(there, 5), 0.0) == []
    assert there.side.take() == []
    assert there.session.statistics().waiting_streams == 0


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_track_that_is_asked_for_again_may_come_before_the_answer(draft: int) -> None:
    """Its publisher gives it the alias of before, and the answer may be lost on the way and said again."""
    there = subscribed(draft)
    there.session.cancel(1)
    number = made(there.session.subscribe(TRACK))
    there.heard()
    early = there.uni(subgroup(there, 5))
    assert (early, ("stop", CANCELLED)) not in there.heard()
    there.say(5 if draft >= 17 else there.control, m.SubscribeOk(5, request=number))
    assert any(isinstance(event, e.SubgroupOpened) and event.requests == (number,) for event in there.side.take())


def test_retired_aliases_are_forgotten_in_the_end() -> None:
    there = peer(settings=SessionSettings(max_retired_aliases=2))
    for alias in range(4):
        number = there.id()
        there.open(m.Publish(number, TRACK, alias))
        there.session.reject(number, RequestCode.UNINTERESTED, "")
    there.heard()
    for alias, waits in ((0, True), (1, True), (2, False), (3, False)):
        before = there.session.statistics().waiting_streams
        there.uni(subgroup(there, alias))
        assert there.session.statistics().waiting_streams - before == waits


def test_rejected_publish_stops_what_it_sent() -> None:
    there = peer()
    there.open(m.Publish(0, TRACK, 9))
    stream = there.uni(subgroup(there, 9))
    there.side.take()
    there.session.reject(0, RequestCode.UNINTERESTED, "")
    assert there.heard()[-1] == (stream, ("stop", CANCELLED))
    assert there.side.wait(0.0) == []


def test_publish_cancelled_by_its_sender_ends_its_streams_with_events() -> None:
    there = peer()
    request = there.open(m.Publish(0, TRACK, 9))
    stream = there.uni(subgroup(there, 9))
    there.side.take()
    there.reset(request, CANCELLED)
    assert there.side.take() == [e.SubgroupClosed(stream, CANCELLED), e.RequestCancelled(0, CANCELLED)]


# --- Subgroup streams -------------------------------------------------------------------------------------------------


def test_subgroup_named_by_its_first_object() -> None:
    there = subscribed()
    fields = SubgroupHeader(5, 1, None, None, has_properties=False)
    data = subgroup_bytes(there.profile, fields, [(ObjectHeader(7, 1), b"x")])
    stream = there.uni(data[:3])
    assert there.side.take() == []
    there.side.receive(Bytes(stream, data[3:], fin=True))
    assert there.side.take()[:2] == [
        e.SubgroupOpened(stream, (1,), SubgroupHeader(5, 1, 7, None, has_properties=False)),
        e.ObjectStarted(stream, ObjectHeader(7, 1)),
    ]
    empty = there.uni(data[:3], fin=True)
    assert there.side.take() == []
    assert empty not in there.session._table.handlers


def test_reset_subgroup_says_so() -> None:
    there = subscribed()
    stream = there.uni(subgroup(there, 5))
    there.side.take()
    assert there.reset(stream, ResetCode.DELIVERY_TIMEOUT) == [e.SubgroupClosed(stream, ResetCode.DELIVERY_TIMEOUT)]


def test_reset_codes_are_draft_20s_on_every_draft() -> None:
    there = subscribed(16)
    stream = there.uni(subgroup(there, 5))
    there.side.take()
    assert there.reset(stream, 4) == [e.SubgroupClosed(stream, ResetCode.UNKNOWN_OBJECT_STATUS)]


@pytest.mark.parametrize("cut", range(1, 8))
def test_stream_that_ends_inside_an_object_is_a_violation(cut: int) -> None:
    there = subscribed()
    data = subgroup(there, 5)
    there.uni(data[:cut], fin=True)
    assert there.closed == (None if cut == 4 else SessionCode.PROTOCOL_VIOLATION)


def test_object_over_our_limit_costs_the_stream_only() -> None:
    there = subscribed()
    fields = SubgroupHeader(5, 1, 0, None, has_properties=False)
    data = subgroup_bytes(there.profile, fields, [(ObjectHeader(0, 1 << 40), b"")])
    stream = there.uni(data)
    assert there.heard() == [(stream, ("stop", ResetCode.EXCESSIVE_LOAD))]
    assert there.side.take()[-1] == e.SubgroupClosed(stream, ResetCode.EXCESSIVE_LOAD)
    assert there.closed is None


def test_large_objects_elsewhere_cost_no_session_either() -> None:
    there = peer()
    number = made(there.session.fetch(TRACK, NO_FILTER))
    encoder = FetchEncoder(there.profile, GroupOrder.ASCENDING)
    stream = there.uni(
        encode_fetch_header(there.profile, number) + encoder.object(FetchObject(1, 0, ObjectHeader(0, 1 << 40), 1))
    )
    assert there.side.take() == [
        e.FetchOpened(stream, number),
        e.FetchClosed(stream, number, ResetCode.EXCESSIVE_LOAD),
    ]
    assert there.closed is None


def test_refused_track_takes_its_waiting_streams_along() -> None:
    there = peer()
    stream = there.uni(subgroup(there, 9))
    there.open(m.Publish(0, FullTrackName((b".",), b"x"), 9))
    assert (stream, ("stop", CANCELLED)) in there.heard()
    assert there.session.statistics().waiting_streams == 0


def test_owner_can_stop_a_stream() -> None:
    there = subscribed()
    stream = there.uni(subgroup(there, 5))
    there.side.take()
    there.session.stop_stream(stream)
    there.session.stop_stream(stream)
    there.session.stop_stream(99)
    assert there.heard() == [(stream, ("stop", CANCELLED))]
    assert there.side.receive(Bytes(stream, b"\x00\x03abc")) == []
    assert there.reset(stream) == []


def test_credit_comes_back_for_every_byte() -> None:
    there = subscribed()
    data = subgroup(there, 5, count=3)
    stream = there.uni_id()
    for n in range(len(data)):
        there.side.receive(Bytes(stream, data[n : n + 1]))
    assert there.side.transport.consumed_bytes[stream] == len(data)


def test_padding_is_thrown_away() -> None:
    there = peer()
    stream = there.uni(there.profile.varint.encode(0x132B3E28) + bytes(100))
    there.side.receive(Bytes(stream, bytes(1000), fin=True))
    padding = there.profile.varint.encode(0x132B3E29) + bytes(10)
    assert there.session.receive_datagram(padding, 0.0) == []
    assert there.side.take() == []
    assert there.side.transport.consumed_bytes[stream] == 1100 + len(there.profile.varint.encode(0x132B3E28))
    assert there.closed is None


@pytest.mark.parametrize("draft", DRAFTS)
def test_unknown_stream_and_datagram_types_are_violations(draft: int) -> None:
    there = peer(draft)
    there.uni(b"\x3f\x00\x00")
    assert there.closed == SessionCode.PROTOCOL_VIOLATION
    there = peer(draft)
    there.session.receive_datagram(b"\x3f\x00\x00\x00\x00", 0.0)
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


# --- Datagrams --------------------------------------------------------------------------------------------------------


def test_datagrams_wait_for_their_alias() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK))
    for alias in (5, 6):
        assert there.session.receive_datagram(datagram(there, alias), 0.0) == []
    there.say(1, m.SubscribeOk(5))
    events = there.side.take()
    assert names(events) == ["SubscribeAccepted", "DatagramArrived"]
    assert isinstance(events[1], e.DatagramArrived) and events[1].requests == (number,)
    there.side.wait(1.1)
    there.open(m.Publish(0, OTHER, 6))
    assert names(there.side.take()) == ["PublishRequested"]


def test_waiting_datagrams_are_limited() -> None:
    there = peer(settings=SessionSettings(max_waiting_datagrams=3, max_waiting_datagram_bytes=40))
    for _ in range(9):
        there.session.receive_datagram(datagram(there, 5), 0.0)
    there.session.receive_datagram(datagram(there, 5, bytes(60)), 0.0)
    there.session.check_invariants()
    there.open(m.Publish(0, TRACK, 5))
    assert names(there.side.take()) == ["PublishRequested", *["DatagramArrived"] * 3]
