"""What operators and viewers say about places: policies, prefix tables and measurements, and what is made of them."""

from __future__ import annotations

import ipaddress
from statistics import median_low

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.contract.messages import MarketEntry, RelayEntry
from tradewind.placing.locating import (
    NO_SPOT,
    PrefixTable,
    PrefixTableError,
    Spot,
    bucket_of,
    distance_km,
    parse_address,
    parse_prefixes,
)
from tradewind.placing.measuring import HEARD, KEEP_S, MAX_REGIONS_PER_BUCKET, QUORUM, Measurements
from tradewind.placing.policy import Policy, PolicyError, Reason, parse_policy
from tradewind.placing.ways import Atlas, Ways

FRANKFURT, TOKYO, VIRGINIA, SYDNEY = (50.1, 8.7), (35.7, 139.7), (38.9, -77.4), (-33.9, 151.2)
PLACES = {"eu": FRANKFURT, "jp": TOKYO, "us": VIRGINIA, "au": SYDNEY}
MARKETS = (MarketEntry("DE", ("us", "eu")), MarketEntry("KP", ()), MarketEntry("*", ("jp", "us")))


def relay(region: str, number: int = 1, place: tuple[float, float] | None = None) -> RelayEntry:
    north, east = place or PLACES.get(region, (0.0, 0.0))
    name = f"{region}-{number}"
    return RelayEntry(name, region, f"https://{name}:443", (name, 443), "serving", 0.1, 900, north, east)


def atlas(policy: Policy | None = None, regions: str = "eu jp us au") -> Atlas:
    made = Atlas(policy or Policy())
    made.apply([relay(region) for region in regions.split()])
    return made


def regions(ways: Ways | Reason) -> list[str]:
    assert isinstance(ways, Ways)
    return [step.region for step in ways.steps]


# --- Policy ---


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(
            {
                "load_ms": "much",
                "full_ratio": 2,
                "rush_free": 1.5,
                "colour": 1,
                "markets": {"Germany": ["eu"], "FR": ["eu", "EU!", "eu"], "IT": "eu"},
                "prices_ms": {"eu": -1.0, "Nowhere": 2.0, "us": None},
            }
        )
    text = "\n".join(caught.value.problems)
    for part in (
        "load_ms",
        "full_ratio",
        "rush_free",
        "colour",
        "Germany",
        "EU!",
        "twice",
        "IT",
        "eu: -1",
        "Nowhere",
        "us",
    ):
        assert part in text, part


def test_a_policy_reads_back() -> None:
    policy = parse_policy({"ttl_s": 10, "markets": {"DE": ["eu"], "*": []}, "prices_ms": {"eu": 3}})
    assert (policy.ttl_s, policy.markets[0], policy.prices_ms) == (10.0, MarketEntry("DE", ("eu",)), (("eu", 3.0),))
    with pytest.raises(PolicyError):
        Policy(ttl_s=float("nan"))
    with pytest.raises(PolicyError):
        Policy(busy_ratio=0.9, full_ratio=0.8)


# --- Prefixes ---

TABLE = """network,country,latitude,longitude
10.0.0.0/8,DE,50,8   # ours
10.1.0.0/16,fr,,
10.1.2.0/24,,48.9,2.3
2001:db8::/32,JP,35.7,139.7
"""


@pytest.mark.parametrize(
    ("address", "spot"),
    [
        ("10.9.9.9", Spot("DE", 50.0, 8.0)),
        ("10.1.9.9", Spot("FR")),
        ("10.1.2.9", Spot(None, 48.9, 2.3)),
        ("::ffff:10.1.2.9", Spot(None, 48.9, 2.3)),
        ("2001:db8:1::1", Spot("JP", 35.7, 139.7)),
        ("11.0.0.1", None),
        ("2002::1", None),
    ],
)
def test_longest_prefix_counts(address: str, spot: Spot | None) -> None:
    assert parse_prefixes(TABLE).locate(ipaddress.ip_address(address)) == spot
    assert len(parse_prefixes(TABLE)) == 4


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=20), st.integers(0, 2**32 - 1))
def test_prefixes_against_a_walk_over_all(prefixes: list[tuple[int, int]], number: int) -> None:
    networks = [ipaddress.IPv4Network((bits >> 32 - length << 32 - length, length)) for bits, length in prefixes]
    lines = [f"{network},,{place % 90},{place % 180}" for place, network in enumerate(networks)]
    address = ipaddress.IPv4Address(number)
    fitting = [(network.prefixlen, place) for place, network in enumerate(networks) if address in network]
    expected = Spot(None, max(fitting)[1] % 90.0, max(fitting)[1] % 180.0) if fitting else None
    assert parse_prefixes("\n".join(lines)).locate(address) == expected


