"""What controllers see of relays, and have them do: streams over a chain, pages of sessions, a kick that acts once."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from relay import listing
from relay.flows import ROWS_PER_S, FlowMeter
from relay.node import Node
from relay.placing import Placing
from relay.steering import Capacity, Readings, Steering
from tests.relay.test_placing import ACCESS_KEY, OWN
from tests.sim.client import TRACK, Client
from tests.sim.mesh import Mesh
from tests.sim.world import World
from tradewind.contract.codec import TO_CONTROLLER, VERSIONS, Codec
from tradewind.contract.messages import MAX_STREAMS, Command, Question, StreamReport
from tradewind.moqt.errors import SessionCode
from tradewind.moqt.model import FullTrackName

CHAIN = (("hkg-1", "sin-1"), ("fra-1", "sin-1"))
AUDIO = FullTrackName(TRACK.namespace, b"audio")


def steer(node: Node) -> Steering:
    return Steering(node, Placing("eu-0", OWN, [ACCESS_KEY]), Capacity(1e9, 1000), lambda: Readings(0.0, 0.0))


def ask(steering: Steering, now: float, **question: Any) -> Any:
    return json.loads(steering.answer(Question(1, **question), now).body)


def kick(session: int, id: str = "x1", reason: str = "") -> Command:
    return Command(id, "kick", session=session, reason=reason)


# --- Streams ---


def test_a_stream_over_a_chain_says_at_each_relay_where_it_comes_from() -> None:
    mesh = Mesh(("fra-1", "hkg-1", "sin-1"), CHAIN)
    publisher, served = mesh.publish("hkg-1")
    other = publisher.serve(AUDIO)
    viewers = [mesh.client("fra-1") for _ in range(3)]
    for viewer in viewers:
        viewer.subscribe()
    viewers[0].subscribe(AUDIO)
    mesh.until(lambda: served.feeds and other.feeds)
    mesh.run()
    steerings = {name: steer(mesh.node(name)) for name in mesh.relays}

    def told() -> dict[str, StreamReport]:
        reports = {name: one.report(1, mesh.network.now, 0.0) for name, one in steerings.items()}
        assert {name: report.tracks for name, report in reports.items()} == dict.fromkeys(reports, 2)
        found = {}
        for name, report in reports.items():
            assert report.streams is not None and report.streams_more == 0
            (found[name],) = report.streams
        return found

    rows = told()
    assert {name: (row.source, row.tracks, row.subscribers) for name, row in rows.items()} == {
        "hkg-1": ("publisher", 2, 0),
        "sin-1": ("hkg-1", 2, 0),
        "fra-1": ("sin-1", 2, 3),
    }
    assert all(row.bytes_per_s == 0.0 for row in rows.values()), "nothing to compare with yet"
    for group in range(10):
        publisher.send_group(served.alias, group, [bytes(1000)])
        mesh.run(0.1)
    rows = told()
    assert all(8_000 < row.bytes_per_s < 12_000 for row in rows.values()), rows
    mesh.run(1.0)
    assert all(row.bytes_per_s == 0.0 for row in told().values())
    assert ask(steerings["sin-1"], 0.0, what="streams", namespace=TRACK.namespace)[0]["source"] == "hkg-1"
    assert ask(steerings["sin-1"], 0.0, what="streams", namespace=(b"nothing",)) == []


def test_a_namespace_that_nobody_watches_is_a_stream_and_one_that_nobody_publishes_is_none() -> None:
    world = World()
    world.publish()
    viewer = world.join()
    viewer.subscribe(FullTrackName((b"nowhere",), b"video"), rendezvous_timeout_ms=20_000)
    world.run()
    (row,) = FlowMeter(world.node).take(1.0).rows  # type: ignore[union-attr]
    assert row == StreamReport(TRACK.namespace, "publisher", 0, 0, 0.0)


def test_rows_are_bounded_the_busiest_come_first_and_many_are_told_less_often() -> None:
    world = World()
    publishers = [world.join() for _ in range(3)]
    for number in range(MAX_STREAMS + 20):
        publishers[number % 3].announce((b"live", b"%03d" % number))
    world.run(1.0)
    served = publishers[0].serve(FullTrackName((b"live", b"270"), b"video"))
    world.join().subscribe(served.track)
    world.until(lambda: served.feeds)
    world.run()
    meter = FlowMeter(world.node)
    first = meter.take(1.0)
    assert first is not None and len(first.rows) == MAX_STREAMS and first.more == 20
    assert first.rows[0].namespace == (b"live", b"270") and first.rows[0].subscribers == 1
    told = [now for now in range(2, 30) if meter.take(float(now)) is not None]
    assert {later - earlier for earlier, later in pairwise(told)} == {MAX_STREAMS // ROWS_PER_S}
    report = steer(world.node).report(1, 1.0, 0.0)
    assert report.streams == first.rows and report.streams_more == 20


# --- Sessions ---


def everybody(steering: Steering, **question: Any) -> list[int]:
    found: list[int] = []
    after: int | None = 0
    for _ in range(100):
        page = ask(steering, 5.0, what="sessions", after=after, **question)
        assert len(page["sessions"]) <= question.get("limit", listing.MOST_ON_A_PAGE)
        found += [session["id"] for session in page["sessions"]]
        after = page["next"]
        if after is None:
            return found
    raise AssertionError("pages without an end")


def test_sessions_are_shown_in_pages_and_found_by_their_namespace() -> None:
    world = World()
    publisher, _ = world.publish()
    clients: list[Client] = [world.join() for _ in range(6)]
    for viewer in clients[:2]:
        viewer.subscribe()
    clients[2].subscribe(FullTrackName((b"demo", b"deeper"), b"video"), rendezvous_timeout_ms=20_000)
    world.run()
    steering = steer(world.node)
    ids = list(world.node.attachments)
    assert everybody(steering) == everybody(steering, limit=2) == everybody(steering, limit=1) == ids
    page = ask(steering, 5.0, what="sessions", after=0, limit=3)
    assert page["next"] == ids[2] and page["total"] == 7 and page["sessions"][1]["namespaces"] == ["demo"]
    here, *watching = everybody(steering, namespace=TRACK.namespace)
    assert here == ids[0] and watching == ids[1:4], "the publisher, who reads, and who waits for what lies beneath"
    assert everybody(steering, namespace=(b"dem",)) == []
    assert everybody(steering, match="203.0.113.3") == [ids[2]]
    old = ask(steering, 5.0, what="sessions")
    assert [session["id"] for session in old] == ids, "a controller of before gets a list"
    assert publisher.is_open


def test_a_page_looks_at_so_many_and_is_never_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for _ in range(9):
        world.join()
    steering = steer(world.node)
    ids = list(world.node.attachments)
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 4)
    assert ask(steering, 0.0, what="sessions", after=0, match="nobody") == {
        "sessions": [], "next": ids[3], "total": 9
    }  # fmt: skip
    assert everybody(steering) == ids
    monkeypatch.setattr(listing, "MOST_PAGE_CHARACTERS", 1500)
    assert everybody(steering) == ids
    assert all(len(listing.page(world.node, after, 10, "", (), 0.0)) <= 1500 for after in (0, *ids))


# --- Kicks ---


def test_a_kick_ends_one_session_once() -> None:
    world = World()
    clients = [world.join() for _ in range(2)]
    ids = list(world.node.attachments)
    steering = steer(world.node)
    done = steering.obey(kick(ids[0], reason="spam"), 1.0)
    assert done is not None and done.ok
    world.network.touch(world.relay)
    world.run()
    assert clients[0].closed is not None and clients[0].closed.code == SessionCode.UNAUTHORIZED
    assert clients[0].closed.reason == "ended by an operator: spam" and clients[1].is_open
    assert list(world.node.attachments) == ids[1:]
    assert steering.obey(kick(ids[0]), 2.0) == done, "the same command, the same answer"
    again = steering.obey(kick(ids[0], "x2"), 2.0)
    assert again is not None and not again.ok and again.detail == "no such session"


def test_a_neighbour_is_not_kicked() -> None:
    mesh = Mesh(("fra-1", "sin-1"))
    steering = steer(mesh.node("fra-1"))
    done = steering.obey(kick(mesh.session("fra-1", "sin-1")), 1.0)
    assert done is not None and not done.ok and "relay sin-1" in done.detail
    mesh.run()
    assert mesh.session("fra-1", "sin-1")


def test_a_report_of_what_is_published_has_bytes() -> None:
    """Publishers' Hop IDs have 62 bits: a report that names one has to fit the contract."""
    world = World()
    world.publish()
    report = steer(world.node).report(1, 1.0, 0.0)
    assert report.origins and report.origins[0].hop > 2**53
    for version in VERSIONS:
        assert Codec(TO_CONTROLLER, version).encode(report)
