"""What operators see of a plane, as documents that JSON can say: nodes, links, streams, routes, events, commands.

`control.api` serves these. Lists are whole and in order; numbers have their unit in the name; nothing here changes
anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from math import isfinite
from typing import Any

import msgspec

from control.events import EventLine
from control.homes import shown
from control.plane import Plane
from control.registry.values import Condition, RelayView


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
    found["overrides"] = plain(report.overrides) if report else []
    entries = plane.homes.entries()
    found["home_of"] = [shown(entry.room) for entry in entries if entry.home == relay]
    found["follower_of"] = [shown(entry.room) for entry in entries if entry.follower == relay]
    found["commands"] = [plain(order) for order in plane.commands.orders() if order.relay == relay][-20:]
    return found


def links(plane: Plane, now: float) -> list[dict[str, Any]]:
    """Every directed link between two relays that are there, as both ends together see it."""
    return [plain(found) for found in sorted(plane.registry.evidence(now))]


def streams(plane: Plane, now: float) -> list[dict[str, Any]]:
    """Every namespace that is published, where its publisher is, and how many other relays carry it."""
    carried: dict[tuple[bytes, ...], int] = {}
    members = plane.registry.members(now)
    for view in members:
        for namespace in view.report.carried if view.report else ():
            carried[namespace] = carried.get(namespace, 0) + 1
    found = [
        {
            "namespace": shown(origin.namespace),
            "origin": view.id,
            "region": view.region,
            "hop": origin.hop,
            "carriers": carried.get(origin.namespace, 0),
        }
        for view in members
        for origin in (view.report.origins if view.report else ())
    ]
    return sorted(found, key=lambda stream: (stream["namespace"], stream["origin"]))


def rooms(plane: Plane) -> list[dict[str, Any]]:
    """Every room: who orders it, who has the second copy, in which epoch."""
    return [
        {"room": shown(entry.room), "home": entry.home, "follower": entry.follower, "epoch": entry.epoch}
        for entry in plane.homes.entries()
    ]


def route(plane: Plane, relay: str, origin: str, now: float) -> dict[str, Any] | None:
    """Why a relay goes to an origin as it does; None: one of them is not in the plan."""
    found = plane.topology.explain(relay, origin, now)
    explained: dict[str, Any] | None = plain(found) if found is not None else None
    return explained


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
        "egress_bytes_per_s": report.egress_bytes_per_s if report else None,
        "generation": report.generation if report else view.hello.generation,
        "heard_age_s": plain(view.heard_age_s),
        "uri": view.hello.uri,
        "address": f"{view.hello.address[0]}:{view.hello.address[1]}",
    }
