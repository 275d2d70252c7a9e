"""A publisher's session and a subscriber's, joined in memory, with an egress whose credit tests decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.moqt.pair import FakeTransport, Pair
from tradewind.client.receiving import Arrival, Assembler, ReceivedObject
from tradewind.client.serving import Serving
from tradewind.client.tracks import Publication, TrackWriter
from tradewind.moqt import events as e
from tradewind.moqt.model import FullTrackName, Location, Parameters
from tradewind.quic.egress import Offered, Part, Writable

NAMESPACE = (b"live", b"demo")
VIDEO = FullTrackName(NAMESPACE, b"video")


@dataclass
class Egress:
    """Puts media on a fake transport, as much of it as the test lets through."""

    transport: FakeTransport
    session_bytes: int = 1 << 30
    stream_bytes: int = 1 << 30
    streams: int = 1 << 30
    resets: list[tuple[int, int]] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)

    def open_uni(self) -> int | None:
        stream = self.transport.open_uni()
        assert self.streams > 0 and stream is not None
        self.streams -= 1
        self.opened.append(stream)
        return stream

    def offer(self, stream: int, parts: Sequence[Part], fin: bool) -> Offered:
        if stream in self.transport.finished:
            return Offered.STOPPED
        data = b"".join(parts)
        self.session_bytes -= len(data)
        self.transport.send(stream, data, fin)
        return Offered.TAKEN

    def offer_many(self, streams: Sequence[int], parts: Sequence[Part], fin: bool) -> None:
        raise NotImplementedError

    def unsent(self, stream: int) -> int:
        return 0

    def room(self, stream: int) -> int:
        return self.stream_bytes

    def reset(self, stream: int, code: int) -> None:
        self.resets.append((stream, code))
        self.transport.reset(stream, code)

    def datagram(self, parts: Sequence[Part], expires: float) -> bool:
        raise NotImplementedError

    def writable_bytes(self, now: float) -> int:
        return self.writable(now).session_bytes

    def writable(self, now: float) -> Writable:
        return Writable(self.session_bytes, self.streams, 0)


class Joined:
    """The publisher is the client; the subscriber, at the server, is what a relay would be."""

    def __init__(self, draft: int = 20) -> None:
        self.pair = Pair(draft)
        self.pair.take()
        self.egress = Egress(self.pair.client.transport)
        self.publication = Publication(NAMESPACE, lambda: None)
        self.serving = Serving(self.pair.client.session, self.egress, lambda: (self.publication,))
        self.assembler = Assembler()
        self.told: list[e.Event] = []
        self.arrivals: dict[int, list[Arrival]] = {}

    def track(self, name: bytes = b"video", priority: int = 128) -> TrackWriter:
        return self.publication.track(name, priority=priority)

    def run(self) -> None:
        """Carry everything both ways, until nobody has anything to say or to send."""
        moved = True
        while moved:
            self.serving.pump(0.0)
            moved = self.pair.step()
            for event in self.pair.client.take():
                if isinstance(event, e.RequestCancelled) or not self.serving.receive(event):
                    self.serving.receive(event)
            for event in self.pair.server.take():
                self.told.append(event)
                for request, arrival in self.assembler.receive(event, 0.0):
                    self.arrivals.setdefault(request, []).append(arrival)
            self.serving.check_invariants()
        self.pair.client.session.check_invariants()

    def subscribe(self, track: FullTrackName = VIDEO, **parameters: object) -> int:
        request = self.pair.server.session.subscribe(track, Parameters(**parameters))  # type: ignore[arg-type]
        assert request is not None
        self.run()
        return request

    def objects(self, request: int) -> list[tuple[Location, bytes]]:
        """(location, payload) of everything that came for a request."""
        return [(a.location, a.payload) for a in self.arrivals.get(request, []) if isinstance(a, ReceivedObject)]

    def last(self, kind: type[e.Event]) -> e.Event:
        """The newest event of a kind that the subscriber was told."""
        return next(event for event in reversed(self.told) if isinstance(event, kind))


def fill(track: TrackWriter, group: int, count: int, size: int = 10) -> None:
    """Write objects 0 to count - 1 of a group."""
    for number in range(count):
        track.write(group, number, payload(group, number, size))


def payload(group: int, number: int, size: int = 10) -> bytes:
    return f"{group}.{number}.".encode().ljust(size, b"x")
