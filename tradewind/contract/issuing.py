"""Making a mesh's certificates: its authority's, and those of its nodes. `tradewind cert` calls this.

Serial numbers and times (wall seconds) are passed in; only `generate_key` throws dice. What comes out is DER, for
`identity` to read; `certificate_pem` and `key_pem` write it as files have it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tradewind.contract.identity import (
    MAX_CERTIFICATE_BYTES,
    SCHEME,
    USAGES,
    PrivateKey,
    PublicKey,
    node_uri,
    parse_certificate,
    server_name,
)
from tradewind.contract.ids import Role, is_name

MAX_NAMES = 32
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")


class OrderError(ValueError):
    """A certificate was asked for that nobody would take; says why."""


@dataclass(frozen=True, slots=True)
class Order:
    """Whom a certificate is for. Raises OrderError where a name is none."""

    mesh: str
    role: Role
    region: str
    id: str
    names: tuple[str, ...] = ()
    """Hosts and IP addresses that the node is dialled at, besides `identity.server_name`."""

    def __post_init__(self) -> None:
        for what, name in (("mesh", self.mesh), ("region", self.region), ("id", self.id)):
            if not is_name(name):
                raise OrderError(f"{what} {name!r} is not 1 to 40 of a-z, 0-9 and inner hyphens")
        if len(self.names) > MAX_NAMES:
            raise OrderError(f"more than {MAX_NAMES} names")
        for name in self.names:
            _general_name(name)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a certificate has besides whom it is for. Times are wall seconds."""

    serial: int
    begins: float
    ends: float

    def __post_init__(self) -> None:
        if not 0 < self.serial < 2**159:
            raise OrderError("the serial number is not positive and below 2^159")
        if self.begins >= self.ends:
            raise OrderError("the certificate would end before it begins")


def generate_key() -> PrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def make_authority(mesh: str, key: PrivateKey, terms: Terms) -> bytes:
    """The certificate of a mesh's authority, signed by itself. Raises OrderError."""
    if not is_name(mesh):
        raise OrderError(f"mesh {mesh!r} is not 1 to 40 of a-z, 0-9 and inner hyphens")
    name = _name(f"{SCHEME} mesh {mesh}")
    builder = (
        _builder(name, name, key.public_key(), terms)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([_uri(f"{SCHEME}://{mesh}")]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def issue(order: Order, public_key: PublicKey, authority: bytes, authority_key: PrivateKey, terms: Terms) -> bytes:
    """A node's certificate from an authority (DER) and its key. Raises OrderError where the key is not its."""
    issuer = x509.load_der_x509_certificate(authority)
    if issuer.public_key() != authority_key.public_key():
        raise OrderError("the key is not the authority's")
    hosts = dict.fromkeys((server_name(order.mesh, order.id), *order.names))
    names = [_uri(node_uri(order.mesh, order.role, order.region, order.id)), *map(_general_name, hosts)]
    builder = (
        _builder(_name(order.id), issuer.subject, public_key, terms)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(USAGES), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    der = builder.sign(authority_key, hashes.SHA256()).public_bytes(Encoding.DER)
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise OrderError(f"with these names the certificate has {len(der)} bytes, and nobody takes that")
    return der


def order_of(der: bytes) -> Order:
    """What a node's certificate was ordered as, to order it again. Raises IdentityError, OrderError."""
    found = parse_certificate(der)
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = [
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]
    ours = server_name(found.mesh, found.id)
    return Order(found.mesh, found.role, found.region, found.id, tuple(host for host in hosts if host != ours))


def certificate_pem(der: bytes) -> bytes:
    """A certificate as files have it."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def key_pem(key: PrivateKey) -> bytes:
    """A private key as files have it, unencrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(subject: x509.Name, issuer: x509.Name, key: PublicKey, terms: Terms) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(terms.serial)
        .not_valid_before(dt.datetime.fromtimestamp(int(terms.begins), dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(int(terms.ends), dt.UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host.lower()) or host.rpartition(".")[2].isdigit():
        raise OrderError(f"{host!r} is no host and no IP address")
    return x509.DNSName(host.lower())


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
