"""Fixtures for tests against programs that nobody here wrote: relays as processes, and the peers' environments."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop import relay_process
from tests.interop.relay_process import AIOMOQT_BIN, RelayProcess

Relays = Callable[..., RelayProcess]


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
    for process in running.values():
        process.stop()


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
