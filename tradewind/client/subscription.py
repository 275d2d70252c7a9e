"""A subscription of an application, and the mailboxes in which objects wait for it. Part of the client's EDGE.

A subscription outlives connections: `connect.Client` opens it again on the next one.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Protocol

import trio

from tradewind.client.exchange import LinkLost, RequestFailed
from tradewind.client.link import Link
from tradewind.client.receiving import Arrival, FetchEnded, ReceivedObject
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode
from tradewind.moqt.model import (
    CURRENT_GROUP,
    NEXT_GROUP,
    NEXT_OBJECT,
    Fill,
    FullTrackName,
    Location,
    Parameters,
    Properties,
)
from tradewind.moqt.session import Session

MAX_MAILBOX_BYTES = 64 << 20
"""What waits for an application that does not read; past it objects are dropped and counted."""
REMEMBERED_LOCATIONS = 4096
"""An object that comes twice (on a fill and a subgroup stream, or over two connections) is given once."""


class Join(Enum):
    """Where a subscription begins."""

    CURRENT_GROUP = "current group"
    """With everything that the current group has already: what a player needs."""
    NEXT_GROUP = "next group"
    NEXT_OBJECT = "next object"


class Owner(Protocol):
    """What a subscription needs of its client."""

    reconnects: bool
    rendezvous_ms: int
    first_pause_s: float
    longest_pause_s: float

    def release(self, subscription: Subscription) -> None:
        """It is over."""

    def reopen(self, subscription: Subscription, link: Link) -> None:
        """Call `Subscription.reopen` in a task of its own."""


class Mailbox:
    """Arrivals that wait for the application."""

    def __init__(self) -> None:
        self.reason = ""
        self.dropped = 0
        self._waiting: deque[Arrival] = deque()
        self._size_bytes = 0
        self._closed = False
        self._news = trio.Event()

    def put(self, arrival: Arrival) -> None:
        size = len(arrival.payload) if isinstance(arrival, ReceivedObject) else 0
        if self._size_bytes + size > MAX_MAILBOX_BYTES:
            self.dropped += 1
            return
        self._size_bytes += size
        self._waiting.append(arrival)
        self._wake()

    def done(self, status: int | None, reason: str) -> None:
        self.reason = reason
        self._closed = True
        self._wake()

    async def get(self) -> Arrival | None:
        """The next arrival; None: there will be none."""
        while not self._waiting and not self._closed:
            await self._news.wait()
        if not self._waiting:
            return None
        arrival = self._waiting.popleft()
        if isinstance(arrival, ReceivedObject):
            self._size_bytes -= len(arrival.payload)
        return arrival

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


class Subscription:
    """A track as it arrives: iterate over its objects, in the order of their arrival (`receiving.InOrder` sorts them).

    It survives reconnects; objects up to the newest that was seen before are then left out. Iteration ends with the
    track, with `cancel`, or with the connection where there is no reconnecting.
    """

    def __init__(self, owner: Owner, track: FullTrackName, join: Join, priority: int | None) -> None:
        self.track = track
        self.largest: Location | None = None
        """The newest object there was when the relay accepted."""
        self.properties: Properties = ()
        """Track Properties."""
        self.ended = ""
        """Why it is over, in words."""
        self.reopened = trio.Event()
        """Set when another connection has it; there is a new one for the next time."""
        self._owner = owner
        self._join = join
        self._priority = priority
        self._mailbox = Mailbox()
        self._link: Link | None = None
        self._request: int | None = None
        self._newest: Location | None = None
        self._floor: Location | None = None
        self._first: Location | None = None
        self._seen: dict[Location, None] = {}

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ReceivedObject:
        """The next whole object."""
        while True:
            arrival = await self.next_arrival()
            if arrival is None:
                raise StopAsyncIteration
            if isinstance(arrival, ReceivedObject):
                return arrival

    async def next_arrival(self) -> Arrival | None:
        """The next object, or the news that a group is complete; None: it is over."""
        while (arrival := await self._mailbox.get()) is not None:
            # Subscriptions of one track may share an alias: each takes out what it asked for.
            if not isinstance(arrival, ReceivedObject) or self._first is None or arrival.location >= self._first:
                break
        return arrival

    @property
    def dropped(self) -> int:
        """Objects that nobody came for."""
        return self._mailbox.dropped

    def cancel(self) -> None:
        """Unsubscribe."""
        self._owner.release(self)
        if self._link is not None and self._request is not None:
            self._link.cancel(self._request)
        self._end("cancelled")

    def is_on(self, link: Link) -> bool:
        """Whether this is the link it is being read from."""
        return self._link is link and self._request is not None

    # What links call.

    def put(self, arrival: Arrival) -> None:
        """Take an arrival; see `link.Inbox`."""
        if isinstance(arrival, ReceivedObject):
            if arrival.location in self._seen or (self._floor is not None and arrival.location <= self._floor):
                return
            self._seen[arrival.location] = None
            if len(self._seen) > REMEMBERED_LOCATIONS:
                del self._seen[next(iter(self._seen))]
            if self._newest is None or arrival.location > self._newest:
                self._newest = arrival.location
        elif isinstance(arrival, FetchEnded):
            return
        self._mailbox.put(arrival)

    def done(self, status: int | None, reason: str) -> None:
        """Take the end; see `link.Inbox`."""
        self._request = None
        link = self._link
        again = status in (DoneCode.TOO_FAR_BEHIND, DoneCode.GOING_AWAY) and link is not None and not link.lost
        if again and link is not None and not link.moving.is_set():
            self._owner.reopen(self, link)
        elif status is not None and status != DoneCode.GOING_AWAY:
            self._owner.release(self)
            self._end(reason or "the track has ended")
        elif not self._owner.reconnects:
            self._end(reason)

    def _end(self, why: str) -> None:
        self.ended = self.ended or why
        self._mailbox.done(None, why)

    async def open(self, link: Link) -> None:
        """Subscribe on a link. Raises RequestFailed, LinkLost."""
        request, accepted = await link.ask(self._ask, self)
        assert isinstance(accepted, e.SubscribeAccepted)
        self._link, self._request = link, request
        self.largest = accepted.parameters.largest
        self.properties = accepted.properties
        if self.largest is not None and self._floor is None:
            self._first = _first_wanted(self._join, self.largest)
        session = link.session
        joins = self._join is Join.CURRENT_GROUP and self.largest is not None
        if joins and session is not None and not session.profile.fill and session.profile.joining_fetch:
            link.send(lambda s: s.fetch(self.track, NEXT_OBJECT, joining=request, joining_groups=0), self)

    def _ask(self, session: Session) -> int | None:
        chosen = NEXT_GROUP if self._join is Join.NEXT_GROUP else NEXT_OBJECT
        fill = Fill(filter=CURRENT_GROUP) if self._join is Join.CURRENT_GROUP else None
        parameters = Parameters(
            filter=chosen,
            fill=fill,
            priority=self._priority,
            rendezvous_timeout_ms=self._owner.rendezvous_ms,
        )
        return session.subscribe(self.track, parameters)

    async def reopen(self, link: Link) -> None:
        """Subscribe again on a new link, for as long as it lasts: the publisher may have to find its way back too."""
        self._floor = self._newest
        pause = self._owner.first_pause_s
        while not link.lost and not self.ended:
            try:
                old, request = self._link, self._request
                await self.open(link)
            except RequestFailed:
                await trio.sleep(pause)
                pause = min(2 * pause, self._owner.longest_pause_s)
            except LinkLost:
                return
            else:
                if old is not None and request is not None and old is not link and not old.lost:
                    old.cancel(request)
                self.reopened.set()
                self.reopened = trio.Event()
                return


def _first_wanted(join: Join, largest: Location) -> Location:
    """Where a subscription begins that was accepted when `largest` was the newest object."""
    if join is Join.NEXT_OBJECT:
        return Location(largest.group, largest.object + 1)
    return Location(largest.group + (join is Join.NEXT_GROUP), 0)
