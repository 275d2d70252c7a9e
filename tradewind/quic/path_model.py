"""What a rate controller knows of its path: how fast it delivers, how long it is, what a round trip lost.

Each part holds one estimate and is told what it needs; only `congestion` decides what follows from them. Bytes are UDP
payload, times monotonic seconds. From BBR (draft-ietf-ccwg-bbr) and its delivery rate samples.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import NamedTuple, Protocol

CLUMP_ROUNDS = 10
"""How long the largest clump is remembered, in round trips."""
PATH_S = 10.0
"""How long the smallest round trip is believed before it is measured anew."""
FULL_GROWTH = 1.25
FULL_ROUNDS = 3
"""A pipe is full when the rate has not grown by a quarter in so many round trips."""


class Stamp(NamedTuple):
    """What had been delivered when a packet left: the beginning of its delivery rate sample."""

    delivered: int
    delivered_at: float
    first_sent_at: float
    limited: bool
    """The sender had nothing more to send: the sample may say less than the path could do."""


class Stamped(Protocol):
    """A packet in flight, as recovery keeps it."""

    sent_bytes: int
    sent_time: float
    stamp: Stamp | None


class Delivery:
    """How fast packets arrive, a sample for each acknowledgement. The draft, "Delivery Rate Sampling"."""

    __slots__ = ("_at", "_dry_at", "_first_sent_at", "limited_until", "total_bytes")

    def __init__(self) -> None:
        self.total_bytes = 0
        self.limited_until = 0
        """While no more than this is delivered, samples come from a sender that had nothing to send; 0: they do not."""
        self._at = 0.0
        self._first_sent_at = 0.0
        self._dry_at: float | None = None

    def stamp(self, now: float, in_flight_bytes: int) -> Stamp:
        """A packet, or a burst, leaves while so much is in flight already."""
        if self._dry_at is not None and now > self._dry_at:
            self.limited_until = max(self.total_bytes + in_flight_bytes, 1)
        self._dry_at = None
        if not in_flight_bytes:
            self._first_sent_at = self._at = now
        return Stamp(self.total_bytes, self._at, self._first_sent_at, self.limited_until > 0)

    def run_dry(self, now: float) -> None:
        """There is nothing to send; it counts if time passes so."""
        self._dry_at = now

    def receive(self, acked_bytes: int) -> None:
        """So much arrived."""
        self.total_bytes += acked_bytes
        if self.limited_until and self.total_bytes > self.limited_until:
            self.limited_until = 0

    def sample(self, newest: Stamped, stamp: Stamp, now: float, shortest_s: float) -> float | None:
        """Bytes a second since the newest packet that arrived was sent, the slower of how they left and how they came.

        None where the interval is too short to say anything: what came in one clump came at no rate.
        """
        interval = max(newest.sent_time - stamp.first_sent_at, now - stamp.delivered_at)
        self._first_sent_at, self._at = newest.sent_time, now
        if interval <= 0.0 or interval < shortest_s / 2:
            return None
        return (self.total_bytes - stamp.delivered) / interval


class Largest:
    """The largest of late values; "late" is by a number that rises."""

    __slots__ = ("_kept", "_memory", "value")

    def __init__(self, memory: int) -> None:
        self.value = 0.0
        self._memory = memory
        self._kept: deque[tuple[int, float]] = deque()
        """Numbers and values, each smaller than the one before it."""

    def add(self, value: float, number: int) -> None:
        """One more, at this number; what is older by more than the memory is forgotten."""
        kept = self._kept
        if kept:
            newest, least = kept[-1]
            if least >= value and newest == number:
                return
        while kept and kept[-1][1] <= value:
            kept.pop()
        kept.append((number, value))
        while kept[0][0] < number - self._memory:
            kept.popleft()
        self.value = kept[0][1]

    def check_invariants(self) -> None:
        """Raise AssertionError where what is kept is not in order."""
        values = [value for _, value in self._kept]
        assert values == sorted(set(values), reverse=True), values
        assert self.value == (values[0] if values else 0.0)


class Clumps:
    """How much more is acknowledged at once than the rate explains: Wi-Fi and mobile networks hold acknowledgements.

    Such a path needs so much more in flight, or it stands still between them. The draft, "Compensating for ACK
    aggregation".
    """

    __slots__ = ("_began_at", "_bytes", "largest")

    def __init__(self) -> None:
        self.largest = Largest(CLUMP_ROUNDS)
        self._began_at = 0.0
        self._bytes = 0.0

    def receive(self, acked_bytes: int, now: float, rate: float, most_bytes: int, number: int) -> None:
        """So much arrived at once in this round, while the rate was so and no more than this was in flight."""
        expected = rate * (now - self._began_at)
        if self._bytes <= expected:
            self._began_at = now
            self._bytes = more = float(acked_bytes)
        else:
            self._bytes += acked_bytes
            more = self._bytes - expected
        self.largest.add(min(most_bytes, more), number)


class Rounds:
    """Round trips, counted by packets: one ends when a packet arrives that left after it began. And what each lost."""

    __slots__ = ("_delivered", "ends_at", "lost_bytes", "lost_packets", "most_in_flight_bytes", "number")

    def __init__(self) -> None:
        self.number = 0
        self.lost_bytes = 0
        self.lost_packets = 0
        self.most_in_flight_bytes = 0
        self._delivered = 0
        self.ends_at = 0
        """The packet that was sent when so much had been delivered, or more, ends this round when it arrives."""

    def lost_more_than(self, ratio: float, delivered_bytes: int) -> bool:
        """Whether of all that arrived or was lost in this round, more than so much was lost."""
        return self.lost_bytes > ratio * (delivered_bytes - self._delivered + self.lost_bytes)

    def begin(self, delivered_bytes: int, in_flight_bytes: int) -> None:
        """The next round begins."""
        self.number += 1
        self.ends_at = self._delivered = delivered_bytes
        self.lost_bytes = self.lost_packets = 0
        self.most_in_flight_bytes = in_flight_bytes


class FullPipe:
    """Whether the path is known to deliver no faster. The draft, "Exiting Startup"."""

    __slots__ = ("_rate", "_rounds", "reached")

    def __init__(self) -> None:
        self.reached = False
        self._rate = 0.0
        self._rounds = 0

    def look(self, rate: float) -> None:
        """A round is over in which there was always something to send."""
        if self.reached:
            return
        if rate >= self._rate * FULL_GROWTH:
            self._rate, self._rounds = rate, 0
        else:
            self._rounds += 1
            self.reached = self._rounds >= FULL_ROUNDS


class PathLength:
    """The smallest round trip of late: the path without a queue."""

    __slots__ = ("_anew_s", "measured_at", "newest_s", "shortest_s")

    def __init__(self) -> None:
        self.shortest_s = inf
        self.newest_s = 0.0
        self.measured_at = 0.0
        self._anew_s: float | None = None
        """The smallest since it is measured anew."""

    def receive(self, rtt_s: float, now: float) -> None:
        """One round trip was measured."""
        self.newest_s = rtt_s
        if self._anew_s is not None and rtt_s < self._anew_s:
            self._anew_s = rtt_s
        if rtt_s <= self.shortest_s:
            self.shortest_s = rtt_s
            self.measured_at = now

    def is_stale(self, now: float) -> bool:
        """Whether it is so long ago that the path may have become another."""
        return now - self.measured_at > PATH_S

    def begin_anew(self) -> None:
        """From now on round trips are without a queue; until `end_anew` the old length counts."""
        self._anew_s = self.newest_s

    def end_anew(self, now: float) -> None:
        """Believe what was measured since, or else the newest round trip."""
        self.shortest_s = self.newest_s if self._anew_s is None else self._anew_s
        self.measured_at = now
        self._anew_s = None
