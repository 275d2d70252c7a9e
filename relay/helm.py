"""What passes between a relay and its controllers, without I/O: reports up, tables and orders down, each done once.

`relay.control_link` dials, hands in what its connection tells and the time, and writes what is to survive; a test does
the same over a virtual clock. The relay needs no controller to serve: while none answers it goes on with what it has.
Waits between attempts grow, with full jitter, so that a controller that comes back is not met by all relays at once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import inf
from typing import Protocol

from msgspec.structs import replace

from relay.conversation import Conversation
from relay.orders import Fault, Orders, Taken
from tradewind.contract.codec import ContractError
from tradewind.contract.messages import (
    Answer,
    Command,
    Done,
    Hello,
    PackedTable,
    Question,
    Report,
    RouteTable,
    SignedTable,
    TableDelta,
    ToRelay,
    Welcome,
)
from tradewind.quic.events import Event

CONNECT_S = 10.0
"""For a name to be found, a handshake, a proof and a welcome."""
BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 15.0
SOON_S = 0.1
OBEY_AGAIN_S = 0.25
HEARD_AGAIN_S = 0.25
"""How often it is said at most that a controller is there."""
MAX_OBEYING = 64
MAX_REMEMBERED = 1024
"""Orders that are over and whose answers are kept: controllers repeat what they got no answer to."""
MAX_REFUSALS = 64
"""Tables not taken that nobody has asked about yet; all are counted in `Orders.statistics`."""


class Steered(Protocol):
    """What a controller steers: the relay's part in the mesh. All calls are between two turns and do not block."""

    def report(self, sequence: int, now: float, wall_now: float) -> Report:
        """How the relay is."""

    def apply_table(self, table: RouteTable, now: float) -> None:
        """Go by this table from now on; it was verified, and is not older than the one before."""

    def obey(self, command: Command, now: float) -> Done | None:
        """Do what is ordered. None: it is not done yet; it is asked again with the same command."""

    def answer(self, question: Question, now: float) -> Answer:
        """Show something to an operator."""

    def controller_heard(self, now: float) -> None:
        """A controller was heard just now, and its newest table is the one that was applied last."""


@dataclass(slots=True)
class HelmStatistics:
    """Since the start; the first two are now."""

    controller: str = ""
    """Whom it is connected to; empty: nobody."""
    since: float = 0.0
    welcomes: int = 0
    refused: int = 0
    reports: int = 0
    repeated: int = 0
    """Orders that came again after they were done: answered as before, and not done again."""
    conflicting: int = 0
    """Orders under the id of another one: refused."""
    tables_refused: int = 0
    table_refused: str = ""
    """Why the last of them was not taken."""
    misfits: int = 0
    """Messages of ours that did not fit the contract and were not sent: a fault of ours."""


