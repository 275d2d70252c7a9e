"""One MoQT client on a `Network`: a real endpoint and session, told by hand what to ask, answer and send.

`connect` makes it and waits until both SETUPs are through. Everything that its session tells is kept; objects are put
together for whoever asked for them. As a publisher it answers what `Client.serve` names by itself; a stream is an
`Outflow`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.sim.certificate import SHA256
from tests.sim.network import Network, Parcel
from tests.sim.relay import RELAY
from tradewind.client.receiving import Assembler, ReceivedObject
from tradewind.moqt import events as e
from tradewind.moqt.fetched import FetchEncoder, encode_fetch_header
from tradewind.moqt.model import (
    NO_PARAMETERS,
    DatagramObject,
    FetchObject,
    FullTrackName,
    GroupOrder,
    Location,
    Namespace,
    ObjectHeader,
    ObjectStatus,
    Parameters,
    Properties,
    RangeEnd,
    SubgroupHeader,
    TokenUse,
)
from tradewind.moqt.objects import encode_datagram, encode_object_header, encode_subgroup_header
from tradewind.moqt.parameters import RawToken, SetupOptions
from tradewind.moqt.profiles import PROFILES
from tradewind.moqt.session import Session
from tradewind.moqt.settings import SessionSettings
from tradewind.quic.config import Address, Limits, QuicSettings, ServerTrust
from tradewind.quic.connection import Connection
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Closed, DatagramReceived, Event, Opened, Stopped, StreamData, StreamReset

NAMESPACE: Namespace = (b"demo",)
TRACK = FullTrackName(NAMESPACE, b"video")

E = TypeVar("E", bound=e.Event)


def by_value(token: str) -> RawToken:
    """A token as SETUP carries it."""
    return RawToken(TokenUse.USE_VALUE, type=0, value=token.encode())


@dataclass(slots=True)
class Outflow:
    """One subgroup stream of a client's on its way out."""

    client: Client
    stream: int
    header: SubgroupHeader
    previous: int | None = None

    def object(
        self,
        number: int,
        payload: bytes = b"",
        *,
        properties: Properties = (),
        status: ObjectStatus = ObjectStatus.NORMAL,
        announced: int | None = None,
    ) -> None:
        """Send an object; with `announced` its header says that length, whatever is sent of it."""
        length = len(payload) if announced is None else announced
        header = ObjectHeader(number, length, status, properties)
        profile = self.client.session.profile
        head = encode_object_header(profile, self.previous, header, self.header.has_properties)
        self.previous = number
        self.raw(head + payload)

    def raw(self, data: bytes, fin: bool = False) -> None:
        """Send bytes, whatever they mean."""
        self.client.connection.offer(self.stream, (data,), fin)
        self.client.touch()

    def fin(self) -> None:
        self.raw(b"", fin=True)

    def reset(self, code: int) -> None:
        self.client.connection.reset(self.stream, self.client.session.profile.codes.reset_to_wire(code))
        self.client.touch()


@dataclass(slots=True)
class FetchOutflow:
    """One fetch stream of a client's on its way out."""

    client: Client
    stream: int
    encoder: FetchEncoder

    def object(self, location: Location, payload: bytes, properties: Properties = ()) -> None:
        header = ObjectHeader(location.object, len(payload), ObjectStatus.NORMAL, properties)
        self.raw(self.encoder.object(FetchObject(location.group, 0, header, 128)) + payload)

    def gap(self, kind: RangeEnd, location: Location) -> None:
        """Everything up to `location` is what `kind` says."""
        self.raw(self.encoder.range_end(kind, location))

    def raw(self, data: bytes, fin: bool = False) -> None:
        """Send bytes, whatever they mean."""
        self.client.connection.offer(self.stream, (data,), fin)
        self.client.touch()

    def fin(self) -> None:
        self.raw(b"", fin=True)


