"""Placement tokens: they admit one viewer to the few relays that it was placed on, and give no rights at all.

Whoever answers `/v1/place` signs one for all candidates of an answer; a relay checks it once, when a session begins,
against the keys in its route table, and asks nobody. What a session may do is in its access token, whose digest is in
here: with another access token, on another path or at another relay a placement token opens nothing, and its end ends
no session. The first relay takes it for a minute, so that who comes back later asks again; the fail-over ones take it
for hours, so that a viewer can go on while nobody answers.

A placement token is a JWT with one algorithm (EdDSA over Ed25519) and a type of its own. Access tokens never pass here
for want of that type, and these never pass as access tokens, which may not have an audience.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import unquote_plus

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct

from tradewind.contract.messages import Name, RouteTable
from tradewind.contract.token import CLOCK_SKEW_S, Key, KeyFormatError, Path, parse_keys, split_path, starts_with

PARAMETER = "place"
"""The query parameter that carries a placement token, beside the access token's `jwt`."""
MAX_RELAYS = 4
MAX_TOKEN_BYTES = 4096
MAX_ROOT_LENGTH = 2048
"""Characters of the path in a token; percent-encoded JSON and base64 of it fit `MAX_TOKEN_BYTES`."""
MAX_TARGET_LENGTH = 16_384
FIRST_S = 60.0
FAILOVER_S = 4 * 3600.0
MAX_TABLE_KEYS = 4096

AdmissionKeys: TypeAlias = Mapping[str, Ed25519PublicKey]
"""Who may place viewers, by `kid`."""

_TYPE = "place+jwt"
_Moment: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]


class AdmissionFault(Enum):
    """Why a placement token opens nothing: a closed list, and a metric's label."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    BAD_SIGNATURE = "bad-signature"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    ANOTHER_RELAY = "another-relay"
    ANOTHER_VIEWER = "another-viewer"
    ANOTHER_PATH = "another-path"


class AdmissionError(Exception):
    """A placement token that admits nobody here; `fault` says why."""

    def __init__(self, fault: AdmissionFault, detail: str) -> None:
        super().__init__(f"{fault.value}: {detail}")
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Admission:
    """What a placement token says, once it has been found to hold here."""

    issuer: str
    """The `kid` of who placed the viewer: a controller's key, or a relay's id."""
    relays: tuple[str, ...]
    """First choice first."""
    root: Path
    issued_wall: float
    until_wall: float
    """When this relay stops taking it. Sessions that it let in before go on."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, and the header that all its tokens begin with."""

    id: str
    key: Ed25519PrivateKey
    header: bytes


def signer(key: Key) -> Signer:
    """Make a signer of one Ed25519 key that has a `kid`. Raises KeyFormatError."""
    private = key.material.get_op_key("sign") if key.can_sign and key.algorithm == "EdDSA" else None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFormatError("placement tokens are signed with an Ed25519 key (alg EdDSA) that may sign")
    if key.id is None:
        raise KeyFormatError("a key for placement tokens has a kid")
    return _signer(key.id, private)


def relay_signer(relay: str, seed: bytes) -> Signer:
    """Make the signer of a relay that places viewers itself, from the 32 bytes of its private Ed25519 key."""
    return _signer(relay, Ed25519PrivateKey.from_private_bytes(seed))


def announced_key(own: Signer) -> bytes:
    """What a relay tells others to check its tokens with (`Hello.placement_key`): 32 bytes."""
    return own.key.public_key().public_bytes_raw()


def admission_keys(table: RouteTable) -> dict[str, Ed25519PublicKey]:
    """Everybody whose placement tokens count under this table: controllers' keys and relays' own.

    A key that cannot be used is left out: the table is signed, and one bad key is no reason to admit nobody. Where a
    relay and a controller's key share a name the controller's counts.
    """
    keys: dict[str, Ed25519PublicKey] = {}
    for relay in table.relays:
        if len(relay.placement_key) == 32:
            keys[relay.id] = Ed25519PublicKey.from_public_bytes(relay.placement_key)
    for text in table.placement_keys:
        try:
            parsed = parse_keys(text)
        except KeyFormatError:
            continue
        for key in parsed:
            public = key.material.get_op_key("verify") if key.can_verify and key.algorithm == "EdDSA" else None
            if key.id is not None and isinstance(public, Ed25519PublicKey):
                keys[key.id] = public
    return keys


class TableKeys:
    """The keys of every table so far: who has died has placed viewers who are only now to go where it placed them.

    A relay's key counts for as long after the last table that named it as tokens of its may last; a controller's no
    longer than tables have it.
    """

    __slots__ = ("_relays",)

    def __init__(self) -> None:
        self._relays: OrderedDict[str, tuple[Ed25519PublicKey, float]] = OrderedDict()
        """By id: the key, and until when it counts. Who was named last is last."""

    def apply(self, table: RouteTable, now: float) -> dict[str, Ed25519PublicKey]:
        """Whose placement tokens count from this table on. `now`: monotonic seconds."""
        keys = admission_keys(table)
        for relay in table.relays:
            if relay.id in keys:
                self._relays[relay.id] = (keys[relay.id], now + FAILOVER_S)
                self._relays.move_to_end(relay.id)
        for relay_id, (_, until) in tuple(self._relays.items()):
            if until > now and len(self._relays) <= MAX_TABLE_KEYS:
                break
            del self._relays[relay_id]
        return {**{relay_id: key for relay_id, (key, _) in self._relays.items()}, **keys}


