"""Rooms on disk: one SQLite file of a relay, one thread that writes it, one flush for everything that came together.

`submit` takes `Write` and `Read` from `Rooms.output` and returns at once; the thread calls `wake` when `results` has
answers, in the order of submission. Nothing is answered as STORED before its transaction is flushed (WAL with
synchronous=FULL). Every record carries its checksum, which is looked at whenever it is read: a damaged one keeps its
place and its key, is listed in `damaged`, and is never given out.

    rooms       a number and a `Standing` for each room
    records     (room, seq) -> epoch, key, at_ms, payload; (room, key) is unique in the same transaction
    quarantine  what was cut off: it was never part of the order
    damaged     what could not be read, and why
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from relay.rooms.effects import Outcome, Read, ReadDone, Stored, Write, Written
from relay.rooms.standing import NEW, StandingError, pack_standing, unpack_standing
from tradewind.contract.rooms import NO_CHAIN, Place, RoomMessageError, RoomName, chain_of, decode_record

SCHEMA_VERSION = 1
APPLICATION_ID = 0x54775274
"""What makes the file one of ours: "TwRt"."""
REAL_FLUSH_S = 50e-6
"""No disk that survives a loss of power flushes faster; neither do the caches that are said to."""

_SCHEMA = """
CREATE TABLE rooms (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, standing BLOB NOT NULL);
CREATE TABLE records (
    room INTEGER NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL, key BLOB NOT NULL, at_ms INTEGER NOT NULL,
    payload BLOB NOT NULL, PRIMARY KEY (room, seq)
) WITHOUT ROWID;
CREATE UNIQUE INDEX keys ON records (room, key);
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY, room INTEGER NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL, key BLOB NOT NULL,
    payload BLOB NOT NULL, cut_wall REAL NOT NULL
);
CREATE TABLE damaged (
    room INTEGER NOT NULL, seq INTEGER NOT NULL, why TEXT NOT NULL, seen_wall REAL NOT NULL, PRIMARY KEY (room, seq)
);
"""


class StoreError(Exception):
    """The file cannot be used; says why."""


class Flush(Enum):
    """What the probe makes of a disk."""

    REAL = "real"
    SUSPICIOUS = "suspicious"


class Probe(NamedTuple):
    """How long a flush of 4 kB takes here."""

    p50_s: float
    p99_s: float
    verdict: Flush


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What may be set of a store."""

    group_records: int = 256
    """So many records go into one transaction at most, unless one write alone has more."""
    linger_s: float = 0.0
    """How long a transaction waits for more, at most 5 ms. While one is flushed the next one gathers anyway."""
    max_bytes: int = 0
    """The file's largest size; 0: as much as the disk has."""

    def __post_init__(self) -> None:
        assert 0 <= self.linger_s <= 0.005


class StoreStatistics(NamedTuple):
    """Since the store was opened. Times are of the newest 1,000 transactions, from taking them up to the flush."""

    records: int
    commits: int
    refused: int
    failed: int
    damaged: int
    quarantined: int
    commit_p50_s: float
    commit_p99_s: float


