"""A room on three relays and a controller as processes, with kills: `python -m bench.rooms --mesh`.

50 writers, a connection each, spread over all relays; a reader at each of them from the start, and late ones; `kill -9`
of the room's home in the middle. Writers whose relay is dead go to another one, and repeat with its key what nobody
acknowledged. What they all wrote down goes to `bench.check_rooms`, which knows nothing of any of this.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import trio

from bench import check_rooms
from bench.mesh_processes import Mesh, StartError
from tradewind.client.connect import Client, ClientSettings, ConnectFailed, connect
from tradewind.client.rooms import Missing, Refused, Room, TakenBack, Unanswered, open_room
from tradewind.client.tools.room import rows
from tradewind.contract.rooms import Ack, Nak, Opening, Publish, Record
from tradewind.moqt.model import format_namespace
from tradewind.quic.config import ServerTrust

ROOM = (b"bench", b"r", b"show")
REGIONS = {"fra-1": "fra", "hkg-1": "hkg", "iad-1": "iad"}
CLIENTS = ClientSettings(
    trust=ServerTrust(verify=False), idle_timeout_s=2.0, keep_alive_s=0.5, connect_timeout_s=1.5, first_pause_s=0.1
)
STARTS = 3
WRITE_S = 30.0
"""How long a writer asks for one message's place."""
OPEN_S = 30.0
"""For the room to have a home."""
LATE_READERS = (0.25, 0.75)
"""When readers come late, as parts of the whole time."""
QUIET_S = 2.0
"""The log is over when nothing came for so long."""
VOID_LAG_S = 0.020
AFTER_KILL_S = 5.0
"""Messages that are sent from a second before a kill to so long after it are not part of the calm percentiles."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen. Times are from the first message on; None: it does not happen."""

    writers: int = 50
    per_s: float = 500.0
    seconds: float = 60.0
    body: int = 100
    kill_s: float | None = 20.0
    """Of the room's home."""
    kill_follower_s: float | None = None
    restart_s: float | None = None
    kill_controller_s: float | None = None
    mutant: str = ""


@dataclass(slots=True)
class Notes:
    """What the clients wrote down, and when."""

    lines: list[str] = field(default_factory=list)
    sent_at: dict[bytes, float] = field(default_factory=dict)
    acked_at: dict[bytes, float] = field(default_factory=dict)
    """The first acknowledgement of each key."""
    stored: dict[bytes, int] = field(default_factory=dict)
    epochs: dict[int, float] = field(default_factory=dict)
    """When the first record of each epoch was acknowledged."""
    refused: Counter[str] = field(default_factory=Counter)
    refused_at: list[float] = field(default_factory=list)
    answers_at: list[float] = field(default_factory=list)
    """Every new acknowledgement, by whoever heard it."""
    unanswered: int = 0
    taken_back: int = 0
    missing: int = 0
    lags_s: list[float] = field(default_factory=list)

    def note(self, writer: str, message: Publish | Ack | Nak) -> None:
        """One step of a writer."""
        self.lines.append(json.dumps(rows(writer, message)))
        now = trio.current_time()
        match message:
            case Publish():
                self.sent_at.setdefault(message.key, now)
            case Ack():
                self.stored[message.key] = max(message.stored, self.stored.get(message.key, 0))
                self.epochs.setdefault(message.epoch, now)
                if message.key not in self.acked_at:
                    self.acked_at[message.key] = now
                    self.answers_at.append(now)
            case Nak():
                self.refused[message.why.name] += 1
                self.refused_at.append(now)

    def read(self, what: str, reader: str, record: Record) -> None:
        """One record, as a reader had it."""
        place = {"key": record.key.hex(), "epoch": record.epoch, "seq": record.seq}
        self.lines.append(json.dumps({"what": what, "reader": reader, **place}))


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    notes: Notes
    began: float
    home: str
    follower: str
    killed_at: float = 0.0
    """When one of them was killed first."""


async def run(mesh: Mesh, plan: Plan) -> Outcome:
    """Write, read, kill and start as planned; `mesh` is up."""
    notes = Notes()
    home = await _home(mesh)
    outcome = Outcome(notes, trio.current_time() + 1.0, home, await _follower(mesh, home))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_measure_lag, notes)
        for name in mesh.relays:
            nursery.start_soon(_read, mesh, name, f"live at {name}", notes)
        for part in LATE_READERS:
            name = list(mesh.relays)[int(part * len(mesh.relays))]
            late = partial(_read, mesh, name, f"late at {part:g}", notes)
            nursery.start_soon(_at, outcome.began + part * plan.seconds, late)
        nursery.start_soon(_disturb, mesh, plan, outcome)
        async with trio.open_nursery() as writers:
            for number in range(plan.writers):
                writers.start_soon(_write, mesh, number, plan, outcome)
        await _until_quiet(notes)
        nursery.cancel_scope.cancel()
    await _read_logs(mesh, notes)
    return outcome


