"""`tradewind subscribe --wait`: for so long a publisher is waited for, and no longer."""

from __future__ import annotations

import pytest
import trio

from tests.client.relay_beside import relay_beside
from tests.client.test_connect import settings
from tradewind.client.connect import connect
from tradewind.client.tools.options import ToolError
from tradewind.client.tools.subscribe import find_broadcast

NAMESPACE = (b"live", b"nobody")


@pytest.mark.parametrize("protocol", ["moqt-22", "moqt-20", "moqt-16"])
@pytest.mark.parametrize("wait_s", [0.0, 0.2])
async def test_nobody_comes(protocol: str, wait_s: float) -> None:
    """The relay would wait for ten seconds if it were not told otherwise."""
    with trio.fail_after(5):
        async with (
            relay_beside(protocols=(protocol,)) as relay,
            connect(relay.quic_url, settings=settings(protocols=(protocol,), rendezvous_ms=10_000)) as client,
        ):
            with pytest.raises(ToolError, match="no broadcast at live/nobody"):
                await find_broadcast(client, NAMESPACE, "auto", wait_s)
