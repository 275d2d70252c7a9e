"""Who may do what: a token, a path and the time in; a `Grant` or a `Refusal` out.

`relay.node` asks once for each session and once for each request that carries a token of its own. The path that a
client dials is the root of what it sees: it names namespaces relative to it, and the relay works with *global* ones
(root fields, then the wire's). A token's prefixes are global too: `https://host/live?jwt=...` with a token for
`live/shop1` shows `shop1` and nothing beside it, just as moq-relay would. `wall_now` is Unix time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from urllib.parse import unquote_plus

from tradewind.contract.admission import AdmissionError, AdmissionFault, AdmissionKeys, verify_admission
from tradewind.contract.token import Fault, Key, TokenError, split_path, starts_with, verify
from tradewind.moqt.errors import RequestCode, SessionCode
from tradewind.moqt.model import Namespace

MAX_FIELDS = 32
MAX_NAMESPACE_BYTES = 4096
MAX_TARGET_LENGTH = 16_384


class Reason(Enum):
    """Why somebody is not let in: a closed list, and a metric's label."""

    TOKEN_MISSING = "token_missing"
    TOKEN_UNWANTED = "token_unwanted"
    """There are no keys to check it with."""
    TOKEN_MALFORMED = "token_malformed"
    TOKEN_UNTRUSTED = "token_untrusted"
    """No key of ours signed it, or the key may not grant this."""
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    OUTSIDE_TOKEN = "outside_token"
    """The token grants nothing at or below this path."""
    BAD_PATH = "bad_path"
    UNKNOWN_PATH = "unknown_path"
    """It is none of those that may be dialled here."""
    PLACEMENT_MISSING = "placement_missing"
    """Nobody said that this viewer should come here; whoever answers `/v1/place` would."""
    PLACEMENT_MALFORMED = "placement_malformed"
    PLACEMENT_UNTRUSTED = "placement_untrusted"
    """Nobody in the route table signed it, or there is no table yet."""
    PLACEMENT_EXPIRED = "placement_expired"
    PLACEMENT_NOT_YET_VALID = "placement_not_yet_valid"
    PLACEMENT_ELSEWHERE = "placement_elsewhere"
    """It is for other relays, or another path."""
    PLACEMENT_OF_ANOTHER = "placement_of_another"
    """It was asked for with another access token."""


