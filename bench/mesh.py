"""The mesh under faults, with real processes: what viewers notice when a link, a relay or the controller fails.

    python -m bench.mesh links --faults 200       T1: 10 % loss or silence in one direction that carries media
    python -m bench.mesh death --viewers 200      T5: kill -9 of a relay with all its viewers; with --player, one of
                                                  them is a player that nobody here wrote, in headless Chromium
    python -m bench.mesh drain --viewers 100      T6: a relay is emptied; with --undo, taken back when half are asked
    python -m bench.mesh headless                 T7: no controller for 60 s; T1, T5, a restart, newcomers meanwhile

The world is the demo's: five relays in four regions, measured round trips, 0.2 % loss on long links, all through its
network process. Viewers watch the small picture with sound (150 kbit/s, 70 objects a second), or with `--rendition
picture` the large one alone (320 kbit/s, 25 objects a second). Everything needs a quiet machine: two cores carry all
relays, all viewers and the network. Prints a line a figure and PASS or FAIL; exit code 1 on a FAIL, 3 where the player
is not installed.
`--trace FILE` keeps what everybody had of the last show, for `bench.verify_trace`.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trio

from bench.mesh_player import PLAYERS, Look, Missing, Player, check_installed, first_elsewhere, open_player
from control.cli.asking import CallError
from control.demo.faults import CONTROL, Fault, Kind
from control.demo.measuring import Record, percentile
from control.demo.processes import ShowError
from control.demo.show import Show, ShowSettings
from control.demo.world import HOME

SEED = 1
ORIGIN = "hkg-1"
KILLED = "fra-1"
PLAYER_PLAYS_S = 30.0
UNDONE_RATIO = 0.3
"""Of a drain's deadline: by then half have been asked to move."""
LEAVING_S = 6.0
"""By then those who have been asked are gone, and the relay has reported it."""
SETTLE_S = 6.0
"""From the start of viewers until the first fault."""
FAULT_S, HEALED_S = 2.0, 2.5
"""How long a link is faulted, and how long every link is trusted again before the next one is."""
TRUSTED_S = 15.0
"""By then it should be."""
FAULTS_A_SHOW = 8
"""Links that failed are held down ever longer: a fresh mesh after so many."""
POLL_S = 0.2
ARRIVALS_PER_S = 10
"""More at once would be spread over several relays."""
PLAYING_FRAMES = 50
GONE_S = 60.0
"""How long the controller is dead."""


@dataclass(slots=True)
class Verdicts:
    """What was measured against what was wanted."""

    failed: int = 0

    def at_most(self, what: str, value: float | None, bound: float, unit: str = "ms") -> None:
        held = value is not None and value <= bound
        self.failed += not held
        shown = "nothing measured" if value is None else f"{value:,.0f} {unit}"
        print(f"{'PASS' if held else 'FAIL'}  {what}: {shown} (at most {bound:,.0f})", flush=True)

    def true(self, what: str, held: bool, shown: object) -> None:
        self.failed += not held
        print(f"{'PASS' if held else 'FAIL'}  {what}: {shown}", flush=True)


@dataclass(slots=True)
class Faulted:
    """One fault of a link, and what came of it."""

    silent: bool
    way: str
    moved_s: float | None
    """Until the far end had all its tracks from elsewhere; None: it never did."""


@dataclass(slots=True)
class Links:
    """All faults of links, over all shows."""

    faults: list[Faulted] = field(default_factory=list)
    stalls_s: list[float] = field(default_factory=list)
    gaps: int = 0
    lost: int = 0


async def perform(show: Show, script: Callable[[Show], Awaitable[None]]) -> Record:
    """Run a show for as long as a script does; returns what was said. Raises ShowError."""
    ready = trio.Event()
    failures: list[ShowError] = []
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            try:
                await show.run(ready.set)
            except ShowError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        await ready.wait()
        await script(show)
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return show.record


# --- T1 ---


