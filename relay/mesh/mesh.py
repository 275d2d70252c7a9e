"""The mesh as one relay lives in it: links to its neighbours, sessions over them, and the route table it follows.

`relay.node` owns one, gives it what happens on link connections and the time, and sends what it has to say. Of two
neighbours the one whose id comes first dials: a link connection, and once both have proven who they are and greeted,
the session that carries media. A link outlives its connections; a verdict on it goes to forwarding at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from relay.attachment import Attachment
from relay.forwarding.book import Standing
from relay.forwarding.forwarder import Forwarder
from relay.links.datagrams import PROTOCOL, LinkViolation
from relay.links.gaps import PacketGaps
from relay.links.link import Link
from relay.links.neighbours import Neighbours
from relay.links.settings import DEFAULTS, LinkSettings
from relay.links.states import LinkChange, State
from relay.mesh.meeting import REFUSALS, Credentials, Meeting
from relay.neighbour import Neighbour
from tradewind.contract.identity import server_name
from tradewind.contract.ids import hop_id
from tradewind.contract.messages import RouteTable
from tradewind.moqt.profiles import NEIGHBOUR
from tradewind.quic.config import Address, QuicSettings
from tradewind.quic.connection import Connection
from tradewind.quic.events import Closed, DatagramReceived, Event, Opened, StreamData

PRIVATE_NAMES = (NEIGHBOUR.name, PROTOCOL)
"""The protocols that only nodes of the mesh speak."""
RETRY_S, RETRY_MOST_S = 0.25, 5.0
"""A neighbour that cannot be reached is dialled again after so long, twice as long each time, up to the most."""
PROBE_LIFE_S = 0.25
REFUSED = 0x1
"""The error code of link connections."""
LOOK_S = 1.0
"""How often it is looked at which links carry media."""
TREE_OTHERS = 2
"""With so many others in its region controllers may have a relay bring them what lives elsewhere."""
STANDINGS = {
    State.UP: Standing.UP,
    State.SUSPECT: Standing.SUSPECT,
    State.PROBATION: Standing.PROBATION,
    State.BAD: Standing.BAD,
}


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """Who this relay is among its neighbours, and how it dials them."""

    name: str
    """Of the mesh."""
    id: str
    credentials: Credentials
    dialling: QuicSettings
    boot: bytes
    """16 bytes, thrown at every start."""
    random_bytes: Callable[[int], bytes]
    """For nonces and tickets."""
    links: LinkSettings = DEFAULTS


class Host(Protocol):
    """What the mesh asks of its node."""

    forwarder: Forwarder
    attachments: dict[int, Attachment]

    @property
    def tickets(self) -> dict[bytes, Neighbour]: ...

    def connect(self, address: Address, protocol: str, name: str, now: float, settings: QuicSettings) -> Connection: ...

    def dial(self, neighbour: Neighbour, address: Address, name: str, now: float, settings: QuicSettings) -> None: ...


@dataclass(slots=True, eq=False)
class Far:
    """One neighbour: where it is, and what we have with it."""

    id: str
    hop: int
    address: Address
    meeting: Meeting | None = None
    """The link's connection, dialled or accepted."""
    ticket: bytes = b""
    """Given to it for its session to us."""
    session: int | None = None
    standing: Standing = Standing.UP
    """What forwarding has been told of its link."""
    dialling: bool = False
    """A session of ours to it is on its way."""
    failures: int = 0
    retry_at: float | None = None
    gaps: PacketGaps = field(default_factory=PacketGaps)
    """Packets of its session."""
    connection: Connection | None = None
    bytes_seen: int = 0


@dataclass(slots=True)
class MeshStatistics:
    """Totals since the start."""

    links_refused: int = 0
    links_lost: int = 0
    changes: dict[tuple[str, str], int] = field(default_factory=dict)
    """By direction and new state."""


