"""`tradewind subscribe`: a broadcast from a relay, shown as numbers or written as fragmented MP4."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import trio

from tradewind.client.catalog import HANG_TRACK, MSF_TRACK, CatalogError, MsfReader, decode_hang
from tradewind.client.connect import Client, LinkLost, RequestFailed, Subscription, connect
from tradewind.client.fmp4 import Kind
from tradewind.client.media import Broadcast, Rendition
from tradewind.client.receiving import Arrival
from tradewind.client.recording import CannotRecord, Recorder
from tradewind.client.target import parse_namespace
from tradewind.client.tools.options import (
    Display,
    Seconds,
    ToolError,
    beside,
    bits,
    client_settings,
    relay_options,
    report,
    run_tool,
    say,
)
from tradewind.client.tools.publish import describe_rendition, show_namespace
from tradewind.moqt.model import FullTrackName, Namespace

CATALOG_TIMEOUT_S = 10.0
_REFRESH_S = 0.25


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
            await watch_placed(control.split(","), namespace, token or "", settings, output, names, wait_s, for_s)
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
    watcher = Watcher(lambda: f"{client.target}  {client.protocol}", lambda: client.rtt_s, chosen, recorder, _Sink(output))
    subscriptions = [await client.subscribe(FullTrackName(namespace, r.name.encode())) for r in chosen]
    tracks = ", ".join(describe_rendition(rendition) for rendition in chosen)
    say(f"ready: {show_namespace(namespace)} from {client.target} ({client.protocol}): {tracks}")
    try:
        await beside(lambda: watcher.read_all(subscriptions), watcher.keep_showing, watcher.keep_time)
    finally:
        with trio.move_on_after(1.0, shield=True):
            await watcher.finish()


async def find_broadcast(client: Client, namespace: Namespace, catalog: str, wait_s: float) -> Broadcast:
    """Read whichever of the two catalogues comes first. Raises ToolError where none does."""
    found: list[Broadcast] = []
    failures: dict[str, str] = {}

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


def choose_renditions(broadcast: Broadcast, names: Sequence[str]) -> list[Rendition]:
    """The named renditions, or the largest video and the first audio. Raises ToolError."""
    if names:
        chosen = [broadcast.named(name) for name in names]
        missing = [name for name, rendition in zip(names, chosen) if rendition is None]
        if missing:
            offered = ", ".join(rendition.name for rendition in broadcast.renditions)
            raise ToolError(f"no track {', '.join(missing)}: the catalogue has {offered}")
        return [rendition for rendition in chosen if rendition is not None]
    video = sorted(broadcast.of(Kind.VIDEO), key=lambda r: (r.width * r.height, r.bitrate))
    chosen_ones = [*video[-1:], *broadcast.of(Kind.AUDIO)[:1]]
    if not chosen_ones:
        raise ToolError("the catalogue has no video and no audio")
    return chosen_ones


class _Sink:
    """Where the file goes."""

    def __init__(self, output: str | None) -> None:
        self._stream: trio.lowlevel.FdStream | None = None
        self._file = None
        if output is None:
            return
        if output == "-" and not stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode):
            self._stream = trio.lowlevel.FdStream(os.dup(sys.stdout.fileno()))
        else:
            try:
                self._file = sys.stdout.buffer if output == "-" else Path(output).open("wb")  # noqa: SIM115
            except OSError as error:
                raise ToolError(f"{output}: {error.strerror}") from error

    async def write(self, data: bytes) -> None:
        if self._file is not None and data:
            self._file.write(data)
            self._file.flush()
        elif self._stream is not None and data:
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError as error:
                raise ToolError("standard output was closed") from error

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
        if self._stream is not None:
            os.close(self._stream.fileno())


class _Watcher:
    """Moves arrivals into the recorder and its output to the sink, and keeps count."""

    def __init__(
        self, client: Client, namespace: Namespace, chosen: Sequence[Rendition], recorder: Recorder, sink: _Sink
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._chosen = chosen
        self._recorder = recorder
        self._sink = sink
        self._objects = [0] * len(chosen)
        self._bytes = [0] * len(chosen)
        self._latency_s: list[float | None] = [None] * len(chosen)
        self._began = trio.current_time()
        self._writing = trio.Lock()

    async def read_all(self, subscriptions: Sequence[Subscription]) -> None:
        """Take all tracks until they end."""
        async with trio.open_nursery() as nursery:
            for index, subscription in enumerate(subscriptions):
                nursery.start_soon(self._read, index, subscription)

    async def _read(self, index: int, subscription: Subscription) -> None:
        while (arrival := await subscription.next_arrival()) is not None:
            self._count(index, arrival)
            self._recorder.receive(index, arrival, trio.current_time())
            await self._write()

    async def keep_time(self) -> None:
        """Write what was waited for in vain."""
        while True:
            await trio.sleep(0.1)
            await self._write()

    async def finish(self) -> None:
        """Write the rest and say what came."""
        try:
            await self._sink.write(self._recorder.finish())
        finally:
            self._sink.close()
        seen = self._recorder.statistics()
        elapsed = trio.current_time() - self._began
        what = f"{seen.frames} frames, {seen.gaps} gaps, {seen.broken} broken objects"
        say(f"{what} in {elapsed:.1f} s, {seen.bytes} bytes")

    async def _write(self) -> None:
        async with self._writing:
            await self._sink.write(self._recorder.output(trio.current_time()))

    def _count(self, index: int, arrival: Arrival) -> None:
        payload = getattr(arrival, "payload", None)
        if payload is not None:
            self._objects[index] += 1
            self._bytes[index] += len(payload)

    async def keep_showing(self) -> None:
        """Draw the table until cancelled."""
        columns = ("track", "rate", "objects", "gaps", "latency")
        with Display("", columns) as display:
            while display.is_shown:
                where = f"{self._client.target}  {self._client.protocol}  rtt {self._client.rtt_s * 1000:.1f} ms"
                display.title = f"{show_namespace(self._namespace)} <- {where}"
                display.show(self._rows())
                await trio.sleep(_REFRESH_S)

    def _rows(self) -> list[Sequence[str]]:
        elapsed = max(trio.current_time() - self._began, _REFRESH_S)
        gaps = str(self._recorder.statistics().gaps)
        rows: list[Sequence[str]] = []
        for index, rendition in enumerate(self._chosen):
            media_time = self._recorder.media_times[index]
            latency_s = time.time() - media_time if media_time is not None else None
            # Only publishers whose media time is wall time (ours is) say how old a frame is.
            latency = f"{latency_s * 1000:.0f} ms" if latency_s is not None and abs(latency_s) < 3600 else "-"
            rate = bits(8 * self._bytes[index] / elapsed)
            rows.append((rendition.name, rate, str(self._objects[index]), gaps, latency))
        return rows
