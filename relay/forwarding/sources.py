"""What feeds tracks: publishers' answers to our SUBSCRIBEs, their PUBLISHes, and how all that ends.

`forwarder` calls it with what publishers say. Losing a source is not the end of its track: it lingers for that one, or
another, to come back. Source: draft-20, "Subscriptions" and "Publisher Interactions".
"""

from __future__ import annotations

from functools import partial

from relay.forwarding.asking import Asking
from relay.forwarding.book import Book, Ending, Feeding
from relay.forwarding.discovery import Discovery
from relay.forwarding.feed import Source
from relay.forwarding.peers import Peer
from relay.forwarding.routes import Party
from relay.forwarding.subscribing import Subscribing
from relay.forwarding.track import Track
from relay.forwarding.upstreams import Upstreams
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode
from tradewind.moqt.model import FullTrackName, Namespace, Parameters, Properties


class Sources:
    """Sources of tracks, from their acceptance to their end."""

    def __init__(
        self, book: Book, discovery: Discovery, upstreams: Upstreams, asking: Asking, subscribing: Subscribing
    ) -> None:
        self._book = book
        self._discovery = discovery
        self._upstreams = upstreams
        self._asking = asking
        self._subscribing = subscribing

    def accepted(
        self, party: Party, feeding: Feeding, parameters: Parameters, properties: Properties, now: float
    ) -> None:
        """A publisher answered a SUBSCRIBE of ours: everybody who waits for the track is accepted."""
        track, source = feeding.track, feeding.source
        self._revive(track, source, properties, now)
        track.knows_largest(parameters.largest)
        sessions = {entry.party.session for entry in self._book.waiting.get(track, ())}
        self._subscribing.settle_waiting(track, now)
        if self._book.routes.is_published_elsewhere(track.name):
            self._discovery.offer_everywhere(track, sessions)

    def refused(self, party: Party, feeding: Feeding, code: int, reason: str, now: float) -> None:
        """A publisher refused: when none is left to answer, so do we."""
        track = feeding.track
        track.sources.pop(party, None)
        if any(not source.established for source in track.sources.values()):
            return
        if track.established:
            return
        asked = feeding.source.way is not None
        if self._asking.wanted(track) and self._asking.ask_next_neighbour(track, party.session if asked else None):
            return
        if asked and code == RequestCode.UNINTERESTED:
            # Relays change places: another way is advertised soon, or those who wait run out of patience.
            return
        for waiting in tuple(self._book.waiting.get(track, ())):
            if waiting.parameters.rendezvous_timeout_ms and code == RequestCode.DOES_NOT_EXIST:
                continue
            self._subscribing.refuse(waiting, code, reason)
        self._book.forget_if_unused(track)

    def offered(
        self, party: Party, name: FullTrackName, parameters: Parameters, properties: Properties, now: float
    ) -> None:
        """PUBLISH of theirs: accept it, serve who waits, pass it on to who asked for tracks."""
        book = self._book
        if name not in book.tracks and len(book.tracks) >= book.settings.max_tracks:
            book.peer(party).reject(party.request, RequestCode.EXCESSIVE_LOAD, "too many tracks", retry_ms=1000)
            return
        track = book.track(name)
        source = Source(party, published=True, forward=parameters.forward is not False)
        track.sources.add(source)
        book.give(party, Feeding(track, source))
        self._revive(track, source, properties, now)
        track.knows_largest(parameters.largest)
        book.peer(party).accept(party.request, Parameters(forward=source.forward or self._asking.wanted(track)))
        sessions = {entry.party.session for entry in book.waiting.get(track, ())}
        self._subscribing.settle_waiting(track, now)
        self._discovery.offer_everywhere(track, sessions)
        self._asking.match_forward(track)

    def finished(self, party: Party, feeding: Feeding, status: int, count: int | None, reason: str, now: float) -> None:
        """PUBLISH_DONE: wait for the streams it counts, then the source is gone."""
        source = feeding.source
        source.done = (status, count, reason)
        if not self.settle_done(party, feeding, now):
            wait = self._book.settings.done_wait_s
            self._book.timers.at(now + wait, lambda when: self._drop_done(party, feeding, when))

    def settle_done(self, party: Party, feeding: Feeding, now: float) -> bool:
        """Whether a finished source has closed all the streams it opened; if so it is taken away."""
        source = feeding.source
        if source.done is None or source.streams_open:
            return False
        count = source.done[1]
        if count is not None and source.streams_closed < count:
            return False
        self._drop_done(party, feeding, now)
        return True

    def lost(self, party: Party, feeding: Feeding, now: float) -> None:
        """A source is gone without a word: keep the track for it, or another, to come back."""
        track = feeding.track
        track.sources.pop(party, None)
        if track.sources:
            return
        if not track.established:
            for waiting in tuple(self._book.waiting.get(track, ())):
                self._subscribing.refuse(waiting, RequestCode.DOES_NOT_EXIST, "the publisher went away")
            self._book.forget_if_unused(track)
            return
        self._linger(track, now)

    def end_former_lives(self, namespace: Namespace, now: float) -> None:
        """A namespace that was gone is published again: tracks that a former publisher of it still feeds are over.

        It withdrew the namespace without ending them; who looks for them now looks for the new publisher's.
        """
        book = self._book
        for track in book.tracks.under(namespace):
            if not track.established:
                continue
            current = {publisher.session for publisher in book.routes.publishers(track.name.namespace)}
            current |= {neighbour.session for neighbour, _ in book.routes.ways(track.name.namespace)}
            sources = track.sources
            if sources and not any(feed.published or party.session in current for party, feed in sources.items()):
                for party in tuple(sources):
                    book.cancel(party)
                sources.clear()
                self.end_track(track, DoneCode.TRACK_ENDED, "its namespace has another publisher", now)

    def restart(self, feeding: Feeding, now: float) -> Track:
        """The publisher behind a source has begun the track anew: end its old life for everybody, begin a new one.

        Subscribers find the track again because its namespace goes and comes back.
        """
        book = self._book
        old, source = feeding.track, feeding.source
        for party in [party for party, other in old.sources.items() if other is not source]:
            book.cancel(party)
        old.sources.clear()
        was_told = book.routes.published.get(old.name.namespace)
        is_told = was_told is not None and old.name.name in was_told.names
        self.end_track(old, DoneCode.TRACK_ENDED, "the publisher began anew", now)
        if is_told:
            self._upstreams.published(old.name)
        fresh = book.track(old.name)
        fresh.sources.add(source)
        feeding.track = fresh
        self._revive(fresh, source, old.properties, now)
        self._discovery.flip(old.name.namespace, now)
        return fresh

    def end_track(self, track: Track, status: int, reason: str, now: float) -> None:
        """No source is left: end every subscription after what is here has been sent, and forget the track."""
        track.established = False
        track.lingers_until = None
        self._upstreams.unpublished(track.name)
        track.abandon_orphans(ResetCode.CANCELLED)
        for party, subscription in tuple(track.subscriptions.items()):
            del track.subscriptions[party]
            self._book.give(party, Ending(party, track, subscription))
            peer = self._book.peer(party)
            subscription.end_after_streams(partial(self._served, party, peer, status, reason))
        self._discovery.withdraw_offers(track, status, reason)
        for waiting in tuple(self._book.waiting.get(track, ())):
            self._subscribing.refuse(waiting, RequestCode.DOES_NOT_EXIST, "the track has ended")
        for party in tuple(track.neighbours.turning):
            self._book.take(party)
            self._book.peer(party).reject(party.request, RequestCode.DOES_NOT_EXIST, "the track has ended")
        self._book.retire(track, now)

    # --- Private ---

    def _revive(self, track: Track, source: Source, properties: Properties, now: float) -> None:
        source.established_at = now
        source.inherits = track.objects_in > 0
        if not track.established:
            track.established_at = now
        track.established = True
        track.lingers_until = None
        track.properties = properties
        for subscription in track.subscriptions.values():
            subscription.default_priority = track.default_priority

    def _served(self, party: Party, peer: Peer, status: int, reason: str, streams: int) -> None:
        """The last stream of a subscription of theirs is gone, and the track has ended."""
        self._book.take(party)
        peer.publish_done(party.request, status, streams, reason)

    def _drop_done(self, party: Party, feeding: Feeding, now: float) -> None:
        track, source = feeding.track, feeding.source
        if track.sources.get(party) is not source or source.done is None:
            return
        status, _, reason = source.done
        del track.sources[party]
        self._book.take(party)
        if track.sources:
            return
        if status == DoneCode.GOING_AWAY:
            self._linger(track, now)
        else:
            self.end_track(track, status, reason, now)

    def _linger(self, track: Track, now: float) -> None:
        """No source is left, and one may come back."""
        track.lingers_until = now + self._book.settings.linger_s
        self._book.timers.at(track.lingers_until, partial(self._end_lingering, track))

    def _end_lingering(self, track: Track, now: float) -> None:
        if track.sources or track.lingers_until is None or self._book.tracks.get(track.name) is not track:
            return
        if now >= track.lingers_until:
            self.end_track(track, DoneCode.TRACK_ENDED, "the publisher has gone", now)
