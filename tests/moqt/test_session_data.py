"""Data streams and datagrams: aliases, waiting, late streams, fetches, fills, and the end of a subscription."""

from __future__ import annotations

from typing import Any

import pytest

from tests.moqt.pair import DRAFTS, Bytes, Peer, made, subgroup_bytes
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode, SessionCode
from tradewind.moqt.fetched import FetchEncoder, encode_fetch_header
from tradewind.moqt.model import (
    NO_FILTER,
    DatagramObject,
    FetchObject,
    Fill,
    FullTrackName,
    GroupOrder,
    Location,
    ObjectHeader,
    Parameters,
    RangeEnd,
    SubgroupHeader,
)
from tradewind.moqt.objects import encode_datagram
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.session import SessionSettings

TRACK = FullTrackName((b"live", b"demo"), b"video")
OTHER = FullTrackName((b"live", b"demo"), b"audio")
SETUP = SetupOptions()
CANCELLED = ResetCode.CANCELLED


def peer(draft: int = 20, **options: Any) -> Peer:
    return Peer(draft, setup=SETUP, **options)


def subscribed(draft: int = 20, alias: int = 5, **options: Any) -> Peer:
    """A session under test with an accepted subscription."""
    there = peer(draft, **options)
    number = made(there.session.subscribe(TRACK))
    assert number == 1
    there.say(1 if draft >= 17 else there.control, m.SubscribeOk(alias, request=number))
    there.side.take()
    there.heard()
    return there


def subgroup(there: Peer, alias: int, group: int = 0, count: int = 1, **header: object) -> bytes:
    fields = SubgroupHeader(alias, group, 0, 128, has_properties=False)
    return subgroup_bytes(there.profile, fields, [(ObjectHeader(n, 3), b"abc") for n in range(count)])


def fetched(there: Peer, request: int, *objects: tuple[int, int], order: GroupOrder = GroupOrder.ASCENDING) -> bytes:
    encoder = FetchEncoder(there.profile, order)
    parts = [encode_fetch_header(there.profile, request)]
    for group, number in objects:
        parts += (encoder.object(FetchObject(group, 0, ObjectHeader(number, 2), 128)), b"xy")
    return b"".join(parts)


def datagram(there: Peer, alias: int, payload: bytes = b"abc") -> bytes:
    fields = DatagramObject(alias, 1, ObjectHeader(2, len(payload)), 128, False, payload)
    return encode_datagram(there.profile, fields) + payload


def names(events: list[e.Event]) -> list[str]:
    return [type(event).__name__ for event in events]


OPENED = ["SubgroupOpened", "ObjectStarted", "ObjectData"]


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


# --- Fetches and fills ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [GroupOrder.ASCENDING, GroupOrder.DESCENDING])
@pytest.mark.parametrize("answer_first", [False, True])
def test_fetch_ends_with_its_answer_and_its_stream(answer_first: bool, order: GroupOrder) -> None:
    there = peer()
    number = made(there.session.fetch(TRACK, NO_FILTER, Parameters(order=order)))
    groups = (3, 7) if order is GroupOrder.ASCENDING else (7, 3)
    there.heard()
    if answer_first:
        there.say(1, m.FetchOk(Location(7, 0)))
    stream = there.uni(fetched(there, number, (groups[0], 0), (groups[1], 0), order=order), fin=True)
    if not answer_first:
        assert there.session.statistics().requests_ours == 1
        there.say(1, m.FetchOk(Location(7, 0)))
    assert there.heard() == [(1, "fin")]
    assert there.session.statistics().requests_ours == 0
    events = [event for event in there.side.take() if not isinstance(event, e.FetchAccepted)]
    assert [event.object.group for event in events if isinstance(event, e.FetchObjectStarted)] == list(groups)
    assert events[0] == e.FetchOpened(stream, number)
    assert events[-1] == e.FetchClosed(stream, number, None)


