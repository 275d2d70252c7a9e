"""A mesh's authority and nodes for tests: made once, from keys that are always the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from tradewind.contract.identity import Authority, PrivateKey
from tradewind.contract.ids import Role
from tradewind.contract.issuing import Order, Terms, issue, make_authority

NOW = 1_795_340_900.0
"""Wall seconds."""
DAY_S = 86_400.0


def key(number: int) -> PrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Node:
    der: bytes
    key: PrivateKey


@dataclass(frozen=True, slots=True)
class Mesh:
    authority: Authority
    der: bytes
    key: PrivateKey

    def node(
        self,
        id: str = "fra-1",
        role: Role = Role.RELAY,
        number: int = 100,
        begins: float = -300.0,
        ends: float = 90 * DAY_S,
        **order: Any,
    ) -> Node:
        """A node of this mesh; `begins` and `ends` are seconds from NOW."""
        order = {"mesh": self.authority.mesh, "role": role, "region": "fra", "id": id, **order}
        terms = Terms(number, NOW + begins, NOW + ends)
        return Node(issue(Order(**order), key(number).public_key(), self.der, self.key, terms), key(number))


def make_mesh(number: int = 1, mesh: str = "shop", begins: float = -DAY_S, ends: float = 3650 * DAY_S) -> Mesh:
    der = make_authority(mesh, key(number), Terms(number, NOW + begins, NOW + ends))
    return Mesh(Authority([der]), der, key(number))


MESH = make_mesh()
RELAY = MESH.node("fra-1", Role.RELAY, 11)
OTHER_RELAY = MESH.node("ams-2", Role.RELAY, 12, region="ams")
CONTROLLER = MESH.node("main", Role.CONTROLLER, 13)
