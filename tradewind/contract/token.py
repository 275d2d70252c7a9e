"""Access tokens and the keys that sign them: path-scoped JWTs, exactly as moq-relay understands them.

A token's `put` and `get` are path prefixes under its `root`: "" is everything there, "live" covers `live` and `live/a`
but not `lively`. Keys are JWKs, alone, in a set, or as moq-token writes them (base64url of the JSON, `kty` left out for
an oct key). `relay.access` verifies; `tradewind token` signs. Nothing here reads a file or a clock.

A path is a string on the outside and a tuple of fields inside (`split_path`); fields are not percent-decoded, as
moq-relay does not decode them, so that a token means the same on both.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc import jwk, jws
from joserfc.errors import JoseError

Path: TypeAlias = tuple[bytes, ...]

ALGORITHMS = (
    *("HS256", "HS384", "HS512", "ES256", "ES384", "EdDSA"),
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
)
MAX_TOKEN_BYTES = 8192
MAX_PREFIXES = 64
"""Prefixes in `put` or in `get`: each is compared with every namespace asked for."""
MAX_PATH_FIELDS = 32
MAX_KEY_ID_LENGTH = 128
CLOCK_SKEW_S = 60.0
"""How far the issuer's clock may run ahead of ours. Expiry is exact, as it is for moq-relay."""

_MIN_SECRET_BYTES = 32
_MIN_RSA_BITS = 2048
_CURVES = {"P-256": "ES256", "P-384": "ES384", "Ed25519": "EdDSA"}
_PRIVATE_PARAMETERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
_MAX_TIME = float(2**53)
_PLAIN_ALGORITHMS = ("EdDSA", "HS256")
_PLAIN_HEADER = frozenset({"alg", "kid", "typ"})


class Fault(Enum):
    """Why a token is no good."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    BAD_SIGNATURE = "bad-signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    USELESS = "useless"
    """It grants nothing."""
    BEYOND_KEY = "beyond-key"
    """It grants more than the key that signed it may."""


class TokenError(Exception):
    """A token that nobody should trust; `fault` says why."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(f"{fault.value}: {detail}")
        self.fault = fault
        self.detail = detail


class KeyFormatError(Exception):
    """A key file that cannot be used, and why. Never quotes the key."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. Times are wall seconds; None: the token does not say."""

    root: str = ""
    put: tuple[str, ...] = ()
    get: tuple[str, ...] = ()
    expires_at: float | None = None
    issued_at: float | None = None
    not_before: float | None = None
    subject: str | None = None
    id: str | None = None

    def publish_prefixes(self) -> tuple[Path, ...]:
        """What may be published, as whole paths."""
        return _rooted(self.root, self.put)

    def subscribe_prefixes(self) -> tuple[Path, ...]:
        """What may be subscribed to, as whole paths."""
        return _rooted(self.root, self.get)


@dataclass(frozen=True, slots=True)
class Scope:
    """The most that a key's tokens may grant, as whole paths."""

    publish: tuple[Path, ...]
    subscribe: tuple[Path, ...]

    def covers(self, claims: Claims) -> bool:
        """Whether every prefix in `claims` lies within one of ours."""
        return _all_within(claims.publish_prefixes(), self.publish) and _all_within(
            claims.subscribe_prefixes(), self.subscribe
        )


@dataclass(frozen=True, slots=True)
class Key:
    """One key, checked: its algorithm and material fit each other."""

    algorithm: str
    id: str | None
    can_sign: bool
    can_verify: bool
    scope: Scope | None
    material: jwk.Key


def split_path(path: str) -> Path:
    """Turn `/a//b/` into its fields; "" is the empty path. Slashes at the ends and doubled ones say nothing."""
    return tuple(field.encode("utf-8", "surrogateescape") for field in path.split("/") if field)


def starts_with(path: Path, prefix: Path) -> bool:
    """Whether `path` is `prefix` or lies beneath it, field by field."""
    return path[: len(prefix)] == prefix


def parse_keys(text: str, default_id: str | None = None) -> tuple[Key, ...]:
    """Read one key file: a JWK, a JWK set, or base64url of a JWK.

    `default_id` names a lone key that does not name itself (moq-relay finds keys by file name). Raises KeyFormatError.
    """
    document = _parse_document(text.strip())
    if isinstance(document.get("keys"), list):
        return tuple(_parse_key(_mapping(entry), None) for entry in document["keys"])
    return (_parse_key(document, default_id),)