def test_refused_fetch_stops_its_stream() -> None:
    there = peer()
    number = made(there.session.fetch(TRACK, NO_FILTER))
    stream = there.uni(fetched(there, number, (1, 0)))
    there.side.take()
    there.heard()
    there.say(1, m.RequestError(RequestCode.INTERNAL_ERROR))
    assert there.side.take() == [
        e.FetchClosed(stream, number, CANCELLED),
        e.RequestRefused(number, RequestCode.INTERNAL_ERROR, "", None),
    ]
    assert there.heard() == [(1, "fin"), (stream, ("stop", CANCELLED))]


def test_second_fetch_stream_for_one_request_is_a_violation() -> None:
    there = peer()
    number = made(there.session.fetch(TRACK, NO_FILTER))
    there.uni(fetched(there, number), fin=True)
    there.uni(fetched(there, number), fin=True)
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


@pytest.mark.parametrize("draft", DRAFTS)
def test_fetch_stream_for_no_request(draft: int) -> None:
    there = peer(draft)
    there.uni(fetched(there, 1))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_fetch_stream_for_a_request_that_is_over_is_stopped() -> None:
    there = peer()
    number = made(there.session.fetch(TRACK, NO_FILTER))
    there.session.cancel(number)
    there.heard()
    stream = there.uni(fetched(there, number, (1, 1)))
    assert there.heard() == [(stream, ("stop", CANCELLED))]
    assert there.closed is None


@pytest.mark.parametrize("cut", [1, 2])
def test_fetch_header_in_pieces(cut: int) -> None:
    there = peer()
    number = made(there.session.fetch(TRACK, NO_FILTER))
    data = fetched(there, number, (1, 1))
    stream = there.uni(data[:cut])
    there.side.receive(Bytes(stream, data[cut:], fin=True))
    assert names(there.side.take()) == ["FetchOpened", "FetchObjectStarted", "ObjectData", "FetchClosed"]
    there = peer()
    there.session.fetch(TRACK, NO_FILTER)
    there.uni(data[:1], fin=True)
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_range_marks() -> None:
    there = peer()
    number = made(there.session.fetch(TRACK, NO_FILTER))
    data = encode_fetch_header(there.profile, number)
    data += FetchEncoder(there.profile, GroupOrder.ASCENDING).range_end(RangeEnd.UNKNOWN, Location(3, 4))
    stream = there.uni(data)
    assert there.side.take()[1:] == [e.FetchRangeEnded(stream, RangeEnd.UNKNOWN, Location(3, 4))]


def test_fill_waits_for_subscribe_ok_and_takes_its_order() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK, Parameters(fill=Fill())))
    stream = there.uni(fetched(there, number, (7, 0), (3, 0), order=GroupOrder.DESCENDING), fin=True)
    assert there.side.take() == []
    there.say(1, m.SubscribeOk(5, properties=((0x22, 2),)))
    events = there.side.take()
    assert events[1] == e.FetchOpened(stream, number, number)
    assert [event.object.group for event in events if isinstance(event, e.FetchObjectStarted)] == [7, 3]
    assert there.session.statistics().requests_ours == 1


def test_fill_of_an_update_is_named_by_the_update() -> None:
    there = subscribed()
    update = made(there.session.update(1, Parameters(fill=Fill(order=GroupOrder.DESCENDING))))
    stream = there.uni(fetched(there, update, (7, 0), (3, 0), order=GroupOrder.DESCENDING), fin=True)
    assert there.side.take()[0] == e.FetchOpened(stream, update, 1)


def test_fill_of_a_publish_may_overtake_it() -> None:
    there = peer()
    stream = there.uni(fetched(there, 0, (7, 0)))
    there.open(m.Publish(0, TRACK, 5))
    events = there.side.take()
    assert names(events) == ["PublishRequested", "FetchOpened", "FetchObjectStarted", "ObjectData"]
    assert events[1] == e.FetchOpened(stream, 0, 0)


