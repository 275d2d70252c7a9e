"""What a session tells its owner, in the words of draft 20 whatever draft is on the wire.

`Session.receive_*` return lists of these; `relay.node` and `tradewind.client` read them. `request` is a number that
names one request of this session for as long as it lives: the Request ID on the wire. Requests that the peer opened
and ours have different parities, so one dictionary holds both. `stream` is the transport's stream id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from tradewind.moqt.model import (
    DatagramObject,
    FetchObject,
    FullTrackName,
    Location,
    LocationFilter,
    Namespace,
    ObjectHeader,
    Parameters,
    Properties,
    RangeEnd,
    SubgroupHeader,
    Token,
)


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a refused request may succeed (draft-20, "Redirect Structure")."""

    uri: str
    track: FullTrackName


# --- The session itself -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetupReceived:
    """The peer's SETUP: the first event of every session. On WebTransport `authority` and `path` are empty."""

    authority: str
    path: str
    tokens: tuple[Token, ...]
    implementation: str
    """Printable ASCII only, at most 128 characters: safe to log."""


@dataclass(frozen=True, slots=True)
class GoawayReceived:
    """The peer wants the session (`request` None), or one request, moved. `timeout_ms` 0: no particular time."""

    request: int | None
    uri: str
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session has closed its connection itself with `code`, because of what the peer did. The last event."""

    code: int
    reason: str


# --- Requests that the peer opened --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SubscribeRequested:
    request: int
    track: FullTrackName
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class PublishRequested:
    """The peer offers a track; its objects may already be arriving under `alias`."""

    request: int
    track: FullTrackName
    alias: int
    parameters: Parameters
    properties: Properties


@dataclass(frozen=True, slots=True)
class FetchRequested:
    """A range of past objects. `joining`: the subscription it continues (drafts up to 18), whose saved Largest ends
    the range; then `joining_groups` back from that, or from absolute group `joining_start`, and `filter` is unused.
    """

    request: int
    track: FullTrackName
    filter: LocationFilter
    parameters: Parameters
    joining: int | None = None
    joining_groups: int | None = None
    joining_start: int | None = None


@dataclass(frozen=True, slots=True)
class TrackStatusRequested:
    request: int
    track: FullTrackName
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class PublishNamespaceRequested:
    request: int
    namespace: Namespace
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class NamespaceReadvertised:
    """Between relays: an advertised namespace comes by another way."""

    request: int
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class SubscribeNamespaceRequested:
    request: int
    prefix: Namespace
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class SubscribeTracksRequested:
    request: int
    prefix: Namespace
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class UpdateRequested:
    """REQUEST_UPDATE of `request`, to be answered with `accept_update` or `reject_update` naming `update`."""

    request: int
    update: int
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    """The peer ended a request: it reset or stopped the stream, unsubscribed, or withdrew. It may be theirs or ours.

    For theirs of namespace kind also a FIN. For ours it also stands for a FIN before the answer. `code` None: FIN.
    """

    request: int
    code: int | None


# --- Answers to requests that we opened ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SubscribeAccepted:
    request: int
    alias: int
    parameters: Parameters
    properties: Properties


@dataclass(frozen=True, slots=True)
class FetchAccepted:
    request: int
    end: Location
    """The last location that the answer covers, inclusive, whatever the draft's encoding."""
    end_of_track: bool
    parameters: Parameters
    properties: Properties


@dataclass(frozen=True, slots=True)
class RequestAccepted:
    """REQUEST_OK for PUBLISH, PUBLISH_NAMESPACE, SUBSCRIBE_NAMESPACE, SUBSCRIBE_TRACKS or TRACK_STATUS."""

    request: int
    parameters: Parameters
    properties: Properties


@dataclass(frozen=True, slots=True)
class RequestRefused:
    request: int
    code: int
    reason: str
    retry_ms: int | None
    """How long to wait before asking again; None: do not."""
    redirect: Redirect | None = None


