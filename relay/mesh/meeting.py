"""One connection of a link: who is at the other end, its greeting, then probes and reports.

`mesh` makes one for each connection of the link protocol. The acceptor opens the one stream, since it speaks first
(`tradewind.contract.proving`); behind the proof each end sends its greeting there, and all else goes in datagrams.
"""

from __future__ import annotations

from dataclasses import dataclass

from tradewind.contract.codec import ON_LINK, Codec, ContractError, Frames, Reason
from tradewind.contract.identity import Authority, IdentityError, NodeIdentity, PrivateKey
from tradewind.contract.ids import Role
from tradewind.contract.messages import LinkHello, OnLink
from tradewind.contract.proving import Prover, Verifier
from tradewind.quic.connection import Connection

GREETING_S = 5.0
"""How long both proofs and the far end's greeting may take: whose refusal was lost is not waited for."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What this relay proves itself with, and whom it believes."""

    authority: Authority
    certificate: bytes
    """DER."""
    key: PrivateKey


class Meeting:
    """The stream of one link connection. `receive` raises IdentityError or ContractError: close the connection then."""

    __slots__ = ("_codec", "_frames", "_machine", "_stream", "_until", "connection", "greeting", "peer")

    def __init__(self, connection: Connection, machine: Prover | Verifier, now: float) -> None:
        self.connection = connection
        self.peer: NodeIdentity | None = None
        """Who is at the other end, once proven."""
        self.greeting: LinkHello | None = None
        """What the other end said of itself."""
        self._machine = machine
        self._until = now + GREETING_S
        self._stream: int | None = None
        self._codec: Codec[OnLink] | None = None
        self._frames = Frames(ON_LINK.max_frame_bytes)

    @classmethod
    def dialled(
        cls, connection: Connection, credentials: Credentials, whom: str, now: float, wall_now: float
    ) -> Meeting:
        """We dialled `whom`. Raises IdentityError where somebody else answered."""
        prover = Prover(
            credentials.authority,
            credentials.certificate,
            credentials.key,
            server=connection.certificate_der(),
            alpn=connection.protocol,
            role=Role.RELAY,
            id=whom,
            now=now,
            wall_now=wall_now,
        )
        return cls(connection, prover, now)

    @classmethod
    def accepted(
        cls, connection: Connection, credentials: Credentials, nonce: bytes, now: float, wall_now: float
    ) -> Meeting:
        """Somebody dialled us."""
        verifier = Verifier(
            credentials.authority,
            server=connection.certificate_der(),
            alpn=connection.protocol,
            role=Role.RELAY,
            nonce=nonce,
            now=now,
            wall_now=wall_now,
        )
        meeting = cls(connection, verifier, now)
        meeting._stream = connection.open_bidi()
        meeting._send()
        return meeting

    def receive(self, stream: int, data: bytes, fin: bool, now: float) -> None:
        """Bytes on a stream of the connection."""
        if self._stream is None:
            self._stream = stream
        if stream != self._stream or fin:
            raise ContractError(Reason.SHAPE, "a link has one stream, which does not end")
        self.connection.consumed(stream, len(data))
        if self._codec is None:
            proven = self._machine.receive(data, now)
            self._send()
            if proven is None:
                return
            self.peer = proven.peer
            self._codec = Codec(ON_LINK, proven.version)
            data = proven.rest
        self._frames.receive(data)
        while (frame := self._frames.take()) is not None:
            message = self._codec.decode(frame)
            if not isinstance(message, LinkHello) or self.greeting is not None:
                raise ContractError(Reason.SHAPE, "something else than one greeting")
            self.greeting = message

    def greet(self, hello: LinkHello) -> None:
        """Say who we are; only once the other end is proven."""
        assert self._codec is not None
        assert self._stream is not None
        self.connection.send(self._stream, self._codec.encode_frame(hello))

    def next_deadline(self) -> float | None:
        if self.greeting is not None:
            return None
        proof = self._machine.next_deadline()
        return self._until if proof is None else min(proof, self._until)

    def handle_deadline(self, now: float) -> None:
        """Raise IdentityError where the proof takes too long, ContractError where the greeting does."""
        self._machine.handle_deadline(now)
        if self.greeting is None and now >= self._until:
            raise ContractError(Reason.SHAPE, "no greeting in time")

    def _send(self) -> None:
        data = self._machine.bytes_to_send()
        if data and self._stream is not None:
            self.connection.send(self._stream, data)


REFUSALS = (IdentityError, ContractError)
"""What a meeting may raise."""
