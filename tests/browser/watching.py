"""Looks at a playing page for a while and says how it went."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.browser.chromium import Page

LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Watched:
    """What a page showed between two looks."""

    seconds: float
    media_seconds: float
    picture_changes: int
    longest_still_s: float


def watch(page: Page, seconds: float) -> Watched:
    """Look at a player's page for so long."""
    page.evaluate("probeAnew()")
    first = page.evaluate("probe()")
    time.sleep(seconds)
    last = page.evaluate("probe()")
    still_ms = max(last["longestStillMs"], last["sinceChangeMs"] or 0.0)
    return Watched(
        (last["at"] - first["at"]) / 1000,
        last["currentTime"] - first["currentTime"],
        last["changes"],
        still_ms / 1000,
    )


def wait_until(page: Page, expression: str, wanted: Callable[[Any], bool], within_s: float) -> Any:
    """Ask a page again and again until its answer is as wanted; return that answer."""
    deadline = time.monotonic() + within_s
    while True:
        value = page.evaluate(expression)
        if wanted(value):
            return value
        if time.monotonic() > deadline:
            said = "\n".join(page.console()[-25:])
            raise AssertionError(f"{expression} was {value!r} after {within_s:g} s; the page's console:\n{said}")
        time.sleep(LOOK_EVERY_S)
