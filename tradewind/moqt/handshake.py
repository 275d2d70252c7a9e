"""The exchange of SETUPs: what we say of ourselves, and what the peer may say.

`tradewind.moqt.streams` and `tradewind.moqt.adapter16` bring the peer's; `tradewind.moqt.session` starts ours.
Sources: draft-20, "SETUP" and "Setup Options"; draft-16, "CLIENT_SETUP and SERVER_SETUP".
"""

from __future__ import annotations

from dataclasses import replace

from tradewind.moqt.context import Context
from tradewind.moqt.errors import SessionCode
from tradewind.moqt.events import SetupReceived
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.tokens import TokenCache


class Handshake:
    """Both SETUPs of one session."""

    __slots__ = ("_context", "_tokens", "ours", "received")

    def __init__(self, context: Context, tokens: TokenCache) -> None:
        self._context = context
        self._tokens = tokens
        self.ours: SetupOptions | None = None
        """What we have said, or will say as soon as the draft lets us."""
        self.received = False

    def prepare(self, options: SetupOptions) -> SetupOptions:
        """The owner's options with what the session's own limits add to them."""
        settings = self._context.settings
        self.ours = replace(
            options,
            max_request_id=2 * settings.request_window,
            max_token_cache_bytes=settings.max_token_cache_bytes,
            max_filter_ranges=settings.max_filter_ranges,
            max_request_updates=settings.max_request_updates,
        )
        return self.ours

    def receive(self, options: SetupOptions) -> None:
        """The peer's SETUP. Raises ProtocolViolation with the code that the option's section names."""
        context = self._context
        self._check_path(options.path)
        self._check_authority(options.authority)
        tokens = self._tokens.resolve_setup(options.tokens)
        self.received = True
        context.peer = options
        context.events.append(
            SetupReceived(options.authority or "", options.path or "", tokens, options.implementation)
        )

    def _check_path(self, path: str | None) -> None:
        if path is None:
            return
        context = self._context
        if context.is_client or context.webtransport:
            raise context.violation("PATH does not belong here", SessionCode.INVALID_PATH)
        if len(path) > context.settings.max_path_bytes:
            raise context.violation("PATH is too long", SessionCode.MALFORMED_PATH)

    def _check_authority(self, authority: str | None) -> None:
        if authority is None:
            return
        context = self._context
        if context.is_client or context.webtransport:
            raise context.violation("AUTHORITY does not belong here", SessionCode.INVALID_AUTHORITY)
        if len(authority) > context.settings.max_authority_bytes or not _has_host(authority):
            raise context.violation("AUTHORITY is too long or names no host", SessionCode.MALFORMED_AUTHORITY)


def _has_host(authority: str) -> bool:
    """Whether [userinfo "@"] host [":" port] has a host and, if there is a port, a number for it (RFC 3986)."""
    host_and_port = authority.rpartition("@")[2]
    if host_and_port.startswith("["):
        host, closed, port = host_and_port.partition("]")
        host, bad = host[1:], not closed or (port and not port.startswith(":"))
        port = port[1:]
    else:
        host, _, port = host_and_port.partition(":")
        bad = "[" in host or "]" in host
    return bool(host) and not bad and (not port or port.isdecimal()) and len(port) <= 5
