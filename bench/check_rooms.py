"""Whether a room kept its word: an independent look at what its writers and readers wrote down themselves.

    python -m bench.check_rooms RECORDS... [--lost-once-stored N]

A file is JSON lines, in the order in which one client saw things; files of several clients may be given one after the
other or in one file, as long as each client's own lines keep their order. Keys are hexadecimal.

    {"what": "sent",  "writer": w, "key": k}                                   a PUB left, the first or again
    {"what": "acked", "writer": w, "key": k, "epoch": e, "seq": s, "stored": 1|2, "dup": true|false}
    {"what": "nak",   "writer": w, "key": k, "why": text}
    {"what": "read",  "reader": r, "key": k, "epoch": e, "seq": s}             a record, live or by FETCH; its own epoch
    {"what": "log",   "reader": r, "key": k, "epoch": e, "seq": s}             the same, of the whole log after the end

The log is what `log` lines say, and every reader's must be the same. Nothing here is shared with relays or clients.
Prints one JSON line with counts, and a line on standard error for each fault, at most 20 of a kind. Exit code 0; 1: a
fault was found; 2: a file cannot be used. Records acknowledged with stored=1 may be lost with their home: they count as
a fault too, unless `--lost-once-stored` allows so many.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from bench.recorded import read_text

MAX_TOLD = 20
NEEDED = {
    "sent": ("writer", "key"),
    "acked": ("writer", "key", "epoch", "seq", "stored", "dup"),
    "nak": ("writer", "key", "why"),
    "read": ("reader", "key", "epoch", "seq"),
    "log": ("reader", "key", "epoch", "seq"),
}


class RecordError(Exception):
    """A file that cannot be used; says where and why."""


class Place(NamedTuple):
    epoch: int
    seq: int


@dataclass
class Key:
    """What one writer saw of one key. Moments are line numbers in that writer's own order."""

    sent: list[int] = field(default_factory=list)
    refused: int = 0
    acks: list[tuple[int, Place, int, bool]] = field(default_factory=list)


