"""What operators see of a plane, as documents that JSON can say: nodes, links, streams, routes, events, commands.

`control.api` serves these. Lists are whole and in order; numbers have their unit in the name; nothing here changes
anything.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from heapq import merge
from itertools import islice
from math import isfinite
from typing import Any, TypeAlias

import msgspec

from control.events import EventLine
from control.homes import shown
from control.plane import Plane
from control.registry.values import Condition, RelayView
from tradewind.contract.messages import LinkReport, NamespaceFields, StreamReport
from tradewind.placing.explaining import Explanation


class _Stream(msgspec.Struct, frozen=True):
    """A stream in a relay's answer."""

    source: str
    tracks: int
    subscribers: int
    bytes_per_s: float


def nodes(plane: Plane, now: float) -> list[dict[str, Any]]:
    """Every relay that is known, in a line each."""
    return [_node(plane, view) for view in plane.registry.everybody(now)]


def node(plane: Plane, relay: str, now: float) -> dict[str, Any] | None:
    """One relay with everything that it reported; None: there is none of that name."""
    view = plane.registry.relay(relay, now)
    if view is None:
        return None
    found = _node(plane, view)
    report = view.report
    found["software"] = view.hello.software
    found["boot"] = view.hello.boot.hex()
    found["capacity_bytes_per_s"] = view.hello.capacity_bytes_per_s
    found["capacity_sessions"] = view.hello.capacity_sessions
    found["cpu_ratio"] = report.cpu_ratio if report else None
    found["loop_lag_ms"] = report.loop_lag_ms if report else None
    found["links"] = plain(report.links) if report else []
    found["origins"] = [shown(origin.namespace) for origin in report.origins] if report else []
    found["overrides"] = plain(plane.reports.overrides.of(relay))
    entries = plane.homes.entries()
    found["home_of"] = [shown(entry.room) for entry in entries if entry.home == relay]
    found["follower_of"] = [shown(entry.room) for entry in entries if entry.follower == relay]
    found["commands"] = [plain(order) for order in plane.commands.orders() if order.relay == relay][-20:]
    return found


def links(plane: Plane, now: float) -> list[dict[str, Any]]:
    """Every directed link between two relays that are there, as both ends together see it."""
    return [plain(found) for found in sorted(plane.registry.evidence(now))]


Wanted: TypeAlias = Callable[[NamespaceFields], bool]


def wanted(namespace: NamespaceFields) -> Wanted:
    """Which namespace somebody means who wrote it as rows have it: fields that are no text are written in escapes."""
    text = shown(namespace)
    return (lambda name: shown(name) == text) if "\\" in text else (lambda name: name == namespace)


def streams(plane: Plane, now: float, limit: int, wanted: Wanted | None = None) -> dict[str, Any]:
    """Every namespace at every relay that has it, a row each; the busiest where there are more than `limit`.

    `more`: how many others each relay has, that it told only the names of or for which there was no room. With `wanted`
    only one namespace's rows.
    """
    told: dict[str, Sequence[StreamReport]] = {}
    more: Counter[str] = Counter()
    for view in plane.registry.members(now):
        rows, others = plane.streams.of(view.id, view.report)
        told[view.id] = rows if wanted is None else [row for row in rows if wanted(row.namespace)]
        more[view.id] = others + len(told[view.id])
    # Each relay tells its busiest first: no more of them are looked at than are shown.
    merged = merge(*(_ranked(relay, rows) for relay, rows in told.items()))
    found = [stream(relay, row) for _, relay, _, row in islice(merged, limit)]
    more.subtract(row["relay"] for row in found)
    return {"streams": in_order(found), "more": {relay: count for relay, count in more.items() if count}}


def stream(relay: str, row: StreamReport) -> dict[str, Any]:
    """One namespace at one relay."""
    return {
        "namespace": shown(row.namespace),
        "relay": relay,
        "source": row.source,
        "tracks": row.tracks,
        "subscribers": row.subscribers,
        "bytes_per_s": round(row.bytes_per_s),
    }


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of streams as they are shown."""
    return sorted(rows, key=lambda row: (row["namespace"], row["relay"]))


def streams_answered(relay: str, namespace: NamespaceFields, body: str) -> list[dict[str, Any]]:
    """The rows in a relay's answer to a question for one namespace; none where it makes no sense."""
    try:
        found = msgspec.json.decode(body, type=list[_Stream])
    except (msgspec.MsgspecError, RecursionError):
        return []
    rows = [StreamReport(namespace, row.source, row.tracks, row.subscribers, row.bytes_per_s) for row in found]
    return [stream(relay, row) for row in rows]


