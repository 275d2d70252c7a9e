"""Where to connect: a relay's URL taken apart. No I/O; `connect` resolves the name and fetches the fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from tradewind.moqt.model import Namespace

DEFAULT_PORT = 443
_SCHEMES = {"moqt": False, "https": True, "http": True}


class TargetError(ValueError):
    """A URL that no relay can have; says what is wrong."""


@dataclass(frozen=True, slots=True)
class Target:
    """A relay and how to talk to it."""

    host: str
    port: int
    webtransport: bool
    """Over HTTP/3, as browsers do; else raw QUIC."""
    path: str
    """Path and query."""
    fingerprint_url: bool = False
    """The URL was http: ask the relay's own port over TCP for its certificate's digest, and pin it."""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORT else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The https URL for WebTransport."""
        return f"https://{self.authority}{self.path or '/'}"

    def __str__(self) -> str:
        """The URL without its query, where tokens are."""
        scheme = "https" if self.webtransport else "moqt"
        return f"{scheme}://{self.authority}{self.path.partition('?')[0]}"


def parse_target(url: str, token: str | None = None) -> Target:
    """Take a relay's URL apart: moqt:// is raw QUIC, https:// WebTransport, http:// WebTransport to a local relay.

    `token` goes into the query as `jwt`, where relays look for it on both transports. Raises TargetError.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise TargetError(f"{url}: {error}") from error
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise TargetError(f"{url}: expected moqt://HOST:PORT/PATH, https://... or http://...")
    query = parts.query
    if token is not None and not any(name == "jwt" for name, _ in parse_qsl(query)):
        query = f"{query}&jwt={quote(token)}" if query else f"jwt={quote(token)}"
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    return Target(
        parts.hostname,
        DEFAULT_PORT if port is None else port,
        _SCHEMES[parts.scheme],
        f"{path}?{query}" if query else path,
        parts.scheme == "http",
    )


def parse_namespace(text: str) -> Namespace:
    """A namespace as people write it, live/demo, as its fields. Raises TargetError for empty ones and more than 32."""
    fields = tuple(field.encode() for field in text.strip("/").split("/"))
    if not all(fields) or len(fields) > 32:
        raise TargetError(f"{text!r} is not a namespace: 1 to 32 fields joined by /")
    return fields
