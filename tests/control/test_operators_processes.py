"""From the command line to relays and back: a show over three relays is seen and traced, and a viewer ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.relay.test_mesh_processes import CLIP, free_ports
from tests.relay.test_run import ROOT

pytestmark = pytest.mark.slow

REGIONS = {"fra-1": "eu", "hkg-1": "asia", "sin-1": "asia"}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
WAIT_S = 30.0


class Town:
    """A controller and relays as processes, with papers that the command line made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[subprocess.Popen[bytes]] = []
        self.ports = dict(zip((*REGIONS, "control"), free_ports(len(REGIONS) + 1), strict=True))
        # A TCP port that was free for UDP is as good as any.
        self.ops = free_ports(1)[0]
        self.tool("cert", "ca", "--mesh", "demo", "-o", "ca")
        for id, region in (*REGIONS.items(), ("main", "eu")):
            role = "controller" if id == "main" else "relay"
            issued = ("--role", role, "--id", id, "--region", region, "--name", "127.0.0.1")
            self.tool("cert", "issue", "--ca", "ca", *issued, "-o", id)
        self.tool("token", "key", "--id", "ops", "--out", "ops.jwk", "--public", "ops.pub.jwk")
        self.tokens = {
            role: self.tool("token", "operator", "--key", "ops.jwk", "--role", role, "--name", role).stdout.strip()
            for role in ("viewer", "operator", "admin")
        }

    def start(self) -> None:
        here = ("--listen", f"127.0.0.1:{self.ports['control']}", "--ops", f"127.0.0.1:{self.ops}")
        papers = ("--ca", "ca/ca.crt", "--cert", "main/main.crt", "--key", "main/main.key")
        self.run("control", *here, *papers, "--state", "state.db", "--operator-key", "ops.pub.jwk")
        for id in REGIONS:
            address = f"127.0.0.1:{self.ports[id]}"
            papers = ("--mesh.ca", "ca/ca.crt", "--mesh.cert", f"{id}/{id}.crt", "--mesh.key", f"{id}/{id}.key")
            mesh = ("--mesh.name", "demo", "--mesh.public_uri", f"https://{address}", "--mesh.state", f"{id}/state")
            control = ("--mesh.controllers", f"127.0.0.1:{self.ports['control']}", "--node.state", f"{id}/state")
            plain = ("--dev", "--ops", "off", "--rooms.enabled=false", "--log-level", "info")
            self.run("relay", "--listen", address, *plain, *papers, *mesh, *control, log=f"{id}.log")

    def run(self, *words: str, log: str = "other.log") -> subprocess.Popen[bytes]:
        with (self.directory / log).open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *words], cwd=self.directory, env=ENVIRONMENT, stdout=file, stderr=file
            )
        self.running.append(process)
        return process

    def tool(self, *words: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "control.cli.main", *words]
        done = subprocess.run(
            command, cwd=self.directory, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
        )
        assert fails or not done.returncode, done.stderr
        return done

    def ask(self, *words: str, role: str = "viewer") -> Any:
        where = ("--controller", f"http://127.0.0.1:{self.ops}", "--token", self.tokens[role], "-o", "json")
        done = self.tool(*words, *where, fails=True)
        return json.loads(done.stdout) if done.stdout else done

    def url(self, id: str) -> str:
        return f"moqt://127.0.0.1:{self.ports[id]}/"

    def until(self, found: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + WAIT_S
        while not (value := found()):
            assert time.monotonic() < deadline, (self.directory / "other.log").read_text()
            time.sleep(0.3)
        return value


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path)
    try:
        made.start()
        yield made
    finally:
        for process in made.running:
            process.kill()
            process.wait()


def test_a_show_is_seen_and_a_viewer_is_ended(town: Town) -> None:
    def alive() -> bool:
        found = town.ask("node", "ls")
        return isinstance(found, list) and [node["stage"] for node in found] == ["serving"] * 3

    town.until(alive)
    publish = ("publish", str(CLIP), "--loop", "--insecure", "--to", town.url("hkg-1"), "--namespace", "live/demo")
    town.run("control.cli.main", *publish)
    for id in ("fra-1", "fra-1", "sin-1"):
        watch = ("subscribe", town.url(id), "--insecure", "--namespace", "live/demo", "--wait", "20s", "--for", "90s")
        town.run("control.cli.main", *watch)

    def counted() -> dict[str, tuple[str, int]]:
        rows = town.ask("stream", "ls", "--namespace", "live/demo")["streams"]
        return {row["relay"]: (row["source"], row["subscribers"]) for row in rows if row["bytes_per_s"] > 5000}

    wanted = {"fra-1": ("hkg-1", 2), "hkg-1": ("publisher", 0), "sin-1": ("hkg-1", 1)}
    town.until(lambda: counted() == wanted)
    (origin,) = town.ask("stream", "trace", "live/demo")["origins"]
    assert origin["relay"] == "hkg-1" and {taker["relay"] for taker in origin["takers"]} == {"fra-1", "sin-1"}
    assert all(taker["link"]["usable"] for taker in origin["takers"])
    found = town.ask("session", "ls", "--node", "fra-1", "--namespace", "live/demo")["sessions"]
    viewer = next(one["session"] for one in found if one["neighbour"] is None)
    refused = town.ask("session", "kick", viewer)
    assert refused.returncode == 3 and "takes operator" in refused.stderr
    assert town.ask("session", "kick", viewer, "--reason", "spam", role="operator")["progress"] == "done"
    left = [one["session"] for one in town.ask("session", "ls", "--node", "fra-1")["sessions"]]
    assert viewer not in left
    number = int(viewer.partition("/")[2])
    log = [json.loads(line) for line in (town.directory / "fra-1.log").read_text().splitlines() if line[:1] == "{"]
    (ended,) = [line for line in log if line["event"] == "session ended" and line.get("session") == number]
    assert (ended["code"], ended["reason"], ended["by"]) == (2, "ended by an operator: spam", "relay")
    audit = town.ask("audit", role="admin")
    assert [(line["who"], line["target"], line["result"]) for line in audit] == [
        ("operator", viewer, "ordered: spam"),
        ("operator", viewer, "done"),
    ]
    document = town.ask("top")
    assert document["totals"]["nodes"] == 3 and {node["id"] for node in document["nodes"]} == REGIONS.keys()
    assert town.ask("place", "live/demo", "--from", "DE")["relays"][0]["verdict"] == "chosen"
