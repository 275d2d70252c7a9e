"""What forwarding asks of the rooms around it, and the words it counts losses with.

`Peer` is one session as a party to requests and `Sink` is the same session as a way out for media. `relay.node`
implements both on a MoQT session and a QUIC egress; tests implement them on lists. Requests carry global namespaces:
the peer adds and strips what the session's path stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from tradewind.moqt.model import (
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    Namespace,
    Parameters,
    Properties,
    RangeEnd,
    SubgroupHeader,
)

if TYPE_CHECKING:
    from relay.forwarding.cache import CachedObject
    from relay.forwarding.routes import Way


class DropReason(Enum):
    """Every way in which an object that arrived does not leave: a closed list, and a metric's label."""

    DELIVERY_TIMEOUT = "delivery_timeout"
    TOO_FAR_BEHIND = "too_far_behind"
    EVICTED = "evicted"
    STOPPED = "stopped"
    UPSTREAM_RESET = "upstream_reset"
    LATE_OBJECT = "late_object"
    DATAGRAM_TOO_LARGE = "datagram_too_large"
    DATAGRAM_EXPIRED = "datagram_expired"
    DATAGRAM_QUEUE_FULL = "datagram_queue_full"


class Peer(Protocol):
    """A session as a party to requests. Calls that open a request return its number, or None for lack of credit."""

    @property
    def fills(self) -> bool:
        """Its draft knows FILL_PARAMETERS."""

    @property
    def echoes_namespaces(self) -> bool:
        """Its draft wants a subscriber's own namespaces announced back to it."""

    @property
    def shares_subscriptions(self) -> bool:
        """Its draft allows several subscriptions to one track in a session."""

    @property
    def joins_at_group_start(self) -> bool:
        """A named quirk: a subscription from the next object gets what is here of the current group as well."""

    def subscribe(self, track: FullTrackName, parameters: Parameters) -> int | None: ...
    def publish(
        self, track: FullTrackName, alias: int, parameters: Parameters, properties: Properties
    ) -> int | None: ...
    def fetch(self, track: FullTrackName, chosen: LocationFilter, parameters: Parameters) -> int | None: ...
    def track_status(self, track: FullTrackName, parameters: Parameters) -> int | None: ...
    def publish_namespace(self, namespace: Namespace, way: Way) -> int | None:
        """Tell a neighbour of a namespace, and by which way we have it."""

    def readvertise(self, request: int, way: Way) -> None:
        """The same namespace by another way."""

    def update(self, request: int, parameters: Parameters) -> int | None: ...
    def cancel(self, request: int) -> None: ...
    def accept_subscribe(self, request: int, alias: int, parameters: Parameters, properties: Properties) -> None: ...
    def accept_fetch(
        self, request: int, end: Location, end_of_track: bool, parameters: Parameters, properties: Properties
    ) -> None: ...
    def accept(self, request: int, parameters: Parameters = ..., properties: Properties = ()) -> None: ...
    def reject(self, request: int, code: int, reason: str, retry_ms: int | None = None) -> None: ...
    def accept_update(self, request: int, update: int, parameters: Parameters) -> None: ...
    def reject_update(self, request: int, update: int, code: int, reason: str) -> None: ...
    def publish_done(self, request: int, status: int, stream_count: int | None, reason: str) -> None: ...
    def notify_namespace(self, request: int, namespace: Namespace) -> None: ...
    def withdraw_namespace(self, request: int, namespace: Namespace) -> None: ...
    def keep_namespaces(self, request: int, prefix: Namespace) -> None:
        """A namespace subscription moved to another prefix: what it was told of elsewhere counts no longer."""

    def finish(self, request: int) -> None:
        """The data stream that answers a FETCH of theirs has ended."""

    def skip_publish(self, request: int, track: FullTrackName) -> None: ...
    def stop_stream(self, stream: int, code: int) -> None:
        """Tell the publisher that one of its data streams is not wanted."""


class Sink(Protocol):
    """A session as a way out for media. `handle` names one stream that was opened here."""

    def room(self, now: float) -> int:
        """Bytes that may be offered now, on all streams together."""

    def open_subgroup(self, header: SubgroupHeader) -> int | None:
        """Open a stream and write its header; None where no stream may be opened now."""

    def object_header(self, item: CachedObject, previous: int | None, has_properties: bool) -> bytes:
        """An object's fields before its payload, after the object with id `previous` on the same stream."""

    def open_fetch(self, request: int, order: GroupOrder) -> int | None:
        """Open a fetch stream for a FETCH, or for a fill of the subscription or update `request`."""

    def fetch_header(self, handle: int, item: CachedObject, default_priority: int) -> bytes:
        """An object's fields on that fetch stream; `default_priority` is the track's."""

    def fetch_range_end(self, handle: int, kind: RangeEnd, location: Location) -> bytes:
        """The marker for locations up to `location`; empty where the draft has none."""

    def offer(self, handle: int, parts: Sequence[bytes | memoryview], fin: bool) -> bool:
        """Append to a stream; False where the peer stopped it."""

    def unsent(self, handle: int) -> int:
        """Bytes offered on the stream that no packet has carried yet."""

    def reset(self, handle: int, code: int) -> None: ...

    def datagram(self, alias: int, item: CachedObject, expires: float) -> bool:
        """Send one object as a datagram, dropped at `expires`; False where it does not fit."""
