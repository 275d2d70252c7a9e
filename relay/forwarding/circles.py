"""Neighbours that ask us for tracks: they are served only below us, lest relays forward in a circle.

A neighbour that feeds us and asks us has lost its way: it is served once we have another. `forwarder` brings every
SUBSCRIBE here, and `moving` says when sources have gone or no other way is left. See `ranks`.
"""

from __future__ import annotations

from relay.forwarding import ranks
from relay.forwarding.asking import Asking
from relay.forwarding.book import Book, Turning
from relay.forwarding.routes import Party
from relay.forwarding.subscribing import Subscribing
from relay.forwarding.track import Track
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import FullTrackName, Parameters

TURN_S = 1.0
"""How long a neighbour that feeds us and asks us waits for our finding another way."""


class Circles:
    """Who is below us, and who is to be."""

    def __init__(self, book: Book, asking: Asking, subscribing: Subscribing) -> None:
        self._book = book
        self._asking = asking
        self._subscribing = subscribing

    def request(self, party: Party, name: FullTrackName, parameters: Parameters, now: float) -> None:
        """SUBSCRIBE: take it in, unless it is a neighbour's that must wait or ask somebody else."""
        track = self._subscribing.track_for(party, name)
        if track is not None and self._takes_in(party, track, parameters, now):
            self._subscribing.request(party, track, parameters, now)

    def turned(self, track: Track, now: float) -> None:
        """Sources have gone: serve neighbours that fed us, and whom we are above now."""
        for party, claim in tuple(track.neighbours.turning.items()):
            if self._may_serve(track, party, claim):
                turning = self._book.take(party)
                assert isinstance(turning, Turning)
                track.neighbours.children[party] = claim
                self._subscribing.establish(party, track, turning.parameters, turning.since, now)

    def give_back(self, turning: Turning, now: float) -> None:
        """We have no other way: who feeds us and has lost its own must ask somebody else."""
        party, track = turning.party, turning.track
        self._book.take(party)
        self._book.peer(party).reject(party.request, RequestCode.UNINTERESTED, "we have it from you")
        self._asking.reconsider(track, now)

    # --- Private ---

    def _takes_in(self, party: Party, track: Track, parameters: Parameters, now: float) -> bool:
        """Whether a subscriber is served now: a neighbour only below us, lest relays forward in a circle."""
        book = self._book
        if book.members[party.session].hop is None:
            return True
        claim = ranks.HIGHEST if parameters.rank is None else parameters.rank
        if self._may_serve(track, party, claim):
            track.neighbours.children[party] = claim
        elif self._feeds(track, party):
            turning = Turning(party, track, parameters, now)
            turning.timer = book.timers.at(now + TURN_S, lambda when: self._lose_patience(turning, when))
            track.neighbours.turning[party] = claim
            book.give(party, turning)
        else:
            book.peer(party).reject(party.request, RequestCode.UNINTERESTED, "not above you")
            book.forget_if_unused(track)
        return party in track.neighbours.children

    def _may_serve(self, track: Track, asker: Party, claim: int) -> bool:
        """Who asks a relay that it serves has not counted that one's claim: that one must have left it."""
        admitted = ranks.admits((source.claim for source in track.sources.values()), claim)
        return admitted and not self._feeds(track, asker)

    def _feeds(self, track: Track, asker: Party) -> bool:
        """Whether the relay that asks for the track is one that we take it from, or have asked for it."""
        members = self._book.members
        hop = members[asker.session].hop
        return any(members[party.session].hop == hop for party in track.sources)

    def _lose_patience(self, turning: Turning, now: float) -> None:
        self.turned(turning.track, now)
        if turning.party in turning.track.neighbours.turning:
            self.give_back(turning, now)
