"""Ranks where relays of a region take from each other: no circle between two generations of tables, then rest."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.forwarding import ranks
from tests.relay.forwarding.claiming import RELAYS, Mesh


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


def test_who_takes_a_track_into_its_region_leaves_room() -> None:
    assert ranks.claim(2, (), leaves_room=True) == 2
    assert ranks.claim(1, (), leaves_room=True) == 1
    assert ranks.claim(3, (), leaves_room=True) == 3, "too long a way: there is none to leave"
    assert ranks.claim(2, (2,), leaves_room=True) is None
