"""What a placed viewer costs, and how long it is without objects when its relay dies or leaves.

    python -m bench.placed_viewers [--viewers 20] [--trouble kill|leave] [--seconds 10]

Three relays of one mesh, a publisher and the viewers, each a process of this machine, talk over loopback. All viewers
are on one relay, so that all move at once. One JSON line; every object is looked at, by group and number.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from control.demo.measuring import Seen, count_gaps, percentile
from tests.client.test_placed_processes import FIRST, SECOND, Show, open_show

SETTLE_S = 3.0
"""After the last viewer has come, and after it has moved: what is still being caught up with is over."""


def processor_s(process: int) -> float:
    """Processor time of a process so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(show: Show, trouble: str, seconds: float) -> dict[str, Any]:
    """Watch for so long, then bring trouble upon the relay and watch what comes of it."""
    time.sleep(SETTLE_S)
    began, spent = time.perf_counter(), processor_s(show.viewers.pid)
    time.sleep(seconds)
    cost = (processor_s(show.viewers.pid) - spent) / (time.perf_counter() - began) / show.count
    relay = show.relays[FIRST].process
    at = time.perf_counter()
    relay.kill() if trouble == "kill" else relay.terminate()
    show.until(lambda: show.play_at(SECOND, 60))
    time.sleep(SETTLE_S)
    tracks = show.objects()
    seen = [
        Seen(viewer, line["relay"], track, line["group"], line["object"], 0.0, line["received"], line["size"], 0.0)
        for (viewer, track), lines in tracks.items()
        for line in lines
    ]
    elsewhere, still = [], []
    for viewer in {one.viewer for one in seen}:
        times = sorted(one.received for one in seen if one.viewer == viewer)
        elsewhere.append(min(o.received for o in seen if o.viewer == viewer and o.relay == SECOND) - at)
        still.append(max(after - before for before, after in pairwise(times) if after >= at))
    return {
        "viewers": show.count,
        "trouble": trouble,
        "cpu_s_per_viewer_s": round(cost, 5),
        "objects": len(seen),
        "twice": len(seen) - len({(one.viewer, one.track, one.group, one.object) for one in seen}),
        "missing": count_gaps(seen),
        "elsewhere_s_p50": round(percentile(sorted(elsewhere), 0.5) or 0.0, 3),
        "elsewhere_s_max": round(max(elsewhere), 3),
        "still_s_p50": round(percentile(sorted(still), 0.5) or 0.0, 3),
        "still_s_max": round(max(still), 3),
    }


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(prog="python -m bench.placed_viewers", description=__doc__)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--trouble", choices=("kill", "leave"), default="kill")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, open_show(Path(directory), given.viewers) as show:
        print(json.dumps(measure(show, given.trouble, given.seconds)))


if __name__ == "__main__":
    main()
