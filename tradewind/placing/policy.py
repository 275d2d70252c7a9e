"""What operators decide about placement: weights, market rules and prices, checked once and frozen.

`control` reads it from its settings; a relay on its own takes the market rules from its route table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from tradewind.contract.ids import is_name
from tradewind.contract.messages import MarketEntry

ELSEWHERE = "*"
"""The entry for every country that has none."""
NOWHERE = "??"
"""The entry for viewers of whom nobody knows where they are."""
MAX_MARKETS = 512
MAX_REGIONS_PER_MARKET = 256

_COUNTRY = re.compile(r"[A-Z]{2}|\*|\?\?")


class Reason(Enum):
    """Why a viewer is not placed: a closed list, and a metric's label."""

    BAD_REQUEST = "bad_request"
    TOKEN_MISSING = "token_missing"
    TOKEN_BAD = "token_bad"
    OUTSIDE_TOKEN = "outside_token"
    NO_MARKET = "no_market"
    """There are market rules, and none for where the viewer is."""
    NOT_SERVED_HERE = "not_served_here"
    """The rule for where the viewer is names no region."""
    NO_RELAY = "no_relay"
    """No relay that may serve the viewer takes anybody."""
    NO_CAPACITY = "no_capacity"
    """All that are near enough are full."""
    NO_TABLE = "no_table"
    """A relay was asked that has no route table yet."""
    TOO_MANY_QUESTIONS = "too_many_questions"
    """One address, or everybody, asks more than is answered."""


class PolicyError(Exception):
    """A policy that cannot be used; `problems` says everything that is wrong with it."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class Policy:
    """How candidates are compared. Costs are milliseconds that a viewer would wait; lower is better."""

    load_ms: float = 400.0
    """For a whole relay's load above `busy_ratio`."""
    busy_ratio: float = 0.70
    full_ratio: float = 0.95
    """From here on nobody new."""
    full_ms: float = 1000.0
    """What a full or leaving relay costs in comparisons; it is not chosen."""
    no_track_ms: float = 15.0
    depth_ms: float = 10.0
    """For each relay that has to fetch the track before the viewer has it, beyond those that carry it."""
    here_ms: float = 8.0
    """What being there already is worth."""
    order_ms: float = 20.0
    """For each place further down in a market's regions."""
    rush_ms: float = 2.0
    """For each viewer sent there within the last second or so, beyond the first `rush_free`: a handshake takes a relay
    about so long, and they wait for each other."""
    rush_free: int = 50
    unknown_rtt_ms: float = 100.0
    """Where neither distance nor a measurement says anything."""
    spill_ms: float = 40.0
    """How much further than the nearest region a viewer may be sent while that one is full."""
    bound_ratio: float = 1.15
    """No relay gets anybody while its load is more than this times its region's mean (loads are known late; in truth
    the fullest shall not be above 1.25 times the mean) ..."""
    bound_floor_ratio: float = 0.5
    """... unless it is below this: half-empty relays may differ, and tracks stay together."""
    suspects_ratio: float = 0.5
    """Where more of a region's relays than this look dead, the look is wrong, and all of them count."""
    better_ms: float = 15.0
    better_ratio: float = 0.20
    better_for_s: float = 30.0
    """A viewer moves when it gains the larger of the two, and has stood to for so long."""
    moves_every_s: float = 300.0
    """And not more often than this."""
    settle_s: float = 0.5
    """How long it takes until a viewer sent somewhere shows in that relay's reports."""
    ttl_s: float = 30.0
    """How long an answer is good for; then the player asks again."""
    probe_count: int = 3
    """How many candidates a player measures."""
    probe_bytes: int = 1200
    first_s: float = 60.0
    """How long the first candidate takes the placement token."""
    failover_s: float = 4 * 3600.0
    """How long the others do."""
    retry_s: float = 5.0
    """The least that a refused viewer waits; the most is three times as much."""
    markets: tuple[MarketEntry, ...] = ()
    """None: everybody is served from everywhere."""
    prices_ms: tuple[tuple[str, float], ...] = ()
    """Region and what its traffic's price is worth, in milliseconds."""

    def __post_init__(self) -> None:
        problems = [*_number_problems(self), *_market_problems(self.markets), *_price_problems(self.prices_ms)]
        if problems:
            raise PolicyError(problems)


