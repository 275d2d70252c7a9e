"""S1 and S8 as processes, in short forms: a link that loses packets, and every relay emptied in its turn.

`test_demo` has S2, S3 and S4. What is asserted holds on a machine of any speed; how fast it all goes, `bench.mesh`
measures.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bench.mesh import perform, until
from control.demo.measuring import Record
from control.demo.show import Show, ShowSettings
from tests.control.test_demo import demo

pytestmark = pytest.mark.slow

RELAYS = ("sin-1", "fra-1", "hkg-1")
VIEWERS = 4
WITHIN_S = 30.0


def test_s1_a_link_that_loses_every_tenth_packet_is_left(tmp_path: Path) -> None:
    code, found, trace = demo(tmp_path, "--for", "14s", "--loss", "hkg-1-sin-1=10%@4s+6s")
    assert code == 0, found
    assert (found["viewers_lost"], found["gaps"], found["messages_missing"]) == (0, 0, 0)
    assert found["media_on_faulted_link"] > 1000
    moved = [line for line in trace if line["kind"] == "moved" and (line["relay"], line["was"]) == ("sin-1", "hkg-1")]
    assert {"video-180p", "audio"} <= {line["track"] for line in moved}
    assert found["switch_ms_p99"] < 5000


async def test_s8_every_relay_is_emptied_in_its_turn() -> None:
    """The publisher's too. Each serves on before the next is asked."""
    settings = ShowSettings(page=False, talk=False, relays=3, viewers=VIEWERS, rendition="low", regions=("sin",))
    emptied: list[str] = []

    async def script(show: Show) -> None:
        await until(lambda: plays(show, 20))
        for relay in RELAYS:
            await show.command(relay, "drain", deadline_s=6.0)
            with trio.fail_after(WITHIN_S):
                await until(lambda relay=relay: is_stage(show, relay, "empty"))  # type: ignore[misc]
            await show.command(relay, "undrain")
            with trio.fail_after(WITHIN_S):
                await until(lambda relay=relay: is_stage(show, relay, "serving"))  # type: ignore[misc]
            emptied.append(relay)
        await trio.sleep(2.0)

    record = await perform(Show(settings, tell=lambda _: None), script)
    found = record.summarize()
    assert tuple(emptied) == RELAYS
    assert (found.viewers, found.viewers_lost, found.gaps) == (VIEWERS, 0, 0)
    assert relays_seen(record) >= 2


async def plays(show: Show, frames: int) -> bool:
    states = list(show.viewers.values())
    return len(states) == VIEWERS and all(state.frames > frames for state in states)


async def is_stage(show: Show, relay: str, stage: str) -> bool:
    nodes = await show.ask("/v1/nodes")
    return any(node["id"] == relay and node["stage"] == stage for node in nodes)


def relays_seen(record: Record) -> int:
    """How many relays the least travelled viewer has been on."""
    return min(len({one.relay for one in viewer.seen}) for viewer in record.viewers.values())
