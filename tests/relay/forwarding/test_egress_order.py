"""The order of one session's media against a twin that looks at everything each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.forwarding.egress_order import Key, Outbox, Outcome, ReadyQueue, Turn
from tests.relay.forwarding.fakes import FakeSink


@dataclass(eq=False)
class Item:
    """Sends `pieces` of 600 bytes each, then says `last`."""

    name: int
    turn: Turn
    place: list[int]
    pieces: int
    last: Outcome
    log: list[int]
    queued: bool = False
    blocked: bool = False

    def key(self) -> Key:
        subscriber, publisher, group = self.place
        return subscriber, publisher, 0, group, 0, self.name

    def send(self, sink: Any, limit: int, now: float) -> tuple[int, Outcome]:
        if self.blocked:
            return 0, Outcome.BLOCKED
        self.log.append(self.name)
        size = 0
        while self.pieces and size < limit:
            self.pieces -= 1
            size += 600
        return size, Outcome.MORE if self.pieces else self.last


@dataclass
class Twin:
    """The same rules, said plainly."""

    waiting: list[Item] = field(default_factory=list)
    numbers: dict[Turn, int] = field(default_factory=dict)
    order: dict[int, int] = field(default_factory=dict)
    served: int = 0

    def rank(self, item: Item) -> tuple[int, ...]:
        subscriber, publisher, *rest = item.key()
        return subscriber, publisher, self.numbers[item.turn], *rest

    def fill(self, quantum: int, log: list[int]) -> None:
        left, passed = quantum, []
        while left > 0 and self.waiting:
            item = min(self.waiting, key=self.rank)
            self.waiting.remove(item)
            if item.blocked:
                passed.append(item)
                continue
            log.append(item.name)
            pieces = min(self.order[item.name], -(-left // 600))
            self.order[item.name] -= pieces
            left -= 600 * pieces
            if pieces:
                self.served += 1
                self.numbers[item.turn] = self.served
            if self.order[item.name]:
                self.waiting.append(item)
                if left < 256:
                    break
        self.waiting += passed


class EgressOrder(RuleBasedStateMachine):
    """Requests with items of random places; whatever happens, both send the same in the same order."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = ReadyQueue()
        self.sink = FakeSink()
        self.outbox = Outbox(1, self.sink, self.ready, 512)
        self.turns = [Turn() for _ in range(3)]
        for number, turn in enumerate(self.turns):
            turn.number = number - 3  # Between requests that were never served the order is nobody's business.
        self.items: list[Item] = []
        self.log: list[int] = []
        self.twin = Twin(numbers={turn: turn.number for turn in self.turns})

    @rule(
        turn=st.integers(0, 2),
        place=st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(-3, 3)),
        pieces=st.integers(0, 40),
    )
    def push(self, turn: int, place: tuple[int, int, int], pieces: int) -> None:
        item = Item(len(self.items), self.turns[turn], list(place), pieces, Outcome.IDLE, self.log)
        self.items.append(item)
        self.outbox.push(item)
        self.outbox.push(item)
        self.twin.waiting.append(item)
        self.twin.order[item.name] = pieces
        assert self.outbox.ready and len(self.ready) == 1

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        if self.twin.waiting:
            item = data.draw(st.sampled_from(self.twin.waiting))
            self.outbox.withdraw(item)
            self.twin.waiting.remove(item)

    @rule(data=st.data())
    def block_or_free(self, data: st.DataObject) -> None:
        if self.twin.waiting:
            item = data.draw(st.sampled_from(self.twin.waiting))
            item.blocked = not item.blocked

    @rule(turn=st.integers(0, 2), subscriber=st.integers(0, 3))
    def change_priority(self, turn: int, subscriber: int) -> None:
        for item in self.items:
            if item.turn is self.turns[turn]:
                item.place[0] = subscriber
        self.outbox.reorder()

    @rule(quantum=st.sampled_from([500, 4_000, 16_384]))
    def fill(self, quantum: int) -> None:
        if self.ready:
            self.ready.pop()
        del self.log[:]
        wanted: list[int] = []
        self.twin.fill(quantum, wanted)
        self.outbox.fill(0.0, quantum)
        assert self.log == wanted
        assert not self.outbox.ready
        self.outbox.mark()
        assert self.outbox.ready == bool(self.twin.waiting)

    @rule()
    def clear(self) -> None:
        self.outbox.clear()
        self.twin.waiting.clear()
        assert not any(item.queued for item in self.items)

    @invariant()
    def agree(self) -> None:
        self.outbox.check_invariants()
        assert self.outbox.has_work == bool(self.twin.waiting)
        assert {item.name for item in self.items if item.queued} == {item.name for item in self.twin.waiting}


TestEgressOrder = EgressOrder.TestCase


def test_a_session_that_takes_nothing_keeps_its_books_small() -> None:
    """Ever better items for a session without room leave no more behind than themselves."""
    ready = ReadyQueue()
    outbox = Outbox(1, FakeSink(), ready, 512)
    turn, other = Turn(), Turn()
    keeper = Item(0, other, [0, 0, 0], 1, Outcome.IDLE, [])
    outbox.push(keeper)
    for number in range(1, 1000):
        worse = Item(2 * number, turn, [9, 9, -number], 1, Outcome.IDLE, [])
        better = Item(2 * number + 1, turn, [9, 8, -number], 1, Outcome.IDLE, [])
        outbox.push(worse)
        outbox.push(better)
        outbox.withdraw(better)
        outbox.withdraw(worse)
        outbox.check_invariants()
    assert len(outbox._heap) <= 8 and len(turn.items) <= 4
    assert outbox.has_work
