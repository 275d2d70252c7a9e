"""A relay's end of one connection to a controller: it proves who it is, then frames go both ways.

`control_link` makes one for each connection, hands in what the endpoint tells of it, and takes messages. The acceptor
opens the stream and speaks first (`tradewind.contract.proving`). Nothing here is I/O; whatever the other end gets wrong
ends the connection with one reason in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from tradewind.contract.codec import TO_CONTROLLER, TO_RELAY, Codec, ContractError, Frames
from tradewind.contract.identity import Authority, IdentityError, NodeIdentity, PrivateKey
from tradewind.contract.ids import Role
from tradewind.contract.messages import ToController, ToRelay
from tradewind.contract.proving import Prover
from tradewind.quic.connection import Connection
from tradewind.quic.events import Closed, Event, Opened, Stopped, StreamData, StreamReset

ALPN = "tradewind-control/1"


@dataclass(frozen=True, slots=True)
class Papers:
    """Who this relay is: the mesh's authority, the relay's certificate (DER) and its key."""

    authority: Authority
    certificate: bytes
    key: PrivateKey


class Conversation:
    """One connection. `controller` is whom it is with, once that is proven; `ended` why it is over, in words."""

    __slots__ = (
        "_connection",
        "_decoder",
        "_encoder",
        "_frames",
        "_papers",
        "_prover",
        "_stream",
        "controller",
        "ended",
    )

    def __init__(self, connection: Connection, papers: Papers) -> None:
        self._connection = connection
        self._papers = papers
        self._prover: Prover | None = None
        self._stream: int | None = None
        self._frames = Frames(TO_RELAY.max_frame_bytes)
        self._encoder: Codec[ToController] | None = None
        self._decoder: Codec[ToRelay] | None = None
        self.controller: NodeIdentity | None = None
        self.ended: str | None = None

    def receive(self, event: Event, now: float, wall_now: float) -> list[ToRelay]:
        """Take one event of this connection; returns what the controller said. `controller` may be known after it."""
        try:
            match event:
                case Opened():
                    self._begin(now, wall_now)
                case StreamData(stream=stream, data=data, fin=fin):
                    return self._receive_data(stream, data, fin, now)
                case StreamReset() | Stopped():
                    self.end("the controller gave the stream up")
                case Closed(reason=reason):
                    self.ended = self.ended or reason or "the connection is gone"
                case _:
                    pass
        except (IdentityError, ContractError) as error:
            self.end(str(error))
        return []

    def send(self, message: ToController) -> None:
        """Tell the controller. Only once `controller` is known. Raises ContractError where it does not fit its type."""
        assert self._encoder is not None
        assert self._stream is not None
        if self.ended is None:
            self._connection.send(self._stream, self._encoder.encode_frame(message))

    @property
    def newest_packet(self) -> int:
        """The number of the controller's newest packet: those that only acknowledge ours say that it is there, too."""
        return self._connection.statistics().largest_received_packet

    def next_deadline(self) -> float | None:
        """When `handle_deadline` wants to be called."""
        return self._prover.next_deadline() if self._prover is not None and self.ended is None else None

    def handle_deadline(self, now: float) -> None:
        """End what was not proven in time."""
        if self._prover is not None and self.controller is None and self.ended is None:
            try:
                self._prover.handle_deadline(now)
            except IdentityError as error:
                self.end(str(error))

    def end(self, why: str) -> None:
        """Close the connection."""
        if self.ended is None:
            self.ended = why
            self._connection.close(0, why[:200])

    def _begin(self, now: float, wall_now: float) -> None:
        # TLS says that the other end holds the key of this certificate; whose it is, and that it may control, we check.
        papers = self._papers
        server = self._connection.certificate_der()
        self._prover = Prover(
            papers.authority,
            papers.certificate,
            papers.key,
            server=server,
            alpn=ALPN,
            role=Role.CONTROLLER,
            now=now,
            wall_now=wall_now,
        )

    def _receive_data(self, stream: int, data: bytes, fin: bool, now: float) -> list[ToRelay]:
        self._connection.consumed(stream, len(data))
        if self.ended is not None:
            return []
        if self._stream is None:
            self._stream = stream
        if stream != self._stream or self._prover is None:
            self.end("a stream that nobody asked for")
            return []
        if self.controller is None:
            proven = self._prover.receive(data, now)
            self._connection.send(stream, self._prover.bytes_to_send())
            if proven is None:
                return self._finish(fin)
            self.controller = proven.peer
            self._encoder = Codec(TO_CONTROLLER, proven.version)
            self._decoder = Codec(TO_RELAY, proven.version)
            data = proven.rest
        self._frames.receive(data)
        messages = []
        assert self._decoder is not None
        while (frame := self._frames.take()) is not None:
            messages.append(self._decoder.decode(frame))
        self._finish(fin)
        return messages

    def _finish(self, fin: bool) -> list[ToRelay]:
        if fin:
            self.end("the controller ended the stream")
        return []
