"""A region of many relays far from an origin, with the tables that a controller would give them.

Sessions and forwarding are real; what is known of links comes from the test, so that twelve relays cost little.
"""

from __future__ import annotations

from collections.abc import Collection

from control.topology.planner import Topology, TopologySettings
from control.topology.tables import Shared
from control.topology.trees import TreeSettings
from relay.mesh.mesh import near, positions
from tests.control.mesh import Mesh as Reports
from tests.sim.client import TRACK, Client
from tests.sim.mesh import MESH, Mesh
from tests.sim.network import Weather
from tests.sim.scene import RTTS_MS
from tradewind.contract.messages import RouteTable

ORIGIN, OTHER = "hkg-1", "sin-1"
NEAR_RTT_MS = 1.0


def region_of(name: str) -> str:
    return name.partition("-")[0]


def rtt_ms(one: str, other: str) -> float:
    ends = sorted((region_of(one), region_of(other)))
    return NEAR_RTT_MS if ends[0] == ends[1] else RTTS_MS[ends[0], ends[1]]


class Region(Mesh):
    """Relays fra-1, fra-2 and so on, an origin in Hong Kong, and a relay in Singapore beside the way."""

    def __init__(self, size: int, *, trees: bool = True) -> None:
        self.members = [f"fra-{number}" for number in range(1, size + 1)]
        names = [*self.members, ORIGIN, OTHER]
        ways = {
            (one, other): Weather(delay_s=rtt_ms(one, other) / 2000) for one in names for other in names if one < other
        }
        super().__init__(names, paths=ways)
        for relay in self.relays.values():
            relay.checks = False
        self._trees = TreeSettings() if trees else TreeSettings(smallest=10**6)
        self.tables: dict[str, RouteTable] = {}
        self.tell()

    def tell(self, *but: str, draining: Collection[str] = ()) -> None:
        """Everybody gets a table by a controller that knows all relays but these."""
        regions = {name: region_of(name) for name in self.relays if name not in but}
        reports = Reports(regions)
        for one in regions:
            for other in regions:
                if one != other:
                    reports.rtt_ms[one, other] = rtt_ms(one, other)
        reports.stage.update(dict.fromkeys(draining, "draining"))
        topology = Topology(MESH, TopologySettings(trees=self._trees))
        topology.receive([*reports.findings, *reports.run(0.5)], reports.now)
        due = topology.next_deadline()
        assert due is not None
        topology.handle_deadline(reports.registry, Shared(term=1), max(due, reports.now), 1e9)
        for name in regions:
            made = topology.tables(name)
            assert made is not None
            self.take(name, made.now)

    def take(self, name: str, table: RouteTable) -> None:
        """A relay follows a table."""
        self.tables[name] = table
        self.node(name).forwarder.apply_positions(positions(table), self.network.now, near(table))
        self.network.touch(self.relays[name])

    def heads(self, origin: str = ORIGIN) -> set[str]:
        """Who of the region is told to take from outside it."""
        found = set()
        for name in self.members:
            for route in self.tables[name].routes:
                if route.origin == origin and region_of(route.candidates[0].next_hop) != "fra":
                    found.add(name)
        return found

    def watch(self, *at: str) -> dict[str, tuple[Client, int]]:
        """A viewer at each of these relays, or at every one of the region: its request with it."""
        found = {}
        for name in at or self.members:
            viewer = self.client(name)
            found[name] = (viewer, viewer.subscribe())
        return found

    def copies(self, origin: str = ORIGIN) -> int:
        """How many neighbours the origin sends the track."""
        track = self.node(origin).forwarder._book.tracks[TRACK]
        return len({party.session for party in track.subscriptions})
