"""EDGE: the relay's link to a controller: dials any of several, reports, takes tables and orders, and comes back.

`relay.run` starts one `ControlLink` where the settings name controllers. The relay needs none of them to serve: at the
start the last table is read from disk, and while no controller answers the relay goes on with what it has. Waits
between attempts grow, with full jitter, so that a controller that comes back is not met by all relays at once.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Protocol

import trio
from msgspec.structs import replace

from relay.conversation import ALPN, Conversation, Papers
from relay.orders import MAX_FILE_BYTES, Orders, Taken
from tradewind.contract.codec import ContractError
from tradewind.contract.messages import (
    Answer,
    Command,
    Done,
    Hello,
    Question,
    Report,
    RouteTable,
    SignedTable,
    TableDelta,
    ToRelay,
    Welcome,
)
from tradewind.quic.config import Address, Limits, QuicSettings, ServerTrust
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.udp import UdpSocket
from tradewind.settings.values import Address as HostPort

log = logging.getLogger("relay.control")

TABLE_FILE = "table"
CONNECT_S = 10.0
"""For a name to be found, a handshake, a proof and a welcome."""
BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 15.0
OBEY_AGAIN_S = 0.25
MAX_OBEYING = 64
LAST_WORDS_S = 0.1
_LIMITS = Limits(idle_timeout_s=5.0, control_backlog_bytes=16 * 2**20, stream_window_bytes=2**20)


class Steered(Protocol):
    """What a controller steers: the relay's part in the mesh. All calls are between two turns and do not block."""

    def report(self, sequence: int, now: float, wall_now: float) -> Report:
        """How the relay is."""

    def apply_table(self, table: RouteTable, now: float) -> None:
        """Go by this table from now on; it was verified, and is not older than the one before."""

    def obey(self, command: Command, now: float) -> Done | None:
        """Do what is ordered, once for each id. None: it is not done yet; ask again with the same command."""

    def answer(self, question: Question, now: float) -> Answer:
        """Show something to an operator."""

    def controller_heard(self, now: float) -> None:
        """A controller said something just now."""


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Where controllers are (any of them will do), and where the last table is kept."""

    controllers: tuple[HostPort, ...]
    state: Path


@dataclass(slots=True)
class LinkStatistics:
    """Since the start; the first two are now."""

    controller: str = ""
    """Whom it is connected to; empty: nobody."""
    since: float = 0.0
    attempts: int = 0
    welcomes: int = 0
    refused: int = 0
    reports: int = 0
    persisted: int = 0
    persist_failures: int = 0


class ControlLink:
    """One relay's link. `hello` is what it says first, its generation filled in. `run` it for as long as it lives."""

    def __init__(
        self, settings: ControlSettings, papers: Papers, hello: Hello, orders: Orders, steered: Steered
    ) -> None:
        self.statistics = LinkStatistics()
        self.orders = orders
        self._settings = settings
        self._papers = papers
        self._hello = hello
        self._steered = steered
        self._conversation: Conversation | None = None
        self._sequence = 0
        self._report_every_s = 1.0
        self._report_at = inf
        self._obeying: dict[str, Command] = {}
        self._obey_at = inf
        self._sleeping: trio.CancelScope | None = None
        self._unwritten: bytes | None = None
        self._to_write = trio.Event()
        self._random = secrets.SystemRandom()

    def restore(self, now: float) -> bool:
        """Go by the last table on disk, where there is a good one. Call it before the relay lets anybody in."""
        file = self._settings.state / TABLE_FILE
        try:
            with file.open("rb") as opened:
                data = opened.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return False
        except OSError as error:
            log.error("the last table cannot be read", extra={"file": str(file), "reason": error.strerror})
            return False
        taken = self.orders.restore(data)
        self._use(taken, now)
        return taken.fault is None

    def report_now(self) -> None:
        """A link or the stage has changed: report at once."""
        self._report_at = -inf
        self._wake()

    async def run(self) -> None:
        """Keep a link to some controller, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_writing)
            failures = 0
            while True:
                for controller in self._random.sample(self._settings.controllers, len(self._settings.controllers)):
                    self.statistics.attempts += 1
                    welcomes = self.statistics.welcomes
                    why = await self._converse(controller)
                    welcomed = self.statistics.welcomes > welcomes
                    failures = 0 if welcomed else failures + 1
                    log.warning("control link lost", extra={"controller": str(controller), "reason": why})
                    most_s = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 16))
                    await trio.sleep(self._random.uniform(0.0, most_s))

    # --- One connection ---

    async def _converse(self, controller: HostPort) -> str:
        """Talk to one controller until the link is gone; returns why it is."""
        try:
            with trio.fail_after(CONNECT_S):
                address = await _resolve(controller)
            socket = UdpSocket("::" if ":" in str(address[0]) else "0.0.0.0")  # noqa: S104 - it only answers its peer
        except (OSError, trio.TooSlowError) as error:
            return str(error) or type(error).__name__
        # TLS pins no name: controllers may be dialled at any. That the certificate is a controller's of this mesh is
        # checked before anything is said (`Conversation`).
        trust = ServerTrust(verify=False)
        endpoint = Endpoint(
            QuicSettings(protocols=(ALPN,), webtransport=False, trust=trust, limits=_LIMITS), is_client=True
        )
        connection = endpoint.connect(address, trio.current_time(), protocols=(ALPN,))
        conversation = self._conversation = Conversation(connection, self._papers)
        patience = trio.current_time() + CONNECT_S
        try:
            while conversation.ended is None:
                self._turn(endpoint, socket, conversation)
                now = trio.current_time()
                if not self.statistics.controller and now >= patience:
                    conversation.end("no welcome in time")
                if conversation.ended is None:
                    deadline = self._deadline(endpoint, conversation, patience)
                    with trio.CancelScope(deadline=deadline) as self._sleeping:
                        await socket.wait_readable()
            socket.send(endpoint.datagrams_to_send(trio.current_time()))
            return conversation.ended
        finally:
            if conversation.ended is None:
                conversation.end("the relay stops")
                socket.send(endpoint.datagrams_to_send(trio.current_time()))
            socket.close()
            self._conversation = self._sleeping = None
            self.statistics.controller = ""
            self._report_at = self._obey_at = inf
            self._obeying.clear()

    def _turn(self, endpoint: Endpoint, socket: UdpSocket, conversation: Conversation) -> None:
        """Take what came, do what is due, send what there is to send."""
        now, wall_now = trio.current_time(), time.time()
        events = endpoint.receive_datagrams(socket.receive(), now)
        due = endpoint.next_deadline()
        if due is not None and due <= now:
            events += endpoint.handle_deadline(now)
        conversation.handle_deadline(now)
        for event in events:
            proven = conversation.controller is not None
            messages = conversation.receive(event, now, wall_now)
            if not proven and conversation.controller is not None:
                conversation.send(replace(self._hello, generation=self.orders.generation))
            for message in messages:
                self._receive(message, conversation, now, wall_now)
        if self.statistics.controller and conversation.ended is None:
            self._say(conversation, now, wall_now)
        socket.flush()
        socket.send(endpoint.datagrams_to_send(now))

    def _receive(self, message: ToRelay, conversation: Conversation, now: float, wall_now: float) -> None:
        self._steered.controller_heard(now)
        match message:
            case Welcome(refused=refused) if refused:
                self.statistics.refused += 1
                conversation.end(f"refused: {refused}")
            case Welcome():
                self.statistics.welcomes += 1
                self.statistics.controller, self.statistics.since = message.controller, now
                self._report_every_s = min(10.0, max(0.1, message.report_every_ms / 1000))
                self._report_at = now
                log.info("controller found", extra={"controller": message.controller})
            case SignedTable():
                self._use(self.orders.receive_table(message, wall_now), now)
            case TableDelta():
                self._use(self.orders.receive_delta(message, wall_now), now)
            case Command() if message.id in self._obeying or len(self._obeying) < MAX_OBEYING:
                self._obeying[message.id] = message
                self._obey_at = now
            case Question():
                self._send(conversation, self._steered.answer(message, now))
            case _:
                log.warning("too many commands at once", extra={"command": message.id})

    def _say(self, conversation: Conversation, now: float, wall_now: float) -> None:
        """Report what is due, and what is done of what was ordered."""
        if self._obey_at <= now:
            for command in list(self._obeying.values()):
                done = self._steered.obey(command, now)
                if done is not None:
                    del self._obeying[command.id]
                    self._send(conversation, done)
                    self._report_at = now
            self._obey_at = now + OBEY_AGAIN_S if self._obeying else inf
        if self._report_at <= now:
            self._sequence += 1
            self._send(conversation, self._steered.report(self._sequence, now, wall_now))
            self.statistics.reports += 1
            self._report_at = now + self._report_every_s

    def _send(self, conversation: Conversation, message: Report | Done | Answer) -> None:
        try:
            conversation.send(message)
        except ContractError as error:
            log.error("a message of ours does not fit the contract", extra={"reason": str(error)})

    def _deadline(self, endpoint: Endpoint, conversation: Conversation, patience: float) -> float:
        moments = [endpoint.next_deadline(), conversation.next_deadline(), self._report_at, self._obey_at]
        if not self.statistics.controller:
            moments.append(patience)
        return min((moment for moment in moments if moment is not None), default=inf)

    def _wake(self) -> None:
        if self._sleeping is not None:
            self._sleeping.deadline = -inf

    # --- Tables ---

    def _use(self, taken: Taken, now: float) -> None:
        if taken.fault is not None:
            log.error("a route table was not taken", extra={"fault": taken.fault.value, "reason": taken.detail})
            return
        if taken.fresh and self.orders.table is not None:
            self._steered.apply_table(self.orders.table, now)
        data = self.orders.to_persist()
        if data is not None:
            self._unwritten = data
            self._to_write.set()

    async def _keep_writing(self) -> None:
        """Write the newest table, for ever; what is older by then is not written any more."""
        while True:
            await self._to_write.wait()
            self._to_write = trio.Event()
            data, self._unwritten = self._unwritten, None
            if data is None:
                continue
            try:
                await trio.to_thread.run_sync(write_whole, self._settings.state / TABLE_FILE, data)
                self.statistics.persisted += 1
            except OSError as error:
                self.statistics.persist_failures += 1
                log.error("the table cannot be written", extra={"reason": error.strerror})


def write_whole(file: Path, data: bytes) -> None:
    """Put data in the place of a file: whoever reads it, also after power was lost, has all of it or all of the old."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.new")
    with beside.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    beside.replace(file)
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


async def _resolve(controller: HostPort) -> Address:
    """The first address of a name. Raises OSError."""
    found = await trio.socket.getaddrinfo(controller.host, controller.port, type=trio.socket.SOCK_DGRAM)
    address: Address = found[0][4]
    return address
