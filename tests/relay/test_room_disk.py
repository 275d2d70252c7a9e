"""Where a relay keeps its rooms when nobody says where; and that no test keeps any outside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.room_disk import state_path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_what_relays_of_tests_keep_stays_in_the_checkout() -> None:
    assert state_path(None, "fra-1", 4443).is_relative_to(ROOT / ".cache")


def test_a_relay_has_a_place_of_its_own_in_the_users_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_path(None, "fra-1", 4443) == tmp_path / "tradewind" / "fra-1-4443" / "rooms.db"
    assert state_path(None, "fra-1", 0) == tmp_path / "tradewind" / "fra-1" / "rooms.db"
    assert state_path("here.db", "fra-1", 4443) == Path("here.db")


def test_without_a_state_directory_it_is_the_usual_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_path(None, "fra-1", 4443) == tmp_path / ".local/state/tradewind/fra-1-4443/rooms.db"
