"""A client of a relay: publish, subscribe, fetch. An EDGE file; what applications use.

    async with connect("moqt://127.0.0.1:4433/") as client:
        publication = client.publication((b"live", b"demo"))
        track = publication.track(b"chat")
        await client.publish_namespace(publication)
        track.write(group=1, object_id=0, payload=b"hello")

A client outlives its connections. When one is lost it dials again, with growing pauses, announces its namespaces again
and subscribes again; when the relay sends GOAWAY it moves before it leaves. Publications and subscriptions go on.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum

import trio

from tradewind.client.dialing import ConnectFailed, ask_fingerprint, resolve
from tradewind.client.exchange import LinkLost, RequestFailed
from tradewind.client.link import Link
from tradewind.client.receiving import FetchEnded, ReceivedObject
from tradewind.client.subscription import Join, Mailbox, Subscription
from tradewind.client.target import Target, TargetError, parse_target
from tradewind.client.tracks import Publication
from tradewind.moqt import events as e
from tradewind.moqt.model import (
    FilterKind,
    FullTrackName,
    Location,
    LocationFilter,
    Namespace,
)
from tradewind.moqt.profiles import NATIVE_ORDER
from tradewind.moqt.session import SessionSettings
from tradewind.quic.config import Limits, QuicSettings, ServerTrust


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How a client connects."""

    protocols: tuple[str, ...] = NATIVE_ORDER
    """Drafts to offer, by name, in order of preference."""
    trust: ServerTrust = ServerTrust()
    connect_timeout_s: float = 3.0
    """For each address of the relay."""
    idle_timeout_s: float = 12.0
    """A relay from which nothing came for so long is gone."""
    keep_alive_s: float = 4.0
    reconnect: bool = True
    first_pause_s: float = 0.25
    longest_pause_s: float = 5.0
    drain_s: float = 5.0
    """How long the old connection may take to finish after a GOAWAY without a time of its own."""
    rendezvous_ms: int = 10_000
    """How long a relay should wait for a publisher that is not there yet, where the draft can say so."""
    session: SessionSettings = SessionSettings()
    source: str | None = None
    """The local address that datagrams leave from; None: whichever the system takes."""


DEFAULT_SETTINGS = ClientSettings()
_RETIRE_POLL_S = 0.05


