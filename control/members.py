"""Who is part of the mesh, as the store is told of it: whoever starts after us waits for these."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from control.registry.values import Condition, RelayView
from control.state import Member


class Members:
    """What the store has, or will have once everything that `follow` returned is written."""

    __slots__ = ("_known",)

    def __init__(self, known: Iterable[Member]) -> None:
        self._known = {member.relay: member for member in known}

    def follow(self, relay: str, view: RelayView | None) -> tuple[Member, ...]:
        """Something changed with a relay, which is now like this (None: forgotten); returns what to write."""
        known = self._known.get(relay)
        if view is None or view.condition is Condition.DEAD:
            return () if known is None else (replace(self._known.pop(relay), gone=True),)
        member = Member(relay, view.region, view.hello, view.stage)
        if member == known:
            return ()
        self._known[relay] = member
        return (member,)
