"""The contract through which media leaves a connection.

Media leaves through nothing else and control never goes through it, so that a faster engine can take media over
without the rooms above noticing. `tradewind.quic.connection` implements it on aioquic; `relay.node` and
`tradewind.client` are the callers.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

Part: TypeAlias = bytes | memoryview


class Offered(Enum):
    """What became of an offer."""

    TAKEN = "taken"
    STOPPED = "stopped"
    """The peer sent STOP_SENDING, or the stream was reset: nothing was taken and nothing will be."""


class Writable(NamedTuple):
    """How much an egress takes now."""

    session_bytes: int
    """Bytes that may be offered on all streams together before the next `writable`; 0 or less: none."""
    streams: int
    """Streams that the peer's limit lets us open now."""
    datagram_bytes: int
    """The largest datagram payload that fits one packet; 0 where the peer takes no datagrams."""


class Egress(Protocol):
    """One connection's way out for media. All calls are synchronous and never block."""

    def open_uni(self) -> int | None:
        """Open a unidirectional stream; None where the peer's stream limit leaves no room."""

    def offer(self, stream: int, parts: Sequence[Part], fin: bool) -> Offered:
        """Append `parts` to a stream. They must stay unchanged until `Released` for the stream."""

    def offer_many(self, streams: Sequence[int], parts: Sequence[Part], fin: bool) -> None:
        """Append the same `parts` to several streams of this connection."""

    def unsent(self, stream: int) -> int:
        """Bytes offered on this stream that no packet has carried yet."""

    def reset(self, stream: int, code: int) -> None:
        """Abandon a stream with an application error code. Unknown or finished streams are left alone."""

    def datagram(self, parts: Sequence[Part], expires: float) -> bool:
        """Queue one datagram until `expires` (monotonic seconds); False where it is larger than fits."""

    def writable(self, now: float) -> Writable:
        """What may be offered now. Bytes on a stream that its own flow control blocks count for at most 4 kB."""

    def writable_bytes(self, now: float) -> int:
        """The first of what `writable` says, for less."""