def checked(outcome: Outcome) -> check_rooms.Report:
    """What the checker says. What a home that was killed had acknowledged with stored=1 may be lost, and is counted."""
    allowed = len(outcome.notes.acked_at) if outcome.killed_at else 0
    return check_rooms.check(check_rooms.gather(outcome.notes.lines), allowed)


def main(plan: Plan, directory: Path, records: Path | None = None) -> int:
    """Run, check, print. Returns 1 where the checker found something."""
    with made(plan, directory) as mesh:
        outcome = trio.run(run, mesh, plan)
    lines = outcome.notes.lines
    if records is not None:
        records.write_text("\n".join(lines))
    report = checked(outcome)
    for line in figures(outcome, report):
        print(line, flush=True)
    for kind, texts in report.faults.items():
        for text in texts[:3]:
            print(f"{kind}: {text}", file=sys.stderr)
    return 1 if report.faults else 0


@contextmanager
def made(plan: Plan, directory: Path | None = None) -> Iterator[Mesh]:
    """The processes of a plan, in a directory of their own that goes with them."""
    module = ("bench.mutant_relay", plan.mutant) if plan.mutant else ("relay",)
    flags = ("--rooms.messages_per_s_per_writer", "1000", "--rooms.messages_per_s", "10000")
    rooms = [b"/".join(ROOM).decode()]
    with ExitStack() as stack:
        for left in reversed(range(STARTS)):
            name = stack.enter_context(tempfile.TemporaryDirectory(dir=directory))
            try:
                mesh = stack.enter_context(Mesh(Path(name), REGIONS, rooms, module=module, flags=flags))
                break
            except StartError:
                # Ports that were free a moment ago may have been taken by somebody else.
                if not left:
                    raise
        yield mesh


def figures(outcome: Outcome, report: check_rooms.Report) -> Iterator[str]:
    """Lines for people."""
    notes, counts = outcome.notes, report.counts
    stored = Counter(notes.stored.values())
    yield (
        f"{len(notes.sent_at)} messages, {counts['acked']} acknowledged: stored=2 {stored[2]}, "
        f"stored=1 at last {stored[1]}; {notes.unanswered} without an answer; refused for now: "
        + (", ".join(f"{why} {count}" for why, count in sorted(notes.refused.items())) or "none")
    )
    faults = {kind: len(texts) for kind, texts in report.faults.items()}
    orders = 1 + sum(faults.get(kind, 0) for kind in ("logs differ", "order", "moved"))
    missing = f"{faults.get('lost', 0)} of stored=2 and {counts['lost, stored once']} of stored=1"
    yield (
        f"missing {missing}, duplicates {faults.get('duplicate', 0)}, orders {orders}, records read {counts['read']}, "
        f"taken back {notes.taken_back}, unreadable {notes.missing}, epochs {sorted(notes.epochs)}"
    )
    if outcome.killed_at:
        yield from _after_kill(outcome)
    calm, all_s = [], []
    for key, at in notes.acked_at.items():
        took = at - notes.sent_at[key]
        all_s.append(took)
        if not outcome.killed_at or not -1.0 <= notes.sent_at[key] - outcome.killed_at <= AFTER_KILL_S:
            calm.append(took)
    yield f"acknowledgement p50 {_ms(calm, 50)} ms, p99 {_ms(calm, 99)} ms; with the kill p99 {_ms(all_s, 99)} ms"
    lag = _ms(notes.lags_s, 99)
    void = ": VOID, the machine was too busy" if float(lag) > VOID_LAG_S * 1e3 else ""
    yield f"clients' own lateness p99 {lag} ms{void}; faults {faults or 'none'}"


def _after_kill(outcome: Outcome) -> Iterator[str]:
    """How long it was quiet."""
    notes, killed = outcome.notes, outcome.killed_at
    moments = sorted(at for at in notes.answers_at if at >= killed - 1.0)
    pauses = [(after - before, before) for before, after in pairwise(moments)]
    pause, since = max(pauses, default=(0.0, killed))
    newest = max(notes.epochs)
    again = min((at for at in notes.epochs.values() if at > killed), default=None)
    first = "never" if again is None else f"{(again - killed) * 1e3:.0f} ms after the kill, in epoch {newest}"
    waited = [
        notes.acked_at[key] - at for key, at in notes.sent_at.items() if key in notes.acked_at and at < killed + 0.5
    ]
    yield (
        f"after the kill: longest time without an acknowledgement {pause * 1e3:.0f} ms "
        f"(from {(since - killed) * 1e3:.0f} ms), the first new one {first}, "
        f"the last of those sent by then after {max(waited, default=0.0) * 1e3:.0f} ms"
    )
    refused = min((at for at in notes.refused_at if at > killed), default=None)
    if refused is not None:
        yield f"the first refusal {(refused - killed) * 1e3:.0f} ms after the kill"


async def _home(mesh: Mesh) -> str:
    """Who orders the room, as its readers are told."""
    name = next(iter(mesh.relays))
    with trio.fail_after(OPEN_S):
        async with _connected(mesh.url(name), ()) as client, open_room(client, ROOM) as room:
            reader = room.read()
            opening: Opening | None = None
            while opening is None:
                with trio.move_on_after(0.1):
                    await anext(reader)
                opening = reader.opening
            return opening.home


