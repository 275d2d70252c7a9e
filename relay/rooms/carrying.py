"""Messages of writers at a relay that is not their room's home: carried there, and their answers brought back.

`relay.room_tracks` owns one. It hands in what writers publish, what the home answers, and whether the home can be
reached; it sends `carried` on the track `in` of this relay and hands `answers` to writers. A message that no home ever
saw is refused with NO_HOME; one that a home may have taken is carried again to the next one, where its key makes it
the same message, and is never refused here.

A home that is dead is still reached for a while: nobody has said otherwise. One that answers nothing for `SILENT_S`
gets no new messages, so that they can be refused, and is asked for an old one again until it answers.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from relay.rooms.sequencer import RETRY_MS
from tradewind.contract.copies import Answered, Carried
from tradewind.contract.rooms import Ack, Nak, RoomMessageError, RoomName, Why, decode

REACH_S = 1.5
"""How long a message waits for a home that cannot be reached."""
FORGET_S = 10.0
"""How long a message is carried again to other homes; its writer asks again by then."""
SILENT_S = 2.0
"""How long a home may answer none of the messages that it was sent. Another one is named sooner where that can be."""
PROBE_S = 0.5
"""How often a silent home is sent a message again."""
MAX_WAITING = 4096
"""Messages of one room without an answer."""


class ForWriter(NamedTuple):
    """An answer, and whose it is."""

    room: RoomName
    writer: RoomName
    message: Ack | Nak


_Key: TypeAlias = tuple[int, bytes]
"""A writer's number and the message's key."""


class _Waiting(NamedTuple):
    data: bytes
    at: float


@dataclass(slots=True)
class _Home:
    """One room's home as this relay sees it."""

    reachable: bool = False
    silent: bool = False
    quiet_since: float = 0.0
    """Since when it owes an answer and gave none; while it is silent: when it was sent something last."""
    sent: OrderedDict[_Key, _Waiting] = field(default_factory=OrderedDict)
    unsent: OrderedDict[_Key, _Waiting] = field(default_factory=OrderedDict)

    @property
    def takes(self) -> bool:
        """Whether new messages go there. To one that is silent and owes nothing, one does."""
        return self.reachable and (not self.silent or not self.sent)

    def in_order(self) -> list[tuple[_Key, _Waiting]]:
        return [*self.sent.items(), *self.unsent.items()]


