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


class Way(NamedTuple):
    """By which way a neighbour has a namespace (MoQ Cluster, "HOP_PATH Parameter")."""

    hops: tuple[int, ...]
    """Hop IDs: the Original Publisher's, the origin relay's, and so on to the neighbour's own."""
    cost: int = 0
    """1 where the publisher has gone and may come back."""
    tracks: frozenset[bytes] = frozenset()
    """Names of tracks there that came with PUBLISH."""
    announced: bool = True
    """False: the namespace is there only because those tracks are."""

    @property
    def publisher(self) -> int:
        return self.hops[0]

    @property
    def origin(self) -> int:
        """The relay that has the Original Publisher's session."""
        return self.hops[1]

    @property
    def neighbour(self) -> int:
        return self.hops[-1]

    @property
    def relays(self) -> int:
        """How many there are on it: 1 where the neighbour is the origin."""
        return len(self.hops) - 1


@dataclass(slots=True)
class Announcement:
    """A published namespace: the PUBLISH_NAMESPACE requests behind it, and until when it stays without one."""

    parties: list[Party] = field(default_factory=list)
    ways: dict[Party, Way] = field(default_factory=dict)
    """Of those parties that are neighbours."""
    epoch: int = 0
    """Which life of the namespace at this relay it is."""
    lingers_until: float | None = None
    was_here: bool = False
    """Whether the publisher that may come back was one of ours."""
    flipped_at: float = float("-inf")
    private: bool = False
    """Neighbours are not told of it: who publishes below it is of this relay's concern alone."""

    @property
    def is_told(self) -> bool:
        """Whether who listens for namespaces hears of it: not where it is only the place of published tracks."""
        return len(self.parties) > len(self.ways) or not self.ways or any(way.announced for way in self.ways.values())

    @property
    def is_here(self) -> bool:
        """Whether it is published at this relay, or was so lately that its publisher may come back."""
        return len(self.parties) > len(self.ways) or (not self.parties and self.was_here)


@dataclass(slots=True)
class Published:
    """A namespace in which tracks came with PUBLISH, here."""

    epoch: int
    """Which life of the namespace at this relay it is."""
    names: dict[bytes, None] = field(default_factory=dict)


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
        self.published: dict[Namespace, Published] = {}
        self.namespace_interests: dict[Party, Namespace] = {}
        self.tracks_interests: dict[Party, TracksInterest] = {}
        self._announced_by: dict[Party, Namespace] = {}
        self._epochs = 0

    def announce(self, party: Party, namespace: Namespace, way: Way | None = None, *, private: bool = False) -> bool:
        """Add a publisher of a namespace, or a neighbour that has a `way` to one; returns whether it is new to all."""
        found = self.announced.get(namespace)
        fresh = found is None
        if found is None:
            found = self.announced[namespace] = Announcement(epoch=self._epoch_of(namespace))
        found.parties.append(party)
        if way is not None:
            found.ways[party] = way
        found.lingers_until = None
        found.private = private
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
        way = found.ways.pop(party, None)
        if found.parties:
            return None
        if lingers_until is not None and (way is None or way.announced):
            found.lingers_until, found.was_here = lingers_until, way is None
            return None
        del self.announced[namespace]
        return namespace

    def renew(self, namespace: Namespace) -> None:
        """What is published under this name from now on has nothing to do with what was."""
        self._epochs += 1
        self.announced[namespace].epoch = self._epochs
        if namespace in self.published:
            self.published[namespace].epoch = self._epochs

    def publish(self, track: FullTrackName) -> bool:
        """A track came with PUBLISH, here; returns whether that is new."""
        found = self.published.get(track.namespace)
        if found is None:
            found = self.published[track.namespace] = Published(self._epoch_of(track.namespace))
        fresh = track.name not in found.names
        found.names[track.name] = None
        return fresh

    def unpublish(self, track: FullTrackName) -> bool:
        """A track that came with PUBLISH is here no longer; returns whether it was."""
        found = self.published.get(track.namespace)
        if found is None or track.name not in found.names:
            return False
        del found.names[track.name]
        if not found.names:
            del self.published[track.namespace]
        return True

    def is_published_elsewhere(self, track: FullTrackName) -> bool:
        """Whether a neighbour says that somebody sent PUBLISH for the track."""
        found = self.announced.get(track.namespace)
        return found is not None and any(track.name in way.tracks for way in found.ways.values())

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

    def is_nearer_elsewhere(self, namespace: Namespace) -> bool:
        """Whether a neighbour has a longer prefix of `namespace` than any publisher here."""
        for length in range(len(namespace), -1, -1):
            found = self.announced.get(namespace[:length])
            if found is not None and found.parties:
                return len(found.parties) == len(found.ways)
        return False

    def publishers(self, namespace: Namespace) -> Iterator[Party]:
        """Whom a SUBSCRIBE to a track in `namespace` goes to: publishers here of it or of a prefix of it."""
        seen: set[int] = set()
        for length in range(len(namespace), -1, -1):
            found = self.announced.get(namespace[:length])
            if found is None:
                continue
            for party in found.parties:
                if party.session not in seen and party not in found.ways:
                    seen.add(party.session)
                    yield party

    def ways(self, namespace: Namespace) -> list[tuple[Party, Way]]:
        """The neighbours that have `namespace` or a prefix of it, in no order; a neighbour's longest prefix counts."""
        seen: dict[int, tuple[Party, Way]] = {}
        for length in range(len(namespace), -1, -1):
            found = self.announced.get(namespace[:length])
            if found is not None:
                for party, way in found.ways.items():
                    seen.setdefault(party.session, (party, way))
        return list(seen.values())

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
        """Published namespaces with this prefix, but for those that are only the place of published tracks."""
        return [
            namespace
            for namespace, found in self.announced.items()
            if namespace[: len(prefix)] == prefix and found.is_told
        ]

    def _epoch_of(self, namespace: Namespace) -> int:
        """The epoch of a namespace that is now announced, or published in, too; else the next one."""
        known = self.announced.get(namespace) or self.published.get(namespace)
        if known is not None:
            return known.epoch
        self._epochs += 1
        return self._epochs

    def check_invariants(self) -> None:
        for party, namespace in self._announced_by.items():
            assert party in self.announced[namespace].parties
        for namespace, found in self.announced.items():
            assert found.parties or found.lingers_until is not None
            assert all(self._announced_by[party] == namespace for party in found.parties)
            assert found.ways.keys() <= set(found.parties)
        assert all(found.names for found in self.published.values())
