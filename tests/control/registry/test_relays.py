"""Who is there: two boots of one id, silence, neighbours that speak for others, regions that fall silent at once."""

from __future__ import annotations

import pytest

from control.registry.relays import DEAD_KEPT_S, Registry
from control.registry.values import Condition, Place, RegistrySettings, RelayView
from tests.control.mesh import Mesh, alarms, events, hello, link, report


def known(registry: Registry, relay: str, now: float) -> RelayView:
    found = registry.relay(relay, now)
    assert found is not None
    return found


THREE = {"a": "eu", "b": "eu", "c": "us"}


def test_who_reports_is_alive() -> None:
    mesh = Mesh(THREE)
    assert events(mesh.findings) == [("joined", "a"), ("joined", "b"), ("joined", "c")]
    assert mesh.run(10) == []
    assert [relay.id for relay in mesh.registry.members(mesh.now)] == ["a", "b", "c"]
    assert mesh.registry.statistics() == (3, 0, 0, 0)


@pytest.mark.parametrize(
    ("regions", "dies_s"),
    [(THREE, 1.2), ({"a": "eu", "b": "eu", "c": "us", "d": "us"}, 1.2), ({"a": "eu", "c": "us"}, 1.5)],
    ids=["two say so", "three say so", "one says so"],
)
def test_who_is_heard_by_nobody_dies(regions: dict[str, str], dies_s: float) -> None:
    mesh = Mesh(regions)
    mesh.run(2)
    mesh.silent.add("c")
    found = mesh.run(dies_s - 0.1, 0.1)
    assert ("died", "c") not in events(found)
    assert ("died", "c") in events(mesh.run(0.2, 0.1))
    assert known(mesh.registry, "c", mesh.now).condition is Condition.DEAD


def test_who_is_late_and_heard_by_one_does_not_die_sooner() -> None:
    """Two miss it, and one hears it: they may be cut off."""
    mesh = Mesh({"a": "eu", "b": "eu", "c": "us", "d": "us"})
    mesh.run(2)
    for other in ("a", "b"):
        mesh.state["c", other] = "bad"
    found = []
    for _ in range(14):
        mesh.now += 0.1
        found += mesh.tell("a", "b", "d")
    assert ("died", "c") not in events(found)
    assert events(mesh.tell("c"))[:1] != [("joined", "c")]


def test_who_is_heard_by_neighbours_is_detached_and_comes_back() -> None:
    mesh = Mesh(THREE)
    mesh.run(2)
    found = []
    for _ in range(40):
        mesh.now += 0.25
        found += mesh.tell("a", "b")
    assert events(found) == [("detached", "c")]
    assert [relay.condition for relay in mesh.registry.members(mesh.now)][2] is Condition.DETACHED
    assert events(mesh.tell("c")) == [("attached", "c")]


def test_a_detached_relay_dies_when_its_neighbours_lose_it() -> None:
    mesh = Mesh(THREE)
    mesh.run(2)
    for _ in range(8):
        mesh.now += 0.25
        mesh.tell("a", "b")
    mesh.silent.add("c")
    assert ("died", "c") in events(mesh.run(0.5, 0.25))


def test_one_liar_does_not_keep_a_dead_relay() -> None:
    mesh = Mesh({"a": "eu", "b": "eu", "c": "us", "liar": "us"})
    mesh.run(2)
    mesh.silent.add("c")
    honest = mesh.report_of("liar")
    lying = report([link("c"), *(entry for entry in honest.links if entry.neighbour != "c")])
    found = []
    for _ in range(10):
        mesh.now += 0.25
        found += mesh.registry.receive_report("liar", lying, mesh.now)
        found += mesh.tell("a", "b")
    assert ("died", "c") in events(found)


def test_a_second_boot_is_refused_while_the_first_is_alive() -> None:
    mesh = Mesh(THREE)
    mesh.run(1)
    assert alarms(mesh.registry.receive_hello("a", "eu", hello(77), mesh.now)) == [("two_boots", "a")]
    assert known(mesh.registry, "a", mesh.now).hello.boot == hello(1).boot
    assert mesh.registry.receive_hello("a", "eu", hello(1, uri="https://new.test:1"), mesh.now) == ()
    assert known(mesh.registry, "a", mesh.now).hello.uri == "https://new.test:1"


def test_a_second_boot_is_refused_while_neighbours_hear_the_first_but_not_for_ever() -> None:
    mesh = Mesh(THREE)
    mesh.run(1)
    mesh.registry.receive_closed("a", mesh.now)
    closed = mesh.now
    answers = []
    while mesh.now < closed + 6:
        mesh.now += 0.5
        mesh.tell("b", "c")
        answers.append((mesh.now - closed, alarms(mesh.registry.receive_hello("a", "eu", hello(77), mesh.now))))
    refused = [after for after, found in answers if found]
    assert refused == [0.5 * n for n in range(1, 10)]


