"""Message Parameters, Setup Options and Properties: values on the wire and back.

`tradewind.moqt.messages` is the caller; the session resolves what is left raw here. Source: draft-20, "Message
Parameters", "Setup Options" and "Key-Value-Pair Structure".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tradewind.moqt.model import NO_PARAMETERS, Parameters, Properties, Token, TokenUse

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile


class Quirks(Protocol):
    """Which named leniences are on; a call that returns True is counted as a use."""

    def allows(self, name: str) -> bool: ...


class _Strict:
    def allows(self, name: str) -> bool:
        return False


STRICT: Quirks = _Strict()
"""No lenience at all."""


@dataclass(frozen=True, slots=True)
class RawToken:
    """A Token structure as it stands on the wire: its alias is not resolved.

    `alias` is None with USE_VALUE; `type` and `value` are None with DELETE and USE_ALIAS.
    """

    use: TokenUse
    alias: int | None = None
    type: int | None = None
    value: bytes | None = None


class Flaw(NamedTuple):
    """Why one request must be refused although the session goes on: a REQUEST_ERROR code and its reason."""

    code: int
    reason: str


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
    """What a set of parameters belongs to. REQUEST_OK and REQUEST_UPDATE look alike for every request, but what may
    stand in them depends on the request: the session, which knows it, calls `check_scope`."""

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


def check_scope(profile: Profile, parameters: RawParameters, scope: Scope) -> RawParameters:
    """`parameters` as they count in `scope`, for the messages whose type alone does not say it.

    Drafts from 17 raise ProtocolViolation for a parameter that may not stand there; draft 16 ignores it, so it is
    taken out.
    """
    raise NotImplementedError


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
