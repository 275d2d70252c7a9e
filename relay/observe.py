"""What the rooms count, brought into the relay's metrics and its state page, between two turns.

`relay.run` calls `refresh` when somebody asks for metrics and `session_ended` for each session that is over; nothing
here runs for an object or a packet.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from relay.attachment import Attachment
from relay.metrics import Metrics
from relay.node import Ended, Node, Stage
from tradewind.moqt.errors import SessionCode
from tradewind.quic.statistics import EndpointStatistics


class Observer:
    """Reads one node."""

    def __init__(self, node: Node, metrics: Metrics) -> None:
        self._node = node
        self._metrics = metrics
        self._gone: Counter[str] = Counter()
        """What sessions that are over had counted."""
        metrics.refreshers.append(self.refresh)

    def session_ended(self, ended: Ended) -> None:
        """A session is over: keep what it had counted."""
        attachment = ended.attachment
        sessions = self._metrics.sessions
        if attachment.refusal is not None:
            sessions.refused.of(attachment.refusal.value).add()
        sessions.closed.of(_code_name(ended.code), "peer" if ended.by_peer else "relay").add()
        self._gone.update(_counts(attachment))

    def session_opened(self, transport: str, draft: int) -> None:
        self._metrics.sessions.opened.of(transport, str(draft)).add()

    def refresh(self) -> None:
        """Copy every number that a room keeps by itself."""
        node, metrics = self._node, self._metrics
        self._refresh_sessions()
        held = node.forwarder.statistics()
        metrics.requests.subscriptions.set(held.subscriptions)
        metrics.requests.upstream_subscriptions.set(held.upstream_subscriptions)
        metrics.requests.namespaces.set(held.namespaces)
        metrics.media.tracks.set(held.tracks)
        metrics.media.objects_received.set(held.objects_in)
        metrics.media.cache_bytes.set(held.cache_bytes)
        metrics.media.cache_groups.set(held.cache_groups)
        for reason, count in held.drops.items():
            metrics.media.dropped.of(reason.value).set(count)
        metrics.turns.ready_sessions.set(len(node.forwarder.ready))
        for stage in Stage:
            metrics.process.state.of(stage.value).set(node.stage is stage)
        self._refresh_handshakes()

    def not_ready(self) -> str | None:
        """Why nobody should be sent here; None: all is well."""
        return None if self._node.stage is Stage.SERVING else self._node.stage.value

    def state(self) -> dict[str, Any]:
        """A picture of the relay for people."""
        node = self._node
        return {
            "stage": node.stage.value,
            "sessions": [_describe(attachment) for attachment in node.attachments.values()],
            "tracks": node.forwarder.describe(),
            "limits": node.limits.statistics()._asdict(),
        }

    def _refresh_sessions(self) -> None:
        sessions, media = self._metrics.sessions, self._metrics.media
        sessions.open.clear()
        total = Counter(self._gone)
        quirks = Counter(self._node.quirk_uses)
        for attachment in self._node.attachments.values():
            sessions.open.of(attachment.connection.transport, str(attachment.session.profile.draft)).add()
            total.update(_counts(attachment))
            quirks.update(attachment.quirks.uses)
        media.objects_sent.set(total["objects_out"])
        media.bytes_sent.set(total["bytes_out"])
        for name, uses in quirks.items():
            sessions.quirks.of(name).set(uses)

    def _refresh_handshakes(self) -> None:
        found = [endpoint.statistics() for endpoint in self._node.endpoints]
        sessions = self._metrics.sessions
        sessions.handshakes.set(sum(one.pending_handshakes for one in found))
        sessions.retries.set(sum(one.retries_sent for one in found))
        for name, reason in _REFUSED.items():
            sessions.handshakes_refused.of(reason).set(sum(getattr(one, name) for one in found))
        self._metrics.network.unroutable.set(sum(one.unroutable for one in found))


_REFUSED = {
    "refused_pending": "too_many",
    "refused_per_address": "too_many_of_address",
    "refused_tokens": "bad_token",
    "handshakes_timed_out": "timeout",
    "versions_negotiated": "quic_version",
}
assert all(name in EndpointStatistics.__dataclass_fields__ for name in _REFUSED)


def _counts(attachment: Attachment) -> Counter[str]:
    sink = attachment.sink
    if sink is None:
        return Counter()
    return Counter(objects_out=sink.objects_out + sink.datagrams_out, bytes_out=sink.bytes_out)


def _code_name(code: int | None) -> str:
    if code is None:
        return "transport"
    try:
        return SessionCode(code).name.lower()
    except ValueError:
        return "other"


def _describe(attachment: Attachment) -> dict[str, Any]:
    connection = attachment.connection
    peer = attachment.session.peer
    return {
        "id": attachment.id,
        "address": str(connection.peer_address[0]) if connection.peer_address else "",
        "transport": connection.transport,
        "protocol": connection.protocol,
        "implementation": peer.implementation[:128],
        "root": [field.decode("utf-8", "replace") for field in attachment.grant.root] if attachment.grant else None,
        "subject": attachment.grant.subject if attachment.grant else None,
        "statistics": _plain(connection.statistics()),
    }


def _plain(statistics: object) -> dict[str, Any]:
    return {name: getattr(statistics, name) for name in getattr(statistics, "__slots__", ())}
