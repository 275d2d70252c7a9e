"""The control plane over time: relays come, lie, die and come back; orders act once; rooms never lose their order."""

from __future__ import annotations

from itertools import pairwise

from control.questions import MAX_QUESTIONS
from control.state import State
from control.streams import Told
from tests.control.fleet import FakeRelay, Fleet
from tests.control.mesh import hello, report
from tradewind.contract.messages import (
    Answer,
    Command,
    Origin,
    PackedTable,
    Question,
    RoomReport,
    SignedTable,
    StreamReport,
    TableDelta,
    Welcome,
)

FOUR = {"a": "eu", "b": "eu", "c": "us", "d": "us"}
ROOM = (b"live", b"r", b"one")


def test_relays_are_welcomed_and_get_their_own_signed_table() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    for relay in fleet.relays.values():
        assert isinstance(relay.received[0], Welcome) and not relay.received[0].refused
        assert relay.table.term == 7
        assert [entry.id for entry in relay.table.relays] == sorted(FOUR)


def test_a_change_travels_as_a_difference_and_whole_tables_are_spread_over_the_cycle() -> None:
    fleet = Fleet(FOUR)
    fleet.run(12)
    for relay in fleet.relays.values():
        relay.received.clear()
    fleet.relays["d"].stage = "draining"
    fleet.run(1.2)
    a = fleet.relays["a"]
    assert [type(m) for m in a.received] == [TableDelta]
    assert {entry.id: entry.stage for entry in a.table.relays}["d"] == "draining"
    wholes: dict[int, int] = {}
    for step in range(200):
        for relay in fleet.relays.values():
            relay.received.clear()
        fleet.run(0.05)
        sent = sum(isinstance(m, PackedTable) for relay in fleet.relays.values() for m in relay.received)
        if sent:
            wholes[step] = sent
    assert set(wholes.values()) == {1} and sum(wholes.values()) == 4
    gaps = [b - a for a, b in zip(sorted(wholes), sorted(wholes)[1:], strict=False)]
    assert all(abs(gap - 50) <= 1 for gap in gaps), gaps


def test_two_relays_with_one_id_the_second_is_refused_and_operators_hear_of_it() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    impostor = FakeRelay(50, "a", "eu")
    fleet.connect(impostor)
    assert [m.refused.partition(":")[0] for m in impostor.received if isinstance(m, Welcome)] == ["two_boots"]
    assert impostor.held is None and impostor.link is None
    assert fleet.closed == [("a", "two_boots")]
    assert "two_boots" in fleet.kinds("a") and fleet.plane.is_connected("a")
    fleet.run(3)
    assert fleet.relays["a"].link is not None and fleet.plane.statistics().refused == 1


def test_the_same_life_that_dials_again_takes_its_old_links_place() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    a = fleet.relays["a"]
    old = a.link
    new = fleet.connect(a)
    assert old is not None and new != old and fleet.closed == [("a", "replaced by a newer link")]
    fleet.plane.receive_closed(old, "late", fleet.now, fleet.wall_now)
    assert fleet.plane.is_connected("a")


def test_a_dead_relay_leaves_everybodys_table() -> None:
    fleet = Fleet(FOUR)
    fleet.run(3)
    fleet.relays["d"].silent = True
    fleet.run(2.7)
    assert "died" in fleet.kinds("d")
    for id in "abc":
        assert "d" not in {entry.id for entry in fleet.relays[id].table.relays}


def test_who_says_something_before_hello_is_cut_off() -> None:
    fleet = Fleet({"a": "eu"})
    stranger = FakeRelay(9, "z", "eu")
    link = fleet._links = fleet._links + 1
    fleet._by_link[link] = stranger
    from tests.control.fleet import identity

    fleet.plane.receive_proven(link, identity("z", "eu"))
    fleet.plane.receive_message(link, report(), fleet.now, fleet.wall_now)
    fleet.flush()
    assert fleet.closed == [("z", "the first message is not Hello")] and "violation" in fleet.kinds("z")
    fleet.plane.receive_message(link, hello(9), fleet.now, fleet.wall_now)
    assert fleet.plane.registry.relay("z", fleet.now) is None


