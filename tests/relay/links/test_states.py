"""The table of states, whole; holds, flaps and excuses."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.links.settings import DEFAULTS
from relay.links.states import MOST_FLAPS, TABLE, Standing, State, Symptom, worse

U, S, P, B = State.UP, State.SUSPECT, State.PROBATION, State.BAD
EXPECTED = {
    # symptom: what becomes of UP, SUSPECT, PROBATION, BAD
    Symptom.DEAD: (B, B, B, B),
    Symptom.LOSSY: (B, B, B, B),
    Symptom.FAR: (B, B, B, B),
    Symptom.SILENT: (S, S, B, B),
    Symptom.LOSSES: (S, S, P, B),
    Symptom.SLOW: (S, S, P, B),
    Symptom.CLEAN: (U, U, P, B),
    Symptom.WORKING: (U, S, P, P),
    Symptom.HELD: (U, S, U, B),
    Symptom.EXCUSED: (U, U, P, U),
}


def standing(state: State) -> Standing:
    found = Standing(DEFAULTS, 0.0)
    steps = {
        U: (Symptom.HELD,),
        S: (Symptom.HELD, Symptom.LOSSES),
        P: (),
        B: (Symptom.HELD, Symptom.LOSSY),
    }
    for symptom in steps[state]:
        assert found.apply(symptom, 0.0)
    return found


def trusted(found: Standing, now: float) -> None:
    """From BAD to UP, the way it goes."""
    assert found.apply(Symptom.WORKING, now)
    assert found.apply(Symptom.HELD, now)


@pytest.mark.parametrize(("state", "symptom"), list(itertools.product(State, Symptom)))
def test_every_cell(state: State, symptom: Symptom) -> None:
    if symptom is Symptom.REPORTED:
        assert symptom not in TABLE
        return
    expected = dict(zip((U, S, P, B), EXPECTED[symptom], strict=True))[state]
    assert TABLE[symptom][state] is expected
    found = standing(state)
    assert found.state is state
    if symptom is Symptom.EXCUSED:
        assert not found.apply(symptom, 1.0), "loss is not excused by lateness"
        return
    assert found.apply(symptom, 1.0) == (expected is not state)
    assert found.state is expected
    assert (found.since, found.cause) == ((1.0, symptom) if expected is not state else (found.since, found.cause))


def test_nobody_comes_back_from_bad_but_through_probation() -> None:
    ways = {
        new for symptom, row in TABLE.items() if symptom is not Symptom.EXCUSED for old, new in row.items() if old is B
    }
    assert ways == {B, P}


def test_the_worse_view_wins() -> None:
    order = [U, S, P, B]
    for one, other in itertools.product(order, order):
        assert worse(one, other) is order[max(order.index(one), order.index(other))]


def test_holds_double_and_are_forgotten() -> None:
    found, holds, now = standing(U), [], 0.0
    for _ in range(9):
        found.apply(Symptom.LOSSY, now)
        holds.append(found.hold_s)
        found.check_invariants()
        trusted(found, now)
        now += 10.0
    assert holds == [2, 4, 8, 16, 32, 64, 120, 120, 120]
    assert found.flaps(now) == MOST_FLAPS
    assert found.flaps(299.9) == MOST_FLAPS
    assert found.flaps(300.0 * 2) == MOST_FLAPS - 2
    assert found.flaps(300.0 * 20) == 0
    found.apply(Symptom.LOSSY, 300.0 * 20)
    assert found.hold_s == 2


def test_failing_again_on_probation_is_no_new_flap() -> None:
    """It was not trusted in between: nothing was moved back to it."""
    found = standing(U)
    found.apply(Symptom.LOSSY, 0.0)
    for _ in range(5):
        found.apply(Symptom.WORKING, 1.0)
        found.apply(Symptom.SILENT, 1.5)
    assert (found.state, found.flaps(2.0), found.hold_s) == (B, 1, 2.0)


@pytest.mark.parametrize("symptom", [Symptom.DEAD, Symptom.SILENT])
def test_a_silence_that_is_explained_costs_nothing(symptom: Symptom) -> None:
    found = standing(U)
    found.apply(symptom, 5.0)
    assert found.is_excusable
    assert found.apply(Symptom.EXCUSED, 5.1)
    assert (found.state, found.flaps(5.1)) == (U, 0)
    found.apply(Symptom.LOSSY, 6.0)
    assert found.hold_s == 2.0


def test_a_silence_on_probation_is_not_excused() -> None:
    found = standing(P)
    found.apply(Symptom.SILENT, 1.0)
    assert not found.apply(Symptom.EXCUSED, 1.1)
    assert found.state is B


def test_another_connection_forgets_no_flap() -> None:
    found = standing(U)
    found.restart(1.0)
    assert (found.state, found.hold_s) == (P, DEFAULTS.first_hold_s)
    found.apply(Symptom.HELD, 2.0)
    found.apply(Symptom.LOSSY, 3.0)
    found.restart(4.0)
    assert found.state is B
    trusted(found, 5.0)
    found.restart(6.0)
    assert (found.state, found.hold_s, found.flaps(6.0)) == (P, 4.0, 1)


@given(st.lists(st.tuples(st.sampled_from([s for s in Symptom if s is not Symptom.REPORTED]), st.floats(0, 100))))
def test_any_symptoms(steps: list[tuple[Symptom, float]]) -> None:
    """Flaps, by counting: falls from trust, one forgotten every 300 s since the first that is remembered."""
    found, now = Standing(DEFAULTS, 0.0), 0.0
    for symptom, wait_s in steps:
        now += wait_s
        before = found.state
        changed = found.apply(symptom, now)
        found.check_invariants()
        assert changed == (found.state is not before)
        if symptom is not Symptom.EXCUSED:
            assert found.state is TABLE[symptom][before]
        assert found.flaps(now) <= MOST_FLAPS
