"""The control plane's answers to viewers: who carries what, who measured what, and who is where already.

`control.plane` hands in relays (`apply`), what they carry (`apply_carried`) and viewers' questions (`answer`), and asks
`rehome` for a dead relay's viewers. The choice itself is `tradewind.placing`'s, the same that relays make on their own.

A viewer that says where it is stays there until another place has been better by a margin for a while, and moves at
most every five minutes, except when its relay leaves. What is remembered of viewers is bounded; who was forgotten
starts its patience anew and moves no more often for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from tradewind.contract.admission import Signer
from tradewind.contract.messages import RelayEntry
from tradewind.contract.token import Key, Path
from tradewind.placing.answering import Asked, Desk, Edition, PlaceAnswer, PlaceRequest, Refused
from tradewind.placing.choosing import Choice, candidates, first, measured_regions
from tradewind.placing.explaining import Explanation, explain_relays
from tradewind.placing.fleet import Fleet, Standing, Track
from tradewind.placing.locating import Locator
from tradewind.placing.measuring import Measurements
from tradewind.placing.policy import Policy, Reason
from tradewind.placing.ways import Atlas, Ways

MAX_VIEWERS = 200_000
MAX_TRACKS = 20_000
"""Namespaces asked for since the last reports, each with those who carry it."""
MAX_CARRIED = 1_000_000
"""Pairs of relay and namespace, or prefix of one; what is beyond is not known to be carried."""
MAX_PREFIX_FIELDS = 8


class Move(NamedTuple):
    """A viewer's new home."""

    viewer: int
    relay: str


class PlacementStatistics(NamedTuple):
    """What `/state` and metrics show. Counts are since the start."""

    placed: int
    refused: dict[str, int]
    panicked: int
    moved: int
    """Viewers that were told to leave a relay that goes on, because another is better."""
    rehomed: int
    viewers: int
    buckets: int
    carried: int


