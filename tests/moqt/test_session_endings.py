"""The end of a subscription: PUBLISH_DONE counts streams, and waits for them."""

from __future__ import annotations

import pytest

from tests.moqt.pair import Bytes, Peer, made
from tests.moqt.streaming import CANCELLED, OPENED, OTHER, TRACK, fetched, names, peer, subgroup, subscribed
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import DoneCode
from tradewind.moqt.model import Fill, GroupOrder, Parameters, SubgroupHeader
from tradewind.moqt.session import SessionSettings


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
