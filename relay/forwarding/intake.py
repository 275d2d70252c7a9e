"""Objects on their way in: which track they belong to, and what happens where they contradict each other.

`relay.node` calls `receive_*` with what comes on streams and in datagrams, through `Forwarder.intake`. Nothing here is
logged, and nothing runs for an object that does not have to.
"""

from __future__ import annotations

from relay.forwarding.book import Answering, Book, Feeding, Member, Question
from relay.forwarding.cursors import Cursor, StreamCursor
from relay.forwarding.feed import Source
from relay.forwarding.fetching import Fetching
from relay.forwarding.merging import MalformedTrack
from relay.forwarding.moving import Moving
from relay.forwarding.routes import Party
from relay.forwarding.sources import Sources
from relay.forwarding.track import Inlet, NewLife, Track
from tradewind.moqt.errors import DoneCode, ResetCode
from tradewind.moqt.model import DatagramObject, FetchObject, Location, ObjectHeader, RangeEnd, SubgroupHeader

LONGEST_TIMEOUT_S = 60.0
"""A SUBGROUP_DELIVERY_TIMEOUT beyond this is none: who is that late has skipped the group or is gone."""


class Intake:
    """What sources send, handed to their tracks."""

    __slots__ = ("_book", "_fetching", "_moving", "_sources")

    def __init__(self, book: Book, fetching: Fetching, sources: Sources, moving: Moving) -> None:
        self._book = book
        self._fetching = fetching
        self._sources = sources
        self._moving = moving

    def receive_subgroup(
        self, session: int, stream: int, requests: tuple[int, ...], header: SubgroupHeader, now: float
    ) -> None:
        """A subgroup stream for the tracks behind `requests` (all of them one track) begins."""
        member = self._book.members[session]
        feeding = self._feeding(session, requests)
        if feeding is None:
            member.peer.stop_stream(stream, ResetCode.CANCELLED)
            return
        inlet: Inlet | None = None
        try:
            inlet = feeding.track.receive_subgroup(feeding.source, header, now)
        except NewLife:
            inlet = self._sources.restart(feeding, now).receive_subgroup(feeding.source, header, now)
        except MalformedTrack as problem:
            self._contradiction(feeding.track, feeding.source, problem, now)
        if inlet is None:
            member.peer.stop_stream(stream, ResetCode.CANCELLED)
        else:
            member.open_inlet(stream, feeding.track, inlet)

    def receive_object(self, session: int, stream: int, header: ObjectHeader, now: float) -> None:
        found = self._book.members[session].inlets.get(stream)
        if found is not None:
            track, inlet = found
            self._book.objects_in += 1
            try:
                track.receive_object(inlet, header, now)
            except MalformedTrack as problem:
                self._contradiction(track, inlet.source, problem, now)
            succeeds = inlet.source.succeeds
            if succeeds is not None and (inlet.subgroup.group, header.id) >= succeeds:
                self._moving.arrived(track, inlet.source, now)

    def receive_data(self, session: int, stream: int, data: bytes, last: bool, now: float) -> None:
        """Payload bytes on a subgroup or fetch stream."""
        member = self._book.members[session]
        found = member.inlets.get(stream)
        if found is not None:
            track, inlet = found
            self._book.bytes_in += len(data)
            track.bytes_in += len(data)
            try:
                track.receive_data(inlet, data)
            except MalformedTrack as problem:
                self._contradiction(track, inlet.source, problem, now)
        elif (fetched := member.fetch_inlets.get(stream)) is not None:
            try:
                fetched.receive_data(data, last)
            except MalformedTrack as problem:
                self._malformed(fetched.track, str(problem), now)

    def receive_subgroup_end(self, session: int, stream: int, code: int | None, now: float) -> None:
        found = self._book.members[session].close_inlet(stream)
        if found is None:
            return
        track, inlet = found
        try:
            finished = track.close_subgroup(inlet, code)
        except MalformedTrack as problem:
            self._contradiction(track, inlet.source, problem, now)
            return
        if finished is not None:
            self._start_timeouts(finished.cursors, now)
        self._settle(inlet, track, now)

    def receive_datagram(self, session: int, requests: tuple[int, ...], found: DatagramObject, now: float) -> None:
        feeding = self._feeding(session, requests)
        if feeding is not None:
            self._book.objects_in += 1
            self._book.bytes_in += len(found.payload)
            feeding.track.bytes_in += len(found.payload)
            try:
                feeding.track.receive_datagram(feeding.source, found, now)
            except MalformedTrack as problem:
                self._contradiction(feeding.track, feeding.source, problem, now)
            succeeds = feeding.source.succeeds
            if succeeds is not None and (found.group, found.header.id) >= succeeds:
                self._moving.arrived(feeding.track, feeding.source, now)

    def receive_fetch_stream(self, session: int, stream: int, request: int) -> None:
        """The data stream of a FETCH of ours begins."""
        member = self._book.members[session]
        party = Party(session, request)
        role = self._book.roles.get(party)
        if isinstance(role, Question):
            member.fetch_inlets[stream] = self._fetching.opened(role)
        else:
            member.peer.stop_stream(stream, ResetCode.CANCELLED)

    def receive_fetched(self, session: int, stream: int, found: FetchObject, now: float) -> None:
        inlet = self._book.members[session].fetch_inlets.get(stream)
        if inlet is not None:
            inlet.heard_at = now
            try:
                inlet.receive_object(found, now)
            except MalformedTrack as problem:
                self._malformed(inlet.track, str(problem), now)

    def receive_fetch_gap(self, session: int, stream: int, kind: RangeEnd, location: Location) -> None:
        inlet = self._book.members[session].fetch_inlets.get(stream)
        if inlet is not None:
            inlet.receive_gap(kind, location)

    def receive_fetch_end(self, session: int, stream: int, request: int, code: int | None, now: float) -> None:
        """A fetch stream of ours ended: `code` None where the answer is complete."""
        party = Party(session, request)
        inlet = self._book.members[session].fetch_inlets.pop(stream, None)
        if inlet is not None:
            inlet.close(code)
        role = self._book.roles.get(party)
        if isinstance(role, Question):
            self._fetching.closed(role, code, now)

    def close(self, member: Member) -> None:
        """A session is gone: its streams end where they are, and its tracks go on without them."""
        for track, inlet in member.inlets.values():
            track.close_subgroup(inlet, None, lost=True)
        for fetch_inlet in member.fetch_inlets.values():
            fetch_inlet.close(ResetCode.SESSION_CLOSED)
        member.inlets.clear()
        member.streams.clear()
        member.fetch_inlets.clear()

    # --- Private ---

    def _feeding(self, session: int, requests: tuple[int, ...]) -> Feeding | None:
        for request in requests:
            role = self._book.roles.get(Party(session, request))
            if isinstance(role, Feeding):
                return role
        return None

    def _settle(self, inlet: Inlet, track: Track, now: float) -> None:
        source = inlet.source
        if source.done is not None:
            role = self._book.roles.get(source.party)
            if isinstance(role, Feeding):
                self._sources.settle_done(source.party, role, now)

    def _start_timeouts(self, cursors: list[Cursor], now: float) -> None:
        """The subgroup is complete: what of it is not acknowledged in time is reset ("Delivery Timeouts")."""
        for cursor in cursors:
            if isinstance(cursor, StreamCursor):
                limit = cursor.subscription.timeouts.subgroup_s(cursor.subgroup)
                if limit is not None and limit <= LONGEST_TIMEOUT_S:
                    self._book.timers.at(now + limit, cursor.time_out)

    def _contradiction(self, track: Track, source: Source, problem: MalformedTrack, now: float) -> None:
        """A source sent what cannot be: its publisher has begun anew, or the track is malformed."""
        if not track.sources.is_reborn(source):
            self._malformed(track, str(problem), now)
            return
        role = self._book.roles.get(source.party)
        assert isinstance(role, Feeding)
        member = self._book.members[source.party.session]
        for stream in member.inlets_of(source.party):
            member.close_inlet(stream)
            member.peer.stop_stream(stream, ResetCode.CANCELLED)
        self._sources.restart(role, now)

    def _malformed(self, track: Track, reason: str, now: float) -> None:
        """End a track whose sources contradict each other, up and down ("Malformed Tracks")."""
        book = self._book
        book.malformed += 1
        for member in book.members.values():
            for stream in [stream for stream, (found, _) in member.inlets.items() if found is track]:
                member.close_inlet(stream)
                member.peer.stop_stream(stream, ResetCode.MALFORMED_TRACK)
            for stream in [stream for stream, found in member.fetch_inlets.items() if found.track is track]:
                del member.fetch_inlets[stream]
                member.peer.stop_stream(stream, ResetCode.MALFORMED_TRACK)
        for party in tuple(track.sources):
            book.cancel(party)
        track.sources.clear()
        for party, role in tuple(book.roles.items()):
            if isinstance(role, Answering) and role.cursor.reads(track.cache):
                role.cursor.abandon(ResetCode.MALFORMED_TRACK)
                book.take(party)
        for subscription in track.subscriptions.values():
            subscription.close(ResetCode.MALFORMED_TRACK)
        self._sources.end_track(track, DoneCode.MALFORMED_TRACK, reason, now)
