"""What a controller's links cost it, in processor time alone: others on the machine do not count.

    python -m bench.control_links [--relays 500] [--for 30] [--places 0]

A whole plane, its links and its QUIC endpoint on one side, relays as in `bench.fleet` on the other, real packets
between them, and one virtual clock: it moves on by the processor time that the controller's turns take, and to the next
thing that is due. So a controller that is late is late here too, and one that shares its core with others is not. All
relays join, 20 a second; then the time of `--for` counts. Printed are the core that the controller used in those
seconds, its turns (how long one kept all others waiting), what it sent, and links that were lost.

With `--places` so many viewers a second ask for a relay meanwhile: each answer is really made, and what HTTP costs
beside it is taken from `--http-us` (`bench.placement --http --server control` measures that). Printed is then how long
they waited, too. Exit code 1 where a link was lost, or a target missed: half a core without viewers, p99 10 ms with.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.fleet import MESH, NAMESPACES, Fleet, make_relays, places, regions, write_papers
from bench.questions import quantile
from control.links import Links, pass_on
from control.placement import Placement
from control.plane import Plane, PlaneSettings
from control.publishing import Signing
from control.registry.values import Place
from control.run import COLLECTIONS
from control.state import State
from relay.conversation import ALPN
from tradewind.contract.admission import signer
from tradewind.contract.identity import Authority, parse_authority, parse_pem_certificate, parse_pem_key
from tradewind.contract.token import Claims, generate_key, parse_keys, sign
from tradewind.placing.answering import PlaceRequest, read_request
from tradewind.placing.policy import Policy
from tradewind.quic.config import Address, Limits, QuicSettings, load_certificate
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.udp import BATCH_DATAGRAMS

CONTROLLER: Address = ("192.0.2.1", 443)
RELAYS: Address = ("192.0.2.2", 4000)
DELAY_S = 0.001
WALL = time.time()
SETTLED_S = 15.0
"""After the last relay has come, before it counts: the second cycle has the good routes."""
CORE_CEILING, P99_CEILING_MS = 0.5, 10.0
ASKED = 5_000
"""Questions that are made beforehand, and asked again and again."""


class Wire:
    """Datagrams one way; `Fleet` takes an end of two for its socket."""

    def __init__(self, come_from: Address) -> None:
        self.come_from = come_from
        self.now = 0.0
        self.flying: deque[tuple[float, bytes]] = deque()
        self.sent = 0
        self.sent_bytes = 0

    def put(self, batches: Iterable[tuple[Address, Sequence[bytes]]]) -> None:
        """Datagrams leave."""
        for _, datagrams in batches:
            self.sent += len(datagrams)
            self.sent_bytes += sum(map(len, datagrams))
            self.flying.extend((self.now + DELAY_S, data) for data in datagrams)

    def take(self, most: int) -> list[tuple[bytes, Address]]:
        """What has arrived."""
        found = []
        while self.flying and self.flying[0][0] <= self.now and len(found) < most:
            found.append((self.flying.popleft()[1], self.come_from))
        return found


class RelaysEnd:
    """The fleet's socket."""

    def __init__(self, here: Wire, there: Wire) -> None:
        self._here, self._there = here, there

    def receive(self) -> list[tuple[bytes, Address]]:
        return self._here.take(1000)

    def send(self, batches: Iterable[tuple[Address, Sequence[bytes]]]) -> None:
        self._there.put(batches)

    def flush(self) -> None:
        pass

    async def wait_readable(self) -> None:
        raise AssertionError


