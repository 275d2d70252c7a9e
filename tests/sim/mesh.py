"""Several relays of one mesh on one virtual network: a map of who is whose neighbour, and clients around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from relay.forwarding.book import ForwardingSettings, Standing
from relay.links.link import Link
from relay.links.states import LinkChange
from relay.mesh.mesh import PRIVATE_NAMES, MeshSettings
from relay.neighbour import Neighbour
from relay.node import Node
from tests.sim import pki
from tests.sim.certificate import CERTIFICATE, SHA256
from tests.sim.client import TRACK, Client, Served
from tests.sim.network import CLEAR, Network, Weather
from tests.sim.relay import Relay, node_settings, quic_settings
from tradewind.contract.ids import hop_id
from tradewind.contract.messages import RelayEntry, RouteTable
from tradewind.moqt.model import FullTrackName, Properties
from tradewind.moqt.profiles import NEIGHBOUR
from tradewind.quic.config import Address, Limits, PrivateProtocols, QuicSettings, ServerTrust

MESH = "sim"
REGION = "somewhere"
PRIVATE = PrivateProtocols((NEIGHBOUR.name,), CERTIFICATE)
DIALLING = QuicSettings(protocols=(NEIGHBOUR.name,), trust=ServerTrust(pinned_sha256=SHA256), keep_alive_s=5.0)


def hop(name: str) -> int:
    return hop_id(MESH, name)


class Mesh:
    """Relays by name. `links` says who is whose neighbour; the first of a pair dials the other.

    With `measured` they prove who they are to each other and measure their links, as relays do; without, they have
    sessions and hear of links from the test alone.
    """

    relay_class: type[Relay] = Relay

    def __init__(
        self,
        names: Sequence[str],
        links: Sequence[tuple[str, str]] | None = None,
        *,
        weather: Weather = CLEAR,
        seed: int = 1,
        measured: bool = False,
        paths: Mapping[tuple[str, str], Weather] | None = None,
        **forwarding: Any,
    ) -> None:
        """`paths` are between two relays, alike in both directions; of others it is `weather`."""
        self.network = Network(seed=seed, weather=weather)
        self.relays: dict[str, Relay] = {}
        self._clients = 0
        for number, name in enumerate(names, 1):
            settings = node_settings(
                quic=quic_settings(private=_private(name, self.region(name)) if measured else PRIVATE),
                forwarding=ForwardingSettings(hop=hop(name), **forwarding),
            )
            self.relays[name] = self.relay_class(settings, addresses=[(f"198.51.100.{number}", 4443)])
            if measured:
                self.relays[name].node.join_mesh(mesh_settings(name, self.region(name), seed))
            self.network.add(self.relays[name])
        for (one, other), found in (paths or {}).items():
            self.network.set_weather(self.address(one), self.address(other), found, both=True)
        pairs = links if links is not None else [(a, b) for a in names for b in names if a < b]
        if measured:
            for name in names:
                self.set_neighbours(name, [a if b == name else b for a, b in pairs if name in (a, b)])
        else:
            for pair in pairs:
                self.join(*pair)
        self.run(2.0 if measured else 1.0)

    def node(self, name: str) -> Node:
        return self.relays[name].node

    def region(self, name: str) -> str:
        """Where a relay's certificate says that it is."""
        return REGION

    def address(self, name: str) -> Address:
        return self.relays[name].addresses[0]

    def join(self, dials: str, dialled: str) -> None:
        """Two relays become neighbours."""
        ticket = f"{dials} to {dialled}".encode().ljust(32, b".")
        self.node(dialled).tickets[ticket] = Neighbour(dials, hop(dials))
        neighbour = Neighbour(dialled, hop(dialled), ticket)
        self.node(dials).dial(neighbour, self.address(dialled), dialled, self.network.now, DIALLING)
        self.network.touch(self.relays[dials])

    def set_neighbours(self, name: str, others: Sequence[str]) -> None:
        """A relay measures these."""
        mesh = self.node(name).mesh
        assert mesh is not None
        mesh.set_neighbours({other: self.address(other) for other in others}, self.network.now)
        self.network.touch(self.relays[name])

    def follow(self, at: str, neighbours: Sequence[str]) -> None:
        """A relay is given a table that names these neighbours, and no routes."""
        node = self.node(at)
        assert node.mesh is not None
        relays = tuple(
            RelayEntry(name, REGION, f"https://{name}", (str(self.address(name)[0]), 4443), "serving", 0.0, 100)
            for name in self.relays
        )
        table = RouteTable(MESH, at, 1, 1, self.network.wall_now, tuple(neighbours), relays, ())
        node.mesh.apply_table(table, self.network.now)
        self.network.touch(self.relays[at])

    def link(self, at: str, to: str) -> Link:
        """One relay's end of a link."""
        mesh = self.node(at).mesh
        assert mesh is not None
        found = mesh.neighbours.get(to)
        assert found is not None
        return found

    def verdicts(self, at: str) -> list[LinkChange]:
        """What a relay found of its links since the last call."""
        mesh = self.node(at).mesh
        assert mesh is not None
        found, mesh.changes = mesh.changes, []
        return found

    def session(self, at: str, to: str) -> int:
        """The session that one relay has with another."""
        found = [
            number
            for number, attachment in self.node(at).attachments.items()
            if attachment.neighbour is not None and attachment.neighbour.id == to
        ]
        assert found, f"{at} has no session with {to}"
        return found[-1]

    def grade(self, at: str, neighbour: str, standing: Standing) -> None:
        """What one relay makes of the link from a neighbour to it."""
        node = self.node(at)
        node.forwarder.grade_neighbour(self.session(at, neighbour), standing, self.network.now)
        self.network.touch(self.relays[at])

    def prefer(self, at: str, origins: Mapping[str, Sequence[str]]) -> None:
        """A route table: origin -> next hops in order."""
        positions = {
            (hop(origin), hop(name)): place for origin, names in origins.items() for place, name in enumerate(names)
        }
        self.node(at).forwarder.apply_positions(positions, self.network.now)
        self.network.touch(self.relays[at])

    def weather(self, source: str, target: str, weather: Weather) -> None:
        """From now on datagrams from one relay to another meet this."""
        self.network.set_weather(self.address(source), self.address(target), weather)

    def kill(self, name: str) -> None:
        """A relay is gone without a word."""
        self.network.remove(self.relays[name])

    def client(self, at: str, draft: int = 20, **how: Any) -> Client:
        """A client whose session with a relay is open."""
        self._clients += 1
        address = how.pop("address", None) or (f"203.0.113.{self._clients}", 1000 + self._clients)
        client = Client(self.network, address, relay=self.address(at), draft=draft, **how)
        self.network.until(lambda: client.is_open or client.closed is not None)
        assert client.is_open, f"closed: {client.closed}"
        return client

    def publish(
        self, at: str, draft: int = 20, *, track: FullTrackName = TRACK, properties: Properties = ()
    ) -> tuple[Client, Served]:
        """A publisher at a relay that has announced its namespace and serves one track."""
        publisher = self.client(at, draft)
        served = publisher.serve(track, properties=properties)
        publisher.announce(track.namespace)
        self.run()
        return publisher, served

    def sources(self, at: str, track: FullTrackName = TRACK) -> set[str]:
        """Which neighbours feed a track at a relay."""
        node = self.node(at)
        found = node.forwarder._book.tracks.get(track)
        if found is None:
            return set()
        names = (node.attachments[party.session].neighbour for party in found.sources)
        return {name.id for name in names if name is not None}

    def run(self, seconds: float = 0.3) -> None:
        self.network.run(seconds)

    def until(self, condition: Any, within_s: float = 10.0) -> None:
        self.network.until(condition, within_s)


def _private(name: str, region: str) -> PrivateProtocols:
    return PrivateProtocols(PRIVATE_NAMES, pki.served(MESH, name, region))


def mesh_settings(name: str, region: str, life: object) -> MeshSettings:
    """A relay's place in the mesh; another `life` throws another boot."""
    dialling = QuicSettings(
        protocols=PRIVATE_NAMES,
        trust=ServerTrust(authorities_pem=pki.trusted(MESH)),
        limits=Limits(bidi_streams=4096, uni_streams=4096),
        keep_alive_s=5.0,
    )
    dice = Random(f"{life} {name}")
    credentials = pki.credentials(MESH, name, region)
    return MeshSettings(MESH, name, credentials, dialling, dice.randbytes(16), dice.randbytes)