def verify(token: str, keys: Sequence[Key], wall_now: float) -> Claims:
    """Check a token's signature, times and scope and return what it says.

    A single key is used whatever `kid` the token names; among several, `kid` chooses. Raises TokenError only.
    """
    payload, key = open_signed(token, keys)
    claims = parse_claims(payload)
    if claims.expires_at is not None and wall_now >= claims.expires_at:
        raise TokenError(Fault.EXPIRED, f"since {wall_now - claims.expires_at:.0f} s")
    for name, moment in (("nbf", claims.not_before), ("iat", claims.issued_at)):
        if moment is not None and moment > wall_now + CLOCK_SKEW_S:
            raise TokenError(Fault.NOT_YET_VALID, f"{name} is {moment - wall_now:.0f} s ahead")
    _check_grants(claims, key)
    return claims


def open_signed(token: str, keys: Sequence[Key]) -> tuple[bytes, Key]:
    """A token's payload, once its signature is found to be that key's; what it says is not looked at.

    A single key is used whatever `kid` the token names; among several, `kid` chooses. Raises TokenError only.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError(Fault.MALFORMED, f"longer than {MAX_TOKEN_BYTES} bytes")
    parts = token.split(".")
    header = _parse_payload(_decode_part(parts[0]))
    key = _choose(keys, _text(header, "kid"))
    if len(parts) == 3 and key.algorithm in _PLAIN_ALGORITHMS and header.keys() <= _PLAIN_HEADER:
        return _plainly_verified(parts, header, key), key
    return _verified_payload(token, key), key


def peek(token: str) -> Claims:
    """What a token says, its signature not looked at: for people, never for admission. Raises TokenError."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > MAX_TOKEN_BYTES:
        raise TokenError(Fault.MALFORMED, "not three parts joined by dots")
    return parse_claims(_decode_part(parts[1]))


def sign(claims: Claims, key: Key) -> str:
    """Sign a token. Raises TokenError where the claims grant nothing or more than the key may, or it cannot sign."""
    _check_can_sign(key)
    _check_grants(claims, key)
    return sign_payload(_claims_document(claims), key)


def sign_payload(document: Mapping[str, Any], key: Key) -> str:
    """Sign any payload as a JWT. Raises TokenError where the key cannot sign."""
    _check_can_sign(key)
    header = {"alg": key.algorithm, "typ": "JWT"}
    if key.id is not None:
        header["kid"] = key.id
    payload = json.dumps(document, separators=(",", ":"))
    return jws.serialize_compact(header, payload.encode(), key.material, registry=_Registry(key.algorithm))


def generate_key(algorithm: str, key_id: str | None) -> dict[str, Any]:
    """Make a new private key as a JWK document, with `alg`, `key_ops` and `kid` as moq-token writes them."""
    material: jwk.Key
    if algorithm.startswith("HS"):
        material = jwk.OctKey.generate_key(int(algorithm[2:]))
    elif algorithm.startswith(("RS", "PS")):
        material = jwk.RSAKey.generate_key(_MIN_RSA_BITS)
    elif algorithm == "EdDSA":
        material = jwk.OKPKey.generate_key("Ed25519")
    else:
        material = jwk.ECKey.generate_key("P-256" if algorithm == "ES256" else "P-384")
    document = {name: value for name, value in material.as_dict(private=True).items() if name != "kid"}
    return {"alg": algorithm, "key_ops": ["sign", "verify"], **document, **({"kid": key_id} if key_id else {})}


def public_key(document: Mapping[str, Any]) -> dict[str, Any]:
    """The half of a JWK that only verifies. Raises KeyFormatError for a shared secret, which has no such half."""
    if document.get("kty") == "oct":
        raise KeyFormatError("an HS key is one secret: it has no public half")
    public = {name: value for name, value in document.items() if name not in _PRIVATE_PARAMETERS}
    return {**public, "key_ops": ["verify"]}


def parse_claims(payload: bytes) -> Claims:
    """Read a token's payload. Raises TokenError(MALFORMED).

    Unknown claims say nothing about paths and are left alone, except those that would narrow what is granted: `aud`,
    and `publish` and `subscribe`, the patterns of newer issuers.
    """
    document = _parse_payload(payload)
    for name in ("aud", "publish", "subscribe"):
        if name in document:
            raise TokenError(Fault.MALFORMED, f"the claim {name!r} is not understood here")
    return Claims(
        root=_text(document, "root") or "",
        put=_prefixes(document, "put"),
        get=_prefixes(document, "get"),
        expires_at=_moment(document, "exp"),
        issued_at=_moment(document, "iat"),
        not_before=_moment(document, "nbf"),
        subject=_text(document, "sub"),
        id=_text(document, "jti"),
    )