def test_a_flood_of_reports_is_not_looked_at() -> None:
    fleet = Fleet({"a": "eu"})
    for _ in range(100):
        fleet.report(fleet.relays["a"])
    assert fleet.plane.statistics().reports == 20 and fleet.plane.statistics().reports_dropped == 80


# --- Orders ---


def test_an_order_acts_only_once_it_is_on_disk_and_only_once() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    fleet.saves_after_s = 0.5
    assert fleet.order("x1", "a") is None
    fleet.run(0.3)
    a = fleet.relays["a"]
    assert not a.obeyed and not any(isinstance(m, Command) for m in a.received)
    fleet.run(0.4)
    assert a.obeyed == ["x1"] and a.stage == "draining"
    fleet.run(1)
    again = fleet.order("x1", "a")
    assert again is not None and again.status == 200 and again.document.progress == "done"
    fleet.run(5)
    assert sum(isinstance(m, Command) for m in a.received) == 1
    other = fleet.order("x1", "b")
    assert other is not None and other.status == 409
    lines = [(line.who, line.what, line.target, line.result) for batch in fleet.saved for line in batch.audit]
    assert lines == [("ops", "drain x1", "a", "ordered"), ("ops", "drain x1", "a", "done")]


def test_who_asks_again_before_it_is_on_disk_waits_too() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    fleet.saves_after_s = 0.5
    assert fleet.order("x1", "a") is None and fleet.order("x1", "a") is None
    fleet.run(0.7)
    assert [reply.status for reply in fleet.replies.values()] == [202, 200]


def test_an_order_is_repeated_until_it_is_done_and_over_a_restart() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    a = fleet.relays["a"]
    a.obeys = False
    fleet.order("x1", "a", "cordon")
    fleet.run(5)
    assert sum(isinstance(m, Command) for m in a.received) == 3
    fleet.restart(fleet.state(8))
    a.obeys = True
    a.received.clear()
    for relay in fleet.relays.values():
        fleet.connect(relay)
    fleet.run(1)
    assert a.obeyed == ["x1"] and fleet.progress("x1") == "done"
    assert a.table.term == 8


def test_a_relay_that_starts_anew_is_told_again_what_stage_it_shall_be_in() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    fleet.order("x1", "a", "cordon")
    fleet.run(1)
    fleet.reboot(fleet.relays["a"])
    fleet.run(1)
    assert fleet.relays["a"].stage == "cordoned"
    fleet.order("x2", "a", "uncordon")
    fleet.run(1)
    fleet.reboot(fleet.relays["a"])
    fleet.run(1)
    assert fleet.relays["a"].stage == "serving" and fleet.relays["a"].obeyed == []


def test_a_later_order_takes_the_place_of_an_earlier_one() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    fleet.relays["a"].obeys = False
    fleet.order("x1", "a", "drain")
    fleet.order("x2", "a", "undrain")
    assert [fleet.progress(id) for id in ("x1", "x2")] == ["superseded", "open"]
    fleet.relays["a"].obeys = True
    fleet.run(3)
    assert fleet.relays["a"].obeyed == ["x2"]
    missing = fleet.order("x3", "nobody")
    assert missing is not None and missing.status == 404


def test_operators_hear_of_those_who_did_not_move() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    d = fleet.relays["d"]
    for total in (0, 3, 3, 5, 0, 1):
        assert d.link is not None
        fleet.plane.receive_message(d.link, report(stage="draining", overstayed=total), fleet.now, fleet.wall_now)
    told = [line.detail for line in fleet.plane.events.after(0, 10_000) if line.kind == "overstayed"]
    assert [detail.partition(" ")[0] for detail in told] == ["3", "2", "1"]
    assert fleet.kinds("d").count("overstayed") == 3


