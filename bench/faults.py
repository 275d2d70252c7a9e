"""A whole mesh on a virtual clock, one fault after the other: how soon media come by another way, and who notices.

    python -m bench.faults --virtual [--faults 240] [--seed 1]

Meshes of three relays (round trips as between clouds' regions; 0.2 % loss everywhere), a controller, a publisher at
each relay, and at each a viewer of both other tracks: 25 objects of 800 bytes a second. A fault is one direction of a
link in use that loses 10 % of its packets, or all of them, from some moment on, for 3 s. Printed for links of up to
150 ms and for longer ones: milliseconds until the receiving relay calls it SUSPECT and BAD, until the first media came
by another way (to the relay, of each track), and the longest that a viewer's picture stood, who has a buffer of 200 ms.
All QUIC, proofs, tables and decisions are real; processor time and kernels are not in it. Exit code 1 where a floor is
missed: T1, and no viewer standing for more than 300 ms.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from math import inf

from bench.links import percentile
from tests.sim.show import Fault, Show

MESHES = (("fra-1", "iad-1", "lhr-1"), ("hkg-1", "nrt-1", "sin-1"), ("bom-1", "fra-1", "sin-1"))
NEAR_RTT_MS = 150.0
FAULTS_A_SHOW = 6
KINDS = (("10 % lost", 0.10, 300.0, 600.0), ("silence", 1.0, 300.0, 500.0))
"""Name, loss, and what p50 and p99 of the first media by another way may be."""
STALL_MS = 300.0


def inject(faults: int, loss: float, seed: int) -> list[Fault]:
    """So many faults of one kind, a few in each show, on links in turn."""
    found: list[Fault] = []
    number = 0
    while len(found) < faults:
        show = Show(MESHES[number % len(MESHES)], seed * 1009 + number)
        number += 1
        found += [show.fault(turn + number, loss) for turn in range(min(FAULTS_A_SHOW, faults - len(found)))]
    return found


def line(name: str, what: str, values: Sequence[float]) -> str:
    """p50, p99 and the most of one figure."""
    if not values:
        return ""
    parts = [percentile(values, part) for part in (0.5, 0.99)] + [max(values)]
    shown = "  ".join("   never" if part == inf else f"{part:8.0f}" for part in parts)
    return f"{name:<24}{what:<30}{shown}{len(values):7}"


def judge(name: str, found: Sequence[Fault], p50_ms: float, p99_ms: float) -> list[str]:
    """Print the figures of one kind of fault, near and far; returns the floors missed."""
    missed = []
    for where, part in (
        ("near", [fault for fault in found if fault.rtt_ms <= NEAR_RTT_MS]),
        ("far", [fault for fault in found if fault.rtt_ms > NEAR_RTT_MS]),
    ):
        if not part:
            continue
        first = [value for fault in part for value in fault.first_ms]
        stalls = [value for fault in part for value in fault.stalls_ms]
        for what, values in (
            ("SUSPECT", [fault.suspect_ms for fault in part]),
            ("BAD", [fault.bad_ms for fault in part]),
            ("first media by another way", first),
            ("longest pause of a viewer", stalls),
            ("of viewers not concerned", [value for fault in part for value in fault.others_ms]),
        ):
            print(line(f"{name}, {where}", what, values), flush=True)
        bad, moved = sum(fault.reverse_bad for fault in part), sum(fault.reverse_moved for fault in part)
        print(f"{'':<24}{len(part)} faults; the other direction called bad {bad} times, moved {moved} times")
        if where == "far":
            continue
        for what, values, share, most in (
            ("first media by another way, p50", first, 0.5, p50_ms),
            ("first media by another way, p99", first, 0.99, p99_ms),
            ("pause of a viewer", stalls, 1.0, STALL_MS),
        ):
            if percentile(values, share) > most:
                missed.append(f"{name}: {what} {percentile(values, share):.0f} ms (at most {most:g})")
    return missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--virtual", action="store_true", required=True, help="on a virtual clock")
    parser.add_argument("--faults", type=int, default=240, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    print(f"{'milliseconds':<54}{'p50':>8}{'p99':>10}{'most':>10}{'of':>7}")
    missed = []
    for name, loss, p50_ms, p99_ms in KINDS:
        began = time.perf_counter()
        missed += judge(name, inject(options.faults, loss, options.seed), p50_ms, p99_ms)
        print(f"{'':<24}in {time.perf_counter() - began:.0f} s of this machine\n", flush=True)
    for text in missed:
        print(f"FAIL  {text}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
