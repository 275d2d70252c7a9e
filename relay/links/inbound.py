"""The direction towards us: gaps and silences in what the neighbour sends, as we see them.

Our own lateness is nobody's fault: a silence does not last while our event loop stood, and what is found lost right
after it was lost in our own socket. The far end's lateness explains a silence that it owns up to.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.links.datagrams import MOST_NEXT_S, Probe
from relay.links.estimators import DelayVariation
from relay.links.gaps import PacketGaps
from relay.links.judge import Judge
from relay.links.settings import LinkSettings
from relay.links.states import Symptom

BY_TIME_ALONE = 1 << 60
"""Probes come in bursts, which jitter shuffles: how many came later says nothing."""
JITTERS = 1.5
"""So many 95th percentiles of delay variation are waited for what may still come."""
SAMPLE_EVERY = 5
"""Of the probes of an active link: by number, since who comes first in a burst is not any of it."""
LEAST_MARGIN_S, MOST_MARGIN_S = 0.01, 0.1
MOST_EXCUSED_S = 2.0


class Echo(NamedTuple):
    """The last probe, for the report: its number, and when it came."""

    number: int
    at: float


class Inbound:
    """What comes from one neighbour."""

    __slots__ = (
        "_blame_from",
        "_excused",
        "_excused_at",
        "_heard_at",
        "_interval_s",
        "_lag_noted_to",
        "_settings",
        "_silence",
        "_silence_ended_at",
        "_silence_s",
        "arrived_other",
        "delay",
        "echo",
        "gaps",
        "judge",
        "lost_other",
    )

    def __init__(self, settings: LinkSettings, now: float) -> None:
        self._settings = settings
        self.judge = Judge(settings, now)
        self.delay = DelayVariation()
        self.gaps = PacketGaps(BY_TIME_ALONE, settings.reorder_s, first=1)
        """Of probes."""
        self.arrived_other = 0
        self.lost_other = 0
        """Of the packets of other connections."""
        self.echo = Echo(0, now)
        self._interval_s = settings.idle_period_s
        """The far end's next probe comes so soon after its last."""
        self._heard_at = now + self._first_wait()
        """The last packet of any connection."""
        self._blame_from = now
        """Losses found before this are our own."""
        self._lag_noted_to = now
        self._silence: Symptom | None = None
        """As it was when somebody last looked."""
        self._silence_s = 0.0
        """The last one that was too long."""
        self._silence_ended_at = now
        self._excused = 0
        self._excused_at = -settings.excuse_spacing_s

    def restart(self, now: float) -> None:
        """Another connection: numbers begin anew, the standing stays what it is."""
        self.judge.restart(now)
        self.gaps = PacketGaps(BY_TIME_ALONE, self._settings.reorder_s, first=1)
        self.arrived_other = self.lost_other = self._excused = 0
        self.echo = Echo(0, now)
        self._heard_at = now + self._first_wait()
        self._silence = None

    @property
    def arrived(self) -> int:
        """Packets of any connection since the link began."""
        return self.gaps.arrived + self.arrived_other

    @property
    def lost(self) -> int:
        """Those that did not come, without what we lost ourselves."""
        return max(self.gaps.lost + self.lost_other - self._excused, 0)

    def receive_probe(self, probe: Probe, now: float) -> bool:
        """A probe came; returns whether a loss became known."""
        duplicates = self.gaps.duplicates
        self.gaps.add(probe.number, now)
        if self.gaps.duplicates != duplicates:
            return False
        self._hear(now)
        self.judge.in_a_row += 1
        if probe.number > self.echo.number:
            self.echo = Echo(probe.number, now)
            self._interval_s = min(probe.next_us / 1e6, MOST_NEXT_S)
        often = self._interval_s < self._settings.idle_period_s / 2
        if (not often or probe.number % SAMPLE_EVERY == 0) and now >= self._blame_from:
            self.delay.add(now - probe.sent_us / 1e6)
            self.gaps.reorder_s = self._reorder_s()
        return self._count(now)

    def receive_packets(self, arrived: int, lost: int, apart: int, now: float) -> bool:
        """Packets of other connections, since the last call; returns whether a loss became known."""
        if arrived > 0:
            self._hear(now)
        if now < self._blame_from:
            lost, apart = min(lost, 0), min(apart, 0)
        self.arrived_other += max(arrived, 0)
        self.lost_other = max(self.lost_other + lost, 0)
        self.judge.add(max(arrived, 0), lost, apart, now)
        return lost > 0

    def receive_report(self, lag_s: float, now: float) -> bool:
        """A report came, and says how late the far end was; returns whether that excused it."""
        self._hear(now)
        settings = self._settings
        if now > self._silence_ended_at + settings.excuse_s or now < self._excused_at + settings.excuse_spacing_s:
            return False
        unexplained_s = self._silence_s - min(lag_s, MOST_EXCUSED_S)
        if unexplained_s >= self._suspect_after_s() or not self.judge.excuse(now):
            return False
        self._excused_at = now
        return True

    def note_lag(self, lag_s: float, now: float) -> None:
        """We were late by this much until now, and could not hear anything in that time."""
        shift = min(lag_s, now - self._lag_noted_to)
        if shift > 0:
            self._heard_at = min(self._heard_at + shift, max(now, self._heard_at))
            self._lag_noted_to = now
        if lag_s >= self._settings.lag_floor_s:
            self._blame_from = now + self._settings.lag_grace_s

    def settle(self, now: float) -> bool:
        """Count what is missing for too long; returns whether a loss became known."""
        self.gaps.settle(now)
        return self._count(now)

    def silence(self, now: float) -> Symptom | None:
        """How bad the present silence is."""
        self._silence = None
        if now >= self._heard_at + self._bad_after_s():
            self._silence = Symptom.DEAD
        elif now >= self._heard_at + self._suspect_after_s():
            self._silence = Symptom.SILENT
        return self._silence

    def next_deadline(self) -> float | None:
        """When a missing packet or a silence wants to be looked at."""
        missing = self.gaps.next_deadline()
        if self._silence is Symptom.DEAD:
            return missing
        after_s = self._suspect_after_s() if self._silence is None else self._bad_after_s()
        quiet = self._heard_at + after_s
        return quiet if missing is None else min(missing, quiet)

    def is_to_be_blamed(self, now: float) -> bool:
        """Whether what is seen now is the neighbour's or the path's, and not our own lateness."""
        return now >= self._blame_from

    @property
    def lag_noted_to(self) -> float:
        """The end of our last lateness."""
        return self._lag_noted_to

    def _hear(self, now: float) -> None:
        silent_s = now - self._heard_at
        if silent_s >= self._suspect_after_s():
            self._silence_s, self._silence_ended_at = silent_s, now
        if silent_s > 0:
            self._heard_at = now
            self._silence = None

    def _count(self, now: float) -> bool:
        """Give the tests what was counted."""
        counts = self.gaps.take()
        lost, apart = counts.lost, counts.apart
        if lost > 0 and now < self._blame_from:
            self._excused += lost
            lost = apart = 0
        self.judge.add(counts.arrived, lost, apart, now)
        return lost > 0

    def _first_wait(self) -> float:
        return max(self._settings.first_silence_s - self._settings.bad_silence_s, 0.0)

    def _margin_s(self) -> float:
        return min(max(JITTERS * self.delay.p95_s, LEAST_MARGIN_S), MOST_MARGIN_S)

    def _reorder_s(self) -> float:
        settings = self._settings
        return min(max(JITTERS * self.delay.p95_s, settings.reorder_s), settings.reorder_most_s)

    def _suspect_after_s(self) -> float:
        settings = self._settings
        return max(settings.suspect_periods * self._interval_s, settings.suspect_silence_s) + self._margin_s()

    def _bad_after_s(self) -> float:
        settings = self._settings
        return max(settings.bad_periods * self._interval_s, settings.bad_silence_s) + self._margin_s()
