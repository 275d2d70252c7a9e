"""Two sessions joined in memory: a transport that records, holds, splits and reorders what one side writes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from tradewind.moqt import messages as m
from tradewind.moqt.events import Event
from tradewind.moqt.fetched import FetchEncoder, encode_fetch_header
from tradewind.moqt.model import (
    DatagramObject,
    FetchObject,
    GroupOrder,
    Location,
    ObjectHeader,
    SubgroupHeader,
)
from tradewind.moqt.objects import encode_datagram, encode_object_header, encode_subgroup_header
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.profiles import PROFILES, Profile
from tradewind.moqt.session import QuirkSet, Session, SessionSettings

DRAFTS = tuple(sorted(profile.draft for profile in PROFILES.values()))
BY_DRAFT = {profile.draft: profile for profile in PROFILES.values()}


@dataclass(frozen=True, slots=True)
class Bytes:
    """Something that one side did to a stream, on its way to the other."""

    stream: int
    data: bytes = b""
    fin: bool = False
    reset: int | None = None
    stop: int | None = None


@dataclass(slots=True)
class FakeTransport:
    """Records what a session does, and keeps it for the other side to read."""

    is_client: bool
    bidi_credit: int = 1 << 30
    uni_credit: int = 1 << 30
    next_bidi: int = field(init=False)
    next_uni: int = field(init=False)
    sent: deque[Bytes] = field(default_factory=deque)
    datagrams: deque[bytes] = field(default_factory=deque)
    closed: tuple[int, str] | None = None
    consumed_bytes: dict[int, int] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.next_bidi = 0 if self.is_client else 1
        self.next_uni = 2 if self.is_client else 3

    def open_bidi(self) -> int | None:
        if self.bidi_credit <= 0:
            return None
        self.bidi_credit -= 1
        self.next_bidi += 4
        return self.next_bidi - 4

    def open_uni(self) -> int | None:
        if self.uni_credit <= 0:
            return None
        self.uni_credit -= 1
        self.next_uni += 4
        return self.next_uni - 4

    def send(self, stream: int, data: bytes, fin: bool = False) -> None:
        assert self.closed is None, "sent after close"
        if stream in self.finished:
            return
        if fin:
            self.finished.add(stream)
        self.sent.append(Bytes(stream, data, fin))

    def reset(self, stream: int, code: int) -> None:
        if stream not in self.finished:
            self.finished.add(stream)
            self.sent.append(Bytes(stream, reset=code))

    def stop(self, stream: int, code: int) -> None:
        self.sent.append(Bytes(stream, stop=code))

    def consumed(self, stream: int, size: int) -> None:
        assert size >= 0
        self.consumed_bytes[stream] = self.consumed_bytes.get(stream, 0) + size

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None, "closed twice"
        self.closed = (code, reason)

    def take(self) -> list[Bytes]:
        """All that was written since the last time."""
        taken = list(self.sent)
        self.sent.clear()
        return taken


class Side:
    """One session with its transport, and the events it has told so far."""

    def __init__(
        self,
        draft: int | Profile = 20,
        *,
        is_client: bool,
        webtransport: bool = False,
        settings: SessionSettings | None = None,
        quirks: frozenset[str] = frozenset(),
    ) -> None:
        self.profile: Profile = BY_DRAFT[draft] if isinstance(draft, int) else draft
        self.transport = FakeTransport(is_client)
        self.quirks = QuirkSet(quirks)
        self.session = Session(
            self.transport,
            self.profile,
            is_client=is_client,
            webtransport=webtransport,
            settings=settings,
            quirks=self.quirks,
        )
        self.events: list[Event] = []
        self.now = 0.0

    def take(self) -> list[Event]:
        """The events since the last time."""
        taken, self.events = self.events, []
        return taken

    def receive(self, arrived: Bytes, *, split: int = 0) -> list[Event]:
        """Hand over what the other side did, cut into pieces of `split` bytes (0: whole)."""
        session, before = self.session, len(self.events)
        if arrived.reset is not None:
            self.events += session.receive_reset(arrived.stream, arrived.reset, self.now)
        elif arrived.stop is not None:
            if arrived.stream not in self.transport.finished:
                # What a QUIC stack does: our side is reset before we are told.
                self.transport.reset(arrived.stream, arrived.stop)
                self.events += session.receive_stopped(arrived.stream, arrived.stop, self.now)
        else:
            data = arrived.data
            pieces = [data[i : i + split] for i in range(0, len(data), split)] if split and data else [data]
            for number, piece in enumerate(pieces):
                last = number == len(pieces) - 1
                self.events += session.receive_stream(arrived.stream, piece, arrived.fin and last, self.now)
        session.check_invariants()
        return self.events[before:]

    def wait(self, seconds: float) -> list[Event]:
        """Let time pass, as far as the session asked to be woken."""
        before, until = len(self.events), self.now + seconds
        while (deadline := self.session.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.events += self.session.handle_deadline(self.now)
        self.now = until
        self.session.check_invariants()
        return self.events[before:]


class Pair:
    """A client and a server session, and the wire between them."""

    def __init__(self, draft: int | Profile = 20, *, split: int = 0, start: bool = True, **options: object) -> None:
        settings = options.get("settings")
        quirks = options.get("quirks", frozenset())
        assert settings is None or isinstance(settings, SessionSettings)
        assert isinstance(quirks, frozenset)
        self.draft = draft
        self.client = Side(draft, is_client=True, settings=settings, quirks=quirks)
        self.server = Side(draft, is_client=False, settings=settings, quirks=quirks)
        self.split = split
        if start:
            self.client.session.start(SetupOptions(path="/live", authority="relay.example:4443"))
            self.server.session.start(SetupOptions(implementation="pair"))
            self.run()

    def step(self) -> bool:
        """Carry what both sides have written to the other; whether there was anything."""
        moved = False
        for source, target in ((self.client, self.server), (self.server, self.client)):
            for arrived in source.transport.take():
                moved = True
                target.receive(arrived, split=self.split)
            while source.transport.datagrams:
                moved = True
                target.events += target.session.receive_datagram(source.transport.datagrams.popleft(), target.now)
        return moved

    def run(self) -> None:
        """Until nobody has anything to say."""
        while self.step():
            pass
        for side in (self.client, self.server):
            side.wait(0.0)

    def take(self) -> tuple[list[Event], list[Event]]:
        """The events of the client and of the server since the last time."""
        return self.client.take(), self.server.take()


def made(number: int | None) -> int:
    """A request that the peer's limits must allow."""
    assert number is not None
    return number


