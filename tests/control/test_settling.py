"""A controller that comes back changes nothing before it knows enough, and lets a relay's next life in at once."""

from __future__ import annotations

import pytest

from control.registry.values import Condition
from control.rivals import RIVAL_S, Rivals
from control.settling import Settling
from control.state import State
from tests.control.fleet import FakeRelay, Fleet
from tests.control.mesh import hello
from tradewind.contract.messages import RouteTable, Welcome

FOUR = {"a": "eu", "b": "eu", "c": "us", "d": "us"}


def running() -> Fleet:
    fleet = Fleet(FOUR)
    fleet.run(12)
    for relay in fleet.relays.values():
        relay.hello = hello(relay.number, generation=relay.table.generation)
    return fleet


def tables(fleet: Fleet) -> dict[str, RouteTable]:
    return {name: relay.table for name, relay in fleet.relays.items()}


def test_nothing_changes_until_everybody_is_back() -> None:
    fleet = running()
    before = tables(fleet)
    fleet.restart(fleet.state(8))
    conditions = {name: view.condition for name, view in fleet.plane.relays(fleet.now).items()}
    assert conditions == dict.fromkeys(FOUR, Condition.DETACHED), "known, and not dead"
    for name in "abc":
        fleet.connect(fleet.relays[name])
    fleet.run(10)
    assert tables(fleet) == before and fleet.plane.missing(fleet.now) == {"d"}
    fleet.connect(fleet.relays["d"])
    fleet.run(0.2)
    assert fleet.plane.missing(fleet.now) == frozenset()
    for relay in fleet.relays.values():
        assert relay.table.term == 8
        assert [entry.id for entry in relay.table.relays] == sorted(FOUR)
        assert relay.table.routes == before[relay.id].routes
    assert "died" not in fleet.kinds() and fleet.kinds().count("attached") == 4


def test_who_does_not_come_back_is_missed_after_a_while_and_only_then() -> None:
    fleet = running()
    before = tables(fleet)
    fleet.restart(fleet.state(8))
    fleet.relays["d"].silent = True
    for name in "abc":
        fleet.connect(fleet.relays[name])
    fleet.run(15.5)
    assert tables(fleet) == before and "died" not in fleet.kinds()
    fleet.run(1.5)
    assert "died" in fleet.kinds("d")
    assert all([e.id for e in fleet.relays[name].table.relays] == ["a", "b", "c"] for name in "abc")
    assert {member.relay for member in fleet.state(9).members} == set("abc"), "nobody waits for it again"


def test_one_that_dies_meanwhile_is_missed_when_the_wait_is_over() -> None:
    fleet = running()
    fleet.restart(fleet.state(8))
    for name in "abc":
        fleet.connect(fleet.relays[name])
    fleet.run(3)
    fleet.relays["b"].silent = True
    fleet.run(3)
    assert "died" in fleet.kinds("b"), "it was here: it has no more patience than ever"
    assert fleet.relays["a"].table.term == 7
    fleet.connect(fleet.relays["d"])
    fleet.run(12)
    assert "b" not in {entry.id for entry in fleet.relays["a"].table.relays}


def test_a_store_that_was_lost_waits_its_time_where_relays_follow_a_table() -> None:
    fleet = running()
    fleet.restart(State(9))
    fleet.connect(fleet.relays["a"])
    fleet.run(14)
    assert fleet.relays["a"].table.term == 7
    for name in "bcd":
        fleet.connect(fleet.relays[name])
    fleet.run(3)
    assert {relay.table.term for relay in fleet.relays.values()} == {9}
    assert all(len(relay.table.relays) == 4 for relay in fleet.relays.values())


def test_orders_act_while_a_controller_settles() -> None:
    fleet = running()
    fleet.restart(fleet.state(8))
    fleet.connect(fleet.relays["a"])
    fleet.order("x1", "a", "cordon")
    fleet.run(0.2)
    assert fleet.relays["a"].obeyed == ["x1"]
    fleet.run(1.1)
    assert {member.stage for member in fleet.state(9).members if member.relay == "a"} == {"cordoned"}


