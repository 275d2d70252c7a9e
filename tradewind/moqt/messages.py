"""Control messages: what stands between a message type and its last byte, as frozen values and back.

`tradewind.moqt.session` is the caller. One set of values serves every draft, in the words of draft 20: a profile's
layout table says which messages exist, under which type, and with which fields in which order. What a draft lacks is
None (or its default) after decoding and is left out by `encode`. Parameters stay in their raw form, with token
aliases unresolved, because the token cache is the session's. Source: draft-20, "Control Messages".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from tradewind.moqt.errors import MisuseError
from tradewind.moqt.events import Redirect
from tradewind.moqt.fields import STRICT, Quirks, Reader, violation
from tradewind.moqt.layouts import Decoding, Encoding
from tradewind.moqt.model import NO_FILTER, FullTrackName, Location, LocationFilter, Namespace, Properties
from tradewind.moqt.parameters import NO_RAW_PARAMETERS, RawParameters, Scope, SetupOptions

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile

MAX_MESSAGE_BYTES = 0xFFFF
"""A control message's body: its length field has 16 bits."""


# --- The session ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setup:
    """SETUP (drafts from 17): the first message on each side's control stream."""

    options: SetupOptions


@dataclass(frozen=True, slots=True)
class ClientSetup:
    """CLIENT_SETUP (draft 16)."""

    options: SetupOptions


@dataclass(frozen=True, slots=True)
class ServerSetup:
    """SERVER_SETUP (draft 16)."""

    options: SetupOptions


@dataclass(frozen=True, slots=True)
class Goaway:
    """GOAWAY, on the control stream or (drafts from 18) on one request's stream."""

    uri: str
    timeout_ms: int = 0
    """0: no particular time, and always so on draft 16."""
    first_unprocessed: int | None = None
    """Draft 18, control stream only: the smallest Request ID of the receiver that may not have been processed."""


@dataclass(frozen=True, slots=True)
class MaxRequestId:
    """MAX_REQUEST_ID (draft 16): the receiver may use Request IDs below `limit`."""

    limit: int


@dataclass(frozen=True, slots=True)
class RequestsBlocked:
    """REQUESTS_BLOCKED (draft 16): the sender has a request waiting for a MAX_REQUEST_ID above `limit`."""

    limit: int


# --- Requests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subscribe:
    request: int
    track: FullTrackName
    parameters: RawParameters = NO_RAW_PARAMETERS


@dataclass(frozen=True, slots=True)
class TrackStatus:
    request: int
    track: FullTrackName
    parameters: RawParameters = NO_RAW_PARAMETERS


@dataclass(frozen=True, slots=True)
class Publish:
    request: int
    track: FullTrackName
    alias: int
    parameters: RawParameters = NO_RAW_PARAMETERS
    properties: Properties = ()


@dataclass(frozen=True, slots=True)
class Fetch:
    """FETCH. The range is in `filter` whatever the draft; `parameters.values.filter` is always None here.

    Joining (drafts up to 18): `joining` names the subscription, `track` is None and `filter` says nothing; the range
    starts `joining_groups` before that subscription's Largest, or at group `joining_start`.
    """

    request: int
    track: FullTrackName | None
    filter: LocationFilter = NO_FILTER
    parameters: RawParameters = NO_RAW_PARAMETERS
    joining: int | None = None
    joining_groups: int | None = None
    joining_start: int | None = None


@dataclass(frozen=True, slots=True)
class PublishNamespace:
    request: int
    namespace: Namespace
    parameters: RawParameters = NO_RAW_PARAMETERS


@dataclass(frozen=True, slots=True)
class SubscribeNamespace:
    """SUBSCRIBE_NAMESPACE. `options` is draft 16's Subscribe Options: 0 PUBLISH, 1 NAMESPACE, 2 both; else None."""

    request: int
    prefix: Namespace
    parameters: RawParameters = NO_RAW_PARAMETERS
    options: int | None = None


@dataclass(frozen=True, slots=True)
class SubscribeTracks:
    """SUBSCRIBE_TRACKS (drafts from 18)."""

    request: int
    prefix: Namespace
    parameters: RawParameters = NO_RAW_PARAMETERS


@dataclass(frozen=True, slots=True)
class RequestUpdate:
    """REQUEST_UPDATE. `request` is the update's own Request ID; `existing` (draft 16) the one that it changes."""

    request: int
    parameters: RawParameters = NO_RAW_PARAMETERS
    existing: int | None = None


