"""Subscriptions, both ways: theirs to us, ours to publishers, and PUBLISH.

One upstream subscription feeds a track however many subscribe to it; a SUBSCRIBE waits until one is established.
Source: draft-20, "Subscriptions", "Subscriber Interactions" and "Publisher Interactions".
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from relay.forwarding import ranks
from relay.forwarding.book import Book, Ending, Feeding, Joining, Member, Offered, Serving, Turning, Waiting
from relay.forwarding.discovery import Discovery
from relay.forwarding.fetching import Fetching
from relay.forwarding.range_filters import updated
from relay.forwarding.routes import Party, TracksInterest, Way
from relay.forwarding.subscription import Subscription
from relay.forwarding.track import DYNAMIC_GROUPS, OBJECT_TIMEOUT, SUBGROUP_TIMEOUT, Source, Track
from relay.forwarding.upstreams import Upstreams
from tradewind.moqt.errors import DoneCode, RequestCode, RequestRejected, ResetCode
from tradewind.moqt.model import (
    NEXT_OBJECT,
    NO_FILTER,
    FilterKind,
    FullTrackName,
    Location,
    LocationFilter,
    Namespace,
    Parameters,
    Properties,
    Range,
    resolve,
)

TURN_S = 1.0
"""How long a neighbour that feeds us and asks us waits for our finding another way."""


class Subscribing:
    """SUBSCRIBE, PUBLISH, their answers, updates and ends."""

    def __init__(self, book: Book, discovery: Discovery, fetching: Fetching, upstreams: Upstreams) -> None:
        self._book = book
        self._upstreams = upstreams
        self._discovery = discovery
        self._fetching = fetching

    # --- Theirs to us ---

    def request(self, party: Party, name: FullTrackName, parameters: Parameters, now: float) -> None:
        """SUBSCRIBE: accept it at once where the track is established, else ask its publishers, else wait for one."""
        book = self._book
        peer = book.peer(party)
        if name not in book.tracks and len(book.tracks) >= book.settings.max_tracks:
            peer.reject(party.request, RequestCode.EXCESSIVE_LOAD, "too many tracks", retry_ms=1000)
            return
        track = book.track(name)
        if not peer.shares_subscriptions and self._reads(party.session, track):
            peer.reject(party.request, RequestCode.DUPLICATE_SUBSCRIPTION, "already subscribed to this track")
            return
        if not self._takes_in(party, track, parameters, now):
            return
        if track.established:
            self._establish(party, track, parameters, now, now)
            return
        waiting = Waiting(party, track, parameters, now)
        book.wait(waiting)
        asked = any(not source.established for source in track.sources.values()) or self._ask_somebody(track)
        if asked:
            waiting.timer = book.timers.at(now + book.settings.answer_timeout_s, lambda _: self._give_up(waiting))
            return
        patience = self._patience_s(waiting)
        if patience > 0:
            waiting.timer = book.timers.at(now + patience, lambda _: self._give_up(waiting))
        else:
            self._refuse(waiting, RequestCode.DOES_NOT_EXIST, "nobody publishes this track")

    def update(self, party: Party, serving: Serving, update: int, parameters: Parameters, now: float) -> None:
        """REQUEST_UPDATE of a subscription of theirs."""
        track, subscription = serving.track, serving.subscription
        chosen = parameters.filter
        was_forwarding = subscription.forward
        subscription.retarget(
            parameters.forward,
            parameters.priority,
            None if chosen is None else resolve(chosen, track.largest),
        )
        subscription.set_timeouts(parameters.object_timeout_ms, parameters.subgroup_timeout_ms)
        if parameters.range_filters:
            subscription.set_filters(updated(subscription.range_filters, parameters.range_filters))
        self._book.peer(party).accept_update(party.request, update, Parameters(largest=track.largest))
        if subscription.forward and not was_forwarding:
            subscription.largest_at_start = track.largest
        if subscription.forward:
            track.offer_cached(subscription, now)
            if parameters.fill is not None:
                self._fetching.fill(track, subscription, update, parameters, now)
        if parameters.new_group is not None:
            self._pass_new_group(track, parameters.new_group)
        self._match_forward(track)

    def end(self, party: Party, serving: Serving, now: float) -> None:
        """A subscriber left."""
        track = serving.track
        serving.subscription.close(ResetCode.CANCELLED)
        track.subscriptions.pop(party, None)
        self.reconsider(track, now)

    def cancel_waiting(self, waiting: Waiting, now: float) -> None:
        """A subscriber left before it was answered."""
        self._book.stop_waiting(waiting)
        self._refuse_joins(waiting)
        self.reconsider(waiting.track, now)

    def join(self, joining: Joining) -> None:
        """A joining FETCH of a subscription that is not established: it is answered once that is."""
        joining.waiting.joins.append(joining)
        self._book.give(joining.party, joining)

    # --- Ours to publishers ---

    def accepted(
        self, party: Party, feeding: Feeding, parameters: Parameters, properties: Properties, now: float
    ) -> None:
        """A publisher answered a SUBSCRIBE of ours: everybody who waits for the track is accepted."""
        track, source = feeding.track, feeding.source
        self._revive(track, source, properties, now)
        track.knows_largest(parameters.largest)
        sessions = {entry.party.session for entry in self._book.waiting.get(track, ())}
        self._settle_waiting(track, now)
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
        if self.wanted(track) and self._ask_next_neighbour(track, party.session if asked else None):
            return
        if asked and code == RequestCode.UNINTERESTED:
            # Relays change places: another way is advertised soon, or those who wait run out of patience.
            return
        for waiting in tuple(self._book.waiting.get(track, ())):
            if waiting.parameters.rendezvous_timeout_ms and code == RequestCode.DOES_NOT_EXIST:
                continue
            self._refuse(waiting, code, reason)
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
        track.add_source(source)
        book.give(party, Feeding(track, source))
        self._revive(track, source, properties, now)
        track.knows_largest(parameters.largest)
        book.peer(party).accept(party.request, Parameters(forward=source.forward or self.wanted(track)))
        waiting = book.waiting.get(track, ())
        sessions = {entry.party.session for entry in waiting}
        for entry in tuple(waiting):
            self._settle(entry, now)
        self._discovery.offer_everywhere(track, sessions)
        self._match_forward(track)

    def offer_accepted(self, party: Party, offered: Offered, parameters: Parameters, now: float) -> None:
        """PUBLISH_OK for a PUBLISH of ours: the subscription is established."""
        given = offered.parameters
        merged = replace(
            given,
            forward=given.forward if parameters.forward is None else parameters.forward,
            priority=given.priority if parameters.priority is None else parameters.priority,
            order=given.order if parameters.order is None else parameters.order,
            filter=parameters.filter or NEXT_OBJECT,
            object_timeout_ms=parameters.object_timeout_ms,
        )
        if offered.track.established:
            self._serve(party, offered.track, merged, now, now)
            self._match_forward(offered.track)
        else:
            self._book.take(party)
            self._book.peer(party).publish_done(party.request, DoneCode.TRACK_ENDED, 0, "the track has ended")

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

    def ask_afresh(self, track: Track, party: Party, way: Way) -> None:
        """SUBSCRIBE to a neighbour with another publisher: what that has need not begin where we are."""
        claim = self._upstreams.claim(track, way)
        if claim is not None and not self._upstreams.is_below(track, way.neighbour):
            self._subscribe(track, party.session, way, claim)

    def seek(self, track: Track) -> None:
        """Have a track here that somebody wants to be told of, and nobody has asked for by name."""
        if not self._ask_somebody(track):
            self._book.forget_if_unused(track)

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
                self._refuse(waiting, RequestCode.DOES_NOT_EXIST, "the publisher went away")
            self._book.forget_if_unused(track)
            return
        track.lingers_until = now + self._book.settings.linger_s
        self._book.timers.at(track.lingers_until, lambda when: self._end_lingering(track, when))

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
            self._withdraw_offers(track, DoneCode.TRACK_ENDED, "nobody publishes it any more")
            self._book.forget_if_unused(track)

    # --- Private ---

    def _reads(self, session: int, track: Track) -> bool:
        if any(party.session == session for party in track.subscriptions):
            return True
        return any(entry.party.session == session for entry in self._book.waiting.get(track, ()))

    def _establish(self, party: Party, track: Track, parameters: Parameters, since: float, now: float) -> None:
        """SUBSCRIBE_OK, and everything that follows from it."""
        peer = self._book.peer(party)
        properties = () if parameters.include_properties is False else track.properties
        peer.accept_subscribe(party.request, track.alias, Parameters(largest=track.largest), properties)
        self._serve(party, track, parameters, since, now)
        if parameters.new_group is not None:
            self._pass_new_group(track, parameters.new_group)
        self._match_forward(track)

    def _serve(self, party: Party, track: Track, parameters: Parameters, since: float, now: float) -> None:
        book = self._book
        member = book.members[party.session]
        subscription = self._subscription(member, party, track, parameters)
        subscription.asked_at, subscription.join_waits_s = since, book.join_waits_s
        book.give(party, Serving(track, subscription))
        track.subscribe(party, subscription, now)
        if subscription.from_group_start:
            self._fetching.warm(track, subscription.range.start, now)
        if parameters.fill is not None and subscription.forward:
            self._fetching.fill(track, subscription, party.request, parameters, now)

    def _subscription(self, member: Member, party: Party, track: Track, parameters: Parameters) -> Subscription:
        chosen = parameters.filter or NO_FILTER
        wanted = resolve(chosen, track.largest)
        from_group_start = member.peer.joins_at_group_start and chosen.kind in (
            FilterKind.NEXT_OBJECT,
            FilterKind.NONE,
        )
        if member.hop is not None:
            # A neighbour says where it stopped, or gets what a publisher would send.
            from_group_start = True
            if chosen.kind is not FilterKind.ABSOLUTE and track.largest is not None:
                wanted = Range(Location(track.largest.group, 0), None)
        elif from_group_start and track.largest is not None:
            wanted = Range(Location(track.largest.group, 0), None)
        subscription = Subscription(
            party.session,
            party.request,
            member.peer,
            member.outbox,
            track.alias,
            range=wanted,
            forward=parameters.forward is not False,
            priority=128 if parameters.priority is None else parameters.priority,
            default_priority=track.default_priority,
            order=parameters.order or track.default_order,
            max_datagrams=self._book.settings.max_datagrams,
        )
        subscription.from_group_start = from_group_start
        subscription.set_filters(parameters.range_filters)
        subscription.largest_at_start = track.largest
        subscription.track_timeouts_ms = (track.integer(OBJECT_TIMEOUT, 0), track.integer(SUBGROUP_TIMEOUT, 0))
        subscription.set_timeouts(parameters.object_timeout_ms, parameters.subgroup_timeout_ms)
        return subscription

    def _takes_in(self, party: Party, track: Track, parameters: Parameters, now: float) -> bool:
        """Whether a subscriber is served now: a neighbour only below us, lest relays forward in a circle."""
        book = self._book
        if book.members[party.session].hop is None:
            return True
        claim = ranks.HIGHEST if parameters.rank is None else parameters.rank
        if self._may_serve(track, party, claim):
            track.children[party] = claim
        elif self._feeds(track, party):
            turning = Turning(party, track, parameters, now)
            turning.timer = book.timers.at(now + TURN_S, lambda when: self._lose_patience(turning, when))
            track.turning[party] = claim
            book.give(party, turning)
        else:
            book.peer(party).reject(party.request, RequestCode.UNINTERESTED, "not above you")
            book.forget_if_unused(track)
        return party in track.children

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
        if turning.party in turning.track.turning:
            self.give_back(turning, now)

    def turned(self, track: Track, now: float) -> None:
        """Sources have gone: serve neighbours that fed us, and whom we are above now."""
        for party, claim in tuple(track.turning.items()):
            if self._may_serve(track, party, claim):
                turning = self._book.take(party)
                assert isinstance(turning, Turning)
                track.children[party] = claim
                self._establish(party, track, turning.parameters, turning.since, now)

    def give_back(self, turning: Turning, now: float) -> None:
        """We have no other way: who feeds us and has lost its own must ask somebody else."""
        party, track = turning.party, turning.track
        self._book.take(party)
        self._book.peer(party).reject(party.request, RequestCode.UNINTERESTED, "we have it from you")
        self.reconsider(track, now)

    def _ask_somebody(self, track: Track) -> bool:
        """SUBSCRIBE to every publisher here of the namespace, or else to the best neighbour; whether any was asked.

        To both where the neighbour has a longer prefix of it than anybody here.
        """
        namespace = track.name.namespace
        publishers = tuple(self._book.routes.publishers(namespace))
        asked = sum(self._ask(track, party) for party in publishers) > 0
        if not asked or self._book.routes.is_nearer_elsewhere(namespace):
            asked |= self._ask_next_neighbour(track)
        return asked

    def _ask_next_neighbour(self, track: Track, after: int | None = None) -> bool:
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
            if entry.party in track.children
            and entry.parameters.filter is not None
            and entry.parameters.filter.kind is FilterKind.ABSOLUTE
        ]
        here = track.resume_at()
        start = min(starts, default=None) if here is None else here
        return self._subscribe(track, party.session, way, claim, start)

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
        track.add_source(source)
        book.give(party, Feeding(track, source))
        return source

    def _patience_s(self, waiting: Waiting) -> float:
        settings = self._book.settings
        asked_s = (waiting.parameters.rendezvous_timeout_ms or 0) / 1000
        lingering = self._book.routes.lingering(waiting.track.name.namespace)
        return max(min(asked_s, settings.max_rendezvous_s), settings.linger_s if lingering else 0.0)

    def _give_up(self, waiting: Waiting) -> None:
        self._refuse(waiting, RequestCode.TIMEOUT, "no publisher answered in time")

    def _settle_waiting(self, track: Track, now: float) -> None:
        """Accept everybody who waits for a track that is established."""
        for waiting in tuple(self._book.waiting.get(track, ())):
            self._settle(waiting, now)

    def _settle(self, waiting: Waiting, now: float) -> None:
        """The track is established: accept one who waits for it, and the FETCHes that join."""
        book = self._book
        book.stop_waiting(waiting)
        self._establish(waiting.party, waiting.track, waiting.parameters, waiting.since, now)
        serving = book.roles.get(waiting.party)
        for one in waiting.joins:
            assert isinstance(serving, Serving)
            try:
                self._fetching.join(
                    one.party, serving.subscription, waiting.track, one.start, one.back, one.parameters, now
                )
            except RequestRejected as refusal:
                book.take(one.party)
                book.peer(one.party).reject(one.party.request, refusal.code, refusal.reason, refusal.retry_ms)

    def _refuse_joins(self, waiting: Waiting) -> None:
        for one in waiting.joins:
            self._book.take(one.party)
            self._book.peer(one.party).reject(
                one.party.request, RequestCode.INVALID_JOINING_REQUEST_ID, "no such subscription"
            )
        waiting.joins.clear()

    def _refuse(self, waiting: Waiting, code: int, reason: str) -> None:
        book = self._book
        book.stop_waiting(waiting)
        self._refuse_joins(waiting)
        book.take(waiting.party)
        book.peer(waiting.party).reject(waiting.party.request, code, reason)
        self._cancel_unanswered(waiting.track)
        book.forget_if_unused(waiting.track)

    def _cancel_unanswered(self, track: Track) -> None:
        """Nobody waits any more: take back the SUBSCRIBEs that publishers have not answered."""
        if self._book.waiting.get(track) or track.established:
            return
        for party, source in tuple(track.sources.items()):
            if not source.established:
                del track.sources[party]
                self._book.cancel(party)

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

    def wanted(self, track: Track) -> bool:
        """Whether somebody reads the track or waits for it, or is to be told of it."""
        read = track.subscriptions or track.turning or self._book.waiting.get(track)
        return bool(read) or any(self._seekers(track))

    def _seekers(self, track: Track) -> list[TracksInterest]:
        """The SUBSCRIBE_TRACKS of theirs that match, where a neighbour says that the track is published there."""
        routes = self._book.routes
        if not routes.tracks_interests or not routes.is_published_elsewhere(track.name):
            return []
        return [interest for _, interest in routes.interested_in_track(track.name)]

    def _match_forward(self, track: Track) -> None:
        """Ask sources to send if somebody wants objects ("Forward Handling")."""
        if not any(subscription.forward for subscription in track.subscriptions.values()):
            return
        for party, source in track.sources.items():
            if source.is_live and not source.forward:
                source.forward = True
                # A neighbour holds what came meanwhile; who has paused goes on with the next object.
                start = None if source.way is None else NEXT_OBJECT
                self._book.peer(party).update(party.request, Parameters(forward=True, filter=start))

    def _pass_new_group(self, track: Track, wish: int) -> None:
        """NEW_GROUP_REQUEST of an established subscription ("NEW GROUP REQUEST Parameter", Relay Handling)."""
        largest = -1 if track.largest is None else track.largest.group
        if not track.integer(DYNAMIC_GROUPS, 0) or (wish != 0 and wish <= largest):
            return
        if track.wished_group is not None and track.wished_group[1] == largest and track.wished_group[0] >= wish:
            return
        track.wished_group = (wish, largest)
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
            self._cancel_unanswered(track)
            self._book.forget_if_unused(track)
            return
        if track.sources and all(source.way is not None for source in track.sources.values()):
            self.release(track)
        else:
            self._book.timers.at(now + self._book.settings.linger_s, lambda _: self.release(track))

    def _withdraw_offers(self, track: Track, status: int, reason: str) -> None:
        """Take back the PUBLISH messages of ours that nobody has answered."""
        for party in tuple(track.offers):
            self._book.take(party)
            self._book.peer(party).publish_done(party.request, status, 0, reason)

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
            track.lingers_until = now + self._book.settings.linger_s
            self._book.timers.at(track.lingers_until, lambda when: self._end_lingering(track, when))
        else:
            self.end_track(track, status, reason, now)

    def _end_lingering(self, track: Track, now: float) -> None:
        if track.sources or track.lingers_until is None or self._book.tracks.get(track.name) is not track:
            return
        if now >= track.lingers_until:
            self.end_track(track, DoneCode.TRACK_ENDED, "the publisher has gone", now)

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
        fresh.add_source(source)
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
            subscription.end_after_streams(status, reason, partial(self._book.take, party))
        self._withdraw_offers(track, status, reason)
        for waiting in tuple(self._book.waiting.get(track, ())):
            self._refuse(waiting, RequestCode.DOES_NOT_EXIST, "the track has ended")
        for party in tuple(track.turning):
            self._book.take(party)
            self._book.peer(party).reject(party.request, RequestCode.DOES_NOT_EXIST, "the track has ended")
        self._book.retire(track, now)
