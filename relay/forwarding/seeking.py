"""Tracks that somebody published at another relay, for who asked here for all tracks under a prefix.

Neighbours say by name which tracks of a namespace came with PUBLISH. Where a SUBSCRIBE_TRACKS here matches such a track
is subscribed to like any other, by the best way, and offered here once that is answered: see `discovery`. `forwarder`
calls `look` whenever ways or wishes have changed.
"""

from __future__ import annotations

from relay.forwarding.asking import Asking
from relay.forwarding.book import Book
from relay.forwarding.discovery import Discovery
from tradewind.moqt.model import FullTrackName, Namespace


class Seeking:
    """SUBSCRIBE_TRACKS, across relays."""

    def __init__(self, book: Book, discovery: Discovery, asking: Asking) -> None:
        self._book = book
        self._discovery = discovery
        self._asking = asking

    def look(self, namespace: Namespace, now: float) -> None:
        """The ways to a namespace have changed."""
        routes = self._book.routes
        found = routes.announced.get(namespace)
        if found is None or not routes.tracks_interests:
            return
        names = set[bytes]().union(*(way.tracks for way in found.ways.values()))
        for name in sorted(names):
            self._seek(FullTrackName(namespace, name), now)

    def look_under(self, prefix: Namespace, now: float) -> None:
        """Somebody wants to hear of all tracks under a prefix."""
        for namespace, found in tuple(self._book.routes.announced.items()):
            if found.ways and namespace[: len(prefix)] == prefix:
                self.look(namespace, now)

    def leave(self, prefix: Namespace, now: float) -> None:
        """Somebody does no longer: what nobody else reads is let go."""
        for track in self._book.tracks.under(prefix):
            self._asking.reconsider(track, now)

    # --- Private ---

    def _seek(self, name: FullTrackName, now: float) -> None:
        book = self._book
        if not any(book.routes.interested_in_track(name)):
            return
        if name not in book.tracks and len(book.tracks) >= book.settings.max_tracks:
            return
        track = book.track(name)
        if track.established:
            self._discovery.offer_everywhere(track, set())
        elif not track.sources:
            self._asking.seek(track)
