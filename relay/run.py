"""EDGE: one relay as a process: sockets, signals, files and listeners around a `Node`, put together in one function.

Nothing here knows a protocol. The loop is: datagrams in, a turn, datagrams out; a timer for what is due; and between
two turns whatever else there is (a metrics scrape, a new certificate, a signal).
"""

from __future__ import annotations

import gc
import logging
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import trio

from relay import journal, ops
from relay.access import Access
from relay.config import Config, warnings
from relay.control_link import ControlLink, ControlSettings
from relay.conversation import Papers
from relay.mesh.files import Membership, membership
from relay.metrics import Metrics
from relay.node import Node, NodeSettings, Output, Stage
from relay.observe import Observer, count_control, count_overrides
from relay.orders import Orders
from relay.placing import Placing
from relay.room_disk import RoomDisk, passing_path, state_path
from relay.rooms.store import StoreError, StoreSettings
from relay.settings import (
    access_settings,
    forwarding_settings,
    limit_settings,
    placing_settings,
    quic_settings,
    quirks,
    room_settings,
    session_settings,
)
from relay.steering import Capacity, Readings, Steering
from tradewind import logs
from tradewind.contract.admission import relay_signer
from tradewind.contract.ids import hop_id
from tradewind.contract.messages import Hello
from tradewind.contract.token import Key
from tradewind.keys import Credentials, KeyMaterialError, Watched, placement_seed, server_certificate, token_keys, watch
from tradewind.locations import locations
from tradewind.placing.answering import PlaceAnswer
from tradewind.placing.locating import Locator
from tradewind.quic.udp import BATCH_DATAGRAMS, UdpSocket
from tradewind.settings.values import Address

T = TypeVar("T")

SLICE_DATAGRAMS = 8
"""What a turn makes before it sends: the first subscriber does not wait for the last, the kernel gets whole runs."""
LAST_WORDS_S = 0.2
"""How long the closing datagrams have to leave."""
COLLECTIONS = (2_500, 5, 2)
"""When Python looks for cycles: only ended sessions are any, and some hundreds of those may wait. By its defaults it
would look through all that live every few seconds, 20 ms at a time."""


