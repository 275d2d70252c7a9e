"""The peer's new requests: taken into the table, or refused as the draft demands before the owner sees them.

The wires call `Admission.first` with the first message of a request; `tradewind.moqt.receiving` takes over from
there and shares the checks. Sources: draft-20, "Request ID", "Reserved Namespaces", "Mandatory Track Properties",
"SUBSCRIBE_NAMESPACE" and each request's own section; draft-18, "Joining Fetches".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import RequestCode, RequestRejected
from tradewind.moqt.model import FilterKind, FullTrackName, GroupOrder, Namespace, Parameters, Properties
from tradewind.moqt.parameters import RawParameters
from tradewind.moqt.properties import (
    DEFAULT_PUBLISHER_GROUP_ORDER,
    check_track_properties,
    find_property,
    unknown_mandatory,
)
from tradewind.moqt.requests import TWIN, Parked, Request, Requests
from tradewind.moqt.states import FIRST, SUBSCRIPTIONS, Kind, Phase

_RESERVED: Final = frozenset({b".", b".session"})


class Admission:
    """Opens requests of the peer's. Raises ProtocolViolation and nothing else, the checks excepted."""

    __slots__ = ("_context", "_requests")

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._context = requests.context

    def first(self, message: m.Message, stream: int) -> Request:
        """Open a request of the peer's with the first message of its stream; refuse it where the draft says so."""
        kind = FIRST.get(type(message))
        if kind is None:
            raise self._context.violation("a request may not begin with this message")
        opener: Any = message
        self._requests.check_peer_id(opener.request)
        self._context.counters["requests_received"] += 1
        request = Request(opener.request, kind, ours=False, stream=stream)
        self.open(request, message)
        return request

    def open(self, request: Request, message: m.Message) -> None:
        """Take a request whose id is counted already, or refuse it."""
        opener: Any = message
        try:
            parameters = self.parameters(opener.parameters)
        except RequestRejected as rejected:
            self._refuse(request, rejected)
        else:
            self._admit(request, message, parameters)

    def _admit(self, request: Request, message: m.Message, parameters: Parameters) -> None:
        try:
            self._check_load(request)
            _OPENERS[request.kind](self, request, message, parameters)
        except RequestRejected as rejected:
            self._refuse(request, rejected)

    def parked_deadline(self) -> float | None:
        """When the first joining FETCH that overtook its subscription will have waited long enough."""
        parked = self._requests.parked
        if not parked:
            return None
        return min(waiting[0].since for waiting in parked.values()) + self._context.settings.waiting_timeout_s

    def expire_parked(self, now: float) -> None:
        """Refuse the joining FETCHes that have waited long enough for their subscription."""
        parked, timeout_s = self._requests.parked, self._context.settings.waiting_timeout_s
        for joining in [key for key, waiting in parked.items() if waiting[0].since + timeout_s <= now]:
            for waiting in parked.pop(joining):
                if waiting.request.phase is Phase.PENDING:
                    self._refuse(waiting.request, _no_such_subscription())

    def _check_load(self, request: Request) -> None:
        requests, settings = self._requests, self._context.settings
        if requests.first_refused is not None and request.id >= requests.first_refused:
            raise RequestRejected(RequestCode.GOING_AWAY, "the session is going away")
        if requests.counts[False] >= settings.max_requests:
            raise RequestRejected(RequestCode.EXCESSIVE_LOAD, "too many open requests", settings.overload_retry_ms)

    def _subscribe(self, request: Request, message: m.Subscribe, parameters: Parameters) -> None:
        self.check_namespace(message.track.namespace)
        self.check_ranges(parameters)
        self._check_single(message.track, publishing=True)
        request.track = message.track
        request.filter = parameters.filter
        self._requests.add(request)
        self._context.events.append(e.SubscribeRequested(request.id, message.track, parameters))
        for parked in self._requests.parked.pop(request.id, ()):
            if parked.request.phase is Phase.PENDING:
                self._admit(parked.request, parked.message, parked.parameters)

    def _publish(self, request: Request, message: m.Publish, parameters: Parameters) -> None:
        data = self._requests.data
        request.track, request.alias = message.track, message.alias
        data.check_alias(message.alias, message.track)
        try:
            self.check_namespace(message.track.namespace)
            self.check_properties(message.properties)
            if self._requests.subscription_is_pending(message.track) is None:
                self._check_single(message.track, publishing=False)
        except RequestRejected:
            data.retire(message.alias, message.track)
            raise
        request.order = parameters.order or self.default_order(message.properties)
        self._requests.add(request)
        self._context.events.append(
            e.PublishRequested(request.id, message.track, message.alias, parameters, message.properties)
        )
        data.bind(message.alias, message.track, request.id)
        if self._context.rules.fills:
            data.expect(request.id, request.id, subscription=request.id, order=request.order)

    def _fetch(self, request: Request, message: m.Fetch, parameters: Parameters) -> None:
        self.check_ranges(parameters)
        track = message.track
        if message.joining is not None:
            joined = self._joined(request, message, parameters)
            if joined is None:
                return
            track = joined.track
        assert track is not None
        self.check_namespace(track.namespace)
        request.track = track
        self._requests.add(request)
        self._context.events.append(
            e.FetchRequested(
                request.id,
                track,
                message.filter,
                parameters,
                message.joining,
                message.joining_groups,
                message.joining_start,
            )
        )

    def _joined(self, request: Request, message: m.Fetch, parameters: Parameters) -> Request | None:
        """The subscription that a joining FETCH continues; None: it has not come yet, and the FETCH is parked."""
        requests, rules = self._requests, self._context.rules
        assert message.joining is not None
        found = requests.table.get(message.joining)
        if found is None:
            overtook = message.joining & 1 == request.id & 1 and not requests.is_peer_id_used(message.joining)
            room = sum(map(len, requests.parked.values())) < self._context.settings.max_waiting_streams
            if not (rules.request_streams and overtook and room):
                raise _no_such_subscription()
            parked = Parked(self._context.now, request, message, parameters)
            requests.parked.setdefault(message.joining, []).append(parked)
            return None
        alive = found.phase in {Phase.PENDING, Phase.ESTABLISHED}
        if found.kind not in SUBSCRIPTIONS or not found.publisher_is_ours or not alive:
            raise _no_such_subscription()
        if not rules.request_streams and (found.filter is None or found.filter.kind is not FilterKind.NEXT_OBJECT):
            raise self._context.violation("a joining FETCH of a subscription without the Largest Object filter")
        return found

    def _track_status(self, request: Request, message: m.TrackStatus, parameters: Parameters) -> None:
        self.check_namespace(message.track.namespace)
        request.track = message.track
        self._requests.add(request)
        self._context.events.append(e.TrackStatusRequested(request.id, message.track, parameters))

    def _publish_namespace(self, request: Request, message: m.PublishNamespace, parameters: Parameters) -> None:
        self.check_namespace(message.namespace)
        request.prefix = message.namespace
        self._requests.add(request)
        self._context.events.append(e.PublishNamespaceRequested(request.id, message.namespace, parameters))

    def _subscribe_namespace(self, request: Request, message: m.SubscribeNamespace, parameters: Parameters) -> None:
        self._open_prefix(request, message.prefix)
        self._context.events.append(e.SubscribeNamespaceRequested(request.id, message.prefix, parameters))

    def _subscribe_tracks(self, request: Request, message: m.SubscribeTracks, parameters: Parameters) -> None:
        self.check_ranges(parameters)
        self._open_prefix(request, message.prefix)
        self._context.events.append(e.SubscribeTracksRequested(request.id, message.prefix, parameters))

    def _open_prefix(self, request: Request, prefix: Namespace) -> None:
        self.check_namespace(prefix)
        self._check_prefix(request, prefix)
        request.prefix = prefix
        self._requests.add(request)

    # --- Checks -------------------------------------------------------------------------------------------------------

    def parameters(self, raw: RawParameters) -> Parameters:
        """The parameters with their tokens. Raises RequestRejected for a flaw, once the tokens are registered."""
        parameters = raw.resolved(self._requests.tokens.resolve(raw.tokens)) if raw.tokens else raw.values
        if raw.flaw is not None:
            raise RequestRejected(raw.flaw.code, raw.flaw.reason)
        return parameters

    def check_namespace(self, namespace: Namespace) -> None:
        """Raise RequestRejected for a namespace that never reaches the application."""
        if self._context.rules.reserved_namespaces and namespace and namespace[0] in _RESERVED:
            raise RequestRejected(RequestCode.DOES_NOT_EXIST, "reserved namespace")

    def check_ranges(self, parameters: Parameters) -> None:
        """Raise RequestRejected for more ranges in Range Filters than we have told the peer."""
        filters = parameters.range_filters
        if parameters.fill is not None:
            filters += parameters.fill.range_filters
        if filters and sum(len(chosen.ranges) for chosen in filters) > self._context.settings.max_filter_ranges:
            raise RequestRejected(RequestCode.INVALID_FILTER, "too many ranges in the filters")

    def _check_single(self, track: FullTrackName, *, publishing: bool) -> None:
        if self._context.rules.one_subscription and (track, publishing) in self._requests.tracks:
            raise RequestRejected(RequestCode.DUPLICATE_SUBSCRIPTION, "a subscription to this track is open already")

    def _check_prefix(self, request: Request, prefix: Namespace) -> None:
        """Draft 16 has one space for both kinds, and both halves of one request share their place in it."""
        apart = self._context.rules.request_streams or request.id & TWIN
        spaces = [self._requests.prefixes[request.kind]] if apart else self._requests.prefixes.values()
        if any(space.overlaps(prefix) for space in spaces):
            raise RequestRejected(RequestCode.PREFIX_OVERLAP, "the prefix overlaps another subscription's")

    def check_properties(self, properties: Properties) -> None:
        """Raise ProtocolViolation for Track Properties out of bounds, RequestRejected for an unknown mandatory one."""
        context = self._context
        check_track_properties(context.profile, properties)
        if unknown_mandatory(context.profile, properties, context.settings.known_mandatory_properties) is not None:
            raise RequestRejected(RequestCode.UNSUPPORTED_EXTENSION, "an unknown Mandatory Track Property")

    def default_order(self, properties: Properties) -> GroupOrder:
        """The group order that a track's properties prefer (draft-20, "DEFAULT PUBLISHER GROUP ORDER")."""
        preferred = find_property(self._context.profile, properties, DEFAULT_PUBLISHER_GROUP_ORDER)
        return GroupOrder.DESCENDING if preferred == GroupOrder.DESCENDING else GroupOrder.ASCENDING

    def _refuse(self, request: Request, rejected: RequestRejected) -> None:
        request.phase = Phase.REFUSED
        error = m.RequestError(rejected.code, rejected.reason, rejected.retry_ms, request=request.id)
        self._context.counters["requests_refused"] += 1
        self._requests.wire.send(request, error, fin=True)


def _no_such_subscription() -> RequestRejected:
    return RequestRejected(RequestCode.INVALID_JOINING_REQUEST_ID, "no such subscription to join")


_OPENERS: Final[dict[Kind, Callable[[Admission, Request, Any, Parameters], None]]] = {
    Kind.SUBSCRIBE: Admission._subscribe,
    Kind.PUBLISH: Admission._publish,
    Kind.FETCH: Admission._fetch,
    Kind.TRACK_STATUS: Admission._track_status,
    Kind.PUBLISH_NAMESPACE: Admission._publish_namespace,
    Kind.SUBSCRIBE_NAMESPACE: Admission._subscribe_namespace,
    Kind.SUBSCRIBE_TRACKS: Admission._subscribe_tracks,
}
