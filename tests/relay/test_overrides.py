"""Overrides at a relay: told when tracks come by another way than the table's first, and why, until they are back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.forwarding.astray import Astray, Hindrance, feeder
from relay.forwarding.book import Book, ForwardingSettings, Standing
from relay.forwarding.feed import Source
from relay.forwarding.forwarder import Forwarder
from relay.forwarding.moving import RETURN_S
from relay.forwarding.routes import Party, Way
from relay.metrics import Metrics
from relay.observe import count_overrides
from relay.overrides import GRACE_S, MOST_OVERRIDES, Cause, OverrideMeter, Overrides, Seen
from tests.sim.client import TRACK, Client
from tests.sim.mesh import MESH, Mesh, hop
from tradewind.contract.messages import Candidate, Override, RelayEntry, Route, RouteTable
from tradewind.moqt.model import FullTrackName, Location

WALL = 1_000_000.0
BAD = "the link is bad: lossy"


def seen(cause: Cause = Cause.BAD, text: str = BAD, **changes: Any) -> Seen:
    values = {"origin": "hkg-1", "instead_of": "hkg-1", "next_hop": "sin-1", "since": 10.0, "tracks": 1, **changes}
    return Seen(cause=cause, text=text, **values)


# --- What is known of them ---


def test_an_override_is_told_since_when_and_is_over_when_it_is_not_found() -> None:
    known = Overrides()
    known.apply([seen()], 12.0)
    expected = Override("hkg-1", "hkg-1", "sin-1", BAD, WALL - 2.0)
    assert known.told(12.0, WALL) == (expected,)
    assert known.told(15.0, WALL + 3.0) == (expected,), "it began when it began"
    assert known.counts() == {Cause.BAD: 1}
    known.apply([], 16.0)
    assert known.told(16.0, WALL) == () and not known.counts()


def test_the_worst_cause_stays_and_what_is_now_stands_beside_it() -> None:
    known = Overrides()
    known.apply([seen(Cause.SUSPECT, "the link is suspect: losses")], 10.0)
    known.apply([seen()], 11.0)
    assert known.told(11.0, WALL)[0].cause == BAD
    known.apply([seen(Cause.PROBATION, "the link is on probation")], 13.0)
    (told,) = known.told(13.0, WALL)
    assert told.cause == f"{BAD}; now: the link is on probation" and told.since_wall == WALL - 3.0
    assert known.counts() == {Cause.PROBATION: 1}


def test_tracks_have_a_moment_to_follow_a_new_table() -> None:
    known = Overrides()
    known.apply([seen(Cause.WAITING, "nothing is in the way", since=0.0)], 10.0)
    assert known.told(10.0, WALL) == (), "however long they came from there before"
    known.apply([seen(Cause.WAITING, "nothing is in the way", since=0.0)], 10.0 + GRACE_S)
    assert len(known.told(10.0 + GRACE_S, WALL)) == 1


def test_what_came_from_there_before_was_no_override() -> None:
    known = Overrides()
    known.apply([], 20.0)
    known.apply([seen(since=10.0)], 21.0)
    assert known.told(21.0, WALL)[0].since_wall == WALL - 1.0, "the table is newer than the look before"


def test_one_that_was_told_is_told_until_it_is_over() -> None:
    known = Overrides()
    known.apply([seen()], 10.0)
    known.apply([seen(Cause.WAITING, "nothing is in the way")], 11.0)
    (told,) = known.told(11.0, WALL)
    assert told.cause == f"{BAD}; now: nothing is in the way"


def test_a_report_has_room_for_those_with_most_tracks() -> None:
    known = Overrides()
    known.apply([seen(origin=f"o-{number}", tracks=number) for number in range(MOST_OVERRIDES + 5)], 10.0)
    told = known.told(10.0, WALL)
    assert len(told) == MOST_OVERRIDES
    assert {f"o-{number}" for number in range(5)}.isdisjoint(one.origin for one in told)


LOOKS = st.lists(
    st.tuples(
        st.dictionaries(
            st.tuples(st.sampled_from("ab"), st.just("f"), st.sampled_from("xy")), st.sampled_from(Cause), max_size=4
        ),
        st.floats(0.01, 5.0),
    ),
    max_size=20,
)


@given(LOOKS)
def test_against_the_whole_history(looks: list[tuple[dict[tuple[str, str, str], Cause], float]]) -> None:
    """The twin reads all looks of an override's life anew each time."""
    known, now, history = Overrides(), 10.0, []
    for found, wait_s in looks:
        now += wait_s
        known.apply([Seen(*key, cause, cause.value, now, 1) for key, cause in found.items()], now)
        known.check_invariants()
        history.append((now, found))
        assert set(_told(known, now)) == set(_twin(history))


def _told(known: Overrides, now: float) -> Iterator[tuple[tuple[str, str, str], str]]:
    for one in known.told(now, WALL):
        yield (one.origin, one.instead_of, one.next_hop), one.cause


