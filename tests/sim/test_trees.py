"""A region of relays that all have viewers of one track from far away: what crosses the sea, and what fails."""

from __future__ import annotations

from itertools import pairwise

import pytest

from relay.forwarding import ranks
from relay.forwarding.book import Standing
from relay.mesh.mesh import near
from tests.sim.client import TRACK, Client, Outflow, Served
from tests.sim.mesh import hop
from tests.sim.network import BLACKOUT
from tests.sim.region import ORIGIN, OTHER, Region
from tests.sim.scene import Scene
from tests.sim.show import Seat, track_of
from tests.sim.viewer import Publisher, longest_stall_s
from tradewind.moqt.model import Location

PERIOD_S, PER_GROUP = 0.04, 25
NOTICED_S = 0.3
"""From a relay's silence until those who take from it call the link bad: see tests/scenarios/test_s01_loss_step.py."""
Watched = dict[str, tuple[Client, int]]


class Film:
    """A track of 25 objects a second."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.served: Served = region.publish(ORIGIN)[1]
        self.flow: Outflow | None = None
        self.sent: list[Location] = []

    def play(self, seconds: float) -> None:
        for _ in range(round(seconds / PERIOD_S)):
            location = Location(*divmod(len(self.sent), PER_GROUP))
            if self.flow is None or location.object == 0:
                if self.flow is not None:
                    self.flow.fin()
                self.flow = self.served.open(location.group)
            self.sent.append(location)
            self.flow.object(location.object, b"x" * 200)
            self.region.run(PERIOD_S)


def playing(relays: int) -> tuple[Region, Film, Watched]:
    """A region with a viewer at every relay, two seconds into the film."""
    region = Region(relays)
    film = Film(region)
    watched = region.watch()
    film.play(2.0)
    return region, film, watched


def cut(film: Film, sender: str, receiver: str) -> float:
    """From now on nothing comes through, and the receiver notices; returns when it began."""
    region = film.region
    region.weather(sender, receiver, BLACKOUT)
    began = region.network.now
    film.play(NOTICED_S)
    region.grade(receiver, sender, Standing.BAD)
    return began


def arrivals(watched: tuple[Client, int]) -> list[tuple[float, Location]]:
    viewer, request = watched
    return [(at, found.location) for at, found in viewer.arrivals[request]]


def longest_pause_s(watched: tuple[Client, int], since: float) -> float:
    moments = [at for at, _ in arrivals(watched) if at >= since - 0.5]
    return max(later - earlier for earlier, later in pairwise(moments))


def check_ranks(region: Region, *dead: str) -> None:
    """Ranks grow along every subscription, and nobody stands below more than two relays."""
    for name in set(region.relays) - set(dead):
        track = region.node(name).forwarder._book.tracks.get(TRACK)
        if track is not None:
            above = [source.claim for source in track.sources.values()]
            assert all(ranks.admits(above, claim) for claim in track.neighbours.children.values())


def check_whole(film: Film, watched: Watched, *but: str) -> None:
    """Everybody has everything from the first object that they had."""
    for name, one in watched.items():
        if name not in but:
            seen = sorted({location for _, location in arrivals(one)})
            assert seen == [location for location in film.sent if location >= seen[0]], name


@pytest.mark.parametrize(("relays", "without", "with_trees"), [(1, 1, 1), (2, 2, 2), (4, 4, 2), (12, 12, 2)])
def test_what_an_origin_sends_to_a_region(relays: int, without: int, with_trees: int) -> None:
    for trees, copies in ((False, without), (True, with_trees)):
        region = Region(relays, trees=trees)
        film = Film(region)
        watched = region.watch()
        film.play(1.2)
        region.run(1.0)
        assert region.copies() == copies
        assert all(len(arrivals(one)) >= 25 for one in watched.values())
        check_whole(film, watched)
        check_ranks(region)


def test_room_is_left_only_where_there_may_be_heads() -> None:
    region = Region(3)
    assert near(region.tables["fra-1"]) == {hop("fra-2"), hop("fra-3")}
    assert near(region.tables[ORIGIN]) == set()
    assert near(Region(2).tables["fra-1"]) == set()


def test_a_head_without_viewers_carries_what_its_edges_want() -> None:
    region = Region(6)
    film = Film(region)
    edge = next(name for name in region.members if name not in region.heads())
    watched = region.watch(edge)
    film.play(1.0)
    (head,) = region.sources(edge)
    assert head in region.heads() and region.sources(head) == {ORIGIN} and region.copies() == 1
    watched[edge][0].close()
    region.run(8.0)
    assert not region.sources(head) and region.node(ORIGIN).forwarder.statistics().subscriptions == 0


def test_a_dead_heads_edges_go_to_the_other_one_and_miss_nothing() -> None:
    region, film, watched = playing(8)
    dead, other = sorted(region.heads())
    edges = [name for name in region.members if region.sources(name) == {dead}]
    assert edges
    region.kill(dead)
    died = region.network.now
    film.play(NOTICED_S)
    for name in set(region.relays) - {dead}:
        region.grade(name, dead, Standing.BAD)
    film.play(2.0)
    region.run(1.0)
    assert all(region.sources(name) == {other} for name in edges)
    # The other head has the track: what they wait for is one short round trip away.
    assert max(longest_pause_s(watched[name], died) for name in edges) <= NOTICED_S + 0.1
    check_whole(film, watched, dead)
    check_ranks(region, dead)
    assert region.copies() <= 2
    region.tell(dead)
    film.play(2.0)
    region.run(3.0)
    taking = {name for name in region.members if name != dead and ORIGIN in region.sources(name)}
    assert taking == region.heads() - {dead} and len(taking) == 2
    check_whole(film, watched, dead)


def test_a_heads_long_link_goes_bad_and_its_edges_stay() -> None:
    region, film, watched = playing(8)
    head = min(region.heads())
    edges = [name for name in region.members if region.sources(name) == {head}]
    bad = cut(film, ORIGIN, head)
    film.play(2.0)
    region.run(1.0)
    assert region.sources(head) and ORIGIN not in region.sources(head)
    assert all(region.sources(name) == {head} for name in edges)
    # Through Singapore: the question goes there and on to Hong Kong.
    assert max(longest_pause_s(watched[name], bad) for name in (head, *edges)) <= NOTICED_S + 0.35
    check_whole(film, watched)
    check_ranks(region)


def test_both_heads_are_dead_and_everybody_goes_directly() -> None:
    region, film, watched = playing(5)
    dead = region.heads()
    for name in dead:
        region.kill(name)
    film.play(NOTICED_S)
    alive = set(region.members) - dead
    for name in dead:
        for other in {*alive, ORIGIN, OTHER}:
            region.grade(other, name, Standing.BAD)
    film.play(2.0)
    region.run(1.0)
    assert all(region.sources(name) == {ORIGIN} for name in alive)
    check_whole(film, watched, *dead)


def test_a_head_that_is_emptied_loses_its_edges_and_nobody_notices() -> None:
    region, film, watched = playing(6)
    leaves = min(region.heads())
    edges = [name for name in region.members if region.sources(name) == {leaves}]
    began = region.network.now
    for name in set(region.relays) - {leaves}:
        node = region.node(name)
        node.forwarder.note_leaving(region.session(name, leaves), region.network.now, leaving=True)
        region.network.touch(region.relays[name])
    film.play(1.5)
    assert edges and all(leaves not in region.sources(name) for name in edges)
    region.tell(draining={leaves})
    film.play(4.0)
    region.run(1.0)
    assert leaves not in {source for name in region.members for source in region.sources(name)}
    assert max(longest_pause_s(one, began) for one in watched.values()) <= 0.15
    check_whole(film, watched)


def test_tables_of_two_generations_at_once() -> None:
    """Half of the relays do not know of a head any more that the others still ask, then the other way round."""
    region, film, watched = playing(6)
    old, first = dict(region.tables), region.heads()
    region.tell(min(first))
    new, second = dict(region.tables), region.heads()
    assert first != second
    for generations in ((old, new), (new, old), (old, old), (new, new)):
        for number, name in enumerate(region.members):
            region.take(name, generations[number % 2][name])
        for _ in range(3):
            film.play(1.0)
            check_ranks(region)
    region.run(1.0)
    check_whole(film, watched)
    assert region.copies() <= 3


def test_heads_that_go_over_another_region_leave_room_for_edges() -> None:
    """The first viewer is a head's own: were it to claim all that there is, nobody could take from it afterwards."""
    region = Region(6)
    film = Film(region)
    for name in region.members:
        region.grade(name, ORIGIN, Standing.BAD)
    heads = sorted(region.heads())
    watched = region.watch(*heads)
    film.play(1.0)
    assert all(region.sources(name) == {OTHER} for name in heads)
    edges = [name for name in region.members if name not in heads]
    watched |= region.watch(*edges)
    film.play(2.0)
    region.run(1.0)
    assert all(region.sources(name) <= set(heads) for name in edges)
    assert region.copies(OTHER) == 2 and region.copies(ORIGIN) == 1
    check_whole(film, watched)
    check_ranks(region)


