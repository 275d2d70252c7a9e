"""What a plane wants done and has not said yet: batches to disk, messages and closings to links, replies to operators.

`plane` puts things in while it works, `take` gives them out in the order in which they have to happen. What waits for a
batch to be on disk waits here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from control.state import Batch, Order
from tradewind.contract.messages import ToRelay


class Reply(NamedTuple):
    """The answer to an operator, by the ticket that the call gave out. `status` is HTTP's."""

    ticket: int
    status: int
    document: Any


class Output(NamedTuple):
    """What one call came to, to be done in this order; batches in theirs, one after the other."""

    batches: tuple[Batch, ...] = ()
    send: tuple[tuple[int, ToRelay], ...] = ()
    close: tuple[tuple[int, str], ...] = ()
    replies: tuple[Reply, ...] = ()


@dataclass(slots=True)
class _Saving:
    batch: Batch
    replies: list[Reply] = field(default_factory=list)


class Outgoing:
    """One plane's. Tickets and batches share their numbers."""

    __slots__ = ("_batches", "_close", "_number", "_replies", "_saving", "_send")

    def __init__(self) -> None:
        self._number = 0
        self._saving: dict[int, _Saving] = {}
        self._batches: list[Batch] = []
        self._send: list[tuple[int, ToRelay]] = []
        self._close: list[tuple[int, str]] = []
        self._replies: list[Reply] = []

    def ticket(self) -> int:
        """A number that was never given out before."""
        self._number += 1
        return self._number

    def save(self, batch: Batch, *replies: Reply) -> None:
        """Write a batch; the replies go out once it is on disk."""
        number = self.ticket()
        numbered = replace(batch, number=number)
        self._saving[number] = _Saving(numbered, list(replies))
        self._batches.append(numbered)

    def receive_saved(self, number: int) -> Batch:
        """A batch is on disk; returns it."""
        saved = self._saving.pop(number)
        self._replies += saved.replies
        return saved.batch

    def send(self, link: int, *messages: ToRelay) -> None:
        """Tell a relay."""
        self._send += [(link, message) for message in messages]

    def close(self, link: int, why: str) -> None:
        """End a link, after what was sent on it."""
        self._close.append((link, why))

    def reply(self, *replies: Reply) -> None:
        """Tell operators."""
        self._replies += replies

    def reply_saved(self, order: Order, reply: Reply) -> None:
        """Tell an operator of an order: now, or once it is on disk."""
        waiting = next((saving for saving in self._saving.values() if order in saving.batch.orders), None)
        (self._replies if waiting is None else waiting.replies).append(reply)

    def take(self) -> Output:
        """What has to be done since the last call."""
        output = Output(tuple(self._batches), tuple(self._send), tuple(self._close), tuple(self._replies))
        for made in (self._batches, self._send, self._close, self._replies):
            made.clear()
        return output

    @property
    def unsaved(self) -> int:
        """Batches on their way to disk."""
        return len(self._saving)

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        assert {batch.number for batch in self._batches} <= self._saving.keys()
        assert all(number <= self._number for number in self._saving)
