"""aioquic's HTTP/3 on our streams: settings, QPACK and request headers, nothing else, and nothing that grows.

`webtransport` keeps every WebTransport stream to itself and hands only HTTP's own streams here. aioquic's
`H3Connection` believes it talks to a `QuicConnection`; it talks to `_Streams`, which offers just what it uses.
"""

from __future__ import annotations

from aioquic.h3.connection import H3Connection, Setting
from aioquic.h3.events import H3Event
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StopSendingReceived, StreamDataReceived, StreamReset

from tradewind.quic.core import QuicCore
from tradewind.quic.streams import Stream

H3_NO_ERROR = 0x100
H3_STREAM_CREATION_ERROR = 0x103
H3_EXCESSIVE_LOAD = 0x107
H3_ID_ERROR = 0x108
H3_REQUEST_CANCELLED = 0x10C
H3_MESSAGE_ERROR = 0x10E
HTTP_UNI_STREAMS = range(4)
"""Control, push, QPACK encoder and decoder; streams of other types are none of HTTP's."""


class Http3:
    """One HTTP/3 connection. Events come from `receive`; protocol errors close the QUIC connection by themselves."""

    def __init__(self, core: QuicCore, most_bytes: int) -> None:
        self._core = core
        self._most_bytes = most_bytes
        self._taken: dict[int, int] = {}
        """Bytes of HTTP's own taken on each open stream, request bodies not counted."""
        self._h3 = _H3(_Streams(core))

    @property
    def settings(self) -> dict[int, int] | None:
        """The peer's SETTINGS; None before they came."""
        return self._h3.received_settings

    @property
    def peer_takes_webtransport(self) -> bool:
        """Whether the peer's settings enable WebTransport as draft 02 has it."""
        return bool(self.settings and self.settings.get(Setting.ENABLE_WEBTRANSPORT) == 1)

    def receive(self, stream: Stream, data: bytes, fin: bool) -> list[H3Event]:
        """Feed bytes of one of HTTP's streams and give their credit back.

        aioquic buffers a frame until it is whole, so what it may hold is bounded here: past the limit the connection is
        closed. What comes out as DATA does not count (`credit_body`).
        """
        taken = self._taken.get(stream.id, 0) + len(data)
        self._taken[stream.id] = taken
        self._core.consumed(stream.id, len(data))
        if taken > self._most_bytes:
            self._core.close(H3_EXCESSIVE_LOAD, None, "too many bytes of HTTP's own on one stream")
            return []
        events = self._h3.handle_event(StreamDataReceived(data=data, end_stream=fin, stream_id=stream.id))
        if fin:
            self._taken.pop(stream.id, None)
        return events

    def credit_body(self, stream_id: int, size: int) -> None:
        """Do not count `size` bytes that came out as a request body."""
        if stream_id in self._taken:
            self._taken[stream_id] -= size

    def stream_reset(self, stream_id: int, code: int) -> None:
        """The peer reset one of HTTP's streams."""
        self._taken.pop(stream_id, None)
        self._h3.handle_event(StreamReset(error_code=code, stream_id=stream_id))

    def stopped(self, stream_id: int, code: int) -> None:
        """The peer stopped one of HTTP's streams."""
        self._h3.handle_event(StopSendingReceived(error_code=code, stream_id=stream_id))

    def send_headers(self, stream_id: int, headers: list[tuple[bytes, bytes]], fin: bool = False) -> None:
        """Send a request or a response."""
        self._h3.send_headers(stream_id, headers, end_stream=fin)

    def send_body(self, stream_id: int, data: bytes, fin: bool = False) -> None:
        """Send a DATA frame."""
        self._h3.send_data(stream_id, data, end_stream=fin)


class _H3(H3Connection):
    """aioquic's HTTP/3 with WebTransport's settings, over our streams."""

    def __init__(self, streams: _Streams) -> None:
        super().__init__(streams, enable_webtransport=True)  # type: ignore[arg-type]


class _Streams:
    """The part of `QuicConnection` that `H3Connection` uses."""

    def __init__(self, core: QuicCore) -> None:
        self._core = core
        self._quic_logger = None
        self._remote_max_datagram_frame_size = core.datagram_room() or None

    @property
    def configuration(self) -> QuicConfiguration:
        return self._core.configuration

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        return self._core.get_next_available_stream_id(is_unidirectional)

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        core = self._core
        stream = core.streams.get(stream_id)
        if stream is None and stream_id == core.get_next_available_stream_id(bool(stream_id & 2)):
            stream = core.open_stream(bool(stream_id & 2), control=True)
            if stream is None:
                core.close(H3_STREAM_CREATION_ERROR, None, "no room for HTTP's own streams")
        if stream is not None and stream.outgoing is not None and stream.outgoing.open:
            core.write(stream, (data,), end_stream)

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        stream = self._core.streams.get(stream_id)
        if stream is not None:
            self._core.reset(stream, error_code)

    def close(self, error_code: int, frame_type: int | None = None, reason_phrase: str = "") -> None:
        self._core.close(error_code, frame_type, reason_phrase)
