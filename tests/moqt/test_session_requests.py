"""Requests one by one: who may say what when, exactly one answer, FIN, RESET_STREAM and STOP_SENDING."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.moqt.pair import DRAFTS, Peer, made
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import DoneCode, MisuseError, RequestCode, ResetCode, SessionCode
from tradewind.moqt.model import (
    NO_PARAMETERS,
    Fill,
    FilterKind,
    FilterSubject,
    FullTrackName,
    Location,
    LocationFilter,
    Parameters,
    RangeFilter,
)
from tradewind.moqt.parameters import RawParameters, SetupOptions
from tradewind.moqt.session import Session, SessionSettings

TRACK = FullTrackName((b"live", b"demo"), b"video")
OTHER = FullTrackName((b"live", b"demo"), b"audio")
STREAM_DRAFTS = [draft for draft in DRAFTS if draft >= 17]
SETUP = SetupOptions(max_filter_ranges=8)
CANCELLED = ResetCode.CANCELLED


def peer(draft: int = 20, **options: Any) -> Peer:
    return Peer(draft, setup=SETUP, **options)


def raw(parameters: Parameters) -> RawParameters:
    return RawParameters.of(parameters)


# --- Their requests, our answers --------------------------------------------------------------------------------------

OPENERS: list[tuple[Callable[[int], m.Message], Callable[[Session, int], None]]] = [
    (lambda number: m.Subscribe(number, TRACK), lambda session, number: session.accept_subscribe(number, 1)),
    (lambda number: m.Publish(number, TRACK, 1), lambda session, number: session.accept(number)),
    (
        lambda number: m.Fetch(number, TRACK),
        lambda session, number: session.accept_fetch(number, Location(1, 1), True),
    ),
    (lambda number: m.TrackStatus(number, TRACK), lambda session, number: session.accept(number)),
    (lambda number: m.PublishNamespace(number, (b"live",)), lambda session, number: session.accept(number)),
    (lambda number: m.SubscribeNamespace(number, (b"live",)), lambda session, number: session.accept(number)),
    (lambda number: m.SubscribeTracks(number, (b"live",)), lambda session, number: session.accept(number)),
]


@pytest.mark.parametrize("opener", range(len(OPENERS)))
@pytest.mark.parametrize("draft", STREAM_DRAFTS)
def test_each_request_has_one_answer(draft: int, opener: int) -> None:
    there = peer(draft)
    build, accept = OPENERS[opener]
    number = there.id()
    stream = there.open(build(number))
    assert len(there.side.take()) == 1
    accept(there.session, number)
    (answered, answer), *rest = there.heard()
    assert answered == stream and isinstance(answer, (m.SubscribeOk, m.FetchOk, m.RequestOk))
    assert rest == ([(stream, "fin")] if isinstance(build(0), m.TrackStatus) else [])
    if not rest:
        with pytest.raises(MisuseError):
            accept(there.session, number)
        with pytest.raises(MisuseError):
            there.session.reject(number, RequestCode.UNAUTHORIZED, "")


@pytest.mark.parametrize("opener", range(len(OPENERS)))
def test_rejecting_answers_and_ends_our_side(opener: int) -> None:
    there = peer()
    number = there.id()
    stream = there.open(OPENERS[opener][0](number))
    there.session.reject(number, RequestCode.UNAUTHORIZED, "not yours", 5)
    assert there.heard() == [(stream, m.RequestError(RequestCode.UNAUTHORIZED, "not yours", 5)), (stream, "fin")]
    there.session.reject(number, RequestCode.UNAUTHORIZED, "again")
    OPENERS[opener][1](there.session, number)
    assert there.heard() == []
    assert there.session.statistics().requests_theirs == 0
    there.side.take()
    assert there.say(stream, fin=True) == []
    assert there.session.statistics().streams == 1  # the control stream


@pytest.mark.parametrize("draft", DRAFTS)
def test_cancelled_request_may_still_be_answered_by_a_late_owner(draft: int) -> None:
    there = peer(draft)
    number = there.id()
    stream = there.open(m.Subscribe(number, TRACK))
    if draft == 16:
        there.say(stream, m.Unsubscribe(number))
    else:
        there.reset(stream, CANCELLED)
    assert there.side.take()[1:] == [e.RequestCancelled(number, CANCELLED)]
    there.heard()
    there.session.accept_subscribe(number, 1)
    there.session.publish_done(number, DoneCode.TRACK_ENDED, 0)
    assert there.heard() == []
    assert there.closed is None


def test_stop_sending_cancels_and_is_answered_with_reset() -> None:
    there = peer()
    number = there.id()
    stream = there.open(m.Subscribe(number, TRACK))
    there.session.accept_subscribe(number, 1)
    there.heard()
    there.side.take()
    assert there.stop(stream, CANCELLED) == [e.RequestCancelled(number, CANCELLED)]
    # The reset is the transport's; the session asks for the other direction.
    assert there.heard() == [(stream, ("reset", CANCELLED)), (stream, ("stop", CANCELLED))]
    assert there.reset(stream) == []


def test_fin_is_no_cancellation_from_draft_20_on() -> None:
    for opener, _ in OPENERS:
        there = peer(20)
        stream = there.open(opener(there.id()), fin=True)
        events = there.side.take()
        if isinstance(opener(0), m.Publish):
            # Its publisher still owed PUBLISH_DONE.
            assert events[-1] == e.RequestCancelled(0, None)
        else:
            assert len(events) == 1
            there.session.cancel(0)
            # Its own direction is over: only ours is reset.
            assert there.heard() == [(stream, ("reset", CANCELLED))]


@pytest.mark.parametrize("draft", [18, 20])
def test_fin_withdraws_a_namespace_up_to_draft_18(draft: int) -> None:
    there = peer(draft)
    stream = there.open(m.PublishNamespace(0, (b"live",)))
    there.session.accept(0)
    there.side.take()
    assert there.say(stream, fin=True) == ([e.RequestCancelled(0, None)] if draft == 18 else [])


def test_quirk_lets_fin_withdraw_on_later_drafts_but_only_after_the_answer() -> None:
    there = peer(22, quirks=frozenset({"fin-withdraws-namespace"}))
    early = there.open(m.PublishNamespace(0, (b"live",)), fin=True)
    late = there.open(m.SubscribeNamespace(2, (b"live",)))
    there.session.accept(0)
    there.session.accept(2)
    there.side.take()
    assert there.say(late, fin=True) == [e.RequestCancelled(2, None)]
    assert there.session.statistics().requests_theirs == 1
    assert there.stop(early) == [e.RequestCancelled(0, CANCELLED)]
    assert dict(there.session.statistics().quirks) == {"fin-withdraws-namespace": 1}


def test_publish_done_then_fin() -> None:
    there = peer()
    stream = there.open(m.Subscribe(0, TRACK))
    there.session.accept_subscribe(0, 1)
    there.session.publish_done(0, DoneCode.TOO_FAR_BEHIND, 3, "slow")
    assert there.heard()[1:] == [(stream, m.PublishDone(DoneCode.TOO_FAR_BEHIND, 3, "slow")), (stream, "fin")]
    # What crossed it on the wire is read and ignored, ids and all.
    there.side.take()
    assert there.say(stream, m.RequestUpdate(2), m.Goaway("")) == []
    assert there.closed is None
    there.open(m.Subscribe(2, TRACK))
    assert there.closed == SessionCode.INVALID_REQUEST_ID


def test_pending_subscription_cannot_be_done() -> None:
    there = peer()
    there.open(m.Subscribe(0, TRACK))
    with pytest.raises(MisuseError):
        there.session.publish_done(0, DoneCode.TRACK_ENDED, 0)


def test_fetch_is_finished_by_its_owner() -> None:
    there = peer()
    stream = there.open(m.Fetch(0, TRACK))
    with pytest.raises(MisuseError):
        there.session.finish(0)
    there.session.accept_fetch(0, Location(4, 2), False)
    there.heard()
    there.session.finish(0)
    assert there.heard() == [(stream, "fin")]
    assert there.session.statistics().requests_theirs == 0
    there.session.finish(0)


# --- Our requests, their answers --------------------------------------------------------------------------------------


def test_answer_twice_is_a_violation() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK))
    there.say(1, m.SubscribeOk(5))
    assert there.side.take() == [e.SubscribeAccepted(number, 5, NO_PARAMETERS, ())]
    there.say(1, m.SubscribeOk(5))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION
    assert isinstance(there.side.take()[-1], e.SessionClosed)


@pytest.mark.parametrize("answer", [m.RequestOk(), m.FetchOk(Location(0, 0)), m.PublishDone(0), m.NamespaceAdded(())])
def test_wrong_answer_is_a_violation(answer: m.Message) -> None:
    there = peer()
    there.session.subscribe(TRACK)
    there.say(1, answer)
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_refused_request_is_over() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK))
    there.heard()
    there.say(1, m.RequestError(RequestCode.TIMEOUT, "nobody", 0))
    assert there.side.take() == [e.RequestRefused(number, RequestCode.TIMEOUT, "nobody", 0)]
    assert there.heard() == [(1, "fin")]
    assert there.session.update(number, NO_PARAMETERS) is None
    there.say(1, m.RequestError(RequestCode.TIMEOUT))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_fin_before_the_answer_means_failed() -> None:
    there = peer()
    number = made(there.session.fetch(TRACK, LocationFilter(FilterKind.NONE)))
    there.heard()
    assert there.say(1, fin=True) == [e.RequestCancelled(number, None)]
    assert there.heard() == [(1, ("reset", CANCELLED))]


def test_fin_without_publish_done_means_failed() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK))
    there.say(1, m.SubscribeOk(5))
    there.side.take()
    assert there.say(1, fin=True) == [e.RequestCancelled(number, None)]


def test_fin_after_publish_ok_leaves_the_subscription_alone() -> None:
    there = peer()
    number = made(there.session.publish(TRACK, 1))
    there.say(1, m.RequestOk(), fin=True)
    assert there.side.take() == [e.RequestAccepted(number, NO_PARAMETERS, ())]
    there.heard()
    there.session.publish_done(number, DoneCode.TRACK_ENDED, 0)
    assert there.heard() == [(1, m.PublishDone(DoneCode.TRACK_ENDED, 0)), (1, "fin")]
    assert there.session.statistics().streams == 1


def test_fin_after_an_accepted_namespace_leaves_us_the_means_to_withdraw() -> None:
    there = peer()
    number = made(there.session.publish_namespace((b"live",)))
    there.say(1, m.RequestOk(), fin=True)
    there.side.take()
    there.heard()
    there.session.cancel(number)
    assert there.heard() == [(1, ("reset", CANCELLED))]


@pytest.mark.parametrize("draft", STREAM_DRAFTS)
def test_cancelling_resets_and_stops(draft: int) -> None:
    there = peer(draft)
    number = made(there.session.subscribe(TRACK))
    there.heard()
    there.session.cancel(number, ResetCode.EXCESSIVE_LOAD)
    assert there.heard() == [(1, ("reset", 9)), (1, ("stop", 9))]
    assert there.say(1, m.SubscribeOk(1)) == []
    there.session.cancel(number)
    assert there.heard() == []


def test_peer_that_may_not_open_streams_is_not_asked() -> None:
    there = peer()
    there.side.transport.bidi_credit = 1
    assert there.session.subscribe(TRACK) == 1
    assert there.session.subscribe(TRACK) is None
    there.side.transport.bidi_credit = 1
    assert there.session.subscribe(TRACK) == 3


def test_namespace_done_before_namespace_is_a_violation() -> None:
    for quirks in (frozenset[str](), frozenset({"unknown-namespace-done"})):
        there = peer(quirks=quirks)
        number = made(there.session.subscribe_namespace((b"live",)))
        there.say(1, m.RequestOk(), m.NamespaceAdded((b"a",)), m.NamespaceAdded((b"a",)), m.NamespaceDone((b"a",)))
        assert there.side.take()[1:] == [
            e.NamespaceFound(number, (b"live", b"a")),
            e.NamespaceGone(number, (b"live", b"a")),
        ]
        there.say(1, m.NamespaceDone((b"a",)))
        assert there.closed == (None if quirks else SessionCode.PROTOCOL_VIOLATION)


def test_more_namespaces_than_allowed_cost_the_request() -> None:
    there = peer(settings=SessionSettings(max_namespaces=2))
    number = made(there.session.subscribe_namespace(()))
    there.heard()
    there.say(1, m.RequestOk(), *(m.NamespaceAdded((bytes([65 + n]),)) for n in range(9)))
    assert there.side.take()[-1] == e.RequestCancelled(number, ResetCode.EXCESSIVE_LOAD)
    assert there.heard() == [(1, ("reset", 9)), (1, ("stop", 9))]
    assert there.closed is None


def test_namespace_that_outgrows_the_draft_with_its_prefix_is_a_violation() -> None:
    there = peer()
    there.session.subscribe_namespace((b"x",) * 20)
    there.say(1, m.RequestOk(), m.NamespaceAdded((b"y",) * 13))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_skipped_publish_names_the_whole_track() -> None:
    there = peer()
    number = made(there.session.subscribe_tracks((b"live",)))
    there.say(1, m.RequestOk(), m.PublishSkipped((b"demo",), b"video"))
    assert there.side.take()[1:] == [e.PublishSkipped(number, TRACK)]


def test_state_notify_comes_from_the_publisher_only() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK))
    there.say(1, m.SubscribeOk(1), m.PublishStateNotify(raw(Parameters(forward=False, largest=Location(1, 2)))))
    assert there.side.take()[1:] == [e.StateNotified(number, Parameters(forward=False, largest=Location(1, 2)))]
    stream = there.open(m.Subscribe(0, OTHER))
    there.say(stream, m.PublishStateNotify())
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_redirect_rules() -> None:
    redirect = e.Redirect("moqt://there.example", FullTrackName((b"x",), b"y"))
    there = peer(is_client=True)
    number = made(there.session.subscribe(TRACK))
    there.say(0, m.RequestError(RequestCode.REDIRECT, "", None, redirect))
    assert there.side.take() == [e.RequestRefused(number, RequestCode.REDIRECT, "", None, redirect)]
    for is_client, build in ((False, "subscribe"), (True, "namespace")):
        there = peer(is_client=is_client)
        if build == "subscribe":
            there.session.subscribe(TRACK)
        else:
            there.session.publish_namespace((b"live",))
        there.say(0 if is_client else 1, m.RequestError(RequestCode.REDIRECT, "", None, redirect))
        assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_fetch_ok_may_not_end_before_the_range_begins() -> None:
    there = peer()
    there.session.fetch(TRACK, LocationFilter(FilterKind.ABSOLUTE, start=Location(5, 3)))
    there.say(1, m.FetchOk(Location(5, 2)))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


@pytest.mark.parametrize("draft", DRAFTS)
def test_track_properties_stand_only_in_track_status_ok(draft: int) -> None:
    there = peer(draft)
    number = made(there.session.track_status(TRACK))
    there.say(1 if draft >= 17 else there.control, m.RequestOk(properties=((0x0E, 3),), request=number))
    assert there.side.take() == [e.RequestAccepted(number, NO_PARAMETERS, ((0x0E, 3),) if draft >= 17 else ())]
    if draft >= 17:
        there.session.publish_namespace((b"live",))
        there.say(5, m.RequestOk(properties=((0x0E, 3),)))
        assert there.closed == SessionCode.PROTOCOL_VIOLATION


# --- Updates ----------------------------------------------------------------------------------------------------------


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


def test_flaw_in_what_cannot_be_refused_is_a_violation() -> None:
    there = peer(16)
    there.session.publish(TRACK, 1)
    backwards = LocationFilter(FilterKind.ABSOLUTE, start=Location(9, 0), end_group=4)
    there.say(there.control, m.PublishOk(raw(Parameters(filter=backwards)), request=1))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_publisher_notifies_skips_and_sends_away() -> None:
    there = peer()
    stream = there.open(m.Subscribe(0, TRACK))
    there.session.notify_state(0, NO_PARAMETERS)
    there.session.accept_subscribe(0, 1)
    tracks = there.open(m.SubscribeTracks(2, (b"live",)))
    there.session.accept(2)
    there.heard()
    there.session.notify_state(0, Parameters(forward=False))
    there.session.skip_publish(2, TRACK)
    there.session.goaway_request(0, "moqt://there", 4)
    there.session.goaway_request(0, "moqt://there", 4)
    assert there.heard() == [
        (stream, m.PublishStateNotify(raw(Parameters(forward=False)))),
        (tracks, m.PublishSkipped((b"demo",), b"video")),
        (stream, m.Goaway("moqt://there", 4)),
    ]
    with pytest.raises(MisuseError):
        there.session.notify_state(2, NO_PARAMETERS)
    with pytest.raises(MisuseError):
        there.session.skip_publish(2, FullTrackName((b"other",), b"x"))
    there.session.notify_namespace(99, (b"x",))
    client = peer(is_client=True)
    client.open(m.Subscribe(1, TRACK))
    with pytest.raises(MisuseError):
        client.session.reject(1, RequestCode.REDIRECT, "", None, e.Redirect("moqt://x", TRACK))


# --- Refused before the owner sees them -------------------------------------------------------------------------------


def refusal(there: Peer, message: m.Message) -> int | None:
    """The code that a request is refused with at once; None: the owner was asked."""
    there.heard()
    there.side.take()
    there.open(message)
    events = there.side.take()
    answers = [answer for _, answer in there.heard() if isinstance(answer, m.RequestError)]
    assert bool(answers) != bool(events)
    return answers[0].code if answers else None


@pytest.mark.parametrize("draft", DRAFTS)
def test_reserved_namespaces_never_reach_the_owner(draft: int) -> None:
    there = peer(draft)
    expected = RequestCode.DOES_NOT_EXIST if draft >= 18 else None
    for first in (b".", b".session"):
        assert refusal(there, m.Subscribe(there.id(), FullTrackName((first, b"a"), b""))) == expected
        assert refusal(there, m.PublishNamespace(there.id(), (first,))) == expected
        assert refusal(there, m.TrackStatus(there.id(), FullTrackName((first,), b"x"))) == expected
    assert refusal(there, m.PublishNamespace(there.id(), (b".other",))) is None


@pytest.mark.parametrize("draft", DRAFTS)
def test_open_requests_are_limited(draft: int) -> None:
    there = peer(draft, settings=SessionSettings(max_requests=2, overload_retry_ms=70))
    assert refusal(there, m.Subscribe(there.id(), TRACK)) is None
    assert refusal(there, m.Subscribe(there.id(), OTHER)) is None
    code = RequestCode.EXCESSIVE_LOAD if draft >= 18 else RequestCode.INTERNAL_ERROR
    assert refusal(there, m.PublishNamespace(there.id(), (b"live",))) == code
    there.session.reject(0, RequestCode.DOES_NOT_EXIST, "")
    assert refusal(there, m.PublishNamespace(there.id(), (b"live",))) is None


@pytest.mark.parametrize("draft", DRAFTS)
def test_prefixes_of_one_kind_may_not_overlap(draft: int) -> None:
    there = peer(draft)
    overlap = RequestCode.PREFIX_OVERLAP
    assert refusal(there, m.SubscribeNamespace(there.id(), (b"a", b"b"), options=1)) is None
    for prefix in ((), (b"a",), (b"a", b"b"), (b"a", b"b", b"c")):
        assert refusal(there, m.SubscribeNamespace(there.id(), prefix, options=1)) == overlap
    assert refusal(there, m.SubscribeNamespace(there.id(), (b"a", b"c"), options=1)) is None
    if draft >= 18:
        assert refusal(there, m.SubscribeTracks(there.id(), (b"a",))) is None
    else:
        assert refusal(there, m.SubscribeNamespace(there.id(), (b"a",), options=0)) == overlap
    there.session.cancel(0)
    assert refusal(there, m.SubscribeNamespace(there.id(), (b"a", b"b", b"c"), options=1)) is None


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


@pytest.mark.parametrize("draft", DRAFTS)
def test_second_subscription_in_one_role_up_to_draft_18(draft: int) -> None:
    there = peer(draft)
    expected = RequestCode.DUPLICATE_SUBSCRIPTION if draft <= 18 else None
    assert refusal(there, m.Subscribe(there.id(), TRACK)) is None
    assert refusal(there, m.Subscribe(there.id(), TRACK)) == expected
    assert refusal(there, m.Publish(there.id(), TRACK, 1)) is None
    assert refusal(there, m.Publish(there.id(), TRACK, 1)) == expected


@pytest.mark.parametrize("draft", [16, 18])
def test_our_pending_subscription_gives_way_to_their_publish(draft: int) -> None:
    there = peer(draft)
    number = made(there.session.subscribe(TRACK))
    there.open(m.Publish(0, TRACK, 1))
    assert isinstance(there.side.take()[-1], e.PublishRequested)
    there.session.accept(0)
    # Nobody has to speak for the owner to hear of it.
    assert there.side.wait(0.0) == [e.RequestCancelled(number, CANCELLED)]
    assert there.session.statistics().requests_ours == 0


def test_unknown_mandatory_property_refuses_the_track() -> None:
    mandatory = ((0x4001, b"x"),)
    there = peer()
    assert refusal(there, m.Publish(there.id(), TRACK, 1, properties=mandatory)) == RequestCode.UNSUPPORTED_EXTENSION
    number = made(there.session.subscribe(TRACK))
    there.heard()
    there.say(1, m.SubscribeOk(2, properties=mandatory))
    (event,) = there.side.take()
    assert isinstance(event, e.RequestRefused) and event.code == RequestCode.UNSUPPORTED_EXTENSION
    assert event.request == number
    assert there.heard() == [(1, ("reset", CANCELLED)), (1, ("stop", CANCELLED))]
    fetch = made(there.session.fetch(TRACK, LocationFilter(FilterKind.NONE)))
    there.say(5, m.FetchOk(Location(1, 1), properties=mandatory))
    (event,) = there.side.take()
    assert isinstance(event, e.RequestRefused) and event.request == fetch
    known = peer(settings=SessionSettings(known_mandatory_properties=frozenset({0x4001})))
    assert refusal(known, m.Publish(0, TRACK, 1, properties=mandatory)) is None
    assert refusal(peer(16), m.Publish(0, TRACK, 1, properties=mandatory)) is None


def test_too_many_filter_ranges_refuse_the_request() -> None:
    many = (RangeFilter(FilterSubject.OBJECT_ID, 0, None, tuple((n * 4, n * 4 + 1) for n in range(5))),)
    there = peer(settings=SessionSettings(max_filter_ranges=4))
    assert (
        refusal(there, m.Subscribe(there.id(), TRACK, raw(Parameters(range_filters=many))))
        == RequestCode.INVALID_FILTER
    )
    fill = Parameters(fill=Fill(range_filters=many))
    assert refusal(there, m.Subscribe(there.id(), TRACK, raw(fill))) == RequestCode.INVALID_FILTER
    assert refusal(there, m.Fetch(there.id(), TRACK, parameters=raw(Parameters(range_filters=many)))) is not None
    stream = there.open(m.Subscribe(there.id(), TRACK))
    there.heard()
    there.say(stream, m.RequestUpdate(there.id(), raw(Parameters(range_filters=many))))
    assert there.heard()[0][1].code == RequestCode.INVALID_FILTER
    asker = Peer(20, setup=SetupOptions(max_filter_ranges=4))
    asker.session.subscribe(TRACK, Parameters(range_filters=many))
    assert asker.heard() == [(1, m.Subscribe(1, TRACK))]


@pytest.mark.parametrize("draft", [16, 18])
def test_flaw_in_a_range_refuses_the_request(draft: int) -> None:
    there = peer(draft)
    backwards = LocationFilter(FilterKind.ABSOLUTE, start=Location(5, 3), end_group=5, end_object=1)
    assert refusal(there, m.Fetch(there.id(), TRACK, backwards)) == RequestCode.INVALID_RANGE
    assert refusal(there, m.Fetch(there.id(), TRACK, replace(backwards, end_object=3))) is None


# --- Joining FETCH, up to draft 18 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", [16, 18])
def test_joining_fetch_takes_its_track_from_the_subscription(draft: int) -> None:
    there = peer(draft)
    latest = LocationFilter(FilterKind.NEXT_OBJECT)
    there.open(m.Subscribe(there.id(), TRACK, raw(Parameters(filter=latest))))
    there.side.take()
    there.open(m.Fetch(there.id(), None, joining=0, joining_groups=1))
    assert there.side.take() == [e.FetchRequested(2, TRACK, LocationFilter(FilterKind.NONE), NO_PARAMETERS, 0, 1, None)]
    assert refusal(there, m.Fetch(there.id(), None, joining=2, joining_groups=1)) is not None


def test_joining_fetch_may_overtake_its_subscription() -> None:
    there = peer(18)
    there.open(m.Fetch(2, None, joining=0, joining_start=4))
    assert there.side.take() == []
    there.open(m.Subscribe(0, TRACK))
    assert [type(event) for event in there.side.take()] == [e.SubscribeRequested, e.FetchRequested]
    stream = there.open(m.Fetch(6, None, joining=4, joining_start=4))
    there.heard()
    assert there.side.wait(0.5) == [] and there.heard() == []
    there.side.wait(0.6)
    assert there.heard()[0] == (
        stream,
        m.RequestError(RequestCode.INVALID_JOINING_REQUEST_ID, "no such subscription to join"),
    )
    there.open(m.Subscribe(4, OTHER))
    assert [type(event) for event in there.side.take()] == [e.SubscribeRequested]


def test_parked_fetch_that_is_cancelled_is_forgotten() -> None:
    there = peer(18)
    stream = there.open(m.Fetch(2, None, joining=0, joining_start=4))
    there.reset(stream)
    there.open(m.Subscribe(0, TRACK))
    assert [type(event) for event in there.side.take()] == [e.SubscribeRequested]


def test_joining_fetch_on_16_wants_the_largest_object_filter() -> None:
    there = peer(16)
    there.open(m.Subscribe(there.id(), TRACK))
    there.open(m.Fetch(there.id(), None, joining=0, joining_groups=1))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


# --- Request IDs ------------------------------------------------------------------------------------------------------


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


# --- GOAWAY -----------------------------------------------------------------------------------------------------------


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


# --- What a draft lacks is left out -----------------------------------------------------------------------------------


def test_what_a_draft_lacks_is_left_out() -> None:
    there = peer(16)
    number = made(there.session.subscribe(TRACK, Parameters(forward=True, fill=Fill(), rendezvous_timeout_ms=4)))
    assert there.heard() == [(there.control, m.Subscribe(number, TRACK, raw(Parameters(forward=True))))]
    there.open(m.Subscribe(0, TRACK))
    there.session.accept_subscribe(0, 1)
    there.heard()
    there.session.notify_state(0, Parameters(forward=True))
    there.session.goaway_request(0)
    assert there.heard() == []


def test_shaka_gets_its_subscribe_ok_without_properties() -> None:
    there = Peer(16, setup=SetupOptions(implementation="ShakaPlayer/5.2"), quirks=frozenset({"bare-subscribe-ok"}))
    there.open(m.Subscribe(0, TRACK))
    there.session.accept_subscribe(0, 1, properties=((0x0E, 3),))
    assert there.heard() == [(there.control, m.SubscribeOk(1, request=0))]


@pytest.mark.parametrize("draft", [20, 22])
def test_request_that_cannot_be_written_is_taken_back(draft: int) -> None:
    there = peer(draft)
    with pytest.raises(MisuseError):
        there.session.fetch(TRACK, LocationFilter(FilterKind.NONE), joining=1, joining_groups=0)
    there.session.check_invariants()
    assert there.session.statistics().requests_ours == 0
    assert there.heard() == [(1, ("reset", 0))]


def test_many_requests_of_ours_that_end_out_of_order() -> None:
    there = peer(settings=SessionSettings(max_id_gaps=8))
    numbers = [made(there.session.subscribe(FullTrackName((b"live",), bytes([n])))) for n in range(64)]
    for number in numbers[::2]:
        there.session.cancel(number)
    assert there.closed is None
    there.session.check_invariants()
