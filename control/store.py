"""EDGE: the control plane's state in one SQLite file, flushed before anybody is told of it (WAL, synchronous=FULL).

One writer at a time: each start takes a term of its own, and a writer whose term is not the file's newest writes
nothing. `control.run` calls this in a worker thread.

    terms     one row: the newest writer's term
    orders    id -> what an operator ordered, and what came of it
    wishes    relay -> the stage that it is meant to be in
    audit     number -> who did what
    rooms     namespace -> home, follower, epoch
    policies  name -> document
    members   relay -> what it said of itself when it last came
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from control.state import AuditLine, Batch, FencedError, Member, Order, State, StoreError, Wish
from tradewind.contract.messages import RoomEntry

APPLICATION_ID = 0x54775263
"""What makes the file one of ours: "TwRc"."""
SCHEMA_VERSION = 2
FIRST_TERM_WALL = 1_735_689_600
"""Terms of a new file count seconds since 2025 began: a file that was lost is followed by a higher term all the same,
and no relay has to be talked into taking tables again."""
ORDERS_KEPT = 10_000
AUDIT_READ = 1_000

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE terms (one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL);
CREATE TABLE orders (
    id TEXT PRIMARY KEY, relay TEXT NOT NULL, progress TEXT NOT NULL, at_wall REAL NOT NULL, document BLOB NOT NULL
);
CREATE INDEX orders_at ON orders (at_wall);
CREATE TABLE wishes (relay TEXT PRIMARY KEY, document BLOB NOT NULL);
CREATE TABLE audit (
    number INTEGER PRIMARY KEY, at_wall REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, target TEXT NOT NULL,
    result TEXT NOT NULL
);
CREATE TABLE rooms (room BLOB PRIMARY KEY, epoch INTEGER NOT NULL, document BLOB NOT NULL);
CREATE TABLE policies (name TEXT PRIMARY KEY, document TEXT NOT NULL);
"""
_MEMBERS = "CREATE TABLE members (relay TEXT PRIMARY KEY, document BLOB NOT NULL);"
"""New in version 2."""


class SqliteStore:
    """One file. Open it, `load` once, `save` as often as wanted, `close`; calls may come from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._term = 0
        with self._errors():
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._prepare()

    def load(self, wall_now: float) -> State:
        """Begin a new term and read everything. Raises StoreError."""
        with self._errors(), self._transaction():
            row = self._database.execute("SELECT term FROM terms").fetchone()
            self._term = row[0] + 1 if row else max(1, int(wall_now) - FIRST_TERM_WALL)
            self._database.execute("INSERT OR REPLACE INTO terms VALUES (1, ?)", (self._term,))
            wishes = self._documents("SELECT document FROM wishes ORDER BY relay", Wish)
            standing = [wish.order for wish in wishes]
            marks = ",".join("?" * len(standing))
            orders = self._documents(
                # The marks are question marks and nothing else.
                f"SELECT document FROM orders WHERE progress = 'open' OR id IN ({marks}) "  # noqa: S608
                "OR id IN (SELECT id FROM orders ORDER BY at_wall DESC LIMIT 1000) ORDER BY at_wall, id",
                Order,
                standing,
            )
            audit = self._database.execute("SELECT * FROM audit ORDER BY number DESC LIMIT ?", (AUDIT_READ,)).fetchall()
            return State(
                term=self._term,
                orders=orders,
                wishes=wishes,
                audit=tuple(AuditLine(*line) for line in reversed(audit)),
                rooms=self._documents("SELECT document FROM rooms", RoomEntry),
                policies=tuple(self._database.execute("SELECT name, document FROM policies ORDER BY name")),
                members=self._documents("SELECT document FROM members ORDER BY relay", Member),
            )

    def save(self, batch: Batch) -> None:
        """Write a batch; it is on disk when this returns. Raises FencedError or StoreError."""
        encode = msgspec.msgpack.encode
        with self._errors(), self._transaction():
            (term,) = self._database.execute("SELECT term FROM terms").fetchone()
            if term != self._term:
                raise FencedError(f"{self._path}: term {term} has begun, ours was {self._term}")
            self._put("orders", [(o.id, o.relay, o.progress, o.at_wall, encode(o)) for o in batch.orders])
            self._put("wishes", [(wish.relay, encode(wish)) for wish in batch.wishes])
            self._put("audit", [(a.number, a.at_wall, a.who, a.what, a.target, a.result) for a in batch.audit])
            self._put("rooms", [(encode(entry.room), entry.epoch, encode(entry)) for entry in batch.rooms])
            self._put("policies", list(batch.policies))
            self._put("members", [(member.relay, encode(member)) for member in batch.members if not member.gone])
            gone = [(member.relay,) for member in batch.members if member.gone]
            self._database.executemany("DELETE FROM members WHERE relay = ?", gone)
            if batch.orders:
                self._database.execute(
                    "DELETE FROM orders WHERE progress != 'open' AND id NOT IN "
                    "(SELECT id FROM orders ORDER BY at_wall DESC LIMIT ?)",
                    (ORDERS_KEPT,),
                )

    def close(self) -> None:
        """Close the file in order."""
        with self._lock:
            self._database.close()

    def _prepare(self) -> None:
        database = self._database
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and (application != APPLICATION_ID or not 1 <= version <= SCHEMA_VERSION):
            raise StoreError(f"{self._path}: not a control plane's file of version {SCHEMA_VERSION} or older")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        if not tables:
            numbers = f"PRAGMA application_id={APPLICATION_ID};PRAGMA user_version={SCHEMA_VERSION};"
            database.executescript(f"BEGIN; {_SCHEMA} {_MEMBERS} {numbers} COMMIT;")
        elif version < SCHEMA_VERSION:
            database.executescript(f"BEGIN; {_MEMBERS} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")

    def _put(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            marks = ",".join("?" * len(rows[0]))
            self._database.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)  # noqa: S608 - ours

    def _documents(self, query: str, kind: type[T], values: Sequence[Any] = ()) -> tuple[T, ...]:
        rows = self._database.execute(query, values)
        return tuple(msgspec.msgpack.decode(document, type=kind) for (document,) in rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise StoreError(f"{self._path}: {error}") from error
