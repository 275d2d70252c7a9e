"""The home's side of the second copy: what the follower has, what to send it next, and whether to wait for it.

`Sequencer` owns one for each epoch that has a follower. Records are sent only after they are on the home's own disk,
so that the follower never has a record that a home come back from a crash would give another place to.
"""

from __future__ import annotations

from collections import deque

from relay.rooms.effects import ReadDone
from relay.rooms.log import RoomLog
from relay.rooms.rates import RoomSettings
from tradewind.contract.copies import MAX_RECORDS, Copied, Copy

_COPY_BYTES = 500_000
"""About as much goes into one Copy."""


class Mirror:
    """One follower, as its home knows it."""

    __slots__ = ("_epoch", "_log", "_ping_at", "_progress_at", "_read", "_sent", "_settings", "_unconfirmed", "_want",
                 "alone", "damaged", "follower", "heard_at", "held", "joined", "read_wanted")  # fmt: skip

    def __init__(self, log: RoomLog, follower: str, epoch: int, settings: RoomSettings, now: float) -> None:
        self.follower = follower
        self.held = 0
        """Records that both have on disk. 0 until the follower is whole in this epoch."""
        self.joined = False
        self.alone = False
        """The follower is too slow: acknowledgements do not wait for it."""
        self.heard_at = float("-inf")
        self.damaged = False
        """A record that the follower lacks cannot be read here: it will never be whole."""
        self.read_wanted: tuple[int, int] | None = None
        """(first, count) to be read from the store and handed to `receive_read`."""
        self._log = log
        self._epoch = epoch
        self._settings = settings
        self._want = self._sent = 0
        self._progress_at = now
        self._ping_at = now
        self._unconfirmed: deque[tuple[int, float]] = deque()
        self._read: tuple[int, tuple[bytes, ...]] | None = None

    def begin(self, now: float) -> None:
        """The epoch is open: the follower hears of it at once, and has its time to become whole."""
        self._ping_at = float("-inf")
        self._unconfirmed.append((self._log.records, now))

    def stored(self, now: float) -> None:
        """The home's own disk has more."""
        if not self.alone:
            self._unconfirmed.append((self._log.records, now))

    def receive_copied(self, copied: Copied, now: float) -> bool:
        """Learn what the follower has; False: it has records of ours that we have not, so our disk forgot them."""
        if copied.epoch != self._epoch:
            return True
        self.heard_at = now
        if not copied.joined:
            return bool(self._log.standing.promised) or copied.held <= self._log.records
        if copied.held > self._log.records:
            return False
        if not self.joined:
            self.joined = True
            self._sent = copied.want
            self._progress_at = now
        if copied.want != self._want:
            self._progress_at = now
        self._want = copied.want
        self._sent = max(self._sent, min(copied.want, self._log.records))
        if copied.held >= self._log.start:
            self.held = max(self.held, copied.held)
        while self._unconfirmed and self._unconfirmed[0][0] <= self.held:
            self._unconfirmed.popleft()
        if self.held == self._log.records:
            self.alone = False
        return True

    def receive_read(self, done: ReadDone) -> None:
        """What `read_wanted` asked for."""
        self.read_wanted = None
        self.damaged = done.damaged is not None
        self._read = (done.first, done.payloads)

    def copies_to_send(self, now: float, *, greeting: bool) -> list[Copy]:
        """Records that the follower lacks, or a ping where one is due."""
        copies: list[Copy] = []
        limit = self._want + self._settings.window_records
        while self.joined and not greeting and self._sent < min(self._log.records, limit):
            records = self._records(self._sent, min(self._log.records, limit) - self._sent)
            if not records:
                break
            copies.append(self._copy(self._sent, records))
            self._sent += len(records)
        if not copies and now >= self._ping_at:
            copies.append(self._copy(self._sent, ()) if not greeting else Copy(self._log.room, self._epoch, (), 0))
        if copies:
            self._ping_at = now + self._settings.ping_s
        return copies

    def next_deadline(self) -> float:
        """When to call `handle_deadline`."""
        due = self._ping_at
        if self._unconfirmed:
            due = min(due, self._unconfirmed[0][1] + self._settings.follower_wait_s)
        if self._sent > self._want:
            due = min(due, self._progress_at + self._settings.resend_s)
        return due

    def handle_deadline(self, now: float) -> None:
        """Stop waiting for a follower that is too slow; send again what it does not confirm."""
        if self._unconfirmed and self._unconfirmed[0][1] + self._settings.follower_wait_s <= now:
            self.alone = True
            self._unconfirmed.clear()
        if self._sent > self._want and self._progress_at + self._settings.resend_s <= now:
            self._sent = self._want
            self._progress_at = now

    def _copy(self, first: int, records: tuple[bytes, ...]) -> Copy:
        log = self._log
        return Copy(log.room, self._epoch, log.standing.lineage, first, records, log.visible)

    def _records(self, first: int, count: int) -> tuple[bytes, ...]:
        """Up to so many payloads; none where they have to be read first."""
        count = min(count, MAX_RECORDS)
        payloads = self._log.newest(first, count)
        if payloads is None and self._read is not None and self._read[0] == first:
            payloads = self._read[1]
            self._read = None
        if payloads is None:
            if self.read_wanted is None and not self.damaged:
                self.read_wanted = (first, count)
            return ()
        size = taken = 0
        while taken < len(payloads) and size < _COPY_BYTES:
            size += len(payloads[taken])
            taken += 1
        return payloads[:taken]