def test_cancelled_subscription_takes_its_fills_along() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK, Parameters(fill=Fill(order=GroupOrder.ASCENDING))))
    there.say(1, m.SubscribeOk(5))
    stream = there.uni(fetched(there, number, (7, 0)))
    there.side.take()
    there.heard()
    there.reset(1, CANCELLED)
    assert there.side.take() == [e.FetchClosed(stream, number, CANCELLED), e.RequestCancelled(number, CANCELLED)]
    assert (stream, ("stop", CANCELLED)) in there.heard()


# --- The end of a subscription ----------------------------------------------------------------------------------------


def done(there: Peer, count: int | None) -> None:
    there.say(1, m.PublishDone(DoneCode.TRACK_ENDED, count))


def test_done_subscription_ends_once_its_streams_are_in() -> None:
    there = subscribed()
    first = there.uni(subgroup(there, 5))
    done(there, 2)
    assert there.heard() == [(1, "fin")]
    there.side.receive(Bytes(first, b"", fin=True))
    assert there.session.statistics().requests_ours == 1
    there.uni(subgroup(there, 5, group=1), fin=True)
    assert there.session.statistics().requests_ours == 0
    late = there.uni(subgroup(there, 5, group=2))
    assert there.heard() == [(late, ("stop", CANCELLED))]
    assert names(there.side.take()).count("SubgroupOpened") == 2


@pytest.mark.parametrize("count", [None, 0, 3])
def test_done_subscription_ends_after_a_while(count: int | None) -> None:
    there = subscribed(settings=SessionSettings(done_linger_s=2.0))
    done(there, count)
    there.side.wait(1.9)
    late = there.uni(subgroup(there, 5))
    assert names(there.side.take()) == ["PublishDone", *OPENED]
    there.side.wait(2.0)
    # Open streams keep it alive.
    assert there.session.statistics().requests_ours == 1
    there.side.receive(Bytes(late, b"", fin=True))
    there.side.wait(2.1)
    assert there.session.statistics().requests_ours == 0
    assert there.session.next_deadline() is None


def test_fill_streams_count_too() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK, Parameters(fill=Fill(order=GroupOrder.ASCENDING))))
    there.say(1, m.SubscribeOk(5))
    there.uni(fetched(there, number), fin=True)
    there.uni(subgroup(there, 5), fin=True)
    done(there, 2)
    assert there.session.statistics().requests_ours == 0


def test_cancelling_a_done_subscription_forgets_it() -> None:
    there = subscribed()
    done(there, None)
    there.heard()
    there.session.cancel(1)
    assert there.session.statistics().requests_ours == 0
    assert there.heard() == [(1, ("stop", CANCELLED))]
    assert there.session.next_deadline() is None


def test_alias_of_a_done_subscription_can_serve_another_track() -> None:
    there = subscribed()
    done(there, None)
    there.open(m.Publish(0, OTHER, 5))
    assert there.closed is None
    stream = there.uni(subgroup(there, 5))
    assert there.side.take()[-3] == e.SubgroupOpened(stream, (0,), SubgroupHeader(5, 0, 0, 128, has_properties=False))


def test_publish_that_is_done_before_it_is_answered() -> None:
    there = peer()
    stream = there.open(m.Publish(0, TRACK, 5))
    there.say(stream, m.PublishDone(DoneCode.TRACK_ENDED, 1), fin=True)
    assert names(there.side.take()) == ["PublishRequested", "PublishDone"]
    there.session.accept(0)
    assert there.heard() == [(stream, m.RequestOk()), (stream, "fin")]
    there.uni(subgroup(there, 5), fin=True)
    assert names(there.side.take()) == [*OPENED, "SubgroupClosed"]
    assert there.session.statistics().requests_theirs == 0


def test_publish_that_is_done_and_never_answered_is_cleaned_up() -> None:
    there = peer()
    stream = there.open(m.Publish(0, TRACK, 5))
    there.say(stream, m.PublishDone(DoneCode.TRACK_ENDED, 0), fin=True)
    there.side.wait(6.0)
    assert there.session.statistics().requests_theirs == 0
    assert there.heard() == [(stream, "fin")]
    there.session.accept(0)
    assert there.heard() == []
