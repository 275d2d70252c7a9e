"""What must survive a controller: orders, their audit, rooms' homes, policies, who the relays are, the writer's term.

`plane` and `commands` make batches of this, a `Store` keeps them. Per-second telemetry is never among it. The face is
as small as a store of keys and values needs: everything is read once at the start, and written in whole entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from tradewind.contract.messages import Hello, RoomEntry, StageName

Action: TypeAlias = Literal["drain", "undrain", "cordon", "uncordon", "kick"]
Progress: TypeAlias = Literal["open", "done", "failed", "superseded"]


class Order(Struct, frozen=True):
    """Something that an operator wants done, once for each id. Wall seconds."""

    id: str
    relay: str
    action: Action
    by: str
    at_wall: float
    deadline_s: float = 0.0
    session: int = 0
    reason: str = ""
    progress: Progress = "open"
    detail: str = ""
    ended_wall: float = 0.0
    boot: str = ""
    """kick: in which life of the relay the session was (`Hello`)."""

    def asks_the_same(self, other: Order) -> bool:
        """Whether both want the same done, whoever asked and when."""
        return all(getattr(self, name) == getattr(other, name) for name in _ASKED)


_ASKED = ("id", "relay", "action", "deadline_s", "session", "reason")


class Wish(Struct, frozen=True):
    """What stage a relay is meant to be in, and by which order: it is told again when it starts anew."""

    relay: str
    stage: Literal["serving", "cordoned", "draining"]
    order: str
    since_wall: float


class Member(Struct, frozen=True):
    """A relay of the mesh: a controller that starts waits for it before it changes anything."""

    relay: str
    region: str
    hello: Hello
    stage: StageName = "serving"
    gone: bool = False
    """It is no part any more: its entry is removed."""


class AuditLine(Struct, frozen=True):
    """Who did what to whom, and what came of it."""

    number: int
    at_wall: float
    who: str
    what: str
    target: str
    result: str


@dataclass(frozen=True, slots=True)
class State:
    """What a store has, read once."""

    term: int
    """Of this writer: higher than that of every writer before it."""
    orders: tuple[Order, ...] = ()
    """All that are open or stand behind a wish, and the newest of the others."""
    wishes: tuple[Wish, ...] = ()
    audit: tuple[AuditLine, ...] = ()
    """The newest."""
    rooms: tuple[RoomEntry, ...] = ()
    policies: tuple[tuple[str, str], ...] = ()
    """Name and document (JSON text)."""
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries to write, all or none; each replaces the one with its key."""

    number: int = 0
    orders: tuple[Order, ...] = ()
    wishes: tuple[Wish, ...] = ()
    audit: tuple[AuditLine, ...] = ()
    rooms: tuple[RoomEntry, ...] = ()
    policies: tuple[tuple[str, str], ...] = field(default=())
    members: tuple[Member, ...] = ()


class StoreError(Exception):
    """The store cannot be used; says why."""


class FencedError(StoreError):
    """Another writer has begun a newer term: this one may write nothing any more."""


class Store(Protocol):
    """Where state is kept. Both calls may block: edges call them in a thread."""

    def load(self, wall_now: float) -> State:
        """Begin a new term and read everything. Raises StoreError."""

    def save(self, batch: Batch) -> None:
        """Write a batch; it is on disk when this returns. Raises FencedError or StoreError."""
