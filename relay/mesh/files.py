"""EDGE: a relay's place in its mesh, from files and settings, as values that `relay.run` puts together.

Its id and region come from its certificate and from nowhere else.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path

from relay.config import Config, MeshSection, parse_neighbour
from relay.mesh.meeting import Credentials
from relay.mesh.mesh import PRIVATE_NAMES, MeshSettings
from relay.settings import quic_settings
from tradewind.contract.identity import (
    IdentityError,
    NodeIdentity,
    parse_authority,
    parse_pem_certificate,
    parse_pem_key,
)
from tradewind.contract.ids import Role
from tradewind.keys import KeyMaterialError
from tradewind.quic.config import Address, Certificate, PrivateProtocols, ServerTrust, load_certificate

BOOT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Membership:
    """One relay's place in one mesh."""

    identity: NodeIdentity
    settings: MeshSettings
    private: PrivateProtocols
    neighbours: dict[str, Address]
    """Those that the settings name, by id."""


def membership(config: Config) -> Membership | None:
    """What the files of `[mesh]` say; None where there are none. Raises KeyMaterialError."""
    mesh = config.mesh
    if mesh.ca is None or mesh.cert is None or mesh.key is None:
        return None
    try:
        authority_pem, certificate_pem, key_pem = (Path(name).read_bytes() for name in (mesh.ca, mesh.cert, mesh.key))
        authority = parse_authority(authority_pem)
        der = parse_pem_certificate(certificate_pem)
        identity = authority.verify(der, time.time(), role=Role.RELAY)
        credentials = Credentials(authority, der, parse_pem_key(key_pem))
        served: Certificate = load_certificate(certificate_pem, key_pem)
    except (OSError, ValueError, IdentityError) as error:
        raise KeyMaterialError(f"{mesh.cert}: {error}") from error
    if identity.mesh != mesh.name:
        raise KeyMaterialError(f"{mesh.cert}: of the mesh {identity.mesh}, not {mesh.name}")
    dialling = replace(
        quic_settings(config),
        protocols=PRIVATE_NAMES,
        trust=ServerTrust(authorities_pem=authority_pem),
        keep_alive_s=config.quic.idle_timeout_s / 3,
    )
    settings = MeshSettings(
        identity.mesh,
        identity.id,
        credentials,
        replace(dialling, limits=replace(dialling.limits, bidi_streams=4096, uni_streams=4096)),
        secrets.token_bytes(BOOT_BYTES),
        secrets.token_bytes,
    )
    return Membership(identity, settings, PrivateProtocols(PRIVATE_NAMES, served), _spots(mesh))


def _spots(mesh: MeshSection) -> dict[str, Address]:
    found = (parse_neighbour(text) for text in mesh.neighbours)
    return {name: (address.host, address.port) for name, address in filter(None, found)}
