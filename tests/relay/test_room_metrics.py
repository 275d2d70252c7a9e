"""What a relay tells operators and controllers of its rooms: metrics, the state page, and reports that fit."""

from __future__ import annotations

from collections import deque
from typing import cast

from relay.metrics import Metrics
from relay.observe import DiskStatistics, Observer
from relay.placing import Placing
from relay.steering import Capacity, Readings, Steering
from tests.sim.rooms import ROOM, RoomMesh
from tradewind.contract.codec import TO_CONTROLLER, Codec
from tradewind.contract.messages import RoomEntry
from tradewind.moqt.model import format_namespace


class Disk:
    """A store that three writes were given to."""

    def __init__(self) -> None:
        self.write_waits_s = deque((0.001, 0.002, 0.2))

    def statistics(self) -> DiskStatistics:
        return DiskStatistics(4096, 1)


def look(mesh: RoomMesh, at: str) -> dict[str, float]:
    """Every number of rooms, by its name and its label."""
    metrics = Metrics()
    observer = Observer(mesh.node(at), metrics)
    observer.disk = Disk()
    found: dict[str, float] = {}
    for sample in metrics.snapshot():
        name = sample.declaration.name.removeprefix("tradewind_")
        if name.startswith("room"):
            for labels, value in sample.values:
                found[" ".join((name, *labels))] = value
            if sample.buckets:
                found[name] = sum(sample.buckets)
    return found


def test_what_rooms_count() -> None:
    mesh = RoomMesh("abc")
    mesh.apply(RoomEntry(ROOM, "a", "b", 1))
    mesh.run(2.0)
    ann, carl = mesh.writer("a", "ann"), mesh.writer("c", "carl")
    for number in range(3):
        ann.write(number)
        carl.write(number)
    mesh.run(0.5)
    ann.write(0)
    ann.write(9, room=(b"app", b"r", b"other"))
    ann.send(b"nonsense")
    mesh.run(0.5)
    home = look(mesh, "a")
    assert home["rooms home"] == 1
    assert home["room_messages_acknowledged_total 2"] == 7
    assert home["room_messages_repeated_total"] == 1
    assert home["room_messages_refused_total malformed"] == 2
    assert (home["room_records"], home["room_follower_backlog_records"], home["room_waiting_messages"]) == (6, 0, 0)
    assert (home["room_write_seconds"], home["room_disk_bytes"], home["room_damaged_records"]) == (3, 4096, 1)
    follower = look(mesh, "b")
    assert follower["rooms following"] == 1
    assert (follower["room_records"], follower["room_follower_backlog_records"]) == (6, 0)
    assert look(mesh, "c")["rooms watching"] == 1
    mesh.kill("b")
    ann.write(10)
    mesh.run(0.2)
    assert look(mesh, "a")["room_waiting_messages"] == 1
    mesh.hear_controllers("a")
    mesh.run(1.0)
    home = look(mesh, "a")
    assert home["room_messages_acknowledged_total 1"] == 1
    assert home["room_follower_backlog_records"] == 1
    state = Observer(mesh.node("a"), Metrics()).state()["rooms"][format_namespace(ROOM)]
    assert (state["doing"], state["records"]) == ("home", 7)
    mesh.kill("a")
    carl.write(11)
    mesh.run(40.0)
    assert look(mesh, "c").get("room_messages_refused_total no_home", 0) == 0, "a home may have it"
    carl.write(12)
    mesh.run(3.0)
    assert look(mesh, "c")["room_messages_refused_total no_home"] == 1


def test_a_report_of_a_relay_with_namespaces_of_its_own_fits_the_contract() -> None:
    mesh = RoomMesh("ab")
    mesh.apply(RoomEntry(ROOM, "a", "b", 1))
    mesh.run(2.0)
    steering = Steering(
        mesh.node("a"), cast("Placing", None), Capacity(1e6, 100), lambda: Readings(cpu_s=0.0, lag_s=0.0)
    )
    report = steering.report(1, mesh.network.now, mesh.network.wall_now)
    assert ROOM in {origin.namespace for origin in report.origins}
    assert report.rooms[0].whole == 1
    codec = Codec(TO_CONTROLLER)
    assert codec.decode(codec.encode(report)) == report
