"""One session attached to the relay: what it says, checked against what it may do, goes to forwarding.

`relay.node` makes one for each connection and hands it what arrives. Here a session's token becomes a grant, its
namespaces become global ones, its requests are counted against limits; nothing that is not allowed reaches forwarding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from relay.access import Access, Grant, Reason, Refusal, split_target
from relay.forwarding.forwarder import Forwarder
from relay.leaving import Dialled, dialled
from relay.limits import Allowance, Limit, Limits
from relay.neighbour import EVERYTHING, Neighbour, session_settings, way_of
from relay.neighbour import allowance as free_allowance
from relay.peer import SessionPeer
from relay.quota import Quota
from relay.rights import Rights, text_of
from relay.room_tracks import RoomTracks
from relay.sink import SessionSink
from relay.tally import Tally, Unanswered
from relay.wording import are_too_many
from tradewind.contract.admission import admission_of
from tradewind.moqt import events as e
from tradewind.moqt.errors import RequestCode, ResetCode, SessionCode
from tradewind.moqt.model import FullTrackName, Namespace, Parameters
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.profiles import NEIGHBOUR, PROFILES
from tradewind.moqt.session import Session
from tradewind.moqt.settings import QuirkSet, SessionSettings
from tradewind.quic.connection import Connection
from tradewind.quic.events import DatagramReceived, Stopped, StreamData, StreamReset

IMPLEMENTATION = "tradewind/0.1"
TOO_MANY_PROPERTIES = "more track properties than a relay passes on"
RETRY_MS = 1000
"""When a request refused for a limit may come again."""


@dataclass(slots=True)
class Surroundings:
    """What a session finds at its relay, the same for all; the node replaces `access`, and gives `rooms`."""

    forwarder: Forwarder
    access: Access
    limits: Limits
    settings: SessionSettings
    quirks: frozenset[str] = frozenset()
    tally: Tally = field(default_factory=Tally)
    tickets: dict[bytes, Neighbour] = field(default_factory=dict)
    """What relays show that dial us, and who they are."""
    met: Callable[[Attachment], None] = lambda _: None
    """Told once a neighbour's session is let in."""
    rooms: RoomTracks | None = None
    """Ordered messages; None: this relay has no part in any."""


