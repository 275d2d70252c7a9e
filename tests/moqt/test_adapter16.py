"""Draft 16's control stream as request streams: both ways, and its credit."""

from __future__ import annotations

import pytest

from tests.moqt.draft16 import NAMESPACE, VIOLATION, peer, said
from tests.moqt.pair import Bytes, Peer, made
from tests.moqt.requesting import CANCELLED, OTHER, TRACK
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import DoneCode, MisuseError, RequestCode, ResetCode, SessionCode
from tradewind.moqt.model import NO_FILTER, NO_PARAMETERS, Location, Parameters
from tradewind.moqt.parameters import RawParameters, SetupOptions
from tradewind.moqt.session import SessionSettings

# --- How each request is ended ----------------------------------------------------------------------------------------

DONE = m.PublishDone(DoneCode.SUBSCRIPTION_ENDED, None, "cancelled", request=0)
OURS_DONE = m.PublishDone(DoneCode.SUBSCRIPTION_ENDED, None, "cancelled", request=1)
REFUSED = m.RequestError(RequestCode.UNINTERESTED, "cancelled", request=0)


@pytest.mark.parametrize(
    ("ask", "answer", "pending", "established"),
    [
        (
            lambda session: session.subscribe(TRACK),
            m.SubscribeOk(5, request=1),
            [m.Unsubscribe(1)],
            [m.Unsubscribe(1)],
        ),
        (lambda session: session.publish(TRACK, 1), m.PublishOk(request=1), [OURS_DONE], [OURS_DONE]),
        (
            lambda session: session.fetch(TRACK, NO_FILTER),
            m.FetchOk(Location(0, 0), request=1),
            [m.FetchCancel(1)],
            [m.FetchCancel(1)],
        ),
        (lambda session: session.track_status(TRACK), m.RequestOk(request=1), [], []),
        (
            lambda session: session.publish_namespace(NAMESPACE),
            m.RequestOk(request=1),
            [m.PublishNamespaceDone(1)],
            [m.PublishNamespaceDone(1)],
        ),
    ],
)
def test_cancelling_ours(ask: object, answer: m.Message, pending: list[object], established: list[object]) -> None:
    assert callable(ask)
    for answered, expected in ((False, pending), (True, established)):
        there = peer()
        ask(there.session)
        if answered:
            there.say(there.control, answer)
            assert len(there.side.take()) == 1
        said(there)
        there.session.cancel(1)
        assert said(there) == expected
        assert there.session.statistics().requests_ours == 0
        # What was on its way is late, not wrong.
        there.say(there.control, answer)
        assert there.side.take() == [] and there.closed is None


@pytest.mark.parametrize(
    ("opener", "accept", "pending", "established"),
    [
        (m.Subscribe(0, TRACK), lambda session: session.accept_subscribe(0, 1), [REFUSED], [DONE]),
        (m.Publish(0, TRACK, 1), lambda session: session.accept(0), [REFUSED], [m.Unsubscribe(0)]),
        (m.Fetch(0, TRACK), lambda session: session.accept_fetch(0, Location(0, 0), True), [REFUSED], []),
        (m.TrackStatus(0, TRACK), None, [REFUSED], []),
        (
            m.PublishNamespace(0, NAMESPACE),
            lambda session: session.accept(0),
            [REFUSED],
            [m.PublishNamespaceCancel(0, RequestCode.UNINTERESTED, "cancelled")],
        ),
    ],
)
def test_cancelling_theirs(opener: m.Message, accept: object, pending: list[object], established: list[object]) -> None:
    for answered, expected in ((False, pending), (True, established)):
        if answered and accept is None:
            continue
        there = peer()
        there.open(opener)
        if answered:
            assert callable(accept)
            accept(there.session)
        said(there)
        there.session.cancel(0)
        assert said(there) == expected
        assert there.session.statistics().requests_theirs == 0


@pytest.mark.parametrize(
    ("opener", "ending"),
    [
        (m.Subscribe(0, TRACK), m.Unsubscribe(0)),
        (m.Fetch(0, TRACK), m.FetchCancel(0)),
        (m.PublishNamespace(0, NAMESPACE), m.PublishNamespaceDone(0)),
    ],
)
def test_their_words_for_it(opener: m.Message, ending: m.Message) -> None:
    there = peer()
    there.open(opener)
    there.side.take()
    said(there)
    there.say(there.control, ending)
    assert there.side.take() == [e.RequestCancelled(0, CANCELLED)]
    assert said(there) == []
    there.say(there.control, ending)
    assert there.closed is None and there.side.take() == []


