"""One stay of a placed viewer at one relay: a connection, and what is read on it. Part of the client's EDGE.

`placed.PlacedViewer` has one at a time, and two or three while it moves. A visit decides nothing: it says what became
of it (`opened_at`, `first_at`, `goaway`, `failure`) and wakes its viewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

import trio

from tradewind.client.catalog import HANG_TRACK, MSF_TRACK, CatalogError, MsfReader, decode_hang
from tradewind.client.choices import Candidate, Patience, beneath, is_loopback
from tradewind.client.continuity import Continuity
from tradewind.client.dialing import ConnectFailed, ask_fingerprint, resolve
from tradewind.client.exchange import LinkLost, RequestFailed
from tradewind.client.link import Link
from tradewind.client.media import Broadcast
from tradewind.client.receiving import Arrival, FetchEnded, GroupEnded, ReceivedObject
from tradewind.client.subscription import Join, Subscription
from tradewind.client.target import Target, TargetError, parse_target
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode
from tradewind.moqt.model import (
    CURRENT_GROUP,
    NEXT_OBJECT,
    Fill,
    FilterKind,
    FullTrackName,
    Location,
    LocationFilter,
    ObjectStatus,
    Parameters,
)
from tradewind.moqt.profiles import NATIVE_ORDER
from tradewind.moqt.session import Session
from tradewind.quic.config import Limits, QuicSettings, ServerTrust
from tradewind.quic.statistics import ConnectionStatistics

CATALOG_S = 10.0
ACK_DELAY_S = 0.02
"""One acknowledgement for all packets of so long: at either end it costs about what a packet of the show does."""
HEDGE_RTTS = 4.0
"""A far relay has so many round trips to answer before the next one is dialled beside it."""
CATCH_UP_S = 10.0
"""Who has been away for longer begins with the current group: a player would have to skip the rest anyway."""
MAX_JOINING_GROUPS = 64
_AGAIN = frozenset({DoneCode.TOO_FAR_BEHIND, DoneCode.GOING_AWAY, DoneCode.INTERNAL_ERROR, DoneCode.EXCESSIVE_LOAD})
"""Ends of a subscription that are not the track's."""
_REFUSALS_BORNE = 3
"""Then the catalogue is read anew: the publisher may have other tracks by now."""


@dataclass(frozen=True, slots=True)
class VisitSettings:
    """How relays are dialled, the same for every visit."""

    namespace: str
    """Global, fields joined by slashes."""
    trust: ServerTrust = ServerTrust()
    protocols: tuple[str, ...] = NATIVE_ORDER
    raw_quic: bool = True
    """Dial https addresses without HTTP/3 around the session: relays take both on one port, and a round trip less is
    spent. Off: as browsers do."""
    source: str | None = None
    """The local address that packets leave from."""
    patience: Patience = Patience()
    idle_timeout_s: float = 12.0
    keep_alive_s: float = 4.0
    rendezvous_ms: int = 10_000
    """How long a relay should wait for a publisher that is not there yet."""
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0


class Host(Protocol):
    """What a visit needs of its viewer."""

    names: tuple[str, ...]
    """The tracks that are read; empty: the catalogue says."""

    def continuity(self, name: str) -> Continuity:
        """What came of a track so far."""

    def wake(self) -> None:
        """Something became of a visit."""

    def receive_object(self, visit: Visit, track: str, item: ReceivedObject, *, fresh: bool) -> None:
        """An object came; `fresh`: for the first time over any connection."""

    def receive_group_end(self, track: str, group: int) -> None:
        """A group is complete."""

    def choose(self, broadcast: Broadcast) -> Sequence[str]:
        """Which tracks of a catalogue to read."""


