"""The controller's ends of all control links: whoever connects proves who it is, then frames go both ways.

`control.controller` hands in what the endpoint told and gets what the plane wants to know: who has proven itself, what
it said, and who is gone. We open the stream and speak first (`tradewind.contract.proving`). Nothing here is I/O; one
link's faults end that link and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from tradewind.contract.codec import TO_CONTROLLER, TO_RELAY, Codec, ContractError, Frames, codec_of
from tradewind.contract.identity import Authority, IdentityError, NodeIdentity
from tradewind.contract.ids import Role
from tradewind.contract.messages import ToController, ToRelay
from tradewind.contract.proving import Proven, Verifier
from tradewind.quic.connection import Connection
from tradewind.quic.events import Closed, Event, Opened, Stopped, StreamData, StreamReset

ALPN = "tradewind-control/1"
MAX_LINKS = 4096


class Arrived(NamedTuple):
    """A relay has proven who it is."""

    link: int
    peer: NodeIdentity
    version: int
    """Of the contract, that the link speaks."""


class Said(NamedTuple):
    """A relay said something."""

    link: int
    message: ToController


class Left(NamedTuple):
    """A link that had been told of is gone."""

    link: int
    why: str


Happening: TypeAlias = Arrived | Said | Left


class Hearer(Protocol):
    """Who wants to know what happens on links: the plane."""

    def receive_proven(self, link: int, peer: NodeIdentity, version: int) -> None: ...
    def receive_message(self, link: int, message: ToController, now: float, wall_now: float) -> None: ...
    def receive_closed(self, link: int, detail: str, now: float, wall_now: float) -> None: ...


def pass_on(happening: Happening, link: int, plane: Hearer, now: float, wall_now: float) -> None:
    """Let the plane know. `link` is the number under which the plane knows it: with several endpoints not its own."""
    match happening:
        case Arrived(_, peer, version):
            plane.receive_proven(link, peer, version)
        case Said(_, message):
            plane.receive_message(link, message, now, wall_now)
        case Left(_, why):
            plane.receive_closed(link, why, now, wall_now)


class LinksStatistics(NamedTuple):
    """Now, and since the start."""

    open: int
    proven: int
    refused: dict[str, int]
    """Links ended before they were proven, by reason."""
    faults: int
    """Links ended for what came on them later."""


@dataclass(slots=True)
class _Link:
    connection: Connection
    stream: int
    verifier: Verifier
    frames: Frames = field(default_factory=lambda: Frames(TO_CONTROLLER.max_frame_bytes))
    decoder: Codec[ToController] | None = None
    encoder: Codec[ToRelay] | None = None


class Links:
    """All links of one endpoint, by their connection's number. `certificate` is ours (DER), `nonce` throws 32 bytes."""

    __slots__ = ("_authority", "_faults", "_links", "_nonce", "_proven", "_proving", "_refused")

    def __init__(self, authority: Authority, nonce: Callable[[], bytes]) -> None:
        self._authority = authority
        self._nonce = nonce
        self._links: dict[int, _Link] = {}
        self._proving: set[int] = set()
        """Of these, those that are not proven yet."""
        self._refused: dict[str, int] = {}
        self._proven = 0
        self._faults = 0

    def receive(self, events: Sequence[Event], now: float, wall_now: float) -> list[Happening]:
        """Take what the endpoint told, in order."""
        happened: list[Happening] = []
        for event in events:
            match event:
                case Opened(connection):
                    self._open(connection, now, wall_now)
                case StreamData(connection, stream, data, fin):
                    connection.consumed(stream, len(data))
                    happened += self._receive_data(connection, stream, data, fin, now)
                case StreamReset(connection, stream) | Stopped(connection, stream):
                    happened += self._fail(connection.id, "the relay gave the stream up")
                case Closed(connection, _, reason):
                    happened += self._lose(connection.id, reason or "the connection is gone")
                case _:
                    pass
        return happened

    def send(self, link: int, message: ToRelay) -> None:
        """Tell a relay; where the link is gone nothing happens."""
        known = self._links.get(link)
        if known is not None and known.encoder is not None:
            known.connection.send(known.stream, known.encoder.encode_frame(message))

    def close(self, link: int, why: str) -> None:
        """End a link of whose end nobody has to be told."""
        known = self._remove(link)
        if known is not None:
            known.connection.close(0, why[:200])

    def next_deadline(self) -> float | None:
        """When `handle_deadline` wants to be called."""
        moments = (self._links[number].verifier.next_deadline() for number in self._proving)
        return min((moment for moment in moments if moment is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """End links that were not proven in time."""
        for number in list(self._proving):
            verifier = self._links[number].verifier
            due = verifier.next_deadline()
            if due is not None and due <= now:
                try:
                    verifier.handle_deadline(now)
                except IdentityError as error:
                    self._refuse(number, error)

    def statistics(self) -> LinksStatistics:
        """Now, and since the start."""
        return LinksStatistics(len(self._links), self._proven, dict(self._refused), self._faults)

    def _open(self, connection: Connection, now: float, wall_now: float) -> None:
        stream = connection.open_bidi() if len(self._links) < MAX_LINKS else None
        if stream is None:
            connection.close(0, "too many links")
            self._refused["full"] = self._refused.get("full", 0) + 1
            return
        server = connection.certificate_der()
        verifier = Verifier(
            self._authority, server=server, alpn=ALPN, role=Role.RELAY, nonce=self._nonce(), now=now, wall_now=wall_now
        )
        self._links[connection.id] = _Link(connection, stream, verifier)
        self._proving.add(connection.id)
        connection.send(stream, verifier.bytes_to_send())

    def _receive_data(self, connection: Connection, stream: int, data: bytes, fin: bool, now: float) -> list[Happening]:
        link = self._links.get(connection.id)
        if link is None:
            return []
        if stream != link.stream:
            return self._fail(connection.id, "a stream that nobody asked for")
        happened: list[Happening] = []
        if link.decoder is None:
            proven = self._prove(connection.id, link, data, now)
            if proven is None:
                return []
            happened.append(Arrived(connection.id, proven.peer, proven.version))
            data = proven.rest
        try:
            happened += self._read(connection.id, link, data)
        except ContractError as error:
            return happened + self._fail(connection.id, str(error))
        return happened + (self._fail(connection.id, "the relay ended the stream") if fin else [])

    def _prove(self, number: int, link: _Link, data: bytes, now: float) -> Proven | None:
        try:
            proven = link.verifier.receive(data, now)
        except (IdentityError, ContractError) as error:
            self._refuse(number, error)
            return None
        link.connection.send(link.stream, link.verifier.bytes_to_send())
        if proven is not None:
            link.decoder = codec_of(TO_CONTROLLER, proven.version)
            link.encoder = codec_of(TO_RELAY, proven.version)
            self._proving.discard(number)
            self._proven += 1
        return proven

    def _read(self, number: int, link: _Link, data: bytes) -> list[Happening]:
        """The messages in what came. Raises ContractError; those before the fault are lost with the link."""
        assert link.decoder is not None
        link.frames.receive(data)
        found: list[Happening] = []
        while (frame := link.frames.take()) is not None:
            found.append(Said(number, link.decoder.decode(frame)))
        return found

    def _refuse(self, number: int, error: IdentityError | ContractError) -> None:
        reason = error.reason.value
        self._refused[reason] = self._refused.get(reason, 0) + 1
        link = self._remove(number)
        assert link is not None
        link.connection.close(0, reason)

    def _fail(self, number: int, why: str) -> list[Happening]:
        link = self._links.get(number)
        if link is None:
            return []
        self._faults += 1
        link.connection.close(0, why[:200])
        return self._lose(number, why)

    def _lose(self, number: int, why: str) -> list[Happening]:
        link = self._remove(number)
        return [Left(number, why)] if link is not None and link.decoder is not None else []

    def _remove(self, number: int) -> _Link | None:
        self._proving.discard(number)
        return self._links.pop(number, None)
