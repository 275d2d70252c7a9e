"""Who may send what on a request stream, and what it means: tables, and nothing that acts.

`tradewind.moqt.requests` reads them for every message, FIN and answer. A request stream has a requester, who opened
it, and a responder; every cell that is missing here is a PROTOCOL_VIOLATION. Draft 16's control stream is shown as
request streams by `tradewind.moqt.adapter16`, so these tables serve every draft; what differs is a `Rules` row.
Sources: draft-20, "Request Streams" rules in "Session initialization", "Subscriptions", "Fetch State Management",
"Subscribing to Namespaces", "Publishing Namespaces" and the section of each message.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from tradewind.moqt import messages as m
from tradewind.moqt.parameters import Scope


class Kind(Enum):
    """What a request stream was opened with."""

    SUBSCRIBE = auto()
    PUBLISH = auto()
    FETCH = auto()
    TRACK_STATUS = auto()
    PUBLISH_NAMESPACE = auto()
    SUBSCRIBE_NAMESPACE = auto()
    SUBSCRIBE_TRACKS = auto()


class Side(Enum):
    """Which end of a request stream."""

    REQUESTER = auto()
    RESPONDER = auto()


class Phase(Enum):
    """How far a request has come."""

    PENDING = auto()
    """Not answered yet."""
    ESTABLISHED = auto()
    REFUSED = auto()
    """Answered with REQUEST_ERROR."""
    DONE = auto()
    """Its publisher has said PUBLISH_DONE, or its one answer was all of it."""


class Step(Enum):
    """What a message does to its request."""

    ACCEPT = auto()
    REFUSE = auto()
    UPDATE = auto()
    UPDATE_OK = auto()
    UPDATE_ERROR = auto()
    DONE = auto()
    NOTIFY = auto()
    NAMESPACE = auto()
    NAMESPACE_DONE = auto()
    SKIPPED = auto()
    GOAWAY = auto()
    READVERTISE = auto()
    LATE = auto()
    """It crossed the end of the request on the wire: read, and then ignored."""


class Ending(Enum):
    """What a FIN means."""

    NOTHING = auto()
    """That end will say no more; the request lives on or was over already."""
    FAILED = auto()
    """Something that had to come first is missing, or the draft lets a FIN cancel: the request is gone."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What differs between drafts in how requests behave; everything else is in the tables."""

    request_streams: bool
    """Each request has a bidirectional stream of its own (drafts from 17)."""
    fin_cancels: bool
    """A requester's FIN ends its request (drafts up to 18)."""
    one_subscription: bool
    """A second subscription to a track in the same role is refused (drafts up to 18)."""
    reserved_namespaces: bool
    """Namespaces under "." and ".session" never reach the application (drafts from 18)."""
    fills: bool
    """Subscriptions can ask for fill streams (drafts from 20)."""
    goaway_first_unprocessed: bool
    """A session's GOAWAY names the first request that it refuses (draft 18)."""


def rules_of(draft: int) -> Rules:
    """The row for a draft, by its number."""
    return Rules(
        request_streams=draft >= 17,
        fin_cancels=draft <= 18,
        one_subscription=draft <= 18,
        reserved_namespaces=draft >= 18,
        fills=draft >= 20,
        goaway_first_unprocessed=draft == 18,
    )


SUBSCRIPTIONS: Final = frozenset({Kind.SUBSCRIBE, Kind.PUBLISH})
NAMESPACE_KINDS: Final = frozenset({Kind.PUBLISH_NAMESPACE, Kind.SUBSCRIBE_NAMESPACE, Kind.SUBSCRIBE_TRACKS})
PREFIX_KINDS: Final = frozenset({Kind.SUBSCRIBE_NAMESPACE, Kind.SUBSCRIBE_TRACKS})

FIRST: Final[dict[type[m.Message], Kind]] = {
    m.Subscribe: Kind.SUBSCRIBE,
    m.Publish: Kind.PUBLISH,
    m.Fetch: Kind.FETCH,
    m.TrackStatus: Kind.TRACK_STATUS,
    m.PublishNamespace: Kind.PUBLISH_NAMESPACE,
    m.SubscribeNamespace: Kind.SUBSCRIBE_NAMESPACE,
    m.SubscribeTracks: Kind.SUBSCRIBE_TRACKS,
}
"""What a request stream may begin with (draft-20, "Session initialization")."""

Cell: TypeAlias = tuple[Kind, Side, Phase]
Cells: TypeAlias = "dict[Cell, dict[type[m.Message], Step]]"

