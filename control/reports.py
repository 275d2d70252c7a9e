"""What relays told last, and what is new in it: each report is held against the one before.

`plane` hands in reports and passes on what comes out; what is known of relays and links by them is `registry`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from control.overrides import Overrides
from control.streams import Streams, names
from tradewind.contract.messages import NamespaceFields, Report, RoomReport

MAX_REPORTS_PER_S = 20
"""Of one relay: one a second, and one at each change; more are not looked at."""


class News(NamedTuple):
    """An event that a report tells of."""

    kind: str
    other: str
    detail: str


class Heard(NamedTuple):
    """What a report has that the one before had not; None: as it was."""

    news: tuple[News, ...]
    carried: list[NamespaceFields] | None
    rooms: tuple[RoomReport, ...] | None
    stage: bool
    """It is another one."""


@dataclass(slots=True)
class _Told:
    """By one relay."""

    report: Report | None = None
    second: float = 0.0
    count: int = 0
    """In this second."""


class Reports:
    """The last report of each relay."""

    __slots__ = ("_told", "dropped", "overrides", "streams", "taken")

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}
        self.streams = Streams()
        self.overrides = Overrides()
        self.taken = 0
        """Since the start, as `dropped`."""
        self.dropped = 0

    def receive(self, relay: str, report: Report, now: float) -> Heard | None:
        """Take in a report; None: there were too many of this relay, and it is not looked at."""
        told = self._told.setdefault(relay, _Told())
        if now - told.second >= 1.0:
            told.second, told.count = now, 0
        told.count += 1
        if told.count > MAX_REPORTS_PER_S:
            self.dropped += 1
            return None
        self.taken += 1
        before, told.report = told.report, report
        self.streams.apply(relay, report)
        new = before is None
        return Heard(
            self._news(relay, before, report, now),
            list(names(report)) if before is None or _carries_other(before, report) else None,
            report.rooms if before is None or before.rooms != report.rooms else None,
            new or (before is not None and before.stage != report.stage),
        )

    def begin_anew(self, relay: str) -> None:
        """Another life of a relay is here, that has not told of its streams."""
        self.streams.forget(relay)

    def forget(self, relay: str) -> None:
        """A relay is dead."""
        self._told.pop(relay, None)
        self.streams.forget(relay)
        self.overrides.forget(relay)

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        self.overrides.check_invariants()

    def _news(self, relay: str, before: Report | None, report: Report, now: float) -> tuple[News, ...]:
        found = [
            News(line.kind, line.origin, line.detail) for line in self.overrides.receive(relay, report.overrides, now)
        ]
        if before is not None and report.overstayed > before.overstayed:
            detail = f"{report.overstayed - before.overstayed} did not move and were closed"
            found.append(News("overstayed", "", detail))
        refused = report.tables_refused - (0 if before is None else before.tables_refused)
        if refused > 0:
            found.append(News("table_refused", "", f"{refused} not taken, the last one: {report.table_refused}"))
        return tuple(found)


def _carries_other(before: Report, report: Report) -> bool:
    return (before.origins, before.carried) != (report.origins, report.carried)
