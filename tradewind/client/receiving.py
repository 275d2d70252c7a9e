"""Objects that arrive: put together from the session's pieces, and put in order for whoever wants them so.

`connect` owns one `Assembler` a session; `tools.subscribe` and other applications use `InOrder`, because a group, a
fetch stream and the next group travel on streams of their own and overtake each other. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TypeAlias

from tradewind.moqt import events as e
from tradewind.moqt.model import DatagramObject, Location, ObjectStatus, Properties, RangeEnd


@dataclass(frozen=True, slots=True, order=True)
class ReceivedObject:
    """One whole object."""

    location: Location
    payload: bytes = field(compare=False)
    status: ObjectStatus = field(compare=False, default=ObjectStatus.NORMAL)
    subgroup: int | None = field(compare=False, default=None)
    properties: Properties = field(compare=False, default=())
    started: float = field(compare=False, default=0.0)
    """When its header came, monotonic seconds."""
    received: float = field(compare=False, default=0.0)
    """When its last byte came."""


@dataclass(frozen=True, slots=True)
class GroupEnded:
    """All objects of a group have come, or will not be sent."""

    group: int


@dataclass(frozen=True, slots=True)
class FetchEnded:
    """A fetch stream is over; `code` None: its answer is complete."""

    request: int
    code: int | None
    whole: bool = True
    """Whether the relay knew of everything that was asked for, and had it."""


Arrival: TypeAlias = ReceivedObject | GroupEnded | FetchEnded


@dataclass(slots=True)
class _Stream:
    """One data stream and the object that is arriving on it."""

    requests: tuple[int, ...]
    group: int
    subgroup: int | None
    ends_group: bool = False
    header_id: int = 0
    status: ObjectStatus = ObjectStatus.NORMAL
    properties: Properties = ()
    started: float = 0.0
    parts: list[bytes] = field(default_factory=list)
    has_holes: bool = False

    def begin(self, header_id: int, status: ObjectStatus, properties: Properties, now: float) -> None:
        self.header_id, self.status, self.properties, self.started = header_id, status, properties, now
        self.parts.clear()

    def complete(self, now: float) -> ReceivedObject:
        return ReceivedObject(
            Location(self.group, self.header_id),
            b"".join(self.parts),
            self.status,
            self.subgroup,
            self.properties,
            self.started,
            now,
        )


class Assembler:
    """Makes whole objects of one session's data events. What is larger than the session allows never gets here."""

    __slots__ = ("_streams",)

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}

    def receive(self, event: e.Event, now: float) -> list[tuple[int, Arrival]]:
        """Take one event; returns what it completes, each with the request that it belongs to."""
        match event:
            case e.SubgroupOpened(stream, requests, header):
                self._streams[stream] = _Stream(requests, header.group, header.subgroup, header.end_of_group)
            case e.FetchOpened(stream, request, subscription):
                self._streams[stream] = _Stream((request if subscription is None else subscription,), 0, None)
            case e.ObjectStarted(stream, header):
                self._streams[stream].begin(header.id, header.status, header.properties, now)
                return self._complete(stream, now) if header.length == 0 else []
            case e.FetchObjectStarted(stream, item):
                state = self._streams[stream]
                state.group, state.subgroup = item.group, item.subgroup
                state.begin(item.header.id, item.header.status, item.header.properties, now)
                return self._complete(stream, now) if item.header.length == 0 else []
            case e.ObjectData(stream, data, last):
                self._streams[stream].parts.append(data)
                return self._complete(stream, now) if last else []
            case e.SubgroupClosed(stream, code):
                closed = self._streams.pop(stream)
                if code is None and closed.ends_group:
                    return [(request, GroupEnded(closed.group)) for request in closed.requests]
            case e.FetchRangeEnded(stream, kind):
                self._streams[stream].has_holes |= kind is not RangeEnd.DOES_NOT_EXIST
            case e.FetchClosed(stream, request, code):
                fetched = self._streams.pop(stream, None)
                requests = fetched.requests if fetched is not None else (request,)
                whole = fetched is not None and not fetched.has_holes
                return [(owner, FetchEnded(request, code, whole)) for owner in requests]
            case e.DatagramArrived(requests, datagram):
                return self._datagram(requests, datagram, now)
            case _:
                pass
        return []

    def check_invariants(self) -> None:
        assert all(stream.requests for stream in self._streams.values())

    def _complete(self, stream: int, now: float) -> list[tuple[int, Arrival]]:
        state = self._streams[stream]
        whole = state.complete(now)
        state.parts = []
        arrivals: list[tuple[int, Arrival]] = [(request, whole) for request in state.requests]
        if state.status in (ObjectStatus.END_OF_GROUP, ObjectStatus.END_OF_TRACK):
            arrivals += ((request, GroupEnded(state.group)) for request in state.requests)
        return arrivals

    @staticmethod
    def _datagram(requests: tuple[int, ...], datagram: DatagramObject, now: float) -> list[tuple[int, Arrival]]:
        header = datagram.header
        whole = ReceivedObject(
            Location(datagram.group, header.id), datagram.payload, header.status, None, header.properties, now, now
        )
        return [(request, whole) for request in requests]


