"""How much a room and each of its writers may say: refused before it has a place, never after.

A quarter of a room's rate is kept for control and value messages; those take from the rest too while there is some.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tradewind.contract.rooms import MAX_BODY_BYTES, Class

MAX_WRITERS = 65_536
"""Writers whose rate is remembered; who was silent longest is forgotten first."""


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """What holds for every room of a relay."""

    room_per_s: float = 2000.0
    writer_per_s: float = 20.0
    burst_s: float = 2.0
    """Seconds of a rate that may come at once."""
    reserved_ratio: float = 0.25
    max_body_bytes: int = 4096
    queue_records: int = 4096
    """Messages that wait for a place, and those that have one and wait for their acknowledgement: each as many."""
    batch_records: int = 256
    recent_keys: int = 8192
    """Places that are told again without asking the disk."""
    tail_records: int = 1024
    """The newest records that are kept in memory."""
    needs_two: frozenset[int] = frozenset()
    """Classes that are only acknowledged once two relays have stored them."""
    follower_wait_s: float = 0.5
    """How long an acknowledgement waits for the follower before it says `stored` 1."""
    lease_s: float = 2.0
    """A home that heard neither follower nor controller for so long acknowledges nothing that it alone has."""
    ping_s: float = 0.5
    resend_s: float = 0.5
    window_records: int = 2048
    """Records sent to the follower that it has not confirmed."""

    def __post_init__(self) -> None:
        assert 0 < self.max_body_bytes <= MAX_BODY_BYTES
        assert 0 <= self.reserved_ratio < 1
        assert self.ping_s < self.lease_s


class _Bucket:
    """Whole messages, refilled at a rate."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._rate = per_s
        self._burst = max(burst, 1.0)
        self._left = self._burst
        self._at = now

    def wait_s(self, now: float) -> float:
        """After how long there is one to take; 0.0: now."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return max((1.0 - self._left) / self._rate, 0.0)

    def take(self) -> None:
        self._left -= 1.0


class Rates:
    """One room's buckets."""

    __slots__ = ("_general", "_reserved", "_settings", "_writers")

    def __init__(self, settings: RoomSettings, now: float) -> None:
        self._settings = settings
        reserved = settings.room_per_s * settings.reserved_ratio
        general = settings.room_per_s - reserved
        self._reserved = _Bucket(max(reserved, 1e-9), reserved * settings.burst_s, now)
        self._general = _Bucket(general, general * settings.burst_s, now)
        self._writers: OrderedDict[bytes, _Bucket] = OrderedDict()

    def take(self, user: bytes, cls: int, now: float) -> float:
        """Count one message; or count nothing and return after how many seconds to try again."""
        writer = self._writers.get(user)
        if writer is None:
            per_s = self._settings.writer_per_s
            writer = self._writers[user] = _Bucket(per_s, per_s * self._settings.burst_s, now)
            if len(self._writers) > MAX_WRITERS:
                self._writers.popitem(last=False)
        self._writers.move_to_end(user)
        own_s = 0.0 if cls == Class.CONTROL else writer.wait_s(now)
        if own_s:
            return own_s
        bucket = self._general
        room_s = bucket.wait_s(now)
        if cls <= Class.VALUE and not (reserved_s := self._reserved.wait_s(now)):
            bucket, room_s = self._reserved, reserved_s
        if room_s:
            return room_s
        bucket.take()
        if cls != Class.CONTROL:
            writer.take()
        return 0.0
