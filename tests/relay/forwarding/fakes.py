"""Peers and sinks that write down what they are told, and a small world of them around one forwarder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.forwarding.book import ForwardingSettings
from relay.forwarding.cache import CachedObject
from relay.forwarding.forwarder import Forwarder
from relay.forwarding.routes import Way
from tradewind.moqt.model import (
    NO_FILTER,
    NO_PARAMETERS,
    DatagramObject,
    FetchObject,
    FilterSubject,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    Namespace,
    ObjectHeader,
    ObjectStatus,
    Parameters,
    Properties,
    RangeEnd,
    RangeFilter,
    SubgroupHeader,
)

NAMESPACE: Namespace = (b"live", b"demo")
TRACK = FullTrackName(NAMESPACE, b"video")
ODD_IDS = tuple(RangeFilter(FilterSubject.OBJECT_ID, set_id, None, ((2 * set_id + 1,) * 2,)) for set_id in range(3))
"""The ids 1, 3 and 5."""
FETCH_STREAM = 900


@dataclass
class OutStream:
    """What was written on one downstream stream."""

    header: SubgroupHeader | None
    request: int | None = None
    objects: list[tuple[int, bytes]] = field(default_factory=list)
    """(object id, payload so far)."""
    marks: list[tuple[RangeEnd, Location]] = field(default_factory=list)
    locations: list[Location] = field(default_factory=list)
    fin: bool = False
    code: int | None = None


class FakeSink:
    """Takes what its room allows. Headers are markers, written by `object_header` and read by `offer`."""

    def __init__(self) -> None:
        self.streams: list[OutStream] = []
        self.datagrams: list[tuple[int, int, bytes]] = []
        self.session_bytes = 1 << 30
        self.credit = 1 << 30
        self.max_datagram = 1200
        self.stuck: set[int] = set()
        self.stopped: set[int] = set()
        self._headers: dict[bytes, tuple[str, object]] = {}

    def room(self, now: float) -> int:
        return self.session_bytes

    def open_subgroup(self, header: SubgroupHeader) -> int | None:
        if self.credit <= 0:
            return None
        self.credit -= 1
        self.streams.append(OutStream(header))
        return len(self.streams) - 1

    def object_header(self, item: CachedObject, previous: int | None, has_properties: bool) -> bytes:
        assert previous is None or previous < item.id
        return self._mark("object", item)

    def open_fetch(self, request: int, order: GroupOrder) -> int | None:
        if self.credit <= 0:
            return None
        self.credit -= 1
        self.streams.append(OutStream(None, request))
        return len(self.streams) - 1

    def fetch_header(self, handle: int, item: CachedObject, default_priority: int) -> bytes:
        return self._mark("object", item)

    def fetch_range_end(self, handle: int, kind: RangeEnd, location: Location) -> bytes:
        return self._mark("gap", (kind, location))

    def offer(self, handle: int, parts: Sequence[bytes | memoryview], fin: bool) -> bool:
        if handle in self.stopped:
            return False
        stream = self.streams[handle]
        assert not stream.fin
        assert stream.code is None
        for part in parts:
            kind, value = self._headers.get(bytes(part), ("payload", None))
            if kind == "object":
                assert isinstance(value, CachedObject)
                stream.objects.append((value.id, b""))
                stream.locations.append(value.location)
            elif kind == "gap":
                stream.marks.append(value)  # type: ignore[arg-type]
            else:
                object_id, payload = stream.objects[-1]
                stream.objects[-1] = (object_id, payload + bytes(part))
            if self.session_bytes < 1 << 29:
                self.session_bytes -= len(part)
        stream.fin = fin
        return True

    def unsent(self, handle: int) -> int:
        return 1 << 20 if handle in self.stuck else 0

    def reset(self, handle: int, code: int) -> None:
        if not self.streams[handle].fin:
            self.streams[handle].code = code

    def datagram(self, alias: int, item: CachedObject, expires: float) -> bool:
        if item.length > self.max_datagram:
            return False
        self.datagrams.append((item.group, item.id, item.payload()))
        return True

    def _mark(self, kind: str, value: object) -> bytes:
        mark = f"\x00{kind}{len(self._headers)}\x00".encode()
        self._headers[mark] = (kind, value)
        return mark


@dataclass
class FakePeer:
    """Writes requests and answers down as tuples: (verb, request, ...)."""

    parity: int
    fills: bool = True
    echoes_namespaces: bool = True
    shares_subscriptions: bool = True
    joins_at_group_start: bool = False
    said: list[tuple[object, ...]] = field(default_factory=list)
    credit: int = 1 << 30

    def __post_init__(self) -> None:
        self._next = self.parity

    def _request(self, *what: object) -> int | None:
        if self.credit <= 0:
            return None
        self.credit -= 1
        number = self._next
        self._next += 2
        self.said.append((what[0], number, *what[1:]))
        return number

    def subscribe(self, track: FullTrackName, parameters: Parameters) -> int | None:
        return self._request("subscribe", track, parameters)

    def publish(self, track: FullTrackName, alias: int, parameters: Parameters, properties: Properties) -> int | None:
        return self._request("publish", track, alias, parameters, properties)

    def fetch(self, track: FullTrackName, chosen: LocationFilter, parameters: Parameters) -> int | None:
        return self._request("fetch", track, chosen, parameters)

    def track_status(self, track: FullTrackName, parameters: Parameters) -> int | None:
        return self._request("track_status", track, parameters)

    def publish_namespace(self, namespace: Namespace, way: Way) -> int | None:
        return self._request("publish_namespace", namespace, way)

    def readvertise(self, request: int, way: Way) -> None:
        self.said.append(("readvertise", request, way))

    def update(self, request: int, parameters: Parameters) -> int | None:
        self.said.append(("update", request, parameters))
        return 0

    def cancel(self, request: int) -> None:
        self.said.append(("cancel", request))

    def accept_subscribe(self, request: int, alias: int, parameters: Parameters, properties: Properties) -> None:
        self.said.append(("accept_subscribe", request, parameters.largest, properties))

    def accept_fetch(
        self, request: int, end: Location, end_of_track: bool, parameters: Parameters, properties: Properties
    ) -> None:
        self.said.append(("accept_fetch", request, end, end_of_track))

    def accept(self, request: int, parameters: Parameters = NO_PARAMETERS, properties: Properties = ()) -> None:
        self.said.append(("accept", request, parameters, properties))

    def reject(self, request: int, code: int, reason: str, retry_ms: int | None = None) -> None:
        self.said.append(("reject", request, code))

    def accept_update(self, request: int, update: int, parameters: Parameters) -> None:
        self.said.append(("accept_update", request, update, parameters.largest))

    def reject_update(self, request: int, update: int, code: int, reason: str) -> None:
        self.said.append(("reject_update", request, update, code))

    def publish_done(self, request: int, status: int, stream_count: int | None, reason: str) -> None:
        self.said.append(("publish_done", request, status, stream_count))

    def notify_namespace(self, request: int, namespace: Namespace) -> None:
        self.said.append(("namespace", request, namespace))

    def withdraw_namespace(self, request: int, namespace: Namespace) -> None:
        self.said.append(("namespace_done", request, namespace))

    def keep_namespaces(self, request: int, prefix: Namespace) -> None:
        self.said.append(("keep_namespaces", request, prefix))

    def finish(self, request: int) -> None:
        self.said.append(("finish", request))

    def skip_publish(self, request: int, track: FullTrackName) -> None:
        self.said.append(("skip_publish", request, track))

    def stop_stream(self, stream: int, code: int) -> None:
        self.said.append(("stop_stream", stream, code))

    def verbs(self) -> list[object]:
        return [entry[0] for entry in self.said]


def send_all(forwarder: Forwarder, now: float) -> None:
    """Let every outbox send until nothing moves."""
    for _ in range(10_000):
        outbox = forwarder.ready.pop()
        if outbox is None:
            return
        if outbox.fill(now):
            outbox.mark()
    raise AssertionError("an outbox never comes to rest")


class World:
    """A forwarder with sessions around it, and a clock moved by hand."""

    def __init__(self, settings: ForwardingSettings | None = None) -> None:
        self.forwarder = Forwarder(settings or ForwardingSettings())
        self.now = 100.0
        self.peers: dict[int, FakePeer] = {}
        self.sinks: dict[int, FakeSink] = {}
        self._requests: dict[int, int] = {}
        self._streams = 0

    def join(self, session: int, **traits: bool) -> FakePeer:
        peer = self.peers[session] = FakePeer(1, **traits)  # type: ignore[arg-type]
        sink = self.sinks[session] = FakeSink()
        self.forwarder.open_session(session, peer, sink)
        return peer

    def join_publisher(self, session: int) -> int:
        """One more publisher comes and accepts the SUBSCRIBE that it gets; returns that request of ours."""
        self.join(session)
        self.announce(session)
        return self.agree(session)

    def leave(self, session: int) -> None:
        self.forwarder.close_session(session, self.now)
        self.settle()

    def request(self, session: int) -> int:
        """A number for a request of theirs."""
        number = self._requests.get(session, 0)
        self._requests[session] = number + 2
        return number

    def announce(self, session: int, namespace: Namespace = NAMESPACE) -> int:
        number = self.request(session)
        self.forwarder.receive_publish_namespace(session, number, namespace, self.now)
        return number

    def subscribe(self, session: int, track: FullTrackName = TRACK, parameters: Parameters = NO_PARAMETERS) -> int:
        number = self.request(session)
        self.forwarder.receive_subscribe(session, number, track, parameters, self.now)
        return number

    def publish(self, session: int, track: FullTrackName = TRACK, parameters: Parameters = NO_PARAMETERS) -> int:
        number = self.request(session)
        self.forwarder.receive_publish(session, number, track, parameters, (), self.now)
        return number

    def fetch(self, session: int, chosen: LocationFilter = NO_FILTER, **fields: object) -> int:
        number = self.request(session)
        parameters = Parameters(**fields)  # type: ignore[arg-type]
        self.forwarder.receive_fetch(session, number, TRACK, chosen, parameters, self.now)
        self.settle()
        return number

    def asked(self, session: int, verb: str = "subscribe") -> int:
        """The number of the latest request of ours to this session."""
        for entry in reversed(self.peers[session].said):
            if entry[0] == verb:
                assert isinstance(entry[1], int)
                return entry[1]
        raise AssertionError(f"session {session} was not asked to {verb}: {self.peers[session].said}")

    def agree(self, session: int, largest: Location | None = None, properties: Properties = ()) -> int:
        """The publisher accepts our latest SUBSCRIBE."""
        number = self.asked(session)
        self.forwarder.receive_subscribe_ok(session, number, Parameters(largest=largest), properties, self.now)
        return number

    def answer_fetch(
        self, session: int, objects: list[tuple[Location, bytes]], *,
        end_of_track: bool = False, properties: Properties = (),
    ) -> None:  # fmt: skip
        """The publisher answers our latest FETCH with these objects, the last of which ends it."""
        number = self.asked(session, "fetch")
        self.forwarder.receive_fetch_ok(session, number, objects[-1][0], end_of_track, properties, self.now)
        self.forwarder.intake.receive_fetch_stream(session, FETCH_STREAM, number)
        for at, payload in objects:
            found = FetchObject(at.group, 0, ObjectHeader(at.object, len(payload)), 128)
            self.forwarder.intake.receive_fetched(session, FETCH_STREAM, found, self.now)
            self.forwarder.intake.receive_data(session, FETCH_STREAM, payload, True, self.now)
            self.settle()
        self.forwarder.intake.receive_fetch_end(session, FETCH_STREAM, number, None, self.now)
        self.settle()

    def datagram(self, request: int, group: int, object_id: int, payload: bytes, session: int = 1) -> None:
        """The publisher sends an object in a datagram; nobody is served before the world settles."""
        found = DatagramObject(1, group, ObjectHeader(object_id, len(payload)), None, False, payload)
        self.forwarder.intake.receive_datagram(session, (request,), found, self.now)

    def open(self, session: int, request: int, group: int, subgroup: int = 0, **fields: object) -> int:
        """The publisher opens a subgroup stream."""
        self._streams += 1
        header = SubgroupHeader(alias=1, group=group, subgroup=subgroup, **{"priority": None, **fields})  # type: ignore[arg-type]
        self.forwarder.intake.receive_subgroup(session, self._streams, (request,), header, self.now)
        return self._streams

    def send(
        self, session: int, stream: int, object_id: int, payload: bytes, *, upto: int | None = None,
        status: ObjectStatus = ObjectStatus.NORMAL, properties: Properties = (),
    ) -> None:  # fmt: skip
        """The publisher sends an object, or its first `upto` bytes."""
        header = ObjectHeader(object_id, len(payload), status, properties)
        self.forwarder.intake.receive_object(session, stream, header, self.now)
        data = payload if upto is None else payload[:upto]
        if data:
            self.forwarder.intake.receive_data(session, stream, data, len(data) == len(payload), self.now)
        self.settle()

    def more(self, session: int, stream: int, data: bytes, *, last: bool = True) -> None:
        self.forwarder.intake.receive_data(session, stream, data, last, self.now)
        self.settle()

    def close(self, session: int, stream: int, code: int | None = None) -> None:
        self.forwarder.intake.receive_subgroup_end(session, stream, code, self.now)
        self.settle()

    def settle(self) -> None:
        """Let every outbox send until nothing moves, and check what must always hold."""
        send_all(self.forwarder, self.now)
        self.forwarder.check_invariants()

    def wait(self, seconds: float) -> None:
        """Move the clock, stopping at each deadline on the way."""
        end = self.now + seconds
        while (deadline := self.forwarder.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.forwarder.handle_deadline(self.now)
            self.settle()
        self.now = end
        self.settle()

    def serve(
        self, publisher: int = 1, viewer: int = 2, *, parameters: Parameters = NO_PARAMETERS,
        largest: Location | None = None, properties: Properties = (), **traits: bool,
    ) -> tuple[int, int]:  # fmt: skip
        """A publisher and one viewer, subscribed and established; returns our request upstream and theirs."""
        self.join(publisher)
        self.join(viewer, **traits)
        self.announce(publisher)
        theirs = self.subscribe(viewer, parameters=parameters)
        ours = self.agree(publisher, largest, properties)
        return ours, theirs