def subgroup_bytes(profile: Profile, header: SubgroupHeader, objects: list[tuple[ObjectHeader, bytes]]) -> bytes:
    """A whole subgroup stream."""
    parts = [encode_subgroup_header(profile, header)]
    previous: int | None = None
    for fields, payload in objects:
        parts += (encode_object_header(profile, previous, fields, header.has_properties), payload)
        previous = fields.id
    return b"".join(parts)


def send_subgroup(
    side: Side, alias: int, group: int, payloads: list[bytes], *, fin: bool = True, priority: int | None = 128
) -> int:
    """Open a subgroup stream, as an egress would, and write one object for each payload."""
    stream = side.transport.open_uni()
    assert stream is not None
    header = SubgroupHeader(alias, group, 0, priority, has_properties=False)
    objects = [(ObjectHeader(number, len(payload)), payload) for number, payload in enumerate(payloads)]
    side.transport.send(stream, subgroup_bytes(side.profile, header, objects), fin)
    return stream


def send_fetch(
    side: Side,
    request: int,
    objects: list[tuple[Location, bytes]],
    *,
    order: GroupOrder = GroupOrder.ASCENDING,
    fin: bool = True,
) -> int:
    """Open a fetch stream and write the objects."""
    stream = side.transport.open_uni()
    assert stream is not None
    encoder = FetchEncoder(side.profile, order)
    parts = [encode_fetch_header(side.profile, request)]
    for location, payload in objects:
        parts += (
            encoder.object(FetchObject(location.group, 0, ObjectHeader(location.object, len(payload)), 128)),
            payload,
        )
    side.transport.send(stream, b"".join(parts), fin)
    return stream


