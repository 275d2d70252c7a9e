"""One track over several connections: each object once, and the next connection asked for all that is missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tradewind.client.continuity import GROUPS_BACK, GROUPS_BEYOND, MAX_GROUPS, Continuity
from tradewind.moqt.model import Location

SIZES = (3, 1, 4, 2, 3, 5)
"""Objects of each group of a track, from group 7 on."""
TRACK = [Location(7 + number, item) for number, size in enumerate(SIZES) for item in range(size)]


def last_of(group: int) -> int:
    return SIZES[group - 7] - 1


@given(st.permutations(TRACK), st.integers(1, len(TRACK)), st.integers(0, 2**20))
def test_nothing_is_lost_and_nothing_comes_twice(order: list[Location], count: int, told: int) -> None:
    """Any part of a track, in any order, with the end of some groups told; then a connection that resumes."""
    continuity = Continuity()
    continuity.begin(TRACK[0])
    came: set[Location] = set()
    for location in order[:count]:
        assert continuity.receive(location, 1.0) == (location not in came)
        came.add(location)
        if location.object == last_of(location.group) and told >> location.group & 1:
            continuity.end_group(location.group)
        continuity.check_invariants()
    assert continuity.newest == (max(came) if came else None)
    resume = continuity.resume()
    assert resume is not None
    oldest, newest = min(came).group, max(came).group
    reached = max(oldest, newest - GROUPS_BACK)
    missing = [location for location in TRACK if location not in came and location.group >= reached]
    assert all(resume <= location for location in missing), (resume, missing)
    again = [location for location in TRACK if location >= resume]
    fresh = [location for location in again if continuity.receive(location, 2.0)]
    assert fresh == [location for location in again if location not in came]


@given(st.integers(0, len(TRACK)))
def test_it_goes_on_with_the_very_next_object(count: int) -> None:
    """Nothing is asked for that came already, where objects came in order and groups were closed."""
    continuity = Continuity()
    continuity.begin(TRACK[0])
    for location in TRACK[:count]:
        continuity.receive(location, 1.0)
        if location.object == last_of(location.group):
            continuity.end_group(location.group)
    resume = continuity.resume()
    assert resume == (TRACK[count] if count < len(TRACK) else Location(7 + len(SIZES), 0))


def test_before_anything_came() -> None:
    continuity = Continuity()
    assert continuity.resume() is None and continuity.newest is None and continuity.last_at is None
    continuity.begin(Location(9, 0))
    continuity.begin(Location(5, 0))
    assert continuity.resume() == Location(9, 0)
    assert not continuity.receive(Location(8, 3), 1.0), "it lies before what this viewer wants"
    assert continuity.receive(Location(9, 0), 2.0) and continuity.last_at == 2.0


def test_a_group_whose_end_was_never_told_is_asked_for_again() -> None:
    continuity = Continuity()
    for location in (Location(1, 0), Location(1, 1), Location(2, 0)):
        continuity.receive(location, 1.0)
    assert continuity.resume() == Location(1, 2)
    continuity.end_group(1)
    assert continuity.resume() == Location(2, 1)
    continuity.end_group(2)
    assert continuity.resume() == Location(3, 0)


@given(st.integers(0, len(TRACK) - 1), st.integers(0, len(TRACK)))
def test_what_a_fill_brought_is_not_asked_for_again(filled: int, live: int) -> None:
    """A viewer comes, gets the current group by a fill and the rest live; only its own group's end is never told."""
    last = TRACK[filled]
    first = Location(last.group, 0)
    continuity = Continuity()
    continuity.begin(first)
    came = [location for location in TRACK[: filled + 1] if location >= first]
    for location in came:
        continuity.receive(location, 1.0)
    continuity.fill(first.group, last)
    for location in TRACK[filled + 1 :][:live]:
        came.append(location)
        continuity.receive(location, 1.0)
        if location.object == last_of(location.group):
            continuity.end_group(location.group)
        continuity.check_invariants()
    resume = continuity.resume()
    assert resume is not None
    assert all(location < resume for location in came) or resume.group == last.group
    assert not any(location < resume for location in TRACK[filled + 1 :][live:])
    over = [location.group for location in came if location.object == last_of(location.group)]
    if max(over, default=0) >= last.group + GROUPS_BEYOND:
        assert all(location < resume for location in came)


def test_a_fill_over_groups_ends_all_but_its_last() -> None:
    continuity = Continuity()
    for location in (Location(1, 0), Location(1, 1), Location(2, 0), Location(3, 0)):
        continuity.receive(location, 1.0)
    continuity.fill(1, Location(3, 0))
    assert continuity.resume() == Location(3, 1)
    continuity.receive(Location(3, 1), 1.0)
    for group in (4, 5):
        continuity.receive(Location(group, 0), 1.0)
        continuity.end_group(group)
    assert continuity.resume() == Location(3, 2), "more of it came: there may be still more"


def test_old_holes_are_let_go() -> None:
    continuity = Continuity()
    for group in range(10, 10 + GROUPS_BACK + 2):
        continuity.receive(Location(group, 0), 1.0)
        if group > 10:
            continuity.end_group(group)
    assert continuity.resume() == Location(10 + GROUPS_BACK + 2, 0)


@given(st.lists(st.integers(0, 400), max_size=300))
def test_what_is_remembered_is_bounded(groups: list[int]) -> None:
    continuity = Continuity()
    given_out: set[int] = set()
    for group in groups:
        if continuity.receive(Location(group, 0), 1.0):
            assert group not in given_out
            given_out.add(group)
        continuity.end_group(group)
        continuity.check_invariants()
    assert len(continuity._groups) <= MAX_GROUPS
