"""EDGE: TCP at a relay's front: what browsers and placed players ask of a relay by HTTP, passed on as it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

READ_BYTES = 65_536


async def splice(listeners: Sequence[trio.SocketListener], relay: tuple[str, int]) -> None:
    """Pass connections on to a relay, for ever, from the address that they came from."""
    await trio.serve_listeners(partial(_pass, relay), list(listeners))


async def _pass(relay: tuple[str, int], front: trio.SocketStream) -> None:
    source = front.socket.getpeername()[0]
    try:
        back = await trio.open_tcp_stream(*relay, local_address=source)
    except OSError:
        await front.aclose()  # As if nobody were there.
        return
    async with front, back, trio.open_nursery() as nursery:
        nursery.start_soon(_copy, front, back, nursery.cancel_scope)
        nursery.start_soon(_copy, back, front, nursery.cancel_scope)


async def _copy(one: trio.SocketStream, other: trio.SocketStream, both: trio.CancelScope) -> None:
    try:
        while data := await one.receive_some(READ_BYTES):
            await other.send_all(data)
        await other.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        both.cancel()
