"""EDGE: one GET over HTTP/1.1, on h11: a question to a controller or a relay.

Why not a library: `client` needs one small document at a time, from a local address of its choice, and whatever answers
is held to a size and a time.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import trio

MAX_BODY_BYTES = 256 * 1024
MAX_HEADER_BYTES = 32 * 1024
_PORTS = {"http": 80, "https": 443}


class GetFailed(Exception):
    """No answer came; says why in words."""


@dataclass(frozen=True, slots=True)
class Got:
    """What was answered, whatever the status."""

    status: int
    body: bytes


async def get(url: str, *, timeout_s: float, tls: ssl.SSLContext | None = None, source: str | None = None) -> Got:
    """GET `url` (http or https). `tls`: how servers are trusted (None: as the system does); `source`: our address.

    Redirects are not followed: a token may be part of the URL. Raises GetFailed.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
        host = (parts.hostname or "").encode("idna").decode()
    except (ValueError, KeyError) as error:
        raise GetFailed("not an http or https URL") from error
    where = f"{parts.scheme}://{parts.netloc}{parts.path}"
    try:
        with trio.fail_after(timeout_s):
            stream: trio.abc.Stream = await trio.open_tcp_stream(host, port, local_address=source)
            if parts.scheme == "https":
                context = tls or ssl.create_default_context()
                stream = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
            try:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                return await _exchange(stream, parts.netloc, target)
            finally:
                await trio.aclose_forcefully(stream)
    except (OSError, ssl.SSLError, trio.TooSlowError, trio.BrokenResourceError) as error:
        # A handshake that failed is told as a broken stream, and why behind it.
        raise GetFailed(f"{where}: {str(error) or error.__cause__ or type(error).__name__}") from error
    except h11.ProtocolError as error:
        raise GetFailed(f"{where}: not HTTP: {error}") from error


async def _exchange(stream: trio.abc.Stream, authority: str, target: str) -> Got:
    protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
    headers = [("Host", authority), ("Accept", "application/json"), ("Connection", "close")]
    request = protocol.send(h11.Request(method="GET", target=target, headers=headers)) or b""
    await stream.send_all(request + (protocol.send(h11.EndOfMessage()) or b""))
    status, body = 0, bytearray()
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(bytes(await stream.receive_some(16 * 1024)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise OSError(f"more than {MAX_BODY_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Got(status, bytes(body))
        elif not isinstance(event, h11.InformationalResponse):
            raise OSError("the connection ended before the answer did")
