"""Forwarding as an operator sees it: numbers for metrics, and what there is for the state page.

`forwarder` hands its book in; nothing here runs for an object.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from relay.forwarding.book import Announced, Book, Ending, Feeding, Serving
from relay.forwarding.peers import DropReason
from relay.forwarding.routes import Party
from tradewind.moqt.model import format_namespace


@dataclass(frozen=True, slots=True)
class ForwardingStatistics:
    """What forwarding holds now, and what it has counted since it began."""

    sessions: int
    tracks: int
    subscriptions: int
    upstream_subscriptions: int
    namespaces: int
    cache_bytes: int
    cache_groups: int
    cache_evictions: int
    """Groups that went before their time, to make room."""
    objects_in: int
    bytes_in: int
    """Payload, copies included."""
    malformed: int
    """Tracks that ended because their publishers contradict themselves."""
    drops: Counter[DropReason]
    """Objects that had arrived when they were given up for one subscriber."""


def statistics(book: Book) -> ForwardingStatistics:
    """All numbers now."""
    drops = Counter(book.drops)
    for member in book.members.values():
        drops.update(member.outbox.drops)
    for track in (*book.tracks.values(), *book.retired):
        drops.update(track.drops)
    return ForwardingStatistics(
        sessions=len(book.members),
        tracks=len(book.tracks),
        subscriptions=sum(len(track.subscriptions) for track in book.tracks.values()),
        upstream_subscriptions=sum(len(track.sources) for track in book.tracks.values()),
        namespaces=len(book.routes.announced),
        cache_bytes=book.budget.used,
        cache_groups=sum(len(track.cache.order) for track in book.tracks.values()),
        cache_evictions=book.budget.evictions,
        objects_in=book.objects_in,
        bytes_in=book.bytes_in,
        malformed=book.malformed,
        drops=drops,
    )


def tracks(book: Book) -> list[dict[str, object]]:
    """Every track: who feeds it, how many read it, what is cached."""
    return [
        {
            "track": str(name),
            "alias": track.alias,
            "sources": sorted(party.session for party in track.sources),
            "subscriptions": len(track.subscriptions),
            "waiting": len(book.waiting.get(track, ())),
            "largest": list(track.largest) if track.largest is not None else None,
            "cache_bytes": track.cache.bytes,
            "cache_groups": len(track.cache.order),
        }
        for name, track in book.tracks.items()
    ]


def namespaces(book: Book) -> list[dict[str, object]]:
    """Every published namespace, and by which sessions; by none: its publisher may come back."""
    return [
        {"namespace": format_namespace(name), "sessions": sorted(party.session for party in found.parties)}
        for name, found in book.routes.announced.items()
    ]


def reads_and_feeds(book: Book, session: int) -> tuple[int, int]:
    """How many tracks a session subscribes to here, and how many it feeds."""
    member = book.members.get(session)
    roles = [book.roles.get(Party(session, request)) for request in member.requests] if member is not None else []
    reads = sum(isinstance(role, Serving | Ending) for role in roles)
    return reads, sum(isinstance(role, Feeding) for role in roles)


def publishes(book: Book, session: int) -> bool:
    """Whether a session has announced a namespace that neighbours hear of, or sent a PUBLISH."""
    member = book.members.get(session)
    for party in (Party(session, request) for request in member.requests) if member is not None else ():
        match book.roles.get(party):
            case Feeding() as role if role.source.published:
                return True
            case Announced():
                namespace = book.routes.namespace_of(party)
                if namespace is not None and not book.routes.announced[namespace].private:
                    return True
    return False
