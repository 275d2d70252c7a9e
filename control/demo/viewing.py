"""EDGE: a process of placed viewers that write down what they see: `python -m control.demo.viewing`.

Demos and benches start it beside a mesh and read its standard output, one JSON object a line: every object of every
viewer, and every change of where a viewer is. Times are `time.perf_counter()`, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from tradewind.client.fmp4 import Kind
from tradewind.client.media import Broadcast
from tradewind.client.placed import Change, PlacedSettings, PlacedViewer
from tradewind.client.receiving import ReceivedObject
from tradewind.client.tools.options import ToolError
from tradewind.client.tools.showing import choose_renditions
from tradewind.quic.config import ServerTrust

BEHIND = 5
"""How nice viewers are: relays do not share a machine with those who watch, and shall not wait for them here."""
FLUSH_S = 0.1
MAX_WAITING_BYTES = 64 << 20
"""What waits for a reader that does not read; then the process ends."""
_SECONDS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0}


class TraceWriter:
    """Lines on their way to a file descriptor, in batches: viewers never wait for who reads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[str] = []
        self._size_bytes = 0

    def put(self, **fields: object) -> None:
        """Add one line."""
        self.put_line(json.dumps(fields, separators=(",", ":")))

    def put_line(self, line: str) -> None:
        """Add one line that is JSON already."""
        self._size_bytes += len(line) + 1
        if self._size_bytes > MAX_WAITING_BYTES:
            raise BrokenPipeError("nobody reads the trace")
        self._lines.append(line)

    async def keep_flushing(self) -> None:
        """Write what there is every `FLUSH_S`, for ever."""
        while True:
            await trio.sleep(FLUSH_S)
            data = self._take()
            if data:
                await trio.to_thread.run_sync(self._write, data)

    def flush(self) -> None:
        """Write the rest now."""
        self._write(self._take())

    def _take(self) -> bytes:
        lines, self._lines, self._size_bytes = self._lines, [], 0
        return "".join(line + "\n" for line in lines).encode()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


class ObjectLines:
    """What one viewer writes of each object. Numbers alone differ from one to the next: the rest is written once."""

    def __init__(self, viewer: str, dialled: float, clock_offset: float) -> None:
        self._always = {"kind": "object", "viewer": viewer, "dialled": dialled}
        self._clock_offset = clock_offset
        self._heads: dict[tuple[str, str], str] = {}

    def line(self, relay: str, track: str, item: ReceivedObject) -> str:
        """JSON of one object."""
        head = self._heads.get((relay, track))
        if head is None:
            said = {**self._always, "relay": relay, "track": track}
            head = self._heads[relay, track] = json.dumps(said, separators=(",", ":"))[:-1]
        (group, number), received = item.location, item.received + self._clock_offset
        return f'{head},"group":{group},"object":{number},"received":{received:.6f},"size":{len(item.payload)}}}'


@dataclass(frozen=True, slots=True)
class ViewingSettings:
    """How many viewers, of what, and whom they ask."""

    control: tuple[str, ...]
    namespace: str
    token: str
    viewers: int = 20
    first: int = 1
    sha256: str = ""
    source: str | None = None
    rendition: str = "auto"
    spread_s: float = 2.0


async def view(settings: ViewingSettings, trace: TraceWriter) -> None:
    """Run the viewers until cancelled."""
    clock_offset = time.perf_counter() - trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trace.keep_flushing)
        for number in range(settings.viewers):
            begins_after_s = settings.spread_s * number / settings.viewers
            nursery.start_soon(_view_one, settings, trace, number + settings.first, begins_after_s, clock_offset)


async def _view_one(
    settings: ViewingSettings, trace: TraceWriter, number: int, begins_after_s: float, clock_offset: float
) -> None:
    await trio.sleep(begins_after_s)
    name = f"viewer-{number}"
    dialled = round(trio.current_time() + clock_offset, 6)

    lines = ObjectLines(name, dialled, clock_offset)

    def on_object(relay: str, track: str, item: ReceivedObject) -> None:
        trace.put_line(lines.line(relay, track, item))

    def on_change(change: Change) -> None:
        at = round(change.at + clock_offset, 6)
        trace.put(
            kind="change", viewer=name, at=at, state=change.state, relay=change.relay, was=change.was,
            reason=change.reason,
        )  # fmt: skip

    viewer = PlacedViewer(
        PlacedSettings(
            control=settings.control,
            namespace=settings.namespace,
            token=settings.token,
            viewer=name,
            source=settings.source,
            trust=ServerTrust(pinned_sha256=bytes.fromhex(settings.sha256) if settings.sha256 else None),
        ),
        chooser(settings.rendition),
        on_object,
        on_change,
    )
    await viewer.run()


def chooser(rendition: str) -> Callable[[Broadcast], Sequence[str]]:
    """What viewers read of a catalogue: one picture, the smallest for `low`, else the largest; and the sound.

    `picture`: the largest, and no sound.
    """

    def choose(broadcast: Broadcast) -> list[str]:
        names: list[str] = []
        pictures = sorted(broadcast.of(Kind.VIDEO), key=lambda r: (r.width * r.height, r.bitrate))
        if rendition == "low":
            names = [r.name for r in (*pictures[:1], *broadcast.of(Kind.AUDIO)[:1])]
        elif rendition == "picture":
            names = [r.name for r in pictures[-1:]]
        try:
            return [r.name for r in choose_renditions(broadcast, names)]
        except ToolError:
            return []

    return choose


def parse(arguments: Sequence[str] | None = None) -> ViewingSettings:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m control.demo.viewing", description=__doc__)
    parser.add_argument("--control", action="append", required=True, metavar="URL", help="may be repeated")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--first", type=int, default=1, help="number of the first viewer")
    parser.add_argument("--sha256", default="", metavar="HEX", help="the certificate of all relays")
    parser.add_argument("--source", metavar="ADDRESS", help="local address that everything leaves from")
    parser.add_argument("--rendition", choices=("low", "high", "auto", "picture"), default="auto")
    parser.add_argument("--spread", type=_seconds, default=2.0, metavar="2s", help="over how long viewers begin")
    given = parser.parse_args(arguments)
    if given.sha256 and re.fullmatch(r"[0-9a-fA-F]{64}", given.sha256) is None:
        parser.error("--sha256: expected 64 hexadecimal digits")
    return ViewingSettings(
        tuple(given.control),
        given.namespace,
        given.token,
        given.viewers,
        given.first,
        given.sha256,
        given.source,
        given.rendition,
        given.spread,
    )


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 2s")
    return float(found[1]) * _SECONDS[found[2]]


async def _until_signal(settings: ViewingSettings, trace: TraceWriter) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(view, settings, trace)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; what is waiting is written before the end."""
    settings = parse(arguments)
    os.nice(BEHIND)
    trace = TraceWriter(sys.stdout.fileno())
    code = 0
    try:
        trio.run(_until_signal, settings, trace)
        trace.flush()
    except* BrokenPipeError:
        # Whoever read has gone.
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
