"""Overrides: where this relay's tracks come by another way than its route table says, since when, and why.

Tracks move by themselves when a link turns bad (`relay.forwarding.moving`), and go back when it is trusted again; the
table stays as it is. `steering` asks here for every report, so that operators see what the relay does instead. An
override ends when its tracks are back or gone, or when a newer table says what the relay does.

`Overrides` is what is known of them, by name; `OverrideMeter` reads one node for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from relay.forwarding.astray import Astray, Hindrance
from relay.forwarding.book import Standing
from relay.node import Node
from tradewind.contract.ids import hop_id
from tradewind.contract.messages import Override, RouteTable

MOST_OVERRIDES = 1024
"""In a report; those with most tracks where there are more."""
GRACE_S = 3.0
"""A first candidate that nothing hinders is given so long: tracks follow a new table within that."""
LEAST_S = 0.1
TRACKS_PER_S = 20_000
"""So many are looked at a second at most: relays with more look less often."""


class Cause(Enum):
    """Why a first candidate is not used, worst first: a closed list, and a metric's label."""

    BAD = "bad"
    ABSENT = "absent"
    LEAVING = "leaving"
    PROBATION = "probation"
    SUSPECT = "suspect"
    UNTOLD = "untold"
    DECLINED = "declined"
    BELOW = "below"
    WAITING = "waiting"
    """Nothing hinders it: tracks are about to go back."""


class Seen(NamedTuple):
    """Tracks of one origin that come from another neighbour than the first candidate, as one look found them."""

    origin: str
    instead_of: str
    next_hop: str
    cause: Cause
    text: str
    """The cause for people."""
    since: float
    """When the first of them came from there."""
    tracks: int


@dataclass(slots=True)
class _Kept:
    """One override that is known."""

    found_at: float
    since: float
    worst: Cause
    text: str
    cause: Cause
    text_now: str
    tracks: int
    told: bool


class Overrides:
    """Those of one relay, from one look to the next."""

    __slots__ = ("_kept", "_looked_at")

    def __init__(self) -> None:
        self._looked_at = float("-inf")
        self._kept: dict[tuple[str, str, str], _Kept] = {}

    def apply(self, found: Iterable[Seen], now: float) -> None:
        """Take in all that a look found; what it did not find is over."""
        before, self._kept = self._kept, {}
        for seen in found:
            key = (seen.origin, seen.instead_of, seen.next_hop)
            twice = self._kept.get(key)
            if twice is not None:
                # The neighbour has another session, and tracks come over both.
                twice.tracks += seen.tracks
                continue
            kept = before.get(key)
            if kept is None:
                # What came from there before the table said otherwise was no override.
                since = min(now, max(seen.since, self._looked_at))
                kept = _Kept(now, since, seen.cause, seen.text, seen.cause, seen.text, 0, told=False)
            elif _BADNESS[seen.cause] > _BADNESS[kept.worst]:
                kept.worst, kept.text = seen.cause, seen.text
            kept.cause, kept.text_now, kept.tracks = seen.cause, seen.text, seen.tracks
            kept.told = kept.told or seen.cause is not Cause.WAITING or now >= kept.found_at + GRACE_S
            self._kept[key] = kept
        self._looked_at = now

    def told(self, now: float, wall_now: float) -> tuple[Override, ...]:
        """What a report says: by origin and next hop, no more than `MOST_OVERRIDES`."""
        entries = [(key, kept) for key, kept in self._kept.items() if kept.told]
        if len(entries) > MOST_OVERRIDES:
            entries = sorted(entries, key=lambda entry: (-entry[1].tracks, entry[0]))[:MOST_OVERRIDES]
        return tuple(
            Override(origin, instead_of, next_hop, _text(kept), max(0.0, wall_now - (now - kept.since)))
            for (origin, instead_of, next_hop), kept in sorted(entries)
        )

    def counts(self) -> Counter[Cause]:
        """How many there are, by what hinders the first candidate now."""
        return Counter(kept.cause for kept in self._kept.values() if kept.told)

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        for (origin, instead_of, next_hop), kept in self._kept.items():
            assert instead_of != next_hop and origin
            assert _BADNESS[kept.cause] <= _BADNESS[kept.worst]
            assert kept.told or kept.cause is Cause.WAITING


