"""`tradewind room`: write to a room and read it, with every step as a line of JSON (`bench.check_rooms` reads them)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import trio

from tradewind.client.connect import Client, connect
from tradewind.client.rooms import Missing, Refused, Room, TakenBack, Unanswered, open_room
from tradewind.client.target import parse_namespace
from tradewind.client.tools.options import Seconds, client_settings, relay_options, report, run_tool, say
from tradewind.contract.rooms import Ack, Class, Nak, Publish, Record

CLASS_NAMES = [cls.name.lower() for cls in Class]


@click.group("room")
def command() -> None:
    """Write to a room, or read it."""


@command.command("write")
@click.argument("url")
@click.option("--room", "room", required=True, metavar="A/R/B", help="The room's namespace, e.g. shop/r/show.")
@click.option("--user", required=True, help="Who writes: the token must allow it.")
@click.option("--class", "cls", type=click.Choice(CLASS_NAMES), default="crowd", show_default=True)
@click.option("--count", type=click.IntRange(0), default=0, help="Write so many messages of our own, and no input.")
@click.option("--rate", type=click.FloatRange(0.01), default=10.0, show_default=True, help="Of those, a second.")
@click.option("--body-bytes", type=click.IntRange(0, 16_384), default=100, show_default=True, help="Of each of those.")
@relay_options
def write(
    url: str, room: str, user: str, cls: str, count: int, rate: float, body_bytes: int, token: str | None,
    insecure: bool, fingerprint: str | None, ca: Path | None, drafts: tuple[str, ...],
) -> None:  # fmt: skip
    """Write each line of standard input as a message, or --count messages, and print what became of each."""
    writer = f"{user}-{os.getpid()}"

    async def work() -> None:
        settings = client_settings(insecure, fingerprint, ca, drafts)
        async with (
            connect(url, token=token, settings=settings, report=report) as client,
            open_room(client, parse_namespace(room), user=user.encode(), watch=lambda m: _print(writer, m)) as found,
            trio.open_nursery() as nursery,
        ):
            if count:
                began = trio.current_time()
                for number in range(count):
                    await trio.sleep_until(began + number / rate)
                    body = b"%d " % number
                    nursery.start_soon(_write, found, body.ljust(body_bytes, b"."), Class[cls.upper()])
            else:
                async for line in _lines():
                    nursery.start_soon(_write, found, line, Class[cls.upper()])

    run_tool("room write", work)


@command.command("read")
@click.argument("url")
@click.option("--room", "room", required=True, metavar="A/R/B", help="The room's namespace, e.g. shop/r/show.")
@click.option("--from", "first", type=click.IntRange(0), default=0, show_default=True, help="The first seq.")
@click.option("--count", type=click.IntRange(0), default=0, help="Stop after so many records; 0: never.")
@click.option("--idle", type=Seconds(), default=None, help="Stop when nothing came for so long.")
@click.option("--log", "as_log", is_flag=True, help="Say that this is the whole log after the end, for the checker.")
@click.option("--bodies/--no-bodies", default=True, show_default=True, help="Print what the messages say, too.")
@relay_options
def read(
    url: str, room: str, first: int, count: int, idle: float | None, as_log: bool, bodies: bool, token: str | None,
    insecure: bool, fingerprint: str | None, ca: Path | None, drafts: tuple[str, ...],
) -> None:  # fmt: skip
    """Read a room: first what there is, then what comes."""

    async def work() -> None:
        settings = client_settings(insecure, fingerprint, ca, drafts)
        async with connect(url, token=token, settings=settings, report=report) as client:
            await _read(client, parse_namespace(room), first, count, idle, "log" if as_log else "read", bodies)

    run_tool("room read", work)


async def _write(room: Room, body: bytes, cls: Class) -> None:
    try:
        await room.write(body, cls)
    except (Refused, Unanswered) as error:
        say(f"not written: {error}")


async def _read(
    client: Client, room: tuple[bytes, ...], first: int, count: int, idle: float | None, what: str, bodies: bool
) -> None:
    reader_name = f"{what}-{os.getpid()}"
    async with open_room(client, room) as found:
        reader = found.read(first)
        read = 0
        while not count or read < count:
            with trio.move_on_after(float("inf") if idle is None else idle) as patience:
                item = await anext(reader)
            if patience.cancelled_caught:
                return
            match item:
                case Record():
                    read += 1
                    row = {
                        "what": what, "reader": reader_name, "key": item.key.hex(), "epoch": item.epoch,
                        "seq": item.seq,
                    }  # fmt: skip
                    if bodies:
                        row |= {"user": item.user.decode("utf-8", "replace"), "cls": item.cls, "at_ms": item.at_ms}
                        row |= {"body": item.body.decode("utf-8", "replace")}
                    _line(row)
                case TakenBack():
                    say(f"taken back from {item.start}: epoch {item.opening.epoch} began at {item.opening.home}")
                case Missing():
                    say(f"nobody can tell what {item.seq} is")


def rows(writer: str, message: Publish | Ack | Nak) -> dict[str, Any]:
    """One step of a writer as `bench.check_rooms` wants it."""
    row: dict[str, Any] = {"writer": writer, "key": message.key.hex()}
    match message:
        case Publish():
            return {"what": "sent", **row}
        case Ack():
            return {
                "what": "acked", **row, "epoch": message.epoch, "seq": message.seq, "stored": message.stored,
                "dup": message.dup,
            }  # fmt: skip
        case Nak():
            return {"what": "nak", **row, "why": message.why.name}


def _print(writer: str, message: Publish | Ack | Nak) -> None:
    _line(rows(writer, message))


def _line(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


async def _lines() -> Any:
    stream = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
    rest = b""
    async with stream:
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line
    if rest:
        yield rest
