"""Sessions of one relay as operators are shown them: one in words, and pages of many.

`observe` has the words on the state page, `steering` gives pages to a controller. Nothing here is secret, what a peer
said is cut, and a page looks at a bounded number of sessions, for it is made inside a turn.
"""

from __future__ import annotations

from typing import Any

import msgspec

from relay.attachment import Attachment
from relay.forwarding.forwarder import Forwarder
from relay.node import Node
from tradewind.contract.messages import NamespaceFields
from tradewind.moqt.model import Namespace

MOST_ON_A_PAGE = 128
MOST_LOOKED_AT = 400
"""A page takes about 4 ms (`python -m bench.operators`): as long as a turn may."""
MOST_NAMESPACES = 8
"""Of one session."""
MOST_CHARACTERS = 256
MOST_PAGE_CHARACTERS = 2_000_000


def describe(attachment: Attachment, now: float, forwarder: Forwarder) -> dict[str, Any]:
    """One session in words that an operator uses."""
    connection = attachment.connection
    quic = connection.statistics()
    sink, quota, grant = attachment.sink, attachment.quota, attachment.grant
    reads, feeds = forwarder.reads_and_feeds(attachment.id)
    return {
        "id": attachment.id,
        "address": str(connection.peer_address[0]) if connection.peer_address else "",
        "transport": connection.transport,
        "protocol": connection.protocol,
        "implementation": attachment.session.peer.implementation[:128],
        "open_s": round(max(now - attachment.opened_at, 0.0), 1),
        "root": "/" + shown(grant.root) if grant else None,
        "subject": grant.subject[:MOST_CHARACTERS] if grant and grant.subject is not None else None,
        "neighbour": None if attachment.neighbour is None else attachment.neighbour.id,
        "subscriptions": reads,
        "feeds": feeds,
        "objects_out": sink.objects_out + sink.datagrams_out if sink else 0,
        "slowed_down": quota is not None and quota.paused_until > now,
        "rtt_ms": round(quic.rtt_s * 1000, 1),
        "lost_packets": quic.packets_lost,
        "bytes_in": quic.bytes_received,
        "bytes_out": quic.bytes_sent,
        "unsent_bytes": quic.control_unsent_bytes + quic.media_unsent_bytes + quic.datagram_unsent_bytes,
        "congestion_window_bytes": quic.congestion_window_bytes,
    }


def brief(attachment: Attachment, now: float) -> dict[str, Any]:
    """One session of a list that has all of them, for controllers that ask for no pages."""
    return {
        "id": attachment.id,
        "address": str(attachment.connection.peer_address[0]),
        "protocol": attachment.connection.protocol,
        "open_s": round(now - attachment.opened_at, 1),
        "neighbour": None if attachment.neighbour is None else attachment.neighbour.id,
    }


def page(node: Node, after: int, limit: int, match: str, prefix: NamespaceFields, now: float) -> str:
    """Sessions with ids above `after`, as JSON: `{"sessions": [...], "next": id or null, "total": 4096}`.

    `match`: only those that contain this text; `prefix`: only those that publish or subscribe to something beneath it.
    A page may be short, or empty, and still have a `next`: ask again with it.
    """
    forwarder = node.forwarder
    ids = [number for number in node.attachments if number > after]
    looked_at = sorted(ids)[:MOST_LOOKED_AT]
    found: list[dict[str, Any]] = []
    last = after
    for number in looked_at:
        if len(found) == min(limit, MOST_ON_A_PAGE):
            break
        last = number
        namespaces = forwarder.namespaces_of(number)
        if prefix and not any(name[: len(prefix)] == prefix for name in namespaces):
            continue
        entry = describe(node.attachments[number], now, forwarder)
        entry["namespaces"] = [shown(name) for name in sorted(namespaces)[:MOST_NAMESPACES]]
        entry["namespaces_more"] = max(len(namespaces) - MOST_NAMESPACES, 0)
        if not match or match in str(entry):
            found.append(entry)
    more = bool(ids) and last < max(ids)
    while True:
        body = _encode({"sessions": found, "next": last if more else None, "total": len(node.attachments)})
        if len(body) <= MOST_PAGE_CHARACTERS:
            return body
        found, more = found[: len(found) // 2], True
        last = found[-1]["id"]


def shown(namespace: Namespace) -> str:
    """A namespace as operators write it: fields joined by slashes, and cut."""
    return "/".join(field.decode("utf-8", "backslashreplace") for field in namespace)[:MOST_CHARACTERS]


def _encode(document: dict[str, Any]) -> str:
    return msgspec.json.encode(document).decode()
