"""What is published where, and which relays carry it: as the relays told last (`StreamReport`).

`plane` hands in reports, `views` makes documents of this. A relay of a release before streams tells only the names of
what it has: its rows have no figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tradewind.contract.messages import PUBLISHER, NamespaceFields, Report, StreamReport


class Told(NamedTuple):
    """What one relay said of its namespaces."""

    rows: tuple[StreamReport, ...]
    more: int
    """Of so many others it did not say anything but their names."""


class Streams:
    """By relay; a relay that never told anything has no entry."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, Told] = {}

    def apply(self, relay: str, report: Report) -> None:
        """Take in a report; where it says nothing of streams they are as before."""
        if report.streams is not None:
            self._told[relay] = Told(report.streams, report.streams_more)

    def forget(self, relay: str) -> None:
        """A relay is gone, or begins anew."""
        self._told.pop(relay, None)

    def of(self, relay: str, report: Report | None) -> Told:
        """What there is at a relay; `report`: its last one."""
        found = self._told.get(relay)
        return found if found is not None else _named(report)

    def tells(self, relay: str) -> bool:
        """Whether a relay is of a release that tells of streams."""
        return relay in self._told

    def untold(self, relay: str, report: Report, wanted: Callable[[NamespaceFields], bool]) -> NamespaceFields | None:
        """The namespace that is wanted, where a relay has it and told no more than its name."""
        found = self._told.get(relay)
        if found is None or not found.more or any(wanted(row.namespace) for row in found.rows):
            return None
        return next(filter(wanted, names(report)), None)


def names(report: Report) -> Iterator[NamespaceFields]:
    """Every namespace that a relay has, its origins first."""
    yield from (origin.namespace for origin in report.origins)
    yield from report.carried


def _named(report: Report | None) -> Told:
    if report is None:
        return Told((), 0)
    rows = [StreamReport(origin.namespace, PUBLISHER, 0, 0, 0.0) for origin in report.origins]
    rows += [StreamReport(name, "", 0, 0, 0.0) for name in report.carried]
    return Told(tuple(rows), 0)
