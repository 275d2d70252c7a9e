"""All links of one relay: at most 32, one deadline, and only those looked at that have something to do.

`relay.node` says whom to measure (`RouteTable.neighbours`), and once a turn asks for what is due. Links that are nearly
due are served with those that are: wake-ups cost more than probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import NamedTuple

from relay.links.link import Link
from relay.links.settings import DEFAULTS, LinkSettings
from relay.links.states import LinkChange
from tradewind.contract.ids import is_name

MOST_NEIGHBOURS = 32


class Wanted(NamedTuple):
    """What became of `set_neighbours`: whom to connect to, and whom no longer."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


class Neighbours:
    """The links, by neighbour."""

    __slots__ = ("_boot", "_due", "_heap", "_leaving", "_links", "_settings", "_touched")

    def __init__(self, boot: bytes, settings: LinkSettings = DEFAULTS) -> None:
        self._boot = boot
        self._settings = settings
        self._leaving = False
        self._links: dict[str, Link] = {}
        self._heap: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        """The one entry of each link in the heap that counts: no later than its deadline."""
        self._touched: set[str] = set()

    def __len__(self) -> int:
        return len(self._links)

    def __contains__(self, neighbour: str) -> bool:
        return neighbour in self._links

    def get(self, neighbour: str) -> Link | None:
        """A link to read from. What is fed into it goes through here, or `touch` is called afterwards."""
        return self._links.get(neighbour)

    def links(self) -> tuple[Link, ...]:
        return tuple(self._links.values())

    def set_neighbours(self, ids: Sequence[str], now: float) -> Wanted:
        """Measure these and nobody else: names that are none and repeated ones do not count, nor what is over 32.

        A link begins with `connect`; one that stays is not disturbed.
        """
        wanted = [name for name in dict.fromkeys(ids) if is_name(name)][:MOST_NEIGHBOURS]
        keep = set(wanted)
        removed = tuple(name for name in self._links if name not in keep)
        added = tuple(name for name in wanted if name not in self._links)
        for name in removed:
            del self._links[name]
            self._due.pop(name, None)
            self._touched.discard(name)
        for name in added:
            self._links[name] = Link(name, self._boot, b"", self._settings, now)
            self._links[name].leaving = self._leaving
            self._touched.add(name)
        if len(self._heap) > 4 * MOST_NEIGHBOURS:
            self._rebuild()
        return Wanted(added, removed)

    def connect(self, neighbour: str, ticket: bytes, now: float) -> Link | None:
        """The link has a connection, the first or another; None: nobody measures this one."""
        link = self._links.get(neighbour)
        if link is not None:
            link.restart(ticket, now)
            self._touched.add(neighbour)
        return link

    def touch(self, neighbour: str) -> None:
        """Something was done with the link that may have given it work."""
        self._touched.add(neighbour)

    def receive_datagram(self, neighbour: str, data: bytes, now: float) -> None:
        """One datagram of a link's connection. Raises LinkViolation."""
        link = self._links.get(neighbour)
        if link is not None:
            self._touched.add(neighbour)
            link.receive_datagram(data, now)

    def receive_packets(
        self, neighbour: str, arrived: int, lost: int, now: float, size_bytes: int = 0, apart: int | None = None
    ) -> None:
        """Packets of other connections: see `Link.receive_packets`."""
        link = self._links.get(neighbour)
        if link is not None:
            self._touched.add(neighbour)
            link.receive_packets(arrived, lost, now, size_bytes, apart)

    def set_active(self, neighbour: str, active: bool) -> None:
        """Whether media go to this neighbour."""
        link = self._links.get(neighbour)
        if link is not None and link.active != active:
            link.active = active
            self._touched.add(neighbour)

    def set_leaving(self, *, leaving: bool) -> None:
        """Whether we are being emptied: every neighbour hears of it."""
        self._leaving = leaving
        for name, link in self._links.items():
            link.leaving = leaving
            self._touched.add(name)

    def note_lag(self, lag_s: float, now: float) -> None:
        """Our event loop is so late: every link hears of it. Below `lag_floor_s` nobody needs to."""
        if lag_s >= self._settings.lag_floor_s:
            for name, link in self._links.items():
                link.note_lag(lag_s, now)
                self._touched.add(name)

    def next_deadline(self) -> float | None:
        """When `handle_deadline` and `datagrams_to_send` want to be called."""
        self._schedule()
        heap = self._heap
        while heap:
            at, name = heap[0]
            if self._due.get(name) != at:
                heappop(heap)
                continue
            due = self._links[name].next_deadline()
            if due <= at:
                return at
            self._due[name] = due
            heapreplace(heap, (due, name))
        return None

    def handle_deadline(self, now: float) -> None:
        """Time has passed: links that are due look whether something is missing."""
        due = self.next_deadline()
        heap, soon = self._heap, now + self._settings.slack_s
        if due is None or due > now:
            return
        while heap and heap[0][0] <= soon:
            at, name = heappop(heap)
            if self._due.get(name) == at:
                del self._due[name]
                self._touched.add(name)
                self._links[name].handle_deadline(now)

    def datagrams_to_send(self, now: float) -> list[tuple[str, list[bytes]]]:
        """What links that had something to do want sent now: a packet for each datagram."""
        out = []
        for name in sorted(self._touched):
            datagrams = self._links[name].datagrams_to_send(now) if name in self._links else []
            if datagrams:
                out.append((name, datagrams))
        self._schedule()
        return out

    def take_changes(self) -> tuple[LinkChange, ...]:
        """Changes of state since the last call."""
        return tuple(change for link in self._links.values() for change in link.take_changes())

    def check_invariants(self) -> None:
        assert len(self._links) <= MOST_NEIGHBOURS
        assert self._due.keys() <= self._links.keys()
        assert set(self._due) | self._touched >= self._links.keys()
        entries = set(self._heap)
        assert all((at, name) in entries for name, at in self._due.items())
        for link in self._links.values():
            link.check_invariants()

    def _schedule(self) -> None:
        """Put what was touched where it is due. An entry that is too early is moved when it comes up."""
        for name in self._touched:
            link = self._links.get(name)
            if link is None:
                continue
            due, known = link.next_deadline(), self._due.get(name)
            if known is None or due < known:
                self._due[name] = due
                heappush(self._heap, (due, name))
        self._touched.clear()

    def _rebuild(self) -> None:
        self._heap = [(at, name) for name, at in self._due.items()]
        heapify(self._heap)