async def fault_links(show: Show, count: int, dice: random.Random, silent_first: bool) -> None:
    """Fault directions that carry media, one after the other, by loss and silence in turn."""
    await trio.sleep(SETTLE_S)
    for number in range(count):
        carrying = [way for way, size in sorted((await show.media()).items()) if size > 5_000]
        if not carrying:
            raise ShowError("no link carries media")
        one, other = dice.choice(carrying)
        loss = 1.0 if (number % 2 == 0) == silent_first else 0.1
        await show.cause(Fault(0.0, Kind.LOSS, one, other, loss))
        await trio.sleep(FAULT_S)
        await show.cause(Fault(0.0, Kind.HEAL, one, other))
        with trio.move_on_after(TRUSTED_S):
            await until(lambda: is_trusted(show))
        await trio.sleep(HEALED_S)


def read_faults(record: Record, into: Links) -> None:
    """What a show with faults of links came to."""
    media = {track for track, _, _ in record.sent}
    for fault in record.faults:
        if fault["what"] == "loss":
            # Rooms' logs move too, and have moved when something comes: nothing does here.
            moves = {track: moved for track, moved in record.moves(fault).items() if track in media}
            way = f"{fault['node']} to {fault['to']}{' silent' if fault['loss'] == 1.0 else ''}"
            into.faults.append(Faulted(fault["loss"] == 1.0, way, max(moves.values(), default=None)))
    for viewer in record.viewers.values():
        into.stalls_s += record.stalls(viewer)
    summary = record.summarize()
    into.gaps += summary.gaps
    into.lost += summary.viewers_lost


async def measure_links(options: argparse.Namespace, verdicts: Verdicts) -> None:
    """T1."""
    found, dice, shows = Links(), random.Random(SEED), 0
    while (moved := sum(fault.moved_s is not None for fault in found.faults)) < options.faults:
        count = min(FAULTS_A_SHOW, options.faults - moved)
        show = Show(settings(options), tell=quiet)
        silent_first = shows % 2 == 0
        before = len(found.stalls_s)
        record = await perform(show, lambda show, n=count, s=silent_first: fault_links(show, n, dice, s))  # type: ignore[misc]
        read_faults(record, found)
        shows += 1
        told = [f"{fault.way} {round(1000 * (fault.moved_s or 0))}" for fault in found.faults[-count:]]
        stalls = [round(1000 * stall) for stall in found.stalls_s[before:]]
        print(f"  show {shows}: {', '.join(told)}; stalls {stalls}", file=sys.stderr, flush=True)
    tell_links(found, verdicts)


def tell_links(found: Links, verdicts: Verdicts) -> None:
    """The verdicts of T1."""
    moved = sorted(1000 * fault.moved_s for fault in found.faults if fault.moved_s is not None)
    silent = sorted(1000 * fault.moved_s for fault in found.faults if fault.moved_s is not None and fault.silent)
    stayed = [fault for fault in found.faults if fault.moved_s is None]
    longest = max(found.stalls_s, default=0.0)
    print(
        f"{len(found.faults)} faults: {len(moved)} were followed by a move ({len(silent)} after silence); "
        f"{len(stayed)} were of ways that were not needed, tracks doubled or on the move; {len(found.stalls_s)} stalls"
    )
    verdicts.at_most("moved, p50", percentile(moved, 0.50), 300)
    verdicts.at_most("moved, p99", percentile(moved, 0.99), 600)
    verdicts.at_most("moved after silence, p99", percentile(silent, 0.99), 500)
    verdicts.at_most("longest stall", 1000 * longest, 300)
    verdicts.true("viewers lost", not found.lost, found.lost)
    verdicts.true("objects missing", not found.gaps, found.gaps)


# --- T5 ---


async def measure_death(options: argparse.Namespace, verdicts: Verdicts) -> None:
    """T5."""
    looks: list[Look] = []

    async def script(show: Show) -> None:
        with ExitStack() as stack:
            player = None
            if options.player is not None:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                opened = open_player(options.player, directory, show.page_settings())
                player = await trio.to_thread.run_sync(stack.enter_context, opened)
            await playing(show, options.viewers)
            if player is not None:
                await player_plays(player)
            await show.cause(Fault(0.0, Kind.KILL, KILLED))
            await trio.sleep(15.0)
            if player is not None:
                looks.extend(await trio.to_thread.run_sync(player.looks))
                quiet(f"the player's page said: {player.console()}")

    record = await perform(Show(settings(options, "fra"), quiet), script)
    tell_death(record, options.viewers, verdicts)
    if options.player is not None:
        tell_player(record, looks, verdicts)


