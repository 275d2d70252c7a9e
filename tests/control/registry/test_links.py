"""What both ends say of a directed link, and links that come and go."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from control.registry.values import Evidence
from tests.control.mesh import Mesh, events, link, report

TWO = {"a": "eu", "b": "us"}


def known(mesh: Mesh, sender: str, receiver: str) -> Evidence:
    found = mesh.registry.evidence_of(sender, receiver, mesh.now)
    assert found is not None
    return found


def told(a_says: dict, b_says: dict, b_after_s: float = 0.0) -> dict[tuple[str, str], Evidence]:
    mesh = Mesh(TWO)
    mesh.registry.receive_report("a", report([link("b", **a_says)]), mesh.now)
    mesh.now += b_after_s
    mesh.registry.receive_report("b", report([link("a", **b_says)]), mesh.now)
    return {(e.sender, e.receiver): e for e in mesh.registry.evidence(mesh.now)}


def test_a_relay_that_reports_no_loss_hides_nothing() -> None:
    found = told({"away_loss_ratio": 0.2, "rtt_ms": 80.0}, {"loss_ratio": 0.0, "rtt_ms": 20.0})
    assert found["a", "b"].loss_ratio == 0.2
    assert found["b", "a"].loss_ratio == 0.0
    assert found["a", "b"].rtt_ms == found["b", "a"].rtt_ms == 80.0


def test_each_direction_has_its_receivers_jitter() -> None:
    found = told({"jitter_ms": 3.0}, {"jitter_ms": 9.0})
    assert (found["a", "b"].jitter_ms, found["b", "a"].jitter_ms) == (9.0, 3.0)


def test_one_direction_may_be_bad_alone() -> None:
    found = told({}, {"state": "bad"})
    assert not found["a", "b"].usable
    assert found["b", "a"].usable
    assert not told({"away_state": "bad"}, {})["a", "b"].usable


def test_a_stale_view_does_not_count_beside_a_fresh_one() -> None:
    found = told({"rtt_ms": 300.0}, {"rtt_ms": 20.0}, b_after_s=6.0)
    assert (found["a", "b"].rtt_ms, found["a", "b"].age_s) == (20.0, 0.0)
    mesh = Mesh(TWO)
    mesh.registry.receive_report("a", report([link("b", rtt_ms=33.0)]), mesh.now)
    (one,) = [e for e in mesh.registry.evidence(mesh.now + 60) if e.sender == "b"]
    assert (one.rtt_ms, one.age_s) == (33.0, 60.0)
    assert list(mesh.registry.evidence(mesh.now + 120)) == []


def test_one_end_alone_tells_of_both_directions() -> None:
    mesh = Mesh(TWO)
    mesh.registry.receive_report("a", report([link("b", loss_ratio=0.1, away_loss_ratio=0.3)]), mesh.now)
    found = {(e.sender, e.receiver): e.loss_ratio for e in mesh.registry.evidence(mesh.now)}
    assert found == {("b", "a"): 0.1, ("a", "b"): 0.3}
    assert known(mesh, "a", "b").loss_ratio == 0.3


def test_a_link_that_comes_back_is_held_for_longer_each_time() -> None:
    mesh = Mesh(TWO)
    mesh.run(1)
    for held_s in (2.0, 4.0, 8.0):
        mesh.state["a", "b"] = "bad"
        assert events(mesh.run(1)) == [("link_down", "a", "b")]
        mesh.state.clear()
        assert events(mesh.run(held_s - 0.5)) == []
        assert not known(mesh, "a", "b").usable
        assert events(mesh.run(1.5)) == [("link_up", "a", "b")]
        assert known(mesh, "a", "b").usable


def test_a_link_that_flaps_is_down_once() -> None:
    mesh = Mesh(TWO)
    mesh.run(1)
    found = []
    for second in range(600):
        mesh.state["a", "b"] = "bad" if second % 2 else "up"
        found += mesh.run(0.5)
    down = events(found)
    assert down[0] == ("link_down", "a", "b")
    assert len(down) == 1


def test_flaps_are_forgiven() -> None:
    mesh = Mesh(TWO)
    mesh.state["a", "b"] = "bad"
    mesh.run(1)
    mesh.state.clear()
    mesh.run(310, 1.0)
    assert mesh.registry.statistics().links_troubled == 0


def test_probation_keeps_a_link_out_without_being_a_flap() -> None:
    mesh = Mesh(TWO)
    mesh.run(1)
    mesh.state["a", "b"] = "probation"
    assert events(mesh.run(1)) == [("link_down", "a", "b")]
    mesh.state.clear()
    assert events(mesh.run(0.5)) == [("link_up", "a", "b")]


def test_nobodys_word_on_a_dead_relay_counts_when_it_comes_back_as_another() -> None:
    mesh = Mesh({"a": "eu", "b": "us", "c": "us"})
    mesh.run(1)
    mesh.silent.add("a")
    mesh.run(4)
    assert mesh.registry.evidence_of("a", "b", mesh.now) is None
    assert {e.sender for e in mesh.registry.evidence(mesh.now)} == {"b", "c"}


def test_a_link_to_nobody_is_no_trouble() -> None:
    mesh = Mesh(TWO)
    assert mesh.registry.receive_report("a", report([link("stranger", state="bad")]), mesh.now) == ()
    assert list(mesh.registry.evidence(mesh.now)) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from("abc"),
            st.sampled_from(["up", "suspect", "bad", "probation"]),
            st.sampled_from([0.1, 1.0, 3.0, 200.0]),
        ),
        max_size=40,
    ),
    st.sets(st.sampled_from("abc"), max_size=1),
)
@settings(max_examples=60, deadline=None)
def test_books_agree_whatever_is_said(steps, silent) -> None:
    """Whoever is told of down and up is told in turns, and what is usable is what was told last."""
    mesh = Mesh({"a": "eu", "b": "us", "c": "us"}, forget_s=1e9)
    mesh.silent |= silent
    for sender, receiver, state, wait_s in steps:
        mesh.state[sender, receiver] = state
        mesh.run(wait_s, wait_s)
    up = {}
    for found in events(mesh.findings):
        if found[0].startswith("link_"):
            assert up.get(found[1:], "link_up") != found[0] or silent
            up[found[1:]] = found[0]
    if not silent:
        for evidence in mesh.registry.evidence(mesh.now):
            assert evidence.usable == (up.get((evidence.sender, evidence.receiver), "link_up") == "link_up")