def test_operators_hear_of_tables_that_a_relay_did_not_take() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    d = fleet.relays["d"]
    for total, why in ((0, ""), (1, "unsigned"), (1, "unsigned"), (4, "older")):
        assert d.link is not None
        said = report(tables_refused=total, table_refused=why)
        fleet.plane.receive_message(d.link, said, fleet.now, fleet.wall_now)
    told = [(line.relay, line.detail) for line in fleet.plane.events.after(0, 10_000) if line.kind == "table_refused"]
    assert told == [("d", "1 not taken, the last one: unsigned"), ("d", "3 not taken, the last one: older")]


def test_questions_are_answered_by_whom_they_were_put_to_or_time_out() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    ticket = fleet.plane.ask("a", Question(0, "sessions", 10), fleet.now)
    fleet.flush()
    assert fleet.replies[ticket][1:] == (200, '{"relay": "a"}')
    fleet.relays["b"].silent = True
    late = fleet.plane.ask("b", Question(0, "links", 10), fleet.now)
    fleet.run(5.1)
    assert fleet.replies[late].status == 504
    nobody = fleet.plane.ask("z", Question(0, "links", 10), fleet.now)
    fleet.flush()
    assert fleet.replies[nobody].status == 404


def kick(fleet: Fleet, id: str, relay: str, session: int, reason: str = "") -> None:
    fleet.order(id, relay, "kick", session=session, reason=reason)


def test_a_session_is_ended_once_and_never_one_of_another_life() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    a, b = fleet.relays["a"], fleet.relays["b"]
    kick(fleet, "x1", "a", 17, "spam")
    fleet.run(1)
    kick(fleet, "x1", "a", 17, "spam")
    (sent,) = [m for m in a.received if isinstance(m, Command)]
    assert (sent.action, sent.session, sent.reason) == ("kick", 17, "spam")
    b.silent = True
    kick(fleet, "x2", "b", 18)
    fleet.run(3)
    b.silent = False
    b.received.clear()
    fleet.reboot(b)
    fleet.run(3)
    assert not [m for m in b.received if isinstance(m, Command)], "session 18 is somebody else now"
    order = fleet.plane.commands.order("x2")
    assert order is not None and (order.progress, order.detail) == ("failed", "the relay has begun anew since")
    lines = [(line.what, line.target, line.result) for batch in fleet.saved for line in batch.audit]
    assert lines == [
        ("kick x1", "a/17", "ordered: spam"),
        ("kick x1", "a/17", "done"),
        ("kick x2", "b/18", "ordered"),
        ("kick x2", "b/18", "failed the relay has begun anew since"),
    ]
    assert [line.result for line in fleet.plane.commands.audit(2)] == [lines[2][2], lines[3][2]]


def test_a_kick_outlives_its_controller_but_not_its_relay() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    for id in "ab":
        fleet.relays[id].silent = True
        kick(fleet, f"x-{id}", id, 3)
    fleet.run(0.5)
    fleet.restart(fleet.state(8))
    for relay in fleet.relays.values():
        relay.silent = False
        relay.received.clear()
    fleet.relays["b"].hello = hello(200)
    for relay in fleet.relays.values():
        fleet.connect(relay)
    fleet.run(1)
    assert fleet.relays["a"].obeyed == ["x-a"] and not fleet.relays["b"].obeyed
    assert (fleet.progress("x-a"), fleet.progress("x-b")) == ("done", "failed")


def test_a_question_that_a_relay_cannot_read_is_answered_at_once() -> None:
    fleet = Fleet({"a": "eu"})
    fleet.run(1)
    fleet.relays["a"].silent = True
    ticket = fleet.plane.ask("a", Question(0, "streams", 1), fleet.now)
    fleet.flush()
    (reply,) = fleet.plane.receive_unsent(Question(ticket, "streams"))
    assert (reply.ticket, reply.status) == (ticket, 501)
    assert fleet.plane.receive_unsent(Question(ticket, "streams")) == ()
    for _ in range(MAX_QUESTIONS):
        fleet.plane.ask("a", Question(0, "tracks", 1), fleet.now)
    full = fleet.plane.ask("a", Question(0, "tracks", 1), fleet.now)
    fleet.flush()
    assert fleet.replies[full].status == 503