def test_a_restarted_relay_is_taken_when_nobody_hears_the_first() -> None:
    mesh = Mesh({"a": "eu"})
    mesh.registry.receive_closed("a", mesh.now)
    assert events(mesh.registry.receive_hello("a", "eu", hello(77), mesh.now + 0.1)) == [("joined", "a")]


def test_never_more_than_half_a_region_dies_on_our_word_alone() -> None:
    regions = {f"e{number}": "eu" for number in range(5)} | {"u0": "us"}
    registry = Registry(RegistrySettings())
    for number, (relay, region) in enumerate(regions.items()):
        registry.receive_hello(relay, region, hello(number + 1), 100.0)
    found, now = [], 100.0
    while now < 100 + 2 * DEAD_KEPT_S and len(found) < 1000:
        now = max(now, registry.next_deadline() or now)
        found += registry.handle_deadline(now)
    assert [event for event in events(found) if event[0] == "died"] == [("died", "e0"), ("died", "e1")]
    assert ("region_silent", "eu") in alarms(found) and ("region_silent", "us") in alarms(found)
    assert len(registry.members(now)) == 4


def test_a_whole_region_may_die_when_others_confirm_it() -> None:
    mesh = Mesh({"a": "eu", "b": "eu", "c": "us", "d": "us"})
    mesh.run(2)
    mesh.silent |= {"a", "b"}
    assert {("died", "a"), ("died", "b")} <= set(events(mesh.run(2.5)))


def test_after_we_slept_nobody_is_dead_for_a_while() -> None:
    mesh = Mesh(THREE)
    mesh.run(1)
    mesh.now += 30
    assert mesh.registry.handle_deadline(mesh.now) == ()
    assert mesh.run(3) == []


def test_who_said_that_it_is_empty_leaves_at_once() -> None:
    mesh = Mesh(THREE)
    mesh.stage["c"] = "empty"
    assert ("stage", "c") not in events(mesh.run(0.5))  # its first report: there was no stage before
    assert events(mesh.registry.receive_closed("c", mesh.now)) == [("died", "c")]
    mesh.silent.add("c")
    mesh.run(5)
    mesh.now += DEAD_KEPT_S
    mesh.registry.handle_deadline(mesh.now)
    assert mesh.registry.relay("c", mesh.now) is None


def test_the_dead_may_come_back() -> None:
    mesh = Mesh(THREE)
    mesh.run(1)
    mesh.silent.add("c")
    mesh.run(3)
    mesh.silent.clear()
    assert ("joined", "c") in events(mesh.tell("c"))


def test_a_change_of_stage_is_told() -> None:
    mesh = Mesh(THREE)
    mesh.run(1)
    mesh.stage["b"] = "draining"
    assert events(mesh.tell("b")) == [("stage", "b")]


@pytest.mark.parametrize(
    ("stage", "load", "sessions", "free"),
    [("serving", 0.25, 10, 750), ("serving", 0.0, 400, 600), ("cordoned", 0.0, 0, 0), ("serving", 1.0, 2000, 0)],
)
def test_what_others_are_told_of_a_relay(stage, load, sessions, free) -> None:
    registry = Registry(RegistrySettings(), {"eu": Place(50.0, 8.0)})
    registry.receive_hello("a", "eu", hello(1), 0.0)
    registry.receive_report("a", report(stage=stage, load=load, sessions=sessions), 0.1)
    entry = known(registry, "a", 0.2).entry()
    assert (entry.stage, entry.load, entry.headroom_sessions) == (stage, load, free)
    assert (entry.latitude, entry.longitude) == (50.0, 8.0)


def test_a_full_mesh_takes_nobody(monkeypatch) -> None:
    monkeypatch.setattr("control.registry.relays.MAX_RELAYS", 1)
    registry = Registry(RegistrySettings())
    registry.receive_hello("a", "eu", hello(1), 0.0)
    assert alarms(registry.receive_hello("b", "eu", hello(2), 0.0)) == [("mesh_full", "b")]


@pytest.mark.parametrize("heard_at", [1020.6879582344715 + number * 0.0171 for number in range(50)])
def test_a_deadline_that_has_come_finds_somebody_due(heard_at: float) -> None:
    """Whatever the last bit of a sum is: or we would be woken again and again at the same moment."""
    mesh = Mesh({"a": "eu", "b": "us"})
    for relay in "ab":
        mesh.registry.receive_report(relay, mesh.report_of(relay), heard_at)
    mesh.registry.handle_deadline(heard_at)
    for relay in "ab":
        mesh.registry.receive_report(relay, mesh.report_of(relay), heard_at + 2.0)
    mesh.registry.handle_deadline(heard_at + 2.0)
    due = mesh.registry.next_deadline()
    for _ in range(3):
        assert due is not None
        mesh.registry.handle_deadline(due)
        later = mesh.registry.next_deadline()
        assert later is None or later > due
        due = later if later is not None else due + 1
