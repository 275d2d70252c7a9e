"""A publisher that sends by the clock, viewers who are placed, and what a viewer's screen made of what came.

`PlacedViewer` follows the rules of the browser's `place.js` (docs/placement.md) by the same numbers: where to go, when
a picture that stands is its relay's fault, when to leave and how long to wait before it. One thing it does better:
asked to move by GOAWAY it plays on at the old relay until the new one shows something. Both are hosts without an
address: the network wakes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

from tests.sim.client import TRACK, Client, Outflow, Served
from tests.sim.network import Parcel
from tests.sim.scene import Scene
from tradewind.moqt import events as e
from tradewind.moqt.model import FullTrackName, Location
from tradewind.quic.config import Address

PER_S = 25
PER_GROUP = 25
PAYLOAD_BYTES = 800
PERIOD_S = 1 / PER_S
BUFFER_S = 0.2
"""What a player holds before it begins."""
STALL_S = 0.1

SUSPECT_S = 0.9
SUSPECT_WITHIN_S = 0.5
STILL_S = 2.5
START_S = 5.0
JITTER_S = 0.15
LEAVE_JITTER_S = 1.5
LOOK_S = 0.05
OPENING_LOOK_S = 0.01
FAILED_S = 60.0


def index_of(location: Location) -> int:
    """Which of all objects it is, from 0."""
    return location.group * PER_GROUP + location.object


def pauses(arrivals: Sequence[tuple[float, int]], buffer_s: float = BUFFER_S) -> list[tuple[float, float]]:
    """When a picture stood, and for how long: objects as they came (when, which), played `buffer_s` after the first.

    Each is played a period after the one before, or when it comes if that is later; what never came is left out.
    """
    found: list[tuple[float, float]] = []
    seen: dict[int, float] = {}
    for at, index in arrivals:
        seen.setdefault(index, at)
    ordered = sorted(seen.items())
    if not ordered:
        return []
    plays = ordered[0][1] + buffer_s
    for (before, _), (index, at) in pairwise(ordered):
        due = plays + (index - before) * PERIOD_S
        plays = max(due, at)
        if plays > due + 1e-9:
            found.append((due, plays - due))
    return found


def longest_stall_s(arrivals: Sequence[tuple[float, int]], since: float = 0.0, until: float = 0.0) -> float:
    """The longest that the picture stood from then on, still standing at `until`; below `STALL_S` it is no stall.

    Its buffer is counted anew from a second before: who joined in the middle of a group has more of one than it asks.
    """
    counted = [arrival for arrival in arrivals if arrival[0] >= since - 1.0]
    last = counted[-1][0] if counted else since
    found = [length for at, length in pauses(counted) if at + length >= since]
    return max([0.0, until - last - PERIOD_S - BUFFER_S, *found])


class Publisher:
    """One track at one relay: 25 objects of 800 bytes a second, a group a second."""

    def __init__(self, scene: Scene, at: str, track: FullTrackName = TRACK) -> None:
        self.scene = scene
        self.addresses: Sequence[Address] = ()
        self.track = track
        self.sent: list[float] = []
        """When each object was made."""
        self.client: Client = scene.client(at)
        self.served: Served = self.client.serve(track)
        self.client.announce(track.namespace)
        self._flow: Outflow | None = None
        self._next = scene.network.now + PERIOD_S
        scene.network.add(self)

    def receive(self, address: Address, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        raise AssertionError("nobody writes to it")

    def next_deadline(self) -> float:
        return self._next

    def handle_deadline(self, now: float, wall_now: float) -> None:
        self._next += PERIOD_S
        self.client.forget_media()
        number = len(self.sent)
        self.sent.append(now)
        group, position = divmod(number, PER_GROUP)
        if position == 0:
            if self._flow is not None:
                self._flow.fin()
            self._flow = None
            if self.served.feeds and self.client.is_open:
                self._flow = self.served.open(group)
        self.served.largest = Location(group, position)
        if self._flow is not None:
            self._flow.object(position, b"x" * PAYLOAD_BYTES)

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        return [], False


class Sitting:
    """One connection of a viewer's to one relay."""

    def __init__(self, client: Client, relay: str, now: float) -> None:
        self.client = client
        self.relay = relay
        self.began = now
        self.request: int | None = None
        self.shown = False
        """Something has come."""


