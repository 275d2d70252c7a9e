"""Tracks by namespace, against a walk over all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.forwarding.book import Book, ForwardingSettings
from relay.forwarding.tracks import DEPTH, Tracks
from tradewind.moqt.model import FullTrackName, Namespace

BOOK = Book(ForwardingSettings())
NAMESPACES = st.lists(st.sampled_from([b"a", b"b"]), max_size=DEPTH + 2).map(tuple)
NAMES = st.builds(FullTrackName, NAMESPACES, st.sampled_from([b"x", b"y"]))


@given(st.lists(st.tuples(NAMES, st.booleans()), max_size=40), NAMESPACES)
def test_as_a_walk_over_all(steps: list[tuple[FullTrackName, bool]], prefix: Namespace) -> None:
    tracks = Tracks()
    for name, adds in steps:
        if adds and name not in tracks:
            tracks[name] = BOOK.track(name)
        elif not adds and name in tracks:
            del tracks[name]
        tracks.check_invariants()
        walked = [track for known, track in tracks.items() if known.namespace[: len(prefix)] == prefix]
        assert tracks.under(prefix) == walked, "in the order in which they came"


def test_what_is_found_may_be_forgotten_meanwhile() -> None:
    tracks = Tracks()
    names = [FullTrackName((b"a",), b"%d" % number) for number in range(3)]
    for name in names:
        tracks[name] = BOOK.track(name)
    for track in tracks.under((b"a",)):
        del tracks[track.name]
    assert not tracks and tracks.under((b"a",)) == [] == tracks.under(())
    tracks.check_invariants()


def test_names_with_many_fields_cost_no_more_than_others() -> None:
    tracks = Tracks()
    deep = FullTrackName(tuple(b"%d" % number for number in range(32)), b"x")
    tracks[deep] = BOOK.track(deep)
    assert len(tracks._under) == DEPTH
    assert tracks.under(deep.namespace) == [tracks[deep]] == tracks.under(deep.namespace[:1])
    assert tracks.under((*deep.namespace[:31], b"another")) == []


def test_it_is_deleted_once() -> None:
    with pytest.raises(KeyError):
        del Tracks()[FullTrackName((b"a",), b"x")]