async def player_plays(player: Player) -> None:
    """Go on when the player shows a picture that moves. Raises ShowError."""
    with trio.move_on_after(PLAYER_PLAYS_S):
        began_s = 0.0
        while not 0.0 < began_s < await trio.to_thread.run_sync(lambda: player.time_s) - 1.0:
            began_s = began_s or await trio.to_thread.run_sync(lambda: player.time_s)
            await trio.sleep(POLL_S)
        return
    raise ShowError(f"the player shows nothing; its page said: {player.console()}")


def tell_player(record: Record, looks: Sequence[Look], verdicts: Verdicts) -> None:
    """Whether the outside player was there, and plays elsewhere in time."""
    (kill,) = (fault for fault in record.faults if fault["what"] == "kill" and fault["node"] != CONTROL)
    here = [look.relay for look in looks if look.at <= kill["at"]][-1:]
    verdicts.true("the outside player was on the killed relay", here == [kill["node"]], *here or ["nowhere"])
    left_s = next((look.at - kill["at"] for look in looks if look.at > kill["at"] and look.relay != kill["node"]), None)
    print(f"      the outside player was sent elsewhere after {1000 * (left_s or 0):,.0f} ms")
    moved_s = first_elsewhere(looks, kill["node"], kill["at"])
    verdicts.at_most("the outside player plays elsewhere", None if moved_s is None else 1000 * moved_s, 3000)


def tell_death(record: Record, viewers: int, verdicts: Verdicts) -> None:
    """The verdicts of T5."""
    (kill,) = (fault for fault in record.faults if fault["what"] == "kill" and fault["node"] != CONTROL)
    there = record.watching(kill)
    summary = record.summarize()
    switches = sorted(1000 * moved for moved in record.switches())
    verdicts.true("viewers on the killed relay", len(there) >= viewers, len(there))
    for share in (0.5, 0.9, 0.99):
        number = percentile(switches, share)
        if share < 0.99:
            print(f"      playing elsewhere, p{100 * share:.0f}: {number or 0:,.0f} ms")
        else:
            verdicts.at_most("playing elsewhere, p99", number, 3000)
    verdicts.true("viewers lost", not summary.viewers_lost, summary.viewers_lost)
    print(f"      longest stall {summary.longest_stall_ms:,.0f} ms; {summary.gaps:,} objects skipped by who was behind")


# --- T6 ---


async def measure_drain(options: argparse.Namespace, verdicts: Verdicts) -> None:
    """T6."""
    sessions: list[int] = []
    drained: list[float] = []

    async def script(show: Show) -> None:
        await playing(show, options.viewers)
        began = time.perf_counter()
        show.note({"kind": "fault", "what": "drain", "node": "fra-1", "at": began})
        await show.command("fra-1", "drain", deadline_s=options.deadline)
        if options.undo:
            await trio.sleep(options.deadline * UNDONE_RATIO)
            await show.command("fra-1", "undrain")
            await trio.sleep(LEAVING_S)
            sessions.append(await sessions_of(show, "fra-1"))
            await trio.sleep(options.deadline)
            sessions.append(await sessions_of(show, "fra-1"))
            return
        with trio.move_on_after(options.deadline + 5.0):
            await until(lambda: is_empty(show, "fra-1"))
            drained.append(time.perf_counter() - began)
        await trio.sleep(3.0)

    record = await perform(Show(settings(options, "fra"), quiet), script)
    summary = record.summarize()
    if options.undo:
        verdicts.true(
            "viewers who stayed, some seconds after undoing it and later", 0 < sessions[0] == sessions[1], sessions
        )
    else:
        verdicts.at_most("empty", 1000 * drained[0] if drained else None, 1000 * options.deadline)
    verdicts.at_most("longest stall", summary.longest_stall_ms, 200)
    verdicts.true("objects missing", not summary.gaps, summary.gaps)
    verdicts.true("viewers lost", not summary.viewers_lost, summary.viewers_lost)


