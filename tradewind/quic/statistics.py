"""Snapshots of connections and endpoints, for metrics, link estimators and logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What one connection counts as it goes."""

    bytes_sent: int = 0
    bytes_received: int = 0
    packets_sent: int = 0
    packets_received: int = 0
    packets_lost: int = 0


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """One connection now. Bytes are UDP payload."""

    rtt_s: float
    """Smoothed; 0 before the first sample."""
    rtt_min_s: float
    rtt_variance_s: float
    congestion_window_bytes: int
    in_flight_bytes: int
    bytes_sent: int
    bytes_received: int
    packets_sent: int
    packets_received: int
    """1-RTT packets; those of the handshake are not counted."""
    packets_lost: int
    """Packets of ours declared lost."""
    largest_received_packet: int
    """The peer's highest 1-RTT packet number seen, -1 before any. What it grew by between two snapshots, less what
    `packets_received` grew by, is what the network lost on the way to us (or still holds back)."""
    streams: int
    control_unsent_bytes: int
    media_unsent_bytes: int
    datagram_unsent_bytes: int
    datagrams_expired: int
    datagrams_dropped: int
    held_bytes: int
    """Memory held by data that came out of order."""


MOST_NAMES, MOST_NAME = 16, 32
"""Of what a client offered, kept for the log: so many names, and so much of each."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A client that offered no protocol that is spoken here."""

    host: str
    transport: str
    offered: tuple[str, ...]
    supported: tuple[str, ...]

    @classmethod
    def of(cls, host: str, transport: str, offered: Sequence[str], supported: Sequence[str]) -> Mismatch:
        """The same, with no more of the client's words than anybody wants to read."""
        return cls(host, transport, tuple(name[:MOST_NAME] for name in offered[:MOST_NAMES]), tuple(supported))


@dataclass(frozen=True, slots=True)
class EndpointStatistics:
    """One endpoint now: how many connections it has, and what it refused and why, since it started."""

    connections: int
    pending_handshakes: int
    accepted: int
    retries_sent: int
    refused_pending: int
    """Initials dropped because too many handshakes were under way in all."""
    refused_per_address: int
    refused_tokens: int
    versions_negotiated: int
    handshakes_timed_out: int
    handshakes_failed: int
    """Ended before they were complete, by either side: no common protocol, a certificate not accepted, bad bytes."""
    faults: int
    """Connections dropped because handling them raised: bugs of ours or of aioquic's, logged with their stack."""
    unroutable: int
    """Datagrams that belong to no connection and start none."""
