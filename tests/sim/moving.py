"""A mesh whose relays place viewers and are drained, and clients that follow GOAWAY make before break.

`Placed` is a measured `Mesh` in which every relay wants placement tokens; `tell` gives all of them tables as a
controller would. A `Follower` watches one track over as many sessions as it takes; a `Source` publishes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from relay.access import Access, AccessSettings, Placement
from relay.placing import Placing
from relay.steering import Capacity, Readings, Steering
from tests.sim.client import TRACK, Client, Outflow, Served
from tests.sim.mesh import MESH, REGION, Mesh
from tests.sim.tokens import KEY, token
from tradewind.contract.admission import Signer, mint_admission, relay_signer, viewer_digest
from tradewind.contract.messages import Candidate, Command, RelayEntry, Route, RouteTable
from tradewind.moqt import events as e
from tradewind.moqt.model import Location
from tradewind.quic.config import Address

SESSIONS = 1000
"""That one relay can take."""
PERIOD_S = 0.08
"""Between two objects of a source."""
OBJECTS = 10
"""In a group."""


class Placed(Mesh):
    """Relays that place, want to be placed at, and measure each other."""

    def __init__(
        self, names: Sequence[str], links: Sequence[tuple[str, str]] | None = None, *, checks: bool = True, **how: Any
    ) -> None:
        super().__init__(names, links, measured=True, **how)
        self.pairs = {frozenset(pair) for pair in links} if links is not None else None
        for relay in self.relays.values():
            relay.checks = checks
        self.generation = 0
        self.signers: dict[str, Signer] = {}
        self.steering: dict[str, Steering] = {}
        for number, name in enumerate(names):
            node, signing = self.node(name), relay_signer(name, bytes([number + 1]) * 32)
            self.signers[name] = signing
            node.replace_access(Access((KEY,), AccessSettings(placement=Placement.REQUIRED, relay=name)))
            node.departures.placing = Placing(name, signing, [KEY])
            self.steering[name] = Steering(
                node, node.departures.placing, Capacity(1e9, SESSIONS), lambda: Readings(0.0, 0.0)
            )
        self.run(3.0)
        self.tell()

    def uri(self, name: str) -> str:
        host, port = self.address(name)[:2]
        return f"https://{host}:{port}"

    def entry(self, name: str) -> RelayEntry:
        node = self.node(name)
        here = len([one for one in node.attachments.values() if one.neighbour is None])
        address = self.address(name)
        key = self.signers[name].key.public_key().public_bytes_raw()
        return RelayEntry(
            name, REGION, self.uri(name), (str(address[0]), address[1]), node.stage_name,
            here / SESSIONS, SESSIONS - here, placement_key=key,
        )  # fmt: skip

    def tell(self, *names: str) -> None:
        """Give these relays, or all, a table of the mesh as it is: who drains is no next hop."""
        self.generation += 1
        entries = tuple(self.entry(name) for name in self.relays if self.address(name) in self.network.hosts)
        serving = [entry.id for entry in entries if entry.stage == "serving"]
        for name in names or [entry.id for entry in entries]:
            others = [
                entry.id
                for entry in entries
                if entry.id != name and (self.pairs is None or {name, entry.id} in self.pairs)
            ]
            routes = tuple(
                Route(
                    origin,
                    tuple(
                        Candidate(hop, () if hop == origin else (origin,))
                        for hop in sorted(others, key=lambda hop: hop != origin)
                        if hop == origin or hop in serving
                    )[:3],
                )
                for origin in (entry.id for entry in entries if entry.id != name)
            )
            table = RouteTable(
                MESH, name, 1, self.generation, self.network.wall_now, tuple(others), entries, routes
            )  # fmt: skip
            self.steering[name].apply_table(table, self.network.now)
            self.network.touch(self.relays[name])

    def order(self, name: str, action: Any, deadline_s: float = 0.0) -> None:
        """An operator's order reaches a relay."""
        self.generation += 1
        done = self.steering[name].obey(Command(f"{self.generation}", action, deadline_s), self.network.now)
        assert done is not None and done.ok
        self.network.touch(self.relays[name])

    def dial(self, name: str, access: str, *, by_setup: bool = False, draft: int = 20, **how: Any) -> Client:
        """A client that somebody has placed on a relay, with its access token in the query or in SETUP."""
        placed = mint_admission(self.signers[name], viewer_digest(access), "", [name], self.network.wall_now)
        query = f"place={placed}" if by_setup else f"jwt={access}&place={placed}"
        tokens = (access,) if by_setup else ()
        return self.client(name, draft, path=f"/?{query}", tokens=tokens, **how)

    def reached(self, uri: str) -> tuple[Address, str]:
        """Where a URI leads: address, and path with query."""
        parts = urlsplit(uri)
        assert parts.hostname is not None and parts.port is not None
        return (parts.hostname, parts.port), f"{parts.path}?{parts.query}"

    def named(self, address: Address) -> str:
        return next(name for name in self.relays if self.address(name)[:2] == address[:2])


