"""Who a node is: what its certificate says, once the mesh's authority has been found to say so.

A node's mesh, role, region and id stand in one URI of its certificate, `tradewind://MESH/ROLE/REGION/ID`, and are taken
from nowhere else. `proving` checks the other end of a connection with this, stores and links check signed tables,
`issuing` makes the certificates. Keys are ECDSA on P-256 throughout. Every signature is over a statement that begins
with what it is for, so that none can be shown as another. Wall seconds are passed in; nothing here reads a file.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from tradewind.contract.ids import Role, is_name
from tradewind.contract.messages import SignedTable

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey

SCHEME: Final = "tradewind"
CLOCK_SKEW_S = 60.0
"""How far another node's clock may be from ours."""
MAX_CERTIFICATE_BYTES = 8192
MAX_AUTHORITIES = 8
MAX_SIGNATURE_BYTES = 512
USAGES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""A node dials and is dialled with the same certificate."""

_TABLE = b"tradewind route table 1"
_UNDERSTOOD = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName,
    x509.AuthorityKeyIdentifier,
    x509.SubjectKeyIdentifier,
)
_UNREADABLE = (
    *(ValueError, TypeError, OverflowError, Warning, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.ExtensionNotFound, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)
"""What the parser raises on certificates that are not as they should be."""


class Reason(Enum):
    """Why a node is not who it says."""

    NONE = "none"
    """It showed nothing, or not in time."""
    SELF_SIGNED = "self-signed"
    UNKNOWN_AUTHORITY = "unknown-authority"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    WRONG_ROLE = "wrong-role"
    WRONG_MESH = "wrong-mesh"
    WRONG_ID = "wrong-id"
    REPLAYED = "replayed"
    BAD_SIGNATURE = "bad-signature"
    MALFORMED = "malformed"


class IdentityError(Exception):
    """A node that is not who it should be; `reason` says why. Ends the connection, before anything else is said."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What a certificate says of a node. Times are wall seconds."""

    mesh: str
    role: Role
    region: str
    id: str
    not_before: float
    not_after: float
    der: bytes = field(repr=False)

    @property
    def uri(self) -> str:
        """As it stands in the certificate."""
        return node_uri(self.mesh, self.role, self.region, self.id)


class Authority:
    """Who may say who is who in a mesh: its CA certificates, several while one takes over from another.

    Raises IdentityError where one of them (DER) is no mesh's authority, or they are of several meshes.
    """

    __slots__ = ("_loaded", "certificates", "mesh")

    def __init__(self, certificates: Sequence[bytes]) -> None:
        if not certificates:
            raise IdentityError(Reason.NONE, "no authority")
        if len(certificates) > MAX_AUTHORITIES:
            raise IdentityError(Reason.MALFORMED, f"more than {MAX_AUTHORITIES} authorities")
        self.certificates = tuple(certificates)
        self._loaded = tuple(map(_load, certificates))
        meshes = {_authority_mesh(certificate) for certificate in self._loaded}
        if len(meshes) != 1:
            raise IdentityError(Reason.WRONG_MESH, f"authorities of several meshes: {', '.join(sorted(meshes))}")
        (self.mesh,) = meshes

    def verify(self, der: bytes, wall_now: float, role: Role | None = None, id: str | None = None) -> NodeIdentity:
        """Who the holder of this certificate is; `role` and `id` are what it must be, None: any.

        Raises IdentityError. Says nothing about who sent the certificate: that takes a signature (`check_signature`).
        """
        if not der:
            raise IdentityError(Reason.NONE, "no certificate")
        certificate = _load(der)
        issuer = self._issuer(certificate)
        found = _identity(certificate, der)
        _check_time(
            issuer.not_valid_before_utc.timestamp(), issuer.not_valid_after_utc.timestamp(), wall_now, "authority"
        )
        _check_time(found.not_before, found.not_after, wall_now, "certificate")
        if found.mesh != self.mesh:
            raise IdentityError(Reason.WRONG_MESH, f"{found.uri} in the mesh {self.mesh}")
        if role is not None and role is not found.role:
            raise IdentityError(Reason.WRONG_ROLE, f"{found.uri} is no {role.value}")
        if id not in {None, found.id}:
            raise IdentityError(Reason.WRONG_ID, f"{found.uri} is not {id}")
        return found

    def _issuer(self, certificate: x509.Certificate) -> x509.Certificate:
        """The authority that signed a certificate."""
        named = [authority for authority in self._loaded if authority.subject == certificate.issuer]
        for authority in named:
            if _is_signed_by(certificate, authority):
                return authority
        if _key_id(certificate, x509.AuthorityKeyIdentifier) in {_key_id(a, x509.SubjectKeyIdentifier) for a in named}:
            raise IdentityError(Reason.BAD_SIGNATURE, "the certificate is not as the authority signed it")
        if certificate.issuer == certificate.subject:
            raise IdentityError(Reason.SELF_SIGNED, "the certificate is signed by itself")
        raise IdentityError(Reason.UNKNOWN_AUTHORITY, "the certificate is not from this mesh's authority")


