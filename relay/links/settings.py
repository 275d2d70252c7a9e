"""Every threshold of a link, in one frozen value; `relay.settings` may make another than the default."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How links are measured and judged. The false alarms and delays of the defaults: `python -m bench.links`."""

    # What is sent.
    idle_period_s: float = 0.1
    active_period_s: float = 0.025
    dense_period_s: float = 0.05
    """Of a link whose media alone are packets enough."""
    active_packets_per_s: float = 200.0
    """Probes fill up what media leave of it. The tests below decide by packets: fewer take longer."""
    watch_burst: int = 4
    """Probes at each wake-up of an idle link that is not UP: clean packets are what lifts a suspicion."""
    inspect_probes: int = 48
    """Extra probes for every loss that the far end reports: one loss means little, the next packets tell."""
    inspect_per_s: float = 100.0
    inspect_most: int = 192
    """A bucket: so many at once, so many a second."""
    period_jitter: float = 0.1
    """Part of a period by which it is varied: probes of many relays do not fall into step."""
    probe_bytes: int = 48
    report_period_s: float = 0.1
    report_spacing_s: float = 0.01
    """A loss or a change is reported at once, but no faster than this."""
    slack_s: float = 0.005
    """A probe may leave so much early, to share a wake-up."""

    # Silence: counted from the last packet of any connection, in periods that the far end announced.
    suspect_periods: float = 2.0
    suspect_silence_s: float = 0.05
    """Silent for the longer of the two: SUSPECT."""
    bad_periods: float = 3.0
    bad_silence_s: float = 0.12
    """BAD, likewise."""
    first_silence_s: float = 1.0
    """How long a new link may take until something comes."""

    # Loss: the ratio of two likelihoods, summed over packets and never below 0 (Page's CUSUM).
    loss_good_ratio: float = 0.005
    loss_bad_ratio: float = 0.08
    loss_suspect_score: float = 3.0
    """Two losses within 34 packets."""
    loss_bad_score: float = 10.5
    """Four losses within 11 packets, five within 47, six within 84."""
    slow_good_ratio: float = 0.004
    slow_bad_ratio: float = 0.02
    slow_bad_score: float = 12.0
    """For loss that is small and stays: from 1 % on."""
    score_room: float = 2.0
    """How far a score may grow over the threshold that it reached: what it must come down again is bounded."""
    reorder_s: float = 0.008
    """How long a missing probe is waited for where delay does not vary."""
    reorder_most_s: float = 0.05

    # Round trips.
    rtt_rise_s: float = 0.06
    rtt_bad_s: float = 0.4
    rtt_window_s: float = 10.0

    # States.
    clean_s: float = 0.3
    """SUSPECT ends after so long without a symptom."""
    working_packets: int = 5
    """BAD ends after so many probes in a row."""
    first_hold_s: float = 0.5
    """A new link is on PROBATION for so long."""
    hold_s: float = 2.0
    hold_most_s: float = 120.0
    """PROBATION after BAD: doubled with every flap, up to the most."""
    flap_decay_s: float = 300.0

    # Lateness.
    lag_floor_s: float = 0.01
    """Our own event loop may be so late without a word."""
    lag_grace_s: float = 0.15
    """What is found lost so soon after a stall of ours was lost by us."""
    excuse_s: float = 1.0
    """How soon after a silence the far end may say that it was late itself."""
    excuse_spacing_s: float = 10.0

    def __post_init__(self) -> None:
        """Raises ValueError where the values cannot work together."""
        for field in fields(self):
            if not getattr(self, field.name) >= 0:
                raise ValueError(f"{field.name}: below zero")
        if not 0 < self.loss_good_ratio < self.loss_bad_ratio < 1:
            raise ValueError("loss_good_ratio: above 0 and below loss_bad_ratio")
        if not 0 < self.slow_good_ratio < self.slow_bad_ratio < 1:
            raise ValueError("slow_good_ratio: above 0 and below slow_bad_ratio")
        if self.loss_suspect_score > self.loss_bad_score:
            raise ValueError("loss_suspect_score: at most loss_bad_score")
        if self.suspect_periods > self.bad_periods or self.suspect_silence_s > self.bad_silence_s:
            raise ValueError("suspect_silence_s: SUSPECT comes before BAD")
        if not 0 < self.active_period_s <= self.dense_period_s <= self.idle_period_s:
            raise ValueError("active_period_s: at most dense_period_s, at most idle_period_s")
        if not 0 <= self.period_jitter < 1:
            raise ValueError("period_jitter: from 0 to below 1")
        if self.hold_s > self.hold_most_s:
            raise ValueError("hold_s: at most hold_most_s")
        if not self.flap_decay_s or not self.rtt_window_s:
            raise ValueError("flap_decay_s, rtt_window_s: above 0")


DEFAULTS = LinkSettings()
