"""A relay of four is emptied: what its viewers see of that, and what asking them to move costs its turns.

    python -m bench.draining [--viewers 100] [--deadline 20]

Everything runs on a virtual clock: gaps, the spread over the other relays and the time until the relay is empty are the
same on every machine. What waves cost is processor time of this one. Viewers follow GOAWAY make before break, each by
the URI that it is given, over relays that want placement tokens. Exit code: 0, or 1 where a picture stood still for
more than 200 ms, an object was missed, or the relay was not empty in time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from relay.departures import Departures
from tests.sim.moving import PERIOD_S, Follower, Placed, Source, reader, writer

STILL_S = 0.2
NAMES = ("fra", "hkg", "osl", "sin")


class Timed(Departures):
    """Departures that know what they cost."""

    __slots__ = ("waves",)

    waves: list[tuple[int, float]]
    """Sessions asked, and seconds."""

    def handle_deadline(self, now: float, wall_now: float) -> None:
        began = time.process_time()
        before = len(self.emptying.asked) if self.emptying is not None else 0
        super().handle_deadline(now, wall_now)
        asked = len(self.emptying.asked) - before if self.emptying is not None else 0
        self.waves.append((asked, time.process_time() - began))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--deadline", type=float, default=20.0, help="seconds")
    options = parser.parse_args(arguments)
    mesh = Placed(NAMES, checks=False)
    node = mesh.node("fra")
    timed = Timed(node)
    timed.placing, timed.waves = node.departures.placing, []
    node.departures = timed
    source = Source(mesh, mesh.dial("hkg", writer()))
    mesh.run()
    viewers = [Follower(mesh, mesh.dial("fra", reader())) for _ in range(options.viewers)]
    mesh.run()
    source.stream(2.0)
    mesh.order("fra", "drain", options.deadline)
    empty_s = None
    for step in range(round(options.deadline / PERIOD_S)):
        source.stream(PERIOD_S, told=step % 12 == 0)
        if empty_s is None and node.stage_name == "empty":
            empty_s = (step + 1) * PERIOD_S
    gap_s = max(max(viewer.gaps()) for viewer in viewers)
    missed = sum(len(source.sent) - len(viewer.objects) for viewer in viewers)
    spread = Counter(viewer.at for viewer in viewers)
    asked, cost_s = sum(count for count, _ in timed.waves), sum(cost for _, cost in timed.waves)
    print(f"{options.viewers} viewers, deadline {options.deadline:g} s, an object every {PERIOD_S * 1000:g} ms")
    print(f"longest gap {gap_s * 1000:.0f} ms, objects missed {missed}, empty after {empty_s} s")
    print(f"went to {', '.join(f'{name} {count}' for name, count in sorted(spread.items()))}")
    longest_s = max(cost for _, cost in timed.waves)
    print(f"{cost_s / max(asked, 1) * 1e6:.0f} us for each session, longest wave {longest_s * 1e3:.1f} ms")
    good = gap_s <= STILL_S and not missed and empty_s is not None and "fra" not in spread
    print("PASS" if good else "FAIL")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
