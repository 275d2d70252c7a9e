"""`auth.placement = "required"` with a real controller and two real relays: who is let in, and who is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.control.test_process import ROOT, Control, Town
from tests.interop.relay_process import free_port, write_certificate
from tests.relay.test_mesh_processes import CLIP, frames, tool
from tests.relay.test_run import Client
from tradewind.contract.ids import Role
from tradewind.contract.token import Claims, generate_key, parse_keys, sign
from tradewind.moqt.errors import SessionCode
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.profiles import PROFILES
from tradewind.moqt.session import Session
from tradewind.quic.events import Opened

pytestmark = pytest.mark.slow
WAIT_S = 30.0
NAMES = ("fra-1", "hkg-1")
ACCESS = generate_key("HS256", "shop")


class Relay:
    """A relay of the town that lets nobody in without a placement token. Each start goes on from its directory."""

    def __init__(self, town: Town, name: str, ports: dict[str, int], controllers: list[int]) -> None:
        self.town, self.name, self.port = town, name, ports[name]
        (other,) = set(ports) - {name}
        here = f"127.0.0.1:{self.port}"
        self.flags = [
            *(
                "--tls.cert",
                "cert.pem",
                "--tls.key",
                "key.pem",
                "--listen",
                here,
                "--ops",
                "off",
                "--auth.keys",
                "shop.jwk",
                "--auth.placement",
                "required",
            ),
            *("--mesh.name", "shop", "--mesh.ca", "ca.crt", "--mesh.cert", f"{name}.crt", "--mesh.key", f"{name}.key"),
            *("--mesh.public_uri", f"https://{here}", "--mesh.neighbours", f"{other}=127.0.0.1:{ports[other]}"),
            *("--mesh.controllers", ",".join(f"127.0.0.1:{port}" for port in controllers)),
            *("--mesh.state", f"{name}-mesh", "--node.state", f"{name}-state"),
        ]
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        log = self.town.directory / f"{self.name}-{self.starts}.log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "relay", *self.flags],
                cwd=self.town.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        soon(lambda: "ready: " in log.read_text() or self.process.poll() is not None, "no relay")
        assert self.process.poll() is None, log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Viewer(Client):
    """A session that dials what an answer says; or what is left of it."""

    def __init__(self, port: int, target: str) -> None:
        self.target = target
        super().__init__("127.0.0.1", port)

    def _handle(self, event: object, now: float) -> None:
        if not isinstance(event, Opened):
            super()._handle(event, now)
            return
        self.session = Session(self.connection, PROFILES[self.connection.protocol], is_client=True, webtransport=False)
        self.session.start(SetupOptions(path=self.target, authority="localhost"), now)


def dial(port: int, target: str) -> int | None:
    """None: it was let in; else the code that the relay said."""
    viewer = Viewer(port, target)
    try:
        viewer.run(lambda: viewer.closed is not None or (viewer.session is not None and viewer.session.is_ready))
        if viewer.closed is None:
            # A refusal comes behind the setup: who is still there a moment later was let in.
            until = time.monotonic() + 0.3
            viewer.run(lambda: viewer.closed is not None or time.monotonic() > until)
        return None if viewer.closed is None else viewer.closed.code
    finally:
        viewer.close()


def let_in(port: int, target: str) -> None:
    soon(lambda: dial(port, target) is None, "who was placed is not let in")


def soon(found: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + WAIT_S
    while not (value := found()):
        assert time.monotonic() < until, what
        time.sleep(0.05)
    return value


class Shop:
    """Two controllers' papers and one signing key, two relays, and access tokens."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.town = Town(directory)
        self.town.write("shop.jwk", json.dumps(ACCESS).encode())
        self.town.write("place.jwk", json.dumps(generate_key("EdDSA", "place")).encode())
        write_certificate(directory)
        self.town.write_node("second", "us", 3, Role.CONTROLLER)
        for number, name in enumerate(NAMES, 20):
            self.town.write_node(name, name[:3], number)
        self.stack = stack
        self.first = self.controller("main")
        # Free for TCP too: relays answer players there.
        self.ports = {name: free_port() for name in NAMES}
        self.second_port = free_port()
        controllers = [self.first.port, self.second_port]
        self.relays: dict[str, Relay] = {}
        for name in NAMES:
            relay = self.relays[name] = Relay(self.town, name, self.ports, controllers)
            stack.callback(relay.kill)

    def controller(self, id: str, port: int = 0) -> Control:
        control = Control(self.town, id, ("--auth-key", "shop.jwk", "--place.signing", "place.jwk"), port)
        self.stack.callback(stop, control)
        return control

    def placed(self, control: Control, viewer: str) -> dict[str, str]:
        """What a viewer dials at each relay, once the controller knows of both."""
        (key,) = parse_keys(json.dumps(ACCESS))
        token = sign(Claims("live", ("",), ("",), time.time() + 3600, subject=viewer), key)

        def ask() -> dict[str, str] | None:
            status, said = control.call(f"/v1/place?namespace=live/show&jwt={token}")
            found = {one["id"]: _target(one["uri"]) for one in said["candidates"]} if status == 200 else {}
            return found if found.keys() == set(NAMES) else None

        found: dict[str, str] = soon(ask, "nobody is placed on both")
        return found


def _target(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.path}?{parts.query}"


def without(target: str, name: str) -> str:
    return re.sub(rf"[?&]{name}=[^&]*", lambda found: found[0][:1], target)


def stop(control: Control) -> None:
    if control.process.poll() is None:
        control.process.kill()
        control.process.wait()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(tmp_path, stack)


def test_nobody_without_a_placement_token_and_everybody_with_one(shop: Shop) -> None:
    ports = shop.ports
    early = shop.placed(shop.first, "early")
    for name in NAMES:
        let_in(ports[name], early[name])
        assert dial(ports[name], without(early[name], "place")) == SessionCode.UNAUTHORIZED
        assert dial(ports[name], without(early[name], "jwt")) == SessionCode.UNAUTHORIZED
    other = shop.placed(shop.first, "other")
    stolen = without(early["fra-1"], "place") + "place=" + other["fra-1"].partition("place=")[2]
    assert dial(ports["fra-1"], stolen) == SessionCode.UNAUTHORIZED

    # Neighbours are not asked: a show goes from one relay to the other.
    home, away = (f"moqt://127.0.0.1:{ports[name]}{early[name]}" for name in NAMES)
    publisher = tool("publish", str(CLIP), "--loop", "--insecure", "--to", home, "--namespace", "show")
    try:
        viewer = tool("subscribe", away, "--insecure", "--namespace", "show", "--wait", "20s", "--for", "6s")
        # Any will do: a busy machine leaves links in probation for a while.
        assert frames(viewer.communicate(timeout=60)[0]) > 0
    finally:
        publisher.kill()
        publisher.communicate()

    # A relay that starts with no controller there goes by its table on disk, at once.
    stop(shop.first)
    shop.relays["hkg-1"].kill()
    shop.relays["hkg-1"].start()
    assert dial(ports["hkg-1"], without(early["hkg-1"], "place")) == SessionCode.UNAUTHORIZED
    assert dial(ports["hkg-1"], early["hkg-1"]) is None

    # Another controller that signs with the same key: what it says counts, and what the first said too.
    second = shop.controller("second", shop.second_port)
    late = shop.placed(second, "late")
    for name in NAMES:
        let_in(ports[name], late[name])
        assert dial(ports[name], without(late[name], "place")) == SessionCode.UNAUTHORIZED
    assert None in {dial(ports[name], early[name]) for name in NAMES}
