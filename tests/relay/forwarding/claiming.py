"""Relays that claim ranks of each other for one track, and their messages in any order: what `ranks` promises holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.forwarding import ranks

RELAYS = 6


@dataclass
class Relay:
    """One relay's side of one track: what it claimed, what it serves, and what it believes of the others."""

    above: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Request -> upstream and claim, from the moment that the SUBSCRIBE is sent."""
    below: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Request -> who is served, and its claim."""
    turning: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Requests of relays that it takes the track from, which wait until it does not."""

    def claims(self) -> list[int]:
        return [claim for _, claim in self.above.values()]

    def claims_below(self, whom: int) -> list[int]:
        """Of all but `whom`, who is to be asked and leaves before it serves."""
        return [claim for who, claim in (*self.below.values(), *self.turning.values()) if who != whom]

    def upstreams(self) -> set[int]:
        return {upstream for upstream, _ in self.above.values()}

    def serves(self) -> set[int]:
        return {who for who, _ in self.below.values()}


class Mesh:
    """Relay 0 is the origin. Messages wait until the test delivers one; beliefs may be as old as they like."""

    def __init__(self) -> None:
        self.relays = [Relay() for _ in range(RELAYS)]
        self.flying: list[tuple[str, int, int, int, int]] = []
        self.requests = 0

    def ask(self, who: int, whom: int, believed: int, *, leaves_room: bool = False) -> None:
        """Whoever is asked may be below the asker, or be asking it."""
        relay = self.relays[who]
        if who in (0, whom) or whom in relay.upstreams() or any(asker == whom for asker, _ in relay.turning.values()):
            return
        claim = ranks.claim(believed, relay.claims_below(whom), leaves_room=leaves_room)
        if claim is not None:
            self.requests += 1
            relay.above[self.requests] = (whom, claim)
            self.flying.append(("subscribe", who, whom, self.requests, claim))

    def leave(self, who: int, whom: int) -> None:
        relay = self.relays[who]
        for request in [request for request, (upstream, _) in relay.above.items() if upstream == whom]:
            del relay.above[request]
            self.flying.append(("cancel", who, whom, request, 0))
        self.turn(who)

    def drop(self, who: int, whom: int) -> None:
        relay = self.relays[who]
        for request in [request for request, (below, _) in relay.below.items() if below == whom]:
            del relay.below[request]
            self.flying.append(("done", who, whom, request, 0))

    def turn(self, who: int) -> None:
        """It takes less than before: those who wait for that are served."""
        relay = self.relays[who]
        for request, (asker, claim) in tuple(relay.turning.items()):
            if asker not in relay.upstreams() and ranks.admits(relay.claims(), claim):
                del relay.turning[request]
                relay.below[request] = (asker, claim)

    def give_back(self, who: int) -> None:
        relay = self.relays[who]
        for request, (asker, _) in relay.turning.items():
            self.flying.append(("done", who, asker, request, 0))
        relay.turning.clear()

    def deliver(self, index: int) -> None:
        if not self.flying:
            return
        # A request's messages keep their order; everything else may overtake.
        request = self.flying[index % len(self.flying)][3]
        first = next(i for i, other in enumerate(self.flying) if other[3] == request)
        kind, who, whom, request, claim = self.flying.pop(first)
        there = self.relays[whom]
        if kind == "subscribe":
            if who in there.upstreams():
                there.turning[request] = (who, claim)
                self.asked_back(whom)
            elif ranks.admits(there.claims(), claim):
                there.below[request] = (who, claim)
                self.accepted(whom, who, request)
            else:
                self.flying.append(("done", whom, who, request, 0))
        elif kind == "cancel":
            there.below.pop(request, None)
            there.turning.pop(request, None)
        elif request in there.above and kind == "ok":
            self.answered(whom, who)
        elif request in there.above:
            del there.above[request]
            self.turn(whom)
            self.refused(whom, who)

    def asked_back(self, who: int) -> None:
        """`who` is asked by a relay that it takes the track from."""

    def accepted(self, who: int, whom: int, request: int) -> None:
        """`who` serves `whom` from now on."""

    def answered(self, who: int, whom: int) -> None:
        """`who` is served by `whom`, as far as it knows."""

    def refused(self, who: int, whom: int) -> None:
        """`who` is not served by `whom`."""

    def check(self) -> None:
        assert not self.relays[0].above
        # Objects flow while both ends want them to: who has cancelled drops what still comes.
        flows = {
            (up, down)
            for up, relay in enumerate(self.relays)
            for request, (down, _) in relay.below.items()
            if request in self.relays[down].above
        }
        for up, relay in enumerate(self.relays):
            for request, (down, claim) in relay.below.items():
                others = [own for upstream, own in relay.above.values() if upstream != down]
                assert request not in self.relays[down].above or ranks.admits(others, claim), (up, down)
        served = flows
        while served:
            ends = {down for _, down in served} - {up for up, _ in served}
            assert ends, f"a circle among {served}"
            served = {(up, down) for up, down in served if down not in ends}
