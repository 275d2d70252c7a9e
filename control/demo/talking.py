"""EDGE: people in the demo's room: `python -m control.demo.talking --relay URL... --sha256 HEX --token JWT`.

One of them stands at every relay, writes some messages a second and reads everybody's; when a relay is gone theirs is
the next one. Standard output says which messages were acknowledged, and who read which (`time.perf_counter`):

    {"kind": "acked", "key": "9f...", "at": 12.3, "stored": 2}
    {"kind": "read", "reader": "reader-1", "key": "9f...", "seq": 4, "at": 12.4}

On SIGTERM nobody writes any more; it ends once everybody has read what was acknowledged, or after a while.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from tradewind.client.connect import ClientSettings, connect
from tradewind.client.dialing import ConnectFailed
from tradewind.client.exchange import LinkLost, RequestFailed
from tradewind.client.rooms import Refused, Room, Unanswered, open_room
from tradewind.contract.rooms import Ack, Nak, Publish, Record
from tradewind.quic.config import ServerTrust

SILENCE_S = 1.5
"""A relay that is silent for so long is gone."""
RETRY_S = 0.5
ANSWER_S = 20.0
LAST_WORDS_S = 6.0


@dataclass(slots=True)
class Talk:
    """What everybody said and read."""

    room: tuple[bytes, ...]
    every_s: float
    acked: set[bytes] = field(default_factory=set)
    read: dict[str, set[bytes]] = field(default_factory=dict)
    over: bool = False
    _all_read: trio.Event = field(default_factory=trio.Event)

    def watch(self, message: Publish | Ack | Nak) -> None:
        """A writer sent, or was answered."""
        if isinstance(message, Ack) and message.key not in self.acked:
            self.acked.add(message.key)
            _say(kind="acked", key=message.key.hex(), stored=message.stored)

    async def run(self, number: int, relays: Sequence[str], token: str, settings: ClientSettings) -> None:
        """One person, for ever."""
        self.read[f"reader-{number}"] = set()
        while True:
            with suppress(ConnectFailed, LinkLost, RequestFailed):
                async with (
                    connect(relays[0], token=token, settings=settings, others=relays[1:]) as client,
                    open_room(client, self.room, user=f"writer-{number}".encode(), watch=self.watch) as room,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self._read, room, f"reader-{number}")
                    nursery.start_soon(self._write, room, number)
            await trio.sleep(RETRY_S)

    async def _write(self, room: Room, number: int) -> None:
        async with trio.open_nursery() as nursery:
            for turn in range(sys.maxsize):
                if self.over:
                    return
                nursery.start_soon(self._write_one, room, f"{turn} from {number}".encode())
                await trio.sleep(self.every_s)

    async def _write_one(self, room: Room, body: bytes) -> None:
        with suppress(Refused, Unanswered):
            await room.write(body, timeout_s=ANSWER_S)

    async def _read(self, room: Room, reader: str) -> None:
        had = self.read[reader]
        async for item in room.read():
            if isinstance(item, Record) and item.key not in had:
                had.add(item.key)
                _say(kind="read", reader=reader, key=item.key.hex(), seq=item.seq)
                self._look()

    async def end(self) -> None:
        """Nobody writes any more; everybody reads what there is."""
        self.over = True
        self._look()
        with trio.move_on_after(LAST_WORDS_S):
            await self._all_read.wait()

    def _look(self) -> None:
        if self.over and all(self.acked <= had for had in self.read.values()):
            self._all_read.set()


def main(arguments: Sequence[str] | None = None) -> int:
    """Talk until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="control.demo.talking", description=__doc__.split("\n")[0])
    parser.add_argument("--relay", action="append", required=True, help="URL; somebody stands at each")
    parser.add_argument("--room", default="live/r/lobby")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two messages of one person")
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--token", required=True)
    given = parser.parse_args(arguments)
    settings = ClientSettings(
        trust=ServerTrust(pinned_sha256=bytes.fromhex(given.sha256)),
        connect_timeout_s=SILENCE_S,
        idle_timeout_s=SILENCE_S,
        keep_alive_s=SILENCE_S / 4,
    )
    talk = Talk(tuple(part.encode() for part in given.room.split("/")), given.every)
    trio.run(_run, talk, given.relay, given.token, settings)
    return 0


async def _run(talk: Talk, relays: list[str], token: str, settings: ClientSettings) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            for number in range(len(relays)):
                nursery.start_soon(talk.run, number + 1, relays[number:] + relays[:number], token, settings)
            _say(kind="talking")
            await anext(signals)
            await talk.end()
            nursery.cancel_scope.cancel()


def _say(**line: object) -> None:
    sys.stdout.write(json.dumps({**line, "at": time.perf_counter()}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
