"""All relays as placement sees them, and the choice among them: a few loads looked at for each viewer, never all.

`control.placement` and `last_table` own one `Fleet` each, `apply` what relays said, and ask it about each viewer.

A viewer has `Ways`: the regions that may serve it, nearest first. From the nearest two relays are drawn, from the next
ones one each: one that carries the track where there is one, else by lot, weighted by what they can still take. The
cheapest of those within `spill_ms` gets the viewer; the others are where it goes should that relay fail. Nobody draws
a relay whose load is more than `bound_ratio` times its region's mean; the next one in the ring takes its place. Draws
come from the viewer's own number, so the same viewer asks twice and hears the same.

Reports are up to a second old. What was decided since, and a little before, is counted on top of them, so that the
relay that looked best a second ago is not sent everybody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from tradewind.contract.messages import RelayEntry
from tradewind.placing.policy import Policy
from tradewind.placing.ways import Ways

MAX_CANDIDATES = 4
BELIEVED_BELOW = 4
"""In regions with fewer relays the controller's word about all of them is believed: there are other regions."""
LOTS = 256
"""Lots that a region's relays have between them, at most; each that takes viewers has one at least."""
SLOT_S = 0.125
"""How exactly it is remembered when viewers were sent somewhere."""
REPORT_AGE_S = 0.5
"""How old a relay's report is taken to be of which nobody says it."""
FORGET_S = 60.0
"""Without reports, half of what was counted since the last is forgotten so often."""


class Standing:
    """One relay: what it said last, and what was sent to it since."""

    __slots__ = (
        *("capacity", "closed", "entry", "group", "host", "load", "load_ms"),
        *("pending", "position", "sent", "taken"),
    )

    def __init__(self, entry: RelayEntry, group: Group) -> None:
        self.entry = entry
        self.group = group
        self.host = entry.address[0]
        self.closed = ""
        """Why it takes nobody: its stage, "suspect", or empty."""
        self.capacity = 1.0
        """Sessions."""
        self.taken = 0.0
        self.load = 0.0
        self.load_ms = 0.0
        """What load and rush cost."""
        self.position = 0
        """In the ring of its region."""
        self.sent: dict[int, int] = {}
        """Viewers sent there that its report does not show yet, by slot of time."""
        self.pending = 0
        """All of these together."""

    @property
    def is_full(self) -> bool:
        """Whether nobody more fits in."""
        return self.load >= self.group.full_ratio


class Group:
    """A region: its relays that take viewers, and what they have between them."""

    __slots__ = ("bound", "capacity", "full_ratio", "lots", "name", "open", "panics", "ring", "suspected", "taken")

    def __init__(self, name: str, full_ratio: float) -> None:
        self.name = name
        self.full_ratio = full_ratio
        self.ring: list[Standing] = []
        self.lots: list[Standing] = []
        self.capacity = 0.0
        self.taken = 0.0
        self.bound = full_ratio
        """The load from which on a relay here gets nobody while others have less."""
        self.open = 0
        """How many of the ring are not full."""
        self.suspected: list[Standing] = []
        """Relays that look dead, and for that alone take nobody."""
        self.panics = False
        """So many look dead that the look is not believed."""


class Track:
    """Who carries what a viewer came for; those that viewers are sent to for it count as carrying it."""

    __slots__ = ("carriers", "relays")

    def __init__(self, carriers: Iterable[Standing] = ()) -> None:
        self.carriers: dict[str, list[Standing]] = {}
        """By region, relays that take viewers."""
        self.relays: set[Standing] = set()
        for standing in carriers:
            self.add(standing)

    def add(self, standing: Standing) -> None:
        """From now on this relay carries the track."""
        if standing not in self.relays:
            self.relays.add(standing)
            self.carriers.setdefault(standing.group.name, []).append(standing)


