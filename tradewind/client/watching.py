"""Whether the relay that a viewer is on still brings objects, and whether it is there at all. No I/O, no clock.

`placed.PlacedViewer` has one for the relay it is on, tells it of every object, and asks it when its deadline comes.
Silence alone blames nobody: the relay is pinged, and one that answers gets more time, because then the fault lies
behind it, where relays mend their ways themselves. Times are `now`, monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from tradewind.client.choices import Patience

RATE_OVER = 32
"""Objects over which the time between two is taken."""
YOUNG_S = 1.0
"""Before objects came for so long their rate is not known."""
YOUNG_RATIO = 3.0
"""How many times longer nothing may come until then."""
PING_RATIO = 0.3
"""Of the patience, before a relay is pinged at all."""
RTTS_TO_ANSWER = 2.0
"""How many round trips the answer to a ping may take: a far relay is no dead one."""
CONFIRM_S = 0.03
"""A relay is silent only where a second look says so too: what it said may wait for a process that was busy."""
QUIET_PING_S = 2.0
"""How often a relay is pinged that has nothing to show, and how long it may take to answer."""


class Verdict(Enum):
    """What a look found."""

    FINE = "fine"
    PING = "ping"
    """Ping the relay now."""
    SILENT = "silent"
    """It brings nothing and does not answer either."""
    STALLED = "stalled"
    """It answers, and brings nothing."""


class Watch:
    """One viewer's. Objects move it on; `look` judges."""

    __slots__ = ("_answer_s", "_doubted", "_patience", "_pinged", "_since", "_times", "is_quiet", "last_at")

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._times: deque[float] = deque(maxlen=RATE_OVER)
        self._since: float | None = None
        self._pinged: tuple[float, int] | None = None
        """When the relay was pinged, and what had come from it until then, in bytes."""
        self._answer_s = 0.0
        """How long an answer may take on its way."""
        self._doubted: tuple[float, int] | None = None
        """When the first look found it silent, and what had come by then."""
        self.last_at: float | None = None
        """When the last object came."""
        self.is_quiet = False
        """There is nothing to see anywhere: only a relay that does not answer is left."""

    def receive(self, now: float) -> None:
        """An object came."""
        if self._since is None:
            self._since = now
        self._times.append(now)
        self.last_at = now

    def restart(self, *, quiet: bool = False) -> None:
        """Another relay, or the same one after a pause: the rate is a new one."""
        self._times.clear()
        self._since = self.last_at = self._pinged = self._doubted = None
        self.is_quiet = quiet

    def patience_s(self) -> float:
        """How long nothing may come.

        What comes first is what was there already, all at once, and says nothing of the rate.
        """
        least_s = self._patience.stall_s
        if self._since is None or self._times[-1] - self._since < YOUNG_S:
            return YOUNG_RATIO * least_s
        between_s = (self._times[-1] - self._times[0]) / (len(self._times) - 1) if len(self._times) > 1 else 0.0
        return max(least_s, self._patience.stall_frames * between_s)

    def look(self, now: float, heard_bytes: int, rtt_s: float = 0.0) -> Verdict:
        """Judge; `heard_bytes`: what has come from the relay so far, of any kind. After PING, ping it."""
        self._answer_s = RTTS_TO_ANSWER * rtt_s
        last_at = self.last_at
        if last_at is None or self.is_quiet:
            return self._look_at_quiet(now, heard_bytes)
        patience_s = self.patience_s()
        if now < last_at + self._ping_after_s(patience_s):
            return Verdict.FINE
        if self._pinged is None or self._pinged[0] < last_at:
            self._pinged = (now, heard_bytes)
            return Verdict.PING
        pinged_at, heard_before = self._pinged
        # We may have slept ourselves: an answer has had its time only since the ping.
        if now < last_at + patience_s or now < pinged_at + max(patience_s / 2, self._answer_s):
            return Verdict.FINE
        if heard_bytes <= heard_before:
            return self._confirm(now, heard_bytes)
        return Verdict.STALLED if now >= last_at + patience_s * self._patience.alive_ratio else Verdict.FINE

    def answers(self, heard_bytes: int) -> bool:
        """Whether something came since the last ping; True where there was none."""
        return self._pinged is None or heard_bytes > self._pinged[1]

    def next_deadline(self, now: float) -> float:
        """When to look again; later than `now` where `look` was just called."""
        if self._doubted is not None and now < self._doubted[0] + CONFIRM_S:
            return self._doubted[0] + CONFIRM_S
        if self.last_at is None or self.is_quiet:
            return now if self._pinged is None else self._pinged[0] + QUIET_PING_S
        patience_s = self.patience_s()
        stills_s = (self._ping_after_s(patience_s), patience_s, patience_s * self._patience.alive_ratio)
        moments = [self.last_at + still_s for still_s in stills_s]
        if self._pinged is not None and self._pinged[0] >= self.last_at:
            moments.append(self._pinged[0] + max(patience_s / 2, self._answer_s))
        return min((moment for moment in moments if moment > now), default=now + patience_s)

    def _ping_after_s(self, patience_s: float) -> float:
        """How long nothing came when a relay is pinged: in time for the answer, but not at every hiccup."""
        return max(PING_RATIO * patience_s, min(0.5 * patience_s, patience_s - self._answer_s))

    def _look_at_quiet(self, now: float, heard_bytes: int) -> Verdict:
        if self._pinged is not None and now < self._pinged[0] + QUIET_PING_S:
            return Verdict.FINE
        if not self.answers(heard_bytes):
            return self._confirm(now, heard_bytes)
        self._pinged = (now, heard_bytes)
        return Verdict.PING

    def _confirm(self, now: float, heard_bytes: int) -> Verdict:
        if self._doubted is None or self._doubted[1] != heard_bytes:
            self._doubted = (now, heard_bytes)
        return Verdict.SILENT if now >= self._doubted[0] + CONFIRM_S else Verdict.FINE
