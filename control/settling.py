"""Whether a controller that has just started knows enough to change anything.

Relays come back within seconds, each in its time. Until those are here that the store knows of, or their time is over,
what is in force stays in force: no new tables, no new homes, and nobody is missed. `plane` asks before it decides.
"""

from __future__ import annotations

from collections.abc import Iterable

SETTLE_S = 16.0
"""A little more than a relay waits between two attempts (`relay.helm`)."""


class Settling:
    """The first seconds of one controller. `awaited` are relays that were part of the mesh when it last ran."""

    __slots__ = ("_awaited", "_followed", "_over", "_until")

    def __init__(self, awaited: Iterable[str], now: float, settle_s: float = SETTLE_S) -> None:
        self._awaited = set(awaited)
        self._followed = False
        self._over = False
        self._until = now + settle_s

    @property
    def missing(self) -> frozenset[str]:
        """Who has not come back."""
        return frozenset(self._awaited)

    @property
    def until(self) -> float:
        """When it is over whoever is missing."""
        return self._until

    def receive_hello(self, generation: int, ours: int = 0) -> None:
        """A relay is here. One that follows a later table than our last is of a mesh that ran before we began."""
        self._followed = self._followed or generation > ours

    def receive_report(self, relay: str) -> None:
        """A relay has told how it and its links are. After the last that was missing there is nobody to wait for."""
        if relay in self._awaited:
            self._awaited.discard(relay)
            self._over = not self._awaited

    def is_over(self, now: float) -> bool:
        """Whether things may be changed. A mesh that nobody knew before has nothing in force."""
        if not self._over and now >= self._until:
            self._over = True
        return self._over or not (self._awaited or self._followed)