async def sessions_of(show: Show, relay: str) -> int:
    """Viewers that a relay reports."""
    nodes = await show.ask("/v1/nodes")
    return next((int(node["sessions"] or 0) for node in nodes if node["id"] == relay), 0)


# --- T7 ---


async def measure_headless(options: argparse.Namespace, verdicts: Verdicts) -> None:
    """T7: viewers in all regions; the controller dies; links fail, a relay dies and comes back, viewers come."""
    times: dict[str, float] = {}
    dice = random.Random(SEED)

    async def script(show: Show) -> None:
        await playing(show, options.viewers)
        times["plays"] = time.perf_counter()
        await trio.sleep(SETTLE_S)
        await show.cause(Fault(0.0, Kind.KILL, CONTROL))
        times["dead"] = time.perf_counter()
        await fault_links(show, 6, dice, silent_first=True)
        times["calm"] = time.perf_counter()
        await trio.sleep(SETTLE_S)
        await show.cause(Fault(0.0, Kind.KILL, "fra-1"))
        await trio.sleep(6.0)
        asked = time.perf_counter()
        await show.cause(Fault(0.0, Kind.START, "fra-1"))
        times["serves"] = time.perf_counter() - asked
        await show.add_viewers(options.newcomers, "fra", "sfo", "sin")
        await trio.sleep(max(0.0, times["dead"] + GONE_S - time.perf_counter()))
        times["back"] = time.perf_counter()
        await show.cause(Fault(0.0, Kind.START, CONTROL))
        with trio.move_on_after(30.0):
            await until(lambda: are_back(show, 5))
            times["joined"] = time.perf_counter() - times["back"]
        await trio.sleep(6.0)

    record = await perform(Show(settings(options), quiet), script)
    links = Links()
    read_faults(record, links)
    moved = sorted(1000 * fault.moved_s for fault in links.faults if fault.moved_s is not None)
    verdicts.at_most("T1 meanwhile: moved, the slowest of " + str(len(links.faults)), max(moved, default=None), 600)
    kills = [fault for fault in record.faults if fault["what"] == "kill" and fault["node"] == "fra-1"]
    there = record.watching(kills[0])
    switches = sorted(1000 * moved for moved in _switches(record, kills[0]))
    print(f"      {len(there)} viewers on the relay that was killed meanwhile")
    verdicts.at_most("T5 meanwhile: playing elsewhere, p99", percentile(switches, 0.99), 3000)
    verdicts.at_most("a relay restarted from disk serves after", 1000 * times["serves"], 2000)
    newcomers = [viewer for viewer in record.viewers.values() if viewer.dialled > times["dead"]]
    verdicts.true("newcomers who play", len(newcomers) >= options.newcomers, len(newcomers))
    verdicts.true("viewers lost", not links.lost, links.lost)
    tell_calm(record, times, verdicts)
    verdicts.at_most("all relays with the controller again", 1000 * times.get("joined", 99.0), 15_000)
    verdicts.true("objects missing", not links.gaps, links.gaps)


def tell_calm(record: Record, times: Mapping[str, float], verdicts: Verdicts) -> None:
    """Whether the picture stood more often without a controller than with it, while nothing else was wrong."""
    before = stalls_within(record, times["plays"], times["dead"])
    without = [stalls_within(record, begin, begin + SETTLE_S) for begin in (times["dead"], times["calm"])]
    shown = f"{without[0]} and {without[1]}, {before} before"
    verdicts.true("stalls in calm times of one length, without a controller", max(without) <= before, shown)


def stalls_within(record: Record, begin: float, end: float) -> int:
    """How often pictures stood, by what was sent within a time; who was there before and had nothing counts once."""
    part = record.during(begin, end)
    return sum(len(part.stalls(viewer)) if viewer.seen else 1 for viewer in part.viewers.values())


