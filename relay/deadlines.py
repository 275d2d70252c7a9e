"""When sessions want to be woken: a heap in which what has moved since is passed over.

`relay.node` notes who was dealt with in a turn (`looked_at`) and arms them all once at its end.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

from relay.attachment import Attachment


class Deadlines:
    """The deadlines of one relay's sessions; each session keeps the one that counts in its `deadline`."""

    __slots__ = ("_count", "_heap", "looked_at", "soonest")

    def __init__(self) -> None:
        self.looked_at: dict[Attachment, None] = {}
        """Sessions whose deadline may have moved, in the order in which they were met."""
        self.soonest = inf
        """When `take_due` may have something: a session's deadline can have moved since."""
        self._heap: list[tuple[float, int, Attachment]] = []
        self._count = 0

    def take_due(self, now: float) -> Attachment | None:
        """A session that is due; what it has next is not known before `arm`."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            when, _, attachment = heappop(heap)
            if attachment.deadline == when:
                attachment.deadline = None
                return attachment
        self.soonest = heap[0][0] if heap else inf
        return None

    def arm(self) -> None:
        """Ask all that were looked at when they are due."""
        for attachment in self.looked_at:
            due = attachment.next_deadline()
            if due != attachment.deadline:
                attachment.deadline = due
                if due is not None:
                    self._count += 1
                    heappush(self._heap, (due, self._count, attachment))
        self.looked_at.clear()
        self.soonest = self._heap[0][0] if self._heap else inf

    def forget(self, attachment: Attachment) -> None:
        """It is gone."""
        self.looked_at.pop(attachment, None)
        attachment.deadline = None
