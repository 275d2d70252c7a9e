"""What a turn of the relay costs, stage by stage, in memory.

    python -m bench.turn [--load datagrams] [--subscribers 100] [--ticks 150]

A whole node with real connections, sessions and packets, but no sockets, no event loop and a clock of its own, so that
two versions can be compared on a machine that has other work to do: the figures are processor time of this thread, the
tenth percentile of all ticks first. `receive` is a tick's packets from the publisher, offered to every subscriber;
`first`, `half` and `all` are when so much of the output is made, counted from the moment the packets came; `acks` and
`timers` come after that.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from bench.dialing import NAMESPACE, Dialed
from bench.load import CONNECT_AT_ONCE, SHAPES, TRACK, Media, Shape
from bench.receiving import ACK_POLICIES, STREAM_FIN, STREAM_OFFSET, Receiver, varint
from relay.access import Access
from relay.config import RELAY
from relay.node import Node, NodeSettings, Output
from relay.run import SLICE_DATAGRAMS
from relay.settings import access_settings, forwarding_settings, limit_settings, quic_settings, session_settings
from tests.quic.certificates import CERTIFICATE
from tradewind.moqt.profiles import PROFILES
from tradewind.quic.udp import BATCH_DATAGRAMS

STEP_S = 0.001
TICK_S = 0.033
STEPS_A_TICK = 14
WARM_UP_TICKS = 10
WALL = 1.0e9
DATAGRAM_FRAME, STREAM_FRAME = b"\x30", 0x08 | STREAM_OFFSET
"""Without a length: the frame is the packet's last."""
PIECE_BYTES = 1190


class Wire:
    """A socket's three calls, in memory."""

    def __init__(self) -> None:
        self.inbox: list[bytes] = []
        self.outbox: list[bytes] = []

    def recv(self, _: int) -> bytes:
        if not self.inbox:
            raise BlockingIOError
        return self.inbox.pop(0)

    def send(self, data: bytes) -> None:
        self.outbox.append(data)

    def close(self) -> None:
        self.inbox.clear()


