"""Packet numbers into arrived and lost: against a twin that remembers everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.links.gaps import MOST_RANGES, RUN_TELLS, PacketGaps


class Twin:
    """Every number, when it came, and when it was first known to be missing."""

    def __init__(self, packets: int, seconds: float) -> None:
        self.packets, self.seconds = packets, seconds
        self.came: set[int] = set()
        self.noticed: dict[int, tuple[int, float]] = {}
        """The stop of the gap that it was noticed with, and the moment."""
        self.lost: set[int] = set()
        self.highest = -1
        self.duplicates = 0

    def add(self, number: int, now: float) -> None:
        if number in self.came:
            self.duplicates += 1
            return
        self.came.add(number)
        if number > self.highest:
            for missing in range(self.highest + 1, number):
                self.noticed[missing] = (number, now)
            self.highest = number
            self.settle(now)
        else:
            self.noticed.pop(number, None)
            self.lost.discard(number)

    def settle(self, now: float) -> None:
        for number in sorted(self.noticed):
            later = min(n for n in range(number + 1, self.highest + 2) if n not in self.noticed)
            if later > self.highest + 1 - self.packets and now < self.noticed[number][1] + self.seconds:
                break
            self.lost.add(number)
        for number in self.lost:
            self.noticed.pop(number, None)


STEPS = st.lists(st.tuples(st.integers(-12, 6), st.sampled_from([0.0, 0.001, 0.01, 0.03])), max_size=60)


@given(STEPS)
def test_against_the_twin(steps: list[tuple[int, float]]) -> None:
    gaps, twin, now = PacketGaps(8, 0.05, first=0), Twin(8, 0.05), 0.0
    for ahead, wait_s in steps:
        now += wait_s
        number = max(twin.highest + ahead, 0)
        gaps.settle(now)
        twin.settle(now)
        gaps.add(number, now)
        twin.add(number, now)
        gaps.settle(now)
        twin.settle(now)
        gaps.check_invariants()
        assert (gaps.arrived, gaps.duplicates, gaps.highest) == (len(twin.came), twin.duplicates, twin.highest)
        assert gaps.lost == len(twin.lost)
        assert gaps.missing == len(twin.noticed)
        assert gaps.arrived + gaps.lost + gaps.missing == gaps.highest + 1
        assert 0 <= gaps.apart <= gaps.lost


def test_what_is_taken_adds_up() -> None:
    gaps = PacketGaps(4, 0.05, first=0)
    for number in (0, 1, 5, 6, 7, 8, 9):
        gaps.add(number, 0.0)
    assert gaps.take() == (7, 3, RUN_TELLS)
    gaps.add(3, 0.1)
    assert gaps.take() == (1, -1, 0), "what is left of the run is still two events"
    gaps.add(2, 0.1)
    assert gaps.take() == (1, -1, -1)
    assert gaps.returned == 2


def test_time_alone_settles() -> None:
    gaps = PacketGaps(16, 0.05)
    gaps.add(7, 1.0)
    assert gaps.next_deadline() is None
    gaps.add(9, 1.0)
    due = gaps.next_deadline()
    assert due == 1.05
    gaps.settle(1.049)
    assert gaps.lost == 0
    gaps.settle(due)
    assert (gaps.lost, gaps.next_deadline()) == (1, None)


def test_a_leap_costs_nothing() -> None:
    gaps = PacketGaps(first=0)
    gaps.add(2**53, 0.0)
    gaps.settle(1.0)
    assert (gaps.lost, gaps.apart) == (2**53, RUN_TELLS)


def test_memory_is_bounded() -> None:
    gaps = PacketGaps(1 << 60, 1e9, first=0)
    for number in range(1, 4000, 2):
        gaps.add(number, 0.0)
        gaps.check_invariants()
    assert gaps.missing == MOST_RANGES
    assert gaps.lost == 2000 - MOST_RANGES
    for number in range(0, 4000, 2):
        gaps.add(number, 0.0)
        gaps.check_invariants()
    assert gaps.arrived == 2000 + 2 * MOST_RANGES, "what was forgotten long ago stays lost"
    assert gaps.arrived + gaps.lost == 4000
