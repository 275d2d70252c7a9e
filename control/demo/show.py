"""EDGE: one show on this machine: a relay as a process, a looping clip, viewers that measure, and the viewer page.

`tradewind demo` runs it. Everything talks over real UDP on loopback; with a link shape, viewers and the page sit behind
a narrow, lossy place (`shaper`) and the publisher does not.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, TextIO

import trio

from control.cli.main import relay_command, relay_environment
from control.demo.measuring import Seen, Summary, summarize
from control.demo.shaper import LinkShape, Shaper
from control.web import page_server
from tradewind.client.connect import ClientSettings, Subscription, connect
from tradewind.client.timeline import MediaObject
from tradewind.client.tools.inputs import open_sources
from tradewind.client.tools.publishing import Progress, publish_media
from tradewind.client.tools.showing import choose_renditions
from tradewind.client.tools.subscribe import find_broadcast
from tradewind.moqt.model import FullTrackName, Location, Namespace, ObjectStatus
from tradewind.quic.config import ServerTrust

NAMESPACE: Namespace = (b"live", b"demo")
CLIPS = ("clip-360p.mp4", "clip-180p.mp4")
RELAY_PORTS = range(4443, 4543)
PAGE_PORTS = range(8080, 8180)
RELAY_STARTS_WITHIN_S = 15.0
RELAY_STOPS_WITHIN_S = 5.0
SENT_KEPT = 100_000


class ShowError(Exception):
    """The show cannot go on; says why in one line."""


@dataclass(frozen=True, slots=True)
class ShowSettings:
    """What is shown, and how."""

    links: tuple[tuple[float, LinkShape], ...] = ()
    """What lies between the relay and everybody who watches, each from its second of the show on; none: nothing."""
    page: bool = True
    viewers: int = 1
    trace: TextIO | None = None


@dataclass(slots=True)
class ViewerState:
    """One measuring viewer, for the terminal."""

    name: str
    frames: int = 0
    bytes: int = 0
    latency_s: float | None = None
    rendition: str = ""
    problem: str = ""


@dataclass(slots=True)
class Show:
    """What runs; the terminal reads it."""

    settings: ShowSettings
    tell: Callable[[str], None]
    """Says one line to whoever started the show."""
    relay_name: str = ""
    relay_address: tuple[str, int] = ("127.0.0.1", 0)
    sha256: str = ""
    page_url: str = ""
    progress: Progress | None = None
    viewers: list[ViewerState] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    began: float = 0.0
    _sent: dict[tuple[str, Location], float] = field(default_factory=dict)
    _shaper: Shaper | None = None

    async def run(self, ready: Callable[[], None]) -> None:
        """Run until cancelled; `ready` is called when the page can be opened. Raises ShowError."""
        failure: Exception | None = None
        process = await self._start_relay()
        try:
            async with trio.open_nursery() as nursery:
                try:
                    nursery.start_soon(self._watch_relay, process)
                    await self._start_link(nursery)
                    await self._start_publisher(nursery)
                    if self.settings.page:
                        await self._start_page(nursery)
                    self.began = trio.current_time()
                    for number in range(self.settings.viewers):
                        state = ViewerState(f"viewer-{number + 1}")
                        self.viewers.append(state)
                        nursery.start_soon(self._view, state)
                    ready()
                    await trio.sleep_forever()
                except ShowError as error:
                    failure = error
                    nursery.cancel_scope.cancel()
        except* ShowError as group:
            failure = group.exceptions[0]
        finally:
            with trio.CancelScope(shield=True):
                await _stop(process)
        if failure is not None:
            raise failure

    def summary(self) -> Summary:
        """The figures so far."""
        return summarize(self.seen)

    @property
    def watch_address(self) -> tuple[str, int]:
        """Where viewers dial: the relay, or the narrow link before it."""
        return ("127.0.0.1", self._shaper.port) if self._shaper is not None else self.relay_address

    async def _start_relay(self) -> trio.Process:
        port = free_port(RELAY_PORTS, socket.SOCK_DGRAM, socket.SOCK_STREAM)
        arguments = ("--dev", "--listen", f"127.0.0.1:{port}", "--ops", "127.0.0.1:0", "--log.level", "warning")
        process = await trio.lowlevel.open_process(
            relay_command(arguments), stdout=subprocess.PIPE, env=relay_environment(), start_new_session=True
        )
        assert process.stdout is not None
        said = b""
        with trio.move_on_after(RELAY_STARTS_WITHIN_S):
            while b"\n" not in said:
                data = await process.stdout.receive_some(4096)
                if not data:
                    break
                said += data
        found = re.match(r"ready: (\S+) .*sha256 ([0-9a-f]{64})", said.decode("utf-8", "replace"))
        if found is None:
            await _stop(process)
            raise ShowError(f"the relay did not start: {said.decode('utf-8', 'replace').strip() or 'see above'}")
        self.relay_name, self.sha256 = found[1], found[2]
        self.relay_address = ("127.0.0.1", port)
        return process

    async def _watch_relay(self, process: trio.Process) -> None:
        code = await process.wait()
        raise ShowError(f"the relay ended with code {code}")

    async def _start_link(self, nursery: trio.Nursery) -> None:
        if self.settings.links:
            self._shaper = Shaper(self.relay_address, LinkShape())
            nursery.start_soon(self._shaper.run)
            nursery.start_soon(self._change_links, self._shaper, trio.current_time())

    async def _change_links(self, shaper: Shaper, began: float) -> None:
        for at_s, shape in self.settings.links:
            await trio.sleep_until(began + at_s)
            shaper.reshape(shape)
            self.tell(f"link: {shape}")

    async def _start_publisher(self, nursery: trio.Nursery) -> None:
        started = trio.Event()

        def ready(progress: Progress) -> None:
            self.progress = progress
            started.set()

        async def publish() -> None:
            with as_file(files("control") / "demo") as folder:
                sources = open_sources([str(Path(folder) / clip) for clip in CLIPS])
                async with connect(self._url(self.relay_address), settings=self._client_settings()) as client:
                    await publish_media(client, NAMESPACE, sources, loop=True, ready=ready, written=self._note_sent)

        nursery.start_soon(publish)
        await started.wait()

    async def _start_page(self, nursery: trio.Nursery) -> None:
        port = free_port(PAGE_PORTS, socket.SOCK_STREAM)
        server = page_server(self._page_settings)
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        nursery.start_soon(server.serve, listeners)
        self.page_url = f"http://127.0.0.1:{port}/"

    def _page_settings(self) -> dict[str, Any]:
        host, port = self.watch_address
        return {
            "relay": {"url": f"https://{host}:{port}/", "name": self.relay_name, "certificate_sha256": self.sha256},
            "namespace": "/".join(field.decode() for field in NAMESPACE),
            "chat": True,
        }

    async def _view(self, state: ViewerState) -> None:
        """Watch as a player would: the catalogue, then the largest picture and the sound."""
        dialled = trio.current_time()
        try:
            async with connect(self._url(self.watch_address), settings=self._client_settings()) as client:
                broadcast = await find_broadcast(client, NAMESPACE, "auto", 10.0)
                async with trio.open_nursery() as nursery:
                    for rendition in choose_renditions(broadcast, ()):
                        track = FullTrackName(NAMESPACE, rendition.name.encode())
                        subscription = await client.subscribe(track)
                        if rendition.height:
                            state.rendition = f"{rendition.width}x{rendition.height}"
                        nursery.start_soon(self._read, state, dialled, rendition.name, subscription)
        except Exception as error:  # noqa: BLE001 - a viewer that fails is shown, the show goes on
            problem = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            state.problem = str(problem)
            self.tell(f"{state.name}: {problem!r}")

    async def _read(self, state: ViewerState, dialled: float, track: str, subscription: Subscription) -> None:
        async for item in subscription:
            sent = self._sent.get((track, item.location))
            if item.status is not ObjectStatus.NORMAL or sent is None:
                continue
            state.frames += 1
            state.bytes += len(item.payload)
            state.latency_s = item.received - sent
            size = len(item.payload)
            one = Seen(state.name, self.relay_name, track, *item.location, sent, item.received, size, dialled)
            self.seen.append(one)
            if self.settings.trace is not None:
                self.settings.trace.write(one.line() + "\n")

    def _note_sent(self, made: MediaObject, now: float) -> None:
        self._sent[made.track, made.location] = now
        if len(self._sent) > SENT_KEPT:
            del self._sent[next(iter(self._sent))]

    def _url(self, address: tuple[str, int]) -> str:
        return f"moqt://{address[0]}:{address[1]}/"

    def _client_settings(self) -> ClientSettings:
        return ClientSettings(trust=ServerTrust(pinned_sha256=bytes.fromhex(self.sha256)))


def free_port(ports: range, *kinds: socket.SocketKind) -> int:
    """The first port of a range that is free on 127.0.0.1 for all these kinds of socket. Raises ShowError."""
    for port in ports:
        held = [socket.socket(socket.AF_INET, kind) for kind in kinds]
        try:
            for one in held:
                one.bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return port
        finally:
            for one in held:
                one.close()
    raise ShowError(f"no free port in {ports.start}..{ports.stop - 1}")


async def _stop(process: trio.Process) -> None:
    """End a process in order, and after a while without."""
    if process.poll() is not None:
        return
    process.terminate()
    with trio.move_on_after(RELAY_STOPS_WITHIN_S):
        await process.wait()
        return
    process.kill()
    await process.wait()
