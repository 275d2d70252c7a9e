"""What operators want: orders that are done once they are on disk, and questions that relays answer.

`plane` calls this, `commands` and `questions` keep what is open, replies and batches go into `outgoing`. Each call of
an operator gets a ticket, and the reply comes with it.
"""

from __future__ import annotations

from msgspec.structs import replace

from control.commands import Commands, Verdict
from control.connected import Connected
from control.events import EventLog
from control.outgoing import Outgoing, Reply
from control.questions import Questions
from control.registry.values import RelayView
from control.state import Order, State
from tradewind.contract.messages import Answer, Done, Question


class Operators:
    """Orders and questions of one controller. `connected`, `events` and `out` are the plane's."""

    __slots__ = ("_connected", "_events", "_out", "_questions", "commands")

    def __init__(self, state: State, connected: Connected, events: EventLog, out: Outgoing) -> None:
        self.commands = Commands(state)
        self._questions = Questions()
        self._connected = connected
        self._events = events
        self._out = out

    @property
    def asked(self) -> int:
        """Questions since the start."""
        return self._questions.asked

    # --- Operators ---

    def order(self, order: Order, view: RelayView | None, wall_now: float) -> int:
        """Something is to be done at a relay, which is known like this; returns the reply's ticket."""
        ticket, out = self._out.ticket(), self._out
        if view is None and self.commands.order(order.id) is None:
            out.reply(Reply(ticket, 404, {"error": f"there is no relay {order.relay}"}))
            return ticket
        if order.action == "kick" and view is not None:
            # Sessions are numbered anew in every life of a relay.
            order = replace(order, boot=view.hello.boot.hex())
        taken = self.commands.receive(order, wall_now)
        match taken.verdict:
            case Verdict.CONFLICT:
                out.reply(Reply(ticket, 409, {"error": f"{order.id} is the id of another command"}))
            case Verdict.FULL:
                out.reply(Reply(ticket, 503, {"error": "too many commands are open"}))
            case Verdict.KNOWN:
                out.reply_saved(taken.order, Reply(ticket, 200, taken.order))
            case Verdict.NEW:
                out.save(taken.batch, Reply(ticket, 202, taken.order))
                self._events.add(wall_now, "command", order.relay, order.by, f"{order.action} {order.id}")
        return ticket

    def ask(self, relay: str, question: Question, view: RelayView | None, now: float) -> int:
        """Something of a relay, which is known like this, is to be seen; returns the ticket of reply and question."""
        ticket = self._out.ticket()
        link = self._connected.of(relay)
        if link is None:
            self._out.reply(Reply(ticket, 404 if view is None else 502, {"error": f"{relay} is not connected"}))
        elif (refused := self._questions.ask(ticket, relay, now)) is not None:
            self._out.reply(refused)
        else:
            self._out.send(link.number, replace(question, id=ticket))
        return ticket

    def receive_unsent(self, question: Question) -> tuple[Reply, ...]:
        """A question has no bytes in the version that its relay speaks; returns what to tell who asked."""
        return self._questions.refuse(question.id, "the relay is of a release that cannot answer that")

    # --- Relays ---

    def receive_done(self, relay: str, done: Done, wall_now: float) -> None:
        """A relay says what became of a command."""
        batch = self.commands.receive_done(relay, done, wall_now)
        if batch.orders:
            (order,) = batch.orders
            self._events.add(wall_now, f"command_{order.progress}", relay, order.by, f"{order.action} {order.id}")
            self._out.save(batch)

    def receive_answer(self, relay: str, answer: Answer) -> None:
        """A relay answers a question."""
        self._out.reply(*self._questions.receive_answer(relay, answer))

    def receive_life(self, relay: str, boot: bytes, now: float, wall_now: float, *, anew: bool) -> None:
        """A relay is welcome. `anew`: it has to be told again what stage it is meant to be in."""
        ended = self.commands.receive_life(relay, boot.hex(), wall_now)
        if ended.orders:
            self._out.save(ended)
        self.commands.receive_connected(relay, now, anew=anew)

    def receive_gone(self, relay: str, why: str) -> None:
        """A relay's link is gone."""
        self._out.reply(*self._questions.receive_gone(relay, why))

    # --- Time ---

    def next_deadline(self) -> float | None:
        """When to call `handle_deadline`."""
        moments = (self.commands.next_deadline(self._connected), self._questions.next_deadline())
        return min((moment for moment in moments if moment is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """Give up on answers that took too long, and send commands that are due."""
        self._out.reply(*self._questions.handle_deadline(now))
        self.send_commands(now)

    def send_commands(self, now: float) -> None:
        """Tell relays what is on disk and due."""
        for relay in self.commands.due(now):
            link = self._connected.of(relay)
            if link is not None:
                self._out.send(link.number, *self.commands.commands_to_send(relay, now))

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        self.commands.check_invariants()
        self._questions.check_invariants({link.peer.id for link in self._connected})
