"""What a viewer's move to another relay costs, in processor time at the viewer and at the relay that it goes to.

    python -m bench.moves [--viewers 50] [--missed 1.0] [--profile FILE] [--relay-profile FILE] [--json FILE]

Two relays with the same show, from one publisher who is connected to both; viewers in this process. First step by step,
each step of all viewers before the next one of any: sessions are opened (handshake, SETUP, tokens), tracks are asked
for, and what was missed comes. The show stands meanwhile, so that nothing else costs anything: what a step costs is the
difference of processor time over it. Then whole viewers of one relay: it is killed, they notice and move.

Milliseconds are of processor time, user and system, for each move; no time of the clock is in them, so another
program's work does not count, though its cache misses do. Exit code: 0, or 1 where somebody did not get everything.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from pathlib import Path

import trio

from bench.targets import LOAD_CORE, Server, Target, pin_self, targets
from relay.placing import Placing, PlacingSettings
from tests.interop.relay_process import HOST
from tradewind.client.choices import Answer, Candidate, Patience, read_answer
from tradewind.client.connect import Client, ClientSettings, connect
from tradewind.client.continuity import Continuity
from tradewind.client.media import Broadcast
from tradewind.client.placed import Change, PlacedSettings, PlacedViewer
from tradewind.client.receiving import ReceivedObject
from tradewind.client.tracks import TrackWriter
from tradewind.client.visit import Visit, VisitSettings
from tradewind.contract.admission import relay_signer
from tradewind.contract.messages import RelayEntry, RouteTable
from tradewind.contract.token import Claims, generate_key, parse_keys, sign
from tradewind.http1 import HttpServer, Request, Response
from tradewind.keys import placement_seed
from tradewind.quic.config import ServerTrust

NAMESPACE = "live/bench"
SHAPES = {"video": (25, 700), "sound": (47, 170)}
"""Objects a second, and bytes of each: the smallest rendition, about 200 kbit/s."""
GROUP_S = 1
TICK_S = 0.01
PLAY_S = 5
BEFORE_S = 3
"""How much of the show there was before anybody moves."""
QUIET_S = 0.3
"""Then acknowledgements and whatever else follows have come as well."""
PATIENCE_S = 5.0
JITTER_S_PER_VIEWER = Patience().jitter_s / 200
"""As when 200 leave one relay."""
FIRST, SECOND = "a", "b"


class MovesError(Exception):
    """Somebody did not get what they should; says what."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one step, for each viewer."""

    client_ms: float
    relay_ms: float
    packets_in: float = 0.0
    """At the viewer."""
    bytes_in: float = 0.0
    packets_out: float = 0.0
    bytes_out: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a move costs."""

    viewers: int
    missed_objects: int
    open: Cost
    ask: Cost
    catch_up: Cost
    play: Cost
    """A second of the show, at whole viewers, with what the publisher in the same process takes; no relay's."""
    notice: Cost
    """Until the first one moves."""
    move: Cost
    """All of it but noticing, by whole viewers."""


class Reader:
    """What a visit needs of its viewer."""

    def __init__(self) -> None:
        self.names = tuple(SHAPES)
        self.fresh = 0
        self._continuities = {name: Continuity() for name in self.names}

    def continuity(self, name: str) -> Continuity:
        return self._continuities[name]

    def wake(self) -> None:
        pass

    def receive_object(self, visit: Visit, track: str, item: ReceivedObject, *, fresh: bool) -> None:
        self.fresh += fresh

    def receive_group_end(self, track: str, group: int) -> None:
        pass

    def choose(self, broadcast: Broadcast) -> Sequence[str]:
        return self.names


