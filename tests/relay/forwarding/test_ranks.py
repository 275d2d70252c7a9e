"""Ranks: no circle of relays, in any order of any messages."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.forwarding import ranks
from tests.relay.forwarding.claiming import RELAYS, Mesh

ACTIONS = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, RELAYS - 1), st.integers(0, RELAYS - 1), st.integers(1, 6)),
    st.tuples(st.just("leave"), st.integers(1, RELAYS - 1), st.integers(0, RELAYS - 1), st.just(0)),
    st.tuples(st.just("drop"), st.integers(0, RELAYS - 1), st.integers(1, RELAYS - 1), st.just(0)),
    st.tuples(st.just("give_back"), st.integers(1, RELAYS - 1), st.just(0), st.just(0)),
    st.tuples(st.just("deliver"), st.integers(0, 50), st.just(0), st.just(0)),
)


def act(mesh: Mesh, action: tuple[str, int, int, int]) -> None:
    kind, who, whom, believed = action
    match kind:
        case "ask":
            mesh.ask(who, whom, (believed - 1) % 3 + 1, leaves_room=believed > 3)
        case "leave":
            mesh.leave(who, whom)
        case "drop":
            mesh.drop(who, whom)
        case "give_back":
            mesh.give_back(who)
        case _:
            mesh.deliver(who)
    mesh.check()


@given(st.lists(ACTIONS, max_size=120))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_circle_whatever_is_believed(actions: list[tuple[str, int, int, int]]) -> None:
    mesh = Mesh()
    for action in actions:
        act(mesh, action)


@pytest.mark.parametrize("seed", range(40))
def test_no_circle_in_long_walks(seed: int) -> None:
    mesh, dice = Mesh(), Random(seed)
    kinds = ("ask",) * 6 + ("deliver",) * 12 + ("leave", "leave", "drop", "give_back")
    for _ in range(2000):
        who, whom = dice.randrange(1, RELAYS), dice.randrange(RELAYS)
        kind = dice.choice(kinds)
        act(mesh, (kind, dice.randrange(50) if kind == "deliver" else who, whom, dice.randint(1, 6)))


@pytest.mark.parametrize(
    ("relays", "below", "expected"),
    [
        (1, (), 1),
        (1, (3,), 1),
        (1, (2,), 1),
        (1, (1,), None),
        (2, (), 3),
        (3, (), 3),
        (2, (3,), 2),
        (2, (3, 2), None),
    ],
)
def test_claims(relays: int, below: tuple[int, ...], expected: int | None) -> None:
    assert ranks.claim(relays, below) == expected


def test_an_origin_serves_everybody_and_a_leaf_nobody() -> None:
    assert ranks.admits((), 1)
    assert not ranks.admits((3,), 3)
    assert not ranks.admits((), 4)
    assert ranks.admits((1,), 2)
    assert not ranks.admits((1, 2), 2)
