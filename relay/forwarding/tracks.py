"""All tracks that a relay knows, by name, and those of one namespace without a look at all others.

`book` has one. A neighbour tells of its namespaces one by one, and each time the tracks below that namespace are looked
at: with thousands of tracks in hundreds of namespaces that must not be a walk over all of them.
"""

from __future__ import annotations

from relay.forwarding.track import Track
from tradewind.moqt.model import FullTrackName, Namespace

DEPTH = 3
"""Fields of a namespace by which its tracks are found; with longer prefixes those of the first fields are looked at.
Namespaces may have 32 fields, and who asks for a track decides how many."""


class Tracks(dict[FullTrackName, Track]):
    """Name -> track. Only set and deleted one by one."""

    __slots__ = ("_under",)

    def __init__(self) -> None:
        super().__init__()
        self._under: dict[Namespace, dict[FullTrackName, Track]] = {}

    def __setitem__(self, name: FullTrackName, track: Track) -> None:
        super().__setitem__(name, track)
        for prefix in _prefixes(name.namespace):
            self._under.setdefault(prefix, {})[name] = track

    def __delitem__(self, name: FullTrackName) -> None:
        super().__delitem__(name)
        for prefix in _prefixes(name.namespace):
            found = self._under[prefix]
            del found[name]
            if not found:
                del self._under[prefix]

    def under(self, prefix: Namespace) -> list[Track]:
        """The tracks in a namespace and below it, in the order in which they came to be known: a list of its own."""
        if not prefix:
            return list(self.values())
        found = self._under.get(prefix[:DEPTH], {}).values()
        length = len(prefix)
        return list(found) if length <= DEPTH else [one for one in found if one.name.namespace[:length] == prefix]

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        assert all(self._under.values())
        assert all(self._under[prefix][name] is track for name, track in self.items() for prefix in _prefixes(name[0]))
        assert sum(map(len, self._under.values())) == sum(len(_prefixes(name.namespace)) for name in self)


def _prefixes(namespace: Namespace) -> list[Namespace]:
    return [namespace[:length] for length in range(1, min(len(namespace), DEPTH) + 1)]
