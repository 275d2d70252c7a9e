"""REQUEST_UPDATE: answered in order, limited, and what a refused one ends."""

from __future__ import annotations

import pytest

from tests.moqt.pair import Peer, made
from tests.moqt.requesting import CANCELLED, OPENERS, TRACK, peer, raw, refusal
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import DoneCode, MisuseError, RequestCode, SessionCode
from tradewind.moqt.model import NO_PARAMETERS, Location, Parameters
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.session import SessionSettings


def test_updates_are_answered_in_order() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK))
    assert there.session.update(number, Parameters(forward=False)) == 3
    there.say(1, m.SubscribeOk(1))
    assert there.session.update(number, Parameters(forward=True, prefix=(b"x",))) == 5
    assert there.heard()[1:] == [
        (1, m.RequestUpdate(3, raw(Parameters(forward=False)))),
        (1, m.RequestUpdate(5, raw(Parameters(forward=True)))),
    ]
    there.side.take()
    there.say(1, m.RequestOk(raw(Parameters(largest=Location(1, 1)))), m.RequestError(RequestCode.INVALID_RANGE, "no"))
    assert there.side.take() == [
        e.UpdateAccepted(number, 3, Parameters(largest=Location(1, 1))),
        e.UpdateRefused(number, 5, RequestCode.INVALID_RANGE, "no"),
    ]
    there.say(1, m.RequestOk())
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_update_limit_of_the_peer_is_kept() -> None:
    there = Peer(20, setup=SetupOptions(max_request_updates=1))
    number = made(there.session.subscribe(TRACK))
    assert there.session.update(number, NO_PARAMETERS) == 3
    assert there.session.update(number, NO_PARAMETERS) is None
    there.say(1, m.SubscribeOk(1), m.RequestOk())
    assert there.session.update(number, NO_PARAMETERS) == 5


@pytest.mark.parametrize("draft", [18, 20])
def test_too_many_updates(draft: int) -> None:
    there = peer(draft, settings=SessionSettings(max_request_updates=2))
    stream = there.open(m.Subscribe(there.id(), TRACK))
    there.session.accept_subscribe(0, 1)
    there.heard()
    there.say(stream, *(m.RequestUpdate(there.id()) for _ in range(3)))
    if draft == 18:
        # The draft has no limit: one request pays, not the session.
        assert [message for _, message in there.heard()] == [
            m.RequestError(RequestCode.EXCESSIVE_LOAD, "too many unanswered updates"),
            m.PublishDone(DoneCode.UPDATE_FAILED, None, "too many unanswered updates"),
            "fin",
        ]
        assert there.side.take()[-1] == e.RequestCancelled(0, CANCELLED)
    else:
        assert there.closed == SessionCode.TOO_MANY_REQUEST_UPDATES


def test_update_in_the_wrong_direction_is_a_violation() -> None:
    there = peer()
    there.session.subscribe(TRACK)
    there.say(1, m.SubscribeOk(1), m.RequestUpdate(0))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION
    there = peer()
    there.say(there.open(m.TrackStatus(0, TRACK)), m.RequestUpdate(2))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_both_sides_of_a_publish_can_update() -> None:
    there = peer()
    stream = there.open(m.Publish(0, TRACK, 4))
    with pytest.raises(MisuseError):
        there.session.update(0, NO_PARAMETERS)
    there.session.accept(0)
    assert there.session.update(0, Parameters(forward=True)) == 1
    there.side.take()
    there.say(stream, m.RequestUpdate(2), m.RequestOk())
    assert there.side.take() == [e.UpdateRequested(0, 2, NO_PARAMETERS), e.UpdateAccepted(0, 1, NO_PARAMETERS)]
    there.session.accept_update(0, 2)
    with pytest.raises(MisuseError):
        there.session.accept_update(0, 2)


def test_update_before_publish_ok_needs_a_quirk() -> None:
    for quirks in (frozenset[str](), frozenset({"update-before-publish-ok"})):
        there = peer(quirks=quirks)
        number = made(there.session.publish(TRACK, 1))
        there.say(1, m.RequestUpdate(0, raw(Parameters(forward=True))))
        if quirks:
            assert there.side.take() == [e.UpdateRequested(number, 0, Parameters(forward=True))]
        else:
            assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_refused_update_ends_what_the_draft_says() -> None:
    there = peer()
    stream = there.open(m.PublishNamespace(0, (b"live",)))
    there.session.accept(0)
    there.say(stream, m.RequestUpdate(2))
    there.heard()
    there.session.reject_update(0, 2, RequestCode.UNAUTHORIZED, "no")
    assert there.heard() == [(stream, m.RequestError(RequestCode.UNAUTHORIZED, "no")), (stream, "fin")]
    assert there.session.statistics().requests_theirs == 0
    stream = there.open(m.Subscribe(4, TRACK))
    there.session.accept_subscribe(4, 1)
    there.say(stream, m.RequestUpdate(6))
    there.heard()
    there.session.reject_update(4, 6, RequestCode.UNAUTHORIZED, "no")
    there.session.publish_done(4, DoneCode.UPDATE_FAILED, 0)
    assert [message for _, message in there.heard()] == [
        m.RequestError(RequestCode.UNAUTHORIZED, "no"),
        m.PublishDone(DoneCode.UPDATE_FAILED, 0),
        "fin",
    ]


