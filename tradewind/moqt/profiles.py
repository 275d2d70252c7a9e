"""What differs between drafts, as tables: one row a draft.

The codecs of this room take a `Profile` and ask it, never which draft it is; sessions read its `draft` and flags.
`choose` is the version choice of a listener. Sources: drafts 16, 18, 20 and 22; draft 21 changed no byte of 20.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from tradewind.moqt import layouts as f
from tradewind.moqt import messages as m
from tradewind.moqt import scopes
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode
from tradewind.moqt.model import FilterSubject
from tradewind.moqt.parameters import ParameterRow
from tradewind.moqt.varint import QUIC, VI64, VarintCodec

Layout: TypeAlias = tuple[int, type[m.Message], tuple[f.Field, ...]]


@dataclass(frozen=True, slots=True)
class Codes:
    """Where a draft numbers our codes differently or lacks them: ours -> what is sent there instead.

    Ours are draft 20's. Coming back, only renumbered codes are translated; unknown ones are passed on.
    """

    done: Mapping[int, int] = field(default_factory=dict)
    """PUBLISH_DONE."""
    request: Mapping[int, int] = field(default_factory=dict)
    """REQUEST_ERROR."""
    reset: Mapping[int, int] = field(default_factory=dict)
    """RESET_STREAM and STOP_SENDING."""

    def done_to_wire(self, code: int) -> int:
        """A PUBLISH_DONE code as the draft numbers it."""
        return self.done.get(code, code)

    def done_from_wire(self, code: int) -> int:
        """A PUBLISH_DONE code as draft 20 numbers it."""
        return _original(self.done, DoneCode, code)

    def request_to_wire(self, code: int) -> int:
        """A REQUEST_ERROR code that the draft knows: the same, or the nearest."""
        return self.request.get(code, code)

    def reset_to_wire(self, code: int) -> int:
        """A stream error code as the draft numbers it."""
        return self.reset.get(code, code)

    def reset_from_wire(self, code: int) -> int:
        """A stream error code as draft 20 numbers it."""
        return _original(self.reset, ResetCode, code)


@dataclass(frozen=True, slots=True)
class DataForms:
    """How a draft writes objects, where drafts differ."""

    first_object_flag: bool = True
    """SUBGROUP_HEADER has FIRST_OBJECT (0x40)."""
    fetch_deltas: bool = True
    """Fetch objects carry group and object ids as differences."""
    timed_out_ranges: bool = True
    """End of Timed-Out Range exists; without it a timed-out range is an unknown one."""
    padding: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """One draft on the wire. There is one of each, so they compare and hash by identity."""

    name: str
    """The ALPN token, and the WebTransport protocol name."""
    draft: int
    varint: VarintCodec
    layouts: tuple[Layout, ...]
    """Every message that the draft has: its type, its value and its fields in wire order."""
    parameters: Mapping[int, ParameterRow]
    setup_options: frozenset[int]
    codes: Codes = Codes()
    data: DataForms = DataForms()
    request_streams: bool = True
    """Each request has its own bidirectional stream, and answers name no request."""
    parameters_are_pairs: bool = False
    """Message Parameters are Key-Value-Pairs: their parity says how long they are, and misplaced ones are ignored.
    Setup parameters are counted too."""
    fewest_namespace_fields: int = 0
    filter_end_is_delta: bool = True
    """A Subscription Filter's end group counts from its start group."""
    fetch_end_is_exclusive: bool = False
    """FETCH and FETCH_OK carry the end object plus one, 0 for the whole group."""
    joining_fetch: bool = False
    cluster: bool = False
    """Relays of one mesh speak it with each other: namespaces say by which way they came (MoQ Cluster)."""
    positive_timeouts: bool = False
    """A delivery timeout of 0 is a violation rather than "none"."""
    by_type: Mapping[int, Layout] = field(init=False, repr=False)
    by_class: Mapping[type[m.Message], Layout] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_type", {layout[0]: layout for layout in self.layouts})
        object.__setattr__(self, "by_class", {layout[1]: layout for layout in self.layouts})

    def has(self, message: type[m.Message]) -> bool:
        """Whether the draft has this message."""
        return message in self.by_class

    @property
    def fill(self) -> bool:
        """Subscriptions can ask for fill streams."""
        return 0x23 in self.parameters

    @property
    def range_filters(self) -> bool:
        """Subscriptions and fetches can carry Range Filters."""
        return FilterSubject.SUBGROUP.value in self.parameters


