"""What neighbours have to do with one track: who is below us for it, who is to be, and who would not serve us.

`circles` and `book` keep it as requests come and go, `upstreams` and `moving` choose by it.
"""

from __future__ import annotations

from relay.forwarding.routes import Party


class Neighbours:
    """The other relays of the mesh, as one track sees them."""

    __slots__ = ("children", "declined", "moved_at", "turning")

    def __init__(self) -> None:
        self.children: dict[Party, int] = {}
        """What neighbours claimed whose subscriptions wait or are served: see `ranks`."""
        self.turning: dict[Party, int] = {}
        """What neighbours claimed that feed us and ask us: they are served once they do not feed us any more."""
        self.declined: set[int] = set()
        """Sessions that would not serve us a moment ago: see `moving`."""
        self.moved_at = float("-inf")
        """When the track last began to move from one neighbour to another."""

    def below(self) -> tuple[tuple[Party, int], ...]:
        """Everybody who is below us or is to be, with what each claimed."""
        return (*self.children.items(), *self.turning.items())
