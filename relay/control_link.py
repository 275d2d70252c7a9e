"""EDGE: the relay's link to a controller: dials any of several, keeps the last table on disk, and comes back.

`relay.run` starts one `ControlLink` where the settings name controllers. What is said on a link is `relay.helm`'s.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from dataclasses import dataclass
from math import inf
from pathlib import Path

import trio

from relay import helm
from relay.conversation import ALPN, Conversation, Papers
from relay.helm import Helm, Steered
from relay.orders import MAX_FILE_BYTES, Orders
from tradewind.contract.messages import Hello
from tradewind.quic.config import Address, Limits, QuicSettings, ServerTrust
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.udp import UdpSocket
from tradewind.settings.values import Address as HostPort

log = logging.getLogger("relay.control")

TABLE_FILE = "table"
_LIMITS = Limits(idle_timeout_s=5.0, control_backlog_bytes=16 * 2**20, stream_window_bytes=2**20)
QUIC = QuicSettings(protocols=(ALPN,), webtransport=False, trust=ServerTrust(verify=False), limits=_LIMITS)
"""TLS pins no name: controllers may be dialled at any. That the certificate is a controller's of this mesh is checked
before anything is said (`Conversation`)."""


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Where controllers are (any of them will do), and where the last table is kept."""

    controllers: tuple[HostPort, ...]
    state: Path


@dataclass(slots=True)
class LinkStatistics:
    """Since the start. The link's talk is counted in `Helm.statistics`."""

    attempts: int = 0
    persisted: int = 0
    persist_failures: int = 0


class ControlLink:
    """One relay's link. `hello` is what it says first, its generation filled in. `run` it for as long as it lives."""

    def __init__(
        self, settings: ControlSettings, papers: Papers, hello: Hello, orders: Orders, steered: Steered
    ) -> None:
        self.statistics = LinkStatistics()
        self.helm = Helm(hello, orders, steered)
        self._settings = settings
        self._papers = papers
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
        good = self.helm.restore(data, now)
        self._look_at_tables()
        return good

    def report_now(self) -> None:
        """A link or the stage has changed: report at once."""
        self.helm.report_now()
        if self._sleeping is not None:
            self._sleeping.deadline = -inf

    def report_soon(self) -> None:
        """Tracks have moved: report in a moment."""
        self.helm.report_soon(trio.current_time())
        if self._sleeping is not None:
            self._sleeping.deadline = min(self._sleeping.deadline, self.helm.next_deadline())

    async def run(self) -> None:
        """Keep a link to some controller, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_writing)
            while True:
                for controller in self._random.sample(self._settings.controllers, len(self._settings.controllers)):
                    self.statistics.attempts += 1
                    why = await self._converse(controller)
                    log.warning("control link lost", extra={"controller": str(controller), "reason": why})
                    await trio.sleep(self.helm.wait_s(self._random.random()))

    # --- One connection ---

    async def _converse(self, controller: HostPort) -> str:
        """Talk to one controller until the link is gone; returns why it is."""
        try:
            with trio.fail_after(helm.CONNECT_S):
                address = await _resolve(controller)
            socket = UdpSocket("::" if ":" in str(address[0]) else "0.0.0.0")  # noqa: S104 - it only answers its peer
        except (OSError, trio.TooSlowError) as error:
            return str(error) or type(error).__name__
        endpoint = Endpoint(QUIC, is_client=True)
        connection = endpoint.connect(address, trio.current_time(), protocols=(ALPN,))
        self.helm.begin(Conversation(connection, self._papers), trio.current_time())
        found = ""
        try:
            while (why := self.helm.ended) is None:
                self._turn(endpoint, socket)
                if self.helm.statistics.controller != found:
                    found = self.helm.statistics.controller
                    log.info("controller found", extra={"controller": found})
                if self.helm.ended is None:
                    due = endpoint.next_deadline()
                    deadline = min(inf if due is None else due, self.helm.next_deadline())
                    with trio.CancelScope(deadline=deadline) as self._sleeping:
                        await socket.wait_readable()
            socket.send(endpoint.datagrams_to_send(trio.current_time()))
            return why
        finally:
            if self.helm.ended is None:
                self.helm.end("the relay stops")
                socket.send(endpoint.datagrams_to_send(trio.current_time()))
            socket.close()
            self._sleeping = None

    def _turn(self, endpoint: Endpoint, socket: UdpSocket) -> None:
        """Take what came, do what is due, send what there is to send."""
        now, wall_now = trio.current_time(), time.time()
        events = endpoint.receive_datagrams(socket.receive(), now)
        due = endpoint.next_deadline()
        if due is not None and due <= now:
            events += endpoint.handle_deadline(now)
        for event in events:
            self.helm.receive(event, now, wall_now)
        self.helm.handle_deadline(now, wall_now)
        self._look_at_tables()
        socket.flush()
        socket.send(endpoint.datagrams_to_send(now))

    # --- Tables ---

    def _look_at_tables(self) -> None:
        """Tell operators of what was not taken, or could not be said, and have the newest good table written."""
        for taken in self.helm.refusals:
            assert taken.fault is not None
            log.error("a route table was not taken", extra={"fault": taken.fault.value, "reason": taken.detail})
        self.helm.refusals.clear()
        if self.helm.misfit is not None:
            log.error("a message of ours does not fit the contract", extra={"reason": self.helm.misfit})
            self.helm.misfit = None
        data = self.helm.to_persist()
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
