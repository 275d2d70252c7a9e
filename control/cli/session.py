"""EDGE: `tradewind session`: who is connected to relays, and how to end a session."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import click

from control.cli.asking import FAILED, Asker, CallError, asks, fail, show
from control.cli.orders import give_order

PAGE = 1000
COLUMNS = ("session", "address", "who", "namespaces", "reads", "feeds", "rtt_ms", "open_s", "bytes_out", "protocol")


class SessionId(click.ParamType[tuple[str, int]]):
    """A relay's id and the number of a session there: fra-1/42."""

    name = "relay/session"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Both."""
        found = re.fullmatch(r"([a-z0-9-]{1,40})/([1-9][0-9]{0,15})", str(value))
        if found is None:
            self.fail(f"{value!r} is not a relay and a session such as fra-1/42", param, ctx)
        return found[1], int(found[2])


@click.group()
def session() -> None:
    """Look at sessions, and end them."""


@session.command("ls")
@click.option("--node", "relay", help="Only this relay's.")
@click.option("--namespace", help="Only those that publish or subscribe to it, or to something beneath it.")
@click.option("--match", help="Only those with this text in what is known of them: an address, a subject ...")
@click.option("-n", "--limit", type=click.IntRange(1), default=200, show_default=True, help="At most so many a relay.")
@asks
def session_ls(
    relay: str | None, namespace: str | None, match: str | None, limit: int, asker: Asker, output: str
) -> None:
    """Sessions, as their relays have them now.

    Every relay that is connected is asked, or the one that --node names. What does not answer is told on standard
    error, and the exit code is 1.
    """
    relays = [relay] if relay else [node["id"] for node in asker.get("/v1/nodes") if node["connected"]]
    sessions: list[dict[str, Any]] = []
    totals: dict[str, int] = {}
    more: dict[str, int] = {}
    failed: dict[str, str] = {}
    for name in relays:
        try:
            found, totals[name], after = _sessions_of(asker, name, limit, namespace=namespace, match=match)
        except CallError as error:
            if relay:
                fail(error, error.code)
            failed[name] = str(error)
            continue
        sessions += found
        if after is not None:
            more[name] = after
    if output == "json":
        click.echo(json.dumps({"sessions": sessions, "totals": totals, "more_after": more, "failed": failed}))
    else:
        show(sessions, output, COLUMNS, [_row(one) for one in sessions])
        for name in more:
            click.echo(f"{name} has more: --node {name} --limit ...", err=True)
    for name, why in failed.items():
        click.echo(f"error: {name}: {why}", err=True)
    if failed:
        raise SystemExit(FAILED)


@session.command("kick")
@click.argument("id", type=SessionId())
@click.option("--reason", default="", help="Told to the session, and kept in the audit.")
@click.option("--id", "command", help="Of the command: asking again with it does nothing twice.")
@click.option("--wait", "wait_s", type=float, default=5.0, show_default=True, help="Seconds to wait until it is done.")
@asks
def session_kick(
    id: tuple[str, int], reason: str, command: str | None, wait_s: float, asker: Asker, output: str
) -> None:
    """End the session ID, such as fra-1/42 of `tradewind session ls`.

    Its client is told UNAUTHORIZED and the reason. It may come back: what keeps it out is its token. No neighbour
    is ended like that.
    """
    relay, number = id
    order = {"relay": relay, "action": "kick", "session": number, "reason": reason}
    give_order(asker, output, order, command, wait_s)


def _sessions_of(
    asker: Asker, relay: str, limit: int, **how: str | None
) -> tuple[list[dict[str, Any]], int, int | None]:
    """Up to `limit` sessions of a relay, how many it has, and after which to go on. Raises CallError."""
    found: list[dict[str, Any]] = []
    after: int | None = 0
    total = 0
    while after is not None and len(found) < limit:
        page = asker.ask("/v1/sessions", node=relay, after=after, limit=min(PAGE, limit - len(found)), **how)
        found += [{"session": f"{relay}/{one['id']}", "relay": relay, **one} for one in page["sessions"]]
        after, total = page["next"], page["total"]
    return found, total, after


def _row(one: Mapping[str, Any]) -> dict[str, Any]:
    namespaces = list(one.get("namespaces", ()))
    if one.get("namespaces_more"):
        namespaces.append(f"and {one['namespaces_more']} more")
    who = f"relay {one['neighbour']}" if one.get("neighbour") else one.get("subject")
    return {**one, "who": who, "namespaces": " ".join(namespaces), "reads": one.get("subscriptions")}
