"""Emptying a relay that goes on running: whose turn it is to be asked to move, and who has stayed too long.

`relay.node` begins one when an operator drains the relay or stops its process, asks it what is due, and drops it when
the drain is undone. Sessions are asked in waves, so that the relays that take them in, and the upstreams behind them,
are not met by all at once: a fiftieth a second, or faster where the deadline is sooner. Publishers come last: when they
move, so does what all relays read of them, and who undoes a drain before that has moved none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from math import ceil

WHOLE_S = 50.0
"""How long it takes to ask everybody, where there is that much time."""
SHARE_OF_DEADLINE = 0.6
"""By then everybody has been asked: the rest is theirs, to leave in."""
WAVE_S = 0.05
"""Between two waves at least: a session costs a turn 0.2 to 0.4 ms (`python -m bench.draining`)."""
LOOK_S = 0.25
"""How often to look who came since."""


class Emptying:
    """One drain. `sessions`, and after them `publishers`, are those who are here when it begins."""

    __slots__ = ("_here", "_look_at", "_step_s", "_waiting", "_wave_at", "asked", "ends_at", "was_over")

    def __init__(
        self, sessions: Collection[int], now: float, deadline_s: float, publishers: Collection[int] = ()
    ) -> None:
        self.ends_at = now + deadline_s
        self.was_over = False
        """Whether its deadline has passed."""
        self.asked: set[int] = set()
        """Who has been asked to move."""
        self._here = frozenset(sessions) | frozenset(publishers)
        self._waiting = deque((*sorted(sessions, key=_lot), *sorted(publishers, key=_lot)))
        self._wave_at = self._look_at = now
        self._step_s = self._pace(deadline_s)

    def hasten(self, now: float, deadline_s: float) -> None:
        """There is another deadline; it counts where it is sooner."""
        if now + deadline_s < self.ends_at:
            self.ends_at = now + deadline_s
            self._step_s = min(self._step_s, self._pace(deadline_s))
            self._wave_at = min(self._wave_at, now + WAVE_S)

    def add(self, session: int) -> None:
        """Somebody who came since was asked, too, and knows where to go."""
        self.asked.add(session)

    def is_time_to_look(self, now: float) -> bool:
        """Whether it was long ago that anybody looked who came since; then somebody does now."""
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_S
        return True

    def take_due(self, now: float) -> list[int]:
        """Whom to ask to move now, each once."""
        if now < self._wave_at:
            return []
        count = ceil(WAVE_S / self._step_s) if self._step_s else len(self._waiting)
        due = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        self._wave_at = now + max(WAVE_S, self._step_s)
        self.asked.update(due)
        return due

    def knows(self, session: int) -> bool:
        """Whether somebody was asked, or will be."""
        return session in self._here or session in self.asked

    def is_over(self, now: float) -> bool:
        """Whether those who are still here have had their time."""
        return now >= self.ends_at

    def go_on(self, until: float) -> None:
        """Those who stayed were ended; who comes still is ended `until` then."""
        self.was_over, self.ends_at = True, until

    def next_deadline(self) -> float:
        """When `take_due` or `is_over` has something to say, or when to look who came since."""
        wave_at = self._wave_at if self._waiting else self._look_at
        return min(wave_at, self._look_at, self.ends_at)

    def _pace(self, deadline_s: float) -> float:
        return min(WHOLE_S, deadline_s * SHARE_OF_DEADLINE) / max(len(self._waiting), 1)


def _lot(session: int) -> int:
    """An order that has nothing to do with when they came, and is the same every time."""
    return session * 2654435761 % 2**32
