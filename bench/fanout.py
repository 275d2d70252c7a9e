"""What fan-out costs, and how long it takes: our relay, bare aioquic, aiomoqt's relay and moq-dev's, in one run.

    python -m bench.fanout [--json FILE] [--peer-bin DIR] [--quick]

Real UDP on loopback, one server process at a time on a core of its own, the load on another. For each number of
subscribers a publisher sends either ten 1,200-byte datagrams a tick (the object's header included, so that they fit the
1,232-byte packets that every side sends by default) or one 20,000-byte object on a subgroup stream of its own; 30 ticks
a second, or as many as keep the whole below `--packets-per-s`, since the cost is asked for and not where it ends.
Reported are the processor time of the server's process for each packet it sent, delivered bits for each second of it,
and acknowledgements received for each packet. Receivers acknowledge a burst once (`timer`) or every other packet
(`second`), count every byte, and one of them compares it. Figures are medians of `--runs` runs, targets taking turns.

Latency runs publish one datagram, 50 times a second as audio does, or one object, 30 times as video does: from its
first packet leaving the publisher to the object whole at a viewer's socket, by the kernel's stamp. A run whose
generator was late (20 ms at p99) is void and repeated. What other programs took from the machine meanwhile stands
beside each figure, in cores: latencies want it to be 0.

Exit code: 0, 1 where a floor was missed or bytes were, 3 where a peer is missing, 4 where too many runs were void.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import report
from bench.dialing import DialError
from bench.load import PATIENCE_S, SHAPES, Load, Shape, Ticks, quantile
from bench.receiving import ACK_POLICIES, Broken
from bench.targets import LOAD_CORE, Server, Target, TargetDied, pin_self, targets

WARM_UP_S = 1.0
RETRIES = 4
VOID_LAG_S = 0.020
PRIORITY = -10
LATENCY_CELLS = (("datagram", 100), ("objects", 5), ("objects", 100))
TICKS_PER_S = {"datagrams": 30.0, "datagram": 50.0, "objects": 30.0}


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination that is measured."""

    part: str
    """`cost` or `latency`."""
    shape: str
    subscribers: int
    acks: str


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a cell gave for one target; times in milliseconds, processor time in microseconds."""

    us_per_packet: float
    mbit_per_core: float
    acks_per_packet: float
    core_ratio: float
    packets: int
    bytes: int
    objects: int
    objects_wanted: int
    complete: bool
    latency_ms_p50: float
    latency_ms_p99: float
    span_ms_p50: float
    span_ms_p99: float
    lag_ms_p99: float
    others_ratio: float
    """Cores that other programs used meanwhile."""
    void: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the arguments ask for, print tables and verdicts; returns the exit code."""
    options = _parse(arguments)
    found = targets(options.targets.split(","), options.draft, options.peer_bin, tuple(options.relay_flag))
    present = [target for target in found if isinstance(target, Target)]
    missing = [line for line in found if isinstance(line, str)]
    pinned = pin_self(LOAD_CORE)
    raised = _raise_priority()
    print(report.heading(present, options.draft, pinned=pinned, raised=raised), flush=True)
    for line in missing:
        print(line, flush=True)
    results: dict[Cell, dict[str, list[Run]]] = {}
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as directory:
        for cell in dict.fromkeys(_cells(options)):
            results[cell] = {target.name: [] for target in present}
            for number in range(options.runs):
                for target in present:
                    run = _measure(target, cell, options, Path(directory))
                    results[cell][target.name].append(run)
                    _progress(cell, target, number, run)
            _write(options.json, results, missing, finished=False)
    _write(options.json, results, missing, finished=True)
    print(report.tables(results, present))
    verdicts = report.verdicts(results)
    print("\n".join(map(str, verdicts)))
    return _exit_code(results, verdicts, missing)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.fanout", description=__doc__.split("\n")[0])
    parser.add_argument("--targets", default="ours,aioquic,aiomoqt,moq-relay")
    parser.add_argument("--subscribers", default="1,10,100,200")
    parser.add_argument("--shapes", default="datagrams,objects")
    parser.add_argument("--parts", default="cost,acks,latency", help="cost, acks (every other packet), latency")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of a run")
    parser.add_argument("--rate", type=float, help="ticks a second, for every load")
    parser.add_argument("--packets-per-s", type=float, default=12_000.0, help="upper bound of what a server sends")
    parser.add_argument("--draft", type=int, default=20)
    parser.add_argument("--peer-bin", help="where moq-relay is, besides PATH and $TRADEWIND_PEER_BIN")
    parser.add_argument("--relay-flag", action="append", default=[], help="handed to our relay as it is; may repeat")
    parser.add_argument("--quick", action="store_true", help="one short run of everything: to see that it works")
    parser.add_argument("--json", help="write everything to this file, after every cell")
    options = parser.parse_args(arguments)
    if options.quick:
        options.runs, options.seconds = 1, 1.0
    return options


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    """What is measured, in the order of the tables."""
    counts = [int(count) for count in options.subscribers.split(",")]
    shapes = options.shapes.split(",")
    parts = options.parts.split(",")
    if "cost" in parts:
        for shape in shapes:
            for count in counts:
                yield Cell("cost", shape, count, "timer")
    if "acks" in parts:
        for shape in shapes:
            yield Cell("cost", shape, min(100, max(counts)), "second")
    if "latency" in parts:
        for shape, count in LATENCY_CELLS:
            yield Cell("latency", shape, min(count, max(counts)), "timer")


