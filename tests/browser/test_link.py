"""The page behind a link that becomes narrow and wide again: it takes the smaller rendition, and the larger one."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Browser, Page
from tests.browser.watching import wait_until

pytestmark = pytest.mark.browser

NARROW_AT_S, WIDE_AT_S = 12, 18
DOWN_WITHIN_S, UP_WITHIN_S = 1.0, 10.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Demo:
    """`tradewind demo` with a link that changes, and when it said so (wall seconds)."""

    process: subprocess.Popen[str]
    url: str = ""
    changes: list[tuple[float, str]] = field(default_factory=list)
    _lines: queue.Queue[tuple[float, str]] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put((time.time(), line.strip()))

    def wait_for(self, wanted: str, within_s: float = 30) -> tuple[float, str]:
        """When it said a line that holds `wanted`, and the line."""
        while True:
            at, line = self._lines.get(timeout=within_s)
            if wanted in line:
                return at, line


@pytest.fixture
def demo() -> Iterator[Demo]:
    command = [
        sys.executable, "-m", "control.cli.main", "demo", "--relays", "1", "--viewers", "0",
        "--viewer-link", f"250kbit,2%,20ms@{NARROW_AT_S}", "--viewer-link", f"@{WIDE_AT_S}",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        show = Demo(process)
        try:
            _, line = show.wait_for("ready:")
            show.url = line.split("open ")[1]
            yield show
        finally:
            process.terminate()
            process.wait(15)


def test_follows_the_link(chromium: Browser, demo: Demo) -> None:
    with chromium.open(demo.url) as page:
        wait_until(page, "tradewind.snapshot()", lambda seen: seen["state"] == "live", within_s=NARROW_AT_S)
        narrow_at, _ = demo.wait_for("link: 250 kbit/s")
        down_at = switch(page, to="video-180p", after=narrow_at)
        wide_at, _ = demo.wait_for("link: as fast")
        up_at = switch(page, to="video-360p", after=wide_at)
    assert down_at - narrow_at <= DOWN_WITHIN_S
    assert up_at - wide_at <= UP_WITHIN_S


def switch(page: Page, to: str, after: float) -> float:
    """When (wall seconds) the page first switched to a rendition after a moment."""

    def switched(seen: dict[str, Any]) -> list[float]:
        return [
            event["wall"] / 1000
            for event in seen["events"]
            if event["type"] == "switch" and event["to"] == to and event["wall"] / 1000 > after
        ]

    seen = wait_until(page, "tradewind.snapshot()", lambda seen: bool(switched(seen)), within_s=UP_WITHIN_S + 2)
    return switched(seen)[0]
