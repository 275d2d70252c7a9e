"""Anything may happen to a room, in any order: what was acknowledged stays, in one place, in one order.

Three relays with disks, wires that lose and repeat, a controller that names homes by its own rule, and writers that
ask again. After every step the logs are compared with what writers and readers were told. At the end everything is
mended, and the room has to take a message again. The same machine has to find each of the faults that are listed here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from relay.rooms import follower, mirror, room, sequencer
from relay.rooms.effects import Answer, Doing, Outcome
from tests.relay.rooms.town import ROOM, SETTINGS, Shelf, Town, key_of, publish
from tradewind.contract.rooms import NO_CHAIN, Ack, Class, Nak, Place, RoomMessageError, Why, chain_of, decode_record

NAMES = "abc"
names = st.sampled_from(NAMES)
CONTROLLERS = "controllers"


class Machine(RuleBasedStateMachine):
    hasty = False

    def __init__(self) -> None:
        super().__init__()
        needs_two = frozenset({int(Class.VALUE)})
        room_settings = type(SETTINGS)(
            room_per_s=1e6, writer_per_s=1e6, needs_two=needs_two, tail_records=4, window_records=8, batch_records=3,
            recent_keys=2,
        )  # fmt: skip
        self.town = Town(NAMES, room_settings, hasty=self.hasty)
        self.unreachable: set[str] = set()
        self.whole = dict.fromkeys(NAMES, 0)
        self.keys = 0
        self.sessions = 0
        self.session_key: dict[int, int] = {}
        self.sent: dict[int, list[int]] = defaultdict(list)
        self.refused: set[int] = set()
        self.acked: dict[int, list[Ack]] = defaultdict(list)
        self.published: dict[tuple[int, int], bytes] = {}
        self.payloads: dict[Place, bytes] = {}
        self.town.name_home("a", "b")
        self.town.settle()

    # --- What may happen ---

    @rule(count=st.integers(1, 4), cls=st.sampled_from([Class.CROWD, Class.CROWD, Class.VALUE]), name=names)
    def publish(self, count: int, cls: Class, name: str) -> None:
        assert self.town.entry is not None
        for where in (self.town.entry.home, name):
            if self.town.relays[where].rooms is not None:
                for _ in range(count):
                    self.send(where, self.keys, cls)
                    self.keys += 1
                return

    @rule(data=st.data(), name=names)
    def retry(self, data: st.DataObject, name: str) -> None:
        if self.keys and self.town.relays[name].rooms is not None:
            self.send(name, data.draw(st.integers(max(0, self.keys - 8), self.keys - 1)), Class.CROWD)

    @rule(name=names, count=st.integers(1, 3))
    def flush(self, name: str, count: int) -> None:
        relay = self.town.relays[name]
        for _ in range(count):
            if relay.rooms is not None and relay.disk.queue:
                self.town.flush(name)

    @rule(source=names, to=names, what=st.sampled_from(["deliver", "deliver", "deliver", "lose", "repeat"]))
    def wire(self, source: str, to: str, what: str) -> None:
        wire = self.town.wires.get((source, to))
        if not wire:
            return
        if what == "lose":
            wire.popleft()
        else:
            if what == "repeat":
                wire.append(wire[0])
            self.town.deliver(source, to)

    @rule()
    def run(self) -> None:
        self.town.settle()

    @rule(seconds=st.sampled_from([0.1, 0.6, 3.0]))
    def wait(self, seconds: float) -> None:
        self.town.pass_time(seconds)

    @rule(name=names)
    def crash(self, name: str) -> None:
        if self.town.relays[name].rooms is not None:
            self.town.crash(name)

    @rule(name=names)
    def start(self, name: str) -> None:
        if self.town.relays[name].rooms is None:
            self.town.relays[name].start()
            self.tell(name)

    @rule(one=names, other=st.sampled_from([*NAMES, CONTROLLERS, CONTROLLERS]))
    def partition(self, one: str, other: str) -> None:
        if other == CONTROLLERS:
            self.unreachable.add(one)
        else:
            self.town.cut.add(frozenset((one, other)))

    @rule()
    def heal(self) -> None:
        self.town.cut.clear()
        self.unreachable.clear()
        for name in NAMES:
            self.tell(name)

    @rule(name=names)
    def tell(self, name: str) -> None:
        if name not in self.unreachable:
            self.town.tell(name)
            self.report(name)

    @rule(home=names, follower=st.sampled_from([*NAMES, ""]), told=names)
    def promote(self, home: str, follower: str, told: str) -> None:
        """The controllers' rule: only who is whole in the newest epoch becomes its next home."""
        for name in NAMES:
            self.report(name)
        assert self.town.entry is not None
        if self.whole[home] == self.town.entry.epoch and follower != home:
            self.town.name_home(home, follower, tell="")
            self.tell(told)

    # --- What must hold ---

    @invariant()
    def answers_agree(self) -> None:
        for session, answer in self.town.answers:
            assert isinstance(session, int)
            number = self.session_key[session]
            assert answer.key == key_of(number)
            if isinstance(answer, Nak):
                self.refused.add(session)
            else:
                assert session not in self.refused
                self.acked[number].append(answer)
        self.town.answers.clear()
        for acks in self.acked.values():
            places = [(ack.epoch, ack.seq) for ack in acks]
            twice = [place for place, ack in zip(places, acks, strict=True) if ack.stored == 2]
            assert len(set(twice)) <= 1, "stored twice, in two places"
            assert not twice or all(place == twice[0] for place in places[places.index(twice[0]) :])

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        shelves = self.shelves()
        newest = max(shelf.standing.whole for shelf in shelves.values())
        for shelf in shelves.values():
            if shelf.standing.whole < newest:
                continue
            records = list(map(decode_record, shelf.records))
            for number, acks in self.acked.items():
                for ack in acks:
                    if ack.stored == 2:
                        assert ack.seq < len(records), "an acknowledged record is not there"
                        record = records[ack.seq]
                        assert (record.key, record.epoch) == (key_of(number), ack.epoch)

    @invariant()
    def logs_are_orders(self) -> None:
        for shelf in self.shelves().values():
            chain, epoch, keys = NO_CHAIN, 0, set()
            for seq, payload in enumerate(shelf.records):
                record = decode_record(payload)
                assert record.seq == seq and record.epoch >= epoch and record.prev == chain
                chain, epoch = chain_of(payload), record.epoch
                keys.add(record.key)
                self.one_payload(payload)
            assert len(keys) == len(shelf.records), "a key has two places"
            for payload in shelf.quarantine:
                self.one_payload(payload)

    @invariant()
    def readers_agree(self) -> None:
        for name, relay in self.town.relays.items():
            if relay.rooms is None or (log := relay.rooms.log(ROOM)) is None:
                continue
            for seq, payload in enumerate(relay.visible()):
                assert self.published.setdefault((log.epoch, seq), payload) == payload, f"{name} changed a Location"

    @invariant()
    def refusal_is_total(self) -> None:
        there = {decode_record(payload).key for shelf in self.shelves().values() for payload in shelf.records}
        for number, sessions in self.sent.items():
            if self.refused.issuperset(sessions):
                assert key_of(number) not in there, "it was refused"

    @invariant()
    def a_writer_keeps_its_order(self) -> None:
        for shelf in self.shelves().values():
            numbers = [int.from_bytes(decode_record(payload).key, "big") for payload in shelf.records]
            once = [number for number in numbers if len(self.sent[number]) == 1]
            assert once == sorted(once)

    @invariant()
    def one_home(self) -> None:
        homes = [r.rooms.opening(ROOM) for r in self.town.relays.values() if r.rooms is not None]
        epochs = [opening.epoch for opening in homes if opening is not None]
        assert len(epochs) == len(set(epochs))

    def teardown(self) -> None:
        self.answers_agree()
        self.heal()
        for name in NAMES:
            self.start(name)
        for _ in range(20):
            self.town.settle()
            self.town.pass_time(0.6)
        assert self.town.entry is not None
        home = self.town.entry.home
        for name in NAMES:
            self.tell(name)
        assert self.town.relays[home].doing is Doing.HOME, self.town.relays[home].doing
        self.send(home, self.keys, Class.CROWD)
        self.town.settle()
        ack = [answer for _, answer in self.town.answers if answer.key == key_of(self.keys)][-1]
        assert isinstance(ack, Ack) and ack.stored == (2 if self.town.entry.follower else 1)
        for check in (self.answers_agree, self.nothing_acknowledged_is_lost, self.logs_are_orders, self.readers_agree,
                      self.refusal_is_total):  # fmt: skip
            check()

    # --- Private ---

    def send(self, name: str, number: int, cls: Class) -> None:
        session = self.sessions
        self.sessions += 1
        self.session_key[session] = number
        self.sent[number].append(session)
        self.town.publish(name, publish(number, cls=cls), writer=session)

    def report(self, name: str) -> None:
        rooms = self.town.relays[name].rooms
        if rooms is not None and name not in self.unreachable:
            for report in rooms.reports():
                self.whole[name] = report.whole

    def shelves(self) -> dict[str, Shelf]:
        """What each relay would go on with: what was flushed, where it is dead."""
        return {
            name: relay.disk.dirty if relay.rooms is not None else relay.disk.flushed
            for name, relay in self.town.relays.items()
        }

    def one_payload(self, payload: bytes) -> None:
        record = decode_record(payload)
        place = Place(record.epoch, record.seq, 0)
        assert self.payloads.setdefault(place, payload) == payload, "two payloads have one place"


