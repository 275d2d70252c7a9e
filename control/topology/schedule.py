"""When paths are computed: every 10 s, and soon after something happened, but not for each of many events.

The first event after a quiet time waits 10 ms for others that belong to it. While events keep coming the wait doubles
up to 250 ms, so that a storm costs four computations a second and a single fault none of its time. Relays that come,
one after the other, wait for up to 2 s: hundreds that come at once would else have everybody's table made anew all the
time.
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
    wait_patient_s: float = 2.0
    """The same where nobody is worse off for waiting: relays that come."""


class Due(Enum):
    """What a deadline was for."""

    NOTHING = "nothing"
    EVENT = "event"
    CYCLE = "cycle"


class Schedule:
    """The next computation. The first cycle is due as soon as something is known."""

    __slots__ = ("_cycle_at", "_done_at", "_event_at", "_patient", "_settings", "_wait_s")

    def __init__(self, settings: ScheduleSettings) -> None:
        self._settings = settings
        self._cycle_at: float | None = None
        self._event_at: float | None = None
        self._done_at = float("-inf")
        self._wait_s = settings.wait_least_s
        self._patient = False
        """What is waited for now can wait for long."""

    def receive_event(self, now: float, *, patient: bool = False) -> None:
        """Something happened that may change paths. `patient`: nothing is worse for it."""
        if self._event_at is not None and (patient or not self._patient):
            return
        most_s = self._settings.wait_patient_s if patient else self._settings.wait_most_s
        again = now - self._done_at < 2 * most_s
        self._wait_s = min(2 * self._wait_s, most_s) if again else self._settings.wait_least_s
        at = now + self._wait_s
        self._event_at = at if self._event_at is None else min(self._event_at, at)
        self._patient = patient

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
