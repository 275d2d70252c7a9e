"""What is known not to exist: ranges of ids, and the locations next to one.

`cache` keeps its knowledge of gaps in these; cursors step over them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from tradewind.moqt.model import MAX_VARINT, Location


class Intervals:
    """A set of integers as sorted, disjoint, inclusive intervals; at most `limit` of them, oldest knowledge kept."""

    __slots__ = ("_limit", "_spans")

    def __init__(self, limit: int = 64) -> None:
        self._spans: list[tuple[int, int]] = []
        self._limit = limit

    def add(self, start: int, end: int) -> None:
        """Add start..end; beyond the limit the addition is forgotten, which only makes it unknown again."""
        if end < start:
            return
        low = bisect_left(self._spans, start - 1, key=lambda span: span[1])
        high = bisect_right(self._spans, end + 1, key=lambda span: span[0])
        if low < high:
            start = min(start, self._spans[low][0])
            end = max(end, self._spans[high - 1][1])
        elif len(self._spans) >= self._limit:
            return
        self._spans[low:high] = [(start, end)]

    def covers(self, start: int, end: int) -> bool:
        """Whether all of start..end is in the set."""
        if end < start:
            return True
        index = bisect_right(self._spans, start, key=lambda span: span[0]) - 1
        return index >= 0 and self._spans[index][1] >= end

    def __contains__(self, value: int) -> bool:
        return self.covers(value, value)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._spans)


def before(location: Location) -> Location:
    """The location just before one."""
    if location.object:
        return Location(location.group, location.object - 1)
    return Location(location.group - 1, MAX_VARINT) if location.group else Location(0, 0)


def after(location: Location) -> Location:
    """The location just after one in the same group, or the next group's first."""
    if location.object < MAX_VARINT:
        return Location(location.group, location.object + 1)
    return Location(min(location.group + 1, MAX_VARINT), 0)
