"""All connections of one UDP port: routing by connection id, admission, deadlines, events, datagrams out.

`relay.node` owns one a listening port and `tradewind.client` one a client. A turn is: `receive_datagrams` (or
`handle_deadline`), act on the events, `datagrams_to_send`, `next_deadline`. Calls on a connection mark it, and only
marked connections are looked at when datagrams are collected, so idle ones cost nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
from typing import Protocol
from urllib.parse import urlsplit

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.packet import QuicHeader, QuicPacketType, encode_quic_version_negotiation, pull_quic_header

from tradewind.quic.config import CID_BYTES, SMALLEST_DATAGRAM_BYTES, WEBTRANSPORT_ALPN, Address, QuicSettings
from tradewind.quic.connection import Connection
from tradewind.quic.core import QuicCore
from tradewind.quic.events import Event, StreamData
from tradewind.quic.gate import Gate
from tradewind.quic.statistics import EndpointStatistics
from tradewind.quic.translate import VERSIONS, client_configuration, server_configuration
from tradewind.quic.webtransport import WebTransportConnection

logger = logging.getLogger(__name__)

REPLIES_PER_CALL = 64
"""Retry and version negotiation packets per `receive_datagrams`; more Initials are dropped unanswered."""
TIMER_SLACK_S = 1e-6
"""aioquic sets timers at `sent + delay` and then compares `now - delay`: at that very moment nothing would happen."""


class Engine(Protocol):
    """A faster way in for 1-RTT datagrams; what it does not take goes to aioquic."""

    def ingest(self, connection: Connection, data: bytes, now: float) -> bool:
        """Whether the datagram was dealt with."""


class Endpoint:
    """The connections of one UDP port. `is_client` means that it accepts none; any endpoint may connect."""

    def __init__(self, settings: QuicSettings, is_client: bool = False, engine: Engine | None = None) -> None:
        self.settings = settings
        self._accepts = not is_client
        self._engine = engine
        self._routes: dict[bytes, _Entry] = {}
        self._entries: dict[int, _Entry] = {}
        self._touched: set[int] = set()
        self._events: list[Event] = []
        self._deadlines: list[tuple[float, int]] = []
        self._unarmed: dict[int, _Entry] = {}
        """Entries whose deadline may have moved: looked at when the next one is asked for, after sending."""
        self._gate = Gate(settings)
        self._replies: list[tuple[Address, list[bytes]]] = []
        self._number, self._now = 0, 0.0
        self._configuration = server_configuration(settings) if self._accepts else None
        self.mismatches = self._gate.mismatches

    def replace_settings(self, settings: QuicSettings) -> None:
        """Use other settings (a renewed certificate) for connections made from now on."""
        self.settings = settings
        self._gate.settings = settings
        self._configuration = server_configuration(settings) if self._accepts else None

    def connect(
        self,
        address: Address,
        now: float,
        *,
        server_name: str | None = None,
        url: str | None = None,
        protocols: Sequence[str] = (),
        origin: str | None = None,
        settings: QuicSettings | None = None,
    ) -> Connection:
        """Start a connection; `Opened` or `Closed` follows.

        `url` (https) asks for a WebTransport session at its authority and path; without it the connection is raw
        QUIC. `protocols` are offered in order (default: the settings'); `settings` replaces the endpoint's for this
        connection. `server_name` is what the certificate must name (default: the URL's host, else the address).
        """
        settings = settings or self.settings
        offered = tuple(protocols) or settings.protocols
        target = urlsplit(url) if url is not None else None
        if target is not None and (target.scheme != "https" or not target.hostname):
            raise ValueError(f"not an https URL: {url}")
        host = (target.hostname if target is not None else None) or str(address[0])
        alpns = (WEBTRANSPORT_ALPN,) if target is not None else offered
        core = QuicCore(
            client_configuration(settings, alpns, server_name or host),
            settings.limits,
            pinned_sha256=settings.trust.pinned_sha256,
            ack_delay_s=settings.ack_delay_s,
        )
        self._number += 1
        connection: Connection
        if target is None:
            connection = Connection(core, self._number, self._events, self._touched)
        else:
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            connection = WebTransportConnection(core, self._number, self._events, self._touched, settings)
            connection.request(target.netloc, path, origin)
        connection.offered = offered
        core.face = connection
        entry = self._add(core, settings, now)
        entry.connection = connection
        core.connect(_full_address(address), now)
        return connection

    def receive_datagrams(
        self, batch: Sequence[tuple[bytes, Address]], now: float, new_handshakes: int = 8
    ) -> list[Event]:
        """Take what a socket gave and return what happened.

        At most `new_handshakes` connections are accepted in one call: clients over it prove their address first (Retry)
        or, when they have, wait for the next call.
        """
        self._now = now
        self._gate.start_call(new_handshakes)
        for data, address in self._gate.take_waiting():
            self._receive_long(data, address, now)
        routes, touched, engine = self._routes, self._touched, self._engine
        for data, address in batch:
            if data and not data[0] & 0x80:
                entry = routes.get(data[1:9])
                if entry is None:
                    self._gate.unroutable += 1
                    continue
                touched.add(entry.number)
                if engine is not None and entry.connection is not None and engine.ingest(entry.connection, data, now):
                    continue
                self._receive(entry, data, address, now)
                if entry.pending or entry.core.issued or entry.core.retired:
                    self._settle(entry)
            else:
                self._receive_long(data, address, now)
        return self._take_events()

    def next_deadline(self) -> float | None:
        """When `handle_deadline` wants to be called next (monotonic seconds)."""
        if self._unarmed:
            for touched in self._unarmed.values():
                self._arm(touched)
            self._unarmed.clear()
        if self._events or self._gate.waiting:
            return self._now
        deadlines = self._deadlines
        while deadlines:
            due, number = deadlines[0]
            entry = self._entries.get(number)
            if entry is not None and entry.wanted <= due:
                return due
            # A deadline that moved away: do not wake for it.
            heappop(deadlines)
            if entry is not None:
                entry.armed.pop()
                self._push(entry)
        return None

    def handle_deadline(self, now: float) -> list[Event]:
        """Let the timers that are due act, and return what happened."""
        self._now = now
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            _, number = heappop(deadlines)
            entry = self._entries.get(number)
            if entry is None:
                continue
            entry.armed.pop()
            self._touched.add(number)
            self._fire(entry, now)
        if self._gate.waiting:
            return self.receive_datagrams((), now)
        return self._take_events()

    def datagrams_to_send(self, now: float) -> list[tuple[Address, list[bytes]]]:
        """Datagrams of connections touched since the last call, grouped by destination in the order to send them."""
        batches = self._replies
        self._replies = []
        touched = tuple(self._touched)
        self._touched.clear()
        entries = self._entries
        for number in touched:
            entry = entries.get(number)
            if entry is None:
                continue
            core = entry.core
            try:
                core.collect(batches, now)
            except Exception as error:  # noqa: BLE001 - see _fault
                self._fault(entry, error)
                continue
            if not core.steady or core.mismatch is not None:
                self._settle(entry)
            self._unarmed[number] = entry
        return batches

    @property
    def touched(self) -> AbstractSet[int]:
        """Ids of connections that something happened to since the last `datagrams_to_send`."""
        return self._touched

    def touch(self, connection: Connection) -> None:
        """Have `datagrams_to_send` look at this connection (calls on a connection do it themselves)."""
        self._touched.add(connection.id)

    def close_all(self, code: int, reason: str, now: float) -> None:
        """Close every connection, established or not, with an application error code."""
        self._now = now
        for entry in tuple(self._entries.values()):
            if entry.connection is not None:
                entry.connection.close(code, reason)
            else:
                entry.core.close(code, None, reason)
            self._touched.add(entry.number)

    @property
    def connections(self) -> list[Connection]:
        """Connections that were told to be open and not yet closed, in the order they came."""
        return [
            entry.connection
            for entry in self._entries.values()
            if entry.connection is not None and entry.connection.protocol and not entry.connection.is_closed
        ]

    def statistics(self) -> EndpointStatistics:
        """A snapshot of counts and refusals."""
        return self._gate.statistics(len(self._entries))

    def check_invariants(self) -> None:
        """Raise AssertionError where routes, entries and counts disagree."""
        for entry in self._entries.values():
            assert all(self._routes[cid] is entry for cid in entry.cids), "routes"
            if not entry.core.ended:
                entry.core.check_invariants()
        assert len(self._routes) == sum(len(entry.cids) for entry in self._entries.values()), "stale routes"
        assert not self._gate.faults, "faults"
        assert sum(entry.pending for entry in self._entries.values()) >= self._gate.pending, "pending"

    def _take_events(self) -> list[Event]:
        events = self._events[:]
        self._events.clear()
        return _joined(events) if len(events) > 1 else events

    def _receive(self, entry: _Entry, data: bytes, address: Address, now: float) -> None:
        try:
            entry.core.receive_datagram(data, address, now)
        except Exception as error:  # noqa: BLE001 - see _fault
            self._fault(entry, error)

    def _fault(self, entry: _Entry, error: Exception) -> None:
        """Handling one connection raised: whatever a peer did, the others must not feel it."""
        logger.error("connection %d dropped", entry.number, exc_info=error)
        self._gate.faults += 1
        entry.core.give_up("internal error")
        self._forget(entry)

    def _receive_long(self, data: bytes, address: Address, now: float) -> None:
        """Long headers: handshakes under way, new ones, and whatever else the network sends."""
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CID_BYTES)
        except ValueError:
            self._gate.unroutable += 1
            return
        entry = self._routes.get(header.destination_cid)
        if entry is None:
            entry = self._admit(header, data, address, now)
            if entry is None:
                return
        self._touched.add(entry.number)
        self._receive(entry, data, address, now)
        if not entry.core.started:
            # Not even the first packet could be decrypted: keep nothing.
            self._gate.unroutable += 1
            self._forget(entry)
            return
        self._settle(entry)

    def _admit(self, header: QuicHeader, data: bytes, address: Address, now: float) -> _Entry | None:
        """Decide about a datagram that belongs to no connection: a new one, a reply without state, or nothing."""
        whole = self._accepts and len(data) >= SMALLEST_DATAGRAM_BYTES and header.version is not None
        if not whole or header.packet_type == QuicPacketType.VERSION_NEGOTIATION:
            self._gate.unroutable += 1
            return None
        if header.version not in VERSIONS:
            if len(self._replies) < REPLIES_PER_CALL:
                self._gate.versions_negotiated += 1
                self._replies.append((address, [_version_negotiation(header)]))
            return None
        if header.packet_type != QuicPacketType.INITIAL:
            self._gate.unroutable += 1
            return None
        return self._accept(header, data, address, now)

    def _accept(self, header: QuicHeader, data: bytes, address: Address, now: float) -> _Entry | None:
        gate = self._gate
        original, retry_source = header.destination_cid, None
        if header.token:
            proven = gate.prove(header, address, now)
            if proven is not None:
                original, retry_source = proven, header.destination_cid
        if retry_source is None and gate.wants_proof():
            if len(self._replies) < REPLIES_PER_CALL:
                self._replies.append((address, [gate.retry(header, address, now)]))
            return None
        if not gate.admits(data, address):
            return None
        assert self._configuration is not None
        core = QuicCore(
            self._configuration,
            self.settings.limits,
            original_destination=original,
            retry_source=retry_source,
            private=self.settings.private,
        )
        core.make_face = self._make_face
        self._number += 1
        entry = self._add(core, self.settings, now)
        entry.host = address[0]
        gate.enter(entry.host)
        self._route(entry, header.destination_cid)
        return entry

    def _make_face(self, core: QuicCore) -> Connection:
        entry = self._routes[core.host_cid]
        connection: Connection
        if core.alpn == WEBTRANSPORT_ALPN:
            connection = WebTransportConnection(core, entry.number, self._events, self._touched, self.settings)
        else:
            connection = Connection(core, entry.number, self._events, self._touched)
        entry.connection = connection
        return connection

    def _add(self, core: QuicCore, settings: QuicSettings, now: float) -> _Entry:
        entry = _Entry(core, self._number, settings, now)
        self._entries[entry.number] = entry
        self._route(entry, core.host_cid)
        self._touched.add(entry.number)
        return entry

    def _route(self, entry: _Entry, cid: bytes) -> None:
        self._routes[cid] = entry
        entry.cids.add(cid)

    def _settle(self, entry: _Entry) -> None:
        """Follow what a connection did: its connection ids, its handshake, its end."""
        core = entry.core
        if core.issued:
            for cid in core.issued:
                self._route(entry, cid)
            core.issued.clear()
        if core.retired:
            for cid in core.retired:
                if self._routes.pop(cid, None) is not None:
                    entry.cids.discard(cid)
            core.retired.clear()
        if entry.pending and core.handshaken:
            self._finish_handshake(entry)
        if core.mismatch is not None:
            self.mismatches.append(core.mismatch)
            core.mismatch = None
        if core.terminated:
            self._forget(entry)

    def _finish_handshake(self, entry: _Entry) -> None:
        entry.pending = False
        if entry.host is not None:
            self._gate.leave(entry.host)
            entry.host = None

    def _forget(self, entry: _Entry) -> None:
        if self._entries.pop(entry.number, None) is None:
            return
        if entry.pending and entry.core.ended:
            self._gate.handshakes_failed += 1
        self._finish_handshake(entry)
        for cid in entry.cids:
            del self._routes[cid]
        self._touched.discard(entry.number)

    def _arm(self, entry: _Entry) -> None:
        """See to it that the heap wakes us in time; an earlier entry that still waits will do."""
        if entry.number not in self._entries:
            return
        timer = entry.core.get_timer()
        deadline = _NEVER if timer is None else timer + TIMER_SLACK_S
        if entry.pending:
            deadline = min(deadline, entry.handshake_deadline)
        elif entry.keep_alive_s is not None:
            deadline = min(deadline, entry.keep_alive_at)
        if entry.connection is not None and entry.connection.deadline is not None:
            deadline = min(deadline, entry.connection.deadline)
        entry.wanted = deadline
        self._push(entry)

    def _push(self, entry: _Entry) -> None:
        if entry.wanted < (entry.armed[-1] if entry.armed else _NEVER):
            entry.armed.append(entry.wanted)
            heappush(self._deadlines, (entry.wanted, entry.number))

    def _fire(self, entry: _Entry, now: float) -> None:
        if entry.wanted > now:
            return
        if entry.pending and now >= entry.handshake_deadline:
            self._gate.handshakes_timed_out += 1
            self._finish_handshake(entry)
            entry.core.give_up("handshake timeout")
            self._forget(entry)
            return
        if entry.connection is not None and entry.connection.deadline is not None:
            entry.connection.handle_deadline(now)
        if entry.keep_alive_s is not None and not entry.pending and now >= entry.keep_alive_at:
            entry.keep_alive_at = now + entry.keep_alive_s
            entry.core.ping()
        timer = entry.core.get_timer()
        if timer is not None and timer <= now:
            try:
                entry.core.handle_timer(now)
            except Exception as error:  # noqa: BLE001 - see _fault
                self._fault(entry, error)
        self._settle(entry)


_NEVER = float("inf")


class _Entry:
    """What the endpoint knows about one connection besides itself."""

    __slots__ = (
        "armed",
        "cids",
        "connection",
        "core",
        "handshake_deadline",
        "host",
        "keep_alive_at",
        "keep_alive_s",
        "number",
        "pending",
        "wanted",
    )

    def __init__(self, core: QuicCore, number: int, settings: QuicSettings, now: float) -> None:
        self.core = core
        self.number = number
        self.connection: Connection | None = None
        self.cids: set[bytes] = set()
        self.pending = True
        self.handshake_deadline = now + settings.limits.handshake_timeout_s
        self.keep_alive_s = settings.keep_alive_s
        self.keep_alive_at = now + (settings.keep_alive_s or _NEVER)
        self.host: str | None = None
        """Counted at the gate under this host until the handshake is over."""
        self.armed: list[float] = []
        """Heap entries that stand for this connection, the earliest last: none is ever pushed later than another."""
        self.wanted = _NEVER
        """When it really wants to be woken; later than the earliest entry after the deadline moved away."""


def _joined(events: list[Event]) -> list[Event]:
    """What came in one call, packet after packet of one stream, as one event: everybody above deals with it once."""
    joined: list[Event] = []
    run: list[StreamData] = []
    for event in events:
        if run and not (
            isinstance(event, StreamData) and event.stream == run[0].stream and event.connection is run[0].connection
        ):
            joined.append(_join(run))
            run = []
        if isinstance(event, StreamData):
            run.append(event)
        else:
            joined.append(event)
    if run:
        joined.append(_join(run))
    return joined


def _join(run: list[StreamData]) -> StreamData:
    if len(run) == 1:
        return run[0]
    last = run[-1]
    return StreamData(last.connection, last.stream, b"".join([event.data for event in run]), last.fin)


def _version_negotiation(header: QuicHeader) -> bytes:
    return encode_quic_version_negotiation(
        source_cid=header.destination_cid, destination_cid=header.source_cid, supported_versions=list(VERSIONS)
    )


def _full_address(address: Address) -> Address:
    """IPv6 sockets report four values and aioquic compares whole addresses: fill in what callers leave out."""
    return (*address, 0, 0) if len(address) == 2 and ":" in str(address[0]) else tuple(address)
