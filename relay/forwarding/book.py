"""The state that forwarding's parts share: sessions, tracks, routes, requests and timers.

`forwarder` owns one `Book`; `asking`, `subscribing`, `sources`, `fetching` and the others are its parts and work on the
same book.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from heapq import heappop, heappush
from typing import TypeAlias

from relay.forwarding.cache import CacheBudget, CacheLimits
from relay.forwarding.egress_order import Outbox, ReadyQueue
from relay.forwarding.feed import Source
from relay.forwarding.fetch_cursor import FetchCursor, Frontier
from relay.forwarding.filling import FetchInlet
from relay.forwarding.peers import DropReason, Peer
from relay.forwarding.routes import Party, Routes, Way
from relay.forwarding.subscription import Subscription
from relay.forwarding.track import Inlet, Track
from relay.forwarding.tracks import Tracks
from tradewind.moqt.model import FullTrackName, Location, LocationFilter, Namespace, Parameters, Range, RangeFilter

MOST_WAITS = 4096
"""Latencies kept between two looks; older ones are forgotten first."""


@dataclass(frozen=True, slots=True)
class ForwardingSettings:
    """Bounds and times of forwarding; all of them reach here from the relay's settings."""

    cache: CacheLimits = CacheLimits()
    linger_s: float = 5.0
    """How long a track or namespace outlives its last publisher, and an upstream subscription its last viewer."""
    max_lag_s: float = 2.0
    """How far behind a subscriber may fall in older groups before it skips to the newest."""
    answer_timeout_s: float = 5.0
    """How long a publisher may take to answer a SUBSCRIBE or FETCH of ours."""
    max_rendezvous_s: float = 30.0
    done_wait_s: float = 2.0
    """How long streams announced by a PUBLISH_DONE are waited for."""
    max_datagrams: int = 512
    """Datagrams that wait for one session."""
    hop: int = 0
    """Our own Hop ID in the mesh; 0: we are in none."""
    max_tracks: int = 100_000
    max_namespaces_told: int = 10_000
    """Namespaces that one SUBSCRIBE_NAMESPACE may enumerate."""


class Timer:
    """A moment at which something is due; `cancel` it when it is not."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[float], None]) -> None:
        self.when = when
        self.action: Callable[[float], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Timers:
    """All moments of forwarding in one heap."""

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0

    def at(self, when: float, action: Callable[[float], None]) -> Timer:
        timer = Timer(when, action)
        self._count += 1
        heappush(self._heap, (when, self._count, timer))
        return timer

    def next_deadline(self) -> float | None:
        while self._heap and self._heap[0][2].action is None:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Do everything that is due."""
        while self._heap and self._heap[0][0] <= now:
            timer = heappop(self._heap)[2]
            if timer.action is not None:
                action, timer.action = timer.action, None
                action(now)


class Standing(IntEnum):
    """The link from a neighbour to us, best first: see `relay.links`."""

    UP = 0
    SUSPECT = 1
    PROBATION = 2
    BAD = 3
    SILENT = 4
    """Bad, and nothing at all comes, or goes there."""


@dataclass(slots=True)
class Told:
    """A PUBLISH_NAMESPACE of ours to a neighbour, and the way that it names."""

    request: int
    way: Way


@dataclass(slots=True)
class Member:
    """One session, as forwarding sees it."""

    session: int
    peer: Peer
    outbox: Outbox
    hop: int | None = None
    """A neighbour's Hop ID; None: it is no relay of our mesh."""
    standing: Standing = Standing.UP
    """What the link from that neighbour is like."""
    leaving: bool = False
    """It goes soon: a neighbour that is being emptied, or a publisher that we have asked to move."""
    told: dict[Namespace, Told] = field(default_factory=dict)
    """What that neighbour has been told of, by us."""
    withheld: dict[Namespace, float] = field(default_factory=dict)
    """Namespaces that it is not told of until then: see `Upstreams.withhold`."""
    requests: set[int] = field(default_factory=set)
    inlets: dict[int, tuple[Track, Inlet]] = field(default_factory=dict)
    """Its subgroup streams, by stream: see `open_inlet`."""
    fetch_inlets: dict[int, FetchInlet] = field(default_factory=dict)
    streams: dict[Party, set[int]] = field(default_factory=dict)
    """Its subgroup streams, by the request that they belong to: a session may have thousands of others."""

    def open_inlet(self, stream: int, track: Track, inlet: Inlet) -> None:
        """A subgroup stream of its begins."""
        self.inlets[stream] = (track, inlet)
        self.streams.setdefault(inlet.source.party, set()).add(stream)

    def close_inlet(self, stream: int) -> tuple[Track, Inlet] | None:
        """A subgroup stream of its is over, or is not taken any more; None: there is none of that number."""
        found = self.inlets.pop(stream, None)
        if found is not None:
            party = found[1].source.party
            open_streams = self.streams[party]
            open_streams.discard(stream)
            if not open_streams:
                del self.streams[party]
        return found

    def inlets_of(self, party: Party) -> list[int]:
        """The subgroup streams of one request, in order."""
        return sorted(self.streams.get(party, ()))

    @property
    def worth(self) -> Standing:
        """What may be expected of it. Who goes soon is better than a bad link, and no better than a doubtful one."""
        return max(self.standing, Standing.PROBATION) if self.leaving else self.standing


