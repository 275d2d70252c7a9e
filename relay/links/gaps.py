"""Packet numbers that arrived -> how many packets were lost, on the receive path of every packet.

A number that is passed over opens a gap. A gap is lost once enough later numbers have come or it is old enough; what
comes after all is taken back. Reordering is bounded, so is memory: at most `MOST_RANGES` gaps of each kind.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

MOST_RANGES = 64
RUN_TELLS = 2
"""A run of lost packets is one event: it tells no more of a loss ratio than two packets do."""


class GapCounts(NamedTuple):
    """Packets since somebody last asked. `lost` is negative where more came after all than went missing."""

    arrived: int
    lost: int
    apart: int
    """As `lost`, but no more than two of each run."""


class PacketGaps:
    """Counts for the packets of one number space, which must have no numbers that its sender leaves out."""

    __slots__ = (
        "_lost_ranges",
        "_next",
        "_open",
        "_taken",
        "apart",
        "arrived",
        "duplicates",
        "lost",
        "reorder_packets",
        "reorder_s",
        "returned",
    )

    def __init__(self, reorder_packets: int = 16, reorder_s: float = 0.05, first: int | None = None) -> None:
        """A gap is lost when it is `reorder_packets` numbers or `reorder_s` seconds old.

        `first` is the number that is expected first; None: whichever comes first.
        """
        self.reorder_packets = reorder_packets
        self.reorder_s = reorder_s
        self.arrived = 0
        self.lost = 0
        self.apart = 0
        self.returned = 0
        """Of those once counted as lost, how many came."""
        self.duplicates = 0
        self._next = -1 if first is None else first
        self._open: deque[tuple[int, int, float]] = deque()
        """First number, number after the last, when it was noticed."""
        self._lost_ranges: deque[tuple[int, int]] = deque(maxlen=MOST_RANGES)
        self._taken = GapCounts(0, 0, 0)

    @property
    def highest(self) -> int:
        """The highest number that came; -1 or one below the first expected where none did."""
        return self._next - 1 if self._next >= 0 else -1

    @property
    def missing(self) -> int:
        """Packets that may still come before they count as lost."""
        return sum(stop - start for start, stop, _ in self._open)

    def add(self, number: int, now: float) -> None:
        """A packet came."""
        if number == self._next:
            self._next = number + 1
            self.arrived += 1
            if self._open:
                self.settle(now)
        elif number > self._next:
            self._pass_over(number, now)
        else:
            self._late(number)

    def settle(self, now: float) -> None:
        """Count as lost what has been missing for too long."""
        open_, enough = self._open, self._next - self.reorder_packets
        while open_:
            _, stop, noticed_at = open_[0]
            if stop > enough and now < noticed_at + self.reorder_s:
                break
            self._lose_oldest()

    def next_deadline(self) -> float | None:
        """When `settle` has something to do if no packet comes."""
        return self._open[0][2] + self.reorder_s if self._open else None

    def take(self) -> GapCounts:
        """What was counted since the last call."""
        arrived, lost, apart = self._taken
        self._taken = GapCounts(self.arrived, self.lost, self.apart)
        return GapCounts(self.arrived - arrived, self.lost - lost, self.apart - apart)

    def check_invariants(self) -> None:
        """Ranges are in order, apart, and not more than there may be."""
        before = -1
        for start, stop, _ in self._open:
            assert before < start < stop <= self._next
            before = stop
        assert len(self._open) <= MOST_RANGES
        assert all(start < stop for start, stop in self._lost_ranges)
        assert self.lost >= 0

    def _pass_over(self, number: int, now: float) -> None:
        if self._next >= 0:
            self._open.append((self._next, number, now))
        self._next = number + 1
        self.arrived += 1
        if len(self._open) > MOST_RANGES:
            self._lose_oldest()
        self.settle(now)

    def _lose_oldest(self) -> None:
        start, stop, _ = self._open.popleft()
        self.lost += stop - start
        self.apart += min(stop - start, RUN_TELLS)
        self._lost_ranges.append((start, stop))

    def _late(self, number: int) -> None:
        """A number below the highest: it was waited for, given up, or has come before."""
        open_ = self._open
        for at in range(len(open_) - 1, -1, -1):
            start, stop, noticed_at = open_[at]
            if number >= stop:
                break
            if number >= start:
                del open_[at]
                if number + 1 < stop:
                    open_.insert(at, (number + 1, stop, noticed_at))
                if start < number:
                    open_.insert(at, (start, number, noticed_at))
                self.arrived += 1
                while len(open_) > MOST_RANGES:
                    self._lose_oldest()
                return
        lost = self._lost_ranges
        for at in range(len(lost) - 1, -1, -1):
            start, stop = lost[at]
            if start <= number < stop:
                del lost[at]
                parts = min(number - start, RUN_TELLS) + min(stop - number - 1, RUN_TELLS)
                self.apart += min(parts - min(stop - start, RUN_TELLS), 0)
                self._keep(at, ((start, number), (number + 1, stop)))
                self.arrived += 1
                self.lost -= 1
                self.returned += 1
                return
        self.duplicates += 1

    def _keep(self, at: int, ranges: tuple[tuple[int, int], tuple[int, int]]) -> None:
        for start, stop in reversed(ranges):
            if start < stop:
                if len(self._lost_ranges) == MOST_RANGES:
                    self._lost_ranges.popleft()
                    at = max(at - 1, 0)
                self._lost_ranges.insert(at, (start, stop))
