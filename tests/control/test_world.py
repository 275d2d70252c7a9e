"""The demo's world: who is where, what lies between, what may happen to it."""

from __future__ import annotations

import ipaddress

import pytest

from control.demo import world
from control.demo.faults import Fault, FaultError, Kind, parse_faults
from control.demo.shaper import LinkShape
from tradewind.placing.locating import parse_prefixes


def test_every_pair_of_regions_has_a_way() -> None:
    for one in world.REGIONS:
        for other in world.REGIONS:
            shape = world.between_relays(one.name, other.name)
            assert shape == world.between_relays(other.name, one.name)
            assert (shape.loss_ratio > 0) == (one != other)
    assert world.between_relays("hkg", "fra").delay_s == pytest.approx(0.0969)


def test_viewers_are_where_their_address_is() -> None:
    table = parse_prefixes(world.prefixes())
    for region in world.REGIONS:
        for number in (0, 249):
            host = world.viewer_host(region.name, number)
            assert world.region_of(host) == region.name
            found = table.locate(ipaddress.ip_address(host))
            assert found is not None
            assert (found.country, found.latitude) == (region.country, region.latitude)
    assert world.region_of("127.0.0.1") == world.HOME
    assert world.region_of("127.10.9.1") == world.HOME
    assert world.region_of("127.0.0.1", "fra") == "fra"
    found = parse_prefixes(world.prefixes("fra")).locate(ipaddress.ip_address("127.0.0.1"))
    assert found is not None and found.country == "DE"


def test_a_viewers_link_adds_up_with_the_distance() -> None:
    found = world.to_viewers("fra", "sfo", LinkShape(600_000, 0.02, 0.04))
    assert found.rate_bit_per_s == 600_000
    assert found.loss_ratio == pytest.approx(1 - 0.98 * 0.998)
    assert found.delay_s == pytest.approx(0.005 + 0.1531 / 2 + 0.04)


def test_faults_in_order() -> None:
    assert parse_faults(["fra-1@20s"], ["fra-1@40"], ["hkg-1-sfo-2=10%@5s+2s"], ["sin-1@1.5s"]) == (
        Fault(1.5, Kind.DRAIN, "sin-1"),
        Fault(5, Kind.LOSS, "hkg-1", "sfo-2", 0.1),
        Fault(7, Kind.HEAL, "hkg-1", "sfo-2"),
        Fault(20, Kind.KILL, "fra-1"),
        Fault(40, Kind.START, "fra-1"),
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kills": ["fra1@20s"]}, "fra-1"),
        ({"kills": ["fra-1"]}, "fra-1@20s"),
        ({"drains": ["control@3s"]}, "no 'control'"),
        ({"losses": ["hkg-1-fra-9=10%@2s"]}, "hkg-1-fra-1"),
        ({"losses": ["hkg-1-hkg-1=10%@2s"]}, "did you mean"),
        ({"losses": ["hkg-1-fra-1=110%@2s"]}, "more than everything"),
        ({"losses": ["hkg-1-fra-1@2s"]}, "hkg-1-fra-1=10%@20s"),
    ],
)
def test_what_is_no_fault(given: dict[str, list[str]], says: str) -> None:
    with pytest.raises(FaultError, match=says):
        parse_faults(**given)
