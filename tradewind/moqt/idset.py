"""A set of whole numbers that mostly follow one another, kept as ranges: which ids have been used.

The session keeps one for the peer's Request IDs and one for each kind of stream that is over, so that a long life
costs a few ranges and not one entry an id.
"""

from __future__ import annotations

from bisect import bisect_right


class IdSet:
    """Non-negative integers as sorted, disjoint, non-adjacent half-open ranges."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, number: object) -> bool:
        assert isinstance(number, int)
        place = bisect_right(self._starts, number) - 1
        return place >= 0 and number < self._ends[place]

    @property
    def ranges(self) -> int:
        """How many ranges it takes."""
        return len(self._starts)

    def add(self, number: int) -> bool:
        """Put `number` in; False when it was there already."""
        starts, ends = self._starts, self._ends
        after = bisect_right(starts, number)
        before = after - 1
        if before >= 0 and number < ends[before]:
            return False
        joins_before = before >= 0 and ends[before] == number
        joins_after = after < len(starts) and starts[after] == number + 1
        if joins_before and joins_after:
            ends[before] = ends[after]
            del starts[after], ends[after]
        elif joins_before:
            ends[before] = number + 1
        elif joins_after:
            starts[after] = number
        else:
            starts.insert(after, number)
            ends.insert(after, number + 1)
        return True

    def check_invariants(self) -> None:
        """Assert that the ranges are sorted, disjoint, not adjacent and not empty."""
        assert len(self._starts) == len(self._ends)
        last = -1
        for start, end in zip(self._starts, self._ends):
            assert last < start < end
            last = end