def parse_authority(pem: bytes) -> Authority:
    """The CA certificates in a PEM file: one, or the old one and the new one. Raises IdentityError."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise IdentityError(Reason.MALFORMED, "not PEM certificates") from error
    return Authority([certificate.public_bytes(Encoding.DER) for certificate in certificates])


def parse_pem_certificate(pem: bytes) -> bytes:
    """The first certificate in a PEM file, as DER. Raises IdentityError."""
    try:
        return x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
    except ValueError as error:
        raise IdentityError(Reason.MALFORMED, "not a PEM certificate") from error


def parse_pem_key(pem: bytes) -> PrivateKey:
    """An unencrypted P-256 private key. Raises IdentityError, which never quotes it."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(Reason.MALFORMED, "not an unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError(Reason.MALFORMED, "not a P-256 key")
    return key


def parse_certificate(der: bytes) -> NodeIdentity:
    """What a node's certificate says, believed by nobody yet. Raises IdentityError (MALFORMED, or NONE where empty)."""
    if not der:
        raise IdentityError(Reason.NONE, "no certificate")
    return _identity(_load(der), der)


def node_uri(mesh: str, role: Role, region: str, id: str) -> str:
    """The URI in a node's certificate."""
    return f"{SCHEME}://{mesh}/{role.value}/{region}/{id}"


def server_name(mesh: str, id: str) -> str:
    """A DNS name in every certificate of that node, so that it can be dialled at any address and TLS knows it."""
    return f"{id}.{mesh}.{SCHEME}.internal"


def public_key(der: bytes) -> PublicKey:
    """The key that a certificate is about. Raises IdentityError."""
    return _public_key(_load(der))


def validity(der: bytes) -> tuple[float, float]:
    """When a certificate begins and ends, wall seconds. Raises IdentityError."""
    certificate = _load(der)
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


# --- Signatures ---


def sign(purpose: bytes, fields: Sequence[bytes], key: PrivateKey) -> bytes:
    """Sign a statement: what it is for, and its fields, each with its length so that no two can be shifted."""
    return key.sign(_statement(purpose, fields), ec.ECDSA(hashes.SHA256()))