class Attachment:
    """A MoQT session on one connection, from `Opened` to its end."""

    __slots__ = ("_forwarder", "_here", "_now", "_rights", "_wall_now", "connection", "deadline", "dialled", "id",
                 "neighbour", "opened_at", "peer", "port", "quirks", "quota", "refusal", "session", "sink",
                 "unanswered")  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        number: int,
        port: int,
        here: Surroundings,
        now: float,
        neighbour: Neighbour | None = None,
    ) -> None:
        """`neighbour` is the relay that we dialled."""
        self.id = number
        self.port = port
        self.opened_at = now
        self.refusal: Reason | Limit | None = None
        """Why it was not let in."""
        self.dialled: Dialled | None = None
        """How it came; None before it is let in, and for neighbours."""
        self.peer: SessionPeer | None = None
        """How forwarding speaks to it; None before it is let in, and once it is gone."""
        self.sink: SessionSink | None = None
        self.quirks = QuirkSet(here.quirks)
        self.deadline: float | None = None
        """When the node last promised to look at it."""
        self.quota: Quota | None = None
        """What it holds of the limits; None before it is let in."""
        self.neighbour = neighbour
        """The relay of our mesh at the other end; None: anybody."""
        self.unanswered = Unanswered(here.tally)
        self._here = here
        self.connection = connection
        self._forwarder = here.forwarder
        self._rights = Rights(here.access)
        self._now = now
        self._wall_now = 0.0
        between = connection.protocol == NEIGHBOUR.name
        self.session = Session(
            self,
            NEIGHBOUR if between else PROFILES[connection.protocol],
            is_client=connection.is_client,
            webtransport=connection.transport == "webtransport",
            settings=session_settings(here.settings) if between else here.settings,
            quirks=self.quirks,
        )

    @property
    def grant(self) -> Grant | None:
        """What it may do; None before it is let in."""
        return self._rights.grant

    def start(self, now: float) -> None:
        """Send SETUP."""
        ours = SetupOptions(implementation=IMPLEMENTATION)
        self.session.start(ours if self.neighbour is None else self.neighbour.setup(IMPLEMENTATION), now)

    # --- What arrives on the connection ---

    def receive(
        self, event: StreamData | StreamReset | Stopped | DatagramReceived, now: float, wall_now: float
    ) -> None:
        """One event of the connection."""
        self._now, self._wall_now = now, wall_now
        session = self.session
        match event:
            case StreamData():
                if self.quota is not None:
                    self.quota.spend(len(event.data), now)
                told = session.receive_stream(event.stream, event.data, event.fin, now)
            case DatagramReceived():
                if self.quota is not None and not self.quota.spend(len(event.data), now):
                    self._here.tally.datagrams_refused += 1
                    return
                told = session.receive_datagram(event.data, now)
            case StreamReset():
                told = session.receive_reset(event.stream, event.code, now)
            case Stopped():
                told = session.receive_stopped(event.stream, event.code, now)
        self._handle(told)

    def handle_deadline(self, now: float, wall_now: float) -> None:
        """Let the session act on time, and give back credit that was withheld."""
        self._now, self._wall_now = now, wall_now
        if self.quota is not None:
            for stream, size in self.quota.release(now):
                self.connection.consumed(stream, size)
        self._handle(self.session.handle_deadline(now))

    def next_deadline(self) -> float | None:
        due = self.session.next_deadline()
        release = None if self.quota is None else self.quota.next_deadline()
        if due is None or release is None:
            return release if due is None else due
        return min(due, release)

    def expire(self, now: float, wall_now: float) -> None:
        """End the session if its token has expired, and the requests whose own has."""
        self._now, self._wall_now = now, wall_now
        if self._rights.is_over(wall_now):
            self.session.close(SessionCode.EXPIRED_AUTH_TOKEN, "the token has expired")
        for request in self._rights.expired(wall_now):
            self._end(request)
            self.session.cancel(request, ResetCode.EXPIRED_AUTH_TOKEN)

    def replace_access(self, access: Access) -> None:
        """Other keys count for requests from now on."""
        self._rights.access = access

    def end(self, now: float) -> None:
        """The connection is gone."""
        if self.peer is not None:
            self._forwarder.close_session(self.id, now)
            self.peer = None
        if self.quota is not None:
            self.quota.close(now)
            self.quota = None

    def check_invariants(self) -> None:
        """Assert that what counts, and what expires, is what forwarding knows."""
        if self.quota is not None:
            self.quota.check_invariants()
            assert self.quota.counted <= self._forwarder.requests(self.id)
            assert self._rights.expiring <= self._forwarder.requests(self.id)

    # --- The session's transport: the connection, but for credit that is withheld ---

    def open_bidi(self) -> int | None:
        return self.connection.open_bidi()

    def open_uni(self) -> int | None:
        return self.connection.open_uni()

    def send(self, stream: int, data: bytes, fin: bool = False) -> None:
        self.connection.send(stream, data, fin)

    def reset(self, stream: int, code: int) -> None:
        self.connection.reset(stream, code)

    def stop(self, stream: int, code: int) -> None:
        self.connection.stop(stream, code)

    def consumed(self, stream: int, size: int) -> None:
        if self.quota is None or not self.quota.withhold(stream, size, self._now):
            self.connection.consumed(stream, size)

    def close(self, code: int, reason: str) -> None:
        self.connection.close(code, reason)

    # --- Events of the session ---

    def _handle(self, told: list[e.Event]) -> None:
        handlers = HANDLERS
        for event in told:
            if self.session.is_closed:
                return
            handler = handlers.get(type(event))
            if handler is not None:
                handler(self, event)

    def on_setup(self, event: e.SetupReceived) -> None:
        """The session says where it dialled and with which token: let it in, or not."""
        if self.session.profile is NEIGHBOUR:
            self._meet(event)
            return
        target = self.connection.path if self.connection.transport == "webtransport" else event.path
        path, jwt = split_target(target)
        jwt = jwt or next((text_of(token) for token in event.tokens), None)
        grant = self._rights.access.grant(jwt, path, self._wall_now, admission_of(target))
        if isinstance(grant, Refusal):
            self.refusal = grant.reason
            self.session.close(grant.session_code, "not authorized")
            return
        allowance = self._here.limits.open_session(str(self.connection.peer_address[0]), grant.token_id, self._now)
        if isinstance(allowance, Limit):
            self.refusal = allowance
            self._here.tally.limits[allowance] += 1
            self.session.close(SessionCode.UNAUTHORIZED, f"too many: {allowance.value}")
            return
        self.dialled = dialled(target, jwt, webtransport=self.connection.transport == "webtransport")
        self._let_in(grant, allowance)

    def _meet(self, event: e.SetupReceived) -> None:
        """A relay of our mesh: we dialled it, or it shows the ticket that its link was given."""
        if self.neighbour is None:
            tickets = self._here.tickets
            self.neighbour = next((tickets[token.value] for token in event.tokens if token.value in tickets), None)
        if self.neighbour is None:
            self.refusal = Reason.TOKEN_UNTRUSTED
            self.session.close(SessionCode.UNAUTHORIZED, "no such ticket")
            return
        self._let_in(EVERYTHING, free_allowance(self._now))
        self._here.met(self)

    def _let_in(self, grant: Grant, allowance: Allowance) -> None:
        self._rights.begin(grant, self._here.rooms if self.neighbour is None else None)
        tally = self._here.tally
        self.quota = Quota(allowance, tally.limits)
        profile = self.session.profile
        tally.opened[self.connection.transport, profile.draft] += 1
        self.peer = SessionPeer(self.session, grant, self.quirks, self.quota, self.unanswered, self._over)
        self.sink = SessionSink(self.connection, profile)
        hop = None if self.neighbour is None else self.neighbour.hop
        self._forwarder.open_session(self.id, self.peer, self.sink, hop)

    def on_subscribe(self, event: e.SubscribeRequested) -> None:
        self.unanswered.received(event.request, "subscribe")
        track = self._reading(event.request, event.track, event.parameters)
        if track is not None and self._count(event.request):
            self._forwarder.receive_subscribe(self.id, event.request, track, event.parameters, self._now)

    def on_fetch(self, event: e.FetchRequested) -> None:
        self.unanswered.received(event.request, "fetch")
        track = self._reading(event.request, event.track, event.parameters)
        if track is None or not self._count(event.request):
            return
        if event.joining is not None:
            self._forwarder.receive_joining_fetch(
                self.id, event.request, event.joining, event.joining_start, event.joining_groups, event.parameters,
                self._now,
            )  # fmt: skip
        else:
            self._forwarder.receive_fetch(self.id, event.request, track, event.filter, event.parameters, self._now)

    def on_track_status(self, event: e.TrackStatusRequested) -> None:
        self.unanswered.received(event.request, "track_status")
        track = self._reading(event.request, event.track, event.parameters)
        self._rights.forget(event.request)
        if track is not None:
            self._forwarder.receive_track_status(self.id, event.request, track, event.parameters, self._now)

    def on_publish(self, event: e.PublishRequested) -> None:
        self.unanswered.received(event.request, "publish")
        namespace = self._writing(event.request, event.track.namespace, event.parameters, event.track.name)
        if namespace is not None and are_too_many(event.properties):
            self._reject(event.request, RequestCode.EXCESSIVE_LOAD, TOO_MANY_PROPERTIES)
        elif namespace is not None and self._count(event.request):
            track = FullTrackName(namespace, event.track.name)
            private = self._rights.meet_writer(namespace, self.id, event.parameters, self._wall_now)
            self._forwarder.receive_publish(
                self.id, event.request, track, event.parameters, event.properties, self._now, private=private
            )

    def on_publish_namespace(self, event: e.PublishNamespaceRequested) -> None:
        self.unanswered.received(event.request, "publish_namespace")
        if self.neighbour is not None:
            way = way_of(event.parameters)
            if way is None:
                self.session.close(SessionCode.PROTOCOL_VIOLATION, "a namespace without its way")
            else:
                self._forwarder.receive_way(self.id, event.request, event.namespace, way, self._now)
            return
        namespace = self._writing(event.request, event.namespace, event.parameters)
        if namespace is not None and self._count(event.request, namespace=True):
            # What a writer publishes is for its relay alone, which gives it to the room.
            private = self._rights.meet_writer(namespace, self.id, event.parameters, self._wall_now)
            self._forwarder.receive_publish_namespace(self.id, event.request, namespace, self._now, private=private)

    def on_readvertised(self, event: e.NamespaceReadvertised) -> None:
        way = way_of(event.parameters)
        if way is None:
            self.session.close(SessionCode.PROTOCOL_VIOLATION, "a namespace without its way")
        else:
            self._forwarder.receive_other_way(self.id, event.request, way, self._now)

    def on_subscribe_namespace(self, event: e.SubscribeNamespaceRequested) -> None:
        self.unanswered.received(event.request, "subscribe_namespace")
        prefix = self._discovering(event.request, event.prefix, event.parameters)
        if prefix is not None and self._count(event.request, namespace=True):
            self._forwarder.receive_subscribe_namespace(self.id, event.request, prefix, self._now)

    def on_subscribe_tracks(self, event: e.SubscribeTracksRequested) -> None:
        self.unanswered.received(event.request, "subscribe_tracks")
        prefix = self._discovering(event.request, event.prefix, event.parameters)
        if prefix is not None and self._count(event.request, namespace=True):
            self._forwarder.receive_subscribe_tracks(self.id, event.request, prefix, event.parameters, self._now)

    def on_update(self, event: e.UpdateRequested) -> None:
        self._here.tally.requests["update"] += 1
        parameters = event.parameters
        wire = parameters.prefix
        if wire is not None:
            prefix = self._rights.new_prefix(wire, parameters, self._wall_now)
            if prefix is None:
                self.session.reject_update(event.request, event.update, RequestCode.UNAUTHORIZED, "not authorized")
                # A namespace subscription is over with that (draft-20, "REQUEST_UPDATE").
                self._end(event.request)
                return
            parameters = Parameters(forward=parameters.forward, prefix=prefix)
        self._forwarder.receive_update(self.id, event.request, event.update, parameters, self._now)

    def on_cancelled(self, event: e.RequestCancelled) -> None:
        self._end(event.request)

    def on_subscribe_ok(self, event: e.SubscribeAccepted) -> None:
        if self._bounded(event):
            self._forwarder.receive_subscribe_ok(self.id, event.request, event.parameters, event.properties, self._now)

    def on_fetch_ok(self, event: e.FetchAccepted) -> None:
        if self._bounded(event):
            self._forwarder.receive_fetch_ok(
                self.id, event.request, event.end, event.end_of_track, event.properties, self._now
            )

    def on_ok(self, event: e.RequestAccepted) -> None:
        if self._bounded(event):
            self._forwarder.receive_ok(self.id, event.request, event.parameters, event.properties, self._now)

    def on_error(self, event: e.RequestRefused) -> None:
        self._over(event.request)
        self._forwarder.receive_error(self.id, event.request, event.code, event.reason, self._now)

    def on_done(self, event: e.PublishDone) -> None:
        self._over(event.request)
        self._forwarder.receive_publish_done(
            self.id, event.request, event.status, event.stream_count, event.reason, self._now
        )

    def on_subgroup(self, event: e.SubgroupOpened) -> None:
        self._forwarder.intake.receive_subgroup(self.id, event.stream, event.requests, event.header, self._now)

    def on_object(self, event: e.ObjectStarted) -> None:
        self._forwarder.intake.receive_object(self.id, event.stream, event.header, self._now)

    def on_data(self, event: e.ObjectData) -> None:
        self._forwarder.intake.receive_data(self.id, event.stream, event.data, event.last, self._now)

    def on_subgroup_end(self, event: e.SubgroupClosed) -> None:
        self._forwarder.intake.receive_subgroup_end(self.id, event.stream, event.code, self._now)

    def on_datagram(self, event: e.DatagramArrived) -> None:
        self._forwarder.intake.receive_datagram(self.id, event.requests, event.object, self._now)

    def on_fetch_stream(self, event: e.FetchOpened) -> None:
        self._forwarder.intake.receive_fetch_stream(self.id, event.stream, event.request)

    def on_fetched(self, event: e.FetchObjectStarted) -> None:
        self._forwarder.intake.receive_fetched(self.id, event.stream, event.object, self._now)

    def on_fetch_gap(self, event: e.FetchRangeEnded) -> None:
        self._forwarder.intake.receive_fetch_gap(self.id, event.stream, event.kind, event.location)

    def on_fetch_end(self, event: e.FetchClosed) -> None:
        self._forwarder.intake.receive_fetch_end(self.id, event.stream, event.request, event.code, self._now)

    def _end(self, request: int) -> None:
        """A request of theirs is over, and the session has said all that is to be said."""
        self._over(request)
        if self.peer is not None:
            self.peer.forget(request)
        self._forwarder.receive_cancel(self.id, request, self._now)

    def _bounded(self, event: e.SubscribeAccepted | e.FetchAccepted | e.RequestAccepted) -> bool:
        """Whether an answer's Track Properties can be passed on; where not, it counts as a refusal."""
        if not are_too_many(event.properties):
            return True
        self._over(event.request)
        self.session.cancel(event.request)
        self._forwarder.receive_error(
            self.id, event.request, RequestCode.EXCESSIVE_LOAD, TOO_MANY_PROPERTIES, self._now
        )
        return False

    # --- What it may do ---

    def _reading(self, request: int, track: FullTrackName, parameters: Parameters) -> FullTrackName | None:
        namespace = self._allowed(request, self._rights.to_read(request, track, parameters, self._wall_now))
        return None if namespace is None else FullTrackName(namespace, track.name)

    def _writing(
        self, request: int, wire: Namespace, parameters: Parameters, name: bytes | None = None
    ) -> Namespace | None:
        return self._allowed(request, self._rights.to_write(request, wire, name, parameters, self._wall_now))

    def _discovering(self, request: int, wire: Namespace, parameters: Parameters) -> Namespace | None:
        return self._allowed(request, self._rights.to_discover(request, wire, parameters, self._wall_now))

    def _allowed(self, request: int, answer: Namespace | RequestCode) -> Namespace | None:
        """The namespace that a request is for; where it may not have it, it is rejected."""
        if isinstance(answer, RequestCode):
            self._reject(request, answer, "not authorized")
            return None
        return answer

    def _count(self, request: int, *, namespace: bool = False) -> bool:
        """Count a request against its limits; False where one is met, and the request is rejected."""
        assert self.quota is not None
        met = self.quota.count(request, namespace=namespace)
        if met is not None:
            self._reject(request, RequestCode.EXCESSIVE_LOAD, f"too many: {met.value}", RETRY_MS)
        return met is None

    def _reject(self, request: int, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Refuse a request that forwarding never hears of."""
        self.unanswered.rejected(request, code)
        self.session.reject(request, code, reason, retry_ms)

    def _over(self, request: int) -> None:
        """A request is over, whoever ended it: it counts no longer."""
        self.unanswered.over(request)
        self._rights.forget(request)
        if self.quota is not None:
            self.quota.uncount(request)


HANDLERS: dict[type, Callable[[Attachment, Any], None]] = {
    e.SetupReceived: Attachment.on_setup,
    e.SubscribeRequested: Attachment.on_subscribe,
    e.FetchRequested: Attachment.on_fetch,
    e.TrackStatusRequested: Attachment.on_track_status,
    e.PublishRequested: Attachment.on_publish,
    e.PublishNamespaceRequested: Attachment.on_publish_namespace,
    e.NamespaceReadvertised: Attachment.on_readvertised,
    e.SubscribeNamespaceRequested: Attachment.on_subscribe_namespace,
    e.SubscribeTracksRequested: Attachment.on_subscribe_tracks,
    e.UpdateRequested: Attachment.on_update,
    e.RequestCancelled: Attachment.on_cancelled,
    e.SubscribeAccepted: Attachment.on_subscribe_ok,
    e.FetchAccepted: Attachment.on_fetch_ok,
    e.RequestAccepted: Attachment.on_ok,
    e.RequestRefused: Attachment.on_error,
    e.PublishDone: Attachment.on_done,
    e.SubgroupOpened: Attachment.on_subgroup,
    e.ObjectStarted: Attachment.on_object,
    e.ObjectData: Attachment.on_data,
    e.SubgroupClosed: Attachment.on_subgroup_end,
    e.DatagramArrived: Attachment.on_datagram,
    e.FetchOpened: Attachment.on_fetch_stream,
    e.FetchObjectStarted: Attachment.on_fetched,
    e.FetchRangeEnded: Attachment.on_fetch_gap,
    e.FetchClosed: Attachment.on_fetch_end,
}
"""What a session is told of, and what that does."""
