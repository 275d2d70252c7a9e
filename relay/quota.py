"""One session's side of the limits: which of its requests count, and which receive credit is withheld for how long.

`relay.attachment` makes one for each session that is let in. A session that sends too fast gets its credit back later:
streams wait and lose nothing. A datagram cannot wait: it is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from relay.limits import Allowance, Limit, Overdraft

MOST_WITHHELD = 1024
"""Streams whose credit is withheld at once; that of others goes back at once, so that crumbs cost no memory."""


class Quota:
    """What one session holds of its allowance."""

    __slots__ = ("_allowance", "_counted", "_met", "_withheld", "paused_until")

    def __init__(self, allowance: Allowance, met: Counter[Limit]) -> None:
        """Each time that a limit is met counts in `met`."""
        self._allowance = allowance
        self._met = met
        self._counted: dict[int, Callable[[], None]] = {}
        """Requests that count, of both sides, and how to give them back."""
        self._withheld: dict[int, int] = {}
        """Bytes by stream."""
        self.paused_until = 0.0
        """It sent more than its rate allows: credit goes back from then on."""

    # --- Requests ---

    def count(self, request: int, *, namespace: bool = False) -> Limit | None:
        """Count a request of theirs; or say which limit forbids it."""
        allowance = self._allowance
        limit = allowance.add_namespace() if namespace else allowance.add_subscription()
        if limit is None:
            self._counted[request] = allowance.remove_namespace if namespace else allowance.remove_subscription
        else:
            self._met[limit] += 1
        return limit

    def count_ours(self, open_request: Callable[[], int | None]) -> int | None:
        """Open a subscription that we offer, if the session may have another one; returns its number."""
        limit = self._allowance.add_subscription()
        if limit is not None:
            self._met[limit] += 1
            return None
        request = open_request()
        if request is None:
            self._allowance.remove_subscription()
        else:
            self._counted[request] = self._allowance.remove_subscription
        return request

    def uncount(self, request: int) -> None:
        """A request counts no longer; one that never did is no matter."""
        give_back = self._counted.pop(request, None)
        if give_back is not None:
            give_back()

    @property
    def counted(self) -> AbstractSet[int]:
        """The requests that count."""
        return self._counted.keys()

    # --- Bytes ---

    def spend(self, size: int, now: float) -> bool:
        """Count bytes received; False: too fast, a datagram is not to be taken."""
        overdraft: Overdraft | None = self._allowance.spend(size, now)
        if overdraft is not None:
            if self.paused_until <= now:
                self._met[overdraft.limit] += 1
            self.paused_until = now + overdraft.wait_s
        return overdraft is None

    def withhold(self, stream: int, size: int, now: float) -> bool:
        """Whether credit has to wait; then it is kept for `release`."""
        withheld = self._withheld
        if self.paused_until <= now or (stream not in withheld and len(withheld) >= MOST_WITHHELD):
            return False
        withheld[stream] = withheld.get(stream, 0) + size
        return True

    def release(self, now: float) -> list[tuple[int, int]]:
        """Credit that may go back now: stream and bytes."""
        if now < self.paused_until or not self._withheld:
            return []
        released = list(self._withheld.items())
        self._withheld.clear()
        return released

    def next_deadline(self) -> float | None:
        """When `release` has something."""
        return self.paused_until if self._withheld else None

    def close(self, now: float) -> None:
        """The session is over: everything is given back."""
        self._allowance.close(now)

    def check_invariants(self) -> None:
        """Assert that what is counted is in the account."""
        assert self._allowance.counted == len(self._counted)
