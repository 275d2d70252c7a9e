"""One track read over several connections: what is new, and where the next connection begins. No I/O.

`placed.PlacedViewer` has one a track, and every visit reads and moves it. Times are `now`, monotonic seconds.
"""

from __future__ import annotations

from tradewind.moqt.model import Location

GROUPS_BACK = 3
"""Groups before the newest that a new connection is still asked for, where something of them is missing."""
GROUPS_BEYOND = 2
"""A group whose objects were fetched, and of which no other came until one so much newer was over, has no others."""
MAX_GROUPS = 64
"""Of which it is known what came; older ones count as seen."""


class Continuity:
    """Which objects of one track have been delivered. Whatever connection brings them, each is delivered once."""

    __slots__ = ("_ended", "_filled", "_floor", "_groups", "last_at")

    def __init__(self) -> None:
        self.last_at: float | None = None
        """When the last object came that was new."""
        self._groups: dict[int, _Group] = {}
        self._ended: set[int] = set()
        self._filled: Location | None = None
        """Where the last fill ended: of its group nobody may ever say that it is over."""
        self._floor: Location | None = None
        """Nothing before this is wanted."""

    @property
    def newest(self) -> Location | None:
        """The newest object that came."""
        if not self._groups:
            return None
        group = max(self._groups)
        return Location(group, self._groups[group].most)

    def begin(self, first: Location) -> None:
        """The track begins here for this viewer: said once, by the first connection. Later calls change nothing."""
        if self._floor is None:
            self._floor = first

    def receive(self, location: Location, now: float) -> bool:
        """Take an object; False: it is here already, or lies before what is wanted."""
        if self._floor is not None and location < self._floor:
            return False
        group = self._groups.get(location.group)
        if group is None:
            group = self._groups[location.group] = _Group()
            self._forget_old()
            if location.group not in self._groups:
                return False
        is_new = group.add(location.object)
        if is_new:
            self.last_at = now
        return is_new

    def end_group(self, group: int) -> None:
        """A connection said that it has sent all of a group."""
        if group in self._groups:
            self._ended.add(group)
        filled = self._filled
        if filled is not None and group >= filled.group + GROUPS_BEYOND:
            self._filled = None
            known = self._groups.get(filled.group)
            if known is not None and known.most == filled.object:
                self._ended.add(filled.group)

    def fill(self, first_group: int, last: Location) -> None:
        """A connection has brought all there is from a group on up to `last`, and brings what comes after it."""
        self._ended.update(group for group in self._groups if first_group <= group < last.group)
        self._filled = last

    def resume(self) -> Location | None:
        """What to ask a new connection from: the first object that is missing. None: nothing came yet."""
        if not self._groups:
            return self._floor
        ordered = sorted(self._groups)
        last = ordered[-1]
        by_number = range(max(last - GROUPS_BACK, ordered[0]), last)
        for number in sorted({*ordered[-1 - GROUPS_BACK :], *by_number}):
            group = self._groups.get(number)
            # Of a group that nobody said is over the last objects may be missing, though others came behind it.
            if group is None or group.extra or number not in self._ended:
                return Location(number, group.next if group is not None else 0)
        return Location(last + 1, 0)

    def check_invariants(self) -> None:
        assert len(self._groups) <= MAX_GROUPS
        assert self._ended <= self._groups.keys()
        for group in self._groups.values():
            assert all(number > group.next for number in group.extra)

    def _forget_old(self) -> None:
        while len(self._groups) > MAX_GROUPS:
            oldest = min(self._groups)
            del self._groups[oldest]
            self._ended.discard(oldest)
            self._floor = max(self._floor or Location(0, 0), Location(oldest + 1, 0))


class _Group:
    """Objects of one group: all before `next`, and those of `extra`."""

    __slots__ = ("extra", "most", "next")

    def __init__(self) -> None:
        self.next = 0
        self.extra: set[int] = set()
        self.most = 0

    def add(self, number: int) -> bool:
        if number < self.next or number in self.extra:
            return False
        self.most = max(self.most, number)
        self.extra.add(number)
        while self.next in self.extra:
            self.extra.discard(self.next)
            self.next += 1
        return True
