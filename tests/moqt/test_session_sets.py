"""The session's small collections against slow twins: ids as ranges, prefixes that do not overlap, aliases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tradewind.moqt.aliases import Aliases
from tradewind.moqt.idset import IdSet
from tradewind.moqt.model import FullTrackName
from tradewind.moqt.prefixes import PrefixSet

NAMESPACES = st.lists(st.sampled_from([b"a", b"b"]), max_size=4).map(tuple)


@given(st.lists(st.integers(0, 40), max_size=60))
def test_id_set_is_a_set(numbers: list[int]) -> None:
    ids, twin = IdSet(), set[int]()
    for number in numbers:
        assert ids.add(number) is (number not in twin)
        twin.add(number)
        ids.check_invariants()
    assert all((number in ids) is (number in twin) for number in range(42))
    assert ids.ranges == sum(number - 1 not in twin for number in twin)


def test_id_set_stays_small() -> None:
    ids = IdSet()
    for number in range(10_000):
        ids.add(number)
    assert ids.ranges == 1


@given(st.lists(st.tuples(st.booleans(), NAMESPACES), max_size=30), NAMESPACES)
def test_prefixes_overlap_where_one_begins_with_the_other(
    steps: list[tuple[bool, tuple[bytes, ...]]], asked: tuple[bytes, ...]
) -> None:
    prefixes, twin = PrefixSet(), set[tuple[bytes, ...]]()
    for add, prefix in steps:
        overlaps = any(prefix[: len(other)] == other or other[: len(prefix)] == prefix for other in twin)
        assert prefixes.overlaps(prefix) is overlaps
        if add and not overlaps:
            prefixes.add(prefix)
            twin.add(prefix)
        elif not add and prefix in twin:
            prefixes.remove(prefix)
            twin.remove(prefix)
        prefixes.check_invariants()
    assert (asked in prefixes) is (asked in twin)
    assert len(prefixes) == len(twin)


ALIAS_STEPS = ("bind", "unbind", "retire", "retire unknown", "revive")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(ALIAS_STEPS),
            st.integers(0, 5),
            st.integers(0, 9),
        ),
        max_size=40,
    )
)
def test_aliases_agree_with_themselves(steps: list[tuple[str, int, int]]) -> None:
    aliases = Aliases(max_retired=3)
    bound: dict[int, int] = {}
    for what, number, request in steps:
        if what == "bind" and request not in bound:
            aliases.bind(number, FullTrackName((), bytes([number])), request)
            bound[request] = number
        elif what == "unbind":
            last = request in bound and list(bound.values()).count(bound[request]) == 1
            ended = aliases.unbind(request)
            assert (ended is not None) is last
            bound.pop(request, None)
        elif what == "retire":
            aliases.retire(number, FullTrackName((), bytes([number % 2])))
        elif what == "retire unknown":
            aliases.retire(number, None)
        elif what == "revive":
            track = FullTrackName((), bytes([number]))
            others = {former: name for former, name in aliases.retired.items() if name != track}
            aliases.revive(track)
            assert aliases.retired == others
        aliases.check_invariants()
        assert aliases.table.keys() == set(bound.values())
