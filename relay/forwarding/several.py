"""Tracks that come from several publishers at different relays: kept from all of them until it shows who sends.

Publishers change relays, and the relay that they have left may take half a minute to notice. So a track is asked for
where its namespace has just appeared, whoever feeds it, as a relay does that hears of a second publisher of its own;
`subscribing` and `moving` then ask `Several` to watch it. Who falls silent while another goes on is let go; as long as
all are alive the neighbours are, so that nothing comes over a link twice for long.
"""

from __future__ import annotations

from functools import partial

from relay.forwarding.book import Book
from relay.forwarding.track import Source, Track

LOOK_S = 1.0
"""How often it is looked at, and how far behind the first one who sends may be."""


class Several:
    """Watches tracks with more sources than they need."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._watched: set[Track] = set()

    def watch(self, track: Track, now: float) -> None:
        """A track may have got a source beside those it had."""
        if track not in self._watched and _are_several(track):
            self._watched.add(track)
            self._book.timers.at(now + LOOK_S, partial(self._look, track))

    # --- Private ---

    def _look(self, track: Track, now: float) -> None:
        self._watched.discard(track)
        if self._book.tracks.get(track.name) is not track or not _are_several(track):
            return
        latest = max(source.last_at for source in track.sources.values())
        alive = [
            source for source in track.sources.values() if source.established and source.last_at >= latest - LOOK_S
        ]
        if alive and latest > float("-inf"):
            # Whoever stays, is nearest and was first; publishers here are never let go.
            keep = min(alive, key=lambda one: (self._is_leaving(one), one.way is not None, one.established_at))
            for source in tuple(track.sources.values()):
                if source is not keep and source.way is not None and source.established and not source.doubles:
                    del track.sources[source.party]
                    self._book.cancel(source.party)
        self.watch(track, now)

    def _is_leaving(self, source: Source) -> bool:
        return self._book.members[source.party.session].leaving


def _are_several(track: Track) -> bool:
    """Whether different publishers feed a track, one of them at another relay."""
    found = {_publisher(source) for source in track.sources.values()}
    return len(found) > 1 and any(source.way is not None for source in track.sources.values())


def _publisher(source: Source) -> int | None:
    return None if source.way is None else source.way.publisher