class State(Enum):
    """What became of a client's connection."""

    CONNECTED = "connected"
    LOST = "lost"
    MOVING = "moving"


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    others: Sequence[str] = (),
    settings: ClientSettings = DEFAULT_SETTINGS,
    report: Callable[[State, str], None] | None = None,
) -> AsyncIterator[Client]:
    """Connect to a relay and stay connected until the block ends.

    `url`: moqt:// for raw QUIC, https:// for WebTransport, http:// for a relay in development, whose certificate's
    digest is asked for and pinned. `token` is an access token (JWT). `others` are relays of the same mesh, as URLs with
    the same path: when this one is gone they are dialled in turn. `report` is told what becomes of the connection.

    Raises ConnectFailed where the first attempt fails and TargetError for a URL that is none; later ones go on until
    they succeed, unless `settings.reconnect` is off: then the client's calls raise LinkLost.
    """
    targets = tuple(parse_target(one, token) for one in (url, *others))
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        client = Client(targets, settings, report, nursery)
        try:
            await client._start()
            yield client
        except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery, which would wrap it
            failure = error
        finally:
            with trio.CancelScope(shield=True):
                await client._stop()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class Client:
    """What `connect` gives. All methods may be called from any task."""

    def __init__(
        self,
        targets: Sequence[Target],
        settings: ClientSettings,
        report: Callable[[State, str], None] | None,
        nursery: trio.Nursery,
    ) -> None:
        self.target = targets[0]
        self.settings = settings
        self._targets = tuple(targets)
        self._report_to = report
        self._reported = (State.CONNECTED, "")
        self._nursery = nursery
        self._links: list[Link] = []
        """The one in use last; before it those that are being drained."""
        self._open: set[Link] = set()
        """Every link whose task runs, also those being dialled."""
        self._publications: dict[Namespace, Publication] = {}
        self._announced: dict[tuple[Link, Namespace], int] = {}
        self._subscriptions: list[Subscription] = []
        self._stopping = False
        self.reconnects = settings.reconnect
        self.rendezvous_ms = settings.rendezvous_ms
        self.first_pause_s = settings.first_pause_s
        self.longest_pause_s = settings.longest_pause_s

    @property
    def protocol(self) -> str:
        """The draft spoken now, e.g. "moqt-20"; empty while not connected."""
        link = self._current()
        return link.session.profile.name if link is not None and link.session is not None else ""

    @property
    def rtt_s(self) -> float:
        """Smoothed round-trip time to the relay; 0 while it is not known."""
        link = self._current()
        return link.rtt_s() if link is not None else 0.0

    @property
    def publications(self) -> tuple[Publication, ...]:
        return tuple(self._publications.values())

    def publication(self, namespace: Namespace) -> Publication:
        """Make a publication, to give it its tracks before `publish_namespace` announces it."""
        return Publication(namespace, self.flush)

    async def publish_namespace(self, what: Namespace | Publication) -> Publication:
        """Announce a namespace (PUBLISH_NAMESPACE); its tracks are served from now on.

        Subscribers who wait for a track ask for it at once, so give a `publication` its tracks first; what is not
        there when they ask is refused. Raises RequestFailed, LinkLost.
        """
        publication = what if isinstance(what, Publication) else self.publication(what)
        link = self._require()
        if self._publications.setdefault(publication.namespace, publication) is not publication:
            raise ValueError(f"{publication.namespace!r} is published already")
        try:
            await self._announce(link, publication.namespace)
        except RequestFailed:
            del self._publications[publication.namespace]
            raise
        return publication

    def withdraw(self, publication: Publication) -> None:
        """Take a namespace back; its subscriptions end when their tracks do."""
        self._publications.pop(publication.namespace, None)
        for link in self._links:
            request = self._announced.pop((link, publication.namespace), None)
            if request is not None:
                link.cancel(request)

    async def subscribe(
        self,
        track: FullTrackName,
        *,
        join: Join = Join.CURRENT_GROUP,
        priority: int | None = None,
        wait_s: float = 0.0,
    ) -> Subscription:
        """Subscribe to a track. Raises RequestFailed, or LinkLost.

        `wait_s`: go on asking for so long while the relay does not know the track.
        """
        subscription = Subscription(self, track, join, priority)
        deadline = trio.current_time() + wait_s
        while True:
            try:
                await subscription.open(self._require())
            except RequestFailed:
                if trio.current_time() >= deadline:
                    raise
            else:
                self._subscriptions.append(subscription)
                return subscription
            await trio.sleep(self.first_pause_s)

    async def fetch(self, track: FullTrackName, start: Location, end: Location | None = None) -> list[ReceivedObject]:
        """Objects that were published already, from `start` to `end` inclusive, or to the newest.

        Raises RequestFailed, LinkLost, and RequestFailed too where the answer breaks off.
        """
        link = self._require()
        inbox = Mailbox()
        wanted = LocationFilter(FilterKind.ABSOLUTE, start=start)
        if end is not None:
            wanted = replace(wanted, end_group=end.group, end_object=end.object)
        await link.ask(lambda session: session.fetch(track, wanted), inbox)
        objects = []
        while (arrival := await inbox.get()) is not None:
            if isinstance(arrival, ReceivedObject):
                objects.append(arrival)
            elif isinstance(arrival, FetchEnded):
                if arrival.code is not None:
                    raise RequestFailed(arrival.code, "the fetch broke off")
                return objects
        raise LinkLost(link.lost or inbox.reason)

    async def watch_namespaces(
        self, prefix: Namespace
    ) -> trio.MemoryReceiveChannel[e.NamespaceFound | e.NamespaceGone]:
        """Learn of namespaces under a prefix, for as long as this connection lasts. Raises RequestFailed, LinkLost."""
        link = self._require()
        sender, receiver = trio.open_memory_channel[e.NamespaceFound | e.NamespaceGone](1024)

        def found(event: e.NamespaceFound | e.NamespaceGone) -> None:
            with suppress(trio.WouldBlock, trio.BrokenResourceError):
                sender.send_nowait(event)

        link.found = found
        await link.ask(lambda session: session.subscribe_namespace(prefix))
        return receiver

    def flush(self) -> None:
        """Send now what was written; publications call it themselves."""
        for link in self._links:
            link.flush()

    async def drain(self, timeout_s: float = 5.0) -> bool:
        """Wait until the relay has everything that was written and every ended track's end; False: it took too long."""
        with trio.move_on_after(timeout_s):
            while not all(link.is_idle() for link in self._links):
                self.flush()
                await trio.sleep(0.01)
            return True
        return False

    def _report(self, state: State, words: str) -> None:
        """Tell the owner, once: a relay that is gone is dialled in vain many times."""
        if self._report_to is not None and (state, words) != self._reported:
            self._report_to(state, words)
        self._reported = (state, words)

    # --- What subscriptions ask ---------------------------------------------------------------------------------------

    def release(self, subscription: Subscription) -> None:
        """Forget a subscription that is over."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def reopen(self, subscription: Subscription, link: Link) -> None:
        """Subscribe again, in a task of its own."""
        self._nursery.start_soon(subscription.reopen, link)

    # --- Connections --------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        failures = []
        for target in self._targets:
            try:
                link = await self._dial(target)
            except ConnectFailed as failure:
                failures.append(failure)
                continue
            self._links.append(link)
            self._nursery.start_soon(self._stay_connected, link)
            return
        raise failures[0]

    async def _stop(self) -> None:
        self._stopping = True
        for link in tuple(self._open):
            link.close("bye")
            await link.ended.wait()

    async def _dial(self, target: Target) -> Link:
        """Connect to the first address of a target that answers. Raises ConnectFailed."""
        trust = self.settings.trust
        if target.fingerprint_url:
            trust = replace(trust, pinned_sha256=await ask_fingerprint(target, self.settings.connect_timeout_s))
        quic = QuicSettings(
            protocols=self.settings.protocols,
            trust=trust,
            limits=Limits(idle_timeout_s=self.settings.idle_timeout_s),
            keep_alive_s=self.settings.keep_alive_s,
        )
        failures = []
        for address in await resolve(target):
            where = f"{address[0]} port {address[1]}"
            try:
                link = Link(
                    target,
                    address,
                    quic,
                    self.settings.protocols,
                    lambda: self.publications,
                    self.settings.session,
                    self.settings.source,
                )
            except OSError as error:
                failures.append(f"{where}: {error}")
                continue
            self._open.add(link)
            self._nursery.start_soon(self._run, link)
            with trio.move_on_after(self.settings.connect_timeout_s):
                await link.opened.wait()
            if link.opened.is_set() and not link.lost:
                self._report(State.CONNECTED, f"{target} ({link.session.profile.name if link.session else ''})")
                return link
            why = link.lost or f"no answer over UDP within {self.settings.connect_timeout_s:g} s"
            failures.append(f"{where}: {why}")
            link.close()
        raise ConnectFailed(f"cannot connect to {target}: " + "; ".join(failures))

    async def _run(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            self._open.discard(link)

    async def _stay_connected(self, link: Link) -> None:
        while True:
            await link.moving.wait()
            if self._stopping:
                return
            targets = self._following(link.target)
            if link.goaway is not None and not link.lost:
                if link.goaway.uri:
                    targets = (self._moved_to(link.goaway, link.target), *targets)
                self._report(State.MOVING, f"to {targets[0]}")
                self._nursery.start_soon(self._retire, link)
            else:
                self._report(State.LOST, link.lost)
                self._drop(link)
                if not self.settings.reconnect:
                    return
            following = await self._dial_until_it_works(targets)
            self._links.append(following)
            await self._move_to(following)
            link = following

    @staticmethod
    def _moved_to(goaway: e.GoawayReceived, target: Target) -> Target:
        if not goaway.uri:
            return target
        try:
            return parse_target(goaway.uri)
        except TargetError:
            return target

    def _following(self, target: Target) -> tuple[Target, ...]:
        """Who is dialled when `target` is gone: the relays after it in the list, and then it again."""
        if target not in self._targets:
            return (target, *self._targets)
        at = self._targets.index(target) + 1
        return self._targets[at:] + self._targets[:at]

    async def _dial_until_it_works(self, targets: Sequence[Target]) -> Link:
        pause = self.settings.first_pause_s
        while True:
            for target in dict.fromkeys(targets):
                try:
                    return await self._dial(target)
                except ConnectFailed as failure:
                    self._report(State.LOST, str(failure))
            # Relays that restart are dialled by everybody at once: spread them.
            await trio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, self.settings.longest_pause_s)

    async def _move_to(self, link: Link) -> None:
        """Make on a new link what there was on the old one."""
        with suppress(LinkLost):
            for namespace, publication in list(self._publications.items()):
                publication.moving()
                with suppress(RequestFailed):
                    await self._announce(link, namespace)
            for subscription in list(self._subscriptions):
                self.reopen(subscription, link)

    async def _retire(self, link: Link) -> None:
        """Let a link that the relay wants gone finish what others still read from it, then close it."""
        assert link.goaway is not None
        patience = link.goaway.timeout_ms / 1000 or self.settings.drain_s
        with trio.move_on_after(patience):
            # Until the new link serves, the old one is all there is.
            while not link.lost and (self._links[-1] is link or self._is_needed(link)):  # noqa: ASYNC110 - many have a say
                await trio.sleep(_RETIRE_POLL_S)
        link.close("moved")
        self._drop(link)

    def _is_needed(self, link: Link) -> bool:
        """Whether anybody still reads from a link, or has not found what they read on the new one."""
        served = link.serving is not None and link.serving.statistics().subscriptions
        return bool(served) or any(subscription.is_on(link) for subscription in self._subscriptions)

    def _drop(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)
        self._announced = {key: request for key, request in self._announced.items() if key[0] is not link}

    async def _announce(self, link: Link, namespace: Namespace) -> None:
        request, _ = await link.ask(lambda session: session.publish_namespace(namespace))
        self._announced[link, namespace] = request
        if link.serving is not None:
            link.serving.announce(namespace)
            link.flush()

    def _current(self) -> Link | None:
        return next((link for link in reversed(self._links) if not link.lost), None)

    def _require(self) -> Link:
        link = self._current()
        if link is None:
            raise LinkLost("not connected to the relay")
        return link


__all__ = [
    "Client",
    "ClientSettings",
    "ConnectFailed",
    "Join",
    "LinkLost",
    "RequestFailed",
    "State",
    "Subscription",
    "TargetError",
    "connect",
]