async def _follower(mesh: Mesh, home: str) -> str:
    """Who has the second copy, as that relay says itself."""
    room = format_namespace(ROOM)
    with trio.fail_after(OPEN_S):
        while True:
            for name in [name for name in mesh.relays if name != home]:
                state = await trio.to_thread.run_sync(mesh.relays[name].state)
                if state["rooms"].get(room, {}).get("doing") == "following":
                    return name
            await trio.sleep(0.1)


async def _disturb(mesh: Mesh, plan: Plan, outcome: Outcome) -> None:
    """The kills and starts of the plan, in order of time."""

    def kill(name: str) -> None:
        outcome.killed_at = outcome.killed_at or trio.current_time()
        mesh.relays[name].kill()

    def restart() -> None:
        for relay in mesh.relays.values():
            if not relay.is_alive:
                relay.start()

    steps: list[tuple[float | None, Callable[[], None]]] = [
        (plan.kill_s, partial(kill, outcome.home)),
        (plan.kill_follower_s, partial(kill, outcome.follower)),
        (plan.restart_s, restart),
        (plan.kill_controller_s, mesh.controller.kill),
    ]
    for at, step in sorted(((at, step) for at, step in steps if at is not None), key=lambda found: found[0]):
        await trio.sleep_until(outcome.began + at)
        step()


async def _write(mesh: Mesh, number: int, plan: Plan, outcome: Outcome) -> None:
    """One writer: it begins at its own relay, and knows the others."""
    name = f"writer{number}"
    urls = [mesh.url(relay) for relay in mesh.relays]
    at = number % len(urls)
    first, *others = urls[at:] + urls[:at]
    every_s = plan.writers / plan.per_s
    watch = partial(outcome.notes.note, name)
    async with (
        _connected(first, others) as client,
        open_room(client, ROOM, user=name.encode(), watch=watch) as room,
        trio.open_nursery() as nursery,
    ):
        outcome.began = max(outcome.began, trio.current_time())
        for turn in range(int(plan.seconds / every_s)):
            await trio.sleep_until(outcome.began + (turn + number / plan.writers) * every_s)
            nursery.start_soon(_write_one, room, bytes(plan.body), outcome.notes)


async def _write_one(room: Room, body: bytes, notes: Notes) -> None:
    try:
        await room.write(body, timeout_s=WRITE_S)
    except Unanswered:
        notes.unanswered += 1
    except Refused:
        return


async def _read_logs(mesh: Mesh, notes: Notes) -> None:
    """The whole log at each relay that lives, until all are equally long and nothing comes any more."""
    read = {f"log at {name}": 0 for name, relay in mesh.relays.items() if relay.is_alive}
    async with trio.open_nursery() as nursery:
        for name in read:
            nursery.start_soon(_read, mesh, name.removeprefix("log at "), name, notes, read)
        with trio.move_on_after(OPEN_S):
            before: list[int] = []
            while before != (before := list(read.values())) or len(set(before)) > 1:  # noqa: ASYNC110 - relays are asked, and do not call
                await trio.sleep(QUIET_S)
        nursery.cancel_scope.cancel()


async def _read(mesh: Mesh, at: str, reader: str, notes: Notes, log: dict[str, int] | None = None) -> None:
    """One reader, until it is cancelled. `log`: it reads the whole log after the end, and counts there."""
    others = [mesh.url(relay) for relay in mesh.relays if relay != at]
    async with _connected(mesh.url(at), others) as client, open_room(client, ROOM) as room:
        async for item in room.read():
            match item:
                case Record() if log is not None:
                    notes.read("log", reader, item)
                    log[reader] += 1
                case Record():
                    notes.read("read", reader, item)
                case TakenBack():
                    notes.taken_back += 1
                case Missing():
                    notes.missing += 1


@asynccontextmanager
async def _connected(url: str, others: Sequence[str]) -> AsyncIterator[Client]:
    """A client, on a machine that may be too busy for the first attempt."""
    async with AsyncExitStack() as stack:
        client: Client | None = None
        while client is None:
            with suppress(ConnectFailed):
                client = await stack.enter_async_context(connect(url, others=others, settings=CLIENTS))
        yield client


async def _until_quiet(notes: Notes) -> None:
    """Readers have what there is: nothing came for a while."""
    seen = -1
    while seen != len(notes.lines):
        seen = len(notes.lines)
        await trio.sleep(QUIET_S)


async def _at(moment: float, what: Callable[[], object]) -> None:
    await trio.sleep_until(moment)
    await what()  # type: ignore[misc]


async def _measure_lag(notes: Notes) -> None:
    while True:
        due = trio.current_time() + 0.05
        await trio.sleep_until(due)
        notes.lags_s.append(trio.current_time() - due)


def _ms(values: list[float], percent: int) -> str:
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] * 1e3:.1f}" if ordered else "0.0"
