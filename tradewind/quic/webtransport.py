"""WebTransport over HTTP/3 (draft-ietf-webtrans-http3-02, which Chromium speaks), shown as raw connections.

Work in progress: the face exists, sessions do not open yet.
"""

from __future__ import annotations

from tradewind.quic.config import QuicSettings
from tradewind.quic.connection import Connection
from tradewind.quic.core import QuicCore
from tradewind.quic.events import Event


class WebTransportConnection(Connection):
    """One WebTransport session and the HTTP/3 connection that carries it."""

    transport = "webtransport"

    def __init__(
        self, core: QuicCore, number: int, events: list[Event], touched: set[int], settings: QuicSettings
    ) -> None:
        super().__init__(core, number, events, touched)
        self._settings = settings

    def request(self, authority: str, path: str, origin: str | None) -> None:
        """Client: what the CONNECT will ask for once the handshake is over."""
        self.authority, self.path, self.origin = authority, path, origin
