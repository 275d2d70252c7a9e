"""The load: one publisher and many viewers in one process, in time, on one clock, counting every byte.

`bench.fanout` and the others make a `Load`, connect it to a server and let it run. A tick publishes one object on a
stream of its own, or a burst of datagrams; viewers are `receiving.Receiver`s. Whether the generator itself was in
time is part of every result: a run whose ticks came late says nothing about the server.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.dialing import NAMESPACE, WIDE, Dialed, DialError
from bench.receiving import AckPolicy, Receiver
from bench.targets import Server, busy_s
from tests.interop.relay_process import HOST
from tradewind.moqt.model import DatagramObject, FullTrackName, ObjectHeader, SubgroupHeader
from tradewind.moqt.objects import encode_datagram, encode_object_header, encode_subgroup_header
from tradewind.moqt.profiles import PROFILES, Profile

TRACK = FullTrackName(NAMESPACE, b"media")
DATAGRAM_SIZE = 1200
OBJECT_SIZE = 20_000
CONNECT_AT_ONCE = 16
PATIENCE_S = 20.0
SETTLE_S = 0.3
DRAIN_S = 3.0
"""How long the last objects may take after the last tick."""
KEEP_ALIVE_S = 5.0
PRIORITY = 128
SO_TIMESTAMPNS = 35
ANCILLARY_BYTES = 64


@dataclass(frozen=True, slots=True)
class Shape:
    """What is published each tick: `burst` datagrams of `size` bytes, or one object of `size` bytes on a stream."""

    name: str
    size: int
    burst: int
    datagrams: bool

    @property
    def objects(self) -> int:
        """Objects a tick."""
        return self.burst if self.datagrams else 1

    def packets(self) -> int:
        """Packets a tick and viewer, about."""
        return self.burst if self.datagrams else -(-self.size // 1190)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("datagrams", DATAGRAM_SIZE, 10, datagrams=True),
        Shape("datagram", DATAGRAM_SIZE, 1, datagrams=True),
        Shape("objects", OBJECT_SIZE, 1, datagrams=False),
    )
}


class Media:
    """Writes what a tick publishes; the same bytes for every server."""

    def __init__(self, shape: Shape, profile: Profile, alias: int) -> None:
        self.shape = shape
        self._profile = profile
        self._alias = alias
        self._filler = bytes(range(256)) * (shape.size // 256 + 1)

    def datagram(self, group: int) -> bytes:
        """One datagram of exactly `size` bytes, its header included."""
        return self._header(group) + self.payload(group)

    def stream(self, group: int) -> bytes:
        """A whole subgroup stream with one object whose payload has `size` bytes."""
        header = SubgroupHeader(self._alias, group, 0, PRIORITY, end_of_group=True, has_properties=False)
        start = encode_subgroup_header(self._profile, header)
        start += encode_object_header(self._profile, None, ObjectHeader(0, self.shape.size), False)
        return start + self.payload(group)

    def payload(self, group: int) -> bytes:
        """The payload of a group's one object: different for each group."""
        size = self.shape.size - (len(self._header(group)) if self.shape.datagrams else 0)
        start = b"%d." % group
        return start + self._filler[: size - len(start)]

    def _header(self, group: int) -> bytes:
        return encode_datagram(
            self._profile, DatagramObject(self._alias, group, ObjectHeader(0, 0), PRIORITY, False, b"")
        )


@dataclass(slots=True)
class Ticks:
    """What one measured stretch of ticks gave."""

    ticks: int = 0
    viewers: int = 0
    objects_wanted: int = 0
    objects: int = 0
    bytes: int = 0
    packets: int = 0
    """Datagrams that the server sent: to the viewers, and to the publisher."""
    viewer_packets: int = 0
    acks: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    lags_s: list[float] = field(default_factory=list)
    """How late each tick was."""
    latencies_s: list[float] = field(default_factory=list)
    """From the first packet of a tick to an object whole at a viewer; one for each object and viewer."""
    spans_s: list[float] = field(default_factory=list)
    """From the first viewer that has an object whole to the last."""
    others_ratio: float = 0.0
    """How many cores other programs used meanwhile: what they take, nobody here had."""
    wrong: int = 0
    """Streams whose content was not what was published, at the viewer that compares."""

    @property
    def complete(self) -> bool:
        return self.objects == self.objects_wanted and not self.wrong

    @property
    def us_per_packet(self) -> float:
        return self.cpu_s * 1e6 / max(self.packets, 1)

    @property
    def mbit_per_core(self) -> float:
        """Delivered bits a second of the server's processor time."""
        return self.bytes * 8 / 1e6 / max(self.cpu_s, 1e-9)

    @property
    def acks_per_packet(self) -> float:
        return self.acks / max(self.viewer_packets, 1)

    @property
    def core_ratio(self) -> float:
        """How much of a core the server used."""
        return self.cpu_s / max(self.wall_s, 1e-9)


