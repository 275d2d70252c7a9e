"""The benches themselves, at their smallest: that they run, count everything and say what they should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import fanout, idle_streams, longhaul, real_haul, turn
from bench.fanout import Cell, Run, summary
from bench.haul import Path as Way
from bench.load import Ticks
from bench.report import middle, tables, verdicts
from bench.rough_paths import Figure
from bench.targets import Target

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def made(us_per_packet: float, **more: object) -> Run:
    ticks = Ticks(objects_wanted=1, objects=1, packets=1000, cpu_s=us_per_packet / 1000, lags_s=[0.001])
    values = {name: getattr(summary(ticks), name) for name in Run.__slots__}
    return Run(**(values | more))


def test_medians_pass_over_void_runs() -> None:
    runs = [made(10), made(30), made(900, void=True), made(20)]
    assert middle(runs)["us_per_packet"] == pytest.approx(20)
    assert middle(runs[2:3])["us_per_packet"] == pytest.approx(900)


def test_floors() -> None:
    results = {
        Cell("cost", "datagrams", 100, "timer"): {"ours": [made(36)], "aioquic": [made(20)]},
        Cell("cost", "objects", 100, "timer"): {"ours": [made(22)], "aioquic": [made(20)]},
        Cell("latency", "datagram", 100, "timer"): {"ours": [made(9, latency_ms_p50=1.9, latency_ms_p99=11.0)]},
    }
    assert [verdict.passed for verdict in verdicts(results)] == [False, True, True, False]
    targets = [Target(name, name, "", "", True, ()) for name in ("ours", "aioquic")]
    results.popitem()
    text = tables(results, targets)
    assert "1.80" in text and "1.10" in text


def test_a_peer_that_is_missing_is_told(tmp_path: Path) -> None:
    nowhere = {"PATH": str(tmp_path), "HOME": str(tmp_path), "TRADEWIND_PEER_BIN": str(tmp_path)}
    found = run("bench.fanout", "--targets", "moq-relay", "--parts", "cost", "--subscribers", "1", **nowhere)
    assert found.returncode == 3
    assert "peer missing" in found.stdout


@pytest.mark.parametrize("load", ["datagrams", "objects"])
def test_a_turn_in_memory(load: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert turn.main(["--load", load, "--subscribers", "3", "--ticks", "2"]) == 0
    assert "us/packet" in capsys.readouterr().out


def test_idle_streams_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """So few streams and rounds say nothing about the ratio: all is open, and all arrived."""
    few = ("--streams", "20", "--viewers", "1", "--loads", "datagrams", "--rounds", "1", "--ticks", "1")
    assert idle_streams.main(few) in {0, 1}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:3] for line in lines[1:-1]] == [
        [viewers, kind] for viewers in ("1", "2") for kind in ("none", *idle_streams.KINDS)
    ]


@pytest.mark.parametrize(("cost_us", "code"), [(13.0, 0), (13.2, 1)])
def test_the_floor_of_idle_streams(cost_us: float, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_streams, "measure", lambda *_: {"none": 10.0, "waiting": cost_us, "unfinished": 9.0})
    assert idle_streams.main([]) == code


def test_an_interrupted_run_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.json"
    runs = iter([made(10), made(20)])

    def measure(*_: object) -> Run:
        try:
            return next(runs)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(fanout, "_measure", measure)
    monkeypatch.setattr(fanout, "pin_self", lambda _: False)
    monkeypatch.setattr(fanout, "_raise_priority", lambda: False)
    asked = ["--targets", "ours", "--parts", "cost", "--shapes", "datagrams", "--runs", "1", "--json", str(out)]
    with pytest.raises(KeyboardInterrupt):
        fanout.main([*asked, "--subscribers", "1,10,100"])
    document = json.loads(out.read_text())
    assert not document["finished"]
    assert [cell["subscribers"] for cell in document["cells"]] == [1, 10]
    runs = iter([made(40)])
    assert fanout.main([*asked, "--subscribers", "100"]) == 1
    document = json.loads(out.read_text())
    assert document["finished"]
    assert [cell["subscribers"] for cell in document["cells"]] == [100]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.slow
def test_fanout(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    found = run(
        *("bench.fanout", "--targets", "ours,aioquic", "--subscribers", "3", "--parts", "cost"),
        *("--runs", "1", "--seconds", "0.4", "--json", str(out)),
    )
    assert found.returncode in {0, 1, 4}, found.stderr
    document = json.loads(out.read_text())
    assert document["finished"]
    runs = [run for cell in document["cells"] for runs in cell["targets"].values() for run in runs]
    assert len(runs) == 4
    assert all(run["complete"] or run["void"] for run in runs), found.stdout + found.stderr
    assert all(run["us_per_packet"] > 0 and run["acks_per_packet"] > 0 for run in runs if not run["void"])


@pytest.mark.slow
def test_sessions(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    found = run("bench.sessions", "--sessions", "20", "--json", str(out))
    assert found.returncode in {0, 1}, found.stderr
    assert json.loads(out.read_text())["handshakes_per_cpu_s"] > 0


@pytest.mark.slow
def test_churn(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    found = run("bench.churn", "--minutes", "0.12", "--viewers", "4", "--json", str(out))
    assert found.returncode in {0, 1}, found.stderr
    document = json.loads(out.read_text())
    assert document["joined"] >= 4 and document["objects"] > 0 and not document["failed"]


def test_a_long_haul_at_its_smallest(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--loss", "0.5,1", "--mbit", "2", "--rtt", "50", "--warm-up", "1", "--seconds", "2"]
    assert longhaul.main(["--controllers", "rate,cubic", *small]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["rate", "0.5"], ["rate", "1"], ["cubic", "0.5"], ["cubic", "1"]]
    assert longhaul.main(["--scenarios", "--controllers", "rate", "--only", "first group, 1 %"]) == 0
    assert capsys.readouterr().out.startswith("first group, 1 %")


def test_a_floor_that_is_missed_is_told() -> None:
    row = longhaul.Row("rate", 0, 0.5, 0.1, 0.2, 0.1)
    assert len(row.missed(0.150)) == 3
    assert not longhaul.Row("cubic", 0, 0.5, 0.1, 0.2, 0.1).missed(0.150)
    assert longhaul.Row("rate", 2, 0.5, 0.1, 0.15, 0.1).missed(0.150) == []
    assert not Figure(0.79, least=0.8).holds


@pytest.mark.slow
def test_a_haul_over_real_udp() -> None:
    run = real_haul.measure(Way(rtt_s=0.04, rate_bit_per_s=2e6, queue_s=0.1), ["rate", "reno"], 0.5, 1.5)
    assert len(run.parts) == 2
    assert 0.3 < sum(run.parts) <= 1.1
    assert run.late_p99_s > 0