class Moving:
    """A party with a session that moves when it is asked to: dials the URI, and leaves once that works."""

    def __init__(self, mesh: Placed, client: Client, *, by_setup: str = "", follows: bool = True) -> None:
        self.mesh = mesh
        self.sessions = [client]
        self.uris: list[str] = []
        self.follows = follows
        self._tokens = (by_setup,) if by_setup else ()
        self._watch(client)

    @property
    def client(self) -> Client:
        return self.sessions[-1]

    @property
    def at(self) -> str:
        """The relay that it is on."""
        return self.mesh.named(self.client.connection.peer_address)

    def begun(self) -> None:
        """The newest session is open."""
        raise NotImplementedError

    def heard(self, client: Client, event: e.Event) -> None:
        """Something was said on a session that is open."""
        raise NotImplementedError

    def _watch(self, client: Client) -> None:
        def take(event: e.Event) -> None:
            match event:
                case e.SetupReceived():
                    self.begun()
                case e.GoawayReceived(request=None):
                    self._asked(event.uri)
                case _:
                    self.heard(client, event)

        client.on_event = take

    def _asked(self, uri: str) -> None:
        self.uris.append(uri)
        if not self.follows or not uri:
            return
        old = self.client
        webtransport = old.connection.transport == "webtransport"
        assert urlsplit(uri).scheme == ("https" if webtransport else "moqt")
        address, path = self.mesh.reached(uri)
        self.mesh._clients += 1
        own = (f"203.0.113.{self.mesh._clients % 250}", 2000 + self.mesh._clients)
        new = Client(
            self.mesh.network, own, relay=address, draft=int(old.connection.protocol.rpartition("-")[2]),
            path=path, tokens=self._tokens, webtransport=webtransport,
        )  # fmt: skip
        self.sessions.append(new)
        self._watch(new)


class Follower(Moving):
    """A viewer of one track."""

    def __init__(self, mesh: Placed, client: Client, **how: Any) -> None:
        self.objects: dict[Location, float] = {}
        """When each came first."""
        self.requests: dict[Client, int] = {}
        super().__init__(mesh, client, **how)
        self.begun()

    def begun(self) -> None:
        self.requests[self.client] = self.client.subscribe()

    def heard(self, client: Client, event: e.Event) -> None:
        request = self.requests.get(client)
        if request is None:
            return
        for at, found in client.arrivals.get(request, ()):
            self.objects.setdefault(found.location, at)
        if client is self.client and client.arrivals.get(request):
            for old in self.sessions[:-1]:
                if old.is_open:
                    old.close(0, "moved")

    def gaps(self, since: float = 0.0) -> list[float]:
        times = sorted(at for at in self.objects.values() if at >= since)
        return [later - earlier for earlier, later in pairwise(times)]


class Source(Moving):
    """A publisher of one track, in real time, on every session that somebody reads it on."""

    def __init__(self, mesh: Placed, client: Client, **how: Any) -> None:
        self.served: dict[Client, Served] = {}
        self.flows: dict[Client, Outflow] = {}
        self.sent: list[Location] = []
        super().__init__(mesh, client, **how)
        self.begun()

    def begun(self) -> None:
        self.served[self.client] = self.client.serve(TRACK, largest=self.sent[-1] if self.sent else None)
        self.client.announce(TRACK.namespace)

    def heard(self, client: Client, event: e.Event) -> None:
        if isinstance(event, e.RequestCancelled) and client in self.served:
            served = self.served[client]
            served.feeds = [feed for feed in served.feeds if feed.request != event.request]
        for old in self.sessions[:-1]:
            if old.is_open and not self.served[old].feeds and len(self.sessions) > 1 and self.client.is_open:
                old.close(0, "moved")

    def send(self) -> None:
        """The next object: on streams of its own group, begun where a session comes to it."""
        number = len(self.sent)
        location = Location(number // OBJECTS, number % OBJECTS)
        self.sent.append(location)
        for client, served in self.served.items():
            if not client.is_open or not served.feeds:
                self.flows.pop(client, None)
                continue
            flow = self.flows.get(client)
            if flow is None or flow.header.group != location.group:
                flow = self.flows[client] = served.open(location.group, first_object=location.object == 0)
            flow.object(location.object, b"%d.%d" % location * 50)
            if location.object == OBJECTS - 1:
                flow.fin()

    def stream(self, seconds: float, told: bool = True) -> None:
        """Send in real time; `told`: a controller gives everybody tables once a second."""
        for number in range(round(seconds / PERIOD_S)):
            self.send()
            self.mesh.run(PERIOD_S)
            if told and number % round(1.0 / PERIOD_S) == 0:
                self.mesh.tell()


def reader() -> str:
    return token("", get=[""])


def writer() -> str:
    return token("", put=["demo"], get=[""])