def send_datagram(side: Side, alias: int, location: Location, payload: bytes) -> None:
    """One object in one datagram."""
    datagram = DatagramObject(alias, location.group, ObjectHeader(location.object, len(payload)), 128, False, payload)
    side.transport.datagrams.append(encode_datagram(side.profile, datagram) + payload)


class Peer:
    """The other end of one session, which says whatever a test wants it to say."""

    def __init__(self, draft: int = 20, *, is_client: bool = False, setup: SetupOptions | None = None, **options: Any):
        """`is_client`: the session under test is the client; both SETUPs are through unless `setup` is None."""
        self.side = Side(draft, is_client=is_client, **options)
        self.profile = self.side.profile
        self.session = self.side.session
        self._next_bidi = 1 if is_client else 0
        self._next_uni = 3 if is_client else 2
        self.number = 1 if is_client else 0
        """The next Request ID of this end."""
        self.control = -1
        self.decoders: dict[int, m.ControlDecoder] = {}
        if setup is not None:
            self.begin(setup)

    def begin(self, setup: SetupOptions) -> None:
        """Exchange SETUPs."""
        self.session.start(SetupOptions(), self.side.now)
        if self.profile.request_streams:
            self.control = self.uni(m.encode(self.profile, m.Setup(setup)))
        elif self.session._context.is_client:
            self.control = 0
            self.say(0, m.ServerSetup(replace(setup, max_request_id=setup.max_request_id or 200)))
        else:
            self.control = self.bidi_id()
            self.say(self.control, m.ClientSetup(replace(setup, max_request_id=setup.max_request_id or 200)))
        self.side.take()
        self.heard()

    def bidi_id(self) -> int:
        self._next_bidi += 4
        return self._next_bidi - 4

    def uni_id(self) -> int:
        self._next_uni += 4
        return self._next_uni - 4

    def id(self) -> int:
        """The next Request ID."""
        self.number += 2
        return self.number - 2

    def uni(self, data: bytes, *, fin: bool = False) -> int:
        """A new unidirectional stream with these bytes."""
        stream = self.uni_id()
        self.side.receive(Bytes(stream, data, fin))
        return stream

    def open(self, message: m.Message, *, fin: bool = False) -> int:
        """A request: on a new stream, or where draft 16 has it."""
        if not self.profile.request_streams and not isinstance(message, m.SubscribeNamespace):
            self.say(self.control, message)
            return self.control
        stream = self.bidi_id()
        self.say(stream, message, fin=fin)
        return stream

    def say(self, stream: int, *messages: m.Message, fin: bool = False) -> list[Event]:
        data = b"".join(m.encode(self.profile, message) for message in messages)
        return self.side.receive(Bytes(stream, data, fin))

    def reset(self, stream: int, code: int = 1) -> list[Event]:
        return self.side.receive(Bytes(stream, reset=code))

    def stop(self, stream: int, code: int = 1) -> list[Event]:
        return self.side.receive(Bytes(stream, stop=code))

    def heard(self) -> list[tuple[int, Any]]:
        """What the session has sent since the last time: (stream, message), (stream, "fin"), ("reset", code)..."""
        result: list[tuple[int, Any]] = []
        for sent in self.side.transport.take():
            if sent.reset is not None:
                result.append((sent.stream, ("reset", sent.reset)))
            elif sent.stop is not None:
                result.append((sent.stream, ("stop", sent.stop)))
            else:
                decoder = self.decoders.setdefault(sent.stream, m.ControlDecoder(self.profile))
                decoder.receive(sent.data)
                while (message := decoder.next_message()) is not None:
                    result.append((sent.stream, message))
                if sent.fin:
                    result.append((sent.stream, "fin"))
        return result

    @property
    def closed(self) -> int | None:
        """The code with which the session has closed, if it has."""
        closed = self.side.transport.closed
        return closed[0] if closed else None
