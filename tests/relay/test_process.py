"""A relay as a process, as an operator has it: ready, asked, given a new certificate, told to go."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trustme

from tradewind.contract.token import Claims, parse_keys, sign

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 20.0
STARTS = 3
SECRET = {"kty": "oct", "alg": "HS256", "k": "c" * 43, "key_ops": ["sign", "verify"]}
T = TypeVar("T")

pytestmark = pytest.mark.slow


class Running:
    """A relay and where it is reached."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.log = directory / "relay.log"
        for _ in range(STARTS):
            self.ops = free_port()
            self.process = self._start(directory, flags)
            ready = until(lambda: self._ready() or self.process.poll() is not None)
            if isinstance(ready, re.Match):
                self.port = int(ready[1])
                return
            # The number that the kernel chose for UDP, or that was free a moment ago, may be somebody's TCP port.
            assert "Address already in use" in self.said(), self.said()
        raise AssertionError(self.said())

    def _start(self, directory: Path, flags: Sequence[str]) -> subprocess.Popen[bytes]:
        listen = ("--listen", "127.0.0.1:0", "--ops", f"127.0.0.1:{self.ops}")
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "relay", *listen, *flags],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _ready(self) -> re.Match[str] | None:
        return re.search(r"ready: .*127\.0\.0\.1:(\d+), drafts", self.said())

    def said(self) -> str:
        return self.log.read_text()

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.ops}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(found: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def write_pair(directory: Path) -> None:
    authority = trustme.CA()
    (directory / "ca.pem").write_bytes(authority.cert_pem.bytes())
    issued = authority.issue_cert("127.0.0.1")
    for name, data in (
        ("cert.pem", b"".join(blob.bytes() for blob in issued.cert_chain_pems)),
        ("key.pem", issued.private_key_pem.bytes()),
    ):
        (directory / f"new-{name}").write_bytes(data)
        (directory / f"new-{name}").replace(directory / name)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Running]:
    write_pair(tmp_path)
    (tmp_path / "shop.jwk").write_text(json.dumps(SECRET))
    flags = ("--cert", "cert.pem", "--key", "key.pem", "--auth-key", "shop.jwk", "--tls.poll_s", "100ms")
    running = Running(tmp_path, *flags)
    yield running
    running.process.kill()
    running.process.wait()


def test_what_operators_and_players_ask(relay: Running) -> None:
    assert relay.get("/livez") == (200, "ok\n")
    assert relay.get("/readyz") == (200, "ok\n")
    assert "tradewind_build_info{" in relay.get("/metrics")[1]
    assert json.loads(relay.get("/state")[1])["stage"] == "serving"
    assert json.loads(relay.get("/version")[1])["aioquic"]
    status, sha256 = relay.get("/certificate.sha256", relay.port)
    assert status == 200
    assert sha256 in relay.said()
    # The public listener shows nothing else.
    assert relay.get("/metrics", relay.port)[0] == 404


def test_where_to_go_is_answered_over_tls_alone(relay: Running, tmp_path: Path) -> None:
    assert relay.get("/v1/place?namespace=live/a", relay.port)[0] == 403
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    (key,) = parse_keys(json.dumps(SECRET))
    for query, status, reason in [
        ("namespace=live/a", 401, "token_missing"),
        (f"namespace=live/a&jwt={sign(Claims('live', get=('',)), key)}", 503, "no_table"),
    ]:
        with pytest.raises(urllib.error.HTTPError) as told:
            urllib.request.urlopen(f"https://127.0.0.1:{relay.port}/v1/place?{query}", timeout=5, context=trusting)
        with told.value as answer:
            assert (answer.code, json.loads(answer.read())["reason"]) == (status, reason)
    assert 'place_answers_total{answer="no_table"} 1.0' in relay.get("/metrics")[1]


def test_the_key_that_it_places_with_is_kept(tmp_path: Path) -> None:
    seeds = []
    for _ in range(2):
        running = Running(tmp_path, "--dev", "--node.state", "state")
        assert running.stop() == 0
        seeds.append((tmp_path / "state/placement.key").read_bytes())
    assert seeds[0] == seeds[1] and len(seeds[0]) == 32


def test_a_new_certificate_is_used_without_a_restart(relay: Running, tmp_path: Path) -> None:
    before = relay.get("/certificate.sha256", relay.port)
    write_pair(tmp_path)
    until(lambda: relay.get("/certificate.sha256", relay.port) != before)
    assert "last_reload_successful" in relay.get("/metrics")[1]
    (tmp_path / "cert.pem").write_text("rubbish")
    until(lambda: 'last_reload_successful{files="certificate"} 0.0' in relay.get("/metrics")[1])
    assert relay.get("/readyz")[0] == 200
    write_pair(tmp_path)
    until(lambda: 'last_reload_successful{files="certificate"} 1.0' in relay.get("/metrics")[1])


def test_it_goes_when_it_is_told(relay: Running) -> None:
    assert relay.stop() == 0
    assert "draining" in relay.said()


def test_what_cannot_start_says_why_and_fails(tmp_path: Path) -> None:
    def start(*flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "relay", "--listen", "127.0.0.1:0", *flags],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    missing = start("--cert", "cert.pem", "--key", "key.pem", "--public", "demo", "--ops", "off")
    assert missing.returncode == 1
    assert "cert.pem: No such file" in missing.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = start("--dev", "--ops", f"127.0.0.1:{taken.getsockname()[1]}")
    assert busy.returncode == 1
    assert "in use" in busy.stderr
    assert "Traceback" not in missing.stderr + busy.stderr
