"""A player that nobody here wrote, in headless Chromium, among the viewers of `bench.mesh death --player`.

It is one of the pages of `tests/browser`, placed as an integrator would place it, and looked at from within: which
relay it is sent to, and what its own clock of the picture says.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.browser.chromium import HERE, ROOT, Browser, Page, Site

PLAYERS = ("watch", "shaka")
LOOK_MS = 50
LINE_CHARACTERS = 120
"""Of what a page said: URLs with tokens in them are long, and nobody's business."""
NEW_S = 0.2
"""What is this much newer than the newest picture from one relay came from another one: less may have been buffered."""
_LOOK = """
globalThis.looks = [];
setInterval(() => {
  const time = globalThis.player?.currentTime();
  const relay = globalThis.placement?.relay?.id;
  if (time && relay) looks.push([Date.now() / 1000, relay, time]);
}, %d);
"""


class Missing(Exception):
    """No browser, or not what drives it; says how to install it."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the page showed at one moment."""

    at: float
    """`time.perf_counter` of this machine."""
    relay: str
    time_s: float
    """The picture's own clock."""


def check_installed() -> Path:
    """The node program. Raises Missing."""
    told = "scripts/install-peers installs it"
    if shutil.which("chromium") is None:
        raise Missing(f"Chromium; {told}")
    for package in (HERE / "node_modules/playwright-core", HERE / "node_modules/@moq/watch", ROOT / "web/node_modules"):
        if not package.exists():
            raise Missing(f"{package.relative_to(ROOT)}; {told}")
    found = subprocess.run([ROOT / "scripts/node"], capture_output=True, text=True, check=False)
    node = Path(found.stdout.strip()) / "node"
    if found.returncode or not node.exists():
        raise Missing(f"node; {told}")
    return node


class Player:
    """A tab that plays. All calls block."""

    def __init__(self, page: Page) -> None:
        self._page = page

    @property
    def relay(self) -> str:
        """Where it is sent to; empty: nowhere yet."""
        return str(self._page.evaluate("placement.relay?.id ?? ''"))

    @property
    def time_s(self) -> float:
        """The picture's own clock."""
        return float(self._page.evaluate("player.currentTime()"))

    def looks(self) -> list[Look]:
        """Everything that was seen of it."""
        offset = time.time() - time.perf_counter()
        return [Look(at - offset, relay, seen) for at, relay, seen in self._page.evaluate("looks")]

    def console(self, lines: int = 10) -> str:
        """The last that the page said."""
        return "\n".join(line[:LINE_CHARACTERS] for line in self._page.console()[-lines:])


@contextmanager
def open_player(kind: str, directory: Path, settings: dict[str, Any]) -> Iterator[Player]:
    """A player of this kind with a page of its own; `settings` as a viewer page has them. Raises Missing."""
    node = check_installed()
    subprocess.run([ROOT / "web/build"], check=True)
    _bundle(node, directory)
    site, browser = Site(directory), Browser(node)
    try:
        placed = settings["placement"]
        words = [("control", one) for one in placed["control"]]
        words += [("namespace", settings["namespace"]), ("token", placed["token"])]
        url = site.url(f"/players/placed_{kind}.html?{urlencode(words)}")
        with browser.open(url, init=_LOOK % LOOK_MS) as page:
            yield Player(page)
    finally:
        browser.close()
        site.close()


def first_elsewhere(looks: Sequence[Look], relay: str, at: float) -> float | None:
    """How long after `at` something was seen that this relay had not brought, in seconds; None: nothing was."""
    before = [look.time_s for look in looks if look.relay == relay or look.at <= at]
    newest = max(before, default=0.0)
    elsewhere = (look for look in looks if look.at > at and look.relay != relay and look.time_s > newest + NEW_S)
    return next((look.at - at for look in elsewhere), None)


def _bundle(node: Path, directory: Path) -> None:
    """The pages with what they import, as `tests/browser` makes them."""
    for file in (HERE / "players").iterdir():
        shutil.copy(file, directory)
    modules = HERE / "node_modules"
    shutil.copy(modules / "shaka-player/dist/shaka-player.experimental.js", directory / "shaka-player.js")
    command = [str(node), str(modules / "esbuild/bin/esbuild"), str(HERE / "players/placed_watch.js"), "--bundle"]
    command += ["--format=esm", "--target=es2022", "--log-level=error", f"--outdir={directory}", "--allow-overwrite"]
    subprocess.run(command, cwd=HERE, check=True)