class Visit:
    """Make it, start `run` in a nursery, call `play` where it is to bring objects and not only to be measured."""

    def __init__(self, host: Host, candidate: Candidate, settings: VisitSettings, now: float) -> None:
        self.candidate = candidate
        self.began = now
        self.opened_at: float | None = None
        """When the session was there."""
        self.first_at: float | None = None
        """When the first object came, also one that another connection had brought before."""
        self.fresh_at: float | None = None
        """When the first came that no other had brought."""
        self.heard: set[str] = set()
        """Tracks of which something came."""
        self.refused = ""
        """Why the relay refuses what we read, for as long as it does."""
        self.failure = ""
        """Why it is over."""
        self.over = False
        self.leaving = False
        """We do not want it any more."""
        self._host = host
        self._settings = settings
        self._link: Link | None = None
        self._playing = trio.Event()
        self._left = trio.CancelScope()
        # What `Subscription` asks of its owner: it ends with this connection.
        self.reconnects = False
        self.rendezvous_ms = settings.rendezvous_ms
        self.first_pause_s = settings.first_pause_s
        self.longest_pause_s = settings.longest_pause_s

    @property
    def id(self) -> str:
        return self.candidate.id

    @property
    def goaway(self) -> e.GoawayReceived | None:
        """What the relay said when it asked us to move."""
        return self._link.goaway if self._link is not None else None

    @property
    def protocol(self) -> str:
        """The draft spoken."""
        session = self._link.session if self._link is not None else None
        return session.profile.name if session is not None else ""

    @property
    def rtt_s(self) -> float:
        return self._link.rtt_s() if self._link is not None else 0.0

    def overdue_at(self, rtt_s: float) -> float:
        """When to dial the next relay beside this one, which has shown nothing yet. `rtt_s`: what is known of the way.

        One that answers, however slowly, is there: a second handshake in a crowd makes the first one slower still.
        """
        patience = self._settings.patience
        if self.refused:
            return self.began
        if self.opened_at is None and not self.heard_bytes():
            return self.began + max(patience.hedge_s, HEDGE_RTTS * rtt_s)
        return (self.began if self.opened_at is None else self.opened_at) + patience.start_s

    def heard_bytes(self) -> int:
        """What came from the relay, of any kind."""
        return self._link.heard_bytes() if self._link is not None else 0

    def traffic(self) -> ConnectionStatistics | None:
        """Packets and bytes of it so far; None before there is a connection."""
        return self._link.traffic() if self._link is not None else None

    def ping(self) -> None:
        """Have the relay say that it is there: then `heard_bytes` grows."""
        if self._link is not None:
            self._link.ping()

    def play(self) -> None:
        """Subscribe as soon as the session is there."""
        self._playing.set()

    def note(self, track: str, now: float, *, fresh: bool) -> None:
        """An object came."""
        if self.first_at is None:
            self.first_at = now
        if fresh and self.fresh_at is None:
            self.fresh_at = now
        self.heard.add(track)

    def leave(self, reason: str) -> None:
        """Close it; what is under way may still come."""
        self.leaving = True
        if self._link is not None:
            self._link.close(reason)
        else:
            self._left.cancel()

    async def run(self) -> None:
        """Connect and stay until it is over. Whatever happens, this only returns; see `failure`."""
        try:
            with self._left:
                await self._stay()
        except (ConnectFailed, TargetError) as error:
            self.failure = str(error)
        finally:
            self.failure = self.failure or "ended"
            self.over = True
            self._host.wake()

    # What `Subscription` calls.

    def release(self, subscription: Subscription) -> None:
        """Nothing to be done: they end with the connection."""

    def reopen(self, subscription: Subscription, link: Link) -> None:
        """Never: catalogues are read once."""

    # --- The connection -----------------------------------------------------------------------------------------------

    async def _stay(self) -> None:
        target = self._target()
        quic = await self._quic(target)
        source = self._settings.source
        addresses = [one for one in await resolve(target) if source is None or (":" in one[0]) == (":" in source)]
        failures = []
        for address in addresses:
            try:
                link = self._link = Link(target, address, quic, self._settings.protocols, lambda: (), source=source)
            except OSError as error:
                failures.append(str(error))
                continue
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.run)
                try:
                    with trio.move_on_after(self._settings.patience.connect_s):
                        await link.started.wait()
                    if link.started.is_set() and not link.lost:
                        await self._use(link)
                        self.failure = link.lost
                        return
                    failures.append(link.lost or "no answer over UDP")
                finally:
                    link.close("bye")
            if self.leaving:
                return
        raise ConnectFailed(f"cannot connect to {target}: {'; '.join(failures) or 'no address to dial'}")

    def _target(self) -> Target:
        target = parse_target(self.candidate.uri)
        return replace(target, webtransport=False) if self._settings.raw_quic else target

    async def _quic(self, target: Target) -> QuicSettings:
        settings, trust = self._settings, self._settings.trust
        pin = trust.pinned_sha256 or self.candidate.certificate_sha256
        said = trust.authorities_pem is not None or not trust.verify
        if pin is None and not said and is_loopback(target.host):
            # A relay in development: what it says of itself is as good as what the loopback interface says.
            pin = await ask_fingerprint(target, settings.patience.answer_s)
        return QuicSettings(
            protocols=settings.protocols,
            trust=replace(trust, pinned_sha256=pin) if pin is not None else trust,
            limits=Limits(idle_timeout_s=settings.idle_timeout_s),
            keep_alive_s=settings.keep_alive_s,
            ack_delay_s=ACK_DELAY_S,
        )

    async def _use(self, link: Link) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_opened, link)
            nursery.start_soon(self._tell_goaway, link)
            nursery.start_soon(self._play, link)
            await link.ended.wait()
            nursery.cancel_scope.cancel()

    async def _tell_opened(self, link: Link) -> None:
        await link.opened.wait()
        if not link.lost:
            self.opened_at = trio.current_time()
            self._host.wake()

    async def _tell_goaway(self, link: Link) -> None:
        await link.moving.wait()
        self._host.wake()

    # --- What is read -------------------------------------------------------------------------------------------------

    async def _play(self, link: Link) -> None:
        await self._playing.wait()
        pause = self.first_pause_s
        while not link.lost:
            began = trio.current_time()
            try:
                await self._read_once(link)
            except LinkLost:
                return
            except RequestFailed as error:
                self.refused = str(error)
                self._host.wake()
            pause = self.first_pause_s if trio.current_time() - began > CATALOG_S else pause
            await trio.sleep(pause)
            pause = min(2 * pause, self.longest_pause_s)

    async def _read_once(self, link: Link) -> None:
        """Read tracks until they are others. Raises RequestFailed, LinkLost."""
        host = self._host
        if not host.names:
            host.names = await self._find_tracks(link)
        names = host.names
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(self._follow, link, name, nursery.cancel_scope)
        if host.names == names and not link.lost:
            host.names = ()

    async def _find_tracks(self, link: Link) -> tuple[str, ...]:
        """Read whichever of the two catalogues comes first. Raises RequestFailed."""
        found: list[str] = []
        failures: list[RequestFailed] = []

        async def read(name: bytes, decode: Callable[[bytes], Broadcast], scope: trio.CancelScope) -> None:
            subscription = Subscription(self, self._full_name(name), Join.CURRENT_GROUP, None)
            try:
                await subscription.open(link)
                async for item in subscription:
                    try:
                        chosen = self._host.choose(decode(item.payload))
                    except CatalogError:
                        continue
                    if chosen and not found:
                        found.extend(chosen)
                        scope.cancel()
                        return
            except RequestFailed as error:
                failures.append(error)
            except LinkLost:
                pass
            finally:
                subscription.cancel()

        with trio.move_on_after(CATALOG_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, MSF_TRACK, MsfReader().receive, nursery.cancel_scope)
                nursery.start_soon(read, HANG_TRACK, decode_hang, nursery.cancel_scope)
        if not found:
            raise failures[0] if failures else RequestFailed(0, "no catalogue came")
        return tuple(found)

    async def _follow(self, link: Link, name: str, others: trio.CancelScope) -> None:
        """Read one track, again and again where a subscription ends and the track does not; else end `others` too."""
        pause = self.first_pause_s
        refusals = 0
        while not link.lost:
            inbox = _Inbox(self, self._host, name)
            request = None
            try:
                request = await self._subscribe(link, name, inbox)
                self.refused, pause, refusals = "", self.first_pause_s, 0
                await inbox.over.wait()
                request = None
            except RequestFailed as error:
                self.refused = str(error)
                self._host.wake()
                refusals += 1
            except LinkLost:
                return
            finally:
                if request is not None and not link.lost:
                    link.cancel(request)
            if refusals > _REFUSALS_BORNE or (inbox.status is not None and inbox.status not in _AGAIN):
                others.cancel()
                return
            await trio.sleep(pause)
            pause = min(2 * pause, self.longest_pause_s)

    async def _subscribe(self, link: Link, name: str, inbox: _Inbox) -> int:
        """Subscribe from where we stopped. Raises RequestFailed, LinkLost."""
        track, continuity = self._full_name(name.encode()), inbox.continuity
        resume = continuity.resume()
        if inbox.last_at is not None and trio.current_time() - inbox.last_at > CATCH_UP_S:
            resume = None
        past = CURRENT_GROUP if resume is None else LocationFilter(FilterKind.ABSOLUTE, start=resume)

        def subscribe(session: Session) -> int | None:
            fill = Fill(filter=past) if session.profile.fill else None
            wait_ms = self._settings.rendezvous_ms
            return session.subscribe(track, Parameters(filter=NEXT_OBJECT, fill=fill, rendezvous_timeout_ms=wait_ms))

        request, accepted = await link.ask(subscribe, inbox)
        assert isinstance(accepted, e.SubscribeAccepted)
        largest = accepted.parameters.largest
        session = link.session
        if largest is None or session is None:
            return request
        inbox.cover(largest.group if resume is None else resume.group, largest)
        if resume is None:
            continuity.begin(Location(largest.group, 0))
        if not session.profile.fill and session.profile.joining_fetch and (resume is None or resume <= largest):
            back = min(largest.group - resume.group, MAX_JOINING_GROUPS) if resume is not None else 0
            link.send(lambda s: s.fetch(track, NEXT_OBJECT, joining=request, joining_groups=back), inbox)
        return request

    def _full_name(self, name: bytes) -> FullTrackName:
        path = urlsplit(self.candidate.uri).path
        return FullTrackName(beneath(self._settings.namespace, path), name)


