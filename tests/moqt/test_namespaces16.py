"""Draft 16's SUBSCRIBE_NAMESPACE: a stream of its own, and one request for namespaces, for tracks, or for both."""

from __future__ import annotations

import pytest

from tests.moqt.draft16 import NAMESPACE, VIOLATION, peer, said
from tests.moqt.pair import Bytes, Peer, made
from tests.moqt.requesting import CANCELLED, TRACK
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import NO_PARAMETERS, Parameters, Token, TokenUse
from tradewind.moqt.parameters import RawParameters, RawToken
from tradewind.moqt.requests import TWIN


def test_namespace_subscription_has_its_own_stream() -> None:
    there = peer()
    number = made(there.session.subscribe_namespace((b"live",)))
    assert there.heard() == [(1, m.SubscribeNamespace(number, (b"live",), options=1))]
    there.say(1, m.RequestOk(request=number), m.NamespaceAdded((b"demo",)))
    assert there.side.take() == [
        e.RequestAccepted(number, NO_PARAMETERS, ()),
        e.NamespaceFound(number, NAMESPACE),
    ]
    there.session.cancel(number)
    assert there.heard() == [(1, ("reset", CANCELLED)), (1, ("stop", CANCELLED))]


def test_track_subscription_is_one_too() -> None:
    there = peer()
    number = made(there.session.subscribe_tracks((b"live",), Parameters(forward=False)))
    parameters = RawParameters.of(Parameters(forward=False))
    assert there.heard() == [(1, m.SubscribeNamespace(number, (b"live",), parameters, options=0))]
    there.say(1, m.RequestError(RequestCode.UNAUTHORIZED, "", request=number), fin=True)
    assert there.side.take() == [e.RequestRefused(number, RequestCode.UNAUTHORIZED, "", None)]
    assert there.heard() == [(1, "fin")]
    assert there.session.statistics().streams == 1


@pytest.mark.parametrize("answer", [m.RequestOk(request=9), m.RequestError(0, request=9), m.NamespaceAdded(())])
def test_wrong_answer_on_its_stream(answer: m.Message) -> None:
    there = peer()
    there.session.subscribe_namespace((b"live",))
    there.say(1, answer)
    assert there.closed == VIOLATION


def test_answer_on_the_control_stream_is_a_violation() -> None:
    there = peer()
    there.session.subscribe_namespace((b"live",))
    there.say(there.control, m.RequestOk(request=1))
    assert there.closed == VIOLATION


@pytest.mark.parametrize(
    ("options", "event"),
    [
        (0, e.SubscribeTracksRequested(0, NAMESPACE, NO_PARAMETERS)),
        (1, e.SubscribeNamespaceRequested(0, NAMESPACE, NO_PARAMETERS)),
    ],
)
def test_options_say_what_is_asked(options: int, event: e.Event) -> None:
    there = peer()
    stream = there.open(m.SubscribeNamespace(0, NAMESPACE, options=options))
    assert there.side.take() == [event]
    there.session.accept(0)
    assert there.heard() == [(stream, m.RequestOk(request=0))]


def both() -> tuple[Peer, int]:
    there = peer()
    token = RawToken(TokenUse.REGISTER, 1, 1, b"t")
    stream = there.open(m.SubscribeNamespace(0, NAMESPACE, RawParameters(tokens=(token,)), options=2))
    parameters = Parameters(tokens=(Token(1, b"t"),))
    assert there.side.take() == [
        e.SubscribeNamespaceRequested(0, NAMESPACE, parameters),
        e.SubscribeTracksRequested(TWIN, NAMESPACE, parameters),
    ]
    return there, stream