_ASKS: Final[dict[type[m.Message], Step]] = {m.RequestUpdate: Step.UPDATE, m.Goaway: Step.GOAWAY}
_LATE_ASKS: Final[dict[type[m.Message], Step]] = dict.fromkeys(_ASKS, Step.LATE)
_ANSWERS: Final[dict[type[m.Message], Step]] = {
    m.RequestOk: Step.ACCEPT,
    m.RequestError: Step.REFUSE,
    m.Goaway: Step.GOAWAY,
}
_UPDATE_ANSWERS: Final[dict[type[m.Message], Step]] = {
    m.RequestOk: Step.UPDATE_OK,
    m.RequestError: Step.UPDATE_ERROR,
    m.Goaway: Step.GOAWAY,
}
_PUBLISHER: Final[dict[type[m.Message], Step]] = {m.PublishStateNotify: Step.NOTIFY, m.PublishDone: Step.DONE}


def _late(steps: dict[type[m.Message], Step]) -> dict[type[m.Message], Step]:
    return dict.fromkeys(steps, Step.LATE)


def _subscribe() -> Cells:
    kind = Kind.SUBSCRIBE
    return {
        (kind, Side.REQUESTER, Phase.PENDING): _ASKS,
        (kind, Side.REQUESTER, Phase.ESTABLISHED): _ASKS,
        (kind, Side.REQUESTER, Phase.REFUSED): _LATE_ASKS,
        (kind, Side.REQUESTER, Phase.DONE): _LATE_ASKS,
        (kind, Side.RESPONDER, Phase.PENDING): {
            m.SubscribeOk: Step.ACCEPT,
            m.RequestError: Step.REFUSE,
            m.Goaway: Step.GOAWAY,
        },
        (kind, Side.RESPONDER, Phase.ESTABLISHED): _UPDATE_ANSWERS | _PUBLISHER,
    }


def _publish() -> Cells:
    kind = Kind.PUBLISH
    return {
        (kind, Side.REQUESTER, Phase.PENDING): _ASKS | _PUBLISHER,
        (kind, Side.REQUESTER, Phase.ESTABLISHED): _ASKS | _UPDATE_ANSWERS | _PUBLISHER,
        (kind, Side.REQUESTER, Phase.REFUSED): _late(_ASKS | _UPDATE_ANSWERS | _PUBLISHER),
        (kind, Side.RESPONDER, Phase.PENDING): _ANSWERS,
        (kind, Side.RESPONDER, Phase.ESTABLISHED): _ASKS | _UPDATE_ANSWERS,
        (kind, Side.RESPONDER, Phase.DONE): _late(_ASKS | _ANSWERS),
    }


def _plain(kind: Kind, accept: type[m.Message], during: dict[type[m.Message], Step]) -> Cells:
    """A request with one requester's message, one answer, updates, and what the responder says `during` it."""
    return {
        (kind, Side.REQUESTER, Phase.PENDING): _ASKS,
        (kind, Side.REQUESTER, Phase.ESTABLISHED): _ASKS,
        (kind, Side.REQUESTER, Phase.REFUSED): _LATE_ASKS,
        (kind, Side.REQUESTER, Phase.DONE): _LATE_ASKS,
        (kind, Side.RESPONDER, Phase.PENDING): {
            accept: Step.ACCEPT,
            m.RequestError: Step.REFUSE,
            m.Goaway: Step.GOAWAY,
        },
        (kind, Side.RESPONDER, Phase.ESTABLISHED): _UPDATE_ANSWERS | during,
    }


def _track_status() -> Cells:
    """TRACK_STATUS is its requester's "first and only message", and one answer is all of it."""
    goaway: dict[type[m.Message], Step] = {m.Goaway: Step.GOAWAY}
    return {
        (Kind.TRACK_STATUS, Side.REQUESTER, Phase.PENDING): goaway,
        (Kind.TRACK_STATUS, Side.REQUESTER, Phase.REFUSED): _late(goaway),
        (Kind.TRACK_STATUS, Side.REQUESTER, Phase.DONE): _late(goaway),
        (Kind.TRACK_STATUS, Side.RESPONDER, Phase.PENDING): _ANSWERS,
    }