class HastyMachine(Machine):
    hasty = True


THOROUGH = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_anything_may_happen() -> None:
    run_state_machine_as_test(Machine, settings=settings(THOROUGH, max_examples=15, stateful_step_count=40))


@pytest.mark.slow
def test_very_much_may_happen() -> None:
    run_state_machine_as_test(Machine, settings=settings(THOROUGH, max_examples=300, stateful_step_count=80))


# --- Faults that it has to find ---


class AcksWhenItCuts(sequencer.Sequencer):
    """Acknowledges before it stores."""

    __slots__ = ()

    def next_write(self, number: int, now: float):
        write = super().next_write(number, now)
        for pending, place in self._batch:
            ack = Ack(pending.message.key, place.epoch, place.seq, False, 2, place.at_ms)
            self._answers += [Answer(writer, ack) for writer in pending.writers]
        return write


class CountsOneAsTwo(sequencer.Sequencer):
    """Says that there are two copies when there is one."""

    __slots__ = ()

    def _stored(self, placed):
        return 2


class OpensAnyway(sequencer.Sequencer):
    """Becomes the home with whatever it has, as an epoch's number would allow."""

    __slots__ = ()

    def _opening(self, number: int, now: float):
        standing = self._log.standing
        self._log.standing = type(standing)(self.entry.epoch - 1, "", self.entry.epoch - 1, standing.lineage)
        return super()._opening(number, now)