class _Registry(jws.JWSRegistry):
    """Allows one algorithm, the key's own, without joserfc's remark that "EdDSA" has a newer name."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm], strict_check_header=False)
        self._algorithm = algorithm

    def get_alg(self, name: str) -> Any:
        if name != self._algorithm:
            raise JoseError(f"the key signs with {self._algorithm}")
        return self.algorithms[name]


def _parse_document(text: str) -> dict[str, Any]:
    try:
        if not text.startswith("{"):
            text = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        return _mapping(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise KeyFormatError("neither JSON nor base64url of JSON") from error


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise KeyFormatError("not a JSON object")
    return value


def _parse_key(document: Mapping[str, Any], default_id: str | None) -> Key:
    algorithm = document.get("alg")
    if algorithm not in ALGORITHMS:
        raise KeyFormatError(f"alg must be one of {', '.join(ALGORITHMS)}")
    operations = document.get("key_ops", ["sign", "verify"])
    if not isinstance(operations, list) or not all(isinstance(operation, str) for operation in operations):
        raise KeyFormatError("key_ops is not a list of names")
    key_id = document.get("kid", default_id)
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= MAX_KEY_ID_LENGTH):
        raise KeyFormatError(f"kid is not 1 to {MAX_KEY_ID_LENGTH} characters")
    material = _parse_material(document, algorithm)
    return Key(
        algorithm=algorithm,
        id=key_id,
        can_sign="sign" in operations and material.is_private,
        can_verify="verify" in operations,
        scope=_parse_scope(document.get("scope")),
        material=material,
    )


def _parse_material(document: Mapping[str, Any], algorithm: str) -> jwk.Key:
    names = ("crv", "x", "y", "d", "n", "e", "p", "q", "dp", "dq", "qi", "k")
    parameters = {name: document[name] for name in names if name in document}
    for name, value in parameters.items():
        if not isinstance(value, str):
            raise KeyFormatError(f"{name} is not a string")
        parameters[name] = value.rstrip("=")
    # Old moq-token files leave `kty` out, and were always shared secrets.
    parameters["kty"] = document.get("kty", "oct")
    try:
        material = jwk.import_key(parameters)
        _check_strength(material, parameters, algorithm)
    except (JoseError, ValueError, TypeError, KeyError, binascii.Error) as error:
        raise KeyFormatError(f"not a usable {parameters['kty']} key") from error
    return material


def _check_strength(material: jwk.Key, parameters: Mapping[str, str], algorithm: str) -> None:
    kind = parameters["kty"]
    if kind == "oct":
        secret = base64.urlsafe_b64decode(parameters["k"] + "=" * (-len(parameters["k"]) % 4))
        if len(secret) < _MIN_SECRET_BYTES:
            raise KeyFormatError(f"a secret has at least {_MIN_SECRET_BYTES} bytes")
        fits = algorithm.startswith("HS")
    elif kind == "RSA":
        public = material.get_op_key("verify")
        if not isinstance(public, RSAPublicKey) or public.key_size < _MIN_RSA_BITS:
            raise KeyFormatError(f"an RSA key has at least {_MIN_RSA_BITS} bits")
        fits = algorithm.startswith(("RS", "PS"))
    else:
        material.get_op_key("verify")
        fits = _CURVES.get(parameters.get("crv", "")) == algorithm
    if not fits:
        raise KeyFormatError(f"{algorithm} does not go with this kind of key")


def _parse_scope(document: Any) -> Scope | None:
    if document is None:
        return None
    if not isinstance(document, dict) or set(document) - {"root", "put", "get"}:
        raise KeyFormatError("scope has root, put and get, and nothing else is understood here")
    try:
        root, put, get = _text(document, "root") or "", _prefixes(document, "put"), _prefixes(document, "get")
    except TokenError as error:
        raise KeyFormatError(f"scope: {error.detail}") from error
    if not put and not get:
        raise KeyFormatError("a scope that allows nothing makes the key useless")
    return Scope(_rooted(root, put), _rooted(root, get))


def _choose(keys: Sequence[Key], key_id: str | None) -> Key:
    usable = [key for key in keys if key.can_verify]
    if len(usable) == 1:
        return usable[0]
    if key_id is None:
        raise TokenError(Fault.UNKNOWN_KEY, "it names no key, and there are several" if usable else "there are no keys")
    for key in usable:
        if key.id == key_id:
            return key
    raise TokenError(Fault.UNKNOWN_KEY, "no key has the kid it names")


def _plainly_verified(parts: Sequence[str], header: Mapping[str, Any], key: Key) -> bytes:
    """The payload of a token whose header has nothing to think about: most are such, and cost half of the general way.

    Raises TokenError.
    """
    refusal = TokenError(Fault.BAD_SIGNATURE, "the signature is not this key's")
    if header.get("alg") != key.algorithm or not isinstance(header.get("typ", ""), str):
        raise refusal
    signed = f"{parts[0]}.{parts[1]}".encode()
    secret = key.material.get_op_key("verify")
    try:
        payload, signature = _decode_part(parts[1]), _decode_part(parts[2])
        if base64.urlsafe_b64encode(signature).rstrip(b"=") != parts[2].encode():
            raise refusal  # One signature is written in one way.
        if isinstance(secret, Ed25519PublicKey):
            secret.verify(signature, signed)
        elif not isinstance(secret, bytes) or not hmac.compare_digest(hmac.digest(secret, signed, "sha256"), signature):
            raise refusal
    except (TokenError, InvalidSignature) as error:
        raise refusal from error
    return payload


def _verified_payload(token: str, key: Key) -> bytes:
    try:
        signature = jws.deserialize_compact(token, key.material, registry=_Registry(key.algorithm))
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TokenError(Fault.BAD_SIGNATURE, "the signature is not this key's") from error
    assert signature.payload is not None
    return signature.payload


def _check_grants(claims: Claims, key: Key) -> None:
    if not claims.put and not claims.get:
        raise TokenError(Fault.USELESS, "neither put nor get")
    if key.scope is not None and not key.scope.covers(claims):
        raise TokenError(Fault.BEYOND_KEY, "the key may not grant all of this")


def _check_can_sign(key: Key) -> None:
    if not key.can_sign:
        raise TokenError(Fault.BAD_SIGNATURE, "this key can only verify")


def _decode_part(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (ValueError, UnicodeError) as error:
        raise TokenError(Fault.MALFORMED, "not base64url") from error


def _parse_payload(payload: bytes) -> dict[str, Any]:
    try:
        document = json.loads(payload, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TokenError(Fault.MALFORMED, "not a JSON object with each name once") from error
    if not isinstance(document, dict):
        raise TokenError(Fault.MALFORMED, "not a JSON object")
    return document


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Two claims of one name mean different things to different readers."""
    listed = list(pairs)
    document = dict(listed)
    if len(document) != len(listed):
        raise ValueError("a name stands twice")
    return document


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _prefixes(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = document.get(name)
    listed = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(listed, list) or not all(isinstance(prefix, str) and _is_text(prefix) for prefix in listed):
        raise TokenError(Fault.MALFORMED, f"{name} is neither a path nor a list of paths")
    if len(listed) > MAX_PREFIXES or any(len(split_path(prefix)) > MAX_PATH_FIELDS for prefix in listed):
        raise TokenError(Fault.MALFORMED, f"{name} has more than {MAX_PREFIXES} paths or {MAX_PATH_FIELDS} fields")
    return tuple(listed)


def _moment(document: Mapping[str, Any], name: str) -> float | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TIME:
        raise TokenError(Fault.MALFORMED, f"{name} is not a time")
    return float(value)


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not (isinstance(value, str) and _is_text(value)):
        raise TokenError(Fault.MALFORMED, f"{name} is not a string")
    return value


def _is_text(value: str) -> bool:
    """JSON can spell half a character, which no path on the wire can."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _rooted(root: str, prefixes: Sequence[str]) -> tuple[Path, ...]:
    return tuple(split_path(root) + split_path(prefix) for prefix in prefixes)


def _all_within(asked: Iterable[Path], allowed: Sequence[Path]) -> bool:
    return all(any(starts_with(path, prefix) for prefix in allowed) for path in asked)


def _claims_document(claims: Claims) -> dict[str, Any]:
    """Claims as moq-token writes them: what is empty is left out."""
    times = {"exp": claims.expires_at, "iat": claims.issued_at, "nbf": claims.not_before}
    return {
        **({"root": claims.root} if claims.root else {}),
        **({"put": list(claims.put)} if claims.put else {}),
        **({"get": list(claims.get)} if claims.get else {}),
        **{name: int(moment) for name, moment in times.items() if moment is not None},
        **({"sub": claims.subject} if claims.subject is not None else {}),
        **({"jti": claims.id} if claims.id is not None else {}),
    }
