"""One direction of a link, judged: what is seen of it now becomes a symptom, and the symptom acts on its state."""

from __future__ import annotations

from relay.links.estimators import LossWatch
from relay.links.settings import LinkSettings
from relay.links.states import Standing, State, Symptom


class Judge:
    """The loss and the standing of one direction. `inbound` and `outbound` have one each."""

    __slots__ = ("_seen_at", "_settings", "in_a_row", "loss", "standing")

    def __init__(self, settings: LinkSettings, now: float) -> None:
        self._settings = settings
        self.loss = LossWatch(settings)
        self.standing = Standing(settings, now)
        self.in_a_row = 0
        """Probes that came since one did not."""
        self._seen_at = now
        """When there last was a symptom."""

    def add(self, arrived: int, lost: int, apart: int, now: float) -> None:
        """So many packets came, so many were found lost, so many of them apart: see `GapCounts`."""
        if lost > 0:
            self.in_a_row = 0
        self.loss.add(arrived, lost, apart, now)

    def judge(self, silence: Symptom | None, round_trips: Symptom | None, now: float) -> bool:
        """Look at everything; returns whether the state has changed."""
        symptom = self._symptom(silence, round_trips, now)
        if symptom is None:
            return self._recover(now)
        self._seen_at = now
        if symptom is Symptom.DEAD or symptom is Symptom.SILENT:
            self.in_a_row = 0
        return self.standing.apply(symptom, now)

    def excuse(self, now: float) -> bool:
        """The silence that was blamed on this direction was something else; returns whether the state has changed."""
        return self.standing.apply(Symptom.EXCUSED, now)

    def restart(self, now: float) -> None:
        """Another connection."""
        self.loss.reset_scores()
        self.standing.restart(now)
        self.in_a_row = 0
        self._seen_at = now

    def _symptom(self, silence: Symptom | None, round_trips: Symptom | None, now: float) -> Symptom | None:
        """The worst that there is."""
        if silence is Symptom.DEAD:
            return silence
        suspect = self.loss.is_suspect()
        if self.loss.is_bad(now):
            return Symptom.LOSSY
        if round_trips is Symptom.FAR:
            return round_trips
        return silence or (Symptom.LOSSES if suspect else round_trips)

    def _recover(self, now: float) -> bool:
        standing, state = self.standing, self.standing.state
        if state is State.UP:
            return False
        if state is State.SUSPECT:
            return now >= self._seen_at + self._settings.clean_s and standing.apply(Symptom.CLEAN, now)
        if state is State.PROBATION:
            return standing.held(now) and self.in_a_row > 0 and standing.apply(Symptom.HELD, now)
        if self.in_a_row < self._settings.working_packets:
            return False
        # What made it BAD has been paid for; what comes now is tested anew.
        self.loss.reset_scores()
        return standing.apply(Symptom.WORKING, now)
