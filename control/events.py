"""What happened, for `tradewind events`: a bounded log whose numbers only grow, also over a controller's restart."""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

MAX_EVENTS = 10_000


class EventLine(NamedTuple):
    """One thing that happened. `kind` is of a closed list; alarms have `alarm` set."""

    number: int
    at_wall: float
    kind: str
    alarm: bool
    relay: str
    other: str
    detail: str


class EventLog:
    """The newest events. Numbers begin at the wall clock's milliseconds: those of an earlier process are lower."""

    __slots__ = ("_lines", "_next", "counts")

    def __init__(self, wall_now: float, most: int = MAX_EVENTS) -> None:
        self._next = int(wall_now * 1000)
        self._lines: deque[EventLine] = deque(maxlen=most)
        self.counts: Counter[str] = Counter()
        """By kind, since the start."""

    def add(
        self, wall_now: float, kind: str, relay: str = "", other: str = "", detail: str = "", *, alarm: bool = False
    ) -> EventLine:
        """Note something."""
        line = EventLine(self._next, wall_now, kind, alarm, relay, other, detail)
        self._next += 1
        self._lines.append(line)
        self.counts[kind] += 1
        return line

    def after(self, number: int, limit: int) -> tuple[EventLine, ...]:
        """The oldest `limit` events whose numbers are above this one, in order."""
        if not self._lines:
            return ()
        skipped = max(0, number + 1 - self._lines[0].number)
        return tuple(self._lines[index] for index in range(skipped, min(skipped + limit, len(self._lines))))

    def last(self, count: int) -> tuple[EventLine, ...]:
        """The newest, in order."""
        return tuple(self._lines)[-count:] if count else ()
