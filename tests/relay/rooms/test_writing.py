"""How a message gets its place in a room, when that is said, and what is refused."""

from __future__ import annotations

import pytest

from tests.relay.rooms.town import Town, acks, key_of, naks, opened, publish
from tradewind.contract.rooms import Ack, Class, Nak, Why


def test_a_message_gets_its_place_on_two_disks() -> None:
    town = opened()
    for number in range(3):
        town.publish("a", publish(number))
    assert not town.answers, "nothing is said before it is stored"
    town.flush("a")
    assert not town.answers, "nor before the follower had its time"
    town.settle()
    assert acks(town) == [(1, 0, False, 2), (1, 1, False, 2), (1, 2, False, 2)]
    assert town.relays["a"].records == town.relays["b"].records
    assert [record.body for record in town.relays["a"].records] == [b"0", b"1", b"2"]
    assert town.relays["a"].visible() == town.relays["a"].disk.flushed.records


def test_the_same_key_has_the_same_place() -> None:
    town = opened(recent_keys=1)
    town.publish("a", publish(1))
    town.publish("a", publish(1), writer="again")
    town.settle()
    assert town.answers[0][0] == "ann" and town.answers[1][0] == "again"
    assert acks(town) == [(1, 0, False, 2), (1, 0, False, 2)]
    town.publish("a", publish(1))
    assert acks(town) == [(1, 0, True, 2)], "out of memory"
    town.publish("a", publish(2))
    town.settle()
    acks(town)
    town.publish("a", publish(1))
    town.publish("a", publish(3))
    town.settle()
    assert sorted(acks(town)) == [(1, 0, True, 2), (1, 2, False, 2)], "from the disk, and what came with it"


def test_who_waits_behind_a_duplicate_keeps_its_turn() -> None:
    town = opened(recent_keys=1, batch_records=4)
    for number in (0, 1):
        town.publish("a", publish(number))
    town.settle()
    town.publish("a", publish(10))
    for number in (11, 0, 12, 13, 14, 15):
        town.publish("a", publish(number))
    town.settle()
    assert [record.body for record in town.relays["a"].records] == [b"0", b"1", *(b"%d" % n for n in range(10, 16))]


def test_a_slow_follower_is_waited_for_once() -> None:
    town = opened()
    town.publish("a", publish(0))
    town.settle()
    acks(town)
    town.cut.add(frozenset("ab"))
    town.publish("a", publish(1))
    town.settle()
    assert not town.answers
    town.relays["a"].live.receive_controller(town.now)
    town.pass_time(0.5)
    assert acks(town) == [(1, 1, False, 1)]
    town.publish("a", publish(2))
    town.settle()
    assert acks(town) == [(1, 2, False, 1)], "the next ones are not held up"
    town.cut.clear()
    town.pass_time(0.5)
    town.settle()
    assert acks(town) == [(1, 1, False, 2), (1, 2, False, 2)], "and are told once there are two"
    town.publish("a", publish(3))
    town.settle()
    assert acks(town) == [(1, 3, False, 2)]


def test_a_home_that_is_cut_off_from_all_acknowledges_nothing() -> None:
    town = opened()
    town.cut.add(frozenset("ab"))
    town.publish("a", publish(1))
    town.settle()
    town.pass_time(3.0)
    assert not town.answers, "what has a place is not refused, for it may come to light"
    town.publish("a", publish(2))
    assert naks(town) == [Why.NO_QUORUM]
    assert not town.relays["a"].visible()
    town.relays["a"].live.receive_controller(town.now)
    town.take("a")
    assert acks(town) == [(1, 1 - 1, False, 1)]


def test_without_a_follower_one_disk_is_enough() -> None:
    town = opened(follower="")
    town.pass_time(100)
    town.publish("a", publish(1))
    town.settle()
    assert acks(town) == [(1, 0, False, 1)]


def test_classes_that_need_two() -> None:
    town = opened(needs_two=frozenset({Class.VALUE}))
    town.publish("a", publish(0, cls=Class.VALUE))
    town.settle()
    assert acks(town) == [(1, 0, False, 2)]
    town.cut.add(frozenset("ab"))
    town.publish("a", publish(1, cls=Class.VALUE))
    town.publish("a", publish(2))
    town.settle()
    town.relays["a"].live.receive_controller(town.now)
    town.pass_time(0.5)
    assert acks(town) == [(1, 2, False, 1)]
    town.publish("a", publish(3, cls=Class.VALUE))
    assert naks(town) == [Why.NO_QUORUM]
    town.cut.clear()
    town.pass_time(0.5)
    town.settle()
    assert sorted(acks(town)) == [(1, 1, False, 2), (1, 2, False, 2)]


