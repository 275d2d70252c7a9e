"""A mesh's authority and its nodes' certificates, for tests: keys from numbers that every reader may know."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from relay.mesh.meeting import Credentials
from tradewind.contract.identity import Authority, PrivateKey
from tradewind.contract.ids import Role
from tradewind.contract.issuing import Order, Terms, certificate_pem, issue, key_pem, make_authority
from tradewind.quic.config import Certificate, load_certificate

BEGINS, ENDS = 1_600_000_000.0, 4_000_000_000.0


def key_of(name: str) -> PrivateKey:
    """The same key for the same name."""
    return ec.derive_private_key(int.from_bytes(name.encode().ljust(16, b"."), "big"), ec.SECP256R1())


@cache
def authority(mesh: str) -> bytes:
    """The mesh's certificate, DER."""
    return make_authority(mesh, key_of(f"authority {mesh}"), Terms(1, BEGINS, ENDS))


@cache
def node(mesh: str, name: str, region: str, role: Role = Role.RELAY, ends: float = ENDS) -> bytes:
    """A node's certificate, DER."""
    order = Order(mesh, role, region, name)
    key = key_of(f"authority {mesh}")
    return issue(order, key_of(name).public_key(), authority(mesh), key, Terms(2, BEGINS, ends))


def credentials(mesh: str, name: str, region: str, role: Role = Role.RELAY) -> Credentials:
    """What a node proves itself with."""
    return Credentials(Authority([authority(mesh)]), node(mesh, name, region, role), key_of(name))


def served(mesh: str, name: str, region: str, role: Role = Role.RELAY) -> Certificate:
    """The same as a server's certificate."""
    return load_certificate(certificate_pem(node(mesh, name, region, role)), key_pem(key_of(name)))


def trusted(mesh: str) -> bytes:
    """The authority, PEM."""
    return certificate_pem(authority(mesh))


def write_files(directory: Path, mesh: str, name: str) -> tuple[str, ...]:
    """Files of a relay's place in a mesh, and the flags that name them; what stands before the first hyphen of its
    name is its region.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        "ca": trusted(mesh),
        "cert": certificate_pem(node(mesh, name, name.partition("-")[0])),
        "key": key_pem(key_of(name)),
    }
    for kind, pem in files.items():
        (directory / kind).write_bytes(pem)
    return tuple(flag for kind in files for flag in (f"--mesh.{kind}", str(directory / kind)))
