"""`GET /v1/place`: what a viewer's question says and may ask for, and the documents that answer it.

    /v1/place?namespace=live/shop1[&jwt=...][&path=live][&here=fra-1][&failed=ams-2][&rtt=fra-1:23,eu-west:31]
              [&viewer=...][&format=steering]

The caller proves itself with its own access token, in the query or as a bearer. Edges hand in what came
(`read_request`); `control.placement` and `last_table` each own a `Desk`, decide, and hand back `Placed` or `Refused`: a
status and a body. The answer's URIs can be dialled as they are. With `format=steering`, or from a player's Content
Steering request, the same document is a steering manifest as well: pathways are relays.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, unquote_plus

import msgspec
from msgspec import Struct

from tradewind.contract.admission import MAX_ROOT_LENGTH, PARAMETER, Signer, mint_admission, viewer_digest
from tradewind.contract.ids import is_name
from tradewind.contract.token import Claims, Key, Path, TokenError, split_path, starts_with, verify
from tradewind.placing.fleet import Standing
from tradewind.placing.locating import NO_SPOT, Address, Locator, Spot, parse_address
from tradewind.placing.policy import Policy, Reason

MAX_QUERY_LENGTH = 16_384
MAX_PARAMETERS = 64
MAX_NAMESPACE_LENGTH = 4096
MAX_FIELDS = 32
MAX_VIEWER_LENGTH = 128
MAX_RTTS = 8
MAX_FAILED = 4
MAX_VERIFIED = 16_384
"""Access tokens that need not be verified again."""
VERSION = 1

STATUSES: Mapping[Reason, int] = {
    Reason.BAD_REQUEST: 400,
    Reason.TOKEN_MISSING: 401,
    Reason.TOKEN_BAD: 401,
    Reason.OUTSIDE_TOKEN: 403,
    Reason.NO_MARKET: 403,
    Reason.NOT_SERVED_HERE: 403,
    Reason.NO_RELAY: 503,
    Reason.NO_CAPACITY: 503,
    Reason.NO_TABLE: 503,
    Reason.TOO_MANY_QUESTIONS: 429,
}
PASSING = frozenset({Reason.NO_RELAY, Reason.NO_CAPACITY, Reason.NO_TABLE})
"""What may be different in a moment: worth asking again."""


@dataclass(frozen=True, slots=True)
class PlaceRequest:
    """A viewer's question, within its bounds and otherwise unchecked."""

    namespace: str
    """Global, fields joined by slashes: what it wants to watch, or to publish."""
    token: str = ""
    """Its access token."""
    address: Address | None = None
    """Where the question came from."""
    path: str | None = None
    """What it will dial; None: as far up as its token's root allows."""
    here: str = ""
    """The relay that it is on."""
    failed: tuple[str, ...] = ()
    """Relays that it could not reach."""
    rtts_ms: tuple[tuple[str, float], ...] = ()
    """Relay or region, and what it measured."""
    viewer: str = ""
    """Tells viewers of one token and one address apart."""
    steering: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """The answer to a viewer."""

    relays: tuple[str, ...]
    """Best first."""
    panic: bool
    body: bytes
    status: int = 200


@dataclass(frozen=True, slots=True)
class Refused:
    """The other answer. `detail` is also told to the caller."""

    reason: Reason
    detail: str
    retry_s: int | None
    """When to ask again; None: not with this question."""
    status: int
    body: bytes


PlaceAnswer: TypeAlias = Placed | Refused


@dataclass(frozen=True, slots=True)
class Asked:
    """A question whose caller may ask it."""

    request: PlaceRequest
    namespace: Path
    path: str
    """What the URIs of the answer dial, without slashes at its ends."""
    access_ends_wall: float | None
    digest: str
    """Of the access token."""
    seed: int
    """The viewer's number: 64 bits, the same whoever is asked."""
    spot: Spot


@dataclass(frozen=True, slots=True)
class Edition:
    """Which state of the mesh an answer was made from."""

    epoch: int = 0
    """The term of the controllers' writer."""
    generation: int = 0