class OverrideMeter:
    """Looks at one node for them, as often as its tracks allow."""

    __slots__ = ("_due", "_firsts", "_names", "_node", "_overrides", "_table")

    def __init__(self, node: Node) -> None:
        self._overrides = Overrides()
        self._node = node
        self._due = float("-inf")
        self._table: RouteTable | None = None
        self._firsts: Mapping[int, int] = {}
        """Of the table: origin -> first candidate, by Hop IDs."""
        self._names: Mapping[int, str] = {}

    def take(self, now: float, wall_now: float) -> tuple[Override, ...]:
        """What to report now."""
        return self.now(now).told(now, wall_now)

    def now(self, now: float) -> Overrides:
        """What there is now, or was a moment ago."""
        if now >= self._due:
            self._look(now)
        return self._overrides

    def _look(self, now: float) -> None:
        """Look at every track."""
        mesh, forwarder = self._node.mesh, self._node.forwarder
        if mesh is None or mesh.table is None:
            return
        if mesh.table is not self._table:
            self._read(mesh.table)
        self._due = now + max(LEAST_S, forwarder.track_count / TRACKS_PER_S)
        self._overrides.apply(map(self._seen, forwarder.astray(self._firsts)), now)

    def _read(self, table: RouteTable) -> None:
        self._table = table
        routes = [route for route in table.routes if route.candidates]
        names = {name for route in routes for name in (route.origin, route.candidates[0].next_hop)}
        hops = {name: hop_id(table.mesh, name) for name in names}
        self._firsts = {hops[route.origin]: hops[route.candidates[0].next_hop] for route in routes}
        self._names = {hop: name for name, hop in hops.items()}

    def _seen(self, one: Astray) -> Seen:
        first = self._names[one.first]
        cause = _of_link(one.standing) if one.hindrance is Hindrance.LINK else _CAUSES[one.hindrance]
        text = self._link_text(first, cause) if one.hindrance is Hindrance.LINK else _TEXTS[cause]
        next_hop = self._node.name_of(one.session)
        return Seen(self._names[one.origin], first, next_hop, cause, text, one.since, one.tracks)

    def _link_text(self, neighbour: str, cause: Cause) -> str:
        """The state of the link and what brought it there."""
        mesh = self._node.mesh
        link = None if mesh is None else mesh.neighbours.get(neighbour)
        if link is None or cause is Cause.PROBATION:
            return _TEXTS[cause]
        return f"{_TEXTS[cause]}: {'it hears nothing of us' if link.is_unheard else link.inbound_cause.value}"


def _of_link(standing: Standing) -> Cause:
    return Cause.BAD if standing is Standing.SILENT else Cause(standing.name.lower())


def _text(kept: _Kept) -> str:
    return kept.text if kept.cause is kept.worst else f"{kept.text}; now: {kept.text_now}"


_BADNESS = {cause: -place for place, cause in enumerate(Cause)}
_CAUSES = {
    Hindrance.ABSENT: Cause.ABSENT,
    Hindrance.LEAVING: Cause.LEAVING,
    Hindrance.UNTOLD: Cause.UNTOLD,
    Hindrance.DECLINED: Cause.DECLINED,
    Hindrance.BELOW: Cause.BELOW,
    None: Cause.WAITING,
}
_TEXTS = {
    Cause.BAD: "the link is bad",
    Cause.ABSENT: "no session with it",
    Cause.LEAVING: "it is being emptied",
    Cause.PROBATION: "the link is on probation",
    Cause.SUSPECT: "the link is suspect",
    Cause.UNTOLD: "it says nothing of the namespace",
    Cause.DECLINED: "it would not serve us",
    Cause.BELOW: "it is below us",
    Cause.WAITING: "nothing is in the way",
}