def test_their_words_for_ours() -> None:
    there = peer()
    there.session.publish(TRACK, 1)
    there.session.publish_namespace(NAMESPACE)
    there.say(there.control, m.PublishOk(request=1), m.RequestOk(request=3))
    there.side.take()
    there.say(there.control, m.Unsubscribe(1), m.PublishNamespaceCancel(3, RequestCode.EXPIRED_AUTH_TOKEN, "old"))
    assert there.side.take() == [
        e.RequestCancelled(1, CANCELLED),
        e.RequestCancelled(3, ResetCode.EXPIRED_AUTH_TOKEN),
    ]


@pytest.mark.parametrize(
    "message",
    [
        m.Unsubscribe(0),
        m.FetchCancel(0),
        m.PublishNamespaceDone(6),
        m.PublishNamespaceCancel(1, 0),
        m.SubscribeOk(1, request=1),
        m.RequestOk(request=0),
        m.RequestError(0, request=7),
        m.PublishOk(request=3),
        m.PublishDone(0, request=2),
        m.RequestUpdate(2, existing=8),
        m.SubscribeNamespace(2, NAMESPACE, options=1),
        m.ClientSetup(SetupOptions()),
        m.ServerSetup(SetupOptions()),
        m.NamespaceAdded(NAMESPACE),
        m.MaxRequestId(200),
        m.Subscribe(1, TRACK),
    ],
)
def test_words_for_another_request_are_violations(message: m.Message) -> None:
    there = peer()
    there.open(m.PublishNamespace(there.id(), NAMESPACE))
    there.session.fetch(TRACK, NO_FILTER)
    there.say(there.control, message)
    assert there.closed in {VIOLATION, SessionCode.INVALID_REQUEST_ID}


# --- Answers and updates ----------------------------------------------------------------------------------------------


def test_publish_ok_carries_the_subscription() -> None:
    there = peer()
    number = made(there.session.publish(TRACK, 1))
    parameters = Parameters(forward=False, priority=9)
    there.say(there.control, m.PublishOk(RawParameters.of(parameters), request=1))
    assert there.side.take() == [e.RequestAccepted(number, parameters, ())]
    there.open(m.Publish(0, OTHER, 2))
    said(there)
    there.session.accept(0, Parameters(forward=True))
    assert said(there) == [m.PublishOk(RawParameters.of(Parameters(forward=True)), request=0)]


def test_request_ok_for_a_publish_is_a_violation() -> None:
    there = peer()
    there.session.publish(TRACK, 1)
    there.say(there.control, m.RequestOk(request=1))
    assert there.closed == VIOLATION


def test_updates_name_their_request() -> None:
    there = peer()
    number = made(there.session.subscribe(TRACK))
    there.say(there.control, m.SubscribeOk(5, request=1))
    there.side.take()
    said(there)
    first = made(there.session.update(number, Parameters(priority=1)))
    second = made(there.session.update(number, Parameters(priority=2)))
    assert said(there) == [
        m.RequestUpdate(3, RawParameters.of(Parameters(priority=1)), existing=1),
        m.RequestUpdate(5, RawParameters.of(Parameters(priority=2)), existing=1),
    ]
    there.say(there.control, m.RequestOk(request=second), m.RequestError(0, request=first))
    assert there.side.take() == [
        e.UpdateAccepted(number, second, NO_PARAMETERS),
        e.UpdateRefused(number, first, 0, ""),
    ]


def test_update_of_theirs() -> None:
    there = peer()
    there.open(m.Subscribe(0, TRACK))
    there.session.accept_subscribe(0, 1)
    there.side.take()
    said(there)
    there.say(there.control, m.RequestUpdate(2, existing=0))
    assert there.side.take() == [e.UpdateRequested(0, 2, NO_PARAMETERS)]
    there.session.accept_update(0, 2)
    assert said(there) == [m.RequestOk(request=2)]
    there.session.publish_done(0, DoneCode.TRACK_ENDED, 0)
    there.say(there.control, m.RequestUpdate(4, existing=0))
    assert there.side.take() == [] and there.closed is None


def test_update_answered_before_its_request_is_a_violation() -> None:
    there = peer()
    number = made(there.session.publish_namespace(NAMESPACE))
    update = made(there.session.update(number, NO_PARAMETERS))
    there.say(there.control, m.RequestOk(request=update))
    assert there.closed == VIOLATION


# --- Credit -----------------------------------------------------------------------------------------------------------


