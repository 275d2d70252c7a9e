"""Who publishes which namespace, and who wants to hear of it.

`forwarder` asks here which publishers a SUBSCRIBE goes to and which subscribers a namespace or PUBLISH is told to.
Namespaces match field by field (draft-20, "Publisher Interactions": Namespace Prefix Matching).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tradewind.moqt.model import FullTrackName, GroupOrder, Namespace, RangeFilter


class Party(NamedTuple):
    """One request of one session."""

    session: int
    request: int


@dataclass(slots=True)
class Announcement:
    """A published namespace: the PUBLISH_NAMESPACE requests behind it, and until when it stays without one."""

    parties: list[Party] = field(default_factory=list)
    lingers_until: float | None = None
    flipped_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class TracksInterest:
    """A SUBSCRIBE_TRACKS: the parameters that its PUBLISH messages start with."""

    prefix: Namespace
    forward: bool
    priority: int
    order: GroupOrder | None
    range_filters: tuple[RangeFilter, ...] = ()


class Routes:
    """Namespaces, and subscriptions to prefixes of them."""

    def __init__(self) -> None:
        self.announced: dict[Namespace, Announcement] = {}
        self.namespace_interests: dict[Party, Namespace] = {}
        self.tracks_interests: dict[Party, TracksInterest] = {}
        self._announced_by: dict[Party, Namespace] = {}

    def announce(self, party: Party, namespace: Namespace) -> bool:
        """Add a publisher of a namespace; returns whether the namespace is new to everybody."""
        found = self.announced.get(namespace)
        fresh = found is None
        if found is None:
            found = self.announced[namespace] = Announcement()
        found.parties.append(party)
        found.lingers_until = None
        self._announced_by[party] = namespace
        return fresh

    def withdraw(self, party: Party, lingers_until: float | None = None) -> Namespace | None:
        """Take one publisher away; returns the namespace if it is gone with it.

        With `lingers_until` a namespace that lost its last publisher stays until then: see `expire`.
        """
        namespace = self._announced_by.pop(party, None)
        if namespace is None:
            return None
        found = self.announced[namespace]
        found.parties.remove(party)
        if found.parties:
            return None
        if lingers_until is not None:
            found.lingers_until = lingers_until
            return None
        del self.announced[namespace]
        return namespace

    def expire(self, now: float) -> list[Namespace]:
        """Remove and return the namespaces whose linger time is over."""
        gone = [
            namespace
            for namespace, found in self.announced.items()
            if found.lingers_until is not None and found.lingers_until <= now
        ]
        for namespace in gone:
            del self.announced[namespace]
        return gone

    def announced_by(self, session: int) -> list[Party]:
        """The PUBLISH_NAMESPACE requests of one session."""
        return [party for party in self._announced_by if party.session == session]

    def namespace_of(self, party: Party) -> Namespace | None:
        return self._announced_by.get(party)

    def publishers(self, namespace: Namespace) -> Iterator[Party]:
        """Whom a SUBSCRIBE to a track in `namespace` goes to: publishers of it or of a prefix of it."""
        seen: set[int] = set()
        for length in range(len(namespace), -1, -1):
            found = self.announced.get(namespace[:length])
            for party in found.parties if found is not None else ():
                if party.session not in seen:
                    seen.add(party.session)
                    yield party

    def lingering(self, namespace: Namespace) -> bool:
        """Whether a publisher of the namespace has gone so lately that it may come back."""
        return any(
            (found := self.announced.get(namespace[:length])) is not None and found.lingers_until is not None
            for length in range(len(namespace) + 1)
        )

    def interested_in(self, namespace: Namespace) -> Iterator[Party]:
        """The SUBSCRIBE_NAMESPACE requests whose prefix matches."""
        return (
            party for party, prefix in tuple(self.namespace_interests.items()) if namespace[: len(prefix)] == prefix
        )

    def interested_in_track(self, track: FullTrackName) -> Iterator[tuple[Party, TracksInterest]]:
        """The SUBSCRIBE_TRACKS requests whose prefix matches."""
        return (
            (party, interest)
            for party, interest in tuple(self.tracks_interests.items())
            if track.namespace[: len(interest.prefix)] == interest.prefix
        )

    def under(self, prefix: Namespace) -> list[Namespace]:
        """Published namespaces with this prefix."""
        return [namespace for namespace in self.announced if namespace[: len(prefix)] == prefix]

    def check_invariants(self) -> None:
        for party, namespace in self._announced_by.items():
            assert party in self.announced[namespace].parties
        for namespace, found in self.announced.items():
            assert found.parties or found.lingers_until is not None
            assert all(self._announced_by[party] == namespace for party in found.parties)
