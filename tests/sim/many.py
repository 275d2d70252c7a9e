"""Many tracks through one neighbour session: an origin, a relay that reads all of it from there, and a second way.

`Many` is three relays that measure each other, publishers at the origin and viewers at the edge; each track has one
viewer. What a tick sends is alike however many tracks there are: one object of each of 20 tracks, which take turns.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.sim.client import Client, Outflow, Served
from tests.sim.mesh import MESH, Mesh
from tests.sim.network import BLACKOUT, Weather
from tradewind.contract.messages import Candidate, RelayEntry, Route, RouteTable
from tradewind.moqt.model import FullTrackName, Location

ORIGIN, EDGE, OTHER = "origin-1", "edge-1", "other-1"
PARTIES = 40
"""Publishers' sessions at the origin, and as many viewers at the edge."""
PER_NAMESPACE = 4
AT_ONCE = 20
"""Objects in a tick."""
TICK_S = 0.01
OBJECTS = 10
"""In a group."""
PAYLOAD = b"x" * 200
FAIR = Weather(delay_s=0.02)


@dataclass(slots=True)
class Line:
    """One track, from its publisher to its viewer."""

    served: Served
    viewer: Client
    request: int = -1
    sent: int = 0
    flow: Outflow | None = None
    seen: int = 0
    """Objects that have come, all in order."""


class Many(Mesh):
    """`tracks` of them, established at the edge over its session with the origin alone."""

    def __init__(self, tracks: int, **how: Any) -> None:
        super().__init__((ORIGIN, EDGE, OTHER), weather=FAIR, measured=True, **how)
        for relay in self.relays.values():
            relay.checks = False
        for name in (EDGE, OTHER):
            self._follow(name)
        self.run(1.0)
        self._publish(tracks)
        self.subscribe()
        self._turn = 0

    # --- What happens ---

    def subscribe(self) -> None:
        """Every viewer asks for its tracks, and has been answered."""
        for line in self.lines:
            line.request = line.viewer.subscribe(line.served.track)
        self.until(lambda: all(line.served.feeds for line in self.lines), 20.0)
        self.run(0.5)

    def tick(self) -> None:
        """One object of each of the tracks whose turn it is."""
        for _ in range(AT_ONCE):
            self._send(self.lines[self._turn % len(self.lines)])
            self._turn += 1
        self.run(TICK_S)

    def stream(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.tick()
        self.collect()

    def burst(self) -> None:
        """One object of every track at once: all groups begin and end together."""
        for line in self.lines:
            self._send(line)
        self._turn = 0
        self.run(TICK_S)

    def fail(self, weather: Weather = BLACKOUT) -> None:
        """From now on the way from the origin to the edge is like this."""
        self.weather(ORIGIN, EDGE, weather)

    def collect(self) -> None:
        """Look at what came: each object once, whole, and in its order."""
        for line in self.lines:
            for _, found in line.viewer.arrivals.pop(line.request, ()):
                assert found.location == _location(line.seen), f"{line.served.track}: {found.location} at {line.seen}"
                assert found.payload == PAYLOAD
                line.seen += 1
        for client in {id(line.viewer): line.viewer for line in self.lines}.values():
            client.events.clear()
            client.connection_events.clear()

    # --- What there is ---

    def fed_by(self) -> Counter[str]:
        """How many tracks come to the edge from whom; from two while they move."""
        node = self.node(EDGE)
        names = [node.name_of(party.session) for one in node.forwarder._book.tracks.values() for party in one.sources]
        return Counter(names)

    @property
    def missing(self) -> int:
        """Objects that were sent and have not come."""
        return sum(line.sent - line.seen for line in self.lines)

    # --- Private ---

    def _follow(self, at: str) -> None:
        """A table by which the origin itself comes first, and a third relay second."""
        node = self.node(at)
        assert node.mesh is not None
        others = [name for name in self.relays if name != at]
        relays = tuple(
            RelayEntry(name, "r", f"https://{name}", (str(self.address(name)[0]), 4443), "serving", 0.0, 100)
            for name in self.relays
        )
        route = Route(ORIGIN, tuple(Candidate(name) for name in others))
        table = RouteTable(MESH, at, 1, 1, self.network.wall_now, tuple(others), relays, (route,))
        node.mesh.apply_table(table, self.network.now)
        self.network.touch(self.relays[at])

    def _publish(self, tracks: int) -> None:
        publishers = [self.client(ORIGIN) for _ in range(PARTIES)]
        viewers = [self.client(EDGE) for _ in range(PARTIES)]
        self.lines: list[Line] = []
        for number in range(tracks):
            name, track = divmod(number, PER_NAMESPACE)
            publisher = publishers[name % PARTIES]
            namespace = (b"shop", b"%05d" % name)
            served = publisher.serve(FullTrackName(namespace, b"%d" % track))
            served.alias = 100 + number
            if track == 0:
                publisher.announce(namespace)
            self.lines.append(Line(served, viewers[number % PARTIES]))
        self.run(2.0)

    def _send(self, line: Line) -> None:
        location = _location(line.sent)
        line.sent += 1
        if location.object == 0:
            if line.flow is not None:
                line.flow.fin()
            line.flow = line.served.open(location.group)
        assert line.flow is not None
        line.flow.object(location.object, PAYLOAD)


def _location(number: int) -> Location:
    return Location(*divmod(number, OBJECTS))