def choose(offered: Collection[str], origin: str | None, allowed: Collection[str]) -> str | None:
    """The draft to speak: the first in the server's order that the peer offered and the listener allows.

    `origin` is the Origin header of a WebTransport request: whoever sends one is a browser, and the players that
    browsers run today only play on draft 16. None where nothing fits; never a name that was not offered.
    """
    order = NATIVE_ORDER if origin is None else BROWSER_ORDER
    return next((name for name in order if name in offered and name in allowed), None)


def _original(codes: Mapping[int, int], names: type[DoneCode | ResetCode], code: int) -> int:
    """A code that some other code was moved to, moved back; a replacement for a code that the draft lacks stays."""
    if code not in codes and code in set(names):
        return code
    return next((ours for ours, wire in codes.items() if wire == code), code)


_TRACK_OPTIONS: Final = frozenset({0x01, 0x03, 0x04, 0x05, 0x07})

_COMMON: Final[tuple[Layout, ...]] = (
    (0x3, m.Subscribe, (f.REQUEST, f.TRACK, f.PARAMETERS)),
    (0xD, m.TrackStatus, (f.REQUEST, f.TRACK, f.PARAMETERS)),
    (0x1D, m.Publish, (f.REQUEST, f.TRACK, f.ALIAS, f.PARAMETERS, f.PROPERTIES)),
    (0x6, m.PublishNamespace, (f.REQUEST, f.NAMESPACE, f.PARAMETERS)),
    (0x8, m.NamespaceAdded, (f.SUFFIX,)),
    (0xE, m.NamespaceDone, (f.SUFFIX,)),
)

_LAYOUTS_16: Final[tuple[Layout, ...]] = (
    *_COMMON,
    (0x20, m.ClientSetup, (f.OPTIONS,)),
    (0x21, m.ServerSetup, (f.OPTIONS,)),
    (0x10, m.Goaway, (f.URI,)),
    (0x15, m.MaxRequestId, (f.LIMIT,)),
    (0x1A, m.RequestsBlocked, (f.LIMIT,)),
    (0x7, m.RequestOk, (f.ANSWERED, f.PARAMETERS)),
    (0x5, m.RequestError, (f.ANSWERED, f.REQUEST_CODE, f.RETRY, f.REASON)),
    (0x4, m.SubscribeOk, (f.ANSWERED, f.ALIAS, f.PARAMETERS, f.PROPERTIES)),
    (0x2, m.RequestUpdate, (f.REQUEST, f.EXISTING, f.PARAMETERS)),
    (0xA, m.Unsubscribe, (f.REQUEST,)),
    (0x1E, m.PublishOk, (f.ANSWERED, f.PARAMETERS)),
    (0xB, m.PublishDone, (f.ANSWERED, f.STATUS, f.STREAM_COUNT, f.REASON)),
    (0x16, m.Fetch, (f.REQUEST, f.FETCH_RANGE, f.PARAMETERS)),
    (0x18, m.FetchOk, (f.ANSWERED, f.END_OF_TRACK, f.END, f.PARAMETERS, f.PROPERTIES)),
    (0x17, m.FetchCancel, (f.REQUEST,)),
    (0x9, m.PublishNamespaceDone, (f.REQUEST,)),
    (0xC, m.PublishNamespaceCancel, (f.REQUEST, f.REQUEST_CODE, f.REASON)),
    (0x11, m.SubscribeNamespace, (f.REQUEST, f.NAMESPACE_PREFIX, f.SUBSCRIBE_OPTIONS, f.PARAMETERS)),
)

_FROM_18: Final[tuple[Layout, ...]] = (
    *_COMMON,
    (0x2F00, m.Setup, (f.OPTIONS,)),
    (0x7, m.RequestOk, (f.PARAMETERS, f.PROPERTIES)),
    (0x5, m.RequestError, (f.REQUEST_CODE, f.RETRY, f.REASON, f.REDIRECT)),
    (0x4, m.SubscribeOk, (f.ALIAS, f.PARAMETERS, f.PROPERTIES)),
    (0x2, m.RequestUpdate, (f.REQUEST, f.PARAMETERS)),
    (0xB, m.PublishDone, (f.STATUS, f.STREAM_COUNT, f.REASON)),
    (0x18, m.FetchOk, (f.END_OF_TRACK, f.END, f.PARAMETERS, f.PROPERTIES)),
    (0x50, m.SubscribeNamespace, (f.REQUEST, f.NAMESPACE_PREFIX, f.PARAMETERS)),
    (0x51, m.SubscribeTracks, (f.REQUEST, f.NAMESPACE_PREFIX, f.PARAMETERS)),
    (0xF, m.PublishSkipped, (f.SUFFIX, f.SKIPPED_NAME)),
)

