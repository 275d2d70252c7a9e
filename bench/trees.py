"""What an origin sends over the long link to a region whose relays all have viewers of its track: S7.

    python -m bench.trees [--relays 1 2 4 12 20]

Relays of one region, an origin 182 ms away, on a virtual clock: real sessions and forwarding, and the tables that a
controller makes, once without trees and once with them. A viewer at every relay watches 25 objects of 800 bytes a
second. Prints how many copies the origin sends, what leaves it in a second, and what the way over a head adds to how
old objects are when viewers have them. Exit code 1 where there are more copies than two with trees.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

from tests.sim.region import ORIGIN, Region

PERIOD_S, PER_GROUP, PAYLOAD = 0.04, 25, b"x" * 800
WARM_S, MEASURED_S = 3.0, 4.0


class Measured:
    """One region, and what was seen of it."""

    def __init__(self, relays: int, *, trees: bool) -> None:
        self.region = Region(relays, trees=trees)
        _, self.served = self.region.publish(ORIGIN)
        watched = self.region.watch()
        self._sent: list[float] = []
        self._play(WARM_S)
        began, before = self.region.network.now, self._bytes()
        self._play(MEASURED_S)
        self.copies = self.region.copies()
        self.bytes_per_s = (self._bytes() - before) / MEASURED_S
        self.region.run(1.0)
        self.age_ms = 1000 * median(
            at - self._sent[found.location.group * PER_GROUP + found.location.object]
            for viewer, request in watched.values()
            for at, found in viewer.arrivals[request]
            if at >= began
        )

    def _play(self, seconds: float) -> None:
        for _ in range(round(seconds / PERIOD_S)):
            group, number = divmod(len(self._sent), PER_GROUP)
            if number == 0:
                self._flow = self.served.open(group)
            self._sent.append(self.region.network.now)
            self._flow.object(number, PAYLOAD)
            if number == PER_GROUP - 1:
                self._flow.fin()
            self.region.run(PERIOD_S)

    def _bytes(self) -> int:
        """That left the origin for neighbours."""
        attachments = self.region.node(ORIGIN).attachments.values()
        return sum(one.connection.statistics().bytes_sent for one in attachments if one.neighbour is not None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relays", type=int, nargs="+", default=[1, 2, 4, 12, 20])
    counts = parser.parse_args().relays
    print("relays   copies sent by the origin   kB/s leaving it       median age of objects, ms")
    print("         without        with         without    with       without    with")
    most = 0
    for relays in counts:
        flat, tree = Measured(relays, trees=False), Measured(relays, trees=True)
        most = max(most, tree.copies)
        print(
            f"{relays:6} {flat.copies:10} {tree.copies:12}       {flat.bytes_per_s / 1000:9.1f} "
            f"{tree.bytes_per_s / 1000:8.1f}     {flat.age_ms:9.1f} {tree.age_ms:8.1f}",
            flush=True,
        )
    return most > 2


if __name__ == "__main__":
    sys.exit(main())
