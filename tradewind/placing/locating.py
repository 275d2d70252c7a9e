"""Where a viewer is, as far as anybody knows: from the operator's own table of prefixes, never from data of ours.

Whoever answers `/v1/place` is given a `Locator`: this file's `PrefixTable`, read from plain text, or an edge that reads
another format. What viewers measured themselves (`measuring`) counts for more than what any table says.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_PREFIXES = 5_000_000
MAX_PROBLEMS = 20
"""A wrong file is wrong on every line; so many are told."""
EARTH_DIAMETER_KM = 12_742.0
LAST_MILE_MS = 10.0
RTT_MS_PER_KM = 0.016
"""Light in glass needs 0.01; cables do not go straight. Fitted to a year of AWS regions' medians."""


class Spot(NamedTuple):
    """A place, as exactly as it is known."""

    country: str | None = None
    """ISO 3166-1 alpha-2, in capitals."""
    latitude: float | None = None
    longitude: float | None = None
    """None together."""


NO_SPOT = Spot()


class Locator(Protocol):
    """Whatever knows where addresses are."""

    def locate(self, address: Address) -> Spot | None:
        """Where `address` is, or None. Takes microseconds and never raises."""
        ...


class PrefixTableError(Exception):
    """A table that cannot be read; `problems` says which lines and why."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class PrefixTable:
    """Prefixes and what is there; the longest that fits an address counts."""

    ipv4: tuple[tuple[int, dict[int, Spot]], ...]
    """For each length of prefix, longest first: how far to shift an address, and the prefixes of that length."""
    ipv6: tuple[tuple[int, dict[int, Spot]], ...]

    def locate(self, address: Address) -> Spot | None:
        """Where `address` is; an IPv6 address that carries an IPv4 one is that one."""
        address = plain_address(address)
        number = int(address)
        for shift, prefixes in self.ipv4 if address.version == 4 else self.ipv6:
            spot = prefixes.get(number >> shift)
            if spot is not None:
                return spot
        return None

    def __len__(self) -> int:
        return sum(len(prefixes) for family in (self.ipv4, self.ipv6) for _, prefixes in family)


def parse_prefixes(text: str) -> PrefixTable:
    """Read lines of `prefix,country,latitude,longitude`; what is not known stays empty, `#` begins a comment.

    A first line that names the columns is passed over. Raises PrefixTableError.
    """
    families: dict[int, dict[int, dict[int, Spot]]] = {4: {}, 6: {}}
    problems: list[str] = []
    spots: dict[Spot, Spot] = {}
    count = 0
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content or (number == 1 and content.lower().startswith(("prefix,", "network,", "cidr,"))):
            continue
        count += 1
        try:
            network, spot = _parse_line(content)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            if len(problems) >= MAX_PROBLEMS:
                break
            continue
        shift = network.max_prefixlen - network.prefixlen
        # Millions of prefixes have a few thousand places between them.
        families[network.version].setdefault(shift, {})[int(network.network_address) >> shift] = spots.setdefault(
            spot, spot
        )
        if count > MAX_PREFIXES:
            problems.append(f"line {number}: more than {MAX_PREFIXES} prefixes")
            break
    if problems:
        raise PrefixTableError(problems)
    return PrefixTable(tuple(sorted(families[4].items())), tuple(sorted(families[6].items())))


def parse_address(text: str) -> Address | None:
    """Read an address as sockets and proxies write it, without port; None: it is none."""
    try:
        return plain_address(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def plain_address(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only carries it; any other as it is."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def bucket_of(address: Address) -> int:
    """The neighbourhood whose viewers' measurements count for each other: an IPv4 /24 or an IPv6 /48, as one number."""
    return int(address) >> 8 if address.version == 4 else (1 << 48) | (int(address) >> 80)


def distance_km(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Great-circle distance between two places given in degrees."""
    north, other_north = math.radians(latitude), math.radians(other_latitude)
    east = math.radians(other_longitude - longitude)
    chord = math.sin((other_north - north) / 2) ** 2
    chord += math.cos(north) * math.cos(other_north) * math.sin(east / 2) ** 2
    return EARTH_DIAMETER_KM * math.asin(math.sqrt(min(chord, 1.0)))


def guessed_rtt_ms(km: float) -> float:
    """What a round trip over such a distance usually takes, a viewer's last mile included."""
    return LAST_MILE_MS + RTT_MS_PER_KM * km


_COUNTRY = re.compile(r"[A-Z]{2}")


def _parse_line(line: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, Spot]:
    columns = [column.strip() for column in line.split(",")]
    if not 2 <= len(columns) <= 4:
        raise ValueError("not prefix,country,latitude,longitude")
    prefix, country, north, east = (*columns, "", "")[:4]
    network = ipaddress.ip_network(prefix)
    country = country.upper()
    if country and _COUNTRY.fullmatch(country) is None:
        raise ValueError(f"{country!r} is not a country's two letters")
    if bool(north) != bool(east):
        raise ValueError("a latitude and a longitude go together")
    if not north:
        return network, Spot(country or None)
    latitude, longitude = float(north), float(east)
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        raise ValueError(f"{north}, {east} is nowhere on earth")
    return network, Spot(country or None, latitude, longitude)
