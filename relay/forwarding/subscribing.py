"""Subscriptions of theirs: SUBSCRIBE and what follows from it, and PUBLISH of ours once it is accepted.

A SUBSCRIBE waits until somebody feeds the track. `circles` brings it where it may be served, `sources` says when that
is. Source: draft-20, "Subscriptions" and "Subscriber Interactions".
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from relay.forwarding.asking import Asking
from relay.forwarding.book import Book, Joining, Member, Offered, Serving, Waiting
from relay.forwarding.fetching import Fetching
from relay.forwarding.range_filters import sieve, updated
from relay.forwarding.routes import Party
from relay.forwarding.subscription import Subscription
from relay.forwarding.timeouts import Timeouts
from relay.forwarding.track import OBJECT_TIMEOUT, SUBGROUP_TIMEOUT, Track
from tradewind.moqt.errors import DoneCode, RequestCode, RequestRejected, ResetCode
from tradewind.moqt.model import (
    NEXT_OBJECT,
    NO_FILTER,
    FilterKind,
    FullTrackName,
    Location,
    Parameters,
    Range,
    resolve,
)


class Subscribing:
    """Who waits for a track, and who is served."""

    def __init__(self, book: Book, fetching: Fetching, asking: Asking) -> None:
        self._book = book
        self._fetching = fetching
        self._asking = asking

    def track_for(self, party: Party, name: FullTrackName) -> Track | None:
        """The track that a SUBSCRIBE asks for; None: it may not, and was told so."""
        book = self._book
        peer = book.peer(party)
        if name not in book.tracks and len(book.tracks) >= book.settings.max_tracks:
            peer.reject(party.request, RequestCode.EXCESSIVE_LOAD, "too many tracks", retry_ms=1000)
            return None
        track = book.track(name)
        if not peer.shares_subscriptions and self._reads(party.session, track):
            peer.reject(party.request, RequestCode.DUPLICATE_SUBSCRIPTION, "already subscribed to this track")
            return None
        return track

    def request(self, party: Party, track: Track, parameters: Parameters, now: float) -> None:
        """SUBSCRIBE: accept it at once where the track is established, else ask its publishers, else wait for one."""
        book = self._book
        if track.established:
            self.establish(party, track, parameters, now, now)
            return
        waiting = Waiting(party, track, parameters, now)
        book.wait(waiting)
        asked = any(not source.established for source in track.sources.values()) or self._asking.ask_somebody(track)
        if asked:
            waiting.timer = book.timers.at(now + book.settings.answer_timeout_s, lambda _: self._give_up(waiting))
            return
        patience = self._patience_s(waiting)
        if patience > 0:
            waiting.timer = book.timers.at(now + patience, lambda _: self._give_up(waiting))
        else:
            self.refuse(waiting, RequestCode.DOES_NOT_EXIST, "nobody publishes this track")

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
        subscription.timeouts.apply(parameters.object_timeout_ms, parameters.subgroup_timeout_ms)
        if parameters.range_filters:
            serving.range_filters = updated(serving.range_filters, parameters.range_filters)
            subscription.sieve = sieve(serving.range_filters)
        self._book.peer(party).accept_update(party.request, update, Parameters(largest=track.largest))
        if subscription.forward and not was_forwarding:
            serving.largest_at_start = track.largest
        if subscription.forward:
            track.offer_cached(subscription, now)
            if parameters.fill is not None:
                self._fetching.fill(track, subscription, update, parameters, now)
        if parameters.new_group is not None:
            self._asking.pass_new_group(track, parameters.new_group)
        self._asking.match_forward(track)

    def end(self, party: Party, serving: Serving, now: float) -> None:
        """A subscriber left."""
        track = serving.track
        serving.subscription.close(ResetCode.CANCELLED)
        track.subscriptions.pop(party, None)
        self._asking.reconsider(track, now)

    def cancel_waiting(self, waiting: Waiting, now: float) -> None:
        """A subscriber left before it was answered."""
        self._book.stop_waiting(waiting)
        self._refuse_joins(waiting)
        self._asking.reconsider(waiting.track, now)

    def join(self, joining: Joining) -> None:
        """A joining FETCH of a subscription that is not established: it is answered once that is."""
        joining.waiting.joins.append(joining)
        self._book.give(joining.party, joining)

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
            self._asking.match_forward(offered.track)
        else:
            self._book.take(party)
            self._book.peer(party).publish_done(party.request, DoneCode.TRACK_ENDED, 0, "the track has ended")

    def establish(self, party: Party, track: Track, parameters: Parameters, since: float, now: float) -> None:
        """SUBSCRIBE_OK, and everything that follows from it."""
        peer = self._book.peer(party)
        properties = () if parameters.include_properties is False else track.properties
        peer.accept_subscribe(party.request, track.alias, Parameters(largest=track.largest), properties)
        self._serve(party, track, parameters, since, now)
        if parameters.new_group is not None:
            self._asking.pass_new_group(track, parameters.new_group)
        self._asking.match_forward(track)

    def settle_waiting(self, track: Track, now: float) -> None:
        """Accept everybody who waits for a track that is established."""
        for waiting in tuple(self._book.waiting.get(track, ())):
            self._settle(waiting, now)

    def refuse(self, waiting: Waiting, code: int, reason: str) -> None:
        """Nobody feeds the track for one who waits for it: say so, and why."""
        book = self._book
        book.stop_waiting(waiting)
        self._refuse_joins(waiting)
        book.take(waiting.party)
        book.peer(waiting.party).reject(waiting.party.request, code, reason)
        self._asking.cancel_unanswered(waiting.track)
        book.forget_if_unused(waiting.track)

    # --- Private ---

    def _reads(self, session: int, track: Track) -> bool:
        if any(party.session == session for party in track.subscriptions):
            return True
        return any(entry.party.session == session for entry in self._book.waiting.get(track, ()))

    def _serve(self, party: Party, track: Track, parameters: Parameters, since: float, now: float) -> None:
        book = self._book
        member = book.members[party.session]
        subscription = self._subscription(member, track, parameters)
        subscription.first_sent = partial(self._note_join, since)
        book.give(party, Serving(track, subscription, parameters.range_filters, track.largest))
        track.subscribe(party, subscription, now)
        if subscription.from_group_start:
            self._fetching.warm(track, subscription.range.start, now)
        if parameters.fill is not None and subscription.forward:
            self._fetching.fill(track, subscription, party.request, parameters, now)

    def _subscription(self, member: Member, track: Track, parameters: Parameters) -> Subscription:
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
            member.outbox,
            track.alias,
            range=wanted,
            forward=parameters.forward is not False,
            priority=128 if parameters.priority is None else parameters.priority,
            default_priority=track.default_priority,
            order=parameters.order or track.default_order,
            max_lag_s=self._book.settings.max_lag_s,
            timeouts=Timeouts(track.integer(OBJECT_TIMEOUT, 0), track.integer(SUBGROUP_TIMEOUT, 0)),
        )
        subscription.from_group_start = from_group_start
        subscription.sieve = sieve(parameters.range_filters)
        subscription.timeouts.apply(parameters.object_timeout_ms, parameters.subgroup_timeout_ms)
        return subscription

    def _note_join(self, since: float, now: float) -> None:
        self._book.join_waits_s.append(now - since)

    def _patience_s(self, waiting: Waiting) -> float:
        settings = self._book.settings
        asked_s = (waiting.parameters.rendezvous_timeout_ms or 0) / 1000
        lingering = self._book.routes.lingering(waiting.track.name.namespace)
        return max(min(asked_s, settings.max_rendezvous_s), settings.linger_s if lingering else 0.0)

    def _give_up(self, waiting: Waiting) -> None:
        self.refuse(waiting, RequestCode.TIMEOUT, "no publisher answered in time")

    def _settle(self, waiting: Waiting, now: float) -> None:
        """The track is established: accept one who waits for it, and the FETCHes that join."""
        book = self._book
        book.stop_waiting(waiting)
        self.establish(waiting.party, waiting.track, waiting.parameters, waiting.since, now)
        serving = book.roles.get(waiting.party)
        for one in waiting.joins:
            assert isinstance(serving, Serving)
            try:
                self._fetching.join(one.party, serving, one.start, one.back, one.parameters, now)
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
