"""Moving tracks from one upstream relay to another: make before break, and nothing that was forwarded is lost.

`forwarder` calls it when links, ways or the route table change. The new neighbour is asked while the old one still
sends; what both send is merged by byte; once the new one has reached where the track was, the old one is let go.
"""

from __future__ import annotations

from functools import partial

from relay.forwarding.book import Book, Standing
from relay.forwarding.routes import Party, Way
from relay.forwarding.subscribing import Subscribing
from relay.forwarding.track import Source, Track
from relay.forwarding.upstreams import Upstreams
from tradewind.moqt.errors import DoneCode
from tradewind.moqt.model import Location, Namespace

RETURN_S = 2.0
"""A track goes back to a better-ranked neighbour only this long after it last moved."""
PATIENCE_S = 1.0
"""How long the new neighbour may take before the old one is let go all the same, or the next one is asked."""


class Moving:
    """Follows what is best for every track that comes from neighbours."""

    def __init__(self, book: Book, upstreams: Upstreams, subscribing: Subscribing) -> None:
        self._book = book
        self._upstreams = upstreams
        self._subscribing = subscribing
        self.moves = 0
        """Tracks moved to another neighbour, since the start."""

    def reconsider(self, namespace: Namespace | None, now: float) -> None:
        """Look again at every track (below `namespace`) that neighbours feed, or that wants one to."""
        for track in tuple(self._book.tracks.values()):
            if namespace is None or track.name.namespace[: len(namespace)] == namespace:
                self._reconsider(track, now)

    def readvertised(self, session: int, namespace: Namespace, now: float) -> None:
        """A neighbour has the namespace by another way: from another publisher, what it fed us does not go on."""
        book = self._book
        for track in tuple(book.tracks.values()):
            if track.name.namespace[: len(namespace)] != namespace:
                continue
            fed = next((source for source in track.sources.values() if source.party.session == session), None)
            new = self._upstreams.way_of(session, track.name.namespace)
            if fed is None or fed.way is None or new is None:
                continue
            if new.publisher == fed.way.publisher:
                fed.way = new
            elif not any(way.publisher == fed.way.publisher for _, way in book.routes.ways(track.name.namespace)):
                for party in tuple(track.sources):
                    book.cancel(party)
                track.sources.clear()
                self._subscribing.end_track(track, DoneCode.TRACK_ENDED, "its namespace has another publisher", now)
        self.reconsider(namespace, now)

    def arrived(self, track: Track, source: Source) -> None:
        """A source that succeeds others has reached where they were: let them go."""
        source.succeeds = None
        for party, other in tuple(track.sources.items()):
            if other is not source and other.way is not None:
                del track.sources[party]
                self._book.cancel(party)

    # --- Private ---

    def _reconsider(self, track: Track, now: float) -> None:
        fed = [source for source in track.sources.values() if source.way is not None]
        if not self._subscribing.wanted(track):
            return
        if len(fed) < len(track.sources):
            # Somebody publishes it here now: once it does, we need nobody else.
            if any(source.way is None and source.established for source in track.sources.values()):
                self._let_go(track, fed)
            return
        candidates = self._upstreams.candidates(track)
        if not candidates:
            return
        best, way = candidates[0]
        if any(source.party.session == best.session for source in fed):
            return
        if not fed:
            self._ask(track, best, way, now)
        elif self._is_worth_it(track, fed, best, way, now):
            self._move(track, fed, best, way, now)

    def _is_worth_it(self, track: Track, fed: list[Source], best: Party, way: Way, now: float) -> bool:
        book = self._book
        standings = [book.members[source.party.session].standing for source in fed]
        advertised = [self._upstreams.way_of(source.party.session, track.name.namespace) for source in fed]
        if all(found is None or book.settings.hop in found.hops for found in advertised):
            return True
        if all(standing is Standing.BAD for standing in standings):
            return book.members[best.session].standing is not Standing.BAD
        if any(standing is Standing.SUSPECT for standing in standings):
            # It may be nothing: urgent tracks are doubled, and nothing moves.
            return False
        return book.members[best.session].standing is Standing.UP and now - track.moved_at >= RETURN_S

    def _move(self, track: Track, fed: list[Source], best: Party, way: Way, now: float) -> None:
        if any(source.succeeds is not None for source in fed):
            # One move at a time, unless the one that is under way leads nowhere.
            under_way = next(source for source in fed if source.succeeds is not None)
            if self._book.members[under_way.party.session].standing is not Standing.BAD:
                return
            track.sources.pop(under_way.party)
            self._book.cancel(under_way.party)
        if self._ask(track, best, way, now):
            self.moves += 1
            track.moved_at = now

    def _ask(self, track: Track, best: Party, way: Way, now: float) -> bool:
        source = self._subscribing.ask_neighbour(track, best, way)
        if source is None:
            return False
        if len(track.sources) > 1:
            source.succeeds = track.largest or Location(0, 0)
            self._book.timers.at(now + PATIENCE_S, partial(self._lose_patience, track, source))
        return True

    def _lose_patience(self, track: Track, source: Source, now: float) -> None:
        """The new source has not caught up in time: it takes over if it is there at all."""
        if source.succeeds is None or track.sources.get(source.party) is not source:
            return
        if source.established:
            self.arrived(track, source)
        else:
            del track.sources[source.party]
            self._book.cancel(source.party)
            self._reconsider(track, now)

    def _let_go(self, track: Track, sources: list[Source]) -> None:
        for source in sources:
            del track.sources[source.party]
            self._book.cancel(source.party)
