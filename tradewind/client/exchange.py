"""Requests of one session and what comes for them: answers to whoever waits, objects to their inboxes.

`link.Link` owns one and hands it every event that is not a publisher's. Part of the client's EDGE: waiting is trio's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import trio

from tradewind.client.receiving import Arrival, Assembler
from tradewind.moqt import events as e

DATA = frozenset(
    {
        *(e.SubgroupOpened, e.ObjectStarted, e.ObjectData, e.SubgroupClosed),
        *(e.FetchOpened, e.FetchObjectStarted, e.FetchRangeEnded, e.FetchClosed, e.DatagramArrived),
    }
)
"""Events that objects are made of: by far the most, so they are told from the others by one look."""
LATE_STREAMS_S = 1.0
"""How long streams of a subscription may still come after PUBLISH_DONE."""


class RequestFailed(Exception):
    """The relay refused a request, or ended it; `code` is the draft's (`moqt.errors.RequestCode`)."""

    def __init__(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        super().__init__(f"{reason or 'refused'} (code {code:#x})")
        self.code = code
        self.reason = reason
        self.retry_ms = retry_ms


class LinkLost(Exception):
    """The connection is gone; says why."""


class Inbox(Protocol):
    """Where arrivals of one request go."""

    def put(self, arrival: Arrival) -> None:
        """Take one."""

    def done(self, status: int | None, reason: str) -> None:
        """Nothing more comes: PUBLISH_DONE with `status`, or the request ended without one (None)."""


@dataclass(slots=True)
class _Reply:
    """The answer that a request of ours waits for."""

    arrived: trio.Event = field(default_factory=trio.Event)
    event: e.Event | None = None


@dataclass(slots=True)
class _Ending:
    """A subscription whose PUBLISH_DONE has come."""

    deadline: float
    status: int
    reason: str
    streams: int | None


class Exchange:
    """Who waits for what."""

    __slots__ = ("_assembler", "_endings", "_inboxes", "_replies", "_requests_of", "_streams_over")

    def __init__(self) -> None:
        self._assembler = Assembler()
        self._replies: dict[int, _Reply] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._endings: dict[int, _Ending] = {}
        self._streams_over: dict[int, int] = {}
        """Data streams of each subscription that have ended: PUBLISH_DONE says how many there are."""
        self._requests_of: dict[int, tuple[int, ...]] = {}

    def expect(self, request: int, inbox: Inbox | None) -> None:
        """Say where arrivals of a request go. Call before anything else is received."""
        if inbox is not None:
            self._inboxes[request] = inbox

    async def answer(self, request: int) -> e.Event | None:
        """Wait for the answer to a request; None: the link was lost. Raises RequestFailed."""
        reply = self._replies[request] = _Reply()
        try:
            await reply.arrived.wait()
        finally:
            self._replies.pop(request, None)
        if isinstance(reply.event, e.RequestRefused):
            self.forget(request)
            raise RequestFailed(reply.event.code, reply.event.reason, reply.event.retry_ms)
        return reply.event

    def receive(self, event: e.Event, now: float) -> None:
        """Take one event that is none of `DATA`; those of no request pass by."""
        match event:
            case e.SubscribeAccepted() | e.FetchAccepted() | e.RequestAccepted() | e.RequestRefused():
                self._answer(event.request, event)
            case e.RequestCancelled():
                self._answer(event.request, event)
                self._end(event.request, None, "ended by the relay")
            case e.PublishDone():
                ending = _Ending(now + LATE_STREAMS_S, event.status, event.reason, event.stream_count)
                self._endings[event.request] = ending
                self._end_if_complete(event.request)
            case _:
                pass

    def receive_data(self, event: e.Event, now: float) -> None:
        """Take one event that is one of `DATA`."""
        if isinstance(event, e.SubgroupOpened):
            self._requests_of[event.stream] = event.requests
        elif isinstance(event, e.FetchOpened):
            self._requests_of[event.stream] = (event.request if event.subscription is None else event.subscription,)
        for request, arrival in self._assembler.receive(event, now):
            inbox = self._inboxes.get(request)
            if inbox is not None:
                inbox.put(arrival)
        if isinstance(event, (e.SubgroupClosed, e.FetchClosed)):
            for request in self._requests_of.pop(event.stream, ()):
                if request in self._inboxes:
                    self._streams_over[request] = self._streams_over.get(request, 0) + 1
                    self._end_if_complete(request)

    def expire(self, now: float) -> None:
        """End subscriptions whose late streams have had their time."""
        for request in [request for request, ending in self._endings.items() if ending.deadline <= now]:
            ending = self._endings[request]
            self._end(request, ending.status, ending.reason)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do."""
        return min((ending.deadline for ending in self._endings.values()), default=None)

    def forget(self, request: int) -> None:
        """Nothing that comes for this request is wanted any more."""
        self._inboxes.pop(request, None)
        self._endings.pop(request, None)
        self._streams_over.pop(request, None)

    def lose(self, why: str) -> None:
        """The link is gone: tell everybody who waits."""
        for reply in self._replies.values():
            reply.arrived.set()
        for request in tuple(self._inboxes):
            self._end(request, None, why)

    def _answer(self, request: int, event: e.Event) -> None:
        reply = self._replies.get(request)
        if reply is not None:
            reply.event = event
            reply.arrived.set()

    def _end_if_complete(self, request: int) -> None:
        ending = self._endings.get(request)
        if ending is not None and ending.streams is not None and self._streams_over.get(request, 0) >= ending.streams:
            self._end(request, ending.status, ending.reason)

    def _end(self, request: int, status: int | None, reason: str) -> None:
        inbox = self._inboxes.get(request)
        self.forget(request)
        if inbox is not None:
            inbox.done(status, reason)
