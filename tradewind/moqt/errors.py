"""Errors of the protocol room, and the draft's code registries.

    MoqtError                 (never raised itself)
    +-- ProtocolViolation     the peer broke the session: close it with this code
    +-- RequestRejected       one request cannot be served: answer it with this code
    MisuseError               our own bug: a call that the state does not allow

"Not enough bytes yet" is not an error: decoders return None. Source: draft-20, "Error Codes".
"""

from __future__ import annotations

from enum import IntEnum


class SessionCode(IntEnum):
    """Session termination codes."""

    NO_ERROR = 0x0
    INTERNAL_ERROR = 0x1
    UNAUTHORIZED = 0x2
    PROTOCOL_VIOLATION = 0x3
    INVALID_REQUEST_ID = 0x4
    DUPLICATE_TRACK_ALIAS = 0x5
    KEY_VALUE_FORMATTING_ERROR = 0x6
    TOO_MANY_REQUESTS = 0x7  # drafts up to 16
    INVALID_PATH = 0x8
    MALFORMED_PATH = 0x9
    GOAWAY_TIMEOUT = 0x10
    CONTROL_MESSAGE_TIMEOUT = 0x11
    DATA_STREAM_TIMEOUT = 0x12
    AUTH_TOKEN_CACHE_OVERFLOW = 0x13
    DUPLICATE_AUTH_TOKEN_ALIAS = 0x14
    VERSION_NEGOTIATION_FAILED = 0x15  # drafts up to 18
    MALFORMED_AUTH_TOKEN = 0x16
    UNKNOWN_AUTH_TOKEN_ALIAS = 0x17
    EXPIRED_AUTH_TOKEN = 0x18
    INVALID_AUTHORITY = 0x19
    MALFORMED_AUTHORITY = 0x1A
    TOO_MANY_REQUEST_UPDATES = 0x1B


class RequestCode(IntEnum):
    """REQUEST_ERROR codes."""

    INTERNAL_ERROR = 0x0
    UNAUTHORIZED = 0x1
    TIMEOUT = 0x2
    NOT_SUPPORTED = 0x3
    MALFORMED_AUTH_TOKEN = 0x4
    EXPIRED_AUTH_TOKEN = 0x5
    GOING_AWAY = 0x6
    EXCESSIVE_LOAD = 0x9
    DOES_NOT_EXIST = 0x10
    INVALID_RANGE = 0x11
    MALFORMED_TRACK = 0x12
    DUPLICATE_SUBSCRIPTION = 0x19  # drafts up to 18
    UNINTERESTED = 0x20
    PREFIX_OVERLAP = 0x30
    NAMESPACE_TOO_LARGE = 0x31
    INVALID_JOINING_REQUEST_ID = 0x32  # drafts up to 18
    UNSUPPORTED_EXTENSION = 0x33
    REDIRECT = 0x34
    CONFLICTING_FILTERS = 0x35
    INVALID_FILTER = 0x36


class DoneCode(IntEnum):
    """PUBLISH_DONE status codes, as draft 20 numbers them (draft 16 swaps two: see `moqt.profiles`)."""

    INTERNAL_ERROR = 0x0
    UNAUTHORIZED = 0x1
    TRACK_ENDED = 0x2
    SUBSCRIPTION_ENDED = 0x3  # drafts up to 19
    GOING_AWAY = 0x4
    TOO_FAR_BEHIND = 0x5
    EXPIRED = 0x6
    UPDATE_FAILED = 0x8
    EXCESSIVE_LOAD = 0x9
    MALFORMED_TRACK = 0x12


class ResetCode(IntEnum):
    """Stream reset and STOP_SENDING codes."""

    INTERNAL_ERROR = 0x0
    CANCELLED = 0x1
    DELIVERY_TIMEOUT = 0x2
    SESSION_CLOSED = 0x3
    GOING_AWAY = 0x4
    TOO_FAR_BEHIND = 0x5
    UNKNOWN_OBJECT_STATUS = 0x6
    EXPIRED_AUTH_TOKEN = 0x7
    EXCESSIVE_LOAD = 0x9
    MALFORMED_TRACK = 0x12


class MoqtError(Exception):
    """Base of what a peer can cause; carries the code to answer with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} (code {code:#x})")
        self.code = code
        self.reason = reason


class ProtocolViolation(MoqtError):
    """The peer did what the draft forbids: the session closes with `code`."""


class RequestRejected(MoqtError):
    """One request cannot be served; `retry_ms` None: it should not be tried again."""

    def __init__(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        super().__init__(code, reason)
        self.retry_ms = retry_ms


class MisuseError(Exception):
    """We called a room in a way that its state does not allow: a bug of ours, never the peer's."""
