"""The requests of one session, ours and the peer's: their table, their ids and their ends.

`tradewind.moqt.receiving` moves them by what the peer says, `tradewind.moqt.sending` by what the owner asks; both go
through a `Wire`, which is request streams (`tradewind.moqt.streams`) or draft 16's control stream
(`tradewind.moqt.adapter16`). Sources: draft-20, "Request ID", "Graceful Request Stream Closure", "Request
Cancellation and Rejection".
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, NamedTuple, Protocol

from tradewind.moqt import messages as m
from tradewind.moqt.context import Context
from tradewind.moqt.data import DataStreams
from tradewind.moqt.errors import ResetCode, SessionCode
from tradewind.moqt.events import RequestCancelled
from tradewind.moqt.idset import IdSet
from tradewind.moqt.model import FullTrackName, GroupOrder, LocationFilter, Namespace, Parameters
from tradewind.moqt.parameters import Scope
from tradewind.moqt.prefixes import PrefixSet
from tradewind.moqt.states import PREFIX_KINDS, SUBSCRIPTIONS, Kind, Phase, Side
from tradewind.moqt.tokens import TokenCache

NO_STREAM: Final = -1
"""The stream of a request that draft 16's control stream carries."""
TWIN: Final = 1 << 62
"""Set in the number of the second half of a draft-16 SUBSCRIBE_NAMESPACE that asks for namespaces and tracks: no
Request ID of that draft reaches it."""


class Request:
    """One request, from its first message until both directions of its stream are over."""

    __slots__ = (
        "alias",
        "filter",
        "goaway_received",
        "goaway_sent",
        "id",
        "kind",
        "live",
        "namespaces",
        "order",
        "ours",
        "peer_finished",
        "phase",
        "prefix",
        "prefix_asked",
        "stream",
        "track",
        "updates_accepted",
        "updates_received",
        "updates_sent",
        "we_finished",
    )

    def __init__(self, request: int, kind: Kind, *, ours: bool, stream: int) -> None:
        self.id = request
        self.kind = kind
        self.ours = ours
        self.stream = stream
        self.phase = Phase.PENDING
        self.live = False
        """In the table: the owner may name it."""
        self.track: FullTrackName | None = None
        self.prefix: Namespace = ()
        """The prefix, or the namespace of a PUBLISH_NAMESPACE."""
        self.alias: int | None = None
        self.order: GroupOrder | None = None
        self.filter: LocationFilter | None = None
        self.namespaces: set[Namespace] | None = None
        """What a SUBSCRIBE_NAMESPACE of ours has been told of, whole."""
        self.updates_sent: deque[int] = deque()
        self.updates_received: deque[int] = deque()
        self.updates_accepted: deque[m.RequestOk] = deque()
        """Answers that follow the request's own."""
        self.prefix_asked: dict[int, Namespace] | None = None
        """New prefixes by the update that asks for them."""
        self.goaway_received = False
        self.goaway_sent = False
        self.we_finished = False
        self.peer_finished = False

    @property
    def our_side(self) -> Side:
        """Which end of the stream we are."""
        return Side.REQUESTER if self.ours else Side.RESPONDER

    @property
    def publisher_is_ours(self) -> bool:
        """Whether we publish in this subscription."""
        return self.ours == (self.kind is Kind.PUBLISH)


class Parked(NamedTuple):
    """A joining FETCH that overtook its subscription."""

    since: float
    request: Request
    message: m.Fetch
    parameters: Parameters


class Wire(Protocol):
    """How requests reach the peer on one draft."""

    def reserve(self, kind: Kind, request: int) -> int | None:
        """A stream for a new request of ours (or NO_STREAM); None where the peer allows no more now."""

    def may_send(self, request: int) -> bool:
        """Whether the peer allows a message with this new Request ID on a stream that is open."""

    def send(self, request: Request, message: m.Message, *, fin: bool = False, scope: Scope | None = None) -> None:
        """Send a message of this request; `scope` where the message's type does not say what may stand in it."""

    def finish(self, request: Request) -> None:
        """Say that we have no more to say on it."""

    def abort(self, request: Request, code: int) -> None:
        """End it abruptly in every direction that is open, before its phase changes."""

    def session_goaway(self, message: m.Goaway) -> None:
        """Send GOAWAY for the whole session."""

    def over(self, request: Request) -> None:
        """A request has left the table."""


