"""In which order one session's media leaves: the draft's four rules, one quantum at a time.

A session has one `Outbox`. What has something to send waits in its heap; `relay.node` takes outboxes from the ready
queue and lets each fill one quantum. aioquic serves its streams in turn and takes any amount, so the order only
holds as long as little is handed over at once. Source: draft-20, "Scheduling Algorithm".
"""

from __future__ import annotations

from collections import Counter, deque
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import Protocol, TypeAlias

from relay.forwarding.peers import DropReason, Room, Sink

QUANTUM_BYTES = 16_384
"""The most a session hands over before the next session has its turn."""

STREAM_UNSENT_BYTES = 4_096
"""A stream that holds this much unsent (its own flow control blocks it) is passed over."""

Key: TypeAlias = tuple[int, int, int, int, int, int, int]
"""Subscriber priority, publisher priority, the request's turn, fill after live where their orders differ, group,
then fill before datagram before subgroup, then subgroup or object id."""


class Outcome(Enum):
    """How a schedulable item came out of its chance to send."""

    IDLE = "idle"
    """Nothing more to send for now, or ever: it wakes when there is."""
    MORE = "more"
    """The room given is used up."""
    BLOCKED = "blocked"
    """Flow control or stream credit holds it; others may go on."""


class Turn:
    """The fairness of one request among requests of equal priorities: who was served last waits longest."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class Schedulable(Protocol):
    """A stream, a datagram or a fetch that may have something to send."""

    queued: bool
    turn: Turn

    def key(self) -> Key:
        """Its place in the order now."""

    def send(self, sink: Sink, limit: int, room: Room, now: float) -> tuple[int, Outcome]:
        """Hand at most about `limit` bytes to the sink; returns the bytes handed over and how it came out."""


class Outbox:
    """Everything one session has to send, in order."""

    __slots__ = (
        "_gone",
        "_heap",
        "_ready",
        "_served",
        "_tick",
        "drops",
        "ready",
        "session",
        "sink",
        "waiting_datagrams",
    )

    def __init__(self, session: int, sink: Sink, ready: deque[Outbox]) -> None:
        self.session = session
        self.sink = sink
        self.ready = False
        """It stands in the ready queue."""
        self.drops: Counter[DropReason] = Counter()
        self.waiting_datagrams = 0
        self._ready = ready
        self._heap: list[tuple[Key, int, Schedulable]] = []
        self._gone = 0
        """Entries of the heap whose item was withdrawn."""
        self._tick = 0
        self._served = 0

    @property
    def has_work(self) -> bool:
        return bool(self._heap)

    def push(self, item: Schedulable) -> None:
        """Put an item into the order, unless it stands there."""
        if not item.queued:
            item.queued = True
            self._tick += 1
            heappush(self._heap, (item.key(), self._tick, item))
        if not self.ready:
            self.ready = True
            self._ready.append(self)

    def withdraw(self, item: Schedulable) -> None:
        """Take an item out of the order, and before long out of memory."""
        if item.queued:
            item.queued = False
            self._gone += 1
            if self._gone * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].queued]
                heapify(self._heap)
                self._gone = 0

    def mark(self) -> None:
        """The connection may take more than it could: have a turn if there is work."""
        if self._heap and not self.ready:
            self.ready = True
            self._ready.append(self)

    def reorder(self) -> None:
        """Priorities changed: give every item its new place."""
        self._heap = [(item.key(), tick, item) for _, tick, item in self._heap]
        heapify(self._heap)

    def clear(self) -> None:
        for _, _, item in self._heap:
            item.queued = False
        self._heap.clear()
        self._gone = 0

    def fill(self, now: float, quantum: int = QUANTUM_BYTES) -> int:
        """Send up to one quantum in order; returns the bytes handed over. The caller took it off the ready queue."""
        self.ready = False
        sink = self.sink
        room = sink.room(now)
        left = min(quantum, room.session_bytes)
        start = left
        blocked: list[tuple[Key, int, Schedulable]] = []
        while (heap := self._heap) and left > 0:
            key, tick, item = heappop(heap)
            if not item.queued:
                self._gone -= 1
                continue
            fresh = item.key()
            if fresh > key:
                heappush(heap, (fresh, tick, item))
                continue
            item.queued = False
            sent, outcome = item.send(sink, left, room, now)
            left -= sent
            if sent:
                self._served += 1
                item.turn.number = self._served
            if outcome is not Outcome.IDLE and not item.queued:
                item.queued = True
                if outcome is Outcome.BLOCKED:
                    blocked.append((fresh, tick, item))
                else:
                    heappush(self._heap, (item.key(), tick, item))
                    if left < 256:
                        break
        for entry in blocked:
            heappush(self._heap, entry)
        return start - left
