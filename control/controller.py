"""EDGE: a plane between its sockets, its store and its clock: the loops of a controller.

`control.run` puts one together. A turn is: what came on the links, what is due, then what the plane wants done: batches
go to the store's thread, messages and closings to the links, replies to whoever waits for them.
"""

from __future__ import annotations

import logging
import time
from math import inf, isfinite

import trio

from control.links import Links, pass_on
from control.metrics import Metrics
from control.outgoing import Reply
from control.plane import Plane
from control.state import Batch, Order, Store, StoreError
from tradewind.contract.codec import ContractError
from tradewind.contract.messages import Question
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.udp import BATCH_DATAGRAMS, UdpSocket

log = logging.getLogger("control")

MAX_PORTS = 16
REPLY_S = 10.0
"""For the store, or a relay, to answer an operator."""


class Controller:
    """One controller. `ports` are its sockets, each with the endpoint and the links on it."""

    def __init__(
        self, plane: Plane, store: Store, ports: list[tuple[UdpSocket, Endpoint, Links]], metrics: Metrics
    ) -> None:
        assert len(ports) <= MAX_PORTS
        self.plane = plane
        self.ports = ports
        self.metrics = metrics
        self.failed: StoreError | None = None
        """The store cannot be written any more: this controller has to end."""
        self.ended = trio.Event()
        self._store = store
        self._timer = trio.CancelScope()
        self._waiting: dict[int, trio.Event] = {}
        self._replies: dict[int, Reply] = {}
        self._to_save, self._saving = trio.open_memory_channel[Batch](inf)

    # --- Loops ---

    async def serve_socket(self, port: int) -> None:
        """Take what arrives at one socket, for ever."""
        socket = self.ports[port][0]
        while True:
            batch = socket.receive()
            if batch:
                self.turn(port, batch)
            if len(batch) == BATCH_DATAGRAMS:
                await trio.lowlevel.checkpoint()
            else:
                await socket.wait_readable()

    async def keep_time(self) -> None:
        """Do what is due when it is due, for ever."""
        while True:
            with trio.CancelScope(deadline=self._deadline(trio.current_time())) as self._timer:
                await trio.sleep_forever()
            self.turn(None, [])
            await trio.lowlevel.checkpoint()

    async def keep_saving(self) -> None:
        """Write what the plane wants to survive, in its order, for ever; where that fails the controller ends."""
        async for batch in self._saving:
            began = trio.current_time()
            try:
                await trio.to_thread.run_sync(self._store.save, batch)
            except StoreError as error:
                # Nothing may be promised that is not kept. Relays go on with their tables; another life may go better.
                self.failed = error
                self.ended.set()
                return
            self.metrics.store.save_seconds.observe(trio.current_time() - began)
            self.plane.receive_saved(batch.number, trio.current_time(), time.time())
            self.turn(None, [])

    # --- Operators ---

    async def order(self, order: Order) -> Reply:
        """Have something done; the reply comes once it is journaled."""
        now = trio.current_time()
        return await self._reply(self.plane.order(order, now, time.time()))

    async def ask(self, relay: str, question: Question) -> Reply:
        """Ask a relay something; the question's id is given to it on the way."""
        return await self._reply(self.plane.ask(relay, question, trio.current_time()))

    async def _reply(self, ticket: int) -> Reply:
        event = self._waiting[ticket] = trio.Event()
        try:
            self.turn(None, [])
            with trio.move_on_after(REPLY_S):
                await event.wait()
            return self._replies.pop(ticket, Reply(ticket, 504, {"error": "no answer in time"}))
        finally:
            del self._waiting[ticket]
            self._replies.pop(ticket, None)

    # --- A turn ---

    def turn(self, port: int | None, batch: list[tuple[bytes, tuple[object, ...]]]) -> None:
        """One turn: what came, what is due, what is to be done."""
        now, wall_now = trio.current_time(), time.time()
        for number, (_, endpoint, links) in enumerate(self.ports):
            events = endpoint.receive_datagrams(batch, now) if number == port else []
            due = endpoint.next_deadline()
            if due is not None and due <= now:
                events += endpoint.handle_deadline(now)
            for happening in links.receive(events, now, wall_now):
                pass_on(happening, happening.link * MAX_PORTS + number, self.plane, now, wall_now)
            links.handle_deadline(now)
        due = self.plane.next_deadline(now)
        if due is not None and due <= now:
            self.plane.handle_deadline(now, wall_now)
        self._do()
        for socket, endpoint, _ in self.ports:
            socket.flush()
            socket.send(endpoint.datagrams_to_send(now))
        self.metrics.turns.duration.observe(trio.current_time() - now)
        self._timer.deadline = self._deadline(trio.current_time())

    def _do(self) -> None:
        """What the plane wants done, in its order."""
        output = self.plane.output()
        replies = list(output.replies)
        for batch in output.batches:
            self._to_save.send_nowait(batch)
        for link, message in output.send:
            try:
                self.ports[link % MAX_PORTS][2].send(link // MAX_PORTS, message)
            except ContractError as error:
                if isinstance(message, Question):
                    replies += self.plane.receive_unsent(message)
                # One relay's table that does not fit is no reason to fall: it keeps its last one.
                log.error("a message does not fit the contract", extra={"reason": str(error)})
        for link, why in output.close:
            self.ports[link % MAX_PORTS][2].close(link // MAX_PORTS, why)
        for reply in replies:
            if reply.ticket in self._waiting:
                self._replies[reply.ticket] = reply
                self._waiting[reply.ticket].set()

    def _deadline(self, now: float) -> float:
        moments = [self.plane.next_deadline(now)]
        for socket, endpoint, links in self.ports:
            moments += [endpoint.next_deadline(), links.next_deadline()]
            if socket.backlogged:
                moments.append(now + 0.002)
        found = min((moment for moment in moments if moment is not None), default=inf)
        assert isfinite(found) or found == inf
        return found
