"""Ranks: no circle of relays, in any order of any messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.forwarding import ranks

RELAYS = 6


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

    def upstreams(self) -> set[int]:
        return {upstream for upstream, _ in self.above.values()}

    def serves(self) -> set[int]:
        return {who for who, _ in self.below.values()}


class Mesh:
    """Relay 0 is the origin. Messages wait until the test delivers one; beliefs may be as old as they like."""

    def __init__(self) -> None:
        self.relays = [Relay() for _ in range(RELAYS)]
        self.flying: list[tuple[str, int, int, int, int]] = []
        self.requests = 0

    def ask(self, who: int, whom: int, believed: int, *, leaves_room: bool = False) -> None:
        """Whoever is asked may be below the asker, or be asking it."""
        relay = self.relays[who]
        if who in (0, whom) or whom in relay.upstreams() or any(asker == whom for asker, _ in relay.turning.values()):
            return
        claim = ranks.claim(believed, relay.claims_below(whom), leaves_room=leaves_room)
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
            if asker not in relay.upstreams() and ranks.admits(relay.claims(), claim):
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
            if who in there.upstreams():
                there.turning[request] = (who, claim)
                self.asked_back(whom)
            elif ranks.admits(there.claims(), claim):
                there.below[request] = (who, claim)
                self.accepted(whom, who, request)
            else:
                self.flying.append(("done", whom, who, request, 0))
        elif kind == "cancel":
            there.below.pop(request, None)
            there.turning.pop(request, None)
        elif request in there.above and kind == "ok":
            self.answered(whom, who)
        elif request in there.above:
            del there.above[request]
            self.turn(whom)
            self.refused(whom, who)

    def asked_back(self, who: int) -> None:
        """`who` is asked by a relay that it takes the track from."""

    def accepted(self, who: int, whom: int, request: int) -> None:
        """`who` serves `whom` from now on."""

    def answered(self, who: int, whom: int) -> None:
        """`who` is served by `whom`, as far as it knows."""

    def refused(self, who: int, whom: int) -> None:
        """`who` is not served by `whom`."""

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


class Region(Mesh):
    """Relays that follow tables: two heads and the direct way, or those of another generation.

    They ask as `moving` does: the best one while the old one still sends, which is let go once the new one has
    answered; who refuses is left alone for a while. Relay 1 is of another region: heads may be told to go over it.
    """

    def __init__(self, generations: list[Generation]) -> None:
        super().__init__()
        self.generations = generations
        self.follows = [0] * RELAYS
        self.declined: list[set[int]] = [set() for _ in range(RELAYS)]

    def order(self, who: int) -> list[int]:
        first, second, around = self.generations[self.follows[who]]
        if who in (1, first, second):
            return [1, 0] if around and who != 1 else [0]
        return [first, second, 0] if who % 2 else [second, first, 0]

    def reconsider(self, who: int) -> None:
        relay, (_, _, around) = self.relays[who], self.generations[self.follows[who]]
        for whom in self.order(who):
            believed = 1 if whom == 0 else 3 if around and whom != 1 else 2
            leaves_room = whom in (0, 1)
            impossible = ranks.claim(believed, relay.claims_below(whom), leaves_room=leaves_room) is None
            if impossible or whom in self.declined[who] or whom in relay.serves():
                continue
            self.ask(who, whom, believed, leaves_room=leaves_room)
            return

    def asked_back(self, who: int) -> None:
        self.give_back(who)

    def accepted(self, who: int, whom: int, request: int) -> None:
        self.flying.append(("ok", who, whom, request, 0))
        if not self.relays[who].above:
            self.reconsider(who)

    def answered(self, who: int, whom: int) -> None:
        for other in self.relays[who].upstreams() - {whom}:
            self.leave(who, other)

    def refused(self, who: int, whom: int) -> None:
        self.declined[who].add(whom)
        self.reconsider(who)

    def settle(self, generation: int) -> None:
        """Everybody has this table now; time passes."""
        self.follows = [generation] * RELAYS
        for _ in range(6):
            for declined in self.declined:
                declined.clear()
            for who in range(2, RELAYS):
                self.reconsider(who)
            while self.flying:
                self.deliver(0)
                self.check()

    def is_served(self, who: int) -> bool:
        return who == 0 or any(
            who in self.relays[whom].serves() and self.is_served(whom) for whom in self.relays[who].upstreams()
        )


Generation = tuple[int, int, bool]
"""Two heads, and whether they are told to go over relay 1."""
GENERATIONS = st.lists(
    st.tuples(st.integers(2, RELAYS - 1), st.integers(2, RELAYS - 1), st.booleans()).filter(
        lambda one: one[0] != one[1]
    ),
    min_size=2,
    max_size=2,
)
STEPS = st.one_of(
    st.tuples(st.just("follow"), st.integers(2, RELAYS - 1), st.integers(0, 1)),
    st.tuples(st.just("fail"), st.integers(2, RELAYS - 1), st.integers(0, RELAYS - 1)),
    st.tuples(st.just("forgive"), st.integers(2, RELAYS - 1), st.just(0)),
    st.tuples(st.just("deliver"), st.integers(0, 50), st.just(0)),
)


@given(GENERATIONS, st.lists(STEPS, max_size=80))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_trees_of_two_generations_make_no_circle_and_come_to_one(
    generations: list[Generation], steps: list[tuple[str, int, int]]
) -> None:
    mesh = Region(generations)
    for who in range(2, RELAYS):
        mesh.reconsider(who)
    for kind, who, what in steps:
        if kind == "deliver":
            mesh.deliver(who)
        elif kind == "follow":
            mesh.follows[who] = what
            mesh.reconsider(who)
        elif kind == "fail":
            mesh.drop(what, who)
        else:
            mesh.declined[who].clear()
            mesh.reconsider(who)
        mesh.check()
    mesh.settle(1)
    first, second, _ = generations[1]
    assert all(mesh.is_served(who) for who in range(2, RELAYS))
    for who in set(range(2, RELAYS)) - {first, second}:
        assert mesh.relays[who].upstreams() <= {first, second}, "an edge that takes over the long link"
    # A head may have to stay where it is: a claim that was made of it leaves it no room for a longer way.
    assert {who for who in range(2, RELAYS) if 0 in mesh.relays[who].upstreams()} <= {first, second}


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


def test_who_takes_a_track_into_its_region_leaves_room() -> None:
    assert ranks.claim(2, (), leaves_room=True) == 2
    assert ranks.claim(1, (), leaves_room=True) == 1
    assert ranks.claim(3, (), leaves_room=True) == 3, "too long a way: there is none to leave"
    assert ranks.claim(2, (2,), leaves_room=True) is None


def test_an_origin_serves_everybody_and_a_leaf_nobody() -> None:
    assert ranks.admits((), 1)
    assert not ranks.admits((3,), 3)
    assert not ranks.admits((), 4)
    assert ranks.admits((1,), 2)
    assert not ranks.admits((1, 2), 2)