def test_the_relay_that_heads_go_over_loses_its_link() -> None:
    """It may not go over others itself, for its heads claimed rank 2 of it: they go elsewhere instead."""
    region = Region(6)
    film = Film(region)
    heads = sorted(region.heads())
    for name in heads:
        region.node(name).forwarder.apply_positions(
            {(hop(ORIGIN), hop(OTHER)): 0, (hop(ORIGIN), hop(ORIGIN)): 1},
            region.network.now,
            frozenset(hop(other) for other in region.members if other != name),
        )
        region.network.touch(region.relays[name])
    watched = region.watch()
    film.play(2.0)
    assert all(region.sources(name) == {OTHER} for name in heads)
    bad = cut(film, ORIGIN, OTHER)
    film.play(3.0)
    region.run(1.0)
    assert all(region.sources(name) == {ORIGIN} for name in heads)
    # There is one more question than usual: to the heads, and from them to Hong Kong.
    assert max(longest_pause_s(one, bad) for one in watched.values()) <= NOTICED_S + 0.6
    check_whole(film, watched)


@pytest.mark.slow
def test_with_real_links_and_a_controller_a_head_dies() -> None:
    names = [*(f"fra-{number}" for number in range(1, 5)), ORIGIN, OTHER]
    scene = Scene(names, settle_s=24.0)
    publisher = Publisher(scene, ORIGIN, track_of(ORIGIN))
    scene.run(0.5)
    seats = [Seat(scene, name, ORIGIN) for name in names[:4]]
    scene.run(6.0)
    heads = {name for name in names[:4] if scene.sources(name, publisher.track) <= {ORIGIN, OTHER}}
    assert 1 <= len(heads) <= 2
    dead = max(heads, key=lambda name: sum(scene.sources(seat.at, publisher.track) == {name} for seat in seats))
    edges = [seat for seat in seats if scene.sources(seat.at, publisher.track) == {dead}]
    assert edges
    scene.kill(dead)
    died = scene.network.now
    scene.run(3.0)
    others = [seat for seat in seats if seat.at != dead]
    assert max(longest_stall_s(seat.collect(), died, scene.network.now) for seat in others) <= 0.5
    for seat in others:
        seen = {index for _, index in seat.arrivals}
        assert seen >= set(range(max(min(seen), max(seen) - 100), max(seen)))
    scene.run(24.0)
    assert (
        len({name for name in names[:4] if name != dead and scene.sources(name, publisher.track) <= {ORIGIN, OTHER}})
        <= 2
    )
