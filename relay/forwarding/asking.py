"""Our subscriptions: whom a track is asked of, what is asked, and when it is let go.

One upstream subscription feeds a track however many subscribe to it. `subscribing` asks for what nobody feeds here,
`moving` and `several` for what may come better, or from somebody else, `seeking` for what is only to be offered; what
publishers answer is in `sources`. Source: draft-20, "Publisher Interactions" and "Forward Handling".
"""

from __future__ import annotations

from relay.forwarding.book import Book, Feeding
from relay.forwarding.discovery import Discovery
from relay.forwarding.feed import Source
from relay.forwarding.routes import Party, TracksInterest, Way
from relay.forwarding.track import DYNAMIC_GROUPS, Track
from relay.forwarding.upstreams import Upstreams
from tradewind.moqt.errors import DoneCode
from tradewind.moqt.model import NEXT_OBJECT, FilterKind, Location, LocationFilter, Namespace, Parameters


class Asking:
    """SUBSCRIBE and its updates, to publishers and neighbours."""

    def __init__(self, book: Book, discovery: Discovery, upstreams: Upstreams) -> None:
        self._book = book
        self._discovery = discovery
        self._upstreams = upstreams

    def wanted(self, track: Track) -> bool:
        """Whether somebody reads the track or waits for it, or is to be told of it."""
        read = track.subscriptions or track.neighbours.turning or self._book.waiting.get(track)
        return bool(read) or any(self._seekers(track))

    def ask_somebody(self, track: Track) -> bool:
        """SUBSCRIBE to every publisher here of the namespace, or else to the best neighbour; whether any was asked.

        To both where the neighbour has a longer prefix of it than anybody here.
        """
        namespace = track.name.namespace
        publishers = tuple(self._book.routes.publishers(namespace))
        asked = sum(self._ask(track, party) for party in publishers) > 0
        if not asked or self._book.routes.is_nearer_elsewhere(namespace):
            asked |= self.ask_next_neighbour(track)
        return asked

    def ask_next_neighbour(self, track: Track, after: int | None = None) -> bool:
        """SUBSCRIBE to the best neighbour, or the one that comes after session `after`."""
        candidates = self._upstreams.candidates(track)
        sessions = [party.session for party, _ in candidates]
        rest = candidates[sessions.index(after) + 1 :] if after in sessions else candidates
        return any(self.ask_neighbour(track, party, way) is not None for party, way in rest[:1])

    def ask_neighbour(self, track: Track, party: Party, way: Way) -> Source | None:
        """SUBSCRIBE to a neighbour, with the rank that we claim, from where we are; None where it cannot be asked."""
        claim = self._upstreams.claim(track, way)
        if claim is None:
            return None
        starts = [
            entry.parameters.filter.start
            for entry in self._book.waiting.get(track, ())
            if entry.party in track.neighbours.children
            and entry.parameters.filter is not None
            and entry.parameters.filter.kind is FilterKind.ABSOLUTE
        ]
        here = track.resume_at()
        start = min(starts, default=None) if here is None else here
        return self._subscribe(track, party.session, way, claim, start)

    def ask_afresh(self, track: Track, party: Party, way: Way) -> None:
        """SUBSCRIBE to a neighbour with another publisher: what that has need not begin where we are."""
        claim = self._upstreams.claim(track, way)
        if claim is not None and not self._upstreams.is_below(track, way.neighbour):
            self._subscribe(track, party.session, way, claim)

    def announced(self, party: Party, namespace: Namespace) -> None:
        """A publisher appeared: ask it for every track under its namespace that somebody reads or waits for.

        Tracks that are held and nobody reads are let go: their source may be dead and not known to be, what it left is
        of the past, and publishers refuse to be asked for nothing. The next reader asks everybody anew.
        """
        for track in self._book.tracks.under(namespace):
            if self.wanted(track):
                self._ask(track, party)
            else:
                self.release(track)

    def seek(self, track: Track) -> None:
        """Have a track here that somebody wants to be told of, and nobody has asked for by name."""
        if not self.ask_somebody(track):
            self._book.forget_if_unused(track)

    def match_forward(self, track: Track) -> None:
        """Ask sources to send if somebody wants objects ("Forward Handling")."""
        if not any(subscription.forward for subscription in track.subscriptions.values()):
            return
        for party, source in track.sources.items():
            if source.is_live and not source.forward:
                source.forward = True
                # A neighbour holds what came meanwhile; who has paused goes on with the next object.
                start = None if source.way is None else NEXT_OBJECT
                self._book.peer(party).update(party.request, Parameters(forward=True, filter=start))

    def pass_new_group(self, track: Track, wish: int) -> None:
        """NEW_GROUP_REQUEST of an established subscription ("NEW GROUP REQUEST Parameter", Relay Handling)."""
        largest = -1 if track.largest is None else track.largest.group
        if not track.integer(DYNAMIC_GROUPS, 0) or (wish != 0 and wish <= largest):
            return
        wished = track.sources.wished_group
        if wished is not None and wished[1] == largest and wished[0] >= wish:
            return
        track.sources.wished_group = (wish, largest)
        for party, source in track.sources.items():
            if source.is_live:
                self._book.peer(party).update(party.request, Parameters(new_group=wish))

    def reconsider(self, track: Track, now: float) -> None:
        """Somebody left: if nobody is left, the upstream subscription goes after the linger time.

        That to a neighbour goes at once: it lingers there, and who comes next begins where the publisher is by then.
        """
        if self.wanted(track) or track.offers:
            return
        if not track.established:
            self.cancel_unanswered(track)
            self._book.forget_if_unused(track)
            return
        if track.sources and all(source.way is not None for source in track.sources.values()):
            self.release(track)
        else:
            self._book.timers.at(now + self._book.settings.linger_s, lambda _: self.release(track))

    def release(self, track: Track) -> None:
        """Let go what feeds a track that nobody reads."""
        if self.wanted(track) or track.offers or self._book.tracks.get(track.name) is not track:
            return
        for party, source in tuple(track.sources.items()):
            if not source.published:
                del track.sources[party]
                self._book.cancel(party)
        if not track.sources:
            track.established = False
            self._discovery.withdraw_offers(track, DoneCode.TRACK_ENDED, "nobody publishes it any more")
            self._book.forget_if_unused(track)

    def cancel_unanswered(self, track: Track) -> None:
        """Nobody waits any more: take back the SUBSCRIBEs that publishers have not answered."""
        if self._book.waiting.get(track) or track.established:
            return
        for party, source in tuple(track.sources.items()):
            if not source.established:
                del track.sources[party]
                self._book.cancel(party)

    # --- Private ---

    def _ask(self, track: Track, publisher: Party) -> bool:
        """SUBSCRIBE to a publisher here; whether it was asked."""
        if any(source.session == publisher.session for source in track.sources):
            return False
        return self._subscribe(track, publisher.session, None, 0) is not None

    def _subscribe(
        self, track: Track, session: int, way: Way | None, claim: int, start: Location | None = None
    ) -> Source | None:
        """SUBSCRIBE, without a filter: publishers answer that with their current group from its first object.

        Neighbours are told where to `start`, where there is such a place.
        """
        book = self._book
        peer = book.members[session].peer
        waiting = book.waiting.get(track, ())
        forward = any(sub.forward for sub in track.subscriptions.values()) or any(
            entry.parameters.forward is not False for entry in waiting
        )
        if way is not None and not forward:
            forward = any(wish.forward for wish in self._seekers(track))
        wishes = [entry.parameters.new_group for entry in waiting if entry.parameters.new_group is not None]
        request = peer.subscribe(
            track.name,
            Parameters(
                forward=forward,
                priority=128,
                new_group=max(wishes, default=None),
                rank=None if way is None else claim,
                filter=None if start is None else LocationFilter(FilterKind.ABSOLUTE, start=start),
            ),
        )
        if request is None:
            return None
        party = Party(session, request)
        source = Source(party, published=False, forward=forward, way=way, claim=claim)
        track.sources.add(source)
        book.give(party, Feeding(track, source))
        return source

    def _seekers(self, track: Track) -> list[TracksInterest]:
        """The SUBSCRIBE_TRACKS of theirs that match, where a neighbour says that the track is published there."""
        routes = self._book.routes
        if not routes.tracks_interests or not routes.is_published_elsewhere(track.name):
            return []
        return [interest for _, interest in routes.interested_in_track(track.name)]