def test_a_place_on_condition() -> None:
    town = opened()
    town.publish("a", publish(0, expect_seq=0))
    town.publish("a", publish(1, expect_seq=0))
    town.publish("a", publish(2, expect_seq=1))
    town.settle()
    told = town.told()
    assert [(answer.key, answer.why) for answer in told if isinstance(answer, Nak)] == [(key_of(1), Why.CAS)]
    assert [(answer.key, answer.seq) for answer in told if isinstance(answer, Ack)][-1] == (key_of(2), 1)
    town.crash("a")
    town.relays["a"].start()
    town.tell("a")
    town.publish("a", publish(0, expect_seq=0))
    town.settle()
    assert acks(town) == [(1, 0, True, 2)], "asked again, it has the place that it got"


def test_a_deadline_of_its_own() -> None:
    town = opened()
    town.publish("a", publish(0))
    town.publish("a", publish(1, deadline_ms=10))
    town.pass_time(0.02)
    town.settle()
    told = town.told()
    assert {type(answer) for answer in told} == {Ack, Nak}
    assert [answer.why for answer in told if isinstance(answer, Nak)] == [Why.EXPIRED]


def test_a_full_disk_refuses_and_forgets() -> None:
    town = opened()
    town.relays["a"].disk.full = True
    town.publish("a", publish(0))
    town.settle()
    assert naks(town) == [Why.FULL]
    town.relays["a"].disk.full = False
    town.pass_time(0.6)
    town.publish("a", publish(1))
    town.publish("a", publish(0))
    town.settle()
    assert acks(town) == [(1, 0, False, 2), (1, 1, False, 2)]


def test_a_full_disk_at_the_follower_does_not_stop_the_room() -> None:
    town = opened()
    town.relays["b"].disk.full = True
    town.publish("a", publish(0))
    town.settle()
    town.pass_time(0.6)
    town.settle()
    assert acks(town) == [(1, 0, False, 1)]
    town.relays["b"].disk.full = False
    for _ in range(3):
        town.pass_time(0.6)
        town.settle()
    assert acks(town) == [(1, 0, False, 2)]


@pytest.mark.parametrize("full", ["a", "b"])
def test_a_full_disk_is_not_asked_again_and_again(full: str) -> None:
    town = Town()
    town.relays[full].disk.full = True
    town.name_home("a", "b")
    town.settle()
    town.relays[full].disk.full = False
    for _ in range(3):
        town.pass_time(0.6)
        town.settle()
    town.publish("a", publish(0))
    town.settle()
    assert acks(town) == [(1, 0, False, 2)]


def test_rates_refuse_before_anything_is_kept() -> None:
    town = opened(writer_per_s=2.0, burst_s=1.0, room_per_s=8.0)
    for number in range(3):
        town.publish("a", publish(number))
    town.settle()
    told = town.told()
    (nak,) = [answer for answer in told if isinstance(answer, Nak)]
    assert nak.why is Why.RATE and nak.retry_ms == 501
    for number in range(10, 20):
        town.publish("a", publish(number), user=b"user%d" % number)
    town.settle()
    told = town.told()
    assert sum(isinstance(answer, Ack) for answer in told) == 4, "six of eight a second are for the crowd"
    town.publish("a", publish(30, cls=Class.VALUE), user=b"giver")
    town.settle()
    assert len(acks(town)) == 1, "two are kept for what matters"


def test_who_is_no_home_says_so() -> None:
    town = Town()
    town.name_home("a", "b")
    town.publish("c", publish(0))
    assert [(nak.why, nak.home) for nak in town.told() if isinstance(nak, Nak)] == [(Why.MOVED, "a")]
    rooms = town.relays["c"].live
    rooms.receive_publish((b"other",), "ann", b"ann", b"", town.now, 0.0)
    rooms.receive_publish((b"other",), "ann", b"ann", b"\x80", town.now, 0.0)
    town.take("c")
    assert naks(town) == [Why.MALFORMED, Why.MALFORMED]
