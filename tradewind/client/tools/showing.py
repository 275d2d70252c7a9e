"""What `tradewind subscribe` makes of what arrives: a table for people, a file or a pipe for players."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from tradewind.client.fmp4 import Kind
from tradewind.client.media import Broadcast, Rendition
from tradewind.client.receiving import Arrival
from tradewind.client.recording import Recorder
from tradewind.client.subscription import Subscription
from tradewind.client.tools.options import Display, ToolError, bits, say

REFRESH_S = 0.25


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


class Sink:
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


class Watcher:
    """Moves arrivals into the recorder and its output to the sink, and keeps count."""

    def __init__(
        self, title: Callable[[], str], chosen: Sequence[Rendition], recorder: Recorder, sink: Sink, began: float
    ) -> None:
        """`title`: what stands above the table; `began`: now."""
        self._title = title
        self._chosen = chosen
        self._recorder = recorder
        self._sink = sink
        self._objects = [0] * len(chosen)
        self._bytes = [0] * len(chosen)
        self._began = began
        self._writing = trio.Lock()
        self._news = trio.Event()

    def take(self, index: int, arrival: Arrival) -> None:
        """Take an arrival of a track; `keep_writing` writes what it completes."""
        self._count(index, arrival)
        self._recorder.receive(index, arrival, trio.current_time())
        self._news.set()

    async def keep_writing(self) -> None:
        """Write what `take` was given, for ever."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await self._write()

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
                display.title = self._title()
                display.show(self._rows())
                await trio.sleep(REFRESH_S)

    def _rows(self) -> list[Sequence[str]]:
        elapsed = max(trio.current_time() - self._began, REFRESH_S)
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
