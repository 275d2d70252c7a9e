"""How much a peer may send us: bytes on the whole connection, and streams of one direction.

Fixed windows that move only as the session deals with what came: aioquic would double its windows with whatever the
peer sends, which is no limit at all.
"""

from __future__ import annotations


class ReceiveCredit:
    """The connection's receive window."""

    __slots__ = ("consumed", "held_bytes", "limit", "received", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.limit = window
        self.received = 0
        """Sum over all streams of the highest offset seen."""
        self.consumed = 0
        self.held_bytes = 0
        """Memory held by data that came out of order, on all streams."""

    def receive(self, size: int) -> bool:
        """Count newly claimed bytes; False where the peer exceeds its credit."""
        self.received += size
        return self.received <= self.limit

    def consume(self, size: int) -> bool:
        """Count bytes dealt with; True when the limit moved and the peer should hear of it."""
        self.consumed = min(self.consumed + size, self.received)
        target = self.consumed + self.window
        if target - self.limit < self.window // 2:
            return False
        self.limit = target
        return True


class PeerStreams:
    """Streams of one kind that the peer may open."""

    __slots__ = ("announced", "finished", "opened", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.announced = window
        """The limit the peer knows."""
        self.opened = 0
        self.finished = 0

    def finish(self) -> bool:
        """Count a finished stream; True when the limit moved far enough that the peer should hear of it."""
        self.finished += 1
        target = self.finished + self.window
        if target - self.announced < max(1, self.window // 4):
            return False
        self.announced = target
        return True
