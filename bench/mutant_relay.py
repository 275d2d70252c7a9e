"""A relay with a fault put in, for `bench.rooms --mesh --mutant NAME`: whether the checker finds it in real processes.

    python -m bench.mutant_relay NAME FLAGS...      FLAGS as of `python -m relay`

Each mutant's disk takes its time, so that a kill finds something that is not stored yet; `slow-disk` has no other
fault, and nothing may be lost with it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from relay.__main__ import main as relay
from relay.rooms import room, store
from relay.rooms.effects import Answer, Write, Writer, Written
from relay.rooms.sequencer import Sequencer
from tradewind.contract.rooms import Ack, Publish

FLUSH_S = 0.2


class AcksBeforeItStores(Sequencer):
    """A home that acknowledges what it has only heard, with the place that it is going to give it."""

    __slots__ = ()

    def receive_publish(self, writer: Writer, user: bytes, message: Publish, now: float, wall_now: float) -> None:
        known = len(self._queue)
        super().receive_publish(writer, user, message, now, wall_now)
        if len(self._queue) > known:
            seq = self._log.records + len(self._batch) + known
            ack = Ack(message.key, self.entry.epoch, seq, False, 2, max(int(wall_now * 1000), 0))
            self._answers.append(Answer(writer, ack))


def slow_disk() -> None:
    """Every commit takes longer."""
    commit = store._Database.commit

    def late(database: Any, writes: Sequence[Write]) -> list[Written]:
        time.sleep(FLUSH_S)
        return commit(database, writes)

    setattr(store._Database, "commit", late)  # noqa: B010


def ack_before_store() -> None:
    """The fault that the checker is for."""
    slow_disk()
    setattr(room, "Sequencer", AcksBeforeItStores)  # noqa: B010


MUTANTS: dict[str, Callable[[], None]] = {"ack-before-store": ack_before_store, "slow-disk": slow_disk}


def main(arguments: Sequence[str]) -> int:
    """Put the fault in and run the relay; returns its exit code."""
    MUTANTS[arguments[0]]()
    return relay(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
