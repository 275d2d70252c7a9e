"""`tradewind subscribe`: a broadcast from a relay, shown as numbers or written as fragmented MP4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import trio

from tradewind.client.catalog import HANG_TRACK, MSF_TRACK, CatalogError, MsfReader, decode_hang
from tradewind.client.connect import Client, ClientSettings, LinkLost, RequestFailed, connect
from tradewind.client.media import Broadcast
from tradewind.client.placed import PlacedSettings, PlacedViewer
from tradewind.client.recording import CannotRecord, Recorder
from tradewind.client.target import parse_namespace
from tradewind.client.tools.options import (
    Seconds,
    ToolError,
    beside,
    client_settings,
    relay_options,
    report,
    run_tool,
    say,
)
from tradewind.client.tools.placed import PlacedWatching
from tradewind.client.tools.publish import describe_rendition, show_namespace
from tradewind.client.tools.showing import Sink, Watcher, choose_renditions
from tradewind.moqt.model import FullTrackName, Namespace

CATALOG_TIMEOUT_S = 10.0


@click.command("subscribe")
@click.argument("url", required=False)
@click.option("--namespace", required=True, metavar="A/B", help="The namespace to watch, e.g. live/demo.")
@click.option(
    "--place", "control", metavar="URL[,URL]", help="Ask these controllers for the relay, and move when it fails."
)
@click.option("-o", "--output", metavar="FILE|-", help="Write fragmented MP4 here; - is standard output.")
@click.option("--track", "names", multiple=True, help="Take this track; may be repeated.")
@click.option("--catalog", type=click.Choice(["auto", "msf", "hang"]), default="auto", show_default=True)
@click.option("--wait", "wait_s", type=Seconds(), default=10.0, help="Wait so long for the publisher.")
@click.option("--for", "for_s", type=Seconds(), default=float("inf"), help="Stop after so long, e.g. 20s.")
@relay_options
def command(
    url: str | None,
    namespace: str,
    control: str | None,
    output: str | None,
    names: tuple[str, ...],
    catalog: str,
    wait_s: float,
    for_s: float,
    token: str | None,
    insecure: bool,
    fingerprint: str | None,
    ca: Path | None,
    drafts: tuple[str, ...],
) -> None:
    """Watch a broadcast: show what arrives, or write it as fragmented MP4 (-o FILE, or -o - for a player's pipe).

    URL is a relay's. With --place it is left out, and --namespace is the whole one, with what the URL's path would say.
    """
    if (url is None) == (control is None):
        raise click.UsageError("expected either the URL of a relay or --place")

    async def work() -> None:
        settings = client_settings(insecure, fingerprint, ca, drafts)
        if control is not None:
            with trio.move_on_after(for_s):
                await _watch_placed(control.split(","), namespace, token or "", settings, output, names, wait_s)
            return
        assert url is not None
        async with connect(url, token=token, settings=settings, report=report) as client:
            with trio.move_on_after(for_s):
                await _watch(client, parse_namespace(namespace), output, names, catalog, wait_s)

    run_tool("subscribe", work)


async def _watch(
    client: Client, namespace: Namespace, output: str | None, names: Sequence[str], catalog: str, wait_s: float
) -> None:
    broadcast = await find_broadcast(client, namespace, catalog, wait_s)
    chosen = choose_renditions(broadcast, names)
    try:
        recorder = Recorder(chosen)
    except CannotRecord as error:
        raise ToolError(str(error)) from error

    def title() -> str:
        return f"{show_namespace(namespace)} <- {client.target}  {client.protocol}  rtt {client.rtt_s * 1000:.1f} ms"

    watcher = Watcher(title, chosen, recorder, Sink(output), trio.current_time())
    subscriptions = [await client.subscribe(FullTrackName(namespace, r.name.encode())) for r in chosen]
    tracks = ", ".join(describe_rendition(rendition) for rendition in chosen)
    say(f"ready: {show_namespace(namespace)} from {client.target} ({client.protocol}): {tracks}")
    try:
        await beside(lambda: watcher.read_all(subscriptions), watcher.keep_showing, watcher.keep_time)
    finally:
        with trio.move_on_after(1.0, shield=True):
            await watcher.finish()


async def _watch_placed(
    control: Sequence[str],
    namespace: str,
    token: str,
    settings: ClientSettings,
    output: str | None,
    names: Sequence[str],
    wait_s: float,
) -> None:
    watching = PlacedWatching(namespace, names, output)
    viewer = PlacedViewer(
        PlacedSettings(tuple(control), namespace, token, trust=settings.trust, protocols=settings.protocols),
        watching.choose,
        watching.on_object,
        watching.on_change,
        watching.on_group_end,
    )
    await beside(lambda: watching.run(viewer, wait_s), viewer.run)


async def find_broadcast(client: Client, namespace: Namespace, catalog: str, wait_s: float) -> Broadcast:
    """Read whichever of the two catalogues comes first. Raises ToolError where none does."""
    found: list[Broadcast] = []
    failures: dict[str, str] = {}
    # The relay waits for us; not for longer than we do.
    client.rendezvous_ms = min(client.rendezvous_ms, round(1000 * wait_s))

    async def read(kind: str, name: bytes) -> None:
        try:
            subscription = await client.subscribe(FullTrackName(namespace, name), wait_s=wait_s)
        except (RequestFailed, LinkLost) as error:
            failures[kind] = str(error)
            return
        with trio.move_on_after(CATALOG_TIMEOUT_S):
            async for item in subscription:
                try:
                    found.append(MsfReader().receive(item.payload) if kind == "msf" else decode_hang(item.payload))
                except CatalogError as error:
                    failures[kind] = f"the catalogue cannot be read: {error}"
                    continue
                subscription.cancel()
                nursery.cancel_scope.cancel()
                return
        failures.setdefault(kind, "no catalogue came")
        subscription.cancel()

    async with trio.open_nursery() as nursery:
        for kind, name in (("msf", MSF_TRACK), ("hang", HANG_TRACK)):
            if catalog in ("auto", kind):
                nursery.start_soon(read, kind, name)
    if not found:
        reasons = "; ".join(f"{kind}: {reason}" for kind, reason in failures.items())
        raise ToolError(f"no broadcast at {show_namespace(namespace)}: {reasons}")
    return found[0]