class InOrder:
    """One track's objects in order of location, each once, starting with the first of a group.

    What is missing is waited for as long as `patience_s`, then counted as a gap and passed over.
    """

    __slots__ = ("_ended", "_patience_s", "_size_bytes", "_waiting", "_wanted", "duplicates", "gaps")

    MAX_WAITING_BYTES = 64 << 20
    """Past this nothing is waited for any more."""

    def __init__(self, patience_s: float = 1.0) -> None:
        self._patience_s = patience_s
        self._waiting: list[ReceivedObject] = []
        self._size_bytes = 0
        self._ended: set[int] = set()
        self._wanted: Location | None = None
        self.gaps = 0
        """Places where something was passed over."""
        self.duplicates = 0

    def receive(self, arrival: Arrival) -> None:
        """Take what arrived; ask `ready` afterwards."""
        if isinstance(arrival, GroupEnded):
            self._ended.add(arrival.group)
        elif isinstance(arrival, ReceivedObject) and arrival.status is ObjectStatus.NORMAL:
            if self._wanted is not None and arrival.location < self._wanted:
                self.duplicates += 1
            else:
                heappush(self._waiting, arrival)
                self._size_bytes += len(arrival.payload)

    def ready(self, now: float) -> list[ReceivedObject]:
        """What may go on now, in order."""
        out = []
        while self._waiting:
            head = self._waiting[0]
            if self._wanted is not None and head.location < self._wanted:
                self._pop()
                self.duplicates += 1
            elif self._is_next(head):
                out.append(self._take())
            elif now < head.received + self._patience_s and self._size_bytes <= self.MAX_WAITING_BYTES:
                break
            elif self._wanted is None and head.location.object:
                # It cannot be decoded without the start of its group, and that does not come.
                self._pop()
            else:
                self.gaps += self._wanted is not None
                out.append(self._take())
        return out

    def next_deadline(self) -> float | None:
        """When `ready` gives up waiting for something."""
        return self._waiting[0].received + self._patience_s if self._waiting else None

    def flush(self) -> list[ReceivedObject]:
        """Everything that is left, because nothing more will come."""
        return self.ready(float("inf"))

    def check_invariants(self) -> None:
        assert self._size_bytes == sum(len(waiting.payload) for waiting in self._waiting)

    def _is_next(self, head: ReceivedObject) -> bool:
        wanted, location = self._wanted, head.location
        if wanted is None:
            return location.object == 0
        if location.group == wanted.group:
            return location.object == wanted.object
        return location == (wanted.group + 1, 0) and wanted.group in self._ended

    def _take(self) -> ReceivedObject:
        head = self._pop()
        group = head.location.group
        if self._wanted is None or group != self._wanted.group:
            self._ended = {ended for ended in self._ended if ended >= group}
        self._wanted = Location(group, head.location.object + 1)
        return head

    def _pop(self) -> ReceivedObject:
        head = heappop(self._waiting)
        self._size_bytes -= len(head.payload)
        return head
