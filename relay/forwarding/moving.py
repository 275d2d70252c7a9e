"""Moving tracks from one upstream relay to another: make before break, and nothing that was forwarded is lost.

`forwarder` calls it when links, ways or the route table change. The new neighbour is asked while the old one still
sends; what both send is merged by byte; once the new one has reached where the track was, the old one is let go. While
a link is only suspect nothing moves, but what is small comes from a second neighbour too, which is then there already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from relay.forwarding.asking import Asking
from relay.forwarding.book import Book, Standing, Turning
from relay.forwarding.circles import Circles
from relay.forwarding.feed import Source
from relay.forwarding.routes import Party, Way
from relay.forwarding.track import Track
from relay.forwarding.upstreams import Upstreams
from tradewind.moqt.model import FullTrackName, Location, Namespace

RETURN_S = 2.0
"""A track goes back to a better-ranked neighbour only this long after it last moved."""
PATIENCE_S = 1.0
"""How long the new neighbour may take before the old one is let go all the same, or the next one is asked."""
DOUBLED_RATIO = 0.05
"""Of all that comes in, so much may come twice."""
DOUBLED_AT_ONCE_BYTES = 256 * 1024
"""What that may add up to while nothing is doubled."""
DOUBLED_S = 1.0
"""For how long a track is paid for when it begins to be doubled: a link that is suspect is judged sooner."""

TAKEN_MOST = 4096
LOOKED_AT = 64
PAUSE_S = 0.001
"""So many tracks are looked at again at once, and when the next are: thousands would fill many turns' time."""
DECLINED_S = 1.0
"""A neighbour that would not serve us, since it stands below others for the track, is asked again after so long."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A track comes from another neighbour now. Sessions, as `forwarder` numbers them."""

    track: FullTrackName
    was: int
    now: int


