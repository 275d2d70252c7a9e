"""The relay itself as a party of forwarding: what it publishes and reads without a connection.

`relay.room_tracks` announces namespaces, publishes tracks and reads others through a `LocalParty`. To forwarding it is
one more session: its `Peer` and its `Sink` at once. What forwarding says here is kept as events until the owner takes
them, because forwarding must not be called from within its own calls. No object is ever put on a wire on its way here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import TypeAlias

from relay.forwarding.cache import CachedObject
from relay.forwarding.forwarder import Forwarder
from relay.forwarding.routes import Way
from tradewind.moqt.model import (
    NO_PARAMETERS,
    FetchObject,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    Namespace,
    ObjectHeader,
    Parameters,
    Properties,
    RangeEnd,
    SubgroupHeader,
)

LOCAL_SESSION = 0
"""Nobody else's number: connections count from 1."""
ROOM_BYTES = 1 << 20
"""What is taken at once; there is no connection that could be full."""
_HEAD = Struct(">QQ")


@dataclass(frozen=True, slots=True)
class Wanted:
    """SUBSCRIBE to a track of ours: answer with `LocalParty.accept_subscription`."""

    request: int
    track: FullTrackName


@dataclass(frozen=True, slots=True)
class Fetched:
    """FETCH of a track of ours."""

    request: int
    track: FullTrackName
    chosen: LocationFilter


@dataclass(frozen=True, slots=True)
class Left:
    """A request for a track of ours is over."""

    request: int


@dataclass(frozen=True, slots=True)
class Established:
    """A track that we read is accepted."""

    track: FullTrackName


@dataclass(frozen=True, slots=True)
class Lost:
    """A track that we read is refused, or over: ask again, or do not."""

    track: FullTrackName


@dataclass(frozen=True, slots=True)
class Arrived:
    """One whole object of a track that we read."""

    track: FullTrackName
    payload: bytes


@dataclass(frozen=True, slots=True)
class TooLong:
    """An object of a track that we read is longer than we take: its stream is given up."""

    track: FullTrackName


@dataclass(frozen=True, slots=True)
class Named:
    """A namespace below a prefix that we listen to is here, or is gone."""

    namespace: Namespace
    here: bool


LocalEvent: TypeAlias = Wanted | Fetched | Left | Established | Lost | Arrived | TooLong | Named


@dataclass(slots=True)
class _Reading:
    track: FullTrackName
    max_bytes: int
    alias: int | None = None


class _Inflow:
    """One subgroup stream of a track that we read."""

    __slots__ = ("buffer", "reading")

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading
        self.buffer = bytearray()


