"""What a follower takes, when it counts, and what it shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.rooms.effects import Doing
from tests.relay.rooms.town import ROOM, acks, key_of, opened, publish
from tradewind.contract.copies import Copy
from tradewind.contract.rooms import chain_of, decode_record, encode


@pytest.mark.parametrize("count", [1, 700, 1200])
def test_a_new_follower_catches_up(count: int) -> None:
    town = opened(follower="", tail_records=256, window_records=512)
    for number in range(count):
        town.publish("a", publish(number))
        if not number % 200:
            town.settle()
    town.settle()
    town.told()
    town.name_home("a", "b")
    for _ in range(4):
        town.settle()
        town.pass_time(0.5)
    assert town.relays["b"].records == town.relays["a"].records
    assert town.relays["b"].live.reports()[0].whole == 2
    town.publish("a", publish(count))
    town.settle()
    assert acks(town) == [(2, count, False, 2)]


def test_a_follower_counts_once_it_is_whole() -> None:
    town = opened(follower="", batch_records=2)
    for number in range(5):
        town.publish("a", publish(number))
    town.settle()
    town.told()
    town.name_home("a", "c")
    town.flush("a")
    town.deliver("a", "c")
    town.flush("c")
    assert town.relays["c"].live.reports()[0].whole == 0, "it has the lineage and no record"
    while town.wires["c", "a"]:
        town.deliver("c", "a")
    town.deliver("a", "c")
    town.flush("c")
    assert len(town.relays["c"].records) == 2
    assert town.relays["c"].live.reports()[0].whole == 0
    while town.wires["c", "a"]:
        town.deliver("c", "a")
    town.publish("a", publish(0))
    assert acks(town) == [(1, 0, True, 1)], "nobody could promote it with so little"
    town.settle()
    assert town.relays["c"].live.reports()[0].whole == 2
    town.publish("a", publish(0))
    assert acks(town) == [(1, 0, True, 2)]


@pytest.mark.parametrize(
    ("changed", "doing"),
    [
        ({"seq": 2}, Doing.FOLLOWING),
        ({"epoch": 2}, Doing.FOLLOWING),
        ({"prev": b"otherwise"[:8]}, Doing.DIVERGED),
        ({}, Doing.FOLLOWING),
    ],
)
def test_a_follower_takes_the_next_record_and_no_other(changed: dict[str, int], doing: Doing) -> None:
    town = opened()
    town.publish("a", publish(0))
    town.settle()
    (first,) = town.relays["a"].disk.flushed.records
    record = replace(decode_record(first), seq=1, key=key_of(1), prev=chain_of(first))
    payload = encode(replace(record, **changed))  # type: ignore[arg-type]
    lineage = town.relays["a"].disk.flushed.standing.lineage
    for records in ((payload[:-1], payload), (payload,)):
        town.relays["b"].live.receive_relay("a", Copy(ROOM, 1, lineage, 1, records), town.now)
        town.take("b")
    town.settle()
    assert len(town.relays["b"].records) == (1 if changed else 2)
    assert town.relays["b"].doing is doing
    assert (town.relays["b"].live.reports()[0].whole == 0) == (doing is Doing.DIVERGED)


def test_records_come_from_the_home_alone() -> None:
    town = opened()
    town.publish("a", publish(0))
    while town.relays["a"].disk.queue:
        town.flush("a")
    copy = town.wires["a", "b"].pop()
    town.wires.setdefault(("c", "b"), town.wires["a", "b"].copy()).append(copy)
    town.settle()
    assert not town.relays["b"].records
    assert town.relays["b"].live.statistics()[ROOM].conflicts == 1


def test_a_follower_shows_what_two_relays_have() -> None:
    town = opened()
    for number in range(3):
        town.publish("a", publish(number))
    town.flush("a")
    town.flush("a")
    town.deliver("a", "b")
    town.flush("b")
    town.crash("a")
    assert len(town.relays["b"].visible()) == len(town.relays["b"].records) >= 1, "it may have been acknowledged"


def test_the_wire_may_lose_and_repeat() -> None:
    town = opened()
    for number in range(50):
        town.publish("a", publish(number))
        town.flush("a") if town.relays["a"].disk.queue else None
        wire = town.wires[("a", "b")]
        if number % 3 == 0 and wire:
            wire.popleft()
        elif wire:
            wire.append(wire[0])
    for _ in range(6):
        town.settle()
        town.pass_time(0.5)
    assert town.relays["b"].records == town.relays["a"].records
    assert len(town.relays["b"].records) == 50