class Desk:
    """Lets questions in and writes answers: keys, signer and rules of one moment, and the tokens seen lately.

    `keys` check access tokens; `reload` is where to ask again (empty: where it was asked).
    """

    __slots__ = ("_keys", "_locator", "_policy", "_reload", "_signing", "_verified")

    def __init__(
        self, policy: Policy, signing: Signer, keys: Sequence[Key], locator: Locator | None = None, reload: str = ""
    ) -> None:
        self._policy = policy
        self._signing = signing
        self._keys = tuple(keys)
        self._locator = locator
        self._reload = reload
        self._verified: OrderedDict[str, Claims] = OrderedDict()

    def replace_locator(self, locator: Locator | None) -> None:
        """Look addresses up there from now on."""
        self._locator = locator

    def admit(self, request: PlaceRequest, wall_now: float) -> Asked | Refused:
        """Check the caller's token and what it may ask for."""
        if not request.token:
            return refused(Reason.TOKEN_MISSING, "ask with an access token: ?jwt=... or Authorization: Bearer ...")
        digest = viewer_digest(request.token)
        claims = self._claims(request.token, digest, wall_now)
        if isinstance(claims, str):
            return refused(Reason.TOKEN_BAD, claims)
        namespace = split_path(request.namespace)
        if not _covers(claims, namespace):
            return refused(Reason.OUTSIDE_TOKEN, "the token covers neither watching nor publishing this namespace")
        path = _dialled(claims.root) if request.path is None else request.path.strip("/")
        if not starts_with(namespace, split_path(path)):
            return refused(Reason.BAD_REQUEST, "the namespace does not lie beneath the path")
        if _DIALLED.fullmatch(path) is None or len(path) > MAX_ROOT_LENGTH:
            return refused(Reason.BAD_REQUEST, "the path cannot be dialled as it is: leave fields out at its end")
        spot = self._locator.locate(request.address) if self._locator and request.address else None
        return Asked(request, namespace, path, claims.expires_at, digest, _seed(request, digest), spot or NO_SPOT)

    def suppose(self, request: PlaceRequest, country: str | None = None) -> Asked:
        """The same for a viewer that an operator thinks of: it shows no token, and may ask for everything.

        `country`: where it is, if it has no address.
        """
        digest = viewer_digest(request.token)
        spot = self._locator.locate(request.address) if self._locator and request.address else Spot(country)
        seed = _seed(request, digest)
        return Asked(request, split_path(request.namespace), "", None, digest, seed, spot or NO_SPOT)

    def place(
        self, asked: Asked, chosen: Sequence[Standing], edition: Edition, wall_now: float, *, panic: bool
    ) -> Placed:
        """Write the answer for one to four candidates, best first, and sign the token that they admit the viewer by."""
        policy, request = self._policy, asked.request
        relays = tuple(standing.entry.id for standing in chosen)
        token = mint_admission(
            self._signing,
            asked.digest,
            asked.path,
            relays,
            wall_now,
            first_s=policy.first_s,
            failover_s=policy.failover_s,
            access_ends_wall=asked.access_ends_wall,
        )
        tail = f"/{asked.path}?jwt={quote(request.token, safe='')}&{PARAMETER}={token}"
        candidates = []
        for priority, standing in enumerate(chosen):
            entry = standing.entry
            candidates.append(_Candidate(entry.uri.rstrip("/") + tail, priority, entry.id, entry.region))
        ttl_s = int(policy.ttl_s)
        again = self._again(asked, relays[0])
        probe = _Probe(min(policy.probe_count, len(candidates)), policy.probe_bytes)
        plain = (VERSION, ttl_s, edition.epoch, edition.generation, candidates, token, probe, again, panic)
        document = _Steering(*plain, VERSION, ttl_s, again, relays) if request.steering else _Document(*plain)
        return Placed(relays, panic, _ENCODER.encode(document))

    def refuse(self, asked: Asked, reason: Reason) -> Refused:
        """Write the other answer. What may pass says when to ask again, spread so that not everybody comes at once."""
        if reason not in PASSING:
            return refused(reason, DETAILS[reason])
        spread = 1.0 + 2.0 * (asked.seed >> 40 & 0xFF) / 0xFF
        return refused(reason, DETAILS[reason], math.ceil(self._policy.retry_s * spread))

    def _claims(self, token: str, digest: str, wall_now: float) -> Claims | str:
        """What the token says, or what is wrong with it."""
        claims = self._verified.get(digest)
        if claims is None:
            try:
                claims = verify(token, self._keys, wall_now)
            except TokenError as error:
                return error.fault.value
            if len(self._verified) >= MAX_VERIFIED:
                self._verified.popitem(last=False)
            self._verified[digest] = claims
        if claims.expires_at is not None and wall_now >= claims.expires_at:
            del self._verified[digest]
            return "expired"
        return claims

    def _again(self, asked: Asked, here: str) -> str:
        """Where to ask again. A steering player has no headers of its own: its token travels in the query."""
        request = asked.request
        query = f"?namespace={quote(request.namespace)}&path=/{quote(asked.path)}&here={here}"
        if request.viewer:
            query += f"&viewer={quote(request.viewer, safe='')}"
        if request.steering:
            query += f"&format=steering&jwt={quote(request.token, safe='')}"
        return self._reload + query


