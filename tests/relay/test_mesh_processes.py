"""Relays as processes, over real UDP: a show from one to another, around a dead one, and a stranger at the door."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.relay.test_run import ROOT, Running
from tests.sim import pki

pytestmark = pytest.mark.slow

CLIP = ROOT / "control/demo/clip-180p.mp4"
NAMES = ("fra-1", "hkg-1", "sin-1")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start(tmp_path: Path, name: str, ports: dict[str, int], mesh: str = "shop") -> Running:
    directory = tmp_path / name
    others = ",".join(f"{other}=127.0.0.1:{port}" for other, port in ports.items() if other != name)
    identity = pki.write_files(directory, mesh, name)
    here = f"127.0.0.1:{ports[name]}"
    where = ("--listen", here, "--mesh.public_uri", f"https://{here}", "--mesh.neighbours", others)
    return Running(directory, "--dev", "--mesh.name", mesh, *where, "--log-level", "info", *identity)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[tuple[dict[str, Running], dict[str, int]]]:
    ports = dict(zip(NAMES, free_ports(3), strict=True))
    relays = {name: start(tmp_path, name, ports) for name in NAMES}
    try:
        for relay in relays.values():
            relay.ready()
        yield relays, ports
    finally:
        for relay in relays.values():
            relay.process.kill()
            relay.process.wait()


def tool(*words: str) -> subprocess.Popen[str]:
    code = "from control.cli.main import main; raise SystemExit(main())"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def watch(port: int, for_s: int) -> subprocess.Popen[str]:
    url = f"moqt://127.0.0.1:{port}/"
    return tool("subscribe", url, "--insecure", "--namespace", "live/demo", "--wait", "10s", "--for", f"{for_s}s")


def frames(said: str) -> int:
    """How many frames a viewer had; it must have missed none.

    Who joins behind the last frame of a group is not told that it was the last, and counts that as one gap.
    """
    last = said.strip().splitlines()[-1]
    assert " 0 gaps, 0 broken objects" in last or " 1 gaps, 0 broken objects" in last, said
    return int(last.split()[0])


def test_a_show_on_another_relay_and_around_a_dead_one(mesh: tuple[dict[str, Running], dict[str, int]]) -> None:
    relays, ports = mesh
    home = f"moqt://127.0.0.1:{ports['hkg-1']}/"
    publisher = tool("publish", str(CLIP), "--loop", "--insecure", "--to", home, "--namespace", "live/demo")
    try:
        first = watch(ports["fra-1"], 4)
        assert frames(first.communicate(timeout=60)[0]) > 100
        second = watch(ports["fra-1"], 6)
        time.sleep(3.0)
        relays["sin-1"].process.send_signal(signal.SIGKILL)
        assert frames(second.communicate(timeout=60)[0]) > 150
    finally:
        publisher.kill()
        publisher.communicate()


def test_a_stranger_is_not_let_in(tmp_path: Path) -> None:
    ports = dict(zip(NAMES[:2], free_ports(2), strict=True))
    one = start(tmp_path, "fra-1", ports)
    other = start(tmp_path, "hkg-1", ports, mesh="other")
    try:
        one.ready(), other.ready()
        home = f"moqt://127.0.0.1:{ports['fra-1']}/"
        publisher = tool("publish", str(CLIP), "--loop", "--insecure", "--to", home, "--namespace", "live/demo")
        time.sleep(2.0)
        url = f"moqt://127.0.0.1:{ports['hkg-1']}/"
        viewer = tool("subscribe", url, "--insecure", "--namespace", "live/demo", "--wait", "1s", "--for", "9s")
        said = viewer.communicate(timeout=60)[0]
        publisher.kill()
        publisher.communicate()
        assert "ready" not in said
    finally:
        for relay in (one, other):
            relay.process.kill()
            relay.process.wait()
