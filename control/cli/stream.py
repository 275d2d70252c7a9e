"""EDGE: `tradewind stream`: what is published where, and by which relays it reaches its viewers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from control.cli.asking import WRONGLY_ASKED, Asker, asks, fail, show
from tradewind.client.tools.options import bits

COLUMNS = ("namespace", "relay", "source", "tracks", "subscribers", "bytes_per_s")
PUBLISHER = "publisher"


@click.group()
def stream() -> None:
    """Look at what is published, and where it goes."""


@stream.command("ls")
@click.option("--node", "relay", help="Only what this relay has.")
@click.option("--namespace", help="Only this one and what lies beneath it.")
@asks
def stream_ls(relay: str | None, namespace: str | None, asker: Asker, output: str) -> None:
    """Every namespace at every relay that has it, in a line each.

    SOURCE is "publisher" where its publisher's session is, else the neighbour that it comes from, and - where nobody
    feeds it now. SUBSCRIBERS are sessions, without those of neighbours. A relay tells its 256 busiest namespaces.
    """
    found = asker.get("/v1/streams")
    beneath = "/".join(filter(None, (namespace or "").split("/")))
    found["streams"] = [
        row
        for row in found["streams"]
        if relay in {None, row["relay"]} and f"{row['namespace']}/".startswith(f"{beneath}/" if beneath else "")
    ]
    show(found, output, COLUMNS, found["streams"])
    if output == "table":
        for name, count in found["more"].items():
            if relay in {None, name}:
                click.echo(f"and {count} others at {name} that are less busy", err=True)


@stream.command("trace")
@click.argument("namespace")
@asks
def stream_trace(namespace: str, asker: Asker, output: str) -> None:
    """The tree that NAMESPACE is: from the relay of its publisher, hop by hop, to every relay that has it.

    Each line: relay, tracks, viewers there, what comes in, and the link that it comes over. A relay that is not beneath
    a publisher's stands at the end, with what it says.
    """
    rows = asker.get("/v1/streams", namespace=namespace)["streams"]
    if not rows:
        fail(f"no relay has {namespace}", WRONGLY_ASKED)
    hops = {(link["sender"], link["receiver"]): link for link in asker.get("/v1/links")}
    tree = trace(rows, hops)
    if output == "json":
        click.echo(json.dumps({"namespace": namespace, **tree}))
        return
    viewers = sum(row["subscribers"] for row in rows)
    click.echo(f"{namespace}: {len(rows)} relays, {viewers} viewers")
    for root in tree["origins"]:
        for line in _lines(root, "", ""):
            click.echo(line)
    for row in tree["astray"]:
        click.echo(f"?? {_said(row)}, from {row['source'] or 'nobody'}")


def trace(rows: Sequence[Mapping[str, Any]], hops: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    """One namespace's rows as trees: `origins`, each with who takes it from there in `takers`; `astray`: the others.

    `hops`: what is known of links, by sender and receiver; a node has that of its own in `link`.
    """
    takers: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        takers.setdefault(row["source"], []).append(row)
    placed: set[str] = set()

    def grown(row: Mapping[str, Any]) -> dict[str, Any]:
        placed.add(row["relay"])
        link = hops.get((row["source"], row["relay"]))
        # A relay may have any name, that of the source of all trees too.
        below = takers.get(row["relay"], ()) if row["relay"] != PUBLISHER else ()
        return {**row, "link": dict(link) if link else None, "takers": [grown(taker) for taker in below]}

    origins = [grown(row) for row in takers.get(PUBLISHER, ())]
    return {"origins": origins, "astray": [dict(row) for row in rows if row["relay"] not in placed]}


def _lines(node: Mapping[str, Any], first: str, rest: str) -> Iterator[str]:
    link = node["link"]
    over = ""
    if link is not None:
        over = f", over {link['rtt_ms']:.0f} ms, {100 * link['loss_ratio']:.1f} % lost"
        over += "" if link["usable"] else ", NOT UP"
    yield f"{first}{_said(node)}{over}"
    for number, taker in enumerate(node["takers"], 1):
        last = number == len(node["takers"])
        yield from _lines(taker, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


def _said(row: Mapping[str, Any]) -> str:
    origin = " (publisher)" if row["source"] == PUBLISHER else ""
    figures = f"{row['tracks']} tracks, {row['subscribers']} viewers, {bits(8 * row['bytes_per_s'])}"
    return f"{row['relay']}{origin}: {figures}"