class Placement:
    """Everything that answers need. `signing` is this controller's key, of which relays have the public half.

    `sharers`: how many controllers answer at the same time. `keys` check access tokens; `replace_keys` changes them.
    """

    __slots__ = (
        *("_atlas", "_carried", "_carriers", "_desk", "_edition", "_fleet", "_locator", "_measurements"),
        *("_policy", "_reload", "_signing", "_tracks", "_viewers", "_tally"),
    )

    def __init__(
        self,
        policy: Policy,
        signing: Signer,
        keys: Sequence[Key],
        locator: Locator | None = None,
        *,
        reload: str = "",
        sharers: int = 1,
        max_viewers: int = MAX_VIEWERS,
    ) -> None:
        self._policy = policy
        self._signing = signing
        self._locator = locator
        self._reload = reload
        self._desk = Desk(policy, signing, keys, locator, reload)
        self._atlas = Atlas(policy)
        self._fleet = Fleet(policy, sharers)
        self._measurements = Measurements()
        self._edition = Edition()
        self._carried: dict[str, frozenset[Path]] = {}
        self._carriers = _Carriers()
        self._tracks: OrderedDict[Path, Track] = OrderedDict()
        self._viewers = _Viewers(max_viewers)
        self._tally = _Tally()

    def replace_keys(self, signing: Signer, keys: Sequence[Key]) -> None:
        """Sign with another key from now on, and check access tokens with others."""
        self._signing = signing
        self._desk = Desk(self._policy, signing, keys, self._locator, self._reload)

    def replace_locator(self, locator: Locator | None) -> None:
        """Look addresses up there from now on."""
        self._locator = locator
        self._desk.replace_locator(locator)

    def apply(
        self,
        relays: Sequence[RelayEntry],
        now: float,
        suspects: Collection[str] = (),
        reported: Mapping[str, float] | None = None,
        edition: Edition | None = None,
    ) -> None:
        """Take in all relays as they are. `suspects`: those whose silence says that they may be dead. `reported`:
        when each made the report that its entry is from.

        Call it once a second, and at once when a relay comes, goes, or changes its stage.
        """
        self._edition = edition or self._edition
        self._atlas.apply(relays)
        self._fleet.apply(relays, now, suspects, reported)
        self._tracks.clear()
        for relay in self._carried.keys() - {entry.id for entry in relays}:
            self._carriers.apply(relay, self._carried.pop(relay), frozenset())

    def apply_carried(self, relay: str, namespaces: Iterable[Path]) -> None:
        """Take in of which namespaces this relay has tracks, its own origins among them (`Report`)."""
        carried = frozenset(namespaces)
        before = self._carried.get(relay, frozenset())
        if carried != before:
            self._carried[relay] = carried
            self._carriers.apply(relay, before - carried, carried - before)

    def answer(self, request: PlaceRequest, now: float, wall_now: float) -> PlaceAnswer:
        """Answer a viewer's question: tens of microseconds for the choice, most of it for signing."""
        asked = self._desk.admit(request, wall_now)
        if isinstance(asked, Refused):
            self._tally.refuse(asked.reason)
            return asked
        self._fleet.advance(now)
        ways = self._ways(asked, now, learn=True)
        if isinstance(ways, Reason):
            return self._refuse(asked, ways)
        track = self._track(asked.namespace)
        chosen = candidates(self._fleet, asked.seed, ways, track, request.failed)
        staying = self._staying(asked, ways, track, chosen, now)
        if staying is not None:
            others = chosen if isinstance(chosen, Choice) else Choice([], panic=False)
            chosen = Choice(first(others.relays, staying), others.panic)
        if isinstance(chosen, Reason):
            return self._refuse(asked, chosen)
        self._remember(asked, ways, track, chosen.relays[0], now)
        self._tally.placed += 1
        self._tally.panicked += chosen.panic
        return self._desk.place(asked, chosen.relays, self._edition, wall_now, panic=chosen.panic)

    def rehome(self, relay: str) -> tuple[list[Move], int]:
        """Find new homes for all viewers remembered on a relay that is gone; also how many there is no room for.

        Call it after the `apply` that leaves the relay out.
        """
        moves: list[Move] = []
        stranded = 0
        fleet, pick, take = self._fleet, self._fleet.pick, self._fleet.take
        gone = fleet.standing(relay)
        assert gone is None or gone.closed, f"{relay} is not gone"
        for seed, viewer in self._viewers.leave(relay):
            track = self._track(viewer.namespace)
            standing = pick(seed, viewer.ways, track)
            if standing is None:
                # It stays on the dead relay's list: another look may find room.
                stranded += 1
                self._viewers.arrive(seed, viewer, relay)
                continue
            take(standing, track)
            home = standing.entry.id
            self._viewers.arrive(seed, viewer, home)
            moves.append(Move(seed, home))
        self._tally.rehomed += len(moves)
        return moves, stranded

    def explain(self, request: PlaceRequest, now: float, wall_now: float) -> Explanation | Refused:
        """Why `answer` would say what it would say. Counts nothing and remembers nothing."""
        asked = self._desk.admit(request, wall_now)
        return asked if isinstance(asked, Refused) else self._explain(asked, now)

    def suppose(self, request: PlaceRequest, now: float, country: str | None = None) -> Explanation:
        """The same for a viewer without a token, whom an operator thinks of: see `Desk.suppose`."""
        return self._explain(self._desk.suppose(request, country), now)

    def statistics(self) -> PlacementStatistics:
        """What was answered, and what is remembered."""
        tally = self._tally
        return PlacementStatistics(
            tally.placed,
            {reason.value: count for reason, count in tally.refused.items()},
            tally.panicked,
            tally.moved,
            tally.rehomed,
            len(self._viewers),
            self._measurements.statistics().buckets,
            self._carriers.pairs,
        )

    def check_invariants(self) -> None:
        """What holds between any two calls."""
        self._fleet.check_invariants()
        self._measurements.check_invariants()
        self._viewers.check_invariants()
        self._carriers.check_invariants(self._carried)
        assert len(self._tracks) <= MAX_TRACKS

    def _explain(self, asked: Asked, now: float) -> Explanation:
        request, measured = asked.request, self._measured(asked, now)
        ways = self._atlas.ways(asked.spot, measured, asked.seed)
        if isinstance(ways, Reason):
            return Explanation(asked.seed, asked.spot.country, measured, False, False, ways, ())
        track = self._track(asked.namespace)
        chosen = candidates(self._fleet, asked.seed, ways, track, request.failed)
        here = self._fleet.standing(request.here)
        relays = explain_relays(self._fleet, ways, track, chosen, here)
        panic = isinstance(chosen, Choice) and chosen.panic
        reason = chosen if isinstance(chosen, Reason) else None
        return Explanation(asked.seed, asked.spot.country, measured, ways.guessed, panic, reason, relays)

    def _measured(self, asked: Asked, now: float) -> tuple[tuple[str, float], ...]:
        """What the neighbourhood agrees on, and before that what the viewer says for itself."""
        address = asked.request.address
        around = self._measurements.rtts_ms(address, now) if address is not None else ()
        own = measured_regions(self._fleet, asked.request.rtts_ms) if asked.request.rtts_ms else ()
        return tuple(sorted((dict(around) | dict(own)).items())) if own else around

    def _ways(self, asked: Asked, now: float, *, learn: bool) -> Ways | Reason:
        address = asked.request.address
        if learn and address is not None and asked.request.rtts_ms:
            # One word for one token: a token may be many viewers', but many viewers may be one client.
            for region, rtt_ms in measured_regions(self._fleet, asked.request.rtts_ms):
                self._measurements.apply(address, asked.digest, region, rtt_ms, now)
        return self._atlas.ways(asked.spot, self._measured(asked, now), asked.seed)

    def _track(self, namespace: Path) -> Track:
        track = self._tracks.get(namespace)
        if track is None:
            if len(self._tracks) >= MAX_TRACKS:
                self._tracks.popitem(last=False)
            track = self._tracks[namespace] = self._fleet.track(self._carriers.of(namespace))
        return track

    def _staying(self, asked: Asked, ways: Ways, track: Track, chosen: Choice | Reason, now: float) -> Standing | None:
        """The relay that the viewer says it is on, where it had better stay there."""
        name = asked.request.here
        here = self._fleet.standing(name) if name and name not in asked.request.failed else None
        viewer = self._viewers.get(asked.seed)
        if here is None or here.closed:
            return None
        # A full relay keeps those that are known to be there: saying so opens no door.
        if here.is_full and (viewer is None or viewer.relay != name):
            return None
        cost_ms = self._fleet.cost_ms(here, ways, track)
        if cost_ms is None:
            return None
        cost_ms -= self._policy.here_ms
        if viewer is None or viewer.relay != name or isinstance(chosen, Reason):
            return here
        best_ms = self._fleet.cost_ms(chosen.relays[0], ways, track)
        if best_ms is None or cost_ms - best_ms < max(self._policy.better_ms, self._policy.better_ratio * cost_ms):
            viewer.better_since = None
            return here
        if viewer.better_since is None:
            viewer.better_since = now
        patient = now - viewer.better_since < self._policy.better_for_s
        spent = now - viewer.moved_at < self._policy.moves_every_s
        if patient or spent:
            return here
        viewer.moved_at = now
        self._tally.moved += 1
        return None

    def _remember(self, asked: Asked, ways: Ways, track: Track, standing: Standing, now: float) -> None:
        """Note where the viewer is now, and count it there unless it was there before."""
        viewer = self._viewers.get(asked.seed)
        relay = standing.entry.id
        if viewer is None:
            moved_at = now if asked.request.here else float("-inf")
            viewer = self._viewers.add(asked.seed, asked.namespace, ways, moved_at)
        if viewer.relay != relay:
            viewer.better_since = None
            if asked.request.here != relay:
                self._fleet.take(standing, track)
        viewer.namespace, viewer.ways = asked.namespace, ways
        self._viewers.settle(asked.seed, viewer, relay)

    def _refuse(self, asked: Asked, reason: Reason) -> Refused:
        self._tally.refuse(reason)
        return self._desk.refuse(asked, reason)


