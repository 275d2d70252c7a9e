"""What passes through a relay, namespace by namespace, as controllers are told: who feeds it, who reads it, how much.

`steering` owns one meter and asks it for every report. Rates are since the rows were told last, and rows are told less
often the more there are: a controller that hears of hundreds of relays pays the same for each.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import NamedTuple

from relay.forwarding.picture import Carried
from relay.node import Node
from tradewind.contract.messages import MAX_STREAMS, PUBLISHER, NamespaceFields, StreamReport

ROWS_PER_S = 64
"""So many rows are told a second; with more, the rows are told less often."""
LEAST_S = 0.5


class Told(NamedTuple):
    """What a report says: the busiest namespaces, and how many others there are."""

    rows: tuple[StreamReport, ...]
    more: int


class FlowMeter:
    """One node's."""

    __slots__ = ("_due", "_node", "_rates", "_read_at", "_seen")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._due = float("-inf")
        self._read_at: float | None = None
        self._seen: dict[int, int] = {}
        """Bytes of each track when rates were last reckoned, by alias."""
        self._rates: dict[NamespaceFields, float] = {}

    def take(self, now: float) -> Told | None:
        """What to tell now, busiest first; None: it is not time yet."""
        if now < self._due:
            return None
        carried = self._node.forwarder.carried_now()
        self._reckon(carried, now)
        chosen = nsmallest(MAX_STREAMS, carried, key=self._merit)
        self._due = now + max(LEAST_S, len(chosen) / ROWS_PER_S - LEAST_S)
        return Told(tuple(map(self._row, chosen)), len(carried) - len(chosen))

    def of(self, namespace: NamespaceFields) -> tuple[StreamReport, ...]:
        """One namespace, for somebody who asks; none where the relay does not have it."""
        found = self._node.forwarder.carried_now()
        return tuple(self._row(one) for one in found if one.namespace == namespace)

    def _reckon(self, carried: list[Carried], now: float) -> None:
        span_s = None if self._read_at is None else max(now - self._read_at, 1e-3)
        seen: dict[int, int] = {}
        self._rates = {}
        for one in carried:
            fresh = sum(size - self._seen.get(alias, 0) for alias, size in one.bytes_in)
            seen.update(one.bytes_in)
            self._rates[one.namespace] = 0.0 if span_s is None else max(fresh, 0) / span_s
        self._seen, self._read_at = seen, now

    def _row(self, one: Carried) -> StreamReport:
        attachments = self._node.attachments
        viewers = sum(
            (attachment := attachments.get(session)) is not None and attachment.neighbour is None
            for session in one.readers
        )
        source = "" if one.source is None else PUBLISHER
        feeder = attachments.get(one.source) if one.source is not None else None
        if feeder is not None and feeder.neighbour is not None:
            source = feeder.neighbour.id
        return StreamReport(one.namespace, source, one.tracks, viewers, self._rates.get(one.namespace, 0.0))

    def _merit(self, one: Carried) -> tuple[float, int, int, NamespaceFields]:
        return -self._rates.get(one.namespace, 0.0), -len(one.readers), -one.tracks, one.namespace