def test_settling_alone() -> None:
    new = Settling((), 100.0)
    assert new.is_over(100.0)
    new.receive_hello(0)
    assert new.is_over(100.0), "a mesh that nobody knew begins at once"
    new.receive_hello(7)
    assert not new.is_over(100.1) and new.is_over(new.until)
    later = Settling((), 100.0)
    later.receive_hello(3, ours=5)
    assert later.is_over(100.1), "of our own term"
    known = Settling(("a", "b"), 100.0, 5.0)
    known.receive_report("a")
    known.receive_report("z")
    assert not known.is_over(104.9) and known.missing == {"b"}
    known.receive_report("b")
    assert known.is_over(101.0)


# --- Another life of one relay ---


def second_life(fleet: Fleet, number: int = 50) -> FakeRelay:
    fresh = FakeRelay(number, "a", "eu")
    fleet.connect(fresh)
    return fresh


def refused(relay: FakeRelay) -> bool:
    return any(isinstance(message, Welcome) and message.refused for message in relay.received)


def test_a_relay_that_was_killed_and_started_again_is_let_in_at_once() -> None:
    fleet = running()
    fleet.run(0.3)
    fleet.relays["a"].silent = True
    fresh = second_life(fleet)
    assert not fresh.received, "the one before is asked first"
    fleet.run(RIVAL_S + 0.1)
    assert not refused(fresh) and fresh.held is not None and fresh.held.relay == "a"
    assert "two_boots" not in fleet.kinds() and ("a", "another life took its place") in fleet.closed


def test_one_whose_link_has_closed_need_not_wait_for_neighbours_to_forget_it() -> None:
    fleet = running()
    old = fleet.relays["a"].link
    assert old is not None
    fleet.plane.receive_closed(old, "the relay stops", fleet.now, fleet.wall_now)
    fleet.relays["a"].link = None
    fresh = second_life(fleet)
    fleet.run(RIVAL_S + 0.1)
    assert not refused(fresh) and fresh.held is not None
    fleet.plane.check_invariants()


@pytest.mark.parametrize("tries", [1, 5])
def test_two_that_live_never_take_turns(tries: int) -> None:
    fleet = running()
    for number in range(tries):
        fresh = second_life(fleet, 50 + number)
        assert refused(fresh) and fresh.held is None
        fleet.run(1.0)
    assert fleet.relays["a"].link is not None
    assert fleet.kinds("a").count("two_boots") == tries and fleet.kinds("a").count("joined") == 1


def test_a_second_newcomer_is_refused_while_one_is_held_and_one_that_leaves_is_forgotten() -> None:
    fleet = running()
    fleet.relays["a"].silent = True
    first, other = second_life(fleet, 50), second_life(fleet, 51)
    assert not refused(first) and refused(other)
    link = first.link
    assert link is not None
    fleet.plane.receive_closed(link, "gone", fleet.now, fleet.wall_now)
    fleet.run(RIVAL_S + 0.1)
    assert not any(isinstance(message, Welcome) for message in first.received)
    fleet.plane.check_invariants()


def test_rivals_alone() -> None:
    rivals = Rivals()
    assert rivals.next_deadline() is None and rivals.receive_word("a") is None
    assert rivals.hold(3, "a", hello(1), 10.0) and not rivals.hold(4, "a", hello(2), 10.1)
    assert rivals.hold(5, "b", hello(3), 10.2)
    assert rivals.next_deadline() == 10.0 + RIVAL_S
    word = rivals.receive_word("b")
    assert word is not None and word.link == 5 and len(rivals) == 1
    assert rivals.take_due(10.5) == ()
    assert [rival.link for rival in rivals.take_due(10.0 + RIVAL_S)] == [3] and len(rivals) == 0