class PlacedViewer:
    """A viewer near a region. It goes where it is placed, and on when its relay dies, stands still or asks it to."""

    def __init__(self, scene: Scene, near: str, track: FullTrackName = TRACK) -> None:
        self.scene = scene
        self.near = near
        self.track = track
        self.addresses: Sequence[Address] = ()
        self.arrivals: list[tuple[float, int]] = []
        self.moves: list[tuple[float, str, str]] = []
        """When it went where, and why."""
        self._home = scene.next_address(near)
        self._dice = Random(f"{scene.seed} viewer {self._home[0]}")
        self._failed: dict[str, float] = {}
        self._sitting: Sitting | None = None
        self._next: Sitting | None = None
        """Where it is about to go, while the old relay still serves."""
        self._probe: tuple[Client, float] | None = None
        self._probed_at = float("-inf")
        self._leave_at: float | None = None
        self._why = "placed"
        self._candidates: tuple[str, ...] = ()
        self._look_at = scene.network.now
        scene.network.add(self)

    @property
    def relay(self) -> str:
        """Where it is."""
        return "" if self._sitting is None else self._sitting.relay

    @property
    def is_playing(self) -> bool:
        """Something came within the last half second."""
        return bool(self.arrivals) and self.scene.network.now - self.arrivals[-1][0] < 0.5

    def outage_s(self, since: float) -> float:
        """How long after `since` the first object came that was made later than that and played elsewhere."""
        moved = next((at for at, _, why in self.moves if at >= since and why != "placed"), None)
        if moved is None:
            return float("inf")
        return next((at for at, _ in self.arrivals if at > moved), float("inf")) - since

    def receive(self, address: Address, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        raise AssertionError("its clients have addresses")

    def next_deadline(self) -> float:
        return self._look_at

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        return [], False

    def handle_deadline(self, now: float, wall_now: float) -> None:
        opening = self._next is not None or (self._sitting is not None and not self._sitting.shown)
        self._look_at = now + (OPENING_LOOK_S if opening or self._probe is not None else LOOK_S)
        if self._sitting is None:
            self._candidates = self.scene.place(self._home, self.near)
            if not self._candidates:
                self._look_at = now + 1.0
                return
            self._sitting = self._go(self._choose(now), "placed", now)
            return
        for sitting in (self._sitting, self._next):
            if sitting is not None:
                self._serve(sitting)
        if self._next is not None:
            self._change_over(now)
        elif self._leave_at is not None:
            if now >= self._leave_at:
                self._move_on(now)
        else:
            self._watch(self._sitting, now)

    # --- Private ---

    def _serve(self, sitting: Sitting) -> None:
        client = sitting.client
        if sitting.request is None and client.is_open:
            sitting.request = client.subscribe(self.track)
        if sitting.request is not None and client.refusal(sitting.request) is not None:
            sitting.request = client.subscribe(self.track)
        if sitting.request is not None:
            fresh = client.arrivals.pop(sitting.request, [])
            sitting.shown = sitting.shown or bool(fresh)
            self.arrivals += [(at, index_of(found.location)) for at, found in fresh]
            client.forget_media()

    def _watch(self, sitting: Sitting, now: float) -> None:
        """Whether something is wrong with where it is."""
        if sitting.client.closed is not None:
            self._leave("error", JITTER_S, now)
            return
        if sitting.client._session is not None and sitting.client.told(e.GoawayReceived):
            self._leave("goaway", LEAVE_JITTER_S, now)
            return
        if not sitting.shown:
            if now - sitting.began > START_S:
                self._leave("stall", JITTER_S, now)
            return
        still_s = now - (self.arrivals[-1][0] + BUFFER_S)
        if still_s >= STILL_S:
            self._leave("stall", JITTER_S, now)
        elif self._probe is not None:
            client, until = self._probe
            if client.connection is not None and client._session is not None:
                self._end_probe()
            elif now >= until:
                self._end_probe()
                if still_s >= SUSPECT_S:
                    self._leave("stall", JITTER_S, now)
        elif still_s >= SUSPECT_S and now - self._probed_at >= STILL_S:
            self._probed_at = now
            self._probe = self._dial(sitting.relay), now + SUSPECT_WITHIN_S

    def _leave(self, why: str, most_s: float, now: float) -> None:
        self._why = why
        self._leave_at = now + self._dice.random() * most_s
        assert self._sitting is not None
        self._failed[self._sitting.relay] = now + FAILED_S

    def _move_on(self, now: float) -> None:
        self._leave_at = None
        self._end_probe()
        fresh = self._go(self._choose(now), self._why, now)
        if self._why == "goaway":
            self._next = fresh
        else:
            assert self._sitting is not None
            self._serve(self._sitting)
            self._sitting.client.vanish()
            self._sitting = fresh

    def _change_over(self, now: float) -> None:
        """Leave the old relay once the new one shows something, or the old one is of no use any more."""
        assert self._sitting is not None and self._next is not None
        if self._next.shown or self._sitting.client.closed is not None:
            self._serve(self._sitting)
            if self._sitting.client.is_open:
                self._sitting.client.close()
            self._sitting, self._next = self._next, None

    def _choose(self, now: float) -> str:
        usable = [name for name in self._candidates if self._failed.get(name, 0.0) <= now]
        if not usable:
            failed = [name for name, until in self._failed.items() if until > now]
            self._candidates = self.scene.place(self._home, self.near, failed) or self._candidates
            usable = [name for name in self._candidates if name not in failed]
        return (usable or list(self._candidates))[0]

    def _go(self, relay: str, why: str, now: float) -> Sitting:
        self.moves.append((now, relay, why))
        self.scene.note("viewer", self._home[0], "to", relay, why)
        return Sitting(self._dial(relay), relay, now)

    def _dial(self, relay: str) -> Client:
        address = self.scene.next_address(self.near)
        return Client(self.scene.network, address, relay=self.scene.address(relay))

    def _end_probe(self) -> None:
        if self._probe is not None:
            self._probe[0].vanish()
            self._probe = None


def watch(scene: Scene, near: Sequence[str], track: FullTrackName = TRACK) -> list[PlacedViewer]:
    """Viewers near these regions, who see something."""
    viewers = [PlacedViewer(scene, region, track) for region in near]
    scene.until(lambda: all(viewer.is_playing for viewer in viewers))
    return viewers
