"""What one node counts besides what its rooms count themselves: plain numbers, read when somebody asks for metrics.

`relay.node` owns one and says what time it is; `relay.attachment` and `relay.peer` count in it, `relay.observe` reads.
"""

from __future__ import annotations

from collections import Counter, deque

from relay.limits import Limit

MOST_WAITS = 4096
"""Latencies kept between two looks; older ones are forgotten first."""


class Tally:
    """Sessions let in, requests received, refused and answered, limits met."""

    __slots__ = (
        "answer_waits_s",
        "datagrams_refused",
        "faults",
        "goaways",
        "limits",
        "now",
        "opened",
        "overstayed",
        "quirk_uses",
        "rejected",
        "requests",
        "wall_now",
    )

    def __init__(self) -> None:
        self.now = 0.0
        """The moment of the current turn."""
        self.wall_now = 0.0
        """The same on the wall."""
        self.opened: Counter[tuple[str, int]] = Counter()
        """Sessions let in, by transport and draft."""
        self.requests: Counter[str] = Counter()
        self.rejected: Counter[tuple[str, int]] = Counter()
        """By request and code."""
        self.limits: Counter[Limit] = Counter()
        self.datagrams_refused = 0
        """Datagrams of sessions that sent too fast."""
        self.answer_waits_s: deque[float] = deque(maxlen=MOST_WAITS)
        """How long SUBSCRIBEs waited for their answer, since somebody last looked."""
        self.quirk_uses: Counter[str] = Counter()
        """By sessions that are over."""
        self.faults = 0
        """Errors of our own."""
        self.goaways: Counter[str] = Counter()
        """Sessions asked to move: "given" a URI, or why not."""
        self.overstayed = 0
        """Sessions that were asked to move and were still there when a drain ended."""


class Unanswered:
    """The requests of one session that wait for an answer of ours."""

    __slots__ = ("_asked", "_tally")

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._asked: dict[int, tuple[str, float]] = {}

    def received(self, request: int, verb: str) -> None:
        """A request came."""
        self._tally.requests[verb] += 1
        self._asked[request] = (verb, self._tally.now)

    def accepted(self, request: int) -> None:
        """It was answered."""
        verb, since = self._asked.pop(request, ("", 0.0))
        if verb == "subscribe":
            self._tally.answer_waits_s.append(self._tally.now - since)

    def rejected(self, request: int, code: int) -> None:
        """It was refused."""
        verb, since = self._asked.pop(request, ("other", 0.0))
        self._tally.rejected[verb, code] += 1
        if verb == "subscribe":
            self._tally.answer_waits_s.append(self._tally.now - since)

    def over(self, request: int) -> None:
        """It ended without an answer of ours, or long after it."""
        self._asked.pop(request, None)

    def __len__(self) -> int:
        return len(self._asked)