def check_signature(der: bytes, purpose: bytes, fields: Sequence[bytes], signature: bytes) -> None:
    """Raise IdentityError (BAD_SIGNATURE) where this is not what the certificate's holder signed."""
    try:
        public_key(der).verify(signature, _statement(purpose, fields), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise IdentityError(Reason.BAD_SIGNATURE, "the statement is not as its holder signed it") from error


def sign_table(table: bytes, key: PrivateKey, certificate: bytes) -> SignedTable:
    """A route table (`codec.encode_table`) as relays take it from a controller with this certificate (DER)."""
    return SignedTable(table=table, certificate=certificate, signature=sign(_TABLE, [_sha256(table)], key))


def verify_table(signed: SignedTable, authority: Authority, wall_now: float) -> bytes:
    """The table that a controller of this mesh signed, for `codec.decode_table`. Raises IdentityError.

    For a `TableDelta`, `signed` is what `encode_table` made of its result, with the difference's own certificate and
    signature. Whom the table is for, and in which mesh, stands in the table.
    """
    authority.verify(signed.certificate, wall_now, role=Role.CONTROLLER)
    check_signature(signed.certificate, _TABLE, [_sha256(signed.table)], signed.signature)
    return signed.table


def _statement(purpose: bytes, fields: Sequence[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in (purpose, *fields))


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# --- Certificates ---


def _load(der: bytes) -> x509.Certificate:
    """Parse a certificate, all of it: parts are otherwise read, and found broken, when they are asked for."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise IdentityError(Reason.MALFORMED, f"a certificate of {len(der)} bytes")
    try:
        with warnings.catch_warnings():
            # What the parser only warns of today it refuses tomorrow; no certificate of ours is among it.
            warnings.simplefilter("error")
            certificate = x509.load_der_x509_certificate(der)
            unknown = [
                extension.oid.dotted_string
                for extension in certificate.extensions
                if extension.critical and not isinstance(extension.value, _UNDERSTOOD)
            ]
            _ = (certificate.subject, certificate.issuer, certificate.serial_number, certificate.public_key())
            _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except _UNREADABLE as error:
        raise IdentityError(Reason.MALFORMED, "not a certificate that can be read") from error
    if not der.endswith(b"\x00" + certificate.signature):
        # The parser does not look at how many bits of the signature's last byte are said to count: all do.
        raise IdentityError(Reason.MALFORMED, "a signature that is not whole bytes")
    if unknown:
        raise IdentityError(Reason.MALFORMED, f"critical extension {unknown[0]}")
    return certificate


def _identity(certificate: x509.Certificate, der: bytes) -> NodeIdentity:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise IdentityError(Reason.MALFORMED, "the certificate does not say what it is for") from error
    if constraints.ca or not usage.digital_signature or not set(USAGES) <= set(extended):
        raise IdentityError(Reason.MALFORMED, "the certificate is for something else than to be a node")
    _public_key(certificate)
    scheme, _, place = _uri(certificate).partition("://")
    parts = place.split("/")
    if scheme != SCHEME or len(parts) != 4 or parts[1] not in _ROLES or not all(map(is_name, parts)):
        raise IdentityError(Reason.MALFORMED, "the certificate's URI names no node")
    return NodeIdentity(
        mesh=parts[0],
        role=_ROLES[parts[1]],
        region=parts[2],
        id=parts[3],
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        der=bytes(der),
    )


def _authority_mesh(certificate: x509.Certificate) -> str:
    """The mesh of an authority, which is signed by itself and for nothing but signing nodes."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise IdentityError(Reason.MALFORMED, "the certificate is not an authority's") from error
    if not constraints.ca or constraints.path_length != 0 or not usage.key_cert_sign:
        raise IdentityError(Reason.MALFORMED, "the certificate is not an authority's")
    _public_key(certificate)
    scheme, _, mesh = _uri(certificate).partition("://")
    if scheme != SCHEME or not is_name(mesh):
        raise IdentityError(Reason.MALFORMED, "the authority's URI names no mesh")
    if not _is_signed_by(certificate, certificate):
        raise IdentityError(Reason.BAD_SIGNATURE, "the authority is not signed by itself")
    return mesh


def _uri(certificate: x509.Certificate) -> str:
    """The one URI in a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise IdentityError(Reason.MALFORMED, "the certificate has no names") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityError(Reason.MALFORMED, f"the certificate has {len(uris)} URIs and not one")
    return uris[0]


def _public_key(certificate: x509.Certificate) -> PublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError(Reason.MALFORMED, "the certificate's key is not on P-256")
    return key


def _key_id(
    certificate: x509.Certificate, kind: type[x509.AuthorityKeyIdentifier | x509.SubjectKeyIdentifier]
) -> object:
    """How a certificate names its issuer's key, or its own. Good for finding and for telling why, not for trust."""
    try:
        value = certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return object()
    return value.key_identifier


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _check_time(begins: float, ends: float, wall_now: float, what: str) -> None:
    if wall_now < begins - CLOCK_SKEW_S:
        raise IdentityError(Reason.NOT_YET_VALID, f"the {what} begins in {begins - wall_now:.0f} s")
    if wall_now > ends + CLOCK_SKEW_S:
        raise IdentityError(Reason.EXPIRED, f"the {what} ended {wall_now - ends:.0f} s ago")


_ROLES = {role.value: role for role in Role}
