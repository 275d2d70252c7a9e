"""Placed viewers between relays as processes, in one mesh with one publisher: one is killed, one leaves in order."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.relay.test_mesh_processes import CLIP, free_ports, start, tool
from tests.relay.test_run import ROOT, WAIT_S, Running

pytestmark = pytest.mark.slow

ORIGIN, FIRST, SECOND = "fra-1", "hkg-1", "sin-1"
VIEWERS = 3
PLAYS_ELSEWHERE_WITHIN_S = 3.0


@dataclass
class Show:
    """An origin with a publisher, two relays that viewers are sent to, and what viewers wrote."""

    relays: dict[str, Running]
    trace: Path
    viewers: subprocess.Popen[bytes]
    count: int
    lines: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> list[dict[str, Any]]:
        whole = self.trace.read_bytes().rpartition(b"\n")[0]
        self.lines = [json.loads(line) for line in whole.splitlines()]
        return self.lines

    def objects(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        found = defaultdict(list)
        for line in self.read():
            if line["kind"] == "object":
                found[line["viewer"], line["track"]].append(line)
        return found

    def until(self, found: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not found():
            assert time.monotonic() < deadline, self.lines[-5:]
            time.sleep(0.1)

    def play_at(self, relay: str, count: int) -> bool:
        """Whether every viewer had so many objects of the picture there."""
        pictures = [lines for (_, track), lines in self.objects().items() if track.startswith("video")]
        had = [sum(line["relay"] == relay for line in lines) for lines in pictures]
        return len(had) == self.count and min(had) >= count

    def check_whole(self) -> None:
        """Every object came once, and none is missing between two that came. Groups count up by one."""
        for (viewer, track), lines in self.objects().items():
            places = [(line["group"], line["object"]) for line in lines]
            assert len(places) == len(set(places)), f"{viewer} had {track} twice"
            for (group, number), following in pairwise(sorted(places)):
                assert following in ((group, number + 1), (group + 1, 0)), f"{viewer} misses {track} after {group}"


@contextmanager
def open_show(directory: Path, count: int) -> Iterator[Show]:
    """Start everything; so many viewers, in one process, are all sent to the first of the two relays."""
    names = (ORIGIN, FIRST, SECOND)
    ports = dict(zip(names, free_ports(3), strict=True))

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = [{"id": name, "uri": f"https://127.0.0.1:{ports[name]}/"} for name in names[1:]]
            body = json.dumps({"version": 1, "ttl": 30, "candidates": listed, "probe": {"n": 2}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:
            pass

    with ExitStack() as stack:
        relays = {name: start(directory, name, ports) for name in names}
        for relay in relays.values():
            stack.callback(end, relay.process)
        for relay in relays.values():
            relay.ready()
        url = f"moqt://127.0.0.1:{ports[ORIGIN]}/"
        publisher = tool("publish", str(CLIP), "--loop", "--insecure", "--to", url, "--namespace", "live/demo")
        stack.callback(end, publisher)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        flags = ["--control", f"http://127.0.0.1:{server.server_address[1]}", "--namespace", "live/demo"]
        flags += ["--viewers", str(count), "--source", "127.10.2.1", "--rendition", "low", "--spread", "500ms"]
        with (directory / "trace").open("wb") as trace:
            viewers = subprocess.Popen(
                [sys.executable, "-P", "-m", "control.demo.viewing", *flags],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=trace,
            )
        stack.callback(end, viewers)
        made = Show(relays, directory / "trace", viewers, count)
        made.until(lambda: made.play_at(FIRST, 60))
        yield made


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Show]:
    with open_show(tmp_path, VIEWERS) as made:
        yield made
        made.viewers.send_signal(signal.SIGTERM)
        assert made.viewers.wait(WAIT_S) == 0
        states = [(line["viewer"], line["state"]) for line in made.read() if line["kind"] == "change"]
        assert {viewer for viewer, state in states if state == "closed"} == {f"viewer-{n + 1}" for n in range(VIEWERS)}
        made.check_whole()


def end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def test_the_relay_of_three_viewers_is_killed(show: Show) -> None:
    killed_at = time.perf_counter()
    show.relays[FIRST].process.kill()
    show.until(lambda: show.play_at(SECOND, 60))
    for (viewer, track), lines in show.objects().items():
        after = min(line["received"] for line in lines if line["relay"] == SECOND) - killed_at
        assert 0 < after < PLAYS_ELSEWHERE_WITHIN_S, f"{viewer} had {track} again after {after:.2f} s"


def test_the_relay_of_three_viewers_leaves(show: Show) -> None:
    show.relays[FIRST].process.terminate()
    show.until(lambda: show.play_at(SECOND, 60))
    assert {line["reason"] for line in show.lines if line["kind"] == "change"} == {"first", "goaway"}
    assert show.relays[FIRST].process.wait(WAIT_S) == 0
