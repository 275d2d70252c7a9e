"""What happens to flows where a path is rough: `bench.longhaul --scenarios`, on a virtual clock.

Each scenario runs one controller and returns figures by name. Where the controller of ours has to keep a figure in a
range, the scenario says so beside it; the others are printed to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from bench.haul import Flow, Haul, Live, Path, quantile, shares

LONG, LOSSY, JITTERY = Path(), Path(loss_ratio=0.01), Path(jitter_s=0.020)
DEEP = Path(queue_s=0.6)
STEP_S = 0.1
FITS = 0.9
FIRST_BYTES = 250_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, how it is printed, and the range that the controller of ours has to keep."""

    value: float
    form: str = ".0%"
    least: float = float("-inf")
    most: float = float("inf")

    @property
    def holds(self) -> bool:
        """Whether it is in its range."""
        return self.least <= self.value <= self.most

    def __str__(self) -> str:
        return f"{self.value * 1000:.0f} ms" if self.form == "ms" else f"{self.value:{self.form}}"


Figures: TypeAlias = Mapping[str, Figure]


def jitter(controller: str, seconds: float = 30.0, path: Path = JITTERY) -> Figures:
    """Packets take up to 20 ms longer, each on its own, and overtake each other."""
    haul = Haul(path, [controller], 1)
    (result,) = shares(haul, 10.0, seconds)
    return {"of the rate": Figure(result.part, least=0.8), "taken for lost": Figure(result.lost / result.sent, ".2%")}


def held_acks(controller: str, seconds: float = 30.0, rtt_s: float = 0.150, every_s: float = 0.050) -> Figures:
    """Acknowledgements come back in clumps."""
    path = Path(rtt_s=rtt_s, queue_s=max(rtt_s, 0.05), acks_every_s=every_s)
    (result,) = shares(Haul(path, [controller], 1), 10.0, seconds)
    return {
        "of the rate": Figure(result.part, least=0.8),
        "queue p95": Figure(quantile(result.queue_s, 0.95), "ms"),
    }


def two_lengths(controller: str, seconds: float = 60.0) -> Figures:
    """Two flows of 30 and 150 ms through one bottleneck. Jain's index: 1 is equal, 0.5 is all for one."""
    haul = Haul(Path(rtt_s=0.030), [controller], 1)
    haul.add(controller, further_s=0.120)
    first, second = shares(haul, 15.0, seconds)
    parts = (first.part, second.part)
    return {
        "30 ms": Figure(first.part),
        "150 ms": Figure(second.part),
        "Jain": Figure(sum(parts) ** 2 / (2 * sum(part * part for part in parts)), ".2f", least=0.8),
        "queue p95": Figure(quantile(first.queue_s, 0.95), "ms"),
    }


def drop_and_back(controller: str, path: Path = DEEP, narrow: float = 0.25) -> Figures:
    """The bottleneck gets four times narrower for 20 s, and wide again."""
    haul = Haul(path, [controller], 1)
    haul.run(15.0)
    haul.reshape(replace(path, rate_bit_per_s=narrow * path.rate_bit_per_s))
    haul.queue_s.clear()
    haul.run(5.0)
    worst = max(haul.queue_s)
    haul.queue_s.clear()
    haul.run(15.0)
    later = quantile(haul.queue_s, 0.95)
    haul.reshape(path)
    return {
        "queue at most": Figure(worst, "ms"),
        "p95 5 s later": Figure(later, "ms", most=1.25 * path.rtt_s),
        "wide again in": Figure(_time_to(haul, FITS, 20.0), "ms"),
    }


def shallow(controller: str, seconds: float = 30.0, packets: int = 10) -> Figures:
    """A queue of ten packets: what is more is dropped, as a policer does."""
    path = Path(queue_s=packets * 1232 * 8 / 20e6)
    (result,) = shares(Haul(path, [controller], 1), 10.0, seconds)
    return {"of the rate": Figure(result.part, least=0.7), "lost": Figure(result.lost / result.sent, ".2%", most=0.06)}


def live(controller: str, seconds: float = 60.0, path: Path = LOSSY) -> Figures:
    """A 1.5 Mbit/s show with 100 kB key frames each 2 s: how long frames take, one way."""
    show = _show(Haul(path, [], 1), controller, seconds)
    return {
        "frame p50": Figure(quantile(show.delays_s, 0.5), "ms"),
        "p95": Figure(quantile(show.delays_s, 0.95), "ms"),
        "p99": Figure(quantile(show.delays_s, 0.99), "ms"),
        "worst": Figure(max(show.delays_s), "ms"),
    }