class _Tally:
    """Counts since the start."""

    __slots__ = ("moved", "panicked", "placed", "refused", "rehomed")

    def __init__(self) -> None:
        self.placed = 0
        self.panicked = 0
        self.moved = 0
        self.rehomed = 0
        self.refused: dict[Reason, int] = {}

    def refuse(self, reason: Reason) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


class _Viewer:
    """What is remembered of one viewer."""

    __slots__ = ("better_since", "moved_at", "namespace", "relay", "ways")

    def __init__(self, namespace: Path, ways: Ways, moved_at: float) -> None:
        self.relay = ""
        self.namespace = namespace
        self.ways = ways
        self.better_since: float | None = None
        """Since when another place has been better by the margin."""
        self.moved_at = moved_at


class _Viewers:
    """Who is where. Who was silent longest is forgotten first."""

    __slots__ = ("_by_relay", "_most", "_viewers")

    def __init__(self, most: int) -> None:
        self._most = most
        self._viewers: OrderedDict[int, _Viewer] = OrderedDict()
        self._by_relay: dict[str, dict[int, None]] = {}
        """In the order of coming, so that the same history gives the same moves."""

    def __len__(self) -> int:
        return len(self._viewers)

    def get(self, seed: int) -> _Viewer | None:
        return self._viewers.get(seed)

    def add(self, seed: int, namespace: Path, ways: Ways, moved_at: float) -> _Viewer:
        if len(self._viewers) >= self._most:
            oldest, viewer = self._viewers.popitem(last=False)
            self._drop(oldest, viewer.relay)
        viewer = self._viewers[seed] = _Viewer(namespace, ways, moved_at)
        return viewer

    def settle(self, seed: int, viewer: _Viewer, relay: str) -> None:
        if viewer.relay != relay:
            self._drop(seed, viewer.relay)
            self.arrive(seed, viewer, relay)
        self._viewers.move_to_end(seed)

    def leave(self, relay: str) -> list[tuple[int, _Viewer]]:
        """Take everybody off a relay. Each has to `arrive` somewhere next."""
        return [(seed, self._viewers[seed]) for seed in self._by_relay.pop(relay, ())]

    def arrive(self, seed: int, viewer: _Viewer, relay: str) -> None:
        viewer.relay = relay
        seeds = self._by_relay.get(relay)
        if seeds is None:
            seeds = self._by_relay[relay] = {}
        seeds[seed] = None

    def check_invariants(self) -> None:
        assert len(self._viewers) <= self._most
        assert sum(map(len, self._by_relay.values())) == len(self._viewers)
        for relay, seeds in self._by_relay.items():
            assert seeds, relay
            assert all(self._viewers[seed].relay == relay for seed in seeds)

    def _drop(self, seed: int, relay: str) -> None:
        seeds = self._by_relay.get(relay)
        if seeds is not None:
            seeds.pop(seed, None)
            if not seeds:
                del self._by_relay[relay]


