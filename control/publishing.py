"""Whose route table is sent when, and as what: changed ones at once, everybody's whole one once a cycle, spread evenly.

Spread, because constant work is the point: a controller that comes back does what it always does, and making and
signing 500 tables takes longer than a turn may. `plane` asks what is due and sends it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from control.topology.tables import TablePair
from tradewind.contract.identity import PrivateKey, sign_table
from tradewind.contract.messages import PackedTable, SignedTable, TableDelta
from tradewind.contract.tables import Press, delta_between, pack

AT_ONCE = 2
"""Tables a call: between two calls others have their turn."""
BETWEEN_S = 0.005
"""From one call to the next: 500 relays that are all told of a change hear of it within 1.3 s, and in the meantime more
than half of the time is for others."""


class Signing(NamedTuple):
    """What tables are signed with: the controller's key and certificate (DER)."""

    key: PrivateKey
    certificate: bytes


class Due(NamedTuple):
    """A relay that is to be sent its table; whole, or what changed."""

    relay: str
    whole: bool


class Publishing:
    """The queue of one mesh's tables. `cycle_s`: how long a round of whole tables takes."""

    __slots__ = ("_again_at", "_cycle_s", "_routine", "_slot_at", "_slot_s", "_urgent")

    def __init__(self, cycle_s: float) -> None:
        self._cycle_s = cycle_s
        self._urgent: dict[str, bool] = {}
        self._routine: deque[str] = deque()
        self._slot_at = 0.0
        self._slot_s = 0.0
        self._again_at = float("-inf")

    def receive_changed(self, relays: Iterable[str]) -> None:
        """These relays' tables are others now."""
        for relay in relays:
            self._urgent.setdefault(relay, False)

    def receive_new(self, relay: str) -> None:
        """A relay has connected: it gets its whole table as soon as there is one."""
        self._urgent[relay] = True

    def receive_cycle(self, relays: Iterable[str], now: float) -> None:
        """A new round begins; who is left of the last one has gone first."""
        left = dict.fromkeys((*self._routine, *relays))
        self._routine = deque(left)
        self._slot_s = self._cycle_s / max(1, len(left))
        self._slot_at = now

    def take(self, now: float) -> tuple[Due, ...]:
        """What is due now, at most `AT_ONCE`; the rest a moment later (`next_deadline`)."""
        if now < self._again_at:
            return ()
        due = [Due(relay, self._urgent[relay]) for relay in list(self._urgent)[:AT_ONCE]]
        for relay, _ in due:
            del self._urgent[relay]
        while self._routine and self._slot_at <= now and len(due) < AT_ONCE:
            due.append(Due(self._routine.popleft(), whole=True))
            self._slot_at += self._slot_s
        if due:
            self._again_at = now + BETWEEN_S
        return tuple(due)

    def next_deadline(self, now: float) -> float | None:
        """When `take` has something."""
        if self._urgent:
            return max(now, self._again_at)
        return max(self._slot_at, self._again_at) if self._routine else None


class Published(NamedTuple):
    """A table on its way to its relay. `size_bytes`: of the whole one, which is what was signed."""

    message: SignedTable | PackedTable | TableDelta
    size_bytes: int


class Sent(NamedTuple):
    """Which table a relay was sent last."""

    term: int
    generation: int


class Wanted(NamedTuple):
    """What a relay needs. `sent` None: it was sent nothing yet on this link."""

    sent: Sent | None
    whole: bool
    pieces: bool
    """It takes a whole table in pieces."""


def publish(pair: TablePair, wanted: Wanted, signing: Signing, press: Press) -> Published | None:
    """A relay's table, or what changed since the one that it was sent last.

    None: it has this one, and nobody wants it whole.
    """
    sent, whole, pieces = wanted
    if not whole and sent == (pair.now.term, pair.now.generation):
        return None
    encoded = press.encode(pair.now)
    signed = sign_table(encoded.data, signing.key, signing.certificate)
    before = pair.before
    if whole or before is None or sent != (before.term, before.generation) or before is pair.now:
        return Published(pack(encoded, signed) if pieces else signed, len(encoded.data))
    return Published(delta_between(before, pair.now, signed, press), len(encoded.data))
