"""Rooms on this disk: what a flush takes, what the store commits, and what a home and its follower do with both.

    python -m bench.rooms [--directory .] [--seconds 3] [--body 100]
    python -m bench.rooms --relay moqt://127.0.0.1:4443/ [--writers 50] [--rate 500] [--seconds 3]
    python -m bench.rooms --mesh [--writers 50] [--rate 500] [--seconds 60] [--kill 20] [--kill-follower 20]
                          [--restart 35] [--kill-controller 10] [--mutant ack-before-store] [--records FILE]

First the flush probe. Then the store alone: batches of 1 to 256 records, one batch on its way at a time. Then two whole
relays in this process without a network: 50 writers, messages of 500 a second and then as many as go, through home,
store, follower and its store to the acknowledgement with stored=2. Exit code 1 where the flush looks unreal: what is
measured then is not durability. With `--relay` writers and a reader use a real relay, and the checker has the verdict;
its writers' rate must be allowed there (`rooms.messages_per_s_per_writer`).

With `--mesh` it starts a controller and three relays, kills what it is told to at times that count from the first
message, and has the checker look at every client's records: `bench.rooms_mesh`. Exit code 1 where that finds a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import trio

from bench import check_rooms, rooms_mesh
from bench.mutant_relay import MUTANTS
from relay.rooms.effects import Entry, Outcome, Write, Written
from relay.rooms.rates import RoomSettings
from relay.rooms.rooms import Rooms
from relay.rooms.store import Flush, RoomStore, StoreSettings, probe_flush
from tradewind.client.connect import Client, ClientSettings, connect
from tradewind.client.rooms import open_room
from tradewind.client.tools.room import rows
from tradewind.contract import copies
from tradewind.contract.messages import RoomEntry
from tradewind.contract.rooms import NO_CHAIN, Ack, Nak, Publish, Record, chain_of, encode
from tradewind.quic.config import ServerTrust

ROOM = (b"bench", b"r", b"show")


def percentile(values: list[float], percent: int) -> float:
    """Of seconds, as milliseconds; 0 where there are none."""
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)] * 1e3 if values else 0.0


def store_alone(directory: Path, batch: int, seconds: float, body: int) -> tuple[float, list[float]]:
    """Records a second, and how long each batch took from submission to answer."""
    woken = threading.Semaphore(0)
    store = RoomStore(directory / f"store-{batch}.db", StoreSettings(), woken.release)
    store.load()
    took: list[float] = []
    seq, chain = 0, NO_CHAIN
    end = time.perf_counter() + seconds
    began = time.perf_counter()
    making = 0.0
    while (start := time.perf_counter()) < end:
        entries = []
        for _ in range(batch):
            key = os.urandom(16)
            payload = encode(Record(1, seq, key, b"writer", 3, 1, 1, bytes(body), chain))
            entries.append(Entry(key, payload))
            seq, chain = seq + 1, chain_of(payload)
        submitted = time.perf_counter()
        making += submitted - start
        store.submit([Write(seq, ROOM, seq - batch, tuple(entries))])
        woken.acquire()
        (written,) = store.results()
        assert isinstance(written, Written) and written.outcome is Outcome.STORED
        took.append(time.perf_counter() - submitted)
    rate = seq / (time.perf_counter() - began - making)
    store.close()
    return rate, took


class Pair:
    """A home and its follower, each with its store, joined in memory."""

    def __init__(self, directory: Path) -> None:
        self.woken = threading.Event()
        self.stores = {
            name: RoomStore(directory / f"{name}.db", StoreSettings(), self.woken.set) for name in ("home", "follower")
        }
        settings = RoomSettings(room_per_s=1e6, writer_per_s=1e6, queue_records=20_000)
        self.rooms = {name: Rooms(name, settings, store.load()) for name, store in self.stores.items()}
        self.sent_at: dict[bytes, float] = {}
        self.took: list[float] = []
        self.busy_s = 0.0
        self.once = 0
        for rooms in self.rooms.values():
            rooms.apply([RoomEntry(ROOM, "home", "follower", 1)], time.monotonic())
            rooms.receive_controller(time.monotonic())

    def publish(self, number: int, body: int) -> None:
        key = os.urandom(16)
        data = encode(Publish(ROOM, key, 3, int(time.time() * 1000), bytes(body)))
        now = time.monotonic()
        self.sent_at[key] = now
        self.rooms["home"].receive_publish(ROOM, number % 50, b"writer%d" % (number % 50), data, now, time.time())

    def turn(self) -> None:
        """Do everything that can be done without waiting."""
        began = time.perf_counter()
        self.woken.clear()
        now = time.monotonic()
        moved = True
        while moved:
            moved = False
            for name, rooms in self.rooms.items():
                results = self.stores[name].results()
                rooms.receive_results(results, now)
                due = rooms.next_deadline()
                if due is not None and due <= now:
                    rooms.handle_deadline(now)
                output = rooms.output(now)
                self.stores[name].submit(output.to_store)
                for to, message in output.to_relays:
                    copied = copies.decode(copies.encode(message))
                    assert isinstance(copied, copies.Copy | copies.Copied)
                    self.rooms[to].receive_relay(name, copied, now)
                    moved = True
                for _, answer in output.answers:
                    assert isinstance(answer, Ack), answer
                    if answer.stored == 2:
                        self.took.append(now - self.sent_at.pop(answer.key))
                    else:
                        self.once += 1
        self.busy_s += time.perf_counter() - began

    def run(self, per_s: float | None, seconds: float, body: int) -> tuple[float, int]:
        """Publish for so long; None: 2,000 messages are always on their way. Records a second, and how many."""
        began = time.perf_counter()
        number = 0
        self.took.clear()
        self.busy_s = 0.0
        while (passed := time.perf_counter() - began) < seconds:
            due = int(passed * per_s) - number if per_s is not None else 2000 - len(self.sent_at)
            for _ in range(due):
                self.publish(number, body)
                number += 1
            self.turn()
            self.woken.wait(0.002)
        while self.sent_at:
            self.turn()
            self.woken.wait(0.002)
        return number / (time.perf_counter() - began), number

    def close(self) -> None:
        for store in self.stores.values():
            store.close()


async def over_relay(url: str, options: argparse.Namespace) -> int:
    """Writers and a reader at a real relay; what they saw goes to the checker. Returns its exit code."""
    lines: list[str] = []
    took: list[float] = []
    sent_at: dict[bytes, float] = {}
    room = (b"bench", b"r", os.urandom(6).hex().encode())
    settings = ClientSettings(trust=ServerTrust(verify=False))

    def note(writer: str, message: Publish | Ack | Nak) -> None:
        lines.append(json.dumps(rows(writer, message)))
        if isinstance(message, Publish):
            sent_at.setdefault(message.key, time.perf_counter())
        elif isinstance(message, Ack) and not message.dup:
            took.append(time.perf_counter() - sent_at[message.key])

    async def write(client: Client, number: int, began: float) -> None:
        name = f"writer{number}"
        every_s = options.writers / options.rate
        async with open_room(client, room, user=name.encode(), watch=partial(note, name)) as found:
            nursery: trio.Nursery
            async with trio.open_nursery() as nursery:
                for turn in range(int(options.seconds / every_s)):
                    await trio.sleep_until(began + (turn + number / options.writers) * every_s)
                    nursery.start_soon(partial(found.write, bytes(options.body), timeout_s=20.0))

    async def read(client: Client, what: str, until_idle_s: float) -> None:
        async with open_room(client, room) as found:
            reader = found.read()
            while True:
                with trio.move_on_after(until_idle_s) as patience:
                    item = await anext(reader)
                if patience.cancelled_caught:
                    return
                assert isinstance(item, Record), item
                place = {"key": item.key.hex(), "epoch": item.epoch, "seq": item.seq}
                lines.append(json.dumps({"what": what, "reader": what, **place}))

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(url, settings=settings)) for _ in range(5)]
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            began = trio.current_time() + 2.0
            nursery.start_soon(read, clients[0], "read", 4.0)
            for number in range(options.writers):
                nursery.start_soon(write, clients[number % 5], number, began)
        await read(clients[0], "log", 1.0)
        elapsed = time.perf_counter() - start
    print(f"{len(took)} acknowledged of {len(sent_at)} in {elapsed:.1f} s, first acknowledgement p50 "
          f"{percentile(took, 50):.1f} ms, p99 {percentile(took, 99):.1f} ms")  # fmt: skip
    return verdict(lines)


def verdict(lines: list[str]) -> int:
    """What the checker says of records."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("\n".join(lines))
        file.flush()
        return check_rooms.main([file.name])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.rooms", description=__doc__.split("\n")[0])
    parser.add_argument("--directory", type=Path, default=Path(), help="a directory on the disk to be measured")
    parser.add_argument("--seconds", type=float, help="3, and 60 with --mesh")
    parser.add_argument("--body", type=int, default=100, help="bytes")
    parser.add_argument("--relay", metavar="URL", help="measure this relay instead, whatever is behind it")
    parser.add_argument("--writers", type=int, default=50, help="with --relay and --mesh")
    parser.add_argument("--rate", type=float, default=500.0, help="messages a second, with --relay and --mesh")
    mesh = parser.add_argument_group("with --mesh", "times in seconds from the first message on; negative: never")
    mesh.add_argument("--mesh", action="store_true", help="three relays and a controller, as processes made for this")
    mesh.add_argument("--kill", type=float, default=20.0, help="kill -9 of the room's home")
    mesh.add_argument("--kill-follower", type=float, default=-1.0)
    mesh.add_argument("--restart", type=float, default=-1.0, help="start again what was killed")
    mesh.add_argument("--kill-controller", type=float, default=-1.0)
    mesh.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="relays with a fault: bench.mutant_relay")
    mesh.add_argument("--records", type=Path, help="write down here what the clients saw")
    options = parser.parse_args(arguments)
    if options.mesh:
        return rooms_mesh.main(_plan(options), options.directory, options.records)
    options.seconds = options.seconds or 3.0
    if options.relay:
        return trio.run(over_relay, options.relay, options)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        probe = probe_flush(directory)
        print(f"flush of 4 kB: p50 {probe.p50_s * 1e6:.0f} us, p99 {probe.p99_s * 1e6:.0f} us: {probe.verdict.value}")
        print("store alone        records/s   batch p50 ms   p99 ms")
        for batch in (1, 16, 64, 256):
            rate, took = store_alone(directory, batch, options.seconds, options.body)
            print(
                f"{batch:4d} in a batch{rate:13.0f}{percentile(took, 50):15.2f}{percentile(took, 99):9.2f}", flush=True
            )
        print("home and follower  messages/s  stored=2 p50 ms   p99 ms   turns us/message   stored=1 first")
        pair = Pair(directory)
        for per_s in (500.0, 2000.0, None):
            once = pair.once
            rate, count = pair.run(per_s, options.seconds, options.body)
            label = f"{per_s:g}/s" if per_s is not None else "as many as go"
            p50, p99 = percentile(pair.took, 50), percentile(pair.took, 99)
            cost = pair.busy_s / count * 1e6
            print(f"{label:<18}{rate:11.0f}{p50:17.2f}{p99:9.2f}{cost:19.1f}{pair.once - once:17d}", flush=True)
        pair.close()
    return 0 if probe.verdict is Flush.REAL else 1


def _plan(options: argparse.Namespace) -> rooms_mesh.Plan:
    def at(seconds: float) -> float | None:
        return seconds if seconds >= 0 else None

    return rooms_mesh.Plan(
        options.writers, options.rate, options.seconds or 60.0, options.body, at(options.kill),
        at(options.kill_follower), at(options.restart), at(options.kill_controller), options.mutant,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
