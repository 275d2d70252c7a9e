"""Rooms: write messages and learn their places, read the one order that everybody has. Part of the client's EDGE.

    async with open_room(client, (b"app", b"r", b"show"), user=b"ann") as room:
        ack = await room.write(b"hello")
        async for item in room.read():
            ...

A message that is not answered is sent again with its key, which makes it the same message: it gets one place at most.
Reading follows the room through its epochs; what was taken back is said (`TakenBack`), and so is what nobody can tell
any more (`Missing`). docs/rooms.md has the promises.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

import trio

from tradewind.client.connect import Client, Join, LinkLost, RequestFailed, Subscription
from tradewind.client.receiving import ReceivedObject
from tradewind.client.tracks import Publication, TrackWriter
from tradewind.contract.rooms import (
    ACK_TRACK,
    EPOCHS_TRACK,
    GROUP_OBJECTS,
    KEY_BYTES,
    LOG_TRACK,
    PUB_TRACK,
    Ack,
    Class,
    Nak,
    Opening,
    Publish,
    Record,
    RoomMessageError,
    RoomName,
    answers_namespace,
    decode,
    decode_record,
    encode,
    location_of,
    log_namespace,
    writer_namespace,
)
from tradewind.contract.token import split_path
from tradewind.moqt.model import FullTrackName, Location, Namespace

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 5.0
"""How long an answer is waited for before a message is sent again: the first time, and at most."""
SHORTEST_RETRY_S = 0.1
GROUP_MESSAGES = 64
"""A group of `pub` ends after so many, once everything in it is answered."""
MOST_GROUP_MESSAGES = 1024
"""And after so many whatever was answered: what is in two groups may change places on the way."""
PAGE_RECORDS = 2048
LOOK_S = 0.2
"""How often a reader looks whether the room has moved, and whether what is late has to be asked for."""
LATE_S = 0.5
MOST_ATTEMPTS = 5
"""How often a record is asked for that does not come, before it counts as missing."""
PATIENCE_S = 30.0
"""How long a room that nobody knows is asked for."""


class Refused(Exception):
    """The room does not take a message, and will not: `nak` says why."""

    def __init__(self, nak: Nak) -> None:
        super().__init__(nak.why.name)
        self.nak = nak


class Unanswered(Exception):
    """Nobody said in time what became of a message. It may have a place."""


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What was read from `start` on has lost its place: a new epoch began without it."""

    start: int
    opening: Opening


@dataclass(frozen=True, slots=True)
class Missing:
    """Nobody can tell what has this place."""

    seq: int


Item: TypeAlias = Record | TakenBack | Missing
Watch: TypeAlias = Callable[[Publish | Ack | Nak], None]


