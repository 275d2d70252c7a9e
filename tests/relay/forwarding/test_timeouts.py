"""Delivery timeouts: the smallest of what was asked for and what the publisher says, where there is any."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.forwarding.cache import CachedSubgroup
from relay.forwarding.timeouts import Timeouts

TIMES = st.integers(0, 5)
GIVEN = st.none() | TIMES
PAIR = st.tuples(GIVEN, GIVEN)


def smallest_s(*given_ms: int | None) -> float | None:
    found = sorted(value for value in given_ms if value)
    return found[0] / 1000 if found else None


@given(st.tuples(TIMES, TIMES), st.lists(PAIR, min_size=1, max_size=3), PAIR)
def test_the_smallest_counts(
    track: tuple[int, int], asked: list[tuple[int | None, int | None]], own: tuple[int | None, int | None]
) -> None:
    timeouts = Timeouts(*track)
    subgroup = CachedSubgroup(0, 0, None, False, True, False)
    subgroup.timeouts_ms = own
    said = [one if other is None else other for one, other in zip(track, own, strict=True)]
    last: list[int | None] = [None, None]
    for change in asked:
        timeouts.apply(*change)
        last = [old if new is None else new for old, new in zip(last, change, strict=True)]
        assert timeouts.object_s(subgroup) == smallest_s(last[0], said[0])
        assert timeouts.subgroup_s(subgroup) == smallest_s(last[1], said[1])
        assert timeouts.datagram_s == smallest_s(*last, *track)
