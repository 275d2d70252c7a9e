"""Rooms of one relay on MoQT tracks: docs/rooms.md's table, in both directions.

`relay.node` owns one where rooms are wanted. It hands in writers, tables, the store's results and the time, and calls
`settle` in every turn; everything else comes and goes through forwarding, in which this relay is a party like any other
(`relay.local`). `to_store` is what the store is to do. Forwarding knows nothing of rooms, and rooms nothing of tracks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from relay import room_plan
from relay.forwarding.forwarder import Forwarder
from relay.local import Arrived, Established, Fetched, Left, LocalEvent, LocalParty, Lost, Named, TooLong, Wanted
from relay.room_desk import Desk, Here, LogReads, Published, Readings, There
from relay.room_plan import COPIED, COPY, IN, OUT, Part, Reading, Wish
from relay.room_publishing import MESSAGES_A_GROUP, MOST_A_GROUP, LogTrack, MessageTrack, refuse
from relay.rooms import names
from relay.rooms.carrying import Carrying
from relay.rooms.effects import FORWARDING_READS, Read, ReadDone, Stored, ToRelay, Write, Written
from relay.rooms.rates import RoomSettings
from relay.rooms.room import RoomStatistics
from relay.rooms.rooms import Rooms
from relay.rooms.sequencer import RETRY_MS
from tradewind.contract import copies
from tradewind.contract.copies import Answered, Carried, Copied, Copy
from tradewind.contract.messages import RoomEntry, RoomReport
from tradewind.contract.rooms import (
    ACK_TRACK,
    ANSWERS,
    EPOCHS_TRACK,
    KEY_BYTES,
    LOG_TRACK,
    PUB_TRACK,
    Ack,
    Nak,
    Publish,
    RoomMessageError,
    RoomName,
    Why,
    answers_namespace,
    decode,
    encode,
    log_namespace,
    writer_of,
)
from tradewind.moqt.model import FullTrackName, Namespace

MAX_ALONE_ROOMS = 1000
"""Rooms that begin by being written to, where no table says which there are."""
RETRY_S = 0.25
WRITER_RETRY_S = 1.0
"""How long after a track that we read was refused or ended it is asked for again."""
ROUNDS = 64
"""How often one call looks for more of what it brought about itself."""


class RoomTracks:
    """All rooms of one relay, and the tracks that they are."""

    def __init__(
        self, me: str, forwarder: Forwarder, settings: RoomSettings, stored: Mapping[RoomName, Stored],
        now: float, wall_now: float,
    ) -> None:  # fmt: skip
        """Call `open` next. Until a table comes (`apply`), this relay is the home of every room written to it."""
        self.rooms = Rooms(me, settings, stored)
        self.to_store: list[Write | Read] = []
        """What the store is to do, since the owner last emptied it."""
        self.alone = True
        """Nobody says which rooms there are."""
        self._me = me
        self._stored = {name: found.standing for name, found in stored.items()}
        self._party = LocalParty(forwarder)
        self._carrying = Carrying(max(int(wall_now * 1000), 0) * 1000)
        self._wall_offset_s = wall_now - now
        self._desks: dict[RoomName, Desk] = {}
        self._entries: dict[RoomName, RoomEntry] = {}
        self._requests: dict[int, Published] = {}
        self._readings = Readings(self._party)
        self._by_session: dict[int, set[tuple[RoomName, RoomName]]] = {}
        self._dirty: dict[RoomName, None] = {}
        self._log_reads = LogReads()
        self._last_now = now

    def open(self, now: float) -> None:
        """Take a place in forwarding, and begin where the store ends."""
        self._party.open()
        for name in tuple(self._stored):
            self._found(name)
        self._apply(now)

    # --- In ---

    def apply(self, entries: Iterable[RoomEntry], now: float) -> None:
        """All rooms of a route table, whatever this relay is in them."""
        self.alone = False
        fresh = {entry.room: entry for entry in entries}
        for name, entry in fresh.items():
            before = self._entries.get(name)
            if before is not None and before.epoch < entry.epoch:
                self._desk(name).former = before
                self._carrying.receive_reachable(name, now, reachable=False)
        self._dirty.update(dict.fromkeys((*self._entries, *fresh)))
        self._entries = fresh
        self._apply(now)

    def controller_heard(self, now: float) -> None:
        """A controller answered, and this relay has its newest table."""
        self.rooms.receive_controller(now)
        self._dirty.update(dict.fromkeys(self._entries))

    def writer_came(self, namespace: Namespace, session: int, may_publish: Callable[[Namespace], bool]) -> bool:
        """A session publishes a namespace; where it is a writer's, its messages are taken from now on.

        Returns whether it is one.
        """
        found = names.split(namespace, self._entries)
        writer = None if found is None else writer_of(found.room, namespace)
        if found is None or writer is None:
            return False
        self._desk(found.room).writers.setdefault(writer, {})[session] = names.classes(found.room, may_publish)
        self._by_session.setdefault(session, set()).add((found.room, writer))
        self._dirty[found.room] = None
        self._readings.ask_at_once(FullTrackName(namespace, PUB_TRACK))
        return True

    def session_closed(self, session: int) -> None:
        """A session is gone: what it might write, it may no longer."""
        for room, writer in self._by_session.pop(session, ()):
            self._desk(room).writers[writer].pop(session, None)

    def receive_results(self, results: Iterable[Written | ReadDone], now: float) -> None:
        """What the store has done."""
        ours = []
        for result in results:
            self._dirty[result.room] = None
            if isinstance(result, ReadDone) and result.id >= FORWARDING_READS:
                track = self._log_reads.done(result.id)
                if track is not None:
                    track.receive_read(result, now)
                    self.to_store += self._log_reads.collect(track)
            else:
                ours.append(result)
        self.rooms.receive_results(ours, now)

    def next_deadline(self) -> float | None:
        """When to call `handle_deadline`."""
        due = [self.rooms.next_deadline(), self._carrying.next_deadline(), self._readings.next_deadline()]
        return min((at for at in due if at is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """Do what is due; `settle` has what comes of it."""
        due = self.rooms.next_deadline()
        if due is not None and due <= now:
            self.rooms.handle_deadline(now)
            self._dirty.update(dict.fromkeys(self._entries))
        self._carrying.handle_deadline(now)
        self._readings.handle_deadline(now)

    def set_wall(self, now: float, wall_now: float) -> None:
        """What the clock on the wall says."""
        self._wall_offset_s = wall_now - now

    # --- Out ---

    @property
    def has_work(self) -> bool:
        """Forwarding has said something since `settle`."""
        return self._party.has_events or bool(self._dirty)

    def settle(self, now: float) -> None:
        """Do everything that is to be done, until nothing new comes of it."""
        for _ in range(ROUNDS):
            while (event := self._party.take()) is not None:
                self._receive(event, now)
            self._take_over(now)
            self._take_output(now)
            dirty, self._dirty = self._dirty, {}
            for room in dirty:
                self._arrange(room, now)
            if not self.has_work:
                return

    # --- What others ask ---

    def names(self) -> Collection[RoomName]:
        """Every room that a table, or the store, or a writer has named."""
        return self._entries.keys()

    def reports(self) -> tuple[RoomReport, ...]:
        """For controllers."""
        return self.rooms.reports()

    def statistics(self) -> dict[RoomName, RoomStatistics]:
        return self.rooms.statistics()

    def refused(self) -> Counter[Why]:
        """Messages refused here since the start, by this relay as home or as the edge that they came to."""
        return self.rooms.told.refused + self._carrying.refused

    def check_invariants(self) -> None:
        self.rooms.check_invariants()
        self._carrying.check_invariants()
        for desk in self._desks.values():
            for track, reading in desk.read.items():
                assert self._readings.get(track) is reading

    # --- Events of forwarding ---

    def _receive(self, event: LocalEvent, now: float) -> None:
        match event:
            case Arrived(track, payload):
                reading = self._readings.get(track)
                if reading is not None:
                    self._take_object(reading, payload, now)
            case Wanted(request, track):
                published = self._find(track)
                if published is None:
                    refuse(self._party, request, now)
                else:
                    self._requests[request] = published
                    published.want(request, now)
                    self._touch(track)
            case Fetched(request, track, chosen):
                published = self._find(track)
                if isinstance(published, LogTrack):
                    self._requests[request] = published
                    published.fetch(request, chosen, now)
                    self._touch(track)
                else:
                    refuse(self._party, request, now)
            case Left(request):
                published = self._requests.pop(request, None)
                if published is not None:
                    published.leave(request)
                    self._touch(published.track)
            case Established(track):
                self._touch(track)
            case Lost(track):
                self._touch(track)
                self._ask_again(track, now)
            case TooLong(track):
                self._refuse_unread(track, now)
            case Named(namespace, here):
                self._meet_edge(namespace, here)

    def _touch(self, track: FullTrackName) -> None:
        found = names.split(track.namespace, self._entries)
        if found is not None:
            self._dirty[found.room] = None

    def _ask_again(self, track: FullTrackName, now: float) -> None:
        reading = self._readings.get(track)
        if reading is None:
            return
        is_writer = reading.part is Part.PUBLISHES
        if is_writer and not self._desk(reading.room).writers.get(reading.whose):
            self._forget_writer(reading.room, reading.whose)
        else:
            self._readings.ask_again(track, now + (WRITER_RETRY_S if is_writer else RETRY_S))

    def _refuse_unread(self, track: FullTrackName, now: float) -> None:
        reading = self._readings.get(track)
        if reading is not None and reading.part is Part.PUBLISHES:
            self._refuse(reading.room, reading.whose, Nak(bytes(KEY_BYTES), Why.SIZE), now)

    def _meet_edge(self, namespace: Namespace, here: bool) -> None:
        found = names.split(namespace, self._entries)
        if found is None or len(found.rest) != 3 or found.rest[1] != IN or not names.is_epoch(found.rest[0]):
            return
        edge = (int(found.rest[0]), found.rest[2])
        edges = self._desk(found.room).edges
        if here:
            edges.add(edge)
        else:
            edges.discard(edge)
        self._dirty[found.room] = None

    # --- Messages ---

    def _take_object(self, reading: Reading, payload: bytes, now: float) -> None:
        self._dirty[reading.room] = None
        try:
            if reading.part is Part.PUBLISHES:
                self._take_publish(reading.room, reading.whose, payload, now)
                return
            message = copies.decode(payload)
            if message.room == reading.room:
                self._take_message(reading, message, now)
        except RoomMessageError:
            # A relay of another version, or one that is broken: it will not get better by being told.
            return

    def _take_message(self, reading: Reading, message: copies.BetweenRelays, now: float) -> None:
        relay = reading.whose[0]
        match reading.part, message:
            case (Part.CARRIED, Carried()):
                there = There(reading.room, relay, message.number)
                self._give_to_room(reading.room, there, message.writer[0], message.publish, now)
            case (Part.ANSWERED, Answered()):
                self._carrying.receive_answered(message, now)
            case (Part.COPIES, Copy() as said) | (Part.COPIED, Copied() as said):
                self.rooms.receive_relay(relay.decode("utf-8", "replace"), said, now)
            case _:
                raise RoomMessageError("not on this track")

    def _take_publish(self, room: RoomName, writer: RoomName, payload: bytes, now: float) -> None:
        """A writer's object: it may write it, and it goes to the home, here or elsewhere."""
        try:
            message = decode(payload)
        except RoomMessageError:
            message = None
        if not isinstance(message, Publish) or message.room != room:
            key = message.key if isinstance(message, Publish) else bytes(KEY_BYTES)
            self._refuse(room, writer, Nak(key, Why.MALFORMED), now)
            return
        sessions = self._desk(room).writers.get(writer, {})
        # Nobody knows which of a user's sessions sent it: what one of them may not write, none may.
        if not sessions or not all(message.cls in classes for classes in sessions.values()):
            self._refuse(room, writer, Nak(message.key, Why.DENIED), now)
            return
        if room not in self._entries:
            self._found(room)
            self._apply(now)
        entry = self._entries.get(room)
        if entry is None:
            self._refuse(room, writer, Nak(message.key, Why.NO_HOME, RETRY_MS[Why.NO_HOME]), now)
        elif entry.home == self._me:
            self._give_to_room(room, Here(room, writer), writer[0], payload, now)
        else:
            self._carrying.receive_publish(room, writer, message.key, payload, now)

    def _give_to_room(self, room: RoomName, writer: Here | There, user: bytes, data: bytes, now: float) -> None:
        self.rooms.receive_publish(room, writer, user, data, now, now + self._wall_offset_s)

    def _take_output(self, now: float) -> None:
        output = self.rooms.output(now)
        for writer, answer in output.answers:
            if isinstance(writer, Here):
                self._tell(writer.room, writer.writer, answer, now)
            elif isinstance(writer, There):
                self._answer(writer, answer, now)
        for to_relay in output.to_relays:
            self._send(to_relay, now)
        self.to_store += output.to_store
        carried, told = self._carrying.take()
        for message in carried:
            entry = self._entries[message.room]
            self._write((*log_namespace(message.room, entry.epoch), IN, self._name), PUB_TRACK, message, now)
        for room, whose, answer in told:
            self._tell(room, whose, answer, now)

    def _refuse(self, room: RoomName, writer: RoomName, nak: Nak, now: float) -> None:
        """An answer of this relay's own: no home has seen the message."""
        self.rooms.told.count(nak)
        self._tell(room, writer, nak, now)

    def _tell(self, room: RoomName, writer: RoomName, answer: Ack | Nak, now: float) -> None:
        track = self._find(FullTrackName(answers_namespace(room, writer), ACK_TRACK))
        if isinstance(track, MessageTrack):
            track.write(encode(answer), now)

    def _answer(self, writer: There, answer: Ack | Nak, now: float) -> None:
        entry = self._entries.get(writer.room)
        if entry is not None:
            message = Answered(writer.room, writer.number, encode(answer))
            self._write((*log_namespace(writer.room, entry.epoch), OUT, writer.relay), ACK_TRACK, message, now)

    def _send(self, to_relay: ToRelay, now: float) -> None:
        """A copy to the follower, or what we have to who is, or was, the home."""
        relay, message = to_relay
        if isinstance(message, Copy):
            where = (*log_namespace(message.room, message.epoch), COPY, relay.encode())
        else:
            desk = self._desk(message.room)
            known = [entry for entry in (self._entries.get(message.room), desk.former) if entry is not None]
            epoch = next((entry.epoch for entry in known if entry.home == relay), None)
            if epoch is None:
                return
            where = (*log_namespace(message.room, epoch), COPIED, self._name)
        self._write(where, LOG_TRACK, message, now)

    def _write(self, namespace: Namespace, name: bytes, message: copies.BetweenRelays, now: float) -> None:
        track = self._desk(message.room).served.get(FullTrackName(namespace, name))
        if isinstance(track, MessageTrack):
            track.write(copies.encode(message), now)

    # --- What there is of a room ---

    @property
    def _name(self) -> bytes:
        return self._me.encode()

    def _desk(self, room: RoomName) -> Desk:
        return self._desks.setdefault(room, Desk(room))

    def _found(self, room: RoomName) -> None:
        """Nobody says who orders this room: we do, and go on where the disk ends."""
        if not self.alone or (room not in self._stored and len(self._entries) >= MAX_ALONE_ROOMS):
            return
        standing = self._stored.get(room)
        epoch = 1
        if standing is not None and standing.promised:
            epoch = standing.promised + (standing.home != self._me)
        self._entries[room] = RoomEntry(room, self._me, "", epoch, 0)

    def _apply(self, now: float) -> None:
        self.rooms.apply(self._entries.values(), now)
        self._dirty.update(dict.fromkeys(self._entries))

    def _take_over(self, now: float) -> None:
        """Give what waited for a home elsewhere to the room, where the home is here now.

        Not at once with the table: its home has not heard the controller yet, and would refuse.
        """
        for name in self._dirty:
            entry = self._entries.get(name)
            if entry is not None and entry.home == self._me:
                for writer, data in self._carrying.settle_here(name):
                    self._give_to_room(name, Here(name, writer), writer[0], data, now)

    def _forget_writer(self, room: RoomName, writer: RoomName) -> None:
        self._desk(room).writers.pop(writer, None)
        self._carrying.forget_writer(room, writer)
        self._dirty[room] = None

    def _find(self, track: FullTrackName) -> Published | None:
        """What we publish under this name; a writer's answers begin when somebody asks, or is answered."""
        found = names.split(track.namespace, self._entries)
        if found is None:
            return None
        desk = self._desks.get(found.room)
        if desk is None:
            return None
        published = desk.served.get(track)
        is_ack = track.name == ACK_TRACK and 2 <= len(found.rest) <= 3 and found.rest[0] == ANSWERS
        if published is None and is_ack and found.rest[1:] in desk.writers:
            published = desk.served[track] = self._messages(track)
        return published

    def _messages(self, track: FullTrackName) -> MessageTrack:
        first = max(int((self._last_now + self._wall_offset_s) * 1000), 0)
        keeps, carries = track.name == EPOCHS_TRACK, track.name == PUB_TRACK
        return MessageTrack(self._party, track, first, keeps=keeps, most=MOST_A_GROUP if carries else MESSAGES_A_GROUP)

    def _make(self, track: FullTrackName, *, is_log: bool) -> Published:
        """A track that we publish from now on."""
        if not is_log:
            return self._messages(track)
        log = self.rooms.log(track.namespace[:-1])
        assert log is not None
        return LogTrack(self._party, track, log, self._log_reads.next_id)

    # --- Which tracks there are ---

    def _arrange(self, room: RoomName, now: float) -> None:
        """Announce, serve and read what our part in the room wants, and nothing else; then send what is new."""
        self._last_now = now
        desk = self._desk(room)
        wish = Wish()
        entry = self._entries.get(room)
        for part in (desk.former, entry):
            if part is not None:
                carries = part is entry and bool(desk.writers)
                room_plan.wish_for_relays(wish, self._me, part, sorted(desk.edges), carries=carries)
        room_plan.wish_for_log(wish, self.rooms, room, told=room in desk.announced)
        room_plan.wish_for_writers(wish, room, desk.writers)
        if desk.writers:
            self._party.serve_family((*room, ANSWERS), ACK_TRACK)
        desk.match(wish, self._party, self._readings, self._make, now)
        opening = room_plan.opening(self.rooms, room)
        epochs = desk.served.get(FullTrackName(room, EPOCHS_TRACK))
        if opening is not None and isinstance(epochs, MessageTrack):
            epochs.write_group(opening.epoch, encode(opening), now)
        for published in desk.served.values():
            if isinstance(published, LogTrack):
                published.pump(now)
                self.to_store += self._log_reads.collect(published)
        if entry is None and not (desk.writers or desk.served or desk.read):
            del self._desks[room]
        if entry is not None and entry.home != self._me:
            base = log_namespace(room, entry.epoch)
            ours = desk.served.get(FullTrackName((*base, IN, self._name), PUB_TRACK))
            listens = isinstance(ours, MessageTrack) and ours.is_read
            answers = self._party.reads(FullTrackName((*base, OUT, self._name), ACK_TRACK))
            if desk.writers:
                self._carrying.receive_reachable(room, now, reachable=listens and answers)
                self._take_output(now)
                if isinstance(ours, MessageTrack) and self._carrying.is_quiet(room):
                    ours.rest(now)
