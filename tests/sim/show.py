"""A scene in which every relay has a publisher and, of every other's track, a viewer: for faults one after the other.

A fault is one direction of a link in use that loses a part of its packets, or all. `Show.fault` brings one about at a
moment that falls anywhere between two packets, waits, measures, heals it and waits until the link is trusted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from relay.links.states import Direction, State
from tests.sim.client import Client
from tests.sim.scene import Scene, rtt_ms
from tests.sim.viewer import Publisher, index_of, longest_stall_s
from tradewind.moqt.model import FullTrackName

AFTER_S = 3.0
"""How long a fault lasts."""
CALM_S = 1.5
"""Before a fault."""
HEAL_S = 30.0
"""At most until a link is trusted again: it is held for longer each time."""


def track_of(relay: str) -> FullTrackName:
    """What is published at a relay."""
    return FullTrackName((b"demo", relay.encode()), b"video")


@dataclass(slots=True)
class Fault:
    """What came of one. Times are milliseconds after it began; infinite: it never happened."""

    source: str
    target: str
    rtt_ms: float
    loss: float
    suspect_ms: float = inf
    bad_ms: float = inf
    """Verdicts of the receiving relay on that direction."""
    first_ms: list[float] = field(default_factory=list)
    """Of each track that came over it: the first media by another way."""
    stalls_ms: list[float] = field(default_factory=list)
    """The longest of each viewer of such a track, with a buffer of 200 ms."""
    others_ms: list[float] = field(default_factory=list)
    """The same of everybody else."""
    reverse_bad: bool = False
    """The other direction was found bad, at either end."""
    reverse_moved: bool = False
    """A track that came the other way came from somebody else afterwards."""


class Seat:
    """A viewer that stays at one relay."""

    def __init__(self, scene: Scene, at: str, origin: str) -> None:
        self.at = at
        self.origin = origin
        self.client: Client = scene.client(at, address=scene.next_address(scene.region(at)))
        self.request = self.client.subscribe(track_of(origin))
        self.arrivals: list[tuple[float, int]] = []

    def collect(self) -> list[tuple[float, int]]:
        """Everything that came."""
        fresh = self.client.arrivals.pop(self.request, [])
        self.client.forget_media()
        self.arrivals += [(at, index_of(found.location)) for at, found in fresh]
        del self.arrivals[:-1000]
        return self.arrivals


class Show:
    """A scene with everybody's tracks everywhere."""

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self.scene = Scene(names, seed=seed)
        self.publishers = {name: Publisher(self.scene, name, track_of(name)) for name in names}
        self.scene.run(0.5)
        self.seats = [Seat(self.scene, at, origin) for at in names for origin in names if at != origin]
        # Relays that join wait for each other, and for the next cycle's table; tracks follow it 2 s after they came.
        self.scene.run(6.0)

    def links(self) -> list[tuple[str, ...]]:
        """Directed links over which something comes now."""
        found = {(*sources, seat.at) for seat in self.seats if len(sources := self._sources(seat)) == 1}
        return sorted(found)

    def fault(self, turn: int, loss: float, *, heal: bool = True) -> Fault:
        """Bring one about on the `turn`-th of the links in use, and see what comes of it."""
        scene, network = self.scene, self.scene.network
        scene.run(CALM_S + scene.dice.random() * 0.2)
        links = self.links()
        source, target = links[turn % len(links)]
        fault = Fault(source, target, rtt_ms(scene.region(source), scene.region(target)), loss)
        hit = [seat for seat in self.seats if seat.at == target and self._sources(seat) == {source}]
        back = [seat for seat in self.seats if seat.at == source and self._sources(seat) == {target}]
        began = network.now
        scene.weather_of(source, target, loss=loss)
        waiting = {seat.origin: seat for seat in hit}
        while network.now < began + AFTER_S:
            network.step()
            for origin, seat in list(waiting.items()):
                at = self._elsewhere_at(seat, source)
                if at > began:
                    fault.first_ms.append((at - began) * 1000)
                    del waiting[origin]
        fault.first_ms += [inf] * len(waiting)
        for seat in self.seats:
            stall_ms = longest_stall_s(seat.collect(), began, network.now) * 1000
            (fault.stalls_ms if seat in hit else fault.others_ms).append(stall_ms)
        self._read_verdicts(fault, began)
        fault.reverse_moved = any(self._sources(seat) != {target} for seat in back)
        if heal:
            self._heal(source, target)
        return fault

    # --- Private ---

    def _sources(self, seat: Seat) -> set[str]:
        return self.scene.sources(seat.at, track_of(seat.origin))

    def _elsewhere_at(self, seat: Seat, source: str) -> float:
        """When an object of the track last began that came from somebody else."""
        node = self.scene.node(seat.at)
        found = node.forwarder._book.tracks.get(track_of(seat.origin))
        if found is None or len(found.sources) == 0:
            return -inf
        moments = [-inf]
        for one in found.sources.values():
            attachment = node.attachments.get(one.party.session)
            if attachment is not None and attachment.neighbour is not None and attachment.neighbour.id != source:
                moments.append(one.last_at)
        return max(moments)

    def _read_verdicts(self, fault: Fault, began: float) -> None:
        for name, other, ours in (
            (fault.target, fault.source, Direction.INBOUND),
            (fault.source, fault.target, Direction.OUTBOUND),
        ):
            for change in self.scene.link_changes(name):
                if change.at < began or change.neighbour != other:
                    continue
                after_ms = (change.at - began) * 1000
                if change.direction is not ours:
                    fault.reverse_bad = fault.reverse_bad or change.new is State.BAD
                elif name == fault.target and change.new is State.BAD:
                    fault.bad_ms = min(fault.bad_ms, after_ms)
                elif name == fault.target and change.new is State.SUSPECT:
                    fault.suspect_ms = min(fault.suspect_ms, after_ms)
        fault.suspect_ms = min(fault.suspect_ms, fault.bad_ms)

    def _heal(self, source: str, target: str) -> None:
        """The link is fair again, and both ends trust it."""
        scene = self.scene
        scene.weather_of(source, target)

        def trusted() -> bool:
            ends = (scene.link(source, target), scene.link(target, source))
            return all(state is State.UP for end in ends for state in (end.inbound, end.outbound))

        scene.until(trusted, HEAL_S)
        scene.run(3.0)
