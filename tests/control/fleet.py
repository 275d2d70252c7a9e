"""A plane, relays that hold their end of its contract, and a disk that can be slow: all in one loop over time."""

from __future__ import annotations

import json
from typing import Any

from control.outgoing import Reply
from control.placement import Placement
from control.plane import Plane, PlaneSettings
from control.publishing import Signing
from control.state import Batch, Order, State
from tests.contract.mesh import CONTROLLER, MESH, NOW
from tests.control.mesh import hello, link, report
from tradewind.contract.admission import signer
from tradewind.contract.codec import VERSION
from tradewind.contract.identity import NodeIdentity, verify_table
from tradewind.contract.ids import Role
from tradewind.contract.messages import (
    Answer,
    Command,
    Done,
    PackedTable,
    Question,
    RoomEntry,
    RoomReport,
    RouteTable,
    SignedTable,
    TableDelta,
    ToRelay,
    Welcome,
)
from tradewind.contract.tables import apply_delta, decode_table, encode_table, unpack
from tradewind.contract.token import generate_key, parse_keys
from tradewind.placing.policy import Policy

(KEY,) = parse_keys(json.dumps(generate_key("EdDSA", "controller-1")))


def identity(id: str, region: str) -> NodeIdentity:
    return NodeIdentity("shop", Role.RELAY, region, id, 0.0, 2**40, b"")


class FakeRelay:
    """One relay: keeps its table, does what it is told, and has rooms as a test sets them."""

    def __init__(self, number: int, id: str, region: str) -> None:
        self.number, self.id, self.region = number, id, region
        self.hello = hello(number)
        self.stage: Any = "serving"
        self.rooms: tuple[RoomReport, ...] = ()
        self.told: dict[str, Any] = {}
        """What else it reports."""
        self.body: str | None = None
        """What it answers to every question."""
        self.link: int | None = None
        self.silent = False
        self.obeys = True
        self.version = VERSION
        self.held: RouteTable | None = None
        self.received: list[ToRelay] = []
        self.obeyed: list[str] = []

    @property
    def table(self) -> RouteTable:
        assert self.held is not None
        return self.held

    def take(self, message: ToRelay) -> Done | Answer | None:
        self.received.append(message)
        match message:
            case SignedTable():
                self._take_table(message)
            case PackedTable():
                self._take_table(unpack(message))
            case TableDelta():
                made = encode_table(apply_delta(self.table, message))
                self._take_table(SignedTable(made, message.certificate, message.signature))
            case Command(id=id, action=action) if self.obeys:
                if id not in self.obeyed:
                    self.obeyed.append(id)
                    stages = {"drain": "draining", "cordon": "cordoned"}
                    self.stage = stages.get(action, "serving")
                return Done(id, ok=True)
            case Question(id=number):
                return Answer(number, self.body or f'{{"relay": "{self.id}"}}')
        return None

    def _take_table(self, signed: SignedTable) -> None:
        table = decode_table(verify_table(signed, MESH.authority, NOW))
        assert (table.mesh, table.relay) == ("shop", self.id)
        assert self.held is None or (table.term, table.generation) >= (self.held.term, self.held.generation)
        self.held = table


