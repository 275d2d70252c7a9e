"""Tables and verdicts of `bench.fanout`: what a reader of the README sees, and whether the floors hold."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.fanout import Cell, Run
    from bench.targets import Target

    Results = dict[Cell, dict[str, list[Run]]]

DATAGRAM_US = 35.0
OBJECT_RATIO = 1.15
LATENCY_P50_MS, LATENCY_P99_MS = 2.0, 10.0
COST_HEAD = (
    f"{'load':<10} {'subs':>4} {'acks':<6} {'server':<24} {'us/packet':>9} {'Mbit/s/core':>11} {'acks/packet':>11} "
    f"{'core':>5} {'vs aioquic':>10} {'others':>6}  bytes"
)
LATENCY_HEAD = (
    f"{'latency':<10} {'subs':>4} {'server':<24} {'p50 ms':>8} {'p99 ms':>8} {'first to last p50 ms':>20} "
    f"{'p99 ms':>8} {'others':>6}  bytes"
)
OURS, YARDSTICK = "ours", "aioquic"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One floor, what was measured, and whether it holds."""

    what: str
    measured: float
    floor: float
    unit: str

    @property
    def passed(self) -> bool:
        return self.measured <= self.floor

    def __str__(self) -> str:
        word = "PASS" if self.passed else "FAIL"
        return f"{word}  {self.what}: {self.measured:.2f} {self.unit} (at most {self.floor:g})"


def heading(present: list[Target], draft: int, *, pinned: bool, raised: bool) -> str:
    """What was measured, on what."""
    where = "server and load on a core each" if pinned else "server and load share the cores"
    priority = ", before other programs" if raised else ""
    software = f"Python {platform.python_version()}, aioquic {version('aioquic')}, moqt-{draft}"
    titles = ", ".join(target.title for target in present)
    return f"{processor()}, {software}; {where}{priority}\ntargets: {titles}"


def processor() -> str:
    """The processor's name, as the kernel has it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def middle(runs: list[Run]) -> dict[str, float]:
    """The median of every figure over the runs that count; all of them where none does."""
    counted = [run for run in runs if not run.void] or runs
    return {field.name: median(getattr(run, field.name) for run in counted) for field in fields(counted[0])}


def tables(results: Results, present: list[Target]) -> str:
    """Everything that was measured, as text."""
    lines = []
    if any(cell.part == "cost" for cell in results):
        lines += ["", COST_HEAD]
        lines += [row for cell in results if cell.part == "cost" for row in _cost_rows(cell, results[cell], present)]
    if any(cell.part == "latency" for cell in results):
        lines += ["", LATENCY_HEAD]
        lines += [
            row for cell in results if cell.part == "latency" for row in _latency_rows(cell, results[cell], present)
        ]
    return "\n".join([*lines, ""])


def verdicts(results: Results) -> list[Verdict]:
    """The floors that these results can speak about."""
    found = []
    for cell, by_target in results.items():
        if not by_target.get(OURS):
            continue
        ours = middle(by_target[OURS])
        name = f"{cell.shape} at {cell.subscribers}"
        if cell.part == "cost" and cell.acks == "timer":
            if cell.shape == "datagrams" and cell.subscribers == 100:
                found.append(Verdict(f"cost of {name}", ours["us_per_packet"], DATAGRAM_US, "us/packet"))
            elif cell.shape == "objects" and by_target.get(YARDSTICK):
                bare = middle(by_target[YARDSTICK])
                ratio = ours["us_per_packet"] / max(bare["us_per_packet"], 1e-9)
                found.append(Verdict(f"cost of {name}", ratio, OBJECT_RATIO, "x bare aioquic"))
        elif cell.part == "latency" and (cell.shape == "datagram" or cell.subscribers <= 5):
            found.append(Verdict(f"latency p50 of {name}", ours["latency_ms_p50"], LATENCY_P50_MS, "ms"))
            found.append(Verdict(f"latency p99 of {name}", ours["latency_ms_p99"], LATENCY_P99_MS, "ms"))
    return found


def document(results: Results, found: list[Verdict], missing: list[str]) -> dict[str, Any]:
    """All of it for a machine."""
    return {
        "processor": processor(),
        "python": platform.python_version(),
        "aioquic": version("aioquic"),
        "missing": missing,
        "cells": [
            asdict(cell) | {"targets": {name: [asdict(run) for run in runs] for name, runs in by_target.items()}}
            for cell, by_target in results.items()
        ],
        "floors": [asdict(verdict) | {"passed": verdict.passed} for verdict in found],
    }


def _cost_rows(cell: Cell, by_target: dict[str, list[Run]], present: list[Target]) -> list[str]:
    yardstick = middle(by_target[YARDSTICK])["us_per_packet"] if by_target.get(YARDSTICK) else 0.0
    rows = []
    for target in present:
        runs = by_target[target.name]
        mid = middle(runs)
        against = f"{mid['us_per_packet'] / yardstick:10.2f}" if yardstick else f"{'-':>10}"
        rows.append(
            f"{cell.shape:<10} {cell.subscribers:>4} {cell.acks:<6} {target.title:<24} {mid['us_per_packet']:9.1f} "
            f"{mid['mbit_per_core']:11.0f} {mid['acks_per_packet']:11.2f} {mid['core_ratio']:5.0%} {against} "
            f"{mid['others_ratio']:6.1f}  "
            f"{_bytes(runs)}"
        )
    return rows


def _latency_rows(cell: Cell, by_target: dict[str, list[Run]], present: list[Target]) -> list[str]:
    rows = []
    for target in present:
        runs = by_target[target.name]
        mid = middle(runs)
        rows.append(
            f"{cell.shape:<10} {cell.subscribers:>4} {target.title:<24} {mid['latency_ms_p50']:8.2f} "
            f"{mid['latency_ms_p99']:8.2f} {mid['span_ms_p50']:20.2f} {mid['span_ms_p99']:8.2f} "
            f"{mid['others_ratio']:6.1f}  {_bytes(runs)}"
        )
    return rows


def _bytes(runs: list[Run]) -> str:
    """Whether everything arrived, and whether the figures count."""
    if all(run.void for run in runs):
        return "void"
    counted = [run for run in runs if not run.void]
    missed = sum(run.objects_wanted - run.objects for run in counted)
    if all(run.complete for run in counted):
        return f"all {sum(run.bytes for run in counted) / 1e6:.0f} MB"
    return f"{missed} objects missing of {sum(run.objects_wanted for run in counted)}" if missed else "WRONG BYTES"
