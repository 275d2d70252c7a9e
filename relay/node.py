"""One relay, no I/O: the turn. The only place where quic, moqt and forwarding meet.

`relay.run` hands in datagrams and the time and sends what comes out; a test does the same over a virtual clock. A turn
is bounded: it takes one batch, lets sessions with work send one quantum each in turn, and stops when its budget of
datagrams is used up; the next turn goes on where it stopped, with a fresh `now`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from relay.access import Access
from relay.attachment import Attachment, Surroundings
from relay.deadlines import Deadlines
from relay.departures import Departures
from relay.forwarding.book import ForwardingSettings
from relay.forwarding.egress_order import QUANTUM_BYTES, Outbox
from relay.forwarding.forwarder import Forwarder
from relay.limits import Limits, LimitSettings
from relay.mesh.mesh import Mesh, MeshSettings
from relay.neighbour import Neighbour
from relay.room_tracks import RoomTracks
from relay.rooms.effects import Read, ReadDone, Stored, Write, Written
from relay.rooms.rates import RoomSettings
from relay.tally import Tally
from tradewind.contract.messages import RoomEntry, StageName
from tradewind.contract.rooms import RoomName
from tradewind.moqt.errors import SessionCode
from tradewind.moqt.profiles import NEIGHBOUR
from tradewind.moqt.settings import SessionSettings
from tradewind.quic.config import Address, QuicSettings
from tradewind.quic.connection import Connection
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Closed, Event, Opened, Released

HOUSEKEEPING_S = 1.0
DATAGRAM_BYTES = 1100
"""About what a datagram carries, to count what a turn sends."""
MORE_HELPINGS = 3
"""How often a session may fill its connection again in one turn of its own."""
SMALLEST_HELPING_BYTES = 1024

Collected: TypeAlias = list[tuple[int, list[tuple[Address, list[bytes]]]]]
"""Datagrams to send: by port, and there by destination."""


class Stage(Enum):
    """Where a relay is in its life."""

    SERVING = "serving"
    DRAINING = "draining"
    DRAINED = "drained"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What one relay is told; each part belongs to the room of its name."""

    quic: QuicSettings
    forwarding: ForwardingSettings = ForwardingSettings()
    session: SessionSettings = SessionSettings()
    limits: LimitSettings = LimitSettings()
    quirks: frozenset[str] = frozenset()
    turn_datagrams: int = 256
    turn_handshakes: int = 8


class Output(NamedTuple):
    """What a turn leaves to do: datagrams to send on each port, and whether work is left for another turn at once."""

    datagrams: Collected
    more: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A session that is over, for metrics and logs."""

    attachment: Attachment
    code: int | None
    reason: str
    by_peer: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of our own, and whose words brought it about: that session was closed, and the relay goes on."""

    session: int | None
    error: Exception