_LAYOUTS_18: Final[tuple[Layout, ...]] = (
    *_FROM_18,
    (0x10, m.Goaway, (f.URI, f.TIMEOUT, f.FIRST_UNPROCESSED)),
    (0x16, m.Fetch, (f.REQUEST, f.FETCH_RANGE, f.PARAMETERS)),
)

_LAYOUTS_20: Final[tuple[Layout, ...]] = (
    *_FROM_18,
    (0x10, m.Goaway, (f.URI, f.TIMEOUT)),
    (0x16, m.Fetch, (f.REQUEST, f.FETCH_TRACK, f.FETCH_PARAMETERS)),
    (0x22, m.PublishStateNotify, (f.PARAMETERS,)),
)

_REQUEST_CODES_18: Final[Mapping[int, int]] = {
    RequestCode.CONFLICTING_FILTERS: RequestCode.NOT_SUPPORTED,
    RequestCode.INVALID_FILTER: RequestCode.INVALID_RANGE,
}

_20: Final = Profile(
    name="moqt-20",
    draft=20,
    varint=VI64,
    layouts=_LAYOUTS_20,
    parameters=scopes.DRAFT_20,
    setup_options=_TRACK_OPTIONS | {0x06, 0x08},
    codes=Codes(
        request={
            RequestCode.DUPLICATE_SUBSCRIPTION: RequestCode.NOT_SUPPORTED,
            RequestCode.INVALID_JOINING_REQUEST_ID: RequestCode.INVALID_RANGE,
        }
    ),
)

_18: Final = replace(
    _20,
    name="moqt-18",
    draft=18,
    layouts=_LAYOUTS_18,
    parameters=scopes.DRAFT_18,
    setup_options=_TRACK_OPTIONS,
    codes=Codes(request=_REQUEST_CODES_18),
    data=DataForms(timed_out_ranges=False),
    fetch_end_is_exclusive=True,
    joining_fetch=True,
)

_16: Final = replace(
    _18,
    name="moqt-16",
    draft=16,
    varint=QUIC,
    layouts=_LAYOUTS_16,
    parameters=scopes.DRAFT_16,
    setup_options=_TRACK_OPTIONS | {0x02},
    codes=Codes(
        done={
            DoneCode.TOO_FAR_BEHIND: 0x6,
            DoneCode.EXPIRED: 0x5,
            DoneCode.EXCESSIVE_LOAD: DoneCode.INTERNAL_ERROR,
        },
        request={
            **_REQUEST_CODES_18,
            RequestCode.GOING_AWAY: RequestCode.INTERNAL_ERROR,
            RequestCode.EXCESSIVE_LOAD: RequestCode.INTERNAL_ERROR,
            RequestCode.NAMESPACE_TOO_LARGE: RequestCode.INTERNAL_ERROR,
            RequestCode.UNSUPPORTED_EXTENSION: RequestCode.NOT_SUPPORTED,
            RequestCode.REDIRECT: RequestCode.DOES_NOT_EXIST,
        },
        reset={
            ResetCode.UNKNOWN_OBJECT_STATUS: 0x4,
            ResetCode.GOING_AWAY: ResetCode.CANCELLED,
            ResetCode.TOO_FAR_BEHIND: ResetCode.DELIVERY_TIMEOUT,
            ResetCode.EXPIRED_AUTH_TOKEN: ResetCode.CANCELLED,
            ResetCode.EXCESSIVE_LOAD: ResetCode.INTERNAL_ERROR,
        },
    ),
    data=DataForms(first_object_flag=False, fetch_deltas=False, timed_out_ranges=False, padding=False),
    request_streams=False,
    parameters_are_pairs=True,
    fewest_namespace_fields=1,
    filter_end_is_delta=False,
    positive_timeouts=True,
)

_21: Final = replace(_20, name="moqt-21", draft=21)
_22: Final = replace(_21, name="moqt-22", draft=22, parameters=scopes.DRAFT_22)

NEIGHBOUR: Final = replace(_20, name="tradewind-relay-20", parameters=scopes.BETWEEN_RELAYS, cluster=True)
"""What relays of one mesh speak with each other, after both have proven who they are."""

PROFILES: Final[Mapping[str, Profile]] = {profile.name: profile for profile in (_16, _18, _20, _21, _22)}

NATIVE_ORDER: Final = ("moqt-22", "moqt-21", "moqt-20", "moqt-18", "moqt-16")
BROWSER_ORDER: Final = ("moqt-16", "moqt-22", "moqt-21", "moqt-20", "moqt-18")