@dataclass(slots=True)
class Waiting:
    """A SUBSCRIBE of theirs that no publisher has answered yet."""

    party: Party
    track: Track
    parameters: Parameters
    since: float
    timer: Timer | None = None
    joins: list[Joining] = field(default_factory=list)
    """FETCHes of theirs that join this subscription."""


@dataclass(slots=True)
class Turning:
    """A SUBSCRIBE of a neighbour that feeds us the same track: see `circles`."""

    party: Party
    track: Track
    parameters: Parameters
    since: float
    timer: Timer | None = None


@dataclass(slots=True)
class Joining:
    """A joining FETCH of theirs whose subscription is not established yet."""

    party: Party
    waiting: Waiting
    start: int | None
    back: int | None
    parameters: Parameters


@dataclass(slots=True)
class Offered:
    """A PUBLISH of ours that its receiver has not answered yet."""

    party: Party
    track: Track
    parameters: Parameters


@dataclass(slots=True)
class Asked:
    """A TRACK_STATUS of ours on behalf of one of theirs: the role of both."""

    party: Party
    for_party: Party
    timer: Timer | None = None


@dataclass(slots=True)
class Question:
    """A FETCH of ours upstream."""

    party: Party
    track: Track
    frontier: Frontier
    chosen: LocationFilter
    wanted: Range | None = None
    """What it asks for in locations; None: not known before the answer."""
    inlet: FetchInlet | None = None
    timer: Timer | None = None
    answers: list[Unanswered] = field(default_factory=list)
    heard_at: float = 0.0
    """When the publisher last said something that answers it."""
    accepted: bool = False
    closed: bool = False
    """Its data stream has ended; that may come before FETCH_OK."""


@dataclass(slots=True)
class Unanswered:
    """A FETCH of theirs whose range is not known until a FETCH of ours is answered."""

    party: Party
    parameters: Parameters
    question: Question


@dataclass(slots=True)
class Answering:
    """A FETCH of theirs that is being answered."""

    party: Party
    cursor: FetchCursor


@dataclass(frozen=True, slots=True)
class Announced:
    """A PUBLISH_NAMESPACE of theirs."""

    party: Party


@dataclass(frozen=True, slots=True)
class Interested:
    """A SUBSCRIBE_NAMESPACE or SUBSCRIBE_TRACKS of theirs."""

    party: Party
    tracks: bool


@dataclass(slots=True)
class Feeding:
    """A SUBSCRIBE of ours or a PUBLISH of theirs."""

    track: Track
    source: Source


@dataclass(slots=True)
class Serving:
    """An established subscription of theirs."""

    track: Track
    subscription: Subscription
    range_filters: tuple[RangeFilter, ...]
    largest_at_start: Location | None
    """The Largest Location told when it began, or began to forward: joining fetches end there."""


@dataclass(slots=True)
class Ending:
    """A subscription of theirs whose track has ended: what is left of its streams is still sent."""

    party: Party
    track: Track
    subscription: Subscription


Role: TypeAlias = (
    Waiting
    | Turning
    | Joining
    | Offered
    | Asked
    | Question
    | Unanswered
    | Answering
    | Announced
    | Interested
    | Feeding
    | Serving
    | Ending
)


