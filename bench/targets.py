"""The servers that a bench compares, as processes: ours, bare aioquic, aiomoqt's relay and moq-dev's.

Each is started with its defaults but for what the comparison needs (loopback, anonymous access, one draft), and on
a core of its own where there is `taskset`. What a server costs is read from the kernel's scheduler, for that process
alone and all of its threads.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.bare import IN, OUT
from tests.interop.relay_process import AIOMOQT_BIN, HOST, ROOT, free_port, write_certificate

SERVER_CORE, LOAD_CORE = 0, 1
CORES = frozenset(os.sched_getaffinity(0))
"""What this process was given, before it kept itself to one core: its children inherit that one unless told."""
READY_WITHIN_S = 20.0
STOPS_WITHIN_S = 5.0
PEER_BIN_VARIABLE = "TRADEWIND_PEER_BIN"
MOQ_RELAY_INSTALL = "cargo install moq-relay --version 0.17.10 --no-default-features --features noq"


@dataclass(frozen=True, slots=True)
class Target:
    """One server and how clients speak to it."""

    name: str
    title: str
    publisher_alpn: str
    viewer_alpn: str
    moqt: bool
    command: tuple[str, ...]
    """With `{port}`, `{cert}` and `{key}` to be filled in."""


class Missing(Exception):
    """A peer is not installed; says how to install it."""


class TargetDied(Exception):
    """A server did not start, or ended."""


def targets(names: list[str], draft: int, peer_bin: str | None, flags: tuple[str, ...] = ()) -> list[Target | str]:
    """The targets called `names`, in that order; for a peer that is not installed a line that says how to."""
    found: list[Target | str] = []
    for name in names:
        try:
            found.append(_target(name, draft, peer_bin, flags))
        except Missing as missing:
            found.append(f"peer missing: {missing}")
    return found


class Server:
    """A running target."""

    def __init__(self, target: Target, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.target = target
        self.port = free_port()
        self.log = directory / f"{target.name}.log"
        if not (directory / "cert.pem").exists():
            write_certificate(directory)
        values = {"port": str(self.port), "cert": str(directory / "cert.pem"), "key": str(directory / "key.pem")}
        command = [part.format(**values) for part in target.command]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*pinning(SERVER_CORE), *command],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(directory)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._wait_ready()

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_s(self) -> float:
        """Seconds of processor time that the process has used, with all its threads."""
        return cpu_s(self.pid)

    def rss_bytes(self) -> int:
        """Resident memory."""
        return rss_bytes(self.pid)

    def check(self) -> None:
        """Raise TargetDied where the process has ended."""
        if self.process.poll() is not None:
            raise TargetDied(f"{self.target.name} ended with {self.process.returncode}:\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End it, with patience at first."""
        self.process.terminate()
        try:
            self.process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_ready(self) -> None:
        """A server is ready when its UDP port is taken and its process has stopped starting up."""
        deadline = time.monotonic() + READY_WITHIN_S
        while not _is_taken(self.port):
            if time.monotonic() > deadline:
                self.stop()
                raise TargetDied(f"{self.target.name} does not listen:\n{self.tail()}")
            self.check()
            time.sleep(0.02)
        time.sleep(0.3)
        self.check()


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and all its threads that are alive."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_s() -> float:
    """Processor seconds that all programs and the kernel have used since the machine started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = (int(value) for value in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pinning(core: int) -> list[str]:
    """The words before a command that keep it on one core; none where that cannot be."""
    if shutil.which("taskset") is None or core not in CORES:
        return []
    return ["taskset", "-c", str(core)]


def pin_self(core: int) -> bool:
    """Keep this process on one core; False where that cannot be."""
    if core not in CORES or len(CORES) < 2:
        return False
    os.sched_setaffinity(0, {core})
    return True


def _target(name: str, draft: int, peer_bin: str | None, flags: tuple[str, ...]) -> Target:
    alpn = f"moqt-{draft}"
    match name:
        case "ours":
            command = (
                *(sys.executable, "-m", "relay", "--dev", "--listen", f"{HOST}:{{port}}", "--ops", "off"),
                *("--drafts", str(draft), "--log-level", "warning", *flags),
            )
            return Target(name, "tradewind relay", alpn, alpn, True, command)
        case "aioquic":
            command = (sys.executable, "-m", "bench.bare", HOST, "{port}", "{cert}", "{key}")
            return Target(name, "bare aioquic", IN, OUT, False, command)
        case "aiomoqt":
            program = AIOMOQT_BIN / "moq-interop-relay"
            if not program.exists():
                raise Missing("aiomoqt's relay (scripts/install-peers makes .venv-aiomoqt)")
            command = (
                *(str(program), "--bind", HOST, "--port", "{port}", "--quic", "--draft", str(draft)),
                *("--cert", "{cert}", "--key", "{key}"),
            )
            return Target(name, "aiomoqt moq-interop-relay", alpn, alpn, True, command)
        case "moq-relay":
            command = (
                *(_moq_relay(peer_bin), "--listen", f"{HOST}:{{port}}", "--listen-version", f"moq-transport-{draft}"),
                *("--listen-tls-cert", "{cert}", "--listen-tls-key", "{key}", "--auth-public", "**"),
                *("--quic-mtu-discovery", "--log-level", "error"),
            )
            return Target(name, "moq-dev moq-relay", alpn, alpn, True, command)
        case _:
            raise ValueError(f"no such target: {name}")


def _moq_relay(peer_bin: str | None) -> str:
    given = peer_bin or os.environ.get(PEER_BIN_VARIABLE)
    path = os.pathsep.join([*([given] if given else []), os.environ.get("PATH", ""), str(Path.home() / ".cargo/bin")])
    found = shutil.which("moq-relay", path=path)
    if found is None:
        raise Missing(f"moq-relay ({MOQ_RELAY_INSTALL})")
    return found


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