class ForgetsKeys(sequencer.Sequencer):
    """Refuses what has a place, because its queue was asked to be emptied."""

    __slots__ = ()

    def receive_written(self, write, written, now):
        batch = list(self._batch)
        super().receive_written(write, written, now)
        if written.outcome is Outcome.STORED:
            for pending, _ in batch:
                nak = Nak(pending.message.key, Why.FULL)
                self._answers += [Answer(writer, nak) for writer in pending.writers]


class KeepsItsTail(follower.Follower):
    """Takes the new home's lineage over without cutting its own log."""

    __slots__ = ()

    def next_write(self, number: int):
        write = super().next_write(number)
        if write is None or write.cut_from is None:
            return write
        return type(write)(write.id, write.room, self._log.records, standing=write.standing)


class CopiesWhatItHasNot(mirror.Mirror):
    """Believes the follower to have what was sent to it."""

    __slots__ = ()

    def copies_to_send(self, now: float, *, greeting: bool):
        copies = super().copies_to_send(now, greeting=greeting)
        if self.joined:
            self.held = max(self.held, self._sent)
        return copies


Patch = Callable[[pytest.MonkeyPatch], None]


def patch(module: object, name: str, value: object) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(module, name, value)


FAULTS: dict[str, Patch] = {
    "acknowledges before it stores": patch(room, "Sequencer", AcksWhenItCuts),
    "counts one copy as two": patch(room, "Sequencer", CountsOneAsTwo),
    "opens whatever it has": patch(room, "Sequencer", OpensAnyway),
    "refuses what is stored": patch(room, "Sequencer", ForgetsKeys),
    "keeps its tail": patch(room, "Follower", KeepsItsTail),
    "counts what was sent as copied": patch(sequencer, "Mirror", CopiesWhatItHasNot),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_it_finds(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    finds(Machine)


def test_it_finds_a_disk_that_does_not_flush() -> None:
    finds(HastyMachine)


def finds(machine: type[Machine]) -> None:
    quick = settings(THOROUGH, max_examples=2000, phases=[Phase.generate], database=None, derandomize=True)
    with pytest.raises((AssertionError, RoomMessageError)):
        run_state_machine_as_test(machine, settings=quick)