class Client:
    """A host with one connection to one relay."""

    def __init__(
        self,
        network: Network,
        address: Address,
        *,
        draft: int = 20,
        webtransport: bool = False,
        path: str = "/",
        tokens: Sequence[str] = (),
        relay: Address = RELAY,
        origin: str | None = None,
        protocols: Sequence[str] = (),
        limits: Limits | None = None,
        settings: SessionSettings | None = None,
        implementation: str = "",
    ) -> None:
        self.network = network
        self.addresses = (address,)
        self.reading = True
        """False: it acknowledges packets and reads nothing, as a program does that is stuck."""
        self.events: list[e.Event] = []
        self.closed: Closed | None = None
        self.connection_events: list[Event] = []
        self.on_event: Callable[[e.Event], None] | None = None
        self.pump: Callable[[float], None] | None = None
        """Called before datagrams are collected: for what sends as much as the connection takes."""
        self.arrivals: dict[int, list[tuple[float, ReceivedObject]]] = {}
        """Objects by request, each with when its last byte came."""
        self.feeds: dict[FullTrackName, list[Feed]] = {}
        """Subscriptions of the relay to what `serve` named."""
        self.datagrams_out = 0
        self._assembler = Assembler()
        self._served: dict[FullTrackName, Served] = {}
        self._session: Session | None = None
        self._settings = settings
        self._setup = SetupOptions(
            path=None if webtransport else path,
            authority=None if webtransport else "relay.test",
            tokens=tuple(by_value(token) for token in tokens),
            implementation=implementation,
        )
        quic = QuicSettings(
            protocols=tuple(protocols) or (f"moqt-{draft}",),
            trust=ServerTrust(pinned_sha256=SHA256),
            limits=limits or Limits(),
            keep_alive_s=10.0,
        )
        self.endpoint = Endpoint(quic, is_client=True)
        self.connection: Connection = self.endpoint.connect(
            relay,
            network.now,
            server_name="relay.test",
            url=f"https://relay.test{path}" if webtransport else None,
            origin=origin,
        )
        network.add(self)

    def __repr__(self) -> str:
        return f"Client({self.addresses[0][0]})"

    @property
    def session(self) -> Session:
        assert self._session is not None, "not open yet"
        return self._session

    @property
    def is_open(self) -> bool:
        """Both SETUPs are through, and nobody has closed."""
        return self._session is not None and self._session.is_ready and self.closed is None

    # --- What `Network` calls -----------------------------------------------------------------------------------------

    def receive(self, address: Address, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        self._dispatch(self.endpoint.receive_datagrams(batch, now), now)
        self._tell_late(now)

    def next_deadline(self) -> float | None:
        deadlines = [self.endpoint.next_deadline()]
        if self._session is not None:
            deadlines.append(self._session.next_deadline())
        return min((due for due in deadlines if due is not None), default=None)

    def handle_deadline(self, now: float, wall_now: float) -> None:
        due = self.endpoint.next_deadline()
        if due is not None and due <= now:
            self._dispatch(self.endpoint.handle_deadline(now), now)
        self._tell_late(now)

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        source = self.addresses[0]
        parcels: list[Parcel] = []
        while True:
            if self.pump is not None and self.is_open:
                self.pump(now)
            batches = self.endpoint.datagrams_to_send(now)
            parcels += [Parcel(source, target, datagrams) for target, datagrams in batches]
            if self.pump is None or not batches:
                return parcels, False

    # --- What a test asks ---------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Something was said: let it leave."""
        self.network.touch(self)

    def forget_media(self) -> None:
        """Keep of what was told only what is no media: for those who run for minutes."""
        media = (e.SubgroupOpened, e.SubgroupClosed, e.ObjectStarted, e.ObjectData)
        self.events = [event for event in self.events if not isinstance(event, media)]
        self.connection_events.clear()

    def told(self, kind: type[E]) -> list[E]:
        """The events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def answer(self, request: int | None) -> e.Event | None:
        """What the relay answered to a request of ours, if it did."""
        answers = (e.SubscribeAccepted, e.FetchAccepted, e.RequestAccepted, e.RequestRefused, e.RequestCancelled)
        return next((event for event in self.events if isinstance(event, answers) and event.request == request), None)

    def refusal(self, request: int | None) -> int | None:
        """The code with which a request of ours was refused."""
        answer = self.answer(request)
        return answer.code if isinstance(answer, e.RequestRefused) else None

    def close(self, code: int = 0, reason: str = "") -> None:
        self.session.close(code, reason)
        self.touch()

    def vanish(self) -> None:
        """Gone without a word."""
        self.network.remove(self)

    def ask(self, verb: str, *arguments: Any, **named: Any) -> int:
        """A request of ours by its verb in `Session`; returns its number."""
        number = getattr(self.session, verb)(*arguments, **named)
        self.touch()
        assert isinstance(number, int), f"no room for {verb}"
        return number

    def subscribe(self, track: FullTrackName = TRACK, **parameters: Any) -> int:
        return self.ask("subscribe", track, Parameters(**parameters))

    def do(self, verb: str, *arguments: Any, **named: Any) -> Any:
        """Any other call of `Session`."""
        result = getattr(self.session, verb)(*arguments, **named)
        self.touch()
        return result

    def objects(self, request: int) -> list[tuple[Location, bytes]]:
        """(location, payload) of all that came for a request, in the order in which it came."""
        return [(found.location, found.payload) for _, found in self.arrivals.get(request, ())]

    def locations(self, request: int) -> list[Location]:
        return [location for location, _ in self.objects(request)]

    def received(self, request: int) -> list[ReceivedObject]:
        return [found for _, found in self.arrivals.get(request, ())]

    # --- As a publisher -----------------------------------------------------------------------------------------------

    def serve(
        self, track: FullTrackName = TRACK, *, largest: Location | None = None, properties: Properties = ()
    ) -> Served:
        """From now on SUBSCRIBEs to this track are accepted."""
        served = self._served[track] = Served(self, track, largest, properties, 100 + len(self._served))
        return served

    def announce(self, namespace: Namespace = NAMESPACE) -> int:
        return self.ask("publish_namespace", namespace, NO_PARAMETERS)

    def open_subgroup(
        self,
        alias: int,
        group: int,
        subgroup: int = 0,
        *,
        priority: int | None = 128,
        first_object: bool = True,
        end_of_group: bool = False,
        has_properties: bool = True,
    ) -> Outflow:
        """A new subgroup stream with its header."""
        stream = self.connection.open_uni()
        assert stream is not None, "no stream may be opened"
        header = SubgroupHeader(alias, group, subgroup, priority, end_of_group, first_object, has_properties)
        outflow = Outflow(self, stream, header)
        outflow.raw(encode_subgroup_header(self.session.profile, header))
        return outflow

    def send_group(self, alias: int, group: int, payloads: Sequence[bytes], subgroup: int = 0, **fields: Any) -> None:
        """A whole subgroup, from object 0 on."""
        outflow = self.open_subgroup(alias, group, subgroup, **fields)
        for number, payload in enumerate(payloads):
            outflow.object(number, payload)
        outflow.fin()

    def send_datagram(
        self,
        alias: int,
        location: Location,
        payload: bytes,
        *,
        priority: int | None = 128,
        properties: Properties = (),
        end_of_group: bool = False,
        status: ObjectStatus = ObjectStatus.NORMAL,
        life_s: float = 1.0,
    ) -> None:
        """One object in one datagram."""
        header = ObjectHeader(location.object, len(payload), status, properties)
        datagram = DatagramObject(alias, location.group, header, priority, end_of_group, payload)
        head = encode_datagram(self.session.profile, datagram)
        assert self.connection.datagram((head, payload), self.network.now + life_s)
        self.datagrams_out += 1
        self.touch()

    def open_fetch(self, request: int, order: GroupOrder = GroupOrder.ASCENDING) -> FetchOutflow:
        """The data stream of a FETCH, with its header."""
        stream = self.connection.open_uni()
        assert stream is not None, "no stream may be opened"
        outflow = FetchOutflow(self, stream, FetchEncoder(self.session.profile, order))
        outflow.raw(encode_fetch_header(self.session.profile, request))
        return outflow

    def answer_fetch(self, request: int, objects: Sequence[tuple[Location, bytes]]) -> None:
        """The whole data stream of a FETCH that was accepted."""
        stream = self.open_fetch(request)
        for location, payload in objects:
            stream.object(location, payload)
        stream.fin()
        self.do("finish", request)

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _dispatch(self, told: list[Event], now: float) -> None:
        for event in told:
            match event:
                case Opened():
                    self._open(now)
                case Closed():
                    self.closed = event
                case StreamData() if self.reading:
                    self._handle(self.session.receive_stream(event.stream, event.data, event.fin, now), now)
                case StreamReset():
                    self.connection_events.append(event)
                    self._handle(self.session.receive_reset(event.stream, event.code, now), now)
                case Stopped():
                    self.connection_events.append(event)
                    self._handle(self.session.receive_stopped(event.stream, event.code, now), now)
                case DatagramReceived() if self.reading:
                    self._handle(self.session.receive_datagram(event.data, now), now)
                case _:
                    pass

    def _open(self, now: float) -> None:
        profile = PROFILES[self.connection.protocol]
        self._session = Session(
            self.connection,
            profile,
            is_client=True,
            webtransport=self.connection.transport == "webtransport",
            settings=self._settings,
        )
        self._session.start(self._setup, now)

    def _tell_late(self, now: float) -> None:
        session = self._session
        if session is not None and (due := session.next_deadline()) is not None and due <= now:
            self._handle(session.handle_deadline(now), now)

    def _handle(self, told: list[e.Event], now: float) -> None:
        for event in told:
            self.events.append(event)
            for request, arrival in self._assembler.receive(event, now):
                if isinstance(arrival, ReceivedObject):
                    self.arrivals.setdefault(request, []).append((now, arrival))
            if isinstance(event, e.SubscribeRequested) and (served := self._served.get(event.track)) is not None:
                served.accept(event)
            if self.on_event is not None:
                self.on_event(event)


@dataclass(slots=True)
class Feed:
    """One subscription of the relay to a track of ours."""

    request: int
    alias: int
    parameters: Parameters


@dataclass(slots=True)
class Served:
    """A track of a client's that the relay may subscribe to."""

    client: Client
    track: FullTrackName
    largest: Location | None
    properties: Properties
    alias: int
    feeds: list[Feed] = field(default_factory=list)

    def accept(self, event: e.SubscribeRequested) -> None:
        self.feeds.append(Feed(event.request, self.alias, event.parameters))
        self.client.session.accept_subscribe(
            event.request, self.alias, Parameters(largest=self.largest), self.properties
        )

    def open(self, group: int, subgroup: int = 0, **fields: Any) -> Outflow:
        return self.client.open_subgroup(self.alias, group, subgroup, **fields)

    def group(self, group: int, payloads: Sequence[bytes], **fields: Any) -> None:
        self.client.send_group(self.alias, group, payloads, **fields)

    def datagram(self, group: int, number: int, payload: bytes, **fields: Any) -> None:
        self.client.send_datagram(self.alias, Location(group, number), payload, **fields)

    def done(self, status: int, streams: int | None = None) -> None:
        """PUBLISH_DONE for every subscription to it."""
        for feed in self.feeds:
            self.client.do("publish_done", feed.request, status, streams, "")
        self.feeds.clear()
