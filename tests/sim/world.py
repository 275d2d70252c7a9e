"""One relay with clients around it: where most stories about a `Node` begin."""

from __future__ import annotations

from typing import Any

from relay.access import Access
from relay.node import Node, NodeSettings
from tests.sim.client import TRACK, Client, Served
from tests.sim.network import CLEAR, Network, Weather
from tests.sim.relay import ANYBODY, Relay
from tradewind.moqt.model import FullTrackName, Properties


class World:
    """A relay, and clients that join one by one."""

    def __init__(
        self,
        settings: NodeSettings | None = None,
        access: Access = ANYBODY,
        *,
        weather: Weather = CLEAR,
        seed: int = 1,
    ) -> None:
        self.network = Network(seed=seed, weather=weather)
        self.relay = Relay(settings, access)
        self.network.add(self.relay)
        self._count = 0

    @property
    def node(self) -> Node:
        return self.relay.node

    def dial(self, **how: Any) -> Client:
        """A client that has sent its first packet; its address says in which order it came."""
        self._count += 1
        address = how.pop("address", None) or (f"203.0.113.{self._count}", 1000 + self._count)
        return Client(self.network, address, **how)

    def join(self, draft: int = 20, **how: Any) -> Client:
        """A client whose session is open."""
        client = self.dial(draft=draft, **how)
        self.network.until(lambda: client.is_open or client.closed is not None)
        assert client.is_open, f"closed: {client.closed}"
        return client

    def publish(
        self, draft: int = 20, *, track: FullTrackName = TRACK, properties: Properties = (), **how: Any
    ) -> tuple[Client, Served]:
        """A publisher that has announced its namespace and serves one track."""
        publisher = self.join(draft, **how)
        served = publisher.serve(track, properties=properties)
        publisher.announce(track.namespace)
        self.run()
        return publisher, served

    def run(self, seconds: float = 0.2) -> None:
        self.network.run(seconds)

    def until(self, condition: Any, within_s: float = 10.0) -> None:
        self.network.until(condition, within_s)