# --- Answers; `request` is the answered Request ID on draft 16 and None later, where the stream says it ---------------


@dataclass(frozen=True, slots=True)
class SubscribeOk:
    alias: int
    parameters: RawParameters = NO_RAW_PARAMETERS
    properties: Properties = ()
    request: int | None = None


@dataclass(frozen=True, slots=True)
class FetchOk:
    """FETCH_OK. `end` is inclusive whatever the draft's encoding; object MAX_VARINT: all of the group."""

    end: Location
    end_of_track: bool = False
    parameters: RawParameters = NO_RAW_PARAMETERS
    properties: Properties = ()
    request: int | None = None


@dataclass(frozen=True, slots=True)
class RequestOk:
    """REQUEST_OK. Drafts from 17 may carry Track Properties, which only a TRACK_STATUS may be answered with."""

    parameters: RawParameters = NO_RAW_PARAMETERS
    properties: Properties = ()
    request: int | None = None


@dataclass(frozen=True, slots=True)
class PublishOk:
    """PUBLISH_OK (draft 16 and 17; later a PUBLISH is answered with REQUEST_OK)."""

    parameters: RawParameters = NO_RAW_PARAMETERS
    request: int | None = None


@dataclass(frozen=True, slots=True)
class RequestError:
    """REQUEST_ERROR. `retry_ms` None: do not try again (0 on the wire); `redirect` only with code REDIRECT."""

    code: int
    reason: str = ""
    retry_ms: int | None = None
    redirect: Redirect | None = None
    request: int | None = None


# --- During and after a request -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublishDone:
    """PUBLISH_DONE. `status` is numbered as in draft 20 whatever the draft; `stream_count` None: unknown."""

    status: int
    stream_count: int | None = None
    reason: str = ""
    request: int | None = None


@dataclass(frozen=True, slots=True)
class PublishStateNotify:
    """PUBLISH_STATE_NOTIFY (drafts from 20)."""

    parameters: RawParameters = NO_RAW_PARAMETERS


@dataclass(frozen=True, slots=True)
class NamespaceAdded:
    """NAMESPACE, on a SUBSCRIBE_NAMESPACE's stream; `suffix` is what follows its prefix."""

    suffix: Namespace


@dataclass(frozen=True, slots=True)
class NamespaceDone:
    """NAMESPACE_DONE: takes a NAMESPACE back."""

    suffix: Namespace


@dataclass(frozen=True, slots=True)
class PublishSkipped:
    """PUBLISH_SKIPPED (PUBLISH_BLOCKED in 17 and 18), on a SUBSCRIBE_TRACKS's stream."""

    suffix: Namespace
    name: bytes


# --- Draft 16 ends requests with messages ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    request: int


@dataclass(frozen=True, slots=True)
class FetchCancel:
    request: int


@dataclass(frozen=True, slots=True)
class PublishNamespaceDone:
    request: int


@dataclass(frozen=True, slots=True)
class PublishNamespaceCancel:
    request: int
    code: int
    reason: str = ""


Message: TypeAlias = (
    Setup
    | ClientSetup
    | ServerSetup
    | Goaway
    | MaxRequestId
    | RequestsBlocked
    | Subscribe
    | TrackStatus
    | Publish
    | Fetch
    | PublishNamespace
    | SubscribeNamespace
    | SubscribeTracks
    | RequestUpdate
    | SubscribeOk
    | FetchOk
    | RequestOk
    | PublishOk
    | RequestError
    | PublishDone
    | PublishStateNotify
    | NamespaceAdded
    | NamespaceDone
    | PublishSkipped
    | Unsubscribe
    | FetchCancel
    | PublishNamespaceDone
    | PublishNamespaceCancel
)


def decode(profile: Profile, type: int, body: bytes, quirks: Quirks = STRICT) -> Message:
    """One message from its type and whole body.

    Raises ProtocolViolation for an unknown type, a field out of its bounds, or a body that is longer or shorter than
    the message. A filter that only refuses its own request comes back as `parameters.flaw`.
    """
    layout = profile.by_type.get(type)
    if layout is None:
        raise violation(f"unknown message type {type:#x}")
    _, message, row = layout
    decoding = Decoding(Reader(profile, body, quirks), _SCOPES.get(message, _NO_SCOPES), {})
    for field in row:
        field.read(decoding)
    decoding.reader.finish(message.__name__)
    return message(**decoding.values)


