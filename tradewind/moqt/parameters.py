"""Message Parameters, Setup Options and Properties: values on the wire and back.

`tradewind.moqt.messages` is the caller; the session resolves what is left raw here. Source: draft-20, "Message
Parameters", "Setup Options" and "Key-Value-Pair Structure".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from tradewind.moqt.errors import RequestCode
from tradewind.moqt.fields import Reader, violation
from tradewind.moqt.filters import FilterFlaw, Flaw
from tradewind.moqt.model import (
    NO_PARAMETERS,
    FilterSubject,
    Parameters,
    Properties,
    RangeFilter,
    Token,
    TokenUse,
)

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile

MAX_TOKENS = 32
"""Tokens in one message: far more than any policy needs, far fewer than fit 64 kB."""


@dataclass(frozen=True, slots=True)
class RawToken:
    """A Token structure as it stands on the wire: its alias is not resolved.

    `alias` is None with USE_VALUE; `type` and `value` are None with DELETE and USE_ALIAS.
    """

    use: TokenUse
    alias: int | None = None
    type: int | None = None
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class RawParameters:
    """One message's parameters before the session has looked at their tokens."""

    values: Parameters = NO_PARAMETERS
    """`values.tokens` is always empty."""
    tokens: tuple[RawToken, ...] = ()
    flaw: Flaw | None = None

    @classmethod
    def of(cls, values: Parameters) -> RawParameters:
        """What to send for `values`: its tokens go out whole, with USE_VALUE."""
        if not values.tokens:
            return cls(values)
        tokens = tuple(RawToken(TokenUse.USE_VALUE, None, token.type, token.value) for token in values.tokens)
        return cls(replace(values, tokens=()), tokens)

    def resolved(self, tokens: tuple[Token, ...]) -> Parameters:
        """The values with the session's `tokens` in place of the raw ones."""
        return replace(self.values, tokens=tokens) if tokens else self.values


NO_RAW_PARAMETERS = RawParameters()


class Scope(Enum):
    """What a set of parameters belongs to.

    REQUEST_OK and REQUEST_UPDATE look alike for every request, but what may stand in them depends on the request: the
    session, which knows it, calls `check_scope`.
    """

    SUBSCRIBE = "SUBSCRIBE"
    SUBSCRIBE_OK = "SUBSCRIBE_OK"
    PUBLISH = "PUBLISH"
    PUBLISH_OK = "PUBLISH_OK"
    FETCH = "FETCH"
    FETCH_OK = "FETCH_OK"
    TRACK_STATUS = "TRACK_STATUS"
    TRACK_STATUS_OK = "TRACK_STATUS_OK"
    PUBLISH_NAMESPACE = "PUBLISH_NAMESPACE"
    PUBLISH_NAMESPACE_OK = "PUBLISH_NAMESPACE_OK"
    SUBSCRIBE_NAMESPACE = "SUBSCRIBE_NAMESPACE"
    SUBSCRIBE_NAMESPACE_OK = "SUBSCRIBE_NAMESPACE_OK"
    SUBSCRIBE_TRACKS = "SUBSCRIBE_TRACKS"
    SUBSCRIBE_TRACKS_OK = "SUBSCRIBE_TRACKS_OK"
    UPDATE_SUBSCRIPTION = "REQUEST_UPDATE of a subscription, from its subscriber"
    UPDATE_PUBLISH = "REQUEST_UPDATE of a subscription, from its publisher"
    UPDATE_FETCH = "REQUEST_UPDATE of a FETCH"
    UPDATE_PUBLISH_NAMESPACE = "REQUEST_UPDATE of a PUBLISH_NAMESPACE"
    UPDATE_SUBSCRIBE_NAMESPACE = "REQUEST_UPDATE of a SUBSCRIBE_NAMESPACE"
    UPDATE_SUBSCRIBE_TRACKS = "REQUEST_UPDATE of a SUBSCRIBE_TRACKS"
    UPDATE_OK = "REQUEST_UPDATE_OK"
    PUBLISH_STATE_NOTIFY = "PUBLISH_STATE_NOTIFY"
    FILL = "FILL_PARAMETERS"


@dataclass(frozen=True, slots=True)
class SetupOptions:
    """What SETUP (or draft 16's CLIENT_SETUP and SERVER_SETUP) says; a field's default is what silence means."""

    path: str | None = None
    authority: str | None = None
    tokens: tuple[RawToken, ...] = ()
    max_request_id: int = 0
    """Draft 16 only."""
    max_token_cache_bytes: int = 0
    max_filter_ranges: int = 0
    """Drafts from 19."""
    max_request_updates: int = 0
    """Drafts from 19; 0: not limited."""
    implementation: str = ""
    others: Properties = ()
    """Options that this room does not know, in wire order: extensions are negotiated above it."""


class Kind(NamedTuple):
    """How one parameter's value is written. `read` gives None for a value that counts as absent."""

    read: Callable[[Reader], Any]
    write: Callable[[Profile, Any], bytes | None]


@dataclass(frozen=True, slots=True)
class ParameterRow:
    """One Message Parameter of one draft: its type, where its value lives, its wire kind and where it may stand."""

    type: int
    name: str
    field: str
    """The field of `model.Parameters`; "tokens" and "range_filters" may repeat."""
    kind: Kind
    scopes: frozenset[Scope]


