"""Rooms on a virtual network: relays whose stores are disks in memory, and clients with their records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.node import Node
from relay.rooms.effects import Doing, Stored
from relay.rooms.rates import RoomSettings
from tests.relay.rooms.town import Disk
from tests.sim.client import Client, Outflow, Served
from tests.sim.mesh import Mesh
from tests.sim.network import Parcel
from tests.sim.relay import Relay
from tradewind.contract.messages import RoomEntry
from tradewind.contract.rooms import (
    ACK_TRACK,
    EPOCHS_TRACK,
    LOG_TRACK,
    PUB_TRACK,
    Ack,
    Nak,
    Opening,
    Publish,
    Record,
    RoomName,
    answers_namespace,
    decode,
    decode_record,
    encode,
    location_of,
    log_namespace,
    writer_namespace,
)
from tradewind.moqt import events as e
from tradewind.moqt.model import NEXT_OBJECT, FilterKind, FullTrackName, Location, LocationFilter, Parameters

ROOM = (b"app", b"r", b"show")
SETTINGS = RoomSettings(room_per_s=1e6, writer_per_s=1e6)
FLUSH_S = 0.002


class DiskRelay(Relay):
    """A relay with rooms on one disk; a flush takes a while."""

    disk: Disk | None = None
    _flush_at: float | None = None

    def start_rooms(self, name: str, disk: Disk, now: float, wall_now: float, settings: RoomSettings) -> None:
        self.disk = disk
        stored: dict[RoomName, Stored] = {ROOM: disk.flushed.stored()} if disk.flushed.standing.promised else {}
        self.node.open_rooms(name, settings, stored, now, wall_now)

    def next_deadline(self) -> float | None:
        due = super().next_deadline()
        assert due is not None
        return due if self._flush_at is None else min(due, self._flush_at)

    def handle_deadline(self, now: float, wall_now: float) -> None:
        if self.disk is not None and self._flush_at is not None and self._flush_at <= now:
            self._flush_at = None
            results = [self.disk.step() for _ in range(len(self.disk.queue))]
            self.node.receive_stored(results, now, wall_now)
        if self.node.next_deadline() <= now:
            super().handle_deadline(now, wall_now)

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        parcels, more = super().take_output(now)
        if self.disk is None:
            return parcels, more
        self.disk.queue.extend(self.node.take_store_work())
        if self.disk.queue and self._flush_at is None:
            self._flush_at = now + FLUSH_S
        return parcels, more


@dataclass
class Records:
    """What clients wrote down, as `bench.check_rooms` reads it."""

    lines: list[str] = field(default_factory=list)

    def note(self, what: str, **fields: Any) -> None:
        self.lines.append(json.dumps({"what": what, **fields}))


class RoomWriter:
    """A client that writes in a room and hears its answers."""

    def __init__(self, client: Client, name: str, records: Records) -> None:
        self.client = client
        self.name = name
        self.records = records
        self.acks: list[Ack] = []
        self.naks: list[Nak] = []
        self.track = FullTrackName(writer_namespace(ROOM, (name.encode(),)), PUB_TRACK)
        self.served: Served = client.serve(self.track)
        self.announced = client.announce(self.track.namespace)
        self._seen = 0
        self._flow: Outflow | None = None
        self._number = 0
        self._unsent: list[bytes] = []
        self.answers = 0

    def listen(self) -> None:
        """Subscribe to the answers."""
        track = FullTrackName(answers_namespace(ROOM, (self.name.encode(),)), ACK_TRACK)
        self.answers = self.client.subscribe(track, filter=NEXT_OBJECT)

    def write(self, number: int, cls: int = 3, **more: Any) -> bytes:
        """Send one message; its key is made of the writer's name and the number."""
        key = (self.name.encode() + b"-%d" % number).ljust(16, b".")
        self.records.note("sent", writer=self.name, key=key.hex())
        values = {"room": ROOM, "key": key, "cls": cls, "sent_ms": 1, "body": b"%d" % number, **more}
        self.send(encode(Publish(**values)))
        return key

    def send(self, payload: bytes) -> None:
        """One object of the track `pub`, whatever it is."""
        if self._flow is None:
            assert self.served.feeds, "the relay does not listen yet"
            self._flow = self.served.open(1)
        self._flow.object(self._number, payload)
        self._number += 1

    def hear(self) -> None:
        """Take in the answers that came."""
        found = self.client.objects(self.answers)
        for _, payload in found[self._seen :]:
            message = decode(payload)
            assert isinstance(message, Ack | Nak)
            key = message.key.hex()
            if isinstance(message, Ack):
                self.acks.append(message)
                self.records.note(
                    "acked", writer=self.name, key=key, epoch=message.epoch, seq=message.seq, stored=message.stored,
                    dup=message.dup,
                )  # fmt: skip
            else:
                self.naks.append(message)
                self.records.note("nak", writer=self.name, key=key, why=message.why.name)
        self._seen = len(found)