class Fleet:
    """Every relay that anybody may be sent to. `sharers`: how many answer from the same reports at the same time."""

    __slots__ = ("_applied_at", "_groups", "_policy", "_sharers", "_slot", "_standings")

    def __init__(self, policy: Policy, sharers: int = 1) -> None:
        self._policy = policy
        self._sharers = sharers
        self._standings: dict[str, Standing] = {}
        self._groups: dict[str, Group] = {}
        self._applied_at = float("-inf")
        self._slot = 0

    @property
    def policy(self) -> Policy:
        return self._policy

    def apply(
        self,
        relays: Sequence[RelayEntry],
        now: float,
        suspects: Collection[str] = (),
        reported: Mapping[str, float] | None = None,
    ) -> None:
        """Take in all relays as they are now.

        `suspects`: those whose silence says that they may be dead. `reported`: when each made the report that its entry
        is from; viewers sent there before are taken to be in it, but for those of the last `settle_s`.
        """
        reported = reported or {}
        before, self._standings, self._groups = self._standings, {}, {}
        members: dict[str, list[Standing]] = {}
        for entry in relays:
            group = self._groups.get(entry.region)
            if group is None:
                group = self._groups[entry.region] = Group(entry.region, self._policy.full_ratio)
                members[entry.region] = []
            standing = self._standings[entry.id] = Standing(entry, group)
            members[entry.region].append(standing)
            old = before.get(entry.id)
            if old is not None and old.sent:
                shown = (reported.get(entry.id, now - REPORT_AGE_S) - self._policy.settle_s) / SLOT_S
                standing.sent = {slot: count for slot, count in old.sent.items() if slot >= shown}
                standing.pending = sum(standing.sent.values())
        suspicious = frozenset(suspects)
        for group in self._groups.values():
            self._gather(group, members[group.name], suspicious)
        self._applied_at = now
        self._slot = int(now / SLOT_S)

    def advance(self, now: float) -> None:
        """Say what time it is, before every question. Without reports for long, forget by and by what was sent."""
        self._slot = int(now / SLOT_S)
        if now - self._applied_at < FORGET_S:
            return
        self._applied_at = now
        for standing in self._standings.values():
            left = standing.pending // 2
            gone, standing.pending = standing.pending - left, left
            standing.sent = {self._slot: left} if left else {}
            if not standing.closed:
                self._shift(standing, -gone * self._sharers)

    def standing(self, relay: str) -> Standing | None:
        """One relay by its id."""
        return self._standings.get(relay)

    def group(self, region: str) -> Group | None:
        """One region by its name."""
        return self._groups.get(region)

    def standings(self) -> Iterable[Standing]:
        """All relays, whatever they are doing."""
        return self._standings.values()

    def track(self, carriers: Iterable[str]) -> Track:
        """Who of these relays takes viewers, as `choose` wants to have it. Good until the next `apply`."""
        found = (self._standings.get(relay) for relay in carriers)
        return Track(standing for standing in found if standing is not None and not standing.closed)

    def choose(self, seed: int, ways: Ways, track: Track) -> list[Standing]:
        """Up to four candidates for one viewer, the best first; none: there is no room within its reach.

        `seed` is the viewer's number, 64 bits. Nothing is counted yet: `take` does that.
        """
        policy, groups, carrying, members = self._policy, self._groups, track.carriers, track.relays
        reach = -1.0
        within: list[tuple[float, int, Standing]] = []
        beyond: list[tuple[float, int, Standing]] = []
        number = 0
        for region, base_ms, rtt_ms in ways.steps:
            group = groups.get(region)
            if group is None or not group.ring:
                continue
            if reach < 0.0:
                reach = rtt_ms + policy.spill_ms
            if not group.open:
                continue
            carriers = carrying.get(region)
            lots = group.lots
            # Most regions of most viewers carry nothing of theirs, and most lots fall on a relay below the bound.
            drawn = lots[(seed >> 8) % len(lots)]
            if carriers or drawn.load >= group.bound:
                drawn = self._draw(group, seed, carriers)
            without_ms = base_ms + policy.no_track_ms + policy.depth_ms * (1.0 if carriers else 2.0)
            offers = within if rtt_ms <= reach else beyond
            offers.append(((base_ms if drawn in members else without_ms) + drawn.load_ms, number, drawn))
            number += 1
            if number == 1:
                other = self._draw(group, seed >> 24, None)
                second = other if other.host != drawn.host else self._another(drawn)
                if second is not None:
                    offers.append(((base_ms if second in members else without_ms) + second.load_ms, number, second))
                    number += 1
            if number >= MAX_CANDIDATES:
                break
        if not within:
            return []
        within.sort()
        beyond.sort()
        if len(beyond) > 1:
            # These are for when a whole region is gone: its viewers must not all have the same one for their next.
            most = beyond[0][0] + policy.spill_ms
            near = sum(offer[0] <= most for offer in beyond)
            turn = (seed >> 40) % near
            beyond = beyond[turn:near] + beyond[:turn] + beyond[near:]
        chosen = [standing for _, _, standing in within + beyond]
        if number < MAX_CANDIDATES:
            self._fill(chosen)
        return chosen

    def choose_anyway(self, seed: int, ways: Ways) -> list[Standing]:
        """Candidates by latency alone where all that may serve the viewer look dead; none: not all do, or none is left.

        Who looks dead may only be cut off from whoever looks: a viewer sent there in vain loses a second.
        """
        chosen: list[Standing] = []
        for region, _, _ in ways.steps:
            group = self._groups.get(region)
            if group is None:
                continue
            if group.ring:
                return []
            count = len(group.suspected)
            chosen += [group.suspected[(seed + place) % count] for place in range(min(count, 2))]
        return chosen[:MAX_CANDIDATES]

    def pick(self, seed: int, ways: Ways, track: Track) -> Standing | None:
        """The first that `choose` would name, or nearly: for many viewers at once who need a new home now."""
        policy = self._policy
        reach = -1.0
        for region, _, rtt_ms in ways.steps:
            group = self._groups.get(region)
            if group is None or not group.ring:
                continue
            if reach < 0.0:
                reach = rtt_ms + policy.spill_ms
            if rtt_ms > reach:
                return None
            if not group.open:
                continue
            carriers, lots = track.carriers.get(region), group.lots
            drawn = lots[(seed >> 8) % len(lots)]
            if carriers or drawn.load >= group.bound:
                drawn = self._draw(group, seed, carriers)
            if drawn.load_ms:
                other = self._draw(group, seed >> 24, None)
                missing_ms = 0.0 if other in track.relays else policy.no_track_ms + policy.depth_ms
                if other.load_ms + missing_ms < drawn.load_ms:
                    return other
            return drawn
        return None

    def take(self, standing: Standing, track: Track) -> None:
        """Count that a viewer was sent there, for this track."""
        sent, slot, policy, group = standing.sent, self._slot, self._policy, standing.group
        sent[slot] = sent.get(slot, 0) + 1
        pending = standing.pending = standing.pending + 1
        if standing.closed:
            return
        # What `_shift` does, written out: this is done for every viewer, many thousand times a second.
        before = standing.load
        standing.taken += self._sharers
        group.taken += self._sharers
        load = standing.load = standing.taken / standing.capacity
        cost_ms = policy.load_ms * (load - policy.busy_ratio) if load > policy.busy_ratio else 0.0
        if pending > policy.rush_free:
            cost_ms += policy.rush_ms * (pending - policy.rush_free)
        standing.load_ms = cost_ms
        bound = policy.bound_ratio * group.taken / group.capacity
        if bound > policy.bound_floor_ratio:
            group.bound = min(policy.full_ratio, bound)
        if load >= policy.full_ratio > before:
            group.open -= 1
        if standing not in track.relays:
            track.add(standing)

    def cost_ms(self, standing: Standing, ways: Ways, track: Track) -> float | None:
        """What `choose` would reckon for a relay, full or not; None: it is in no region that may serve the viewer."""
        for region, base_ms, _ in ways.steps:
            if region == standing.group.name:
                return base_ms + standing.load_ms + self.fetch_ms(standing, track)
        return None

    def fetch_ms(self, standing: Standing, track: Track) -> float:
        """What it costs that the relay does not carry the track yet."""
        if standing in track.relays:
            return 0.0
        depth = 1.0 if track.carriers.get(standing.group.name) else 2.0
        return self._policy.no_track_ms + self._policy.depth_ms * depth

    def check_invariants(self) -> None:
        """What holds between any two calls."""
        for group in self._groups.values():
            assert abs(group.taken - sum(s.taken for s in group.ring)) < 1e-6 * max(group.capacity, 1.0)
            assert abs(group.capacity - sum(s.capacity for s in group.ring)) < 1e-6 * max(group.capacity, 1.0)
            assert group.open == sum(not s.is_full for s in group.ring)
            assert not group.ring or group.bound == self._bound(group)
            assert [s.position for s in group.ring] == list(range(len(group.ring)))
            assert set(group.lots) <= set(group.ring)
        for standing in self._standings.values():
            assert (standing in standing.group.ring) == (not standing.closed)
            told = (standing.load, standing.load_ms)
            self._weigh(standing)
            assert told == (standing.load, standing.load_ms)

    def _gather(self, group: Group, standings: list[Standing], suspects: frozenset[str]) -> None:
        serving = [s for s in standings if s.entry.stage == "serving"]
        doubted = [s for s in serving if s.entry.id in suspects]
        group.panics = len(serving) >= BELIEVED_BELOW and len(doubted) > self._policy.suspects_ratio * len(serving)
        for standing in standings:
            if standing.entry.stage != "serving":
                standing.closed = standing.entry.stage
            elif standing.entry.id in suspects and not group.panics:
                standing.closed = "suspect"
                group.suspected.append(standing)
            else:
                standing.position = len(group.ring)
                group.ring.append(standing)
            self._measure(standing)
        group.capacity = sum(s.capacity for s in group.ring)
        group.taken = sum(s.taken for s in group.ring)
        group.open = sum(not s.is_full for s in group.ring)
        if not group.ring:
            return
        group.bound = self._bound(group)
        room = [max(s.group.full_ratio - s.load, 0.0) * s.capacity for s in group.ring]
        whole = sum(room)
        for standing, free in zip(group.ring, room, strict=True):
            if free > 0.0:
                group.lots.extend([standing] * max(round(LOTS * free / whole), 1))
        # All are full; should that change before the next report, any will do.
        group.lots = group.lots or group.ring

    def _measure(self, standing: Standing) -> None:
        """Capacity and load in sessions, from what the relay says and from what was sent there."""
        entry = standing.entry
        if entry.headroom_sessions > 0 and entry.load < 1.0:
            standing.capacity = entry.headroom_sessions / (1.0 - entry.load)
            standing.taken = entry.load * standing.capacity
        else:
            standing.capacity = standing.taken = 1.0
        standing.taken += standing.pending * self._sharers
        self._weigh(standing)

    def _shift(self, standing: Standing, sessions: int) -> None:
        """A relay that takes viewers has so many more, or fewer."""
        group = standing.group
        was_full = standing.load >= group.full_ratio
        standing.taken += sessions
        group.taken += sessions
        group.bound = self._bound(group)
        self._weigh(standing)
        if was_full != (standing.load >= group.full_ratio):
            group.open += 1 if was_full else -1

    def _bound(self, group: Group) -> float:
        policy = self._policy
        even = policy.bound_ratio * group.taken / group.capacity
        return min(max(even, policy.bound_floor_ratio), policy.full_ratio)

    def _weigh(self, standing: Standing) -> None:
        policy = self._policy
        load = standing.load = standing.taken / standing.capacity
        standing.load_ms = policy.load_ms * (load - policy.busy_ratio) if load > policy.busy_ratio else 0.0
        if standing.pending > policy.rush_free:
            standing.load_ms += policy.rush_ms * (standing.pending - policy.rush_free)

    def _draw(self, group: Group, seed: int, carriers: list[Standing] | None) -> Standing:
        """One relay of a region below its bound: a carrier if there is one, else by lot, else the next in the ring.

        Not all of a region's relays are full, so that one is below the bound: the mean of all is.
        """
        bound = group.bound
        if carriers:
            standing = carriers[seed % len(carriers)]
            if standing.load < bound:
                return standing
            standing = carriers[(seed >> 12) % len(carriers)]
            if standing.load < bound:
                return standing
        lots = group.lots
        standing = lots[(seed >> 8) % len(lots)]
        if standing.load < bound:
            return standing
        ring = group.ring
        for place in range(standing.position - len(ring) + 1, standing.position):
            if ring[place].load < bound:
                return ring[place]
        return min(ring, key=lambda one: one.load)

    def _another(self, drawn: Standing) -> Standing | None:
        """The next in the ring that is below the bound, on another host if there is one."""
        ring, bound = drawn.group.ring, drawn.group.bound
        spare = None
        for place in range(drawn.position - len(ring) + 1, drawn.position):
            standing = ring[place]
            if standing.load < bound:
                if standing.host != drawn.host:
                    return standing
                spare = spare or standing
        return spare

    def _fill(self, chosen: list[Standing]) -> None:
        """Where there are too few regions, more of the first one's relays to fall back on, other hosts first."""
        first = chosen[0]
        hosts = {standing.host for standing in chosen}
        ring = first.group.ring
        order = [ring[place] for place in range(first.position - len(ring) + 1, first.position)]
        for fresh in (True, False):
            for standing in order:
                if len(chosen) >= MAX_CANDIDATES:
                    return
                if not standing.is_full and standing not in chosen and not (fresh and standing.host in hosts):
                    hosts.add(standing.host)
                    chosen.append(standing)
