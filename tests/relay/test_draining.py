"""Relays of a mesh that are emptied: nobody's picture stands still, whoever draws tables and whoever is asked to go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from relay.node import Stage
from tests.sim.client import Client
from tests.sim.moving import Follower, Placed, Source, reader, writer
from tradewind.contract.admission import mint_admission, viewer_digest
from tradewind.moqt import events as e
from tradewind.moqt.errors import SessionCode

NAMES = ["fra", "hkg", "osl", "sin"]
STILL_S = 0.2
"""No picture stands still for longer."""


def shown(
    at: Sequence[str],
    *,
    names: Sequence[str] = NAMES,
    publisher: str = "hkg",
    drafts: Sequence[int] = (20,),
    **how: bool,
) -> tuple[Placed, Source, list[Follower]]:
    """A mesh with a show at `publisher`, and a viewer at each relay of `at`; every third has its token in SETUP."""
    mesh = Placed(names, checks=len(at) <= 4)
    source = Source(mesh, mesh.dial(publisher, writer()))
    mesh.run()
    viewers = []
    for number, name in enumerate(at):
        access, by_setup = reader(), number % 3 == 0
        draft, webtransport = drafts[number % len(drafts)], number % 4 == 1
        client = mesh.dial(name, access, by_setup=by_setup, draft=draft, webtransport=webtransport)
        viewers.append(Follower(mesh, client, by_setup=access if by_setup else "", **how))
    mesh.run()
    source.stream(2.0)
    return mesh, source, viewers


def assert_whole(source: Source, viewers: Sequence[Follower]) -> None:
    """Everybody has seen everything, and never waited for it."""
    for viewer in viewers:
        assert sorted(viewer.objects) == source.sent
        assert max(viewer.gaps()) <= STILL_S
        assert not any(client.told(e.PublishDone) for client in viewer.sessions)


def check(mesh: Placed) -> None:
    for relay in mesh.relays.values():
        relay.node.check_invariants()


# --- Viewers ---


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False], ids=["controller", "nobody steers"])
def test_viewers_move_and_spread(told: bool) -> None:
    mesh, source, viewers = shown(["fra"] * 12, drafts=(16, 18, 20, 22))
    began = mesh.network.now
    mesh.order("fra", "drain", 10.0)
    source.stream(10.0, told)
    assert_whole(source, viewers)
    assert mesh.node("fra").stage_name == "empty"
    spread = Counter(viewer.at for viewer in viewers)
    assert set(spread) == {"hkg", "osl", "sin"}
    assert max(spread.values()) <= 7
    assert mesh.node("fra").tally.goaways == {"given": 12}
    assert mesh.node("fra").tally.overstayed == 0
    assert mesh.network.now - began == pytest.approx(10.0)
    for viewer in viewers:
        (uri,) = viewer.uris
        assert ("jwt=" in uri) == (not viewer._tokens), "a token that came in SETUP is in no URI"
        assert uri.count("place=") == 1


@pytest.mark.slow
def test_a_hundred_viewers() -> None:
    mesh, source, viewers = shown(["fra"] * 100)
    mesh.order("fra", "drain", 20.0)
    mesh.run(0.01)
    source.stream(20.0)
    assert_whole(source, viewers)
    assert mesh.node("fra").stage_name == "empty"
    spread = Counter(viewer.at for viewer in viewers)
    assert len(spread) == 3 and max(spread.values()) <= 50
    assert mesh.node("fra").tally.overstayed == 0
    check(mesh)


@pytest.mark.slow
def test_undone_half_way_nobody_else_is_asked() -> None:
    mesh, source, viewers = shown(["fra"] * 12)
    mesh.order("fra", "drain", 10.0)
    source.stream(3.0)
    moved = [viewer for viewer in viewers if viewer.uris]
    assert 3 < len(moved) < 9
    mesh.order("fra", "undrain")
    source.stream(12.0)
    assert [viewer for viewer in viewers if viewer.uris] == moved
    assert_whole(source, viewers)
    assert mesh.node("fra").stage_name == "serving"
    assert all(viewer.at == "fra" for viewer in viewers if viewer not in moved)
    assert all(not mesh.link(name, "fra").far_leaves for name in NAMES if name != "fra")
    newcomer = Follower(mesh, mesh.dial("fra", reader()))
    source.stream(2.0)
    assert newcomer.objects and not newcomer.uris, "it is open for new ones"


@pytest.mark.slow
def test_who_does_not_listen_is_closed_at_the_deadline_and_counted() -> None:
    mesh, source, viewers = shown(["hkg"] * 4, follows=False)
    followers = [Follower(mesh, mesh.dial("hkg", reader())) for _ in range(3)]
    mesh.order("hkg", "drain", 6.0)
    source.stream(5.8)
    assert all(viewer.client.closed is None for viewer in viewers)
    assert source.sessions[0].closed is not None, "its publisher has moved, whoever stays"
    assert mesh.sources("hkg") == {source.at}
    source.stream(1.0)
    for viewer in viewers:
        assert viewer.client.closed is not None and viewer.client.closed.code == SessionCode.GOAWAY_TIMEOUT
    assert all(one.at != "hkg" and max(one.gaps()) <= STILL_S for one in followers)
    assert mesh.node("hkg").tally.overstayed == 4
    assert mesh.steering["hkg"].report(1, mesh.network.now, mesh.network.wall_now).overstayed == 4
    assert mesh.node("hkg").stage_name == "empty"


def test_who_comes_while_it_drains_is_sent_on_at_once() -> None:
    mesh, source, _ = shown(["fra"])
    mesh.order("fra", "drain", 20.0)
    source.stream(1.0)
    late = Follower(mesh, mesh.dial("fra", reader()))
    source.stream(1.0)
    assert late.uris and late.at != "fra"
    assert mesh.node("fra").tally.overstayed == 0


def test_who_is_just_coming_hears_where_to_go_once_it_is_in() -> None:
    """A drain that begins at any moment of a handshake."""
    mesh = Placed(["fra", "hkg"], checks=False)
    access = reader()
    for number in range(8):
        placed = mint_admission(mesh.signers["fra"], viewer_digest(access), "", ["fra"], mesh.network.wall_now)
        path = f"/?jwt={access}&place={placed}"
        client = Client(
            mesh.network, (f"203.0.113.{200 + number}", 99), relay=mesh.address("fra"), path=path, webtransport=True
        )
        mesh.run(0.01 * number)
        mesh.order("fra", "drain", 20.0)
        mesh.run(1.0)
        assert [event.uri.partition("?")[0] for event in client.told(e.GoawayReceived)] == [
            "https://198.51.100.2:4443/"
        ]
        client.close()
        mesh.order("fra", "undrain")
        mesh.run(0.5)
    assert mesh.node("fra").tally.goaways == {"given": 8}


@pytest.mark.slow
def test_two_at_once_do_not_send_them_to_each_other() -> None:
    """No table says so yet: they have it from each other."""
    mesh, source, viewers = shown(["fra"] * 9)
    mesh.order("osl", "drain", 20.0)
    source.stream(0.4, told=False)
    mesh.order("fra", "drain", 6.0)
    source.stream(5.0, told=False)
    assert all(len(viewer.uris) == 1 and viewer.at in {"hkg", "sin"} for viewer in viewers)
    assert_whole(source, viewers)


def test_without_a_table_they_are_asked_without_a_uri_and_newcomers_are_left_alone() -> None:
    mesh, source, viewers = shown(["fra"] * 2)
    placing = mesh.node("fra").departures.placing
    mesh.node("fra").departures.placing = None
    mesh.order("fra", "drain", 5.0)
    source.stream(0.5, told=False)
    late = Follower(mesh, mesh.dial("fra", reader()))
    source.stream(3.5, told=False)
    assert [viewer.uris for viewer in (*viewers, late)] == [[""], [""], []]
    assert placing is not None


def test_a_second_order_hastens_the_first() -> None:
    mesh, source, viewers = shown(["fra"] * 6)
    mesh.order("fra", "drain", 60.0)
    source.stream(0.5)
    mesh.order("fra", "drain", 4.0)
    mesh.order("fra", "drain", 60.0)
    source.stream(4.5)
    assert mesh.node("fra").stage_name == "empty"
    assert_whole(source, viewers)


# --- Publishers ---


@pytest.mark.parametrize("told", [True, False], ids=["controller", "nobody steers"])
def test_a_publisher_moves_last_and_nobody_sees_it(told: bool) -> None:
    mesh, source, viewers = shown([*NAMES, "hkg", "hkg"])
    mesh.order("hkg", "drain", 8.0)
    source.stream(3.0, told)
    assert source.at == "hkg"
    source.stream(5.0, told)
    assert source.at != "hkg" and source.sessions[0].closed is not None
    assert_whole(source, viewers)
    assert mesh.node("hkg").stage_name == "empty"
    assert mesh.node("hkg").tally.overstayed == 0


@pytest.mark.slow
def test_every_relay_in_turn() -> None:
    mesh, source, viewers = shown(NAMES * 3)
    for name in NAMES:
        mesh.order(name, "drain", 8.0)
        source.stream(8.5)
        assert mesh.node(name).stage_name == "empty", name
        mesh.order(name, "undrain")
        source.stream(1.0)
    assert_whole(source, viewers)
    assert all(mesh.node(name).tally.overstayed == 0 for name in NAMES)
    check(mesh)


# --- On the way to others ---


@pytest.mark.slow
def test_what_others_read_through_it_moves_first() -> None:
    mesh, source, viewers = shown(["sin"] * 2)
    mesh.prefer("sin", {"hkg": ["fra", "hkg"]})
    source.stream(3.0, told=False)
    assert mesh.sources("sin") == {"fra"}
    mesh.order("fra", "drain", 30.0)
    assert mesh.node("fra").stage_name == "draining", "somebody reads through it"
    source.stream(1.0, told=False)
    assert mesh.sources("sin") == {"hkg"}
    source.stream(6.0, told=False)
    assert mesh.node("fra").stage_name == "empty", "long before the deadline"
    assert_whole(source, viewers)
    mesh.order("fra", "undrain")
    source.stream(3.0, told=False)
    assert mesh.sources("sin") == {"fra"}, "and back"
    assert_whole(source, viewers)


def test_who_has_no_other_way_reads_on() -> None:
    mesh = Placed(["fra", "hkg", "sin"], links=[("fra", "hkg"), ("fra", "sin")])
    source = Source(mesh, mesh.dial("hkg", writer()))
    mesh.run()
    viewer = Follower(mesh, mesh.dial("sin", reader()))
    source.stream(1.0, told=False)
    assert mesh.sources("sin") == {"fra"}
    mesh.order("fra", "drain", 3.0)
    source.stream(2.0, told=False)
    assert mesh.node("fra").stage_name == "draining"
    late = Follower(mesh, mesh.dial("sin", reader()))
    source.stream(2.0, told=False)
    assert mesh.node("fra").stage_name == "empty"
    assert max(viewer.gaps()) <= STILL_S and max(late.gaps()) <= STILL_S
    assert max(viewer.objects) == max(late.objects) >= source.sent[-2]


@pytest.mark.slow
def test_a_process_that_is_told_to_stop_waits_for_relays_too() -> None:
    mesh, source, viewers = shown(["sin", "sin"])
    mesh.prefer("sin", {"hkg": ["fra", "hkg"]})
    source.stream(3.0, told=False)
    node = mesh.node("fra")
    node.drain(mesh.network.now, 20.0)
    mesh.network.touch(mesh.relays["fra"])
    mesh.run(0.01)
    assert node.stage is Stage.DRAINING and not node.is_empty
    source.stream(8.0, told=False)
    assert node.stage is Stage.DRAINED
    mesh.kill("fra")
    source.stream(2.0, told=False)
    assert_whole(source, viewers)
