"""A controller's plane beside a mesh on one clock: relays report to it, and follow its tables."""

from __future__ import annotations

import json
from heapq import heappop, heappush

from control.placement import Placement
from control.plane import Plane, PlaneSettings
from control.publishing import Signing
from control.registry.values import Condition
from control.state import State
from tests.contract.mesh import CONTROLLER
from tests.sim.mesh import MESH, REGION
from tests.sim.moving import SESSIONS, Placed
from tests.sim.tokens import KEY
from tradewind.contract.admission import signer
from tradewind.contract.identity import NodeIdentity
from tradewind.contract.ids import Role
from tradewind.contract.messages import (
    Command,
    Done,
    Hello,
    PackedTable,
    Report,
    RouteTable,
    TableDelta,
    ToRelay,
)
from tradewind.contract.tables import apply_delta, decode_table, unpack
from tradewind.contract.token import generate_key, parse_keys, public_key
from tradewind.placing.policy import Policy

DELAY_S = 0.04
"""Between a relay and the controller, one way."""
STEP_S = 0.01
REPORT_S = 1.0

PRIVATE = generate_key("EdDSA", "controller-1")
(SIGNING_KEY,) = parse_keys(json.dumps(PRIVATE))


class Steered:
    """`run` moves the clock of both. Relays that are killed say nothing more, and nothing tells the controller."""

    def __init__(self, mesh: Placed, phases_s: dict[str, float] | None = None) -> None:
        self.mesh = mesh
        placement = Placement(Policy(), signer(SIGNING_KEY), [KEY])
        settings = PlaneSettings(MESH, "main", placement_keys=(json.dumps(public_key(PRIVATE)),))
        now, wall_now = mesh.network.now, mesh.network.wall_now
        self.plane = Plane(settings, State(7), Signing(CONTROLLER.key, CONTROLLER.der), placement, now, wall_now)
        self.died: dict[str, float] = {}
        """When the plane found a relay dead."""
        self.tables: dict[str, RouteTable] = {}
        self._links = {name: number for number, name in enumerate(mesh.relays, 1)}
        self._report_at = {name: now + (phases_s or {}).get(name, 0.0) for name in mesh.relays}
        self._flying: list[tuple[float, int, str, Report | Done]] = []
        self._order = 0
        for name, link in self._links.items():
            self.plane.receive_proven(link, NodeIdentity(MESH, Role.RELAY, REGION, name, 0.0, 2.0**40, b""))
            key = mesh.signers[name].key.public_key().public_bytes_raw()
            address = mesh.address(name)
            boot = link.to_bytes(16, "big")
            hello = Hello(boot, mesh.uri(name), (str(address[0]), address[1]), "sim", 0, 1e9, SESSIONS, key)
            self.plane.receive_message(link, hello, now, wall_now)

    def lives(self, name: str) -> bool:
        return self.mesh.address(name) in self.mesh.network.hosts

    def reported_at(self, name: str) -> float:
        """When a relay made its last report."""
        return self._report_at[name] - REPORT_S

    def run(self, seconds: float) -> None:
        network = self.mesh.network
        for _ in range(round(seconds / STEP_S)):
            self.mesh.run(STEP_S)
            now, wall_now = network.now, network.wall_now
            for name in filter(self.lives, self._links):
                mesh = self.mesh.node(name).mesh
                assert mesh is not None
                if mesh.changes or now >= self._report_at[name]:
                    mesh.changes.clear()
                    self._report_at[name] = now + REPORT_S
                    self._fly(name, self.mesh.steering[name].report(1, now, wall_now))
            while self._flying and self._flying[0][0] <= now:
                _, _, name, message = heappop(self._flying)
                self.plane.receive_message(self._links[name], message, now, wall_now)
            while (due := self.plane.next_deadline(now)) is not None and due <= now:
                self.plane.handle_deadline(now, wall_now)
                self._give()
            self._give()
            for name, view in self.plane.relays(now).items():
                if view.condition is Condition.DEAD:
                    self.died.setdefault(name, now)

    def _fly(self, name: str, message: Report | Done) -> None:
        self._order += 1
        heappush(self._flying, (self.mesh.network.now + DELAY_S, self._order, name, message))

    def _give(self) -> None:
        """What the plane says, to those who live. Its disk is fast."""
        names = {link: name for name, link in self._links.items()}
        network = self.mesh.network
        while any(output := self.plane.output()):
            for batch in output.batches:
                self.plane.receive_saved(batch.number, network.now, network.wall_now)
            for link, message in output.send:
                if self.lives(names[link]):
                    self._take(names[link], message)

    def _take(self, name: str, message: ToRelay) -> None:
        match message:
            case PackedTable():
                self.tables[name] = decode_table(unpack(message).table)
            case TableDelta():
                self.tables[name] = apply_delta(self.tables[name], message)
            case Command():
                done = self.mesh.steering[name].obey(message, self.mesh.network.now)
                assert done is not None
                self._fly(name, done)
                self.mesh.network.touch(self.mesh.relays[name])
                return
            case _:
                return
        self.mesh.steering[name].apply_table(self.tables[name], self.mesh.network.now)
        self.mesh.network.touch(self.mesh.relays[name])
