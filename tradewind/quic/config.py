"""What a QUIC endpoint is told before it starts: protocols, limits and TLS, as frozen values.

The run files (EDGE) read key files and build these; `endpoint` takes one and may be handed another at run time, which
then applies to connections made from that moment on. Nothing here touches a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aioquic.tls import CipherSuite, load_pem_private_key, load_pem_x509_certificates

Address: TypeAlias = tuple[Any, ...]
"""What a socket's `recvfrom` says: (host, port), and for IPv6 (host, port, flow info, scope id)."""

SMALLEST_DATAGRAM_BYTES = 1200
LARGEST_DATAGRAM_BYTES = 16_000
CIPHER_SUITES = (
    CipherSuite.AES_128_GCM_SHA256,
    CipherSuite.CHACHA20_POLY1305_SHA256,
    CipherSuite.AES_256_GCM_SHA384,
)
MAX_ACK_DELAY_S = 0.025
"""What a peer reckons with that is told nothing (RFC 9000, "Transport Parameter Definitions")."""
WEBTRANSPORT_ALPN = "h3"
CONGESTION_CONTROLS = ("rate", "cubic", "reno")
CID_BYTES = 8
"""Length of the connection ids that peers use towards us."""


class SettingsError(ValueError):
    """A setting is out of its range; the message names it."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain (leaf first) and the leaf's private key, already parsed."""

    chain: tuple[Any, ...]
    key: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServerTrust:
    """How a client checks the server's certificate.

    With `pinned_sha256` the leaf's SHA-256 over its DER form decides alone, as browsers do for
    `serverCertificateHashes`; without it the chain must lead to `authorities_pem` (None: the system's) and name the
    server, unless `verify` is off.
    """

    verify: bool = True
    authorities_pem: bytes | None = None
    pinned_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound this room puts on a peer. Bytes, counts and seconds."""

    stream_window_bytes: int = 256 * 1024
    session_window_bytes: int = 4 * 1024 * 1024
    bidi_streams: int = 128
    uni_streams: int = 128
    idle_timeout_s: float = 30.0
    handshake_timeout_s: float = 10.0
    control_backlog_bytes: int = 1024 * 1024
    """Control bytes that may wait unsent before the connection is closed: the peer does not read."""
    datagram_backlog_bytes: int = 256 * 1024
    """Datagrams that may wait unsent; past it the oldest are dropped and counted."""
    pending_handshakes: int = 512
    pending_handshakes_per_address: int = 64
    retry_above_pending: int = 64
    """Handshakes under way above which a client must first prove its address with a Retry token."""
    crypto_bytes: int = 32 * 1024
    """Handshake bytes a peer may send ahead of what was read of them."""
    early_streams: int = 64
    early_bytes: int = 256 * 1024
    early_datagrams: int = 64
    """What WebTransport keeps for a session whose CONNECT is not answered yet."""
    http_bytes: int = 64 * 1024
    """Bytes of HTTP/3's own (control, QPACK, request headers) taken on any one stream."""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """One WebTransport CONNECT as the server sees it."""

    authority: str
    path: str
    """With its query."""
    origin: str | None
    """The browser's; native clients often send none."""
    offered: tuple[str, ...]
    """WT-Available-Protocols, in the client's order."""
    peer_address: Address


Admit: TypeAlias = Callable[[ConnectRequest], int]
"""Looks at a CONNECT before a protocol is chosen: 200 to go on, or the HTTP status to refuse it with."""


@dataclass(frozen=True, slots=True)
class PrivateProtocols:
    """Protocols of raw QUIC that only nodes speak: served with a certificate and stream limits of their own."""

    names: tuple[str, ...]
    certificate: Certificate
    bidi_streams: int = 4096
    uni_streams: int = 4096


