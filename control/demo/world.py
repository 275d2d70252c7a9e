"""The demo's world: five relays in four regions, and what lies between them. Pure.

Round trips are medians over a year between AWS regions (ap-east-1, ap-southeast-1, eu-central-1, us-west-1), as
cloudping.co measured them. Everything runs on this machine: where somebody is, their loopback address says.
"""

from __future__ import annotations

from dataclasses import dataclass

from control.demo.shaper import LinkShape

MESH = "demo"
LONG_LOSS_RATIO = 0.002
"""On every way between two regions, in each direction."""
LAST_MILE_S = 0.005
"""One way, between a viewer and the nearest place of their region where a relay could be."""
LOCAL_S = 0.0005
"""One way, between two relays of a region."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where relays and viewers are."""

    name: str
    country: str
    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Spot:
    """One relay of the demo."""

    id: str
    region: str


REGIONS = (
    Region("hkg", "HK", 22.3, 114.2),
    Region("sin", "SG", 1.35, 103.8),
    Region("fra", "DE", 50.1, 8.7),
    Region("sfo", "US", 37.6, -122.4),
)
RELAYS = (Spot("hkg-1", "hkg"), Spot("sin-1", "sin"), Spot("fra-1", "fra"), Spot("sfo-1", "sfo"), Spot("sfo-2", "sfo"))
HOME = "sfo"
"""Where whoever looks at the page is."""
RTT_MS = {
    frozenset(("hkg", "sin")): 37.4,
    frozenset(("hkg", "fra")): 193.8,
    frozenset(("hkg", "sfo")): 155.1,
    frozenset(("sin", "fra")): 160.9,
    frozenset(("sin", "sfo")): 170.1,
    frozenset(("fra", "sfo")): 153.1,
}
_NUMBERS = {region.name: number for number, region in enumerate(REGIONS, 1)}


NOTHING = LinkShape()


def between_relays(one: str, other: str) -> LinkShape:
    """One direction between relays of two regions."""
    if one == other:
        return LinkShape(delay_s=LOCAL_S)
    return LinkShape(None, LONG_LOSS_RATIO, RTT_MS[frozenset((one, other))] / 2000)


def to_viewers(viewer: str, relay: str, link: LinkShape = NOTHING) -> LinkShape:
    """One direction between a viewer and a relay, by their regions; `link` is what viewers sit behind besides."""
    way = NOTHING if viewer == relay else between_relays(viewer, relay)
    kept = (1 - way.loss_ratio) * (1 - link.loss_ratio)
    return LinkShape(link.rate_bit_per_s, 1 - kept, LAST_MILE_S + way.delay_s + link.delay_s)


def relay_host(number: int) -> str:
    """Where the relay with this place in `RELAYS` really listens; others know the address of its front."""
    return f"127.0.2.{number + 1}"


def viewer_host(region: str, number: int) -> str:
    """The address of a process of viewers in a region; the first is 0. There are 250 of them a region."""
    return f"127.10.{_NUMBERS[region]}.{number % 250 + 1}"


PUBLISHER_HOST = viewer_host("hkg", 249)
"""The seller is in Hong Kong."""


def region_of(host: str, home: str = HOME) -> str:
    """Where an address is; those that nobody gave out are at home."""
    parts = host.split(".")
    if parts[:2] == ["127", "10"] and parts[2].isdigit() and 1 <= int(parts[2]) <= len(REGIONS):
        return REGIONS[int(parts[2]) - 1].name
    return home


def prefixes(home: str = HOME) -> str:
    """The table of addresses that an operator would have: controllers and relays read it."""
    places = {f"127.10.{_NUMBERS[region.name]}.0/24": region for region in REGIONS}
    places["127.0.0.0/24"] = next(region for region in REGIONS if region.name == home)
    return "".join(f"{prefix},{at.country},{at.latitude},{at.longitude}\n" for prefix, at in places.items())
