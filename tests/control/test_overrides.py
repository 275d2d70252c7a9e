"""Overrides at a controller: what relays do instead of their tables, and what the log hears of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.overrides import BEGUN, LINES_PER_S, MOST_LINES, OVER, Overrides
from tradewind.contract.messages import Override


def override(origin: str, next_hop: str = "sin-1", cause: str = "the link is bad: lossy") -> Override:
    return Override(origin, "hkg-1", next_hop, cause, 1_000.0)


def test_one_begins_is_shown_and_is_over() -> None:
    known = Overrides()
    assert known.receive("fra-1", (), 0.0) == () and known.count == 0
    (line,) = known.receive("fra-1", (override("hkg-1"),), 1.0)
    assert line == (BEGUN, "hkg-1", "sin-1 instead of hkg-1: the link is bad: lossy")
    assert known.of("fra-1") == known.between("fra-1", "hkg-1") == (override("hkg-1"),)
    assert known.between("fra-1", "nrt-1") == () == known.of("nrt-1")
    assert known.everybodys() == [("fra-1", override("hkg-1"))] and known.count == 1
    (line,) = known.receive("fra-1", (), 43.4)
    assert line == (OVER, "hkg-1", "sin-1 instead of hkg-1: over after 42 s")
    assert known.count == 0 and not known.everybodys()


def test_the_same_with_another_cause_is_no_news_but_is_shown() -> None:
    known = Overrides()
    known.receive("fra-1", (override("hkg-1"),), 1.0)
    later = override("hkg-1", cause="the link is bad: lossy; now: the link is on probation")
    assert known.receive("fra-1", (later,), 2.0) == ()
    assert known.of("fra-1") == (later,)


def test_origins_that_turn_together_are_one_line() -> None:
    known = Overrides()
    many = tuple(override(f"o-{number}") for number in range(500))
    (line,) = known.receive("fra-1", (*many, override("hkg-1", "nrt-1")), 1.0)[:1]
    assert "nrt-1 instead of hkg-1" in line.detail
    assert known.receive("lhr-1", many, 1.0) == (
        (BEGUN, "o-0", "sin-1 instead of hkg-1: the link is bad: lossy, and for 499 more origins"),
    )
    assert known.count == 1001
    (line,) = known.receive("lhr-1", many[:1], 2.0)
    assert line == (OVER, "o-1", "sin-1 instead of hkg-1: over after 1 s, and for 498 more origins")


def test_who_is_gone_says_nothing_any_more() -> None:
    known = Overrides()
    known.receive("fra-1", (override("hkg-1"),), 1.0)
    known.forget("fra-1")
    known.forget("fra-1")
    assert known.count == 0 and known.receive("fra-1", (), 2.0) == ()


def test_a_relay_that_flaps_is_cut_short_and_that_is_said() -> None:
    known = Overrides()
    lines = []
    for turn in range(200):
        lines += known.receive("fra-1", (override("hkg-1"),) if turn % 2 == 0 else (), 0.1 * turn)
        known.check_invariants()
    assert len(lines) <= MOST_LINES + LINES_PER_S * 20
    assert sum("left out" in line.detail for line in lines) >= 1
    (line,) = known.receive("fra-1", (override("hkg-1"),), 1_000.0)
    assert line.kind == BEGUN and "left out" in line.detail


WAYS = st.builds(
    Override,
    st.sampled_from(["a", "b", "c"]),
    st.just("hkg-1"),
    st.sampled_from(["x", "y"]),
    st.sampled_from(["bad", "absent"]),
    st.just(0.0),
)
REPORTS = st.lists(
    st.tuples(st.sampled_from(["r", "s"]), st.lists(WAYS, max_size=6).map(tuple), st.floats(0.0, 100.0)), max_size=30
)


@given(REPORTS)
def test_whatever_relays_say(reports: list[tuple[str, tuple[Override, ...], float]]) -> None:
    """The last report counts; a line is told only of what changed, and never more than a relay may have."""
    known, last, now, told = Overrides(), {}, 0.0, {"r": 0, "s": 0}
    for relay, overrides, wait_s in reports:
        now += wait_s
        before = {one[:3] for one in map(_key, last.get(relay, ()))}
        lines = known.receive(relay, overrides, now)
        known.check_invariants()
        after = {one[:3] for one in map(_key, overrides)}
        assert all(any(key[0] == line.origin for key in after - before) for line in lines if line.kind == BEGUN)
        assert all(any(key[0] == line.origin for key in before - after) for line in lines if line.kind == OVER)
        if before == after:
            assert not lines
        last[relay] = overrides
        told[relay] += len(lines)
        assert told[relay] <= MOST_LINES + LINES_PER_S * now + 1e-6
        assert known.of(relay) == overrides
    assert known.count == sum(len(overrides) for overrides in last.values())


def _key(override: Override) -> tuple[str, str, str]:
    return override.origin, override.instead_of, override.next_hop