class Book:
    """Sessions, tracks, routes, requests, timers."""

    __slots__ = ("_aliases", "budget", "bytes_in", "drops", "join_waits_s", "malformed", "members", "near",
                 "objects_in", "positions", "ready", "retired", "roles", "routes", "settings", "timers", "tracks",
                 "waiting")  # fmt: skip

    def __init__(self, settings: ForwardingSettings) -> None:
        self.settings = settings
        self.members: dict[int, Member] = {}
        self.tracks = Tracks()
        self.routes = Routes()
        self.positions: Mapping[tuple[int, int], int] = {}
        """The route table: (origin, next hop) -> place among the origin's candidates, by Hop IDs."""
        self.near: frozenset[int] = frozenset()
        """Hop IDs of the other relays of our region, where they may take from us what comes from elsewhere."""
        self.roles: dict[Party, Role] = {}
        """What each open request is to us."""
        self.waiting: dict[Track, list[Waiting]] = {}
        self.retired: dict[Track, None] = {}
        """Tracks that have ended, kept while streams still read them."""
        self.timers = Timers()
        self.budget = CacheBudget(settings.cache)
        self.ready = ReadyQueue()
        self.join_waits_s: deque[float] = deque(maxlen=MOST_WAITS)
        """How long subscriptions waited for their first object, since somebody last looked."""
        self.drops: Counter[DropReason] = Counter()
        """Of sessions and tracks that are gone."""
        self.objects_in = 0
        self.bytes_in = 0
        self.malformed = 0
        self._aliases = 0

    def track(self, name: FullTrackName) -> Track:
        """The track of this name, made if nobody asked for it before."""
        found = self.tracks.get(name)
        if found is None:
            self._aliases += 1
            found = Track(name, self._aliases, self.budget, self.ready)
            self.tracks[name] = found
        return found

    def forget_if_unused(self, track: Track) -> None:
        """Let a track go that nobody publishes, reads or waits for."""
        if self.tracks.get(track.name) is not track or track.established:
            return
        if track.sources or track.subscriptions or self.waiting.get(track):
            return
        if track.fetching:
            return
        del self.tracks[track.name]
        track.cache.clear()
        self.drops.update(track.drops)

    def forget_later(self, track: Track, now: float) -> None:
        """The same for a track that was only fetched: once nobody reads what is here of it."""
        self.timers.at(now + max(self.settings.linger_s, 1.0), partial(self._forget_unread, track))

    def _forget_unread(self, track: Track, now: float) -> None:
        if self.tracks.get(track.name) is not track or track.established:
            return
        if any(isinstance(role, Answering) and role.cursor.reads(track.cache) for role in self.roles.values()):
            self.forget_later(track, now)
        else:
            self.forget_if_unused(track)

    def retire(self, track: Track, now: float) -> None:
        """A track has ended: let it go when nothing reads it any more, or at the latest when its cache is stale."""
        if self.tracks.get(track.name) is track:
            del self.tracks[track.name]
        if track not in self.retired:
            self.retired[track] = None
            self._let_go(track, now + self.settings.cache.age_s, now)

    def _let_go(self, track: Track, latest: float, now: float) -> None:
        read = any(subgroup.cursors for group in track.cache.groups.values() for subgroup in group.subgroups.values())
        if (read or track.fetching) and now < latest:
            self.timers.at(now + 1.0, lambda when: self._let_go(track, latest, when))
            return
        for party, (_, frontier) in tuple(track.fetching.items()):
            self.cancel(party)
            frontier.advance(None, done=True)
        del self.retired[track]
        track.cache.clear()
        self.drops.update(track.drops)

    def peer(self, party: Party) -> Peer:
        return self.members[party.session].peer

    def give(self, party: Party, role: Role) -> None:
        """Note what a request is to us; another role takes the place of the last."""
        self._withdraw_offer(party)
        if isinstance(role, Ending):
            role.track.neighbours.children.pop(party, None)
        self.roles[party] = role
        if isinstance(role, Offered):
            role.track.offers[party] = None
        self.members[party.session].requests.add(party.request)

    def take(self, party: Party) -> Role | None:
        """The request is over."""
        member = self.members.get(party.session)
        if member is not None:
            member.requests.discard(party.request)
        self._withdraw_offer(party)
        role = self.roles.pop(party, None)
        if isinstance(role, Serving | Waiting):
            role.track.neighbours.children.pop(party, None)
        elif isinstance(role, Turning):
            role.track.neighbours.turning.pop(party, None)
            if role.timer is not None:
                role.timer.cancel()
        return role

    def cancel(self, party: Party) -> None:
        """End a request that feeds us, ours or a PUBLISH of theirs: nothing of what still comes for it counts."""
        member = self.members[party.session]
        for stream in member.inlets_of(party):
            found = member.close_inlet(stream)
            assert found is not None
            track, inlet = found
            track.close_subgroup(inlet, None, lost=True)
        for stream in [stream for stream, fetched in member.fetch_inlets.items() if fetched.party == party]:
            del member.fetch_inlets[stream]
        self.take(party)
        member.peer.cancel(party.request)

    def _withdraw_offer(self, party: Party) -> None:
        role = self.roles.get(party)
        if isinstance(role, Offered):
            role.track.offers.pop(party, None)

    def wait(self, waiting: Waiting) -> None:
        self.waiting.setdefault(waiting.track, []).append(waiting)
        self.give(waiting.party, waiting)

    def stop_waiting(self, waiting: Waiting) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        others = self.waiting[waiting.track]
        others.remove(waiting)
        if not others:
            del self.waiting[waiting.track]

    def check_invariants(self) -> None:
        self.routes.check_invariants()
        self.tracks.check_invariants()
        for party in self.roles:
            assert party.request in self.members[party.session].requests
        offers = [(role.track, party) for party, role in self.roles.items() if isinstance(role, Offered)]
        assert all(party in track.offers for track, party in offers)
        assert sum(len(track.offers) for track in self.tracks.values()) <= len(offers)
        for track, waiting in self.waiting.items():
            assert waiting
            assert self.tracks[track.name] is track
        for track in self.tracks.values():
            track.check_invariants()
        for member in self.members.values():
            streams = {(inlet.source.party, stream) for stream, (_, inlet) in member.inlets.items()}
            assert streams == {(party, stream) for party, found in member.streams.items() for stream in found}
        assert self.budget.used == sum(track.cache.bytes for track in (*self.tracks.values(), *self.retired))
