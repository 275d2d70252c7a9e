"""What operators asked relays and were not answered yet: who was asked, whose answer counts, and for how long.

`plane` sends the questions; each call here returns the replies that it brings about.
"""

from __future__ import annotations

from typing import NamedTuple

from control.outgoing import Reply
from tradewind.contract.messages import Answer

QUESTION_S = 5.0
MAX_QUESTIONS = 256


class _Asked(NamedTuple):
    relay: str
    until: float


class Questions:
    """All that are open, by their ticket, which is also their number on the wire."""

    __slots__ = ("_open", "asked")

    def __init__(self) -> None:
        self._open: dict[int, _Asked] = {}
        self.asked = 0
        """Since the start."""

    def ask(self, ticket: int, relay: str, now: float) -> Reply | None:
        """A question goes to a relay; where too many are open it does not, and a reply says so."""
        if len(self._open) >= MAX_QUESTIONS:
            return Reply(ticket, 503, {"error": "too many questions are open"})
        self.asked += 1
        self._open[ticket] = _Asked(relay, now + QUESTION_S)
        return None

    def receive_answer(self, relay: str, answer: Answer) -> tuple[Reply, ...]:
        """A relay answers; to what was not asked of it there is no answer."""
        asked = self._open.get(answer.question)
        if asked is None or asked.relay != relay:
            return ()
        del self._open[answer.question]
        return (Reply(answer.question, 200, answer.body),)

    def receive_gone(self, relay: str, why: str) -> tuple[Reply, ...]:
        """A relay will not answer any more."""
        gone = [ticket for ticket, asked in self._open.items() if asked.relay == relay]
        return tuple(self._end(ticket, 502, why) for ticket in gone)

    def refuse(self, ticket: int, why: str) -> tuple[Reply, ...]:
        """A question could not be put."""
        return (self._end(ticket, 501, why),) if ticket in self._open else ()

    def next_deadline(self) -> float | None:
        """When `handle_deadline` has something to do."""
        return min((asked.until for asked in self._open.values()), default=None)

    def handle_deadline(self, now: float) -> tuple[Reply, ...]:
        """Give up on those who took too long."""
        late = [(ticket, asked.relay) for ticket, asked in self._open.items() if asked.until <= now]
        return tuple(self._end(ticket, 504, f"{relay} did not answer") for ticket, relay in late)

    def check_invariants(self, connected: set[str]) -> None:
        """Raise AssertionError where somebody is asked who is not there."""
        assert all(asked.relay in connected for asked in self._open.values())
        assert len(self._open) <= MAX_QUESTIONS

    def _end(self, ticket: int, status: int, why: str) -> Reply:
        del self._open[ticket]
        return Reply(ticket, status, {"error": why})
