"""An HTTP/3 client written by hand: it says what Chromium says, or worse."""

from __future__ import annotations

import pylsqpack
from aioquic.buffer import encode_uint_var

from tests.quic.pair import CLIENT, SERVER, End, Link, body, client_settings, open_bidi, open_uni, server_settings
from tradewind.quic.connection import Connection
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Opened
from tradewind.quic.webtransport import WebTransportConnection
from tradewind.quic.wire import encode_close, encode_protocols

CHROMIUM = {0x01: 65536, 0x06: 16384, 0x07: 100, 0x33: 1, 0xFFD277: 1, 0x2B603742: 1}
MOQ_FFI = {0x2B603742: 1, 0xC671706A: 1, 0x2B603743: 1, 0x33: 1, 0xFFD277: 1, 0x08: 1}
AIOMOQT = {0x2C7CF000: 1, 0x14E9CD29: 1, 0xC671706A: 1, 0x2B603742: 1, 0x33: 1, 0x08: 1, 0x06: 16384}
"""SETTINGS of clients as they are."""


def frame(kind: int, payload: bytes) -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(payload)) + payload


def settings_frame(values: dict[int, int]) -> bytes:
    return frame(4, b"".join(encode_uint_var(key) + encode_uint_var(value) for key, value in values.items()))


CLOSE = frame(0, encode_close(0x2A, "bye"))
"""The goodbye on a CONNECT stream."""


class Hand:
    """An HTTP/3 client written by hand on a raw connection: any bytes on any stream."""

    def __init__(self, said: dict[int, int] | None = CHROMIUM, **server) -> None:
        self.server = End(Endpoint(server_settings(**server)), SERVER)
        self.client = End(Endpoint(client_settings(protocols=("h3",)), is_client=True), CLIENT)
        self.link = Link(self.server, self.client)
        self.connection: Connection = self.client.endpoint.connect(SERVER, self.link.now, server_name="relay.test")
        self.link.run(1.0)
        self.encoder = pylsqpack.Encoder()
        if said is not None:
            self.control = self.uni(b"\x00" + settings_frame(said))

    def uni(self, data: bytes, fin: bool = False) -> int:
        stream = open_uni(self.connection)
        self.connection.send(stream, data, fin)
        return stream

    def bidi(self, data: bytes, fin: bool = False) -> int:
        stream = open_bidi(self.connection)
        self.connection.send(stream, data, fin)
        return stream

    def headers(self, stream: int, fields: list[tuple[bytes, bytes]]) -> bytes:
        _, block = self.encoder.encode(stream, fields)
        return frame(1, block)

    def request(
        self, offered=("moqt-20", "moqt-16"), path=b"/live?jwt=abc", origin: bytes | None = b"https://shop.test"
    ):
        fields = [
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", b"relay.test:4433"),
            (b":path", path),
            (b":protocol", b"webtransport"),
            (b"sec-webtransport-http3-draft02", b"1"),
        ]
        if origin is not None:
            fields.append((b"origin", origin))
        if offered:
            fields.append((b"wt-available-protocols", encode_protocols(offered).encode()))
        return fields

    def connect(self, **changes) -> int:
        stream = open_bidi(self.connection)
        self.connection.send(stream, self.headers(stream, self.request(**changes)))
        return stream

    def response(self, stream: int) -> dict[bytes, bytes]:
        data = body(self.client.events, stream)
        if not data:
            return {}
        assert data[0] == 1
        _, fields = pylsqpack.Decoder(0, 0).feed_header(stream, data[2 : 2 + data[1]])
        return dict(fields)

    def run(self, duration_s: float = 0.5) -> None:
        self.link.run(duration_s)

    @property
    def session(self) -> WebTransportConnection:
        session: WebTransportConnection = self.server.told(Opened)[0].connection
        return session