# --- Streams ---


def test_streams_are_what_relays_told_last() -> None:
    fleet = Fleet({"a": "eu", "b": "us"})
    a, b = fleet.relays["a"], fleet.relays["b"]
    row = StreamReport((b"live",), "publisher", 2, 20, 1e5)
    a.told = {"streams": (row,), "streams_more": 3}
    b.told = {"origins": (Origin((b"old",), 1),), "carried": ((b"live",),)}
    fleet.run(1.5)
    streams = fleet.plane.streams

    def at(relay: str) -> Told:
        view = fleet.plane.registry.relay(relay, fleet.now)
        assert view is not None
        return streams.of(relay, view.report)

    assert at("a") == ((row,), 3)
    old = [(one.namespace, one.source, one.tracks) for one in at("b").rows]
    assert old == [((b"old",), "publisher", 0), ((b"live",), "", 0)], "a relay of before tells names"
    assert streams.tells("a") and not streams.tells("b")
    a.told = {}
    fleet.run(1.5)
    assert at("a") == ((row,), 3), "None is as before"
    a.told = {"streams": ()}
    fleet.run(1.5)
    assert at("a") == ((), 0)
    fleet.reboot(a)
    assert not streams.tells("a")


def test_a_new_life_has_told_nothing_yet() -> None:
    fleet = Fleet({"a": "eu", "b": "us"})
    a = fleet.relays["a"]
    a.told = {"streams": (StreamReport((b"live",), "publisher", 2, 20, 1e5),)}
    fleet.run(1.5)
    assert a.link is not None
    fleet.plane.receive_closed(a.link, "gone", fleet.now, fleet.wall_now)
    a.link, a.hello = None, hello(77)
    fleet.run(6)
    assert fleet.plane.streams.tells("a") and "died" not in fleet.kinds("a"), "its neighbour hears it"
    fleet.connect(a)
    assert a.link is not None and not fleet.plane.streams.tells("a")


# --- Rooms ---


def holds(epoch: int = 0, whole: int = 0, *, writing: bool = False) -> tuple[RoomReport, ...]:
    return (RoomReport(ROOM, epoch, whole, 0, writing),)


def test_a_room_gets_a_home_where_it_was_written_in_and_a_follower_in_another_region() -> None:
    fleet = Fleet(FOUR)
    fleet.relays["a"].rooms = holds()
    fleet.run(6)
    (entry,) = fleet.relays["d"].table.rooms
    assert (entry.home, entry.epoch, entry.base) == ("a", 1, 0)
    assert FOUR[entry.follower] == "us"


def test_nobody_hears_of_a_home_that_is_not_on_disk() -> None:
    fleet = Fleet(FOUR)
    fleet.saves_after_s = 3.0
    fleet.relays["a"].rooms = holds()
    fleet.run(7)
    assert fleet.saving and fleet.relays["a"].table.rooms == ()
    fleet.run(3)
    assert len(fleet.relays["a"].table.rooms) == 1


def settled(follower_whole: int) -> Fleet:
    fleet = Fleet(FOUR)
    fleet.relays["a"].rooms = holds()
    fleet.run(6)
    (entry,) = fleet.plane.homes.entries()
    assert entry.follower == "c"
    fleet.relays["a"].rooms = holds(1, 1, writing=True)
    fleet.relays["c"].rooms = holds(1, follower_whole)
    fleet.run(2)
    return fleet


def test_the_follower_is_promoted_when_the_home_dies_and_only_if_it_is_whole() -> None:
    fleet = settled(follower_whole=1)
    fleet.relays["a"].silent = True
    fleet.run(4)
    (entry,) = fleet.relays["c"].table.rooms
    assert (entry.home, entry.epoch, entry.base) == ("c", 2, None)
    assert FOUR[entry.follower] == "eu" and entry.follower != "a"
    stuck = settled(follower_whole=0)
    stuck.relays["a"].silent = True
    stuck.run(20)
    (entry,) = stuck.plane.homes.entries()
    assert (entry.home, entry.epoch) == ("a", 1)
    assert stuck.kinds().count("room_stuck") == 1
    stuck.relays["c"].rooms = holds(1, 1)
    stuck.run(3)
    assert stuck.home(ROOM).home == "c"