class _Inbox:
    """Takes what comes for one subscription; see `exchange.Inbox`."""

    __slots__ = ("_asked", "_host", "_is_filled", "_name", "_visit", "continuity", "over", "status")

    def __init__(self, visit: Visit, host: Host, name: str) -> None:
        self.continuity = host.continuity(name)
        self.over = trio.Event()
        self.status: int | None = None
        self._asked: tuple[int, Location] | None = None
        """What the fill is to bring: from which group on, and up to where."""
        self._is_filled = False
        self._visit = visit
        self._host = host
        self._name = name

    @property
    def last_at(self) -> float | None:
        """When the last object of the track came, over whichever connection."""
        return self.continuity.last_at

    def cover(self, first_group: int, last: Location) -> None:
        """Say what the fill brings; it may be here already."""
        self._asked = first_group, last
        self._tell_fill()

    def _tell_fill(self) -> None:
        if self._is_filled and self._asked is not None:
            self.continuity.fill(*self._asked)

    def put(self, arrival: Arrival) -> None:
        if isinstance(arrival, GroupEnded):
            self.continuity.end_group(arrival.group)
            self._host.receive_group_end(self._name, arrival.group)
        elif isinstance(arrival, FetchEnded):
            if arrival.code is None and arrival.whole:
                self._is_filled = True
                self._tell_fill()
        elif isinstance(arrival, ReceivedObject) and arrival.status is ObjectStatus.NORMAL:
            fresh = self.continuity.receive(arrival.location, arrival.received)
            self._visit.note(self._name, arrival.received, fresh=fresh)
            self._host.receive_object(self._visit, self._name, arrival, fresh=fresh)

    def done(self, status: int | None, reason: str) -> None:
        self.status = status
        self.over.set()