class Requests:
    """The table of requests that the owner may name, and what is derived from it."""

    __slots__ = (
        "context",
        "counts",
        "data",
        "first_refused",
        "next_id",
        "next_peer_id",
        "parked",
        "peer_ids",
        "prefixes",
        "table",
        "tokens",
        "tracks",
        "wire",
    )

    wire: Wire

    def __init__(self, context: Context, data: DataStreams, tokens: TokenCache) -> None:
        self.context = context
        self.data = data
        self.tokens = tokens
        self.table: dict[int, Request] = {}
        self.counts: Counter[bool] = Counter()
        """Live requests, by whether they are ours."""
        self.next_id = 0 if context.is_client else 1
        self.peer_ids = IdSet()
        """Request IDs of the peer, halved."""
        self.next_peer_id = 1 if context.is_client else 0
        """The smallest id above all that the peer has used."""
        self.prefixes: dict[Kind, PrefixSet] = {kind: PrefixSet() for kind in PREFIX_KINDS}
        self.tracks: Counter[tuple[FullTrackName, bool]] = Counter()
        """Live subscriptions by track and whether we publish: the role of drafts with one subscription a track."""
        self.parked: dict[int, list[Parked]] = {}
        """Joining FETCHes that overtook their subscription, by its id."""
        self.first_refused: int | None = None
        """Draft 18: the peer's ids from here on are refused, because our GOAWAY said so."""

    def take_id(self) -> int:
        """The next Request ID of ours."""
        number = self.next_id
        self.next_id += 2
        self.context.counters["requests_sent"] += 1
        return number

    def check_peer_id(self, number: int) -> None:
        """Take note of a Request ID that the peer has used. Raises ProtocolViolation (draft-20, "Request ID")."""
        parity = 1 if self.context.is_client else 0
        if number & 1 != parity:
            raise self.context.violation("Request ID of the wrong parity", SessionCode.INVALID_REQUEST_ID)
        if not self.peer_ids.add(number >> 1):
            raise self.context.violation("Request ID used twice", SessionCode.INVALID_REQUEST_ID)
        if self.peer_ids.ranges > self.context.settings.max_id_gaps:
            raise self.context.violation("too many Request IDs left out", SessionCode.INVALID_REQUEST_ID)
        self.next_peer_id = max(self.next_peer_id, number + 2)

    def is_peer_id_used(self, number: int) -> bool:
        """Whether the peer has used this Request ID."""
        return number >> 1 in self.peer_ids

    def add(self, request: Request) -> None:
        """Put a request into the table."""
        request.live = True
        self.table[request.id] = request
        self.counts[request.ours] += 1
        if request.kind in SUBSCRIPTIONS and request.track is not None:
            self.tracks[request.track, request.publisher_is_ours] += 1
        if request.kind in PREFIX_KINDS and not request.ours:
            self.prefixes[request.kind].add(request.prefix)

    def end(self, request: Request, *, quiet: bool = False) -> None:
        """Take a request out of the table; what is left on its stream is read and ignored.

        `quiet`: the owner wants it, so the end of its data streams is no event.
        """
        if not request.live:
            return
        request.live = False
        del self.table[request.id]
        self.counts[request.ours] -= 1
        if request.kind in SUBSCRIPTIONS and request.track is not None:
            key = request.track, request.publisher_is_ours
            self.tracks[key] -= 1
            if not self.tracks[key]:
                del self.tracks[key]
        if request.kind in PREFIX_KINDS and not request.ours:
            self.prefixes[request.kind].remove(request.prefix)
        self.data.forget(request.id, quiet=quiet)
        self.wire.over(request)

    def fail(self, request: Request, code: int | None) -> None:
        """A request is gone because of the peer: end it, and say so to the owner."""
        if not request.live:
            if request.phase is Phase.PENDING:
                # A joining FETCH that is parked: the owner never saw it.
                self.wire.abort(request, ResetCode.CANCELLED)
                request.phase = Phase.REFUSED
            return
        self.wire.abort(request, ResetCode.CANCELLED)
        self.end(request)
        self.context.events.append(RequestCancelled(request.id, code))

    def finish(self, request: Request) -> None:
        """We have said all: close our direction, once."""
        if not request.we_finished:
            self.wire.finish(request)

    def move_prefix(self, request: Request, prefix: Namespace) -> None:
        """A namespace subscription of the peer now stands at `prefix`."""
        owned = self.prefixes[request.kind]
        owned.remove(request.prefix)
        request.prefix = prefix
        owned.add(prefix)

    def subscription_is_pending(self, track: FullTrackName) -> Request | None:
        """A SUBSCRIBE of ours for `track` that has no answer yet."""
        if (track, False) not in self.tracks:
            return None
        for request in self.table.values():
            if request.kind is Kind.SUBSCRIBE and request.ours and request.track == track:
                return request if request.phase is Phase.PENDING else None
        return None

    def check_invariants(self) -> None:
        """Assert that everything derived from the table agrees with it."""
        live = self.table.values()
        assert all(request.live and self.table[request.id] is request for request in live)
        for ours in (False, True):
            assert self.counts[ours] == sum(request.ours is ours for request in live)
        assert self.counts[False] <= self.context.settings.max_requests
        for kind, prefixes in self.prefixes.items():
            prefixes.check_invariants()
            assert len(prefixes) == sum(request.kind is kind and not request.ours for request in live)
        self.peer_ids.check_invariants()
        self.tokens.check_invariants()