@dataclass
class Report:
    """Counts and faults."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def fault(self, kind: str, text: str) -> None:
        self.faults[kind].append(text)


@dataclass
class Records:
    """Everything that was written down."""

    writers: dict[str, dict[str, Key]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Key)))
    reads: dict[str, list[tuple[str, Place]]] = field(default_factory=lambda: defaultdict(list))
    logs: dict[str, list[tuple[str, Place]]] = field(default_factory=lambda: defaultdict(list))


def gather(lines: Iterable[str]) -> Records:
    """Sort lines by who wrote them. Raises RecordError."""
    records = Records()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _row(number, line)
        match row["what"]:
            case "sent":
                records.writers[row["writer"]][row["key"]].sent.append(number)
            case "acked":
                ack = (number, Place(row["epoch"], row["seq"]), row["stored"], row["dup"])
                records.writers[row["writer"]][row["key"]].acks.append(ack)
            case "nak":
                records.writers[row["writer"]][row["key"]].refused += 1
            case "read":
                records.reads[row["reader"]].append((row["key"], Place(row["epoch"], row["seq"])))
            case "log":
                records.logs[row["reader"]].append((row["key"], Place(row["epoch"], row["seq"])))
    if not records.logs:
        raise RecordError("nobody read the log at the end: there are no `log` lines")
    return records


def check(records: Records, lost_once_stored: int = 0) -> Report:
    """Compare what was promised with what is there."""
    report = Report()
    log = _one_log(records, report)
    places = dict(reversed(log))
    _check_log(log, report)
    _check_readers(records, log, places, report)
    _check_acknowledged(records, places, report, lost_once_stored)
    _check_refused(records, places, report)
    _check_writers_order(records, places, report)
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, check, print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.check_rooms", description=__doc__.split("\n")[0])
    parser.add_argument("records", nargs="+", help="JSON lines; - reads standard input")
    parser.add_argument("--lost-once-stored", type=int, default=0, metavar="N")
    options = parser.parse_args(arguments)
    try:
        lines = [line for name in options.records for line in read_text(name, RecordError).splitlines()]
        report = check(gather(lines), options.lost_once_stored)
    except RecordError as error:
        print(f"check_rooms: {error}", file=sys.stderr)
        return 2
    for kind, texts in report.faults.items():
        for text in texts[:MAX_TOLD]:
            print(f"{kind}: {text}", file=sys.stderr)
        if len(texts) > MAX_TOLD:
            print(f"{kind}: and {len(texts) - MAX_TOLD} more", file=sys.stderr)
    counts = dict(report.counts) | {"faults": {kind: len(texts) for kind, texts in report.faults.items()}}
    print(json.dumps(counts))
    return 1 if report.faults else 0


def _one_log(records: Records, report: Report) -> list[tuple[str, Place]]:
    """The longest of the logs that were read at the end; the others have to be its beginning."""
    log = max(records.logs.values(), key=len)
    for reader, other in records.logs.items():
        if other != log[: len(other)]:
            first = next(i for i, (a, b) in enumerate(zip(other, log)) if a != b)
            report.fault("logs differ", f"{reader} has {other[first]} where another has {log[first]}")
        elif len(other) < len(log):
            report.fault("logs differ", f"{reader} has {len(other)} records, another {len(log)}")
    report.counts["log"] = len(log)
    return log


def _check_log(log: list[tuple[str, Place]], report: Report) -> None:
    seen: dict[str, Place] = {}
    for number, (key, place) in enumerate(log):
        if key in seen:
            report.fault("duplicate", f"{key} is at {seen[key]} and at {place}")
        seen.setdefault(key, place)
        if place.seq != number:
            report.fault("hole", f"{place} is the log's record number {number}")
        if number and place.epoch < log[number - 1][1].epoch:
            report.fault("order", f"{place} comes after {log[number - 1][1]}")


def _check_readers(records: Records, log: list[tuple[str, Place]], places: dict[str, Place], report: Report) -> None:
    """Each reader saw a part of the log, without hole or overlap, and nothing else but what was taken back."""
    for reader, reads in records.reads.items():
        report.counts["read"] += len(reads)
        before: Place | None = None
        withdrawn: set[str] = set()
        for key, place in reads:
            if places.get(key) != place:
                # Acknowledged by nobody with two copies, or `_check_acknowledged` tells of it.
                withdrawn.add(key)
                if place.seq < len(log) and log[place.seq][1].epoch <= place.epoch:
                    report.fault("order", f"{reader} read {key} at {place}, where the log has {log[place.seq]}")
            if before is not None and place.seq != before.seq + 1:
                back = place.seq <= before.seq
                if not (back and place.epoch > before.epoch):
                    kind = "overlap" if back else "hole"
                    report.fault(kind, f"{reader} read {place} after {before}")
            before = place
        report.counts["taken back"] += len(withdrawn)


def _check_acknowledged(records: Records, places: dict[str, Place], report: Report, lost_once_stored: int) -> None:
    lost_once = []
    for writer, keys in records.writers.items():
        for key, seen in keys.items():
            if not seen.acks:
                continue
            report.counts["acked"] += 1
            twice = {place for _, place, stored, _ in seen.acks if stored == 2}
            last = seen.acks[-1][1]
            report.counts["stored twice"] += bool(twice)
            if not seen.sent:
                report.fault("stray", f"{writer} was told of {key}, which it never sent")
            if len(twice) > 1 or (twice and last not in twice):
                report.fault("moved", f"{writer} was told {sorted({place for _, place, _, _ in seen.acks})} for {key}")
            there = places.get(key)
            if there == last:
                continue
            text = f"{writer} was told {last} for {key}, and the log has it at {there}"
            if twice:
                report.fault("lost", text)
            else:
                lost_once.append(text)
    report.counts["lost, stored once"] = len(lost_once)
    if len(lost_once) > lost_once_stored:
        report.faults["lost, stored once"] = lost_once


def _check_refused(records: Records, places: dict[str, Place], report: Report) -> None:
    """A key whose every PUB was refused has no place; what has one was sent by somebody."""
    sent: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for keys in records.writers.values():
        for key, seen in keys.items():
            sent[key] += len(seen.sent)
            refused[key] += seen.refused
            report.counts["sent"] += len(seen.sent)
            report.counts["refused"] += seen.refused
            report.counts["unanswered"] += bool(seen.sent and not seen.acks and seen.refused < len(seen.sent))
    for key, place in places.items():
        if not sent[key]:
            report.fault("stray", f"{key} is in the log, and nobody sent it")
        elif sent[key] == refused[key]:
            report.fault("refused, and stored", f"{key} at {place}")


def _check_writers_order(records: Records, places: dict[str, Place], report: Report) -> None:
    """What a writer sent once, one after the other, or after an acknowledgement, has places in that order."""
    for writer, keys in records.writers.items():
        known = [(key, seen, places[key].seq) for key, seen in keys.items() if key in places and seen.sent]
        once = sorted((seen.sent[0], seq, key) for key, seen, seq in known if len(seen.sent) == 1)
        for (_, seq, key), (_, after, later) in pairwise(once):
            if after < seq:
                report.fault("writer's order", f"{writer} sent {key} before {later}, and has it after")
        moments = [(seen.acks[0][0], 0, seq, key) for key, seen, seq in known if seen.acks and not seen.acks[0][3]]
        moments += [(seen.sent[0], 1, seq, key) for key, seen, seq in known]
        highest, whose = -1, ""
        for _, is_sent, seq, key in sorted(moments):
            if not is_sent:
                highest, whose = max((highest, whose), (seq, key))
            elif seq < highest:
                report.fault("writer's order", f"{writer} sent {key} after {whose} was acknowledged, and has it before")


def _row(number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"line {number} is not JSON: {error}") from error
    needed = NEEDED.get(str(row.get("what"))) if isinstance(row, dict) else None
    if needed is None or any(name not in row for name in needed):
        raise RecordError(f"line {number} is no record")
    return row


if __name__ == "__main__":
    sys.exit(main())