def _twin(
    history: list[tuple[float, dict[tuple[str, str, str], Cause]]],
) -> Iterator[tuple[tuple[str, str, str], str]]:
    order = list(Cause)
    for key, cause in history[-1][1].items():
        life: list[tuple[float, Cause]] = []
        for at, found in reversed(history):
            if key not in found:
                break
            life.insert(0, (at, found[key]))
        causes = [one for _, one in life]
        if all(one is Cause.WAITING for one in causes) and life[-1][0] - life[0][0] < GRACE_S:
            continue
        worst = min(causes, key=order.index)
        yield key, worst.value if worst is cause else f"{worst.value}; now: {cause.value}"


# --- What a node shows ---

THREE = ("fra-1", "hkg-1", "sin-1")
VIDEO, AUDIO = TRACK, FullTrackName(TRACK.namespace, b"audio")


class Watched:
    """A track from hkg-1 that fra-1 reads, and the table that fra-1 follows: hkg-1 itself first, then over sin-1."""

    def __init__(self, first: tuple[str, ...] = ("hkg-1", "sin-1")) -> None:
        self.mesh = Mesh(THREE, [("fra-1", "hkg-1"), ("fra-1", "sin-1"), ("hkg-1", "sin-1")], measured=True)
        self.generation = 0
        self.follow(*first)
        self.publisher, self.served = self.mesh.publish("hkg-1")
        self.viewer: Client = self.mesh.client("fra-1")
        self.viewer.subscribe()
        self.mesh.until(lambda: self.served.feeds and len(self.mesh.sources("fra-1")) == 1)
        self.meter = OverrideMeter(self.mesh.node("fra-1"))
        self.mesh.run()

    def follow(self, *hops: str) -> None:
        mesh, node = self.mesh, self.mesh.node("fra-1")
        assert node.mesh is not None
        self.generation += 1
        relays = tuple(
            RelayEntry(name, "r", f"https://{name}", (str(mesh.address(name)[0]), 4443), "serving", 0.0, 100)
            for name in mesh.relays
        )
        routes = (Route("hkg-1", tuple(Candidate(name) for name in hops)),) if hops else ()
        table = RouteTable(MESH, "fra-1", 1, self.generation, WALL, ("hkg-1", "sin-1"), relays, routes)
        node.mesh.apply_table(table, mesh.network.now)
        mesh.network.touch(mesh.relays["fra-1"])

    def grade(self, neighbour: str, standing: Standing) -> None:
        """What fra-1 makes of a link; the link itself is well all the time and has no reason to say so again."""
        self.mesh.grade("fra-1", neighbour, standing)
        self.mesh.run(0.5)
        self.publisher.send_group(self.served.alias, self.generation + int(self.mesh.network.now), [b"x"])
        self.mesh.run(2.0)

    def told(self) -> list[tuple[str, str, str, str]]:
        self.mesh.run(0.2)
        found = self.meter.take(self.mesh.network.now, WALL)
        return [(one.origin, one.instead_of, one.next_hop, one.cause) for one in found]

    @property
    def source(self) -> set[str]:
        return self.mesh.sources("fra-1")


def test_nothing_is_told_while_all_is_as_the_table_says() -> None:
    scene = Watched()
    assert scene.source == {"hkg-1"} and scene.told() == []
    scene.follow()
    assert scene.told() == [], "a table that says nothing of the origin is not overridden"


def test_a_bad_link_is_told_until_the_tracks_are_back() -> None:
    scene = Watched()
    scene.grade("hkg-1", Standing.BAD)
    assert scene.source == {"sin-1"}
    ((origin, instead_of, next_hop, cause),) = scene.told()
    assert (origin, instead_of, next_hop) == ("hkg-1", "hkg-1", "sin-1") and cause.startswith("the link is bad: ")
    scene.grade("hkg-1", Standing.PROBATION)
    assert scene.told()[0][3].endswith("; now: the link is on probation")
    scene.grade("hkg-1", Standing.UP)
    assert scene.source == {"hkg-1"} and scene.told() == []


def test_metrics_say_how_many_there_are_and_why() -> None:
    scene, metrics = Watched(), Metrics()
    scene.grade("hkg-1", Standing.BAD)
    count_overrides(metrics, scene.meter.now(scene.mesh.network.now))
    shown = metrics.control.overrides
    assert (shown.of("bad").value, shown.of("absent").value) == (1, 0)
    scene.grade("hkg-1", Standing.UP)
    count_overrides(metrics, scene.meter.now(scene.mesh.network.now))
    assert shown.of("bad").value == 0


def test_a_table_that_agrees_with_the_relay_ends_it() -> None:
    scene = Watched()
    scene.grade("hkg-1", Standing.BAD)
    assert len(scene.told()) == 1
    scene.follow("sin-1", "hkg-1")
    assert scene.source == {"sin-1"} and scene.told() == []


def test_a_neighbour_that_is_not_there_is_told_of() -> None:
    scene = Watched()
    session = scene.mesh.session("fra-1", "hkg-1")
    node = scene.mesh.node("fra-1")
    assert node.mesh is not None
    node.mesh._fars["hkg-1"].retry_at = None
    node.attachments[session].session.close(0, "test")
    scene.mesh.until(lambda: scene.source == {"sin-1"})
    assert [told[3] for told in scene.told()] in (["no session with it"], [])