def quantile(values: list[float], part: float) -> float:
    """The value below which `part` of all values lie; 0.0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]


class Load:
    """A publisher and `viewers` viewers at one server. Connect, `run` as often as wanted, close."""

    def __init__(self, server: Server, shape: Shape, viewers: int, policy: AckPolicy, draft: int) -> None:
        self._server = server
        self._shape = shape
        self._policy = policy
        self._poll = select.epoll()
        self._dialed: list[Dialed] = []
        self._receivers: list[Receiver] = []
        self._by_fd: dict[int, tuple[Receiver, Dialed]] = {}
        self._owing: deque[Receiver] = deque()
        """Receivers that owe an acknowledgement, in the order in which they began to."""
        self._publisher: Dialed
        self._profile = PROFILES[f"moqt-{draft}"]
        self._group = 0
        self._viewers = viewers
        self._ticks = Ticks()
        self._seen: list[set[int]] = []
        self._sent_at: dict[int, float] = {}
        self._spread: dict[int, list[float]] = {}
        """When the first viewer had an object whole, and the last."""
        self._media: Media
        self._kept_alive_at = 0.0

    def connect(self) -> None:
        """Open every connection, subscribe, and hand the viewers over to their receivers. Raises DialError."""
        target = self._server.target
        self._publisher = Dialed(HOST, self._server.port, target.publisher_alpn, moqt=target.moqt)
        self._publisher.connect()
        self._step_until([self._publisher], lambda dialed: dialed.ready)
        if target.moqt:
            self._publisher.announce(NAMESPACE)
            self._step_until([self._publisher], lambda dialed: dialed.quiet)
        for start in range(0, self._viewers, CONNECT_AT_ONCE):
            count = min(CONNECT_AT_ONCE, self._viewers - start)
            batch = [Dialed(HOST, self._server.port, target.viewer_alpn, moqt=target.moqt) for _ in range(count)]
            self._dialed += batch
            for dialed in batch:
                dialed.connect()
            self._step_until(batch, lambda dialed: dialed.ready)
            if target.moqt:
                for dialed in batch:
                    dialed.subscribe(TRACK)
                self._step_until(batch, lambda dialed: dialed.subscribed)
        if target.moqt:
            self._step_until([self._publisher], lambda dialed: dialed.alias is not None)
        settled = time.monotonic() + SETTLE_S
        everybody = [*self._dialed, self._publisher]
        self._step_until(everybody, lambda dialed: dialed.quiet and time.monotonic() > settled)
        self._hand_over()

    def run(self, rate: float, seconds: float) -> Ticks:
        """Publish `rate` ticks a second for so long, wait for the last objects, and return what came of it."""
        count = max(int(rate * seconds), 1)
        ticks = self._ticks = Ticks(viewers=self._viewers)
        self._seen = [set() for _ in self._receivers]
        self._sent_at.clear()
        self._spread.clear()
        packets = sum(receiver.packets for receiver in self._receivers)
        acks = sum(receiver.acks_sent for receiver in self._receivers)
        upstream = self._publisher.datagrams_received
        cpu = self._server.cpu_s()
        machine, own = busy_s(), time.process_time()
        began = time.monotonic()
        following = began
        for _ in range(count):
            self._turn_until(following)
            ticks.lags_s.append(time.monotonic() - following)
            self._publish()
            following += 1 / rate
        ticks.ticks = count
        ticks.objects_wanted = count * self._shape.objects * self._viewers
        self._drain(ticks)
        ticks.cpu_s = self._server.cpu_s() - cpu
        ticks.wall_s = time.monotonic() - began
        others = busy_s() - machine - ticks.cpu_s - (time.process_time() - own)
        ticks.others_ratio = max(others, 0.0) / ticks.wall_s
        ticks.viewer_packets = sum(receiver.packets for receiver in self._receivers) - packets
        ticks.packets = ticks.viewer_packets + self._publisher.datagrams_received - upstream
        ticks.acks = sum(receiver.acks_sent for receiver in self._receivers) - acks
        ticks.spans_s = [last - first for first, last in self._spread.values()]
        self._compare(ticks)
        self._server.check()
        return ticks

    def close(self) -> None:
        """Say goodbye and close every socket."""
        for receiver, dialed in self._by_fd.values():
            _send(dialed, receiver.close())
            dialed.socket.close()
        if hasattr(self, "_publisher"):
            self._publisher.leave()
        self._poll.close()

    # --- Connecting ---

    def _step_until(self, dialed: list[Dialed], done: Callable[[Dialed], bool]) -> None:
        """Step connections until `done` holds for these; everybody else is kept going as well."""
        deadline = time.monotonic() + PATIENCE_S
        others = [self._publisher, *self._dialed]
        while not all(done(one) for one in dialed):
            for one in others:
                one.step()
                if one.closed:
                    raise DialError(f"{self._server.target.name}: {one.closed}\n{self._server.tail()}")
            if time.monotonic() > deadline:
                raise DialError(f"{self._server.target.name}: nothing came of it within {PATIENCE_S:g} s")
            time.sleep(0.001)

    def _hand_over(self) -> None:
        for index, dialed in enumerate(self._dialed):
            with contextlib.suppress(OSError):
                dialed.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            receiver = Receiver(index, dialed.detach(), self._policy, self._arrived, keep=index == 0)
            self._receivers.append(receiver)
            self._by_fd[dialed.socket.fileno()] = (receiver, dialed)
            self._poll.register(dialed.socket.fileno(), select.EPOLLIN)
        self._poll.register(self._publisher.socket.fileno(), select.EPOLLIN)
        self._media = Media(self._shape, self._profile, self._publisher.alias or 1)
        self._kept_alive_at = time.monotonic()

    # --- Running ---

    def _turn_until(self, until: float) -> None:
        while (now := time.monotonic()) < until:
            self._turn(until - now)

    def _turn(self, most_s: float) -> None:
        """Wait for what comes first: datagrams, an acknowledgement that is due, a timer, or the end of `most_s`."""
        now = time.monotonic()
        wake = now + most_s
        owing = self._owing
        if owing and owing[0].ack_at is not None:
            wake = min(wake, owing[0].ack_at)
        timer = self._publisher.quic.get_timer()
        if timer is not None:
            wake = min(wake, timer)
        publisher = self._publisher.socket.fileno()
        for fd, _ in self._poll.poll(max(wake - now, 0.0)):
            if fd == publisher:
                self._publisher.step()
            else:
                self._receive(*self._by_fd[fd])
        now = time.monotonic()
        while owing:
            receiver = owing[0]
            if receiver.ack_at is not None:
                if receiver.ack_at > now:
                    break
                _send(self._dialed[receiver.index], receiver.ack(now))
            owing.popleft()
        if timer is not None and timer <= now:
            self._publisher.step()
        if now - self._kept_alive_at > KEEP_ALIVE_S:
            self._keep_alive(now)

    def _receive(self, receiver: Receiver, dialed: Dialed) -> None:
        """Take what has arrived for one viewer; the kernel says when, so that our own turn is nobody's latency."""
        now = time.monotonic()
        receive = dialed.socket.recvmsg
        owed = receiver.ack_at is not None
        behind = time.clock_gettime(time.CLOCK_REALTIME) - now
        try:
            while True:
                data, said, _, _ = receive(4096, ANCILLARY_BYTES)
                arrived = arrival(said, behind, now)
                if receiver.receive(data, arrived):
                    _send(dialed, receiver.ack(now))
        except BlockingIOError:
            pass
        if receiver.ack_at is not None and not owed:
            self._owing.append(receiver)

    def _publish(self) -> None:
        """Send one tick's objects, each in a group of its own: of a datagram group moq-relay passes on the first."""
        quic = self._publisher.quic
        # What the publisher's own congestion control does to a burst is not the server's latency.
        quic._loss._cc.congestion_window = WIDE
        quic._loss._pacer.packet_time = None
        groups = range(self._group, self._group + self._shape.objects)
        self._group = groups.stop
        for group in groups:
            if self._shape.datagrams:
                quic.send_datagram_frame(self._media.datagram(group))
            else:
                stream = quic.get_next_available_stream_id(is_unidirectional=True)
                quic.send_stream_data(stream, self._media.stream(group), end_stream=True)

        def leaves() -> None:
            now = time.monotonic()
            for group in groups:
                self._sent_at[group] = now

        self._publisher.before_send = leaves
        self._publisher.flush()

    def _arrived(self, index: int, group: int, number: int, size: int, now: float) -> None:
        """A viewer has an object whole."""
        sent = self._sent_at.get(group)
        seen = self._seen[index]
        if sent is None or number or group in seen:
            return
        seen.add(group)
        ticks = self._ticks
        ticks.objects += 1
        ticks.bytes += size
        ticks.latencies_s.append(now - sent)
        spread = self._spread.get(group)
        if spread is None:
            self._spread[group] = [now, now]
        else:
            spread[1] = now

    def _drain(self, ticks: Ticks) -> None:
        """Wait until everything has arrived, or will not any more."""
        deadline = time.monotonic() + DRAIN_S
        while ticks.objects < ticks.objects_wanted and time.monotonic() < deadline:
            self._turn(0.01)
        self._turn_until(time.monotonic() + 0.05)

    def _compare(self, ticks: Ticks) -> None:
        """Compare payloads that the first viewer got with what was published."""
        kept = self._receivers[0].kept
        if kept is None:
            return
        for (group, _), data in kept.items():
            if group in self._sent_at:
                payload = self._media.payload(group)
                ticks.wrong += data[-len(payload) :] != payload
        kept.clear()

    def _keep_alive(self, now: float) -> None:
        self._kept_alive_at = now
        for receiver, dialed in self._by_fd.values():
            _send(dialed, receiver.ping())


def arrival(said: list[tuple[int, int, bytes]], behind_s: float, now: float) -> float:
    """When the kernel took a datagram, on the monotonic clock, which is `behind_s` behind the wall's; else `now`."""
    for level, kind, value in said:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("@qq", value[:16])
            return float(min(seconds + nanoseconds * 1e-9 - behind_s, now))
    return now


def _send(dialed: Dialed, data: bytes) -> None:
    with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
        dialed.socket.send(data)