def parse_policy(document: Mapping[str, Any]) -> Policy:
    """Read a policy from a settings document: numbers by their names here, `markets` and `prices_ms` as tables.

    `markets` maps countries to lists of regions, best first: `{"DE": ["eu-central", "eu-west"], "*": ["us-east"]}`.
    Raises PolicyError with everything that is wrong.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    kinds = {field.name: field.type for field in fields(Policy)}
    for name, value in document.items():
        if name == "markets":
            values[name] = _parse_markets(value, problems)
        elif name == "prices_ms":
            values[name] = _parse_prices(value, problems)
        elif name not in kinds:
            problems.append(f"{name}: there is no such setting")
        elif isinstance(value, bool) or not isinstance(value, int if kinds[name] == "int" else int | float):
            problems.append(f"{name}: not a number")
        else:
            values[name] = value if kinds[name] == "int" else float(value)
    try:
        policy = Policy(**values)
    except PolicyError as error:
        raise PolicyError([*problems, *error.problems]) from error
    if problems:
        raise PolicyError(problems)
    return policy


_RATIOS = ("busy_ratio", "full_ratio", "bound_floor_ratio", "suspects_ratio")
_LEAST = {"bound_ratio": 1.0, "ttl_s": 1.0, "first_s": 5.0, "failover_s": 60.0, "retry_s": 1.0, "settle_s": 0.1}
_MOST = {"probe_count": 4, "probe_bytes": 1452, "ttl_s": 3600.0, "failover_s": 86_400.0, "retry_s": 600.0}


def _number_problems(policy: Policy) -> Iterable[str]:
    for field in fields(policy):
        value = getattr(policy, field.name)
        if not isinstance(value, int | float):
            continue
        least, most = _LEAST.get(field.name, 0.0), 1.0 if field.name in _RATIOS else _MOST.get(field.name, 1e6)
        if not (math.isfinite(value) and least <= value <= most):
            yield f"{field.name}: {value:g} is not within {least:g} and {most:g}"
    if policy.busy_ratio > policy.full_ratio:
        yield "busy_ratio: above full_ratio"


def _market_problems(markets: tuple[MarketEntry, ...]) -> Iterable[str]:
    if len(markets) > MAX_MARKETS:
        yield f"markets: more than {MAX_MARKETS}"
    seen: set[str] = set()
    for market in markets:
        where = f"markets.{market.country}"
        if _COUNTRY.fullmatch(market.country) is None:
            yield f"{where}: not two capital letters, {ELSEWHERE!r} or {NOWHERE!r}"
        if market.country in seen:
            yield f"{where}: stands twice"
        seen.add(market.country)
        yield from (f"{where}: {region!r} is no region's name" for region in market.regions if not is_name(region))
        if len(set(market.regions)) < len(market.regions):
            yield f"{where}: a region stands twice"
        if len(market.regions) > MAX_REGIONS_PER_MARKET:
            yield f"{where}: more than {MAX_REGIONS_PER_MARKET} regions"


def _price_problems(prices: tuple[tuple[str, float], ...]) -> Iterable[str]:
    for region, price in prices:
        if not is_name(region):
            yield f"prices_ms: {region!r} is no region's name"
        if not (math.isfinite(price) and 0.0 <= price <= 10_000.0):
            yield f"prices_ms.{region}: {price:g} is not within 0 and 10000"


def _parse_markets(value: Any, problems: list[str]) -> tuple[MarketEntry, ...]:
    if not isinstance(value, Mapping):
        problems.append("markets: not a table of countries")
        return ()
    markets = []
    for country, regions in value.items():
        if isinstance(regions, list | tuple) and all(isinstance(region, str) for region in regions):
            markets.append(MarketEntry(str(country), tuple(regions)))
        else:
            problems.append(f"markets.{country}: not a list of regions")
    return tuple(markets)


def _parse_prices(value: Any, problems: list[str]) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, Mapping):
        problems.append("prices_ms: not a table of regions")
        return ()
    prices = []
    for region, price in value.items():
        if isinstance(price, int | float) and not isinstance(price, bool):
            prices.append((str(region), float(price)))
        else:
            problems.append(f"prices_ms.{region}: not a number")
    return tuple(prices)
