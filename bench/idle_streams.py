"""Cost of a packet beside idle request streams: one connection with none and with 2,000 of them open.

    python -m bench.idle_streams [--streams 2000] [--packets 4000]

Both directions are measured on one endpoint in memory, on a virtual clock: datagrams out with the acknowledgements that
come back, and datagrams in. Prints microseconds a packet and the ratio of the two; the house's limit is 1.3.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from typing import Any

from tests.quic.pair import Pair, client_settings, make_pair, server_settings
from tradewind.quic.config import Limits
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import DatagramReceived, StreamData

PAYLOAD = bytes(1200)
BURST = 10


def open_pair(idle: int) -> Pair:
    limits = Limits(bidi_streams=max(128, idle + 1))
    pair = make_pair(server=server_settings(limits=limits, congestion_control="reno"), client=client_settings())
    for number in range(idle):
        stream = pair.at_client.open_bidi()
        assert stream is not None
        pair.at_client.send(stream, b"request")
        if number % 100 == 99:
            pair.run(0.1)
    pair.run(1.0)
    for event in pair.server.told(StreamData):
        pair.at_server.consumed(event.stream, len(event.data))
        pair.at_server.send(event.stream, b"ok")
    pair.run(5.0)
    assert len(pair.server.told(StreamData)) == idle
    pair.server.events.clear()
    pair.client.events.clear()
    return pair


class Timed:
    """An endpoint whose calls are timed."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.spent_ns = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.endpoint, name)

        def timed(*arguments: Any) -> Any:
            started = time.process_time_ns()
            result = call(*arguments)
            self.spent_ns += time.process_time_ns() - started
            return result

        return timed


def measure(pair: Pair, packets: int) -> float:
    """Microseconds of the server's CPU a packet, half of them sent and half received."""
    timed = Timed(pair.server.endpoint)
    pair.server.endpoint = timed  # type: ignore[assignment]
    before = pair.at_server.statistics()
    for _ in range(packets // (2 * BURST)):
        for connection in (pair.at_server, pair.at_client):
            for _ in range(BURST):
                connection.datagram((PAYLOAD,), pair.link.now + 1)
        pair.run(0.1)
    pair.server.endpoint = timed.endpoint
    after = pair.at_server.statistics()
    pair.check()
    assert len(pair.server.told(DatagramReceived)) == len(pair.client.told(DatagramReceived)) == packets // 2
    pair.server.events.clear()
    pair.client.events.clear()
    done = after.packets_sent + after.packets_received - before.packets_sent - before.packets_received
    return timed.spent_ns / 1000 / done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--packets", type=int, default=4000)
    options = parser.parse_args()
    pairs = {"none": open_pair(0), "idle": open_pair(options.streams)}
    costs: dict[str, list[float]] = {name: [] for name in pairs}
    for _ in range(5):
        for name, pair in pairs.items():
            gc.collect()
            gc.freeze()
            costs[name].append(measure(pair, options.packets // 5))
    none, idle = statistics.median(costs["none"]), statistics.median(costs["idle"])
    print(
        f"no idle streams {none:.2f} us/packet   {options.streams} idle {idle:.2f} us/packet   ratio {idle / none:.2f}"
    )


if __name__ == "__main__":
    main()
