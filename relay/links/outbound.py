"""The direction away from us: what the far end's reports show of it, and what our own numbers say beside them.

Where the far end claims less loss than the numbers of our probes tell, the numbers are believed: the worse view wins.
Without reports nothing is known, and the state stays.
"""

from __future__ import annotations

from collections import deque
from math import inf

from relay.links.datagrams import LinkViolation
from relay.links.estimators import likely_apart
from relay.links.judge import Judge
from relay.links.outgoing import Outgoing
from relay.links.settings import LinkSettings
from relay.links.states import State, Symptom, worse
from tradewind.contract.messages import Received

RATE_REPORTS = 10
"""The rate of other packets is taken over so many reports."""
MARGIN_S = 0.02
MUTE_S = 1.0
"""Probes come and no report does: the far end does not tell."""
NOTHING = Received(
    highest=0, probes=0, lost=0, arrived=0, state="probation", loss_ratio=0.0, echo=0, waited_us=0, lag_us=0
)


class Outbound:
    """What arrives at one neighbour."""

    __slots__ = (
        "_at",
        "_counted",
        "_hidden",
        "_lagged_at",
        "_last",
        "_lasting",
        "_missing",
        "_missing_at",
        "_rates",
        "_settings",
        "judge",
        "losses",
        "reported",
        "silence",
    )

    def __init__(self, settings: LinkSettings, now: float) -> None:
        self._settings = settings
        self.judge = Judge(settings, now)
        self.reported = State.PROBATION
        """What the far end makes of it."""
        self.silence: Symptom | None = None
        """As of the last report."""
        self.losses = 0
        """New in the last report."""
        self._last = NOTHING
        self._missing = self._lasting = self._counted = self._hidden = 0
        """Probes missing when that was last looked at, those missing twice; of these those that are the path's, and
        how many of those the far end hides."""
        self._missing_at = now
        self._lagged_at = -inf
        self._at = now
        """Of the last report."""
        self._rates: deque[tuple[float, int]] = deque(maxlen=RATE_REPORTS + 1)

    def restart(self, now: float) -> None:
        """Another connection: counts begin anew."""
        self.judge.restart(now)
        self.reported = State.BAD if self.reported is State.BAD else State.PROBATION
        self.silence = None
        self._last, self._at = NOTHING, now
        self._missing = self._lasting = self._counted = self._hidden = 0
        self._missing_at = now
        self._rates.clear()

    @property
    def state(self) -> State:
        """The worse of what the far end says and of what we find."""
        return worse(self.judge.standing.state, self.reported)

    @property
    def cause(self) -> Symptom:
        """Why."""
        standing = self.judge.standing
        return standing.cause if standing.state.rank >= self.reported.rank else Symptom.REPORTED

    def receive_report(self, report: Received, outgoing: Outgoing, rtt_s: float, blame: bool, now: float) -> bool:
        """Take a report; returns False where it is older than the last one. Raises LinkViolation.

        `rtt_s` is 0 while no round trip is known; without `blame` nothing that was late counts.
        """
        if report.highest > outgoing.number or report.probes > report.highest or report.echo > report.highest:
            raise LinkViolation("a report of probes that were never sent")
        last = self._last
        if report.highest < last.highest or report.arrived < last.arrived or report.probes < last.probes:
            return False
        self._last, self._at = report, now
        self.reported = State(report.state)
        if report.lag_us >= self._settings.lag_floor_s * 1e6:
            self._lagged_at = now
        arrived = report.arrived - last.arrived
        hidden = self._find_hidden(report, now)
        self.losses = max(report.lost - last.lost, 0) + hidden
        self.judge.in_a_row += report.probes - last.probes
        # What the far end owns up to it has judged itself, knowing which losses were one event.
        self.judge.add(arrived, self.losses, likely_apart(arrived, hidden), now)
        self._rates.append((now, report.arrived - report.probes))
        since, others = self._rates[0]
        if now > since:
            outgoing.other_per_s = max(report.arrived - report.probes - others, 0) / (now - since)
        self.silence = self._silence(report, outgoing, rtt_s, now) if blame else None
        return True

    def is_mute(self, now: float) -> bool:
        """Whether there was no report for long; only who hears probes may ask."""
        return now >= self._at + MUTE_S

    @property
    def leaving(self) -> bool:
        """Whether the far end is being emptied, by its word."""
        return self._last.leaving

    @property
    def loss_ratio_reported(self) -> float:
        """Over 3 s, by the far end's word."""
        return self._last.loss_ratio

    def _find_hidden(self, report: Received, now: float) -> int:
        """Losses that our numbers show and its count does not, since the last report.

        A probe counts that was missing a report's period ago and still is; what was merely overtaken has come by then.
        """
        settings = self._settings
        if now < self._missing_at + settings.report_period_s:
            return 0
        missing = report.highest - report.probes
        lasting, before = min(missing, self._missing), self._lasting
        self._missing, self._missing_at, self._lasting = missing, now, lasting
        if now >= self._lagged_at + settings.lag_grace_s + 2 * settings.report_period_s:
            self._counted += lasting - before
        hidden = max(self._counted - report.lost, self._hidden)
        found, self._hidden = hidden - self._hidden, hidden
        return found

    def _silence(self, report: Received, outgoing: Outgoing, rtt_s: float, now: float) -> Symptom | None:
        """A probe that left longer ago than a round trip and is above the highest has not come."""
        sent_at = outgoing.sent_at(report.highest + 1)
        if sent_at is None or not rtt_s:
            return None
        settings, period_s = self._settings, outgoing.period_s
        silent_s = now - sent_at - rtt_s + period_s - MARGIN_S - report.lag_us / 1e6
        if silent_s < max(settings.suspect_periods * period_s, settings.suspect_silence_s):
            return None
        bad_s = max(settings.bad_periods * period_s, settings.bad_silence_s)
        return Symptom.DEAD if silent_s >= bad_s else Symptom.SILENT
