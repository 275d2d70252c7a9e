"""What a relay does with tracks: requests and objects in, requests and objects out, no wire format anywhere.

`relay.node` calls `receive_*` with what sessions say, in any order and for any draft, and takes outboxes from
`ready` to let them send. Objects go to `intake`. Everything here is synchronous and owned by one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from relay.forwarding import picture
from relay.forwarding.asking import Asking
from relay.forwarding.astray import Astray, astray
from relay.forwarding.book import (
    Announced,
    Answering,
    Asked,
    Book,
    Ending,
    Feeding,
    ForwardingSettings,
    Interested,
    Joining,
    Member,
    Offered,
    Question,
    Serving,
    Standing,
    Turning,
    Unanswered,
    Waiting,
)
from relay.forwarding.circles import Circles
from relay.forwarding.discovery import Discovery
from relay.forwarding.egress_order import Outbox, ReadyQueue
from relay.forwarding.fetching import Fetching
from relay.forwarding.intake import Intake
from relay.forwarding.moving import Moving, Taken
from relay.forwarding.peers import Peer, Sink
from relay.forwarding.picture import Carried, ForwardingStatistics
from relay.forwarding.routes import Party, Way
from relay.forwarding.seeking import Seeking
from relay.forwarding.several import Several
from relay.forwarding.sources import Sources
from relay.forwarding.status import Status
from relay.forwarding.subscribing import Subscribing
from relay.forwarding.upstreams import Upstreams
from tradewind.moqt.errors import RequestCode, RequestRejected, ResetCode
from tradewind.moqt.model import (
    FullTrackName,
    Location,
    LocationFilter,
    Namespace,
    Parameters,
    Properties,
)


class Forwarder:
    """All tracks of one relay."""

    __slots__ = ("_asking", "_book", "_circles", "_discovery", "_fetching", "_moving", "_seeking", "_several",
                 "_sources", "_status", "_subscribing", "_upstreams", "intake")  # fmt: skip

    def __init__(self, settings: ForwardingSettings) -> None:
        self._book = Book(settings)
        self._upstreams = Upstreams(self._book)
        self._discovery = Discovery(self._book, self._upstreams)
        self._fetching = Fetching(self._book, self._upstreams)
        self._asking = Asking(self._book, self._discovery, self._upstreams)
        self._subscribing = Subscribing(self._book, self._fetching, self._asking)
        self._circles = Circles(self._book, self._asking, self._subscribing)
        self._sources = Sources(self._book, self._discovery, self._upstreams, self._asking, self._subscribing)
        self._moving = Moving(self._book, self._upstreams, self._asking, self._circles)
        self._seeking = Seeking(self._book, self._discovery, self._asking)
        self._several = Several(self._book, self._upstreams, self._asking)
        self._status = Status(self._book, self._upstreams)
        self.intake = Intake(self._book, self._fetching, self._sources, self._moving)
        """Takes objects in; whoever has them calls it directly, since every call costs on that path."""

    @property
    def ready(self) -> ReadyQueue:
        """Outboxes with something to send, in the order of their turns; the caller pops them."""
        return self._book.ready

    # --- Sessions ---

    def open_session(self, session: int, peer: Peer, sink: Sink, hop: int | None = None) -> Outbox:
        """A session is set up, with a neighbour where it has a Hop ID; returns its outbox."""
        outbox = Outbox(session, sink, self._book.ready, self._book.settings.max_datagrams)
        self._book.members[session] = Member(session, peer, outbox, hop)
        if hop is not None:
            self._upstreams.tell_all(session)
        return outbox

    def close_session(self, session: int, now: float) -> None:
        """A session is gone, with every request of both sides."""
        book = self._book
        member = book.members.get(session)
        if member is None:
            return
        self.intake.close(member)
        for request in tuple(member.requests):
            self.receive_cancel(session, request, now, lost=True)
        member.outbox.clear()
        book.drops.update(member.outbox.drops)
        del book.members[session]
        if member.hop is not None:
            self._moving.reconsider(None, now)

    def apply_positions(
        self, positions: Mapping[tuple[int, int], int], now: float, near: AbstractSet[int] = frozenset()
    ) -> None:
        """A route table: (origin, next hop) -> place among the candidates for that origin, all as Hop IDs.

        `near`: relays of our region that may be told to take from us what lives elsewhere.
        """
        self._book.positions, self._book.near = positions, frozenset(near)
        self._moving.reconsider(None, now)

    def grade_neighbour(self, session: int, standing: Standing, now: float) -> None:
        """What the link from a neighbour to us is like now."""
        member = self._book.members.get(session)
        if member is not None and member.standing is not standing:
            member.standing = standing
            self._moving.reconsider(None, now)

    def take_moves(self) -> list[Taken]:
        """Tracks that come from another neighbour since this was last called."""
        taken, self._moving.taken = self._moving.taken, []
        return taken

    def note_leaving(self, session: int, now: float, *, leaving: bool) -> None:
        """A session goes soon, or stays after all: what it feeds moves elsewhere while it is still there."""
        member = self._book.members.get(session)
        if member is not None and member.leaving is not leaving:
            member.leaving = leaving
            if member.hop is not None or self.publishes(session):
                self._moving.reconsider(None, now)

    # --- Requests of theirs ---

    def receive_subscribe(
        self, session: int, request: int, track: FullTrackName, parameters: Parameters, now: float
    ) -> None:
        self._circles.request(Party(session, request), track, parameters, now)
        found = self._book.tracks.get(track)
        if found is None:
            return
        if Party(session, request) in found.neighbours.turning:
            self._moving.turn(found, now)
        elif found.established:
            self._several.watch(found, now)

    def receive_publish(
        self, session: int, request: int, track: FullTrackName, parameters: Parameters, properties: Properties,
        now: float, *, private: bool = False,
    ) -> None:  # fmt: skip
        """PUBLISH; `private`: neighbours do not hear of it."""
        self._sources.offered(Party(session, request), track, parameters, properties, now)
        found = self._book.tracks.get(track)
        if found is not None:
            self._several.watch(found, now)
            if not private:
                self._upstreams.published(track)

    def receive_fetch(
        self, session: int, request: int, track: FullTrackName, chosen: LocationFilter, parameters: Parameters,
        now: float,
    ) -> None:  # fmt: skip
        party = Party(session, request)
        self._or_reject(party, lambda: self._fetching.request(party, track, chosen, parameters, now))

    def receive_joining_fetch(
        self, session: int, request: int, joined: int, start: int | None, back: int | None, parameters: Parameters,
        now: float,
    ) -> None:  # fmt: skip
        """A joining FETCH (drafts up to 18) of the subscription with request number `joined`."""
        party = Party(session, request)
        serving = self._book.roles.get(Party(session, joined))
        if isinstance(serving, Waiting):
            self._subscribing.join(Joining(party, serving, start, back, parameters))
            return
        if not isinstance(serving, Serving):
            self._book.peer(party).reject(request, RequestCode.INVALID_JOINING_REQUEST_ID, "no such subscription")
            return
        self._or_reject(
            party,
            lambda: self._fetching.join(party, serving, start, back, parameters, now),
        )

    def receive_track_status(
        self, session: int, request: int, name: FullTrackName, parameters: Parameters, now: float
    ) -> None:
        self._status.request(Party(session, request), name, parameters, now)

    def receive_way(self, session: int, request: int, namespace: Namespace, way: Way, now: float) -> None:
        """PUBLISH_NAMESPACE of a neighbour: it has the namespace by this way."""
        book = self._book
        party = Party(session, request)
        if self._upstreams.leads_here(way, session):
            book.peer(party).reject(request, RequestCode.UNINTERESTED, "that way leads through us")
            return
        if self._discovery.announce(party, namespace, way):
            self._sources.end_former_lives(namespace, now)
        self._several.appeared(party, way, namespace, now)
        self._moving.reconsider(namespace, now)
        self._seeking.look(namespace, now)

    def receive_other_way(self, session: int, request: int, way: Way, now: float) -> None:
        """A neighbour has a namespace of before by another way."""
        book = self._book
        party = Party(session, request)
        if self._upstreams.leads_here(way, session):
            namespace = book.routes.namespace_of(party)
            self._discovery.withdraw(party, now, lost=False)
            book.cancel(party)
            if namespace is not None:
                self._moving.reconsider(namespace, now)
            return
        before = self._discovery.readvertise(party, way)
        if before is not None:
            namespace, publisher = before
            self._moving.readvertised(session, namespace, now)
            if publisher != way.publisher:
                self._discovery.flip(namespace, now)
            self._seeking.look(namespace, now)

    def receive_publish_namespace(
        self, session: int, request: int, namespace: Namespace, now: float, *, private: bool = False
    ) -> None:
        """PUBLISH_NAMESPACE; `private`: neighbours do not hear of it."""
        party = Party(session, request)
        fresh = self._discovery.announce(party, namespace, private=private)
        if fresh:
            self._sources.end_former_lives(namespace, now)
        self._asking.announced(party, namespace)

    def receive_subscribe_namespace(self, session: int, request: int, prefix: Namespace, now: float) -> None:
        self._discovery.listen_namespaces(Party(session, request), prefix, now)

    def receive_subscribe_tracks(
        self, session: int, request: int, prefix: Namespace, parameters: Parameters, now: float
    ) -> None:
        self._discovery.listen_tracks(Party(session, request), prefix, parameters)
        self._seeking.look_under(prefix, now)

    def receive_update(self, session: int, request: int, update: int, parameters: Parameters, now: float) -> None:
        """REQUEST_UPDATE of any request of theirs, or of a PUBLISH of ours."""
        party = Party(session, request)
        role = self._book.roles.get(party)
        peer = self._book.peer(party)
        match role:
            case Serving():
                self._subscribing.update(party, role, update, parameters, now)
            case Interested():
                self._discovery.update_prefix(party, role, update, parameters, now)
            case Answering():
                if parameters.priority is not None:
                    role.cursor.priority = parameters.priority
                    role.cursor.outbox.reorder()
                peer.accept_update(request, update, Parameters())
            case Offered():
                role.parameters = parameters
                peer.accept_update(request, update, Parameters())
            case _:
                peer.accept_update(request, update, Parameters())

    def receive_cancel(self, session: int, request: int, now: float, *, lost: bool = False) -> None:
        """A request is over because the peer ended it, or because its session is `lost`."""
        party = Party(session, request)
        role = self._book.take(party)
        match role:
            case Serving():
                self._subscribing.end(party, role, now)
                self._another_way(session, role.track.name.namespace, now, lost=lost)
            case Waiting():
                self._subscribing.cancel_waiting(role, now)
            case Feeding():
                self._sources.lost(party, role, now)
            case Announced():
                namespace = self._book.routes.namespace_of(party)
                self._discovery.withdraw(party, now, lost=lost)
                if namespace is not None:
                    self._another_way(session, namespace, now, lost=lost)
            case Interested():
                prefix = self._discovery.stop_listening(party)
                if prefix is not None:
                    self._seeking.leave(prefix, now)
            case Joining():
                role.waiting.joins.remove(role)
            case Ending():
                role.subscription.close(ResetCode.CANCELLED)
            case Answering() | Unanswered():
                self._fetching.cancel(role)
            case Question():
                self._fetching.refused(role, RequestCode.INTERNAL_ERROR, "the publisher went away")
            case Asked():
                self._status.cancelled(role, party)
            case Offered() | Turning():
                self._asking.reconsider(role.track, now)
            case _:
                pass

    # --- Answers to requests of ours ---

    def receive_subscribe_ok(
        self, session: int, request: int, parameters: Parameters, properties: Properties, now: float
    ) -> None:
        party = Party(session, request)
        role = self._book.roles.get(party)
        if isinstance(role, Feeding):
            self._sources.accepted(party, role, parameters, properties, now)
            self._several.watch(role.track, now)

    def receive_fetch_ok(
        self, session: int, request: int, end: Location, end_of_track: bool, properties: Properties, now: float
    ) -> None:
        party = Party(session, request)
        role = self._book.roles.get(party)
        if isinstance(role, Question):
            if not role.track.established:
                role.track.properties = properties
            self._fetching.accepted(role, end, end_of_track, now)

    def receive_ok(
        self, session: int, request: int, parameters: Parameters, properties: Properties, now: float
    ) -> None:
        """REQUEST_OK for a PUBLISH or TRACK_STATUS of ours."""
        party = Party(session, request)
        role = self._book.roles.get(party)
        if isinstance(role, Offered):
            self._subscribing.offer_accepted(party, role, parameters, now)
        elif isinstance(role, Asked):
            self._status.answered(role, parameters.largest, properties)

    def receive_error(self, session: int, request: int, code: int, reason: str, now: float) -> None:
        """REQUEST_ERROR for any request of ours."""
        party = Party(session, request)
        if code == RequestCode.REDIRECT:
            # We follow none, and who asked us has not asked for another track.
            code = RequestCode.DOES_NOT_EXIST
        role = self._book.take(party)
        match role:
            case Feeding():
                self._sources.refused(party, role, code, reason, now)
                if role.source.way is not None:
                    self._moving.declined(role.track, session, now)
            case Question():
                self._fetching.refused(role, code, reason)
            case Asked():
                self._status.refused(role, code, reason)
            case Offered():
                self._asking.reconsider(role.track, now)
            case _:
                self._upstreams.refused(session, request)

    def receive_publish_done(
        self, session: int, request: int, status: int, stream_count: int | None, reason: str, now: float
    ) -> None:
        party = Party(session, request)
        role = self._book.roles.get(party)
        if isinstance(role, Feeding):
            self._sources.finished(party, role, status, stream_count, reason, now)

    # --- Time ---

    def next_deadline(self) -> float | None:
        return self._book.timers.next_deadline()

    def handle_deadline(self, now: float) -> None:
        self._book.timers.run(now)

    def _another_way(self, session: int, namespace: Namespace, now: float, *, lost: bool) -> None:
        """A neighbour has one way less, or is below us no longer and may be asked from now on."""
        if not lost and self._book.members[session].hop is not None:
            self._moving.reconsider(namespace, now)

    def keep_limits(self, now: float) -> None:
        """Bring the cache within its bounds of bytes and age; call it now and then."""
        self._upstreams.keep_house(now)
        self._moving.keep_house(now)
        self._book.budget.shrink()
        self._book.budget.expire(now)

    # --- Observation ---

    def statistics(self) -> ForwardingStatistics:
        return picture.statistics(self._book)

    def describe_tracks(self) -> list[dict[str, object]]:
        return picture.tracks(self._book)

    def describe_namespaces(self) -> list[dict[str, object]]:
        return picture.namespaces(self._book)

    def origins(self) -> list[tuple[Namespace, int]]:
        """Namespaces that are published here, with the Hop IDs that their publishers have."""
        return self._upstreams.origins()

    def carried(self) -> Iterator[Namespace]:
        """The namespace of every track that is known here, as often as it has tracks."""
        return (name.namespace for name in self._book.tracks)

    @property
    def track_count(self) -> int:
        """How many tracks are known here."""
        return len(self._book.tracks)

    def astray(self, firsts: Mapping[int, int]) -> list[Astray]:
        """Tracks that come from another neighbour than the first for their origin: see `astray`."""
        return astray(self._book, self._upstreams, firsts)

    def publishes(self, session: int) -> bool:
        """Whether others in the mesh may be reading what this session publishes."""
        return picture.publishes(self._book, session)

    def carried_now(self) -> list[Carried]:
        """Every namespace that is published or fed here, with who feeds it, who reads it, and what came."""
        return picture.carried(self._book, (namespace for namespace, _ in self.origins()))

    def namespaces_of(self, session: int) -> set[Namespace]:
        return picture.namespaces_of(self._book, session)

    def reads_and_feeds(self, session: int) -> tuple[int, int]:
        return picture.reads_and_feeds(self._book, session)

    def take_join_waits(self) -> list[float]:
        """How long subscriptions waited for their first object since the last call, seconds."""
        waits = list(self._book.join_waits_s)
        self._book.join_waits_s.clear()
        return waits

    def requests(self, session: int) -> AbstractSet[int]:
        """The requests of a session, of both sides, that something is known of here."""
        member = self._book.members.get(session)
        return member.requests if member is not None else frozenset()

    def check_invariants(self) -> None:
        self._book.check_invariants()

    # --- Private ---

    def _or_reject(self, party: Party, action: Callable[[], None]) -> None:
        try:
            action()
        except RequestRejected as refusal:
            self._book.take(party)
            self._book.peer(party).reject(party.request, refusal.code, refusal.reason, refusal.retry_ms)
