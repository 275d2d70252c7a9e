"""What operators order, and what became of it: each order is journaled before it acts, and repeated until it is done.

An order has an id that the asker chose, so that asking twice does nothing twice. `plane` hands in orders, what was
saved, who is connected and what relays say is done; it takes batches to save and commands to send. A relay that starts
anew has forgotten its stage: the order behind its `Wish` is sent to it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator
from enum import Enum
from typing import Literal, NamedTuple

from msgspec.structs import replace

from control.state import AuditLine, Batch, Order, State, Wish
from tradewind.contract.messages import Command, Done

RETRY_S = 2.0
"""How often an order is sent that has no answer."""
MAX_OPEN = 1_000
MAX_KEPT = 10_000
"""Orders in memory; of those that are over the oldest are forgotten."""
MAX_ID_LENGTH = 128
MAX_AUDIT = 1_000
"""Lines of audit in memory; the store has all of them."""

STAGES: dict[str, Literal["serving", "cordoned", "draining"]] = {
    "drain": "draining",
    "undrain": "serving",
    "cordon": "cordoned",
    "uncordon": "serving",
}
"""What stage each action wants; a later one of these takes the place of an earlier one."""


class Verdict(Enum):
    """What became of an order when it came."""

    NEW = "new"
    KNOWN = "known"
    """It came before; nothing happens again."""
    CONFLICT = "conflict"
    """Its id has another order."""
    FULL = "full"


class Taken(NamedTuple):
    """An order as it stands, and what to save before it acts."""

    verdict: Verdict
    order: Order
    batch: Batch


class CommandStatistics(NamedTuple):
    """What metrics show."""

    open: int
    done: int
    failed: int
    superseded: int
    sent: int


class Commands:
    """All orders. `state` is what the store had."""

    __slots__ = ("_audit_lines", "_audited", "_counts", "_due", "_open", "_orders", "_saved", "_wishes")

    def __init__(self, state: State) -> None:
        self._orders = {order.id: order for order in state.orders}
        self._wishes = {wish.relay: wish for wish in state.wishes}
        self._open: dict[str, dict[str, None]] = {}
        """Order ids by relay, in the order in which they came."""
        self._saved = set(self._orders)
        self._due: dict[str, float] = {}
        """When each open order is sent next."""
        self._audited = max((line.number for line in state.audit), default=0)
        self._audit_lines = deque(state.audit, MAX_AUDIT)
        self._counts = dict.fromkeys(("done", "failed", "superseded", "sent"), 0)
        for order in state.orders:
            if order.progress == "open":
                self._reopen(order.id)

    def receive(self, order: Order, wall_now: float) -> Taken:
        """Take an order. What comes back is to be saved, then `receive_saved` told, and only then does it act."""
        known = self._orders.get(order.id)
        if known is not None:
            verdict = Verdict.KNOWN if known.asks_the_same(order) else Verdict.CONFLICT
            return Taken(verdict, known, Batch())
        if sum(map(len, self._open.values())) >= MAX_OPEN:
            return Taken(Verdict.FULL, order, Batch())
        written, audit = (
            [order],
            [self._audit(wall_now, order, f"ordered: {order.reason}" if order.reason else "ordered")],
        )
        wishes: list[Wish] = []
        if order.action in STAGES:
            for earlier in self._superseded(order):
                over = self._end(earlier, "superseded", f"by {order.id}", wall_now)
                if earlier.progress == "open":
                    written.append(over)
                    audit.append(self._audit(wall_now, over, over.progress))
            wish = Wish(order.relay, STAGES[order.action], order.id, wall_now)
            self._wishes[order.relay] = wish
            wishes.append(wish)
        self._forget_old()
        self._orders[order.id] = order
        self._open.setdefault(order.relay, {})[order.id] = None
        return Taken(Verdict.NEW, order, Batch(orders=tuple(written), wishes=tuple(wishes), audit=tuple(audit)))

    def receive_saved(self, order: str, now: float) -> None:
        """An order is on disk: it may act."""
        self._saved.add(order)
        if order in self._orders and order in self._open.get(self._orders[order].relay, ()):
            self._due[order] = now

    def receive_connected(self, relay: str, now: float, *, anew: bool) -> None:
        """A relay is here. `anew`: it has started since, and knows nothing of what was ordered before."""
        wish = self._wishes.get(relay)
        if anew and wish is not None and wish.stage != "serving" and wish.order in self._orders:
            self._reopen(wish.order)
        for order in self._open.get(relay, ()):
            if order in self._saved:
                self._due[order] = now

    def receive_life(self, relay: str, boot: str, wall_now: float) -> Batch:
        """In which life a relay is that is here; what to save: a session of an earlier one is not there to be ended."""
        open_orders = [self._orders[id] for id in self._open.get(relay, ())]
        gone = [order for order in open_orders if order.boot and order.boot != boot]
        over = tuple(self._end(order, "failed", "the relay has begun anew since", wall_now) for order in gone)
        return Batch(orders=over, audit=tuple(self._audit(wall_now, order, _result(order)) for order in over))

    def receive_done(self, relay: str, done: Done, wall_now: float) -> Batch:
        """A relay has done an order, or cannot; what to save of it. Others' orders and unknown ones change nothing."""
        order = self._orders.get(done.command)
        if order is None or order.relay != relay or order.id not in self._open.get(relay, ()):
            return Batch()
        if order.progress != "open":
            self._close(order)
            return Batch()
        over = self._end(order, "done" if done.ok else "failed", done.detail, wall_now)
        return Batch(orders=(over,), audit=(self._audit(wall_now, over, _result(over)),))

    def commands_to_send(self, relay: str, now: float) -> Iterator[Command]:
        """What a connected relay is to be told now; each is told again until it is done."""
        for id in list(self._open.get(relay, ())):
            if self._due.get(id, float("inf")) > now:
                continue
            self._due[id] = now + RETRY_S
            self._counts["sent"] += 1
            order = self._orders[id]
            yield Command(order.id, order.action, order.deadline_s, order.session, order.reason)

    def due(self, now: float) -> tuple[str, ...]:
        """Relays for which `commands_to_send` has something, in the order in which their orders came."""
        return tuple(
            relay for relay, ids in self._open.items() if any(self._due.get(id, float("inf")) <= now for id in ids)
        )

    def next_deadline(self, connected: Container[str]) -> float | None:
        """When `commands_to_send` has something for one of these relays."""
        moments = (due for id, due in self._due.items() if self._orders[id].relay in connected)
        return min(moments, default=None)

    def note(self, wall_now: float, who: str, what: str, target: str, result: str) -> AuditLine:
        """A line of audit for a change that is no order."""
        self._audited += 1
        line = AuditLine(self._audited, wall_now, who, what, target, result)
        self._audit_lines.append(line)
        return line

    def audit(self, limit: int) -> tuple[AuditLine, ...]:
        """The newest lines of audit, oldest first."""
        return tuple(self._audit_lines)[-limit:] if limit else ()

    def order(self, id: str) -> Order | None:
        """One order as it stands."""
        return self._orders.get(id)

    def orders(self) -> tuple[Order, ...]:
        """All that are remembered, oldest first."""
        return tuple(self._orders.values())

    def wish(self, relay: str) -> Wish | None:
        """What stage a relay is meant to be in; None: nobody ever said."""
        return self._wishes.get(relay)

    def statistics(self) -> CommandStatistics:
        """Since the start; `open` now."""
        return CommandStatistics(sum(map(len, self._open.values())), **self._counts)

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        for relay, ids in self._open.items():
            assert ids, relay
            assert all(self._orders[id].relay == relay for id in ids)
        opened = {id for ids in self._open.values() for id in ids}
        assert {order.id for order in self._orders.values() if order.progress == "open"} <= opened
        assert self._due.keys() <= opened & self._saved

    def _superseded(self, order: Order) -> list[Order]:
        found = (self._orders[id] for id in self._open.get(order.relay, ()))
        return [earlier for earlier in found if earlier.action in STAGES]

    def _end(self, order: Order, progress: Literal["done", "failed", "superseded"], detail: str, at: float) -> Order:
        over = replace(order, progress=progress, detail=detail, ended_wall=at)
        if order.progress == "open":
            self._orders[order.id] = over
            self._counts[progress] += 1
        self._close(order)
        return self._orders[order.id]

    def _close(self, order: Order) -> None:
        self._due.pop(order.id, None)
        ids = self._open[order.relay]
        del ids[order.id]
        if not ids:
            del self._open[order.relay]

    def _reopen(self, id: str) -> None:
        self._open.setdefault(self._orders[id].relay, {})[id] = None

    def _audit(self, wall_now: float, order: Order, result: str) -> AuditLine:
        target = f"{order.relay}/{order.session}" if order.session else order.relay
        return self.note(wall_now, order.by, f"{order.action} {order.id}", target, result)

    def _forget_old(self) -> None:
        if len(self._orders) < MAX_KEPT:
            return
        standing = {wish.order for wish in self._wishes.values()}
        opened = {id for ids in self._open.values() for id in ids}
        for id in [id for id in self._orders if id not in standing and id not in opened][: MAX_KEPT // 10]:
            del self._orders[id]
            self._saved.discard(id)


def _result(order: Order) -> str:
    return f"{order.progress} {order.detail}".strip()
