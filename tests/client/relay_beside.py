"""A relay on a real socket of this machine, in the test's own nursery.

What is sent here has arrived before anybody waits for it. So tests may take trio's autojump clock, on which time passes
only while nobody has anything to do: a machine that is busy elsewhere makes no connection time out. Not where something
waits for a thread (files do): the clock would not.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from relay.node import Node
from tests.quic.certificates import CERTIFICATE
from tests.sim.relay import ANYBODY, node_settings, quic_settings
from tradewind.quic.udp import UdpSocket


class RelayBeside:
    """A `Node` between one socket and the clock."""

    def __init__(self, port: int = 0, protocols: tuple[str, ...] | None = None, **settings: Any) -> None:
        changes: dict[str, Any] = {"certificate": CERTIFICATE}
        if protocols is not None:
            changes |= {"protocols": protocols, "browser_protocols": protocols}
        self.node = Node(node_settings(quic=quic_settings(**changes), **settings), ANYBODY)
        self.socket = UdpSocket("127.0.0.1", port)
        self.port: int = self.socket.address[1]
        self.stopped = False
        self.held = False
        """Whether it does nothing for now, as a process that is not scheduled."""
        self._sleeping = trio.CancelScope()

    @property
    def quic_url(self) -> str:
        return f"moqt://127.0.0.1:{self.port}/"

    @property
    def web_url(self) -> str:
        return f"https://127.0.0.1:{self.port}/"

    async def run(self) -> None:
        while not self.stopped:
            if self.held:
                await trio.sleep(0.005)
                continue
            self.turn()
            deadline = self.node.next_deadline()
            with trio.CancelScope(deadline=float("inf") if deadline is None else deadline) as self._sleeping:
                await self.socket.wait_readable()

    def turn(self) -> None:
        now, more = trio.current_time(), True
        batch = self.socket.receive()
        if batch:
            self.node.receive_datagrams(0, batch, now, time.time())
        deadline = self.node.next_deadline()
        if deadline is not None and deadline <= now:
            self.node.handle_deadline(now, time.time())
        while more:
            output = self.node.take_output(now)
            for _, batches in output.datagrams:
                self.socket.send(batches)
            more = output.more

    def act(self) -> None:
        """Have what the test did to the node noticed."""
        self.turn()
        self._sleeping.cancel()

    def stop(self) -> None:
        """End as a crash does: the sessions hear nothing."""
        self.stopped = True
        self._sleeping.cancel()
        self.socket.close()


@asynccontextmanager
async def relay_beside(**settings: Any) -> AsyncIterator[RelayBeside]:
    relay = RelayBeside(**settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        try:
            yield relay
        finally:
            relay.stop()
            nursery.cancel_scope.cancel()
