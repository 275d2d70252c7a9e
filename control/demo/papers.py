"""EDGE: the files that the demo's nodes need: authority and certificates, keys, tokens, where addresses are."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from control.demo.world import MESH, RELAYS, prefixes
from tradewind.contract.ids import Role
from tradewind.contract.issuing import (
    Order,
    Terms,
    certificate_pem,
    generate_key,
    issue,
    key_pem,
    make_authority,
)
from tradewind.contract.roles import Operator, OperatorRole, sign_operator
from tradewind.contract.token import Claims, parse_keys, sign
from tradewind.contract.token import generate_key as generate_token_key
from tradewind.keys import credentials_pem, development_credentials

CONTROLLER = "control-1"
LIFE_S = 7 * 86_400.0
BACKDATED_S = 300.0


class Identities:
    """A mesh's authority, made now, and who its nodes are by it."""

    def __init__(self, mesh: str, wall_now: float) -> None:
        self._mesh = mesh
        self._wall_now = wall_now
        self._key = generate_key()
        self._authority = make_authority(mesh, self._key, self._terms())

    def write(self, directory: Path, role: Role, region: str, id: str, names: tuple[str, ...] = ()) -> None:
        """The authority, a node's certificate and its key, as files in a directory that is there."""
        key = generate_key()
        order = Order(self._mesh, role, region, id, names)
        certificate = issue(order, key.public_key(), self._authority, self._key, self._terms())
        files = {"ca": certificate_pem(self._authority), "cert": certificate_pem(certificate), "key": key_pem(key)}
        for name, data in files.items():
            (directory / name).write_bytes(data)

    def _terms(self) -> Terms:
        return Terms(secrets.randbits(120) | 1, self._wall_now - BACKDATED_S, self._wall_now + LIFE_S)


def identity_flags(directory: Path, prefix: str = "--mesh.") -> tuple[str, ...]:
    """What tells a node where the files are that `Identities.write` wrote."""
    return tuple(word for name in ("ca", "cert", "key") for word in (f"{prefix}{name}", str(directory / name)))


@dataclass(frozen=True, slots=True)
class Papers:
    """Where everything is, and what else somebody has to show."""

    directory: Path
    sha256: str
    """Of the one certificate that all relays show to viewers."""
    viewer_token: str
    publisher_token: str
    operator_token: str

    def node(self, id: str) -> Path:
        """The directory of one node: what it keeps is there too."""
        return self.directory / id

    def identity(self, id: str) -> tuple[str, ...]:
        """Flags for who a node is in the mesh."""
        return identity_flags(self.node(id))

    @property
    def access_keys(self) -> str:
        return str(self.directory / "access.jwk")

    @property
    def operator_keys(self) -> str:
        return str(self.directory / "operators.jwk")

    @property
    def prefixes(self) -> str:
        return str(self.directory / "prefixes.csv")

    @property
    def tls(self) -> tuple[str, ...]:
        """Flags for what viewers are shown."""
        return ("--tls.cert", str(self.directory / "tls.crt"), "--tls.key", str(self.directory / "tls.key"))


def write_papers(directory: Path) -> Papers:
    """Make everything new, for a week."""
    wall_now = time.time()
    identities = Identities(MESH, wall_now)
    nodes = [(Role.RELAY, spot.region, spot.id) for spot in RELAYS]
    for role, region, id in (*nodes, (Role.CONTROLLER, "hkg", CONTROLLER)):
        (directory / id).mkdir()
        identities.write(directory / id, role, region, id, ("127.0.0.1",))
    access = generate_token_key("HS256", "shop")
    operators = generate_token_key("HS256", "ops")
    (directory / "access.jwk").write_text(json.dumps(access))
    (directory / "operators.jwk").write_text(json.dumps(operators))
    (directory / "prefixes.csv").write_text(prefixes())
    shown = development_credentials(("localhost", "127.0.0.1"), wall_now)
    for name, data in zip(("tls.crt", "tls.key"), credentials_pem(shown), strict=True):
        (directory / name).write_bytes(data)
    (access_key,), (operator_key,) = parse_keys(json.dumps(access)), parse_keys(json.dumps(operators))
    return Papers(
        directory,
        shown.sha256,
        sign(Claims("", get=("live",), put=("live/demo/chat",)), access_key),
        sign(Claims("", get=("live",), put=("live",)), access_key),
        sign_operator(Operator("demo", OperatorRole.ADMIN), operator_key, wall_now, wall_now + LIFE_S),
    )