@dataclass(frozen=True, slots=True)
class QuicSettings:
    """One endpoint's settings. Raises `SettingsError` where a value is out of range."""

    protocols: tuple[str, ...] = ()
    """MoQT protocol names in the server's order of preference: ALPNs on raw QUIC, WT-Protocol on WebTransport."""
    browser_protocols: tuple[str, ...] | None = None
    """The order for WebTransport requests that carry an Origin; None: the same."""
    webtransport: bool = True
    """Whether a server also answers `h3` on its port."""
    certificate: Certificate | None = None
    private: PrivateProtocols | None = None
    trust: ServerTrust = ServerTrust()
    limits: Limits = Limits()
    max_datagram_size: int = 1232
    """UDP payload of our packets; 1232 passes every IPv6 path and leaves 1,202 bytes for one datagram."""
    congestion_control: str = "rate"
    """One of `CONGESTION_CONTROLS`: `rate` is ours (`congestion`), the others aioquic's."""
    initial_rtt_s: float = 0.1
    keep_alive_s: float | None = None
    """Send a PING this often on open connections, so that a silent one outlives both ends' idle timeout."""
    ack_delay_s: float | None = None
    """How long the acknowledgement of a packet may wait for others on connections that we open; None: aioquic's
    millisecond, after which nearly every packet of a show has one of its own. At most `MAX_ACK_DELAY_S`."""
    admit: Admit | None = None
    cipher_suites: tuple[CipherSuite, ...] = CIPHER_SUITES

    def __post_init__(self) -> None:
        if not SMALLEST_DATAGRAM_BYTES <= self.max_datagram_size <= LARGEST_DATAGRAM_BYTES:
            raise SettingsError(f"max_datagram_size {self.max_datagram_size} is not in 1200..16000")
        if self.trust.pinned_sha256 is not None and len(self.trust.pinned_sha256) != 32:
            raise SettingsError("pinned_sha256 is not 32 bytes")
        if self.congestion_control not in CONGESTION_CONTROLS:
            raise SettingsError(f"congestion_control is not one of {', '.join(CONGESTION_CONTROLS)}")
        if any(value <= 0 for value in _numbers(self.limits)):
            raise SettingsError("every limit must be positive")
        if self.keep_alive_s is not None and not 0 < self.keep_alive_s < self.limits.idle_timeout_s:
            raise SettingsError("keep_alive_s must be shorter than the idle timeout")
        if self.ack_delay_s is not None and not 0 < self.ack_delay_s <= MAX_ACK_DELAY_S:
            raise SettingsError("ack_delay_s is more than peers are told, or nothing")
        if self.limits.session_window_bytes < self.limits.stream_window_bytes:
            raise SettingsError("the session's receive window is smaller than one stream's")

    def alpns(self) -> tuple[str, ...]:
        """The ALPNs a server answers, in its order."""
        everybodys = (*self.protocols, WEBTRANSPORT_ALPN) if self.webtransport else self.protocols
        return everybodys if self.private is None else (*everybodys, *self.private.names)

    def choose(self, request: ConnectRequest) -> str | int:
        """Pick the protocol of a WebTransport session, or the HTTP status that refuses it.

        Only ever answers what the client offered: native clients treat anything else as fatal.
        """
        if self.admit is not None:
            status = self.admit(request)
            if not 200 <= status < 300:
                return status
        return next((name for name in self.preference(request.origin) if name in request.offered), 400)

    def preference(self, origin: str | None) -> tuple[str, ...]:
        """What a WebTransport session may speak, in our order: pages have one of their own."""
        return self.protocols if origin is None else self.browser_protocols or self.protocols


def load_certificate(chain_pem: bytes, key_pem: bytes) -> Certificate:
    """Parse a PEM chain (leaf first) and its PEM private key; raises ValueError where either does not parse."""
    chain = tuple(load_pem_x509_certificates(chain_pem))
    if not chain:
        raise ValueError("the certificate chain is empty")
    return Certificate(chain=chain, key=load_pem_private_key(key_pem))


def _numbers(limits: Limits) -> list[float]:
    return [getattr(limits, name) for name in Limits.__slots__]
