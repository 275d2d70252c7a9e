"""Fixtures for tests against programs that nobody here wrote: relays as processes, and the peers' environments."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop import relay_process
from tests.interop.ends import Ends
from tests.interop.relay_process import AIOMOQT_BIN, STAND_IN, RelayProcess

Relays = Callable[..., RelayProcess]
Meshes = Callable[..., tuple[RelayProcess, RelayProcess]]
Between = Callable[..., Ends]


@pytest.fixture(scope="session")
def relays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    """`relays(20, 16)` is a relay that offers these drafts alone, `relays()` one with all; started once each.

    `flags` are more of its settings; where they differ it is another relay.
    """
    running: dict[object, RelayProcess] = {}

    def relay(*drafts: int, flags: tuple[str, ...] = ()) -> RelayProcess:
        key = (drafts, flags)
        if key not in running:
            running[key] = relay_process.start(tmp_path_factory.mktemp("relay"), drafts, flags)
        assert running[key].process.poll() is None, f"the relay died:\n{running[key].tail()}"
        return running[key]

    yield relay
    relay_process.stop_all(running.values())


@pytest.fixture(scope="session")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meshes]:
    """`meshes(20, 16)` are two relays, each other's neighbours, that offer these drafts alone; else as `relays`."""
    if STAND_IN:
        pytest.skip("the stand-in has no neighbours")
    running: dict[object, tuple[RelayProcess, RelayProcess]] = {}

    def mesh(*drafts: int, flags: tuple[str, ...] = ()) -> tuple[RelayProcess, RelayProcess]:
        key = (drafts, flags)
        if key not in running:
            running[key] = relay_process.start_mesh(tmp_path_factory.mktemp("mesh"), drafts, flags)
        for relay in running[key]:
            assert relay.process.poll() is None, f"the relay died:\n{relay.tail()}"
        return running[key]

    yield mesh
    relay_process.stop_all(process for pair in running.values() for process in pair)


@pytest.fixture(params=["one relay", "two relays"])
def between(request: pytest.FixtureRequest) -> Between:
    """`between(20, 16)` is what stands between a test's two ends: one of `relays`, or two of `meshes`."""
    if request.param == "one relay":
        relays: Relays = request.getfixturevalue("relays")

        def one(*drafts: int, flags: tuple[str, ...] = ()) -> Ends:
            relay = relays(*drafts, flags=flags)
            return Ends(relay, relay)

        return one
    meshes: Meshes = request.getfixturevalue("meshes")
    return lambda *drafts, flags=(): Ends(*meshes(*drafts, flags=flags))


@pytest.fixture(scope="session")
def aiomoqt() -> Path:
    """The directory of aiomoqt's programs; `scripts/install-peers` makes it."""
    if not (AIOMOQT_BIN / "moq-interop-client").exists():
        pytest.skip("no .venv-aiomoqt: run scripts/install-peers")
    return AIOMOQT_BIN


@pytest.fixture(scope="session")
def moq_rs() -> None:
    """The Rust client's Python face is installed beside us."""
    if importlib.util.find_spec("moq") is None:
        pytest.skip("moq-rs is not installed: run scripts/install-peers")
