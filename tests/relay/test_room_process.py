"""Rooms of a relay as a process, on a real disk: killed in the middle, started again, and nobody was lied to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.check_rooms import check, gather

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 60.0
TOOL = "from control.cli.main import main; main()"

pytestmark = pytest.mark.slow


def start(directory: Path, port: int) -> tuple[subprocess.Popen[bytes], int]:
    """A relay with its rooms in a directory, and the port where it is."""
    log = directory / f"relay-{time.monotonic_ns()}.log"
    rooms = ("--rooms.path", str(directory / "rooms.db"), "--rooms.messages_per_s_per_writer", "1000")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "relay", "--dev", "--listen", f"127.0.0.1:{port}", "--ops", "off", *rooms],
            cwd=directory, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out, stderr=out,
        )  # fmt: skip
    deadline = time.monotonic() + WAIT_S
    while "ready: " not in (said := log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, said
        time.sleep(0.02)
    return process, int(said.partition("udp 127.0.0.1:")[2].partition(",")[0])


def tool(port: int, out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    verb, *rest = arguments
    relay = (f"moqt://127.0.0.1:{port}/", "--insecure", "--room", "app/r/show")
    with out.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", TOOL, "room", verb, *relay, *rest],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=file,
        )  # fmt: skip


def test_a_relay_that_is_killed_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    relay, port = start(tmp_path, 0)
    started = [relay]
    try:
        reading = tool(port, tmp_path / "read.jsonl", "read", "--no-bodies")
        started.append(reading)
        names = ("ann", "bob")
        writing = [
            tool(port, tmp_path / f"{name}.jsonl", "write", "--user", name, "--count", "150", "--rate", "50")
            for name in names
        ]
        started += writing
        deadline = time.monotonic() + WAIT_S
        while (tmp_path / "ann.jsonl").read_text().count("acked") < 50:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        relay.send_signal(signal.SIGKILL)
        relay.wait()
        relay, port = start(tmp_path, port)
        started.append(relay)
        for process in writing:
            assert process.wait(WAIT_S) == 0
        last = tool(port, tmp_path / "log.jsonl", "read", "--no-bodies", "--log", "--idle", "1500ms")
        started.append(last)
        assert last.wait(WAIT_S) == 0
        deadline = time.monotonic() + WAIT_S
        while (tmp_path / "read.jsonl").read_text().count("\n") < (tmp_path / "log.jsonl").read_text().count("\n"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        reading.send_signal(signal.SIGINT)
        reading.wait(WAIT_S)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    found = [line for file in sorted(tmp_path.glob("*.jsonl")) for line in file.read_text().splitlines()]
    report = check(gather(found))
    assert dict(report.faults) == {}
    assert report.counts["log"] == report.counts["acked"] == 300
