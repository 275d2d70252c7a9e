"""One room at one relay: what the route table says this relay is in it, and one write at a time to its log.

`rooms` owns one for each room and hands everything in. The table decides: its home runs a `Sequencer`, its follower a
`Follower`, everybody else watches. A relay that changes from one to the other first lets its write come back, so that
the new role starts from what is really on disk.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.rooms.effects import Answer, Doing, Outcome, Output, Read, ReadDone, Stored, ToRelay, Write, Writer, Written
from relay.rooms.follower import Follower
from relay.rooms.log import RoomLog
from relay.rooms.rates import RoomSettings
from relay.rooms.sequencer import RETRY_MS, Sequencer
from tradewind.contract.copies import Copied, Copy
from tradewind.contract.messages import RoomEntry, RoomReport
from tradewind.contract.rooms import Nak, Opening, Publish, RoomName, Why

REFUSED_WAIT_S = 0.5
"""After a full disk said no, nothing is tried for so long."""


class RoomStatistics(NamedTuple):
    """What `/state` shows of a room."""

    doing: str
    epoch: int
    records: int
    visible: int
    whole: int
    withdrawn: int
    conflicts: int
    """Tables that said another home or follower for an epoch than we knew, and copies from who is no home."""
    waiting: int = 0
    """Messages without an answer, where this relay is the home."""
    backlog: int = 0
    """Records that the follower may not have."""


class Room:
    """One room at one relay."""

    __slots__ = ("_answers", "_copied", "_in_flight", "_me", "_number", "_read", "_role", "_settings", "_write_after",
                 "broken", "conflicts", "entry", "log")  # fmt: skip

    def __init__(self, room: RoomName, me: str, stored: Stored, settings: RoomSettings) -> None:
        self.log = RoomLog(room, stored, settings.tail_records)
        self.entry: RoomEntry | None = None
        self.broken = stored.damaged
        """The store failed, or the newest record is damaged: nothing is written until it was opened anew."""
        self.conflicts = 0
        self._me = me
        self._settings = settings
        self._role: Sequencer | Follower | None = None
        self._in_flight: tuple[Write, Sequencer | Follower] | None = None
        self._read: Read | None = None
        self._number = 0
        self._write_after = float("-inf")
        self._answers: list[Answer] = []
        self._copied: list[ToRelay] = []

    # --- The control plane ---

    def apply(self, entry: RoomEntry, now: float) -> None:
        """The route table names home and follower. Older epochs than known are ignored."""
        known = self.entry
        if known is not None and entry.epoch <= known.epoch:
            same = (entry.home, entry.follower) == (known.home, known.follower)
            self.conflicts += entry.epoch == known.epoch and not same
            return
        self.entry = entry
        if entry.home == self._me:
            if isinstance(self._role, Sequencer):
                self._role.reopen(entry, now)
            else:
                self._role = Sequencer(self.log, self._me, entry, self._settings, now)
            if self.broken:
                self._role.stop(Doing.BROKEN)
            return
        if isinstance(self._role, Sequencer):
            self._role.retire(entry.home)
            self._answers += self._role.answers()
        follows = entry.follower == self._me
        self._role = Follower(self.log, entry.home, entry.epoch, self._settings) if follows else None

    def receive_controller(self, now: float) -> None:
        """A controller was heard, and what it last said of this room is `entry`."""
        if isinstance(self._role, Sequencer):
            self._role.receive_controller(now)

    # --- Writers ---

    def receive_publish(self, writer: Writer, user: bytes, message: Publish, now: float, wall_now: float) -> None:
        """A writer's message; the answer comes with `output`, at once or later."""
        if isinstance(self._role, Sequencer):
            self._role.receive_publish(writer, user, message, now, wall_now)
            return
        why, home = (Why.NO_HOME, None) if self.entry is None else (Why.MOVED, self.entry.home)
        self._answers.append(Answer(writer, Nak(message.key, why, RETRY_MS[why], home)))

    # --- Other relays ---

    def receive_relay(self, relay: str, message: Copy | Copied, now: float) -> None:
        """What the home or the follower says. `relay` has proven its name."""
        entry, role = self.entry, self._role
        if isinstance(message, Copied):
            if isinstance(role, Sequencer):
                role.receive_copied(relay, message, now)
            return
        newest = max(self.log.standing.promised, entry.epoch if entry is not None else 0)
        if message.epoch < newest:
            # Whoever sent this is a home no longer, and has not heard of it.
            records = self.log.records
            self._copied.append(ToRelay(relay, Copied(self.log.room, newest, records, records, joined=False)))
        elif entry is None or message.epoch > entry.epoch:
            if isinstance(role, Sequencer):
                role.stop(Doing.FENCED)
        elif isinstance(role, Follower) and relay == entry.home:
            if not self.broken:
                role.receive_copy(message)
        else:
            self.conflicts += 1

    # --- The store ---

    def receive_written(self, written: Written, now: float) -> None:
        """The answer to the write that `output` gave out last."""
        assert self._in_flight is not None and self._in_flight[0].id == written.id
        write, role = self._in_flight
        self._in_flight = None
        if written.outcome is Outcome.STORED:
            self.log.apply(write, written)
        elif written.outcome is Outcome.REFUSED:
            self._write_after = now + REFUSED_WAIT_S
        elif written.outcome is Outcome.FAILED:
            self.broken = True
            if isinstance(self._role, Sequencer):
                self._role.stop(Doing.BROKEN)
        if role is not self._role:
            return
        if isinstance(role, Sequencer):
            role.receive_written(write, written, now)
        else:
            role.receive_written(write, written)

    def receive_read(self, done: ReadDone) -> None:
        """The answer to a read that `output` gave out."""
        if self._read is None or self._read.id != done.id:
            return
        self._read = None
        if isinstance(self._role, Sequencer) and self._role.mirror is not None:
            self._role.mirror.receive_read(done)

    # --- What comes of it ---

    def output(self, now: float) -> Output:
        """Everything that is to be done after calls above, each thing once."""
        role, relays, writes = self._role, self._copied, self._writes(now)
        self._copied = []
        if isinstance(role, Sequencer):
            self._answers += role.answers()
            relays += [ToRelay(role.entry.follower, copy) for copy in role.copies_to_send(now)]
            writes += self._reads(role)
        elif isinstance(role, Follower) and not self.broken:
            answer = role.answer_to_send()
            if answer is not None:
                assert self.entry is not None
                relays.append(ToRelay(self.entry.home, answer))
        answers, self._answers = self._answers, []
        return Output(tuple(answers), tuple(relays), tuple(writes))

    def next_deadline(self) -> float | None:
        """When to call `handle_deadline`; None: nothing waits for the time."""
        if self.broken:
            return None
        due = self._role.next_deadline() if isinstance(self._role, Sequencer) else None
        retry = self._write_after
        if retry > float("-inf"):
            return retry if due is None else min(due, retry)
        return due

    def handle_deadline(self, now: float) -> None:
        """The time that `next_deadline` gave has come."""
        if self._write_after <= now:
            self._write_after = float("-inf")
        if isinstance(self._role, Sequencer):
            self._role.handle_deadline(now)

    # --- What is to see ---

    @property
    def doing(self) -> Doing:
        """What this relay is in the room."""
        if self.broken:
            return Doing.BROKEN
        return self._role.doing if self._role is not None else Doing.WATCHING

    @property
    def opening(self) -> Opening | None:
        """The object of the track `epochs` that this relay publishes; None: it is not the home, or not yet."""
        if self.doing is not Doing.HOME:
            return None
        return Opening(self.log.epoch, self.log.start, self._me)

    @property
    def serves_log(self) -> bool:
        """Whether this relay publishes the track `log` of `log.epoch`: homes do, followers stand in for a dead one."""
        return self.doing in {Doing.HOME, Doing.FENCED, Doing.FOLLOWING, Doing.BROKEN} and self.log.epoch > 0

    @property
    def is_idle(self) -> bool:
        """Nothing of it is on this disk or on its way there, and this relay is nothing in it."""
        return not self.log.standing.promised and self._role is None and self._in_flight is None

    def report(self) -> RoomReport:
        """For controllers: whole in the newest epoch is who may be promoted."""
        standing = self.log.standing
        whole = 0 if self.broken or self.doing in {Doing.LOST, Doing.DIVERGED} else standing.whole
        return RoomReport(self.log.room, standing.promised, whole, self.log.records, self.doing is Doing.HOME)

    def statistics(self) -> RoomStatistics:
        """Counts for the state page."""
        log, standing = self.log, self.log.standing
        waiting = backlog = 0
        if isinstance(self._role, Sequencer):
            found = self._role.statistics()
            waiting, backlog = found.queued + found.unacknowledged, found.backlog
        return RoomStatistics(
            self.doing.value, log.epoch, log.records, log.visible, standing.whole, log.withdrawn, self.conflicts,
            waiting, backlog,
        )  # fmt: skip

    def check_invariants(self) -> None:
        self.log.check_invariants()
        if self._role is not None:
            self._role.check_invariants()

    # --- Private ---

    def _writes(self, now: float) -> list[Write | Read]:
        """The next transaction, where none is on its way."""
        role = self._role
        if self._in_flight is not None or role is None or self.broken or now < self._write_after:
            return []
        self._number += 1
        write = role.next_write(self._number, now) if isinstance(role, Sequencer) else role.next_write(self._number)
        if write is None:
            return []
        self._in_flight = (write, role)
        return [write]

    def _reads(self, role: Sequencer) -> list[Write | Read]:
        wanted = role.mirror.read_wanted if role.mirror is not None else None
        if wanted is None or self._read is not None or self.broken:
            return []
        self._number += 1
        self._read = Read(self._number, self.log.room, *wanted)
        return [self._read]
