"""The choice itself: who may be chosen, who is, how evenly, and what is counted."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.contract.messages import RelayEntry
from tradewind.placing.choosing import Choice, candidates, first, measured_regions
from tradewind.placing.explaining import explain_relays
from tradewind.placing.fleet import FORGET_S, MAX_CANDIDATES, Fleet, Standing, Track
from tradewind.placing.policy import Policy, Reason
from tradewind.placing.ways import Step, Ways

POLICY = Policy()
WAYS = Ways((Step("near", 10.0, 10.0), Step("next", 40.0, 40.0), Step("far", 90.0, 90.0)), guessed=False)


def relay(region: str, number: int, load: float = 0.3, **more: Any) -> RelayEntry:
    name = f"{region}-{number}"
    headroom = int(more.pop("capacity", 1000) * (1 - load))
    entry = RelayEntry(name, region, f"https://{name}:443", (f"host-{name}", 443), "serving", load, headroom)
    return msgspec.structs.replace(entry, **more)


def fleet(*entries: RelayEntry, suspects: tuple[str, ...] = (), policy: Policy = POLICY, sharers: int = 1) -> Fleet:
    made = Fleet(policy, sharers)
    made.apply(entries, 0.0, suspects)
    made.check_invariants()
    return made


def mesh(load: float = 0.3, count: int = 4) -> list[RelayEntry]:
    return [relay(region, number, load) for region in ("near", "next", "far") for number in range(count)]


def names(chosen: list[Standing]) -> list[str]:
    return [standing.entry.id for standing in chosen]


def named(made: Fleet, name: str) -> Standing:
    found = made.standing(name)
    assert found is not None
    return found


def firsts(made: Fleet, track: Track | None = None, count: int = 200, ways: Ways = WAYS) -> Counter[str]:
    found: Counter[str] = Counter()
    dice = random.Random(7)
    for _ in range(count):
        chosen = made.choose(dice.getrandbits(64), ways, track or Track())
        found[chosen[0].entry.id if chosen else "nobody"] += 1
    return found


def test_candidates_are_four_on_four_hosts_in_all_regions_the_nearest_first() -> None:
    made = fleet(*mesh())
    for seed in range(0, 2**64, 2**59 + 12345):
        chosen = made.choose(seed, WAYS, Track())
        assert len({standing.host for standing in chosen}) == MAX_CANDIDATES
        assert [standing.group.name for standing in chosen] == ["near", "near", "next", "far"]
        assert chosen == made.choose(seed, WAYS, Track())


def test_those_who_lose_their_region_do_not_all_go_to_one_place() -> None:
    """Regions about as far away as each other take turns as the next candidate; one that is further does not."""
    ways = Ways(
        (Step("near", 10.0, 10.0), Step("a", 150.0, 150.0), Step("b", 160.0, 160.0), Step("far", 290.0, 290.0)),
        guessed=False,
    )
    made = fleet(relay("near", 0), relay("a", 0), relay("b", 0), relay("far", 0))
    dice = random.Random(7)
    seconds = Counter(names(made.choose(dice.getrandbits(64), ways, Track()))[1] for _ in range(200))
    assert set(seconds) == {"a-0", "b-0"}
    assert min(seconds.values()) >= 70


def test_where_there_is_one_region_others_hosts_come_first() -> None:
    entries = [relay("near", number, address=(f"host-{number % 2}", number + 1)) for number in range(6)]
    made = fleet(*entries)
    for seed in range(50):
        chosen = made.choose(seed * 0x9E3779B97F4A7C15 % 2**64, WAYS, Track())
        assert len(set(names(chosen))) == 4
        assert chosen[0].host != chosen[1].host


@pytest.mark.parametrize("stage", ["cordoned", "draining", "empty"])
def test_who_is_leaving_gets_nobody(stage: str) -> None:
    made = fleet(relay("near", 0, stage=stage), relay("near", 1), relay("next", 0, stage=stage))
    assert firsts(made) == {"near-1": 200}
    assert names(made.choose(1, WAYS, Track())) == ["near-1"]
    gone = fleet(relay("near", 0, stage=stage))
    assert candidates(gone, 1, WAYS, Track()) is Reason.NO_RELAY


def test_the_full_get_nobody_and_the_next_region_within_the_cap_does() -> None:
    made = fleet(relay("near", 0, 0.96), relay("next", 0), relay("far", 0))
    assert firsts(made) == {"next-0": 200}
    # 80 ms further than the nearest that serves is too far while that one only is full ...
    beyond = fleet(relay("near", 0, 0.96), relay("far", 0))
    assert candidates(beyond, 1, WAYS, Track()) is Reason.NO_CAPACITY
    # ... and not where it is gone.
    assert firsts(fleet(relay("near", 0, stage="draining"), relay("far", 0))) == {"far-0": 200}


def test_busy_relays_cost_more_than_the_way_to_the_next_region() -> None:
    assert firsts(fleet(relay("near", 0, 0.76), relay("next", 0))) == {"near-0": 200}
    assert firsts(fleet(relay("near", 0, 0.79), relay("next", 0))) == {"next-0": 200}


def test_the_track_draws_viewers_until_the_bound() -> None:
    made = fleet(*mesh(0.2))
    assert firsts(made, made.track(["near-2"])) == {"near-2": 200}
    entries = mesh(0.5)
    entries[2] = relay("near", 2, 0.68)
    made = fleet(*entries)
    found = firsts(made, made.track(["near-2"]))
    assert found["near-2"] == 0 and sum(found[f"near-{n}"] for n in range(4)) == 200


def test_who_is_sent_for_a_track_carries_it() -> None:
    made = fleet(*mesh())
    track = Track()
    chosen = made.choose(5, WAYS, track)[0]
    made.take(chosen, track)
    assert {made.choose(seed << 33, WAYS, track)[0].entry.id for seed in range(20)} == {chosen.entry.id}


def test_all_look_dead_so_all_count() -> None:
    everybody = tuple(entry.id for entry in mesh())
    found = candidates(fleet(*mesh(), suspects=everybody), 3, WAYS, Track())
    assert isinstance(found, Choice) and found.panic
    assert found.relays[0].group.name == "near"
    few = fleet(relay("near", 0), relay("next", 0), suspects=("near-0", "next-0"))
    found = candidates(few, 3, WAYS, Track())
    assert isinstance(found, Choice) and found.panic and names(found.relays) == ["near-0", "next-0"]
    few.take(found.relays[0], Track())
    few.check_invariants()


def test_some_look_dead_and_are_left_out() -> None:
    made = fleet(*mesh(), suspects=("near-0", "near-1"))
    found = firsts(made)
    assert found["near-0"] == found["near-1"] == 0 and not named(made, "near-0").group.panics
    assert firsts(fleet(*mesh(), suspects=("near-0", "near-1", "near-2")))["near-0"] > 0
    # The only relay of a region is believed to be dead: there are others.
    assert firsts(fleet(relay("near", 0), relay("next", 0), suspects=("near-0",))) == {"next-0": 200}


def test_relays_that_could_not_be_reached_are_left_out() -> None:
    made = fleet(*mesh())
    for seed in range(64):
        before = names(made.choose(seed << 40, WAYS, Track()))
        found = candidates(made, seed << 40, WAYS, Track(), failed=before[:2])
        assert isinstance(found, Choice)
        assert not set(names(found.relays)) & set(before[:2])
        assert len(found.relays) >= 2
    alone = fleet(relay("near", 0))
    found = candidates(alone, 1, WAYS, Track(), failed=["near-0"])
    assert isinstance(found, Choice) and names(found.relays) == ["near-0"]


def test_a_herd_does_not_form_between_reports() -> None:
    entries = [relay("near", number, load) for number, load in enumerate((0.30, 0.55, 0.55, 0.55))]
    made = fleet(*entries)
    track = Track()
    dice = random.Random(3)
    for _ in range(1200):
        made.take(made.choose(dice.getrandbits(64), WAYS, track)[0], track)
    loads = sorted(standing.load for standing in made.standings())
    assert loads[-1] <= 1.25 * sum(loads) / 4


def test_what_reports_cannot_show_yet_is_counted_on_top() -> None:
    made = fleet(relay("near", 0, 0.3))
    for tenth in range(20):
        made.advance(10 + tenth / 10)
        made.take(made.choose(1, WAYS, Track())[0], Track())
    assert named(made, "near-0").load == pytest.approx(0.32)
    # The report is from 11.5: what was sent after 11.0 may not have arrived by then.
    made.apply([relay("near", 0, 0.3)], 12.0, reported={"near-0": 11.5})
    assert named(made, "near-0").pending == 10
    made.apply([relay("near", 0, 0.3)], 14.0)
    assert named(made, "near-0").pending == 0


def test_several_answer_and_each_counts_for_all() -> None:
    made = fleet(relay("near", 0, 0.3), sharers=3)
    made.take(made.choose(1, WAYS, Track())[0], Track())
    assert named(made, "near-0").load == pytest.approx(0.303)


def test_without_reports_what_was_sent_is_forgotten_by_and_by() -> None:
    made = fleet(relay("near", 0, 0.3), relay("near", 1, 0.94999))
    for _ in range(9):
        made.take(named(made, "near-0"), Track())
    made.take(named(made, "near-1"), Track())
    assert named(made, "near-1").is_full
    for minute, left in ((1, 4), (2, 2), (3, 1), (4, 0)):
        made.advance(minute * FORGET_S)
        made.check_invariants()
        assert named(made, "near-0").pending == left
    assert not named(made, "near-1").is_full


def test_many_at_once_go_where_one_would() -> None:
    made = fleet(*mesh(0.2))
    track = made.track(["near-2"])
    assert made.pick(7, WAYS, track) is named(made, "near-2")
    assert fleet(relay("near", 0, 0.96), relay("far", 0)).pick(7, WAYS, Track()) is None
    spilling = fleet(relay("near", 0, 0.96), relay("next", 0))
    assert spilling.pick(7, WAYS, Track()) is named(spilling, "next-0")
    assert Fleet(POLICY).pick(7, WAYS, Track()) is None


def test_what_was_measured_is_told_by_region() -> None:
    made = fleet(*mesh())
    told = (("near-1", 20.0), ("near", 12.0), ("near-2", 15.0), ("far-0", 0.0), ("next", 99_999.0), ("nowhere", 5.0))
    assert measured_regions(made, told) == (("near", 12.0),)


def test_first_of_candidates() -> None:
    made = fleet(*mesh())
    chosen = made.choose(1, WAYS, Track())
    other = next(standing for standing in made.standings() if standing not in chosen)
    assert first(chosen, other) == [other, *chosen[:3]]
    assert first(chosen, chosen[2]) == [chosen[2], chosen[0], chosen[1], chosen[3]]


def test_every_verdict_is_given_with_figures_that_add_up() -> None:
    made = fleet(
        relay("near", 0, 0.40),
        relay("near", 1, 0.40),
        relay("near", 2, 0.74),
        relay("near", 3, 0.96),
        relay("near", 4, stage="cordoned"),
        relay("near", 5),
        relay("next", 0, 0.30),
        relay("far", 0, 0.30),
        relay("far", 1, 0.30),
        suspects=("near-5",),
    )
    here = named(made, "near-0")
    chosen = candidates(made, 1, WAYS, Track())
    told = explain_relays(made, WAYS, Track(), chosen, here)
    verdicts = " | ".join(f"{one.relay}: {one.verdict}" for one in told)
    assert isinstance(chosen, Choice)
    assert [one.relay for one in told if one.place is not None] == names(chosen.relays)
    for part in ("chosen", "to fall back on", "bound", "too far", "full", "cordoned", "silent"):
        assert part in verdicts, verdicts
    for one in told:
        parts = (
            one.rtt_ms,
            one.price_ms,
            one.order_ms,
            one.load_ms,
            one.rush_ms,
            one.track_ms,
            one.full_ms,
            one.here_ms,
        )
        assert one.cost_ms == pytest.approx(sum(parts))


STAGES = st.sampled_from(["serving"] * 5 + ["cordoned", "draining", "empty"])
ENTRIES = st.lists(st.tuples(st.sampled_from(["near", "next", "far"]), st.floats(0, 1), STAGES), max_size=14)


def _is_within_bound(standing: Standing) -> bool:
    ring = standing.group.ring
    even = sum(s.taken for s in ring) / sum(s.capacity for s in ring)
    return standing.load <= max(POLICY.bound_ratio * even, POLICY.bound_floor_ratio) + 1e-9


@settings(max_examples=150)
@given(ENTRIES, st.integers(0, 2**64 - 1), st.sets(st.integers(0, 13)), st.sets(st.integers(0, 13)), st.integers(0, 60))
def test_against_a_slow_look_at_everybody(
    rows: list[tuple[str, float, str]], seed: int, suspected: set[int], carrying: set[int], taken: int
) -> None:
    entries = [relay(region, number, load, stage=stage) for number, (region, load, stage) in enumerate(rows)]
    ids = [entry.id for entry in entries]
    made = fleet(*entries, suspects=tuple(ids[n] for n in suspected if n < len(ids)))
    track = made.track([ids[n] for n in carrying if n < len(ids)])
    for number in range(taken):
        sent = made.choose((seed + number * 0x9E3779B97F4A7C15) % 2**64, WAYS, track)
        if sent:
            made.take(sent[0], track)
    made.check_invariants()
    chosen = made.choose(seed, WAYS, track)
    serving = [
        step for step in WAYS.steps if any(not s.closed for s in made.standings() if s.group.name == step.region)
    ]
    reach = serving[0].rtt_ms + POLICY.spill_ms if serving else 0.0
    near = {step.region for step in serving if step.rtt_ms <= reach}
    room = [s for s in made.standings() if not s.closed and not s.is_full]
    assert bool(chosen) == any(s.group.name in near for s in room)
    assert len(chosen) == len(set(chosen)) <= MAX_CANDIDATES
    assert set(chosen) <= set(room)
    if chosen:
        best = chosen[0]
        assert best.group.name in near
        assert len(chosen) == MAX_CANDIDATES or {s.group.name for s in room} <= {s.group.name for s in chosen}
        assert _is_within_bound(best)
        # Who is over its bound may come later in the list, and cheaper than the first: it is there to fall back on.
        costs = [made.cost_ms(s, WAYS, track) for s in chosen if s.group.name in near and _is_within_bound(s)]
        drawn = [cost for cost in costs if cost is not None]
        assert made.cost_ms(best, WAYS, track) == pytest.approx(min(drawn)) or len(serving) < 3
