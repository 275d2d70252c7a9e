"""What a link is like, from single observations: loss, round trips, variation of delay, steps.

`inbound` and `outbound` feed these; nothing here knows of states. Every estimator is bounded in memory.
"""

from __future__ import annotations

from collections import deque
from math import inf, log, sqrt

from relay.links.gaps import RUN_TELLS
from relay.links.settings import LinkSettings

SAMPLES = 200
"""Delays of which the variation is told: twenty seconds of an idle link, five of an active one."""
SHIFT_SAMPLES = 20
"""So many in a row beyond all before: a level shifted, or a clock was set."""


class Cusum:
    """Page's test of one loss ratio against another, packet by packet: 0 says good, high says bad.

    A lost packet adds log(bad / good), one that came takes log((1 - good) / (1 - bad)); the sum stays at 0 or above.
    """

    __slots__ = ("_arrived", "_lost", "_most", "score")

    def __init__(self, good_ratio: float, bad_ratio: float, most: float) -> None:
        """`most` bounds the score."""
        self._lost = log(bad_ratio / good_ratio)
        self._arrived = log((1 - good_ratio) / (1 - bad_ratio))
        self._most = most
        self.score = 0.0

    def add(self, arrived: int, lost: int) -> None:
        """First so many came, then so many were found lost; `lost` below 0 takes some back."""
        score = max(self.score - arrived * self._arrived, 0.0) + lost * self._lost
        self.score = min(max(score, 0.0), self._most)

    def reset(self) -> None:
        self.score = 0.0


class LossCounts:
    """Arrived and lost over a span that moves on in steps."""

    __slots__ = ("_steps", "arrived", "keep", "lost", "step_s")

    def __init__(self, step_s: float, keep: int) -> None:
        """The span is the present step and `keep - 1` before it."""
        self.step_s = step_s
        self.keep = keep
        self.arrived = 0
        self.lost = 0
        self._steps: deque[list[int]] = deque()

    def add(self, arrived: int, lost: int, now: float) -> None:
        step = int(now / self.step_s)
        steps = self._steps
        if steps and steps[-1][0] >= step:
            steps[-1][1] += arrived
            steps[-1][2] += lost
        else:
            steps.append([step, arrived, lost])
            self.expire(now)
        self.arrived += arrived
        self.lost += lost

    def expire(self, now: float) -> None:
        """Forget what is older than the span."""
        steps, oldest = self._steps, int(now / self.step_s) - self.keep
        while steps and steps[0][0] <= oldest:
            _, arrived, lost = steps.popleft()
            self.arrived -= arrived
            self.lost -= lost

    def ratio(self, now: float, steps: int | None = None) -> float:
        """Lost of all, 0 to 1, over the span or its newest `steps` steps."""
        self.expire(now)
        arrived, lost = self.arrived, self.lost
        if steps is not None:
            oldest = int(now / self.step_s) - steps
            recent = [step for step in self._steps if step[0] > oldest]
            arrived, lost = sum(step[1] for step in recent), sum(step[2] for step in recent)
        return min(max(lost, 0) / max(arrived + lost, 1), 1.0)


class LossWatch:
    """Everything about the loss of one direction."""

    __slots__ = ("_fast", "_last_minute", "_last_seconds", "_settings", "_slow")

    def __init__(self, settings: LinkSettings) -> None:
        self._settings = settings
        room = settings.score_room
        self._fast = Cusum(settings.loss_good_ratio, settings.loss_bad_ratio, settings.loss_bad_score + room)
        self._slow = Cusum(settings.slow_good_ratio, settings.slow_bad_ratio, settings.slow_bad_score + room)
        self._last_seconds = LossCounts(0.1, 30)
        self._last_minute = LossCounts(2.0, 30)

    def add(self, arrived: int, lost: int, apart: int, now: float) -> None:
        """So many came, and so many were found lost; of these the tests hear `apart`, without what is one event."""
        self._fast.add(arrived, apart)
        self._slow.add(arrived, apart)
        self._last_seconds.add(arrived, lost, now)
        self._last_minute.add(arrived, lost, now)

    def is_suspect(self) -> bool:
        """Losses have come close together."""
        return self._fast.score >= self._settings.loss_suspect_score

    def is_bad(self, now: float) -> bool:
        """Loss is beyond chance. More packets a second ask for more proof: false alarms are told by the hour."""
        settings = self._settings
        if self._slow.score >= settings.slow_bad_score:
            return True
        if self._fast.score < settings.loss_bad_score:
            return False
        rate = self.packets_per_s(now) / max(settings.active_packets_per_s, 1.0)
        return self._fast.score >= settings.loss_bad_score + min(log(max(rate, 1.0)), settings.score_room)

    def reset_scores(self) -> None:
        self._fast.reset()
        self._slow.reset()

    def packets_per_s(self, now: float) -> float:
        """Over the last 3 s."""
        counts = self._last_seconds
        counts.expire(now)
        return (counts.arrived + counts.lost) / (counts.step_s * counts.keep)

    def ratio_now(self, now: float) -> float:
        """Over 0.3 s."""
        return self._last_seconds.ratio(now, 3)

    def ratio(self, now: float) -> float:
        """Over 3 s."""
        return self._last_seconds.ratio(now)

    def ratio_minute(self, now: float) -> float:
        """Over 60 s."""
        return self._last_minute.ratio(now)


