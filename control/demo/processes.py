"""EDGE: the demo's processes: started, heard, asked to end; each one's standard error in a file of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from control.cli.main import relay_environment

STARTS_WITHIN_S = 30.0
STOPS_WITHIN_S = 8.0
DRAINS_FOR_S = 1.0
"""How long a relay that is asked to end may take to empty itself; asked again it ends at once. Whole meshes end here,
and relays that read from each other would wait for one another."""
READ_BYTES = 65_536
MAX_LINE_BYTES = 65_536


class ShowError(Exception):
    """The show cannot go on; says why in one line."""


@dataclass(slots=True)
class Program:
    """One process of the show. `hear` gets each line that it writes."""

    name: str
    module: str
    arguments: tuple[str, ...]
    log: Path
    hear: Callable[[bytes], None]
    process: trio.Process | None = None
    ended_at: float | None = None
    """When it was seen to be gone (`time.perf_counter`)."""
    _first: trio.Event = field(default_factory=trio.Event)

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self, nursery: trio.Nursery, ended: Callable[[Program], None] | None = None) -> None:
        """Start it and go on once it has said something; `ended` is told when it is gone. Raises ShowError."""
        self._first, self.ended_at = trio.Event(), None
        with self.log.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                # -P: a folder with a name such as ours where somebody happens to stand is not ours.
                [sys.executable, "-P", "-m", self.module, *self.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=relay_environment(),
                start_new_session=True,
            )
        nursery.start_soon(self._listen, self.process)
        nursery.start_soon(self._await_end, self.process, ended)
        with trio.move_on_after(STARTS_WITHIN_S):
            await self._first.wait()
        if not self._first.is_set() or not self.is_alive:
            raise ShowError(f"{self.name} did not start: {self.last_words()}")

    async def order(self, what: dict[str, Any]) -> None:
        """Write one JSON line to it."""
        assert self.process is not None
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps(what).encode() + b"\n")

    def kill(self) -> float:
        """SIGKILL; returns when."""
        assert self.process is not None
        now = time.perf_counter()
        self.process.send_signal(signal.SIGKILL)
        return now

    def ask_to_end(self) -> None:
        if self.is_alive:
            assert self.process is not None
            self.process.terminate()

    async def stop(self) -> None:
        """End it in order, and after a while without."""
        if not self.is_alive:
            return
        self.ask_to_end()
        assert self.process is not None
        if self.process.stdin is not None:
            await self.process.stdin.aclose()
        if self.module == "relay":
            with trio.move_on_after(DRAINS_FOR_S):
                await self.process.wait()
            self.ask_to_end()
        with trio.move_on_after(STOPS_WITHIN_S):
            await self.process.wait()
            return
        self.process.kill()
        await self.process.wait()

    def last_words(self) -> str:
        """What it wrote last to its log, in one line."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "it said nothing"

    async def _await_end(self, process: trio.Process, ended: Callable[[Program], None] | None) -> None:
        await process.wait()
        self.ended_at = time.perf_counter()
        self._first.set()
        if ended is not None:
            ended(self)

    async def _listen(self, process: trio.Process) -> None:
        assert process.stdout is not None
        rest = b""
        while data := await process.stdout.receive_some(READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.hear(line)
            rest = rest[:MAX_LINE_BYTES]
            self._first.set()


async def stop_all(programs: Sequence[Program]) -> None:
    """End all of them at once."""
    async with trio.open_nursery() as nursery:
        for program in programs:
            nursery.start_soon(program.stop)
