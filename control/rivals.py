"""Relays that come with the name of one that is here: held until that one has said something, or has not.

A relay that was killed and started again is back before anybody has missed it, and two relays with one certificate
look the same. So the one that is here is asked: where it answers the newcomer is refused, where it stays silent the
newcomer takes its place. Two that live never take turns. `plane` asks, and does what comes of it.
"""

from __future__ import annotations

from typing import NamedTuple

from tradewind.contract.messages import Hello

RIVAL_S = 1.0
"""How long the one that is here has to say something: round trips, a lost packet, or its next report."""


class Rival(NamedTuple):
    """A newcomer that is held."""

    link: int
    relay: str
    hello: Hello
    until: float


class Rivals:
    """At most one newcomer for each relay."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, Rival] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, link: int, relay: str, hello: Hello, now: float) -> bool:
        """Hold a newcomer; False: another one is held already."""
        if relay in self._held:
            return False
        self._held[relay] = Rival(link, relay, hello, now + RIVAL_S)
        return True

    def receive_word(self, relay: str) -> Rival | None:
        """The one that is here has said something; returns who is refused for it."""
        return self._held.pop(relay, None) if self._held else None

    def receive_closed(self, link: int) -> None:
        """A link is gone, of a newcomer perhaps."""
        for rival in [rival for rival in self._held.values() if rival.link == link]:
            del self._held[rival.relay]

    def take_due(self, now: float) -> tuple[Rival, ...]:
        """Newcomers whose predecessor had its time to speak."""
        due = tuple(rival for rival in self._held.values() if rival.until <= now)
        for rival in due:
            del self._held[rival.relay]
        return due

    def next_deadline(self) -> float | None:
        """When `take_due` has somebody."""
        return min((rival.until for rival in self._held.values()), default=None)
