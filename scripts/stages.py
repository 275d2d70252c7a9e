"""Run the stages of `make check` or `make check-all`, and print what each took.

Every stage runs even where an earlier one failed, unless nothing can be said without it (installing). The last line is
pytest's own summary, so that whoever reads only that line reads the result; the exit code is 0 only where all passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BIN = ".venv/bin/"


class Stage(NamedTuple):
    name: str
    command: list[str]
    needed: bool = False
    """Nothing after it makes sense without it."""


STAGES = {
    "check": [
        Stage("install", ["scripts/install", "dev"], needed=True),
        Stage("lint", [BIN + "ruff", "check", "."]),
        Stage("format", [BIN + "ruff", "format", "--check", "."]),
        Stage("types", [BIN + "mypy"]),
        Stage("tests", [BIN + "python", "-m", "pytest", "-q", "--durations=10"]),
    ],
    "check-all": [
        Stage("install peers", ["scripts/install-peers"], needed=True),
        Stage("page tests", ["bash", "-c", 'PATH="$(scripts/node):$PATH" && cd web && npm test --silent']),
        Stage("all tests", [BIN + "python", "-m", "pytest", "-q", "--durations=20", "-m", ""]),
    ],
}


def main(argv: list[str]) -> int:
    """Run the named list of stages and return the exit code."""
    if len(argv) != 1 or argv[0] not in STAGES:
        print(f"usage: stages {'|'.join(STAGES)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    results: list[tuple[str, float, int]] = []
    last_line = ""
    for stage in STAGES[argv[0]]:
        print(f"\n== {stage.name}: {' '.join(stage.command)}", flush=True)
        started = time.monotonic()
        code, last_line = run(stage.command)
        results.append((stage.name, time.monotonic() - started, code))
        if code and stage.needed:
            break
    report(argv[0], results, time.monotonic() - began)
    print(last_line, flush=True)
    return int(any(code for _, _, code in results))


def run(command: list[str]) -> tuple[int, str]:
    """Run one command, passing its output on as it comes; return its exit code and its last line that said anything."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(ROOT / ".cache/tmp")}
    (ROOT / ".cache/tmp").mkdir(parents=True, exist_ok=True)
    try:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        print(error, flush=True)
        return 127, str(error)
    last_line = ""
    assert child.stdout is not None
    for line in child.stdout:
        text = line.decode(errors="replace").rstrip()
        print(text, flush=True)
        last_line = text or last_line
    return child.wait(), last_line


def report(name: str, results: list[tuple[str, float, int]], total_s: float) -> None:
    """Print one line a stage and the total."""
    print(f"\n== {name}")
    for stage, took_s, code in results:
        print(f"  {stage:<14} {took_s:7.1f} s  {'ok' if code == 0 else f'FAILED ({code})'}")
    print(f"  {'total':<14} {total_s:7.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
