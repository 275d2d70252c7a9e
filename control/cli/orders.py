"""EDGE: how commands have something done: an order with an id, given once, and waited for where that is wished."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from control.cli.asking import FAILED, Asker, fail, show

WAIT_S = 0.2
COLUMNS = ("id", "relay", "action", "progress", "detail")


def give_order(asker: Asker, output: str, order: Mapping[str, Any], id: str | None, wait_s: float) -> None:
    """Give an order, show what became of it, and end the program where it failed or took longer than `wait_s`."""
    number = id or f"cli-{secrets.token_hex(8)}"
    found = asker.post("/v1/commands", {"id": number, **order})
    until = time.monotonic() + wait_s
    while found["progress"] == "open" and time.monotonic() < until:
        time.sleep(WAIT_S)
        found = asker.get(f"/v1/commands/{number}")
    show(found, output, COLUMNS, [found])
    if found["progress"] == "failed" or (wait_s and found["progress"] != "done"):
        what = f"{found['action']} {found['relay']}"
        fail(f"{what}: {found['progress']} {found['detail']}".rstrip(), FAILED)
