"""Past objects: FETCH and fills of theirs from the cache, and FETCHes of ours for what the cache lacks.

An answer never claims more than is known: what does not exist is a gap, what nobody could tell is marked unknown.
Source: draft-20, "FETCH", "Fill Semantics" and "End of Range".
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from relay.forwarding.book import Answering, Book, Question, Serving, Unanswered
from relay.forwarding.feed import Source
from relay.forwarding.fetch_cursor import FetchCursor, Frontier
from relay.forwarding.filling import FetchInlet
from relay.forwarding.range_filters import sieve
from relay.forwarding.routes import Party
from relay.forwarding.subscription import Subscription
from relay.forwarding.track import Track
from relay.forwarding.upstreams import Upstreams
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

NOBODY = -1
"""No session."""
WARMING_S = 0.25
"""How long a new upstream subscription may take to bring its current group before that is fetched."""


class Fetching:
    """FETCH both ways, and fills."""

    def __init__(self, book: Book, upstreams: Upstreams) -> None:
        self._book = book
        self._upstreams = upstreams

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
        book = self._book
        track = book.tracks.get(name)
        if track is not None and self._is_known(track, chosen):
            self._answer(party, track, fetch_range(chosen, track.largest), parameters, now)
            return
        if track is None and len(book.tracks) >= book.settings.max_tracks:
            raise RequestRejected(RequestCode.EXCESSIVE_LOAD, "too many tracks", retry_ms=1000)
        self._ask_for(party, book.track(name), chosen, parameters, now)

    def join(
        self, party: Party, serving: Serving, start: int | None, back: int | None, parameters: Parameters, now: float
    ) -> None:
        """A joining FETCH (drafts up to 18): from `back` groups before, or group `start`, to where the subscription
        began.
        """
        largest = serving.largest_at_start
        if largest is None:
            raise RequestRejected(RequestCode.INVALID_RANGE, "nothing was published when the subscription began")
        group = max(largest.group - back, 0) if back is not None else start
        assert group is not None
        if group > largest.group:
            raise RequestRejected(RequestCode.INVALID_RANGE, "the range starts after the subscription")
        self._answer(party, serving.track, Range(Location(group, 0), largest), parameters, now)

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
            sieve=sieve(wish.range_filters) if wish.range_filters else subscription.sieve,
        )
        subscription.fetches.append(cursor)
        cursor.wake()

    def warm(self, track: Track, start: Location, now: float) -> None:
        """Have everything here from `start`, for a subscription that begins there and not with the next object."""
        if track.largest is not None and start <= track.largest:
            self._frontier(track, Range(start, track.largest), None, now)

    def cancel(self, role: Answering | Unanswered) -> None:
        """The subscriber no longer wants a FETCH of its."""
        if isinstance(role, Answering):
            role.cursor.abandon(ResetCode.CANCELLED)
            return
        question = role.question
        question.answers.remove(role)
        if not question.answers:
            self._drop(question)

    # --- Ours to publishers ---

    def opened(self, question: Question) -> FetchInlet:
        """The data stream of a FETCH of ours began."""
        question.inlet = FetchInlet(question.party, question.track, question.frontier, question.wanted)
        return question.inlet

    def accepted(self, question: Question, end: Location, end_of_track: bool, now: float) -> None:
        """FETCH_OK: who waited for the range to be known is answered."""
        track = question.track
        question.accepted, question.heard_at = True, now
        track.knows_largest(end if question.wanted is None else None)
        if end_of_track:
            track.cache.end = Location(end.group, end.object + 1)
        if question.wanted is None:
            try:
                question.wanted = Range(fetch_range(question.chosen, end).start, end)
            except RequestRejected as refusal:
                self._drop(question, refusal)
                return
        if question.inlet is not None:
            question.inlet.end = end if question.wanted.end is None else min(end, question.wanted.end)
        answers, question.answers = question.answers, []
        for answer in answers:
            self._book.take(answer.party)
            self._answer(answer.party, track, question.wanted, answer.parameters, now, question.frontier)
        if question.closed:
            self._over(question)
            self._book.forget_later(track, now)

    def refused(self, question: Question, code: int, reason: str) -> None:
        """The publisher has nothing to say: what it was asked for stays unknown."""
        self._over(question)
        answers, question.answers = question.answers, []
        for answer in answers:
            self._book.take(answer.party)
            self._book.peer(answer.party).reject(answer.party.request, code, reason)
        question.frontier.advance(None, done=True)
        self._book.forget_if_unused(question.track)

    def closed(self, question: Question, code: int | None, now: float) -> None:
        """The data stream has ended; `FetchInlet.close` has noted what it says. FETCH_OK may still come."""
        question.closed = True
        if question.accepted:
            self._over(question)
            self._book.forget_later(question.track, now)
        elif code is not None:
            self._drop(question, RequestRejected(RequestCode.INTERNAL_ERROR, "the publisher gave it up"))

    # --- Private ---

    def _is_known(self, track: Track, chosen: LocationFilter) -> bool:
        """Whether the answer can be told from here: of a track that was only fetched, what was fetched, no more.

        All that is left of it where nobody can be asked.
        """
        largest = track.largest
        if track.established:
            return True
        if largest is None:
            return False
        if not any(self._upstreams.who_knows(track.name.namespace, NOBODY, None)):
            return True
        wanted = resolve(chosen, largest)
        end = wanted.end
        return (
            chosen.kind is FilterKind.ABSOLUTE
            and end is not None
            and end <= largest
            and track.cache.first_unknown(wanted.start, end) is None
        )

    def _over(self, question: Question) -> None:
        """Nothing more comes of a FETCH of ours."""
        if question.timer is not None:
            question.timer.cancel()
        question.frontier.unwanted = None
        question.track.fetching.pop(question.party, None)
        if self._book.roles.get(question.party) is question:
            self._book.take(question.party)

    def _drop(self, question: Question, why: RequestRejected | None = None) -> None:
        """Take a FETCH of ours back; who still waits for it is refused."""
        if self._book.roles.get(question.party) is question:
            self._book.cancel(question.party)
        code, reason = (RequestCode.INTERNAL_ERROR, "") if why is None else (why.code, why.reason)
        self.refused(question, code, reason)

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
            sieve=sieve(parameters.range_filters),
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
        for asked, shared in track.fetching.values():
            if asked is None or asked.end is None or shared.done:
                continue
            if asked.start <= start and wanted.end <= asked.end:
                return shared
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
        if frontier.done:
            return
        assert wanted.end is not None
        start = track.cache.first_unknown(wanted.start, wanted.end)
        if start is None or not self._ask_range(track, start, wanted.end, frontier, timeout_ms, now):
            frontier.advance(None, done=True)

    def _ask_range(
        self, track: Track, start: Location, end: Location, frontier: Frontier, timeout_ms: int | None, now: float
    ) -> bool:
        chosen = LocationFilter(FilterKind.ABSOLUTE, start=start, end_group=end.group, end_object=end.object)
        here = [(party.session, None) for party in self._book.routes.publishers(track.name.namespace)]
        question = self._ask(track, chosen, timeout_ms, now, frontier, here)
        if question is None:
            return False
        question.wanted = Range(start, end)
        track.fetching[question.party] = (question.wanted, frontier)
        frontier.unwanted = partial(self._drop, question)
        frontier.advance(_previous(start))
        return True

    def _ask_for(self, party: Party, track: Track, chosen: LocationFilter, parameters: Parameters, now: float) -> None:
        """Nothing is known of the track here: pass the FETCH on, and answer when it is answered."""
        asked = self._upstreams.who_knows(track.name.namespace, party.session, parameters.rank)
        question = self._ask(track, chosen, parameters.fill_timeout_ms, now, Frontier(), asked)
        if question is None:
            self._book.forget_if_unused(track)
            if asked:
                raise RequestRejected(RequestCode.NOT_SUPPORTED, "no publisher can be asked for that now")
            raise RequestRejected(RequestCode.DOES_NOT_EXIST, "nobody publishes this track")
        waiting = Unanswered(party, parameters, question)
        question.answers.append(waiting)
        self._book.give(party, waiting)

    def _ask(
        self, track: Track, chosen: LocationFilter, timeout_ms: int | None, now: float, frontier: Frontier,
        others: Iterable[tuple[int, int | None]],
    ) -> Question | None:  # fmt: skip
        """FETCH from who feeds the track, or else from one of `others`."""
        book = self._book
        feeds = [(source.session, source_rank(state)) for source, state in track.sources.items() if state.established]
        for session, budget in (*feeds, *others):
            wish = Parameters(order=GroupOrder.ASCENDING, rank=budget)
            request = book.members[session].peer.fetch(track.name, chosen, wish)
            if request is not None:
                party = Party(session, request)
                question = Question(party, track, frontier, chosen, heard_at=now)
                patience = book.settings.answer_timeout_s
                latest = None if timeout_ms is None else now + timeout_ms / 1000
                due = now + patience if latest is None else min(now + patience, latest)
                question.timer = book.timers.at(due, partial(self._look_after, question, latest))
                book.give(party, question)
                track.fetching[party] = (None, frontier)
                return question
        return None

    def _look_after(self, question: Question, latest: float | None, now: float) -> None:
        """Give a publisher up that has been silent for too long, or whatever it does after `latest`."""
        heard_at = question.heard_at if question.inlet is None else max(question.heard_at, question.inlet.heard_at)
        due = heard_at + self._book.settings.answer_timeout_s
        if latest is not None:
            due = min(due, latest)
        if due > now:
            question.timer = self._book.timers.at(due, partial(self._look_after, question, latest))
            return
        question.frontier.timed_out = True
        self._drop(question, RequestRejected(RequestCode.TIMEOUT, "the publisher did not answer in time"))


def source_rank(source: Source) -> int | None:
    """How many relays a question to this source may still go through; None where it is a publisher."""
    return None if source.way is None else source.way.relays - 1


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