@asynccontextmanager
async def open_room(
    client: Client, room: RoomName, *, user: bytes | None = None, watch: Watch | None = None
) -> AsyncIterator[Room]:
    """A room on a client's connection; with a `user` it can be written to.

    `room` is the room's whole name, also where the client dialled a path above it. `watch` sees every message that
    leaves and every answer. Raises RequestFailed where the relay does not let this user write, and LinkLost.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        found = Room(client, room, user, watch, nursery)
        try:
            await found._start()
            yield found
        except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery, which would wrap it
            failure = error
        finally:
            found._stop()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Waiting:
    """A message without an answer."""

    __slots__ = ("answer", "data", "message", "news", "retry_s")

    def __init__(self, message: Publish) -> None:
        self.message = message
        self.data = encode(message)
        self.answer: Ack | Nak | None = None
        self.retry_s: float | None = None
        """A NAK said so."""
        self.news = trio.Event()


class Room:
    """What `open_room` gives. All methods may be called from any task."""

    def __init__(
        self, client: Client, room: RoomName, user: bytes | None, watch: Watch | None, nursery: trio.Nursery
    ) -> None:
        self.name = room
        self.user = user
        self._client = client
        self._watch = watch or (lambda _: None)
        self._nursery = nursery
        self._root = split_path(client.target.path)
        self._publication: Publication | None = None
        self._track: TrackWriter | None = None
        self._waiting: dict[bytes, _Waiting] = {}
        # Locations are never used twice, also by another process of the same user.
        self._group = int(time.time() * 1000)
        self._number = 0

    async def write(
        self,
        body: bytes,
        cls: Class = Class.CROWD,
        *,
        key: bytes | None = None,
        timeout_s: float = 30.0,
        lang: str | None = None,
        reply_to: int | None = None,
        expect_seq: int | None = None,
        deadline_ms: int | None = None,
    ) -> Ack:
        """Write one message and wait for its place. Give the `key` of before to ask again for the same message.

        Raises Refused, and Unanswered after `timeout_s`.
        """
        assert self._track is not None, "opened without a user"
        message = Publish(
            self.name, key or os.urandom(KEY_BYTES), int(cls), int(time.time() * 1000), body, lang, reply_to,
            expect_seq, deadline_ms,
        )  # fmt: skip
        waiting = self._waiting.setdefault(message.key, _Waiting(message))
        wait_s = FIRST_WAIT_S
        try:
            with trio.move_on_after(timeout_s):
                while True:
                    self._send(waiting)
                    with trio.move_on_after(wait_s):
                        await waiting.news.wait()
                    if waiting.answer is None and waiting.retry_s is not None:
                        await trio.sleep(max(waiting.retry_s, SHORTEST_RETRY_S))
                        waiting.retry_s, waiting.news = None, trio.Event()
                    elif waiting.answer is None:
                        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                    if waiting.answer is not None:
                        return _taken(waiting.answer)
            raise Unanswered(f"no answer within {timeout_s:g} s")
        finally:
            self._waiting.pop(message.key, None)

    def read(self, first: int = 0) -> Reader:
        """The order from a seq on: what there is, and then what comes."""
        reader = Reader(self, self._client, first)
        self._nursery.start_soon(reader.follow_epochs)
        return reader

    def wire(self, namespace: Namespace) -> Namespace:
        """A namespace of the room as this connection names it."""
        return namespace[len(self._root) :] if namespace[: len(self._root)] == self._root else namespace

    # --- Inside ---

    async def _start(self) -> None:
        if self.user is None:
            return
        publication = self._client.publication(self.wire(writer_namespace(self.name, (self.user,))))
        self._track = publication.track(PUB_TRACK)
        publication.moving = self._begin_anew
        self._publication = await self._client.publish_namespace(publication)
        answers = await self._subscribe_answers()
        self._nursery.start_soon(self._take_answers, answers)

    def _stop(self) -> None:
        if self._publication is not None and self._track is not None:
            self._track.finish()
            self._client.withdraw(self._publication)

    async def _subscribe_answers(self) -> Subscription:
        assert self.user is not None
        track = FullTrackName(self.wire(answers_namespace(self.name, (self.user,))), ACK_TRACK)
        return await self._client.subscribe(track, join=Join.NEXT_OBJECT, wait_s=PATIENCE_S)

    async def _take_answers(self, answers: Subscription) -> None:
        while True:
            nursery: trio.Nursery
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._repeat_after_moves, answers)
                async for found in answers:
                    with suppress(RoomMessageError):
                        message = decode(found.payload)
                        if isinstance(message, Ack | Nak):
                            self._take(message)
                nursery.cancel_scope.cancel()
            with suppress(RequestFailed, LinkLost):
                answers = await self._subscribe_answers()
                self._repeat()
                continue
            await trio.sleep(FIRST_WAIT_S)

    async def _repeat_after_moves(self, answers: Subscription) -> None:
        """The relay that heard us before may be gone, and the answers with it."""
        while True:
            await answers.reopened.wait()
            self._repeat()

    def _begin_anew(self) -> None:
        """What another relay was sent, the next one is not to read: it would refuse what has a place already."""
        assert self._track is not None
        self._track.forget()
        self._group, self._number = self._group + 1, 0

    def _repeat(self) -> None:
        """Send all that nobody has answered, in its order, to who listens now."""
        for waiting in self._waiting.values():
            if waiting.answer is None and waiting.retry_s is None:
                self._send(waiting)

    def _take(self, message: Ack | Nak) -> None:
        self._watch(message)
        waiting = self._waiting.get(message.key)
        if waiting is None:
            return
        if isinstance(message, Nak) and message.retry_ms is not None:
            waiting.retry_s = message.retry_ms / 1000
        else:
            waiting.answer = message
        waiting.news.set()

    def _send(self, waiting: _Waiting) -> None:
        assert self._track is not None
        if self._number >= (GROUP_MESSAGES if len(self._waiting) <= 1 else MOST_GROUP_MESSAGES):
            self._group, self._number = self._group + 1, 0
        self._watch(waiting.message)
        self._track.write(self._group, self._number, waiting.data)
        self._number += 1


class Reader:
    """A room's order as it comes: iterate over it. Made by `Room.read`; for one task."""

    def __init__(self, room: Room, client: Client, first: int) -> None:
        self.next = first
        """The seq that comes next."""
        self.opening: Opening | None = None
        """The epoch that is read."""
        self._room = room
        self._client = client
        self._newest: Opening | None = None
        self._lowest: int | None = None
        """The lowest start of the epochs that opened since this one."""
        self._opened = trio.Event()
        self._log: Subscription | None = None
        self._held: dict[int, Record] = {}
        self._late_since: float | None = None
        self._attempts = 0

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Item:
        """The next record, or what there is to say instead of it."""
        while True:
            if self._log is None or self._newest != self.opening:
                taken_back = await self._change_epoch()
                if taken_back is not None:
                    return taken_back
                continue
            record = self._held.pop(self.next, None)
            if record is not None:
                self.next += 1
                self._late_since, self._attempts = None, 0
                return record
            if self._is_late():
                if await self._fetch():
                    self.next += 1
                    return Missing(self.next - 1)
            else:
                await self._wait()

    async def follow_epochs(self) -> None:
        """Learn of every epoch that opens, for ever."""
        track = FullTrackName(self._room.wire(self._room.name), EPOCHS_TRACK)
        while True:
            with suppress(RequestFailed, LinkLost):
                async for found in await self._client.subscribe(track, wait_s=PATIENCE_S):
                    with suppress(RoomMessageError):
                        self._note(decode(found.payload))
            await trio.sleep(LOOK_S)

    # --- Inside ---

    def _note(self, opening: object) -> None:
        if isinstance(opening, Opening) and (self._newest is None or opening.epoch > self._newest.epoch):
            self._newest = opening
            self._lowest = opening.start if self._lowest is None else min(self._lowest, opening.start)
            self._opened.set()

    async def _change_epoch(self) -> TakenBack | None:
        """Read the newest epoch from now on, where the last one ends."""
        await self._opened.wait()
        if self._log is not None:
            self._log.cancel()
            self._log = None
        before, opening = self.opening, self._newest
        assert opening is not None
        track = FullTrackName(self._room.wire(log_namespace(self._room.name, opening.epoch)), LOG_TRACK)
        try:
            self._log = await self._client.subscribe(track, join=Join.NEXT_OBJECT)
        except (RequestFailed, LinkLost):
            # It is just beginning, or just over.
            await trio.sleep(LOOK_S)
            return None
        self.opening = opening
        self._held.clear()
        self._late_since, self._attempts = None, 0
        start, self._lowest = self._lowest, None
        if before is None or start is None or start >= self.next:
            return None
        self.next = start
        return TakenBack(start, opening)

    @property
    def _upto(self) -> int:
        """What was there when we came, or came back: it comes by FETCH."""
        largest = None if self._log is None else self._log.largest
        return 0 if largest is None else _seq_of(largest) + 1

    def _is_late(self) -> bool:
        """Whether the next record is to be fetched: it was there when we came, or relays passed it over."""
        if self.next < self._upto:
            return True
        if not self._held:
            return False
        now = trio.current_time()
        if self._late_since is None:
            self._late_since = now
        return now - self._late_since >= LATE_S

    async def _fetch(self) -> bool:
        """Ask for a page from the next record on; returns whether nobody can tell what that is."""
        assert self._log is not None
        later = [seq for seq in self._held if seq > self.next]
        end = self._upto if self.next < self._upto else min(later, default=self.next + 1)
        end = min(end, self.next + PAGE_RECORDS)
        first, last = Location(*location_of(self.next)), Location(*location_of(end - 1))
        try:
            for received in await self._client.fetch(self._log.track, first, last):
                self._hold(received)
        except (RequestFailed, LinkLost):
            await trio.sleep(LOOK_S)
        if self.next in self._held:
            return False
        self._attempts += 1
        await trio.sleep(LOOK_S)
        if self._attempts < MOST_ATTEMPTS or not any(seq > self.next for seq in self._held):
            return False
        self._attempts = 0
        return True

    async def _wait(self) -> None:
        """Until something comes, or it is time to look again."""
        assert self._log is not None
        with trio.move_on_after(LOOK_S):
            arrival = await self._log.next_arrival()
            if isinstance(arrival, ReceivedObject):
                self._hold(arrival)
            elif arrival is None:
                self._log = None
                await trio.sleep(SHORTEST_RETRY_S)

    def _hold(self, received: ReceivedObject) -> None:
        with suppress(RoomMessageError):
            record = decode_record(received.payload)
            if record.seq == _seq_of(received.location) and record.seq >= self.next:
                self._held[record.seq] = record


def _taken(answer: Ack | Nak) -> Ack:
    if isinstance(answer, Nak):
        raise Refused(answer)
    return answer


def _seq_of(location: Location) -> int:
    return location.group * GROUP_OBJECTS + location.object