def decode_parameters(reader: Reader, scopes: frozenset[Scope]) -> RawParameters:
    """A parameter count and that many parameters, of a message that may mean any of `scopes`.

    Raises ProtocolViolation for unknown, misplaced or repeated parameters and for values out of their range; a
    filter that only refuses its own request becomes the result's `flaw`.
    """
    return decode_rows(reader, reader.varint(), scopes)


def decode_rows(reader: Reader, count: int | None, scopes: frozenset[Scope]) -> RawParameters:
    """`count` parameters, or (None) all up to the reader's end; see `decode_parameters`."""
    profile = reader.profile
    into = _Collected()
    type = 0
    done = 0
    while reader.offset < reader.end if count is None else done < count:
        type += reader.varint()
        done += 1
        row = profile.parameters.get(type)
        if row is None:
            raise violation(f"unknown parameter {type:#x}")
        if not row.scopes.isdisjoint(scopes):
            into.read(row, reader)
        elif profile.parameters_are_pairs:
            # "If it appears in some other type of message, it MUST be ignored."
            _skip_pair(reader, type)
        else:
            raise violation(f"{row.name} may not stand in this message")
    return into.result()


def encode_parameters(profile: Profile, parameters: RawParameters, scopes: frozenset[Scope]) -> bytes:
    """The parameter count and every parameter that the draft has and that may stand in one of `scopes`."""
    written = list(_written(profile, parameters, scopes))
    return profile.varint.encode(len(written)) + _join(profile, written)


def check_scope(profile: Profile, parameters: RawParameters, scope: Scope) -> RawParameters:
    """`parameters` as they count in `scope`, for the messages whose type alone does not say it.

    Drafts from 17 raise ProtocolViolation for a parameter that may not stand there; draft 16 ignores it, so it is
    taken out.
    """
    for row in profile.parameters.values():
        if scope in row.scopes or not _values(parameters, row):
            continue
        if not profile.parameters_are_pairs:
            raise violation(f"{row.name} may not stand in {scope.value}")
        parameters = _without(parameters, row)
    return parameters


# --- Inside -----------------------------------------------------------------------------------------------------------


class _Collected:
    """Parameters as they are read, before they become values."""

    __slots__ = ("flaw", "ranges", "tokens", "values")

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.tokens: list[RawToken] = []
        self.ranges: dict[tuple[FilterSubject, int, int | None], RangeFilter] = {}
        self.flaw: Flaw | None = None

    def read(self, row: ParameterRow, reader: Reader) -> None:
        """One value of `row`; raises ProtocolViolation where it may not repeat."""
        try:
            value = row.kind.read(reader)
        except FilterFlaw as refused:
            self.flaw = refused.flaw
            return
        if isinstance(value, RawToken):
            self._add_token(value)
        elif isinstance(value, RangeFilter):
            self._add_range(value)
        elif row.field in self.values:
            raise violation(f"{row.name} twice in one message")
        else:
            self.values[row.field] = value

    def result(self) -> RawParameters:
        """What was read."""
        if self.ranges:
            self.values["range_filters"] = tuple(self.ranges.values())
        values = Parameters(**self.values) if self.values else NO_PARAMETERS
        return RawParameters(values, tuple(self.tokens), self.flaw)

    def _add_token(self, token: RawToken) -> None:
        if len(self.tokens) >= MAX_TOKENS:
            raise violation(f"more than {MAX_TOKENS} tokens in one message")
        self.tokens.append(token)

    def _add_range(self, found: RangeFilter) -> None:
        key = (found.subject, found.set_id, found.property_type)
        if key in self.ranges:
            self.flaw = Flaw(RequestCode.INVALID_FILTER, f"{found.subject.name} filter twice in set {found.set_id}")
        self.ranges[key] = found


def _skip_pair(reader: Reader, type: int) -> None:
    number = reader.varint()
    if type & 1:
        reader.take(number)


def _written(profile: Profile, parameters: RawParameters, scopes: frozenset[Scope]) -> Iterator[tuple[int, bytes]]:
    for row in profile.parameters.values():
        if row.scopes.isdisjoint(scopes):
            continue
        for value in _values(parameters, row):
            written = row.kind.write(profile, value)
            if written is not None:
                yield row.type, written


def _join(profile: Profile, written: list[tuple[int, bytes]]) -> bytes:
    encode = profile.varint.encode
    parts: list[bytes] = []
    last = 0
    for type, value in written:
        parts += (encode(type - last), value)
        last = type
    return b"".join(parts)


def _values(parameters: RawParameters, row: ParameterRow) -> tuple[Any, ...]:
    if row.field == "tokens":
        return parameters.tokens
    if row.field == "range_filters":
        return tuple(found for found in parameters.values.range_filters if found.subject.value == row.type)
    value = getattr(parameters.values, row.field)
    return () if value is None else (value,)


def _without(parameters: RawParameters, row: ParameterRow) -> RawParameters:
    if row.field == "tokens":
        return replace(parameters, tokens=())
    cleared: dict[str, Any] = {row.field: None}
    return replace(parameters, values=replace(parameters.values, **cleared))
