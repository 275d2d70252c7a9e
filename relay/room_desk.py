"""The tracks that a relay has of its rooms: what it publishes, announces and reads of each, and what it waits for.

`relay.room_tracks` owns a `Desk` for each room, one `Readings` and one `LogReads` for all, and says what is wished for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from relay.local import LocalParty
from relay.room_plan import Reading, Wish, most_bytes
from relay.room_publishing import LogTrack, MessageTrack
from relay.rooms.effects import FORWARDING_READS, Read
from tradewind.contract.messages import RoomEntry
from tradewind.contract.rooms import ANSWERS, RoomName
from tradewind.moqt.model import FullTrackName, Namespace

Published: TypeAlias = MessageTrack | LogTrack


class Make(Protocol):
    """Makes a track that is to be published."""

    def __call__(self, track: FullTrackName, *, is_log: bool) -> Published: ...


class Readings:
    """The tracks that a relay reads of any room, and when those that were refused or ended are asked for again."""

    __slots__ = ("_again", "_party", "_tracks")

    def __init__(self, party: LocalParty) -> None:
        self._party = party
        self._tracks: dict[FullTrackName, Reading] = {}
        self._again: dict[FullTrackName, float] = {}

    def get(self, track: FullTrackName) -> Reading | None:
        """What a track is that we read; None: we do not."""
        return self._tracks.get(track)

    def begin(self, track: FullTrackName, reading: Reading, now: float) -> None:
        self._tracks[track] = reading
        self._party.read(track, most_bytes(reading.part), now)

    def end(self, track: FullTrackName, now: float) -> None:
        self._party.unread(track, now)
        self._again.pop(track, None)
        del self._tracks[track]

    def ask_again(self, track: FullTrackName, at: float) -> None:
        """It was refused, or ended."""
        self._again[track] = at

    def ask_at_once(self, track: FullTrackName) -> None:
        """Whoever publishes it is there: if we were to ask again, then now."""
        if track in self._again:
            self._again[track] = float("-inf")

    def next_deadline(self) -> float | None:
        return min(self._again.values(), default=None)

    def handle_deadline(self, now: float) -> None:
        """Ask for the tracks whose time has come."""
        for track in [track for track, at in self._again.items() if at <= now]:
            del self._again[track]
            reading = self._tracks.get(track)
            if reading is not None:
                self._party.read(track, most_bytes(reading.part), now)


class LogReads:
    """What the store is reading for those who read logs as tracks."""

    __slots__ = ("_count", "_tracks")

    def __init__(self) -> None:
        self._count = 0
        self._tracks: dict[int, LogTrack] = {}

    def next_id(self) -> int:
        self._count += 1
        return FORWARDING_READS + self._count

    def collect(self, track: LogTrack) -> list[Read]:
        """What a track has for the store, each thing once."""
        reads = list(track.to_store)
        track.to_store.clear()
        self._tracks.update((read.id, track) for read in reads)
        return reads

    def done(self, id: int) -> LogTrack | None:
        """Whose read it was."""
        return self._tracks.pop(id, None)


class Here(NamedTuple):
    """A writer whose session is here, as rooms give it back with an answer."""

    room: RoomName
    writer: RoomName


class There(NamedTuple):
    """A writer of another relay."""

    room: RoomName
    relay: bytes
    number: int


@dataclass(slots=True)
class Desk:
    """What we have of one room beside its log."""

    room: RoomName
    former: RoomEntry | None = None
    """The table's entry before the one of now: who was home then may have to hear that it is none."""
    edges: set[tuple[int, bytes]] = field(default_factory=set)
    """(epoch, relay) that carries messages to us."""
    announced: dict[Namespace, bool] = field(default_factory=dict)
    served: dict[FullTrackName, Published] = field(default_factory=dict)
    read: dict[FullTrackName, Reading] = field(default_factory=dict)
    heard: set[Namespace] = field(default_factory=set)
    writers: dict[RoomName, dict[int, frozenset[int]]] = field(default_factory=dict)
    """Writers here, and the classes that each of their sessions may write."""

    def match(self, wish: Wish, party: LocalParty, readings: Readings, make: Make, now: float) -> None:
        """Make the difference between what there is and what is wished for; `make` has the tracks that are new."""
        self._drop(wish, party, readings, now)
        for tracks, is_log in ((wish.messages, False), (wish.logs, True)):
            for track in sorted(tracks - self.served.keys()):
                self.served[track] = make(track, is_log=is_log)
                party.serve(track)
        for namespace, private in wish.announced.items():
            if namespace not in self.announced:
                self.announced[namespace] = private
                party.announce(namespace, now, private=private)
        for prefix in sorted(wish.heard - self.heard):
            party.listen(prefix, now)
        self.heard = wish.heard
        for track, reading in wish.read.items():
            if track not in self.read:
                self.read[track] = reading
                readings.begin(track, reading, now)

    def _drop(self, wish: Wish, party: LocalParty, readings: Readings, now: float) -> None:
        for track in [track for track in self.served if not wish.serves(track)]:
            below = track.namespace[len(self.room) :]
            if below[:1] == (ANSWERS,) and below[1:] in self.writers:
                continue
            self.served.pop(track).close("published here no longer", now)
            party.unserve(track)
        for namespace in [namespace for namespace in self.announced if namespace not in wish.announced]:
            party.withdraw(namespace, now)
            del self.announced[namespace]
        for track in [track for track in self.read if self.read[track] != wish.read.get(track)]:
            readings.end(track, now)
            del self.read[track]
        for prefix in sorted(self.heard - wish.heard):
            party.unlisten(prefix, now)
