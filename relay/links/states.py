"""UP, SUSPECT, BAD, PROBATION: one direction of a link, as a table of state and symptom.

SUSPECT is quick and costs little: small tracks are sent twice. BAD is sure: tracks move. Nobody comes back from BAD
but through PROBATION, which takes longer each time that a link was trusted too early.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from relay.links.settings import LinkSettings

MOST_FLAPS = 8
"""More change nothing: the hold is at its most, and forgetting starts at once."""


class Direction(Enum):
    """Which way packets go."""

    INBOUND = "inbound"
    """From the neighbour to us."""
    OUTBOUND = "outbound"


class State(Enum):
    """The values are the contract's names (`StateName`)."""

    UP = "up"
    SUSPECT = "suspect"
    PROBATION = "probation"
    BAD = "bad"

    @property
    def rank(self) -> int:
        """0 is best: which of two candidates, or of two opinions, is the worse."""
        return RANKS[self]


RANKS = {State.UP: 0, State.SUSPECT: 1, State.PROBATION: 2, State.BAD: 3}


class Symptom(Enum):
    """What can be seen of a direction: a closed list, and the cause in a `LinkChange`."""

    DEAD = "dead"
    """Nothing came for the longer time."""
    LOSSY = "lossy"
    """Loss is beyond chance."""
    FAR = "far"
    """Round trips are too long for anything."""
    SILENT = "silent"
    """Nothing came for the shorter time."""
    LOSSES = "losses"
    """Losses came close together."""
    SLOW = "slow"
    """Round trips rose over what they were."""
    CLEAN = "clean"
    """No symptom for a while."""
    WORKING = "working"
    """Packets come in a row."""
    HELD = "held"
    """The time of probation is over, without a symptom."""
    EXCUSED = "excused"
    """The silence was the far end's own lateness, or ours."""
    REPORTED = "reported"
    """The far end says so. Not in the table: its state is taken as it is."""


_ALL_BAD = dict.fromkeys(State, State.BAD)
_SAME = {state: state for state in State}

TABLE: dict[Symptom, dict[State, State]] = {
    Symptom.DEAD: _ALL_BAD,
    Symptom.LOSSY: _ALL_BAD,
    Symptom.FAR: _ALL_BAD,
    Symptom.SILENT: _SAME | {State.UP: State.SUSPECT, State.PROBATION: State.BAD},
    Symptom.LOSSES: _SAME | {State.UP: State.SUSPECT},
    Symptom.SLOW: _SAME | {State.UP: State.SUSPECT},
    Symptom.CLEAN: _SAME | {State.SUSPECT: State.UP},
    Symptom.WORKING: _SAME | {State.BAD: State.PROBATION},
    Symptom.HELD: _SAME | {State.PROBATION: State.UP},
    Symptom.EXCUSED: _SAME | {State.SUSPECT: State.UP, State.BAD: State.UP},
}
"""What becomes of each state."""

SYMPTOMS_OF_SILENCE = frozenset({Symptom.DEAD, Symptom.SILENT})


class LinkChange(NamedTuple):
    """One direction of a link has another state."""

    neighbour: str
    direction: Direction
    old: State
    new: State
    cause: Symptom
    at: float


class Standing:
    """The state of one direction, since when and why, and how often it was trusted too early."""

    __slots__ = ("_before", "_flaps", "_flaps_at", "_settings", "_trusted", "cause", "hold_s", "since", "state")

    def __init__(self, settings: LinkSettings, now: float) -> None:
        """A new link is on a short probation."""
        self._settings = settings
        self.state = State.PROBATION
        self.cause = Symptom.WORKING
        self.since = now
        self.hold_s = settings.first_hold_s
        self._flaps = 0
        self._flaps_at = now
        self._trusted = False
        """Whether it was UP since it was last BAD."""
        self._before: tuple[int, float] | None = None
        """Flaps and hold before the last BAD, where it may yet be excused."""

    def apply(self, symptom: Symptom, now: float) -> bool:
        """Let a symptom act; returns whether the state has changed."""
        if symptom is Symptom.EXCUSED and not self.is_excusable:
            return False
        new = TABLE[symptom][self.state]
        if new is self.state:
            return False
        if new is State.BAD:
            self._fall(symptom, now)
        elif symptom is Symptom.EXCUSED and self.state is State.BAD and self._before is not None:
            self._flaps, self.hold_s = self._before
            self._trusted = True
        elif new is State.UP:
            self._trusted = True
        self.state, self.cause, self.since = new, symptom, now
        return True

    @property
    def is_excusable(self) -> bool:
        """Whether silence alone brought it from trust to where it is."""
        if self.cause not in SYMPTOMS_OF_SILENCE:
            return False
        return self.state is State.SUSPECT or (self.state is State.BAD and self._before is not None)

    def restart(self, now: float) -> None:
        """Another connection: a link that was BAD proves itself anew, others have a short probation. Flaps stay."""
        if self.state is not State.BAD:
            self.state, self.cause, self.since = State.PROBATION, Symptom.WORKING, now
            self.hold_s = self._hold(self.flaps(now)) if self.flaps(now) else self._settings.first_hold_s

    def held(self, now: float) -> bool:
        return now >= self.since + self.hold_s

    def flaps(self, now: float) -> int:
        """How often it was trusted too early, one forgotten every `flap_decay_s`."""
        forgotten = int((now - self._flaps_at) / self._settings.flap_decay_s)
        if forgotten > 0:
            self._flaps = max(self._flaps - forgotten, 0)
            self._flaps_at += forgotten * self._settings.flap_decay_s
        return self._flaps

    def check_invariants(self) -> None:
        assert 0 <= self._flaps <= MOST_FLAPS
        assert 0 <= self.hold_s <= self._settings.hold_most_s or self.hold_s == self._settings.first_hold_s

    def _fall(self, symptom: Symptom, now: float) -> None:
        flaps = self.flaps(now)
        if self._trusted:
            self._before = (flaps, self.hold_s) if symptom in SYMPTOMS_OF_SILENCE else None
            self.hold_s = self._hold(flaps)
            if not flaps:
                self._flaps_at = now
            self._flaps = min(flaps + 1, MOST_FLAPS)
            self._trusted = False
        else:
            self._before = None
            self.hold_s = max(self.hold_s, self._hold(max(flaps - 1, 0)))

    def _hold(self, flaps: int) -> float:
        return min(self._settings.hold_most_s, self._settings.hold_s * 2.0**flaps)


def worse(one: State, other: State) -> State:
    """Where two ends disagree, who says worse is believed."""
    return one if one.rank >= other.rank else other
