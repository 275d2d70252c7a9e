"""Authorization tokens of one direction: aliases resolved, registered, deleted.

`tradewind.moqt.session` keeps one cache for what the peer registers; we always send whole tokens. Source: draft-20,
"AUTHORIZATION TOKEN Parameter" and "AUTHORIZATION TOKEN" among the Setup Options.
"""

from __future__ import annotations

from typing import Final

from tradewind.moqt.errors import ProtocolViolation, RequestCode, RequestRejected, SessionCode
from tradewind.moqt.model import Token, TokenUse
from tradewind.moqt.parameters import RawToken

TOKEN_OVERHEAD_BYTES: Final = 16
"""What the draft adds to each Token Value when it counts the cache."""


class TokenCache:
    """The tokens that the peer has registered."""

    __slots__ = ("_limit_bytes", "_max_tokens", "_registered", "size_bytes")

    def __init__(self, limit_bytes: int, max_tokens: int) -> None:
        self._limit_bytes = limit_bytes
        self._max_tokens = max_tokens
        self._registered: dict[int, Token] = {}
        self.size_bytes = 0

    def resolve(self, tokens: tuple[RawToken, ...]) -> tuple[Token, ...]:
        """What one message's tokens stand for, in order, without those that only delete.

        Raises ProtocolViolation for an alias registered twice or a full cache. Raises RequestRejected for an unknown
        alias, a repeated token or too many of them: what the message registered stays registered even so.
        """
        found: list[Token] = []
        flaw: RequestRejected | None = None
        for raw in tokens:
            try:
                token = self._take(raw)
            except RequestRejected as rejected:
                flaw = flaw or rejected
                continue
            if token is not None:
                found.append(token)
        if flaw is not None:
            raise flaw
        if len(found) > self._max_tokens:
            raise RequestRejected(RequestCode.EXCESSIVE_LOAD, "too many authorization tokens in one message")
        if len(set(found)) != len(found):
            raise RequestRejected(RequestCode.MALFORMED_AUTH_TOKEN, "the same authorization token twice")
        return tuple(found)

    def resolve_setup(self, tokens: tuple[RawToken, ...]) -> tuple[Token, ...]:
        """What the tokens of the peer's SETUP stand for; a registration that does not fit is only used.

        Raises ProtocolViolation for everything else that is wrong: there is no request to refuse.
        """
        found: list[Token] = []
        for raw in tokens:
            if raw.use in {TokenUse.DELETE, TokenUse.USE_ALIAS}:
                raise ProtocolViolation(SessionCode.PROTOCOL_VIOLATION, f"{raw.use.name} in SETUP")
            token = _whole(raw)
            if raw.use is TokenUse.REGISTER:
                self._register(raw, token, strict=False)
            found.append(token)
        if len(found) > self._max_tokens or len(set(found)) != len(found):
            raise ProtocolViolation(SessionCode.MALFORMED_AUTH_TOKEN, "too many or repeated tokens in SETUP")
        return tuple(found)

    def check_invariants(self) -> None:
        """Assert that the size is the sum of what is registered, and in bounds."""
        assert self.size_bytes == sum(_size(token) for token in self._registered.values())
        assert self.size_bytes <= self._limit_bytes

    def _take(self, raw: RawToken) -> Token | None:
        if raw.use is TokenUse.USE_VALUE:
            return _whole(raw)
        if raw.use is TokenUse.REGISTER:
            token = _whole(raw)
            self._register(raw, token, strict=True)
            return token
        assert raw.alias is not None
        known = self._registered.get(raw.alias)
        if known is None:
            # The draft's word is UNKNOWN_AUTH_TOKEN_ALIAS, which only the session registry numbers; the same number
            # is free among request codes.
            raise RequestRejected(SessionCode.UNKNOWN_AUTH_TOKEN_ALIAS, "unknown authorization token alias")
        if raw.use is TokenUse.DELETE:
            del self._registered[raw.alias]
            self.size_bytes -= _size(known)
            return None
        return known

    def _register(self, raw: RawToken, token: Token, *, strict: bool) -> None:
        assert raw.alias is not None
        if raw.alias in self._registered:
            raise ProtocolViolation(SessionCode.DUPLICATE_AUTH_TOKEN_ALIAS, "token alias is registered already")
        if self.size_bytes + _size(token) > self._limit_bytes:
            if strict:
                raise ProtocolViolation(SessionCode.AUTH_TOKEN_CACHE_OVERFLOW, "no room for another token")
            return
        self._registered[raw.alias] = token
        self.size_bytes += _size(token)


def _whole(raw: RawToken) -> Token:
    assert raw.type is not None and raw.value is not None
    return Token(raw.type, raw.value)


def _size(token: Token) -> int:
    return TOKEN_OVERHEAD_BYTES + len(token.value)
