"""The controller's file: what is saved is there in the next term, and an older writer writes nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from control.state import AuditLine, Batch, FencedError, Member, Order, StoreError, Wish
from control.store import FIRST_TERM_WALL, SqliteStore
from tests.control.mesh import hello
from tradewind.contract.messages import RoomEntry

WALL = FIRST_TERM_WALL + 1000.5
ORDER = Order("x1", "a", "drain", "ops", WALL)
WISH = Wish("a", "draining", "x1", WALL)
LINE = AuditLine(1, WALL, "ops", "drain x1", "a", "ordered")
ROOM = RoomEntry((b"live", b"\xff"), "a", "b", 3, None)


def test_what_was_saved_is_there_in_the_next_term(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.sqlite")
    first = store.load(WALL)
    assert first.term == 1000 and first.orders == first.rooms == ()
    store.save(Batch(1, (ORDER,), (WISH,), (LINE,), (ROOM,), (("placement", "{}"),)))
    again = SqliteStore(tmp_path / "c.sqlite").load(WALL)
    assert again.term == 1001
    assert (again.orders, again.wishes, again.audit, again.rooms) == ((ORDER,), (WISH,), (LINE,), (ROOM,))
    assert again.policies == (("placement", "{}"),)


def test_a_writer_of_an_older_term_writes_nothing(tmp_path: Path) -> None:
    old = SqliteStore(tmp_path / "c.sqlite")
    old.load(WALL)
    new = SqliteStore(tmp_path / "c.sqlite")
    new.load(WALL)
    with pytest.raises(FencedError, match="term 1001 has begun"):
        old.save(Batch(1, orders=(ORDER,)))
    new.save(Batch(1, rooms=(ROOM,)))
    state = SqliteStore(tmp_path / "c.sqlite").load(WALL)
    assert state.orders == () and state.rooms == (ROOM,) and state.term == 1002


def test_a_file_that_was_lost_is_followed_by_a_higher_term(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "one.sqlite").load(WALL).term
    assert SqliteStore(tmp_path / "two.sqlite").load(WALL + 60).term > first


def test_every_commit_is_flushed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.sqlite")
    (synchronous,) = store._database.execute("PRAGMA synchronous").fetchone()
    (journal,) = store._database.execute("PRAGMA journal_mode").fetchone()
    assert (synchronous, journal) == (2, "wal")


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    with pytest.raises(StoreError, match="not a control plane's file"):
        SqliteStore(tmp_path / "other.sqlite")
    (tmp_path / "text").write_text("not a database" * 100)
    with pytest.raises(StoreError):
        SqliteStore(tmp_path / "text")


def test_who_is_part_of_the_mesh_is_kept_and_forgotten(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.sqlite")
    store.load(WALL)
    here = [Member(name, "eu", hello(number)) for number, name in enumerate("abc")]
    store.save(Batch(1, members=tuple(here)))
    store.save(Batch(2, members=(replace(here[1], gone=True), replace(here[2], stage="cordoned"))))
    assert SqliteStore(tmp_path / "c.sqlite").load(WALL).members == (here[0], replace(here[2], stage="cordoned"))


def test_a_file_of_version_1_is_taken_over(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "c.sqlite")
    store.load(WALL)
    store.save(Batch(1, orders=(ORDER,)))
    store._database.executescript("DROP TABLE members; PRAGMA user_version=1;")
    store.close()
    later = SqliteStore(tmp_path / "c.sqlite")
    state = later.load(WALL)
    assert state.orders == (ORDER,) and state.members == ()
    later.save(Batch(1, members=(Member("a", "eu", hello(1)),)))
    assert len(SqliteStore(tmp_path / "c.sqlite").load(WALL).members) == 1
    later._database.executescript("PRAGMA user_version=3;")
    with pytest.raises(StoreError, match="version 2"):
        SqliteStore(tmp_path / "c.sqlite")
