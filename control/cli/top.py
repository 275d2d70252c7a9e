"""EDGE: `tradewind top`: all relays of a mesh at a glance, once a second."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from control.cli.asking import Asker, CallError, asks, table
from tradewind.client.tools.options import Display, bits

REFRESH_S = 1.0
COLUMNS = ("node", "region", "state", "sessions", "tracks", "streams", "egress", "load", "overrides", "links not up")


@click.command()
@asks
def top(asker: Asker, output: str) -> None:
    """All relays: state, sessions, tracks, streams, egress, load, overrides, and the links that are not UP.

    On a terminal it goes on until Ctrl-C; elsewhere, and with -o json, it says how things are and ends.
    """
    nodes = asker.get("/v1/nodes")
    if output == "json":
        click.echo(json.dumps({"at_wall": time.time(), "totals": totals(nodes), "nodes": nodes}))
    elif sys.stdout.isatty() and sys.stderr.isatty():
        try:
            _go_on(asker, nodes)
        except KeyboardInterrupt:
            click.echo(summary(nodes))
    else:
        click.echo(summary(nodes))
        table(COLUMNS, [row(node) for node in nodes])


def _go_on(asker: Asker, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Draw the table again every second; while nobody answers it stays as it was, and says so."""
    trouble = ""
    with Display("", COLUMNS) as display:
        while True:
            began = time.monotonic()
            display.title = f"{summary(nodes)}{trouble}   Ctrl-C ends"
            display.show([row(node) for node in nodes])
            time.sleep(max(0.0, REFRESH_S - (time.monotonic() - began)))
            try:
                nodes, trouble = asker.ask("/v1/nodes"), ""
            except CallError as error:
                trouble = f"   NO ANSWER: {error}"


def row(node: Mapping[str, Any]) -> tuple[str, ...]:
    """One relay's line."""
    condition, stage, wanted = node["condition"], node["stage"] or "-", node["wanted"]
    state = condition if condition != "alive" else stage
    # Who is empty has done what was wanted.
    if condition == "alive" and wanted != stage and (wanted, stage) != ("draining", "empty"):
        state += f", to be {wanted}"
    egress = node["egress_bytes_per_s"]
    counts = (node["sessions"], node["tracks"], node["streams"])
    return (
        node["id"],
        node["region"],
        state,
        *("-" if count is None else str(count) for count in counts),
        "-" if egress is None else bits(8 * egress),
        f"{100 * node['load_ratio']:.0f} %",
        str(node.get("overridden") or "-"),
        ", ".join(node["troubled"]) or "-",
    )


def totals(nodes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Over all relays that are there."""
    there = [node for node in nodes if node["condition"] != "dead"]
    counts = ("sessions", "tracks", "egress_bytes_per_s")
    return {"nodes": len(there), **{name: sum(node[name] or 0 for node in there) for name in counts}}


def summary(nodes: Sequence[Mapping[str, Any]]) -> str:
    """All of them in a line."""
    found = totals(nodes)
    return f"{found['nodes']} nodes, {found['sessions']} sessions, {bits(8 * found['egress_bytes_per_s'])}"
