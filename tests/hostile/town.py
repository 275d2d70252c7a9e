"""A relay with honest people on it, and somebody who is not: whatever that one does, theirs goes on.

`Town` has a publisher and two viewers whose track goes on all the time; `Town.check` says that nothing of it was lost,
late or wrong, and that none of them was closed. `flat` and `flat_process` measure what an attack leaves in memory.
"""

from __future__ import annotations

import gc
import logging
import sys
import tracemalloc
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple

from relay.access import Access
from relay.node import NodeSettings
from tests.sim.client import TRACK, Client
from tests.sim.relay import ANYBODY
from tests.sim.world import World
from tradewind.moqt.model import Location

NOT_MEMORY = (type, ModuleType, FunctionType, BuiltinFunctionType, logging.Logger)
"""What is reachable from everything and nobody's in particular."""
LATE_S = 0.5
"""An honest viewer's object may take this long, attack or not: the path takes 20 ms."""


class Town(World):
    """One relay, an honest publisher, honest viewers on the oldest and the newest draft."""

    def __init__(self, settings: NodeSettings | None = None, access: Access = ANYBODY, **honest: Any) -> None:
        super().__init__(settings, access)
        self.publisher, self.served = self.publish(20, **honest)
        self.viewers = [self.join(draft, **honest) for draft in (22, 16)]
        self.requests = [viewer.subscribe() for viewer in self.viewers]
        self.run()
        self.group = 0
        self.sent: list[tuple[float, Location, bytes]] = []

    def live(self, seconds: float = 0.1) -> None:
        """The honest track goes on: one group of two objects, then time passes."""
        payloads = [b"%d" % self.group * 400, b"delta"]
        self.served.group(self.group, payloads, end_of_group=True)
        self.sent += [(self.network.now, Location(self.group, n), payload) for n, payload in enumerate(payloads)]
        self.group += 1
        self.run(seconds)

    def check(self) -> None:
        """Nobody honest has noticed anything."""
        self.live(0.1)
        self.run(LATE_S)
        for client in (self.publisher, *self.viewers):
            assert client.is_open, f"{client} was closed: {client.closed}"
        for viewer, request in zip(self.viewers, self.requests, strict=True):
            assert viewer.objects(request) == [(at, payload) for _, at, payload in self.sent]
            for (came, _), (sent, at, _) in zip(viewer.arrivals[request], self.sent, strict=True):
                assert came - sent < LATE_S, f"{at} came after {came - sent:.3f} s"
        newcomer = self.join()
        request = newcomer.subscribe(TRACK)
        self.live()
        assert newcomer.objects(request)[-2:] == [(at, payload) for _, at, payload in self.sent[-2:]]
        newcomer.close()
        self.run()

    def settle(self) -> None:
        """Live on until the honest track's cache is as full as it gets and nothing is under way."""
        for _ in range(33):
            self.live(1.0)
        self.forget()

    def forget(self) -> None:
        """Drop what honest clients remember, so that it does not count as memory of the relay's."""
        self.sent.clear()
        for viewer in self.viewers:
            viewer.events.clear()
            viewer.arrivals.clear()
            viewer.connection_events.clear()
        self.publisher.events.clear()
        self.publisher.connection_events.clear()
        self.relay.ended.clear()
        self.node.tally.answer_waits_s.clear()


def closed_with(client: Client) -> int | None:
    """The code with which the relay closed an attacker; fails where it is still open."""
    assert client.closed is not None, "still open"
    assert client.closed.by_peer
    return client.closed.code


class Held(NamedTuple):
    """What is reachable from a thing: how many objects that hold others or are ours, and the bytes of all."""

    objects: int
    bytes: int


def held_by(thing: object) -> Held:
    """Walk through everything that is reachable from a thing, as the interpreter sees it."""
    seen = {id(thing)}
    reachable, objects, size = [thing], 0, 0
    while reachable:
        found = reachable.pop()
        objects += not isinstance(found, (int, float, bytes, str))
        size += sys.getsizeof(found)
        for referent in gc.get_referents(found):
            if id(referent) not in seen and not isinstance(referent, NOT_MEMORY):
                seen.add(id(referent))
                reachable.append(referent)
    return Held(objects, size)


def flat(town: Town, attack: Callable[[], int], *, rounds: int = 3) -> None:
    """An attack by a session that stays: what the relay holds after some rounds is what it held after the first.

    An attack returns how many blows it was. QUIC's books of packets breathe, so that some slack is needed: less than
    half an object, or 200 bytes, for each blow.
    """
    town.relay.checks = False
    attack()
    attack()
    town.settle()
    before, blows = held_by(town.node), 0
    for _ in range(rounds):
        blows += attack()
        town.settle()
    after = held_by(town.node)
    town.relay.checks = True
    assert after.objects - before.objects < blows / 2, f"{before} before, {after} after {blows} blows"
    assert after.bytes - before.bytes < blows * 200, f"{before} before, {after} after {blows} blows"


def flat_process(town: Town, attack: Callable[[], None], *, rounds: int = 3, slack_bytes: int = 40_000) -> None:
    """An attack by sessions that come and go: the same for all that the process allocates."""
    town.relay.checks = False
    for _ in range(2):
        attack()
        town.forget()
    gc.collect()
    tracemalloc.start()
    try:
        attack()
        town.forget()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(rounds):
            attack()
            town.forget()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    town.relay.checks = True
    assert grown < slack_bytes, f"{grown / rounds:.0f} bytes stay of every round"
