"""A whole mesh on one virtual clock: relays under one or two controllers, a publisher, and viewers who are placed.

Real here: QUIC on every path, proofs, links and their measuring, MoQT, forwarding, route tables and their signatures,
the plane, its store, placement answers. Not here: HTTP between viewers and `/v1/place` (the answer is taken from the
same objects), sockets, trio, processor time. Everything that is random is thrown from the scene's seed, except what
TLS throws for itself, which moves no event in time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from relay.access import Access
from relay.conversation import Papers
from relay.helm import Helm
from relay.links.states import LinkChange
from relay.node import NodeSettings
from relay.orders import Orders
from relay.placing import Placing
from relay.steering import Capacity, Readings, Steering
from tests.sim import pki
from tests.sim.control import ControlHost, ControlSocket
from tests.sim.mesh import MESH, Mesh, mesh_settings
from tests.sim.network import Network, Parcel, Weather
from tests.sim.relay import ANYBODY, Relay
from tests.sim.tokens import KEY, token
from tradewind.contract.admission import relay_signer
from tradewind.contract.messages import Hello, RouteTable
from tradewind.placing.answering import Placed, PlaceRequest
from tradewind.placing.locating import parse_address
from tradewind.quic.config import Address

RTTS_MS: Mapping[tuple[str, str], float] = {
    ("fra", "hkg"): 182.0,
    ("fra", "sin"): 158.0,
    ("hkg", "sin"): 37.0,
    ("fra", "iad"): 90.0,
    ("iad", "sin"): 222.0,
    ("hkg", "iad"): 205.0,
    ("fra", "lhr"): 16.0,
    ("lhr", "sin"): 165.0,
    ("hkg", "lhr"): 190.0,
    ("iad", "lhr"): 77.0,
    ("bom", "fra"): 127.0,
    ("bom", "sin"): 61.0,
    ("hkg", "nrt"): 51.0,
    ("nrt", "sin"): 70.0,
}
"""There and back between clouds' regions, as published matrices of round trips have them, rounded."""
LOCAL_MS = 12.0
"""From a viewer to the nearest relay and back."""
WEATHER_LOSS = 0.002
CONTROL: Address = ("192.0.2.1", 443)
CAPACITY_BYTES_PER_S, CAPACITY_SESSIONS = 1e8, 1000


def rtt_ms(one: str, other: str) -> float:
    """Between two regions."""
    return LOCAL_MS if one == other else RTTS_MS[min(one, other), max(one, other)]