def test_nobody_reads_it_any_more() -> None:
    scene = Watched()
    scene.grade("hkg-1", Standing.BAD)
    assert len(scene.told()) == 1
    scene.viewer.close(0, "goes")
    scene.mesh.run(1.0)
    assert scene.told() == []


@pytest.mark.parametrize(
    ("hindrance", "standing", "cause"),
    [
        (Hindrance.ABSENT, Standing.UP, Cause.ABSENT),
        (Hindrance.LINK, Standing.SUSPECT, Cause.SUSPECT),
        (Hindrance.LINK, Standing.PROBATION, Cause.PROBATION),
        (Hindrance.LINK, Standing.BAD, Cause.BAD),
        (Hindrance.LEAVING, Standing.UP, Cause.LEAVING),
        (Hindrance.UNTOLD, Standing.UP, Cause.UNTOLD),
        (Hindrance.DECLINED, Standing.UP, Cause.DECLINED),
        (Hindrance.BELOW, Standing.UP, Cause.BELOW),
        (None, Standing.UP, Cause.WAITING),
    ],
)
def test_every_hindrance_has_a_cause(hindrance: Hindrance | None, standing: Standing, cause: Cause) -> None:
    scene = Watched()
    session = scene.mesh.session("fra-1", "sin-1")
    scene.told()
    one = Astray(hop("hkg-1"), hop("hkg-1"), session, hindrance, standing, 1.0, 3)
    found = scene.meter._seen(one)
    assert found[:4] == ("hkg-1", "hkg-1", "sin-1", cause) and found.text and found.tracks == 3


def test_by_whom_a_track_comes() -> None:
    """One after the other: whoever is not there yet, doubles another or is to follow it does not count."""
    track = Book(ForwardingSettings()).track(TRACK)
    way = Way((7, hop("hkg-1")))
    assert feeder(track) is None
    sources = [Source(Party(number, 0), published=False, forward=True, way=way) for number in range(4)]
    for source in sources:
        track.sources.add(source)
    assert feeder(track) is None
    for source in sources[1:]:
        source.established_at = 1.0
    sources[1].succeeds = Location(0, 0)
    sources[2].doubles = True
    assert feeder(track) is sources[3]
    sources[1].succeeds = None
    assert feeder(track) is sources[1]
    track.sources.add(Source(Party(9, 0), published=True, forward=True))
    assert feeder(track) is None, "a publisher here"


def test_what_is_in_the_way_of_a_track() -> None:
    """Each hindrance as forwarding finds it, at a relay whose track comes over sin-1."""
    scene = Watched()
    scene.grade("hkg-1", Standing.BAD)
    forwarder: Forwarder = scene.mesh.node("fra-1").forwarder
    book, firsts = forwarder._book, {hop("hkg-1"): hop("hkg-1")}
    track = book.tracks[TRACK]
    member = book.members[scene.mesh.session("fra-1", "hkg-1")]
    source = feeder(track)
    assert source is not None

    def hindrance() -> Hindrance | None:
        (found,) = forwarder.astray(firsts)
        assert found.tracks == 1 and found.since == source.established_at
        return found.hindrance

    assert hindrance() is Hindrance.LINK
    member.standing = Standing.UP
    assert hindrance() is None
    member.leaving = True
    assert hindrance() is Hindrance.LEAVING
    member.leaving = False
    track.neighbours.declined.add(member.session)
    assert hindrance() is Hindrance.DECLINED
    track.neighbours.declined.clear()
    party = next(iter(track.subscriptions))
    track.neighbours.children[party] = 1
    assert hindrance() is Hindrance.BELOW
    track.neighbours.children.pop(party)
    (announced,) = (found for found in book.routes.announced.values() if found.ways)
    way = next(party for party in announced.ways if party.session == member.session)
    kept = announced.ways[way]
    announced.ways[way] = kept._replace(cost=1)
    assert hindrance() is Hindrance.UNTOLD
    del announced.ways[way]
    assert hindrance() is Hindrance.UNTOLD
    announced.ways[way] = kept
    member.hop = None
    assert hindrance() is Hindrance.ABSENT
    member.hop = hop("hkg-1")
    assert forwarder.astray({hop("hkg-1"): hop("sin-1")}) == [] == forwarder.astray({})


@pytest.mark.parametrize("is_over", [False, True])
def test_a_table_that_comes_right_after_a_move_is_followed_once_that_may_be(is_over: bool) -> None:
    """Tracks rest for a while after a move; what they did not follow then they follow after it."""
    scene = Watched()
    scene.follow("sin-1", "hkg-1")
    scene.mesh.until(lambda: scene.source == {"hkg-1", "sin-1"}, 1.0)
    if is_over:
        scene.publisher.send_group(scene.served.alias, 1, [b"x"])
    scene.mesh.run(0.2)
    assert scene.source == ({"sin-1"} if is_over else {"hkg-1", "sin-1"})
    scene.follow("hkg-1", "sin-1")
    scene.mesh.run(RETURN_S + GRACE_S)
    assert scene.source == {"hkg-1"} and scene.told() == []
