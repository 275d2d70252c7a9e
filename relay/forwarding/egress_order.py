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

from relay.forwarding.peers import DropReason, Sink

QUANTUM_BYTES = 24_576
"""The most a session hands over before the next session has its turn: most video frames whole, so that nobody's frame
waits for its tail until everybody has had the head of theirs. How much waits unsent, the egress bounds."""

STREAM_UNSENT_BYTES = 4_096
"""A stream that holds this much unsent (its own flow control blocks it) is passed over."""

Key: TypeAlias = tuple[int, int, int, int, int, int]
"""Subscriber priority, publisher priority, fill after live where their orders differ, group, then fill before datagram
before subgroup, then subgroup or object id. Between the second and the third stands the request's turn."""


FILL, DATAGRAM, SUBGROUP = 0, 1, 2
"""Ties inside one group: fill first, then datagrams, then subgroups (draft-20, "Scheduling Algorithm", rule 4)."""


class Outcome(Enum):
    """How a schedulable item came out of its chance to send."""

    IDLE = "idle"
    """Nothing more to send for now, or ever: it wakes when there is."""
    MORE = "more"
    """The room given is used up."""
    BLOCKED = "blocked"
    """Flow control or stream credit holds it; others may go on."""


class Turn:
    """One request's place among others of equal priorities: who was served last waits longest.

    Its items wait here in their own order, which time does not change, so that serving one request never disturbs
    another's: the outbox orders requests, a request its items.
    """

    __slots__ = ("gone", "items", "number", "place")

    def __init__(self) -> None:
        self.number = 0
        self.items: list[tuple[Key, int, Schedulable]] = []
        self.gone = 0
        """Items that were withdrawn and are still listed."""
        self.place: Place | None = None
        """The entry of the outbox that counts; others of this request are stale."""

    def first(self) -> Key | None:
        """The key of what comes next; None where nothing waits."""
        items = self.items
        while items:
            if items[0][2].queued:
                return items[0][0]
            heappop(items)
            self.gone -= 1
        return None

    def tidy(self) -> None:
        """Let go of what was withdrawn once it is more than half."""
        if self.gone * 2 > len(self.items):
            self.items = [entry for entry in self.items if entry[2].queued]
            heapify(self.items)
            self.gone = 0


Place: TypeAlias = tuple[int, int, int, int, Turn]
"""Both priorities of a request's first item, the request's turn, a number that tells entries apart, the request."""


class Schedulable(Protocol):
    """A stream, a datagram or a fetch that may have something to send."""

    queued: bool
    turn: Turn

    def key(self) -> Key:
        """Its place in the order; it may only change in `send`, or before `Outbox.reorder`."""

    def send(self, sink: Sink, limit: int, now: float) -> tuple[int, Outcome]:
        """Hand at most about `limit` bytes to the sink; returns the bytes handed over and how it came out."""


class Fan(Protocol):
    """Something for many sessions that gets to one after the other; their outboxes stand in the queue for it."""

    def advance(self) -> bool:
        """Get to the next; False where there is none."""


MOST_FANS = 64
"""How many may be under way: where there are more, the oldest gets to everybody at once, and outboxes drop."""


class ReadyQueue:
    """Outboxes with something to send, in the order of their turns.

    What goes to many sessions is handed out here, one session at a time: the first has sent before the last is looked
    at.
    """

    __slots__ = ("_fans", "_outboxes")

    def __init__(self) -> None:
        self._outboxes: deque[Outbox] = deque()
        self._fans: deque[Fan] = deque()

    def __bool__(self) -> bool:
        return bool(self._outboxes or self._fans)

    def __len__(self) -> int:
        return len(self._outboxes)

    def append(self, outbox: Outbox) -> None:
        """Its turn is after those that stand here."""
        self._outboxes.append(outbox)

    def spread(self, fan: Fan) -> None:
        """Hand something out, after what is being handed out."""
        self._fans.append(fan)
        if len(self._fans) > MOST_FANS:
            oldest = self._fans.popleft()
            while oldest.advance():
                pass

    def pop(self) -> Outbox | None:
        """Whose turn it is; None where nobody has anything."""
        while not self._outboxes and self._fans:
            if not self._fans[0].advance():
                self._fans.popleft()
        return self._outboxes.popleft() if self._outboxes else None


