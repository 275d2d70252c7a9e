"""Past objects: FETCH and fills of theirs from the cache, and FETCHes of ours for what the cache lacks.

An answer never claims more than is known: what does not exist is a gap, what nobody could tell is marked unknown.
Source: draft-20, "FETCH", "Fill Semantics" and "End of Range".
"""

from __future__ import annotations

from functools import partial

from relay.forwarding.book import Answering, Book, Question, Unanswered
from relay.forwarding.cursors import FetchCursor, Frontier
from relay.forwarding.routes import Party
from relay.forwarding.subscription import Subscription
from relay.forwarding.track import FetchInlet, Track
from tradewind.moqt.errors import RequestCode, RequestRejected, ResetCode
from tradewind.moqt.model import (
    MAX_VARINT,
    NO_FILTER,
    FilterKind,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    Parameters,
    Range,
    resolve,
)

WARMING_S = 0.25
"""How long a new upstream subscription may take to bring its current group before that is fetched."""


class Fetching:
    """FETCH both ways, and fills."""

    def __init__(self, book: Book) -> None:
        self._book = book

    # --- Theirs to us ---

    def request(
        self,
        party: Party,
        name: FullTrackName,
        chosen: LocationFilter,
        parameters: Parameters,
        now: float,
    ) -> None:
        """FETCH of a range."""
        track = self._book.tracks.get(name)
        if track is not None and (track.established or track.largest is not None):
            self._answer(party, track, fetch_range(chosen, track.largest), parameters, now)
            return
        self._ask_for(party, self._book.track(name), chosen, parameters, now)

    def join(
        self, party: Party, subscription: Subscription, track: Track, start: int | None, back: int | None,
        parameters: Parameters, now: float,
    ) -> None:  # fmt: skip
        """A joining FETCH (drafts up to 18): from `back` groups before, or group `start`, to where the subscription
        began.
        """
        largest = subscription.largest_at_start
        if largest is None:
            raise RequestRejected(RequestCode.INVALID_RANGE, "nothing was published when the subscription began")
        group = max(largest.group - back, 0) if back is not None else start
        assert group is not None
        if group > largest.group:
            raise RequestRejected(RequestCode.INVALID_RANGE, "the range starts after the subscription")
        self._answer(party, track, Range(Location(group, 0), largest), parameters, now)

    def fill(self, track: Track, subscription: Subscription, request: int, parameters: Parameters, now: float) -> None:
        """Open a fill fetch stream for a SUBSCRIBE or REQUEST_UPDATE, if its range holds anything."""
        wish = parameters.fill
        assert wish is not None
        largest = track.largest
        chosen = wish.filter if wish.filter is not None else (parameters.filter or NO_FILTER)
        if largest is None:
            return
        try:
            wanted = fetch_range(chosen, largest)
        except RequestRejected:
            return
        assert wanted.end is not None
        frontier = self._frontier(track, wanted, wish.timeout_ms, now)
        cursor = FetchCursor(
            subscription.outbox,
            track.cache,
            request,
            wanted.start,
            wanted.end,
            order=wish.order or subscription.order,
            priority=subscription.priority if wish.priority is None else wish.priority,
            default_priority=track.default_priority,
            frontier=frontier,
            owner=subscription,
        )
        subscription.fetches.append(cursor)
        cursor.wake()

    def warm(self, track: Track, now: float) -> None:
        """Have the current group here from its first object, for a subscription that begins there."""
        if track.largest is not None:
            self._frontier(track, Range(Location(track.largest.group, 0), track.largest), None, now)

    def cancel(self, party: Party, role: Answering | Unanswered) -> None:
        """The subscriber no longer wants a FETCH of its."""
        if isinstance(role, Answering):
            role.cursor.abandon(ResetCode.CANCELLED)

    # --- Ours to publishers ---

    def opened(self, question: Question) -> FetchInlet:
        """The data stream of a FETCH of ours began."""
        if question.inlet is None:
            question.inlet = FetchInlet(question.frontier, question.wanted)
        return question.inlet

    def accepted(self, party: Party, question: Question, end: Location, end_of_track: bool, now: float) -> None:
        """FETCH_OK: who waited for the range to be known is answered."""
        track = question.track
        track.knows_largest(end if question.wanted is None else None)
        if end_of_track:
            track.cache.end = Location(end.group, end.object + 1)
        if question.wanted is None:
            question.wanted = Range(fetch_range(question.chosen, end).start, end)
            if question.inlet is not None:
                question.inlet.end = end
        elif question.inlet is not None and question.wanted.end is not None:
            question.inlet.end = min(end, question.wanted.end)
        for answer in question.answers:
            self._book.take(answer.party)
            try:
                self._answer(answer.party, track, question.wanted, answer.parameters, now, question.frontier)
            except RequestRejected as refusal:
                self._book.peer(answer.party).reject(answer.party.request, refusal.code, refusal.reason)
        question.answers.clear()

    def refused(self, party: Party, question: Question, code: int, reason: str) -> None:
        """The publisher has nothing to say: what it was asked for stays unknown."""
        if question.timer is not None:
            question.timer.cancel()
        for answer in question.answers:
            self._book.take(answer.party)
            self._book.peer(answer.party).reject(answer.party.request, code, reason)
        question.answers.clear()
        question.frontier.advance(None, done=True)
        self._book.forget_if_unused(question.track)

    def closed(self, question: Question) -> None:
        """The data stream has ended; `Track.close_fetch` has noted what it says."""
        if question.timer is not None:
            question.timer.cancel()

    # --- Private ---

    def _answer(
        self, party: Party, track: Track, wanted: Range, parameters: Parameters, now: float,
        frontier: Frontier | None = None,
    ) -> None:  # fmt: skip
        """FETCH_OK and its data stream."""
        book = self._book
        assert wanted.end is not None
        ended = track.cache.end is not None and wanted.end >= _last_before(track.cache.end)
        properties = () if parameters.include_properties is False else track.properties
        book.peer(party).accept_fetch(party.request, wanted.end, ended, Parameters(), properties)
        if frontier is None:
            frontier = self._frontier(track, wanted, parameters.fill_timeout_ms, now)
        cursor = FetchCursor(
            book.members[party.session].outbox,
            track.cache,
            party.request,
            wanted.start,
            wanted.end,
            order=parameters.order or GroupOrder.ASCENDING,
            priority=128 if parameters.priority is None else parameters.priority,
            default_priority=track.default_priority,
            frontier=frontier,
            finished=partial(self._answered, party),
        )
        book.give(party, Answering(party, cursor))
        cursor.wake()

    def _answered(self, party: Party) -> None:
        if self._book.take(party) is not None:
            self._book.peer(party).finish(party.request)

    def _frontier(self, track: Track, wanted: Range, timeout_ms: int | None, now: float) -> Frontier | None:
        """Ask upstream for what the cache cannot tell about a range; None where it can tell, or nobody can be asked."""
        assert wanted.end is not None
        start = track.cache.first_unknown(wanted.start, wanted.end)
        if start is None:
            return None
        if timeout_ms == 0:
            settled = Frontier()
            settled.advance(None, done=True, timed_out=True)
            return settled
        frontier = Frontier()
        if now - track.established_at < WARMING_S:
            track.warming.append(frontier)
            self._book.timers.at(now + WARMING_S, partial(self._stop_warming, track, frontier, wanted, timeout_ms))
        elif not self._ask_range(track, start, wanted.end, frontier, timeout_ms, now):
            return None
        return frontier

    def _stop_warming(
        self, track: Track, frontier: Frontier, wanted: Range, timeout_ms: int | None, now: float
    ) -> None:
        """A new upstream subscription had its time to bring the current group by itself: ask for what it did not."""
        if frontier in track.warming:
            track.warming.remove(frontier)
        assert wanted.end is not None
        start = track.cache.first_unknown(wanted.start, wanted.end)
        if start is None or not self._ask_range(track, start, wanted.end, frontier, timeout_ms, now):
            frontier.advance(None, done=True)

    def _ask_range(
        self, track: Track, start: Location, end: Location, frontier: Frontier, timeout_ms: int | None, now: float
    ) -> bool:
        chosen = LocationFilter(FilterKind.ABSOLUTE, start=start, end_group=end.group, end_object=end.object)
        question = self._ask(track, chosen, timeout_ms, now, frontier)
        if question is None:
            return False
        question.wanted = Range(start, end)
        frontier.advance(_previous(start))
        return True

    def _ask_for(self, party: Party, track: Track, chosen: LocationFilter, parameters: Parameters, now: float) -> None:
        """Nothing is known of the track here: pass the FETCH on, and answer when it is answered."""
        question = self._ask(track, chosen, parameters.fill_timeout_ms, now, Frontier())
        if question is None:
            self._book.forget_if_unused(track)
            raise RequestRejected(RequestCode.DOES_NOT_EXIST, "nobody publishes this track")
        waiting = Unanswered(party, parameters)
        question.answers.append(waiting)
        self._book.give(party, waiting)

    def _ask(
        self, track: Track, chosen: LocationFilter, timeout_ms: int | None, now: float, frontier: Frontier
    ) -> Question | None:
        book = self._book
        sessions = [source.session for source, state in track.sources.items() if state.established]
        sessions += [publisher.session for publisher in book.routes.publishers(track.name.namespace)]
        for session in sessions:
            request = book.members[session].peer.fetch(track.name, chosen, Parameters(order=GroupOrder.ASCENDING))
            if request is not None:
                party = Party(session, request)
                question = Question(party, track, frontier, chosen)
                patience = book.settings.answer_timeout_s
                if timeout_ms is not None:
                    patience = min(patience, timeout_ms / 1000)
                question.timer = book.timers.at(now + patience, partial(self._time_out, party, question))
                book.give(party, question)
                return question
        return None

    def _time_out(self, party: Party, question: Question, _now: float) -> None:
        if self._book.roles.get(party) is question:
            self._book.take(party)
            self._book.peer(party).cancel(party.request)
        question.frontier.timed_out = True
        self.refused(party, question, RequestCode.TIMEOUT, "the publisher did not answer in time")


def fetch_range(chosen: LocationFilter, largest: Location | None) -> Range:
    """The range of a FETCH or fill (draft-20, "Location Filters"): never beyond `largest`.

    Raises RequestRejected(INVALID_RANGE) where nothing was published or the range starts after it.
    """
    if largest is None:
        raise RequestRejected(RequestCode.INVALID_RANGE, "nothing has been published")
    wanted = resolve(chosen, largest)
    if wanted.start > largest:
        raise RequestRejected(RequestCode.INVALID_RANGE, "the range starts after the largest object")
    end = largest if wanted.end is None else min(wanted.end, largest)
    if end < wanted.start:
        raise RequestRejected(RequestCode.INVALID_RANGE, "the range ends before it starts")
    return Range(wanted.start, end)


def _previous(location: Location) -> Location | None:
    if location.object:
        return Location(location.group, location.object - 1)
    return Location(location.group - 1, MAX_VARINT) if location.group else None


def _last_before(end: Location) -> Location:
    return Location(end.group, end.object - 1) if end.object else end
