"""Tracks that come from several publishers at different relays: whom to have them from, and when to ask another.

Publishers change relays, and the relay that they have left may take half a minute to notice. So a track is asked for
where its namespace has just appeared, whoever feeds it, as a relay does that hears of a second publisher of its own.
While all are alive neighbours are let go, so that nothing comes over a link twice for long; where who is left falls
silent, another is asked again. `forwarder` calls it when ways and sources have changed.
"""

from __future__ import annotations

from functools import partial

from relay.forwarding.asking import Asking
from relay.forwarding.book import Book
from relay.forwarding.feed import Source
from relay.forwarding.routes import Party, Way
from relay.forwarding.track import Track
from relay.forwarding.upstreams import Upstreams
from tradewind.moqt.model import Namespace

LOOK_S = 1.0
"""How often it is looked at who sends."""
BUSY_LOOKS = 2
"""A track on which so many looks in a row saw something new costs something: one publisher is enough for it."""
SILENT_S = 2.0
"""After so long without anything new another publisher is asked."""


class Several:
    """Watches the tracks that have, or may have, more than one publisher."""

    def __init__(self, book: Book, upstreams: Upstreams, asking: Asking) -> None:
        self._book = book
        self._upstreams = upstreams
        self._asking = asking
        self._looks: dict[Track, int] = {}
        """How many looks in a row saw something new, of each track that is watched."""

    def appeared(self, party: Party, way: Way, namespace: Namespace, now: float) -> None:
        """A neighbour has a way to a namespace: what is fed by another publisher is asked for there as well."""
        for track in self._book.tracks.under(namespace):
            if self._asking.wanted(track):
                if track.sources and self._is_another(track, party, way):
                    self._asking.ask_afresh(track, party, way)
                self.watch(track, now)

    def watch(self, track: Track, now: float) -> None:
        """A track may have more than one publisher from now on."""
        if track not in self._looks and self._is_of_use(track):
            self._rearm(track, 0, now)

    # --- Private ---

    def _rearm(self, track: Track, looks: int, now: float) -> None:
        self._looks[track] = looks
        self._book.timers.at(now + LOOK_S, partial(self._look, track))

    def _look(self, track: Track, now: float) -> None:
        looks = self._looks.pop(track)
        if self._book.tracks.get(track.name) is not track or not self._is_of_use(track):
            return
        latest = max(source.last_at for source in track.sources.values())
        looks = looks + 1 if latest >= now - LOOK_S else 0
        if looks >= BUSY_LOOKS:
            self._keep_one(track, now)
        elif latest < now - SILENT_S:
            self._ask_another(track)
        self._rearm(track, looks, now)

    def _keep_one(self, track: Track, now: float) -> None:
        """Keep who stays, the nearest and first of those who send, and every publisher here."""
        sends = [source for source in track.sources.values() if source.last_at >= now - LOOK_S]
        members = self._book.members
        keep = min(
            sends,
            key=lambda one: (members[one.party.session].leaving, one.way is not None, one.established_at or now),
        )
        for source in tuple(track.sources.values()):
            if source.way is not None and source.established and _publisher(source) != _publisher(keep):
                del track.sources[source.party]
                self._book.cancel(source.party)

    def _ask_another(self, track: Track) -> None:
        for party, way in self._upstreams.candidates(track):
            if self._is_another(track, party, way):
                self._asking.ask_afresh(track, party, way)
                return

    def _is_another(self, track: Track, party: Party, way: Way) -> bool:
        """Whether a neighbour has a track, as far as is known, from a publisher that does not feed it yet."""
        if any(source.party.session == party.session for source in track.sources.values()):
            return False
        if way.publisher in map(_publisher, track.sources.values()):
            return False
        return any(candidate == party for candidate, _ in self._upstreams.candidates(track))

    def _is_of_use(self, track: Track) -> bool:
        if not track.sources or not self._asking.wanted(track):
            return False
        feeds = set(map(_publisher, track.sources.values()))
        if len(feeds) > 1 and any(source.way is not None for source in track.sources.values()):
            return True
        return any(way.publisher not in feeds for _, way in self._upstreams.candidates(track))


def _publisher(source: Source) -> int | None:
    return None if source.way is None else source.way.publisher