class Helm:
    """One relay's dealings with controllers. `hello` is what it says first, its generation filled in.

    `begin` for each new connection, then `receive` and `handle_deadline` until `ended` says why it is over; the next
    one after `wait_s`.
    """

    __slots__ = (
        *("_conversation", "_failures", "_hello", "_obey_at", "_obeying", "_over", "_patience", "_report_at"),
        *(
            "_follows",
            "_heard",
            "_heard_at",
            "_report_every_s",
            "_sequence",
            "_steered",
            "misfit",
            "orders",
            "refusals",
            "statistics",
        ),
    )

    def __init__(self, hello: Hello, orders: Orders, steered: Steered) -> None:
        self.statistics = HelmStatistics()
        self.orders = orders
        self.refusals: list[Taken] = []
        """Tables that were not taken since the caller last emptied this: operators have to hear of each."""
        self.misfit: str | None = None
        """Why a message of ours was not sent, until the caller takes it."""
        self._hello = hello
        self._steered = steered
        self._conversation: Conversation | None = None
        self._patience = inf
        self._failures = 0
        self._sequence = 0
        self._report_every_s = 1.0
        self._report_at = inf
        self._obeying: dict[str, Command] = {}
        self._obey_at = inf
        self._follows = False
        """The newest table of this connection's controller is the one that we go by."""
        self._heard = -1
        self._heard_at = -inf
        self._over: OrderedDict[str, tuple[Command, Done]] = OrderedDict()
        """What was done, by the order's id."""

    def restore(self, data: bytes, now: float) -> bool:
        """Go by the table that an earlier life wrote; whether it was good. Before the relay lets anybody in."""
        taken = self.orders.restore(data)
        self._use(taken, now)
        return taken.fault is None

    def to_persist(self) -> bytes | None:
        """What to write in the place of the last table, whole and flushed; None: nothing new."""
        return self.orders.to_persist()

    # --- One connection ---

    def begin(self, conversation: Conversation, now: float) -> None:
        """A connection to a controller is on its way."""
        self._leave()
        self._conversation = conversation
        self._patience = now + CONNECT_S

    def receive(self, event: Event, now: float, wall_now: float) -> None:
        """Something happened on the connection."""
        conversation = self._conversation
        if conversation is None:
            return
        proven = conversation.controller is not None
        messages = conversation.receive(event, now, wall_now)
        if not proven and conversation.controller is not None:
            conversation.send(replace(self._hello, generation=self.orders.generation))
        for message in messages:
            self._receive(message, conversation, now, wall_now)

    def handle_deadline(self, now: float, wall_now: float) -> None:
        """Say what is due; end what was not welcomed in time. Once a turn, due or not."""
        conversation = self._conversation
        if conversation is None:
            return
        conversation.handle_deadline(now)
        self._note_heard(conversation, now)
        if not self.statistics.controller and now >= self._patience:
            conversation.end("no welcome in time")
        if self.statistics.controller and conversation.ended is None:
            self._say(conversation, now, wall_now)

    def next_deadline(self) -> float:
        """When `handle_deadline` has something to do; infinite: never."""
        conversation = self._conversation
        if conversation is None:
            return inf
        proof = conversation.next_deadline()
        patience = inf if self.statistics.controller else self._patience
        return min(inf if proof is None else proof, self._report_at, self._obey_at, patience)

    @property
    def ended(self) -> str | None:
        """Why the connection is over; None: it is not."""
        return "there is none" if self._conversation is None else self._conversation.ended

    def end(self, why: str) -> None:
        """Give the connection up."""
        if self._conversation is not None:
            self._conversation.end(why)

    def wait_s(self, lot: float) -> float:
        """The connection is over: how long to wait before the next attempt. `lot` is thrown from 0 to 1."""
        self._failures = 0 if self.statistics.controller else self._failures + 1
        self._leave()
        return lot * min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures, 16))

    def report_now(self) -> None:
        """A link or the stage has changed: report at once."""
        if self.statistics.controller:
            self._report_at = -inf

    def report_soon(self, now: float) -> None:
        """Something has happened, and more of the kind may follow: report in a moment."""
        if self.statistics.controller:
            self._report_at = min(self._report_at, now + SOON_S)

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        self.orders.check_invariants()
        assert len(self._obeying) <= MAX_OBEYING and len(self._over) <= MAX_REMEMBERED
        assert not self._obeying.keys() & self._over.keys()

    # --- Private ---

    def _leave(self) -> None:
        """What belongs to a connection ends with it. Orders under way are repeated by whoever wants them done."""
        self._conversation = None
        self.statistics.controller = ""
        self._report_at = self._obey_at = inf
        self._follows, self._heard = False, -1
        self._obeying.clear()

    def _receive(self, message: ToRelay, conversation: Conversation, now: float, wall_now: float) -> None:
        match message:
            case Welcome(refused=refused) if refused:
                self.statistics.refused += 1
                conversation.end(f"refused: {refused}")
            case Welcome():
                self.statistics.welcomes += 1
                self.statistics.controller, self.statistics.since = message.controller, now
                self._report_every_s = min(10.0, max(0.1, message.report_every_ms / 1000))
                self._report_at = now
            case SignedTable():
                self._follow(self.orders.receive_table(message, wall_now), now)
            case PackedTable():
                self._follow(self.orders.receive_packed(message, wall_now), now)
            case TableDelta():
                self._follow(self.orders.receive_delta(message, wall_now), now)
            case Command():
                self._receive_command(message, conversation, now)
            case Question():
                self._send(conversation, self._steered.answer(message, now))

    def _receive_command(self, command: Command, conversation: Conversation, now: float) -> None:
        """Begin what is new; what came before gets the same answer, and its id stands for nothing else."""
        known = self._obeying.get(command.id)
        over = self._over.get(command.id)
        if (known or (over[0] if over else command)) != command:
            self.statistics.conflicting += 1
            self._send(conversation, Done(command.id, ok=False, detail="the id of another command"))
        elif over is not None:
            self.statistics.repeated += 1
            self._send(conversation, over[1])
        elif known is None and len(self._obeying) < MAX_OBEYING:
            self._obeying[command.id] = command
            self._obey_at = now

    def _say(self, conversation: Conversation, now: float, wall_now: float) -> None:
        """Report what is due, and what is done of what was ordered."""
        if self._obey_at <= now:
            for command in list(self._obeying.values()):
                done = self._steered.obey(command, now)
                if done is not None:
                    del self._obeying[command.id]
                    self._remember(command, done)
                    self._send(conversation, done)
                    self._report_at = now
            self._obey_at = now + OBEY_AGAIN_S if self._obeying else inf
        if self._report_at <= now:
            self._sequence += 1
            self._send(conversation, self._report(now, wall_now))
            self.statistics.reports += 1
            self._report_at = now + self._report_every_s

    def _report(self, now: float, wall_now: float) -> Report:
        report = self._steered.report(self._sequence, now, wall_now)
        statistics = self.statistics
        if not statistics.tables_refused:
            return report
        return replace(report, tables_refused=statistics.tables_refused, table_refused=statistics.table_refused)

    def _remember(self, command: Command, done: Done) -> None:
        self._over[command.id] = command, done
        if len(self._over) > MAX_REMEMBERED:
            self._over.popitem(last=False)

    def _send(self, conversation: Conversation, message: Report | Done | Answer) -> None:
        try:
            conversation.send(message)
        except ContractError as error:
            self.statistics.misfits += 1
            self.misfit = str(error)

    def _note_heard(self, conversation: Conversation, now: float) -> None:
        """Say that the controller is there: a home without its follower goes by that (docs/rooms.md).

        Controllers say little while nothing changes, but they acknowledge every report.
        """
        newest = conversation.newest_packet
        if self._follows and newest != self._heard and now >= self._heard_at + HEARD_AGAIN_S:
            self._heard, self._heard_at = newest, now
            self._steered.controller_heard(now)

    def _follow(self, taken: Taken, now: float) -> None:
        """Go by what the controller said; rooms that it changes hear of it after they have changed."""
        self._use(taken, now)
        self._follows = taken.fault is None
        if self._follows:
            self._heard_at = -inf

    def _use(self, taken: Taken, now: float) -> None:
        if taken.fault is not None:
            # A difference to another table is no alarm: the whole one comes within a cycle.
            if taken.fault is Fault.ANOTHER_BASE:
                return
            self.statistics.tables_refused += 1
            self.statistics.table_refused = taken.fault.value
            self.report_soon(now)
            if len(self.refusals) < MAX_REFUSALS:
                self.refusals.append(taken)
        elif taken.fresh and self.orders.table is not None:
            self._steered.apply_table(self.orders.table, now)