def _switches(record: Record, kill: object) -> list[float]:
    others = record.faults
    record.faults = [fault for fault in others if fault is kill]
    try:
        return record.switches()
    finally:
        record.faults = others


# --- All ---


async def playing(show: Show, viewers: int) -> None:
    """Go on some seconds after everybody plays. Raises ShowError where they do not."""
    with trio.move_on_after(60.0):
        await until(lambda: all_play(show, viewers))
        await trio.sleep(3.0)
        return
    raise ShowError(f"only {count_playing(show)} of {viewers} viewers play")


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again."""
    while True:
        if await holds():
            return
        await trio.sleep(POLL_S)


async def all_play(show: Show, viewers: int) -> bool:
    return count_playing(show) >= viewers


def count_playing(show: Show) -> int:
    return sum(state.frames > PLAYING_FRAMES for state in show.viewers.values())


async def is_empty(show: Show, relay: str) -> bool:
    return not await sessions_of(show, relay)


async def is_trusted(show: Show) -> bool:
    """Whether every link may be used, as the controller knows; where there is none, a while must do."""
    try:
        return all(link["usable"] for link in await show.ask("/v1/links"))
    except CallError:
        await trio.sleep(3.0)
        return True


async def are_back(show: Show, relays: int) -> bool:
    """Whether so many relays are with the controller."""
    try:
        nodes = await show.ask("/v1/nodes")
    except CallError:
        return False
    return sum(node["condition"] == "alive" for node in nodes) >= relays


def settings(options: argparse.Namespace, *regions: str) -> ShowSettings:
    """Of one show."""
    trace = options.trace.open("w", encoding="utf-8") if options.trace else None
    return ShowSettings(
        page=False,
        talk=False,
        home=regions[0] if regions else HOME,
        longest_rtt_ms=options.longest_rtt,
        viewers=options.viewers,
        spread_s=1.0 + options.viewers / ARRIVALS_PER_S,
        rendition=options.rendition,
        regions=regions,
        trace=trace,
        state=options.state,
    )


def quiet(line: str) -> None:
    """Say it on standard error."""
    print(f"  {line}", file=sys.stderr, flush=True)


MEASURES = {
    "links": (measure_links, 8),
    "death": (measure_death, 200),
    "drain": (measure_drain, 100),
    "headless": (measure_headless, 20),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.mesh", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--viewers", type=int, help="viewers; by default what the target names")
    parser.add_argument("--faults", type=int, default=200, help="links: so many")
    parser.add_argument("--rendition", choices=("low", "picture"), default="low", help="what viewers watch")
    parser.add_argument("--newcomers", type=int, default=100, help="headless: who come while there is no controller")
    parser.add_argument(
        "--player", nargs="?", choices=PLAYERS, const=PLAYERS[0], help="death: one viewer is this player"
    )
    parser.add_argument("--deadline", type=float, default=30.0, help="drain: seconds")
    parser.add_argument(
        "--longest-rtt", type=float, help="between two relays, ms: all ways are shorter by one ratio (T1 is of 150)"
    )
    parser.add_argument("--undo", action="store_true", help="drain: take it back when half are asked")
    parser.add_argument("--trace", type=Path, help="keep what everybody had")
    parser.add_argument("--state", type=Path, help="a new directory for all files and logs, which stays")
    options = parser.parse_args(arguments)
    measure, viewers = MEASURES[options.what]
    options.viewers = viewers if options.viewers is None else options.viewers
    if options.player is not None:
        try:
            check_installed()
        except Missing as missing:
            print(f"peer missing: {missing}")
            return 3
        options.viewers -= 1
    verdicts = Verdicts()
    busy = os.getloadavg()[0]
    watching = f"{options.viewers} viewers{' and ' + options.player if options.player else ''}"
    print(f"{options.what}: {watching}, five relays, {os.cpu_count()} cores, load before {busy:.1f}")
    try:
        trio.run(measure, options, verdicts)
    except ShowError as error:
        print(f"bench.mesh: {error}", file=sys.stderr)
        return 1
    return 1 if verdicts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