class Outbox:
    """Everything one session has to send, in order."""

    __slots__ = ("_heap", "_lone", "_ready", "_served", "_stale", "_tick", "_waiting", "drops", "max_datagrams",
                 "ready", "session", "sink", "waiting_datagrams")  # fmt: skip

    def __init__(self, session: int, sink: Sink, ready: ReadyQueue, max_datagrams: int) -> None:
        self.session = session
        self.sink = sink
        self.ready = False
        """It stands in the ready queue."""
        self.drops: Counter[DropReason] = Counter()
        self.max_datagrams = max_datagrams
        self.waiting_datagrams = 0
        self._ready = ready
        self._heap: list[Place] = []
        self._lone: Schedulable | None = None
        """The only item that waits, where there was none before it: it needs no place among others."""
        self._stale = 0
        """Entries of the heap that do not count any more."""
        self._waiting = 0
        """Items that wait, of all requests."""
        self._tick = 0
        self._served = 0

    @property
    def has_work(self) -> bool:
        return self._waiting > 0

    def push(self, item: Schedulable) -> None:
        """Put an item into the order, unless it stands there."""
        if not item.queued:
            if not self._waiting:
                item.queued = True
                self._waiting = 1
                self._lone = item
            else:
                self._list_lone()
                self._list(item)
                self._place(item.turn)
        if not self.ready:
            self.ready = True
            self._ready.append(self)

    def withdraw(self, item: Schedulable) -> None:
        """Take an item out of the order, and before long out of memory."""
        if item.queued:
            item.queued = False
            self._waiting -= 1
            if item is self._lone:
                self._lone = None
                return
            item.turn.gone += 1
            item.turn.tidy()

    def mark(self) -> None:
        """The connection may take more than it could: have a turn if there is work."""
        if self._waiting and not self.ready:
            self.ready = True
            self._ready.append(self)

    def reorder(self) -> None:
        """Priorities changed: give every item its new place."""
        turns = self._turns()
        self._heap.clear()
        self._stale = 0
        for turn in turns:
            turn.items = [(item.key(), tick, item) for _, tick, item in turn.items if item.queued]
            heapify(turn.items)
            turn.gone = 0
            turn.place = None
            self._place(turn)

    def clear(self) -> None:
        self._list_lone()
        for turn in self._turns():
            for _, _, item in turn.items:
                item.queued = False
            turn.items.clear()
            turn.gone = 0
            turn.place = None
        self._heap.clear()
        self._waiting = self._stale = 0

    def fill(self, now: float, quantum: int = QUANTUM_BYTES) -> int:
        """Send up to one quantum in order; returns the bytes handed over. The caller took it off the ready queue."""
        self.ready = False
        sink = self.sink
        left = start = min(quantum, sink.room(now))
        blocked: list[Schedulable] = []
        while left > 0:
            item = self._take()
            if item is None:
                break
            sent, outcome = item.send(sink, left, now)
            turn = item.turn
            left -= sent
            if sent:
                self._served += 1
                turn.number = self._served
            if outcome is not Outcome.IDLE and not item.queued:
                if outcome is Outcome.BLOCKED:
                    blocked.append(item)
                else:
                    self._list_lone()
                    self._list(item)
            if turn.items:
                self._place(turn)
            if outcome is Outcome.MORE and left < 256:
                break
        for item in blocked:
            if not item.queued:
                self._list_lone()
                self._list(item)
                self._place(item.turn)
        return start - left

    def check_invariants(self) -> None:
        turns = self._turns()
        listed = [item for turn in turns for _, _, item in turn.items]
        if self._lone is not None:
            assert self._waiting == 1, "a lone item among others"
            listed.append(self._lone)
        assert sum(item.queued for item in listed) == self._waiting, "items that wait"
        assert sum(entry is not entry[4].place for entry in self._heap) == self._stale, "stale entries"
        for turn in turns:
            assert sum(not item.queued for _, _, item in turn.items) == turn.gone, "items withdrawn"
            first = turn.first()
            assert first is None or (turn.place is not None and turn.place[:2] <= first[:2]), "a request's place"

    def _take(self) -> Schedulable | None:
        """The item that comes next, taken off."""
        item = self._lone
        if item is not None:
            self._lone = None
        else:
            turn = self._next()
            if turn is None:
                return None
            item = heappop(turn.items)[2]
        item.queued = False
        self._waiting -= 1
        return item

    def _list_lone(self) -> None:
        """The item that waited alone does not any more: give it its place."""
        item, self._lone = self._lone, None
        if item is not None:
            self._waiting -= 1
            self._list(item)
            self._place(item.turn)

    def _list(self, item: Schedulable) -> None:
        """List an item with its request."""
        item.queued = True
        self._waiting += 1
        self._tick += 1
        heappush(item.turn.items, (item.key(), self._tick, item))

    def _place(self, turn: Turn) -> None:
        """See to it that a request stands where its first item belongs."""
        first = turn.first()
        if first is None:
            return
        place = turn.place
        if place is not None:
            if place[0] == first[0] and place[1] == first[1] and place[2] == turn.number:
                return
            self._stale += 1
            if self._stale * 2 > len(self._heap):
                turn.place = None
                self._heap = [entry for entry in self._heap if entry is entry[4].place]
                heapify(self._heap)
                self._stale = 0
        self._tick += 1
        turn.place = (first[0], first[1], turn.number, self._tick, turn)
        heappush(self._heap, turn.place)

    def _next(self) -> Turn | None:
        """The request that comes next, taken off; None where nothing waits."""
        heap = self._heap
        while heap:
            place = heappop(heap)
            turn = place[4]
            if place is not turn.place:
                self._stale -= 1
                continue
            turn.place = None
            first = turn.first()
            if first is None:
                continue
            if first[0] == place[0] and first[1] == place[1] and turn.number == place[2]:
                return turn
            self._place(turn)  # What stood first was withdrawn.
            heap = self._heap
        return None

    def _turns(self) -> list[Turn]:
        """Every request that has an entry."""
        return list({id(entry[4]): entry[4] for entry in self._heap}.values())
