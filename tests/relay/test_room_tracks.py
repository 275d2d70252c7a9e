"""Rooms over MoQT: writers, readers, homes and followers on a virtual network of real relays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.check_rooms import check, gather
from relay.forwarding.book import Standing
from relay.room_publishing import MESSAGES_A_GROUP, MessageTrack
from relay.rooms import names
from relay.rooms.effects import Doing
from relay.rooms.rates import RoomSettings
from tests.sim.rooms import ROOM, RoomMesh, RoomWriter
from tradewind.contract.messages import RoomEntry
from tradewind.contract.rooms import PUB_TRACK, Ack, Opening, Why, encode, log_namespace
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import FullTrackName, Namespace, Parameters


def test_one_relay_alone_orders_what_is_written_to_it() -> None:
    mesh = RoomMesh("a")
    ann = mesh.writer("a", "ann")
    for number in range(3):
        ann.write(number)
    mesh.run()
    ann.hear()
    assert [(ack.seq, ack.stored, ack.epoch) for ack in ann.acks] == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]
    reader = mesh.reader("a", "rita")
    mesh.run()
    assert reader.openings == [Opening(1, 0, "a")]
    reader.join(1)
    ann.write(3)
    mesh.run()
    assert [record.body for record in reader.records_read()] == [b"0", b"1", b"2", b"3"]


def tour(**how: Any) -> tuple[RoomMesh, RoomWriter, RoomWriter]:
    """Home a, follower b, and c; a writer at the home and one at the edge."""
    mesh = RoomMesh("abc", **how)
    mesh.apply(RoomEntry(ROOM, "a", "b", 1))
    mesh.run(2.0)
    assert mesh.doing("a") is Doing.HOME
    return mesh, mesh.writer("a", "ann"), mesh.writer("c", "carl")


def verdict(mesh: RoomMesh) -> dict[str, list[str]]:
    """What the checker finds wrong in what clients wrote down."""
    return dict(check(gather(mesh.records.lines)).faults)


def test_an_edge_carries_to_the_home_and_everybody_reads_one_order() -> None:
    mesh, ann, carl = tour()
    for number in range(20):
        ann.write(number)
        carl.write(number)
        mesh.run(0.01)
    mesh.run(1.0)
    ann.hear()
    carl.hear()
    assert len({ack.seq for ack in (*ann.acks, *carl.acks)}) == 40
    assert {ack.stored for ack in carl.acks} == {2}
    assert not ann.naks and not carl.naks
    readers = [mesh.reader(at, at) for at in "abc"]
    mesh.run()
    for reader in readers:
        assert reader.openings[-1] == Opening(1, 0, "a")
        reader.join(1)
    carl.write(20)
    mesh.run(1.0)
    carl.hear()
    for reader in readers:
        assert len(reader.records_read()) == 41
        reader.note()
        reader.note("log")
    assert verdict(mesh) == {}


def test_the_home_dies_and_its_follower_goes_on() -> None:
    mesh, _, carl = tour()
    rita = mesh.reader("c", "rita")
    for number in range(10):
        carl.write(number)
    mesh.run(0.5)
    rita.join(1)
    mesh.run()
    carl.hear()
    assert [ack.stored for ack in carl.acks][-10:] == [2] * 10
    mesh.kill("a")
    for at in "bc":
        mesh.grade(at, "a", Standing.BAD)
    mesh.apply(RoomEntry(ROOM, "b", "c", 2), at="bc")
    carl.write(10)
    mesh.run(3.0)
    carl.hear()
    assert carl.acks[-1].epoch == 2
    assert carl.acks[-1].seq == 10
    assert rita.openings[-1] == Opening(2, 10, "b")
    rita.note()
    last = mesh.reader("c", "last")
    last.join(2)
    mesh.run(1.0)
    last.note("log")
    assert [record.body for record in last.records_read()] == [b"%d" % number for number in range(11)]
    assert verdict(mesh) == {}


def test_who_becomes_the_home_refuses_nobody_who_waited_for_it() -> None:
    mesh = RoomMesh("abc")
    mesh.apply(RoomEntry(ROOM, "a", "c", 1))
    mesh.run(2.0)
    carl = mesh.writer("c", "carl")
    mesh.kill("a")
    mesh.grade("c", "a", Standing.BAD)
    for number in range(5):
        carl.write(number)
    mesh.run(1.0)
    mesh.apply(RoomEntry(ROOM, "c", "b", 2))
    mesh.run(1.0)
    carl.hear()
    assert [nak.why for nak in carl.naks] == []
    assert [(ack.seq, ack.epoch) for ack in carl.acks[:5]] == [(number, 2) for number in range(5)]


def test_what_waited_for_a_home_comes_to_it_in_its_order() -> None:
    mesh, _, carl = tour()
    mesh.kill("a")
    mesh.grade("c", "a", Standing.BAD)
    mesh.run(0.5)
    for number in range(5 * MESSAGES_A_GROUP):
        carl.write(number)
    mesh.run(0.2)
    mesh.apply(RoomEntry(ROOM, "b", "", 2, 0))
    rooms = mesh.node("c").rooms
    assert rooms is not None
    track = rooms._desks[ROOM].served[FullTrackName((*log_namespace(ROOM, 2), b"in", b"c"), PUB_TRACK)]
    assert isinstance(track, MessageTrack)
    first = track._group
    mesh.run(1.0)
    carl.hear()
    assert [(ack.seq, ack.dup) for ack in carl.acks] == [(number, False) for number in range(5 * MESSAGES_A_GROUP)]
    assert track._group == first + 1, "all in one stream: what is in two may change places on the way"


def test_a_writer_whose_home_cannot_be_reached_is_told_why() -> None:
    mesh, _, carl = tour()
    carl.write(0)
    mesh.run()
    rita = mesh.reader("c", "rita")
    rita.join(1)
    mesh.run()
    mesh.kill("a")
    mesh.run(40.0)
    carl.write(1)
    mesh.run(3.0)
    carl.hear()
    assert [nak.why for nak in carl.naks] == [Why.NO_HOME]
    late = mesh.reader("c", "late")
    late.join(1)
    mesh.run()
    assert [record.body for record in late.records_read()] == [b"0"], "the follower serves what readers could see"


def test_a_home_that_is_dead_without_anybody_saying_so_is_found_out() -> None:
    mesh, _, carl = tour()
    mesh.kill("a")
    carl.write(1)
    mesh.run(2.5)
    refused = carl.write(2)
    mesh.run(2.0)
    carl.hear()
    assert [(nak.key, nak.why) for nak in carl.naks] == [(refused, Why.NO_HOME)], "the home may have the first"


def test_controllers_die_and_the_pair_goes_on_and_a_home_cut_off_refuses() -> None:
    mesh, ann, carl = tour()
    mesh.run(10.0)
    carl.write(0)
    mesh.run()
    carl.hear()
    assert [ack.stored for ack in carl.acks][-1] == 2, "home and follower need no controller"
    rita = mesh.reader("a", "rita")
    mesh.kill("b")
    mesh.run(5.0)
    ann.write(1)
    mesh.run(1.0)
    ann.hear()
    assert [nak.why for nak in ann.naks] == [Why.NO_QUORUM]
    rita.join(1)
    mesh.run()
    assert [record.body for record in rita.records_read()] == [b"0"], "reads go on"


def test_history_over_many_groups_comes_from_the_disk_and_meets_what_is_live() -> None:
    small = RoomSettings(room_per_s=1e6, writer_per_s=1e6, tail_records=32)
    mesh = RoomMesh("ab", small)
    mesh.apply(RoomEntry(ROOM, "a", "", 1))
    mesh.run()
    ann = mesh.writer("a", "ann")
    for number in range(1000):
        ann.write(number)
        if number % 50 == 0:
            mesh.run(0.02)
    mesh.run(1.0)
    reader = mesh.reader("b", "rita")
    mesh.run()
    reader.join(1, first=100)
    for number in range(1000, 1100):
        ann.write(number)
        mesh.run(0.002)
    mesh.run(1.0)
    assert [int(record.body) for record in reader.records_read()] == list(range(100, 1100))
    last = mesh.reader("a", "last")
    mesh.run()
    last.join(1)
    mesh.run(1.0)
    ann.hear()
    reader.note()
    last.note("log")
    assert verdict(mesh) == {}


def test_a_relay_that_comes_back_goes_on_where_its_disk_ends() -> None:
    mesh = RoomMesh("a")
    ann = mesh.writer("a", "ann")
    for number in range(300):
        ann.write(number)
    mesh.run(0.5)
    mesh.restart("a")
    bob = mesh.writer("a", "bob")
    bob.write(0)
    mesh.run()
    bob.hear()
    assert [(ack.seq, ack.epoch) for ack in bob.acks] == [(300, 1)]
    reader = mesh.reader("a", "rita")
    mesh.run()
    reader.join(1)
    mesh.run()
    assert [record.seq for record in reader.records_read()] == list(range(301))


@pytest.mark.parametrize(
    ("verb", "namespace", "name"),
    [
        ("publish_namespace", (*ROOM, b"1"), b""),
        ("publish_namespace", (*ROOM, b"1", b"copied", b"b"), b""),
        ("publish_namespace", (*ROOM, b"a", b"ann"), b""),
        ("publish_namespace", (*ROOM, b"w"), b""),
        ("publish_namespace", (*ROOM, b"w", b"ann", b"phone", b"more"), b""),
        ("publish_namespace", ROOM, b""),
        ("subscribe", (*ROOM, b"1", b"in", b"c"), b"pub"),
        ("subscribe", (*ROOM, b"1", b"copy", b"b"), b"log"),
        ("subscribe", (*ROOM, b"1"), b"other"),
        ("subscribe", (*ROOM, b"w", b"ann"), b"pub"),
    ],
)
def test_what_relays_say_to_each_other_is_nobody_elses(verb: str, namespace: Namespace, name: bytes) -> None:
    mesh = RoomMesh("a")
    client = mesh.client("a")
    what = namespace if verb == "publish_namespace" else FullTrackName(namespace, name)
    request = client.ask(verb, what, Parameters())
    mesh.run()
    assert client.refusal(request) == RequestCode.UNAUTHORIZED


def test_bytes_that_are_no_message_are_told_so() -> None:
    mesh = RoomMesh("a")
    ann = mesh.writer("a", "ann")
    ann.send(b"nonsense")
    ann.send(encode(Ack(bytes(16), 1, 1, False, 1, 1)))
    ann.write(1, room=(b"app", b"r", b"other"))
    ann.send(b"x" * 30_000)
    mesh.run()
    ann.hear()
    assert [nak.why for nak in ann.naks] == [Why.MALFORMED, Why.MALFORMED, Why.MALFORMED, Why.SIZE]


def test_a_room_needs_a_table_once_there_is_one() -> None:
    mesh = RoomMesh("a")
    mesh.node("a").apply_rooms([], mesh.network.now)
    ann = RoomWriter(mesh.client("a"), "ann", mesh.records)
    mesh.until(lambda: ann.served.feeds)
    ann.listen()
    mesh.run()
    ann.write(0)
    mesh.run()
    ann.hear()
    assert [nak.why for nak in ann.naks] == [Why.NO_HOME]


def test_whose_token_says_nothing_of_a_class_may_not_write_it() -> None:
    def may(*prefixes: Namespace) -> Callable[[Namespace], bool]:
        return lambda namespace: any(namespace[: len(prefix)] == prefix for prefix in prefixes)

    assert names.classes(ROOM, may((*ROOM, b"w", b"ann"))) == {3}
    assert names.classes(ROOM, may((*ROOM, b"w", b"mod"), (*ROOM, b"c", b"2"))) == {2, 3}
    assert names.classes(ROOM, may(ROOM)) == {0, 1, 2, 3}


def test_what_a_writer_publishes_is_told_to_no_other_relay() -> None:
    mesh, _, carl = tour()
    carl.write(0)
    mesh.run()
    known = {at: set(mesh.node(at).forwarder._book.routes.announced) for at in "abc"}
    private = {(*ROOM, b"w", b"carl"), (*ROOM, b"a")}
    assert private <= known["c"]
    assert not private & known["b"]
    assert (*ROOM, b"1", b"in", b"c") in known["b"], "what is for relays, they hear of"