def test_bad_lines_are_named() -> None:
    with pytest.raises(PrefixTableError) as caught:
        parse_prefixes(
            "10.0.0.0/8,DE\n10.0.0.1/8,DE\nx,DE\n10.0.0.0/8,Germany\n10.0.0.0/8,DE,91,0\n10.0.0.0/8,DE,nan,0\n,,,,"
        )
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [f"line {n}" for n in range(2, 8)]


def test_addresses_and_neighbourhoods() -> None:
    assert parse_address("fe80::1%eth0") is not None
    assert parse_address("1.2.3.4:80") is None
    assert parse_address("::ffff:1.2.3.4") == ipaddress.IPv4Address("1.2.3.4")
    buckets = [
        bucket_of(ipaddress.ip_address(text)) for text in ("1.2.3.4", "1.2.3.9", "2001:db8:1::1", "2001:db8:1:9::1")
    ]
    assert buckets[0] == buckets[1] and buckets[2] == buckets[3] and buckets[0] != buckets[2]
    assert distance_km(*FRANKFURT, *TOKYO) == pytest.approx(9350, rel=0.02)
    assert not len(PrefixTable((), ()))


# --- Measurements ---


def address(last: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(f"192.0.2.{last}")


def test_one_client_alone_says_nothing_for_others() -> None:
    measured = Measurements()
    for number in range(50):
        measured.apply(address(1), f"token-{number}", "eu", 900.0, float(number))
        measured.apply(address(number), "one token", "jp", 900.0, float(number))
    assert measured.rtts_ms(address(7), 60.0) == ()
    measured.check_invariants()


def test_a_liar_among_honest_viewers_moves_nothing() -> None:
    measured = Measurements()
    for number in range(4):
        measured.apply(address(number), f"token-{number}", "eu", 20.0, 0.0)
    for number in range(100):
        measured.apply(address(99), "liar", "eu", 3000.0, float(number))
    assert measured.rtts_ms(address(7), 100.0) == (("eu", 20.0),)


def test_nonsense_and_too_many_regions_are_counted_and_forgotten() -> None:
    measured = Measurements()
    for rtt_ms in (-1.0, 0.0, float("nan"), float("inf"), 1e9):
        measured.apply(address(1), "t", "eu", rtt_ms, 0.0)
    for number in range(20):
        measured.apply(address(1), "t", f"region-{number}", 5.0, 0.0)
    measured.check_invariants()
    assert measured.statistics() == (1, MAX_REGIONS_PER_BUCKET, 5 + 20 - MAX_REGIONS_PER_BUCKET)


def test_old_words_go_and_memory_is_bounded() -> None:
    measured = Measurements(max_buckets=10)
    for number in range(3):
        measured.apply(address(number), f"t{number}", "eu", 20.0, 0.0)
    assert measured.rtts_ms(address(9), KEEP_S - 1)
    assert not measured.rtts_ms(address(9), KEEP_S)
    for number in range(50):
        measured.apply(ipaddress.IPv4Address(number << 8), "t", "eu", 20.0, 1.0)
    measured.check_invariants()
    assert measured.statistics().buckets == 10


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.floats(1, 500)), max_size=40))
def test_the_average_against_a_slow_twin(words: list[tuple[int, int, float]]) -> None:
    measured = Measurements()
    heard: list[tuple[int, int, float]] = []
    average: float | None = None
    for network, viewer, rtt_ms in words:
        measured.apply(address(network), str(viewer), "eu", rtt_ms, 0.0)
        heard = [word for word in heard if word[0] != network and word[1] != viewer]
        heard = [*heard, (network, viewer, rtt_ms)][-HEARD:]
        if len(heard) >= QUORUM:
            middle = median_low([word[2] for word in heard])
            average = middle if average is None else average + 0.3 * (middle - average)
    measured.check_invariants()
    found = dict(measured.rtts_ms(address(0), 0.0)).get("eu")
    assert found == (None if average is None else pytest.approx(average))


