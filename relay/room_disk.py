"""EDGE: the rooms' store beside a node: one file, one thread, and results that wake a turn.

`relay.run` opens one where rooms are enabled, hands it what the node wants done after each turn, and is woken when
something is.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

import trio

from relay.node import Node
from relay.observe import DiskStatistics
from relay.rooms.effects import Outcome, Write, Written
from relay.rooms.rates import RoomSettings
from relay.rooms.store import Flush, RoomStore, StoreSettings, probe_flush

_log = logging.getLogger("relay")
MOST_WAITS = 10_000
"""Of writes, kept until somebody looks."""


class RoomDisk:
    """A relay's rooms on its disk."""

    def __init__(self, node: Node, path: Path, settings: StoreSettings, *, passing: bool = False) -> None:
        """Raises StoreError. Call in a trio task: the store's thread finds the way back by it.

        `passing`: the file's directory goes when the relay does.
        """
        self._passing = passing
        self._node = node
        self._path = path
        self._token = trio.lowlevel.current_trio_token()
        self._news: Callable[[], None] = lambda: None
        self._failed = False
        self._store = RoomStore(path, settings, self._wake)
        self._given: dict[tuple[tuple[bytes, ...], int], float] = {}
        self.write_waits_s: deque[float] = deque(maxlen=MOST_WAITS)
        """How long writes took, from giving them to the store to its answer, since the reader last emptied it."""

    def open(self, me: str, settings: RoomSettings, wall_now: float, news: Callable[[], None]) -> None:
        """Give the node what is stored, and measure the disk; `news` is called when results are there.

        A flush that is faster than any disk is the operator's to know: what is acknowledged then may not survive.
        Raises StoreError.
        """
        self._news = news
        stored = self._store.load()
        self._node.open_rooms(me, settings, stored, trio.current_time(), wall_now)
        probe = probe_flush(self._path.parent)
        level = logging.INFO if probe.verdict is Flush.REAL else logging.WARNING
        told = {
            "path": str(self._path), "rooms": len(stored), "flush_p50_us": round(probe.p50_s * 1e6),
            "flush_p99_us": round(probe.p99_s * 1e6), "flush": probe.verdict.value,
        }  # fmt: skip
        _log.log(level, "rooms are stored", extra=told)

    def give(self) -> None:
        """After a turn: what the node wants done."""
        work = self._node.take_store_work()
        if work:
            now = trio.current_time()
            self._given.update({(one.room, one.id): now for one in work if isinstance(one, Write)})
            self._store.submit(work)

    def take(self, wall_now: float) -> None:
        """Before a turn: what was done."""
        results = self._store.results()
        if not results:
            return
        failed = any(isinstance(result, Written) and result.outcome is Outcome.FAILED for result in results)
        if failed and not self._failed:
            self._failed = True
            _log.error(
                "rooms are stored no longer: nothing is ordered until a restart", extra={"path": str(self._path)}
            )
        now = trio.current_time()
        for result in results:
            if isinstance(result, Written):
                self.write_waits_s.append(now - self._given.pop((result.room, result.id)))
        self._node.receive_stored(results, now, wall_now)

    def statistics(self) -> DiskStatistics:
        """What there is on disk now."""
        sizes = [_size_bytes(Path(f"{self._path}{suffix}")) for suffix in ("", "-wal")]
        return DiskStatistics(sum(sizes), self._store.statistics().damaged)

    def close(self) -> None:
        """Do what is queued, then close the file. Blocks for that long."""
        self._store.close()
        if self._passing:
            shutil.rmtree(self._path.parent, ignore_errors=True)

    def _wake(self) -> None:
        """Called by the store's thread."""
        try:
            self._token.run_sync_soon(self._told, idempotent=True)
        except trio.RunFinishedError:
            # The relay has stopped; what is on disk is there.
            return

    def _told(self) -> None:
        self._news()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def passing_path() -> Path:
    """A file for one life of a relay that nobody will find again: its port is new each time."""
    return Path(tempfile.mkdtemp(prefix="tradewind-rooms-")) / "rooms.db"


def state_path(path: str | None, relay: str, port: int) -> Path:
    """Where the file is: `path`, or a place of this relay's own in the user's state directory, which is made."""
    if path:
        return Path(path)
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    directory = Path(state) / "tradewind" / (f"{relay}-{port}" if port else relay)
    directory.mkdir(parents=True, exist_ok=True)
    return directory / "rooms.db"
