"""What one session may do: its grant, widened by a request's own tokens, and the rules of rooms besides.

`relay.attachment` makes one for each session and asks it about every request. The answer is the global namespace that
the request is for, or the code to refuse it with.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.access import Access, Grant, Refusal
from relay.room_tracks import RoomTracks
from relay.rooms import names
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import FullTrackName, Namespace, Parameters, Token


class Rights:
    """One session's grant; nothing is allowed before `begin`. Times are wall seconds."""

    __slots__ = ("_expiring", "_rooms", "access", "grant")

    def __init__(self, access: Access) -> None:
        self.access = access
        """The keys that count now; the owner replaces it."""
        self.grant: Grant | None = None
        self._rooms: RoomTracks | None = None
        self._expiring: dict[int, float] = {}
        """Requests that stand on a token of their own, and when that expires."""

    def begin(self, grant: Grant, rooms: RoomTracks | None) -> None:
        """The session is let in; `rooms` are those whose rules bind it, None: none do."""
        self.grant = grant
        self._rooms = rooms

    # --- Requests ---

    def to_read(
        self, request: int, track: FullTrackName, parameters: Parameters, wall_now: float
    ) -> Namespace | RequestCode:
        """Whether a track may be read, and where it is."""

        def allowed(grant: Grant) -> Namespace | None:
            namespace = grant.to_global(track.namespace)
            if namespace is None or not grant.may_subscribe(namespace):
                return None
            found = self._room_of(namespace)
            allowed_there = found is None or names.may_subscribe(found, track.name, grant.may_publish)
            return namespace if allowed_there else None

        return self._permit(request, parameters, allowed, wall_now)

    def to_write(
        self, request: int, wire: Namespace, name: bytes | None, parameters: Parameters, wall_now: float
    ) -> Namespace | RequestCode:
        """Whether a track, or with the name None a namespace, may be published."""

        def allowed(grant: Grant) -> Namespace | None:
            namespace = grant.to_global(wire)
            if namespace is None or not grant.may_publish(namespace):
                return None
            found = self._room_of(namespace)
            return namespace if found is None or names.may_publish(found, name) else None

        return self._permit(request, parameters, allowed, wall_now)

    def to_discover(
        self, request: int, wire: Namespace, parameters: Parameters, wall_now: float
    ) -> Namespace | RequestCode:
        """Whether somebody may hear of everything below a prefix."""
        return self._permit(request, parameters, lambda grant: _discoverable(grant, wire), wall_now)

    def new_prefix(self, wire: Namespace, parameters: Parameters, wall_now: float) -> Namespace | None:
        """The prefix that a request for namespaces asks to have from now on; None: it may not."""
        grant = self._widened(parameters, wall_now)
        return None if isinstance(grant, Refusal) else _discoverable(grant, wire)

    def meet_writer(self, namespace: Namespace, session: int, parameters: Parameters, wall_now: float) -> bool:
        """Whether a namespace that the session publishes is a writer's of a room; then the room hears of it."""
        if self._rooms is None:
            return False
        grant = self._widened(parameters, wall_now)
        return not isinstance(grant, Refusal) and self._rooms.writer_came(namespace, session, grant.may_publish)

    def forget(self, request: int) -> None:
        """A request is over, or needs its token no longer."""
        self._expiring.pop(request, None)

    # --- Time ---

    def is_over(self, wall_now: float) -> bool:
        """The session's own token has expired."""
        return self.grant is not None and self.grant.expires_at is not None and self.grant.expires_at <= wall_now

    def expired(self, wall_now: float) -> list[int]:
        """Requests whose own token has."""
        return [request for request, expires_at in self._expiring.items() if expires_at <= wall_now]

    @property
    def expiring(self) -> frozenset[int]:
        """Requests that stand on a token of their own."""
        return frozenset(self._expiring)

    # --- Private ---

    def _widened(self, parameters: Parameters, wall_now: float) -> Grant | Refusal:
        assert self.grant is not None
        grant = self.grant
        for token in parameters.tokens:
            wider = self.access.for_request(grant, text_of(token), wall_now)
            if isinstance(wider, Refusal):
                return wider
            grant = wider
        return grant

    def _permit(
        self, request: int, parameters: Parameters, allowed: Callable[[Grant], Namespace | None], wall_now: float
    ) -> Namespace | RequestCode:
        """What `allowed` makes of the grant that counts for a request."""
        grant = self._widened(parameters, wall_now)
        if isinstance(grant, Refusal):
            return grant.request_code
        answer = allowed(grant)
        if answer is None:
            return RequestCode.UNAUTHORIZED
        if grant.expires_at is not None and grant is not self.grant:
            self._expiring[request] = grant.expires_at
        return answer

    def _room_of(self, namespace: Namespace) -> names.Below | None:
        return None if self._rooms is None else names.split(namespace, self._rooms.names())


def text_of(token: Token) -> str:
    """A token as the text that access reads."""
    return token.value.decode("utf-8", "replace")


def _discoverable(grant: Grant, wire: Namespace) -> Namespace | None:
    prefix = grant.to_global(wire)
    return prefix if prefix is not None and grant.may_discover(prefix) else None
