"""A network without sockets over a virtual clock: hosts, one path for each direction, and whatever happens next.

A host is anything with the five calls of `Host`: a relay (`hosts.Relay`), a client (`client.Client`), a mesh of them.
Every path has dice of its own, thrown once a datagram, so that the same seed gives the same run and another host
changes nothing for those that were there. The clock moves only from one moment at which something is due to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple, Protocol

from tradewind.quic.config import Address

BATCH = 64
"""What a host is given at once, as a socket would."""
OVERHEAD_BYTES = 28
"""IP and UDP headers: they take their share of a path's rate."""
MOST_TURNS = 10_000
"""Turns that one host may take at one moment: more is a loop that never ends."""


class Parcel(NamedTuple):
    """Datagrams that leave a host: from which of its addresses, and where to."""

    source: Address
    target: Address
    datagrams: Sequence[bytes]


class Host(Protocol):
    """One end of paths. `addresses` are its own: one a port."""

    @property
    def addresses(self) -> Sequence[Address]: ...

    def receive(self, address: Address, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        """Datagrams came to one of its addresses."""

    def next_deadline(self) -> float | None: ...

    def handle_deadline(self, now: float, wall_now: float) -> None: ...

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        """What it sends, and whether it has more to do at once."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What one direction of a path does to datagrams."""

    delay_s: float = 0.010
    jitter_s: float = 0.0
    """Up to this much is added to a datagram's delay; by itself it reorders nothing that `keeps_order` forbids."""
    loss: float = 0.0
    reorder: float = 0.0
    """The share of datagrams that come `reorder_s` later than they should."""
    reorder_s: float = 0.005
    duplicate: float = 0.0
    rate_bytes_per_s: float | None = None
    queue_bytes: int = 64 * 1024
    """What waits for a path with a rate; past it the newest are dropped, as at a router."""


CLEAR = Weather()
BLACKOUT = Weather(loss=1.0)


def mobile(kbit_per_s: float, loss: float = 0.0, delay_s: float = 0.030) -> Weather:
    """A viewer's bad link, downwards."""
    return Weather(delay_s=delay_s, loss=loss, rate_bytes_per_s=kbit_per_s * 125, queue_bytes=32 * 1024)


@dataclass(slots=True)
class PathStatistics:
    """What became of the datagrams of one direction."""

    sent: int = 0
    lost: int = 0
    overflowed: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Path:
    """One direction between two hosts."""

    weather: Weather
    dice: Random
    statistics: PathStatistics = field(default_factory=PathStatistics)
    _free_at: float = 0.0

    def arrivals(self, size: int, now: float) -> list[float]:
        """When a datagram of this size arrives, if it does, and if so how often."""
        weather, statistics = self.weather, self.statistics
        # The same throws whatever the weather says: changing one number must not change the fate of all the others.
        lost, late, twice, jitter = (self.dice.random() for _ in range(4))
        statistics.sent += 1
        statistics.bytes += size
        if lost < weather.loss:
            statistics.lost += 1
            return []
        leaves = now
        if weather.rate_bytes_per_s is not None:
            waits = max(0.0, self._free_at - now)
            if waits * weather.rate_bytes_per_s + size > weather.queue_bytes:
                statistics.overflowed += 1
                return []
            leaves = self._free_at = now + waits + (size + OVERHEAD_BYTES) / weather.rate_bytes_per_s
        at = leaves + weather.delay_s + weather.jitter_s * jitter
        if late < weather.reorder:
            at += weather.reorder_s
        return [at, at] if twice < weather.duplicate else [at]


class Network:
    """Hosts, the paths between them, and the clock."""

    def __init__(self, *hosts: Host, seed: int = 1, weather: Weather = CLEAR) -> None:
        self.now = 1000.0
        self.wall_offset_s = 1_795_000_000.0
        self.weather = weather
        """Of paths that nobody said anything about."""
        self.hosts: dict[Address, Host] = {}
        self.lossy: Callable[[bytes, Address, Address], bool] | None = None
        """Looks at every datagram (data, source, target) and says which are lost, for tests that aim."""
        self._seed = seed
        self._paths: dict[tuple[str, str], Path] = {}
        self._flying: list[tuple[float, int, bytes, Address, Address]] = []
        self._due: list[tuple[float, int, Host]] = []
        self._armed: dict[int, float | None] = {}
        self._order = 0
        self._stuck = 0
        for host in hosts:
            self.add(host)

    @property
    def wall_now(self) -> float:
        """Unix time on this network."""
        return self.now + self.wall_offset_s

    def add(self, host: Host) -> None:
        """Bring a host in."""
        for address in host.addresses:
            assert address not in self.hosts, f"{address} is taken"
            self.hosts[address] = host
        self.touch(host)

    def remove(self, host: Host) -> None:
        """A host is gone without a word: what is on its way to it is lost."""
        for address in host.addresses:
            self.hosts.pop(address, None)
        self._armed[id(host)] = None

    def path(self, source: Address, target: Address) -> Path:
        """One direction between two hosts."""
        key = str(source[0]), str(target[0])
        found = self._paths.get(key)
        if found is None:
            found = self._paths[key] = Path(self.weather, Random(f"{self._seed} {key[0]} {key[1]}"))
        return found

    def set_weather(self, source: Address, target: Address, weather: Weather, *, both: bool = False) -> None:
        """From now on one direction (or both) is like this."""
        self.path(source, target).weather = weather
        if both:
            self.path(target, source).weather = weather

    def touch(self, host: Host) -> None:
        """Somebody called a host from outside: send what it has to say, and wake it when it wants."""
        for _ in range(MOST_TURNS):
            parcels, more = host.take_output(self.now)
            for parcel in parcels:
                for data in parcel.datagrams:
                    self.throw(data, parcel.source, parcel.target)
            if not more:
                break
        else:
            raise AssertionError(f"{host} never comes to rest")
        due = host.next_deadline()
        if self._armed.get(id(host)) != due:
            self._armed[id(host)] = due
            if due is not None:
                self._order += 1
                heappush(self._due, (due, self._order, host))

    def throw(self, data: bytes, source: Address, target: Address) -> None:
        """Put one datagram on its path."""
        if self.lossy is not None and self.lossy(data, source, target):
            return
        for at in self.path(source, target).arrivals(len(data), self.now):
            self._order += 1
            heappush(self._flying, (at, self._order, data, source, target))

    def step(self) -> None:
        """Move to the next moment at which something is due, and let all of it happen."""
        moment = self.next_moment()
        assert moment is not None
        self._stuck = self._stuck + 1 if moment <= self.now else 0
        assert self._stuck < MOST_TURNS, f"time stands still at {self.now}"
        self.now = max(self.now, moment)
        woken: dict[int, Host] = {}
        arrived: dict[Address, list[tuple[bytes, Address]]] = {}
        while self._flying and self._flying[0][0] <= self.now:
            _, _, data, source, target = heappop(self._flying)
            arrived.setdefault(target, []).append((data, source))
        for target, batch in arrived.items():
            host = self.hosts.get(target)
            if host is not None:
                for start in range(0, len(batch), BATCH):
                    host.receive(target, batch[start : start + BATCH], self.now, self.wall_now)
                    self.touch(host)
        while self._due and self._due[0][0] <= self.now:
            due, _, host = heappop(self._due)
            if self._armed.get(id(host)) == due:
                self._armed[id(host)] = None
                woken[id(host)] = host
        for host in woken.values():
            host.handle_deadline(self.now, self.wall_now)
            self.touch(host)

    def next_moment(self) -> float | None:
        """When something is due next; None: never."""
        while self._due and self._armed.get(id(self._due[0][2])) != self._due[0][0]:
            heappop(self._due)
        moments = [heap[0][0] for heap in (self._flying, self._due) if heap]
        return min(moments, default=None)

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        end = self.now + duration_s
        while (moment := self.next_moment()) is not None and moment <= end:
            self.step()
        self.now = max(self.now, end)

    def until(self, condition: Callable[[], object], within_s: float = 10.0) -> None:
        """Run until something holds. Raises AssertionError where it does not in time."""
        end = self.now + within_s
        while not condition():
            moment = self.next_moment()
            assert moment is not None and moment <= end, f"not within {within_s:g} s"
            self.step()
