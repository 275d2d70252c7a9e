"""Fetch streams and fills: their headers, their requests, ranges that nobody knows."""

from __future__ import annotations

import pytest

from tests.moqt.pair import DRAFTS, Bytes, made
from tests.moqt.streaming import CANCELLED, TRACK, fetched, names, peer, subscribed
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import RequestCode, SessionCode
from tradewind.moqt.fetched import FetchEncoder, encode_fetch_header
from tradewind.moqt.model import NO_FILTER, Fill, GroupOrder, Location, Parameters, RangeEnd


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
