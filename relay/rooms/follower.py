"""The follower of a room: a second copy of the home's log, in order, and what the home may count on.

`room` hands in every `Copy` of the home that the route table names, and takes the next `Write` and the answer. A
record is taken only in its place, with the right checksum, epoch and chain. Before the first one, the log is cut where
it left the home's lineage: such records were on the disk of a home that was replaced, and never part of the order.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from relay.rooms.effects import Doing, Entry, Outcome, Write, Written
from relay.rooms.log import RoomLog
from relay.rooms.rates import RoomSettings
from relay.rooms.standing import Standing, epoch_at, first_difference
from tradewind.contract.copies import Copied, Copy, Lineage
from tradewind.contract.rooms import RoomMessageError, chain_of, decode_record


class FollowerStatistics(NamedTuple):
    """Counts since this relay became the follower."""

    taken: int
    rejected: int
    """Records that were damaged or not the next of the chain."""
    waiting: int


class Follower:
    """One room's follower in one epoch."""

    __slots__ = ("_chain", "_epoch", "_home", "_lineage", "_log", "_owes", "_rejected", "_settings", "_shown", "_taken",
                 "_waiting", "_writing", "doing")  # fmt: skip

    def __init__(self, log: RoomLog, home: str, epoch: int, settings: RoomSettings) -> None:
        self._log = log
        self._home = home
        self._epoch = epoch
        self._settings = settings
        self._lineage: Lineage = ()
        """The home's, where it has to be taken over."""
        self._waiting: deque[Entry] = deque()
        self._writing = 0
        self._chain = log.chain
        self._shown = 0
        self._owes = False
        self._taken = self._rejected = 0
        self.doing = Doing.FOLLOWING

    @property
    def joined(self) -> bool:
        """The home's lineage of this epoch is on our disk."""
        standing = self._log.standing
        return standing.promised == self._epoch and standing.home == self._home

    def receive_copy(self, copy: Copy) -> None:
        """Take records in, or learn where the home stands; an answer is owed either way."""
        self._owes = True
        if self.doing is Doing.DIVERGED or not copy.lineage or copy.lineage[-1].epoch != self._epoch:
            return
        if not self.joined:
            self._lineage = copy.lineage
            return
        self._shown = max(self._shown, copy.visible)
        self._log.show(self._safe)
        expected = self._expected
        if copy.first > expected:
            return
        for payload in copy.records[expected - copy.first :]:
            if len(self._waiting) >= 2 * self._settings.window_records or not self._take(payload):
                return

    def next_write(self, number: int) -> Write | None:
        """The next transaction; ask only when none of this room is on its way."""
        log = self._log
        if self.doing is Doing.DIVERGED:
            return None
        if not self.joined:
            if not self._lineage or log.standing.promised > self._epoch:
                return None
            cut = first_difference(log.standing.lineage, log.records, self._lineage)
            whole = self._epoch if cut >= self._lineage[-1].start else log.standing.whole
            standing = Standing(self._epoch, self._home, whole, self._lineage)
            return Write(number, log.room, cut, cut_from=cut if cut < log.records else None, standing=standing)
        if not self._waiting:
            return None
        count = min(len(self._waiting), self._settings.batch_records)
        entries = tuple(self._waiting.popleft() for _ in range(count))
        self._writing = count
        standing = log.standing
        becomes_whole = standing.whole < self._epoch and log.records + count >= log.start
        promise = Standing(standing.promised, standing.home, self._epoch, standing.lineage) if becomes_whole else None
        return Write(number, log.room, log.records, entries, standing=promise)

    def receive_written(self, write: Write, written: Written) -> None:
        """What became of a write of ours; where it was stored, the log has it already."""
        self._owes = True
        self._writing = 0
        if written.outcome is Outcome.STORED:
            self._taken += len(write.entries)
            self._log.show(self._safe)
            if not write.entries:
                self._chain = self._log.chain
            return
        # The home sends again what we do not confirm.
        self._waiting.clear()
        self._chain = self._log.chain
        if written.outcome is Outcome.DUPLICATE:
            self.doing = Doing.DIVERGED

    def answer_to_send(self) -> Copied | None:
        """What the home is to be told, where it is owed something."""
        if not self._owes or self.doing is Doing.DIVERGED:
            return None
        self._owes = False
        return Copied(self._log.room, self._epoch, self._log.records, self._expected, self.joined)

    def statistics(self) -> FollowerStatistics:
        """Counts for the state page."""
        return FollowerStatistics(self._taken, self._rejected, len(self._waiting) + self._writing)

    def check_invariants(self) -> None:
        assert len(self._waiting) <= 2 * self._settings.window_records
        if self.joined and not self._waiting and not self._writing:
            assert self._chain == self._log.chain

    @property
    def _expected(self) -> int:
        return self._log.records + self._writing + len(self._waiting)

    @property
    def _safe(self) -> int:
        """What readers may see: what the home showed; all that is here, once this relay is whole: two have it then."""
        log = self._log
        return log.records if log.standing.whole >= self._epoch and self.joined else self._shown

    def _take(self, payload: bytes) -> bool:
        """Queue the next record if it is one."""
        seq = self._expected
        try:
            record = decode_record(payload)
        except RoomMessageError:
            self._rejected += 1
            return False
        if record.seq != seq or record.epoch != epoch_at(self._log.standing.lineage, seq):
            self._rejected += 1
            return False
        if record.prev != self._chain:
            self._rejected += 1
            if seq == self._log.records:
                # Whole records on both sides, and ours is not the one that the home's next one follows.
                self.doing = Doing.DIVERGED
            return False
        self._chain = chain_of(payload)
        self._waiting.append(Entry(record.key, payload))
        return True