STEPS: Final[Cells] = {
    **_subscribe(),
    **_publish(),
    **_track_status(),
    **_plain(Kind.FETCH, m.FetchOk, {}),
    # The objects have a stream of their own, which may be over before what was said beside it has come.
    (Kind.FETCH, Side.RESPONDER, Phase.DONE): _late(_UPDATE_ANSWERS),
    **_plain(Kind.PUBLISH_NAMESPACE, m.RequestOk, {}),
    **_plain(
        Kind.SUBSCRIBE_NAMESPACE,
        m.RequestOk,
        {m.NamespaceAdded: Step.NAMESPACE, m.NamespaceDone: Step.NAMESPACE_DONE},
    ),
    **_plain(Kind.SUBSCRIBE_TRACKS, m.RequestOk, {m.PublishSkipped: Step.SKIPPED}),
}
"""(kind, who sent it, how far the request is) -> message -> step."""


BETWEEN_RELAYS: Final[Cells] = {
    (Kind.PUBLISH_NAMESPACE, Side.REQUESTER, Phase.PENDING): {m.PublishNamespace: Step.READVERTISE},
    (Kind.PUBLISH_NAMESPACE, Side.REQUESTER, Phase.ESTABLISHED): {m.PublishNamespace: Step.READVERTISE},
    (Kind.PUBLISH_NAMESPACE, Side.REQUESTER, Phase.REFUSED): {m.PublishNamespace: Step.LATE},
}
"""What relays of one mesh may say besides (MoQ Cluster, "Updating an Advertisement")."""


def step(kind: Kind, sender: Side, phase: Phase, message: type[m.Message], *, cluster: bool = False) -> Step | None:
    """What a message that `sender` sent does; None: the draft forbids it there. `cluster`: both ends are relays."""
    cell = (kind, sender, phase)
    found = STEPS.get(cell, {}).get(message)
    return BETWEEN_RELAYS.get(cell, {}).get(message) if found is None and cluster else found


def ending(kind: Kind, sender: Side, phase: Phase, rules: Rules) -> Ending:
    """What a FIN from `sender` means (draft-20, "Graceful Request Stream Closure").

    A FIN is no cancellation, but the answer and PUBLISH_DONE must come before it. A responder that ends a namespace
    subscription's stream ends what it was for. Up to draft 18 a requester's FIN cancels.
    """
    if phase in {Phase.REFUSED, Phase.DONE}:
        return Ending.NOTHING
    if sender is Side.RESPONDER:
        if phase is Phase.PENDING or kind in {Kind.SUBSCRIBE, *PREFIX_KINDS}:
            return Ending.FAILED
        return Ending.FAILED if rules.fin_cancels and kind is Kind.PUBLISH_NAMESPACE else Ending.NOTHING
    if kind is Kind.PUBLISH:
        return Ending.FAILED
    if kind in {Kind.FETCH, Kind.TRACK_STATUS}:
        return Ending.NOTHING
    return Ending.FAILED if rules.fin_cancels else Ending.NOTHING


UPDATE_SCOPES: Final[dict[tuple[Kind, Side], Scope]] = {
    (Kind.SUBSCRIBE, Side.REQUESTER): Scope.UPDATE_SUBSCRIPTION,
    (Kind.PUBLISH, Side.REQUESTER): Scope.UPDATE_PUBLISH,
    (Kind.PUBLISH, Side.RESPONDER): Scope.UPDATE_SUBSCRIPTION,
    (Kind.FETCH, Side.REQUESTER): Scope.UPDATE_FETCH,
    (Kind.PUBLISH_NAMESPACE, Side.REQUESTER): Scope.UPDATE_PUBLISH_NAMESPACE,
    (Kind.SUBSCRIBE_NAMESPACE, Side.REQUESTER): Scope.UPDATE_SUBSCRIBE_NAMESPACE,
    (Kind.SUBSCRIBE_TRACKS, Side.REQUESTER): Scope.UPDATE_SUBSCRIBE_TRACKS,
}
"""(kind, who sends the REQUEST_UPDATE) -> what may stand in it."""

OK_SCOPES: Final[dict[Kind, Scope]] = {
    Kind.PUBLISH: Scope.PUBLISH_OK,
    Kind.TRACK_STATUS: Scope.TRACK_STATUS_OK,
    Kind.PUBLISH_NAMESPACE: Scope.PUBLISH_NAMESPACE_OK,
    Kind.SUBSCRIBE_NAMESPACE: Scope.SUBSCRIBE_NAMESPACE_OK,
    Kind.SUBSCRIBE_TRACKS: Scope.SUBSCRIBE_TRACKS_OK,
}
"""What may stand in the REQUEST_OK that answers a request."""