class Relay:
    """A node between its sockets and its clock."""

    def __init__(
        self, node: Node, sockets: list[UdpSocket], observer: Observer, metrics: Metrics, budget_s: float
    ) -> None:
        self.node = node
        self.sockets = sockets
        self._observer = observer
        self._metrics = metrics
        self._budget_s = budget_s
        self._timer = trio.CancelScope()
        self.control: ControlLink | None = None
        """To a controller, where the settings name any."""
        self.late_s = 0.0
        """The most that a turn was late since somebody last looked."""
        self.empty = trio.Event()
        """Set when a drain is over."""
        self._told_stage = node.stage_name
        self._writable: list[trio.Event] = [trio.Event() for _ in sockets]
        self.disk: RoomDisk | None = None
        """Where rooms are stored; None: this relay has no part in any."""

    def start(self, nursery: trio.Nursery) -> None:
        """Have everything of it run in this nursery."""
        if self.control is not None:
            nursery.start_soon(self.control.run)
        for port in range(len(self.sockets)):
            nursery.start_soon(self.serve_socket, port)
            nursery.start_soon(self.keep_sending, port)
        nursery.start_soon(self.keep_time)

    async def serve_socket(self, port: int) -> None:
        """Take what arrives at one socket, for ever."""
        socket = self.sockets[port]
        more = False
        while True:
            batch = socket.receive()
            if batch or more:
                more = self.turn(port, batch)
            if more or len(batch) == BATCH_DATAGRAMS:
                # The others have their turn too: timers, the other socket, a scrape.
                await trio.lowlevel.checkpoint()
            else:
                await socket.wait_readable()

    async def keep_time(self) -> None:
        """Do what is due when it is due, for ever."""
        while True:
            with trio.CancelScope(deadline=self.node.next_deadline()) as self._timer:
                await trio.sleep_forever()
            while self.turn(None, []):
                await trio.lowlevel.checkpoint()

    async def keep_sending(self, port: int) -> None:
        """Send what waits when the kernel takes datagrams again, for ever."""
        socket = self.sockets[port]
        while True:
            await self._writable[port].wait()
            await socket.wait_writable()
            socket.flush()
            if not socket.backlogged:
                self._writable[port] = trio.Event()

    def turn(self, port: int | None, batch: list[tuple[bytes, tuple[object, ...]]]) -> bool:
        """One turn; returns whether work is left for another at once."""
        node = self.node
        start = trio.current_time()
        wall_now = time.time()
        late_s = start - self._timer.deadline
        if late_s > 0:
            self.late_s = max(self.late_s, late_s)
            node.note_lag(late_s, start)
        if port is not None:
            node.receive_datagrams(port, batch, start, wall_now)
        if node.next_deadline() <= start:
            node.handle_deadline(start, wall_now)
        if self.disk is not None:
            self.disk.take(wall_now)
        more = self._send_slices(start)
        if self.disk is not None:
            self.disk.give()
        self._timer.deadline = node.next_deadline()
        metrics = self._metrics.turns
        metrics.duration.observe(trio.current_time() - start)
        if more:
            metrics.cut_short.add()
        for ended in node.ended:
            self._observer.session_ended(ended)
            journal.session_ended(ended.attachment.id, ended.code, ended.reason, by_peer=ended.by_peer)
        node.ended.clear()
        for endpoint in node.endpoints:
            journal.versions_differ(endpoint.mismatches)
        if node.mesh is not None:
            if node.mesh.changes:
                journal.links_changed(node.mesh.changes)
                node.mesh.changes.clear()
                self._report_now()
            self._tell_moves()
        if node.stage_name != self._told_stage:
            self._told_stage = node.stage_name
            self._report_now()
        for fault in node.faults:
            logging.getLogger("relay").error("internal error", extra={"session": fault.session}, exc_info=fault.error)
        node.faults.clear()
        if node.stage is Stage.DRAINED or (node.stage is Stage.DRAINING and node.is_empty):
            self.empty.set()
        return more

    def _tell_moves(self) -> None:
        moves = self.node.forwarder.take_moves()
        for moved in moves:
            journal.track_moved(moved.track, self.node.name_of(moved.was), self.node.name_of(moved.now))
        if moves and self.control is not None:
            self.control.report_soon()

    def _report_now(self) -> None:
        if self.control is not None:
            self.control.report_now()

    def look(self) -> None:
        """Something is there that no socket and no clock tells of: take a turn."""
        if self.turn(None, []):
            self._timer.deadline = trio.current_time()

    def _send_slices(self, start: float) -> bool:
        """Make and send a slice after the other until nothing is left or the turn's budget is; whether work is left."""
        node = self.node
        for _ in range(0, node.settings.turn_datagrams, SLICE_DATAGRAMS):
            output = node.take_output(start, SLICE_DATAGRAMS)
            self._send(output)
            if not output.more or trio.current_time() - start >= self._budget_s:
                return output.more
        return True

    def _send(self, output: Output) -> None:
        for port, batches in output.datagrams:
            socket = self.sockets[port]
            socket.send(batches)
            if socket.backlogged:
                self._writable[port].set()


def main(config: Config) -> int:
    """Run a relay until it is told to stop; returns the exit code."""
    logger = logs.configure("relay", config.log.level, config.log.format)
    for warning in warnings(config):
        logger.warning(warning)
    try:
        return trio.run(_run, config, logger)
    except KeyMaterialError as error:
        logger.error("keys cannot be used", extra={"reason": str(error)})
    except StoreError as error:
        logger.error("rooms cannot be stored", extra={"reason": str(error)})
    except OSError as error:
        logger.error("a listener cannot be opened", extra={"reason": str(error)})
    return 1


