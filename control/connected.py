"""Which relays have a control link to here, which link speaks for whom, and who is held until it may.

A link is a number that was never used before. It is proven when it comes here, speaks for its relay from `welcome` on,
and is one of at most two of that relay: the one that is welcome, and a newcomer that is held (`rivals`). `plane`
decides who is let in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from control.rivals import Rivals
from tradewind.contract.identity import NodeIdentity
from tradewind.contract.messages import Hello


@dataclass(slots=True)
class Link:
    """One proven connection. `version` is the contract's, that it speaks."""

    number: int
    peer: NodeIdentity
    version: int
    hello: Hello | None = None
    """None: it is not welcome yet."""


class Connected:
    """All proven links of one controller."""

    __slots__ = ("_by_relay", "_links", "rivals")

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._by_relay: dict[str, Link] = {}
        self.rivals = Rivals()

    def __len__(self) -> int:
        """How many relays are welcome."""
        return len(self._by_relay)

    def __iter__(self) -> Iterator[Link]:
        """The links of relays that are welcome."""
        return iter(self._by_relay.values())

    def __contains__(self, relay: object) -> bool:
        return relay in self._by_relay

    def open(self, number: int, peer: NodeIdentity, version: int) -> None:
        """A relay has proven on a new link who it is."""
        assert number not in self._links
        self._links[number] = Link(number, peer, version)

    def link(self, number: int) -> Link | None:
        """A link that is not gone."""
        return self._links.get(number)

    def of(self, relay: str) -> Link | None:
        """The link that speaks for a relay."""
        return self._by_relay.get(relay)

    def speaks(self, link: Link) -> bool:
        """Whether it is this link that speaks for its relay."""
        return self._by_relay.get(link.peer.id) is link

    def welcome(self, link: Link, hello: Hello) -> Link | None:
        """From now on this link speaks for its relay; returns the one that did so before, which is gone."""
        older = self._by_relay.pop(link.peer.id, None)
        if older is not None:
            del self._links[older.number]
        link.hello = hello
        self._by_relay[link.peer.id] = link
        return older

    def remove(self, number: int) -> Link | None:
        """A link is gone; returns it where it spoke for its relay."""
        self.rivals.receive_closed(number)
        link = self._links.pop(number, None)
        if link is None or not self.speaks(link):
            return None
        return self._by_relay.pop(link.peer.id)

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        for relay, link in self._by_relay.items():
            assert self._links[link.number] is link
            assert link.peer.id == relay and link.hello is not None
