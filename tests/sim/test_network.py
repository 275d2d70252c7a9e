"""The virtual network keeps its promises: what a path does to datagrams, and the same seed gives the same run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.sim.network import OVERHEAD_BYTES, Network, Parcel, Weather
from tests.sim.world import World
from tradewind.quic.config import Address

HERE: Address = ("192.0.2.1", 1)
THERE: Address = ("192.0.2.2", 2)


class Mailbox:
    """A host that writes down what comes, and asks to be woken when told to."""

    def __init__(self, address: Address) -> None:
        self.addresses = (address,)
        self.came: list[tuple[float, bytes]] = []
        self.to_send: list[Parcel] = []
        self.alarm: float | None = None
        self.rang: list[float] = []

    def receive(self, address: Address, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        self.came += [(now, data) for data, _ in batch]

    def next_deadline(self) -> float | None:
        return self.alarm

    def handle_deadline(self, now: float, wall_now: float) -> None:
        self.rang.append(now)
        self.alarm = None

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        parcels, self.to_send = self.to_send, []
        return parcels, False


def carry(weather: Weather, datagrams: Sequence[bytes], seed: int = 1) -> list[tuple[float, bytes]]:
    """Send datagrams at once; returns what came and after how long."""
    here, there = Mailbox(HERE), Mailbox(THERE)
    network = Network(here, there, seed=seed, weather=weather)
    start = network.now
    here.to_send = [Parcel(HERE, THERE, datagrams)]
    network.touch(here)
    network.run(60.0)
    return [(round(when - start, 6), data) for when, data in there.came]


def test_delay() -> None:
    assert carry(Weather(delay_s=0.5), [b"a", b"b"]) == [(0.5, b"a"), (0.5, b"b")]


def test_rate_spaces_datagrams_and_a_full_queue_drops_the_newest() -> None:
    datagrams = [bytes([number]) * 972 for number in range(5)]
    came = carry(Weather(delay_s=0.0, rate_bytes_per_s=972 + OVERHEAD_BYTES, queue_bytes=3000), datagrams)
    assert [(when, data[0]) for when, data in came] == [(1.0, 0), (2.0, 1), (3.0, 2)]


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 1000, 1000), (0.2, 760, 840), (1.0, 0, 0)])
def test_loss(share: float, least: int, most: int) -> None:
    assert least <= len(carry(Weather(loss=share), [b"x"] * 1000)) <= most


def test_reordering_and_duplicates() -> None:
    datagrams = [b"%d" % number for number in range(200)]
    came = [data for _, data in carry(Weather(reorder=0.1, duplicate=0.1), datagrams)]
    assert came != sorted(came, key=int)
    assert set(came) == set(datagrams)
    assert 205 < len(came) < 240


def test_alarms_ring_in_time() -> None:
    here = Mailbox(HERE)
    here.alarm = 1001.25
    network = Network(here)
    network.run(5.0)
    assert here.rang == [1001.25]
    assert network.now == 1005.0


def test_who_is_gone_hears_nothing() -> None:
    here, there = Mailbox(HERE), Mailbox(THERE)
    network = Network(here, there)
    here.to_send = [Parcel(HERE, THERE, [b"late"])]
    network.touch(here)
    network.remove(there)
    network.run(1.0)
    assert not there.came


def test_another_host_changes_no_dice() -> None:
    weather = Weather(loss=0.3, jitter_s=0.01)
    alone = carry(weather, [b"%d" % number for number in range(100)])
    here, there, other = Mailbox(HERE), Mailbox(THERE), Mailbox(("192.0.2.3", 3))
    network = Network(here, there, other, weather=weather)
    for number in range(100):
        here.to_send = [Parcel(HERE, THERE, [b"%d" % number]), Parcel(HERE, ("192.0.2.3", 3), [b"y"])]
        network.touch(here)
    network.run(1.0)
    assert sorted(data for _, data in alone) == sorted(data for _, data in there.came)


def story(seed: int) -> list[object]:
    """Video to two viewers over a bad network: when everything came."""
    world = World(weather=Weather(delay_s=0.02, jitter_s=0.01, loss=0.05, reorder=0.05), seed=seed)
    publisher = world.join()
    served = publisher.serve()
    publisher.announce()
    world.run()
    viewers = [world.join(), world.join(16, webtransport=True)]
    requests = [viewer.subscribe() for viewer in viewers]
    world.run()
    for group in range(3):
        served.group(group, [b"x" * 20_000, b"y" * 500])
        world.run(0.1)
    world.run(3.0)
    heard: list[object] = [
        [(when, found.location) for when, found in viewer.arrivals[request]]
        for viewer, request in zip(viewers, requests, strict=True)
    ]
    return [*heard, world.network.path(world.relay.addresses[0], viewers[0].addresses[0]).statistics]


def test_the_same_seed_gives_the_same_run() -> None:
    first = story(7)
    assert story(7) == first
    assert story(8) != first
