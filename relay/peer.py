"""One session as a party to requests: forwarding's `Peer`, with the namespaces of the session's own path.

Forwarding speaks of global namespaces; on a session's wire stands what lies below the path it dialled. What this
session may not see is not told to it: see `Grant.may_subscribe`.
"""

from __future__ import annotations

from collections.abc import Callable

from relay import neighbour
from relay.access import Grant
from relay.forwarding.routes import Way
from relay.quota import Quota
from relay.tally import Unanswered
from relay.wording import can_fetch, can_name, nameable, properties_for
from tradewind.moqt.model import (
    NO_PARAMETERS,
    FullTrackName,
    Location,
    LocationFilter,
    Namespace,
    Parameters,
    Properties,
)
from tradewind.moqt.session import Session
from tradewind.moqt.settings import QuirkSet

GROUP_START_PLAYERS = ("moq-lite-js", "ShakaPlayer")
"""Implementations that can only begin with a group's first object, and yet ask for the next one."""


class SessionPeer:
    """Requests to, and answers for, one session."""

    __slots__ = (
        "_grant",
        "_notified",
        "_over",
        "_profile",
        "_quota",
        "_session",
        "_unanswered",
        "joins_at_group_start",
    )

    def __init__(
        self,
        session: Session,
        grant: Grant,
        quirks: QuirkSet,
        quota: Quota,
        unanswered: Unanswered,
        over: Callable[[int], None],
    ) -> None:
        self._session = session
        self._profile = session.profile
        self._grant = grant
        self._quota = quota
        self._unanswered = unanswered
        self._over = over
        """Told when a request is over because we said so."""
        self._notified: dict[int, set[Namespace]] = {}
        """What each namespace subscription of theirs has been told of, in its own words."""
        old = session.profile.draft <= 16 and session.peer.implementation.startswith(GROUP_START_PLAYERS)
        self.joins_at_group_start = old and quirks.allows("join-at-group-start")

    @property
    def fills(self) -> bool:
        return self._profile.fill

    @property
    def echoes_namespaces(self) -> bool:
        return self._profile.draft >= 20

    @property
    def shares_subscriptions(self) -> bool:
        return self._profile.draft >= 19

    def subscribe(self, track: FullTrackName, parameters: Parameters) -> int | None:
        name = self._local(track)
        return None if name is None else self._session.subscribe(name, parameters)

    def publish(self, track: FullTrackName, alias: int, parameters: Parameters, properties: Properties) -> int | None:
        name = self._local(track)
        if name is None or not self._grant.may_subscribe(track.namespace):
            return None
        told = properties_for(self._profile, properties)
        return self._quota.count_ours(lambda: self._session.publish(name, alias, parameters, told))

    def fetch(self, track: FullTrackName, chosen: LocationFilter, parameters: Parameters) -> int | None:
        name = self._local(track)
        if name is None or not can_fetch(self._profile, chosen):
            return None
        return self._session.fetch(name, chosen, parameters)

    def track_status(self, track: FullTrackName, parameters: Parameters) -> int | None:
        name = self._local(track)
        return None if name is None else self._session.track_status(name, parameters)

    def publish_namespace(self, namespace: Namespace, way: Way) -> int | None:
        return self._session.publish_namespace(namespace, neighbour.parameters_of(way))

    def readvertise(self, request: int, way: Way) -> None:
        self._session.readvertise(request, neighbour.parameters_of(way))

    def update(self, request: int, parameters: Parameters) -> int | None:
        return self._session.update(request, parameters)

    def cancel(self, request: int) -> None:
        self._over(request)
        self._session.cancel(request)

    def accept_subscribe(self, request: int, alias: int, parameters: Parameters, properties: Properties) -> None:
        self._unanswered.accepted(request)
        self._session.accept_subscribe(request, alias, parameters, properties_for(self._profile, properties))

    def accept_fetch(
        self, request: int, end: Location, end_of_track: bool, parameters: Parameters, properties: Properties
    ) -> None:
        self._unanswered.accepted(request)
        told = properties_for(self._profile, properties)
        self._session.accept_fetch(request, end, end_of_track, parameters, told)

    def accept(self, request: int, parameters: Parameters = NO_PARAMETERS, properties: Properties = ()) -> None:
        self._unanswered.accepted(request)
        self._session.accept(request, parameters, properties_for(self._profile, properties))

    def reject(self, request: int, code: int, reason: str, retry_ms: int | None = None) -> None:
        self._unanswered.rejected(request, code)
        self._over(request)
        self._session.reject(request, code, reason, retry_ms)

    def accept_update(self, request: int, update: int, parameters: Parameters) -> None:
        self._session.accept_update(request, update, parameters)

    def reject_update(self, request: int, update: int, code: int, reason: str) -> None:
        self._session.reject_update(request, update, code, reason)

    def publish_done(self, request: int, status: int, stream_count: int | None, reason: str) -> None:
        self._over(request)
        self._session.publish_done(request, status, stream_count, reason)

    def notify_namespace(self, request: int, namespace: Namespace) -> None:
        name = self._grant.to_wire(namespace)
        if name is None or not can_name(self._profile, name) or not self._grant.may_subscribe(namespace):
            return
        told = self._notified.setdefault(request, set())
        if name not in told:
            told.add(name)
            self._session.notify_namespace(request, name)

    def withdraw_namespace(self, request: int, namespace: Namespace) -> None:
        name = self._grant.to_wire(namespace)
        told = self._notified.get(request)
        if name is not None and told is not None and name in told:
            told.discard(name)
            self._session.withdraw_namespace(request, name)

    def keep_namespaces(self, request: int, prefix: Namespace) -> None:
        kept = self._grant.to_wire(prefix) or ()
        told = self._notified.get(request, set())
        self._notified[request] = {name for name in told if name[: len(kept)] == kept}

    def skip_publish(self, request: int, track: FullTrackName) -> None:
        name = self._local(track)
        if name is not None and self._grant.may_subscribe(track.namespace):
            self._session.skip_publish(request, name)

    def finish(self, request: int) -> None:
        self._over(request)
        self._session.finish(request)

    def stop_stream(self, stream: int, code: int) -> None:
        self._session.stop_stream(stream, code)

    def forget(self, request: int) -> None:
        """A namespace subscription is over."""
        self._notified.pop(request, None)

    def _local(self, track: FullTrackName) -> FullTrackName | None:
        return nameable(self._profile, self._grant.to_wire(track.namespace), track.name)
