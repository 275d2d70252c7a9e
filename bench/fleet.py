"""Relays without media: as many control links as are wanted, from one process, for a controller to have a fleet.

    python -m bench.fleet DIRECTORY HOST:PORT RELAYS

DIRECTORY has the mesh's authority (`write_papers` makes it). Each relay proves who it is, says Hello, and reports every
second: load, the links to its measured neighbours (32 AWS regions and the round trips between them, `bench.paths`), 20
of 500 namespaces. Tables are taken off the wire and not looked at. All links share one socket and one endpoint here;
for the controller they are connections like any other. Prints "ready" once all are welcome. Ends when its standard
input does.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import trio
from msgspec.structs import replace

from bench.paths import aws
from control.topology import neighbours
from relay.conversation import ALPN, Conversation, Papers
from tradewind.contract.identity import parse_authority, parse_pem_certificate, parse_pem_key
from tradewind.contract.ids import Role
from tradewind.contract.issuing import Order, Terms, certificate_pem, generate_key, issue, key_pem, make_authority
from tradewind.contract.messages import Hello, LinkReport, PackedTable, Report, SignedTable, TableDelta, Welcome
from tradewind.quic.config import Address, Limits, QuicSettings, ServerTrust
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.udp import UdpSocket

MESH = "bench"
REPORT_S = 1.0
NAMESPACES, CARRIED = 500, 20
AT_ONCE, JOIN_EVERY_S = 8, 0.05
"""Handshakes under way, and between two that begin: a mesh does not come up in a second."""
_LIMITS = Limits(idle_timeout_s=60.0, control_backlog_bytes=16 * 2**20, stream_window_bytes=2**20)


def write_papers(directory: Path, controllers: int = 1) -> list[tuple[str, str]]:
    """Write a mesh's authority and controllers' papers; returns each controller's files, certificate and key."""
    now = time.time()
    key = generate_key()
    authority = make_authority(MESH, key, Terms(1, now - 3600, now + 86_400))
    (directory / "ca.crt").write_bytes(certificate_pem(authority))
    (directory / "ca.key").write_bytes(key_pem(key))
    files = []
    for number in range(controllers):
        own = generate_key()
        order = Order(MESH, Role.CONTROLLER, "eu", f"main-{number}")
        terms = Terms(number + 2, now - 3600, now + 86_400)
        certificate = issue(order, own.public_key(), authority, key, terms)
        names = (f"control-{number}.crt", f"control-{number}.key")
        (directory / names[0]).write_bytes(certificate_pem(certificate))
        (directory / names[1]).write_bytes(key_pem(own))
        files.append(names)
    return files


def regions(relays: int) -> list[str]:
    """The region of each relay."""
    return aws(relays, 1)[0]


def places(relays: int) -> dict[str, tuple[float, float]]:
    """Where each region is: somewhere, the same at each run."""
    dice = random.Random(1)
    return {region: (dice.uniform(-45, 60), dice.uniform(-179, 179)) for region in dict.fromkeys(regions(relays))}


class Relay:
    """One relay: its papers, what it reports, and its link."""

    def __init__(self, number: int, region: str, papers: Papers, links: tuple[LinkReport, ...]) -> None:
        self.dice = random.Random(number)
        self.papers = papers
        self.number = number
        capacity = self.dice.choice((1000, 2366, 4000))
        self.hello = Hello(
            number.to_bytes(16, "big"),
            f"https://{region}-{number:03}.example.net:443",
            (f"{region}-{number:03}.example.net", 443),
            "bench",
            0,
            1e9,
            capacity,
        )
        carried = tuple((b"live", b"shop-%d" % self.dice.randrange(NAMESPACES)) for _ in range(CARRIED))
        used = self.dice.uniform(0.3, 0.75)
        self.plain = Report(1, "serving", used, int(capacity * used), 1e8, used, 0.5, 0, links, (), carried)
        self.talk: Conversation | None = None
        self.welcome = False
        self.due = 0.0

    def report(self) -> Report:
        """As before, a little off."""
        load = min(0.95, max(0.05, self.plain.load + self.dice.gauss(0.0, 0.003)))
        sessions = int(self.hello.capacity_sessions * load)
        links = tuple(replace(link, rtt_ms=link.rtt_ms * self.dice.uniform(0.999, 1.001)) for link in self.plain.links)
        return replace(self.plain, sequence=self.plain.sequence + 1, load=load, sessions=sessions, links=links)


