"""Overrides: where relays go another way than their route tables say, as they report it, and what the log hears of it.

`plane` hands in every report's; `views` and `metrics` read what there is now. The log gets a line where one begins and
one where it is over. A bad link turns many origins at once: what has one cause in one report is one line, and a relay
that has much to tell is cut short, with a count of what was left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from tradewind.contract.messages import Override

BEGUN, OVER = "override", "override_over"
KINDS = (BEGUN, OVER)
"""Of events."""
MOST_LINES = 10.0
"""Of one relay at once."""
LINES_PER_S = 0.2


class Line(NamedTuple):
    """What the log is told."""

    kind: str
    origin: str
    """Of the first that it is about."""
    detail: str


class _Way(NamedTuple):
    """What one override is: the same with another cause is no other."""

    origin: str
    instead_of: str
    next_hop: str


@dataclass(slots=True)
class _Relay:
    """What one relay said last."""

    overrides: tuple[Override, ...] = ()
    since: dict[_Way, float] = field(default_factory=dict)
    """When each was first heard of, by our clock."""
    allowance: float = MOST_LINES
    allowed_at: float = 0.0
    untold: int = 0
    """Beginnings and ends that the log was not told of."""


class Overrides:
    """Everybody's."""

    __slots__ = ("_relays",)

    def __init__(self) -> None:
        self._relays: dict[str, _Relay] = {}

    def receive(self, relay: str, overrides: tuple[Override, ...], now: float) -> tuple[Line, ...]:
        """A relay's report; returns what the log is to be told."""
        known = self._relays.get(relay)
        if known is None:
            if not overrides:
                return ()
            known = self._relays[relay] = _Relay(allowed_at=now)
        if known.overrides == overrides:
            return ()
        there = {_way(one): one for one in overrides}
        begun = [(way, one.cause) for way, one in there.items() if way not in known.since]
        over = [(way, "") for way in known.since if way not in there]
        lines = [
            *(_line(BEGUN, group) for group in _together(begun)),
            *(_line(OVER, group, now - min(known.since[way] for way, _ in group)) for group in _together(over)),
        ]
        known.overrides = overrides
        known.since = {way: known.since.get(way, now) for way in there}
        return tuple(_allowed(known, lines, now))

    def forget(self, relay: str) -> None:
        """A relay is gone: what it did is over, which the log is told with its end."""
        self._relays.pop(relay, None)

    def of(self, relay: str) -> tuple[Override, ...]:
        """What a relay does now."""
        known = self._relays.get(relay)
        return () if known is None else known.overrides

    def between(self, relay: str, origin: str) -> tuple[Override, ...]:
        """What a relay does now about what lives at one origin."""
        return tuple(one for one in self.of(relay) if one.origin == origin)

    def everybodys(self) -> list[tuple[str, Override]]:
        """All that there are, with whose they are."""
        return [(relay, one) for relay, known in sorted(self._relays.items()) for one in known.overrides]

    @property
    def count(self) -> int:
        """How many there are now."""
        return sum(len(known.overrides) for known in self._relays.values())

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        for known in self._relays.values():
            assert known.since.keys() == set(map(_way, known.overrides))
            assert 0.0 <= known.allowance <= MOST_LINES


_Told = tuple[_Way, str]
"""An override and its cause."""


def _way(override: Override) -> _Way:
    return _Way(override.origin, override.instead_of, override.next_hop)


def _together(found: Iterable[_Told]) -> list[list[_Told]]:
    """Those with one cause, that go one way instead of one other."""

    def key(told: _Told) -> tuple[str, str, str]:
        return told[0].instead_of, told[0].next_hop, told[1]

    return [list(group) for _, group in groupby(sorted(found, key=lambda told: (key(told), told[0].origin)), key)]


def _line(kind: str, group: list[_Told], lasted_s: float = 0.0) -> Line:
    way, cause = group[0]
    more = f", and for {len(group) - 1} more origins" if len(group) > 1 else ""
    what = cause if kind == BEGUN else f"over after {lasted_s:.0f} s"
    return Line(kind, way.origin, f"{way.next_hop} instead of {way.instead_of}: {what}{more}")


def _allowed(known: _Relay, lines: list[Line], now: float) -> Iterable[Line]:
    """As many lines as the relay may have now; the next one after a gap says how many it left out."""
    known.allowance = min(MOST_LINES, known.allowance + LINES_PER_S * max(0.0, now - known.allowed_at))
    known.allowed_at = now
    for line in lines:
        if known.allowance < 1.0:
            known.untold += 1
            continue
        known.allowance -= 1.0
        if known.untold:
            line = line._replace(detail=f"{line.detail} ({known.untold} lines left out before)")
            known.untold = 0
        yield line
