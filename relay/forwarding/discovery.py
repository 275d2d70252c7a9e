"""Namespaces: who announces, who listens, and which tracks are offered to whom.

Source: draft-20, "Namespace Discovery" and "Publisher Interactions".
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from relay.forwarding.book import Announced, Book, Interested, Offered
from relay.forwarding.range_filters import track_passes, updated
from relay.forwarding.routes import Party, TracksInterest, Way
from relay.forwarding.track import Track
from relay.forwarding.upstreams import Upstreams
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import NO_PARAMETERS, Namespace, Parameters

FLIP_S = 1.0
"""How long after a flip the tracks of the same namespace cause no other: they all begin anew together."""


NAMESPACES_AT_ONCE = 128
PAUSE_S = 0.004
"""How many namespaces one subscriber is told of at once, and when it is told of more."""


class Discovery:
    """PUBLISH_NAMESPACE, SUBSCRIBE_NAMESPACE and SUBSCRIBE_TRACKS."""

    def __init__(self, book: Book, upstreams: Upstreams) -> None:
        self._book = book
        self._upstreams = upstreams

    def announce(self, party: Party, namespace: Namespace, way: Way | None = None, *, private: bool = False) -> bool:
        """A session publishes a namespace, or a neighbour has a way to one: accept it and tell who listens.

        `private`: neighbours are not told. Returns whether nobody published it.
        """
        book = self._book
        book.give(party, Announced(party))
        before = self._is_told(namespace)
        fresh = book.routes.announce(party, namespace, way, private=private)
        book.peer(party).accept(party.request)
        self._retell(namespace, before)
        self._upstreams.tell_of(namespace)
        return fresh

    def readvertise(self, party: Party, way: Way) -> tuple[Namespace, int] | None:
        """A neighbour has a namespace by another way; returns it with the publisher that it had before.

        None where the neighbour has no namespace by this request.
        """
        namespace = self._book.routes.namespace_of(party)
        if namespace is None:
            return None
        told = self._is_told(namespace)
        ways = self._book.routes.announced[namespace].ways
        before, ways[party] = ways[party].publisher, way
        self._retell(namespace, told)
        self._upstreams.tell_of(namespace)
        return namespace, before

    def withdraw(self, party: Party, now: float, *, lost: bool) -> None:
        """A namespace is no longer published by this request; `lost`: its session went without a word."""
        book = self._book
        linger = book.settings.linger_s
        namespace = book.routes.namespace_of(party)
        if namespace is None:
            return
        before = self._is_told(namespace)
        gone = book.routes.withdraw(party, now + linger if lost and linger > 0 else None)
        self._retell(namespace, before)
        if gone is None and lost:
            book.timers.at(now + linger, self._expire)
        self._upstreams.tell_of(namespace)

    def flip(self, namespace: Namespace, now: float) -> None:
        """Say that a namespace is gone and here again: who reads its tracks must find them anew. Once a second."""
        for length in range(len(namespace), -1, -1):
            found = self._book.routes.announced.get(namespace[:length])
            if found is not None and now - found.flipped_at > FLIP_S:
                found.flipped_at = now
                self._book.routes.renew(namespace[:length])
                self._upstreams.tell_of(namespace[:length])
                if found.is_told:
                    self._untell(namespace[:length])
                    self._tell(namespace[:length])

    def listen_namespaces(self, party: Party, prefix: Namespace, now: float) -> None:
        """SUBSCRIBE_NAMESPACE: accept, and tell what is published under the prefix."""
        book = self._book
        peer = book.peer(party)
        known = [name for name in book.routes.under(prefix) if self._told(name, party)]
        if len(known) > book.settings.max_namespaces_told:
            peer.reject(party.request, RequestCode.NAMESPACE_TOO_LARGE, "too many namespaces under this prefix")
            return
        book.give(party, Interested(party, tracks=False))
        book.routes.namespace_interests[party] = prefix
        peer.accept(party.request)
        self._enumerate(party, prefix, known, now)

    def listen_tracks(self, party: Party, prefix: Namespace, parameters: Parameters) -> None:
        """SUBSCRIBE_TRACKS: accept, and offer every published track under the prefix."""
        book = self._book
        interest = TracksInterest(
            prefix,
            forward=parameters.forward is not False,
            priority=128 if parameters.priority is None else parameters.priority,
            order=parameters.order,
            range_filters=parameters.range_filters,
        )
        book.give(party, Interested(party, tracks=True))
        book.routes.tracks_interests[party] = interest
        book.peer(party).accept(party.request)
        for track in book.tracks.under(prefix):
            if self._is_published(track):
                self._offer(track, party, interest)

    def update_prefix(self, party: Party, role: Interested, update: int, parameters: Parameters, now: float) -> None:
        """REQUEST_UPDATE of a namespace subscription: another prefix, or another Forward State for tracks to come."""
        routes = self._book.routes
        peer = self._book.peer(party)
        # What follows the answer is named relative to the new prefix (draft-20, "Updating Namespace Subscriptions").
        peer.accept_update(party.request, update, NO_PARAMETERS)
        if role.tracks:
            old = routes.tracks_interests[party]
            routes.tracks_interests[party] = TracksInterest(
                old.prefix if parameters.prefix is None else parameters.prefix,
                old.forward if parameters.forward is None else parameters.forward,
                old.priority if parameters.priority is None else parameters.priority,
                old.order,
                updated(old.range_filters, parameters.range_filters),
            )
        elif parameters.prefix is not None:
            routes.namespace_interests[party] = parameters.prefix
            peer.keep_namespaces(party.request, parameters.prefix)
            known = [name for name in routes.under(parameters.prefix) if self._told(name, party)]
            self._enumerate(party, parameters.prefix, known, now)

    def stop_listening(self, party: Party) -> Namespace | None:
        """A namespace subscription is over; returns its prefix where it was one for tracks."""
        self._book.routes.namespace_interests.pop(party, None)
        interest = self._book.routes.tracks_interests.pop(party, None)
        return None if interest is None else interest.prefix

    def offer_everywhere(self, track: Track, waiting: set[int]) -> None:
        """A PUBLISH came: pass it to every SUBSCRIBE_TRACKS that matches, but not to its own publisher, nor to a
        session in `waiting`, whose SUBSCRIBE it answers instead.
        """
        for party, interest in self._book.routes.interested_in_track(track.name):
            if party.session not in waiting:
                self._offer(track, party, interest)

    def withdraw_offers(self, track: Track, status: int, reason: str) -> None:
        """Take back the PUBLISH messages of ours that nobody has answered."""
        for party in tuple(track.offers):
            self._book.take(party)
            self._book.peer(party).publish_done(party.request, status, 0, reason)

    def _offer(self, track: Track, party: Party, interest: TracksInterest) -> None:
        book = self._book
        if any(source.session == party.session for source in track.sources):
            return
        if any(existing.session == party.session for existing in track.subscriptions):
            return
        if any(
            isinstance(role, Offered) and role.track is track and role.party.session == party.session
            for role in (book.roles.get(Party(party.session, n)) for n in book.members[party.session].requests)
        ):
            return
        if not track_passes(interest.range_filters, track.properties):
            return
        peer = book.peer(party)
        parameters = Parameters(
            forward=interest.forward, priority=interest.priority, order=interest.order, largest=track.largest
        )
        request = peer.publish(track.name, track.alias, parameters, track.properties)
        if request is None:
            peer.skip_publish(party.request, track.name)
            return
        offered = Party(party.session, request)
        filtered = replace(parameters, range_filters=interest.range_filters)
        book.give(offered, Offered(offered, track, filtered))

    def _enumerate(self, party: Party, prefix: Namespace, known: list[Namespace], now: float) -> None:
        """Tell of namespaces, so many at a time: nobody else waits for ten thousand of them."""
        book = self._book
        if book.routes.namespace_interests.get(party) != prefix:
            return
        peer = book.peer(party)
        for namespace in known[:NAMESPACES_AT_ONCE]:
            if namespace in book.routes.announced:
                peer.notify_namespace(party.request, namespace)
        rest = known[NAMESPACES_AT_ONCE:]
        if rest:
            book.timers.at(now + PAUSE_S, partial(self._enumerate, party, prefix, rest))

    def _told(self, namespace: Namespace, party: Party) -> bool:
        """Whether this subscriber hears of the namespace: its own are left out where its draft says so."""
        book = self._book
        if book.peer(party).echoes_namespaces:
            return True
        return any(other.session != party.session for other in book.routes.announced[namespace].parties)

    def _is_published(self, track: Track) -> bool:
        """Whether somebody sent PUBLISH for the track: to us, or to the relay that we have it from."""
        if any(source.published for source in track.sources.values()):
            return True
        return track.established and self._book.routes.is_published_elsewhere(track.name)

    def _is_told(self, namespace: Namespace) -> bool:
        found = self._book.routes.announced.get(namespace)
        return found is not None and found.is_told

    def _retell(self, namespace: Namespace, before: bool) -> None:
        """Whether a namespace is one that subscribers hear of may have changed."""
        after = self._is_told(namespace)
        if after and not before:
            self._tell(namespace)
        elif before and not after:
            self._untell(namespace)

    def _tell(self, namespace: Namespace) -> None:
        book = self._book
        for party in book.routes.interested_in(namespace):
            if self._told(namespace, party):
                book.peer(party).notify_namespace(party.request, namespace)

    def _untell(self, namespace: Namespace) -> None:
        book = self._book
        for party in book.routes.interested_in(namespace):
            book.peer(party).withdraw_namespace(party.request, namespace)

    def _expire(self, now: float) -> None:
        for namespace in self._book.routes.expire(now):
            self._untell(namespace)
            self._upstreams.tell_of(namespace)
