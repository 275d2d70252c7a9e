"""A peer past SETUP, one request of every kind, and what tests of requests ask of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.moqt.pair import DRAFTS, Peer
from tradewind.moqt import messages as m
from tradewind.moqt.errors import ResetCode
from tradewind.moqt.model import FullTrackName, Location, Parameters
from tradewind.moqt.parameters import RawParameters, SetupOptions
from tradewind.moqt.session import Session

TRACK = FullTrackName((b"live", b"demo"), b"video")
OTHER = FullTrackName((b"live", b"demo"), b"audio")
STREAM_DRAFTS = [draft for draft in DRAFTS if draft >= 17]
SETUP = SetupOptions(max_filter_ranges=8)
CANCELLED = ResetCode.CANCELLED

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


def peer(draft: int = 20, **options: Any) -> Peer:
    return Peer(draft, setup=SETUP, **options)


def raw(parameters: Parameters) -> RawParameters:
    return RawParameters.of(parameters)


def refusal(there: Peer, message: m.Message) -> int | None:
    """The code that a request is refused with at once; None: the owner was asked."""
    there.heard()
    there.side.take()
    there.open(message)
    events = there.side.take()
    answers = [answer for _, answer in there.heard() if isinstance(answer, m.RequestError)]
    assert bool(answers) != bool(events)
    return answers[0].code if answers else None
