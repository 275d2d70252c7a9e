"""A neighbour's session: what is told apart from everybody else's, as values.

`relay.node` admits one by the ticket that its link gave out, or has dialled it; `relay.attachment` then lets it read
and write everything, without the limits that viewers have: it has proven to be a relay of this mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from relay.access import Grant
from relay.forwarding.routes import Way
from relay.limits import Allowance, Limits, LimitSettings
from tradewind.moqt.model import Parameters, TokenUse
from tradewind.moqt.parameters import RawToken, SetupOptions
from tradewind.moqt.settings import SessionSettings

EVERYTHING = Grant(root=(), publish=((),), subscribe=((),))
TICKET_TYPE = 0x5457
"""The token type of a ticket in SETUP."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A relay of our mesh: its id, its Hop ID, and the ticket to show when we dial it."""

    id: str
    hop: int
    ticket: bytes = b""

    def setup(self, implementation: str) -> SetupOptions:
        """The SETUP that we begin with where we dialled it."""
        token = RawToken(TokenUse.USE_VALUE, None, TICKET_TYPE, self.ticket)
        return SetupOptions(path="/", authority=self.id, tokens=(token,), implementation=implementation)


def parameters_of(way: Way) -> Parameters:
    """How a way is said in PUBLISH_NAMESPACE: what is as usual is left out."""
    return Parameters(
        hop_path=way.hops,
        route_cost=way.cost or None,
        tracks=way.tracks or None,
        announced=None if way.announced else False,
    )


def way_of(parameters: Parameters) -> Way | None:
    """The way that a PUBLISH_NAMESPACE says; None where it says none."""
    if parameters.hop_path is None:
        return None
    return Way(
        parameters.hop_path,
        parameters.route_cost or 0,
        parameters.tracks or frozenset(),
        parameters.announced is not False,
    )


def session_settings(settings: SessionSettings) -> SessionSettings:
    """A neighbour's session has room for a whole relay's tracks."""
    return replace(settings, max_requests=8192, max_id_gaps=16_384, max_retired_aliases=16_384, max_waiting_streams=256)


def allowance(now: float) -> Allowance:
    """What a neighbour may have: all of it."""
    found = Limits(LimitSettings(**dict.fromkeys(LimitSettings.__slots__, 0))).open_session("", None, now)
    assert isinstance(found, Allowance)
    return found
