"""A neighbour's session: what is told apart from everybody else's, as values.

`relay.node` admits one by the ticket that its link gave out, or has dialled it; `relay.attachment` then lets it read
and write everything, without the limits that viewers have: it has proven to be a relay of this mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.access import Grant
from relay.limits import Allowance, Limits, LimitSettings

EVERYTHING = Grant(root=(), publish=((),), subscribe=((),))
TICKET_TYPE = 0x5457
"""The token type of a ticket in SETUP."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A relay of our mesh: its id, its Hop ID, and the ticket to show when we dial it."""

    id: str
    hop: int
    ticket: bytes = b""


def allowance(now: float) -> Allowance:
    """What a neighbour may have: all of it."""
    found = Limits(LimitSettings(**dict.fromkeys(LimitSettings.__slots__, 0))).open_session("", None, now)
    assert isinstance(found, Allowance)
    return found
