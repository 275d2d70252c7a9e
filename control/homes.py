"""Which relay orders each room and which one keeps its second copy: named once, changed when one of them leaves.

docs/rooms.md has the rules for controllers, and why they hold. Every change of home or follower is an epoch more; only
a relay that said it is whole in the current epoch is named home of the next; and `plane` saves an entry before anybody
hears of it. `plane` hands in what relays report and how they are, and calls `decide`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from control.registry.values import Alarm, AlarmKind, Condition, RelayView
from tradewind.contract.messages import RoomEntry, RoomReport

MAX_ROOMS = 20_000
"""A route table has room for as many."""
LOOK_S = 0.05
"""No oftener: what happens together is looked at together."""
LOOK_AGAIN_S = 1.0
"""How often rooms are looked at for which nothing could be done."""
RoomName: TypeAlias = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class HomeSettings:
    """How patient the control plane is."""

    settle_s: float = 5.0
    """After the start nobody is missed, and nobody named, for so long: relays have to come and say what they hold."""
    follower_patience_s: float = 10.0
    """So long a dead follower may take to come back before its copy is made elsewhere."""


class Decision(NamedTuple):
    """What is to be saved and then published, and what operators have to hear."""

    entries: tuple[RoomEntry, ...] = ()
    alarms: tuple[Alarm, ...] = ()


class HomeStatistics(NamedTuple):
    """What metrics show. The last two are counts since the start."""

    rooms: int
    without_follower: int
    stuck: int
    named: int
    promoted: int


class Homes:
    """All rooms of a mesh. `entries` are those that were saved, `configured` rooms that exist before anybody writes."""

    __slots__ = (
        *("_alarmed", "_counts", "_entries", "_first", "_fresh", "_held", "_looked_at", "_pending"),
        *("_settings", "_settled_at", "_told", "_uneasy"),
    )

    def __init__(
        self, settings: HomeSettings, entries: Iterable[RoomEntry], configured: Iterable[RoomName], now: float
    ) -> None:
        self._settings = settings
        self._settled_at = now + settings.settle_s
        self._entries = {entry.room: entry for entry in entries}
        self._pending: dict[RoomName, RoomEntry] = {}
        self._told: dict[str, dict[RoomName, RoomReport]] = {}
        self._first: dict[RoomName, str] = {}
        """Of rooms without an entry: who spoke of it first."""
        self._held: dict[RoomName, set[str]] = {}
        """Who reports anything of a room."""
        self._uneasy: set[RoomName] = set(self._entries) | set(configured)
        """Rooms to look at again."""
        self._alarmed: set[RoomName] = set()
        self._counts = {"named": 0, "promoted": 0}
        self._fresh = True
        self._looked_at = float("-inf")

    def receive_report(self, relay: str, rooms: tuple[RoomReport, ...]) -> None:
        """What a relay holds of every room that it has."""
        before = self._told.get(relay, {})
        told = {report.room: report for report in rooms}
        for room in before.keys() - told.keys():
            self._held[room].discard(relay)
            if not self._held[room]:
                del self._held[room]
        for room, report in told.items():
            if before.get(room) == report:
                continue
            if room not in self._entries and len(self._entries) + len(self._first) >= MAX_ROOMS:
                continue
            self._held.setdefault(room, set()).add(relay)
            if room not in self._entries:
                self._first.setdefault(room, relay)
            standing = before.get(room)
            if standing is None or (standing.epoch, standing.whole) != (report.epoch, report.whole):
                self._uneasy.add(room)
                self._fresh = True
        self._told[relay] = {room: report for room, report in told.items() if relay in self._held.get(room, ())}

    def receive_change(self, relay: str) -> None:
        """A relay came, went, or is another stage's: look at all rooms that it has to do with, or could."""
        for entry in self._entries.values():
            if relay in {entry.home, entry.follower} or not entry.follower:
                self._uneasy.add(entry.room)
        self._fresh = True

    def receive_saved(self, entries: Iterable[RoomEntry]) -> None:
        """Entries are on disk: they may be told."""
        for entry in entries:
            self._entries[entry.room] = entry
            self._pending.pop(entry.room, None)
            self._first.pop(entry.room, None)
            self._uneasy.add(entry.room)
            self._fresh = True

    def decide(self, relays: Mapping[str, RelayView], now: float) -> Decision:
        """Look at the rooms that something happened to. `relays`: everybody known, dead ones too."""
        due = self.next_deadline()
        if due is None or now < due:
            return Decision()
        self._fresh, self._looked_at = False, now
        choosing = _Choosing(relays, self._entries.values())
        decided, alarms, uneasy = [], [], set()
        for room in sorted(self._uneasy):
            if room in self._pending:
                continue
            found = self._look(room, choosing, now)
            if isinstance(found, RoomEntry):
                self._pending[room] = found
                self._alarmed.discard(room)
                choosing.count(found)
                decided.append(found)
            elif found:
                uneasy.add(room)
                if found != _LATER and room not in self._alarmed:
                    self._alarmed.add(room)
                    alarms.append(Alarm(AlarmKind.ROOM_STUCK, "", f"{shown(room)}: {found}"))
            else:
                self._alarmed.discard(room)
        self._uneasy = uneasy
        self._counts["named"] += len(decided)
        return Decision(tuple(decided), tuple(alarms))

    def next_deadline(self) -> float | None:
        """When `decide` may find something that time alone changed."""
        if not self._uneasy:
            return None
        return max(self._settled_at, self._looked_at + (LOOK_S if self._fresh else LOOK_AGAIN_S))

    def entries(self) -> tuple[RoomEntry, ...]:
        """What may be told: saved, by room."""
        return tuple(self._entries[room] for room in sorted(self._entries))

    def entry(self, room: RoomName) -> RoomEntry | None:
        """One room's."""
        return self._entries.get(room)

    def statistics(self) -> HomeStatistics:
        """Now, and since the start."""
        alone = sum(not entry.follower for entry in self._entries.values())
        return HomeStatistics(len(self._entries), alone, len(self._alarmed), **self._counts)

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        for room, entry in self._pending.items():
            before = self._entries.get(room)
            assert entry.home != entry.follower
            assert before is None or entry.epoch > before.epoch
        for room, relays in self._held.items():
            assert relays and all(room in self._told[relay] for relay in relays)

    # --- One room ---

    def _look(self, room: RoomName, choosing: _Choosing, now: float) -> RoomEntry | str:
        """Its next entry, "" where all is well, _LATER to look again, or why it is stuck."""
        entry = self._entries.get(room)
        newest = max((self._told[relay][room].epoch for relay in self._held.get(room, ())), default=0)
        if entry is None and newest == 0:
            return self._name(room, choosing)
        if entry is None or newest > entry.epoch:
            # Another controller's, or what a lost store knew: go on from there, and only with who is whole in it.
            return self._promote(room, newest, choosing, entry)
        if not choosing.can_be_home(entry.home):
            return self._promote(room, entry.epoch, choosing, entry)
        return self._follow(entry, choosing)

    def _name(self, room: RoomName, choosing: _Choosing) -> RoomEntry | str:
        """A new room: the home is where somebody first wrote, the follower in another region."""
        first = self._first.get(room, "")
        home = first if choosing.is_fit(first) else choosing.pick({""}, away_from="")
        if not home:
            return _LATER
        return RoomEntry(room, home, choosing.pick({home}, away_from=home), epoch=1, base=0)

    def _promote(self, room: RoomName, epoch: int, choosing: _Choosing, entry: RoomEntry | None) -> RoomEntry | str:
        """Somebody else becomes the home: the follower if it may, else anybody who may."""
        preferred = [entry.home, entry.follower] if entry else []
        others = sorted(self._held.get(room, set()) - set(preferred))
        for relay in [*preferred, *others]:
            if choosing.is_fit(relay) and self._is_whole(relay, room, epoch):
                self._counts["promoted"] += 1
                return RoomEntry(room, relay, choosing.pick({relay}, away_from=relay), epoch=epoch + 1)
        if entry is not None and choosing.is_there(entry.home):
            return _LATER
        return f"no relay that is here is whole in epoch {epoch}"

    def _follow(self, entry: RoomEntry, choosing: _Choosing) -> RoomEntry | str:
        """The home stays; the follower is replaced where it is gone for good, or was never there."""
        if entry.follower and choosing.is_there(entry.follower):
            if not choosing.leaves(entry.follower):
                return ""
        elif entry.follower and choosing.silence_s(entry.follower) < self._settings.follower_patience_s:
            return _LATER
        follower = choosing.pick({entry.home, entry.follower}, away_from=entry.home)
        if not follower:
            return _LATER if entry.follower else ""
        if not self._is_whole(entry.home, entry.room, entry.epoch):
            return _LATER
        return RoomEntry(entry.room, entry.home, follower, epoch=entry.epoch + 1)

    def _is_whole(self, relay: str, room: RoomName, epoch: int) -> bool:
        told = self._told.get(relay, {}).get(room)
        return told is not None and told.whole == epoch


