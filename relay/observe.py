"""What the rooms count, brought into the relay's metrics and its state page, between two turns.

`relay.run` calls `refresh` when somebody asks for metrics and `session_ended` for each session that is over; nothing
here runs for an object or a packet.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from relay.attachment import Attachment
from relay.helm import Helm
from relay.listing import describe
from relay.metrics import Metrics
from relay.node import Ended, Node, Stage
from relay.overrides import Cause, Overrides
from tradewind.moqt.errors import RequestCode, SessionCode
from tradewind.moqt.model import format_namespace
from tradewind.quic.statistics import EndpointStatistics


class SocketCounts(Protocol):
    """What a UDP socket counts since it was opened."""

    @property
    def datagrams_received(self) -> int: ...
    @property
    def datagrams_sent(self) -> int: ...
    @property
    def dropped_backlog(self) -> int: ...
    @property
    def dropped_errors(self) -> int: ...
    @property
    def receive_drops(self) -> int: ...


class RoomsOnDisk(Protocol):
    """The store of a relay's rooms."""

    write_waits_s: deque[float]

    def statistics(self) -> DiskStatistics: ...


class DiskStatistics(NamedTuple):
    """What metrics show of that store."""

    size_bytes: int
    damaged: int


def count_control(metrics: Metrics, helm: Helm, write_failures: int = 0) -> None:
    """Copy what a relay's dealings with controllers counted."""
    control, taken = metrics.control, helm.orders.statistics()
    table = helm.orders.table
    control.connected.set(bool(helm.statistics.controller))
    control.term.set(0 if table is None else table.term)
    control.generation.set(helm.orders.generation)
    control.taken.of("whole").set(taken.tables)
    control.taken.of("delta").set(taken.deltas)
    for reason, count in taken.refused.items():
        control.refused.of(reason).set(count)
    control.write_failures.set(write_failures)
    control.misfits.set(helm.statistics.misfits)


def count_overrides(metrics: Metrics, overrides: Overrides) -> None:
    """Copy where the relay goes another way than its table says, by cause."""
    counts = overrides.counts()
    for cause in Cause:
        metrics.control.overrides.of(cause.value).set(counts[cause])