_FAULTS = {
    Fault.MALFORMED: Reason.TOKEN_MALFORMED,
    Fault.UNKNOWN_KEY: Reason.TOKEN_UNTRUSTED,
    Fault.BAD_SIGNATURE: Reason.TOKEN_UNTRUSTED,
    Fault.EXPIRED: Reason.TOKEN_EXPIRED,
    Fault.NOT_YET_VALID: Reason.TOKEN_NOT_YET_VALID,
    Fault.USELESS: Reason.TOKEN_MALFORMED,
    Fault.BEYOND_KEY: Reason.TOKEN_UNTRUSTED,
}
_ADMISSION_FAULTS = {
    AdmissionFault.MALFORMED: Reason.PLACEMENT_MALFORMED,
    AdmissionFault.UNKNOWN_KEY: Reason.PLACEMENT_UNTRUSTED,
    AdmissionFault.BAD_SIGNATURE: Reason.PLACEMENT_UNTRUSTED,
    AdmissionFault.NOT_YET_VALID: Reason.PLACEMENT_NOT_YET_VALID,
    AdmissionFault.EXPIRED: Reason.PLACEMENT_EXPIRED,
    AdmissionFault.ANOTHER_RELAY: Reason.PLACEMENT_ELSEWHERE,
    AdmissionFault.ANOTHER_VIEWER: Reason.PLACEMENT_OF_ANOTHER,
    AdmissionFault.ANOTHER_PATH: Reason.PLACEMENT_ELSEWHERE,
}
_SESSION_CODES = {
    Reason.TOKEN_MALFORMED: SessionCode.MALFORMED_AUTH_TOKEN,
    Reason.TOKEN_EXPIRED: SessionCode.EXPIRED_AUTH_TOKEN,
    Reason.BAD_PATH: SessionCode.MALFORMED_PATH,
    Reason.UNKNOWN_PATH: SessionCode.INVALID_PATH,
}
_REQUEST_CODES = {
    Reason.TOKEN_MALFORMED: RequestCode.MALFORMED_AUTH_TOKEN,
    Reason.TOKEN_EXPIRED: RequestCode.EXPIRED_AUTH_TOKEN,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The other answer. `detail` is for our log: it may say more than a stranger should hear."""

    reason: Reason
    detail: str

    @property
    def session_code(self) -> SessionCode:
        """What to close a session with."""
        return _SESSION_CODES.get(self.reason, SessionCode.UNAUTHORIZED)

    @property
    def request_code(self) -> RequestCode:
        """What to answer a request with."""
        return _REQUEST_CODES.get(self.reason, RequestCode.UNAUTHORIZED)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one session, or one request, may do. Every namespace here is global."""

    root: Namespace
    publish: tuple[Namespace, ...]
    """Prefixes; each is the root or lies beneath it."""
    subscribe: tuple[Namespace, ...]
    expires_at: float | None = None
    """Wall seconds; the session ends then. None: never."""
    token_id: str | None = None
    """The same for every session of one token, whose limits they share; None: anonymous."""
    subject: str | None = None
    """Whom the token's issuer had in mind; for logs."""

    def may_publish(self, namespace: Namespace) -> bool:
        """Whether tracks in `namespace` may be published, and the namespace announced."""
        return any(starts_with(namespace, prefix) for prefix in self.publish)

    def may_subscribe(self, namespace: Namespace) -> bool:
        """Whether tracks in `namespace` may be read, and it may be told of."""
        return any(starts_with(namespace, prefix) for prefix in self.subscribe)

    def may_discover(self, prefix: Namespace) -> bool:
        """Whether asking for namespaces under `prefix` can lead to any that may be read.

        What is found is still told only where `may_subscribe` says so: a viewer may ask for everything and see its own.
        """
        return any(starts_with(prefix, own) or starts_with(own, prefix) for own in self.subscribe)

    def to_global(self, namespace: Namespace) -> Namespace | None:
        """A namespace from this session's wire as the relay knows it; None: longer than the draft allows."""
        whole = self.root + namespace
        too_long = len(whole) > MAX_FIELDS or sum(map(len, whole)) > MAX_NAMESPACE_BYTES
        return None if too_long else whole

    def to_wire(self, namespace: Namespace) -> Namespace | None:
        """A global namespace, or a prefix of one, as this session names it; None: it lies outside the root."""
        return namespace[len(self.root) :] if starts_with(namespace, self.root) else None


class Placement(Enum):
    """What placement tokens mean to this relay: values are what operators write."""

    OFF = "off"
    """They are not looked at."""
    OFFERED = "offered"
    """One that is there must be good."""
    REQUIRED = "required"
    """No session without one; neighbours need none."""


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Which paths there are, and what needs no token. Prefixes are paths, as in a token."""

    paths: tuple[str, ...] = ()
    """What may be dialled, with all below; none: everything."""

    anonymous: bool = False
    """Everybody may do everything: development only."""
    public_publish: tuple[str, ...] = ()
    public_subscribe: tuple[str, ...] = ()
    placement: Placement = Placement.OFF
    relay: str = ""
    """Our own id: placement tokens name the relays that they are for."""


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one moment. When keys or settings change, another one takes its place between two turns."""

    keys: tuple[Key, ...] = ()
    settings: AccessSettings = AccessSettings()
    admission_keys: AdmissionKeys = field(default_factory=dict)
    """Who may place viewers here: `admission_keys` of the route table in force."""

    def replace_keys(self, keys: tuple[Key, ...]) -> Access:
        """The same rules, with access tokens checked by other keys."""
        return replace(self, keys=keys)

    def replace_admission_keys(self, keys: AdmissionKeys) -> Access:
        """The same rules under another route table. `Node.replace_access` puts them in force."""
        return replace(self, admission_keys=keys)

    def grant(self, token: str | None, path: str, wall_now: float, admission: str | None = None) -> Grant | Refusal:
        """Decide about a session that dialled `path` (without its query). An empty token is none.

        `admission` is its placement token. It is looked at here and never again: its end ends no session.
        """
        grant = self._grant(token, path, wall_now)
        if isinstance(grant, Refusal) or self.settings.placement is Placement.OFF:
            return grant
        return self._admit(token or "", path, wall_now, admission) or grant

    def for_request(self, session: Grant, token: str, wall_now: float) -> Grant | Refusal:
        """What one request of a session may do that carries a token of its own: what either of the two allows.

        The answer holds for that request alone, and until the earlier of the two expires.
        """
        if not self.keys:
            return (
                session
                if self.settings.anonymous
                else Refusal(Reason.TOKEN_UNWANTED, "a token came with a request, and there are no keys")
            )
        own = self._by_token(token, session.root, wall_now)
        if isinstance(own, Refusal):
            return own
        return Grant(
            session.root,
            publish=session.publish + own.publish,
            subscribe=session.subscribe + own.subscribe,
            expires_at=_earlier(session.expires_at, own.expires_at),
            token_id=own.token_id,
            subject=own.subject,
        )

    def _admit(self, token: str, path: str, wall_now: float, admission: str | None) -> Refusal | None:
        """Why somebody with rights is not let in nevertheless."""
        if not admission:
            if self.settings.placement is Placement.OFFERED:
                return None
            return Refusal(Reason.PLACEMENT_MISSING, "no placement token, and auth.placement requires one")
        try:
            verify_admission(admission, self.admission_keys, self.settings.relay, token, path, wall_now)
        except AdmissionError as error:
            return Refusal(_ADMISSION_FAULTS[error.fault], error.detail)
        return None

    def _grant(self, token: str | None, path: str, wall_now: float) -> Grant | Refusal:
        root = split_path(path)
        if len(root) > MAX_FIELDS or sum(map(len, root)) > MAX_NAMESPACE_BYTES:
            return Refusal(Reason.BAD_PATH, "the path has too many fields or bytes")
        if self.settings.paths and not any(starts_with(root, split_path(known)) for known in self.settings.paths):
            return Refusal(Reason.UNKNOWN_PATH, "the path is none of relay.paths")
        if token and self.keys:
            return self._by_token(token, root, wall_now)
        if self.settings.anonymous:
            return Grant(root, publish=(root,), subscribe=(root,))
        if token:
            return Refusal(Reason.TOKEN_UNWANTED, "a token came, and there are no keys to check it with")
        return self._public(root)

    def _by_token(self, token: str, root: Namespace, wall_now: float) -> Grant | Refusal:
        try:
            claims = verify(token, self.keys, wall_now)
        except TokenError as error:
            return Refusal(_FAULTS[error.fault], error.detail)
        publish = _at_or_below(root, claims.publish_prefixes())
        subscribe = _at_or_below(root, claims.subscribe_prefixes())
        if not publish and not subscribe:
            return Refusal(Reason.OUTSIDE_TOKEN, f"the token is for {claims.root!r}, {claims.put}, {claims.get}")
        token_id = claims.id or hashlib.sha256(token.encode()).hexdigest()[:16]
        return Grant(root, publish, subscribe, claims.expires_at, token_id, claims.subject)

    def _public(self, root: Namespace) -> Grant | Refusal:
        publish = _at_or_below(root, map(split_path, self.settings.public_publish))
        subscribe = _at_or_below(root, map(split_path, self.settings.public_subscribe))
        if not publish and not subscribe:
            return Refusal(Reason.TOKEN_MISSING, "nothing is public at this path")
        return Grant(root, publish, subscribe)


def split_target(target: str) -> tuple[str, str | None]:
    """Split what a client dialled (`/live?jwt=...`) into path and token; the last `jwt` that says something counts.

    A target longer than `MAX_TARGET_LENGTH` has no token: what is not read cannot let anybody in.
    """
    path, _, query = target.partition("?")
    token = None
    if len(target) <= MAX_TARGET_LENGTH:
        for pair in query.partition("#")[0].split("&"):
            name, _, value = pair.partition("=")
            if name == "jwt" and value:
                token = unquote_plus(value)
    return path, token


def _at_or_below(root: Namespace, prefixes: Iterable[Namespace]) -> tuple[Namespace, ...]:
    """What `prefixes` allow at or below `root`: one that covers it becomes it, one beneath it stays, others go."""
    return tuple(
        dict.fromkeys(
            root if starts_with(root, prefix) else prefix
            for prefix in prefixes
            if starts_with(root, prefix) or starts_with(prefix, root)
        )
    )


def _earlier(one: float | None, other: float | None) -> float | None:
    known = [moment for moment in (one, other) if moment is not None]
    return min(known, default=None)