def test_credit_of_the_peer() -> None:
    there = peer(setup=SetupOptions(max_request_id=4))
    assert there.session.subscribe(TRACK) == 1
    assert there.session.subscribe(OTHER) == 3
    said(there)
    assert there.session.subscribe(TRACK) is None
    assert there.session.update(3, NO_PARAMETERS) is None
    assert there.session.subscribe_namespace(NAMESPACE) is None
    assert said(there) == [m.RequestsBlocked(4)]
    there.say(there.control, m.MaxRequestId(6))
    assert there.session.publish(TRACK, 1) == 5
    assert there.session.subscribe(TRACK) is None
    assert said(there)[1:] == [m.RequestsBlocked(6)]
    there.say(there.control, m.MaxRequestId(6))
    assert there.closed == VIOLATION


def test_our_credit_grows_as_it_is_used() -> None:
    there = peer(settings=SessionSettings(request_window=3))
    for _ in range(50):
        number = there.id()
        there.open(m.TrackStatus(number, TRACK))
        assert there.closed is None
        there.session.accept(number)
    granted = [message.limit for message in said(there) if isinstance(message, m.MaxRequestId)]
    assert granted == sorted(set(granted)) and granted[-1] > 100


def test_our_credit_waits_while_as_many_are_open_as_may_be() -> None:
    there = peer(settings=SessionSettings(request_window=2, max_requests=1))
    there.open(m.PublishNamespace(0, NAMESPACE))
    there.open(m.TrackStatus(2, TRACK))
    assert [type(message) for message in said(there)] == [m.RequestError]
    there.session.cancel(0)
    assert [message for message in said(there) if isinstance(message, m.MaxRequestId)] == [m.MaxRequestId(8)]


def test_id_over_the_credit() -> None:
    there = peer(settings=SessionSettings(request_window=2))
    there.open(m.TrackStatus(4, TRACK))
    assert there.closed == SessionCode.TOO_MANY_REQUESTS


def test_ids_grow_on_the_control_stream() -> None:
    there = peer()
    there.open(m.TrackStatus(4, TRACK))
    # A SUBSCRIBE_NAMESPACE had the id that was left out, on a stream of its own.
    there.open(m.SubscribeNamespace(2, NAMESPACE, options=1))
    assert there.closed is None
    there.open(m.TrackStatus(0, TRACK))
    assert there.closed == SessionCode.INVALID_REQUEST_ID


def test_requests_blocked_is_counted() -> None:
    there = peer()
    there.say(there.control, m.RequestsBlocked(9))
    assert dict(there.session.statistics().counters)["requests_blocked"] == 1


# --- Setup, streams that are none, and our own mistakes ---------------------------------------------------------------


@pytest.mark.parametrize("opener", [m.Subscribe(0, TRACK), m.ServerSetup(SetupOptions()), m.RequestOk(request=0)])
def test_other_bidirectional_streams_are_violations(opener: m.Message) -> None:
    there = peer()
    there.side.receive(Bytes(there.bidi_id(), m.encode(there.profile, opener)))
    assert there.closed == VIOLATION


def test_second_client_setup_is_a_violation() -> None:
    there = peer()
    there.side.receive(Bytes(there.bidi_id(), m.encode(there.profile, m.ClientSetup(SetupOptions()))))
    assert there.closed == VIOLATION


def test_setup_message_must_come_first() -> None:
    there = Peer(16)
    there.session.start(SetupOptions())
    there.side.receive(Bytes(0, m.encode(there.profile, m.Subscribe(0, TRACK))))
    assert there.session.statistics().early_streams == 1
    client = Peer(16, is_client=True)
    client.session.start(SetupOptions())
    client.side.receive(Bytes(0, m.encode(client.profile, m.Subscribe(1, TRACK))))
    assert client.closed == VIOLATION


def test_joining_something_else_than_a_subscription() -> None:
    there = peer()
    there.open(m.PublishNamespace(0, NAMESPACE))
    there.open(m.Fetch(2, None, joining=0, joining_groups=1))
    assert said(there)[-1].code == RequestCode.INVALID_JOINING_REQUEST_ID


def test_no_stream_for_client_setup() -> None:
    there = Peer(16, is_client=True)
    there.side.transport.bidi_credit = 0
    there.session.start(SetupOptions())
    assert there.closed == SessionCode.INTERNAL_ERROR


def test_owner_mistakes_are_told() -> None:
    there = peer()
    there.open(m.Subscribe(0, TRACK))
    with pytest.raises(MisuseError):
        there.session.accept(0)
    with pytest.raises(MisuseError):
        there.session.notify_namespace(0, NAMESPACE)
