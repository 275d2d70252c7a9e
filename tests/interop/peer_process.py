"""A peer as a process that says in JSON lines what it sees and takes orders on its standard input."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.interop.relay_process import ROOT

SPEAKS_WITHIN_S = 20.0
Words = dict[str, Any]


class PeerProcess:
    """One script of `tests/interop/peers`, running."""

    def __init__(self, script: str, *arguments: str) -> None:
        self.heard: list[Words] = []
        self._queue: queue.SimpleQueue[Words | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("peers") / script), *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, wanted: Callable[[Words], bool], within_s: float = SPEAKS_WITHIN_S) -> Words:
        """Read on until the peer says something that `wanted` accepts; everything read is kept in `heard`."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                words = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not within {within_s:g} s; heard {self.heard[-5:]}") from None
            assert words is not None, f"the peer ended; heard {self.heard[-5:]}"
            self.heard.append(words)
            if wanted(words):
                return words

    def order(self, word: str) -> None:
        """Give the peer one line to read."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def leave(self) -> None:
        """Close the peer's standard input, at which it says goodbye on the network and ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(SPEAKS_WITHIN_S)

    def kill(self) -> None:
        """End the peer without a word on the network, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                if line.startswith("{"):
                    self._queue.put(json.loads(line))
        except ValueError:
            pass  # closed under us at the end of the test
        self._queue.put(None)
