"""GOAWAY of a session and of one request, in both directions."""

from __future__ import annotations

import pytest

from tests.moqt.pair import DRAFTS, made
from tests.moqt.requesting import OTHER, TRACK, peer, refusal
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import MisuseError, RequestCode, SessionCode


@pytest.mark.parametrize("draft", DRAFTS)
def test_goaway_once_and_to_a_client_with_a_uri(draft: int) -> None:
    there = peer(draft, is_client=True)
    uri = "moqt://elsewhere"
    there.say(there.control, m.Goaway(uri, 30))
    assert there.side.take() == [e.GoawayReceived(None, uri, 30 if draft >= 17 else 0)]
    there.say(there.control, m.Goaway(uri, 30))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION
    there = peer(draft)
    there.say(there.control, m.Goaway(uri))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_goaway_of_one_request() -> None:
    there = peer(is_client=True)
    number = made(there.session.subscribe(TRACK))
    there.say(0, m.Goaway("moqt://elsewhere", 7))
    assert there.side.take() == [e.GoawayReceived(number, "moqt://elsewhere", 7)]
    there.say(0, m.Goaway("", 7))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


@pytest.mark.parametrize("draft", DRAFTS)
def test_our_goaway(draft: int) -> None:
    there = peer(draft)
    there.open(m.Subscribe(there.id(), TRACK))
    there.heard()
    there.session.goaway("moqt://elsewhere", 9)
    there.session.goaway("moqt://again", 9)
    first = 2 if draft == 18 else None
    assert [message for _, message in there.heard()] == [m.Goaway("moqt://elsewhere", 9 if draft >= 17 else 0, first)]
    expected = RequestCode.GOING_AWAY if draft == 18 else None
    assert refusal(there, m.Subscribe(there.id(), OTHER)) == expected
    client = peer(draft, is_client=True)
    with pytest.raises(MisuseError):
        client.session.goaway("moqt://elsewhere")


def test_draft_18_goaway_names_a_request_of_the_receiver() -> None:
    there = peer(18)
    there.say(there.control, m.Goaway("", 0, 4))
    assert there.closed == SessionCode.INVALID_REQUEST_ID
    there = peer(18)
    there.say(there.control, m.Goaway("", 0, 5))
    assert there.closed is None
