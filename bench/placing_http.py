"""A controller, or a relay, that answers `/v1/place` on one core: how many questions a second, and how soon.

`python -m bench.placement --http` is the command; see there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.fleet import NAMESPACES, places, regions, write_papers
from bench.questions import Asked, ask, quantile
from bench.targets import LOAD_CORE, SERVER_CORE, busy_s, cpu_s, pin_self, pinning
from tests.interop.relay_process import HOST, ROOT, free_port
from tradewind.contract.token import Claims, Key, generate_key, parse_keys, sign

READY_S = 120.0
SETTLED_S = 15.0
"""After the last of the relays has come: a mesh does not start while viewers ask."""
P99_CEILING_MS = 10.0
ATTEMPTS, MAX_OTHERS = 5, 0.05
"""Runs are tried so often; with more of a core used by other programs they are void, as the core is not ours alone."""
WARM_S = 3.0
PRIORITY = -10


@dataclass(frozen=True, slots=True)
class Wish:
    """What to measure."""

    server: str = "control"
    """"control", "relay", or "links": a whole controller with a link to each relay."""
    relays: int = 500
    rate: float = 2000.0
    for_s: float = 20.0
    connections: int = 128
    algorithm: str = "EdDSA"
    again: int = 1
    """How often each token is used: 1, everybody is new."""


def measure(wish: Wish, runs: int) -> list[str]:
    """Measure `runs` times and print; returns what was missed."""
    missed = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        document = generate_key(wish.algorithm, "shop")
        (directory / "shop.jwk").write_text(json.dumps(document))
        (access,) = parse_keys(json.dumps(document))
        port = free_port()
        # Before other programs of the machine, where that is allowed; children inherit it.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        start = _controller_and_links if wish.server == "links" else _server
        server = start(stack, directory, wish, port)
        pinned = pin_self(LOAD_CORE)
        print(f"{wish.server} on a core of its own: {'yes' if pinned else 'no'}; {wish}", flush=True)
        print(
            "  asked/s   answered/s  p50 ms  p90 ms  p99 ms  p99.9 ms  most ms  other  core  others  generator p99 ms"
        )
        ask((HOST, port), _targets(wish, access, wish.rate * WARM_S), wish.rate / 2, WARM_S, wish.connections)
        good = 0
        for number in range(ATTEMPTS * runs):
            targets = _targets(wish, access, wish.rate * wish.for_s * 1.1 + 1000)
            began, used, busy = time.monotonic(), cpu_s(server.pid), busy_s() - time.process_time()
            found = ask((HOST, port), targets, wish.rate, wish.for_s, wish.connections, seed=number)
            took = time.monotonic() - began
            core = (cpu_s(server.pid) - used) / took
            others = max(0.0, (busy_s() - time.process_time() - busy) / took - core)
            void = found.late or (others > MAX_OTHERS and wish.server != "links")
            print(_line(found, core, others, void=void), flush=True)
            if found.first_other:
                print(f"  first other: {found.first_other!r}")
            if not void:
                good += 1
                missed += _missed(found, wish)
            if good == runs:
                return missed
        missed.append(f"{wish.server}: {good} of {runs} runs had the machine to themselves")
    return missed


def _server(stack: ExitStack, directory: Path, wish: Wish, port: int) -> subprocess.Popen[bytes]:
    """`/v1/place` with a fleet behind it, and nothing else."""
    log = directory / "server.log"
    words = [*pinning(SERVER_CORE), sys.executable, "-m", "bench.place_server", str(directory), wish.server]
    server = stack.enter_context(_process([*words, str(port), str(wish.relays)], ROOT, log))
    _until(log, r"(ready)", server)
    return server


def _controller_and_links(stack: ExitStack, directory: Path, wish: Wish, port: int) -> subprocess.Popen[bytes]:
    """A whole controller, as an operator starts it, and its relays with links of their own."""
    ((certificate, key),) = write_papers(directory)
    where = [f"{id}={north:.2f}/{east:.2f}" for id, (north, east) in places(wish.relays).items()]
    settings = f'[control]\nplaces = {json.dumps(where)}\n[place]\nkeys = ["shop.jwk"]\n'
    (directory / "control.toml").write_text(settings)
    flags = ["--cert", certificate, "--key", key, "--ca", "ca.crt", "--listen", f"{HOST}:0"]
    flags += ["--ops", f"{HOST}:0", "--public", f"{HOST}:{port}", "--log-level", "warning"]
    log = directory / "control.log"
    words = [*pinning(SERVER_CORE), sys.executable, "-P", "-m", "control", "-c", "control.toml", *flags]
    controller = stack.enter_context(_process(words, directory, log))
    udp = _until(log, r"on udp 127\.0\.0\.1:(\d+)", controller)
    fleet_log = directory / "fleet.log"
    words = [*pinning(LOAD_CORE), sys.executable, "-m", "bench.fleet", str(directory), f"{HOST}:{udp}"]
    fleet = stack.enter_context(_process([*words, str(wish.relays)], ROOT, fleet_log))
    _until(fleet_log, r"(ready)", fleet)
    time.sleep(SETTLED_S)
    return controller


def _line(found: Asked, core: float, others: float, *, void: bool) -> str:
    times = "".join(f"{found.took_ms(part):8.2f}" for part in (0.5, 0.9, 0.99, 0.999))
    late = 1000 * quantile(found.late_s, 0.99)
    asked = found.wanted / found.over_s
    return (
        f"{asked:9.0f}{found.rate:13.0f}{times}{found.took_ms(1.0):9.1f}{found.other:7}{core:7.2f}{others:8.2f}"
        f"{late:10.2f}{'  VOID' if void else ''}"
    )


def _missed(found: Asked, wish: Wish) -> list[str]:
    missed = []
    if found.rate < 0.98 * wish.rate or found.other:
        missed.append(f"{wish.server}: {found.rate:,.0f} answers a second of {wish.rate:,.0f}, {found.other} others")
    if found.took_ms(0.99) > P99_CEILING_MS:
        missed.append(f"{wish.server}: p99 {found.took_ms(0.99):.1f} ms (at most {P99_CEILING_MS:g})")
    return missed


def _targets(wish: Wish, access: Key, count: float) -> Iterator[str]:
    """Questions, made before the clock runs: each viewer has a token of its own, and measured two regions."""
    wall = int(time.time())
    names = [f"region-{number}" for number in range(50)]
    if wish.server == "links":
        names = list(dict.fromkeys(regions(wish.relays)))
    made = []
    for number in range(int(count / wish.again) + 1):
        subject = f"viewer-{wall}-{number}-{time.monotonic_ns()}"
        token = sign(Claims("live", (), ("",), wall + 9000, subject=subject), access)
        rtt = f"{names[number % len(names)]}:23,{names[number * 7 % len(names)]}:41"
        made.append(f"/v1/place?namespace=live/shop-{number % NAMESPACES}&jwt={token}&viewer={number}&rtt={rtt}")
    return iter(made * wish.again)


@contextmanager
def _process(words: list[str], directory: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.terminate()
        process.wait(20)


def _until(log: Path, pattern: str, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + READY_S
    while not (found := re.search(pattern, log.read_text())):
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"not ready:\n{log.read_text()}")
        time.sleep(0.05)
    return found[1]
