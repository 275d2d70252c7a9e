"""A relay that places viewers itself, from its last route table: what there is while no controller answers.

`relay.node` hands in tables as they come and `relay.ops` the questions. The rules about markets hold here as well;
loads are as old as the table, and what was decided since is counted on top. Viewers stay where they are, but for those
of a relay that is being emptied, for whom it looks for another one itself (`move`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from tradewind.contract.admission import MAX_ROOT_LENGTH, Signer, mint_admission
from tradewind.contract.messages import MarketEntry, RouteTable
from tradewind.contract.token import Key
from tradewind.placing.answering import Desk, Edition, PlaceAnswer, PlaceRequest, Refused
from tradewind.placing.choosing import candidates, first, measured_regions
from tradewind.placing.fleet import Fleet
from tradewind.placing.locating import NO_SPOT, Address, Locator
from tradewind.placing.policy import Policy, PolicyError, Reason
from tradewind.placing.ways import Atlas


@dataclass(frozen=True, slots=True)
class Leaver:
    """Somebody with a session here who has to go. What it may do was checked when it came."""

    digest: str
    """Of its access token: `viewer_digest`."""
    path: str
    """What it dialled."""
    address: Address | None
    rtt_ms: float
    """Between it and here: who is near to us is near to our neighbours too. 0: not known."""
    seed: int
    """64 bits by lot, the same for the same session: who shares a token and an address does not share these."""
    access_ends_wall: float | None = None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where a leaver goes."""

    uri: str
    """Of the first of `relays`, without a path."""
    relays: tuple[str, ...]
    token: str
    """The placement token by which all of them admit it."""


class LastTable:
    """Answers for one relay. `signing` is the relay's own, as it announced it; `keys` check access tokens.

    When keys or settings change another one takes its place and is given the table.
    """

    __slots__ = ("_atlas", "_desk", "_edition", "_fleet", "_keys", "_locator", "_own", "_policy", "_signing")

    def __init__(
        self,
        own: str,
        signing: Signer,
        keys: Sequence[Key],
        policy: Policy | None = None,
        locator: Locator | None = None,
    ) -> None:
        self._own = own
        self._signing = signing
        self._keys = tuple(keys)
        self._locator = locator
        self._policy = policy or Policy()
        self._desk = Desk(self._policy, signing, self._keys, locator)
        self._atlas = Atlas(self._policy)
        self._fleet = Fleet(self._policy)
        self._edition: Edition | None = None

    def apply(self, table: RouteTable, now: float, suspects: Collection[str] = ()) -> None:
        """Take in a table that was verified. `suspects`: relays that seem dead from here."""
        if table.markets != self._policy.markets:
            self._take_rules(table.markets)
        self._edition = Edition(table.term, table.generation)
        self._atlas.apply(table.relays)
        self._fleet.apply(table.relays, now, suspects)

    def replace_locator(self, locator: Locator | None) -> None:
        """Look addresses up there from now on."""
        self._locator = locator
        self._desk.replace_locator(locator)

    def answer(self, request: PlaceRequest, now: float, wall_now: float, *, carries: bool = False) -> PlaceAnswer:
        """Answer a question. `carries`: this relay has a track at or beneath the namespace that is asked for."""
        asked = self._desk.admit(request, wall_now)
        if isinstance(asked, Refused):
            return asked
        if self._edition is None:
            return self._desk.refuse(asked, Reason.NO_TABLE)
        self._fleet.advance(now)
        ways = self._atlas.ways(asked.spot, measured_regions(self._fleet, request.rtts_ms), asked.seed)
        if isinstance(ways, Reason):
            return self._desk.refuse(asked, ways)
        track = self._fleet.track([self._own] if carries else [])
        here = self._fleet.standing(request.here) if request.here not in request.failed else None
        stays = here is not None and not here.closed and not here.is_full
        chosen = candidates(self._fleet, asked.seed, ways, track, request.failed)
        if isinstance(chosen, Reason):
            return self._desk.refuse(asked, chosen)
        relays = chosen.relays
        if here is not None and stays and self._fleet.cost_ms(here, ways, track) is not None:
            relays = first(relays, here)
        else:
            self._fleet.take(relays[0], track)
        return self._desk.place(asked, relays, self._edition, wall_now, panic=chosen.panic)

    def move(self, leaver: Leaver, now: float, wall_now: float) -> Elsewhere | Reason:
        """Place somebody who is here on another relay, by the rules that count for those who ask.

        Never here, whatever the table says of us. Each that is moved is counted, so that the next ones spread.
        """
        path = leaver.path.strip("/")
        if self._edition is None or len(path) > MAX_ROOT_LENGTH:
            return Reason.NO_TABLE if self._edition is None else Reason.BAD_REQUEST
        self._fleet.advance(now)
        spot = self._locator.locate(leaver.address) if self._locator and leaver.address else None
        measured = measured_regions(self._fleet, ((self._own, leaver.rtt_ms),))
        ways = self._atlas.ways(spot or NO_SPOT, measured, leaver.seed)
        if isinstance(ways, Reason):
            return ways
        track = self._fleet.track([])
        chosen = candidates(self._fleet, leaver.seed, ways, track, (self._own,))
        if isinstance(chosen, Reason):
            return chosen
        relays = [standing for standing in chosen.relays if standing.entry.id != self._own]
        if not relays:
            return Reason.NO_RELAY
        self._fleet.take(relays[0], track)
        names = tuple(standing.entry.id for standing in relays)
        token = mint_admission(
            self._signing,
            leaver.digest,
            path,
            names,
            wall_now,
            first_s=self._policy.first_s,
            failover_s=self._policy.failover_s,
            access_ends_wall=leaver.access_ends_wall,
        )
        return Elsewhere(relays[0].entry.uri, names, token)

    def _take_rules(self, markets: tuple[MarketEntry, ...]) -> None:
        try:
            self._policy = replace(self._policy, markets=markets)
        except PolicyError:
            # Rules that nobody can follow were signed: those from before stand, rather than none.
            return
        self._desk = Desk(self._policy, self._signing, self._keys, self._locator)
        self._atlas = Atlas(self._policy)