async def _run(config: Config, logger: logging.Logger) -> int:
    """Everything in its order: keys, node, sockets, listeners, loops; then wait for a signal, drain and stop."""
    member = membership(config)
    if member is not None:
        config = replace(config, node=replace(config.node, id=member.identity.id, region=member.identity.region))
    hosts = {address.host for address in config.relay.listen if address.host not in {"0.0.0.0", "::"}}  # noqa: S104
    certificate = server_certificate(config.tls.cert, config.tls.key, sorted(hosts))
    keys = token_keys(config.auth.keys)
    credentials = certificate.load(time.time())
    sockets = _open_sockets(config.relay.listen)
    # Before anything runs: a port that is taken is the operator's to hear of, in one line.
    operators = await ops.listen([config.ops.listen]) if config.ops.listen is not None else []
    addresses = [Address(str(socket.address[0]), socket.address[1]) for socket in sockets]
    players = await ops.listen(addresses) if config.ops.certificate_hash else []
    settings = _node_settings(config, credentials, member)
    node = Node(settings, _access(config, keys.load(time.time())), len(sockets))
    if member is not None:
        _join_mesh(node, member, sockets)
    metrics = Metrics()
    observer = Observer(node, metrics, lambda: [socket.statistics() for socket in sockets])
    _describe_process(metrics, config, credentials)
    relay = Relay(node, sockets, observer, metrics, config.turn.budget_s)
    places = locations(config.questions.locations)
    placing = node.departures.placing = _placing(config, node, places.load(time.time()))
    metrics.refreshers.append(partial(_count_answers, metrics, placing))
    tls = _tls(config)
    files = _Files(config, member, node, placing, metrics, tls, credentials)
    if config.rooms.enabled:
        observer.disk = relay.disk = _open_rooms(config, node, sockets, relay)
    relay.control = _control_link(config, member, relay, placing, metrics)
    async with trio.open_nursery() as nursery:
        relay.start(nursery)
        nursery.start_soon(files.watch, "certificate", certificate, files.use_certificate)
        nursery.start_soon(files.watch, "keys", keys, files.use_keys)
        nursery.start_soon(files.watch, "locations", places, files.use_locations)
        nursery.start_soon(ops.measure_lag, metrics.turns.loop_lag)
        if operators:
            views = ops.Views(observer.not_ready, observer.state, ops.versions(), metrics)
            nursery.start_soon(ops.ops_server(views).serve, operators)
        if players:
            public = ops.public_server(lambda: files.credentials.sha256, _questions(config, placing), tls)
            nursery.start_soon(public.serve, players)
        gc.collect()
        gc.freeze()  # What is here now stays.
        gc.set_threshold(*COLLECTIONS)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            _say_ready(config, sockets, operators, files.credentials)
            await _drain_on_signal(relay, signals, config.drain.grace_s, logger)
        nursery.cancel_scope.cancel()
    if relay.disk is not None:
        relay.disk.close()
    for socket in sockets:
        socket.close()
    logger.info("stopped")
    return 0


async def _drain_on_signal(relay: Relay, signals: AsyncIterator[int], grace_s: float, logger: logging.Logger) -> None:
    """The first signal drains, the second stops at once; returns when nothing is left to do."""
    node = relay.node
    await anext(signals)
    logger.info("draining", extra={"sessions": len(node.attachments), "grace_s": grace_s})
    node.drain(trio.current_time(), grace_s)
    relay.turn(None, [])
    async with trio.open_nursery() as nursery:

        async def impatient() -> None:
            await anext(signals)
            relay.empty.set()

        nursery.start_soon(impatient)
        await relay.empty.wait()
        nursery.cancel_scope.cancel()
    logger.info("drained", extra={"sessions": len(node.attachments), "overstayed": node.tally.overstayed})
    node.close(trio.current_time())
    relay.turn(None, [])
    await trio.sleep(LAST_WORDS_S if any(socket.backlogged for socket in relay.sockets) else 0)


