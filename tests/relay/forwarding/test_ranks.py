"""Ranks: no circle of relays, in any order of any messages."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.forwarding import ranks

RELAYS = 6


@dataclass
class Relay:
    """One relay's side of one track: what it claimed, what it serves, and what it believes of the others."""

    above: dict[int, int] = field(default_factory=dict)
    """Upstream -> claim, from the moment that the SUBSCRIBE is sent."""
    below: dict[int, int] = field(default_factory=dict)


class Mesh:
    """Relay 0 is the origin. Messages wait until the test delivers one; beliefs may be as old as they like."""

    def __init__(self) -> None:
        self.relays = [Relay() for _ in range(RELAYS)]
        self.flying: list[tuple[str, int, int, int]] = []

    def ask(self, who: int, whom: int, believed: int) -> None:
        relay = self.relays[who]
        if who in (0, whom) or whom in relay.above:
            return
        claim = ranks.claim(believed, relay.below.values())
        if claim is not None:
            relay.above[whom] = claim
            self.flying.append(("subscribe", who, whom, claim))

    def leave(self, who: int, whom: int) -> None:
        if self.relays[who].above.pop(whom, None) is not None:
            self.flying.append(("cancel", who, whom, 0))

    def drop(self, who: int, whom: int) -> None:
        if self.relays[who].below.pop(whom, None) is not None:
            self.flying.append(("done", who, whom, 0))

    def deliver(self, index: int) -> None:
        if not self.flying:
            return
        # Between two relays a request's messages keep their order; everything else may overtake.
        _, who, whom, _ = self.flying[index % len(self.flying)]
        first = next(i for i, other in enumerate(self.flying) if {other[1], other[2]} == {who, whom})
        kind, who, whom, claim = self.flying.pop(first)
        there = self.relays[whom]
        if kind == "subscribe":
            if ranks.admits(there.above.values(), claim):
                there.below[who] = claim
            else:
                self.flying.append(("done", whom, who, 0))
        elif kind == "cancel":
            there.below.pop(who, None)
        else:
            there.above.pop(who, None)

    def check(self) -> None:
        for number, relay in enumerate(self.relays):
            assert all(ranks.admits(relay.above.values(), claim) for claim in relay.below.values())
            assert number or not relay.above
        served = {(up, down) for up, relay in enumerate(self.relays) for down in relay.below}
        while served:
            ends = {down for _, down in served} - {up for up, _ in served}
            assert ends, f"a circle among {served}"
            served = {(up, down) for up, down in served if down not in ends}


ACTIONS = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, RELAYS - 1), st.integers(0, RELAYS - 1), st.integers(1, 3)),
    st.tuples(st.just("leave"), st.integers(1, RELAYS - 1), st.integers(0, RELAYS - 1), st.just(0)),
    st.tuples(st.just("drop"), st.integers(0, RELAYS - 1), st.integers(1, RELAYS - 1), st.just(0)),
    st.tuples(st.just("deliver"), st.integers(0, 50), st.just(0), st.just(0)),
)


@given(st.lists(ACTIONS, max_size=120))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_circle_whatever_is_believed(actions: list[tuple[str, int, int, int]]) -> None:
    mesh = Mesh()
    for kind, who, whom, believed in actions:
        if kind == "ask":
            mesh.ask(who, whom, believed)
        elif kind == "leave":
            mesh.leave(who, whom)
        elif kind == "drop":
            mesh.drop(who, whom)
        else:
            mesh.deliver(who)
        mesh.check()


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
