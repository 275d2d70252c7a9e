"""One session as an Original Publisher: answers what the relay asks for, and sends it objects.

`connect` owns one for each session and calls `receive` with its events, `stopped` with streams that the relay does not
want, and `pump` whenever something was written or sent. Objects are read from `tracks.TrackWriter` with a cursor for
each subscription. A relay that falls behind skips to the newest group; it never holds the application up. No I/O.

Source: draft-20, "Publishing and Retrieving Tracks", "FETCH"; draft-18, "Joining Fetches".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from tradewind.client.cursors import Feed, Filling
from tradewind.client.tracks import Group, Publication, TrackWriter
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode
from tradewind.moqt.fetched import encode_fetch_header
from tradewind.moqt.model import (
    NO_FILTER,
    Fill,
    FilterKind,
    FullTrackName,
    GroupOrder,
    Location,
    Namespace,
    Parameters,
    Range,
    SubgroupHeader,
    resolve,
)
from tradewind.moqt.objects import encode_object_header, encode_subgroup_header
from tradewind.moqt.session import Session
from tradewind.quic.egress import Egress, Offered

GROUPS_BEHIND = 2
"""A subscription with this many newer groups waiting skips to the newest."""


class MediaEgress(Egress, Protocol):
    """`egress.Egress`, and how much one stream takes: `tradewind.quic.connection.Connection` is one."""

    def room(self, stream: int) -> int:
        """Bytes this stream may still be offered before its own flow control blocks it."""


@dataclass(frozen=True, slots=True)
class ServingStatistics:
    """What one session has been sent."""

    subscriptions: int
    objects: int
    bytes: int
    groups_skipped: int


class Serving:
    """Everything one session gets from our publications."""

    __slots__ = (
        "_aliases",
        "_bytes",
        "_egress",
        "_feeds",
        "_fills",
        "_objects",
        "_prefixes",
        "_publications",
        "_session",
        "_skipped",
    )

    def __init__(
        self, session: Session, egress: MediaEgress, publications: Callable[[], Iterable[Publication]]
    ) -> None:
        """`publications` gives those that exist when it is called."""
        self._session = session
        self._egress = egress
        self._publications = publications
        self._feeds: dict[int, Feed] = {}
        self._fills: list[Filling] = []
        self._prefixes: dict[int, Namespace] = {}
        self._aliases = 0
        self._objects = self._bytes = self._skipped = 0

    def receive(self, event: e.Event) -> bool:
        """Take one event of the session; False: it is no publisher's business."""
        match event:
            case e.SubscribeRequested():
                self._subscribe(event)
            case e.FetchRequested():
                self._fetch(event)
            case e.UpdateRequested():
                self._update(event)
            case e.TrackStatusRequested():
                self._track_status(event)
            case e.SubscribeNamespaceRequested():
                self._subscribe_namespace(event)
            case e.RequestCancelled() if event.request in self._feeds:
                self._end_feed(self._feeds[event.request], ResetCode.CANCELLED)
            case e.RequestCancelled() if self._prefixes.pop(event.request, None) is not None:
                pass
            case e.RequestCancelled():
                return self._cancel_fills(lambda fill: fill.request == event.request)
            case _:
                return False
        return True

    def stopped(self, stream: int) -> None:
        """The relay wants no more of one of our data streams; the egress has reset it already."""
        for feed in self._feeds.values():
            if feed.stream == stream:
                feed.leave_group()
        for fill in [fill for fill in self._fills if fill.stream == stream]:
            self._fills.remove(fill)
            self._finish_fetch(fill)

    def announce(self, namespace: Namespace) -> None:
        """Tell a relay that asked for our namespaces about a new one."""
        for request, prefix in self._prefixes.items():
            if namespace[: len(prefix)] == prefix:
                self._session.notify_namespace(request, namespace)

    def pump(self, now: float) -> None:
        """Offer the egress as much as it takes, the most urgent first. Call after writes and after sending."""
        if not self._feeds and not self._fills:
            return
        work: list[Feed | Filling] = [*self._feeds.values(), *self._fills]
        work.sort(key=lambda sending: sending.urgency)
        for sending in work:
            if isinstance(sending, Feed):
                self._pump_feed(sending, now)
            elif not self._pump_fill(sending, now):
                return

    def statistics(self) -> ServingStatistics:
        return ServingStatistics(len(self._feeds), self._objects, self._bytes, self._skipped)

    def check_invariants(self) -> None:
        streams = [feed.stream for feed in self._feeds.values() if feed.stream is not None]
        streams += [fill.stream for fill in self._fills if fill.stream is not None]
        assert len(streams) == len(set(streams)), "two cursors on one stream"
        for feed in self._feeds.values():
            assert feed.stream is None or feed.group is not None
            assert feed.group is None or feed.index <= len(feed.group.ids)

    # --- Requests -----------------------------------------------------------------------------------------------------

    def _find(self, track: FullTrackName) -> TrackWriter | None:
        for publication in self._publications():
            if publication.namespace == track.namespace:
                return publication.find(track.name)
        return None

    def _subscribe(self, event: e.SubscribeRequested) -> None:
        track = self._find(event.track)
        if track is None:
            self._session.reject(event.request, RequestCode.DOES_NOT_EXIST, "no such track")
            return
        asked = event.parameters
        feed = Feed(event.request, track, self._aliases, asked.priority, asked.filter or NO_FILTER)
        feed.forward = asked.forward is not False
        self._aliases += 1
        self._feeds[event.request] = feed
        self._session.accept_subscribe(event.request, feed.alias, Parameters(largest=track.largest), track.properties)
        if asked.fill is not None and feed.forward:
            self._start_fill(feed, event.request, asked.fill)

    def _update(self, event: e.UpdateRequested) -> None:
        feed = self._feeds.get(event.request)
        if feed is not None:
            asked = event.parameters
            self._change_feed(feed, asked)
            answer = Parameters(largest=feed.track.largest)
            self._session.accept_update(event.request, event.update, answer)
            if asked.fill is not None and feed.forward:
                self._start_fill(feed, event.update, asked.fill)
            return
        for fill in self._fills:
            if fill.request == event.request and event.parameters.priority is not None:
                fill.priority = event.parameters.priority
        self._session.accept_update(event.request, event.update)

    def _change_feed(self, feed: Feed, asked: Parameters) -> None:
        if asked.priority is not None:
            feed.priority = asked.priority
        if asked.filter is not None:
            feed.start_at(asked.filter)
        if asked.forward is None or asked.forward == feed.forward:
            return
        feed.forward = asked.forward
        if feed.stream is not None:
            self._egress.reset(feed.stream, self._wire_code(ResetCode.CANCELLED))
        feed.start_at(replace(NO_FILTER, kind=FilterKind.NEXT_OBJECT))

    def _track_status(self, event: e.TrackStatusRequested) -> None:
        track = self._find(event.track)
        if track is None:
            self._session.reject(event.request, RequestCode.DOES_NOT_EXIST, "no such track")
        else:
            self._session.accept(event.request, Parameters(largest=track.largest), track.properties)

    def _subscribe_namespace(self, event: e.SubscribeNamespaceRequested) -> None:
        self._prefixes[event.request] = event.prefix
        self._session.accept(event.request)
        for publication in self._publications():
            if publication.namespace[: len(event.prefix)] == event.prefix:
                self._session.notify_namespace(event.request, publication.namespace)

    def _fetch(self, event: e.FetchRequested) -> None:
        track = self._find(event.track)
        if track is None:
            self._session.reject(event.request, RequestCode.DOES_NOT_EXIST, "no such track")
            return
        wanted = self._fetch_range(event, track)
        if wanted is None or track.largest is None or wanted.end is None or wanted.start > wanted.end:
            self._session.reject(event.request, RequestCode.INVALID_RANGE, "nothing was published there")
            return
        ended = track.ended and wanted.end == track.largest
        self._session.accept_fetch(event.request, wanted.end, ended, properties=track.properties)
        order = event.parameters.order or GroupOrder.ASCENDING
        priority = event.parameters.priority
        self._fills.append(Filling(self._session.profile, event.request, None, track, wanted, order, priority))

    def _fetch_range(self, event: e.FetchRequested, track: TrackWriter) -> Range | None:
        """What a FETCH asks for, ended at the largest object; None: what it joins had nothing yet."""
        if event.joining is None:
            return _until_largest(resolve(event.filter, track.largest), track.largest)
        joined = self._feeds.get(event.joining)
        if joined is None or joined.joined_at is None:
            return None
        group = event.joining_start
        if group is None:
            group = max(0, joined.joined_at.group - (event.joining_groups or 0))
        return Range(Location(group, 0), joined.joined_at)

    def _start_fill(self, feed: Feed, request: int, fill: Fill) -> None:
        chosen = fill.filter if fill.filter is not None else feed.filter
        wanted = _until_largest(resolve(chosen, feed.track.largest), feed.track.largest)
        if wanted is None or wanted.end is None or wanted.start > wanted.end:
            return
        order = fill.order or GroupOrder.ASCENDING
        priority = fill.priority if fill.priority is not None else feed.priority
        feed.streams += 1
        self._fills.append(Filling(self._session.profile, request, feed, feed.track, wanted, order, priority))

    def _cancel_fills(self, match: Callable[[Filling], bool]) -> bool:
        ended = [fill for fill in self._fills if match(fill)]
        for fill in ended:
            if fill.stream is not None:
                self._egress.reset(fill.stream, self._wire_code(ResetCode.CANCELLED))
            self._fills.remove(fill)
        return bool(ended)

    def _end_feed(self, feed: Feed, code: int) -> None:
        del self._feeds[feed.request]
        if feed.stream is not None:
            self._egress.reset(feed.stream, self._wire_code(code))
        self._cancel_fills(lambda fill: fill.feed is feed)

    def _wire_code(self, code: int) -> int:
        return self._session.profile.codes.reset_to_wire(code)

    # --- Objects ------------------------------------------------------------------------------------------------------

    def _pump_feed(self, feed: Feed, now: float) -> None:
        if feed.forward:
            self._skip_if_behind(feed)
            while self._step(feed, now):
                pass
        filling = any(fill.feed is feed for fill in self._fills)
        if feed.track.ended and feed.is_drained() and not filling:
            del self._feeds[feed.request]
            self._session.publish_done(feed.request, DoneCode.TRACK_ENDED, feed.streams)

    def _skip_if_behind(self, feed: Feed) -> None:
        newest, group = feed.track.newest(), feed.take_group()
        if newest is None or group is None or feed.track.groups_after(group.id) < GROUPS_BEHIND:
            return
        self._skipped += feed.track.groups_after(group.id)
        if feed.stream is not None:
            self._egress.reset(feed.stream, self._wire_code(ResetCode.TOO_FAR_BEHIND))
        feed.enter(newest.id, 0)

    def _step(self, feed: Feed, now: float) -> bool:
        """Send the next piece of one subscription; False: there is nothing, or no room."""
        group = feed.take_group()
        if group is None:
            return False
        if feed.at_end_of(group):
            if not group.closed and not feed.is_past_end(group):
                return False
            if feed.stream is not None:
                self._egress.offer(feed.stream, (), fin=True)
            feed.leave_group()
            return True
        writable = self._egress.writable(now)
        if writable.session_bytes <= 0 or (feed.stream is None and not self._open(feed, group, writable.streams)):
            return False
        assert feed.stream is not None
        room = min(writable.session_bytes, self._egress.room(feed.stream))
        return room > 0 and self._send_piece(feed, group, feed.stream, room)

    def _open(self, feed: Feed, group: Group, streams: int) -> bool:
        stream = self._egress.open_uni() if streams > 0 else None
        if stream is None:
            return False
        feed.stream = stream
        feed.streams += 1
        feed.previous = None
        feed.has_properties = any(group.properties)
        header = SubgroupHeader(
            feed.alias, group.id, 0, None,
            end_of_group=True, first_object=feed.index == 0, has_properties=feed.has_properties,
        )  # fmt: skip
        self._egress.offer(stream, (encode_subgroup_header(self._session.profile, header),), fin=False)
        return True

    def _send_piece(self, feed: Feed, group: Group, stream: int, room: int) -> bool:
        payload = memoryview(group.payloads[feed.index])
        parts: list[bytes | memoryview] = []
        if feed.offset == 0:
            header = group.header(feed.index)
            if header.properties and not feed.has_properties:
                header = replace(header, properties=())
            parts.append(encode_object_header(self._session.profile, feed.previous, header, feed.has_properties))
        piece = payload[feed.offset : feed.offset + room]
        if self._egress.offer(stream, (*parts, piece), fin=False) is Offered.STOPPED:
            feed.leave_group()
            return True
        self._bytes += len(piece)
        feed.offset += len(piece)
        if feed.offset == len(payload):
            self._objects += 1
            feed.next_object()
        return True

    # --- Fetches and fills --------------------------------------------------------------------------------------------

    def _pump_fill(self, fill: Filling, now: float) -> bool:
        """Send what a fetch stream takes; False: the egress is full."""
        while True:
            writable = self._egress.writable(now)
            if writable.session_bytes <= 0:
                return False
            if fill.stream is None:
                fill.stream = self._egress.open_uni() if writable.streams > 0 else None
                if fill.stream is None:
                    return True
                header = encode_fetch_header(self._session.profile, fill.request)
                self._egress.offer(fill.stream, (header,), fin=False)
            room = min(writable.session_bytes, self._egress.room(fill.stream))
            if room <= 0:
                return True
            parts = fill.next_parts(room)
            if self._egress.offer(fill.stream, parts or (), fin=parts is None) is Offered.STOPPED or parts is None:
                self._fills.remove(fill)
                self._finish_fetch(fill)
                return True

    def _finish_fetch(self, fill: Filling) -> None:
        if fill.feed is None:
            self._session.finish(fill.request)


def _until_largest(wanted: Range, largest: Location | None) -> Range | None:
    """A fetch's range: it never reaches beyond the largest object; None: there is none."""
    if largest is None:
        return None
    return Range(wanted.start, largest if wanted.end is None else min(wanted.end, largest))
