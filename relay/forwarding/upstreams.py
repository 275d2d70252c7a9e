"""Which neighbour a namespace comes from, and which of ours they are told of.

`asking` asks whom a SUBSCRIBE goes to where nobody publishes here; `moving` asks again when something changed.
The route table ranks neighbours towards an origin; a neighbour counts only while it advertises the namespace by a way
that does not lead through us, or through a relay that we serve. Source: MoQ Cluster, "Relay Behavior" and "Path
Selection"; the ranking by measured links is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from relay.forwarding import ranks
from relay.forwarding.book import Book, Member, Standing, Told
from relay.forwarding.routes import Party, Way
from relay.forwarding.track import Track
from tradewind.moqt.model import FullTrackName, Namespace

MOST_TRACKS, MOST_NAMES_BYTES = 256, 16_384
"""How many published tracks of a namespace neighbours are told of."""
MOST_RELAYS = 3
"""On the way of an advertisement: with ourselves behind it, two stand between the origin and us."""
WITHHELD_S = 10.0
"""How long a neighbour is not told of a way that is bad from us, unless it is better sooner."""
UNRANKED = 99
"""The place of a neighbour that the route table does not name."""


class Upstreams:
    """Ways to namespaces: taken from neighbours, chosen among, told to neighbours."""

    def __init__(self, book: Book) -> None:
        self._book = book

    # --- Choosing ---

    def who_knows(self, namespace: Namespace, asker: int, budget: int | None) -> list[tuple[int, int | None]]:
        """Whom to ask about a track that nobody feeds here: sessions, and what budget goes with the question.

        Publishers here, or else neighbours, best first, but not through the `asker` (a session). `budget` is how many
        relays may still be asked, None where the question comes from outside the mesh.
        """
        book = self._book
        here: list[tuple[int, int | None]] = [(party.session, None) for party in book.routes.publishers(namespace)]
        left = ranks.HIGHEST if budget is None else min(budget, ranks.HIGHEST)
        if here or left == 0:
            return here
        member = book.members.get(asker)
        ways = sorted(book.routes.ways(namespace), key=self._merit)
        return [
            (party.session, left - 1)
            for party, way in ways
            if member is None or member.hop is None or member.hop not in way.hops
        ]

    def candidates(self, track: Track) -> list[tuple[Party, Way]]:
        """Neighbours that a track may be asked of, best first."""
        below = self._hops_below(track)
        return sorted(
            (
                (party, way)
                for party, way in self._book.routes.ways(track.name.namespace)
                if party.session not in track.neighbours.declined
                and below.isdisjoint(way.hops)
                and self.claim(track, way) is not None
            ),
            key=self._merit,
        )

    def turnable(self, track: Track) -> list[tuple[Party, Way]]:
        """Neighbours that we serve the track and that know a way of their own, best first, but for bad ones.

        They may be asked where nobody else is left: they take their own way, leave us and serve us.
        """
        below = self._hops_below(track)
        return sorted(
            (
                (party, way)
                for party, way in self._book.routes.ways(track.name.namespace)
                if way.neighbour in below
                and party.session not in track.neighbours.declined
                and self._book.members[party.session].worth < Standing.BAD
                and (below - {way.neighbour}).isdisjoint(way.hops)
                and self.claim(track, way) is not None
            ),
            key=self._merit,
        )

    def is_below(self, track: Track, hop: int) -> bool:
        """Whether that neighbour has the track from us, or waits for us to serve it."""
        return hop in self._hops_below(track)

    def claim(self, track: Track, way: Way) -> int | None:
        """What to claim of the neighbour that has this way; None: those below us leave no room.

        What that neighbour itself claims of us does not count: it leaves us before it serves us. What comes from
        another region others of our own may want from us: there is room left for them.
        """
        book = self._book
        below = track.neighbours.below()
        others = (claim for party, claim in below if book.members[party.session].hop != way.neighbour)
        leaves_room = bool(book.near) and book.near.isdisjoint((way.neighbour, way.origin))
        return ranks.claim(way.relays, others, leaves_room=leaves_room)

    def way_of(self, session: int, namespace: Namespace) -> Way | None:
        """By which way a neighbour has the namespace now."""
        return next((way for party, way in self._book.routes.ways(namespace) if party.session == session), None)

    def leads_here(self, way: Way, session: int) -> bool:
        """Whether a way is of no use to us: it goes through us, is too long, or does not end at that neighbour."""
        hop = self._book.members[session].hop
        return self._book.settings.hop in way.hops or not 1 <= way.relays <= MOST_RELAYS or way.neighbour != hop

    # --- Telling ---

    def tell_of(self, namespace: Namespace) -> None:
        """The ways to a namespace changed: say so to every neighbour for whom that matters."""
        for member in tuple(self._book.members.values()):
            if member.hop is not None:
                self._tell(member, namespace)

    def tell_all(self, session: int) -> None:
        """A neighbour is here: tell it of every namespace."""
        member = self._book.members[session]
        for namespace in {**self._book.routes.announced, **self._book.routes.published}:
            self._tell(member, namespace)

    def published(self, track: FullTrackName) -> None:
        """A track came with PUBLISH: neighbours hear of its namespace and of its name."""
        if self._book.routes.publish(track):
            self.tell_of(track.namespace)

    def unpublished(self, track: FullTrackName) -> None:
        """A track is published no longer, if it was."""
        if self._book.routes.unpublish(track):
            self.tell_of(track.namespace)

    def origins(self) -> list[tuple[Namespace, int]]:
        """Namespaces that are published here, with their publishers' Hop IDs."""
        here, routes = self._book.settings.hop, self._book.routes
        epochs = {name: one.epoch for name, one in routes.published.items()}
        for name, one in routes.announced.items():
            if len(one.parties) > len(one.ways):
                epochs[name] = one.epoch
        return [(name, publisher_hop(here, name, epoch)) for name, epoch in epochs.items()]

    def withhold(self, track: Track, now: float) -> None:
        """What feeds a track is bad, and the claims below us leave no room for anything else: have those go elsewhere.

        Only neighbours that told us of a way of their own: they move, and we may ask others, or them.
        """
        book = self._book
        for session in {party.session for party in track.neighbours.children}:
            member, way = book.members[session], self.way_of(session, track.name.namespace)
            if member.standing >= Standing.BAD or way is None or book.settings.hop in way.hops:
                continue
            for namespace in [name for name in member.told if track.name.namespace[: len(name)] == name]:
                member.withheld[namespace] = now + WITHHELD_S
                self._tell(member, namespace)

    def keep_house(self, now: float) -> None:
        """Forget tracks that are published no longer; tell again what was withheld."""
        for member in self._book.members.values():
            for namespace, until in tuple(member.withheld.items()):
                if now >= until or not self._all_bad(member, namespace):
                    del member.withheld[namespace]
                    self._tell(member, namespace)
        for namespace, one in tuple(self._book.routes.published.items()):
            for name in tuple(one.names):
                track = self._book.tracks.get(FullTrackName(namespace, name))
                kept = track is not None and (
                    track.lingers_until is not None or any(feed.published for feed in track.sources.values())
                )
                if not kept:
                    self.unpublished(FullTrackName(namespace, name))

    def refused(self, session: int, request: int) -> None:
        """A neighbour does not want to hear of a namespace."""
        told = self._book.members[session].told
        for namespace in [namespace for namespace, found in told.items() if found.request == request]:
            del told[namespace]

    # --- Private ---

    def _merit(self, entry: tuple[Party, Way]) -> tuple[int, int, int, int, int]:
        party, way = entry
        book = self._book
        worth = book.members[party.session].worth
        return way.cost, worth, book.positions.get((way.origin, way.neighbour), UNRANKED), way.relays, way.neighbour

    def _all_bad(self, member: Member, namespace: Namespace) -> bool:
        """Whether every way that this neighbour might be told of is bad."""
        found = self._book.routes.announced.get(namespace)
        if found is None or len(found.parties) > len(found.ways):
            return False
        ways = [party for party, way in found.ways.items() if member.hop not in way.hops]
        return all(self._book.members[party.session].standing >= Standing.BAD for party in ways)

    def _hops_below(self, track: Track) -> set[int | None]:
        return {self._book.members[party.session].hop for party, _ in track.neighbours.below()}

    def _tell(self, member: Member, namespace: Namespace) -> None:
        way = None if namespace in member.withheld else self._best_for(member, namespace)
        told = member.told.get(namespace)
        if way is None:
            if told is not None:
                del member.told[namespace]
                member.peer.cancel(told.request)
        elif told is None:
            request = member.peer.publish_namespace(namespace, way)
            if request is not None:
                member.told[namespace] = Told(request, way)
        elif told.way != way:
            told.way = way
            member.peer.readvertise(told.request, way)

    def _best_for(self, member: Member, namespace: Namespace) -> Way | None:
        """The way by which we have a namespace, ours included, that does not lead through this neighbour."""
        book = self._book
        found, published = book.routes.announced.get(namespace), book.routes.published.get(namespace)
        here = book.settings.hop
        if found is not None and found.private:
            return None
        announced = found is not None and found.is_here
        if announced or published is not None:
            life = found if published is None else published
            assert life is not None
            names = frozenset() if published is None else _few(published.names)
            cost = int(found is not None and found.lingers_until is not None and published is None)
            return Way((publisher_hop(here, namespace, life.epoch), here), cost, names, announced)
        if found is None:
            return None
        ways = sorted(found.ways.items(), key=self._merit)
        return next(
            (
                way._replace(hops=(*way.hops, here))
                for _, way in ways
                if way.relays < MOST_RELAYS and member.hop not in way.hops and here not in way.hops
            ),
            None,
        )


def _few(names: Iterable[bytes]) -> frozenset[bytes]:
    """As many of these as a neighbour is told of, the first ones."""
    found: list[bytes] = []
    size = 0
    for name in names:
        size += len(name)
        if len(found) == MOST_TRACKS or size > MOST_NAMES_BYTES:
            break
        found.append(name)
    return frozenset(found)


def publisher_hop(relay: int, namespace: Namespace, epoch: int) -> int:
    """The Hop ID that an origin gives a publisher without one: the same as long as the namespace lives there."""
    text = b"\0".join((str(relay).encode(), str(epoch).encode(), *namespace))
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 2 or 1
