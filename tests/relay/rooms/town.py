"""Relays with rooms, their disks, a controller and a network between them, all in one process and on one clock.

A `Disk` keeps what was flushed and loses the rest at a crash. `Town` moves messages one at a time where a test says so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from relay.rooms.effects import Doing, Outcome, Read, ReadDone, Stored, Write, Written
from relay.rooms.rates import RoomSettings
from relay.rooms.rooms import Rooms
from relay.rooms.standing import NEW, Standing
from tradewind.contract import copies
from tradewind.contract.messages import RoomEntry
from tradewind.contract.rooms import (
    NO_CHAIN,
    Ack,
    Nak,
    Place,
    Publish,
    Record,
    Why,
    chain_of,
    decode_record,
    encode,
)

ROOM = (b"app", b"r", b"show")
SETTINGS = RoomSettings(room_per_s=1e6, writer_per_s=1e6)


def key_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


def publish(number: int, **more: object) -> Publish:
    values = {"room": ROOM, "key": key_of(number), "cls": 3, "sent_ms": 1, "body": b"%d" % number}
    return Publish(**(values | more))  # type: ignore[arg-type]


@dataclass
class Shelf:
    """One room on a disk."""

    records: list[bytes] = field(default_factory=list)
    standing: Standing = NEW
    quarantine: list[bytes] = field(default_factory=list)

    def copy(self) -> Shelf:
        return Shelf(list(self.records), self.standing, list(self.quarantine))

    def places(self) -> dict[bytes, Place]:
        found = map(decode_record, self.records)
        return {record.key: Place(record.epoch, record.seq, record.at_ms) for record in found}

    def stored(self) -> Stored:
        chain = chain_of(self.records[-1]) if self.records else NO_CHAIN
        return Stored(len(self.records), chain, self.standing)


class Disk:
    """A store that does one operation when it is told to. `hasty`: it says STORED before it has flushed."""

    def __init__(self, *, hasty: bool = False) -> None:
        self.hasty = hasty
        self.full = False
        self.flushed = Shelf()
        self.dirty = Shelf()
        self.queue: deque[Write | Read] = deque()

    def step(self) -> Written | ReadDone:
        """Do the oldest operation."""
        one = self.queue.popleft()
        if isinstance(one, Read):
            return ReadDone(one.id, one.room, one.first, tuple(self.dirty.records[one.first : one.first + one.count]))
        written = self._write(one)
        if not self.hasty:
            self.flushed = self.dirty.copy()
        return written

    def crash(self) -> None:
        """Lose what was not flushed, and what was asked for."""
        self.dirty = self.flushed.copy()
        self.queue.clear()

    def _write(self, write: Write) -> Written:
        shelf = self.dirty
        kept = shelf.records if write.cut_from is None else shelf.records[: write.cut_from]
        places = {key: place for key, place in shelf.places().items() if place.seq < len(kept)}
        keys = [entry.key for entry in write.entries]
        found = {key: places[key] for key in (*keys, *write.lookups) if key in places}
        if any(key in found for key in keys):
            return Written(write.id, write.room, Outcome.DUPLICATE, found)
        if self.full:
            return Written(write.id, write.room, Outcome.REFUSED, found)
        assert len(kept) == write.first
        shelf.quarantine += shelf.records[len(kept) :]
        shelf.records = kept + [entry.payload for entry in write.entries]
        if write.standing is not None:
            shelf.standing = write.standing
        chain = chain_of(kept[-1]) if kept else NO_CHAIN
        return Written(write.id, write.room, Outcome.STORED, found, chain if write.cut_from is not None else None)


class Relay:
    """One relay's rooms and disk; `rooms` None: it is dead."""

    def __init__(self, name: str, settings: RoomSettings, *, hasty: bool = False) -> None:
        self.name = name
        self.settings = settings
        self.disk = Disk(hasty=hasty)
        self.rooms: Rooms | None = None
        self.start()

    def start(self) -> None:
        self.rooms = Rooms(self.name, self.settings, {ROOM: self.disk.flushed.stored()})

    def crash(self) -> None:
        self.rooms = None
        self.disk.crash()

    @property
    def live(self) -> Rooms:
        assert self.rooms is not None
        return self.rooms

    @property
    def doing(self) -> Doing:
        return Doing(self.live.statistics()[ROOM].doing)

    @property
    def records(self) -> list[Record]:
        return list(map(decode_record, self.disk.dirty.records))

    def visible(self) -> list[bytes]:
        """What a reader of this relay's log gets."""
        assert self.rooms is not None
        log = self.rooms.log(ROOM)
        return self.disk.dirty.records[: log.visible] if log is not None else []


