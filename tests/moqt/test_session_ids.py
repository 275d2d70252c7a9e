"""Request IDs: whose, each once, and how many may be left out."""

from __future__ import annotations

import pytest

from tests.moqt.pair import made
from tests.moqt.requesting import TRACK, peer
from tradewind.moqt import messages as m
from tradewind.moqt.errors import SessionCode
from tradewind.moqt.model import FullTrackName
from tradewind.moqt.session import SessionSettings


@pytest.mark.parametrize(("numbers", "code"), [([1], 4), ([0, 0], 4), ([0, 2, 4, 2], 4), ([4, 0, 2], None)])
def test_request_ids(numbers: list[int], code: int | None) -> None:
    there = peer()
    for number in numbers:
        there.open(m.Subscribe(number, TRACK))
    assert there.closed == code


def test_updates_use_request_ids_too() -> None:
    there = peer()
    stream = there.open(m.Subscribe(0, TRACK))
    there.say(stream, m.RequestUpdate(0))
    assert there.closed == SessionCode.INVALID_REQUEST_ID


def test_ids_full_of_holes_are_a_violation() -> None:
    there = peer(settings=SessionSettings(max_id_gaps=8))
    for number in range(0, 400, 4):
        if there.closed is None:
            there.open(m.TrackStatus(number, TRACK))
    assert there.closed == SessionCode.INVALID_REQUEST_ID


def test_many_requests_of_ours_that_end_out_of_order() -> None:
    there = peer(settings=SessionSettings(max_id_gaps=8))
    numbers = [made(there.session.subscribe(FullTrackName((b"live",), bytes([n])))) for n in range(64)]
    for number in numbers[::2]:
        there.session.cancel(number)
    assert there.closed is None
    there.session.check_invariants()