DETAILS: Mapping[Reason, str] = {
    Reason.NO_MARKET: "there is no rule for viewers where you are",
    Reason.NOT_SERVED_HERE: "viewers where you are may not be served",
    Reason.NO_RELAY: "no relay that may serve you takes anybody now",
    Reason.NO_CAPACITY: "all relays near you are full",
    Reason.NO_TABLE: "this relay does not know the others yet",
}


def read_request(query: str, address: str, authorization: str | None = None) -> PlaceRequest | Refused:
    """Read a question from the query of its URL (without the question mark), the caller's address and its bearer.

    What is not known is left alone: players add parameters of their own. A token in the query counts before a bearer.
    """
    if len(query) > MAX_QUERY_LENGTH or query.count("&") >= MAX_PARAMETERS:
        return refused(Reason.BAD_REQUEST, f"more than {MAX_QUERY_LENGTH} characters or {MAX_PARAMETERS} parameters")
    values: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if value:
            values[name] = unquote_plus(value)
    token = values.get("jwt", "")
    if not token and authorization is not None and authorization[:7].lower() == "bearer ":
        token = authorization[7:].strip()
    namespace, path = values.get("namespace", ""), values.get("path")
    for name, text in (("namespace", namespace), ("path", path or "")):
        if len(text) > MAX_NAMESPACE_LENGTH or len(split_path(text)) > MAX_FIELDS:
            return refused(
                Reason.BAD_REQUEST, f"{name}: more than {MAX_NAMESPACE_LENGTH} characters, {MAX_FIELDS} fields"
            )
    if not split_path(namespace):
        return refused(Reason.BAD_REQUEST, "namespace: what do you want to watch?")
    # A steering player says by itself where it is, in quotes.
    pathway = values.get("_HLS_pathway", values.get("_DASH_pathway", "")).strip('"').partition(",")[0]
    here = pathway or values.get("here", "")
    return PlaceRequest(
        namespace,
        token,
        parse_address(address),
        path,
        here if is_name(here) else "",
        tuple(name for name in values.get("failed", "").split(",")[:MAX_FAILED] if is_name(name)),
        _read_rtts(values.get("rtt", "")),
        values.get("viewer", "")[:MAX_VIEWER_LENGTH],
        bool(pathway) or values.get("format") == "steering",
    )


def refused(reason: Reason, detail: str, retry_s: int | None = None) -> Refused:
    """Write a refusal; `retry_s` is what Retry-After should say."""
    body = _ENCODER.encode(_Refusal(VERSION, reason.value, detail, retry_s))
    return Refused(reason, detail, retry_s, STATUSES[reason], body)


class _Candidate(Struct, frozen=True):
    uri: str
    prio: int
    id: str
    region: str


class _Probe(Struct, frozen=True):
    """How many of the first candidates to measure, and how much to ask each for."""

    n: int
    bytes: int


class _Document(Struct, frozen=True):
    version: int
    ttl: int
    epoch: int
    generation: int
    candidates: list[_Candidate]
    tok: str
    probe: _Probe
    reload: str
    panic: bool


class _Steering(_Document, frozen=True):
    """Content Steering's names beside ours ("HLS Content Steering Specification")."""

    steering_version: int = msgspec.field(name="VERSION")
    steering_ttl: int = msgspec.field(name="TTL")
    reload_uri: str = msgspec.field(name="RELOAD-URI")
    pathway_priority: tuple[str, ...] = msgspec.field(name="PATHWAY-PRIORITY")


class _Refusal(Struct, frozen=True, omit_defaults=True):
    version: int
    reason: str
    detail: str
    retry_s: int | None = None


_ENCODER = msgspec.json.Encoder()
_DIALLED = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")
"""What a URL's path may have in it. Relays take fields as they are dialled, so nothing is encoded for them."""


def _covers(claims: Claims, namespace: Path) -> bool:
    return any(starts_with(namespace, prefix) for prefix in claims.subscribe_prefixes() + claims.publish_prefixes())


def _dialled(root: str) -> str:
    """As much of a token's root as can be dialled."""
    fields = []
    for field in root.split("/"):
        if _DIALLED.fullmatch(field) is None:
            break
        if field:
            fields.append(field)
    return "/".join(fields)


def _seed(request: PlaceRequest, digest: str) -> int:
    text = f"{digest} {request.viewer or request.address or ''}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _read_rtts(text: str) -> tuple[tuple[str, float], ...]:
    """`fra-1:23,eu-west:31.5`; what is not a name and a sensible number is left out."""
    found = []
    for item in text[: MAX_RTTS * 64].split(",")[:MAX_RTTS]:
        name, _, number = item.partition(":")
        if is_name(name) and _NUMBER.fullmatch(number):
            found.append((name, float(number)))
    return tuple(found)


_NUMBER = re.compile(r"\d{1,5}(?:\.\d{1,3})?", re.ASCII)
