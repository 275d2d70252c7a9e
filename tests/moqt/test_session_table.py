"""The state table, cell by cell: what it allows moves the request, everything else closes the session."""

from __future__ import annotations

import itertools

import pytest

from tests.moqt.pair import Peer, made
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import DoneCode, RequestCode, SessionCode
from tradewind.moqt.model import NO_FILTER, FullTrackName, Location
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.states import FIRST, STEPS, Ending, Kind, Phase, Side, Step, ending, rules_of, step

TRACK = FullTrackName((b"live", b"demo"), b"video")

FOLLOWING: list[m.Message] = [
    m.SubscribeOk(3),
    m.FetchOk(Location(1, 1)),
    m.RequestOk(),
    m.RequestError(RequestCode.TIMEOUT, "late"),
    m.RequestUpdate(1000),
    m.PublishDone(DoneCode.TRACK_ENDED, 0),
    m.PublishStateNotify(),
    m.NamespaceAdded((b"x",)),
    m.NamespaceDone((b"x",)),
    m.PublishSkipped((b"x",), b"t"),
    m.Goaway(""),
    m.Setup(SetupOptions()),
    m.Subscribe(1000, TRACK),
    m.PublishNamespace(1000, (b"x",)),
]


def theirs(kind: Kind, phase: Phase) -> tuple[Peer, int] | None:
    """A session with a request of the peer's in this phase, and its stream; None: it cannot get there."""
    there = Peer(20, setup=SetupOptions())
    openers: dict[Kind, m.Message] = {
        Kind.SUBSCRIBE: m.Subscribe(0, TRACK),
        Kind.PUBLISH: m.Publish(0, TRACK, 3),
        Kind.FETCH: m.Fetch(0, TRACK),
        Kind.TRACK_STATUS: m.TrackStatus(0, TRACK),
        Kind.PUBLISH_NAMESPACE: m.PublishNamespace(0, (b"live",)),
        Kind.SUBSCRIBE_NAMESPACE: m.SubscribeNamespace(0, (b"live",)),
        Kind.SUBSCRIBE_TRACKS: m.SubscribeTracks(0, (b"live",)),
    }
    stream = there.open(openers[kind])
    session = there.session
    if phase is Phase.REFUSED:
        session.reject(0, RequestCode.UNINTERESTED, "")
    elif phase is not Phase.PENDING:
        if kind is Kind.SUBSCRIBE:
            session.accept_subscribe(0, 1)
        elif kind is Kind.FETCH:
            session.accept_fetch(0, Location(1, 1), True)
        else:
            session.accept(0)
        if phase is Phase.DONE:
            if kind is Kind.SUBSCRIBE:
                session.publish_done(0, DoneCode.TRACK_ENDED, 0)
            elif kind is Kind.FETCH:
                session.finish(0)
            elif kind is Kind.PUBLISH:
                there.say(stream, m.PublishDone(DoneCode.TRACK_ENDED, 0))
            elif kind is not Kind.TRACK_STATUS:
                return None
        elif kind is Kind.TRACK_STATUS:
            return None
    there.side.take()
    there.heard()
    return there, stream


def ours(kind: Kind, phase: Phase) -> tuple[Peer, int] | None:
    """The same for a request of ours."""
    there = Peer(20, setup=SetupOptions())
    session = there.session
    answer: m.Message = m.RequestOk()
    match kind:
        case Kind.SUBSCRIBE:
            number, answer = made(session.subscribe(TRACK)), m.SubscribeOk(3)
        case Kind.PUBLISH:
            number = made(session.publish(TRACK, 3))
        case Kind.FETCH:
            number, answer = made(session.fetch(TRACK, NO_FILTER)), m.FetchOk(Location(1, 1))
        case Kind.TRACK_STATUS:
            number = made(session.track_status(TRACK))
        case Kind.PUBLISH_NAMESPACE:
            number = made(session.publish_namespace((b"live",)))
        case Kind.SUBSCRIBE_NAMESPACE:
            number = made(session.subscribe_namespace((b"live",)))
        case Kind.SUBSCRIBE_TRACKS:
            number = made(session.subscribe_tracks((b"live",)))
    if phase is Phase.REFUSED:
        there.say(1, m.RequestError(RequestCode.TIMEOUT))
    elif phase is not Phase.PENDING:
        there.say(1, answer)
        if phase is Phase.DONE:
            if kind is Kind.SUBSCRIBE:
                there.say(1, m.PublishDone(DoneCode.TRACK_ENDED, 0))
            elif kind is Kind.PUBLISH:
                session.publish_done(number, DoneCode.TRACK_ENDED, 0)
            elif kind is not Kind.TRACK_STATUS:
                return None
        elif kind is Kind.TRACK_STATUS:
            return None
    there.side.take()
    there.heard()
    return there, 1


@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("kind", list(Kind))
def test_every_cell(kind: Kind, is_ours: bool) -> None:
    sender = Side.RESPONDER if is_ours else Side.REQUESTER
    for phase, message in itertools.product(Phase, FOLLOWING):
        made_there = (ours if is_ours else theirs)(kind, phase)
        if made_there is None:
            continue
        there, stream = made_there
        there.say(stream, message)
        events = there.side.take()
        expected = step(kind, sender, phase, type(message))
        no_update = expected in {Step.UPDATE_OK, Step.UPDATE_ERROR}
        unknown_done = expected is Step.NAMESPACE_DONE
        where = f"{type(message).__name__} on {phase.name} {kind.name}"
        if expected is None or no_update or unknown_done:
            assert there.closed == SessionCode.PROTOCOL_VIOLATION, where
            assert [type(event) for event in events] == [e.SessionClosed], where
        else:
            assert there.closed is None, where
            assert bool(events) == (expected is not Step.LATE), where


def test_every_kind_begins_and_ends() -> None:
    for kind in Kind:
        assert kind in FIRST.values()
        answered = {found for (of, side, _), steps in STEPS.items() if of is kind for found in steps.values()}
        assert {Step.ACCEPT, Step.REFUSE} <= answered


@pytest.mark.parametrize("draft", [16, 18, 20, 22])
def test_fin_before_what_must_come_first_is_a_failure(draft: int) -> None:
    rules = rules_of(draft)
    for kind in Kind:
        assert ending(kind, Side.RESPONDER, Phase.PENDING, rules) is Ending.FAILED
        for side, phase in itertools.product(Side, (Phase.REFUSED, Phase.DONE)):
            assert ending(kind, side, phase, rules) is Ending.NOTHING
    assert ending(Kind.SUBSCRIBE, Side.RESPONDER, Phase.ESTABLISHED, rules) is Ending.FAILED
    assert ending(Kind.PUBLISH, Side.REQUESTER, Phase.ESTABLISHED, rules) is Ending.FAILED
    assert ending(Kind.PUBLISH, Side.RESPONDER, Phase.ESTABLISHED, rules) is Ending.NOTHING
    expected = Ending.FAILED if draft <= 18 else Ending.NOTHING
    assert ending(Kind.SUBSCRIBE, Side.REQUESTER, Phase.ESTABLISHED, rules) is expected


@pytest.mark.parametrize("message", [m.RequestOk, m.RequestError, m.Goaway])
def test_what_was_said_beside_the_objects_may_come_after_them(message: type[m.Message]) -> None:
    """A FETCH is over with its data stream, and streams overtake each other."""
    assert step(Kind.FETCH, Side.RESPONDER, Phase.DONE, message) is Step.LATE