class Observer:
    """Reads one node, and the sockets and the disk around it."""

    def __init__(self, node: Node, metrics: Metrics, sockets: Callable[[], Sequence[SocketCounts]] = tuple) -> None:
        self._node = node
        self._metrics = metrics
        self._sockets = sockets
        self.disk: RoomsOnDisk | None = None
        """Where rooms are stored; None: this relay has no part in any."""
        self._gone: Counter[str] = Counter()
        """What sessions that are over had counted."""
        metrics.refreshers.append(self.refresh)

    def session_ended(self, ended: Ended) -> None:
        """A session is over: keep what it had counted."""
        attachment = ended.attachment
        sessions = self._metrics.sessions
        if attachment.refusal is not None:
            sessions.refused.of(attachment.refusal.value).add()
        sessions.closed.of(_code_name(SessionCode, ended.code), "peer" if ended.by_peer else "relay").add()
        self._gone.update(_counts(attachment))

    def refresh(self) -> None:
        """Copy every number that a room keeps by itself."""
        node, metrics = self._node, self._metrics
        self._refresh_sessions()
        self._refresh_requests()
        self._refresh_forwarding()
        self._refresh_handshakes()
        self._refresh_sockets()
        self._refresh_rooms()
        metrics.turns.ready_sessions.set(len(node.forwarder.ready))
        for stage in Stage:
            metrics.process.state.of(stage.value).set(node.stage is stage)

    def not_ready(self) -> str | None:
        """Why nobody should be sent here; None: all is well."""
        return None if self._node.stage is Stage.SERVING else self._node.stage.value

    def state(self) -> dict[str, Any]:
        """A picture of the relay for people: who is here, what passes, what is odd."""
        node = self._node
        held = node.forwarder.statistics()
        return {
            "stage": node.stage.value,
            "sessions": [
                describe(attachment, node.tally.now, node.forwarder) for attachment in node.attachments.values()
            ],
            "namespaces": node.forwarder.describe_namespaces(),
            "tracks": node.forwarder.describe_tracks(),
            "cache": {"bytes": held.cache_bytes, "groups": held.cache_groups, "evictions": held.cache_evictions},
            "rooms": self._describe_rooms(),
            "drops": {reason.value: count for reason, count in held.drops.items()},
            "limits": {
                **node.surroundings.limits.statistics()._asdict(),
                "met": {limit.value: count for limit, count in node.tally.limits.items()},
            },
        }

    # --- Part by part ---

    def _refresh_sessions(self) -> None:
        sessions, network = self._metrics.sessions, self._metrics.network
        sessions.open.clear()
        total = Counter(self._gone)
        quirks = Counter(self._node.tally.quirk_uses)
        held_bytes = 0
        for attachment in self._node.attachments.values():
            sessions.open.of(attachment.connection.transport, str(attachment.session.profile.draft)).add()
            total.update(_counts(attachment))
            quirks.update(attachment.quirks.uses)
            held_bytes += attachment.connection.statistics().held_bytes
        self._metrics.media.objects_sent.set(total["objects_out"])
        self._metrics.media.bytes_sent.set(total["bytes_out"])
        network.bytes_received.set(total["bytes_received"])
        network.bytes_sent.set(total["bytes_sent"])
        network.packets_lost.set(total["packets_lost"])
        network.held_bytes.set(held_bytes)
        for name, uses in quirks.items():
            sessions.quirks.of(name).set(uses)
        total[_ODD + "datagrams_over_rate"] = self._node.tally.datagrams_refused
        for name, count in total.items():
            if name.startswith(_ODD):
                sessions.oddities.of(name.removeprefix(_ODD)).set(count)
        for (transport, draft), count in self._node.tally.opened.items():
            sessions.opened.of(transport, str(draft)).set(count)
        sessions.going_away_ignored.set(self._node.tally.overstayed)
        for uri, count in self._node.tally.goaways.items():
            sessions.going_away.of(uri).set(count)

    def _refresh_requests(self) -> None:
        tally, requests = self._node.tally, self._metrics.requests
        for verb, count in tally.requests.items():
            requests.received.of(verb).set(count)
        for (verb, code), count in tally.rejected.items():
            requests.rejected.of(verb, _code_name(RequestCode, code)).set(count)
        for limit, count in tally.limits.items():
            requests.limited.of(limit.value).set(count)
        while tally.answer_waits_s:
            requests.subscribe_latency.observe(tally.answer_waits_s.popleft())
        for wait_s in self._node.forwarder.take_join_waits():
            requests.join_latency.observe(wait_s)

    def _refresh_forwarding(self) -> None:
        held = self._node.forwarder.statistics()
        requests, media = self._metrics.requests, self._metrics.media
        requests.subscriptions.set(held.subscriptions)
        requests.upstream_subscriptions.set(held.upstream_subscriptions)
        requests.namespaces.set(held.namespaces)
        media.tracks.set(held.tracks)
        media.objects_received.set(held.objects_in)
        media.bytes_received.set(held.bytes_in)
        media.malformed.set(held.malformed)
        media.cache_bytes.set(held.cache_bytes)
        media.cache_groups.set(held.cache_groups)
        media.cache_evictions.set(held.cache_evictions)
        for reason, count in held.drops.items():
            media.dropped.of(reason.value).set(count)

    def _refresh_rooms(self) -> None:
        node, rooms = self._node, self._metrics.rooms
        if node.rooms is not None:
            found = tuple(node.rooms.statistics().values())
            rooms.open.clear()
            for role, count in Counter(one.doing for one in found).items():
                rooms.open.of(role).set(count)
            told = node.rooms.rooms.told
            for stored, count in told.stored.items():
                rooms.acknowledged.of(str(stored)).set(count)
            rooms.repeated.set(told.repeated)
            for why, count in node.rooms.refused().items():
                rooms.refused.of(why.name.lower()).set(count)
            rooms.waiting.set(sum(one.waiting for one in found))
            rooms.backlog.set(sum(one.backlog for one in found))
            rooms.records.set(sum(one.records for one in found))
            rooms.withdrawn.set(sum(one.withdrawn for one in found))
        if self.disk is not None:
            while self.disk.write_waits_s:
                rooms.write.observe(self.disk.write_waits_s.popleft())
            disk = self.disk.statistics()
            rooms.disk_bytes.set(disk.size_bytes)
            rooms.damaged.set(disk.damaged)

    def _describe_rooms(self) -> dict[str, Any]:
        """What this relay is in each room, by the room's name."""
        if self._node.rooms is None:
            return {}
        found = self._node.rooms.statistics()
        return {format_namespace(room): one._asdict() for room, one in found.items()}

    def _refresh_handshakes(self) -> None:
        found = [endpoint.statistics() for endpoint in self._node.endpoints]
        sessions = self._metrics.sessions
        sessions.handshakes.set(sum(one.pending_handshakes for one in found))
        sessions.retries.set(sum(one.retries_sent for one in found))
        for name, reason in _REFUSED.items():
            sessions.handshakes_refused.of(reason).set(sum(getattr(one, name) for one in found))
        self._metrics.network.unroutable.set(sum(one.unroutable for one in found))
        self._metrics.process.internal_errors.set(self._node.tally.faults + sum(one.faults for one in found))

    def _refresh_sockets(self) -> None:
        found, network = self._sockets(), self._metrics.network
        network.datagrams_received.set(sum(one.datagrams_received for one in found))
        network.datagrams_sent.set(sum(one.datagrams_sent for one in found))
        network.receive_drops.set(sum(one.receive_drops for one in found))
        network.send_errors.of("backlog").set(sum(one.dropped_backlog for one in found))
        network.send_errors.of("refused").set(sum(one.dropped_errors for one in found))


_ODD = "odd:"
_ORDINARY = frozenset({"requests_sent", "requests_received", "data_streams", "bytes_discarded"})
"""What sessions count that is no oddity."""

_REFUSED = {
    "refused_pending": "too_many",
    "refused_per_address": "too_many_of_address",
    "refused_tokens": "bad_token",
    "handshakes_timed_out": "timeout",
    "handshakes_failed": "failed",
    "versions_negotiated": "quic_version",
}
assert all(name in EndpointStatistics.__dataclass_fields__ for name in _REFUSED)


def _counts(attachment: Attachment) -> Counter[str]:
    connection = attachment.connection.statistics()
    found = Counter(
        bytes_received=connection.bytes_received,
        bytes_sent=connection.bytes_sent,
        packets_lost=connection.packets_lost,
    )
    if attachment.sink is not None:
        found["objects_out"] = attachment.sink.objects_out + attachment.sink.datagrams_out
        found["bytes_out"] = attachment.sink.bytes_out
    for name, count in attachment.session.statistics().counters:
        if name not in _ORDINARY:
            found[_ODD + name] = count
    return found


def _code_name(codes: type[SessionCode | RequestCode], code: int | None) -> str:
    if code is None:
        return "transport"
    try:
        return codes(code).name.lower()
    except ValueError:
        return "other"