class Host:
    """What `control.controller` is around a plane, without trio: its turns are timed."""

    def __init__(self, directory: Path, relays: int) -> None:
        ((certificate, key),) = write_papers(directory)
        authority = parse_authority((directory / "ca.crt").read_bytes())
        pems = (directory / certificate).read_bytes(), (directory / key).read_bytes()
        signing = Signing(parse_pem_key(pems[1]), parse_pem_certificate(pems[0]))
        (place_key,) = parse_keys(json.dumps(generate_key("EdDSA", "main-0")))
        (self.access,) = parse_keys(json.dumps(generate_key("EdDSA", "shop")))
        where = {region: Place(*place) for region, place in places(relays).items()}
        placement = Placement(Policy(), signer(place_key), [self.access])
        self.plane = Plane(PlaneSettings(MESH, "main-0", places=where), State(1), signing, placement, 0.0, WALL)
        limits = Limits(idle_timeout_s=60.0, control_backlog_bytes=64 * 2**20, bidi_streams=4, uni_streams=4)
        served = load_certificate(*pems)
        self.endpoint = Endpoint(QuicSettings(protocols=(ALPN,), webtransport=False, certificate=served, limits=limits))
        self.links = Links(Authority(authority.certificates), lambda: os.urandom(32))
        self.turns_s: list[float] = []

    def next_deadline(self, now: float) -> float:
        """When the next turn is due that nothing has to arrive for."""
        moments = (self.endpoint.next_deadline(), self.links.next_deadline(), self.plane.next_deadline(now))
        return min((moment for moment in moments if moment is not None), default=float("inf"))

    def turn(self, batch: list[tuple[bytes, Address]], out: Wire, now: float) -> float:
        """One turn, as `Controller.turn` has it; returns the processor time that it took."""
        began = time.process_time()
        wall_now = WALL + now
        events = self.endpoint.receive_datagrams(batch, now) if batch else []
        due = self.endpoint.next_deadline()
        if due is not None and due <= now:
            events += self.endpoint.handle_deadline(now)
        for happening in self.links.receive(events, now, wall_now):
            pass_on(happening, happening.link, self.plane, now, wall_now)
        self.links.handle_deadline(now)
        if (due := self.plane.next_deadline(now)) is not None and due <= now:
            self.plane.handle_deadline(now, wall_now)
        output = self.plane.output()
        for saved in output.batches:
            self.plane.receive_saved(saved.number, now, wall_now)
        for link, said in output.send:
            self.links.send(link, said)
        for link, why in output.close:
            self.links.close(link, why)
        sent = self.endpoint.datagrams_to_send(now)
        self.next_deadline(now)
        took_s = time.process_time() - began
        self.turns_s.append(took_s)
        out.put(sent)
        return took_s


class Viewers:
    """Questions that come when they come, and are answered between two turns."""

    def __init__(self, host: Host, rate: float, http_s: float, relays: int) -> None:
        self._dice = random.Random(1)
        self._host, self._rate, self._http_s = host, rate, http_s
        self.due = float("inf")
        self.waited_s: list[float] = []
        self.busy_s = 0.0
        self._requests = itertools.cycle(self._questions(list(dict.fromkeys(regions(relays))))) if rate else None

    def begin(self, now: float) -> None:
        """They come from now on."""
        if self._requests is not None:
            self.due = now

    def answer(self, now: float) -> float:
        """Answer the one that has waited longest; returns what that took."""
        assert self._requests is not None
        request = next(self._requests)
        began = time.process_time()
        self._host.plane.placement.answer(request, now, WALL + now)
        took_s = time.process_time() - began + self._http_s
        self.busy_s += took_s
        self.waited_s.append(now + took_s - self.due)
        self.due += self._dice.expovariate(self._rate)
        return took_s

    def _questions(self, names: list[str]) -> list[PlaceRequest]:
        made = []
        for number in range(min(ASKED, int(self._rate * 10))):
            token = sign(Claims("live", (), ("",), WALL + 9000, subject=str(number)), self._host.access)
            rtt = f"{names[number % len(names)]}:23,{names[number * 7 % len(names)]}:41"
            query = f"namespace=live/shop-{number % NAMESPACES}&jwt={token}&viewer={number}&rtt={rtt}"
            request = read_request(query, "")
            assert isinstance(request, PlaceRequest)
            made.append(request)
        return made


