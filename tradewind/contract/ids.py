"""What things are called between nodes: checked once, where they come in, and plain strings and numbers after that.

A node's id and region come from its certificate and from nowhere else (`identity`).
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


class Role(Enum):
    """What a node may do in the mesh; written in its certificate."""

    RELAY = "relay"
    CONTROLLER = "controller"


class Stage(Enum):
    """Where a relay is in its life, as everybody else is told."""

    SERVING = "serving"
    CORDONED = "cordoned"
    """Goes on as it is, and nobody new is sent to it."""
    DRAINING = "draining"
    """Its sessions are asked to move, a wave at a time."""
    EMPTY = "empty"


def is_name(text: str) -> bool:
    """Whether this may name a node, a region or a mesh: 1 to 40 of a-z, 0-9 and inner hyphens."""
    return _NAME.fullmatch(text) is not None


def hop_id(mesh: str, node: str) -> int:
    """A relay's Hop ID (MoQ Cluster, "Hop IDs"): the same in every life of the relay, never 0, below 2^62."""
    digest = hashlib.sha256(f"tradewind hop {mesh}/{node}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2 or 1