class Moving:
    """Follows what is best for every track that comes from neighbours."""

    def __init__(self, book: Book, upstreams: Upstreams, asking: Asking, circles: Circles) -> None:
        self._book = book
        self._upstreams = upstreams
        self._asking = asking
        self._circles = circles
        self.moves = 0
        """Tracks moved to another neighbour, since the start."""
        self.doubled = 0
        """Tracks that came from two neighbours for a while."""
        self.taken: list[Taken] = []
        """Moves that are over since the caller last emptied this; no more than `TAKEN_MOST`."""
        self._purse_bytes = float(DOUBLED_AT_ONCE_BYTES)
        self._counted_bytes = 0
        self._unseen: dict[Track, None] = {}
        """Tracks that are to be looked at again, in order."""
        self._resting: set[Track] = set()
        """Those that wait until they may move again."""

    def reconsider(self, namespace: Namespace | None, now: float) -> None:
        """Look again at every track (below `namespace`) that neighbours feed, or that wants one to."""
        self._look(self._book.tracks.under(namespace or ()), now)

    def readvertised(self, session: int, namespace: Namespace, now: float) -> None:
        """A neighbour has the namespace by another way: what it feeds us goes on, or it says itself what has ended."""
        book = self._book
        for track in book.tracks.under(namespace):
            fed = next((source for source in track.sources.values() if source.party.session == session), None)
            new = self._upstreams.way_of(session, track.name.namespace)
            if fed is not None and fed.way is not None and new is not None:
                fed.way = new
        self.reconsider(namespace, now)

    def arrived(self, track: Track, source: Source, now: float) -> None:
        """A source that succeeds others has reached where they were: let them go."""
        source.succeeds = None
        others = [
            other
            for other in track.sources.values()
            if other is not source and (other.way is not None or self._is_leaving(other))
        ]
        if others and len(self.taken) < TAKEN_MOST:
            self.taken.append(Taken(track.name, others[0].party.session, source.party.session))
        self._let_go(track, others, now)

    def turn(self, track: Track, now: float) -> None:
        """Neighbours that feed us ask us for the track: they have lost their way, and we are to take another."""
        self._reconsider(track, now)
        if all(self._has_lost_it(track, source) for source in track.sources.values()):
            for party in tuple(track.neighbours.turning):
                turning = self._book.roles[party]
                assert isinstance(turning, Turning)
                self._circles.give_back(turning, now)

    def declined(self, track: Track, session: int, now: float) -> None:
        """A neighbour would not serve us a track that we have: the next one is asked at once."""
        if self._book.tracks.get(track.name) is track and track.established:
            self._pass_over(track, session, now)
            self._reconsider(track, now)

    def keep_house(self, now: float) -> None:
        """Once a second: what may come twice grows with what came; what could not move before may be able to now."""
        fresh, self._counted_bytes = self._book.bytes_in - self._counted_bytes, self._book.bytes_in
        self._purse_bytes = min(self._purse_bytes + DOUBLED_RATIO * fresh, float(DOUBLED_AT_ONCE_BYTES))
        leaving = {session for session, member in self._book.members.items() if member.leaving}
        if leaving:
            tracks = self._book.tracks.values()
            self._look([track for track in tracks if any(party.session in leaving for party in track.sources)], now)

    # --- Private ---

    def _look(self, tracks: list[Track], now: float) -> None:
        """Look at these again, as many as a turn has time for; the others follow."""
        if len(tracks) <= LOOKED_AT:
            for track in tracks:
                self._reconsider(track, now)
            return
        waits = bool(self._unseen)
        self._unseen.update(dict.fromkeys(tracks))
        if not waits:
            self._look_on(now)

    def _look_on(self, now: float) -> None:
        tracks = tuple(islice(self._unseen, LOOKED_AT))
        for track in tracks:
            del self._unseen[track]
        if self._unseen:
            self._book.timers.at(now + PAUSE_S, self._look_on)
        for track in tracks:
            if self._book.tracks.get(track.name) is track:
                self._reconsider(track, now)

    def _reconsider(self, track: Track, now: float) -> None:
        self._circles.turned(track, now)
        if not self._asking.wanted(track):
            if track.sources and all(self._is_leaving(source) for source in track.sources.values()):
                # Nobody comes back to it here.
                self._asking.release(track)
            return
        here = [source for source in track.sources.values() if source.way is None and not self._is_leaving(source)]
        fed = [source for source in track.sources.values() if source not in here]
        if here:
            # Somebody publishes it here: `several` lets neighbours go once it is seen to.
            return
        if self._has_double(track, fed, now):
            return
        candidates = self._upstreams.candidates(track)
        feeding = {source.party.session for source in fed}
        others = any(self._standing(party) < Standing.BAD for party, _ in candidates if party.session not in feeding)
        worth = min((self._worth(track, source) for source in fed), default=Standing.SILENT)
        if not others and worth not in (Standing.UP, Standing.PROBATION):
            # Nobody else is left: one that we serve takes its own way, and is there when the suspicion comes true.
            turnable = self._upstreams.turnable(track)[:1]
            if fed and not turnable and worth >= Standing.BAD:
                self._upstreams.withhold(track, now)
            candidates = turnable or candidates
        if not candidates:
            return
        best, way = candidates[0]
        if best.session in feeding:
            if len(fed) > 1:
                # It may be about to be let go: the move away from it goes on, and is undone after a rest.
                self._has_rested(track, now)
            return
        if not fed:
            self._ask(track, best, way, now)
        elif len(fed) == 1 and self._worth(track, fed[0]) is Standing.SUSPECT:
            self._double(track, candidates, now)
        elif self._is_worth_it(track, fed, best, now):
            self._move(track, fed, candidates, now)

    def _is_worth_it(self, track: Track, fed: list[Source], best: Party, now: float) -> bool:
        if any(source.way is None for source in fed):
            # A publisher here that goes soon feeds us well until then.
            return self._standing(best) is Standing.UP
        advertised = [self._upstreams.way_of(source.party.session, track.name.namespace) for source in fed]
        if all(found is None or self._book.settings.hop in found.hops for found in advertised):
            return True
        least_bad = min(self._worth(track, source) for source in fed)
        if least_bad >= Standing.BAD:
            # Where something still comes, it is better than nothing.
            return self._standing(best) < least_bad
        if all(self._is_leaving(source) for source in fed):
            return self._standing(best) is Standing.UP
        return self._standing(best) is Standing.UP and self._has_rested(track, now)

    def _has_rested(self, track: Track, now: float) -> bool:
        """Whether a track may move to what is only better; it is looked at again once it may."""
        if now >= track.neighbours.moved_at + RETURN_S:
            return True
        if track not in self._resting:
            self._resting.add(track)
            self._book.timers.at(track.neighbours.moved_at + RETURN_S, partial(self._rested, track))
        return False

    def _rested(self, track: Track, now: float) -> None:
        self._resting.discard(track)
        self._look([track] if self._book.tracks.get(track.name) is track else [], now)

    def _move(self, track: Track, fed: list[Source], candidates: Sequence[tuple[Party, Way]], now: float) -> None:
        """Have the track from the best of these, or from whichever of two is there first where what feeds it is bad."""
        under_way = [source for source in fed if source.succeeds is not None]
        # One move at a time, unless what is under way leads nowhere.
        if any(self._standing(source.party) < Standing.BAD for source in under_way):
            return
        self._let_go(track, under_way, now)
        (best, way), others = candidates[0], candidates[1:2]
        if not self._ask(track, best, way, now):
            return
        self.moves += 1
        track.neighbours.moved_at = now
        if all(self._worth(track, source) >= Standing.BAD for source in fed):
            for other, by in others:
                asked = any(source.party.session == other.session for source in track.sources.values())
                if not asked and self._standing(other) < Standing.BAD and self._pay(track, now):
                    self._ask(track, other, by, now)

    def _ask(self, track: Track, best: Party, way: Way, now: float) -> bool:
        source = self._asking.ask_neighbour(track, best, way)
        if source is None:
            return False
        if len(track.sources) > 1:
            self._succeed(track, source, now)
        return True

    def _succeed(self, track: Track, source: Source, now: float) -> None:
        """From now on a source is to take the place of the others."""
        source.succeeds = track.largest or Location(0, 0)
        self._book.timers.at(now + PATIENCE_S, partial(self._lose_patience, track, source))

    def _lose_patience(self, track: Track, source: Source, now: float) -> None:
        """The new source has not caught up in time: it takes over if it is there at all."""
        if source.succeeds is None or track.sources.get(source.party) is not source:
            return
        if source.established:
            self.arrived(track, source, now)
        else:
            self._let_go(track, [source], now)
            self._reconsider(track, now)

    def _double(self, track: Track, candidates: Sequence[tuple[Party, Way]], now: float) -> None:
        """Have a track from other neighbours as well, where that costs little enough.

        From two: the best may decline, or be farther away, or lose what we ask.
        """
        for party, way in candidates[:2]:
            asked = any(source.party.session == party.session for source in track.sources.values())
            if asked or self._standing(party) is not Standing.UP or not self._pay(track, now):
                continue
            source = self._asking.ask_neighbour(track, party, way)
            if source is not None:
                source.doubles = True
                self.doubled += 1

    def _pay(self, track: Track, now: float) -> bool:
        """Whether a track may come once more for a while; it is paid for then."""
        cost = track.bytes_in / max(now - track.established_at, 1.0) * DOUBLED_S
        if cost > self._purse_bytes:
            return False
        self._purse_bytes -= cost
        return True

    def _has_double(self, track: Track, fed: list[Source], now: float) -> bool:
        """Whether a track comes more than once and that settles it: others take over where the first has gone bad.

        The one that is there, or the first that comes. Where the first is well again the others go, and everything is
        looked at anew.
        """
        doubles = [source for source in fed if source.doubles]
        if not doubles:
            return False
        first = next((source for source in fed if not source.doubles), None)
        standing = Standing.SILENT if first is None else self._worth(track, first)
        if standing is Standing.SUSPECT:
            # What a neighbour that asks us would send us is what it gets from us.
            idle = [source for source in doubles if self._has_lost_it(track, source)]
            for source in idle:
                fed.remove(source)
                self._pass_over(track, source.party.session, now)
            self._let_go(track, idle, now)
            return len(idle) < len(doubles)
        better = [source for source in doubles if self._standing(source.party) < standing]
        if standing >= Standing.BAD and better:
            for source in better:
                source.doubles = False
            self.moves += 1
            track.neighbours.moved_at = now
            there = next((source for source in better if source.last_at > float("-inf")), None)
            if first is None or there is not None:
                self.arrived(track, there or better[0], now)
            else:
                for source in better:
                    self._succeed(track, source, now)
            return True
        self._let_go(track, doubles, now)
        for source in doubles:
            fed.remove(source)
        return False

    def _pass_over(self, track: Track, session: int, now: float) -> None:
        """Do not ask a neighbour for the track for a moment."""
        track.neighbours.declined.add(session)
        self._book.timers.at(now + DECLINED_S, partial(self._forgive, track, session))

    def _forgive(self, track: Track, session: int, now: float) -> None:
        track.neighbours.declined.discard(session)
        if self._book.tracks.get(track.name) is track:
            self._reconsider(track, now)

    def _standing(self, party: Party) -> Standing:
        return self._book.members[party.session].worth

    def _worth(self, track: Track, source: Source) -> Standing:
        return Standing.SILENT if self._has_lost_it(track, source) else self._standing(source.party)

    def _has_lost_it(self, track: Track, source: Source) -> bool:
        """Whether the neighbour that feeds us asks us for the track."""
        members = self._book.members
        hop = members[source.party.session].hop
        return source.way is not None and any(members[party.session].hop == hop for party in track.neighbours.turning)

    def _is_leaving(self, source: Source) -> bool:
        return self._book.members[source.party.session].leaving

    def _let_go(self, track: Track, sources: list[Source], now: float) -> None:
        for source in sources:
            del track.sources[source.party]
            self._book.cancel(source.party)
        self._circles.turned(track, now)
