"""All rooms of one relay: the face that the node and the assembly see.

The node hands in bytes and route-table entries, asks for `output` when its turn ends, and does what it says: answers go
to writers, messages to relays, writes and reads to the store (`relay.rooms.store`), whose results come back through
`receive_results`. `log` and `opening` are what forwarding publishes. docs/rooms.md maps all of it onto MoQT tracks.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from relay.rooms.effects import (
    FORWARDING_READS,
    Answer,
    Doing,
    Output,
    Read,
    ReadDone,
    Stored,
    ToRelay,
    Write,
    Writer,
    Written,
)
from relay.rooms.log import RoomLog
from relay.rooms.rates import RoomSettings
from relay.rooms.room import Room, RoomStatistics
from relay.rooms.sequencer import RETRY_MS
from tradewind.contract.copies import Copied, Copy
from tradewind.contract.messages import RoomEntry, RoomReport
from tradewind.contract.rooms import KEY_BYTES, Ack, Nak, Opening, Publish, RoomMessageError, RoomName, Why, decode

_NO_KEY = bytes(KEY_BYTES)


@dataclass(slots=True)
class Told:
    """What writers were told since the start, message by message."""

    stored: Counter[int] = field(default_factory=Counter)
    """Acknowledgements, by on how many disks the message was."""
    repeated: int = 0
    """Those among them that told of a place once more."""
    refused: Counter[Why] = field(default_factory=Counter)

    def count(self, message: Ack | Nak) -> None:
        """One answer."""
        if isinstance(message, Ack):
            self.stored[message.stored] += 1
            self.repeated += message.dup
        else:
            self.refused[message.why] += 1


class Rooms:
    """All rooms of one relay."""

    __slots__ = ("_deadlines", "_due", "_me", "_naks", "_rooms", "_settings", "_touched", "told")

    def __init__(self, me: str, settings: RoomSettings, stored: Mapping[RoomName, Stored]) -> None:
        self._me = me
        self._settings = settings
        self._rooms = {name: Room(name, me, what, settings) for name, what in stored.items()}
        self._touched: dict[RoomName, Room] = {}
        self._due: dict[RoomName, float] = {}
        self._deadlines: list[tuple[float, RoomName]] = []
        self._naks: list[Answer] = []
        self.told = Told()

    def apply(self, entries: Iterable[RoomEntry], now: float) -> None:
        """All rooms of a route table. One that it no longer has is forgotten where nothing of it is on this disk."""
        named = set()
        for entry in entries:
            named.add(entry.room)
            room = self._rooms.get(entry.room)
            if room is None:
                room = self._rooms[entry.room] = Room(entry.room, self._me, Stored(), self._settings)
            room.apply(entry, now)
            self._touched[entry.room] = room
        gone = [name for name, room in self._rooms.items() if name not in named and room.is_idle]
        for name in gone:
            del self._rooms[name]
            self._touched.pop(name, None)
            self._due.pop(name, None)

    def receive_controller(self, now: float) -> None:
        """A controller answered, and this relay has its newest table."""
        for name, room in self._rooms.items():
            if room.entry is not None and room.entry.home == self._me:
                room.receive_controller(now)
                self._touched[name] = room

    def receive_publish(
        self, name: RoomName, writer: Writer, user: bytes, data: bytes, now: float, wall_now: float
    ) -> None:
        """An object of a writer's track `pub`; `user` is what the writer's token lets it write as."""
        try:
            message = decode(data)
        except RoomMessageError:
            self._naks.append(Answer(writer, Nak(_NO_KEY, Why.MALFORMED)))
            return
        if not isinstance(message, Publish):
            self._naks.append(Answer(writer, Nak(_NO_KEY, Why.MALFORMED)))
            return
        room = self._rooms.get(name)
        if room is None or message.room != name:
            why = Why.MALFORMED if message.room != name else Why.NO_HOME
            self._naks.append(Answer(writer, Nak(message.key, why, RETRY_MS[why])))
            return
        room.receive_publish(writer, user, message, now, wall_now)
        self._touched[name] = room

    def receive_relay(self, relay: str, message: Copy | Copied, now: float) -> None:
        """What another relay says of a room; `relay` has proven its name."""
        room = self._rooms.get(message.room)
        if room is not None:
            room.receive_relay(relay, message, now)
            self._touched[message.room] = room

    def receive_results(self, results: Iterable[Written | ReadDone], now: float) -> None:
        """What the store has done for rooms; answers to forwarding's reads are not for here."""
        for result in results:
            room = self._rooms[result.room]
            assert result.id < FORWARDING_READS
            if isinstance(result, Written):
                room.receive_written(result, now)
            else:
                room.receive_read(result)
            self._touched[result.room] = room

    def output(self, now: float) -> Output:
        """Everything that is to be done after calls above, each thing once."""
        answers, self._naks = self._naks, []
        relays: list[ToRelay] = []
        store: list[Write | Read] = []
        touched, self._touched = self._touched, {}
        for name, room in touched.items():
            out = room.output(now)
            answers += out.answers
            relays += out.to_relays
            store += out.to_store
            due = room.next_deadline()
            if due is None:
                self._due.pop(name, None)
            elif self._due.get(name) != due:
                self._due[name] = due
                heapq.heappush(self._deadlines, (due, name))
        for _, message in answers:
            self.told.count(message)
        return Output(tuple(answers), tuple(relays), tuple(store))

    def next_deadline(self) -> float | None:
        """When to call `handle_deadline`; None: nothing waits for the time."""
        while self._deadlines and self._due.get(self._deadlines[0][1]) != self._deadlines[0][0]:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def handle_deadline(self, now: float) -> None:
        """The time that `next_deadline` gave has come; `output` has what comes of it."""
        while (due := self.next_deadline()) is not None and due <= now:
            _, name = heapq.heappop(self._deadlines)
            del self._due[name]
            room = self._rooms[name]
            room.handle_deadline(now)
            self._touched[name] = room

    def home_of(self, name: RoomName) -> str | None:
        """Who orders a room, as the newest table says; None: nobody."""
        room = self._rooms.get(name)
        return room.entry.home if room is not None and room.entry is not None else None

    def entry_of(self, name: RoomName) -> RoomEntry | None:
        """What the newest table says of a room."""
        room = self._rooms.get(name)
        return room.entry if room is not None else None

    def doing(self, name: RoomName) -> Doing:
        """What this relay is in a room."""
        room = self._rooms.get(name)
        return room.doing if room is not None else Doing.WATCHING

    def names(self) -> tuple[RoomName, ...]:
        """Every room that this relay knows."""
        return tuple(self._rooms)

    def log(self, name: RoomName) -> RoomLog | None:
        """The log that this relay publishes under `log.epoch`; None: it publishes none of this room."""
        room = self._rooms.get(name)
        return room.log if room is not None and room.serves_log else None

    def opening(self, name: RoomName) -> Opening | None:
        """The newest object of the track `epochs`, where this relay is the home."""
        room = self._rooms.get(name)
        return room.opening if room is not None else None

    def reports(self) -> tuple[RoomReport, ...]:
        """For controllers: of rooms whose home or follower this relay is or was."""
        return tuple(room.report() for room in self._rooms.values() if room.log.standing.promised)

    def statistics(self) -> dict[RoomName, RoomStatistics]:
        """Of every room that this relay knows."""
        return {name: room.statistics() for name, room in self._rooms.items()}

    def check_invariants(self) -> None:
        for room in self._rooms.values():
            room.check_invariants()
