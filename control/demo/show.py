"""EDGE: one show on this machine: a mesh of relays, a controller, a publisher and viewers as processes, and a page.

`tradewind demo` runs it. Everything talks over real UDP on loopback, through `network`, which delays and loses as the
distances of `world` do. What happens to relays and links on the way (`faults`) goes into the trace with everything that
viewers had; `measuring` makes figures of it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, TextIO

import trio

from control.cli.asking import CallError, call
from control.demo.faults import CONTROL, Fault, Kind
from control.demo.fronts import splice
from control.demo.measuring import Record, Summary
from control.demo.papers import CONTROLLER, Papers, write_papers
from control.demo.ports import free_port, front_ports, page_port
from control.demo.processes import Program, ShowError, stop_all
from control.demo.shaper import LinkShape
from control.demo.world import HOME, MESH, PUBLISHER_HOST, REGIONS, RELAYS, RTT_MS, prefixes, relay_host, viewer_host
from control.web import PagesMissing, page_server

NAMESPACE = "live/demo"
ROOM = "live/r/lobby"
CLIPS = ("clip-360p.mp4", "clip-180p.mp4")
VIEWERS_A_PROCESS = 20
MESH_WITHIN_S = 30.0
POLL_S = 0.2
NETWORK_SEED = 7
DRAIN_S = 10.0
"""A relay that is drained is empty after so long."""
UNSENT_MOST = 10_000
SERVED = ("viewers", "publisher", "talkers")


@dataclass(frozen=True, slots=True)
class ShowSettings:
    """What is shown, and how."""

    links: tuple[tuple[float, LinkShape], ...] = ()
    """What viewers sit behind besides their distance, each from its second of the show on."""
    page: bool = True
    relays: int = len(RELAYS)
    viewers: int = 1
    rendition: str = "high"
    spread_s: float = 1.0
    """Viewers come over so long."""
    regions: tuple[str, ...] = ()
    """Where viewers are; none: wherever relays are, in turn."""
    home: str = HOME
    """The region of whoever looks at a page."""
    longest_rtt_ms: float | None = None
    """No two relays are farther apart: all ways between relays are shorter by one ratio."""
    talk: bool = True
    """Whether somebody at every relay writes into a room."""
    trace: TextIO | None = None
    faults: tuple[Fault, ...] = ()
    pids: Path | None = None
    state: Path | None = None
    """Where files and logs stay; None: nowhere."""


@dataclass(slots=True)
class ViewerState:
    """One measuring viewer, for the terminal."""

    relay: str = ""
    rendition: str = ""
    frames: int = 0
    bytes: int = 0
    latency_s: float | None = None


NO_PAPERS = Papers(Path(), "", "", "", "")


@dataclass(slots=True)
class Show:
    """What runs; the terminal reads it."""

    settings: ShowSettings
    tell: Callable[[str], None]
    """Says one line to whoever started the show."""
    record: Record = field(default_factory=Record)
    viewers: dict[str, ViewerState] = field(default_factory=dict)
    page_url: str = ""
    map_url: str = ""
    began: float = 0.0
    """`time.perf_counter` when everybody was there."""
    _programs: dict[str, Program] = field(default_factory=dict)
    _nursery: trio.Nursery | None = None
    _ports: list[int] = field(default_factory=list)
    """Of the relays' fronts."""
    _control: tuple[int, int] = (0, 0)
    """The controller's UDP and HTTP port."""
    _orders: int = 0
    _unsent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=UNSENT_MOST))
    """Objects that viewers had, and of which the publisher has not told yet."""
    _expected: set[str] = field(default_factory=set)
    """Programs that are to be gone."""
    _wall_minus_clock: float = 0.0
    _media: dict[tuple[str, str], int] = field(default_factory=dict)
    _heard_media: trio.Event = field(default_factory=trio.Event)
    _papers: Papers = NO_PAPERS

    async def run(self, ready: Callable[[], None]) -> None:
        """Run until cancelled; `ready` is called when there is something to see. Raises ShowError."""
        failure: ShowError | None = None
        with contextlib.ExitStack() as stack:
            where = self.settings.state
            if where is None:
                where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tradewind-demo-")))
            else:
                try:
                    where.mkdir(parents=True)
                except OSError as error:
                    raise ShowError(f"{where}: {error.strerror}") from error
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    try:
                        self._papers = write_papers(where)
                        await self._begin(nursery, ready)
                        await trio.sleep_forever()
                    except ShowError as error:
                        failure = error
                        nursery.cancel_scope.cancel()
                    finally:
                        self.note({"kind": "end", "at": time.perf_counter()})
                        with trio.CancelScope(shield=True):
                            await self._stop()
                        self._read_logs(where)
            except* ShowError as group:
                failure = next(_leaves(group))
        if failure is not None:
            raise failure

    def summary(self) -> Summary:
        """The figures so far."""
        return self.record.summarize()

    async def _stop(self) -> None:
        """Those who are served first, the network last: everybody can say goodbye."""
        self._expected |= self._programs.keys()
        served = [program for name, program in self._programs.items() if name.startswith(SERVED)]
        network = [program for name, program in self._programs.items() if name == "network"]
        await stop_all(served)
        await stop_all([program for program in self._programs.values() if program not in served + network])
        await stop_all(network)

    # --- Beginning ---

    async def _begin(self, nursery: trio.Nursery, ready: Callable[[], None]) -> None:
        papers = self._papers
        self._wall_minus_clock = time.time() - time.perf_counter()
        self._ports = front_ports(self.settings.relays)
        self._control = (free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM))
        _write_places(papers, self.settings.home)
        await self._start(self._network(papers))
        await self._order({"home": self.settings.home})
        if self.settings.longest_rtt_ms is not None:
            await self._order({"nearer": min(1.0, self.settings.longest_rtt_ms / max(RTT_MS.values()))})
        for number, port in enumerate(self._ports):
            listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
            nursery.start_soon(splice, listeners, (relay_host(number), self._ports[0]))
        async with trio.open_nursery() as together:
            for program in (self._controller(papers), *self._relays(papers)):
                together.start_soon(self._start, program)
        await self._await_mesh()
        with as_file(files("control") / "demo") as folder:
            await self._start(self._publisher(papers, [str(Path(folder) / clip) for clip in CLIPS]))
        if self.settings.page:
            await self._start_page(nursery)
        await self.add_viewers(self.settings.viewers)
        if self.settings.talk:
            await self._start(self._talkers())
        self.map_url = f"http://127.0.0.1:{self._control[1]}/map#token={papers.operator_token}"
        self._write_pids()
        self.began = time.perf_counter()
        nursery.start_soon(self._change_links)
        nursery.start_soon(self._cause_faults)
        ready()

    async def _start(self, program: Program) -> None:
        self._programs[program.name] = program
        assert self._nursery is not None
        await program.start(self._nursery, self._ended)

    def _program(self, papers: Papers, name: str, module: str, *arguments: str) -> Program:
        return Program(name, module, arguments, papers.directory / f"{name}.log", self._hear)

    def _network(self, papers: Papers) -> Program:
        numbers = (NETWORK_SEED, self._ports[0], *self._ports)
        return self._program(papers, "network", "control.demo.network", *map(str, numbers))

    def _controller(self, papers: Papers) -> Program:
        udp, http = self._control
        places = ",".join(f"{region.name}={region.latitude}/{region.longitude}" for region in REGIONS)
        return self._program(
            papers, CONTROL, "control",
            "--listen", f"127.0.0.1:{udp}", "--ops", f"127.0.0.1:{http}",
            "--state", str(papers.node(CONTROLLER) / "control.sqlite"),
            "--auth-key", papers.access_keys, "--operator-key", papers.operator_keys,
            "--place.prefixes", papers.prefixes, "--control.places", places, "--control.rooms", ROOM,
            "--log.format", "json",
            *papers.identity(CONTROLLER),
        )  # fmt: skip

    def _relays(self, papers: Papers) -> list[Program]:
        return [self._relay(papers, number) for number in range(self.settings.relays)]

    def _relay(self, papers: Papers, number: int) -> Program:
        id, front = RELAYS[number].id, f"127.0.0.1:{self._ports[number]}"
        state = str(papers.node(id))
        return self._program(
            papers, id, "relay",
            "--listen", f"{relay_host(number)}:{self._ports[0]}", "--ops", "127.0.0.1:0",
            "--auth-key", papers.access_keys, "--auth.placement", "offered",
            "--questions.plain_http", "--questions.locations", papers.prefixes,
            "--mesh.name", MESH, "--mesh.public_uri", f"https://{front}", "--mesh.address", front,
            "--mesh.controllers", f"127.0.0.1:{self._control[0]}", "--mesh.state", state, "--node.state", state,
            "--rooms.enabled", "--rooms.path", f"{state}/rooms.sqlite", "--log.format", "json",
            *papers.tls, *papers.identity(id),
        )  # fmt: skip

    def _publisher(self, papers: Papers, clips: list[str]) -> Program:
        fronts = [flag for port in self._ports[:2] for flag in ("--relay", f"moqt://127.0.0.1:{port}/")]
        return self._program(
            papers, "publisher", "control.demo.publishing",
            *fronts, "--namespace", NAMESPACE, "--sha256", papers.sha256, "--token", papers.publisher_token,
            "--source", PUBLISHER_HOST, *clips,
        )  # fmt: skip

    def _talkers(self) -> Program:
        papers = self._papers
        fronts = [flag for port in self._ports for flag in ("--relay", f"moqt://127.0.0.1:{port}/")]
        return self._program(
            papers, "talkers", "control.demo.talking",
            *fronts, "--room", ROOM, "--sha256", papers.sha256, "--token", papers.publisher_token,
        )  # fmt: skip

    async def add_viewers(self, count: int, *regions: str) -> None:
        """So many more, in these regions in turn (none: where the settings say), and no more than 20 to a process."""
        near = tuple(RELAYS[number].region for number in reversed(range(self.settings.relays)))
        order = regions or self.settings.regions or near
        counts = Counter(order[number % len(order)] for number in range(count))
        async with trio.open_nursery() as together:
            for region, wanted in counts.items():
                for begun in range(0, wanted, VIEWERS_A_PROCESS):
                    together.start_soon(self._start, self._viewing(region, min(VIEWERS_A_PROCESS, wanted - begun)))

    def _viewing(self, region: str, count: int) -> Program:
        """A process of viewers in one region."""
        before = len(self.viewers)
        names = [f"viewer-{before + number + 1}" for number in range(count)]
        for viewer in names:
            self.viewers[viewer] = ViewerState()
            self.note({"kind": "viewer", "viewer": viewer})
        number = sum(name.startswith(f"viewers-{region}-") for name in self._programs)
        papers = self._papers
        # Relays answer too: whoever comes while there is no controller has nobody else to ask.
        asked = [f"http://127.0.0.1:{port}" for port in (self._control[1], *self._ports)]
        program = self._program(
            papers, f"viewers-{region}-{number + 1}", "control.demo.viewing",
            *(flag for url in asked for flag in ("--control", url)), "--namespace", NAMESPACE,
            "--token", papers.viewer_token, "--viewers", str(count), "--first", str(before + 1),
            "--sha256", papers.sha256, "--source", viewer_host(region, number),
            "--rendition", self.settings.rendition, "--spread", f"{self.settings.spread_s:g}s",
        )  # fmt: skip
        self._programs[program.name] = program
        return program

    async def _await_mesh(self) -> None:
        """Go on when the controller has every relay, and every relay its neighbours."""
        wanted = self.settings.relays
        seen = 0
        with trio.move_on_after(MESH_WITHIN_S):
            while True:
                with contextlib.suppress(CallError):
                    nodes = await self.ask("/v1/nodes")
                    seen = sum(node["condition"] == "alive" for node in nodes)
                    links = await self.ask("/v1/links")
                    up = sum(link["usable"] for link in links)
                    if seen >= wanted and up >= wanted * (wanted - 1):
                        return
                await trio.sleep(POLL_S)
        raise ShowError(f"only {seen} of {wanted} relays found each other in {MESH_WITHIN_S:.0f} s")

    async def ask(self, path: str, body: bytes | None = None) -> Any:
        """What the controller says to an operator. Raises CallError."""
        url = f"http://127.0.0.1:{self._control[1]}{path}"
        return await trio.to_thread.run_sync(call, url, self._papers.operator_token, body)

    async def _start_page(self, nursery: trio.Nursery) -> None:
        port = page_port()
        try:
            server = page_server(self.page_settings)
        except PagesMissing as error:
            raise ShowError(str(error)) from error
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        nursery.start_soon(server.serve, listeners)
        self.page_url = f"http://127.0.0.1:{port}/"

    def page_settings(self) -> dict[str, Any]:
        """What a page has to know to be placed."""
        control = [f"http://127.0.0.1:{port}" for port in (self._control[1], *self._ports)]
        return {
            "placement": {"control": control, "token": self._papers.viewer_token},
            "namespace": NAMESPACE,
            "chat": True,
        }

    # --- What processes say ---

    def _hear(self, line: bytes) -> None:
        if line.startswith(b"{"):
            said = json.loads(line)
            if said["kind"] == "object":
                self._hear_object(said)
            elif said["kind"] == "media":
                self._media = {(one, other): size for one, other, size in said["ways"]}
                self._heard_media.set()
            else:
                self.note(said)

    def _hear_object(self, line: dict[str, Any]) -> None:
        """Note it once it is known when it was sent: the publisher's word may come after the viewer's."""
        sent = self.record.sent.get((line["track"], line["group"], line["object"]))
        if sent is None:
            self._unsent.append(line)
        else:
            self.note({**line, "sent": sent})
            self._show_object(line, sent)

    def note(self, line: dict[str, Any]) -> None:
        """Put a line into the record, and into the trace."""
        self.record.add(line)
        if self.settings.trace is not None:
            self.settings.trace.write(json.dumps(line) + "\n")
        if line["kind"] == "sent" and self._unsent:
            unsent = list(self._unsent)
            self._unsent.clear()
            for one in unsent:
                self._hear_object(one)

    def _show_object(self, line: dict[str, Any], sent: float) -> None:
        state = self.viewers[line["viewer"]]
        state.relay = line["relay"]
        state.frames += 1
        state.bytes += line["size"]
        if line["track"].startswith("video"):
            state.rendition = line["track"]
        state.latency_s = line["received"] - sent

    def _read_logs(self, where: Path) -> None:
        """What relays wrote of tracks that they moved."""
        for spot in RELAYS[: self.settings.relays]:
            with contextlib.suppress(OSError), (where / f"{spot.id}.log").open() as log:
                for text in log:
                    said = json.loads(text) if text.startswith("{") else {}
                    if said.get("event") == "track moved":
                        at = said["at"] - self._wall_minus_clock
                        moved = {"relay": spot.id, "track": said["track"], "was": said["was"], "now": said["now"]}
                        self.note({"kind": "moved", "at": at, **moved})

    # --- What happens ---

    def _ended(self, program: Program) -> None:
        """A process is gone. Relays and the controller may go; the show does not go on without the others."""
        if program.name in self._expected:
            return
        at = program.ended_at
        self.note({"kind": "fault", "what": "kill", "node": program.name, "at": at})
        self.tell(f"{program.name} is gone")
        self._expected.add(program.name)
        if program.name == "network":
            assert self._nursery is not None
            self._nursery.start_soon(self._give_up, program)

    async def _give_up(self, program: Program) -> None:
        raise ShowError(f"{program.name} ended: {program.last_words()}")

    async def _change_links(self) -> None:
        for at_s, shape in self.settings.links:
            await self._sleep_until(at_s)
            await self._order({"viewers": [shape.rate_bit_per_s, shape.loss_ratio, shape.delay_s]})
            self.tell(f"link: {shape}")

    async def _cause_faults(self) -> None:
        for fault in self.settings.faults:
            await self._sleep_until(fault.at_s)
            self.tell(f"{fault.at_s:.0f} s: {fault}")
            await self.cause(fault)

    async def cause(self, fault: Fault) -> None:
        """Have it happen now."""
        line: dict[str, Any] = {"kind": "fault", "what": fault.kind.value, "node": fault.node}
        match fault.kind:
            case Kind.KILL:
                self._expected.add(fault.node)
                line["at"] = self._programs[fault.node].kill()
            case Kind.START:
                program = self._programs[fault.node]
                await program.stop()
                self._expected.discard(fault.node)
                line["at"] = time.perf_counter()
                assert self._nursery is not None
                await program.start(self._nursery, self._ended)
                self._write_pids()
            case Kind.LOSS | Kind.HEAL:
                loss = fault.loss_ratio if fault.kind is Kind.LOSS else None
                # The network says itself when it was, and what was on the way: `_hear` notes that.
                await self._order({"from": fault.node, "to": fault.to, "loss": loss})
                return
            case Kind.DRAIN:
                line["at"] = time.perf_counter()
                await self.command(fault.node, "drain", deadline_s=DRAIN_S)
        self.note(line)

    async def command(self, relay: str, action: str, **more: object) -> Any:
        """Order what an operator may. Raises ShowError where the controller does not take it."""
        self._orders += 1
        document = {"id": f"demo-{self._orders}", "relay": relay, "action": action, **more}
        try:
            return await self.ask("/v1/commands", json.dumps(document).encode())
        except CallError as error:
            raise ShowError(f"{action} {relay}: {error}") from error

    async def media(self) -> dict[tuple[str, str], int]:
        """How much media went in each direction between relays within the last second, in bytes."""
        self._heard_media = trio.Event()
        await self._order({"media": True})
        await self._heard_media.wait()
        return self._media

    async def _order(self, what: dict[str, Any]) -> None:
        self._orders += 1
        await self._programs["network"].order({"order": self._orders, **what})

    async def _sleep_until(self, at_s: float) -> None:
        await trio.sleep(max(0.0, self.began + at_s - time.perf_counter()))

    def _write_pids(self) -> None:
        """All at once, so that nobody reads half of it."""
        if self.settings.pids is None:
            return
        found = {name: program.pid for name, program in self._programs.items() if program.is_alive}
        made = self.settings.pids.with_name(self.settings.pids.name + ".new")
        made.write_text(json.dumps(found) + "\n")
        made.replace(self.settings.pids)


def _write_places(papers: Papers, home: str) -> None:
    Path(papers.prefixes).write_text(prefixes(home))


def _leaves(group: BaseExceptionGroup[ShowError]) -> Iterator[ShowError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