def probe_flush(directory: Path, times: int = 40) -> Probe:
    """Measure flushes in a directory. Raises OSError. A median under 50 us means that nothing was flushed."""
    took = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(times):
            file.write(os.urandom(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    took.sort()
    middle = statistics.median(took)
    return Probe(middle, took[len(took) * 99 // 100], Flush.REAL if middle >= REAL_FLUSH_S else Flush.SUSPICIOUS)


class RoomStore:
    """One file. Open it, `load`, `submit` and take `results`, `close`. Used from one thread; has one of its own."""

    def __init__(self, path: Path, settings: StoreSettings, wake: Callable[[], None]) -> None:
        self._path = path
        self._settings = settings
        self._wake = wake
        self._database = _Database(path, settings)
        self._queue: deque[Write | Read] = deque()
        self._results: deque[Written | ReadDone] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._took: deque[float] = deque(maxlen=1000)
        self._counts = dict.fromkeys(("records", "commits", "refused", "failed"), 0)
        self._thread = threading.Thread(target=self._run, name="rooms", daemon=True)

    def load(self) -> dict[RoomName, Stored]:
        """What there is of every room; then the thread starts. Call once. Raises StoreError."""
        try:
            stored = self._database.load()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        self._thread.start()
        return stored

    def submit(self, operations: Sequence[Write | Read]) -> None:
        """Queue what a room wants of the disk. Does not block."""
        if operations:
            with self._changed:
                assert not self._closing
                self._queue.extend(operations)
                self._changed.notify()

    def results(self) -> list[Written | ReadDone]:
        """What was done since the last call."""
        results = []
        while self._results:
            results.append(self._results.popleft())
        return results

    def close(self) -> None:
        """Do what is queued, then close the file in order. Blocks for that long."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        self._database.close()

    def statistics(self) -> StoreStatistics:
        """Counts and times."""
        took = sorted(self._took.copy()) or [0.0]
        return StoreStatistics(
            **self._counts,
            damaged=self._database.damaged,
            quarantined=self._database.quarantined,
            commit_p50_s=took[len(took) // 2],
            commit_p99_s=took[len(took) * 99 // 100],
        )

    # --- The thread ---

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            if isinstance(group, Read):
                self._results.append(self._database.read(group))
            else:
                began = time.perf_counter()
                results = self._database.commit(group)
                self._took.append(time.perf_counter() - began)
                self._count(group, results)
                self._results.extend(results)
            self._wake()

    def _next_group(self) -> list[Write] | Read | None:
        """The writes of one transaction, or one read, in the order of submission; None: closed and nothing is left."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    return None
                self._changed.wait()
            if isinstance(self._queue[0], Read):
                read = self._queue.popleft()
                assert isinstance(read, Read)
                return read
        if self._settings.linger_s:
            self._linger()
        with self._changed:
            writes: list[Write] = []
            records = 0
            while self._queue and isinstance(write := self._queue[0], Write):
                records += len(write.entries)
                if writes and records > self._settings.group_records:
                    break
                writes.append(write)
                self._queue.popleft()
            return writes

    def _linger(self) -> None:
        until = time.monotonic() + self._settings.linger_s
        with self._changed:
            while not self._closing and (left := until - time.monotonic()) > 0:
                if sum(len(one.entries) for one in self._queue if isinstance(one, Write)) >= 256:
                    return
                self._changed.wait(left)

    def _count(self, group: Sequence[Write], results: Sequence[Written]) -> None:
        self._counts["commits"] += 1
        for write, written in zip(group, results, strict=True):
            if written.outcome is Outcome.STORED:
                self._counts["records"] += len(write.entries)
            elif written.outcome in {Outcome.REFUSED, Outcome.FAILED}:
                self._counts[written.outcome.value] += 1


class _Database:
    """The file itself. Opened by one thread and then used by the store's alone."""

    def __init__(self, path: Path, settings: StoreSettings) -> None:
        self.damaged = 0
        self.quarantined = 0
        self._failed = False
        self._ids: dict[RoomName, int] = {}
        self._ends: dict[int, int] = {}
        try:
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from error
        try:
            self._prepare(settings)
        except (sqlite3.Error, StoreError) as error:
            self._connection.close()
            raise StoreError(f"{path}: {error}") from error

    def load(self) -> dict[RoomName, Stored]:
        """What there is of every room."""
        found: dict[RoomName, Stored] = {}
        for number, packed, standing in self._connection.execute("SELECT id, name, standing FROM rooms").fetchall():
            name = _unpack_name(packed)
            self._ids[name] = number
            (last,) = self._one("SELECT max(seq) FROM records WHERE room = ?", number)
            self._ends[number] = records = 0 if last is None else last + 1
            payload = self._payload(number, records - 1) if records else None
            whole = payload is not None or not records
            try:
                promises = unpack_standing(standing)
            except StandingError:
                promises, whole = NEW, False
            chain = chain_of(payload) if payload is not None else NO_CHAIN
            found[name] = Stored(records, chain, promises, damaged=not whole)
        (self.damaged,) = self._one("SELECT count(*) FROM damaged")
        (self.quarantined,) = self._one("SELECT count(*) FROM quarantine")
        return found

    def read(self, read: Read) -> ReadDone:
        """Records up to a damaged one. A disk that cannot be read is one, too."""
        number = self._ids.get(read.room)
        payloads: list[bytes] = []
        size = 0
        try:
            rows = self._connection.execute(
                "SELECT seq, epoch, key, payload FROM records WHERE room = ? AND seq >= ? ORDER BY seq LIMIT ?",
                (number, read.first, read.count),
            )
            with closing(rows):
                for seq, epoch, key, payload in rows:
                    if (why := _fault(seq, epoch, key, payload, read.first + len(payloads))) is not None:
                        self._note_damage(number, read.first + len(payloads), why)
                        return ReadDone(read.id, read.room, read.first, tuple(payloads), read.first + len(payloads))
                    payloads.append(payload)
                    size += len(payload)
                    if size >= read.max_bytes:
                        break
        except sqlite3.Error as error:
            self._note_damage(number, read.first + len(payloads), str(error))
            return ReadDone(read.id, read.room, read.first, tuple(payloads), read.first + len(payloads))
        return ReadDone(read.id, read.room, read.first, tuple(payloads))

    def commit(self, writes: Sequence[Write]) -> list[Written]:
        """Do all of them in one transaction with one flush; none of them where that cannot be."""
        if self._failed:
            return [Written(write.id, write.room, Outcome.FAILED, {}) for write in writes]
        ends = dict(self._ends)
        results: list[Written] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results += [self._write(write) for write in writes]
            self._connection.execute("COMMIT")
        except (sqlite3.Error, StoreError, RoomMessageError) as error:
            return self._not_committed(writes, error, ends)
        return results

    def close(self) -> None:
        """Bring the write-ahead log into the file, and close it."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            # What is flushed in the write-ahead log is found there when the file is opened again.
            pass
        finally:
            self._connection.close()

    def _prepare(self, settings: StoreSettings) -> None:
        run = self._connection.execute
        (application,) = self._one("PRAGMA application_id")
        (version,) = self._one("PRAGMA user_version")
        (tables,) = self._one("SELECT count(*) FROM sqlite_master")
        if tables and application != APPLICATION_ID:
            raise StoreError("another program's database")
        if tables and version != SCHEMA_VERSION:
            raise StoreError(f"version {version} of the schema, and this program knows {SCHEMA_VERSION}")
        (mode,) = self._one("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise StoreError("no write-ahead log here")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA cell_size_check = ON")
        # One relay, one file: a second process of the same configuration must not order the same rooms.
        run("PRAGMA locking_mode = EXCLUSIVE")
        if settings.max_bytes:
            (page,) = self._one("PRAGMA page_size")
            run(f"PRAGMA max_page_count = {max(settings.max_bytes // page, 1)}")
        run("BEGIN IMMEDIATE")
        if not tables:
            for statement in _SCHEMA.split(";")[:-1]:
                run(statement)
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {SCHEMA_VERSION}")
        run("COMMIT")

    def _write(self, write: Write) -> Written:
        number = self._number_of(write.room)
        keys = [entry.key for entry in write.entries]
        cut = write.cut_from
        found = self._places(number, (*keys, *write.lookups), cut)
        if any(key in found for key in keys) or len(set(keys)) != len(keys):
            return Written(write.id, write.room, Outcome.DUPLICATE, found)
        chain = self._cut(number, cut) if cut is not None else None
        if self._ends[number] != write.first:
            raise StoreError(f"a write at {write.first} of a log with {self._ends[number]}")
        rows = []
        for seq, entry in enumerate(write.entries, write.first):
            record = decode_record(entry.payload)
            rows.append((number, seq, record.epoch, entry.key, record.at_ms, entry.payload))
        self._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._ends[number] += len(rows)
        if write.standing is not None:
            packed = pack_standing(write.standing)
            self._connection.execute("UPDATE rooms SET standing = ? WHERE id = ?", (packed, number))
        return Written(write.id, write.room, Outcome.STORED, found, chain)

    def _cut(self, number: int, cut: int) -> bytes:
        self._connection.execute(
            "INSERT INTO quarantine (room, seq, epoch, key, payload, cut_wall)"
            " SELECT room, seq, epoch, key, payload, ? FROM records WHERE room = ? AND seq >= ?",
            (time.time(), number, cut),
        )
        gone = self._connection.execute("DELETE FROM records WHERE room = ? AND seq >= ?", (number, cut)).rowcount
        self.quarantined += gone
        self._ends[number] = min(self._ends[number], cut)
        payload = self._payload(number, cut - 1) if cut else None
        return chain_of(payload) if payload is not None else NO_CHAIN

    def _not_committed(self, writes: Sequence[Write], error: Exception, ends: dict[int, int]) -> list[Written]:
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            full = False
        self._ends = ends
        self._ids = {name: number for name, number in self._ids.items() if number in ends}
        # A full disk rolls back. After anything else nobody knows what is there: only opening it anew tells.
        self._failed = not full
        outcome = Outcome.REFUSED if full else Outcome.FAILED
        return [Written(write.id, write.room, outcome, {}) for write in writes]

    def _number_of(self, room: RoomName) -> int:
        number = self._ids.get(room)
        if number is None:
            values = (_pack_name(room), pack_standing(NEW))
            number = self._connection.execute("INSERT INTO rooms (name, standing) VALUES (?, ?)", values).lastrowid
            assert number is not None
            self._ids[room] = number
            self._ends[number] = 0
        return number

    def _places(self, number: int, keys: Sequence[bytes], cut: int | None) -> dict[bytes, Place]:
        """Where keys stand already, below `cut`."""
        found = {}
        for key in keys:
            row = self._connection.execute(
                "SELECT epoch, seq, at_ms FROM records WHERE room = ? AND key = ?", (number, key)
            ).fetchone()
            if row is not None and (cut is None or row[1] < cut):
                found[key] = Place(*row)
        return found

    def _payload(self, number: int, seq: int) -> bytes | None:
        """One whole record; None: it is damaged or not there."""
        row = self._connection.execute(
            "SELECT seq, epoch, key, payload FROM records WHERE room = ? AND seq = ?", (number, seq)
        ).fetchone()
        why = "not there" if row is None else _fault(row[0], row[1], row[2], row[3], seq)
        if why is not None:
            self._note_damage(number, seq, why)
            return None
        payload: bytes = row[3]
        return payload

    def _note_damage(self, number: int | None, seq: int, why: str) -> None:
        row = (number, seq, why, time.time())
        try:
            new = self._connection.execute("INSERT OR IGNORE INTO damaged VALUES (?, ?, ?, ?)", row).rowcount
        except sqlite3.Error:
            # It is counted, and a disk in this state need not take more.
            new = 1
        self.damaged += new

    def _one(self, query: str, *values: object) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._connection.execute(query, values).fetchone()
        return row


def _fault(seq: int, epoch: int, key: bytes, payload: bytes, wanted: int) -> str | None:
    """Why a row is not the record that was stored at `wanted`; None: it is."""
    if seq != wanted:
        return "not there"
    try:
        record = decode_record(payload)
    except (RoomMessageError, TypeError) as error:
        return str(error)
    return None if (record.seq, record.epoch, record.key) == (seq, epoch, key) else "another record"


def _pack_name(room: RoomName) -> bytes:
    return b"".join(bytes((len(field),)) + field for field in room)


def _unpack_name(packed: bytes) -> RoomName:
    fields, at = [], 0
    while at < len(packed):
        fields.append(packed[at + 1 : at + 1 + packed[at]])
        at += 1 + packed[at]
    return tuple(fields)
