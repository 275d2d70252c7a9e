"""Requests one by one: who may say what when, exactly one answer, FIN, RESET_STREAM and STOP_SENDING."""

from __future__ import annotations

import pytest

from tests.moqt.pair import DRAFTS, made
from tests.moqt.requesting import CANCELLED, OPENERS, OTHER, STREAM_DRAFTS, TRACK, peer, raw
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import DoneCode, MisuseError, RequestCode, ResetCode, SessionCode
from tradewind.moqt.model import NO_PARAMETERS, FilterKind, FullTrackName, Location, LocationFilter, Parameters
from tradewind.moqt.session import SessionSettings

# --- Their requests, our answers --------------------------------------------------------------------------------------


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


def test_flaw_in_what_cannot_be_refused_is_a_violation() -> None:
    there = peer(16)
    there.session.publish(TRACK, 1)
    backwards = LocationFilter(FilterKind.ABSOLUTE, start=Location(9, 0), end_group=4)
    there.say(there.control, m.PublishOk(raw(Parameters(filter=backwards)), request=1))
    assert there.closed == SessionCode.PROTOCOL_VIOLATION