def test_a_home_that_drains_hands_over_and_a_dead_follower_is_replaced_after_a_while() -> None:
    fleet = settled(follower_whole=1)
    fleet.relays["c"].silent = True
    fleet.run(9)
    assert fleet.home(ROOM).epoch == 1
    fleet.run(5)
    entry = fleet.home(ROOM)
    assert (entry.home, entry.follower, entry.epoch) == ("a", "d", 2)
    fleet.relays["a"].rooms = holds(2, 2, writing=True)
    fleet.relays["d"].rooms = holds(2, 2)
    fleet.relays["a"].stage = "draining"
    fleet.run(2.5)
    entry = fleet.home(ROOM)
    assert (entry.home, entry.epoch) == ("d", 3) and entry.follower == "b"


def test_a_controller_that_comes_back_misses_nobody_before_they_had_time_to_come() -> None:
    fleet = settled(follower_whole=1)
    fleet.restart(fleet.state(8))
    fleet.run(3)
    for relay in fleet.relays.values():
        fleet.connect(relay)
    fleet.run(5)
    assert fleet.home(ROOM).epoch == 1 and fleet.home(ROOM).home == "a"


def test_a_store_that_was_lost_goes_on_above_the_epoch_that_relays_remember() -> None:
    fleet = settled(follower_whole=1)
    fleet.restart(State(9))
    for relay in fleet.relays.values():
        fleet.connect(relay)
    fleet.run(7)
    entry = fleet.home(ROOM)
    assert (entry.home, entry.epoch, entry.base) == ("a", 2, None)


def test_an_answer_from_another_relay_is_none() -> None:
    fleet = Fleet(FOUR)
    fleet.run(1)
    fleet.relays["a"].silent = True
    ticket = fleet.plane.ask("a", Question(0, "sessions", 10), fleet.now)
    fleet.flush()
    link = fleet.relays["b"].link
    assert link is not None
    fleet.plane.receive_message(link, Answer(ticket, "[]"), fleet.now, fleet.wall_now)
    fleet.flush()
    assert ticket not in fleet.replies


def test_a_relay_of_version_1_gets_its_tables_whole_and_others_get_them_in_pieces() -> None:
    fleet = Fleet(FOUR)
    old = fleet.relays["a"]
    fleet.plane.receive_closed(old.link or 0, "gone", fleet.now, fleet.wall_now)
    old.version = 1
    fleet.connect(old)
    fleet.run(25)
    kinds = {id: {type(m) for m in relay.received} for id, relay in fleet.relays.items()}
    assert SignedTable in kinds["a"] and PackedTable not in kinds["a"]
    assert all(PackedTable in kinds[id] and SignedTable not in kinds[id] for id in "bcd")
    assert len({relay.table.relays for relay in fleet.relays.values()}) == 1


def test_many_tables_go_out_a_few_at_a_time() -> None:
    """Between two calls, and for as long again, the loop is free for viewers and reports."""
    fleet = Fleet({f"r{number}": "eu" for number in range(12)})
    fleet.run(15, 0.001)
    for relay in fleet.relays.values():
        relay.received.clear()
    fleet.relays["r3"].stage = "draining"
    fleet.report(fleet.relays["r3"])
    sent = []
    for _ in range(200):
        before = sum(len(relay.received) for relay in fleet.relays.values())
        fleet.run(0.001, 0.001)
        sent.append(sum(len(relay.received) for relay in fleet.relays.values()) - before)
    assert sum(sent) >= 12 and max(sent) <= 2
    moments = [at for at, count in enumerate(sent) if count]
    assert all(later - earlier >= 4 for earlier, later in pairwise(moments))
    assert {entry.stage for relay in fleet.relays.values() for entry in relay.table.relays} == {"serving", "draining"}
