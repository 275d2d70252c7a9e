"""What a relay publishes of a room: its log, and tracks of messages, each as a publisher of forwarding.

`relay.room_tracks` owns them, hands in the requests that forwarding makes, and says when there is more. A log is read
where it is: the newest records from memory, older ones from the store, whose answers come back through `receive_read`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relay.forwarding.fetching import fetch_range
from relay.local import LocalParty
from relay.rooms.effects import Read, ReadDone
from relay.rooms.log import RoomLog
from tradewind.contract.rooms import GROUP_OBJECTS, RoomName, location_of
from tradewind.moqt.errors import DoneCode, RequestCode, RequestRejected, ResetCode
from tradewind.moqt.model import FullTrackName, Location, LocationFilter, Range

PRIORITY = 0x40
MESSAGES_A_GROUP = 64
MOST_A_GROUP = 4096
"""Where order matters between messages: as many as `rooms.carrying` lets wait, so that all of them are one stream."""
FETCH_RECORDS = 32 * GROUP_OBJECTS
"""What one FETCH brings of a log; the rest is marked as unknown, and can be asked for next."""


class MessageTrack:
    """Messages in order, so many in a group. Who comes later gets what is written from then on, or the last group."""

    __slots__ = (
        *("_feeds", "_group", "_keeps", "_kept", "_largest", "_most", "_number", "_party", "_streams"),
        "track",
    )

    def __init__(
        self, party: LocalParty, track: FullTrackName, first_group: int, *, keeps: bool = False,
        most: int = MESSAGES_A_GROUP,
    ) -> None:  # fmt: skip
        """`keeps`: each message is a group of its own, and the last one is there for whoever comes later.

        `most` in a group. Groups are streams of their own, and what is in two of them may change places on the way.
        """
        self.track = track
        self._party = party
        self._keeps = keeps
        self._most = most
        self._group = first_group
        self._number = 0
        self._largest: Location | None = None
        self._kept: bytes | None = None
        self._feeds: dict[int, int | None] = {}
        """The stream that is open for each subscription."""
        self._streams: dict[int, int] = {}
        """How many each has had."""

    @property
    def is_read(self) -> bool:
        return bool(self._feeds)

    def want(self, request: int, now: float) -> None:
        """SUBSCRIBE."""
        if self._number:
            self._end_group(now)
        self._feeds[request] = None
        self._streams[request] = 0
        self._party.accept_subscription(request, self._largest, now)
        if self._kept is not None and self._largest is not None:
            self._send(request, self._largest, self._kept, now)
            self._close(request, now)

    def leave(self, request: int) -> None:
        """The subscription is over."""
        self._feeds.pop(request, None)
        self._streams.pop(request, None)

    def write(self, payload: bytes, now: float) -> None:
        """One message more."""
        location = self._largest = Location(self._group, self._number)
        self._number += 1
        for request in self._feeds:
            self._send(request, location, payload, now)
        if self._keeps:
            self._kept = payload
        if self._keeps or self._number == self._most:
            self._end_group(now)

    def rest(self, now: float) -> None:
        """What was written has been taken: a group that is long enough ends."""
        if self._number >= MESSAGES_A_GROUP:
            self._end_group(now)

    def write_group(self, group: int, payload: bytes, now: float) -> None:
        """A message whose group has a meaning, unless that was written before."""
        if self._largest is None or group > self._largest.group:
            self._group, self._number = group, 0
            self.write(payload, now)

    def close(self, reason: str, now: float) -> None:
        """Nothing more will be written."""
        for request in tuple(self._feeds):
            self._close(request, now)
            self._party.done(request, DoneCode.TRACK_ENDED, self._streams[request], reason, now)
            self.leave(request)

    def _send(self, request: int, location: Location, payload: bytes, now: float) -> None:
        stream = self._feeds[request]
        if stream is None:
            self._streams[request] += 1
            first = location.object == 0
            stream = self._feeds[request] = self._party.open_stream(request, location.group, first, PRIORITY, now)
        self._party.send(stream, location.object, payload, now)

    def _end_group(self, now: float) -> None:
        for request in self._feeds:
            self._close(request, now)
        self._group += 1
        self._number = 0

    def _close(self, request: int, now: float) -> None:
        stream = self._feeds[request]
        if stream is not None:
            self._party.close_stream(stream, None, now)
            self._feeds[request] = None


@dataclass(slots=True)
class _Feed:
    """A subscription to a log."""

    next: int
    """The seq that it gets next."""
    stream: int | None = None
    streams: int = 0
    read: int | None = None
    """The read of the store that it waits for."""


@dataclass(slots=True)
class _Answer:
    """The answer to a FETCH of a log."""

    stream: int
    next: int
    end: int
    """The seq after the last one that it gets."""
    unknown_upto: Location | None
    """What was asked for beyond `end` and is there."""
    read: int | None = None


class LogTrack:
    """One room's log in one epoch."""

    __slots__ = ("_answers", "_feeds", "_log", "_number", "_party", "to_store", "track")

    def __init__(self, party: LocalParty, track: FullTrackName, log: RoomLog, number: Callable[[], int]) -> None:
        """`number` gives a new number for a read each time."""
        self.track = track
        self.to_store: list[Read] = []
        """Reads since the owner last emptied it."""
        self._party = party
        self._log = log
        self._number = number
        self._feeds: dict[int, _Feed] = {}
        self._answers: dict[int, _Answer] = {}

    @property
    def room(self) -> RoomName:
        return self._log.room

    @property
    def log(self) -> RoomLog:
        return self._log

    def want(self, request: int, now: float) -> None:
        """SUBSCRIBE: from the first record of the current group, as publishers do."""
        largest = self._log.largest
        self._feeds[request] = _Feed(0 if largest is None else largest.group * GROUP_OBJECTS)
        self._party.accept_subscription(request, largest, now)

    def fetch(self, request: int, chosen: LocationFilter, now: float) -> None:
        """FETCH."""
        try:
            wanted = fetch_range(chosen, self._log.largest)
        except RequestRejected as refusal:
            self._party.refuse(request, refusal.code, refusal.reason, now)
            return
        assert wanted.end is not None
        first = _seq_at(wanted.start)
        last = _seq_at(Location(wanted.end.group, min(wanted.end.object, GROUP_OBJECTS - 1)))
        after = min(last + 1, self._log.visible)
        end = min(after, first + FETCH_RECORDS)
        stream = self._party.accept_fetch_of(request, wanted.end, now)
        self._answers[request] = _Answer(stream, first, end, wanted.end if end < after else None)

    def leave(self, request: int) -> None:
        """A request is over."""
        self._feeds.pop(request, None)
        self._answers.pop(request, None)

    def pump(self, now: float) -> None:
        """Send what readers may see by now."""
        for request, feed in tuple(self._feeds.items()):
            self._feed(request, feed, now)
        for request, answer in tuple(self._answers.items()):
            self._answer(request, answer, now)

    def receive_read(self, done: ReadDone, now: float) -> None:
        """The store answered a read of ours; who asked for it may be gone."""
        for request, feed in tuple(self._feeds.items()):
            if feed.read == done.id:
                feed.read = None
                self._take_live(request, feed, done, now)
        for request, answer in tuple(self._answers.items()):
            if answer.read == done.id:
                answer.read = None
                self._take_past(request, answer, done, now)
        self.pump(now)

    def close(self, reason: str, now: float) -> None:
        """This relay publishes it no longer."""
        for request, feed in tuple(self._feeds.items()):
            self._break_off(feed, now)
            self._party.done(request, DoneCode.TRACK_ENDED, feed.streams, reason, now)
        for request, answer in tuple(self._answers.items()):
            self._party.end_fetch(request, answer.stream, ResetCode.CANCELLED, now)
        self._feeds.clear()
        self._answers.clear()

    # --- Live ---

    def _feed(self, request: int, feed: _Feed, now: float) -> None:
        while feed.read is None and feed.next < self._log.visible:
            span = next(self._log.spans(Range(Location(*location_of(feed.next)), None)))
            if span.payloads is None:
                feed.read = self._ask(span.first, span.count)
                return
            self._push(request, feed, span.payloads, now)

    def _push(self, request: int, feed: _Feed, payloads: tuple[bytes, ...], now: float) -> None:
        for payload in payloads:
            group, number = location_of(feed.next)
            if feed.stream is None:
                feed.streams += 1
                feed.stream = self._party.open_stream(request, group, number == 0, PRIORITY, now)
            self._party.send(feed.stream, number, payload, now)
            feed.next += 1
            if number == GROUP_OBJECTS - 1:
                self._party.close_stream(feed.stream, None, now)
                feed.stream = None

    def _take_live(self, request: int, feed: _Feed, done: ReadDone, now: float) -> None:
        self._push(request, feed, done.payloads, now)
        if done.damaged is not None:
            # It has its place, and nobody can read it: what follows may not stand behind what precedes.
            self._break_off(feed, now)
            feed.next = done.damaged + 1
        elif not done.payloads:
            self._break_off(feed, now)
            self._party.done(request, DoneCode.INTERNAL_ERROR, feed.streams, "the store cannot be read", now)
            del self._feeds[request]

    def _break_off(self, feed: _Feed, now: float) -> None:
        if feed.stream is not None:
            self._party.close_stream(feed.stream, ResetCode.CANCELLED, now)
            feed.stream = None

    # --- Past ---

    def _answer(self, request: int, answer: _Answer, now: float) -> None:
        while answer.read is None and answer.next < answer.end:
            wanted = Range(Location(*location_of(answer.next)), Location(*location_of(answer.end - 1)))
            span = next(self._log.spans(wanted), None)
            if span is None:
                self._end(request, answer, ResetCode.INTERNAL_ERROR, now)
                return
            if span.payloads is None:
                answer.read = self._ask(span.first, span.count)
                return
            self._push_past(answer, span.payloads, now)
        if answer.read is None:
            if answer.unknown_upto is not None:
                self._party.skip_fetched(answer.stream, answer.unknown_upto)
            self._end(request, answer, None, now)

    def _push_past(self, answer: _Answer, payloads: tuple[bytes, ...], now: float) -> None:
        for payload in payloads:
            self._party.send_fetched(answer.stream, Location(*location_of(answer.next)), payload, PRIORITY, now)
            answer.next += 1

    def _take_past(self, request: int, answer: _Answer, done: ReadDone, now: float) -> None:
        self._push_past(answer, done.payloads, now)
        if done.damaged is not None:
            self._party.skip_fetched(answer.stream, Location(*location_of(done.damaged)))
            answer.next = done.damaged + 1
        elif not done.payloads:
            self._end(request, answer, ResetCode.INTERNAL_ERROR, now)

    def _end(self, request: int, answer: _Answer, code: int | None, now: float) -> None:
        del self._answers[request]
        self._party.end_fetch(request, answer.stream, code, now)

    def _ask(self, first: int, count: int) -> int:
        number = self._number()
        self.to_store.append(Read(number, self._log.room, first, count))
        return number


def refuse(party: LocalParty, request: int, now: float) -> None:
    """A request for a track that is ours no longer."""
    party.refuse(request, RequestCode.DOES_NOT_EXIST, "no such track", now)


def _seq_at(location: Location) -> int:
    return location.group * GROUP_OBJECTS + min(location.object, GROUP_OBJECTS)
