"""EDGE: `tradewind node`, `link`, `route`, `overrides`, `events`, `audit`: look at a mesh and steer it.

All of it over a controller's API.
"""

from __future__ import annotations

import json
import time
from typing import Any

import click

from control.cli.asking import Asker, asks, show
from control.cli.orders import give_order

FOLLOW_S = 0.5
NODE_COLUMNS = ("id", "region", "condition", "stage", "wanted", "sessions", "load_ratio", "generation", "heard_age_s")
AUDIT_COLUMNS = ("number", "at", "who", "what", "target", "result")
SECTIONS = {
    "links": ("neighbour", "state", "away_state", "rtt_ms", "jitter_ms", "loss_ratio", "away_loss_ratio"),
    "overrides": ("origin", "instead_of", "next_hop", "cause"),
    "commands": ("id", "action", "by", "progress", "detail"),
}
"""Of one relay, what is shown of the lists of things it has."""
OVERRIDE_COLUMNS = ("relay", "origin", "instead_of", "next_hop", "since", "cause")
LINK_COLUMNS = ("sender", "receiver", "rtt_ms", "jitter_ms", "loss_ratio", "usable", "age_s")


@click.group()
def node() -> None:
    """Look at relays, and empty them in order."""


@node.command("ls")
@asks
def node_ls(asker: Asker, output: str) -> None:
    """Every relay that is known, in a line each."""
    show(asker.get("/v1/nodes"), output, NODE_COLUMNS)


@node.command("show")
@click.argument("relay")
@asks
def node_show(relay: str, asker: Asker, output: str) -> None:
    """One relay, with its links, overrides, origins, rooms and commands."""
    found = asker.get(f"/v1/nodes/{relay}")
    show(found, output, ("what", "is"), [_told(*item) for item in found.items() if item[0] not in SECTIONS])
    if output == "table":
        for name, columns in SECTIONS.items():
            if found.get(name):
                click.echo(f"\n{name}")
                show(found[name], output, columns)


def _steering(action: str, text: str) -> click.Command:
    @click.argument("relay")
    @click.option("--deadline", "deadline_s", type=float, default=0.0, help="Seconds by when everybody has gone.")
    @click.option("--id", "id", help="Of the command: asking again with it does nothing twice.")
    @click.option("--reason", default="", help="For those who look later.")
    @click.option("--wait", "wait_s", type=float, default=0.0, help="Seconds to wait until the relay has done it.")
    @asks
    def steer(
        relay: str,
        deadline_s: float,
        id: str | None,
        reason: str,
        wait_s: float,
        asker: Asker,
        output: str,
    ) -> None:
        order = {"relay": relay, "action": action, "deadline_s": deadline_s, "reason": reason}
        give_order(asker, output, order, id, wait_s)

    return click.command(action, help=text)(steer)


for _action, _text in (
    ("drain", "Ask a relay's sessions to move, a wave at a time, until it is empty."),
    ("undrain", "Let a relay that drains serve again."),
    ("cordon", "Send nobody new to a relay; who is there stays."),
    ("uncordon", "Send viewers to a relay again."),
):
    node.add_command(_steering(_action, _text))


@click.group()
def link() -> None:
    """Look at links between relays."""


@link.command("ls")
@click.option("--node", "relay", help="Only this relay's.")
@asks
def link_ls(relay: str | None, asker: Asker, output: str) -> None:
    """Every directed link, as both of its ends together see it."""
    found = asker.get("/v1/links")
    show([one for one in found if relay in {None, one["sender"], one["receiver"]}], output, LINK_COLUMNS)


@click.command()
@click.argument("relay")
@click.argument("origin")
@click.option("--explain", is_flag=True, help="Every part of every candidate's cost.")
@asks
def route(relay: str, origin: str, explain: bool, asker: Asker, output: str) -> None:
    """How RELAY gets what lives at ORIGIN, and why that way."""
    found = asker.get("/v1/routes", relay=relay, origin=origin)
    if output == "table":
        better = f"; better was seen {found['better_cycles']} of {found['cycles_wanted']} cycles on end"
        tree = f"; in its region's tree: {found['place']}" if found.get("place") else ""
        click.echo(f"{relay} <- {origin}, generation {found['generation']}, because: {found['cause']}{better}{tree}")
    candidates = [{**way, "through": " ".join(way["through"])} for way in found["candidates"]]
    show(found, output, ("next_hop", "through", "cost_ms", "chosen_at_ms"), candidates)
    if output == "table":
        for one in found.get("overrides", ()):
            click.echo(f"  overridden: {_override(one)}")
    if explain and output == "table":
        for way in found["candidates"]:
            for one in way["links"]:
                click.echo(f"  link {one['sender']} > {one['receiver']}: {_parts(one['parts'])}")
            for one in way["relays"]:
                click.echo(f"  relay {one['relay']}: {_parts(one['parts'])}")


@click.command()
@click.option("--node", "relay", help="Only this relay's.")
@asks
def overrides(relay: str | None, asker: Asker, output: str) -> None:
    """Where relays go another way than their tables say: a bad link, a neighbour that is not there."""
    found = [one for one in asker.get("/v1/overrides") if relay in {None, one["relay"]}]
    show(found, output, OVERRIDE_COLUMNS, [{**one, "since": _moment(one["since_wall"])} for one in found])


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@click.option("--after", type=int, help="Only events with higher numbers.")
@click.option("-n", "--last", "limit", type=int, default=50, show_default=True, help="How many.")
@asks
def events(follow: bool, after: int | None, limit: int, asker: Asker, output: str) -> None:
    """What happened: relays that came and went, links, commands, alarms."""
    while True:
        found = asker.get("/v1/events", after=after, limit=limit)
        for line in found:
            after = line["number"]
            if output == "json":
                click.echo(json.dumps(line))
            else:
                click.echo(_event(line))
        if not follow:
            return
        after = after or 0
        if len(found) < limit:
            time.sleep(FOLLOW_S)


@click.command()
@click.option("-n", "--last", "limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many.")
@asks
def audit(limit: int, asker: Asker, output: str) -> None:
    """Who ordered what, and what came of it; takes an admin. Who only looked stands in the controller's log."""
    found = asker.get("/v1/audit", limit=limit)
    show(found, output, AUDIT_COLUMNS, [{**line, "at": _moment(line["at_wall"])} for line in found])


def _told(name: str, value: Any) -> dict[str, Any]:
    return {"what": name, "is": " ".join(map(str, value)) if isinstance(value, list) else value}


def _event(line: dict[str, Any]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(line["at_wall"]))
    said = " ".join(filter(None, (line["relay"], line["other"], line["detail"])))
    return f"{line['number']} {at} {'ALARM ' if line['alarm'] else ''}{line['kind']} {said}".rstrip()


def _override(one: dict[str, Any]) -> str:
    return f"{one['next_hop']} instead of {one['instead_of']} since {_moment(one['since_wall'])}: {one['cause']}"


def _moment(at_wall: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_wall))


def _parts(parts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in parts.items())
