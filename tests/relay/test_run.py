"""A relay's process over real sockets: how it says goodbye, what it refuses to start with, both IP families."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tradewind.moqt import events as e
from tradewind.moqt.errors import SessionCode
from tradewind.moqt.model import FullTrackName
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.profiles import PROFILES
from tradewind.moqt.session import Session
from tradewind.quic.config import QuicSettings, ServerTrust
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Closed, Opened, Stopped, StreamData, StreamReset

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_S = 20.0

pytestmark = pytest.mark.slow


class Running:
    """A relay started as an operator would."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.log = directory / "relay.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "relay", "--ops", "off", *flags],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ready(self) -> list[tuple[str, int]]:
        """Where it listens, once it says so."""
        deadline = time.monotonic() + WAIT_S
        while (line := re.search(r"ready: .* on udp (.*), drafts", self.said())) is None:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        found = [word.rpartition(":") for word in line[1].split()]
        return [(host.strip("[]"), int(port)) for host, _, port in found]

    def said(self) -> str:
        return self.log.read_text()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def run(*flags: str) -> Running:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Running(directory, *flags))
        return started[-1]

    yield run
    for running in started:
        running.process.kill()
        running.process.wait()


class Client:
    """One session over a real socket, driven by hand."""

    def __init__(self, host: str, port: int, *, url: str | None = None) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        settings = QuicSettings(protocols=("moqt-20",), trust=ServerTrust(verify=False))
        self.endpoint = Endpoint(settings, is_client=True)
        self.connection = self.endpoint.connect((host, port), time.monotonic(), server_name="localhost", url=url)
        self.session: Session | None = None
        self.closed: Closed | None = None
        self.events: list[e.Event] = []

    def run(self, until: Callable[[], object], within_s: float = WAIT_S) -> None:
        """Exchange datagrams until something holds."""
        deadline = time.monotonic() + within_s
        while not until():
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {self.events[-3:]}"
            for address, datagrams in self.endpoint.datagrams_to_send(time.monotonic()):
                for data in datagrams:
                    self.socket.sendto(data, address)
            select.select([self.socket], [], [], 0.02)
            try:
                batch = [self.socket.recvfrom(2048)]
            except BlockingIOError:
                batch = []
            now = time.monotonic()
            told = self.endpoint.receive_datagrams(batch, now) if batch else []
            due = self.endpoint.next_deadline()
            if due is not None and due <= now:
                told += self.endpoint.handle_deadline(now)
            for event in told:
                self._handle(event, now)

    def _handle(self, event: object, now: float) -> None:
        match event:
            case Opened():
                self.session = Session(
                    self.connection,
                    PROFILES[self.connection.protocol],
                    is_client=True,
                    webtransport=self.connection.transport == "webtransport",
                )
                quic = self.connection.transport == "quic"
                self.session.start(SetupOptions(path="/live", authority="localhost") if quic else SetupOptions(), now)
            case Closed():
                self.closed = event
            case StreamData() if self.session is not None:
                self.events += self.session.receive_stream(event.stream, event.data, event.fin, now)
            case StreamReset() if self.session is not None:
                self.events += self.session.receive_reset(event.stream, event.code, now)
            case Stopped() if self.session is not None:
                self.events += self.session.receive_stopped(event.stream, event.code, now)

    def open(self) -> Client:
        self.run(lambda: self.session is not None and self.session.is_ready)
        return self

    def told(self, kind: type[e.Event]) -> list[e.Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def dial() -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def connect(host: str, port: int, *, url: str | None = None) -> Client:
        clients.append(Client(host, port, url=url))
        return clients[-1].open()

    yield connect
    for client in clients:
        client.close()


def test_a_drain_as_clients_see_it(start: Callable[..., Running], dial: Callable[..., Client]) -> None:
    """SIGTERM: GOAWAY at once, the session goes on, and at the end of the grace time it is closed; exit code 0."""
    relay = start("--dev", "--listen", "127.0.0.1:0", "--drain.grace_s", "1s")
    client = dial(*relay.ready()[0])
    relay.process.send_signal(signal.SIGTERM)
    client.run(lambda: client.told(e.GoawayReceived))
    session = client.session
    assert session is not None
    request = session.subscribe(FullTrackName((b"no",), b"body"))
    client.run(lambda: client.told(e.RequestRefused))
    assert [event.request for event in client.told(e.RequestRefused) if isinstance(event, e.RequestRefused)] == [
        request
    ]
    client.run(lambda: client.closed)
    assert client.closed is not None
    assert client.closed.code == SessionCode.GOAWAY_TIMEOUT
    assert relay.process.wait(WAIT_S) == 0


def test_a_drain_is_over_with_the_last_session(start: Callable[..., Running], dial: Callable[..., Client]) -> None:
    relay = start("--dev", "--listen", "127.0.0.1:0", "--drain.grace_s", "1h")
    client = dial(*relay.ready()[0])
    relay.process.send_signal(signal.SIGTERM)
    client.run(lambda: client.told(e.GoawayReceived))
    assert client.session is not None
    client.session.close(0, "")
    client.run(lambda: client.closed)
    client.run(lambda: not client.endpoint.datagrams_to_send(time.monotonic()))
    assert relay.process.wait(WAIT_S) == 0


def test_a_second_signal_ends_it_at_once(start: Callable[..., Running], dial: Callable[..., Client]) -> None:
    relay = start("--dev", "--listen", "127.0.0.1:0", "--drain.grace_s", "1h")
    client = dial(*relay.ready()[0])
    relay.process.send_signal(signal.SIGTERM)
    client.run(lambda: client.told(e.GoawayReceived))
    relay.process.send_signal(signal.SIGINT)
    client.run(lambda: client.closed)
    assert client.closed is not None
    assert client.closed.by_peer, "it says goodbye all the same"
    assert relay.process.wait(WAIT_S) == 0


def test_both_families_on_one_port(start: Callable[..., Running], dial: Callable[..., Client]) -> None:
    """A track published over IPv6 is read over IPv4: one relay, two sockets."""
    relay = start("--dev", "--listen", "127.0.0.1:0,[::1]:0")
    (four, port), (six, other_port) = relay.ready()
    assert (four, six, port) == ("127.0.0.1", "::1", other_port)
    publisher = dial("::1", port, url=f"https://localhost:{port}/live")
    viewer = dial("127.0.0.1", port)
    assert publisher.session is not None
    assert viewer.session is not None
    publisher.session.publish_namespace((b"demo",))
    publisher.run(lambda: publisher.told(e.RequestAccepted))
    viewer.session.subscribe_namespace(())
    viewer.run(lambda: viewer.told(e.NamespaceFound))


def test_a_port_that_is_taken(start: Callable[..., Running]) -> None:
    first = start("--dev", "--listen", "127.0.0.1:0")
    host, port = first.ready()[0]
    second = start("--dev", "--listen", f"{host}:{port}", "--ops.certificate_hash=false")
    assert second.process.wait(WAIT_S) == 1
    assert "in use" in second.said()
    assert "ready:" not in second.said()


def test_settings_that_cannot_be_used_are_told_all_at_once(start: Callable[..., Running]) -> None:
    relay = start("--listen", "nowhere", "--drafts", "99", "--cache.max_groops", "3", "--drain.grace_s", "soon")
    assert relay.process.wait(WAIT_S) == 2
    said = relay.said()
    for key in ("relay.listen", "relay.drafts", "cache.max_groups", "drain.grace_s", "tls.cert", "auth.keys"):
        assert key in said, said
