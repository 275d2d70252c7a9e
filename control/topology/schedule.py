"""When paths are computed: every 10 s, and soon after something happened, but not for each of many events.

The first event after a quiet time waits 10 ms for others that belong to it. While events keep coming the wait doubles
up to 250 ms, so that a storm costs four computations a second and a single fault none of its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """How often, and how soon."""

    cycle_s: float = 10.0
    wait_least_s: float = 0.010
    wait_most_s: float = 0.250


class Due(Enum):
    """What a deadline was for."""

    NOTHING = "nothing"
    EVENT = "event"
    CYCLE = "cycle"


class Schedule:
    """The next computation. The first cycle is due as soon as something is known."""

    __slots__ = ("_cycle_at", "_done_at", "_event_at", "_settings", "_wait_s")

    def __init__(self, settings: ScheduleSettings) -> None:
        self._settings = settings
        self._cycle_at: float | None = None
        self._event_at: float | None = None
        self._done_at = float("-inf")
        self._wait_s = settings.wait_least_s

    def receive_event(self, now: float) -> None:
        """Something happened that may change paths."""
        if self._event_at is not None:
            return
        again = now - self._done_at < 2 * self._settings.wait_most_s
        self._wait_s = min(2 * self._wait_s, self._settings.wait_most_s) if again else self._settings.wait_least_s
        self._event_at = now + self._wait_s

    def next_deadline(self) -> float | None:
        """When to call `handle_deadline`; None: nothing has happened yet."""
        return min((at for at in (self._cycle_at, self._event_at) if at is not None), default=None)

    def handle_deadline(self, now: float) -> Due:
        """What is to be done now. A cycle does what an event asks for as well."""
        first = self._cycle_at is None and self._event_at is not None and now >= self._event_at
        if first or (self._cycle_at is not None and now >= self._cycle_at):
            self._cycle_at = now + self._settings.cycle_s
            due = Due.CYCLE
        elif self._event_at is not None and now >= self._event_at:
            due = Due.EVENT
        else:
            return Due.NOTHING
        if self._event_at is not None:
            self._event_at, self._done_at = None, now
        return due
