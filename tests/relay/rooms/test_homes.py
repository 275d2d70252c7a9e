"""Who may be a room's home: taking over, being replaced, coming back with a disk or without."""

from __future__ import annotations

from relay.rooms.effects import Doing
from tests.relay.rooms.town import ROOM, acks, key_of, naks, opened, publish
from tradewind.contract.rooms import Nak, Opening, Why


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