class World:
    """One node, one publisher and its viewers, and a clock. `start`, then `tick` as often as wanted."""

    def __init__(self, viewers: int, shape: Shape, draft: int, flags: Sequence[str] = ()) -> None:
        """With `flags` for the relay."""
        self.now = 1000.0
        self.node = Node(_settings(draft, flags), _access(), 1)
        self.shape = shape
        self.objects = 0
        self.spent: dict[str, list[float]] = defaultdict(list)
        self.packets = 0
        self._alpn = f"moqt-{draft}"
        self._dialed: dict[tuple[str, int], Dialed] = {}
        self._receivers: dict[tuple[str, int], Receiver] = {}
        self._group = 0
        self.publisher = self._connect(1)[0]
        self.publisher.announce(NAMESPACE)
        self.viewers: list[Dialed] = []
        for begin in range(0, viewers, CONNECT_AT_ONCE):
            batch = self._connect(min(CONNECT_AT_ONCE, viewers - begin))
            for viewer in batch:
                viewer.subscribe(TRACK)
            self.viewers += batch
            self.pump(12)

    def start(self) -> None:
        """Wait until all is quiet, and put receivers in everybody's place: what clients do should not be felt."""
        self.pump(60)
        publisher = self.publisher
        assert publisher.alias is not None
        self._media = Media(self.shape, PROFILES[self._alpn], publisher.alias)
        self._stream = publisher.quic.get_next_available_stream_id(is_unidirectional=True)
        for index, dialed in enumerate((publisher, *self.viewers)):
            assert dialed.quiet and not dialed.closed, dialed.closed
            receiver = Receiver(index, dialed.detach(), ACK_POLICIES["timer"], self._arrived)
            self._receivers[dialed.address] = receiver
        assert all(dialed.subscribed for dialed in self.viewers)

    def tick(self) -> None:
        """Publish once, and follow what comes of it until all is quiet."""
        node, spent = self.node, self.spent
        batch = [(data, self.publisher.address) for data in self._publish()]
        began = time.thread_time()
        node.receive_datagrams(0, batch, self.now, WALL)
        spent["receive"].append(time.thread_time() - began)
        made: list[tuple[float, Output]] = []
        while not made or made[-1][1].more:
            output = node.take_output(self.now, SLICE_DATAGRAMS)
            made.append((time.thread_time() - began, output))
        total = sum(map(_size, (output for _, output in made)))
        spent["first"].append(made[0][0])
        spent["half"].append(_when_half(made, total))
        spent["all"].append(made[-1][0])
        self.packets += total
        self._follow([output for _, output in made])
        self.now += TICK_S - STEPS_A_TICK * STEP_S

    def pump(self, rounds: int) -> None:
        """Step everybody and the node some times, before `start`."""
        for _ in range(rounds):
            batch = []
            for address, dialed in self._dialed.items():
                dialed.step()
                batch += [(data, address) for data in _taken(dialed)]
            self.now += STEP_S
            for start in range(0, len(batch), BATCH_DATAGRAMS):
                self.node.receive_datagrams(0, batch[start : start + BATCH_DATAGRAMS], self.now, WALL)
            for output in self._turn():
                for _, batches in output.datagrams:
                    for destination, datagrams in batches:
                        self._dialed[destination].socket.inbox += datagrams
            self.now += STEP_S

    def _follow(self, outputs: list[Output]) -> None:
        """Deliver, acknowledge, let timers act, for some milliseconds."""
        node = self.node
        acks = timers = 0.0
        for _ in range(STEPS_A_TICK):
            self._deliver(outputs)
            self.now += STEP_S
            batch = []
            for address, receiver in self._receivers.items():
                if receiver.ack_at is not None and receiver.ack_at <= self.now:
                    batch.append((receiver.ack(self.now), address))
            began = time.thread_time()
            for start in range(0, len(batch), BATCH_DATAGRAMS):
                node.receive_datagrams(0, batch[start : start + BATCH_DATAGRAMS], self.now, WALL)
            acks += time.thread_time() - began
            began = time.thread_time()
            outputs = self._turn()
            timers += time.thread_time() - began
            self.packets += sum(map(_size, outputs))
        self.spent["acks"].append(acks)
        self.spent["timers"].append(timers)

    def _turn(self) -> list[Output]:
        node = self.node
        if node.next_deadline() <= self.now:
            node.handle_deadline(self.now, WALL)
        outputs = [node.take_output(self.now)]
        while outputs[-1].more:
            outputs.append(node.take_output(self.now))
        return outputs

    def _deliver(self, outputs: list[Output]) -> None:
        for output in outputs:
            for _, batches in output.datagrams:
                for address, datagrams in batches:
                    receiver = self._receivers[address]
                    for data in datagrams:
                        receiver.receive(data, self.now)

    def _connect(self, count: int) -> list[Dialed]:
        made = []
        for _ in range(count):
            address = ("10.0.0.1", 10_000 + len(self._dialed))
            dialed = Dialed(*address, self._alpn, wire=Wire(), clock=lambda: self.now)
            self._dialed[address] = dialed
            made.append(dialed)
            dialed.connect()
        self.pump(12)
        assert all(dialed.ready for dialed in made), [dialed.closed for dialed in made]
        return made

    def _publish(self) -> list[bytes]:
        """The packets of one tick's objects."""
        seal = self._receivers[self.publisher.address].protection.seal
        groups = range(self._group, self._group + self.shape.objects)
        self._group = groups.stop
        if self.shape.datagrams:
            return [seal(DATAGRAM_FRAME + self._media.datagram(group)) for group in groups]
        packets = []
        for group in groups:
            stream, self._stream = self._stream, self._stream + 4
            data = self._media.stream(group)
            for at in range(0, len(data), PIECE_BYTES):
                kind = STREAM_FRAME | (STREAM_FIN if at + PIECE_BYTES >= len(data) else 0)
                packets.append(seal(varint(kind) + varint(stream) + varint(at) + data[at : at + PIECE_BYTES]))
        return packets

    def _arrived(self, index: int, group: int, number: int, size: int, now: float) -> None:
        self.objects += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; returns 0, or 1 where something did not arrive."""
    parser = argparse.ArgumentParser(prog="bench.turn", description=__doc__.split("\n")[0])
    parser.add_argument("--load", choices=sorted(SHAPES), default="datagrams")
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--ticks", type=int, default=150)
    parser.add_argument("--draft", type=int, default=20)
    options = parser.parse_args(arguments)
    world = World(options.subscribers, SHAPES[options.load], options.draft)
    world.start()
    gc.collect()
    gc.freeze()
    for _ in range(WARM_UP_TICKS):
        world.tick()
    world.spent.clear()
    world.packets = 0
    for _ in range(options.ticks):
        world.tick()
    world.node.check_invariants()
    packets = world.packets / options.ticks
    wanted = (options.ticks + WARM_UP_TICKS) * world.shape.objects * options.subscribers
    print(f"{options.load} to {options.subscribers}: {packets:.0f} packets a tick, {world.objects} of {wanted} objects")
    for name, values in world.spent.items():
        ordered = sorted(values)
        low, middle = ordered[len(ordered) // 10], ordered[len(ordered) // 2]
        print(f"  {name:<8} {low * 1000:8.3f} ms  median {middle * 1000:8.3f} ms  {low * 1e6 / packets:6.2f} us/packet")
    return 0 if world.objects == wanted else 1


def _when_half(made: list[tuple[float, Output]], total: int) -> float:
    done = 0
    for at, output in made:
        done += _size(output)
        if done * 2 >= total:
            return at
    return made[-1][0]


def _size(output: Output) -> int:
    return sum(len(datagrams) for _, batches in output.datagrams for _, datagrams in batches)


def _taken(dialed: Dialed) -> list[bytes]:
    taken, dialed.socket.outbox = dialed.socket.outbox, []
    return list(taken)


def _settings(draft: int, flags: Sequence[str]) -> NodeSettings:
    config = RELAY.load(["--dev", "--drafts", str(draft), *flags]).config
    return NodeSettings(
        quic=replace(quic_settings(config), certificate=CERTIFICATE),
        forwarding=forwarding_settings(config),
        session=session_settings(config),
        limits=limit_settings(config),
    )


def _access() -> Access:
    return Access((), access_settings(RELAY.load(["--dev"]).config))


if __name__ == "__main__":
    sys.exit(main())