def test_both_halves_share_one_answer() -> None:
    there, stream = both()
    there.session.accept(TWIN)
    there.session.accept(0)
    assert there.heard() == [(stream, m.RequestOk(request=0))]
    there.session.notify_namespace(0, (*NAMESPACE, b"x"))
    assert there.heard() == [(stream, m.NamespaceAdded((b"x",)))]
    there.session.skip_publish(TWIN, TRACK)
    assert there.heard() == []
    there.reset(stream)
    assert there.side.take() == [e.RequestCancelled(0, CANCELLED), e.RequestCancelled(TWIN, CANCELLED)]
    assert there.session.statistics().requests_theirs == 0


@pytest.mark.parametrize(("first", "second"), [(0, TWIN), (TWIN, 0)])
def test_one_half_refused_is_no_refusal(first: int, second: int) -> None:
    there, stream = both()
    there.session.reject(first, RequestCode.UNAUTHORIZED, "not this")
    assert there.heard() == []
    there.session.accept(second)
    assert there.heard() == [(stream, m.RequestOk(request=0))]
    there.session.cancel(second)
    assert there.heard() == [(stream, ("reset", CANCELLED)), (stream, ("stop", CANCELLED))]


def test_both_halves_refused() -> None:
    there, stream = both()
    there.session.reject(0, RequestCode.UNAUTHORIZED, "not this")
    there.session.reject(TWIN, RequestCode.UNAUTHORIZED, "nor this")
    assert there.heard() == [(stream, m.RequestError(RequestCode.UNAUTHORIZED, "nor this", request=0)), (stream, "fin")]
    there.say(stream, fin=True)
    assert there.session.statistics().streams == 1


def test_one_half_cancelled_leaves_the_other() -> None:
    there, stream = both()
    there.session.accept(0)
    there.session.accept(TWIN)
    there.heard()
    there.session.cancel(TWIN)
    assert there.heard() == []
    there.session.cancel(0)
    assert there.heard() == [(stream, ("reset", CANCELLED)), (stream, ("stop", CANCELLED))]


def test_fin_withdraws_both_halves() -> None:
    there, stream = both()
    there.session.accept(0)
    there.session.accept(TWIN)
    there.side.receive(Bytes(stream, fin=True))
    assert there.side.take() == [e.RequestCancelled(0, None), e.RequestCancelled(TWIN, None)]


def test_both_halves_refused_by_the_session() -> None:
    there, _ = both()
    stream = there.open(m.SubscribeNamespace(2, NAMESPACE[:1], options=2))
    assert there.side.take() == []
    ((answered, error), (_, fin)) = there.heard()
    assert answered == stream and fin == "fin" and error.code == RequestCode.PREFIX_OVERLAP


def test_stopped_namespace_stream_ends_both_halves() -> None:
    there, stream = both()
    there.stop(stream)
    assert there.side.take() == [e.RequestCancelled(0, CANCELLED), e.RequestCancelled(TWIN, CANCELLED)]
    assert there.session.statistics().streams == 1


def test_first_half_refused_after_the_second_was_accepted_and_cancelled() -> None:
    there, stream = both()
    there.session.accept(TWIN)
    there.session.cancel(TWIN)
    assert there.heard() == [(stream, m.RequestOk(request=0))]
    there.session.reject(0, RequestCode.UNAUTHORIZED, "")
    assert there.heard() == [(stream, "fin")]


def test_message_after_a_subscribe_namespace() -> None:
    there = peer()
    stream = there.open(m.SubscribeNamespace(0, NAMESPACE, options=1))
    there.say(stream, m.NamespaceAdded(()))
    assert there.closed == VIOLATION


def test_update_that_overtakes_its_subscribe_namespace_is_refused() -> None:
    there = peer()
    there.say(there.control, m.RequestUpdate(2, existing=0))
    assert said(there) == [m.RequestError(RequestCode.DOES_NOT_EXIST, "no such request yet", request=2)]
    there.open(m.SubscribeNamespace(0, NAMESPACE, options=1))
    assert there.closed is None
    number = there.session.subscribe_namespace(NAMESPACE)
    assert number is not None and there.session.update(number, NO_PARAMETERS) is None
