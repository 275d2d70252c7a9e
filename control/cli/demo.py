"""EDGE: `tradewind demo`: a moving picture through a relay on this machine, in the browser and in the terminal."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TextIO

import click
import trio

from control.demo.shaper import LinkError, parse_schedule
from control.demo.show import Show, ShowError, ShowSettings
from control.web import PagesMissing
from tradewind.client.tools.options import Display, Seconds, bits, say

REFRESH_S = 0.25


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
@click.option("--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write a JSON line for each object.")
@click.option(
    "--viewer-link",
    "viewer_links",
    type=Link(),
    multiple=True,
    metavar="600kbit,2%,40ms[@10s]",
    help="Viewers sit behind a link: rate, loss, delay; @10s: from then on. May be repeated.",
)
@click.option("--viewers", type=click.IntRange(0, 1000), default=1, show_default=True, help="Measuring viewers.")
def command(
    headless: bool, for_s: float, as_json: bool, trace: Path | None, viewer_links: tuple[str, ...], viewers: int
) -> None:
    """Run one relay with a looping clip in two renditions, and open a page that plays it.

    The page's address is printed. Ctrl-C ends everything.
    """
    with _open_trace(trace) as file:
        show = Show(
            ShowSettings(links=parse_schedule(viewer_links), page=not headless, viewers=viewers, trace=file), say
        )
        try:
            trio.run(_run, show, for_s)
        except (ShowError, PagesMissing) as error:
            say(f"tradewind demo: {error}")
            sys.exit(1)
    if as_json:
        click.echo(show.summary().line())
    if viewers and not show.seen:
        say("tradewind demo: nothing came")
        sys.exit(1)


class _NoTrace:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _open_trace(path: Path | None) -> TextIO | _NoTrace:
    return _NoTrace() if path is None else path.open("w", encoding="utf-8")


async def _run(show: Show, for_s: float) -> None:
    ready = trio.Event()
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
            await show.run(ready.set)


async def _show_terminal(show: Show, ready: trio.Event) -> None:
    """One line that says ready, and where; on a terminal a table that lives."""
    await ready.wait()
    host, port = show.relay_address
    page = f": open {show.page_url}" if show.page_url else ""
    say(f"ready: {show.relay_name} on {host}:{port} shows live/demo{page}")
    with Display("", ("viewer", "rendition", "frames", "rate", "latency", "relay")) as display:
        while display.is_shown:
            display.title = f"live/demo{page}   Ctrl-C ends"
            display.show(_rows(show))
            await trio.sleep(REFRESH_S)


def _rows(show: Show) -> list[tuple[str, ...]]:
    elapsed = max(trio.current_time() - show.began, REFRESH_S)
    rows: list[tuple[str, ...]] = []
    for viewer in show.viewers:
        latency = "-" if viewer.latency_s is None else f"{viewer.latency_s * 1000:.1f} ms"
        rate = bits(8 * viewer.bytes / elapsed)
        rows.append(
            (viewer.name, viewer.problem or viewer.rendition, str(viewer.frames), rate, latency, show.relay_name)
        )
    return rows
