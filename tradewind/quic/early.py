"""What a peer sends for a WebTransport session before that session is open, bounded in streams, bytes and datagrams.

Streams and datagrams may overtake the CONNECT or its answer (draft-ietf-webtrans-http3-02, Buffering Incoming
Streams and Datagrams). Only `webtransport` uses this.
"""

from __future__ import annotations

from typing import TypeAlias

from tradewind.quic.config import Limits
from tradewind.quic.events import DatagramReceived, Stopped, StreamData, StreamReset

Waiting: TypeAlias = StreamData | StreamReset | Stopped | DatagramReceived


class Early:
    """What came for sessions that are not open yet, bounded in streams, bytes and datagrams."""

    __slots__ = ("_bytes", "_datagrams", "_events", "_limits", "_streams")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[int, int] = {}
        self._events: list[tuple[int, Waiting]] = []
        self._bytes = 0
        self._datagrams = 0

    def admit(self, stream_id: int, session: int) -> bool:
        """Whether there is room for one more stream; it is then one of `session`'s."""
        if len(self._streams) >= self._limits.early_streams:
            return False
        self._streams[stream_id] = session
        return True

    def keep(self, event: StreamData | StreamReset | Stopped, size: int) -> bool:
        """Keep an event of an admitted stream; False where it would be too much."""
        if self._bytes + size > self._limits.early_bytes or len(self._events) > 16 * self._limits.early_streams:
            return False
        self._bytes += size
        self._events.append((self._streams.get(event.stream, -1), event))
        return True

    def keep_datagram(self, session: int, event: DatagramReceived) -> None:
        """Keep a datagram, or drop it where there are too many."""
        if self._datagrams < self._limits.early_datagrams:
            self._datagrams += 1
            self._events.append((session, event))

    def drop(self, stream_id: int) -> None:
        """Forget a stream's events."""
        self._streams.pop(stream_id, None)
        self._events = [
            (session, event)
            for session, event in self._events
            if isinstance(event, DatagramReceived) or event.stream != stream_id
        ]

    def take(self, session: int | None) -> list[Waiting]:
        """Take out what is kept for one session, or everything (None)."""
        taken = [event for owner, event in self._events if session is None or owner == session]
        self._events = [] if session is None else [pair for pair in self._events if pair[0] != session]
        return taken