class RoomReader:
    """A client that reads a room: history by FETCH, then live, from the epoch that it is told of."""

    def __init__(self, client: Client, name: str, records: Records) -> None:
        self.client = client
        self.name = name
        self.records = records
        self.epochs = client.subscribe(FullTrackName(ROOM, EPOCHS_TRACK))
        self.live: int | None = None
        self.history: int | None = None
        self.epoch = 0
        self._from = 0

    @property
    def openings(self) -> list[Opening]:
        found = [decode(payload) for _, payload in self.client.objects(self.epochs)]
        return [opening for opening in found if isinstance(opening, Opening)]

    def join(self, epoch: int, first: int = 0) -> None:
        """Read the log of an epoch: live from the next object on, and what is there before."""
        self.epoch, self._from = epoch, first
        track = FullTrackName(log_namespace(ROOM, epoch), LOG_TRACK)
        self.live = self.client.subscribe(track, filter=NEXT_OBJECT)
        self.client.network.until(lambda: self.client.answer(self.live) is not None)
        answer = self.client.answer(self.live)
        assert isinstance(answer, e.SubscribeAccepted), answer
        largest = answer.parameters.largest
        if largest is not None and Location(*location_of(first)) <= largest:
            start = Location(*location_of(first))
            wanted = LocationFilter(
                FilterKind.ABSOLUTE, start=start, end_group=largest.group, end_object=largest.object
            )
            self.history = self.client.ask("fetch", track, wanted, Parameters())

    def records_read(self) -> list[Record]:
        """What came, by Location: every record once."""
        past = [] if self.history is None else self.client.objects(self.history)
        live = [] if self.live is None else self.client.objects(self.live)
        found = past + sorted(live)
        records = [decode_record(payload) for _, payload in found]
        for (location, _), record in zip(found, records, strict=True):
            assert location == Location(*location_of(record.seq))
        return records

    def note(self, what: str = "read") -> None:
        for record in self.records_read():
            self.records.note(what, reader=self.name, key=record.key.hex(), epoch=record.epoch, seq=record.seq)


class RoomMesh(Mesh):
    """Relays in a mesh, with rooms."""

    relay_class = DiskRelay

    def __init__(self, names: Sequence[str], settings: RoomSettings = SETTINGS, **how: Any) -> None:
        super().__init__(names, **how)
        self._room_settings = settings
        self.records = Records()
        self.disks = {name: Disk() for name in names}
        for name, relay in self.relays.items():
            assert isinstance(relay, DiskRelay)
            relay.start_rooms(name, self.disks[name], self.network.now, self.network.wall_now, settings)
            self.network.touch(relay)

    def apply(self, entry: RoomEntry, at: Sequence[str] | None = None, *, heard: bool = True) -> None:
        """A table for some relays, or all that live."""
        for name in self.relays if at is None else at:
            node: Node = self.node(name)
            node.apply_rooms([entry], self.network.now)
            if heard:
                node.controller_heard(self.network.now)
            if self.address(name) in self.network.hosts:
                self.network.touch(self.relays[name])

    def hear_controllers(self, at: Sequence[str]) -> None:
        for name in at:
            self.node(name).controller_heard(self.network.now)
            self.network.touch(self.relays[name])

    def restart(self, name: str) -> None:
        """A relay dies without a word, and another process comes up with its disk; nobody has dialled it yet."""
        dead, disk = self.relays[name], self.disks[name]
        self.network.remove(dead)
        disk.crash()
        relay = self.relays[name] = DiskRelay(dead.node.settings, addresses=dead.addresses)
        self.network.add(relay)
        relay.start_rooms(name, disk, self.network.now, self.network.wall_now, self._room_settings)
        self.network.touch(relay)

    def doing(self, name: str) -> Doing:
        """What a relay is in the room."""
        rooms = self.node(name).rooms
        assert rooms is not None
        return rooms.rooms.doing(ROOM)

    def writer(self, at: str, name: str) -> RoomWriter:
        """A writer whom its relay listens to, and who listens to its answers."""
        writer = RoomWriter(self.client(at), name, self.records)
        self.until(lambda: writer.served.feeds)
        writer.listen()
        self.until(lambda: writer.client.answer(writer.answers) is not None)
        assert isinstance(writer.client.answer(writer.answers), e.SubscribeAccepted)
        return writer

    def reader(self, at: str, name: str) -> RoomReader:
        return RoomReader(self.client(at), name, self.records)