class Node:
    """A relay with `ports` UDP ports; each call is one part of a turn: receive, or time, and then `take_output`."""

    def __init__(self, settings: NodeSettings, access: Access, ports: int = 1) -> None:
        self.settings = settings
        self.forwarder = Forwarder(settings.forwarding)
        self.endpoints = [Endpoint(settings.quic) for _ in range(ports)]
        self.stage = Stage.SERVING
        self.attachments: dict[int, Attachment] = {}
        self.ended: list[Ended] = []
        """Sessions that ended since the caller last emptied this."""
        self.faults: list[Fault] = []
        """Errors of our own since the caller last emptied this: nobody may take the relay down by what it sends."""
        self.tally = Tally()
        self.rooms: RoomTracks | None = None
        """Ordered messages; None: this relay has no part in any."""
        self.surroundings = Surroundings(
            self.forwarder, access, Limits(settings.limits), settings.session, settings.quirks, self.tally,
            met=self._neighbour_opened,
        )  # fmt: skip
        """Of every session."""
        self.departures = Departures(self)
        """A drain that is under way; while the stage is SERVING an operator may undo it."""
        self.mesh: Mesh | None = None
        """Our place among other relays, where there are any."""
        self.families: Sequence[bool] = [False] * ports
        """Of each port, whether its addresses are IPv6."""
        self._dialled: dict[Connection, Neighbour] = {}
        self._by_connection: dict[Connection, Attachment] = {}
        self._blocked: dict[int, dict[int, Outbox]] = {port: {} for port in range(ports)}
        """Outboxes that wait for their connection, by port and connection: looked at when it hears something."""
        self._deadlines = Deadlines()
        self._count = 0
        self._housekeeping_at = 0.0
        """At once, and from then on by the clock."""

    # --- In ---

    def receive_datagrams(self, port: int, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        """Take a batch from one port's socket."""
        endpoint = self.endpoints[port]
        self.tally.now, self.tally.wall_now = now, wall_now
        self._dispatch(endpoint.receive_datagrams(batch, now, self.settings.turn_handshakes), port, now, wall_now)
        if self.mesh is not None:
            self.mesh.act(now)
            self.departures.tell_neighbours(self.mesh, now)
        self._unblock(port)

    def handle_deadline(self, now: float, wall_now: float) -> None:
        """Do everything that is due."""
        self.tally.now, self.tally.wall_now = now, wall_now
        if self.rooms is not None:
            self.rooms.set_wall(now, wall_now)
            self.rooms.handle_deadline(now)
        for port, endpoint in enumerate(self.endpoints):
            due = endpoint.next_deadline()
            if due is not None and due <= now:
                self._dispatch(endpoint.handle_deadline(now), port, now, wall_now)
                self._unblock(port)
        if self.mesh is not None and self.mesh.next_deadline() <= now:
            self.mesh.handle_deadline(now)
            self.departures.tell_neighbours(self.mesh, now)
        try:
            self.forwarder.handle_deadline(now)
        except Exception as error:  # noqa: BLE001 - see `faults`
            self._fault(None, error)
        if self._deadlines.soonest <= now:
            while (attachment := self._deadlines.take_due(now)) is not None:
                try:
                    attachment.handle_deadline(now, wall_now)
                except Exception as error:  # noqa: BLE001 - see `faults`
                    self._fault(attachment, error)
                self._deadlines.looked_at[attachment] = None
        departing = self.departures.next_deadline()
        if departing is not None and departing <= now:
            self.departures.handle_deadline(now, wall_now)
        if now >= self._housekeeping_at:
            self._housekeeping_at = now + HOUSEKEEPING_S
            self._keep_house(now, wall_now)

    def connect(self, address: Address, protocol: str, name: str, now: float, settings: QuicSettings) -> Connection:
        """Open a connection to another node, from the port whose addresses are of its kind."""
        port = self._port_for(address)
        return self.endpoints[port].connect(address, now, server_name=name, protocols=(protocol,), settings=settings)

    def dial(self, neighbour: Neighbour, address: Address, name: str, now: float, settings: QuicSettings) -> None:
        """Open a session to a neighbour; it is one of `attachments` once its connection is there."""
        self._dialled[self.connect(address, NEIGHBOUR.name, name, now, settings)] = neighbour

    def join_mesh(self, settings: MeshSettings) -> Mesh:
        """Live among other relays from now on; `forwarding.hop` must be the Hop ID of this relay there."""
        self.mesh = Mesh(settings, self)
        assert self.settings.forwarding.hop == self.mesh.hop
        return self.mesh

    def note_lag(self, lag_s: float, now: float) -> None:
        """The event loop was so late: nobody else is to be blamed for it."""
        if self.mesh is not None:
            self.mesh.note_lag(lag_s, now)

    # --- Rooms ---

    def open_rooms(
        self, me: str, settings: RoomSettings, stored: Mapping[RoomName, Stored], now: float, wall_now: float
    ) -> None:
        """Take part in rooms, as the relay `me`, from what its store has; alone, until a table comes."""
        self.rooms = RoomTracks(me, self.forwarder, settings, stored, now, wall_now)
        self.surroundings.rooms = self.rooms
        self.rooms.open(now)

    def apply_rooms(self, entries: Iterable[RoomEntry], now: float) -> None:
        """All rooms of a route table."""
        if self.rooms is not None:
            self.rooms.apply(entries, now)

    def controller_heard(self, now: float) -> None:
        """A controller answered, and what it last said is applied."""
        if self.rooms is not None:
            self.rooms.controller_heard(now)

    def receive_stored(self, results: Iterable[Written | ReadDone], now: float, wall_now: float) -> None:
        """What the rooms' store has done."""
        if self.rooms is not None:
            self.rooms.set_wall(now, wall_now)
            self.rooms.receive_results(results, now)

    def take_store_work(self) -> list[Write | Read]:
        """What the rooms' store is to do, each thing once."""
        if self.rooms is None:
            return []
        work, self.rooms.to_store = self.rooms.to_store, []
        return work

    # --- The end ---

    @property
    def stage_name(self) -> StageName:
        """Where the relay is in its life, as other nodes are told."""
        if self.stage is not Stage.SERVING or self.departures.emptying is not None:
            return "empty" if self.is_empty else "draining"
        return "cordoned" if self.departures.cordoned else "serving"

    def cordon(self, now: float, *, cordoned: bool) -> None:
        """From now on nobody new is to be sent here; or somebody may be again."""
        self.departures.cordoned = cordoned
        self.departures.tell_stage(now)

    def begin_emptying(self, now: float, deadline_s: float) -> None:
        """Ask everybody to move, a wave at a time, and go on running; `stop_emptying` undoes it."""
        self.departures.begin(now, deadline_s)

    def stop_emptying(self, now: float) -> None:
        """Serve on: who has not been asked to move stays."""
        if self.stage is Stage.SERVING:
            self.departures.stop(now)

    def drain(self, now: float, grace_s: float, uri: str = "") -> None:
        """Empty the relay for good: GOAWAY to every session, and after `grace_s` the end of those that stayed.

        With `uri` all are sent there, else each to where placement says. Nobody new is let in.
        """
        if self.stage is Stage.SERVING:
            self.stage = Stage.DRAINING
            self.departures.uri, self.departures.for_good_at = uri, now + grace_s
            self.departures.begin(now, grace_s)
            self.departures.handle_deadline(now, self.tally.wall_now)

    def look_at(self, attachment: Attachment) -> None:
        """A session's deadline may have moved."""
        self._deadlines.looked_at[attachment] = None

    def close(self, now: float, code: int = SessionCode.NO_ERROR, reason: str = "the relay stops") -> None:
        """End every session at once; the datagrams that say so are in the next output."""
        for attachment in tuple(self.attachments.values()):
            attachment.session.close(code, reason)
        for endpoint in self.endpoints:
            endpoint.close_all(code, reason, now)
        self.stage = Stage.DRAINED

    # --- Out ---

    def take_output(self, now: float, most: int | None = None) -> Output:
        """Let sessions send, each one quantum in its turn, until nothing moves or `most` datagrams are there.

        None: as many as a turn may send. Whoever sends what this returns before asking for more spares the first
        subscriber the wait for the last.
        """
        turn = self.settings.turn_datagrams
        budget = turn if most is None else min(most, turn)
        ready = self.forwarder.ready
        self._settle_rooms(now)
        collected: Collected = []
        hungry: list[tuple[Outbox, int]] = []
        self._collect(collected, now)
        while ready and budget > 0:
            outbox = ready.pop()
            if outbox is None:
                break
            left = self._help(outbox, QUANTUM_BYTES, hungry, now)
            budget -= max((QUANTUM_BYTES - left) // DATAGRAM_BYTES, 1)
        # A connection takes less than a quantum at once: what it has sent makes room for more.
        for _ in range(MORE_HELPINGS):
            self._collect(collected, now)
            if not hungry:
                break
            waiting, hungry = hungry, []
            for outbox, left in waiting:
                if left < SMALLEST_HELPING_BYTES:
                    outbox.mark()
                elif outbox.sink.room(now) > 0:
                    self._help(outbox, left, hungry, now)
                else:
                    self._block(outbox)
        for outbox, _ in hungry:
            outbox.mark()
        if hungry:
            self._collect(collected, now)
        self._deadlines.arm()
        return Output(collected, bool(ready) or (self.rooms is not None and self.rooms.has_work))

    def next_deadline(self) -> float:
        """When `handle_deadline` wants to be called."""
        at = self._housekeeping_at
        for endpoint in self.endpoints:
            due = endpoint.next_deadline()
            if due is not None and due < at:
                at = due
        for due in (self.forwarder.next_deadline(), None if self.rooms is None else self.rooms.next_deadline()):
            if due is not None and due < at:
                at = due
        if self.mesh is not None:
            at = min(at, self.mesh.next_deadline())
        departing = self.departures.next_deadline()
        if departing is not None and departing < at:
            at = departing
        sessions = self._deadlines.soonest
        return min(at, sessions)

    @property
    def access(self) -> Access:
        """The keys that count now."""
        return self.surroundings.access

    @property
    def tickets(self) -> dict[bytes, Neighbour]:
        """What relays show that dial us, and who they are."""
        return self.surroundings.tickets

    @property
    def cordoned(self) -> bool:
        """Nobody new is to be sent here; who comes all the same is served. `cordon` changes it."""
        return self.departures.cordoned

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here but neighbours, who come and go with the relay, and none of them reads from here."""
        return self.departures.is_empty(self.attachments)

    def name_of(self, session: int) -> str:
        """The id of the neighbour whose session it is; empty: nobody's that is here."""
        attachment = self.attachments.get(session)
        return attachment.neighbour.id if attachment is not None and attachment.neighbour is not None else ""

    def replace_access(self, access: Access) -> None:
        """Other keys count for sessions and requests from now on."""
        self.surroundings.access = access
        for attachment in self.attachments.values():
            attachment.replace_access(access)

    def replace_quic(self, settings: QuicSettings) -> None:
        """Another certificate counts for connections from now on."""
        for endpoint in self.endpoints:
            endpoint.replace_settings(settings)

    def check_invariants(self) -> None:
        """What must hold between any two turns; for tests and the state page."""
        self.forwarder.check_invariants()
        self.surroundings.limits.check_invariants()
        if self.rooms is not None:
            self.rooms.check_invariants()
        for endpoint in self.endpoints:
            endpoint.check_invariants()
        if self.mesh is not None:
            self.mesh.check_invariants()
        for attachment in self.attachments.values():
            assert self._by_connection[attachment.connection] is attachment
            attachment.session.check_invariants()
            attachment.check_invariants()

    # --- Private ---

    def _settle_rooms(self, now: float) -> None:
        if self.rooms is not None:
            try:
                self.rooms.settle(now)
            except Exception as error:  # noqa: BLE001 - see `faults`
                self._fault(None, error)

    def _help(self, outbox: Outbox, most: int, hungry: list[tuple[Outbox, int]], now: float) -> int:
        """Let one session hand over up to `most` bytes; returns what is left of them. Who wants more is `hungry`."""
        try:
            size = outbox.fill(now, most)
        except Exception as error:  # noqa: BLE001 - see `faults`
            self._fault(self.attachments.get(outbox.session), error)
            return most
        if outbox.has_work:
            hungry.append((outbox, most - size)) if size else self._block(outbox)
        return most - size

    def _collect(self, collected: Collected, now: float) -> None:
        for port, endpoint in enumerate(self.endpoints):
            batches = endpoint.datagrams_to_send(now)
            if batches:
                collected.append((port, batches))

    def _dispatch(self, events: list[Event], port: int, now: float, wall_now: float) -> None:
        by_connection, mesh, looked_at = self._by_connection, self.mesh, self._deadlines.looked_at
        for event in events:
            if mesh is not None and mesh.is_ours(event.connection):
                mesh.receive(event, now, wall_now)
                continue
            match event:
                case Released():
                    continue
                case Opened():
                    self._attach(event.connection, port, now)
                case Closed():
                    failed = self._dialled.pop(event.connection, None)
                    if failed is not None and mesh is not None:
                        mesh.dial_failed(failed, now)
                    attachment = by_connection.pop(event.connection, None)
                    if attachment is not None:
                        self._detach(attachment, event, port, now)
                case _:
                    attachment = by_connection.get(event.connection)
                    if attachment is not None:
                        try:
                            attachment.receive(event, now, wall_now)
                        except Exception as error:  # noqa: BLE001 - see `faults`
                            self._fault(attachment, error)
                        looked_at[attachment] = None

    def _attach(self, connection: Connection, port: int, now: float) -> None:
        self._count += 1
        neighbour = self._dialled.pop(connection, None)
        attachment = Attachment(connection, self._count, port, self.surroundings, now, neighbour)
        self.attachments[attachment.id] = attachment
        self._by_connection[connection] = attachment
        self._deadlines.looked_at[attachment] = None
        attachment.start(now)
        if self.stage is not Stage.SERVING:
            attachment.session.close(SessionCode.GOAWAY_TIMEOUT, "the relay is going away")

    def _detach(self, attachment: Attachment, event: Closed, port: int, now: float) -> None:
        try:
            attachment.end(now)
        except Exception as error:  # noqa: BLE001 - see `faults`
            self._fault(attachment, error)
        if self.rooms is not None:
            self.rooms.session_closed(attachment.id)
        del self.attachments[attachment.id]
        if attachment.neighbour is not None and self.mesh is not None:
            self.mesh.session_ended(attachment, now)
        self._blocked[port].pop(attachment.connection.id, None)
        self._deadlines.forget(attachment)
        self.tally.quirk_uses.update(attachment.quirks.uses)
        self.ended.append(Ended(attachment, event.code, event.reason, event.by_peer))

    def _fault(self, attachment: Attachment | None, error: Exception) -> None:
        """Something of ours went wrong: end the session that brought it about, and no other."""
        self.faults.append(Fault(None if attachment is None else attachment.id, error))
        self.tally.faults += 1
        if attachment is not None:
            attachment.session.close(SessionCode.INTERNAL_ERROR, "internal error")

    def _port_for(self, address: Address) -> int:
        wanted = ":" in str(address[0])
        return next((port for port, family in enumerate(self.families) if family is wanted), 0)

    def _neighbour_opened(self, attachment: Attachment) -> None:
        if self.mesh is not None:
            self.mesh.session_opened(attachment, self.tally.now)

    def _block(self, outbox: Outbox) -> None:
        attachment = self.attachments.get(outbox.session)
        if attachment is not None:
            self._blocked[attachment.port][attachment.connection.id] = outbox

    def _unblock(self, port: int) -> None:
        """Connections that heard something may have room again."""
        blocked = self._blocked[port]
        if blocked:
            for connection in self.endpoints[port].touched & blocked.keys():
                blocked.pop(connection).mark()

    def _keep_house(self, now: float, wall_now: float) -> None:
        self.forwarder.keep_limits(now)
        for attachment in tuple(self.attachments.values()):
            attachment.expire(now, wall_now)
        if self.stage is Stage.DRAINING and self.departures.for_good_at is not None:
            if now >= self.departures.for_good_at:
                self.close(now, SessionCode.GOAWAY_TIMEOUT, "the relay stops")
            elif self.is_empty:
                self.stage = Stage.DRAINED