def live_clean(controller: str, seconds: float = 60.0) -> Figures:
    """The same without loss: nothing that the controller does on its own may be felt."""
    return live(controller, seconds, LONG)


def many(controller: str, seconds: float = 20.0, viewers: int = 20) -> Figures:
    """20 viewers at 200 kbit/s through 5 Mbit/s and 60 ms."""
    haul = Haul(Path(rtt_s=0.060, rate_bit_per_s=5e6, queue_s=0.25), [], 1)
    shows = []
    for number in range(viewers):
        show = Live(200e3, 12_000, starts_at=haul.now + 1.0 + number * 2.0 / viewers)
        shows.append(show)
        haul.add(controller, show)
    haul.run(4.0)
    haul.queue_s.clear()
    for show in shows:
        show.delays_s.clear()
    haul.run(seconds)
    delays = [delay for show in shows for delay in show.delays_s]
    return {
        "frame p50": Figure(quantile(delays, 0.5), "ms"),
        "p95": Figure(quantile(delays, 0.95), "ms"),
        "queue p95": Figure(quantile(haul.queue_s, 0.95), "ms"),
        "frames": Figure(len(delays) / (viewers * seconds * 30), ".1%", least=0.98),
    }


def first_group(controller: str, path: Path = LONG) -> Figures:
    """From cold: how long the first 250 kB take from when the connection is open, and the rate 90 % of full."""
    haul = Haul(path, [controller], 1)
    (flow,) = haul.flows
    haul.run(60.0, lambda: flow.bytes >= FIRST_BYTES)
    assert flow.opened_at is not None
    first = haul.now - flow.opened_at
    return {"250 kB": Figure(first, "ms", most=1.5), "full rate in": Figure(first + _time_to(haul, FITS, 30.0), "ms")}


def blackout(controller: str, path: Path = LONG, dark_s: float = 2.0) -> Figures:
    """Nothing passes for two seconds: how long until it flows again, and as fast as before."""
    haul = Haul(path, [controller], 1)
    (flow,) = haul.flows
    haul.run(10.0)
    haul.reshape(replace(path, loss_ratio=1.0))
    haul.run(dark_s)
    haul.reshape(path)
    light, had = haul.now, flow.bytes
    haul.run(30.0, lambda: flow.bytes > had)
    flows = haul.now - light
    return {"flows in": Figure(flows, "ms"), "full rate in": Figure(flows + _time_to(haul, 0.8, 30.0), "ms", most=10.0)}


SCENARIOS: dict[str, Callable[[str], Figures]] = {
    "jitter 20 ms, reordered": jitter,
    "ACKs each 25 ms": lambda controller: held_acks(controller, every_s=0.025),
    "ACKs each 50 ms": held_acks,
    "ACKs each 50 ms, RTT 20": lambda controller: held_acks(controller, rtt_s=0.020),
    "RTT 30 and 150 share": two_lengths,
    "20 -> 5 -> 20 Mbit/s": drop_and_back,
    "queue of 10 packets": shallow,
    "live 1.5 Mbit/s, 1 %": live,
    "live 1.5 Mbit/s, 0 %": live_clean,
    "20 viewers, 5 Mbit/s": many,
    "first group": first_group,
    "first group, 1 %": lambda controller: first_group(controller, LOSSY),
    "dark for 2 s": blackout,
}


def _show(haul: Haul, controller: str, seconds: float) -> Live:
    show = Live(starts_at=haul.now + 1.0)
    haul.add(controller, show)
    haul.run(seconds + 1.0)
    return show


def _time_to(haul: Haul, part: float, most_s: float) -> float:
    """How long until a flow has so much of the rate, in half a second's mean."""
    flow: Flow = haul.flows[0]
    began, marks = haul.now, [flow.bytes]
    while haul.now - began < most_s:
        haul.run(STEP_S)
        marks.append(flow.bytes)
        if len(marks) > 5 and (marks[-1] - marks[-6]) * 8 / (5 * STEP_S) >= part * haul.path.rate_bit_per_s:
            return max(haul.now - began - 5 * STEP_S, 0.0)
    return most_s
