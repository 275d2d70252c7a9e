"""A peer that speaks draft 16, and what it hears on the control stream."""

from __future__ import annotations

from typing import Any

from tests.moqt.pair import Peer
from tradewind.moqt.errors import SessionCode
from tradewind.moqt.parameters import SetupOptions

NAMESPACE = (b"live", b"demo")
VIOLATION = SessionCode.PROTOCOL_VIOLATION


def peer(**options: Any) -> Peer:
    """Past SETUP; `setup` and the rest as in `Peer`."""
    setup = options.pop("setup", SetupOptions())
    assert isinstance(setup, SetupOptions)
    return Peer(16, setup=setup, **options)


def said(there: Peer) -> list[Any]:
    """What the session said on the control stream."""
    return [message for stream, message in there.heard() if stream == there.control]