def test_update_accepted_before_its_request_is_answered_behind_it() -> None:
    for opener, accept in OPENERS:
        if isinstance(opener(0), (m.TrackStatus, m.Publish)):
            continue
        there = peer()
        stream = there.open(opener(0))
        there.say(stream, m.RequestUpdate(2))
        there.session.accept_update(0, 2)
        assert there.heard() == []
        accept(there.session, 0)
        first, second = (message for _, message in there.heard())
        assert isinstance(first, (m.SubscribeOk, m.FetchOk, m.RequestOk)) and second == m.RequestOk()


def test_update_refused_before_its_request_is_answered_refuses_it() -> None:
    there = peer()
    stream = there.open(m.Subscribe(0, TRACK))
    there.say(stream, m.RequestUpdate(2))
    there.session.reject_update(0, 2, RequestCode.UNAUTHORIZED, "no")
    assert there.heard() == [(stream, m.RequestError(RequestCode.UNAUTHORIZED, "no")), (stream, "fin")]
    there.session.accept_subscribe(0, 1)
    there.session.accept_update(0, 2)
    there.session.reject_update(0, 2, 0, "")
    assert there.heard() == []


def test_bad_update_before_the_answer_refuses_the_request() -> None:
    there = peer()
    stream = there.open(m.SubscribeNamespace(0, (b"live",)))
    there.side.take()
    there.say(stream, m.RequestUpdate(2, raw(Parameters(prefix=(b".",)))))
    assert [message for _, message in there.heard()] == [
        m.RequestError(RequestCode.DOES_NOT_EXIST, "reserved namespace"),
        "fin",
    ]
    assert there.side.take() == [e.RequestCancelled(0, CANCELLED)]


def test_prefix_of_ours_moves_when_it_is_accepted() -> None:
    there = peer()
    number = made(there.session.subscribe_namespace((b"a",)))
    there.say(1, m.RequestOk(), m.NamespaceAdded((b"x",)))
    made(there.session.update(number, Parameters(prefix=(b"b",))))
    assert there.heard()[-1] == (1, m.RequestUpdate(3, raw(Parameters(prefix=(b"b",)))))
    there.say(1, m.NamespaceAdded((b"y",)), m.RequestOk(), m.NamespaceAdded((b"z",)))
    found = [event.namespace for event in there.side.take() if isinstance(event, e.NamespaceFound)]
    assert found == [(b"a", b"x"), (b"a", b"y"), (b"b", b"z")]


def test_prefix_moves_with_an_accepted_update() -> None:
    there = peer()
    stream = there.open(m.SubscribeNamespace(there.id(), (b"a",)))
    there.open(m.SubscribeNamespace(there.id(), (b"b",)))
    there.session.accept(0)
    there.session.accept(2)
    there.side.take()
    there.say(stream, m.RequestUpdate(there.id(), raw(Parameters(prefix=(b"a", b"x")))))
    assert there.side.take() == [e.UpdateRequested(0, 4, Parameters(prefix=(b"a", b"x")))]
    there.session.accept_update(0, 4)
    there.heard()
    there.session.notify_namespace(0, (b"a", b"x", b"y"))
    assert there.heard() == [(stream, m.NamespaceAdded((b"y",)))]
    assert refusal(there, m.SubscribeNamespace(there.id(), (b"a", b"z"))) is None
    there.say(stream, m.RequestUpdate(there.id(), raw(Parameters(prefix=(b"b", b"b")))))
    assert [message for _, message in there.heard()] == [
        m.RequestError(RequestCode.PREFIX_OVERLAP, "the new prefix overlaps another subscription's"),
        "fin",
    ]
    assert there.side.take() == [e.RequestCancelled(0, CANCELLED)]


def test_refused_update_ends_what_is_no_subscription() -> None:
    there = peer()
    number = made(there.session.subscribe_namespace((b"a",)))
    there.say(1, m.RequestOk())
    update = made(there.session.update(number, Parameters(prefix=(b"b",))))
    there.side.take()
    there.say(1, m.RequestError(RequestCode.PREFIX_OVERLAP))
    assert there.side.take() == [
        e.UpdateRefused(number, update, RequestCode.PREFIX_OVERLAP, ""),
        e.RequestCancelled(number, CANCELLED),
    ]


def test_refused_prefix_is_forgotten() -> None:
    there = peer(16)
    there.open(m.PublishNamespace(0, (b"live",)))
    there.session.accept(0)
    there.say(there.control, m.RequestUpdate(2, existing=0))
    there.session.reject_update(0, 2, RequestCode.UNAUTHORIZED, "no")
    # Draft 16 lets the request live on.
    assert there.session.statistics().requests_theirs == 1
    there = peer()
    stream = there.open(m.SubscribeTracks(0, (b"live",)))
    there.session.accept(0)
    there.say(stream, m.RequestUpdate(2, raw(Parameters(prefix=(b"b",)))))
    there.session.reject_update(0, 2, RequestCode.UNAUTHORIZED, "no")
    assert there.session.statistics().requests_theirs == 0


def test_properties_in_an_update_ok_are_a_violation() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK))
    there.say(1, m.SubscribeOk(1))
    there.session.update(number, NO_PARAMETERS)
    there.say(1, m.RequestOk(properties=((0x0E, 1),)))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION
