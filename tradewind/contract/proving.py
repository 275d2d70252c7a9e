"""Proving who one is on a connection whose TLS only proves the server: one round trip, on the first stream.

TLS to another node is pinned to the mesh's authority, so the dialler knows that it speaks with a node of the mesh; who
dialled is proven here. The acceptor opens a bidirectional stream, because it speaks first:

    acceptor -> dialler     Challenge   a nonce, thrown for this connection
    dialler -> acceptor     Proof       a certificate, and a signature over the nonce, this connection's server
                                        certificate and protocol, who is proving to whom, and both ends' versions
    acceptor -> dialler     Accepted    the version spoken from here on, on this stream and all others

Whoever refuses closes the connection, with the reason's value for its reason phrase. A nonce is good for one proof and
for ten seconds; a proof shown to another server, or on another protocol, is a bad signature there. These messages are
the same in every version of the contract. `relay.control_link` and the links move the bytes; nothing here is I/O.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Final, NoReturn, TypeAlias

from msgspec import Meta

from tradewind.contract.codec import VERSIONS, Codec, ContractError, Direction, Frames, choose_version
from tradewind.contract.identity import (
    MAX_CERTIFICATE_BYTES,
    MAX_SIGNATURE_BYTES,
    Authority,
    IdentityError,
    NodeIdentity,
    PrivateKey,
    Reason,
    check_signature,
    parse_certificate,
    sign,
)
from tradewind.contract.ids import Role
from tradewind.contract.messages import Message

PROVING_S = 10.0
NONCE_BYTES = 32
Versions: TypeAlias = Annotated[tuple[Annotated[int, Meta(ge=0, le=2**16)], ...], Meta(min_length=1, max_length=16)]

_PROOF = b"tradewind proof 1"
_NO_VERSION: Final = 0
"""Stands in the envelopes of these messages, which are older than the choice."""


class Challenge(Message, frozen=True, tag="challenge"):
    """Prove who you are, now and to me."""

    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    versions: Versions
    """Of the contract, that the acceptor speaks."""


class Proof(Message, frozen=True, tag="proof"):
    """Who the dialler is: a certificate, and a signature that only its holder can make."""

    certificate: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE_BYTES)]
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    """The one that is answered."""
    versions: Versions
    signature: Annotated[bytes, Meta(max_length=MAX_SIGNATURE_BYTES)]


class Accepted(Message, frozen=True, tag="accepted"):
    """The dialler is who it says."""

    version: Annotated[int, Meta(ge=0, le=2**16)]


PROVING: Final[Direction[Challenge | Proof | Accepted]] = Direction("proving", Challenge | Proof | Accepted, 12_288, 16)
_CODEC = Codec(PROVING, _NO_VERSION, {})


@dataclass(frozen=True, slots=True)
class Proven:
    """Who the other end is, and how to go on."""

    peer: NodeIdentity
    version: int
    """Of the contract, for this connection's whole life."""
    rest: bytes
    """What came on the stream behind the last message of the proof: the beginning of what follows."""


class _End:
    """What both ends have: frames in, frames out, ten seconds, and an error that stays."""

    __slots__ = ("_deadline", "_failure", "_frames", "_outgoing", "_proven")

    def __init__(self, now: float) -> None:
        self._frames = Frames(PROVING.max_frame_bytes)
        self._outgoing = b""
        self._deadline: float | None = now + PROVING_S
        self._failure: IdentityError | ContractError | None = None
        self._proven: Proven | None = None

    def receive(self, data: bytes, now: float) -> Proven | None:
        """Take bytes of the stream; Proven where that was all, once.

        Raises IdentityError, or ContractError (VERSION) where the ends speak no common version; from then on always.
        """
        self.handle_deadline(now)
        try:
            if self._proven is not None:
                raise IdentityError(Reason.REPLAYED, "the proof is over")
            self._frames.receive(data)
            while self._proven is None and (message := self._next()) is not None:
                self._receive_message(message)
        except (IdentityError, ContractError) as error:
            self._fail(error)
        return self._proven

    def finish(self) -> None:
        """The other end has ended the stream. Raises IdentityError where that was too early."""
        if self._proven is None:
            self._fail(self._failure or IdentityError(Reason.NONE, "the stream ended before the proof did"))

    def bytes_to_send(self) -> bytes:
        """What goes onto the stream now; each byte is told once."""
        data, self._outgoing = self._outgoing, b""
        return data

    def next_deadline(self) -> float | None:
        """When `handle_deadline` wants to be called; None: it is over."""
        return self._deadline

    def handle_deadline(self, now: float) -> None:
        """Raise IdentityError where the other end has not done its part in time."""
        if self._failure is None and self._deadline is not None and now >= self._deadline:
            self._fail(IdentityError(Reason.NONE, f"nothing within {PROVING_S:.0f} s"))
        if self._failure is not None:
            raise self._failure

    @abstractmethod
    def _receive_message(self, message: Challenge | Proof | Accepted) -> None:
        """One message, in the order they came."""

    def _next(self) -> Challenge | Proof | Accepted | None:
        try:
            data = self._frames.take()
            return None if data is None else _CODEC.decode(data)
        except ContractError as error:
            raise IdentityError(Reason.MALFORMED, error.detail) from error

    def _send(self, message: Challenge | Proof | Accepted) -> None:
        self._outgoing += _CODEC.encode_frame(message)

    def _finish_with(self, peer: NodeIdentity, version: int) -> None:
        self._deadline = None
        self._proven = Proven(peer, version, self._frames.rest())

    def _fail(self, failure: IdentityError | ContractError) -> NoReturn:
        self._failure = failure
        self._deadline = None
        self._outgoing = b""
        raise failure


class Prover(_End):
    """The dialler's end: checks the server's certificate, then proves who it is itself.

    `server` is the certificate (DER) that TLS gave for this connection, `role` and `id` whom it must be of (None: any
    id). Raises IdentityError at once where it is not: nothing is signed for a stranger.
    """

    __slots__ = ("_alpn", "_key", "_me", "_server", "_version", "_versions")

    def __init__(
        self,
        authority: Authority,
        certificate: bytes,
        key: PrivateKey,
        *,
        server: bytes,
        alpn: str,
        role: Role,
        id: str | None = None,
        now: float,
        wall_now: float,
        versions: tuple[int, ...] = VERSIONS,
    ) -> None:
        super().__init__(now)
        self._me = parse_certificate(certificate)
        self._key = key
        self._server = authority.verify(server, wall_now, role=role, id=id)
        self._alpn = alpn
        self._versions = versions
        self._version: int | None = None

    def _receive_message(self, message: Challenge | Proof | Accepted) -> None:
        match message:
            case Challenge() if self._version is None:
                self._version = choose_version(self._versions, message.versions)
                signature = sign(_PROOF, _said(message, self._versions, self._alpn, self._me, self._server), self._key)
                self._send(Proof(self._me.der, message.nonce, self._versions, signature))
            case Accepted() if message.version == self._version:
                self._finish_with(self._server, message.version)
            case _:
                raise IdentityError(Reason.MALFORMED, f"{type(message).__name__} out of turn")


class Verifier(_End):
    """The acceptor's end. `server` is its own certificate (DER) on this connection, `role` what the dialler must be.

    `nonce` is 32 random bytes that were never used before.
    """

    __slots__ = ("_alpn", "_authority", "_challenge", "_role", "_server", "_wall_now")

    def __init__(
        self,
        authority: Authority,
        *,
        server: bytes,
        alpn: str,
        role: Role | None,
        nonce: bytes,
        now: float,
        wall_now: float,
        versions: tuple[int, ...] = VERSIONS,
    ) -> None:
        super().__init__(now)
        self._authority = authority
        self._server = parse_certificate(server)
        self._alpn = alpn
        self._role = role
        self._wall_now = wall_now
        self._challenge = Challenge(nonce, versions)
        self._send(self._challenge)

    def _receive_message(self, message: Challenge | Proof | Accepted) -> None:
        if not isinstance(message, Proof):
            raise IdentityError(Reason.MALFORMED, f"{type(message).__name__} out of turn")
        if message.nonce != self._challenge.nonce:
            raise IdentityError(Reason.REPLAYED, "the proof answers another challenge")
        peer = self._authority.verify(message.certificate, self._wall_now, role=self._role)
        said = _said(self._challenge, message.versions, self._alpn, peer, self._server)
        check_signature(peer.der, _PROOF, said, message.signature)
        version = choose_version(self._challenge.versions, message.versions)
        self._send(Accepted(version))
        self._finish_with(peer, version)


def _said(
    challenge: Challenge, versions: tuple[int, ...], alpn: str, dialler: NodeIdentity, server: NodeIdentity
) -> list[bytes]:
    """What a proof is signed over."""
    return [
        challenge.nonce,
        hashlib.sha256(server.der).digest(),
        alpn.encode(),
        dialler.uri.encode(),
        server.uri.encode(),
        " ".join(map(str, challenge.versions)).encode(),
        " ".join(map(str, versions)).encode(),
    ]