class _Carriers:
    """Namespaces and their prefixes, and which relays have a track at or beneath them: how many namespaces of it."""

    __slots__ = ("_relays", "pairs")

    def __init__(self) -> None:
        self._relays: dict[Path, dict[str, int]] = {}
        self.pairs = 0

    def of(self, namespace: Path) -> Iterable[str]:
        return self._relays.get(namespace, ())

    def apply(self, relay: str, gone: Iterable[Path], come: Iterable[Path]) -> None:
        for namespace in gone:
            for prefix in _prefixes(namespace):
                self._count(prefix, relay, -1)
        for namespace in come:
            for prefix in _prefixes(namespace):
                self._count(prefix, relay, 1)

    def check_invariants(self, carried: dict[str, frozenset[Path]]) -> None:
        assert self.pairs == sum(map(len, self._relays.values())) <= MAX_CARRIED
        for prefix, relays in self._relays.items():
            for relay, count in relays.items():
                assert 0 < count <= sum(namespace[: len(prefix)] == prefix for namespace in carried[relay])

    def _count(self, prefix: Path, relay: str, change: int) -> None:
        relays = self._relays.get(prefix)
        count = (relays.get(relay, 0) if relays else 0) + change
        if count <= 0:
            # What was beyond the bound when it came was never counted.
            if relays is not None and relays.pop(relay, None) is not None:
                self.pairs -= 1
                if not relays:
                    del self._relays[prefix]
            return
        if relays is None or relay not in relays:
            if self.pairs >= MAX_CARRIED:
                return
            self.pairs += 1
            relays = self._relays.setdefault(prefix, {})
        relays[relay] = count


def _prefixes(namespace: Path) -> Iterable[Path]:
    """The namespace and what lies above it, but not everything."""
    whole = {namespace, *(namespace[:length] for length in range(1, min(len(namespace), MAX_PREFIX_FIELDS) + 1))}
    return whole if namespace else ()