class Fleet:
    """A plane over virtual time; `step` is 50 ms. `saves_after_s`: how long its disk takes."""

    def __init__(self, regions: dict[str, str], state: State | None = None, **settings: Any) -> None:
        self.now = 100.0
        self.saves_after_s = 0.0
        self.saving: list[tuple[float, Batch]] = []
        self.saved: list[Batch] = []
        self.replies: dict[int, Reply] = {}
        self.closed: list[tuple[str, str]] = []
        self._links = 0
        self._by_link: dict[int, FakeRelay] = {}
        self._reported: dict[str, float] = {}
        self.relays = {id: FakeRelay(n, id, region) for n, (id, region) in enumerate(regions.items(), start=1)}
        self.plane = self._start(state or State(7), settings)
        self.settings = settings
        for relay in self.relays.values():
            self.connect(relay)

    def _start(self, state: State, settings: dict[str, Any]) -> Plane:
        signing = Signing(CONTROLLER.key, CONTROLLER.der)
        placement = Placement(Policy(), signer(KEY), [])
        return Plane(PlaneSettings("shop", "main", **settings), state, signing, placement, self.now, NOW)

    @property
    def wall_now(self) -> float:
        return NOW + self.now - 100.0

    def restart(self, state: State) -> None:
        """The controller dies and comes back with what its store has; nobody has noticed yet."""
        self.plane = self._start(state, self.settings)
        self._by_link.clear()
        for relay in self.relays.values():
            relay.link = None

    def connect(self, relay: FakeRelay) -> int:
        self._links += 1
        relay.link = self._links
        self._reported.pop(relay.id, None)
        self._by_link[self._links] = relay
        self.plane.receive_proven(self._links, identity(relay.id, relay.region), relay.version)
        self.plane.receive_message(self._links, relay.hello, self.now, self.wall_now)
        self.flush()
        return self._links

    def reboot(self, relay: FakeRelay) -> None:
        if relay.link is not None:
            self.plane.receive_closed(relay.link, "gone", self.now, self.wall_now)
        relay.link, relay.silent = None, True
        self.run(3)
        relay.number += 100
        relay.hello = hello(relay.number)
        relay.stage, relay.obeyed, relay.held, relay.silent = "serving", [], None, False
        self.connect(relay)

    def flush(self) -> None:
        while any(output := self.plane.output()):
            self.saving += [(self.now + self.saves_after_s, batch) for batch in output.batches]
            for number, message in output.send:
                relay = self._by_link.get(number)
                answer = relay.take(message) if relay is not None and not relay.silent else None
                if answer is not None:
                    self.plane.receive_message(number, answer, self.now, self.wall_now)
            for number, why in output.close:
                gone = self._by_link.pop(number)
                self.closed.append((gone.id, why))
                gone.link = None if gone.link == number else gone.link
            self.replies.update((reply.ticket, reply) for reply in output.replies)
            self._save()
        self.plane.check_invariants()

    def _save(self) -> None:
        while self.saving and self.saving[0][0] <= self.now:
            _, batch = self.saving.pop(0)
            self.saved.append(batch)
            self.plane.receive_saved(batch.number, self.now, self.wall_now)

    def run(self, seconds: float, step_s: float = 0.05) -> None:
        for _ in range(round(seconds / step_s)):
            self.now += step_s
            self._save()
            for relay in self.relays.values():
                if relay.link is not None and not relay.silent and self.now - self._reported.get(relay.id, 0) >= 1.0:
                    self.report(relay)
            while (due := self.plane.next_deadline(self.now)) is not None and due <= self.now:
                self.plane.handle_deadline(self.now, self.wall_now)
                self.flush()
            self.flush()

    def report(self, relay: FakeRelay) -> None:
        assert relay.link is not None
        self._reported[relay.id] = self.now
        links = [link(o.id, state="bad" if o.silent else "up") for o in self.relays.values() if o is not relay]
        told = report(links, stage=relay.stage, rooms=relay.rooms, **relay.told)
        self.plane.receive_message(relay.link, told, self.now, self.wall_now)

    def order(self, id: str, relay: str, action: Any = "drain", by: str = "ops", **more: Any) -> Reply | None:
        ticket = self.plane.order(Order(id, relay, action, by, self.wall_now, **more), self.now, self.wall_now)
        self.flush()
        return self.replies.get(ticket)

    def kinds(self, relay: str | None = None) -> list[str]:
        return [line.kind for line in self.plane.events.after(0, 10_000) if relay in {None, line.relay}]

    def home(self, room: tuple[bytes, ...]) -> RoomEntry:
        entry = self.plane.homes.entry(room)
        assert entry is not None
        return entry

    def progress(self, id: str) -> str:
        order = self.plane.commands.order(id)
        assert order is not None
        return order.progress

    def state(self, term: int) -> State:
        """What a store has after everything that was saved."""
        orders = {order.id: order for batch in self.saved for order in batch.orders}
        wishes = {wish.relay: wish for batch in self.saved for wish in batch.wishes}
        rooms = {entry.room: entry for batch in self.saved for entry in batch.rooms}
        audit = tuple(line for batch in self.saved for line in batch.audit)
        members = {member.relay: member for batch in self.saved for member in batch.members}
        here = tuple(member for member in members.values() if not member.gone)
        return State(term, tuple(orders.values()), tuple(wishes.values()), audit, tuple(rooms.values()), members=here)


__all__ = ["FakeRelay", "Fleet", "Welcome"]
