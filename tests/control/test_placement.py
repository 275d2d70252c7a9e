"""The control plane's placement: tracks, what viewers measured, who stays, who moves, and who is carried to safety."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from control.placement import Placement
from tradewind.contract.admission import signer, verify_admission
from tradewind.contract.messages import MarketEntry, RelayEntry
from tradewind.contract.token import Claims, generate_key, parse_keys, sign
from tradewind.placing.answering import Placed, PlaceRequest, Refused
from tradewind.placing.explaining import Explanation
from tradewind.placing.locating import parse_address, parse_prefixes
from tradewind.placing.policy import Policy, Reason

WALL = 1_800_000_000.0
(ACCESS,) = parse_keys(json.dumps(generate_key("HS256", "shop")))
(KEY,) = parse_keys(json.dumps(generate_key("EdDSA", "controller-1")))
TOKENS = [sign(Claims("live", (), ("",), WALL + 9000, subject=str(number)), ACCESS) for number in range(12)]
BERLIN = parse_prefixes("192.0.2.0/24,DE,52.5,13.4")
PLACES = {"eu": (50.1, 8.7), "jp": (35.7, 139.7)}


def entry(region: str, number: int, load: float = 0.3, **more: Any) -> RelayEntry:
    name = f"{region}-{number}"
    headroom = int(1000 * (1 - load))
    made = RelayEntry(name, region, f"https://{name}:443", (name, 443), "serving", load, headroom, *PLACES[region])
    return msgspec.structs.replace(made, **more)


RELAYS = [entry(region, number) for region in PLACES for number in range(4)]


def placement(*relays: RelayEntry, policy: Policy | None = None, **more: Any) -> Placement:
    made = Placement(policy or Policy(), signer(KEY), [ACCESS], BERLIN, **more)
    made.apply(relays or RELAYS, 0.0)
    return made


def request(viewer: int = 0, **more: Any) -> PlaceRequest:
    address = parse_address(f"192.0.2.{viewer % 250}")
    values = {"namespace": "live/shop1", "token": TOKENS[0], "address": address, "viewer": str(viewer)}
    return PlaceRequest(**(values | more))


def placed(made: Placement, asked: PlaceRequest, now: float = 1.0) -> tuple[str, ...]:
    answer = made.answer(asked, now, WALL)
    assert isinstance(answer, Placed), answer
    made.check_invariants()
    return answer.relays


def loaded(loads: dict[str, float], **stages: str) -> list[RelayEntry]:
    found = [entry(r.region, int(r.id[-1]), loads.get(r.id, 0.3)) for r in RELAYS]
    return [msgspec.structs.replace(r, stage=stages.get(r.id.replace("-", "_"), "serving")) for r in found]


def test_viewers_go_to_who_carries_the_namespace_or_anything_beneath_it() -> None:
    made = placement()
    made.apply_carried("eu-2", [(b"live", b"shop1", b"camera"), (b"live", b"shop1", b"audio")])
    made.apply_carried("eu-3", [(b"live", b"shop10")])
    assert {placed(made, request(number))[0] for number in range(20)} == {"eu-2"}
    made.apply_carried("eu-2", [(b"live", b"shop1", b"audio")])
    made.apply(RELAYS, 10.0)
    assert placed(made, request(30), 11.0)[0] == "eu-2"
    made.apply_carried("eu-2", [])
    made.apply(RELAYS, 20.0)
    assert len({placed(made, request(number, namespace=f"live/shop{number}"), 21.0)[0] for number in range(20)}) > 2
    made.check_invariants()


def test_carriers_that_are_gone_are_forgotten() -> None:
    made = placement()
    made.apply_carried("eu-2", [(b"live", b"shop1")])
    assert made.statistics().carried == 2
    made.apply(RELAYS[:2], 1.0)
    assert made.statistics().carried == 0


def test_neighbours_measurements_correct_the_table() -> None:
    made = placement()
    assert placed(made, request(100))[0].startswith("eu")
    for number in range(3):
        told = (("eu-1", 180.0), ("jp", 9.0))
        asked = request(number, token=TOKENS[number], rtts_ms=told)
        # What a viewer measured itself counts for itself at once.
        assert placed(made, asked)[0].startswith("jp")
    assert placed(made, request(101))[0].startswith("jp")
    assert placed(made, request(102, address=parse_address("198.51.100.1"), rtts_ms=(("eu", 12.0),)))[0].startswith(
        "eu"
    )


def test_a_viewer_stays_until_another_place_was_better_for_long() -> None:
    made = placement()
    here = placed(made, request())[0]
    stays = request(here=here)
    busy = loaded({here: 0.80})
    for now in (100.0, 110.0, 129.0):
        made.apply(busy, now)
        assert placed(made, stays, now)[0] == here
    made.apply(busy, 130.0)
    moved = placed(made, stays, 130.0)[0]
    assert moved != here and made.statistics().moved == 1
    # Now the other one is worse: not before five minutes have gone by.
    for now in (140.0, 200.0, 429.0):
        made.apply(loaded({moved: 0.80}), now)
        assert placed(made, request(here=moved), now)[0] == moved
    made.apply(loaded({moved: 0.80}), 430.0)
    assert placed(made, request(here=moved), 430.0)[0] != moved


def test_patience_begins_anew_where_it_was_not_better_all_the_time() -> None:
    made = placement()
    here = placed(made, request())[0]
    for now, load in ((100.0, 0.80), (120.0, 0.30), (131.0, 0.80), (160.0, 0.80)):
        made.apply(loaded({here: load}), now)
        assert placed(made, request(here=here), now)[0] == here
    made.apply(loaded({here: 0.80}), 161.0)
    assert placed(made, request(here=here), 161.0)[0] != here


def test_a_small_gain_moves_nobody() -> None:
    made = placement()
    here = placed(made, request())[0]
    for now in range(100, 500, 50):
        made.apply(loaded({here: 0.72}), float(now))
        assert placed(made, request(here=here), float(now))[0] == here


@pytest.mark.parametrize("stage", ["cordoned", "draining", "empty"])
def test_who_is_at_a_relay_that_leaves_moves_at_once(stage: str) -> None:
    made = placement()
    here = placed(made, request())[0]
    made.apply(loaded({}, **{here.replace("-", "_"): stage}), 2.0)
    assert here not in placed(made, request(here=here), 2.0)


def test_a_full_relay_keeps_its_own_and_opens_to_nobody_else() -> None:
    made = placement(entry("eu", 0), entry("eu", 1))
    here = placed(made, request())[0]
    made.apply([entry("eu", 0, 0.97), entry("eu", 1, 0.97)], 2.0)
    assert placed(made, request(here=here), 2.0)[0] == here
    answer = made.answer(request(1, here=here), 2.0, WALL)
    assert isinstance(answer, Refused) and answer.reason is Reason.NO_CAPACITY and answer.retry_s
    assert made.statistics().refused == {"no_capacity": 1}


def test_a_relay_that_cannot_be_reached_is_not_insisted_on() -> None:
    made = placement()
    here = placed(made, request())[0]
    assert here not in placed(made, request(here=here, failed=(here,)))


def test_asking_again_counts_nobody_twice() -> None:
    made = placement(entry("eu", 0))
    for _ in range(10):
        placed(made, request())
        placed(made, request(here="eu-0"))
    relays = made.explain(request(7), 1.0, WALL)
    assert isinstance(relays, Explanation)
    assert relays.relays[0].load == pytest.approx(0.301)


def test_a_dead_relays_viewers_get_new_homes_at_once() -> None:
    relays = [entry("eu", number, 0.1) for number in range(4)]
    made = placement(*relays)
    made.apply_carried("eu-0", [(b"live", b"shop1")])
    for number in range(300):
        assert placed(made, request(number))[0] == "eu-0" or number > 60
    there = sum(placed(made, request(number))[0] == "eu-0" for number in range(300))
    made.apply(relays[1:], 2.0)
    moves, stranded = made.rehome("eu-0")
    made.check_invariants()
    assert (len(moves), stranded) == (there, 0)
    assert {move.relay for move in moves} <= {"eu-1", "eu-2", "eu-3"}
    assert made.rehome("eu-0") == ([], 0)
    assert made.statistics().rehomed == there


def test_those_for_whom_there_is_no_room_are_counted() -> None:
    made = placement(entry("eu", 0))
    placed(made, request())
    made.apply([entry("eu", 1, 0.97)], 2.0)
    assert made.rehome("eu-0") == ([], 1)
    made.check_invariants()


def test_what_is_remembered_of_viewers_is_bounded() -> None:
    made = placement(max_viewers=10)
    for number in range(50):
        placed(made, request(number))
    assert made.statistics().viewers == 10


def test_all_look_dead_and_the_answer_says_so() -> None:
    made = placement()
    made.apply(RELAYS, 2.0, suspects=[relay.id for relay in RELAYS])
    answer = made.answer(request(), 2.0, WALL)
    assert isinstance(answer, Placed) and answer.panic and json.loads(answer.body)["panic"]
    assert answer.relays[0].startswith("eu") and made.statistics().panicked == 1


def test_market_rules_and_key_changes() -> None:
    made = placement(policy=Policy(markets=(MarketEntry("DE", ("jp",)), MarketEntry("*", ()))))
    assert {relay[:2] for relay in placed(made, request())} == {"jp"}
    answer = made.answer(request(address=None), 1.0, WALL)
    assert isinstance(answer, Refused) and answer.reason is Reason.NOT_SERVED_HERE
    told = made.explain(request(address=None), 1.0, WALL)
    assert isinstance(told, Explanation) and told.refused is Reason.NOT_SERVED_HERE
    (other,) = parse_keys(json.dumps(generate_key("EdDSA", "controller-2")))
    made.replace_keys(signer(other), [ACCESS])
    answer = made.answer(request(), 1.0, WALL)
    assert isinstance(answer, Placed)
    token = json.loads(answer.body)["tok"]
    keys = {"controller-2": signer(other).key.public_key()}
    assert verify_admission(token, keys, answer.relays[1], TOKENS[0], "live", WALL).issuer == "controller-2"


def test_explaining_says_what_an_answer_will_be_and_changes_nothing() -> None:
    made = placement()
    made.apply_carried("eu-1", [(b"live", b"shop1")])
    for number in range(10):
        told = made.explain(request(number), 1.0, WALL)
        assert isinstance(told, Explanation)
        json.dumps(told.document())
        assert tuple(one.relay for one in told.relays if one.place is not None) == placed(made, request(number))
    assert isinstance(made.explain(replace(request(), token=""), 1.0, WALL), Refused)


class Life(RuleBasedStateMachine):
    """Viewers, reports and deaths in any order: nobody is placed where nobody may be, and nothing grows."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.relays = {relay.id: relay for relay in RELAYS}
        self.placement = placement(max_viewers=12)
        self.where: dict[int, str] = {}

    @rule(viewer=st.integers(0, 20), shop=st.integers(1, 3), told=st.booleans())
    def ask(self, viewer: int, shop: int, told: bool) -> None:
        here = self.where.get(viewer, "") if told else ""
        rtts = (("jp", 20.0 + viewer),) if viewer % 3 == 0 else ()
        asked = request(viewer, namespace=f"live/shop{shop}", here=here, rtts_ms=rtts, token=TOKENS[viewer % 12])
        answer = self.placement.answer(asked, self.now, WALL)
        open_to_all = {r.id for r in self.relays.values() if r.stage == "serving" and r.load < 0.95}
        if isinstance(answer, Placed):
            assert answer.relays[0] in open_to_all | {here}
            assert set(answer.relays[1:]) <= open_to_all
            assert self.relays[answer.relays[0]].stage == "serving"
            self.where[viewer] = answer.relays[0]
        else:
            assert answer.reason in {Reason.NO_CAPACITY, Reason.NO_RELAY}

    @rule(
        relay=st.sampled_from([r.id for r in RELAYS]),
        load=st.sampled_from([0.1, 0.6, 0.9, 0.97]),
        stage=st.sampled_from(["serving", "serving", "cordoned", "draining"]),
        shop=st.integers(1, 3),
    )
    def report(self, relay: str, load: float, stage: str, shop: int) -> None:
        self.relays[relay] = entry(relay[:2], int(relay[-1]), load, stage=stage)
        self.placement.apply_carried(relay, [(b"live", b"shop%d" % shop)])
        self.apply()

    @rule(relay=st.sampled_from([r.id for r in RELAYS]))
    def die(self, relay: str) -> None:
        self.relays.pop(relay, None)
        self.apply()
        moves, _ = self.placement.rehome(relay)
        assert all(move.relay in self.relays and self.relays[move.relay].stage == "serving" for move in moves)

    @rule(seconds=st.sampled_from([0.1, 1.0, 40.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.apply()

    @invariant()
    def holds(self) -> None:
        self.placement.check_invariants()

    def apply(self) -> None:
        self.placement.apply(list(self.relays.values()), self.now)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
