"""Range filters against the draft's sentence: OR of sets, each the AND of its filters, each the OR of its ranges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.forwarding.range_filters import sieve, track_passes, updated
from tradewind.moqt.model import FilterSubject, Properties, RangeFilter

ENDS = st.one_of(st.none(), st.integers(0, 6))
RANGES = st.lists(st.tuples(st.integers(0, 6), ENDS), min_size=1, max_size=3).map(tuple)
SUBJECTS = st.sampled_from(list(FilterSubject))


@st.composite
def filters(draw: st.DrawFn) -> RangeFilter:
    subject = draw(SUBJECTS)
    by_property = subject in (FilterSubject.OBJECT_PROPERTY, FilterSubject.TRACK_PROPERTY)
    return RangeFilter(
        subject, draw(st.integers(0, 2)), draw(st.sampled_from([2, 4])) if by_property else None, draw(RANGES)
    )


def inside(ranges: tuple[tuple[int, int | None], ...], value: int | None) -> bool:
    if value is None:
        return False
    return value in {n for start, end in ranges for n in range(start, 100 if end is None else end + 1)}


@given(
    st.lists(filters(), max_size=6),
    st.one_of(st.none(), st.integers(0, 7)),
    st.integers(0, 7),
    st.integers(0, 7),
    st.dictionaries(st.sampled_from([2, 4]), st.integers(0, 7)),
)
def test_objects(
    given_filters: list[RangeFilter], subgroup: int | None, object_id: int, priority: int, properties: dict[int, int]
) -> None:
    relevant = [one for one in given_filters if one.subject is not FilterSubject.TRACK_PROPERTY]
    values = {
        FilterSubject.SUBGROUP: lambda _: subgroup,
        FilterSubject.OBJECT_ID: lambda _: object_id,
        FilterSubject.PRIORITY: lambda _: priority,
        FilterSubject.OBJECT_PROPERTY: lambda one: properties.get(one.property_type),
    }
    expected = not relevant
    for set_id in {one.set_id for one in relevant}:
        members = [one for one in relevant if one.set_id == set_id]
        expected = expected or all(inside(one.ranges, values[one.subject](one)) for one in members)
    found = sieve(given_filters)
    passed = found is None or found.passes(subgroup, object_id, priority, tuple(sorted(properties.items())))
    assert passed == expected


def test_tracks() -> None:
    wanted = [RangeFilter(FilterSubject.TRACK_PROPERTY, 0, 8, ((5, 10),))]
    properties: Properties = ((8, 7), (11, b"x"))
    assert track_passes(wanted, properties)
    assert not track_passes(wanted, ((8, 11),))
    assert not track_passes(wanted, ())
    assert track_passes([], ())


def test_an_update_replaces_adds_and_removes() -> None:
    old = (
        RangeFilter(FilterSubject.SUBGROUP, 0, None, ((0, 0),)),
        RangeFilter(FilterSubject.PRIORITY, 0, None, ((0, 9),)),
    )
    changes = (
        RangeFilter(FilterSubject.SUBGROUP, 0, None, ((1, 2),)),
        RangeFilter(FilterSubject.PRIORITY, 0, None, ()),
        RangeFilter(FilterSubject.OBJECT_ID, 1, None, ((3, None),)),
    )
    assert updated(old, changes) == (changes[0], changes[2])