class Run:
    """Both sides and their clock."""

    def __init__(self, directory: Path, relays: int, rate: float, http_s: float) -> None:
        self.host = Host(directory, relays)
        self.to_relays, self.to_controller = Wire(CONTROLLER), Wire(RELAYS)
        everybody = list(make_relays(directory, relays))
        self.fleet = Fleet(
            everybody, (str(CONTROLLER[0]), CONTROLLER[1]), RelaysEnd(self.to_relays, self.to_controller)
        )
        self.viewers = Viewers(self.host, rate, http_s, relays)
        self.now = 0.0
        self._free_at = 0.0
        self._again = 0.0

    def until(self, end: float) -> None:
        """Let time pass."""
        host, viewers = self.host, self.viewers
        while self.now < end and not self.fleet.lost:
            for wire in (self.to_relays, self.to_controller):
                wire.now = self.now
            if self._again <= self.now or (self.to_relays.flying and self.to_relays.flying[0][0] <= self.now):
                self._again = self.fleet.turn(self.now, WALL + self.now)
            if self._free_at <= self.now:
                batch = self.to_controller.take(BATCH_DATAGRAMS)
                if batch or host.next_deadline(self.now) <= self.now:
                    took_s = host.turn(batch, self.to_relays, self.now)
                    self._free_at = self.now + took_s
                # Then those who have waited: as many as there were when it was their turn.
                free_at, asked_by = max(self._free_at, self.now), max(self._free_at, self.now)
                while viewers.due <= asked_by:
                    free_at += viewers.answer(free_at)
                self._free_at = free_at
            moments = [self._again, *(wire.flying[0][0] for wire in (self.to_relays,) if wire.flying)]
            wanted = [host.next_deadline(self.now), viewers.due]
            if self.to_controller.flying:
                wanted.append(self.to_controller.flying[0][0])
            moments.append(max(self._free_at, min(wanted)))
            self.now = max(self.now + 1e-6, min(moments))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.control_links")
    parser.add_argument("--relays", type=int, default=500)
    parser.add_argument("--for", dest="for_s", type=float, default=30.0)
    parser.add_argument("--places", type=float, default=0.0)
    parser.add_argument("--http-us", type=float, default=150.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        run = Run(Path(directory), options.relays, options.places, options.http_us / 1e6)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)
    missed = []
    host, viewers = run.host, run.viewers
    while not all(relay.welcome for relay in run.fleet.relays) and not run.fleet.lost:
        run.until(run.now + 1.0)
    _show("joining", host, viewers, run.now)
    run.until(run.now + SETTLED_S)
    _show("settling", host, viewers, SETTLED_S)
    began, before, packets = run.now, host.plane.statistics(), (run.to_relays.sent, run.to_relays.sent_bytes)
    viewers.begin(run.now)
    run.until(run.now + options.for_s)
    took_s = run.now - began
    after = host.plane.statistics()
    core = _show("measured", host, viewers, took_s)
    sent, size = run.to_relays.sent - packets[0], run.to_relays.sent_bytes - packets[1]
    counts = {
        "reports": after.reports - before.reports,
        "tables": after.tables - before.tables,
        "differences": after.deltas - before.deltas,
        "packets out": sent,
        "kB": size // 1000,
    }
    print("a second: " + ", ".join(f"{count / took_s:,.0f} {what}" for what, count in counts.items()))
    if run.fleet.lost:
        missed.append(f"{len(run.fleet.lost)} links lost: {run.fleet.lost[0]}")
    if not options.places and core > CORE_CEILING:
        missed.append(f"{core:.2f} of a core (at most {CORE_CEILING})")
    if options.places:
        p99_ms = 1000 * quantile(viewers.waited_s, 0.99)
        if p99_ms > P99_CEILING_MS:
            missed.append(f"p99 {p99_ms:.1f} ms (at most {P99_CEILING_MS:g})")
    for line in missed:
        print(f"FAIL  {line}")
    return 1 if missed else 0


def _show(what: str, host: Host, viewers: Viewers, over_s: float) -> float:
    """One line about the turns since the last one; returns the core that they took."""
    turns, host.turns_s = host.turns_s, []
    core = sum(turns) / over_s
    longest = "".join(f"{1000 * quantile(turns, part):8.2f}" for part in (0.5, 0.99, 0.999, 1.0))
    rate = f"turns {len(turns) / over_s:6.0f}/s"
    print(f"{what:<9} {over_s:6.1f} s  {core:5.2f} core  {rate}, p50 p99 p99.9 most ms{longest}", flush=True)
    if viewers.waited_s:
        waited = "".join(f"{1000 * quantile(viewers.waited_s, part):8.2f}" for part in (0.5, 0.99, 0.999, 1.0))
        rate = f"viewers {len(viewers.waited_s) / over_s:4.0f}/s"
        print(f"{'':<19}{viewers.busy_s / over_s:5.2f} core  {rate}, p50 p99 p99.9 most ms{waited}")
    return core


if __name__ == "__main__":
    sys.exit(main())