def mint_admission(
    signing: Signer,
    viewer: str,
    root: str,
    relays: Sequence[str],
    wall_now: float,
    *,
    first_s: float = FIRST_S,
    failover_s: float = FAILOVER_S,
    access_ends_wall: float | None = None,
) -> str:
    """Sign one token for all `relays` (1 to 4, the first choice first), for sessions that dial `root` or beneath it.

    `viewer` is the `viewer_digest` of the access token it was asked for with. The token ends `failover_s` after
    `wall_now` at the latest, and never after that access token.
    """
    issued = int(wall_now)
    ends = int(wall_now + failover_s)
    if access_ends_wall is not None and access_ends_wall < ends:
        ends = int(access_ends_wall)
    payload = _Payload(list(relays), ends, int(first_s), issued, root, viewer)
    signed = signing.header + b"." + _encode_part(_ENCODER.encode(payload))
    return (signed + b"." + _encode_part(signing.key.sign(signed))).decode("ascii")


def verify_admission(
    token: str, keys: AdmissionKeys, relay: str, access_token: str, path: str, wall_now: float
) -> Admission:
    """Check that `token` admits here, now, whoever dialled `path` with `access_token`.

    `relay` is our own id. The rights of the session are the access token's, which the caller checks by itself.
    Raises AdmissionError only.
    """
    issuer, payload = _checked(token, keys)
    if payload.iat > wall_now + CLOCK_SKEW_S:
        raise AdmissionError(AdmissionFault.NOT_YET_VALID, f"{payload.iat - wall_now:.0f} s ahead")
    if relay not in payload.aud:
        raise AdmissionError(AdmissionFault.ANOTHER_RELAY, f"for {', '.join(payload.aud)}")
    until = min(payload.exp, payload.iat + payload.first) if relay == payload.aud[0] else payload.exp
    if wall_now >= until:
        raise AdmissionError(AdmissionFault.EXPIRED, f"since {wall_now - until:.0f} s")
    if payload.sub != viewer_digest(access_token):
        raise AdmissionError(AdmissionFault.ANOTHER_VIEWER, "asked for with another access token")
    root = split_path(payload.root)
    if not starts_with(split_path(path), root):
        raise AdmissionError(AdmissionFault.ANOTHER_PATH, f"for {payload.root!r} and what is beneath it")
    return Admission(issuer, tuple(payload.aud), root, float(payload.iat), float(until))


def admission_of(target: str) -> str | None:
    """The placement token in what a client dialled (`/live?jwt=...&place=...`): the last that says something."""
    if len(target) > MAX_TARGET_LENGTH:
        return None
    found = None
    for pair in target.partition("?")[2].partition("#")[0].split("&"):
        name, _, value = pair.partition("=")
        if name == PARAMETER and value:
            found = unquote_plus(value)
    return found


def viewer_digest(access_token: str) -> str:
    """What binds a placement token to an access token: 22 characters that do not lead back to it."""
    digest = hashlib.sha256(access_token.encode("utf-8", "surrogatepass")).digest()
    return _encode_part(digest[:16]).decode("ascii")


class _Header(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing but what `_signer` writes: what is not known might mean something."""

    alg: Literal["EdDSA"]
    kid: Annotated[str, Meta(min_length=1, max_length=128)]
    typ: Literal["place+jwt"]


class _Payload(Struct, frozen=True, forbid_unknown_fields=True):
    aud: Annotated[list[Name], Meta(min_length=1, max_length=MAX_RELAYS)]
    exp: _Moment
    first: _Moment
    """Seconds for which the first relay takes it."""
    iat: _Moment
    root: Annotated[str, Meta(max_length=MAX_ROOT_LENGTH)]
    sub: Annotated[str, Meta(min_length=22, max_length=22)]


_ENCODER = msgspec.json.Encoder()
_HEADERS = msgspec.json.Decoder(_Header)
_PAYLOADS = msgspec.json.Decoder(_Payload)


def _signer(key_id: str, private: Ed25519PrivateKey) -> Signer:
    header = json.dumps({"alg": "EdDSA", "kid": key_id, "typ": _TYPE}, separators=(",", ":"))
    return Signer(key_id, private, _encode_part(header.encode()))


def _checked(token: str, keys: AdmissionKeys) -> tuple[str, _Payload]:
    """Who signed it and what it says; the signature holds."""
    parts = token.split(".") if len(token) <= MAX_TOKEN_BYTES and token.isascii() else []
    if len(parts) != 3:
        raise AdmissionError(AdmissionFault.MALFORMED, f"not three parts in {MAX_TOKEN_BYTES} bytes")
    header = _decoded(_HEADERS, parts[0])
    key = keys.get(header.kid)
    if key is None:
        raise AdmissionError(AdmissionFault.UNKNOWN_KEY, "no key of the table has the kid it names")
    try:
        key.verify(_decode_part(parts[2]), f"{parts[0]}.{parts[1]}".encode("ascii"))
    except InvalidSignature as error:
        raise AdmissionError(AdmissionFault.BAD_SIGNATURE, "the signature is not this key's") from error
    return header.kid, _decoded(_PAYLOADS, parts[1])


def _decoded(decoder: msgspec.json.Decoder[Any], part: str) -> Any:
    try:
        return decoder.decode(_decode_part(part))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise AdmissionError(AdmissionFault.MALFORMED, "not what a placement token consists of") from error


def _encode_part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode_part(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise AdmissionError(AdmissionFault.MALFORMED, "not base64url") from error
