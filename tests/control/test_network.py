"""The demo's network as a process: who seems to speak from where, and what is lost on the way."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from control.demo.world import relay_host, viewer_host
from tests.relay.test_mesh_processes import free_ports
from tests.relay.test_run import ROOT

SOON_S = 5.0


class Running:
    """The process, and two relays' sockets behind it (Hong Kong, Singapore)."""

    def __init__(self, stack: ExitStack) -> None:
        self.fronts = free_ports(2)
        self.relays = [stack.enter_context(udp(relay_host(0)))]
        port = self.relays[0].getsockname()[1]
        self.relays.append(stack.enter_context(udp(relay_host(1), port)))
        command = [sys.executable, "-m", "control.demo.network", "1", str(port), *map(str, self.fronts)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.said()["kind"] == "ready"

    def said(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found = json.loads(self.process.stdout.readline())
        assert isinstance(found, dict)
        return found

    def order(self, **what: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"order": 1, **what}) + "\n")
        self.process.stdin.flush()
        return self.said()


@contextmanager
def udp(host: str, port: int = 0) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((host, port))
        made.settimeout(SOON_S)
        yield made


@pytest.fixture
def network() -> Iterator[Running]:
    with ExitStack() as stack:
        running = Running(stack)
        try:
            yield running
        finally:
            assert running.process.stdin is not None
            running.process.stdin.close()
            assert running.process.wait(SOON_S) == 0
            assert running.process.stdout is not None
            running.process.stdout.close()


def test_relays_seem_to_speak_from_their_fronts_after_the_distance(network: Running) -> None:
    hkg, sin = network.relays
    began = time.perf_counter()
    hkg.sendto(b"hello", ("127.0.0.1", network.fronts[1]))
    assert sin.recvfrom(100) == (b"hello", ("127.0.0.1", network.fronts[0]))
    assert time.perf_counter() - began >= 0.0187
    sin.sendto(b"hello yourself", ("127.0.0.1", network.fronts[0]))
    assert hkg.recvfrom(100) == (b"hello yourself", ("127.0.0.1", network.fronts[1]))


def test_viewers_keep_their_address_and_each_has_a_port(network: Running) -> None:
    hkg = network.relays[0]
    with udp(viewer_host("fra", 3)) as one, udp(viewer_host("fra", 3)) as other:
        seen = []
        for viewer in (one, other):
            viewer.sendto(b"?", ("127.0.0.1", network.fronts[0]))
            seen.append(hkg.recvfrom(100)[1])
            hkg.sendto(b"!", seen[-1])
            assert viewer.recvfrom(100) == (b"!", ("127.0.0.1", network.fronts[0]))
    assert {host for host, _ in seen} == {viewer_host("fra", 3)}
    assert len(set(seen)) == 2


def test_those_whom_nobody_gave_an_address_are_where_it_is_told(network: Running) -> None:
    hkg = network.relays[0]

    def asks() -> float:
        with udp("127.0.0.1") as viewer:
            began = time.perf_counter()
            viewer.sendto(b"?", ("127.0.0.1", network.fronts[0]))
            hkg.recvfrom(100)
            return time.perf_counter() - began

    assert asks() >= 0.1551 / 2
    assert network.order(home="fra")["node"] == "fra"
    assert asks() >= 0.1938 / 2


def test_one_direction_can_be_silent_and_says_what_was_on_it(network: Running) -> None:
    hkg, sin = network.relays
    hkg.sendto(bytes(1000), ("127.0.0.1", network.fronts[1]))
    hkg.sendto(bytes(50), ("127.0.0.1", network.fronts[1]))
    assert len(sin.recvfrom(2000)[0]) == 1000
    assert len(sin.recvfrom(2000)[0]) == 50
    said = network.order(**{"from": "hkg-1", "to": "sin-1", "loss": 1.0})
    assert (said["what"], said["node"], said["to"], said["media_bytes"]) == ("loss", "hkg-1", "sin-1", 1000)
    hkg.sendto(b"lost", ("127.0.0.1", network.fronts[1]))
    sin.sendto(b"not lost", ("127.0.0.1", network.fronts[0]))
    assert hkg.recvfrom(100)[0] == b"not lost"
    assert network.order(**{"from": "hkg-1", "to": "sin-1", "loss": None})["what"] == "heal"
    hkg.sendto(b"well", ("127.0.0.1", network.fronts[1]))
    assert sin.recvfrom(100)[0] == b"well"


def test_what_viewers_sit_behind(network: Running) -> None:
    hkg = network.relays[0]
    with udp(viewer_host("hkg", 0)) as viewer:
        viewer.sendto(b"?", ("127.0.0.1", network.fronts[0]))
        source = hkg.recvfrom(100)[1]
        assert network.order(viewers=[None, 0.0, 0.1])["what"] == "link"
        began = time.perf_counter()
        hkg.sendto(b"!", source)
        assert viewer.recvfrom(100)[0] == b"!"
        assert time.perf_counter() - began >= 0.105