def encode(profile: Profile, message: Message, scope: Scope | None = None) -> bytes:
    """A whole message: type, 16-bit length and body. MisuseError where the draft lacks it or it would not fit.

    Parameters that the draft lacks, or that may not stand in this message, are left out; `scope` narrows that down
    for REQUEST_OK and REQUEST_UPDATE, which serve many requests.
    """
    layout = profile.by_class.get(type(message))
    if layout is None:
        raise MisuseError(f"{profile.name} has no {type(message).__name__}")
    number, kind, row = layout
    scopes = _SCOPES.get(kind, _NO_SCOPES) if scope is None else frozenset((scope,))
    encoding = Encoding(profile, scopes)
    body = b"".join(field.write(encoding, message) for field in row)
    if len(body) > MAX_MESSAGE_BYTES:
        raise MisuseError(f"{kind.__name__} of {len(body)} bytes does not fit a control message")
    return profile.varint.encode(number) + len(body).to_bytes(2, "big") + body


class ControlDecoder:
    """Cuts one control or request stream into messages, however its bytes arrive.

    Call `receive` with what arrived, then `next_message` until it returns None, and `finish` on FIN. Never holds more
    than one incomplete message and what the last `receive` brought.
    """

    __slots__ = ("_buffer", "_offset", "_profile", "_quirks")

    def __init__(self, profile: Profile, quirks: Quirks = STRICT) -> None:
        self._profile = profile
        self._quirks = quirks
        self._buffer = bytearray()
        self._offset = 0

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        del self._buffer[: self._offset]
        self._offset = 0
        self._buffer += data

    def next_message(self) -> Message | None:
        """The next whole message; None until more bytes come. Raises ProtocolViolation as `decode` does.

        An unknown type is refused before its body has arrived.
        """
        header = self._profile.varint.decode(self._buffer, self._offset)
        if header is None:
            return None
        number, offset = header
        if number not in self._profile.by_type:
            raise violation(f"unknown message type {number:#x}")
        start = offset + 2
        end = start + int.from_bytes(self._buffer[offset:start], "big")
        if len(self._buffer) < start or len(self._buffer) < end:
            return None
        body = bytes(self._buffer[start:end])
        self._offset = end
        return decode(self._profile, number, body, self._quirks)

    def finish(self) -> None:
        """The stream ended here: raises ProtocolViolation in the middle of a message."""
        if self.buffered_bytes:
            raise violation("a stream ended inside a control message")

    @property
    def buffered_bytes(self) -> int:
        """Bytes received that no message has carried out yet."""
        return len(self._buffer) - self._offset


_NO_SCOPES: Final[frozenset[Scope]] = frozenset()

_SCOPES: Final[dict[type[Message], frozenset[Scope]]] = {
    Subscribe: frozenset({Scope.SUBSCRIBE}),
    TrackStatus: frozenset({Scope.TRACK_STATUS}),
    Publish: frozenset({Scope.PUBLISH}),
    Fetch: frozenset({Scope.FETCH}),
    PublishNamespace: frozenset({Scope.PUBLISH_NAMESPACE}),
    SubscribeNamespace: frozenset({Scope.SUBSCRIBE_NAMESPACE}),
    SubscribeTracks: frozenset({Scope.SUBSCRIBE_TRACKS}),
    RequestUpdate: frozenset(
        {
            Scope.UPDATE_SUBSCRIPTION,
            Scope.UPDATE_PUBLISH,
            Scope.UPDATE_FETCH,
            Scope.UPDATE_PUBLISH_NAMESPACE,
            Scope.UPDATE_SUBSCRIBE_NAMESPACE,
            Scope.UPDATE_SUBSCRIBE_TRACKS,
        }
    ),
    SubscribeOk: frozenset({Scope.SUBSCRIBE_OK}),
    FetchOk: frozenset({Scope.FETCH_OK}),
    PublishOk: frozenset({Scope.PUBLISH_OK}),
    RequestOk: frozenset(
        {
            Scope.PUBLISH_OK,
            Scope.TRACK_STATUS_OK,
            Scope.PUBLISH_NAMESPACE_OK,
            Scope.SUBSCRIBE_NAMESPACE_OK,
            Scope.SUBSCRIBE_TRACKS_OK,
            Scope.UPDATE_OK,
        }
    ),
    PublishStateNotify: frozenset({Scope.PUBLISH_STATE_NOTIFY}),
}