class Town:
    """Relays, what is between them, and what writers were told."""

    def __init__(self, names: str = "abc", settings: RoomSettings = SETTINGS, *, hasty: bool = False) -> None:
        self.now = 100.0
        self.relays = {name: Relay(name, settings, hasty=hasty) for name in names}
        self.wires: dict[tuple[str, str], deque[bytes]] = {}
        self.cut: set[frozenset[str]] = set()
        self.entry: RoomEntry | None = None
        self.answers: list[tuple[object, Ack | Nak]] = []

    def name_home(self, home: str, follower: str = "", base: int | None = None, tell: str | None = None) -> None:
        """A new epoch, told to all relays that live, or to those in `tell`."""
        epoch = self.entry.epoch + 1 if self.entry is not None else 1
        self.entry = RoomEntry(ROOM, home, follower, epoch, base)
        for name in self.relays if tell is None else tell:
            self.tell(name)

    def tell(self, name: str, *, heard: bool = True) -> None:
        """Give a relay the table as it is; not `heard`: it was on its disk."""
        rooms = self.relays[name].rooms
        if rooms is not None and self.entry is not None:
            rooms.apply([self.entry], self.now)
            if heard:
                rooms.receive_controller(self.now)
            self.take(name)

    def publish(self, name: str, message: Publish, writer: object = "ann", user: bytes = b"ann") -> None:
        rooms = self.relays[name].rooms
        assert rooms is not None
        rooms.receive_publish(ROOM, writer, user, encode(message), self.now, 5.0)
        self.take(name)

    def take(self, name: str) -> None:
        """Do what a relay wants done, as far as nobody has to move."""
        relay = self.relays[name]
        if relay.rooms is None:
            return
        relay.rooms.check_invariants()
        output = relay.rooms.output(self.now)
        self.answers += output.answers
        relay.disk.queue.extend(output.to_store)
        for to, message in output.to_relays:
            self.wires.setdefault((name, to), deque(maxlen=64)).append(copies.encode(message))

    def flush(self, name: str) -> None:
        """Let a disk do one thing."""
        relay = self.relays[name]
        assert relay.rooms is not None
        relay.rooms.receive_results([relay.disk.step()], self.now)
        self.take(name)

    def deliver(self, source: str, to: str) -> None:
        """Move one message, or lose it."""
        data = self.wires[source, to].popleft()
        rooms = self.relays[to].rooms
        if rooms is None or frozenset((source, to)) in self.cut:
            return
        message = copies.decode(data)
        assert isinstance(message, copies.Copy | copies.Copied)
        rooms.receive_relay(source, message, self.now)
        self.take(to)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for name, relay in self.relays.items():
            if relay.rooms is not None:
                due = relay.rooms.next_deadline()
                if due is not None and due <= self.now:
                    relay.rooms.handle_deadline(self.now)
                    self.take(name)

    def settle(self, limit: int = 10_000) -> None:
        """Let disks and wires do everything that is on its way."""
        for _ in range(limit):
            disks = [name for name, relay in self.relays.items() if relay.rooms is not None and relay.disk.queue]
            wires = [pair for pair, queue in self.wires.items() if queue]
            if not disks and not wires:
                return
            for name in disks:
                self.flush(name)
            for pair in wires:
                if self.wires[pair]:
                    self.deliver(*pair)
        raise AssertionError("it never settles")

    def crash(self, name: str) -> None:
        self.relays[name].crash()
        for pair in self.wires:
            if name in pair:
                self.wires[pair].clear()

    def told(self) -> list[Ack | Nak]:
        """Answers since the last call, without their writers."""
        answers, self.answers = self.answers, []
        return [message for _, message in answers]


def opened(home: str = "a", follower: str = "b", **more: object) -> Town:
    """A town whose room is open. `more`: settings."""
    town = Town(settings=replace(SETTINGS, **more))  # type: ignore[arg-type]
    town.name_home(home, follower)
    town.settle()
    assert town.relays[home].doing is Doing.HOME
    return town


def acks(town: Town) -> list[tuple[int, int, bool, int]]:
    """(epoch, seq, dup, stored) of every answer since the last call; all have to be ACKs."""
    told = town.told()
    assert all(isinstance(answer, Ack) for answer in told), told
    return [(a.epoch, a.seq, a.dup, a.stored) for a in told if isinstance(a, Ack)]


def naks(town: Town) -> list[Why]:
    """Why each answer since the last call is none; all have to be NAKs."""
    told = town.told()
    assert all(isinstance(answer, Nak) for answer in told), told
    return [answer.why for answer in told if isinstance(answer, Nak)]
