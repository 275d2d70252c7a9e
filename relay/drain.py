"""Emptying a relay that goes on running: whose turn it is to be asked to move, and who has stayed too long.

`relay.node` begins one when an operator drains the relay, asks it what is due, and drops it when the drain is undone.
Sessions are asked in waves, so that the relays that take them in, and the upstreams behind them, are not met by all at
once: a fiftieth a second, or faster where the deadline is sooner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import ceil

WHOLE_S = 50.0
"""How long it takes to ask everybody, where there is that much time."""
SHARE_OF_DEADLINE = 0.6
"""By then everybody has been asked: the rest is theirs, to leave in."""
WAVE_S = 0.25


class Emptying:
    """One drain. `sessions` are those who are here when it begins; who comes later is asked at the deadline's wave."""

    __slots__ = ("_step_s", "_waiting", "_wave_at", "asked", "ends_at")

    def __init__(self, sessions: Iterable[int], now: float, deadline_s: float) -> None:
        self.ends_at = now + deadline_s
        self.asked: set[int] = set()
        """Who has been asked to move."""
        self._waiting = deque(sorted(sessions, key=_lot))
        span_s = min(WHOLE_S, deadline_s * SHARE_OF_DEADLINE)
        self._step_s = span_s / max(len(self._waiting), 1)
        self._wave_at = now

    def take_due(self, now: float) -> list[int]:
        """Whom to ask to move now, each once."""
        if now < self._wave_at:
            return []
        count = ceil(WAVE_S / self._step_s) if self._step_s else len(self._waiting)
        due = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        self._wave_at = now + max(WAVE_S, self._step_s)
        self.asked.update(due)
        return due

    def is_over(self, now: float) -> bool:
        """Whether those who are still here have had their time."""
        return now >= self.ends_at

    def next_deadline(self) -> float:
        """When `take_due` or `is_over` has something to say."""
        return min(self._wave_at, self.ends_at) if self._waiting else self.ends_at


def _lot(session: int) -> int:
    """An order that has nothing to do with when they came, and is the same every time."""
    return session * 2654435761 % 2**32
