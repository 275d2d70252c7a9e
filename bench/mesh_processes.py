"""A mesh of processes on loopback: relays, each in a region of its own, and one controller, to be killed and started.

`bench.rooms_mesh` uses it. Everything is in one directory: papers made now as the demo makes them, each node's state
and its log. A node that is started again keeps its port, its papers and what is on its disk.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

from control.demo.papers import Identities, identity_flags
from tradewind.contract.ids import Role

ROOT = Path(__file__).resolve().parent.parent
MESH = "bench"
READY_S = 30.0
_POLL_S = 0.02
_RELAY = ("relay",)


class StartError(Exception):
    """A process did not come up; what it said."""


class Node:
    """One process of the mesh. `start` it, `kill` it, and start it again."""

    def __init__(self, directory: Path, module: Sequence[str], flags: Sequence[str]) -> None:
        self.directory = directory
        self.flags = (*module, *flags)
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """A process of its own; `wait_ready` says when it is there."""
        self.starts += 1
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", *self.flags],
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_ready(self) -> None:
        """Until it says that it is ready. Raises StartError."""
        deadline = time.monotonic() + READY_S
        while not re.search(r"^ready: ", said := self.log.read_text(), re.MULTILINE):
            if not self.is_alive or time.monotonic() >= deadline:
                raise StartError(f"{self.directory.name}: {said[-2000:]}")
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """SIGKILL, without a word to anybody."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def state(self) -> Any:
        """What a relay shows to operators. Blocks."""
        found = re.search(r"^ready: .* ops (http://\S+?),", self.log.read_text(), re.MULTILINE)
        assert found is not None
        with urlopen(f"{found[1]}/state", timeout=READY_S) as answer:
            return json.load(answer)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """What its newest life has said."""
        return self.directory / f"log-{self.starts}"


class Mesh:
    """Relays by id, one in each region, and a controller. Use it as a context: what runs at its end is killed."""

    def __init__(
        self, directory: Path, regions: Mapping[str, str], rooms: Sequence[str], *, module: Sequence[str] = _RELAY,
        flags: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`regions` gives each relay's; `rooms` exist from the start; `module` is what a relay's process runs."""
        self.directory = directory
        names = [*regions, "control"]
        self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
        identities = Identities(MESH, time.time())
        control = f"127.0.0.1:{self._ports['control']}"
        where = ("--listen", control, "--ops", "off", "--state", "control.sqlite", "--control.rooms", ",".join(rooms))
        home = self._home("control")
        identities.write(home, Role.CONTROLLER, "eu", "main")
        self.controller = Node(home, ("control",), (*where, *identity_flags(Path(), "--")))
        self.relays = {}
        for name, region in regions.items():
            home, here = self._home(name), f"127.0.0.1:{self._ports[name]}"
            settings = [
                *("--dev", "--ops", "127.0.0.1:0", "--listen", here, "--mesh.public_uri", f"https://{here}"),
                *("--mesh.name", MESH, "--mesh.controllers", control, "--mesh.state", "state"),
                *("--node.state", "state", "--rooms.path", "rooms.db", "--log-level", "info"),
            ]
            identities.write(home, Role.RELAY, region, name)
            settings += identity_flags(Path())
            self.relays[name] = Node(home, module, (*settings, *flags))

    def __enter__(self) -> Self:
        nodes = (self.controller, *self.relays.values())
        try:
            for node in nodes:
                node.start()
            for node in nodes:
                node.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in (self.controller, *self.relays.values()):
            node.kill()

    def url(self, relay: str) -> str:
        """Where clients reach a relay."""
        return f"moqt://127.0.0.1:{self._ports[relay]}/"

    def _home(self, name: str) -> Path:
        directory = self.directory / name
        (directory / "state").mkdir(parents=True)
        return directory


def _free_ports(count: int) -> list[int]:
    """Ports that are free for UDP and for TCP: a relay answers HTTP on the port of its QUIC."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            udp.bind(("127.0.0.1", 0))
            with suppress(OSError):
                tcp.bind(udp.getsockname())
                found.append(udp.getsockname()[1])
    return found