def untold(plane: Plane, now: float, wanted: Wanted) -> dict[str, NamespaceFields]:
    """Relays that have a namespace of which they told only the name, and can be asked for more."""
    found = {}
    for view in plane.registry.members(now):
        if view.report is not None and plane.is_connected(view.id):
            name = plane.streams.untold(view.id, view.report, wanted)
            if name is not None:
                found[view.id] = name
    return found


def rooms(plane: Plane) -> list[dict[str, Any]]:
    """Every room: who orders it, who has the second copy, in which epoch."""
    return [
        {"room": shown(entry.room), "home": entry.home, "follower": entry.follower, "epoch": entry.epoch}
        for entry in plane.homes.entries()
    ]


def route(plane: Plane, relay: str, origin: str, now: float) -> dict[str, Any] | None:
    """Why a relay goes to an origin as it does, and what it does instead; None: one of them is not in the plan."""
    found = plane.topology.explain(relay, origin, now)
    if found is None:
        return None
    explained: dict[str, Any] = plain(found)
    return {**explained, "overrides": plain(plane.reports.overrides.between(relay, origin))}


def overrides(plane: Plane) -> list[dict[str, Any]]:
    """Where relays go another way than their tables say, by relay and origin."""
    return [{"relay": relay, **plain(one)} for relay, one in plane.reports.overrides.everybodys()]


def commands(plane: Plane) -> list[dict[str, Any]]:
    """The newest orders, oldest first."""
    return [plain(order) for order in plane.commands.orders()[-1000:]]


def explained(explanation: Explanation) -> dict[str, Any]:
    """Why a viewer would be sent where."""
    found: dict[str, Any] = plain(explanation.document())
    return found


def event(line: EventLine) -> dict[str, Any]:
    """One event."""
    found: dict[str, Any] = plain(line)
    return found


def state(plane: Plane, now: float) -> dict[str, Any]:
    """A picture of the whole for people."""
    return {
        "term": plane.term,
        "generation": plane.topology.generation,
        "plane": plain(plane.statistics()),
        "registry": plain(plane.registry.statistics()),
        "topology": plain(plane.topology.statistics()),
        "placement": plain(plane.placement.statistics()),
        "rooms": plain(plane.homes.statistics()),
        "commands": plain(plane.commands.statistics()),
        "alarms": [event(line) for line in plane.events.last(1000) if line.alarm][-20:],
        "nodes": nodes(plane, now),
    }


def plain(value: Any) -> Any:
    """Any of our values as JSON can say it: fields by name, bytes as text, nothing infinite."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return round(value, 6) if isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _node(plane: Plane, view: RelayView) -> dict[str, Any]:
    report, wish = view.report, plane.commands.wish(view.id)
    told = plane.streams.of(view.id, report)
    links = report.links if report else ()
    return {
        "id": view.id,
        "region": view.region,
        "latitude": view.place.latitude if view.place else None,
        "longitude": view.place.longitude if view.place else None,
        "condition": view.condition.value,
        "connected": plane.is_connected(view.id),
        "stage": view.stage if view.condition is not Condition.DEAD else None,
        "wanted": wish.stage if wish else "serving",
        "sessions": report.sessions if report else None,
        "load_ratio": plain(view.load_ratio),
        "egress_bytes_per_s": round(report.egress_bytes_per_s) if report else None,
        "tracks": report.tracks if report and plane.streams.tells(view.id) else None,
        "streams": len(told.rows) + told.more,
        "overridden": len({one.origin for one in plane.reports.overrides.of(view.id)}),
        "troubled": [f"{link.neighbour} {_state(link)}" for link in links if _state(link) != "up"],
        "generation": report.generation if report else view.hello.generation,
        "heard_age_s": plain(view.heard_age_s),
        "uri": view.hello.uri,
        "address": f"{view.hello.address[0]}:{view.hello.address[1]}",
    }


def _ranked(relay: str, rows: Sequence[StreamReport]) -> Iterator[tuple[float, str, int, StreamReport]]:
    return ((-row.bytes_per_s, relay, place, row) for place, row in enumerate(rows))


def _state(link: LinkReport) -> str:
    """What a link is like in the direction in which it is worse."""
    return max(link.state, link.away_state, key=_WORSE.index)


_WORSE = ("up", "suspect", "probation", "bad")
