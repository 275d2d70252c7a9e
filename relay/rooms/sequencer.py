"""The home of a room: it gives every message its place, and says so once the place is safe.

`room` hands in what writers publish, what the store has written and what the follower confirms; it takes `answers`,
the next `Write` and what goes to the follower. A message gets its place when its batch is cut, never when it comes in,
so a message that is refused has no place to give back. One batch is on its way to disk at a time; what comes meanwhile
makes the next one. Nothing is acknowledged, shown to readers or sent to the follower before it is on this disk.

When a place is acknowledged (`docs/rooms.md` has the argument):
    stored=2    the follower has it, and is whole in this epoch
    stored=1    there is no follower, or it is slow and `may_ack_alone` holds; never for classes that need two
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from relay.rooms.effects import Answer, Doing, Entry, Outcome, Write, Writer, Written
from relay.rooms.log import RoomLog
from relay.rooms.mirror import Mirror
from relay.rooms.rates import Rates, RoomSettings
from relay.rooms.standing import Standing, opened
from tradewind.contract.copies import Copied, Copy, Run
from tradewind.contract.messages import RoomEntry
from tradewind.contract.rooms import (
    MAX_FIELD_BYTES,
    Ack,
    Nak,
    Place,
    Publish,
    Record,
    Why,
    chain_of,
    encode,
)

MAX_WRITERS_OF_A_KEY = 8
"""Sessions that wait for the answer to one key."""

RETRY_MS: dict[Why, int | None] = {
    Why.RATE: 100, Why.SIZE: None, Why.MOVED: 0, Why.FULL: 2000, Why.EXPIRED: None, Why.CAS: None, Why.FENCED: 200,
    Why.NO_HOME: 500, Why.NO_QUORUM: 500, Why.MALFORMED: None, Why.DENIED: None,
}  # fmt: skip
"""When trying again may help."""
_REFUSES = {
    Doing.GREETING: Why.NO_QUORUM,
    Doing.FENCED: Why.FENCED,
    Doing.BEHIND: Why.NO_HOME,
    Doing.LOST: Why.NO_HOME,
    Doing.BROKEN: Why.FULL,
}


@dataclass(slots=True)
class _Pending:
    """A message without a place."""

    message: Publish
    user: bytes
    at_ms: int
    due: float | None
    writers: list[Writer]


@dataclass(slots=True)
class _Placed:
    """A message whose place is not acknowledged yet."""

    key: bytes
    place: Place
    cls: int
    dup: bool
    writers: list[Writer] = field(default_factory=list)


class SequencerStatistics(NamedTuple):
    """Counts since this relay became the home."""

    accepted: int
    refused: int
    duplicates: int
    acked_once: int
    acked_twice: int
    queued: int
    unacknowledged: int
    backlog: int
    """Records that the follower may not have, now."""


class Sequencer:
    """One room's home, from the table that named it until another does."""

    __slots__ = ("_answers", "_batch", "_by_key", "_controller_at", "_counts", "_doubtful", "_late", "_log", "_me",
                 "_queue", "_rates", "_recent", "_settings", "_unacked", "_upgrades", "doing", "entry",
                 "mirror")  # fmt: skip

    def __init__(self, log: RoomLog, me: str, entry: RoomEntry, settings: RoomSettings, now: float) -> None:
        self._log = log
        self._me = me
        self._settings = settings
        self._rates = Rates(settings, now)
        self._answers: list[Answer] = []
        self._queue: deque[_Pending] = deque()
        self._batch: list[tuple[_Pending, Place]] = []
        self._doubtful: list[tuple[_Pending, Why]] = []
        self._unacked: deque[_Placed] = deque()
        self._late: list[_Placed] = []
        self._by_key: dict[bytes, _Pending | _Placed] = {}
        self._recent: OrderedDict[bytes, _Placed] = OrderedDict()
        self._upgrades: deque[_Placed] = deque(maxlen=settings.queue_records)
        self._counts = [0, 0, 0, 0, 0]
        self._controller_at = float("-inf")
        self.entry = entry
        self.doing = Doing.OPENING
        self.mirror = self._new_mirror(now)

    # --- Where this relay stands ---

    def reopen(self, entry: RoomEntry, now: float) -> None:
        """The same home in a newer epoch: what is queued stays queued, and places go on where they are."""
        self.entry = entry
        self.doing = Doing.OPENING
        self.mirror = self._new_mirror(now)

    def retire(self, home: str) -> None:
        """Another relay is the home: who has no place yet is told so; who has one asks there again."""
        self._refuse_queue(Why.MOVED, home)

    def stop(self, doing: Doing) -> None:
        """Take nothing any longer, and say nothing of places that were not acknowledged: nobody here knows of them."""
        self.doing = doing
        self._refuse_queue(_REFUSES[doing])

    def receive_controller(self, now: float) -> None:
        """A controller that knows this epoch was heard."""
        self._controller_at = now
        self._acknowledge(now)

    def may_ack_alone(self, now: float) -> bool:
        """Whether what is on this disk alone may be acknowledged: not where another relay may have been promoted."""
        if self.mirror is None:
            return True
        return now - max(self._controller_at, self.mirror.heard_at) <= self._settings.lease_s

    # --- Writers ---

    def receive_publish(self, writer: Writer, user: bytes, message: Publish, now: float, wall_now: float) -> None:
        """Take a message in, or answer at once. `user` is who the writer's token says it is."""
        if self._known(writer, message.key):
            return
        refusal = self._refusal(user, message, now)
        if refusal is not None:
            self._counts[1] += 1
            self._answers.append(Answer(writer, refusal))
            return
        due = None if message.deadline_ms is None else now + message.deadline_ms / 1000
        pending = _Pending(message, user, max(int(wall_now * 1000), 0), due, [writer])
        self._counts[0] += 1
        self._recent.pop(message.key, None)
        self._queue.append(pending)
        self._by_key[message.key] = pending

    def answers(self) -> list[Answer]:
        """What writers are to be told since the last call."""
        answers, self._answers = self._answers, []
        return answers

    # --- The store ---

    def next_write(self, number: int, now: float) -> Write | None:
        """The next transaction; ask only when none of this room is on its way."""
        if self.doing in {Doing.OPENING, Doing.GREETING} and (write := self._opening(number, now)) is not None:
            return write
        return self._cut(number, now) if self.doing is Doing.HOME and self._queue else None

    def receive_written(self, write: Write, written: Written, now: float) -> None:
        """What became of a write of ours; where it was stored, the log has it already."""
        batch, self._batch = self._batch, []
        doubtful, self._doubtful = self._doubtful, []
        for pending, why in doubtful:
            place = written.found.get(pending.message.key)
            if place is None:
                self._refuse(pending, why)
            else:
                self._place(pending, place, dup=True)
        if written.outcome is Outcome.STORED:
            if write.standing is not None and write.standing.promised == self.entry.epoch:
                self._begin(now)
            for pending, place in batch:
                self._place(pending, place, dup=False)
            if batch and self.mirror is not None:
                self.mirror.stored(now)
        elif written.outcome is Outcome.REFUSED:
            for pending, _ in batch:
                self._refuse(pending, Why.FULL)
        elif written.outcome is Outcome.DUPLICATE:
            for pending, _ in reversed(batch):
                place = written.found.get(pending.message.key)
                if place is not None:
                    self._place(pending, place, dup=True)
                elif self.doing in {Doing.HOME, Doing.OPENING}:
                    self._queue.appendleft(pending)
                else:
                    self._refuse(pending, _REFUSES[self.doing])
        self._acknowledge(now)

    # --- The follower ---

    def receive_copied(self, relay: str, copied: Copied, now: float) -> None:
        """The follower said what it has."""
        if copied.epoch > self.entry.epoch:
            self.stop(Doing.FENCED)
        if self.mirror is None or relay != self.mirror.follower or self.doing in _REFUSES.keys() - {Doing.GREETING}:
            return
        if not self.mirror.receive_copied(copied, now):
            self.stop(Doing.LOST)
            return
        if self.doing is Doing.GREETING:
            self.doing = Doing.OPENING
        self._acknowledge(now)

    def copies_to_send(self, now: float) -> list[Copy]:
        """For the follower."""
        if self.mirror is None or self.doing not in {Doing.HOME, Doing.GREETING}:
            return []
        return self.mirror.copies_to_send(now, greeting=self.doing is Doing.GREETING)

    # --- Time ---

    def next_deadline(self) -> float | None:
        """When to call `handle_deadline`."""
        if self.mirror is None or self.doing not in {Doing.HOME, Doing.GREETING}:
            return None
        return self.mirror.next_deadline()

    def handle_deadline(self, now: float) -> None:
        """A follower that is too slow is not waited for."""
        if self.mirror is not None:
            self.mirror.handle_deadline(now)
            self._acknowledge(now)

    def statistics(self) -> SequencerStatistics:
        """Counts for the state page."""
        accepted, refused, duplicates, once, twice = self._counts
        waiting = len(self._unacked) + len(self._late)
        backlog = 0 if self.mirror is None else self._log.records - self.mirror.held
        return SequencerStatistics(accepted, refused, duplicates, once, twice, len(self._queue), waiting, backlog)

    def check_invariants(self) -> None:
        waiting = {pending.message.key for pending in self._queue} | {p.message.key for p, _ in self._batch}
        waiting |= {pending.message.key for pending, _ in self._doubtful}
        waiting |= {placed.key for placed in (*self._unacked, *self._late)}
        assert waiting == set(self._by_key), "every key without an answer is found by its key"
        assert not waiting & set(self._recent)
        assert all(before.place.seq < after.place.seq for before, after in zip(self._unacked, list(self._unacked)[1:]))
        assert self.mirror is None or self.mirror.held <= self._log.records

    # --- Private ---

    def _new_mirror(self, now: float) -> Mirror | None:
        entry = self.entry
        if entry.follower in {"", self._me}:
            return None
        return Mirror(self._log, entry.follower, entry.epoch, self._settings, now)

    def _opening(self, number: int, now: float) -> Write | None:
        """Find out whether this relay may be the home, and write that down before it is."""
        entry, standing = self.entry, self._log.standing
        base = entry.epoch - 1 if entry.base is None else entry.base
        if standing.promised == entry.epoch and standing.home == self._me:
            self._begin(now)
            return None
        if standing.promised >= entry.epoch or standing.whole < base:
            self.stop(Doing.BEHIND)
            return None
        if not standing.promised and self.mirror is not None and self.mirror.heard_at == float("-inf"):
            self.doing = Doing.GREETING
            return None
        self.doing = Doing.OPENING
        first = self._log.records
        lineage = opened(standing.lineage, entry.epoch, first)
        return Write(number, self._log.room, first, standing=Standing(entry.epoch, self._me, entry.epoch, lineage))

    def _begin(self, now: float) -> None:
        """The epoch is open: what earlier ones left here is the order from now on."""
        self.doing = Doing.HOME
        assert self._log.standing.lineage[-1] == Run(self.entry.epoch, self._log.start)
        self._log.show(self._log.start)
        if self.mirror is not None:
            self.mirror.begin(now)

    def _known(self, writer: Writer, key: bytes) -> bool:
        """Whether the key has a place, or is on its way to one: then this writer hears of it like the first."""
        known = self._by_key.get(key)
        if known is not None:
            self._counts[2] += 1
            if writer not in known.writers and len(known.writers) < MAX_WRITERS_OF_A_KEY:
                known.writers.append(writer)
            return True
        recent = self._recent.get(key)
        if recent is None or self.doing is not Doing.HOME:
            return False
        self._counts[2] += 1
        self._answers.append(Answer(writer, self._ack(recent, self._stored(recent), dup=True)))
        return True

    def _refusal(self, user: bytes, message: Publish, now: float) -> Nak | None:
        why = self._why_not(user, message, now)
        if why is not None:
            return Nak(message.key, why, RETRY_MS[why])
        wait_s = self._rates.take(user, message.cls, now)
        if wait_s:
            return Nak(message.key, Why.RATE, max(int(wait_s * 1000) + 1, 1))
        return None

    def _why_not(self, user: bytes, message: Publish, now: float) -> Why | None:
        if self.doing in _REFUSES:
            return _REFUSES[self.doing]
        if message.room != self._log.room or not 0 < len(user) <= MAX_FIELD_BYTES:
            return Why.MALFORMED
        if len(message.body) > self._settings.max_body_bytes:
            return Why.SIZE
        alone = self.mirror is None or self.mirror.alone
        if not self.may_ack_alone(now) or (alone and message.cls in self._settings.needs_two):
            return Why.NO_QUORUM
        most = self._settings.queue_records
        if len(self._queue) >= most or len(self._unacked) + len(self._late) >= most:
            return Why.RATE
        return None

    def _cut(self, number: int, now: float) -> Write | None:
        """Give the queue's first messages their places."""
        seq, chain = self._log.records, self._log.chain
        entries: list[Entry] = []
        while self._queue and len(entries) < self._settings.batch_records:
            pending = self._queue.popleft()
            message = pending.message
            why = _condition(message, pending.due, seq, now)
            if why is not None:
                self._doubtful.append((pending, why))
                continue
            record = Record(
                self.entry.epoch, seq, message.key, pending.user, message.cls, message.sent_ms, pending.at_ms,
                message.body, chain, message.lang, message.reply_to,
            )  # fmt: skip
            payload = encode(record)
            entries.append(Entry(message.key, payload))
            self._batch.append((pending, Place(record.epoch, seq, pending.at_ms)))
            seq, chain = seq + 1, chain_of(payload)
        lookups = tuple(pending.message.key for pending, _ in self._doubtful)
        return Write(number, self._log.room, self._log.records, tuple(entries), lookups=lookups)

    def _place(self, pending: _Pending, place: Place, *, dup: bool) -> None:
        """A message is on disk; it waits for its acknowledgement."""
        if dup:
            self._counts[2] += 1
        placed = _Placed(pending.message.key, place, pending.message.cls, dup, pending.writers)
        self._by_key[placed.key] = placed
        if dup:
            self._late.append(placed)
        else:
            self._unacked.append(placed)

    def _acknowledge(self, now: float) -> None:
        """Tell everybody whose place is safe enough, and let readers see as far."""
        if self.doing is not Doing.HOME:
            return
        log, mirror = self._log, self.mirror
        twice = mirror.held if mirror is not None else 0
        alone = (mirror is None or mirror.alone) and self.may_ack_alone(now)
        once = max(log.records if alone else 0, twice, log.start)
        log.show(once)
        while self._upgrades and self._upgrades[0].place.seq < twice:
            placed = self._upgrades.popleft()
            self._answers += [Answer(writer, self._ack(placed, 2, dup=placed.dup)) for writer in placed.writers]
            placed.writers = []
        waiting: list[_Placed] = []
        while self._unacked and self._unacked[0].place.seq < once:
            placed = self._unacked.popleft()
            if not self._tell(placed):
                waiting.append(placed)
        self._unacked.extendleft(reversed(waiting))
        self._late = [placed for placed in self._late if placed.place.seq >= once or not self._tell(placed)]

    def _tell(self, placed: _Placed) -> bool:
        """Acknowledge one place; False where its class needs two copies and it has one."""
        stored = self._stored(placed)
        if stored < 2 and placed.cls in self._settings.needs_two:
            return False
        self._counts[2 + stored] += 1
        self._answers += [Answer(writer, self._ack(placed, stored, dup=placed.dup)) for writer in placed.writers]
        del self._by_key[placed.key]
        if stored < 2 and self.mirror is not None and not placed.dup:
            self._upgrades.append(placed)
        else:
            placed.writers = []
        self._recent[placed.key] = placed
        if len(self._recent) > self._settings.recent_keys:
            self._recent.popitem(last=False)
        return True

    def _stored(self, placed: _Placed) -> int:
        return 2 if self.mirror is not None and placed.place.seq < self.mirror.held else 1

    def _ack(self, placed: _Placed, stored: int, *, dup: bool) -> Ack:
        place = placed.place
        return Ack(placed.key, place.epoch, place.seq, dup, stored, place.at_ms)

    def _refuse(self, pending: _Pending, why: Why, home: str | None = None) -> None:
        key = pending.message.key
        del self._by_key[key]
        self._counts[1] += 1
        self._answers += [Answer(writer, Nak(key, why, RETRY_MS[why], home)) for writer in pending.writers]

    def _refuse_queue(self, why: Why, home: str | None = None) -> None:
        queue, self._queue = self._queue, deque()
        for pending in queue:
            self._refuse(pending, why, home)


def _condition(message: Publish, due: float | None, seq: int, now: float) -> Why | None:
    """Why a message does not want the place `seq`."""
    if due is not None and now >= due:
        return Why.EXPIRED
    return Why.CAS if message.expect_seq is not None and message.expect_seq != seq else None
