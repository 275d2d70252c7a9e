"""How far packets overtake each other on a path, learnt from those that were taken for lost and came after all.

RFC 9002 gives a packet up when three later ones were acknowledged; where each packet takes its own time that is nearly
every one, and all of it is sent twice. So the threshold follows what was seen ("Packet Threshold" allows it), and so
does the time that a packet may take. `recovery` asks it where the controller is ours.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Protocol

from tradewind.quic.path_model import Stamped

LEAST_PACKETS = 3
LEAST_RTTS = 9 / 8
"""RFC 9002, kPacketThreshold and kTimeThreshold."""
MOST_PACKETS = 1000
MOST_RTTS = 2.0
REMEMBERED, REMEMBERED_RTTS = 256, 4.0
"""Packets taken for lost that may still come, and for how long after they were sent."""
FORGET_LOSSES = 300
"""After so many packets lost in earnest since one came late, the path counts as one that keeps order."""


class Gone(Stamped, Protocol):
    """A packet that was taken for lost."""

    packet_number: int


class Reordering:
    """One connection's thresholds, and the packets they are learnt from."""

    __slots__ = ("_since_late", "gone", "packets", "rtts")

    def __init__(self) -> None:
        self.packets = LEAST_PACKETS
        """How many later packets are acknowledged before one is given up."""
        self.rtts = LEAST_RTTS
        """How many round trips it may take."""
        self.gone: dict[int, Gone] = {}
        """Packets taken for lost of late, by number."""
        self._since_late = 0

    def note_lost(self, packets: Iterable[Gone]) -> None:
        """These are taken for lost."""
        gone = self.gone
        for packet in packets:
            gone[packet.packet_number] = packet
            self._since_late += 1
        while len(gone) > REMEMBERED:
            del gone[next(iter(gone))]
        if self._since_late > FORGET_LOSSES:
            self.packets, self.rtts, self._since_late = LEAST_PACKETS, LEAST_RTTS, 0

    def receive(self, ranges: Sequence[tuple[int, int]], largest: int, rtt_s: float, now: float) -> list[Gone]:
        """An acknowledgement: half-open, rising ranges. `largest` was acknowledged before it, and a round trip takes
        `rtt_s`. Returns the packets taken for lost that did arrive.
        """
        gone = self.gone
        while gone:
            oldest = next(iter(gone))
            if now - gone[oldest].sent_time < REMEMBERED_RTTS * rtt_s:
                break
            del gone[oldest]
        if not gone:
            return []
        starts = [start for start, _ in ranges]
        late = []
        for number, packet in gone.items():
            at = bisect_right(starts, number) - 1
            if at >= 0 and number < ranges[at][1]:
                late.append(packet)
        for packet in late:
            del gone[packet.packet_number]
            self._since_late = 0
            self.packets = min(max(self.packets, largest - packet.packet_number + 1), MOST_PACKETS)
            if rtt_s > 0:
                self.rtts = min(max(self.rtts, (now - packet.sent_time) / rtt_s), MOST_RTTS)
        return late
