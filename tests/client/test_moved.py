"""`publish_media` where its relay is emptied: it goes on elsewhere by the URI that it is given; nothing is missing."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
import trio

from relay.access import Access, AccessSettings, Placement
from relay.placing import Placing
from tests.client.relay_beside import RelayBeside, relay_beside
from tests.client.test_connect import settings
from tests.client.test_tools import NAMESPACE, in_background, short_file
from tests.sim.tokens import KEY, token
from tradewind.client.connect import connect
from tradewind.client.tools.inputs import open_sources
from tradewind.client.tools.publishing import publish_media
from tradewind.contract.admission import (
    Signer,
    admission_keys,
    announced_key,
    mint_admission,
    relay_signer,
    viewer_digest,
)
from tradewind.contract.messages import RelayEntry, RouteTable
from tradewind.moqt.model import FullTrackName

OLD, NEW = relay_signer("old", bytes(32)), relay_signer("new", bytes([1]) * 32)
TOKEN = token("", put=[""], get=[""])


def place(relays: dict[Signer, RelayBeside]) -> None:
    """Give relays a table of each other; they want placement tokens, and place with their own."""
    entries = tuple(
        RelayEntry(
            one.id, "here", f"https://127.0.0.1:{relay.port}", ("127.0.0.1", relay.port), "serving", 0.0, 100,
            placement_key=announced_key(one),
        )
        for one, relay in relays.items()
    )  # fmt: skip
    for one, relay in relays.items():
        table = RouteTable("mesh", one.id, 1, 1, time.time(), (), entries, ())
        placing = relay.node.departures.placing = Placing(one.id, one, [KEY])
        placing.apply_table(table, trio.current_time())
        rules = Access((KEY,), AccessSettings(placement=Placement.REQUIRED, relay=one.id), admission_keys(table))
        relay.node.replace_access(rules)


@pytest.mark.slow
@pytest.mark.parametrize("webtransport", [False, True])
async def test_a_broadcast_goes_on_elsewhere(tmp_path: Path, webtransport: bool) -> None:
    with trio.fail_after(15):
        async with relay_beside() as old, relay_beside() as new:
            place({OLD: old, NEW: new})
            admitted = mint_admission(OLD, viewer_digest(TOKEN), "", ["old"], time.time())
            url = f"{old.web_url if webtransport else old.quic_url}?place={admitted}"
            calm = settings(rendezvous_ms=5000)
            async with (
                connect(url, token=TOKEN, settings=calm) as publisher,
                connect(url, token=TOKEN, settings=calm) as viewer,
                trio.open_nursery() as nursery,
            ):
                sources = open_sources([short_file(tmp_path, frames=30)])
                scope = await in_background(nursery, partial(publish_media, publisher, NAMESPACE, sources, loop=True))
                subscription = await viewer.subscribe(FullTrackName(NAMESPACE, b"video-180p"), wait_s=3.0)
                seen = [(await anext(subscription)).location for _ in range(30)]
                old.node.begin_emptying(trio.current_time(), 4.0)
                old.act()
                while old.node.attachments:
                    seen.append((await anext(subscription)).location)
                seen += [(await anext(subscription)).location for _ in range(30)]
                scope.cancel()
            assert old.node.stage_name == "empty"
            assert old.node.tally.goaways == {"given": 2}
            assert old.node.tally.overstayed == 0
            groups = sorted({location.group for location in seen})
            assert groups == list(range(groups[0], groups[-1] + 1)), "no group is missing"
            assert len(seen) == len(set(seen))
