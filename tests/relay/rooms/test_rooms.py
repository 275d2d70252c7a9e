"""A room's life, scene by scene: opening, writing, losing one relay or the other, coming back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.rooms.effects import Doing
from tests.relay.rooms.town import ROOM, SETTINGS, Town, key_of, publish
from tradewind.contract.copies import Copy
from tradewind.contract.rooms import Ack, Class, Nak, Opening, Why, chain_of, decode_record, encode


def acks(town: Town) -> list[tuple[int, int, bool, int]]:
    """(epoch, seq, dup, stored) of every answer since the last call; all have to be ACKs."""
    told = town.told()
    assert all(isinstance(answer, Ack) for answer in told), told
    return [(a.epoch, a.seq, a.dup, a.stored) for a in told if isinstance(a, Ack)]


def naks(town: Town) -> list[Why]:
    told = town.told()
    assert all(isinstance(answer, Nak) for answer in told), told
    return [answer.why for answer in told if isinstance(answer, Nak)]


def opened(home: str = "a", follower: str = "b", **more: object) -> Town:
    town = Town(settings=replace(SETTINGS, **more))  # type: ignore[arg-type]
    town.name_home(home, follower)
    town.settle()
    assert town.relays[home].doing is Doing.HOME
    return town


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


def test_the_follower_takes_over_and_the_old_home_gives_up_its_tail() -> None:
    town = opened()
    for number in range(300):
        town.publish("a", publish(number))
    town.settle()
    assert {stored for *_, stored in acks(town)} == {2}
    town.cut.add(frozenset("ab"))
    for number in range(300, 303):
        town.publish("a", publish(number))
    town.settle()
    town.relays["a"].live.receive_controller(town.now)
    town.pass_time(0.6)
    assert [stored for *_, stored in acks(town)] == [1, 1, 1]
    town.crash("a")
    town.name_home("b", "c")
    assert town.relays["b"].live.home_of(ROOM) == "b"
    town.settle()
    assert town.relays["b"].live.opening(ROOM) == Opening(2, 300, "b")
    town.publish("b", publish(301))
    town.publish("b", publish(17))
    town.settle()
    assert sorted(place[:3] for place in acks(town)) == [(1, 17, True), (2, 300, False)]
    town.relays["a"].start()
    town.cut.clear()
    town.name_home("b", "a")
    town.settle()
    town.pass_time(0.5)
    town.settle()
    assert town.relays["a"].records == town.relays["b"].records
    assert len(town.relays["a"].disk.flushed.quarantine) == 3
    assert town.relays["a"].live.statistics()[ROOM].withdrawn == 3
    assert town.relays["a"].live.reports()[0].whole == 3


def test_a_home_that_was_replaced_is_fenced_by_its_follower() -> None:
    town = opened()
    town.publish("a", publish(0))
    town.settle()
    acks(town)
    town.name_home("b", "a", tell="b")
    for number in range(1, 3):
        town.publish("a", publish(number))
    town.settle()
    assert town.relays["a"].doing is Doing.FENCED
    town.publish("a", publish(3))
    assert naks(town) == [Why.FENCED]
    assert len(town.relays["b"].visible()) == 1
    town.tell("a")
    town.pass_time(0.5)
    town.settle()
    assert town.relays["a"].records == town.relays["b"].records
    town.publish("a", publish(4))
    (nak,) = town.told()
    assert nak == Nak(key_of(4), Why.MOVED, 0, "b")


def test_who_is_not_whole_does_not_become_the_home() -> None:
    town = opened()
    town.publish("a", publish(0))
    town.settle()
    acks(town)
    town.crash("a")
    town.name_home("c")
    town.settle()
    assert town.relays["c"].doing is Doing.BEHIND
    town.publish("c", publish(1))
    assert naks(town) == [Why.NO_HOME]
    town.name_home("b", "c", base=1)
    town.settle()
    town.pass_time(0.5)
    town.settle()
    assert town.relays["c"].live.reports()[0].whole == 3
    assert town.relays["c"].records == town.relays["b"].records
    assert len(town.relays["c"].records) == 1


def test_a_home_whose_disk_was_lost_does_not_begin_again() -> None:
    town = opened()
    town.publish("a", publish(0))
    town.settle()
    acks(town)
    town.crash("a")
    town.relays["a"].disk.__init__()  # type: ignore[misc]
    town.relays["a"].start()
    town.tell("a")
    town.publish("a", publish(1))
    assert naks(town) == [Why.NO_QUORUM], "it first hears what its follower has"
    town.settle()
    town.publish("a", publish(1))
    assert town.relays["a"].doing is Doing.LOST
    assert naks(town) == [Why.NO_HOME]
    town.name_home("b", "a")
    town.settle()
    town.pass_time(0.5)
    town.settle()
    assert [record.body for record in town.relays["a"].records] == [b"0"]


def test_a_home_come_back_goes_on_in_its_epoch() -> None:
    town = opened()
    town.publish("a", publish(0))
    town.flush("a")
    town.crash("a")
    town.relays["a"].start()
    town.tell("a", heard=False)
    town.pass_time(0.5)
    town.settle()
    town.publish("a", publish(0))
    town.publish("a", publish(1))
    town.settle()
    assert sorted(acks(town)) == [(1, 0, True, 2), (1, 1, False, 2)]


def test_a_home_come_back_alone_waits_for_its_follower() -> None:
    """Its table may be old: without follower and controller it cannot know that it is still the home."""
    town = opened()
    town.crash("a")
    town.crash("b")
    town.relays["a"].start()
    town.tell("a", heard=False)
    town.settle()
    assert town.relays["a"].doing is Doing.HOME
    town.publish("a", publish(0))
    assert naks(town) == [Why.NO_QUORUM]


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


@pytest.mark.parametrize("count", [1, 700, 1200])
def test_a_new_follower_catches_up(count: int) -> None:
    town = opened(follower="", tail_records=256, window_records=512)
    for number in range(count):
        town.publish("a", publish(number))
        if not number % 200:
            town.settle()
    town.settle()
    town.told()
    town.name_home("a", "b")
    for _ in range(4):
        town.settle()
        town.pass_time(0.5)
    assert town.relays["b"].records == town.relays["a"].records
    assert town.relays["b"].live.reports()[0].whole == 2
    town.publish("a", publish(count))
    town.settle()
    assert acks(town) == [(2, count, False, 2)]


def test_the_wire_may_lose_and_repeat() -> None:
    town = opened()
    for number in range(50):
        town.publish("a", publish(number))
        town.flush("a") if town.relays["a"].disk.queue else None
        wire = town.wires[("a", "b")]
        if number % 3 == 0 and wire:
            wire.popleft()
        elif wire:
            wire.append(wire[0])
    for _ in range(6):
        town.settle()
        town.pass_time(0.5)
    assert town.relays["b"].records == town.relays["a"].records
    assert len(town.relays["b"].records) == 50


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


def test_a_follower_counts_once_it_is_whole() -> None:
    town = opened(follower="", batch_records=2)
    for number in range(5):
        town.publish("a", publish(number))
    town.settle()
    town.told()
    town.name_home("a", "c")
    town.flush("a")
    town.deliver("a", "c")
    town.flush("c")
    assert town.relays["c"].live.reports()[0].whole == 0, "it has the lineage and no record"
    while town.wires["c", "a"]:
        town.deliver("c", "a")
    town.deliver("a", "c")
    town.flush("c")
    assert len(town.relays["c"].records) == 2
    assert town.relays["c"].live.reports()[0].whole == 0
    while town.wires["c", "a"]:
        town.deliver("c", "a")
    town.publish("a", publish(0))
    assert acks(town) == [(1, 0, True, 1)], "nobody could promote it with so little"
    town.settle()
    assert town.relays["c"].live.reports()[0].whole == 2
    town.publish("a", publish(0))
    assert acks(town) == [(1, 0, True, 2)]


def test_a_follower_shows_what_two_relays_have() -> None:
    town = opened()
    for number in range(3):
        town.publish("a", publish(number))
    town.flush("a")
    town.flush("a")
    town.deliver("a", "b")
    town.flush("b")
    town.crash("a")
    assert len(town.relays["b"].visible()) == len(town.relays["b"].records) >= 1, "it may have been acknowledged"


def test_an_old_table_opens_no_old_epoch() -> None:
    town = opened()
    old = town.entry
    assert old is not None
    town.name_home("b", "a")
    town.settle()
    town.pass_time(0.6)
    town.settle()
    town.crash("a")
    town.relays["a"].start()
    town.relays["a"].live.apply([old], town.now)
    town.take("a")
    assert town.relays["a"].doing is Doing.BEHIND
    assert not town.relays["a"].disk.queue


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


@pytest.mark.parametrize(
    ("changed", "doing"),
    [
        ({"seq": 2}, Doing.FOLLOWING),
        ({"epoch": 2}, Doing.FOLLOWING),
        ({"prev": b"otherwise"[:8]}, Doing.DIVERGED),
        ({}, Doing.FOLLOWING),
    ],
)
def test_a_follower_takes_the_next_record_and_no_other(changed: dict[str, int], doing: Doing) -> None:
    town = opened()
    town.publish("a", publish(0))
    town.settle()
    (first,) = town.relays["a"].disk.flushed.records
    record = replace(decode_record(first), seq=1, key=key_of(1), prev=chain_of(first))
    payload = encode(replace(record, **changed))  # type: ignore[arg-type]
    lineage = town.relays["a"].disk.flushed.standing.lineage
    for records in ((payload[:-1], payload), (payload,)):
        town.relays["b"].live.receive_relay("a", Copy(ROOM, 1, lineage, 1, records), town.now)
        town.take("b")
    town.settle()
    assert len(town.relays["b"].records) == (1 if changed else 2)
    assert town.relays["b"].doing is doing
    assert (town.relays["b"].live.reports()[0].whole == 0) == (doing is Doing.DIVERGED)


def test_a_follower_that_was_promoted_says_so_to_its_old_home() -> None:
    """Nobody else tells it: the new home copies to another relay."""
    town = opened()
    town.name_home("b", "c", tell="b")
    town.settle()
    town.publish("a", publish(0))
    town.settle()
    assert town.relays["a"].doing is Doing.FENCED
    assert not town.told(), "what has a place here may never have one there"
    town.tell("a")
    assert town.relays["a"].doing is Doing.WATCHING


def test_records_come_from_the_home_alone() -> None:
    town = opened()
    town.publish("a", publish(0))
    while town.relays["a"].disk.queue:
        town.flush("a")
    copy = town.wires["a", "b"].pop()
    town.wires.setdefault(("c", "b"), town.wires["a", "b"].copy()).append(copy)
    town.settle()
    assert not town.relays["b"].records
    assert town.relays["b"].live.statistics()[ROOM].conflicts == 1


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
