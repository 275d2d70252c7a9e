"""One room's log as this relay has it on disk: how far it goes, how far readers may see, and its newest records.

`room` tells it what the store has written. Forwarding reads it as a publisher of the track `log`: `largest` for
SUBSCRIBE, `spans` for FETCH and fills. Older records are on disk, so a span says what to `Read` from the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from relay.rooms.effects import Stored, Write, Written
from relay.rooms.standing import Standing
from tradewind.contract.rooms import GROUP_OBJECTS, RoomName, chain_of, location_of
from tradewind.moqt.model import Location, Range


@dataclass(frozen=True, slots=True)
class Span:
    """Records of one group, next to each other."""

    first: int
    """seq of the first."""
    count: int
    payloads: tuple[bytes, ...] | None
    """None: they have to be read from the store."""

    @property
    def start(self) -> Location:
        return Location(*location_of(self.first))

    @property
    def closes_group(self) -> bool:
        """The last of them is the last of its group."""
        return (self.first + self.count) % GROUP_OBJECTS == 0


class RoomLog:
    """One room's log at one relay."""

    __slots__ = ("_tail", "_tail_records", "chain", "records", "room", "standing", "visible", "withdrawn")

    def __init__(self, room: RoomName, stored: Stored, tail_records: int) -> None:
        self.room = room
        self.records = stored.records
        """How many are on disk: the next seq."""
        self.chain = stored.chain
        self.standing: Standing = stored.standing
        self.visible = 0
        """How many readers may see. Records beyond may still lose their place."""
        self.withdrawn = 0
        """Records that were cut off here because they never became part of the order."""
        self._tail: deque[bytes] = deque()
        self._tail_records = tail_records

    # --- Reading ---

    @property
    def epoch(self) -> int:
        """The epoch whose namespace this log stands in; 0: none yet."""
        return self.standing.lineage[-1].epoch if self.standing.lineage else 0

    @property
    def start(self) -> int:
        """The first seq that this epoch gives."""
        return self.standing.lineage[-1].start if self.standing.lineage else 0

    @property
    def largest(self) -> Location | None:
        """The draft's Largest Object of the track; None: it has no object yet."""
        return Location(*location_of(self.visible - 1)) if self.visible else None

    def spans(self, chosen: Range) -> Iterator[Span]:
        """What there is to see in a range of Locations, ascending, a group or a part of one at a time.

        What the range holds beyond `largest` does not exist yet; object ids from 256 on never will.
        """
        first = _seq_at(chosen.start)
        end = self.visible
        if chosen.end is not None:
            end = min(end, _seq_at(Location(chosen.end.group, min(chosen.end.object, GROUP_OBJECTS - 1) + 1)))
        while first < end:
            count = min(end, (first // GROUP_OBJECTS + 1) * GROUP_OBJECTS) - first
            yield Span(first, count, self.newest(first, count))
            first += count

    def newest(self, first: int, count: int) -> tuple[bytes, ...] | None:
        """`count` payloads from `first` on; None where not all of them are in memory."""
        skipped = first - (self.records - len(self._tail))
        if skipped < 0 or first + count > self.records:
            return None
        return tuple(islice(self._tail, skipped, skipped + count))

    # --- Writing ---

    def apply(self, write: Write, written: Written) -> None:
        """A write is on disk."""
        if write.cut_from is not None and write.cut_from < self.records:
            assert written.chain is not None
            gone = self.records - write.cut_from
            for _ in range(min(gone, len(self._tail))):
                self._tail.pop()
            self.records = write.cut_from
            self.chain = written.chain
            self.visible = min(self.visible, self.records)
            self.withdrawn += gone
        assert write.first == self.records
        for entry in write.entries:
            self._tail.append(entry.payload)
        if write.entries:
            self.records += len(write.entries)
            self.chain = chain_of(write.entries[-1].payload)
        while len(self._tail) > self._tail_records:
            self._tail.popleft()
        if write.standing is not None:
            self.standing = write.standing

    def show(self, upto: int) -> None:
        """Readers may see the first `upto` records; never fewer than before."""
        self.visible = max(self.visible, min(upto, self.records))

    def check_invariants(self) -> None:
        assert 0 <= self.visible <= self.records
        assert len(self._tail) <= min(self._tail_records, self.records)
        assert self.standing.whole <= self.standing.promised


def _seq_at(location: Location) -> int:
    """The first seq at or after a Location."""
    return location.group * GROUP_OBJECTS + min(location.object, GROUP_OBJECTS)
