"""A few attacks on the real process over real UDP: it stays up, and honest sessions stay open."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.relay.test_run import Client, Running
from tradewind.moqt import events as e
from tradewind.moqt.model import FullTrackName

pytestmark = pytest.mark.slow


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path, "--dev", "--listen", "127.0.0.1:0", "--drain.grace_s", "0.5s")
    yield running
    running.process.kill()
    running.process.wait()


def still_serves(relay: Running, honest: Client) -> None:
    """The honest session answers, and the process has not complained of itself."""
    assert honest.session is not None
    before = len(honest.told(e.RequestRefused))
    honest.session.subscribe(FullTrackName((b"no",), b"body"))
    honest.run(lambda: len(honest.told(e.RequestRefused)) > before, within_s=5.0)
    assert relay.process.poll() is None
    assert "internal error" not in relay.said()


def attack(relay: Running, datagrams: Callable[[random.Random], bytes], count: int = 3000) -> None:
    host, port = relay.ready()[0]
    dice = random.Random(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        for _ in range(count):
            raw.sendto(datagrams(dice), (host, port))


def noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(0, 1400))


def false_initials(dice: random.Random) -> bytes:
    """Long headers of version 1 that decrypt to nothing."""
    return b"\xc3\x00\x00\x00\x01\x08" + dice.randbytes(8) + b"\x08" + dice.randbytes(8) + b"\x00\x44\x9e" + bytes(1170)


def other_versions(dice: random.Random) -> bytes:
    return b"\xc3" + dice.randbytes(4) + b"\x08" + dice.randbytes(8) + b"\x08" + dice.randbytes(8) + bytes(1180)


@pytest.mark.parametrize("datagrams", [noise, false_initials, other_versions])
def test_datagrams_from_nobody(relay: Running, datagrams: Callable[[random.Random], bytes]) -> None:
    honest = Client(*relay.ready()[0]).open()
    attack(relay, datagrams)
    still_serves(relay, honest)
    honest.close()


def test_sessions_that_break_off_in_every_way(relay: Running) -> None:
    """Fifty clients: some vanish in their handshake, some speak rubbish, some close in the middle of a message."""
    where = relay.ready()[0]
    honest = Client(*where).open()
    for number in range(50):
        client = Client(*where)
        if number % 5 == 0:
            client.endpoint.datagrams_to_send(0.0)
        else:
            client.open()
            stream = client.connection.open_bidi() if number % 2 else client.connection.open_uni()
            assert stream is not None
            client.connection.send(stream, random.Random(number).randbytes(number), number % 3 == 0)
            client.run(lambda client=client: not client.endpoint.touched, within_s=5.0)  # type: ignore[misc]
        client.close()
    still_serves(relay, honest)
    honest.close()
