"""A writer's side of a room: what is sent, again and in which order, without a relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from tradewind.client.connect import Client, Subscription
from tradewind.client.rooms import FIRST_WAIT_S, Refused, Room
from tradewind.client.target import parse_target
from tradewind.client.tracks import TrackWriter
from tradewind.contract.rooms import Ack, Class, Nak, Publish, Why, decode

ROOM = (b"app", b"r", b"show")


class Relay:
    """The client, its track `pub` and its answers: what a `Room` has of a relay."""

    target = parse_target("moqt://127.0.0.1/")

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.groups: list[int] = []
        self.kept: list[bytes] = []
        self.reopened = trio.Event()

    def write(self, group: int, number: int, payload: bytes) -> None:
        message = decode(payload)
        assert isinstance(message, Publish)
        self.sent.append(message.body)
        self.groups.append(group)
        self.kept.append(message.body)

    def forget(self) -> None:
        self.kept.clear()

    def __aiter__(self) -> Relay:
        return self

    async def __anext__(self) -> None:
        await trio.sleep_forever()

    def move(self) -> None:
        """Another relay has the writer now."""
        self.reopened.set()
        self.reopened = trio.Event()


@asynccontextmanager
async def a_room() -> AsyncIterator[tuple[Room, Relay, trio.Nursery]]:
    relay = Relay()
    nursery: trio.Nursery
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            room = Room(cast("Client", relay), ROOM, b"ann", None, nursery)
            room._track = cast("TrackWriter", relay)
            nursery.start_soon(room._take_answers, cast("Subscription", relay))
            yield room, relay, nursery
            nursery.cancel_scope.cancel()


def answer(room: Room, body: bytes, why: Why | None = None, retry_ms: int | None = None) -> None:
    key = body.ljust(16, b".")
    room._take(Ack(key, 1, 0, False, 2, 1) if why is None else Nak(key, why, retry_ms))


async def test_who_moves_repeats_what_nobody_answered_in_its_order(autojump_clock: MockClock) -> None:
    async with a_room() as (room, relay, nursery):

        async def write(body: bytes) -> None:
            await room.write(body, key=body.ljust(16, b"."))

        for body in (b"a", b"b", b"c", b"d", b"e"):
            nursery.start_soon(write, body)
            await trio.sleep(0.01)
        answer(room, b"b")
        answer(room, b"d", Why.RATE, retry_ms=300)
        await trio.sleep(0.1)
        relay.move()
        await trio.sleep(0.1)
        assert b"".join(relay.sent) == b"abcdeace", "not what is answered, and not what was told to wait"
        await trio.sleep(0.2)
        assert b"".join(relay.sent) == b"abcdeaced"
        for body in (b"a", b"c", b"d", b"e"):
            answer(room, body)
        await trio.sleep(2 * FIRST_WAIT_S)
        assert b"".join(relay.sent) == b"abcdeaced"


async def test_the_next_relay_reads_nothing_that_the_last_one_was_sent(autojump_clock: MockClock) -> None:
    async with a_room() as (room, relay, nursery):
        for body in (b"a", b"b"):
            nursery.start_soon(partial(room.write, body, key=body.ljust(16, b".")))
            await trio.sleep(0.01)
        answer(room, b"a")
        room._begin_anew()
        assert relay.kept == []
        relay.move()
        await trio.sleep(0.01)
        assert relay.kept == [b"b"] and relay.groups == [relay.groups[0]] * 2 + [relay.groups[0] + 1]
        answer(room, b"b")


async def test_a_message_is_asked_for_until_it_is_answered(autojump_clock: MockClock) -> None:
    async with a_room() as (room, relay, nursery):
        found: list[object] = []

        async def write() -> None:
            with pytest.raises(Refused) as caught:
                await room.write(b"x", Class.VALUE, key=b"x".ljust(16, b"."))
            found.append(caught.value.nak.why)

        nursery.start_soon(write)
        await trio.sleep(7.5 * FIRST_WAIT_S)
        assert len(relay.sent) == 4, "after 1 s, then 2, then 4"
        answer(room, b"x", Why.DENIED)
        await trio.sleep(1.0)
        assert found == [Why.DENIED]
