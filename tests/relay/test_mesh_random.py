"""Anything that publishers, subscribers and relays may do, in any order: nothing breaks, and nothing is left of it.

Every invariant of every relay is looked at after every turn; see `tests.sim.relay`.
"""

from __future__ import annotations

from random import Random

import pytest

from relay.forwarding.book import Standing
from tests.sim.client import NAMESPACE, Client, Served
from tests.sim.mesh import Mesh
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode
from tradewind.moqt.model import NO_FILTER, FilterKind, FullTrackName, Location, LocationFilter, Parameters

NAMES = ("fra", "hkg", "sin")
SPACES = (NAMESPACE, (*NAMESPACE, b"deeper"), (b"other",))
TRACKS = tuple(FullTrackName(space, name) for space in SPACES for name in (b"video", b"audio"))
CODES = [code for code in RequestCode if code is not RequestCode.REDIRECT]
STEPS = 60
REQUESTS = ("subscribe", "fetch", "join", "track_status", "subscribe_namespace", "subscribe_tracks", "cancel", "update")


class Chaos:
    """A mesh of three, and whoever comes to it by chance."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.mesh = Mesh(NAMES)
        self.clients: list[Client] = []
        self.requests: list[tuple[Client, int]] = []
        self.shows: list[Served] = []
        self.groups = 0

    def step(self) -> None:
        chance = self.random
        self.clients = [client for client in self.clients if client.is_open]
        does = chance.choice((self.come, self.publish, self.ask, self.ask, self.ask, self.send, self.send, self.end))
        does()
        self.mesh.run(chance.choice((0.0, 0.0, 0.02, 0.3, 1.5)))

    def come(self) -> Client:
        if len(self.clients) > 12:
            return self.random.choice(self.clients)
        client = self.mesh.client(self.random.choice(NAMES), self.random.choice((16, 18, 20, 22)))
        if self.random.random() < 0.8:
            client.on_event = lambda event: self.answer(client, event)
        self.clients.append(client)
        return client

    def answer(self, client: Client, event: e.Event) -> None:
        """What a client says to what a relay asks of it."""
        if isinstance(event, e.PublishRequested):
            if self.random.random() < 0.7:
                client.do("accept", event.request, Parameters(forward=self.random.random() < 0.7))
            else:
                client.do("reject", event.request, RequestCode.UNINTERESTED, "")
        elif isinstance(event, e.SubscribeRequested) and event.track not in client._served:
            client.do("reject", event.request, self.random.choice(CODES), "")
        elif isinstance(event, e.FetchRequested | e.TrackStatusRequested):
            client.do("reject", event.request, RequestCode.DOES_NOT_EXIST, "")

    def publish(self) -> None:
        client, track = self.come(), self.random.choice(TRACKS)
        if self.random.random() < 0.5:
            self.shows.append(client.serve(track))
            self.requests.append((client, client.announce(track.namespace)))
        elif track not in client._served:
            served = client.serve(track)
            self.shows.append(served)
            self.requests.append((client, client.ask("publish", track, served.alias)))

    def ask(self) -> None:
        chance, track, verb = self.random, self.random.choice(TRACKS), self.random.choice(REQUESTS)
        if verb in ("cancel", "update", "join"):
            open_ones = [(client, request) for client, request in self.requests if client.is_open]
            if not open_ones:
                return
            client, request = chance.choice(open_ones)
            if verb == "cancel":
                client.do("cancel", request)
                self.requests.remove((client, request))
            elif verb == "update":
                client.do("update", request, Parameters(forward=chance.random() < 0.5))
            elif client.session.profile.draft <= 18:
                client.do("fetch", track, NO_FILTER, joining=request, joining_groups=1)
            return
        client = self.come()
        prefix = chance.choice((*SPACES, ()))
        wish = Parameters(forward=chance.random() < 0.8, rendezvous_timeout_ms=chance.choice((0, 900)))
        past = LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=self.groups, end_object=1)
        arguments: dict[str, tuple[object, ...]] = {
            "subscribe": (track, wish),
            "fetch": (track, past),
            "track_status": (track,),
            "subscribe_namespace": (prefix,),
            "subscribe_tracks": (prefix, Parameters(forward=wish.forward)),
        }
        request = client.do(verb, *arguments[verb])
        if request is not None and verb != "track_status":
            self.requests.append((client, request))

    def send(self) -> None:
        self.groups += 1
        for show in self.shows:
            if show.client.is_open and self.random.random() < 0.7:
                show.group(self.groups, [b"%d" % self.groups] * 3)

    def end(self) -> None:
        if not self.clients:
            return
        client, chance = self.random.choice(self.clients), self.random.random()
        if chance < 0.4:
            client.close()
        elif chance < 0.6:
            client.vanish()
            self.clients.remove(client)
        elif chance < 0.8:
            for show in self.shows:
                if show.client is client:
                    show.done(DoneCode.TRACK_ENDED, None)
        else:
            at, by = self.random.sample(NAMES, 2)
            self.mesh.grade(at, by, self.random.choice(list(Standing)))


@pytest.mark.parametrize("seed", range(12))
def test_nothing_breaks_and_nothing_is_left(seed: int) -> None:
    chaos = Chaos(seed)
    for _ in range(STEPS):
        chaos.step()
    for client in chaos.clients:
        if client.is_open:
            client.close()
    # Who has vanished is found out within a minute, and may come back for five seconds more.
    chaos.mesh.run(75.0)
    for name in NAMES:
        node = chaos.mesh.node(name)
        held = node.forwarder.statistics()
        assert (held.tracks, held.subscriptions, held.upstream_subscriptions, held.namespaces) == (0, 0, 0, 0)
        assert not node.forwarder.origins()
        assert all(not member.requests for member in node.forwarder._book.members.values())
