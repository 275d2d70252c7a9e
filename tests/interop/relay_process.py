"""A relay as a process of its own, as an operator would start it, for peers that nobody here wrote.

`TRADEWIND_INTEROP_RELAY=aiomoqt` starts aiomoqt's stand-in instead of ours: a case that fails against both is about the
harness or the peer, a case that fails against ours alone is about us.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.sim import pki
from tradewind.moqt.profiles import NEIGHBOUR

ROOT = Path(__file__).resolve().parent.parent.parent
AIOMOQT_BIN = ROOT / ".venv-aiomoqt/bin"
HOST = "127.0.0.1"
READY_WITHIN_S = 20.0
STOPS_WITHIN_S = 10.0
MESH, NEIGHBOURS = "interop", ("fra-1", "hkg-1")
ALL_ACROSS = bool(os.environ.get("TRADEWIND_INTEROP_ALL"))
"""Run across two relays whatever runs at one, and not only the drafts and transports that differ most."""
STAND_IN = os.environ.get("TRADEWIND_INTEROP_RELAY") == "aiomoqt"


@dataclass(slots=True)
class RelayProcess:
    """A running relay: where it listens, and what it has said."""

    process: subprocess.Popen[bytes]
    port: int
    ops_port: int | None
    log: Path

    def url(self, transport: str, path: str = "/") -> str:
        """The address to give to a client: raw QUIC is `moqt:`, WebTransport `https:`."""
        return url(transport, self.port, path)

    def certificate_sha256(self) -> str:
        """The hash of its certificate, in hexadecimal, as browsers and players ask for it."""
        if self.ops_port is None:
            return certificate_sha256(self.log.parent)
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/certificate.sha256", timeout=5) as answer:
            return str(answer.read().decode().strip())

    def wait_for_log(self, words: str, within_s: float = 20.0) -> None:
        """Wait until the relay's log has these words."""
        deadline = time.monotonic() + within_s
        while words not in self.log.read_text(errors="replace"):
            assert time.monotonic() < deadline, f"no {words!r} within {within_s:g} s:\n{self.tail()}"
            time.sleep(0.05)

    def state(self) -> dict[str, Any]:
        """What it shows operators of itself."""
        with urllib.request.urlopen(f"http://{HOST}:{self.ops_port}/state", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def metrics(self) -> dict[str, float]:
        """Its numbers, by name and labels as they are written, without what they all begin with."""
        with urllib.request.urlopen(f"http://{HOST}:{self.ops_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        found = (re.match(r"tradewind_([^ ]+) ([^ ]+)$", line) for line in lines)
        return {one[1]: float(one[2]) for one in found if one is not None}

    def tail(self, lines: int = 40) -> str:
        """The last lines of the relay's log, for the message of a failed assertion."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> int:
        """Ask the relay to go, as an operator would, and return its exit code; one that stays is killed and told on."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until a relay that was asked to go has gone."""
        try:
            return self.process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"still there {STOPS_WITHIN_S:g} s after SIGTERM:\n{self.tail()}") from None


def url(transport: str, port: int, path: str = "/") -> str:
    """The address of what listens there, as clients are given it."""
    return f"{'moqt' if transport == 'quic' else 'https'}://{HOST}:{port}{path}"


def start(
    directory: Path, drafts: tuple[int, ...] = (), flags: tuple[str, ...] = (), port: int | None = None
) -> RelayProcess:
    """Start a relay on free loopback ports and wait until it is ready.

    `drafts` restricts what it offers, `flags` go to it as they are; its log and, for the stand-in, its certificate go
    to `directory`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port, ops_port = port or free_port(), None if STAND_IN else free_port()
    command = stand_in_command(directory, port, drafts) if STAND_IN else our_command(port, ops_port, drafts)
    log = directory / "relay.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *flags], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    relay = RelayProcess(process, port, ops_port, log)
    deadline = time.monotonic() + READY_WITHIN_S
    while not _is_ready(relay):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise AssertionError(f"the relay did not become ready (exit code {process.returncode}):\n{relay.tail()}")
        time.sleep(0.02)
    return relay


def start_mesh(
    directory: Path, drafts: tuple[int, ...] = (), flags: tuple[str, ...] = ()
) -> tuple[RelayProcess, RelayProcess]:
    """Start two relays that are each other's only neighbours, and wait until they have a session with each other."""
    ports = dict(zip(NEIGHBOURS, (free_port(), free_port()), strict=True))
    found: list[RelayProcess] = []
    try:
        for name, other in zip(NEIGHBOURS, NEIGHBOURS[::-1], strict=True):
            papers = pki.write_files(directory / name, MESH, name)
            place = ("--mesh.name", MESH, "--mesh.public_uri", f"https://{HOST}:{ports[name]}")
            beside = ("--mesh.neighbours", f"{other}={HOST}:{ports[other]}")
            kept = ("--mesh.state", str(directory / name), "--rooms.path", str(directory / name / "rooms.db"))
            found.append(start(directory / name, drafts, (*papers, *place, *beside, *kept, *flags), ports[name]))
        deadline = time.monotonic() + READY_WITHIN_S
        while not all(_has_neighbour(relay) for relay in found):
            assert time.monotonic() < deadline, "the relays did not meet:\n" + "\n--\n".join(
                map(RelayProcess.tail, found)
            )
            time.sleep(0.05)
    except BaseException:
        for relay in found:
            relay.process.kill()
            relay.process.wait()
        raise
    here, there = found
    return here, there


def stop_all(relays: Iterable[RelayProcess]) -> None:
    """Ask all to go, then wait for each."""
    asked = list(relays)
    for relay in asked:
        relay.process.send_signal(signal.SIGTERM)
    for relay in asked:
        relay.wait()


def our_command(port: int, ops_port: int | None, drafts: tuple[int, ...]) -> list[str]:
    """The command line of our relay."""
    command = [sys.executable, "-m", "relay", "--dev", "--listen", f"{HOST}:{port}", "--ops", f"{HOST}:{ops_port}"]
    return [*command, "--drafts", ",".join(map(str, drafts))] if drafts else command


def stand_in_command(directory: Path, port: int, drafts: tuple[int, ...]) -> list[str]:
    """The command line of aiomoqt's relay, with a certificate made for it in `directory`."""
    certificate, key = write_certificate(directory)
    offered = ",".join(map(str, drafts or (22, 20, 18, 16)))
    return [
        *(str(AIOMOQT_BIN / "moq-interop-relay"), "--bind", HOST, "--port", str(port), "--dual", "--draft", offered),
        *("--cert", str(certificate), "--key", str(key)),
    ]


def free_port() -> int:
    """A loopback port that is free for UDP and for TCP: the relay uses the same number for both."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind((HOST, 0))
            port = int(tcp.getsockname()[1])
            try:
                udp.bind((HOST, port))
            except OSError:
                continue
            return port


def write_certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate that browsers accept by its hash (P-256, at most 14 days in all); return it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    wall_now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(wall_now - dt.timedelta(minutes=5))
        .not_valid_after(wall_now + dt.timedelta(days=13))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "cert.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def certificate_sha256(directory: Path) -> str:
    """The hash, in hexadecimal, of the certificate that `write_certificate` left in `directory`."""
    certificate = x509.load_pem_x509_certificate((directory / "cert.pem").read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex()


def _has_neighbour(relay: RelayProcess) -> bool:
    """Whether a session with another relay is there, and set up at both ends."""
    return any(one["protocol"] == NEIGHBOUR.name and one["implementation"] for one in relay.state()["sessions"])


def _is_ready(relay: RelayProcess) -> bool:
    if relay.ops_port is None:
        # The stand-in has no readiness to ask for: its UDP port is taken once it listens.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((HOST, relay.port))
            except OSError:
                return True
        return False
    try:
        with urllib.request.urlopen(f"http://{HOST}:{relay.ops_port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