class Mesh:
    """The neighbours of one relay."""

    def __init__(self, settings: MeshSettings, host: Host) -> None:
        self.settings = settings
        self.hop = hop_id(settings.name, settings.id)
        self.neighbours = Neighbours(settings.boot, settings.links)
        self.statistics = MeshStatistics()
        self.table: RouteTable | None = None
        """The one that is followed."""
        self.changes: list[LinkChange] = []
        """Verdicts since the caller last emptied this."""
        self.silent: frozenset[str] = frozenset()
        """Neighbours from which nothing comes: they look dead from here."""
        self.leaving: frozenset[str] = frozenset()
        """Neighbours that say that they are being emptied."""
        self._host = host
        self._fars: dict[str, Far] = {}
        self._meetings: dict[Connection, Meeting] = {}
        self._dialled: dict[Connection, Far] = {}
        """Link connections of ours that are not open yet."""
        self._named: dict[str, Address] | None = None
        """Neighbours by the table; None: it is the settings that name them."""
        self._look_at = 0.0

    # --- Who the neighbours are ---

    def set_neighbours(self, spots: Mapping[str, Address], now: float) -> None:
        """Be neighbour of these, and of nobody else: id -> host and UDP port."""
        wanted = self.neighbours.set_neighbours([name for name in spots if name != self.settings.id], now)
        for name in wanted.removed:
            self._forget(self._fars.pop(name))
        for name in wanted.added:
            self._fars[name] = Far(name, hop_id(self.settings.name, name), spots[name], retry_at=now)
        for name, far in self._fars.items():
            far.address = spots[name]

    def apply_table(self, table: RouteTable, now: float) -> None:
        """Follow a route table that was verified: whom to measure, and the places of next hops."""
        self.table = table
        addresses = {entry.id: entry.address for entry in table.relays}
        hops = [candidate.next_hop for route in table.routes for candidate in route.candidates]
        names = [name for name in dict.fromkeys((*table.neighbours, *hops)) if name in addresses]
        self._named = {name: addresses[name] for name in names}
        self._keep_neighbours(now)
        self._host.forwarder.apply_positions(positions(table), now, near(table))

    # --- What happens ---

    def is_ours(self, connection: Connection) -> bool:
        """Whether events of a connection are for us."""
        return connection.protocol == PROTOCOL or connection in self._dialled

    def receive(self, event: Event, now: float, wall_now: float) -> None:
        """Something happened on a link's connection."""
        match event:
            case Opened():
                self._begin(event.connection, now, wall_now)
            case StreamData():
                self._hear(event, now)
            case DatagramReceived():
                meeting = self._meetings.get(event.connection)
                if meeting is not None and meeting.peer is not None:
                    try:
                        self.neighbours.receive_datagram(meeting.peer.id, event.data, now)
                    except LinkViolation as error:
                        self._refuse(event.connection, str(error))
            case Closed():
                self._end(event.connection, now)
            case _:
                pass

    def session_opened(self, attachment: Attachment, now: float) -> None:
        """A neighbour's session was let in: it begins with what is known of its link."""
        assert attachment.neighbour is not None
        far = self._fars.get(attachment.neighbour.id)
        if far is None:
            attachment.session.close(0, "not a neighbour")
            return
        far.session, far.dialling, far.failures = attachment.id, False, 0
        far.connection, far.gaps = attachment.connection, PacketGaps()
        far.bytes_seen = attachment.connection.bytes_received
        attachment.connection.watch_packets(far.gaps.add)
        link = self.neighbours.get(far.id)
        if link is not None:
            far.standing = _standing(link)
            self._host.forwarder.grade_neighbour(attachment.id, far.standing, now)
            self._host.forwarder.note_leaving(attachment.id, now, leaving=link.far_leaves)

    def session_ended(self, attachment: Attachment, now: float) -> None:
        """It is over; whoever dialled it dials again while the link is there."""
        assert attachment.neighbour is not None
        far = self._fars.get(attachment.neighbour.id)
        if far is not None and far.session in {None, attachment.id}:
            far.session, far.connection, far.dialling = None, None, False
            self._later(far, now)

    def dial_failed(self, neighbour: Neighbour, now: float) -> None:
        """A session that we dialled never opened."""
        far = self._fars.get(neighbour.id)
        if far is not None and far.session is None:
            far.dialling = False
            self._later(far, now)

    def note_lag(self, lag_s: float, now: float) -> None:
        """The event loop is so late: call it before what came in that time."""
        self.neighbours.note_lag(lag_s, now)

    # --- Time ---

    def next_deadline(self) -> float:
        due = self._look_at
        links = self.neighbours.next_deadline()
        if links is not None and links < due:
            due = links
        for far in self._fars.values():
            if far.retry_at is not None and far.retry_at < due:
                due = far.retry_at
        for meeting in self._meetings.values():
            proof = meeting.next_deadline()
            if proof is not None and proof < due:
                due = proof
        return due

    def handle_deadline(self, now: float) -> None:
        """Do what is due."""
        self._count_packets(now)
        self.neighbours.handle_deadline(now)
        for far in self._fars.values():
            if far.retry_at is not None and far.retry_at <= now:
                far.retry_at = None
                self._dial(far, now)
        for connection, meeting in tuple(self._meetings.items()):
            try:
                meeting.handle_deadline(now)
            except REFUSALS as error:
                self._refuse(connection, error.reason.value)
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look(now)
        self.act(now)

    def act(self, now: float) -> None:
        """Once a turn, after what came: tell forwarding of verdicts, and send probes and reports."""
        self._count_packets(now)
        changes = self.neighbours.take_changes()
        if changes:
            self.silent = frozenset(link.neighbour for link in self.neighbours.links() if link.is_silent)
        for change in changes:
            self.changes.append(change)
            key = (change.direction.value, change.new.value)
            self.statistics.changes[key] = self.statistics.changes.get(key, 0) + 1
        leaving = [link.neighbour for link in self.neighbours.links() if link.far_leaves]
        if leaving or self.leaving:
            self.leaving = frozenset(leaving)
        for far in self._fars.values():
            link = self.neighbours.get(far.id)
            if far.session is not None and link is not None:
                self._host.forwarder.note_leaving(far.session, now, leaving=link.far_leaves)
                standing = _standing(link)
                if standing is not far.standing:
                    far.standing = standing
                    self._host.forwarder.grade_neighbour(far.session, standing, now)
        for name, datagrams in self.neighbours.datagrams_to_send(now):
            meeting = self._fars[name].meeting
            if meeting is not None and meeting.peer is not None:
                for data in datagrams:
                    meeting.connection.datagram((data,), now + PROBE_LIFE_S)

    def check_invariants(self) -> None:
        self.neighbours.check_invariants()
        for name, far in self._fars.items():
            assert name in self.neighbours
            assert far.meeting is None or self._meetings[far.meeting.connection] is far.meeting
            assert far.session is None or far.session in self._host.attachments

    # --- Private ---

    def _keep_neighbours(self, now: float) -> None:
        """Be neighbour of whom the table names, and of those whose session is in use for as long as it is.

        A controller that has just begun knows few relays yet: nothing that runs stops for that.
        """
        assert self._named is not None
        used = {far.id: far.address for far in self._fars.values() if self._is_used(far)}
        self.set_neighbours({**used, **self._named}, now)

    def _is_used(self, far: Far) -> bool:
        return far.session is not None and any(self._host.forwarder.reads_and_feeds(far.session))

    def _dials(self, far: Far) -> bool:
        return self.settings.id < far.id

    def _dial(self, far: Far, now: float) -> None:
        """Whatever is missing, if it is ours to dial."""
        if not self._dials(far):
            return
        settings = self.settings
        name = server_name(settings.name, far.id)
        if far.meeting is None and far not in self._dialled.values():
            connection = self._host.connect(far.address, PROTOCOL, name, now, settings.dialling)
            self._dialled[connection] = far
        elif far.meeting is not None and far.meeting.greeting is not None and far.session is None and not far.dialling:
            far.dialling = True
            neighbour = Neighbour(far.id, far.hop, far.meeting.greeting.ticket)
            self._host.dial(neighbour, far.address, name, now, settings.dialling)

    def _later(self, far: Far, now: float) -> None:
        """Dial again after a while; ids keep those who lost the same neighbour from coming back all at once."""
        wait = min(RETRY_S * 2.0 ** min(far.failures, 16), RETRY_MOST_S)
        spread = 0.75 + (hop_id(self.settings.id, far.id) + far.failures) % 64 / 128
        far.failures += 1
        far.retry_at = now + wait * spread

    def _begin(self, connection: Connection, now: float, wall_now: float) -> None:
        far = self._dialled.pop(connection, None)
        credentials = self.settings.credentials
        try:
            if far is not None:
                meeting = Meeting.dialled(connection, credentials, far.id, now, wall_now)
                far.meeting = meeting
            else:
                nonce = self.settings.random_bytes(32)
                meeting = Meeting.accepted(connection, credentials, nonce, now, wall_now)
        except REFUSALS as error:
            self._refuse(connection, error.reason.value)
            return
        connection.measure_only()
        self._meetings[connection] = meeting

    def _hear(self, event: StreamData, now: float) -> None:
        meeting = self._meetings.get(event.connection)
        if meeting is None:
            return
        known, greeted = meeting.peer, meeting.greeting
        try:
            meeting.receive(event.stream, event.data, event.fin, now)
        except REFUSALS as error:
            self._refuse(event.connection, error.reason.value)
            return
        if known is None and meeting.peer is not None:
            self._proven(meeting, now)
        if greeted is None and meeting.greeting is not None and meeting.peer is not None:
            far = self._fars.get(meeting.peer.id)
            link = self.neighbours.get(meeting.peer.id)
            if far is not None and link is not None and far.meeting is meeting:
                link.receive_hello(meeting.greeting)
                far.failures = 0
                self._dial(far, now)

    def _proven(self, meeting: Meeting, now: float) -> None:
        """The other end is who it says: greet it, with a ticket for its session."""
        assert meeting.peer is not None
        far = self._fars.get(meeting.peer.id)
        if far is None:
            self._refuse(meeting.connection, "not a neighbour")
            return
        if far.meeting is not None and far.meeting is not meeting:
            link = self.neighbours.get(far.id)
            if far.meeting.greeting is not None and link is not None and link.inbound is State.UP:
                # Another relay with its certificate: the one that we hear stays. One that began anew is silent.
                self._refuse(meeting.connection, "the one that is here is well")
                return
            # It began anew before we noticed.
            self._refuse(far.meeting.connection, "another connection took its place")
        far.meeting = meeting
        self._host.tickets.pop(far.ticket, None)
        far.ticket = self.settings.random_bytes(32)
        self._host.tickets[far.ticket] = Neighbour(far.id, far.hop)
        link = self.neighbours.connect(far.id, far.ticket, now)
        assert link is not None
        meeting.greet(link.hello())

    def _refuse(self, connection: Connection, reason: str) -> None:
        self.statistics.links_refused += 1
        connection.close(REFUSED, reason)
        self._drop(connection)

    def _end(self, connection: Connection, now: float) -> None:
        far = self._dialled.pop(connection, None) or self._drop(connection)
        if far is not None:
            self.statistics.links_lost += 1
            self._later(far, now)

    def _drop(self, connection: Connection) -> Far | None:
        """A link's connection is of no use any more; returns whose it was."""
        meeting = self._meetings.pop(connection, None)
        if meeting is None:
            return None
        for far in self._fars.values():
            if far.meeting is meeting:
                far.meeting = None
                self._host.tickets.pop(far.ticket, None)
                return far
        return None

    def _forget(self, far: Far) -> None:
        """No neighbour of ours any more."""
        self._host.tickets.pop(far.ticket, None)
        if far.meeting is not None:
            self._meetings.pop(far.meeting.connection, None)
            far.meeting.connection.close(0, "no longer a neighbour")
        attachment = self._host.attachments.get(far.session) if far.session is not None else None
        if attachment is not None:
            attachment.session.close(0, "no longer a neighbour")

    def _count_packets(self, now: float) -> None:
        """What came, and did not, on sessions beside the links."""
        for far in self._fars.values():
            connection, gaps = far.connection, far.gaps
            if connection is None:
                continue
            gaps.settle(now)
            counts = gaps.take()
            if counts.arrived or counts.lost:
                size, far.bytes_seen = connection.bytes_received - far.bytes_seen, connection.bytes_received
                self.neighbours.receive_packets(far.id, counts.arrived, counts.lost, now, size, counts.apart)

    def _look(self, now: float) -> None:
        """Which links carry media from us, and so are probed as often as that takes; who is of use no longer."""
        if self._named is not None and self._fars.keys() - self._named.keys():
            self._keep_neighbours(now)
        for far in self._fars.values():
            reads = far.session is not None and self._host.forwarder.reads_and_feeds(far.session)[0] > 0
            self.neighbours.set_active(far.id, reads)
            if far.meeting is None and far.retry_at is None and self._dials(far) and far not in self._dialled.values():
                self._later(far, now)


def positions(table: RouteTable) -> dict[tuple[int, int], int]:
    """The places of next hops in a table, by Hop IDs: see `Forwarder.apply_positions`."""
    return {
        (hop_id(table.mesh, route.origin), hop_id(table.mesh, candidate.next_hop)): place
        for route in table.routes
        for place, candidate in enumerate(route.candidates)
    }


def near(table: RouteTable) -> frozenset[int]:
    """Hop IDs of the other relays of a table's own region; none where they are too few to take from each other."""
    own = next((entry.region for entry in table.relays if entry.id == table.relay), None)
    others = [entry.id for entry in table.relays if entry.region == own and entry.id != table.relay]
    return frozenset(hop_id(table.mesh, other) for other in others) if len(others) >= TREE_OTHERS else frozenset()


def _standing(link: Link) -> Standing:
    """What a neighbour's tracks may be expected of: nothing, where either end hears nothing of the other."""
    return Standing.SILENT if link.is_unheard or link.is_silent else STANDINGS[link.inbound]