class SceneRelay(Relay):
    """A relay with a control link. `clock_s`: what its clocks show more than the world's."""

    def __init__(
        self, settings: NodeSettings | None = None, access: Access = ANYBODY, *, addresses: Sequence[Address] = ()
    ) -> None:
        super().__init__(settings, access, addresses=addresses)
        self.checks = False
        self.clock_s = 0.0
        self.wall_step_s = 0.0
        self.control: ControlSocket | None = None
        self.placing: Placing | None = None
        self.changes: list[LinkChange] = []
        """Verdicts on links, of this life."""

    def receive(self, address: Address, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        super().receive(address, batch, now + self.clock_s, self.wall(wall_now))

    def next_deadline(self) -> float | None:
        due = super().next_deadline()
        return None if due is None else due - self.clock_s

    def handle_deadline(self, now: float, wall_now: float) -> None:
        super().handle_deadline(now + self.clock_s, self.wall(wall_now))

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        output = super().take_output(now + self.clock_s)
        mesh = self.node.mesh
        if mesh is not None and mesh.changes:
            self.changes += [change._replace(at=change.at - self.clock_s) for change in mesh.changes]
            mesh.changes.clear()
            if self.control is not None:
                self.control.helm.report_now()
                self.control.network.touch(self.control)
        if self.node.forwarder.take_moves() and self.control is not None:
            self.control.helm.report_soon(now)
            self.control.network.touch(self.control)
        return output

    def wall(self, wall_now: float) -> float:
        """Its own wall clock."""
        return wall_now + self.clock_s + self.wall_step_s


class SkewedSocket(ControlSocket):
    """A control link by the clocks of its relay."""

    relay: SceneRelay | None = None

    def _take(self, events: Any, now: float, wall_now: float) -> None:
        assert self.relay is not None
        super()._take(events, now, self.relay.wall(wall_now))


class Scene(Mesh):
    """Relays named "region-number", and controllers `names` that share a store where they are more than one.

    It begins once every relay has a table with everybody in it and its links are up.
    """

    relay_class = SceneRelay

    def __init__(
        self,
        names: Sequence[str] = ("fra-1", "hkg-1", "sin-1"),
        *,
        controllers: Sequence[str] = ("main",),
        store: Path = Path(":memory:"),
        seed: int = 1,
        loss: float = WEATHER_LOSS,
        settle_s: float = 12.0,
        **plane: Any,
    ) -> None:
        self.seed = seed
        self.dice = Random(f"scene {seed}")
        self.loss = loss
        self.lives = dict.fromkeys(names, 0)
        self.begun: list[tuple[float, str]] = []
        self._trace: list[str] = []
        paths = {
            (one, other): self.fair(self.region(one), self.region(other))
            for one in names
            for other in names
            if one < other
        }
        super().__init__(names, [], weather=Weather(delay_s=0.030), seed=seed, measured=True, paths=paths)
        self.controllers = {
            name: ControlHost(self.network, MESH, name, (f"192.0.2.{number}", 443), store, **plane)
            for number, name in enumerate(controllers, 1)
        }
        for controller in self.controllers.values():
            controller.start()
        for name in names:
            self._attach(name)
        self.run(settle_s)

    # --- Relays ---

    def region(self, name: str) -> str:
        return name.partition("-")[0]

    def fair(self, one: str, other: str) -> Weather:
        """The way between two regions when nothing is wrong with it."""
        return Weather(delay_s=rtt_ms(one, other) / 2000, loss=self.loss)

    def relay(self, name: str) -> SceneRelay:
        found = self.relays[name]
        assert isinstance(found, SceneRelay)
        return found

    def control(self, name: str) -> ControlSocket:
        """A relay's control link."""
        found = self.relay(name).control
        assert found is not None
        return found

    def table(self, name: str) -> RouteTable:
        """What a relay follows."""
        found = self.control(name).helm.orders.table
        assert found is not None, f"{name} has no table"
        return found

    def is_alive(self, name: str) -> bool:
        return self.address(name) in self.network.hosts

    def kill(self, name: str) -> None:
        """A relay is gone without a word; its disk stays."""
        super().kill(name)
        self.network.remove(self.control(name))

    def restart(self, name: str, disk: bytes | None = None) -> None:
        """Another process of a relay that was killed, with its disk, or with what a test puts there."""
        dead = self.relay(name)
        saved = self.control(name).disk if disk is None else disk
        self.lives[name] += 1
        fresh = self.relays[name] = SceneRelay(dead.node.settings, addresses=dead.addresses)
        fresh.node.join_mesh(mesh_settings(name, self.region(name), f"{self.seed} {self.lives[name]}"))
        self.network.add(fresh)
        self._attach(name, saved)

    def twin(self, name: str, address: Address) -> SceneRelay:
        """Another relay with the certificate of one that lives; nobody was told of its address."""
        first = self.relay(name)
        made = SceneRelay(first.node.settings, addresses=[address])
        made.node.join_mesh(mesh_settings(name, self.region(name), f"{self.seed} twin"))
        self.network.add(made)
        made.control = self._socket(name, made, f"{self.seed} twin", None)
        return made

    def weather_of(self, source: str, target: str, **changes: Any) -> None:
        """From now on one direction between two relays is like this, and fair otherwise."""
        fair = self.fair(self.region(source), self.region(target))
        values = {"delay_s": fair.delay_s, "loss": fair.loss, **changes}
        self.weather(source, target, Weather(**values))

    def link_changes(self, name: str) -> list[LinkChange]:
        return self.relay(name).changes

    # --- Controllers ---

    def controller(self, name: str = "main") -> ControlHost:
        return self.controllers[name]

    def alarms(self) -> list[str]:
        """Kinds of all alarms that controllers raised."""
        return [kind for controller in self.controllers.values() for _, kind, _ in controller.alarms]

    # --- Viewers ---

    def place(self, address: Address, near: str, failed: Sequence[str] = ()) -> tuple[str, ...]:
        """Where a viewer may go, best first: a controller's answer, or else that of any relay."""
        jwt = token(get=("",), subject=str(address[0]))
        rtts = tuple((name, rtt_ms(near, self.region(name))) for name in self.relays)[:8]
        now, wall_now = self.network.now, self.network.wall_now
        for controller in self.controllers.values():
            if controller.is_alive:
                asked = PlaceRequest("demo", jwt, parse_address(str(address[0])), failed=tuple(failed), rtts_ms=rtts)
                answer = controller.plane.placement.answer(asked, now, wall_now)
                if isinstance(answer, Placed):
                    return answer.relays
        told = ",".join(f"{name}:{value:g}" for name, value in rtts)
        query = f"namespace=demo&jwt={jwt}&rtt={told}" + (f"&failed={','.join(failed)}" if failed else "")
        for name in sorted(self.relays, key=lambda name: rtt_ms(near, self.region(name))):
            placing = self.relay(name).placing
            if self.is_alive(name) and placing is not None:
                answer = placing.answer(query, str(address[0]), None, now, wall_now)
                if isinstance(answer, Placed):
                    return answer.relays
        return ()

    def next_address(self, near: str) -> Address:
        """Of a new client in a region: the ways between it and every relay are as from there."""
        self._clients += 1
        address: Address = (f"203.0.113.{self._clients}", 1000 + self._clients)
        for name, relay in self.relays.items():
            delay_s = rtt_ms(near, self.region(name)) / 2000
            self.network.set_weather(address, relay.addresses[0], Weather(delay_s=delay_s), both=True)
        return address

    # --- What is written down ---

    def note(self, *what: object) -> None:
        """A line of the trace."""
        self._trace.append(f"{self.network.now:.6f} {' '.join(map(str, what))}")

    def trace_hash(self) -> str:
        """Of everything noted, every verdict on links, and what controllers saw."""
        lines = list(self._trace)
        for name in sorted(self.relays):
            lines += [
                f"{c.at:.6f} {name} {c.neighbour} {c.direction.value} {c.new.value}" for c in self.link_changes(name)
            ]
        for controller in self.controllers.values():
            if controller.is_alive:
                lines += [
                    f"{line.at_wall:.6f} {line.kind} {line.relay} {line.other}"
                    for line in controller.plane.events.after(0, 10_000)
                ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    # --- Private ---

    def _attach(self, name: str, disk: bytes | None = None) -> None:
        relay = self.relay(name)
        relay.control = self._socket(name, relay, f"{self.seed} {self.lives[name]}", disk)

    def _socket(self, name: str, relay: SceneRelay, life: str, disk: bytes | None) -> ControlSocket:
        node, network = relay.node, self.network
        address = relay.addresses[0]
        seed = f"{name} {life}".encode().ljust(32, b".")[:32]
        placing = relay.placing = Placing(name, relay_signer(name, seed), [KEY], carried=node.forwarder.carried)
        hello = Hello(
            boot=mesh_settings(name, self.region(name), life).boot,
            uri=f"https://{name}.test",
            address=(str(address[0]), int(address[1])),
            software="sim",
            generation=0,
            capacity_bytes_per_s=CAPACITY_BYTES_PER_S,
            capacity_sessions=CAPACITY_SESSIONS,
            placement_key=placing.announced,
        )
        own = pki.credentials(MESH, name, self.region(name))
        steering = Steering(
            node, placing, Capacity(CAPACITY_BYTES_PER_S, CAPACITY_SESSIONS), lambda: Readings(0.0, 0.0)
        )
        helm = Helm(hello, Orders(MESH, name, own.authority), steering)
        if disk is not None:
            helm.restore(disk, network.now)
        socket = SkewedSocket(
            network,
            (str(address[0]), 5443),
            Papers(own.authority, own.certificate, own.key),
            helm,
            [controller.addresses[0] for controller in self.controllers.values()],
            Random(f"{life} {name} dialling"),
            lambda: network.touch(relay),
        )
        socket.relay, socket.disk = relay, disk
        network.touch(relay)
        return socket


def everybody(scene: Scene) -> Iterable[str]:
    """Relays that live."""
    return [name for name in scene.relays if scene.is_alive(name)]


__all__ = ["Network", "Scene", "SceneRelay", "everybody"]