class _Files:
    """What is in use of the files that may change while the relay runs: certificate, keys, where addresses are."""

    def __init__(
        self, config: Config, member: Membership | None, node: Node, placing: Placing, metrics: Metrics,
        tls: ssl.SSLContext | None, credentials: Credentials,
    ) -> None:  # fmt: skip
        self.credentials = credentials
        """What viewers are shown now."""
        self._config = config
        self._member = member
        self._node = node
        self._placing = placing
        self._metrics = metrics
        self._tls = tls
        self._logger = logging.getLogger("relay")

    async def watch(self, what: str, files: Watched[T], use: Callable[[T], None]) -> None:
        """Use what changes, for ever; what cannot be used changes nothing and is told."""

        def changed(fresh: T) -> None:
            try:
                use(fresh)
            except KeyMaterialError as error:
                # It is changed again already: the next look finds it.
                failed(error)
            else:
                self._metrics.process.reload_ok.of(what).set(1)

        def failed(error: KeyMaterialError) -> None:
            self._metrics.process.reload_ok.of(what).set(0)
            self._logger.error("changed files cannot be used", extra={"files": what, "reason": str(error)})

        await watch(files, self._config.tls.poll_s, changed, failed)

    def use_certificate(self, fresh: Credentials) -> None:
        self.credentials = fresh
        self._node.replace_quic(_node_settings(self._config, fresh, self._member).quic)
        self._metrics.process.certificate_expiry.set(fresh.not_after)
        self._logger.info("certificate changed", extra={"sha256": fresh.sha256})
        _load_chain(self._tls, self._config)

    def use_keys(self, fresh: tuple[Key, ...]) -> None:
        self._node.replace_access(self._node.access.replace_keys(fresh))
        self._placing.replace_keys(fresh, trio.current_time())
        self._logger.info("token keys changed", extra={"keys": len(fresh)})

    def use_locations(self, fresh: Locator | None) -> None:
        self._placing.replace_locator(fresh)
        self._logger.info("locations changed")


def _open_rooms(config: Config, node: Node, sockets: list[UdpSocket], relay: Relay) -> RoomDisk:
    """The store of this relay's rooms, opened and measured. Raises StoreError."""
    passing = not config.rooms.path and not config.relay.listen[0].port
    path = passing_path() if passing else state_path(config.rooms.path, config.node.id, sockets[0].address[1])
    disk = RoomDisk(node, path, StoreSettings(max_bytes=config.rooms.max_bytes), passing=passing)
    disk.open(config.node.id, room_settings(config), time.time(), relay.look)
    return disk


def _node_settings(config: Config, credentials: Credentials, member: Membership | None) -> NodeSettings:
    private = None if member is None else member.private
    hop = 0 if member is None else hop_id(member.identity.mesh, member.identity.id)
    return NodeSettings(
        quic=replace(quic_settings(config), certificate=credentials.certificate, private=private),
        forwarding=forwarding_settings(config, hop),
        session=session_settings(config),
        limits=limit_settings(config),
        quirks=quirks(config),
        turn_datagrams=config.turn.datagrams,
        turn_handshakes=config.turn.handshakes,
    )


def _join_mesh(node: Node, member: Membership, sockets: list[UdpSocket]) -> None:
    """Live among the relays that the settings name, until a controller names others."""
    node.families = [":" in str(socket.address[0]) for socket in sockets]
    node.join_mesh(member.settings).set_neighbours(member.neighbours, trio.current_time())


