"""What sessions cost: handshakes a second, and memory of sessions that do nothing.

    python -m bench.sessions [--sessions 1000] [--json FILE]

Clients of bare aioquic connect to our relay a few at a time and set a MoQT session up; then they are silent, then each
subscribes to a track that nobody publishes anything on. Handshakes (TLS, QUIC and both SETUPs) are counted a second of
the server's processor time and a second of the clock; memory is resident memory after less before, for each session.
Exit code: 0, or 1 where the floor was missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.dialing import NAMESPACE, Dialed, DialError
from bench.load import CONNECT_AT_ONCE, PATIENCE_S, TRACK
from bench.targets import LOAD_CORE, Server, Target, pin_self, targets
from tests.interop.relay_process import HOST

IDLE_BYTES = 256 * 1024
QUIET_S = 2.0
"""What handshakes leave behind is gone after this."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one relay took for its sessions."""

    sessions: int
    handshakes_per_cpu_s: float
    handshakes_per_s: float
    cpu_ms_per_handshake: float
    base_bytes: int
    idle_bytes: float
    """Resident memory a session that is set up."""
    subscribed_bytes: float
    """The same with one subscription."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and judge; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.sessions", description=__doc__.split("\n")[0])
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--draft", type=int, default=20)
    parser.add_argument("--relay-flag", action="append", default=[], help="handed to our relay as it is; may repeat")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args(arguments)
    allow_sockets(options.sessions + 100)
    pin_self(LOAD_CORE)
    flags = ("--limits.sessions", str(options.sessions + 100), *options.relay_flag)
    (target,) = targets(["ours"], options.draft, None, flags)
    assert isinstance(target, Target)
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as directory, Server(target, Path(directory)) as server:
        result = measure(server, options.sessions)
    passed = result.idle_bytes <= IDLE_BYTES
    rates = (
        f"{result.handshakes_per_cpu_s:.0f} a second of the relay's core ({result.cpu_ms_per_handshake:.2f} ms each)"
    )
    print(f"handshakes      {rates}; {result.handshakes_per_s:.0f} a second from these clients, on a core of their own")
    print(f"idle session    {result.idle_bytes / 1024:8.1f} kB of resident memory, at {result.sessions} sessions")
    print(f"  subscribed    {result.subscribed_bytes / 1024:8.1f} kB")
    print(f"{'PASS' if passed else 'FAIL'}  memory of an idle session: {result.idle_bytes / 1024:.1f} kB (at most 256)")
    if options.json:
        Path(options.json).write_text(json.dumps(asdict(result)) + "\n", encoding="utf-8")
    return 0 if passed else 1


def measure(server: Server, count: int) -> Result:
    """Connect `count` sessions, leave them alone, have them subscribe. Raises DialError."""
    dialed: list[Dialed] = []
    publisher = connect(server, 1, dialed)[0]
    publisher.announce(NAMESPACE)
    base, cpu, began = server.rss_bytes(), server.cpu_s(), time.monotonic()
    sessions = []
    for start in range(0, count, CONNECT_AT_ONCE):
        sessions += connect(server, min(CONNECT_AT_ONCE, count - start), dialed)
    cpu_s, wall_s = server.cpu_s() - cpu, time.monotonic() - began
    step_for(dialed, QUIET_S)
    idle = server.rss_bytes() - base
    for one in sessions:
        one.subscribe(TRACK)
    step_until(dialed, lambda: all(one.subscribed for one in sessions))
    step_for(dialed, QUIET_S)
    subscribed = server.rss_bytes() - base
    server.check()
    for one in dialed:
        one.leave()
    return Result(
        sessions=count,
        handshakes_per_cpu_s=count / cpu_s,
        handshakes_per_s=count / wall_s,
        cpu_ms_per_handshake=cpu_s * 1000 / count,
        base_bytes=base,
        idle_bytes=idle / count,
        subscribed_bytes=subscribed / count,
    )


def connect(server: Server, count: int, everybody: list[Dialed]) -> list[Dialed]:
    """Open `count` sessions at once and wait until all are set up; they join `everybody`."""
    batch = [Dialed(HOST, server.port, server.target.viewer_alpn) for _ in range(count)]
    everybody += batch
    for one in batch:
        one.connect()
    # The others are silent: stepping them all while handshakes wait would measure the clients.
    step_until(batch, lambda: all(one.ready for one in batch))
    return batch


def step_until(dialed: list[Dialed], done: Callable[[], bool]) -> None:
    """Step connections until `done`. Raises DialError where one closes or nothing comes of it."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        for one in dialed:
            one.step()
            if one.closed:
                raise DialError(one.closed)
        if time.monotonic() > deadline:
            raise DialError(f"nothing came of it within {PATIENCE_S:g} s")
        time.sleep(0.001)


def step_for(dialed: list[Dialed], seconds: float) -> None:
    """Keep connections going for a while."""
    until = time.monotonic() + seconds
    step_until(dialed, lambda: time.monotonic() > until)


def allow_sockets(count: int) -> None:
    """Allow this process so many open files, where the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard < 0 else min(count, hard), hard))


if __name__ == "__main__":
    sys.exit(main())
