"""A long, lossy path: what each congestion controller makes of it, alone and beside reno.

    python -m bench.longhaul [--controllers rate,cubic,reno] [--loss 0,0.1,0.5,1,2] [--seconds 60]
    python -m bench.longhaul --scenarios [--only WORDS]     rough paths: jitter, held ACKs, live media, ...
    python -m bench.longhaul --real [--runs 3]              the first over real UDP, between processes

By default on a virtual clock: two of our endpoints, the demo's shaper between them, 150 ms both ways together,
20 Mbit/s, a queue of one round trip, losses at random in the direction of the data. The sender always has more 20 kB
objects, a stream each. Printed are the part of the bottleneck that arrived in objects after the first `--warm-up`
seconds, how long packets waited in the queue, and what a reno flow keeps that starts together with the flow measured;
with `--real` medians of runs in which the shaper's own lateness stayed under 20 ms (99th percentile).
Exit code 1 where a floor is missed: 80 % up to 1 % loss, a queue of 1.25 round trips, a quarter for reno, and what
`bench.rough_paths` says; 2 where no real run counted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench import real_haul
from bench.haul import Path, measure, quantile
from bench.rough_paths import SCENARIOS

MEASURED = "rate"
PART_FLOOR, LOSS_OF_FLOOR, QUEUE_FLOOR, RENO_FLOOR = 0.80, 1.0, 1.25, 0.25


@dataclass(frozen=True, slots=True)
class Row:
    """One controller at one loss: parts of the bottleneck, and waiting in seconds."""

    controller: str
    loss_percent: float
    part: float
    queue_p50_s: float
    queue_p95_s: float
    reno_part: float
    note: str = ""

    def text(self, rtt_s: float) -> str:
        """A line of the table."""
        queue = f"{self.queue_p50_s / rtt_s:13.2f}{self.queue_p95_s / rtt_s:9.2f}"
        return f"{self.controller:<12}{self.loss_percent:8g}{self.part:13.0%}{queue}{self.reno_part:13.0%}{self.note}"

    def missed(self, rtt_s: float) -> list[str]:
        """The floors that the controller of ours does not reach."""
        if self.controller != MEASURED:
            return []
        found = []
        if self.loss_percent <= LOSS_OF_FLOOR and self.part < PART_FLOOR:
            found.append(f"{self.part:.0%} of the rate at {self.loss_percent:g} % loss (at least {PART_FLOOR:.0%})")
        if self.queue_p95_s > QUEUE_FLOOR * rtt_s:
            found.append(f"a queue of {self.queue_p95_s / rtt_s:.2f} round trips at {self.loss_percent:g} %")
        if not self.loss_percent and self.reno_part < RENO_FLOOR:
            found.append(f"reno keeps {self.reno_part:.0%} beside it (at least {RENO_FLOOR:.0%})")
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.longhaul", description=__doc__.split("\n")[0])
    parser.add_argument("--controllers", default="rate,cubic,reno")
    parser.add_argument("--loss", default="0,0.1,0.5,1,2", help="per cent")
    parser.add_argument("--rtt", type=float, default=150.0, help="milliseconds")
    parser.add_argument("--mbit", type=float, default=20.0)
    parser.add_argument("--queue", type=float, default=1.0, help="round trips")
    parser.add_argument("--warm-up", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenarios", action="store_true")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    controllers = options.controllers.split(",")
    missed = _scenarios(controllers, options.only) if options.scenarios else _table(controllers, options)
    if missed is None:
        print("VOID  the shaper was late in every run of a row: nothing is said about it")
        return 2
    for line in missed:
        print(f"FAIL  {line}")
    return 1 if missed else 0


def _scenarios(controllers: Sequence[str], only: str) -> list[str]:
    missed = []
    for name, scenario in SCENARIOS.items():
        for controller in controllers if only in name else ():
            figures = scenario(controller)
            print(f"{name:<26}{controller:<7}" + ", ".join(f"{what} {it}" for what, it in figures.items()), flush=True)
            if controller == MEASURED:
                missed += [f"{name}: {what} {it}" for what, it in figures.items() if not it.holds]
    return missed


def _table(controllers: Sequence[str], options: argparse.Namespace) -> list[str] | None:
    """Print the table; returns the floors missed, None where nothing counted in a row."""
    rtt_s = options.rtt / 1000
    missed: list[str] = []
    how = "real UDP" if options.real else "virtual clock"
    shape = f"{options.mbit:g} Mbit/s, {options.rtt:g} ms, queue {options.queue:g} round trips"
    print(f"{shape}, {options.seconds:g} s, {how}")
    print("controller    loss %  of the rate  queue p50 RTT   p95  reno beside")
    for name in controllers:
        for loss in map(float, options.loss.split(",")):
            path = Path(rtt_s, options.mbit * 1e6, options.queue * rtt_s, loss / 100)
            row = (_real if options.real else _virtual)(name, path, options)
            if row is None:
                return None
            print(row.text(rtt_s), flush=True)
            missed += row.missed(rtt_s)
    return missed


def _virtual(name: str, path: Path, options: argparse.Namespace) -> Row:
    (alone,) = measure(path, [name], options.warm_up, options.seconds, options.seed)
    _, reno = measure(path, [name, "reno"], options.warm_up, options.seconds, options.seed)
    queue = alone.queue_s
    lost = f"{alone.lost / max(alone.sent, 1):9.2%} lost"
    percent = path.loss_ratio * 100
    return Row(name, percent, alone.part, quantile(queue, 0.5), quantile(queue, 0.95), reno.part, lost)


def _real(name: str, path: Path, options: argparse.Namespace) -> Row | None:
    """Medians of the runs that count."""
    told = (options.warm_up, options.seconds)
    runs = [real_haul.measure(path, [name], *told) for _ in range(options.runs)]
    beside = [real_haul.measure(path, [name, "reno"], *told) for _ in range(options.runs)]
    alone = [run for run in runs if not run.void]
    shared = [run for run in beside if not run.void]
    if not alone or not shared:
        return None
    late = max(run.late_p99_s for run in alone + shared)
    void = len(runs) + len(beside) - len(alone) - len(shared)
    return Row(
        name,
        path.loss_ratio * 100,
        median(run.parts[0] for run in alone),
        median(run.queue_p50_s for run in alone),
        median(run.queue_p95_s for run in alone),
        median(run.parts[1] for run in shared),
        f"   shaper late p99 at most {late * 1000:.1f} ms, {void} of {len(runs) + len(beside)} void",
    )


if __name__ == "__main__":
    sys.exit(main())
