"""What the peer's messages do to requests: the table of `tradewind.moqt.states` carried out.

The wires (`tradewind.moqt.streams`, `tradewind.moqt.adapter16`) call it for everything after a request's first
message; events go into the context. Sources: draft-20, "Graceful Request Stream Closure", "REQUEST_UPDATE" and each
message's own section.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.admission import Admission
from tradewind.moqt.errors import DoneCode, RequestCode, RequestRejected, ResetCode, SessionCode
from tradewind.moqt.fields import MAX_NAMESPACE_FIELDS, MAX_TRACK_NAME_BYTES
from tradewind.moqt.model import FilterKind, FullTrackName, Namespace, Parameters, Properties
from tradewind.moqt.parameters import RawParameters, Scope, check_scope
from tradewind.moqt.requests import Request, Requests
from tradewind.moqt.states import (
    NAMESPACE_KINDS,
    OK_SCOPES,
    PREFIX_KINDS,
    SUBSCRIPTIONS,
    UPDATE_SCOPES,
    Ending,
    Kind,
    Phase,
    Side,
    Step,
    ending,
    step,
)


class Receiver:
    """Moves requests by what the peer sends. Raises ProtocolViolation and nothing else."""

    __slots__ = ("_admission", "_context", "_requests")

    def __init__(self, requests: Requests, admission: Admission) -> None:
        self._requests = requests
        self._admission = admission
        self._context = requests.context

    def message(self, request: Request, message: m.Message) -> None:
        """Carry out a message after the first on a request's stream."""
        sender = Side.RESPONDER if request.ours else Side.REQUESTER
        done = step(request.kind, sender, request.phase, type(message), cluster=self._context.profile.cluster)
        if done is None:
            done = self._forgiven(request, message)
        if done is None:
            raise self._context.violation(
                f"{type(message).__name__} on a {request.phase.name.lower()} {request.kind.name}"
            )
        _STEPS[done](self, request, message)

    def finished(self, request: Request) -> None:
        """The peer has closed its direction."""
        request.peer_finished = True
        sender = Side.RESPONDER if request.ours else Side.REQUESTER
        means = ending(request.kind, sender, request.phase, self._context.rules)
        withdraws = request.kind in NAMESPACE_KINDS and not request.ours and request.phase is Phase.ESTABLISHED
        if means is Ending.NOTHING and withdraws and self._context.quirks.allows("fin-withdraws-namespace"):
            means = Ending.FAILED
        if means is Ending.FAILED:
            self._requests.fail(request, None)
        elif request.ours and request.kind not in {Kind.PUBLISH, Kind.PUBLISH_NAMESPACE}:
            # The other two stay open on our side: that is how they are ended later.
            self._requests.finish(request)

    def reset(self, request: Request, code: int) -> None:
        """The peer has abandoned its direction; after PUBLISH_DONE that says nothing about streams on their way."""
        request.peer_finished = True
        if request.phase is not Phase.DONE:
            self._requests.fail(request, code)

    def stopped(self, request: Request, code: int) -> None:
        """The peer has abandoned our direction; the transport has reset it."""
        request.we_finished = True
        if request.phase is not Phase.DONE:
            self._requests.fail(request, code)

    # --- What the data streams say ------------------------------------------------------------------------------------

    def drained(self, request: int) -> None:
        """A subscription that is done needs no more streams."""
        found = self._requests.table.get(request)
        if found is not None:
            self._complete(found)

    def fetch_over(self, request: int) -> None:
        """The data stream of a FETCH of ours is over: with the answer, that is all there is."""
        found = self._requests.table.get(request)
        if found is not None and found.phase is Phase.ESTABLISHED:
            self._complete(found)

    def was_used(self, number: int) -> bool:
        """Whether a Request ID, of either side, has been used."""
        ours = number & 1 != self._context.is_client
        return number < self._requests.next_id if ours else self._requests.is_peer_id_used(number)

    # --- Answers to requests of ours ----------------------------------------------------------------------------------

    def _accept(self, request: Request, message: m.Message) -> None:
        _ACCEPTERS[type(message)](self, request, message)

    def _subscribe_ok(self, request: Request, message: m.SubscribeOk) -> None:
        data = self._requests.data
        assert request.track is not None
        data.check_alias(message.alias, request.track)
        parameters = self._said(message.parameters)
        request.phase = Phase.ESTABLISHED
        if self._is_unsupported(request, message.properties):
            data.retire(message.alias, request.track)
            return
        request.alias = message.alias
        self._context.events.append(e.SubscribeAccepted(request.id, message.alias, parameters, message.properties))
        data.bind(message.alias, request.track, request.id)
        request.order = request.order or self._admission.default_order(message.properties)
        data.establish(request.id, request.order)

    def _fetch_ok(self, request: Request, message: m.FetchOk) -> None:
        parameters = self._said(message.parameters)
        chosen = request.filter
        if chosen is not None and chosen.kind is FilterKind.ABSOLUTE and message.end < chosen.start:
            raise self._context.violation("FETCH_OK ends before the range begins")
        request.phase = Phase.ESTABLISHED
        if self._is_unsupported(request, message.properties):
            return
        self._context.events.append(
            e.FetchAccepted(request.id, message.end, message.end_of_track, parameters, message.properties)
        )
        if self._requests.data.fetch_is_over(request.id):
            self._complete(request)

    def _complete(self, request: Request) -> None:
        """Nothing more can come of a request of ours, and nothing more is to be said."""
        request.phase = Phase.DONE
        self._requests.finish(request)
        self._requests.end(request)

    def _request_ok(self, request: Request, message: m.RequestOk) -> None:
        raw = check_scope(self._context.profile, message.parameters, OK_SCOPES[request.kind])
        parameters = self._said(raw)
        if message.properties and request.kind is not Kind.TRACK_STATUS:
            raise self._context.violation("Track Properties in a REQUEST_OK that is no TRACK_STATUS_OK")
        request.phase = Phase.ESTABLISHED
        self._context.events.append(e.RequestAccepted(request.id, parameters, message.properties))
        if request.kind is Kind.SUBSCRIBE_NAMESPACE:
            request.namespaces = set()
        elif request.kind is Kind.TRACK_STATUS:
            self._complete(request)

    def _refused(self, request: Request, message: m.RequestError) -> None:
        self._check_redirect(request, message)
        request.phase = Phase.REFUSED
        self._requests.finish(request)
        self._requests.end(request)
        self._context.events.append(
            e.RequestRefused(request.id, message.code, message.reason, message.retry_ms, message.redirect)
        )

    def _said(self, raw: RawParameters) -> Parameters:
        """The parameters of a message that cannot be refused. Raises ProtocolViolation for a flaw in them."""
        try:
            return self._admission.parameters(raw)
        except RequestRejected as rejected:
            raise self._context.violation(rejected.reason) from None

    def _check_redirect(self, request: Request, message: m.RequestError) -> None:
        if message.redirect is None:
            return
        if message.redirect.uri and not self._context.is_client:
            raise self._context.violation("a client may not redirect a server to another URI")
        if message.redirect.track.name and request.kind in NAMESPACE_KINDS:
            raise self._context.violation("a Track Name in the redirect of a namespace request")

    def _is_unsupported(self, request: Request, properties: Properties) -> bool:
        """Cancel a request of ours whose track needs an extension that the owner does not know."""
        try:
            self._admission.check_properties(properties)
        except RequestRejected as rejected:
            self._requests.wire.abort(request, ResetCode.CANCELLED)
            self._requests.end(request)
            self._context.events.append(e.RequestRefused(request.id, rejected.code, rejected.reason, None))
            return True
        return False

    # --- Updates ------------------------------------------------------------------------------------------------------

    def _update(self, request: Request, message: m.RequestUpdate) -> None:
        self._requests.check_peer_id(message.request)
        self._count_update(request)
        sender = Side.RESPONDER if request.ours else Side.REQUESTER
        raw = check_scope(self._context.profile, message.parameters, UPDATE_SCOPES[request.kind, sender])
        try:
            parameters = self._admission.parameters(raw)
            self._admission.check_ranges(parameters)
            self._check_new_prefix(request, message.request, parameters.prefix)
            if len(request.updates_received) >= self._context.settings.max_request_updates:
                raise RequestRejected(RequestCode.EXCESSIVE_LOAD, "too many unanswered updates")
        except RequestRejected as rejected:
            self._fail_update(request, message.request, rejected)
            return
        request.updates_received.append(message.request)
        self._context.events.append(e.UpdateRequested(request.id, message.request, parameters))

    def _count_update(self, request: Request) -> None:
        """Close the session where the draft has told the peer how many may be unanswered."""
        told = self._context.profile.draft >= 19 and self._context.settings.max_request_updates
        if told and len(request.updates_received) >= told:
            raise self._context.violation("too many unanswered updates", SessionCode.TOO_MANY_REQUEST_UPDATES)

    def _check_new_prefix(self, request: Request, update: int, prefix: Namespace | None) -> None:
        if prefix is None or request.kind not in PREFIX_KINDS:
            return
        self._admission.check_namespace(prefix)
        owned = self._requests.prefixes[request.kind]
        owned.remove(request.prefix)
        clash = owned.overlaps(prefix)
        owned.add(request.prefix)
        if clash:
            raise RequestRejected(RequestCode.PREFIX_OVERLAP, "the new prefix overlaps another subscription's")
        request.prefix_asked = (request.prefix_asked or {}) | {update: prefix}

    def _fail_update(self, request: Request, update: int, rejected: RequestRejected) -> None:
        """Refuse an update that the owner never sees, with what the draft says must follow ("REQUEST_UPDATE")."""
        wire = self._requests.wire
        subscription = request.kind in SUBSCRIPTIONS
        if request.phase is Phase.PENDING and not request.ours:
            error = m.RequestError(rejected.code, rejected.reason, rejected.retry_ms, request=request.id)
            wire.send(request, error, fin=True)
            request.phase = Phase.REFUSED
        else:
            ends = not subscription and self._context.rules.request_streams
            error = m.RequestError(rejected.code, rejected.reason, rejected.retry_ms, request=update)
            wire.send(request, error, fin=ends)
            if subscription and request.publisher_is_ours:
                done = m.PublishDone(DoneCode.UPDATE_FAILED, None, rejected.reason, request=request.id)
                wire.send(request, done, fin=True)
            elif not ends:
                return
            request.phase = Phase.DONE
        self._requests.end(request)
        self._context.events.append(e.RequestCancelled(request.id, ResetCode.CANCELLED))

    def _updated(self, request: Request, message: m.RequestOk) -> None:
        update = self._answered(request, message.request)
        raw = check_scope(self._context.profile, message.parameters, Scope.UPDATE_OK)
        if message.properties:
            raise self._context.violation("Track Properties in REQUEST_UPDATE_OK")
        asked = request.prefix_asked.pop(update, None) if request.prefix_asked else None
        if asked is not None:
            request.prefix = asked
        self._context.events.append(e.UpdateAccepted(request.id, update, self._said(raw)))

    def _update_refused(self, request: Request, message: m.RequestError) -> None:
        update = self._answered(request, message.request)
        if request.prefix_asked:
            request.prefix_asked.pop(update, None)
        self._context.events.append(e.UpdateRefused(request.id, update, message.code, message.reason))
        if request.kind not in SUBSCRIPTIONS and self._context.rules.request_streams:
            # Of a subscription the publisher says so itself; anything else is over without another word.
            self._requests.fail(request, ResetCode.CANCELLED)

    def _answered(self, request: Request, update: int | None) -> int:
        """Which update of ours an answer is for: the oldest, where the draft does not name it."""
        if not request.updates_sent or (update is not None and update not in request.updates_sent):
            raise self._context.violation("an answer to nothing")
        if update is None:
            return request.updates_sent.popleft()
        request.updates_sent.remove(update)
        return update

    # --- While a request lives, and its end ---------------------------------------------------------------------------

    def _done(self, request: Request, message: m.PublishDone) -> None:
        answered = request.phase is Phase.ESTABLISHED
        request.phase = Phase.DONE
        if answered:
            self._requests.finish(request)
        self._context.events.append(e.PublishDone(request.id, message.status, message.stream_count, message.reason))
        if self._requests.data.linger(request.id, message.stream_count):
            self._requests.end(request)

    def _notify(self, request: Request, message: m.PublishStateNotify) -> None:
        self._context.events.append(e.StateNotified(request.id, self._said(message.parameters)))

    def _namespace(self, request: Request, message: m.NamespaceAdded) -> None:
        assert request.namespaces is not None
        namespace = self._whole(request, message.suffix)
        if namespace in request.namespaces:
            return
        if len(request.namespaces) >= self._context.settings.max_namespaces:
            self._requests.wire.abort(request, ResetCode.EXCESSIVE_LOAD)
            self._requests.end(request)
            self._context.events.append(e.RequestCancelled(request.id, ResetCode.EXCESSIVE_LOAD))
            return
        request.namespaces.add(namespace)
        self._context.events.append(e.NamespaceFound(request.id, namespace))

    def _namespace_done(self, request: Request, message: m.NamespaceDone) -> None:
        assert request.namespaces is not None
        namespace = self._whole(request, message.suffix)
        if namespace in request.namespaces:
            request.namespaces.remove(namespace)
            self._context.events.append(e.NamespaceGone(request.id, namespace))
        elif not self._context.quirks.allows("unknown-namespace-done"):
            raise self._context.violation("NAMESPACE_DONE before NAMESPACE")

    def _skipped(self, request: Request, message: m.PublishSkipped) -> None:
        track = FullTrackName(self._whole(request, message.suffix), message.name)
        self._context.events.append(e.PublishSkipped(request.id, track))

    def _whole(self, request: Request, suffix: Namespace) -> Namespace:
        namespace = request.prefix + suffix
        if len(namespace) > MAX_NAMESPACE_FIELDS or sum(map(len, namespace)) > MAX_TRACK_NAME_BYTES:
            raise self._context.violation("a prefix and suffix that make no namespace")
        return namespace

    def _goaway(self, request: Request, message: m.Goaway) -> None:
        if request.goaway_received:
            raise self._context.violation("a second GOAWAY on one request")
        if message.uri and not self._context.is_client:
            raise self._context.violation("a client may not send a server elsewhere")
        request.goaway_received = True
        self._context.events.append(e.GoawayReceived(request.id, message.uri, message.timeout_ms))

    def _readvertised(self, request: Request, message: m.PublishNamespace) -> None:
        if message.request != request.id or message.namespace != request.prefix:
            raise self._context.violation("another namespace in the place of the one advertised")
        self._context.events.append(e.NamespaceReadvertised(request.id, self._said(message.parameters)))

    def _late(self, request: Request, message: m.Message) -> None:
        """What crossed the end of the request still uses ids and registers tokens."""
        if isinstance(message, m.RequestUpdate):
            self._requests.check_peer_id(message.request)
            try:
                self._admission.parameters(message.parameters)
            except RequestRejected:
                self._context.counters["late_messages_rejected"] += 1

    def _forgiven(self, request: Request, message: m.Message) -> Step | None:
        early = request.ours and request.kind is Kind.PUBLISH and request.phase is Phase.PENDING
        if early and isinstance(message, m.RequestUpdate) and self._context.quirks.allows("update-before-publish-ok"):
            return Step.UPDATE
        return None


_ACCEPTERS: Final[dict[type[m.Message], Callable[[Receiver, Request, Any], None]]] = {
    m.SubscribeOk: Receiver._subscribe_ok,
    m.FetchOk: Receiver._fetch_ok,
    m.RequestOk: Receiver._request_ok,
}

_STEPS: Final[dict[Step, Callable[[Receiver, Request, Any], None]]] = {
    Step.ACCEPT: Receiver._accept,
    Step.REFUSE: Receiver._refused,
    Step.UPDATE: Receiver._update,
    Step.UPDATE_OK: Receiver._updated,
    Step.UPDATE_ERROR: Receiver._update_refused,
    Step.DONE: Receiver._done,
    Step.NOTIFY: Receiver._notify,
    Step.NAMESPACE: Receiver._namespace,
    Step.NAMESPACE_DONE: Receiver._namespace_done,
    Step.SKIPPED: Receiver._skipped,
    Step.GOAWAY: Receiver._goaway,
    Step.READVERTISE: Receiver._readvertised,
    Step.LATE: Receiver._late,
}
