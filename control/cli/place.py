"""EDGE: `tradewind place`: where a viewer would be sent, and why."""

from __future__ import annotations

from typing import Any

import click

from control.cli.asking import REFUSED, Asker, asks, fail, show

COLUMNS = ("place", "relay", "region", "cost_ms")
PARTS = ("rtt_ms", "price_ms", "order_ms", "load_ms", "rush_ms", "track_ms", "full_ms", "here_ms")
EXPLAINED = (*COLUMNS, *PARTS, "load", "verdict")


@click.command()
@click.argument("namespace")
@click.option("--from", "origin", metavar="ADDRESS|COUNTRY", help="Where the viewer is: 203.0.113.7, or DE.")
@click.option("--viewer", help="Tells viewers at one place apart: they are spread over relays.")
@click.option("--here", metavar="RELAY", help="The relay that it is on.")
@click.option("--failed", metavar="RELAY,...", help="Relays that it could not reach.")
@click.option("--explain", is_flag=True, help="Every relay that was thought of, with every part of its cost.")
@asks
def place(
    namespace: str,
    origin: str | None,
    viewer: str | None,
    here: str | None,
    failed: str | None,
    explain: bool,
    asker: Asker,
    output: str,
) -> None:
    """Where somebody who wants to watch NAMESPACE would be sent by /v1/place.

    Without --from: as if it asked from this machine. Nobody is placed by this, and nothing is counted. The exit code
    is 3 where the answer would be a refusal.
    """
    asked = {"namespace": namespace, "from": origin, "viewer": viewer, "here": here, "failed": failed}
    found = asker.get("/v1/place/explain", **asked)
    if output == "table" and explain:
        click.echo(_head(namespace, found))
    if output == "json" or explain or not found["refused"]:
        shown = found["relays"] if explain else [one for one in found["relays"] if one["place"] is not None]
        show(found, output, EXPLAINED if explain else COLUMNS, [_rounded(one) for one in shown])
    if found["refused"]:
        fail(f"such a viewer is refused: {found['refused']}", REFUSED)


def _head(namespace: str, found: dict[str, Any]) -> str:
    said = [f"{namespace} for a viewer in {found['country'] or 'a country that nobody knows'}"]
    if found["measured_ms"]:
        said.append("measured " + ", ".join(f"{name} {rtt:g} ms" for name, rtt in found["measured_ms"].items()))
    if found["guessed"]:
        said.append("round trips are guessed")
    if found["panic"]:
        said.append("so much is full that bounds on load are ignored")
    return "; ".join(said)


def _rounded(one: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in one.items()}