def _measure(target: Target, cell: Cell, options: argparse.Namespace, directory: Path) -> Run:
    """One run that is not void, or the last of several that were."""
    shape = SHAPES[cell.shape]
    rate = min(options.rate or TICKS_PER_S[cell.shape], options.packets_per_s / (cell.subscribers * shape.packets()))
    run = None
    for _ in range(1 + RETRIES):
        try:
            run = _run(target, cell, shape, rate, options, directory)
        except (DialError, Broken, TargetDied) as error:
            print(f"  {target.name}: {error}", file=sys.stderr, flush=True)
            continue
        if not run.void:
            break
        print("void", flush=True)
    return run or summary(Ticks(objects_wanted=1, lags_s=[PATIENCE_S]))


def _run(target: Target, cell: Cell, shape: Shape, rate: float, options: argparse.Namespace, directory: Path) -> Run:
    with Server(target, directory) as server:
        load = Load(server, shape, cell.subscribers, ACK_POLICIES[cell.acks], options.draft)
        try:
            load.connect()
            load.run(rate, WARM_UP_S)
            return summary(load.run(rate, options.seconds))
        finally:
            load.close()


def summary(ticks: Ticks) -> Run:
    """The figures of one stretch of ticks."""
    lag = quantile(ticks.lags_s, 0.99)
    return Run(
        us_per_packet=ticks.us_per_packet,
        mbit_per_core=ticks.mbit_per_core,
        acks_per_packet=ticks.acks_per_packet,
        core_ratio=ticks.core_ratio,
        packets=ticks.packets,
        bytes=ticks.bytes,
        objects=ticks.objects,
        objects_wanted=ticks.objects_wanted,
        complete=ticks.complete,
        latency_ms_p50=quantile(ticks.latencies_s, 0.5) * 1000,
        latency_ms_p99=quantile(ticks.latencies_s, 0.99) * 1000,
        span_ms_p50=quantile(ticks.spans_s, 0.5) * 1000,
        span_ms_p99=quantile(ticks.spans_s, 0.99) * 1000,
        lag_ms_p99=lag * 1000,
        others_ratio=ticks.others_ratio,
        void=lag > VOID_LAG_S,
    )


def _progress(cell: Cell, target: Target, number: int, run: Run) -> None:
    print(
        f"  {cell.part} {cell.shape} x{cell.subscribers} acks {cell.acks} run {number + 1} {target.name}: "
        f"{run.us_per_packet:.1f} us/packet, {run.acks_per_packet:.2f} acks/packet, "
        f"p50 {run.latency_ms_p50:.1f} p99 {run.latency_ms_p99:.1f} ms, {run.objects}/{run.objects_wanted}, "
        f"others {run.others_ratio:.1f} cores"
        f"{'' if run.complete else ' INCOMPLETE'}{' void' if run.void else ''}",
        file=sys.stderr,
        flush=True,
    )


def _write(name: str | None, results: report.Results, missing: list[str], *, finished: bool) -> None:
    """Put what is measured so far in the place of what was written before, whole or not at all; no name: nowhere."""
    if not name:
        return
    document = {"finished": finished} | report.document(results, report.verdicts(results), missing)
    path = Path(name)
    half = path.with_name(path.name + ".half")
    half.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    half.replace(path)


def _raise_priority() -> bool:
    """Run before other programs of the machine, and the servers too, where that is allowed."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    except OSError:
        return False
    return True


def _exit_code(results: dict[Cell, dict[str, list[Run]]], verdicts: list[report.Verdict], missing: list[str]) -> int:
    if missing:
        return 3
    runs = [run for by_target in results.values() for runs in by_target.values() for run in runs]
    if any(run.void for run in runs):
        return 4
    ours = [run for by_target in results.values() for run in by_target.get("ours", [])]
    return int(any(not verdict.passed for verdict in verdicts) or not all(run.complete for run in ours))


if __name__ == "__main__":
    sys.exit(main())