class Stage:
    """A show at both relays, that goes on when it is told to."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = list(clients)
        self._tracks: list[dict[str, TrackWriter]] = []
        self._tick = 0

    async def open(self) -> None:
        """Announce it."""
        for client in self._clients:
            publication = client.publication(tuple(part.encode() for part in NAMESPACE.split("/")))
            self._tracks.append({name: publication.track(name.encode()) for name in SHAPES})
            await client.publish_namespace(publication)

    def end_first(self) -> None:
        """The first relay is gone."""
        del self._tracks[0]

    async def go_on(self, seconds: float, tick_s: float = TICK_S / 5) -> int:
        """So much more of it, as fast as its ticks take; returns how many objects."""
        written = 0
        for _ in range(round(seconds / TICK_S)):
            now = self._tick
            self._tick += 1
            for name, (rate, size) in SHAPES.items():
                due = range(now * rate // 100, (now + 1) * rate // 100)
                for number in due:
                    group, item = divmod(number, rate * GROUP_S)
                    for tracks in self._tracks:
                        tracks[name].write(100 + group, item, b"%08d" % number + bytes(size - 8))
                        if item == rate * GROUP_S - 1:
                            tracks[name].end_group()
                    written += 1
            await trio.sleep(tick_s)
        return written


class Meter:
    """Processor time here and at the relay, since the last look."""

    def __init__(self, server: Server, viewers: int, profile: cProfile.Profile | None) -> None:
        self._server = server
        self._viewers = viewers
        self._profile = profile

    @contextmanager
    def step(self, found: Callable[[Cost], None], visits: Sequence[Visit] = ()) -> Iterator[None]:
        """What happens meanwhile; packets are those of `visits`."""
        links = _traffic(visits)
        relay, here = self._server.cpu_s(), time.process_time()
        if self._profile is not None:
            self._profile.enable()
        yield
        if self._profile is not None:
            self._profile.disable()
        spent = (time.process_time() - here, self._server.cpu_s() - relay)
        traffic = [after - before for before, after in zip(links, _traffic(visits), strict=True)]
        each = [value / self._viewers for value in (*spent, *traffic)]
        found(Cost(1000 * each[0], 1000 * each[1], *each[2:]))


def _traffic(visits: Sequence[Visit]) -> list[int]:
    found = [0, 0, 0, 0]
    for visit in visits:
        seen = visit.traffic()
        if seen is not None:
            values = (seen.packets_received, seen.bytes_received, seen.packets_sent, seen.bytes_sent)
            found = [one + other for one, other in zip(found, values, strict=True)]
    return found


async def measure(servers: dict[str, Server], papers: Papers, options: argparse.Namespace) -> Result:
    """Everything. Raises MovesError."""
    profile = cProfile.Profile() if options.profile else None
    meter = Meter(servers[SECOND], options.viewers, profile)
    clients = [ClientSettings(trust=papers.trust(server), reconnect=False) for server in servers.values()]
    urls = [f"moqt://{HOST}:{server.port}/" for server in servers.values()]
    async with (
        connect(urls[0], token=papers.publisher, settings=clients[0]) as one,
        connect(urls[1], token=papers.publisher, settings=clients[1]) as other,
    ):
        stage = Stage((one, other))
        await stage.open()
        async with trio.open_nursery() as nursery:
            # Somebody watches at the second relay before anybody comes there.
            settled = Visit(Reader(), papers.candidate(SECOND), VisitSettings(NAMESPACE), trio.current_time())
            nursery.start_soon(settled.run)
            settled.play()
            await until(
                lambda: settled.opened_at is not None,
                "somebody watches at the second relay",
                None,
                lambda: f": {settled.failure} {settled.refused} {settled.candidate}",
            )
            steps = await by_steps(stage, papers, meter, nursery, options)
            whole = await by_whole_viewers(stage, servers, papers, meter, nursery, options)
            settled.leave("done")
            await until(lambda: settled.over, "it is over")
            nursery.cancel_scope.cancel()
    if profile is not None:
        profile.dump_stats(options.profile)
    opened, caught, asked, missed = steps
    # What tracks cost that nothing was missed of; the rest is for what was.
    catch_up = Cost(*(before - after for before, after in zip(_values(caught), _values(asked), strict=True)))
    return Result(options.viewers, missed, opened, asked, catch_up, *whole)


async def by_steps(
    stage: Stage, papers: Papers, meter: Meter, nursery: trio.Nursery, options: argparse.Namespace
) -> tuple[Cost, Cost, Cost, int]:
    """(opening, tracks with something missed, tracks with nothing missed, objects that were missed)."""
    readers = [Reader() for _ in range(options.viewers)]
    costs: list[Cost] = []
    visits = await visit(readers, papers.candidate(FIRST), nursery)
    for one in visits:
        one.play()
    await until(lambda: all(not one.refused for one in visits), "all watch at the first relay")
    await trio.sleep(QUIET_S)
    total = await stage.go_on(BEFORE_S)
    await until(lambda: min(one.fresh for one in readers) >= total, "all have what was shown first")
    await leave(visits)
    missed = await stage.go_on(options.missed)
    await trio.sleep(QUIET_S)
    with meter.step(costs.append, ()):
        visits = await visit(readers, papers.candidate(SECOND), nursery)
        await trio.sleep(QUIET_S)
    costs[0] = replace(costs[0], **_per_viewer(visits))
    with meter.step(costs.append, visits):
        for one in visits:
            one.play()
        await until(lambda: min(one.fresh for one in readers) >= total + missed, "all have what they missed")
        await trio.sleep(QUIET_S)
    await leave(visits)
    visits = await visit(readers, papers.candidate(SECOND), nursery)
    await trio.sleep(QUIET_S)
    with meter.step(costs.append, visits):
        for one in visits:
            one.play()
        await trio.sleep(3 * QUIET_S)
    await leave(visits)
    return costs[0], costs[1], costs[2], missed


def _per_viewer(visits: Sequence[Visit]) -> dict[str, float]:
    names = ("packets_in", "bytes_in", "packets_out", "bytes_out")
    return {name: value / len(visits) for name, value in zip(names, _traffic(visits), strict=True)}


async def visit(readers: Sequence[Reader], where: Candidate, nursery: trio.Nursery) -> list[Visit]:
    """Open a session for each of them."""
    visits = []
    for reader in readers:
        visits.append(Visit(reader, where, VisitSettings(NAMESPACE), trio.current_time()))
        nursery.start_soon(visits[-1].run)
        await trio.sleep(JITTER_S_PER_VIEWER)
    await until(lambda: all(one.opened_at is not None for one in visits), f"all have a session at {where.id}")
    return visits


async def leave(visits: Sequence[Visit]) -> None:
    """End sessions, and wait until they are over."""
    for one in visits:
        one.leave("moved")
    await until(lambda: all(one.over for one in visits), "all have left")
    await trio.sleep(QUIET_S)


async def by_whole_viewers(
    stage: Stage,
    servers: dict[str, Server],
    papers: Papers,
    meter: Meter,
    nursery: trio.Nursery,
    options: argparse.Namespace,
) -> tuple[Cost, Cost, Cost]:
    """(a second of the show, noticing, moving), of viewers as applications have them."""
    states = [("", "")] * options.viewers
    had = [0] * options.viewers
    costs: list[Cost] = []
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    nursery.start_soon(HttpServer(papers.answer).serve, [listener])
    control = f"http://{HOST}:{listener.socket.getsockname()[1]}"
    viewers = []

    async def run(number: int) -> None:
        def take(_relay: str, _track: str, _item: ReceivedObject) -> None:
            had[number] += 1

        def note(change: Change) -> None:
            states[number] = (change.state, change.relay)

        viewer = PlacedViewer(PlacedSettings((control,), NAMESPACE, papers.viewer), lambda _: [], take, note)
        viewer.names = tuple(SHAPES)
        viewers.append(viewer)
        await viewer.run()

    async with trio.open_nursery() as inner:
        for number in range(options.viewers):
            inner.start_soon(run, number)
            await trio.sleep(JITTER_S_PER_VIEWER)
        await until(lambda: all(relay == FIRST for _, relay in states), "all are at the first relay", stage)
        # As fast as it is: how long silence is borne, the rate says.
        await trio.sleep(QUIET_S)
        with meter.step(costs.append):
            await stage.go_on(PLAY_S, TICK_S)
            await trio.sleep(QUIET_S)
        costs[0] = replace(costs[0], client_ms=costs[0].client_ms / PLAY_S, relay_ms=costs[0].relay_ms / PLAY_S)
        before = min(had)
        servers[FIRST].process.kill()
        stage.end_first()
        missed = await stage.go_on(options.missed, 0.0)
        with meter.step(costs.append):
            await until(lambda: any(state == "moving" for state, _ in states), "somebody moves")
        with meter.step(costs.append):
            await until(lambda: all(one == ("playing", SECOND) for one in states), "all play at the second relay")
            await until(lambda: min(had) >= before + missed, "all have what they missed")
            await trio.sleep(QUIET_S)
        visits = [viewer.visit for viewer in viewers if viewer.visit is not None]
        costs[2] = replace(costs[2], **_per_viewer(visits))
        inner.cancel_scope.cancel()
    return costs[0], costs[1], costs[2]


async def until(
    holds: Callable[[], bool], what: str, stage: Stage | None = None, hint: Callable[[], str] = str
) -> None:
    """Look until it holds, and let the show go on meanwhile where there is one. Raises MovesError."""
    with trio.move_on_after(PATIENCE_S):
        while not holds():
            if stage is not None:
                await stage.go_on(0.1, TICK_S)
            await trio.sleep(0.005)
        return
    raise MovesError(f"after {PATIENCE_S:g} s it is not so that {what}{hint()}")


class Papers:
    """Tokens, and answers that send viewers to the first relay, and then to the second."""

    def __init__(self, directory: Path) -> None:
        written = generate_key("HS256", "shop")
        (directory / "key.jwk").write_text(json.dumps(written))
        (key,) = parse_keys(json.dumps(written))
        self.viewer = sign(Claims("", get=("live",)), key)
        self.publisher = sign(Claims("", get=("live",), put=("live",)), key)
        self._directory = directory
        self._key = key
        self._candidates: dict[str, dict[str, object]] = {}
        self._digests: dict[int, str] = {}

    def flags(self, name: str) -> tuple[str, ...]:
        """Of a relay with this name."""
        state = self._directory / name
        keys = ("--auth-key", str(self._directory / "key.jwk"))
        return ("--node.id", name, "--node.state", str(state), *keys)

    def trust(self, server: Server) -> ServerTrust:
        """A pin of what a relay says of itself."""
        return ServerTrust(pinned_sha256=bytes.fromhex(self._digest(server)))

    def admit(self, name: str, server: Server) -> None:
        """Have placement send viewers there, with a token that the relay made itself."""
        signing = relay_signer(name, placement_seed(str(self._directory / name)))
        placing = Placing(name, signing, (self._key,), PlacingSettings(1e6, 1e6))
        uri = f"https://{HOST}:{server.port}"
        entry = RelayEntry(name, "eu", uri, (HOST, server.port), "serving", 0.1, 1000)
        now, wall_now = time.monotonic(), time.time()
        placing.apply_table(RouteTable("bench", name, 1, 1, wall_now, (), (entry,), ()), now)
        said = placing.answer(f"namespace={NAMESPACE}&jwt={self.viewer}", HOST, None, now, wall_now)
        (candidate,) = json.loads(said.body)["candidates"]
        self._candidates[name] = {**candidate, "certificate_sha256": self._digest(server)}

    def candidate(self, name: str) -> Candidate:
        """As an answer has it."""
        return self._read([name]).candidates[0]

    async def answer(self, request: Request) -> Response:
        """To `/v1/place`."""
        return Response(self._body([FIRST, SECOND]), HTTPStatus.OK)

    def _read(self, names: Sequence[str]) -> Answer:
        return read_answer(self._body(names))

    def _body(self, names: Sequence[str]) -> bytes:
        listed = [{**self._candidates[name], "prio": number} for number, name in enumerate(names)]
        return json.dumps({"version": 1, "ttl": 300, "candidates": listed, "probe": {"n": 1}}).encode()

    def _digest(self, server: Server) -> str:
        if server.port not in self._digests:
            with urllib.request.urlopen(f"http://{HOST}:{server.port}/certificate.sha256", timeout=5) as answer:
                self._digests[server.port] = answer.read().decode().strip()
        return self._digests[server.port]


def _values(cost: Cost) -> tuple[float, ...]:
    return tuple(getattr(cost, name) for name in Cost.__slots__)


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def tell(result: Result) -> None:
    """Print the table."""
    print(f"{'':<10} {'viewer ms':>10} {'relay ms':>9} {'packets in':>11} {'bytes in':>9} {'out':>7} {'bytes':>7}")
    steps = (_values(cost) for cost in (result.open, result.ask, result.catch_up))
    together = Cost(*(sum(values) for values in zip(*steps, strict=True)))
    _line("open", result.open)
    _line("ask", result.ask)
    _line("catch up", result.catch_up)
    _line("together", together)
    _line("a second", result.play)
    _line("notice", result.notice)
    _line("move", result.move)


def _line(name: str, cost: Cost) -> None:
    print(
        f"{name:<10} {cost.client_ms:>10.2f} {cost.relay_ms:>9.2f} {cost.packets_in:>11.1f} {cost.bytes_in:>9.0f} "
        f"{cost.packets_out:>7.1f} {cost.bytes_out:>7.0f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.moves", description=__doc__.split("\n")[0])
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--missed", type=float, default=1.0, help="seconds of the show")
    parser.add_argument("--draft", type=int, default=22)
    parser.add_argument("--profile", help="write where the viewers' time went, for pstats")
    parser.add_argument("--relay-profile", help="the same of the relay; its figures are worth nothing then")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args(arguments)
    pin_self(LOAD_CORE)
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as name:
        papers = Papers(Path(name))
        servers: dict[str, Server] = {}
        result: Result | None = None
        try:
            for relay in (FIRST, SECOND):
                (target,) = targets(["ours"], options.draft, None, papers.flags(relay))
                assert isinstance(target, Target)
                if relay == SECOND and options.relay_profile:
                    head, rest = target.command[0], target.command[1:]
                    target = replace(target, command=(head, "-m", "cProfile", "-o", options.relay_profile, *rest))
                servers[relay] = Server(target, Path(name) / f"log-{relay}")
                papers.admit(relay, servers[relay])
            result = trio.run(measure, servers, papers, options)
        except* MovesError as group:
            print(f"bench.moves: {_first(group)}", file=sys.stderr)
        finally:
            for server in servers.values():
                server.stop()
    if result is None:
        return 1
    print(f"{result.viewers} viewers, {result.missed_objects} objects missed by each")
    tell(result)
    if options.json:
        Path(options.json).write_text(json.dumps(asdict(result)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
