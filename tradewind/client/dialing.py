"""What comes before a connection: names resolved, a development relay's certificate digest asked for. An EDGE file."""

from __future__ import annotations

from urllib.parse import urlsplit

import trio

from tradewind.client.target import Target
from tradewind.quic.config import Address


class ConnectFailed(Exception):
    """No connection came about; says why in words."""


async def resolve(target: Target) -> list[Address]:
    """The UDP addresses of a target, in the system's order. Raises ConnectFailed."""
    try:
        found = await trio.socket.getaddrinfo(target.host, target.port, type=trio.socket.SOCK_DGRAM)
    except OSError as error:
        raise ConnectFailed(f"cannot find {target.host}: {error}") from error
    return list(dict.fromkeys(sockaddr for *_, sockaddr in found))


async def ask_fingerprint(target: Target, timeout_s: float) -> bytes:
    """Ask a relay in development for its certificate's digest, as players do: GET /certificate.sha256 over TCP."""
    host = urlsplit(target.url).netloc
    request = f"GET /certificate.sha256 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    answer = b""
    try:
        with trio.fail_after(timeout_s):
            async with await trio.open_tcp_stream(target.host, target.port) as stream:
                await stream.send_all(request)
                async for data in stream:
                    answer += data
                    if len(answer) > 64 * 1024:
                        break
    except (OSError, trio.TooSlowError) as error:
        raise ConnectFailed(f"http://{host}/certificate.sha256 does not answer: {error}") from error
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ConnectFailed(f"http://{host}/certificate.sha256 does not say a digest")
    return parse_fingerprint(body.decode("ascii", "replace"))


def parse_fingerprint(text: str) -> bytes:
    """A SHA-256 digest in hexadecimal, with or without colons. Raises ConnectFailed."""
    try:
        digest = bytes.fromhex(text.strip().replace(":", ""))
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ConnectFailed(f"{text.strip()[:80]!r} is not a SHA-256 digest in hexadecimal")
    return digest