# --- Ways ---


def test_nearest_first() -> None:
    assert regions(atlas().ways(Spot("DE", 52.5, 13.4), (), 0)) == ["eu", "us", "jp", "au"]
    assert regions(atlas().ways(Spot("NZ", -41.3, 174.8), (), 0))[0] == "au"


def test_measurements_count_for_more_than_the_table() -> None:
    # The table says Berlin; 9 ms to Tokyo says otherwise, and so of everything that was not measured.
    found = atlas().ways(Spot("DE", 52.5, 13.4), (("jp", 9.0),), 0)
    assert regions(found) == ["jp", "au", "eu", "us"]
    plausible = atlas().ways(Spot("DE", 52.5, 13.4), (("jp", 240.0), ("eu", 150.0)), 0)
    assert regions(plausible) == ["us", "eu", "jp", "au"]


def test_of_whom_nothing_is_known_candidates_are_spread() -> None:
    firsts, known = set(), atlas()
    for seed in range(16):
        found = known.ways(NO_SPOT, (), seed)
        assert isinstance(found, Ways) and found.guessed
        assert len({step.rtt_ms for step in found.steps}) == 1
        firsts.add(found.steps[0].region)
    assert firsts == {"eu", "jp", "us", "au"}
    assert known.ways(Spot("DE", 52.5, 13.4), (), 0) != known.ways(NO_SPOT, (), 0)


def test_market_rules() -> None:
    ruled = atlas(Policy(markets=MARKETS, prices_ms=(("eu", 5.0),)))
    found = ruled.ways(Spot("DE", 52.5, 13.4), (), 0)
    assert isinstance(found, Ways)
    assert {step.region: round(step.base_ms - step.rtt_ms) for step in found.steps} == {"us": 0, "eu": 25}
    assert regions(found) == ["eu", "us"]
    assert regions(ruled.ways(Spot("FR", 48.9, 2.3), (), 0)) == ["us", "jp"]
    assert set(regions(ruled.ways(NO_SPOT, (), 3))) == {"us", "jp"}
    assert ruled.ways(Spot("KP", 39.0, 125.8), (), 0) is Reason.NOT_SERVED_HERE
    strict = atlas(Policy(markets=MARKETS[:1]))
    assert strict.ways(Spot("FR", 48.9, 2.3), (), 0) is Reason.NO_MARKET
    assert strict.ways(NO_SPOT, (), 0) is Reason.NO_MARKET
    assert regions(atlas(Policy(markets=(*MARKETS, MarketEntry("??", ("au",))))).ways(NO_SPOT, (), 0)) == ["au"]


def test_who_asks_first_does_not_matter() -> None:
    one, other = atlas(), atlas()
    first = one.ways(Spot("DE", 52.4, 13.4), (("eu", 21.0),), 1)
    other.ways(Spot("DE", 51.6, 12.6), (("eu", 19.0),), 2)
    assert first == other.ways(Spot("DE", 52.4, 13.4), (("eu", 21.0),), 1)


def test_ways_are_forgotten_when_a_region_comes() -> None:
    known = atlas(regions="us jp")
    assert regions(known.ways(Spot("DE", 52.5, 13.4), (), 0)) == ["us", "jp"]
    known.apply([relay("us"), relay("jp"), relay("eu")])
    assert regions(known.ways(Spot("DE", 52.5, 13.4), (), 0)) == ["eu", "us", "jp"]


def test_a_region_across_the_date_line_has_its_middle_there() -> None:
    known = Atlas(Policy())
    known.apply([relay("fiji", 1, (-18.0, 179.0)), relay("fiji", 2, (-18.0, -179.0)), relay("eu")])
    found = known.ways(Spot(None, -18.0, 180.0), (), 0)
    assert isinstance(found, Ways) and found.steps[0].region == "fiji" and found.steps[0].rtt_ms < 15