class LocalParty:
    """One relay's own place in its forwarding."""

    fills = False
    echoes_namespaces = False
    shares_subscriptions = False
    joins_at_group_start = True

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._events: deque[LocalEvent] = deque()
        self._count = 0
        self._announced: dict[Namespace, int] = {}
        self._listening: dict[Namespace, int] = {}
        self._published: set[FullTrackName] = set()
        self._families: set[tuple[Namespace, bytes]] = set()
        self._readings: dict[int, _Reading] = {}
        self._by_track: dict[FullTrackName, int] = {}
        self._by_alias: dict[int, _Reading] = {}
        self._inflows: dict[int, _Inflow] = {}
        self._serving: set[int] = set()

    def open(self) -> None:
        """Take our place. Call once, before anything else."""
        self._forwarder.open_session(LOCAL_SESSION, self, self)

    def take(self) -> LocalEvent | None:
        """The oldest event; None: there is none."""
        return self._events.popleft() if self._events else None

    @property
    def has_events(self) -> bool:
        return bool(self._events)

    # --- Publishing ---

    def announce(self, namespace: Namespace, now: float, *, private: bool = False) -> None:
        """Publish a namespace, if we do not yet; `private`: neighbours do not hear of it."""
        if namespace not in self._announced:
            request = self._announced[namespace] = self._next()
            self._forwarder.receive_publish_namespace(LOCAL_SESSION, request, namespace, now, private=private)

    def withdraw(self, namespace: Namespace, now: float) -> None:
        """Publish a namespace no longer."""
        request = self._announced.pop(namespace, None)
        if request is not None:
            self._forwarder.receive_cancel(LOCAL_SESSION, request, now)

    def serve(self, track: FullTrackName) -> None:
        """From now on requests for this track come as events; nothing else under its namespace is ours."""
        self._published.add(track)

    def unserve(self, track: FullTrackName) -> None:
        """The end of `serve`; requests that are open are the owner's to end."""
        self._published.discard(track)

    def serve_family(self, prefix: Namespace, name: bytes) -> None:
        """`serve` for every track of this name below a namespace."""
        self._families.add((prefix, name))

    def accept_subscription(self, request: int, largest: Location | None, now: float) -> None:
        """SUBSCRIBE_OK."""
        if request in self._serving:
            self._forwarder.receive_subscribe_ok(LOCAL_SESSION, request, Parameters(largest=largest), (), now)

    def refuse(self, request: int, code: int, reason: str, now: float) -> None:
        """REQUEST_ERROR for a SUBSCRIBE or a FETCH."""
        if request in self._serving:
            self._serving.discard(request)
            self._forwarder.receive_error(LOCAL_SESSION, request, code, reason, now)

    def done(self, request: int, status: int, streams: int, reason: str, now: float) -> None:
        """PUBLISH_DONE, after all its streams are closed."""
        if request in self._serving:
            self._serving.discard(request)
            self._forwarder.receive_publish_done(LOCAL_SESSION, request, status, streams, reason, now)

    def open_stream(self, request: int, group: int, first_object: bool, priority: int, now: float) -> int:
        """Begin the only subgroup of a group; returns its stream."""
        stream = self._next()
        header = SubgroupHeader(0, group, 0, priority, True, first_object, has_properties=False)
        self._forwarder.intake.receive_subgroup(LOCAL_SESSION, stream, (request,), header, now)
        return stream

    def send(self, stream: int, number: int, payload: bytes, now: float) -> None:
        """One object on a stream."""
        self._forwarder.intake.receive_object(LOCAL_SESSION, stream, ObjectHeader(number, len(payload)), now)
        self._forwarder.intake.receive_data(LOCAL_SESSION, stream, payload, True, now)

    def close_stream(self, stream: int, code: int | None, now: float) -> None:
        """The end of a group's subgroup, or with a `code` of what we send of it."""
        self._forwarder.intake.receive_subgroup_end(LOCAL_SESSION, stream, code, now)

    def accept_fetch_of(self, request: int, end: Location, now: float) -> int:
        """FETCH_OK, and its data stream begins; returns the stream."""
        stream = self._next()
        self._forwarder.receive_fetch_ok(LOCAL_SESSION, request, end, False, (), now)
        self._forwarder.intake.receive_fetch_stream(LOCAL_SESSION, stream, request)
        return stream

    def send_fetched(self, stream: int, location: Location, payload: bytes, priority: int, now: float) -> None:
        """One object of a fetch's answer."""
        header = ObjectHeader(location.object, len(payload))
        self._forwarder.intake.receive_fetched(
            LOCAL_SESSION, stream, FetchObject(location.group, 0, header, priority), now
        )
        self._forwarder.intake.receive_data(LOCAL_SESSION, stream, payload, True, now)

    def skip_fetched(self, stream: int, upto: Location) -> None:
        """Nobody can tell what there is up to a Location."""
        self._forwarder.intake.receive_fetch_gap(LOCAL_SESSION, stream, RangeEnd.UNKNOWN, upto)

    def end_fetch(self, request: int, stream: int, code: int | None, now: float) -> None:
        """The answer to a fetch is complete, or with a `code` given up."""
        self._serving.discard(request)
        self._forwarder.intake.receive_fetch_end(LOCAL_SESSION, stream, request, code, now)

    # --- Reading ---

    def read(self, track: FullTrackName, max_bytes: int, now: float) -> None:
        """Subscribe to a track, from its current group on, unless we do; objects over `max_bytes` are not taken."""
        if track not in self._by_track:
            request = self._next()
            self._readings[request] = _Reading(track, max_bytes)
            self._by_track[track] = request
            self._forwarder.receive_subscribe(LOCAL_SESSION, request, track, NO_PARAMETERS, now)

    def unread(self, track: FullTrackName, now: float) -> None:
        """Read a track no longer."""
        request = self._by_track.get(track)
        if request is not None:
            self._forget(request)
            self._forwarder.receive_cancel(LOCAL_SESSION, request, now)

    def reads(self, track: FullTrackName) -> bool:
        """Whether a track that we asked for is accepted."""
        request = self._by_track.get(track)
        return request is not None and self._readings[request].alias is not None

    def listen(self, prefix: Namespace, now: float) -> None:
        """Hear of every namespace below a prefix."""
        if prefix not in self._listening:
            request = self._listening[prefix] = self._next()
            self._forwarder.receive_subscribe_namespace(LOCAL_SESSION, request, prefix, now)

    def unlisten(self, prefix: Namespace, now: float) -> None:
        """The end of `listen`."""
        request = self._listening.pop(prefix, None)
        if request is not None:
            self._forwarder.receive_cancel(LOCAL_SESSION, request, now)

    # --- What forwarding says: its Peer ---

    def subscribe(self, track: FullTrackName, parameters: Parameters) -> int | None:
        if not self._is_ours(track):
            return None
        request = self._next()
        self._serving.add(request)
        self._events.append(Wanted(request, track))
        return request

    def fetch(self, track: FullTrackName, chosen: LocationFilter, parameters: Parameters) -> int | None:
        if not self._is_ours(track):
            return None
        request = self._next()
        self._serving.add(request)
        self._events.append(Fetched(request, track, chosen))
        return request

    def cancel(self, request: int) -> None:
        self._serving.discard(request)
        self._events.append(Left(request))

    def accept_subscribe(self, request: int, alias: int, parameters: Parameters, properties: Properties) -> None:
        reading = self._readings.get(request)
        if reading is not None:
            reading.alias = alias
            self._by_alias[alias] = reading
            self._events.append(Established(reading.track))

    def reject(self, request: int, code: int, reason: str, retry_ms: int | None = None) -> None:
        self._lose(request)

    def publish_done(self, request: int, status: int, stream_count: int | None, reason: str) -> None:
        self._lose(request)

    def notify_namespace(self, request: int, namespace: Namespace) -> None:
        self._events.append(Named(namespace, here=True))

    def withdraw_namespace(self, request: int, namespace: Namespace) -> None:
        self._events.append(Named(namespace, here=False))

    def publish(self, track: FullTrackName, alias: int, parameters: Parameters, properties: Properties) -> int | None:
        return None

    def track_status(self, track: FullTrackName, parameters: Parameters) -> int | None:
        return None

    def update(self, request: int, parameters: Parameters) -> int | None:
        return None

    def publish_namespace(self, namespace: Namespace, way: Way) -> int | None:
        return None

    def readvertise(self, request: int, way: Way) -> None:
        """Only neighbours hear of ways."""

    def accept_fetch(
        self, request: int, end: Location, end_of_track: bool, parameters: Parameters, properties: Properties
    ) -> None:
        """We fetch nothing: what we read begins where it is."""

    def accept(self, request: int, parameters: Parameters = NO_PARAMETERS, properties: Properties = ()) -> None:
        """Our namespaces are always taken."""

    def accept_update(self, request: int, update: int, parameters: Parameters) -> None:
        """We update nothing."""

    def reject_update(self, request: int, update: int, code: int, reason: str) -> None:
        """We update nothing."""

    def keep_namespaces(self, request: int, prefix: Namespace) -> None:
        """Our prefixes stay what they are."""

    def finish(self, request: int) -> None:
        """We fetch nothing."""

    def skip_publish(self, request: int, track: FullTrackName) -> None:
        """We ask for no tracks."""

    def stop_stream(self, stream: int, code: int) -> None:
        """What is sent on it from now on, forwarding passes over."""

    # --- What forwarding sends: its Sink ---

    def room(self, now: float) -> int:
        return ROOM_BYTES

    def open_subgroup(self, header: SubgroupHeader) -> int | None:
        handle = self._next()
        reading = self._by_alias.get(header.alias)
        if reading is not None:
            self._inflows[handle] = _Inflow(reading)
        return handle

    def object_header(self, item: CachedObject, previous: int | None, has_properties: bool) -> bytes:
        return _HEAD.pack(item.id, item.length)

    def open_fetch(self, request: int, order: GroupOrder) -> int | None:
        return None

    def fetch_header(self, handle: int, item: CachedObject, default_priority: int) -> bytes:
        return b""

    def fetch_range_end(self, handle: int, kind: RangeEnd, location: Location) -> bytes:
        return b""

    def offer(self, handle: int, parts: Sequence[bytes | memoryview], fin: bool) -> bool:
        inflow = self._inflows.get(handle)
        if inflow is None:
            return False
        buffer = inflow.buffer
        for part in parts:
            buffer += part
        taken = 0
        while len(buffer) - taken >= _HEAD.size:
            _, length = _HEAD.unpack_from(buffer, taken)
            if length > inflow.reading.max_bytes:
                self._events.append(TooLong(inflow.reading.track))
                del self._inflows[handle]
                return False
            end = taken + _HEAD.size + length
            if len(buffer) < end:
                break
            self._events.append(Arrived(inflow.reading.track, bytes(buffer[taken + _HEAD.size : end])))
            taken = end
        del buffer[:taken]
        if fin:
            del self._inflows[handle]
        return True

    def unsent(self, handle: int) -> int:
        return 0

    def reset(self, handle: int, code: int) -> None:
        self._inflows.pop(handle, None)

    def datagram(self, alias: int, item: CachedObject, expires: float) -> bool:
        reading = self._by_alias.get(alias)
        if reading is not None:
            short = item.length <= reading.max_bytes
            self._events.append(Arrived(reading.track, item.payload()) if short else TooLong(reading.track))
        return True

    # --- Private ---

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _is_ours(self, track: FullTrackName) -> bool:
        if track in self._published:
            return True
        return any(name == track.name and track.namespace[: len(prefix)] == prefix for prefix, name in self._families)

    def _lose(self, request: int) -> None:
        reading = self._forget(request)
        if reading is not None:
            self._events.append(Lost(reading.track))

    def _forget(self, request: int) -> _Reading | None:
        reading = self._readings.pop(request, None)
        if reading is not None:
            del self._by_track[reading.track]
            if reading.alias is not None and self._by_alias.get(reading.alias) is reading:
                del self._by_alias[reading.alias]
            for handle in [handle for handle, flow in self._inflows.items() if flow.reading is reading]:
                del self._inflows[handle]
        return reading
