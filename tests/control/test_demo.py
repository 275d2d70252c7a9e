"""The whole demo as processes, in short forms: a controller, a link and a relay that fail; a relay that is emptied.

What is asserted holds on a machine of any speed; how fast it all goes, `bench.mesh` measures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import verify_trace
from tests.relay.test_run import ROOT

pytestmark = pytest.mark.slow

SHOW = ("--headless", "--json", "--relays", "3", "--viewers", "4", "--viewers-in", "sin", "--rendition", "low")


def demo(tmp_path: Path, *flags: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Run it; returns the exit code, its figures and its trace, which must agree. Relays must have ended in order."""
    trace, pids, state = tmp_path / "trace.jsonl", tmp_path / "pids.json", tmp_path / "state"
    command = [sys.executable, "-m", "control.cli.main", "demo", *SHOW, "--state", str(state)]
    command += ["--trace", str(trace), "--pids", str(pids)]
    done = subprocess.run(
        [*command, *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stdout, done.stderr
    summary = tmp_path / "summary.json"
    summary.write_text(done.stdout)
    assert verify_trace.main([str(trace), str(summary)]) == 0
    assert {"hkg-1", "sin-1", "fra-1", "control", "publisher", "network", "talkers"} <= json.loads(
        pids.read_text()
    ).keys()
    for relay in ("hkg-1", "sin-1", "fra-1"):
        last = (state / f"{relay}.log").read_text().splitlines()[-1]
        assert "stopped" in last or any(flag.startswith(f"{relay}@") for flag in flags), last
    return done.returncode, json.loads(done.stdout), [json.loads(line) for line in trace.read_text().splitlines()]


def test_a_link_and_a_relay_fail_while_there_is_no_controller(tmp_path: Path) -> None:
    code, found, _ = demo(
        tmp_path, "--for", "19s", "--kill", "control@2s", "--loss", "hkg-1-sin-1=100%@5s+3s", "--kill", "sin-1@12s"
    )  # fmt: skip
    assert code == 0, found
    assert (found["viewers"], found["viewers_lost"], found["viewers_on_killed"]) == (4, 0, 4)
    assert found["media_on_faulted_link"] > 1000
    assert found["switch_ms_p99"] < 8000
    assert found["messages_acked"] > 20
    assert found["messages_missing"] == 0


def test_a_relay_is_emptied(tmp_path: Path) -> None:
    code, found, trace = demo(tmp_path, "--for", "14s", "--drain", "sin-1@3s")
    assert code == 0, found
    assert (found["viewers_lost"], found["gaps"], found["messages_missing"]) == (0, 0, 0)
    newest = {line["viewer"]: line["relay"] for line in trace if line["kind"] == "object"}
    assert len(newest) == 4
    assert "sin-1" not in newest.values()
    reasons = {line["reason"] for line in trace if line["kind"] == "change" and line["was"] == "sin-1"}
    assert reasons == {"goaway"}