@dataclass(frozen=True, slots=True)
class UpdateAccepted:
    request: int
    update: int
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class UpdateRefused:
    request: int
    update: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class PublishDone:
    """The publisher of a subscription of ours (or of a PUBLISH of theirs) has opened its last stream."""

    request: int
    status: int
    stream_count: int | None
    """None: the publisher does not know."""
    reason: str


@dataclass(frozen=True, slots=True)
class StateNotified:
    """PUBLISH_STATE_NOTIFY."""

    request: int
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class NamespaceFound:
    """A namespace under the prefix of our SUBSCRIBE_NAMESPACE; `namespace` is whole, not the suffix."""

    request: int
    namespace: Namespace


@dataclass(frozen=True, slots=True)
class NamespaceGone:
    request: int
    namespace: Namespace


@dataclass(frozen=True, slots=True)
class PublishSkipped:
    request: int
    track: FullTrackName


# --- Objects ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SubgroupOpened:
    """A subgroup stream whose header is whole and whose alias is known.

    `requests`: every subscription of ours, or PUBLISH of theirs, that the alias stands for. `header.subgroup` is
    always known here: where it is the first object's id, the event waits for that object.
    """

    stream: int
    requests: tuple[int, ...]
    header: SubgroupHeader


@dataclass(frozen=True, slots=True)
class ObjectStarted:
    """An object's header on a subgroup stream. Its payload follows in `ObjectData`, unless `length` is 0."""

    stream: int
    header: ObjectHeader


@dataclass(frozen=True, slots=True)
class ObjectData:
    """The next bytes of the object last started on this stream, in order; `last`: the object is whole."""

    stream: int
    data: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class SubgroupClosed:
    """The stream ended: cleanly (`code` None: every object of the subgroup came), or by reset."""

    stream: int
    code: int | None


@dataclass(frozen=True, slots=True)
class DatagramArrived:
    requests: tuple[int, ...]
    object: DatagramObject


@dataclass(frozen=True, slots=True)
class FetchOpened:
    """A fetch stream for a FETCH of ours, or for a fill that a SUBSCRIBE or REQUEST_UPDATE of ours asked for.

    `request` is what the stream names: the FETCH, the SUBSCRIBE (or the peer's PUBLISH), or the REQUEST_UPDATE.
    """

    stream: int
    request: int
    subscription: int | None = None
    """The subscription that a fill belongs to; None: a FETCH."""


@dataclass(frozen=True, slots=True)
class FetchObjectStarted:
    """The payload follows in `ObjectData` with the same stream, unless `length` is 0."""

    stream: int
    object: FetchObject


@dataclass(frozen=True, slots=True)
class FetchRangeEnded:
    """Everything from after the last object up to `location`, inclusive, is what `kind` says."""

    stream: int
    kind: RangeEnd
    location: Location


@dataclass(frozen=True, slots=True)
class FetchClosed:
    """`code` None: the answer is complete."""

    stream: int
    request: int
    code: int | None


Event: TypeAlias = (
    SetupReceived
    | GoawayReceived
    | SessionClosed
    | SubscribeRequested
    | PublishRequested
    | FetchRequested
    | TrackStatusRequested
    | PublishNamespaceRequested
    | NamespaceReadvertised
    | SubscribeNamespaceRequested
    | SubscribeTracksRequested
    | UpdateRequested
    | RequestCancelled
    | SubscribeAccepted
    | FetchAccepted
    | RequestAccepted
    | RequestRefused
    | UpdateAccepted
    | UpdateRefused
    | PublishDone
    | StateNotified
    | NamespaceFound
    | NamespaceGone
    | PublishSkipped
    | SubgroupOpened
    | ObjectStarted
    | ObjectData
    | SubgroupClosed
    | DatagramArrived
    | FetchOpened
    | FetchObjectStarted
    | FetchRangeEnded
    | FetchClosed
)