_LATER = "later"


class _Choosing:
    """Relays during one decision, and how many rooms each has to do with."""

    def __init__(self, relays: Mapping[str, RelayView], entries: Iterable[RoomEntry]) -> None:
        self._relays = relays
        self._rooms: Counter[str] = Counter()
        for entry in entries:
            self.count(entry)
        self._fit = [relay for relay in relays if self.is_fit(relay)]

    def count(self, entry: RoomEntry) -> None:
        self._rooms.update(relay for relay in (entry.home, entry.follower) if relay)

    def is_fit(self, relay: str) -> bool:
        """Whether it may be given something to do."""
        view = self._relays.get(relay)
        return view is not None and view.condition is Condition.ALIVE and view.stage == "serving"

    def is_there(self, relay: str) -> bool:
        view = self._relays.get(relay)
        return view is not None and view.condition is not Condition.DEAD

    def leaves(self, relay: str) -> bool:
        view = self._relays.get(relay)
        return view is not None and view.stage in {"draining", "empty"}

    def can_be_home(self, relay: str) -> bool:
        return self.is_there(relay) and not self.leaves(relay)

    def silence_s(self, relay: str) -> float:
        view = self._relays.get(relay)
        return float("inf") if view is None else view.heard_age_s

    def pick(self, but: set[str], away_from: str) -> str:
        """Who has least to do, in another region than `away_from` where that can be; "": nobody."""
        view = self._relays.get(away_from)
        region = view.region if view else ""
        fit = (relay for relay in self._fit if relay not in but)
        return min(fit, key=lambda r: (self._relays[r].region == region, self._rooms[r], r), default="")


def shown(room: RoomName) -> str:
    """A room's name for people."""
    return "/".join(field.decode("utf-8", "backslashreplace") for field in room)
