"""What the owner asks of a session: requests of ours, answers to the peer's, and their ends.

`tradewind.moqt.session` is the caller and the public face; here is what each call does on every draft. A call about
a request that is over already does nothing: the peer may have ended it within the same turn. A call that the
request's kind or state does not allow raises MisuseError. Sources: the section of each message in draft-20.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tradewind.moqt import messages as m
from tradewind.moqt.errors import MisuseError, ResetCode
from tradewind.moqt.events import Redirect, RequestCancelled
from tradewind.moqt.model import (
    NO_FILTER,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    Namespace,
    Parameters,
    Properties,
)
from tradewind.moqt.parameters import RawParameters, Scope
from tradewind.moqt.requests import NO_STREAM, Request, Requests
from tradewind.moqt.states import (
    OK_SCOPES,
    PREFIX_KINDS,
    SUBSCRIPTIONS,
    UPDATE_SCOPES,
    Kind,
    Phase,
)


class Sender:
    """Requests of ours, and answers."""

    __slots__ = ("_context", "_requests")

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._context = requests.context

    # --- Requests of ours ---------------------------------------------------------------------------------------------

    def subscribe(self, track: FullTrackName, parameters: Parameters) -> int | None:
        """SUBSCRIBE."""
        raw = self._raw(parameters)
        self._requests.data.revive(track)
        return self._open(Kind.SUBSCRIBE, lambda number: m.Subscribe(number, track, raw), track=track, asked=parameters)

    def publish(self, track: FullTrackName, alias: int, parameters: Parameters, properties: Properties) -> int | None:
        """PUBLISH."""
        raw = self._raw(parameters)
        return self._open(
            Kind.PUBLISH, lambda number: m.Publish(number, track, alias, raw, properties), track=track, alias=alias
        )

    def fetch(
        self,
        track: FullTrackName,
        chosen: LocationFilter,
        parameters: Parameters,
        joining: int | None,
        joining_groups: int | None,
        joining_start: int | None,
    ) -> int | None:
        """FETCH."""
        raw = self._raw(parameters)
        if joining is None:
            asked = replace(parameters, filter=chosen)
            return self._open(Kind.FETCH, lambda number: m.Fetch(number, track, chosen, raw), track=track, asked=asked)
        return self._open(
            Kind.FETCH,
            lambda number: m.Fetch(number, None, NO_FILTER, raw, joining, joining_groups, joining_start),
            track=track,
            asked=replace(parameters, filter=None),
        )

    def track_status(self, track: FullTrackName, parameters: Parameters) -> int | None:
        """TRACK_STATUS."""
        raw = self._raw(parameters)
        return self._open(Kind.TRACK_STATUS, lambda number: m.TrackStatus(number, track, raw), track=track)

    def publish_namespace(self, namespace: Namespace, parameters: Parameters) -> int | None:
        """PUBLISH_NAMESPACE."""
        raw = self._raw(parameters)
        return self._open(
            Kind.PUBLISH_NAMESPACE, lambda number: m.PublishNamespace(number, namespace, raw), prefix=namespace
        )

    def readvertise(self, request: int, parameters: Parameters) -> None:
        """PUBLISH_NAMESPACE again, on the stream of the first (MoQ Cluster, "Updating an Advertisement")."""
        found = self._requests.table.get(request)
        if found is not None and found.phase in {Phase.PENDING, Phase.ESTABLISHED} and not found.we_finished:
            assert found.prefix is not None
            self._requests.wire.send(found, m.PublishNamespace(request, found.prefix, self._raw(parameters)))

    def subscribe_namespace(self, prefix: Namespace, parameters: Parameters) -> int | None:
        """SUBSCRIBE_NAMESPACE."""
        raw = self._raw(parameters)
        return self._open(
            Kind.SUBSCRIBE_NAMESPACE, lambda number: m.SubscribeNamespace(number, prefix, raw), prefix=prefix
        )

    def subscribe_tracks(self, prefix: Namespace, parameters: Parameters) -> int | None:
        """SUBSCRIBE_TRACKS."""
        raw = self._raw(parameters)
        return self._open(Kind.SUBSCRIBE_TRACKS, lambda number: m.SubscribeTracks(number, prefix, raw), prefix=prefix)

    def _open(
        self,
        kind: Kind,
        build: Callable[[int], m.Message],
        *,
        track: FullTrackName | None = None,
        alias: int | None = None,
        prefix: Namespace = (),
        asked: Parameters | None = None,
    ) -> int | None:
        requests = self._requests
        stream = requests.wire.reserve(kind, requests.next_id)
        if stream is None:
            return None
        request = Request(requests.take_id(), kind, ours=True, stream=stream)
        request.track, request.alias, request.prefix = track, alias, prefix
        requests.add(request)
        if asked is not None:
            request.order, request.filter = asked.order, asked.filter
            self._expect(request, asked)
        try:
            requests.wire.send(request, build(request.id))
        except MisuseError:
            # It cannot be written on this draft: take it back, as far as the wire knows of it.
            requests.end(request, quiet=True)
            if stream != NO_STREAM:
                self._context.transport.reset(stream, ResetCode.INTERNAL_ERROR)
            raise
        return request.id

    def _expect(self, request: Request, asked: Parameters) -> None:
        """Tell the data streams what may come for a FETCH, or for a subscription's first fill."""
        data = self._requests.data
        if request.kind is Kind.FETCH:
            data.expect(request.id, request.id, order=asked.order or GroupOrder.ASCENDING)
        elif asked.fill is not None and self._context.rules.fills:
            # Its order may be the publisher's, and its track may be one that we must not touch: SUBSCRIBE_OK says.
            data.expect(request.id, request.id, subscription=request.id, order=asked.fill.order, ready=False)

    def update(self, number: int, parameters: Parameters) -> int | None:
        """REQUEST_UPDATE."""
        request = self._requests.table.get(number)
        if request is None:
            return None
        scope = UPDATE_SCOPES.get((request.kind, request.our_side))
        started = request.ours or request.phase is Phase.ESTABLISHED
        if scope is None or not started:
            raise MisuseError(f"a {request.phase.name.lower()} {request.kind.name} cannot be updated by this side")
        requests = self._requests
        # Before the peer's SETUP nobody knows its limit, but one must be allowed.
        limit = self._context.peer.max_request_updates if self._context.ready else 1
        full = limit and len(request.updates_sent) >= limit
        # Draft 16 updates on the control stream, which may overtake the stream that the request is on.
        unknown = not self._context.rules.request_streams and request.kind in PREFIX_KINDS
        early = unknown and request.phase is Phase.PENDING
        if request.phase is Phase.DONE or request.we_finished or full or early:
            return None
        if not requests.wire.may_send(requests.next_id):
            return None
        update = requests.take_id()
        request.updates_sent.append(update)
        if parameters.prefix is not None and request.kind in PREFIX_KINDS:
            request.prefix_asked = (request.prefix_asked or {}) | {update: parameters.prefix}
        if parameters.fill is not None and self._context.rules.fills and request.kind in SUBSCRIPTIONS:
            order = parameters.fill.order or request.order
            ready = request.phase is Phase.ESTABLISHED
            requests.data.expect(update, request.id, subscription=request.id, order=order, ready=ready)
        requests.wire.send(request, m.RequestUpdate(update, self._raw(parameters), request.id), scope=scope)
        return update

    def cancel(self, number: int, code: int) -> None:
        """End a request, ours or the peer's, in the draft's way."""
        request = self._requests.table.get(number)
        if request is not None:
            self._requests.wire.abort(request, code)
            self._requests.end(request, quiet=True)

    # --- Answers ------------------------------------------------------------------------------------------------------

    def accept_subscribe(self, number: int, alias: int, parameters: Parameters, properties: Properties) -> None:
        """SUBSCRIBE_OK."""
        request = self._pending(number, Kind.SUBSCRIBE)
        if request is None:
            return
        request.phase, request.alias = Phase.ESTABLISHED, alias
        if self._is_shaka() and self._context.quirks.allows("bare-subscribe-ok"):
            properties = ()
        answer = m.SubscribeOk(alias, self._raw(parameters), properties, request=number)
        self._requests.wire.send(request, answer)
        self._answer_updates(request)

    def accept_fetch(
        self, number: int, end: Location, end_of_track: bool, parameters: Parameters, properties: Properties
    ) -> None:
        """FETCH_OK."""
        request = self._pending(number, Kind.FETCH)
        if request is None:
            return
        request.phase = Phase.ESTABLISHED
        answer = m.FetchOk(end, end_of_track, self._raw(parameters), properties, request=number)
        self._requests.wire.send(request, answer)
        self._answer_updates(request)

    def accept(self, number: int, parameters: Parameters, properties: Properties) -> None:
        """REQUEST_OK."""
        request = self._pending(number, *OK_SCOPES)
        if request is None:
            return
        if request.kind is Kind.PUBLISH and self._context.rules.one_subscription:
            self._give_way(request)
        over = request.phase is Phase.DONE or request.kind is Kind.TRACK_STATUS
        request.phase = Phase.DONE if over else Phase.ESTABLISHED
        if request.kind is not Kind.TRACK_STATUS:
            properties = ()
        answer = m.RequestOk(self._raw(parameters), properties, request=number)
        self._requests.wire.send(request, answer, fin=over, scope=OK_SCOPES[request.kind])
        self._answer_updates(request)
        if request.kind is Kind.TRACK_STATUS:
            self._requests.end(request, quiet=True)

    def _give_way(self, publish: Request) -> None:
        """Up to draft 18 a subscription of ours that waits must be over before a PUBLISH of its track is accepted."""
        assert publish.track is not None
        pending = self._requests.subscription_is_pending(publish.track)
        if pending is not None:
            self.cancel(pending.id, ResetCode.CANCELLED)
            self._context.events.append(RequestCancelled(pending.id, ResetCode.CANCELLED))

    def reject(self, number: int, code: int, reason: str, retry_ms: int | None, redirect: Redirect | None) -> None:
        """REQUEST_ERROR."""
        request = self._pending(number, *Kind)
        if request is None:
            return
        if redirect is not None and self._context.is_client and redirect.uri:
            raise MisuseError("a client cannot redirect a server to another URI")
        answered = request.phase is Phase.PENDING
        request.phase = Phase.REFUSED
        if answered or not request.we_finished:
            error = m.RequestError(code, reason, retry_ms, redirect, request=number)
            self._requests.wire.send(request, error, fin=True)
        self._requests.end(request, quiet=True)

    def accept_update(self, number: int, update: int, parameters: Parameters) -> None:
        """REQUEST_OK for an update; behind the answer to the request itself."""
        request = self._updating(number, update)
        if request is None:
            return
        prefix = request.prefix_asked.pop(update, None) if request.prefix_asked else None
        if prefix is not None:
            self._requests.move_prefix(request, prefix)
        answer = m.RequestOk(self._raw(parameters), request=update)
        if request.phase is Phase.PENDING:
            request.updates_accepted.append(answer)
        else:
            self._requests.wire.send(request, answer, scope=Scope.UPDATE_OK)

    def reject_update(self, number: int, update: int, code: int, reason: str) -> None:
        """REQUEST_ERROR for an update, which from draft 17 on ends a namespace request or a FETCH of the peer's, and on
        every draft whatever has no answer yet.
        """
        request = self._updating(number, update)
        if request is None:
            return
        if request.phase is Phase.PENDING and not request.ours:
            self.reject(number, code, reason, None, None)
            return
        if request.prefix_asked:
            request.prefix_asked.pop(update, None)
        ends = request.kind not in SUBSCRIPTIONS and self._context.rules.request_streams
        self._requests.wire.send(request, m.RequestError(code, reason, request=update), fin=ends)
        if ends:
            request.phase = Phase.DONE
            self._requests.end(request, quiet=True)

    def _answer_updates(self, request: Request) -> None:
        """Updates that were accepted before their request: answers follow the request's own."""
        while request.updates_accepted:
            self._requests.wire.send(request, request.updates_accepted.popleft(), scope=Scope.UPDATE_OK)

    def _pending(self, number: int, *kinds: Kind) -> Request | None:
        request = self._requests.table.get(number)
        if request is None:
            return None
        # A PUBLISH whose PUBLISH_DONE came first still wants its one answer.
        late = request.kind is Kind.PUBLISH and request.phase is Phase.DONE and not request.we_finished
        if request.ours or request.kind not in kinds or not (request.phase is Phase.PENDING or late):
            raise MisuseError(f"a {request.phase.name.lower()} {request.kind.name} cannot be answered so")
        return request

    def _updating(self, number: int, update: int) -> Request | None:
        request = self._requests.table.get(number)
        if request is None:
            return None
        if update not in request.updates_received:
            raise MisuseError(f"update {update} waits for no answer")
        request.updates_received.remove(update)
        return request

    # --- While a request lives, and its end ---------------------------------------------------------------------------

    def publish_done(self, number: int, status: int, stream_count: int | None, reason: str) -> None:
        """PUBLISH_DONE, then FIN."""
        request = self._requests.table.get(number)
        if request is None:
            return
        waits = request.kind is Kind.SUBSCRIBE and request.phase is Phase.PENDING
        if request.kind not in SUBSCRIPTIONS or not request.publisher_is_ours or waits:
            raise MisuseError("only the publisher of a subscription that was answered can say PUBLISH_DONE")
        request.phase = Phase.DONE
        done = m.PublishDone(status, stream_count, reason, request=number)
        self._requests.wire.send(request, done, fin=True)
        self._requests.end(request, quiet=True)

    def finish(self, number: int) -> None:
        """The answer to a FETCH of the peer's is complete: FIN."""
        request = self._requests.table.get(number)
        if request is None:
            return
        if request.ours or request.kind is not Kind.FETCH or request.phase is not Phase.ESTABLISHED:
            raise MisuseError("only an accepted FETCH of the peer's can be finished")
        request.phase = Phase.DONE
        self._requests.finish(request)
        self._requests.end(request, quiet=True)

    def notify_namespace(self, number: int, namespace: Namespace) -> None:
        """NAMESPACE."""
        request = self._announcing(number, Kind.SUBSCRIBE_NAMESPACE)
        if request is not None:
            self._requests.wire.send(request, m.NamespaceAdded(_suffix(request, namespace)))

    def withdraw_namespace(self, number: int, namespace: Namespace) -> None:
        """NAMESPACE_DONE."""
        request = self._announcing(number, Kind.SUBSCRIBE_NAMESPACE)
        if request is not None:
            self._requests.wire.send(request, m.NamespaceDone(_suffix(request, namespace)))

    def skip_publish(self, number: int, track: FullTrackName) -> None:
        """PUBLISH_SKIPPED, where the draft has it."""
        request = self._announcing(number, Kind.SUBSCRIBE_TRACKS)
        if request is not None and self._context.profile.has(m.PublishSkipped):
            self._requests.wire.send(request, m.PublishSkipped(_suffix(request, track.namespace), track.name))

    def notify_state(self, number: int, parameters: Parameters) -> None:
        """PUBLISH_STATE_NOTIFY, where the draft has it."""
        request = self._requests.table.get(number)
        if request is None or request.phase is not Phase.ESTABLISHED:
            return
        if request.kind not in SUBSCRIPTIONS or not request.publisher_is_ours:
            raise MisuseError("only the publisher of a subscription can notify of its state")
        if self._context.profile.has(m.PublishStateNotify):
            self._requests.wire.send(request, m.PublishStateNotify(self._raw(parameters)))

    def goaway_request(self, number: int, uri: str, timeout_ms: int) -> None:
        """GOAWAY for one request, where the draft has it and it was not said yet."""
        request = self._requests.table.get(number)
        self.check_goaway(uri)
        if request is None or request.goaway_sent or not self._context.rules.request_streams:
            return
        request.goaway_sent = True
        self._requests.wire.send(request, m.Goaway(uri, timeout_ms))

    def goaway(self, uri: str, timeout_ms: int) -> None:
        """GOAWAY for the session."""
        self.check_goaway(uri)
        first = None
        if self._context.rules.goaway_first_unprocessed:
            first = self._requests.first_refused = self._requests.next_peer_id
        self._requests.wire.session_goaway(m.Goaway(uri, timeout_ms, first))

    def check_goaway(self, uri: str) -> None:
        """Raise MisuseError for what a peer would close the session over."""
        if self._context.is_client and uri:
            raise MisuseError("a client cannot send a server elsewhere")

    def _announcing(self, number: int, kind: Kind) -> Request | None:
        request = self._requests.table.get(number)
        if request is None:
            return None
        if request.ours or request.kind is not kind or request.phase is not Phase.ESTABLISHED:
            raise MisuseError(f"a {request.phase.name.lower()} {request.kind.name} is not told of this")
        return request

    # --- Parameters ---------------------------------------------------------------------------------------------------

    def _raw(self, parameters: Parameters) -> RawParameters:
        """What to send: without Range Filters where the peer has not allowed that many ranges."""
        filters = parameters.range_filters
        if filters and sum(len(chosen.ranges) for chosen in filters) > self._context.peer.max_filter_ranges:
            parameters = replace(parameters, range_filters=())
        return RawParameters.of(parameters)

    def _is_shaka(self) -> bool:
        return self._context.peer.implementation.startswith("ShakaPlayer/")


def _suffix(request: Request, namespace: Namespace) -> Namespace:
    depth = len(request.prefix)
    if namespace[:depth] != request.prefix:
        raise MisuseError("the namespace is not under the prefix of this request")
    return namespace[depth:]
