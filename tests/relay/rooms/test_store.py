"""The store on a real file: what it says is stored is there when it is opened again, and nothing else is given out."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.rooms.effects import Entry, Outcome, Read, ReadDone, Stored, Write, Written
from relay.rooms.standing import Standing
from relay.rooms.store import Flush, RoomStore, StoreError, StoreSettings, probe_flush
from tests.relay.rooms.town import ROOM, key_of
from tradewind.contract.copies import Run
from tradewind.contract.rooms import NO_CHAIN, Place, Record, RoomName, chain_of, encode

OTHER = (b"app", b"r", b"other")
STANDING = Standing(2, "a", 2, (Run(1, 0), Run(2, 3)))


class Opened:
    """A store, and the one who waits for it."""

    def __init__(self, path: Path, settings: StoreSettings) -> None:
        self.woken = threading.Semaphore(0)
        self.store = RoomStore(path, settings, self.woken.release)
        self.stored = self.store.load()
        self.kept: list[Written | ReadDone] = []

    def do(self, *operations: Write | Read) -> list[Written | ReadDone]:
        self.store.submit(operations)
        while len(self.kept) < len(operations):
            assert self.woken.acquire(timeout=10)
            self.kept += self.store.results()
        done, self.kept = self.kept, []
        return done

    def write(self, write: Write) -> Written:
        (written,) = self.do(write)
        assert isinstance(written, Written)
        return written

    def read(self, first: int, count: int, **more: int) -> ReadDone:
        (done,) = self.do(Read(9, ROOM, first, count, **more))
        assert isinstance(done, ReadDone)
        return done


@contextmanager
def opened(path: Path, **settings: float) -> Iterator[Opened]:
    one = Opened(path, StoreSettings(**settings))  # type: ignore[arg-type]
    try:
        yield one
    finally:
        one.store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rooms.db"


def entries(first: int, count: int, prev: bytes = NO_CHAIN, keys: int | None = None, size: int = 10) -> list[Entry]:
    made = []
    for seq in range(first, first + count):
        key = key_of(seq if keys is None else keys + seq)
        payload = encode(Record(1, seq, key, b"ann", 3, 1, 1000 + seq, bytes(size), prev))
        made.append(Entry(key, payload))
        prev = chain_of(payload)
    return made


def write(first: int, what: Sequence[Entry], room: RoomName = ROOM, **more: object) -> Write:
    return Write(1, room, first, tuple(what), **more)  # type: ignore[arg-type]


def test_what_is_stored_is_there_again(path: Path) -> None:
    made = entries(0, 5)
    with opened(path) as one:
        assert one.stored == {}
        assert one.write(write(0, made[:3])) == Written(1, ROOM, Outcome.STORED, {})
        assert one.write(write(3, made[3:], standing=STANDING)).outcome is Outcome.STORED
        assert one.write(write(0, entries(0, 1), OTHER)).outcome is Outcome.STORED
    with opened(path) as one:
        assert one.stored == {
            ROOM: Stored(5, chain_of(made[4].payload), STANDING),
            OTHER: Stored(1, chain_of(entries(0, 1)[0].payload)),
        }
        assert one.read(1, 3).payloads == tuple(entry.payload for entry in made[1:4])
        assert one.read(4, 100).payloads == (made[4].payload,)
        assert one.read(5, 100).payloads == ()
        assert len(one.read(0, 100, max_bytes=1).payloads) == 1


def test_a_key_that_is_there_stops_its_write(path: Path) -> None:
    with opened(path) as one:
        made = entries(0, 3)
        one.write(write(0, made[:2]))
        again = write(2, [made[2], made[1]], lookups=(made[0].key, key_of(77)))
        found = {made[0].key: Place(1, 0, 1000), made[1].key: Place(1, 1, 1001)}
        assert one.write(again) == Written(1, ROOM, Outcome.DUPLICATE, found)
        assert one.write(write(2, (), lookups=(made[1].key,))).found == {made[1].key: Place(1, 1, 1001)}
        assert one.write(write(2, made[2:])).outcome is Outcome.STORED


def test_what_is_cut_is_kept_apart(path: Path) -> None:
    made = entries(0, 6)
    with opened(path) as one:
        one.write(write(0, made))
        new = entries(4, 3, chain_of(made[3].payload))
        written = one.write(write(4, (), cut_from=4, standing=STANDING))
        assert written.chain == chain_of(made[3].payload)
        assert one.write(write(4, new)).outcome is Outcome.STORED, "their keys are free again"
        assert one.store.statistics().quarantined == 2
        assert one.write(write(0, (), cut_from=0)).chain == NO_CHAIN
    with opened(path) as one:
        assert one.stored[ROOM].records == 0
        assert one.store.statistics().quarantined == 9


def test_a_damaged_record_is_never_given_out(path: Path) -> None:
    made = entries(0, 5)
    with opened(path) as one:
        one.write(write(0, made))
    bent = bytearray(made[2].payload)
    bent[20] ^= 1
    with sqlite3.connect(path) as database:
        database.execute("UPDATE records SET payload = ? WHERE seq = 2", (bytes(bent),))
        database.execute("UPDATE records SET payload = ? WHERE seq = 4", (made[3].payload,))
    database.close()
    with opened(path) as one:
        assert one.stored[ROOM].damaged, "the last one is another record"
        done = one.read(0, 5)
        assert done.payloads == tuple(entry.payload for entry in made[:2]) and done.damaged == 2
        assert one.read(3, 5).damaged == 4
        assert one.store.statistics().damaged == 2
        again = one.write(write(5, [made[2]]))
        assert again.outcome is Outcome.DUPLICATE and again.found[made[2].key].seq == 2, "its key keeps its place"


def test_a_record_that_is_missing_is_damage(path: Path) -> None:
    with opened(path) as one:
        one.write(write(0, entries(0, 5)))
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM records WHERE seq = 1")
    database.close()
    with opened(path) as one:
        assert one.read(0, 5).damaged == 1


def test_a_full_disk_refuses_and_stays_usable(path: Path) -> None:
    with opened(path, max_bytes=200_000) as one:
        first, seq, chain = None, 0, NO_CHAIN
        while first is None:
            made = entries(seq, 10, chain, size=1000)
            if one.write(write(seq, made)).outcome is Outcome.REFUSED:
                first = seq
            seq, chain = seq + 10, chain_of(made[-1].payload)
        assert first > 20
        assert one.write(write(first, entries(first, 10, size=1000))).outcome is Outcome.REFUSED
        assert len(one.read(0, 1000).payloads) == first
        assert one.store.statistics().refused == 2
    with opened(path) as one:
        stored = one.stored[ROOM]
        assert stored.records == first
        assert one.write(write(first, entries(first, 10, stored.chain, size=1000))).outcome is Outcome.STORED


def test_what_came_together_is_refused_together(path: Path) -> None:
    with opened(path, max_bytes=100_000, linger_s=0.005) as one:
        made = entries(0, 2)
        one.write(write(0, made[:1]))
        small, large = write(1, made[1:]), write(0, entries(0, 100, size=2000), OTHER)
        done = one.do(small, large)
        assert [written.outcome for written in done if isinstance(written, Written)] == [Outcome.REFUSED] * 2
        assert one.write(small).outcome is Outcome.STORED
        assert one.write(write(0, entries(0, 1), OTHER)).outcome is Outcome.STORED


def test_what_makes_no_sense_stops_the_store(path: Path) -> None:
    """A write that does not follow is our own fault: nothing is written after it until the store was opened anew."""
    with opened(path) as one:
        assert one.write(write(3, entries(3, 1))).outcome is Outcome.FAILED
        assert one.write(write(0, entries(0, 1))).outcome is Outcome.FAILED
    with opened(path) as one:
        assert one.write(write(0, entries(0, 1))).outcome is Outcome.STORED


def test_one_flush_for_all_that_came_together(path: Path) -> None:
    rooms = [(b"room", b"%d" % number) for number in range(50)]
    with opened(path, linger_s=0.005) as one:
        done = one.do(*[Write(number, room, 0, tuple(entries(0, 4))) for number, room in enumerate(rooms)])
        assert [written.id for written in done] == list(range(50))
        assert {written.outcome for written in done if isinstance(written, Written)} == {Outcome.STORED}
        statistics = one.store.statistics()
        assert statistics.records == 200 and statistics.commits <= 2


def test_one_relay_one_file(path: Path, tmp_path: Path) -> None:
    with opened(path) as one:
        one.write(write(0, entries(0, 1)))
        with pytest.raises(StoreError):
            RoomStore(path, StoreSettings(), lambda: None)
    text = tmp_path / "text"
    text.write_text("no database, and long enough to be looked at as one would be" * 10)
    with pytest.raises(StoreError):
        RoomStore(text, StoreSettings(), lambda: None)
    with sqlite3.connect(tmp_path / "theirs") as theirs:
        theirs.execute("CREATE TABLE something (a)")
    theirs.close()
    with pytest.raises(StoreError, match="another program"):
        RoomStore(tmp_path / "theirs", StoreSettings(), lambda: None)
    with sqlite3.connect(path) as ours:
        ours.execute("PRAGMA user_version = 9")
    ours.close()
    with pytest.raises(StoreError, match="version 9"):
        RoomStore(path, StoreSettings(), lambda: None)


def test_the_probe(tmp_path: Path) -> None:
    found = probe_flush(tmp_path, 5)
    assert 0 < found.p50_s <= found.p99_s
    assert found.verdict is (Flush.REAL if found.p50_s >= 50e-6 else Flush.SUSPICIOUS)


WRITER = """
import os, sys, threading
from pathlib import Path
from relay.rooms.effects import Entry, Write
from relay.rooms.store import RoomStore, StoreSettings
from tests.relay.rooms.town import ROOM
from tests.relay.rooms.test_store import entries
from tradewind.contract.rooms import NO_CHAIN, chain_of

woken = threading.Semaphore(0)
store = RoomStore(Path(sys.argv[1]), StoreSettings(), woken.release)
store.load()
seq, chain = 0, NO_CHAIN
while True:
    made = entries(seq, 7, chain)
    store.submit([Write(seq, ROOM, seq, tuple(made))])
    woken.acquire()
    assert store.results()
    seq, chain = seq + 7, chain_of(made[-1].payload)
    os.write(1, b"%d\\n" % seq)
"""


@pytest.mark.slow
def test_what_was_told_outlives_a_kill(path: Path) -> None:
    root = Path(__file__).parents[3]
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=root, stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(60)]
    process.kill()
    told += [int(line) for line in process.stdout.read().split(b"\n")[:-1]]
    process.stdout.close()
    process.wait()
    with opened(path) as one:
        assert one.stored[ROOM].records in {told[-1], told[-1] + 7}
        assert len(one.read(0, 100_000).payloads) == one.stored[ROOM].records
