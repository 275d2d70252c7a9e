"""The direction of imports, as docs/architecture.md draws it: a room sees what stands below it and nothing else.

Imports are read with `ast`, so lazy ones and those under TYPE_CHECKING count too: a type from a room above is a
dependency on it. An EDGE file is one that does I/O, reads a clock or imports trio.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("tradewind", "relay", "control")

EDGES = {
    "tradewind.http1",
    "tradewind.http_get",
    "tradewind.logs",
    "tradewind.settings.program",
    "tradewind.quic.udp",
    "tradewind.client",
    "relay.__main__",
    "tradewind.keys",
    "tradewind.locations",
    "relay.control_link",
    "relay.ops",
    "relay.mesh.files",
    "relay.run",
    "relay.rooms.store",
    "relay.room_disk",
    "control.__main__",
    "control.store",
    "control.controller",
    "control.api",
    "control.web",
    "control.run",
    "control.demo",
    "control.cli",
}
"""The files, or whole packages, that may do I/O."""

EDGE_MODULES = {"trio", "socket", "select", "selectors", "asyncio", "subprocess", "threading", "multiprocessing"}
IMPURE_MODULES = EDGE_MODULES | {"time", "random", "secrets", "requests", "http.client", "urllib.request"}
"""Clocks, dice and I/O: only edges import them."""

# The common core of placement stands on the contract, and both sides on it: they answer alike and never meet.
PLACING = ("tradewind.contract", "tradewind.placing")
RELAY_PURE = ("tradewind.contract", "tradewind.moqt.model", "tradewind.moqt.errors")
# The errors module holds the draft's code registries: nouns, like the model.
CONTROL_PURE = ("tradewind.contract", "tradewind.placing")


class Room(NamedTuple):
    """A package or module, and the prefixes that its files may import besides the standard library and itself."""

    name: str
    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()


# The most specific name that fits a module is its room.
ROOMS = [
    Room("tradewind", ()),
    Room("tradewind.contract", (), ("msgpack", "msgspec")),
    Room("tradewind.contract.token", (), ("joserfc", "cryptography", "msgspec")),
    Room("tradewind.contract.roles", ("tradewind.contract.token",), ("msgspec",)),
    Room("tradewind.contract.identity", ("tradewind.contract",), ("cryptography",)),
    Room("tradewind.contract.issuing", ("tradewind.contract",), ("cryptography",)),
    Room("tradewind.contract.admission", ("tradewind.contract",), ("cryptography", "msgspec")),
    Room("tradewind.placing", PLACING, ("msgspec",)),
    Room("tradewind.quic", (), ("aioquic", "cryptography")),
    Room("tradewind.quic.udp", ("tradewind.quic",), ("trio",)),
    Room("tradewind.moqt"),
    Room("tradewind.client", ("tradewind",), ("trio", "click", "rich", "cryptography")),
    # What is not named below is part of the node: the one place where quic, moqt and forwarding meet.
    Room("relay", (*PLACING, "tradewind.moqt", "tradewind.quic")),
    Room("relay.forwarding", RELAY_PURE),
    Room("relay.rooms", RELAY_PURE),
    Room("relay.rooms.store", (*RELAY_PURE, "relay.rooms"), ("trio",)),
    Room("relay.room_disk", ("relay",), ("trio",)),
    Room("relay.links", RELAY_PURE, ("msgspec",)),
    Room("relay.access", RELAY_PURE),
    Room("relay.limits", RELAY_PURE),
    Room("relay.placing", PLACING, ("msgspec",)),
    Room("tradewind.settings"),
    Room("tradewind.logs"),
    Room(
        "relay.config",
        ("tradewind.settings", "tradewind.contract", "tradewind.moqt.profiles", "tradewind.moqt.settings"),
    ),
    Room(
        "relay.settings",
        (
            "relay.config",
            "relay.access",
            "relay.limits",
            "relay.forwarding",
            "relay.placing",
            "relay.rooms.rates",
            "tradewind.contract.rooms",
            "tradewind.moqt",
            "tradewind.quic.config",
        ),
    ),
    Room("tradewind.metering", (), ("prometheus_client",)),
    Room("relay.metrics", ("tradewind.metering",)),
    Room("relay.health", RELAY_PURE),
    Room("relay.drain", RELAY_PURE),
    Room("tradewind.keys", ("tradewind",), ("trio", "cryptography")),
    Room("tradewind.locations", ("tradewind",), ("maxminddb",)),
    Room("tradewind.http1", theirs=("trio", "h11")),
    Room("tradewind.http_get", theirs=("trio", "h11")),
    Room("relay.ops", ("tradewind", "relay"), ("trio", "prometheus_client", "msgspec")),
    Room("relay.listing", (*PLACING, "relay", "tradewind.moqt.model"), ("msgspec",)),
    Room("relay.flows", (*PLACING, "relay")),
    Room("relay.overrides", ("tradewind.contract", "relay.node", "relay.forwarding")),
    Room("relay.steering", (*PLACING, "relay", "tradewind.moqt.errors"), ("msgspec",)),
    Room("relay.orders", ("tradewind.contract",)),
    Room("relay.helm", ("tradewind.contract", "tradewind.quic", "relay.conversation", "relay.orders"), ("msgspec",)),
    Room("relay.conversation", ("tradewind.contract", "tradewind.quic")),
    Room("relay.control_link", ("tradewind", "relay"), ("trio", "msgspec")),
    Room("relay.mesh.files", ("tradewind", "relay"), ("trio",)),
    Room("relay.run", ("tradewind", "relay"), ("trio",)),
    Room("relay.__main__", ("relay", "tradewind.settings")),
    Room("control", CONTROL_PURE),
    Room("control.topology", (*CONTROL_PURE, "control.registry"), ("numpy",)),
    *(
        Room(f"control.{name}", (*CONTROL_PURE, "control.registry", "control.topology"))
        for name in ("placement", "rebalance", "capacity")
    ),
    *(
        Room(f"control.{name}", (*CONTROL_PURE, "control.registry", "control.state"))
        for name in ("events", "homes", "overrides", "streams")
    ),
    Room("control.publishing", (*CONTROL_PURE, "control.topology")),
    Room("control.outgoing", (*CONTROL_PURE, "control.state")),
    Room("control.questions", (*CONTROL_PURE, "control.outgoing")),
    Room("control.reports", (*CONTROL_PURE, "control.overrides", "control.streams")),
    Room("control.connected", (*CONTROL_PURE, "control.rivals")),
    Room(
        "control.publisher",
        (*CONTROL_PURE, "control.registry", "control.topology", "control.connected", "control.publishing"),
    ),
    Room(
        "control.operators",
        (
            *(*CONTROL_PURE, "control.registry", "control.state", "control.commands", "control.connected"),
            *("control.events", "control.outgoing", "control.questions"),
        ),
        ("msgspec",),
    ),
    Room("control.state", CONTROL_PURE, ("msgspec",)),
    Room("control.commands", (*CONTROL_PURE, "control.state"), ("msgspec",)),
    Room("control.plane", (*CONTROL_PURE, "control")),
    Room("control.members", (*CONTROL_PURE, "control.registry", "control.state"), ("msgspec",)),
    Room("control.rivals", CONTROL_PURE),
    Room("control.settling"),
    Room("control.links", ("tradewind.contract", "tradewind.quic")),
    Room("control.config", ("tradewind.contract", "tradewind.settings")),
    Room("control.metrics", ("control", "tradewind.metering"), ("prometheus_client",)),
    Room("control.views", (*CONTROL_PURE, "control"), ("msgspec",)),
    Room("control.controller", ("tradewind", "control"), ("trio",)),
    Room("control.api", ("tradewind", "control"), ("trio", "msgspec", "prometheus_client")),
    Room("control.__main__", ("tradewind", "control")),
    Room("control.store", ("tradewind", "control"), ("trio", "msgspec")),
    Room("control.web", ("tradewind", "control"), ("trio",)),
    Room("control.demo", ("tradewind", "control"), ("trio",)),
    Room("control.run", ("tradewind", "control"), ("trio",)),
    Room("control.cli", ("tradewind", "control"), ("trio", "click", "rich", "h11", "msgspec")),
]
NODE_MAY_NOT = (
    *("tradewind.quic.udp", "tradewind.keys", "tradewind.locations", "tradewind.http1"),
    *("relay.ops", "relay.run", "relay.control_link", "relay.mesh.files"),
)


class Import(NamedTuple):
    module: str
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for top in OURS for path in sorted((ROOT / top).rglob("*.py"))}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[Import]:
    """Every module a file imports, `from package import module` resolved to the module where there is one."""
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield Import(whole if whole in MODULES else node.module, node.lineno)


def within(module: str, prefixes: tuple[str, ...] | set[str]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def room_of(module: str) -> Room:
    return max((room for room in ROOMS if within(module, (room.name,))), key=lambda room: len(room.name))


def complaint(module: str, room: Room, found: Import) -> str | None:
    """Why this import is not allowed here, or None."""
    top = found.module.partition(".")[0]
    edge = within(module, EDGES)
    if within(found.module, IMPURE_MODULES) and not edge:
        return "only an EDGE file does I/O, reads a clock or throws dice"
    if room.name == "relay" and within(found.module, NODE_MAY_NOT):
        return "the node does no I/O"
    if top in sys.stdlib_module_names or within(found.module, (room.name,)) or within(found.module, room.theirs):
        return None
    if top in OURS and within(found.module, room.ours):
        return None
    return f"{room.name} may import {', '.join(room.ours + room.theirs) or 'nothing else'}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downwards(module: str) -> None:
    room = room_of(module)
    problems = [
        f"{module}:{found.line} imports {found.module}: {why}"
        for found in sorted(imports(MODULES[module]))
        if (why := complaint(module, room, found))
    ]
    assert not problems, "\n".join(problems)


def test_only_quic_knows_aioquic() -> None:
    users = {module for module, path in MODULES.items() if any(within(i.module, ("aioquic",)) for i in imports(path))}
    assert all(within(module, ("tradewind.quic",)) for module in users), users


def test_only_edges_know_trio() -> None:
    users = {module for module, path in MODULES.items() if any(within(i.module, ("trio",)) for i in imports(path))}
    assert all(within(module, EDGES) for module in users), {m for m in users if not within(m, EDGES)}


def test_pure_rooms_do_not_await() -> None:
    found = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        if not within(module, EDGES)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith)
    ]
    assert not found, found


@pytest.mark.parametrize(
    ("module", "imported", "allowed"),
    [
        ("relay.forwarding.track", "tradewind.moqt.model", True),
        ("relay.forwarding.track", "tradewind.moqt.session", False),
        ("relay.forwarding.track", "relay.access", False),
        ("relay.forwarding.track", "tradewind.placing.fleet", False),
        ("tradewind.contract.token", "tradewind.placing.fleet", False),
        ("tradewind.placing.fleet", "tradewind.quic.events", False),
        ("relay.node", "tradewind.placing.last_table", True),
        ("relay.node", "tradewind.quic.endpoint", True),
        ("relay.node", "tradewind.quic.udp", False),
        ("relay.node", "relay.forwarding.forwarder", True),
        ("relay.node", "relay.ops", False),
        ("relay.node", "tradewind.client.connect", False),
        ("relay.node", "time", False),
        ("relay.run", "control.plane", False),
        ("control.cli.main", "relay.config", False),
        ("control.placement", "control.topology", True),
        ("control.topology", "control.placement", False),
        ("tradewind.moqt.session", "tradewind.quic.events", False),
        ("tradewind.moqt.session", "aioquic.buffer", False),
        ("tradewind.quic.udp", "trio", True),
        ("tradewind.quic.endpoint", "trio", False),
    ],
)
def test_the_table_itself(module: str, imported: str, allowed: bool) -> None:
    assert (complaint(module, room_of(module), Import(imported, 1)) is None) == allowed
