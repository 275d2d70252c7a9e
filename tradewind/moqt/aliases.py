"""Track aliases that the peer has chosen: which requests each stands for, and which stood for one once.

`tradewind.moqt.data` keeps one table a session. Source: draft-20, "Track Alias".
"""

from __future__ import annotations

from tradewind.moqt.model import FullTrackName


class Alias:
    """One alias in use."""

    __slots__ = ("number", "opened", "requests", "streams", "track")

    def __init__(self, number: int, track: FullTrackName) -> None:
        self.number = number
        self.track = track
        self.requests: tuple[int, ...] = ()
        self.streams: set[int] = set()
        """Subgroup streams that are open."""
        self.opened = 0
        """Subgroup streams that were ever opened."""


class Aliases:
    """Aliases in use by number and by request, and the last ones that are over."""

    __slots__ = ("_by_request", "_former", "_max_retired", "retired", "table")

    def __init__(self, max_retired: int) -> None:
        self._max_retired = max_retired
        self.table: dict[int, Alias] = {}
        self._by_request: dict[int, Alias] = {}
        self.retired: dict[int, FullTrackName | None] = {}
        """In the order in which they ended: the oldest are forgotten. None: nobody knows what it stood for."""
        self._former: dict[FullTrackName, set[int]] = {}
        """Which of these each track had."""

    def of(self, request: int) -> Alias | None:
        """The alias that stands for a request."""
        return self._by_request.get(request)

    def bind(self, number: int, track: FullTrackName, request: int) -> Alias:
        """Let an alias stand for one more request of its track."""
        self._recall(number)
        alias = self.table.get(number)
        if alias is None:
            alias = self.table[number] = Alias(number, track)
        alias.requests += (request,)
        self._by_request[request] = alias
        return alias

    def unbind(self, request: int) -> Alias | None:
        """A request is over. Returns its alias where that stood for no other: it is retired now."""
        alias = self._by_request.pop(request, None)
        if alias is None:
            return None
        alias.requests = tuple(other for other in alias.requests if other != request)
        if alias.requests:
            return None
        del self.table[alias.number]
        self.retire(alias.number, alias.track)
        return alias

    def retire(self, number: int, track: FullTrackName | None) -> None:
        """Remember an alias whose objects are not wanted, unless it stands for something."""
        if number in self.table:
            return
        self._recall(number)
        self.retired[number] = track
        if track is not None:
            self._former.setdefault(track, set()).add(number)
        if len(self.retired) > self._max_retired:
            self._recall(next(iter(self.retired)))

    def revive(self, track: FullTrackName) -> None:
        """The track is asked for again: its streams may come under an alias of before, and before the answer."""
        for number in self._former.pop(track, ()):
            del self.retired[number]

    def _recall(self, number: int) -> None:
        track = self.retired.pop(number, None)
        if track is not None:
            self._former[track].discard(number)
            if not self._former[track]:
                del self._former[track]

    def check_invariants(self) -> None:
        """Assert that both directions agree and that nothing is in use and retired."""
        assert sum(len(alias.requests) for alias in self.table.values()) == len(self._by_request)
        assert all(request in alias.requests for request, alias in self._by_request.items())
        assert all(self.table[alias.number] is alias for alias in self._by_request.values())
        assert self.table.keys().isdisjoint(self.retired)
        assert len(self.retired) <= self._max_retired
        told = {(number, track) for track, numbers in self._former.items() for number in numbers}
        assert told == {(number, track) for number, track in self.retired.items() if track is not None}
        assert all(self._former.values())