def make_relays(directory: Path, count: int) -> Iterator[Relay]:
    """All relays, with papers from the authority in `directory`."""
    authority_pem = (directory / "ca.crt").read_bytes()
    authority, key = parse_authority(authority_pem), parse_pem_key((directory / "ca.key").read_bytes())
    der = parse_pem_certificate(authority_pem)
    own = generate_key()
    terms = Terms(1000, time.time() - 3600, time.time() + 86_400)
    names, rtt = aws(count, 1)
    ids = [f"{region}-{number:03}" for number, region in enumerate(names)]
    measured = neighbours.chosen(names, rtt / 2, np.zeros_like(rtt))
    for number, (region, others) in enumerate(zip(names, measured, strict=True)):
        certificate = issue(Order(MESH, Role.RELAY, region, ids[number]), own.public_key(), der, key, terms)
        links = tuple(LinkReport(ids[other], "up", float(rtt[other, number]), 2.0, 0.0, 1e6) for other in others)
        yield Relay(number, region, Papers(authority, certificate, own), links)


class Socket(Protocol):
    """What a fleet needs of `UdpSocket`."""

    def receive(self) -> list[tuple[bytes, Address]]:
        """What has come."""

    def send(self, batches: Iterable[tuple[Address, Sequence[bytes]]]) -> None:
        """Send datagrams."""

    def flush(self) -> None:
        """Send what waits."""

    async def wait_readable(self) -> None:
        """Wait until something has come."""


class Fleet:
    """All links on one socket."""

    def __init__(self, relays: list[Relay], controller: tuple[str, int], socket: Socket | None = None) -> None:
        self.relays = relays
        self.controller = controller
        trust = ServerTrust(verify=False)
        quic = QuicSettings(protocols=(ALPN,), webtransport=False, trust=trust, limits=_LIMITS)
        self.endpoint = Endpoint(quic, is_client=True)
        self.socket: Socket = socket or UdpSocket("127.0.0.1")
        self.by_connection: dict[int, Relay] = {}
        self.waiting = list(reversed(relays))
        self.join_at = 0.0
        self.tables = 0
        self.lost: list[str] = []

    def turn(self, now: float, wall_now: float) -> float:
        """Take what came, say what is due; returns when to look again."""
        events = self.endpoint.receive_datagrams(self.socket.receive(), now)
        due = self.endpoint.next_deadline()
        if due is not None and due <= now:
            events += self.endpoint.handle_deadline(now)
        for event in events:
            relay = self.by_connection.get(event.connection.id)
            if relay is not None and relay.talk is not None:
                self._receive(relay, relay.talk, event, now, wall_now)
        under_way = sum(not relay.welcome for relay in self.by_connection.values())
        while self.waiting and under_way < AT_ONCE and self.join_at <= now:
            self.join_at = now + JOIN_EVERY_S
            relay = self.waiting.pop()
            connection = self.endpoint.connect(self.controller, now, protocols=(ALPN,))
            relay.talk = Conversation(connection, relay.papers)
            self.by_connection[connection.id] = relay
            under_way += 1
        soonest = max(self.join_at, now) if self.waiting else now + REPORT_S
        for relay in self.by_connection.values():
            if relay.welcome and relay.talk is not None:
                if relay.due <= now:
                    relay.talk.send(relay.report())
                    relay.due += REPORT_S
                soonest = min(soonest, relay.due)
        self.socket.flush()
        self.socket.send(self.endpoint.datagrams_to_send(now))
        due = self.endpoint.next_deadline()
        return soonest if due is None else min(soonest, due)

    def _receive(self, relay: Relay, talk: Conversation, event: object, now: float, wall_now: float) -> None:
        proven = talk.controller is not None
        for message in talk.receive(event, now, wall_now):  # type: ignore[arg-type]
            if isinstance(message, Welcome):
                relay.welcome = True
                relay.due = now + relay.dice.random() * REPORT_S
            elif isinstance(message, SignedTable | PackedTable | TableDelta):
                self.tables += 1
        if not proven and talk.controller is not None:
            talk.send(relay.hello)
        if talk.ended is not None:
            self.lost.append(talk.ended)


def main(arguments: list[str] | None = None) -> int:
    """Be the fleet until standard input ends; returns the exit code."""
    directory, where, count = sys.argv[1:] if arguments is None else arguments
    host, _, port = where.rpartition(":")
    # What is measured comes first: the load generator shares this core.
    os.nice(10)
    fleet = Fleet(list(make_relays(Path(directory), int(count))), (host, int(port)))
    return trio.run(_serve, fleet)


async def _serve(fleet: Fleet) -> int:
    async with trio.open_nursery() as nursery:

        async def end_with_input() -> None:
            await trio.lowlevel.wait_readable(sys.stdin)
            nursery.cancel_scope.cancel()

        nursery.start_soon(end_with_input)
        said = False
        while not fleet.lost:
            again = fleet.turn(trio.current_time(), time.time())
            if not said and all(relay.welcome for relay in fleet.relays):
                said = True
                print("ready", flush=True)
            with trio.CancelScope(deadline=again):
                await fleet.socket.wait_readable()
        print(f"lost {fleet.lost[0]}", flush=True)
        nursery.cancel_scope.cancel()
    return 1 if fleet.lost else 0


if __name__ == "__main__":
    sys.exit(main())
