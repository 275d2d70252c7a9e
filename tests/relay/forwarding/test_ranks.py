"""Ranks: no circle of relays, in any order of any messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.forwarding import ranks

RELAYS = 5


@dataclass
class Relay:
    """One relay's side of one track: what it claimed, what it serves, and what it believes of the others."""

    above: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Request -> upstream and claim, from the moment that the SUBSCRIBE is sent."""
    below: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Request -> who is served, and its claim."""
    turning: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Requests of relays that it takes the track from, which wait until it does not."""

    def claims(self) -> list[int]:
        return [claim for _, claim in self.above.values()]

    def claims_below(self, whom: int) -> list[int]:
        """Of all but `whom`, who is to be asked and leaves before it serves."""
        return [claim for who, claim in (*self.below.values(), *self.turning.values()) if who != whom]

    def takes_from(self, whom: int) -> bool:
        return any(upstream == whom for upstream, _ in self.above.values())


class Mesh:
    """Relay 0 is the origin. Messages wait until the test delivers one; beliefs may be as old as they like."""

    def __init__(self) -> None:
        self.relays = [Relay() for _ in range(RELAYS)]
        self.flying: list[tuple[str, int, int, int, int]] = []
        self.requests = 0

    def ask(self, who: int, whom: int, believed: int) -> None:
        """Whoever is asked may be below the asker, or be asking it."""
        relay = self.relays[who]
        if who in (0, whom) or relay.takes_from(whom) or any(asker == whom for asker, _ in relay.turning.values()):
            return
        claim = ranks.claim(believed, relay.claims_below(whom))
        if claim is not None:
            self.requests += 1
            relay.above[self.requests] = (whom, claim)
            self.flying.append(("subscribe", who, whom, self.requests, claim))

    def leave(self, who: int, whom: int) -> None:
        relay = self.relays[who]
        for request in [request for request, (upstream, _) in relay.above.items() if upstream == whom]:
            del relay.above[request]
            self.flying.append(("cancel", who, whom, request, 0))
        self.turn(who)

    def drop(self, who: int, whom: int) -> None:
        relay = self.relays[who]
        for request in [request for request, (below, _) in relay.below.items() if below == whom]:
            del relay.below[request]
            self.flying.append(("done", who, whom, request, 0))

    def turn(self, who: int) -> None:
        """It takes less than before: those who wait for that are served."""
        relay = self.relays[who]
        for request, (asker, claim) in tuple(relay.turning.items()):
            if not relay.takes_from(asker) and ranks.admits(relay.claims(), claim):
                del relay.turning[request]
                relay.below[request] = (asker, claim)

    def give_back(self, who: int) -> None:
        relay = self.relays[who]
        for request, (asker, _) in relay.turning.items():
            self.flying.append(("done", who, asker, request, 0))
        relay.turning.clear()

    def deliver(self, index: int) -> None:
        if not self.flying:
            return
        # A request's messages keep their order; everything else may overtake.
        request = self.flying[index % len(self.flying)][3]
        first = next(i for i, other in enumerate(self.flying) if other[3] == request)
        kind, who, whom, request, claim = self.flying.pop(first)
        there = self.relays[whom]
        if kind == "subscribe":
            if there.takes_from(who):
                there.turning[request] = (who, claim)
            elif ranks.admits(there.claims(), claim):
                there.below[request] = (who, claim)
            else:
                self.flying.append(("done", whom, who, request, 0))
        elif kind == "cancel":
            there.below.pop(request, None)
            there.turning.pop(request, None)
        else:
            there.above.pop(request, None)
            self.turn(whom)

    def check(self) -> None:
        assert not self.relays[0].above
        # Objects flow while both ends want them to: who has cancelled drops what still comes.
        flows = {
            (up, down)
            for up, relay in enumerate(self.relays)
            for request, (down, _) in relay.below.items()
            if request in self.relays[down].above
        }
        for up, relay in enumerate(self.relays):
            for request, (down, claim) in relay.below.items():
                others = [own for upstream, own in relay.above.values() if upstream != down]
                assert request not in self.relays[down].above or ranks.admits(others, claim), (up, down)
        served = flows
        while served:
            ends = {down for _, down in served} - {up for up, _ in served}
            assert ends, f"a circle among {served}"
            served = {(up, down) for up, down in served if down not in ends}


ACTIONS = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, RELAYS - 1), st.integers(0, RELAYS - 1), st.integers(1, 3)),
    st.tuples(st.just("leave"), st.integers(1, RELAYS - 1), st.integers(0, RELAYS - 1), st.just(0)),
    st.tuples(st.just("drop"), st.integers(0, RELAYS - 1), st.integers(1, RELAYS - 1), st.just(0)),
    st.tuples(st.just("give_back"), st.integers(1, RELAYS - 1), st.just(0), st.just(0)),
    st.tuples(st.just("deliver"), st.integers(0, 50), st.just(0), st.just(0)),
)


def act(mesh: Mesh, action: tuple[str, int, int, int]) -> None:
    kind, who, whom, believed = action
    match kind:
        case "ask":
            mesh.ask(who, whom, believed)
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
        act(mesh, (kind, dice.randrange(50) if kind == "deliver" else who, whom, dice.randint(1, 3)))


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
