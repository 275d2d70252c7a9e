"""Who may start a handshake on a port, and the counts of those who may not.

`endpoint` asks for every Initial that belongs to no connection. Too many handshakes under way, in all or from one host,
are refused; before that, clients have to prove their address with a Retry token, which costs us no state.
"""

from __future__ import annotations

import os
from collections import Counter, deque

from aioquic.quic.packet import QuicHeader, encode_quic_retry
from aioquic.quic.retry import QuicRetryTokenHandler

from tradewind.quic.config import CID_BYTES, Address, QuicSettings
from tradewind.quic.statistics import EndpointStatistics, Mismatch

WAITING_INITIALS = 64
"""Initials with a proven address kept for the next call when one call's handshakes are used up."""

MISMATCHES = 16


class Gate:
    """Who may start a handshake, and the counts of those who may not."""

    __slots__ = (
        "_by_host",
        "_retry",
        "accepted",
        "budget",
        "faults",
        "handshakes_failed",
        "handshakes_timed_out",
        "mismatches",
        "pending",
        "refused_pending",
        "refused_per_address",
        "refused_tokens",
        "retries_sent",
        "settings",
        "unroutable",
        "versions_negotiated",
        "waiting",
    )

    def __init__(self, settings: QuicSettings) -> None:
        self.settings = settings
        self._retry = QuicRetryTokenHandler()
        self._by_host: Counter[str] = Counter()
        self.waiting: deque[tuple[bytes, Address]] = deque()
        self.mismatches: deque[Mismatch] = deque(maxlen=MISMATCHES)
        """Clients of whose protocols none is spoken here, the last few, until the endpoint's owner takes them."""
        self.budget = 0
        self.pending = 0
        self.accepted = self.retries_sent = self.versions_negotiated = self.handshakes_timed_out = self.unroutable = 0
        self.handshakes_failed = self.faults = 0
        self.refused_pending = self.refused_per_address = self.refused_tokens = 0

    def start_call(self, new_handshakes: int) -> None:
        """Begin a call that may accept so many connections."""
        self.budget = new_handshakes

    def take_waiting(self) -> list[tuple[bytes, Address]]:
        """Initials that the last call had no more room for."""
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting

    def prove(self, header: QuicHeader, address: Address, now: float) -> bytes | None:
        """The original destination id when the token is ours and for this address; None counts a refused token."""
        try:
            return self._retry.validate_token(
                address=address, destination_cid=header.destination_cid, token=header.token, now=now
            )
        except ValueError:
            self.refused_tokens += 1
            return None

    def wants_proof(self) -> bool:
        """Whether a client must now show that it receives what is sent to its address."""
        return self.budget <= 0 or self.pending >= self.settings.limits.retry_above_pending

    def retry(self, header: QuicHeader, address: Address, now: float) -> bytes:
        """A Retry packet with a token for this address; costs no state."""
        self.retries_sent += 1
        assert header.version is not None
        source = os.urandom(CID_BYTES)
        return encode_quic_retry(
            version=header.version,
            source_cid=source,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=self._retry.create_token(
                address=address,
                original_destination_connection_id=header.destination_cid,
                retry_source_connection_id=source,
                now=now,
            ),
        )

    def admits(self, data: bytes, address: Address) -> bool:
        """Whether a connection may be made for this Initial now; a proven one over this call's budget waits."""
        limits = self.settings.limits
        if self.pending >= limits.pending_handshakes:
            self.refused_pending += 1
        elif self._by_host[address[0]] >= limits.pending_handshakes_per_address:
            self.refused_per_address += 1
        elif self.budget > 0:
            self.budget -= 1
            return True
        elif len(self.waiting) < WAITING_INITIALS:
            self.waiting.append((data, address))
        else:
            self.refused_pending += 1
        return False

    def enter(self, host: str) -> None:
        """A handshake from this host is under way."""
        self.accepted += 1
        self.pending += 1
        self._by_host[host] += 1

    def leave(self, host: str) -> None:
        """It is over, one way or the other."""
        self.pending -= 1
        self._by_host[host] -= 1
        if not self._by_host[host]:
            del self._by_host[host]

    def statistics(self, connections: int) -> EndpointStatistics:
        """A snapshot, given how many connections there are."""
        return EndpointStatistics(
            connections=connections,
            pending_handshakes=self.pending,
            accepted=self.accepted,
            retries_sent=self.retries_sent,
            refused_pending=self.refused_pending,
            refused_per_address=self.refused_per_address,
            refused_tokens=self.refused_tokens,
            versions_negotiated=self.versions_negotiated,
            handshakes_timed_out=self.handshakes_timed_out,
            handshakes_failed=self.handshakes_failed,
            faults=self.faults,
            unroutable=self.unroutable,
        )
