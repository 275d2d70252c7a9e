"""Our settings as aioquic wants them."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion

from tradewind.quic.config import CID_BYTES, QuicSettings

VERSIONS = (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2)


def server_configuration(settings: QuicSettings) -> QuicConfiguration:
    """What aioquic wants to know about a server."""
    if settings.certificate is None:
        raise ValueError("a server needs a certificate")
    configuration = _shared(settings, is_client=False)
    configuration.alpn_protocols = list(settings.alpns())
    configuration.certificate = settings.certificate.chain[0]
    configuration.certificate_chain = list(settings.certificate.chain[1:])
    configuration.private_key = settings.certificate.key
    return configuration


def client_configuration(settings: QuicSettings, alpns: Sequence[str], server_name: str) -> QuicConfiguration:
    """What aioquic wants to know about a client of a server with this name."""
    trust = settings.trust
    configuration = _shared(settings, is_client=True)
    configuration.alpn_protocols = list(alpns)
    configuration.server_name = server_name
    configuration.cadata = trust.authorities_pem
    verify = trust.verify and trust.pinned_sha256 is None
    configuration.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    return configuration


def _shared(settings: QuicSettings, is_client: bool) -> QuicConfiguration:
    limits = settings.limits
    return QuicConfiguration(
        is_client=is_client,
        cipher_suites=list(settings.cipher_suites),
        congestion_control_algorithm=settings.congestion_control,
        connection_id_length=CID_BYTES,
        idle_timeout=limits.idle_timeout_s,
        initial_rtt=settings.initial_rtt_s,
        max_data=limits.session_window_bytes,
        max_stream_data=limits.stream_window_bytes,
        max_datagram_frame_size=65536,
        max_datagram_size=settings.max_datagram_size,
        supported_versions=list(VERSIONS),
    )
