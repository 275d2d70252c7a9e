"""EDGE: `tradewind demo`: a moving picture through a relay on this machine, in the browser and in the terminal."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import click
import trio

from control.demo.faults import FaultError, parse_faults
from control.demo.processes import ShowError
from control.demo.shaper import LinkError, parse_schedule
from control.demo.show import Show, ShowSettings
from control.demo.world import REGIONS, RELAYS
from tradewind.client.tools.options import Display, Seconds, bits, say

REFRESH_S = 0.25
ROWS = 20
"""Viewers in the table; there may be hundreds."""


class Link(click.ParamType[str]):
    """A link such as 600kbit,2%,40ms, or 600kbit@10s: from the show's tenth second on."""

    name = "link"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The same text, checked."""
        try:
            parse_schedule([str(value)])
        except LinkError as error:
            self.fail(str(error), param, ctx)
        return str(value)


@click.command("demo")
@click.option("--headless", is_flag=True, help="Without the page.")
@click.option("--for", "for_s", type=Seconds(), default=float("inf"), help="Stop after so long, e.g. 20s.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of figures on standard output.")
@click.option("--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write what everybody had, JSON lines.")
@click.option(
    "--viewer-link",
    "viewer_links",
    type=Link(),
    multiple=True,
    metavar="600kbit,2%,40ms[@10s]",
    help="Viewers sit behind a link: rate, loss, delay; @10s: from then on. May be repeated.",
)
@click.option("--viewers", type=click.IntRange(0, 1000), default=4, show_default=True, help="Measuring viewers.")
@click.option(
    "--rendition", type=click.Choice(["low", "high"]), default="high", show_default=True, help="What they watch."
)
@click.option(
    "--viewers-in",
    "regions",
    multiple=True,
    type=click.Choice([region.name for region in REGIONS]),
    help="Where viewers are, in turn; without it where relays are.",
)
@click.option("--relays", type=click.IntRange(1, len(RELAYS)), default=len(RELAYS), show_default=True, help="So many.")
@click.option("--kill", "kills", multiple=True, metavar="NODE@20s", help="SIGKILL to a relay, or to control.")
@click.option("--start", "starts", multiple=True, metavar="NODE@40s", help="Start it again, with what it has on disk.")
@click.option("--drain", "drains", multiple=True, metavar="NODE@20s", help="Empty a relay as an operator would.")
@click.option(
    "--loss",
    "losses",
    multiple=True,
    metavar="FROM-TO=10%@20s[+5s]",
    help="One direction between two relays loses so much from then on, or for so long; 100% is silence.",
)
@click.option("--pids", type=click.Path(dir_okay=False, path_type=Path), help="Write process ids by name, as JSON.")
@click.option("--state", type=click.Path(path_type=Path), help="A new directory for all files and logs, which stays.")
def command(
    headless: bool,
    for_s: float,
    as_json: bool,
    trace: Path | None,
    viewer_links: tuple[str, ...],
    kills: tuple[str, ...],
    starts: tuple[str, ...],
    drains: tuple[str, ...],
    losses: tuple[str, ...],
    **others: Any,
) -> None:
    """Run five relays in four regions with a looping clip, and open a page that plays it.

    Distances are real round trips between Hong Kong, Singapore, Frankfurt and San Francisco, and 0.2 % is lost on each
    long link. The page's address is printed. Ctrl-C ends everything. Exit code 2: something was killed or faulted that
    nobody can have noticed.
    """
    try:
        faults = parse_faults(kills, starts, losses, drains)
    except FaultError as error:
        raise click.UsageError(str(error)) from error
    with _open_trace(trace) as file:
        show = Show(
            ShowSettings(links=parse_schedule(viewer_links), page=not headless, trace=file, faults=faults, **others),
            say,
        )
        try:
            trio.run(_run, show, for_s)
        except ShowError as error:
            say(f"tradewind demo: {error}")
            sys.exit(1)
        summary = show.summary()
    if as_json:
        click.echo(summary.line())
    if show.settings.viewers and not summary.objects:
        say("tradewind demo: nothing came")
        sys.exit(1)
    if summary.untouched:
        say(f"tradewind demo: touched nobody: {', '.join(summary.untouched)}")
        sys.exit(2)


class _NoTrace:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _open_trace(path: Path | None) -> TextIO | _NoTrace:
    return _NoTrace() if path is None else path.open("w", encoding="utf-8")


async def _run(show: Show, for_s: float) -> None:
    ready = trio.Event()
    failures: list[ShowError] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            async def time_out() -> None:
                await ready.wait()
                await trio.sleep(for_s)
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            nursery.start_soon(time_out)
            nursery.start_soon(_show_terminal, show, ready)
            try:
                await show.run(ready.set)
            except ShowError as error:
                failures.append(error)
            nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]


async def _show_terminal(show: Show, ready: trio.Event) -> None:
    """One line that says ready, and where; on a terminal a table that lives."""
    await ready.wait()
    page = f": open {show.page_url}" if show.page_url else ""
    say(f"the mesh: {show.map_url}")
    say(f"ready: {show.settings.relays} relays show live/demo{page}")
    with Display("", ("viewer", "relay", "track", "objects", "rate", "latency")) as display:
        while display.is_shown:
            display.title = f"live/demo{page}   Ctrl-C ends"
            display.show(_rows(show))
            await trio.sleep(REFRESH_S)


def _rows(show: Show) -> list[tuple[str, ...]]:
    elapsed = max(time.perf_counter() - show.began, REFRESH_S)
    rows: list[tuple[str, ...]] = []
    for name, viewer in list(show.viewers.items())[:ROWS]:
        latency = "-" if viewer.latency_s is None else f"{viewer.latency_s * 1000:.1f} ms"
        rate = bits(8 * viewer.bytes / elapsed)
        rows.append((name, viewer.relay, viewer.rendition, str(viewer.frames), rate, latency))
    return rows