class Carrying:
    """What this relay carries for its writers."""

    __slots__ = ("_answers", "_carried", "_homes", "_number", "_numbers", "_writers", "refused")

    def __init__(self, first_number: int) -> None:
        """`first_number` is higher than any that this relay ever used: an answer to a former life finds nobody."""
        self._number = first_number
        self._numbers: dict[tuple[RoomName, RoomName], int] = {}
        self._writers: dict[int, tuple[RoomName, RoomName]] = {}
        self._homes: dict[RoomName, _Home] = {}
        self._carried: list[Carried] = []
        self._answers: list[ForWriter] = []
        self.refused: Counter[Why] = Counter()
        """What was refused here, and not by a home."""

    def receive_publish(self, room: RoomName, writer: RoomName, key: bytes, data: bytes, now: float) -> None:
        """A message of a writer here, whose home is elsewhere."""
        home = self._homes.setdefault(room, _Home())
        number = self._number_of(room, writer)
        entry = (number, key)
        known = entry in home.sent or entry in home.unsent
        if len(home.sent) + len(home.unsent) >= MAX_WAITING and not known:
            self._refuse(room, writer, key, Why.RATE)
            return
        takes = home.takes
        if not home.sent:
            home.quiet_since = now
        was_sent = home.sent.pop(entry, None) is not None
        home.unsent.pop(entry, None)
        (home.sent if takes or was_sent else home.unsent)[entry] = _Waiting(data, now)
        if takes:
            self._carried.append(Carried(room, writer, number, data))

    def receive_reachable(self, room: RoomName, now: float, *, reachable: bool) -> None:
        """The home listens to us and we to it, or that is over."""
        home = self._homes.setdefault(room, _Home())
        if home.reachable is reachable:
            return
        home.reachable, home.silent = reachable, False
        if reachable:
            self._carry_all(room, home, now)

    def receive_answered(self, answered: Answered, now: float) -> None:
        """What the home says; answers to nobody here are passed over. Raises RoomMessageError."""
        message = decode(answered.answer)
        if not isinstance(message, Ack | Nak):
            raise RoomMessageError("neither ACK nor NAK")
        found = self._writers.get(answered.number)
        if found is None or found[0] != answered.room:
            return
        home = self._homes.get(answered.room)
        if home is not None:
            home.quiet_since = now
            home.sent.pop((answered.number, message.key), None)
            if home.silent and home.reachable:
                home.silent = False
                self._carry_all(answered.room, home, now)
        self._answers.append(ForWriter(*found, message))

    def forget_writer(self, room: RoomName, writer: RoomName) -> None:
        """A writer has left: nobody is to be told any more."""
        number = self._numbers.pop((room, writer), None)
        if number is None:
            return
        del self._writers[number]
        home = self._homes.get(room, _Home())
        for queue in (home.sent, home.unsent):
            for entry in [entry for entry in queue if entry[0] == number]:
                del queue[entry]

    def settle_here(self, room: RoomName) -> list[tuple[RoomName, bytes]]:
        """This relay is the home now: what waits, as (writer, data), in the order in which it came."""
        home = self._homes.pop(room, None)
        if home is None:
            return []
        return [(self._writers[number][1], waiting.data) for (number, _), waiting in home.in_order()]

    def is_quiet(self, room: RoomName) -> bool:
        """Whether the home has answered everything that was sent to it."""
        home = self._homes.get(room)
        return home is None or not home.sent

    def take(self) -> tuple[list[Carried], list[ForWriter]]:
        """What goes to homes and to writers, each thing once."""
        carried, self._carried = self._carried, []
        answers, self._answers = self._answers, []
        return carried, answers

    def next_deadline(self) -> float | None:
        """When to call `handle_deadline`; None: nothing waits."""
        due = [
            home.quiet_since + (PROBE_S if home.silent else SILENT_S)
            for home in self._homes.values()
            if home.reachable and home.sent
        ]
        due += [
            next(iter(queue.values())).at + patience_s
            for home in self._homes.values()
            for queue, patience_s in ((home.sent, FORGET_S), (home.unsent, REACH_S))
            if queue
        ]
        return min(due, default=None)

    def handle_deadline(self, now: float) -> None:
        """Refuse what no home could be told of in time, forget what was never answered, and notice who is silent."""
        for room, home in self._homes.items():
            _take_due(home.sent, now - FORGET_S)
            if home.reachable and home.sent and home.quiet_since + (PROBE_S if home.silent else SILENT_S) <= now:
                home.silent, home.quiet_since = True, now
                self._carry(room, next(iter(home.sent.items())))
            for number, key in _take_due(home.unsent, now - REACH_S):
                self._refuse(room, self._writers[number][1], key, Why.NO_HOME)

    def check_invariants(self) -> None:
        assert {number: found for found, number in self._numbers.items()} == self._writers
        for room, home in self._homes.items():
            assert len(home.sent) + len(home.unsent) <= MAX_WAITING
            assert not home.sent.keys() & home.unsent.keys()
            assert not (home.reachable and not home.silent and home.unsent)
            assert home.reachable or not home.silent
            assert all(self._writers[number][0] == room for (number, _), _ in home.in_order())

    # --- Private ---

    def _carry(self, room: RoomName, entry: tuple[_Key, _Waiting]) -> None:
        (number, _), waiting = entry
        self._carried.append(Carried(room, self._writers[number][1], number, waiting.data))

    def _carry_all(self, room: RoomName, home: _Home, now: float) -> None:
        """Everything that waits, in the order in which it came."""
        home.quiet_since = now
        for entry in home.in_order():
            self._carry(room, entry)
        home.sent |= home.unsent
        home.unsent.clear()

    def _refuse(self, room: RoomName, writer: RoomName, key: bytes, why: Why) -> None:
        self.refused[why] += 1
        self._answers.append(ForWriter(room, writer, Nak(key, why, RETRY_MS[why])))

    def _number_of(self, room: RoomName, writer: RoomName) -> int:
        number = self._numbers.get((room, writer))
        if number is None:
            self._number += 1
            number = self._numbers[room, writer] = self._number
            self._writers[number] = (room, writer)
        return number


def _take_due(queue: OrderedDict[_Key, _Waiting], latest: float) -> list[_Key]:
    """Take out what came at `latest` or before."""
    due = []
    while queue and next(iter(queue.values())).at <= latest:
        due.append(queue.popitem(last=False)[0])
    return due
