"""Namespace prefixes that must not overlap: those of one kind of namespace subscription in one session.

`tradewind.moqt.requests` keeps one set for SUBSCRIBE_NAMESPACE and one for SUBSCRIBE_TRACKS. Two prefixes overlap
where one begins with the other. Source: draft-20, "SUBSCRIBE_NAMESPACE" and "SUBSCRIBE_TRACKS".
"""

from __future__ import annotations

from collections import Counter

from tradewind.moqt.model import Namespace


class PrefixSet:
    """Disjoint prefixes, and every node above them, so that a question costs the depth and not the number."""

    __slots__ = ("_entries", "_nodes")

    def __init__(self) -> None:
        self._entries: set[Namespace] = set()
        self._nodes: Counter[Namespace] = Counter()

    def __contains__(self, prefix: object) -> bool:
        return prefix in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def overlaps(self, prefix: Namespace) -> bool:
        """Whether an entry begins with `prefix`, or `prefix` with an entry."""
        if prefix in self._nodes:
            return True
        return any(prefix[:depth] in self._entries for depth in range(len(prefix)))

    def add(self, prefix: Namespace) -> None:
        """Put in a prefix that overlaps none."""
        self._entries.add(prefix)
        for depth in range(len(prefix) + 1):
            self._nodes[prefix[:depth]] += 1

    def remove(self, prefix: Namespace) -> None:
        """Take out a prefix that is in."""
        self._entries.remove(prefix)
        for depth in range(len(prefix) + 1):
            node = prefix[:depth]
            self._nodes[node] -= 1
            if not self._nodes[node]:
                del self._nodes[node]

    def check_invariants(self) -> None:
        """Assert that the nodes are exactly those above the entries."""
        nodes = Counter(entry[:depth] for entry in self._entries for depth in range(len(entry) + 1))
        assert nodes == self._nodes