def _control_link(
    config: Config, member: Membership | None, relay: Relay, placing: Placing, metrics: Metrics
) -> ControlLink | None:
    """The link to controllers, and what they steer, by the last table on disk; None where there are none."""
    if member is None or not config.mesh.controllers:
        return None
    mesh, own = config.mesh, member.settings.credentials
    most_sessions = config.limits.sessions or 4096

    def read() -> Readings:
        late_s, relay.late_s = relay.late_s, 0.0
        return Readings(cpu_s=time.process_time(), lag_s=late_s)

    target = urlsplit(mesh.public_uri)
    hello = Hello(
        boot=member.settings.boot,
        uri=mesh.public_uri,
        address=mesh.address or (target.hostname or "", target.port or 443),
        software=ops.versions()["tradewind"],
        generation=0,
        capacity_bytes_per_s=mesh.capacity_bytes_per_s,
        capacity_sessions=most_sessions,
        placement_key=placing.announced,
    )
    steering = Steering(relay.node, placing, Capacity(mesh.capacity_bytes_per_s, most_sessions), read, relay.look)
    link = ControlLink(
        ControlSettings(mesh.controllers, Path(mesh.state)),
        Papers(own.authority, own.certificate, own.key),
        hello,
        Orders(member.identity.mesh, member.identity.id, own.authority),
        steering,
    )
    metrics.refreshers.append(lambda: count_control(metrics, link.helm, link.statistics.persist_failures))
    metrics.refreshers.append(lambda: count_overrides(metrics, steering.overrides.now(trio.current_time())))
    link.restore(trio.current_time())
    return link


def _access(config: Config, keys: tuple[Key, ...]) -> Access:
    return Access(keys, access_settings(config))


def _placing(config: Config, node: Node, locator: Locator | None) -> Placing:
    """Answers to viewers' questions, from the key in the state directory. Raises KeyMaterialError."""
    own = config.node.id
    signing = relay_signer(own, placement_seed(config.node.state))
    return Placing(own, signing, node.access.keys, placing_settings(config), locator, node.forwarder.carried)


def _questions(config: Config, placing: Placing) -> ops.Questions | None:
    def answer(query: str, address: str, authorization: str | None) -> PlaceAnswer:
        return placing.answer(query, address, authorization, trio.current_time(), time.time())

    return ops.Questions(answer, config.questions.plain_http) if config.questions.answer else None


def _count_answers(metrics: Metrics, placing: Placing) -> None:
    for answer, count in placing.statistics().answers.items():
        metrics.sessions.placed.of(answer).set(count)


def _tls(config: Config) -> ssl.SSLContext | None:
    """For the public listener: the operator's certificate; one that no authority signed is of no use to a browser."""
    if config.tls.cert is None or config.tls.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_chain(context, config)
    return context


def _load_chain(context: ssl.SSLContext | None, config: Config) -> None:
    """Have new TLS connections served with the files as they are. They were found good a moment ago."""
    if context is not None and config.tls.cert is not None:
        try:
            context.load_cert_chain(config.tls.cert, config.tls.key)
        except OSError as error:
            raise KeyMaterialError(f"{config.tls.cert}, {config.tls.key}: {error}") from error


def _open_sockets(addresses: tuple[Address, ...]) -> list[UdpSocket]:
    """One socket an address; where the first got its port from the kernel (port 0), the others take the same."""
    sockets: list[UdpSocket] = []
    for address in addresses:
        port = address.port or (sockets[0].address[1] if sockets else 0)
        sockets.append(UdpSocket(address.host, port))
    return sockets


def _describe_process(metrics: Metrics, config: Config, credentials: Credentials) -> None:
    found = ops.versions()
    metrics.process.build.of(
        found["tradewind"], found["python"], found["aioquic"], config.node.id, config.node.region
    ).set(1)
    metrics.process.certificate_expiry.set(credentials.not_after)


def _say_ready(
    config: Config, sockets: list[UdpSocket], operators: list[trio.SocketListener], credentials: Credentials
) -> None:
    """One line that says ready, and where."""
    where = " ".join(str(Address(str(socket.address[0]), socket.address[1])) for socket in sockets)
    drafts = ",".join(map(str, config.relay.drafts))
    seen = [Address(*listener.socket.getsockname()[:2]) for listener in operators]
    observed = "".join(f", ops http://{address}" for address in seen)
    mode = ", development" if config.relay.dev else ""
    sys.stdout.write(
        f"ready: {config.node.id} on udp {where}, drafts {drafts}{observed}{mode}, sha256 {credentials.sha256}\n"
    )
    sys.stdout.flush()
