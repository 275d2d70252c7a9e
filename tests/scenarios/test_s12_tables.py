"""S12: tables that are poisoned, cut off, of another signer, or of before. The last good one stays, and it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from relay.metrics import Metrics
from relay.observe import count_control
from relay.orders import Fault
from tests.sim import pki
from tests.sim.mesh import MESH
from tests.sim.scene import Scene
from tradewind.contract.identity import sign_table
from tradewind.contract.ids import Role
from tradewind.contract.messages import RouteTable, SignedTable, ToRelay
from tradewind.contract.tables import encode_table

THREE = ("fra-1", "hkg-1", "lhr-1")


def refused(scene: Scene, name: str) -> dict[str, float]:
    """What an operator's metrics say of tables not taken."""
    metrics = Metrics()
    count_control(metrics, scene.control(name).helm)
    return {reason: count for (reason,), count in metrics.control.refused.items()}


def signed_by(table: RouteTable, who: str, role: Role = Role.CONTROLLER, mesh: str = MESH) -> SignedTable:
    return sign_table(encode_table(table), pki.key_of(who), pki.node(mesh, who, "somewhere", role))


def later(table: RouteTable, **changes: object) -> RouteTable:
    return replace(table, generation=table.generation + 50, routes=(), **changes)


BAD = {
    "a relay signed it": (lambda table: signed_by(later(table), "fra-1", Role.RELAY), Fault.UNSIGNED),
    "of another mesh's controller": (lambda table: signed_by(later(table), "main", mesh="other"), Fault.UNSIGNED),
    "changed on the way": (
        lambda table: replace(signed_by(later(table), "main"), table=encode_table(later(table, neighbours=()))),
        Fault.UNSIGNED,
    ),
    "cut off": (
        lambda table: sign_table(
            encode_table(later(table))[:-7], pki.key_of("main"), pki.node(MESH, "main", "somewhere", Role.CONTROLLER)
        ),
        Fault.UNREADABLE,
    ),
    "for another relay": (lambda table: signed_by(later(table, relay="hkg-1"), "main"), Fault.ANOTHER_RELAY),
    "an older generation": (lambda table: signed_by(replace(table, generation=1, routes=()), "main"), Fault.OLDER),
    "an older term": (lambda table: signed_by(later(table, term=table.term - 1), "main"), Fault.OLDER),
    "two of one number": (lambda table: signed_by(replace(table, routes=()), "main"), Fault.CONTRADICTION),
}


def tell(scene: Scene, name: str, message: ToRelay) -> None:
    """The controller says this on the relay's own link."""
    host = scene.controller()
    link = host.plane.link_of(name)
    assert link is not None
    host._links.send(link, message)
    scene.network.touch(host)
    scene.run(0.1)


def alarms(scene: Scene, name: str) -> list[str]:
    """What the controller's events say of it."""
    events = scene.controller().plane.events.after(0, 10_000)
    return [line.detail for line in events if line.relay == name and line.kind == "table_refused"]


def test_s12_bad_tables_leave_the_last_good_one_and_raise_an_alarm() -> None:
    scene = Scene(THREE)
    wanted: dict[str, float] = {}
    for what, (make, fault) in BAD.items():
        before = scene.table("fra-1")
        tell(scene, "fra-1", make(before))
        assert scene.table("fra-1") == before, what
        wanted[fault.value] = wanted.get(fault.value, 0) + 1
        assert refused(scene, "fra-1") == wanted, what
        (told,) = scene.control("fra-1").helm.refusals
        assert told.fault is fault, "what the relay's log says"
        scene.control("fra-1").helm.refusals.clear()
        mesh = scene.node("fra-1").mesh
        assert mesh is not None and mesh.table == before and scene.control("fra-1").helm.statistics.controller
    scene.run(1.0)
    assert sum(int(line.split()[0]) for line in alarms(scene, "fra-1")) == len(BAD), "operators hear of each"
    generation = scene.table("fra-1").generation
    scene.run(11.0)
    assert scene.table("fra-1").generation > generation, "and good ones are taken as before"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:60] + b"\0" + data[61:],
    ],
    ids=["cut off", "half", "empty", "a byte changed"],
)
def test_s12_a_damaged_file_is_not_followed_and_the_controller_gives_another(damage: object) -> None:
    scene = Scene(THREE)
    disk = scene.control("fra-1").disk
    assert disk is not None and callable(damage)
    scene.kill("fra-1")
    scene.run(4.0)
    scene.restart("fra-1", damage(disk))
    assert scene.control("fra-1").helm.orders.table is None
    assert refused(scene, "fra-1") == {"unreadable": 1}
    scene.run(3.0)
    assert scene.table("fra-1").routes
    assert alarms(scene, "fra-1") == ["1 not taken, the last one: unreadable"]


def test_s12_an_older_file_put_in_the_place_of_the_last_is_soon_corrected() -> None:
    """A file of before is a good one: what undoes it is that controllers never go back."""
    scene = Scene(THREE)
    old, table = scene.control("fra-1").disk, scene.table("fra-1")
    scene.run(25.0)
    newer = scene.table("fra-1").generation
    assert newer > table.generation
    scene.kill("fra-1")
    scene.run(4.0)
    scene.restart("fra-1", old)
    assert scene.table("fra-1").generation == table.generation
    scene.run(3.0)
    assert scene.table("fra-1").generation > newer


def test_s12_of_two_controllers_with_one_store_only_the_later_term_is_followed(tmp_path: Path) -> None:
    """The earlier one ends at its first write; whoever came to it goes on with the table of the later one."""
    scene = Scene(THREE, controllers=("main", "spare"), store=tmp_path / "control.sqlite")
    term = scene.controller("spare").plane.term
    assert {scene.table(name).term for name in THREE} == {term}
    scene.controller("spare").kill()
    scene.run(30.0)
    assert not scene.controller("main").is_alive
    assert {scene.table(name).term for name in THREE} == {term}
    scene.controller("spare").start()
    scene.run(27.0)
    for name in THREE:
        assert scene.control(name).helm.statistics.controller == "spare"
        assert scene.table(name).term == term + 1 and len(scene.table(name).relays) == 3
        assert refused(scene, name) == {}