class SlidingMin:
    """The smallest value of the last seconds."""

    __slots__ = ("_span_s", "_values")

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._values: deque[tuple[float, float]] = deque(maxlen=4096)
        """Moments and values, each larger than the one before it."""

    def add(self, value: float, now: float) -> None:
        values = self._values
        while values and values[-1][1] >= value:
            values.pop()
        values.append((now, value))
        self._expire(now)

    def get(self, now: float) -> float:
        """Inf where nothing is known. The newest value stays, however old."""
        self._expire(now)
        return self._values[0][1] if self._values else inf

    def clear(self) -> None:
        self._values.clear()

    def _expire(self, now: float) -> None:
        values = self._values
        while len(values) > 1 and values[0][0] <= now - self._span_s:
            values.popleft()


class StepDetector:
    """Whether a level has moved, noise left out: the mean of few values against that of many.

    The means part: something moves. They meet again: it has settled, and where that is told. Thresholds are ratios
    above floors in seconds.
    """

    __slots__ = ("_few", "_many", "_moving", "level_s")

    UPPER_RATIO, LOWER_RATIO = 0.05, 0.02
    UPPER_S, LOWER_S = 0.001, 0.0005
    FEW, MANY = 10, 60
    NOISES = 4.0
    """So many times what the mean of few varies by. A step by itself is seven times as much."""

    def __init__(self) -> None:
        self._few: deque[float] = deque(maxlen=self.FEW)
        self._many: deque[float] = deque(maxlen=self.MANY)
        self._moving = False
        self.level_s = 0.0
        """The level that was told last; 0.0 before the first."""

    def add(self, value_s: float) -> bool:
        """Take a value; returns whether the level is another: at once when it begins to move, and where it settles."""
        self._few.append(value_s)
        self._many.append(value_s)
        if len(self._few) < self.FEW:
            return False
        few, many = sum(self._few) / len(self._few), sum(self._many) / len(self._many)
        apart, moving = abs(few - many), self._moving
        if moving:
            self._moving = apart > max(self.LOWER_RATIO * many, self.LOWER_S)
        else:
            noise = sqrt(sum((each - many) ** 2 for each in self._many) / len(self._many) / len(self._few))
            self._moving = apart >= max(self.UPPER_RATIO * many, self.UPPER_S, self.NOISES * noise)
        if self._moving is moving and self.level_s:
            return False
        if abs(few - self.level_s) < max(self.UPPER_RATIO * self.level_s, self.UPPER_S):
            return False
        self.level_s = few
        return True


class RoundTrips:
    """Round trips of one link, seconds."""

    __slots__ = ("_base", "_detector", "_recent", "smoothed_s", "steps")

    GAIN = 0.1

    def __init__(self, window_s: float) -> None:
        self.smoothed_s = 0.0
        self.steps = 0
        """How often the level has moved: a reason to tell the controller at once."""
        self._base = SlidingMin(window_s)
        self._recent: deque[float] = deque(maxlen=3)
        self._detector = StepDetector()

    def add(self, rtt_s: float, now: float) -> None:
        self.smoothed_s += (rtt_s - self.smoothed_s) * (self.GAIN if self.smoothed_s else 1.0)
        self._base.add(rtt_s, now)
        self._recent.append(rtt_s)
        self.steps += self._detector.add(rtt_s)

    def base_s(self, now: float) -> float:
        """The smallest of the window; inf: none yet."""
        return self._base.get(now)

    def recent_s(self) -> float:
        """The smallest of the last three: what is true now, without what jitter adds. 0.0 before there are three."""
        return min(self._recent) if len(self._recent) == self._recent.maxlen else 0.0

    @property
    def level_s(self) -> float:
        """Moves in steps; 0.0 before the first."""
        return self._detector.level_s


class DelayVariation:
    """How much one-way delay varies, from the sender's times: their clock's zero is not known and need not be.

    Only differences within the window count. When the newest samples all lie beyond the older ones, a clock was set or
    a path has changed; older ones are forgotten, since a level is not jitter.
    """

    __slots__ = ("_changed", "_p95_s", "_recent", "_samples")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._recent: deque[float] = deque(maxlen=3)
        self._p95_s = 0.0
        self._changed = 0

    def add(self, transit_s: float) -> None:
        """Arrival by our clock less departure by theirs."""
        self._samples.append(transit_s)
        self._recent.append(transit_s)
        self._changed += 1
        if self._changed >= SHIFT_SAMPLES:
            self._changed = 0
            self._forget_what_shifted()
            ordered = sorted(self._samples)
            self._p95_s = ordered[(len(ordered) * 95 - 1) // 100] - ordered[0]

    @property
    def p95_s(self) -> float:
        """95th percentile over the smallest, seconds."""
        return self._p95_s

    def rise_s(self) -> float:
        """How far the last three lie above the smallest of the window, seconds."""
        return min(self._recent) - min(self._samples) if self._samples else 0.0

    def _forget_what_shifted(self) -> None:
        """Between the newest and the older ones are as many that may be of both levels."""
        values = list(self._samples)
        old, new = values[: -2 * SHIFT_SAMPLES], values[-SHIFT_SAMPLES:]
        if old and (min(new) > max(old) or max(new) < min(old)):
            self._samples.clear()
            self._samples.extend(new)


def likely_apart(arrived: int, lost: int) -> int:
    """How many of the losses are events of their own, where only counts are known: two, and one in four that came."""
    return min(lost, RUN_TELLS + arrived // 4)
