"""Delivery timeouts of one subscription: what the subscriber asked for, within what the publisher says of the track.

`cursors` and `intake` ask how long an object or a subgroup may take. Source: draft-20, "Delivery Timeouts".
"""

from __future__ import annotations

from relay.forwarding.cache import CachedSubgroup


class Timeouts:
    """The timeouts in force; 0 and None stand for none."""

    __slots__ = ("_object_ms", "_subgroup_ms", "_track_object_ms", "_track_subgroup_ms", "datagram_s")

    def __init__(self, track_object_ms: int, track_subgroup_ms: int) -> None:
        self._track_object_ms = track_object_ms
        self._track_subgroup_ms = track_subgroup_ms
        self._object_ms: int | None = None
        self._subgroup_ms: int | None = None
        self.datagram_s: float | None = None
        """For an object in a datagram, which is an object and a subgroup in one."""

    def apply(self, object_ms: int | None, subgroup_ms: int | None) -> None:
        """Take the subscriber's timeouts; None leaves one as it is."""
        if object_ms is not None:
            self._object_ms = object_ms
        if subgroup_ms is not None:
            self._subgroup_ms = subgroup_ms
        limits = (
            _shorter(self._object_ms, self._track_object_ms),
            _shorter(self._subgroup_ms, self._track_subgroup_ms),
        )
        self.datagram_s = min((limit for limit in limits if limit is not None), default=None)

    def object_s(self, subgroup: CachedSubgroup) -> float | None:
        """OBJECT_DELIVERY_TIMEOUT in force for a subgroup, seconds."""
        own = subgroup.timeouts_ms[0]
        return _shorter(self._object_ms, self._track_object_ms if own is None else own)

    def subgroup_s(self, subgroup: CachedSubgroup) -> float | None:
        """SUBGROUP_DELIVERY_TIMEOUT in force for a subgroup, seconds."""
        own = subgroup.timeouts_ms[1]
        return _shorter(self._subgroup_ms, self._track_subgroup_ms if own is None else own)


def _shorter(one_ms: int | None, other_ms: int | None) -> float | None:
    """The smaller of a subscriber's and a publisher's timeout in seconds."""
    if one_ms and other_ms:
        return min(one_ms, other_ms) / 1000
    given = one_ms or other_ms
    return given / 1000 if given else None
