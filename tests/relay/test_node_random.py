"""Clients of every draft that do whatever comes into their heads: nothing breaks, nothing wrong arrives, nothing stays.

Each seed is one story. Publishers of one track agree on its objects, as they must; everything else is left to chance,
errors and silence included. A seed that fails is a bug to be told as a story of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from relay.forwarding.book import ForwardingSettings
from tests.sim.client import Client, Outflow
from tests.sim.network import Weather
from tests.sim.relay import node_settings
from tests.sim.world import World
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, MisuseError, RequestCode
from tradewind.moqt.model import (
    CURRENT_GROUP,
    NEXT_GROUP,
    NEXT_OBJECT,
    NO_FILTER,
    Fill,
    FilterKind,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    Parameters,
)

DRAFTS = (20, 22, 18, 16)
NAMESPACES = [(b"a",), (b"a", b"b"), (b"c",)]
TRACKS = [FullTrackName(namespace, name) for namespace in NAMESPACES for name in (b"v", b"w")]
STEPS = 80


def content(track: FullTrackName, at: Location) -> bytes:
    """What every publisher of a track sends there."""
    size = (at.group * 7 + at.object * 131 + len(track.name)) % 3000
    return b"%s/%d/%d/" % (track.name, at.group, at.object) + bytes(size)


class Actor:
    """One client and what it has under way."""

    def __init__(self, world: World, dice: Random, number: int) -> None:
        self.dice = dice
        self.world = world
        self.number = number
        self.client = self._join()
        self.wanted: dict[int, FullTrackName] = {}
        """Requests of ours for objects, by number."""
        self.feeds: dict[int, tuple[FullTrackName, int]] = {}
        """What we feed: track and alias by request, theirs or ours."""
        self.streams: list[tuple[Outflow, FullTrackName, int]] = []
        self.mine: list[int] = []
        self.next_alias = 1
        self.group = 0

    def _join(self) -> Client:
        draft = self.dice.choice(DRAFTS)
        client = self.world.join(draft, webtransport=self.dice.random() < 0.3)
        client.on_event = self.hear
        return client

    def hear(self, event: e.Event) -> None:
        """Answer what the relay asks, in one way or another."""
        session, dice = self.client.session, self.dice
        mood = dice.random()
        match event:
            case e.SubscribeRequested():
                if mood < 0.7:
                    alias = self.next_alias = self.next_alias + 1
                    self.feeds[event.request] = (event.track, alias)
                    session.accept_subscribe(event.request, alias, Parameters(largest=self._largest()))
                elif mood < 0.85:
                    session.reject(event.request, RequestCode.DOES_NOT_EXIST, "no", None)
            case e.PublishRequested():
                self.wanted[event.request] = event.track
                if mood < 0.7:
                    session.accept(event.request, Parameters(forward=mood < 0.6))
                elif mood < 0.85:
                    session.reject(event.request, RequestCode.UNINTERESTED, "no", None)
            case e.FetchRequested():
                if mood < 0.6:
                    self._answer_fetch(event)
                elif mood < 0.85:
                    session.reject(event.request, RequestCode.DOES_NOT_EXIST, "no", None)
            case e.TrackStatusRequested():
                if mood < 0.6:
                    session.accept(event.request, Parameters(largest=self._largest()))
                elif mood < 0.8:
                    session.reject(event.request, RequestCode.DOES_NOT_EXIST, "no", None)
            case e.UpdateRequested():
                session.accept_update(event.request, event.update)
            case e.RequestCancelled() | e.PublishDone():
                self.feeds.pop(event.request, None)

    def _largest(self) -> Location | None:
        return Location(self.group, 3) if self.group else None

    def _answer_fetch(self, event: e.FetchRequested) -> None:
        session, dice = self.client.session, self.dice
        if event.filter.kind is not FilterKind.ABSOLUTE:
            session.reject(event.request, RequestCode.INVALID_RANGE, "no", None)
            return
        start = event.filter.start
        end = Location(start.group + dice.randrange(3), dice.randrange(5))
        end = max(start, end)
        session.accept_fetch(event.request, end, False)
        if dice.random() < 0.8:
            places = [Location(group, number) for group in range(start.group, end.group + 1) for number in range(4)]
            objects = [(at, content(event.track, at)) for at in places if start <= at <= end]
            self.client.answer_fetch(event.request, objects)

    def act(self) -> None:
        """Do one thing."""
        if not self.client.is_open:
            self.__init__(self.world, self.dice, self.number)  # type: ignore[misc]
            return
        actions: list[Callable[[], object]] = [
            self._announce, self._publish, self._subscribe, self._subscribe, self._fetch, self._status, self._discover,
            self._cancel, self._update, self._media, self._media, self._media, self._finish, self._leave,
        ]  # fmt: skip
        try:
            self.dice.choice(actions)()
        except AssertionError as error:  # No stream may be opened now.
            if "no " not in str(error):
                raise
        self.client.touch()

    def _announce(self) -> None:
        self.mine.append(self.client.announce(self.dice.choice(NAMESPACES)))

    def _publish(self) -> None:
        track = self.dice.choice(TRACKS)
        alias = self.next_alias = self.next_alias + 1
        request = self.client.ask("publish", track, alias, Parameters(forward=self.dice.random() < 0.7))
        self.feeds[request] = (track, alias)
        self.mine.append(request)

    def _subscribe(self) -> None:
        dice, track = self.dice, self.dice.choice(TRACKS)
        chosen = dice.choice([None, NO_FILTER, NEXT_OBJECT, NEXT_GROUP, CURRENT_GROUP, self._range()])
        if self.client.session.profile.draft <= 18 and chosen is CURRENT_GROUP:
            chosen = None
        parameters = Parameters(
            filter=chosen,
            forward=dice.choice([None, True, False]),
            priority=dice.choice([None, 1, 200]),
            order=dice.choice([None, *GroupOrder]),
            fill=dice.choice([None, Fill(), Fill(filter=CURRENT_GROUP, timeout_ms=dice.choice([None, 0, 500]))]),
            rendezvous_timeout_ms=dice.choice([None, 700]),
            object_timeout_ms=dice.choice([None, None, 100]),
            subgroup_timeout_ms=dice.choice([None, None, 100, 10**12]),
            new_group=dice.choice([None, None, 0]),
        )
        request = self.client.ask("subscribe", track, parameters)
        self.wanted[request] = track
        self.mine.append(request)

    def _range(self) -> LocationFilter:
        start = Location(self.dice.randrange(6), self.dice.randrange(4))
        end = self.dice.choice([None, start.group, start.group + 2])
        return LocationFilter(FilterKind.ABSOLUTE, start=start, end_group=end)

    def _fetch(self) -> None:
        dice, track = self.dice, self.dice.choice(TRACKS)
        joined = [request for request, name in self.wanted.items() if request in self.mine]
        if joined and self.client.session.profile.draft <= 18 and dice.random() < 0.5:
            joining = dice.choice(joined)
            request = self.client.ask("fetch", self.wanted[joining], NO_FILTER, joining=joining, joining_groups=1)
            track = self.wanted[joining]
        else:
            parameters = Parameters(order=dice.choice([None, *GroupOrder]), priority=dice.choice([None, 3]))
            request = self.client.ask("fetch", track, self._range(), parameters)
        self.wanted[request] = track
        self.mine.append(request)

    def _status(self) -> None:
        self.client.ask("track_status", self.dice.choice(TRACKS))

    def _discover(self) -> None:
        verb = self.dice.choice(["subscribe_namespace", "subscribe_tracks"])
        self.mine.append(self.client.ask(verb, self.dice.choice([(), *NAMESPACES]), Parameters()))

    def _cancel(self) -> None:
        if self.mine:
            request = self.dice.choice(self.mine)
            self.mine.remove(request)
            self.feeds.pop(request, None)
            self.client.do("cancel", request)

    def _update(self) -> None:
        dice = self.dice
        for request in dice.sample(self.mine, min(2, len(self.mine))):
            parameters = Parameters(
                forward=dice.choice([None, True, False]),
                priority=dice.choice([None, 7]),
                filter=dice.choice([None, None, self._range()]),
                prefix=dice.choice([None, *NAMESPACES]),
                fill=dice.choice([None, Fill()]),
            )
            with suppress(MisuseError):  # Its kind or state has no updates.
                self.client.do("update", request, parameters)

    def _media(self) -> None:
        dice = self.dice
        if self.streams and dice.random() < 0.6:
            stream, track, number = self.streams.pop(dice.randrange(len(self.streams)))
            at = Location(stream.header.group, number)
            stream.object(number, content(track, at))
            if number < 3 and dice.random() < 0.8:
                self.streams.append((stream, track, number + 1))
            elif number == 3:
                stream.fin()
            else:
                stream.reset(0x1)
            return
        if not self.feeds:
            return
        track, alias = self.feeds[dice.choice(list(self.feeds))]
        self.group += dice.random() < 0.5
        if dice.random() < 0.2:
            at = Location(100 + self.group, dice.randrange(4))
            payload = content(track, at)[:900]
            self.client.send_datagram(alias, at, payload)
        else:
            self.streams.append((self.client.open_subgroup(alias, self.group, end_of_group=True), track, 0))

    def _finish(self) -> None:
        if self.feeds and self.dice.random() < 0.5:
            request = self.dice.choice(list(self.feeds))
            del self.feeds[request]
            code = self.dice.choice([DoneCode.TRACK_ENDED, DoneCode.GOING_AWAY])
            with suppress(MisuseError):
                self.client.do("publish_done", request, code, self.dice.choice([0, 1, None]), "")

    def _leave(self) -> None:
        if self.dice.random() < 0.2:
            self.client.close()
            self.streams.clear()

    def check(self) -> None:
        """Whatever came is what was sent."""
        for request, track in self.wanted.items():
            for at, payload in self.client.objects(request):
                assert payload in (content(track, at), content(track, at)[:900])

    def give_up(self) -> None:
        """End everything, without leaving."""
        if self.client.is_open:
            for request in tuple(self.client.session._requests.table):
                self.client.do("cancel", request)
            for stream, _, _ in self.streams:
                stream.reset(0x1)


def play(seed: int, weather: Weather) -> tuple[World, list[Actor]]:
    dice = Random(seed)
    forwarding = ForwardingSettings(linger_s=1.0, answer_timeout_s=1.0)
    world = World(node_settings(forwarding=forwarding), weather=weather, seed=seed)
    actors = [Actor(world, dice, number) for number in range(4)]
    for _ in range(STEPS):
        dice.choice(actors).act()
        world.run(dice.choice([0.0, 0.001, 0.02, 0.3]))
    for actor in actors:
        actor.check()
    return world, actors


def nothing_stays(world: World, actors: list[Actor]) -> None:
    for actor in actors:
        actor.client.on_event = None
        actor.give_up()
    world.run(70.0)
    node: Any = world.node
    for attachment in node.attachments.values():
        assert not attachment.quota or not attachment.quota.counted
        held = attachment.session.statistics()
        assert (held.requests_ours, held.requests_theirs, held.waiting_streams) == (0, 0, 0)
    statistics = node.forwarder.statistics()
    assert (statistics.tracks, statistics.subscriptions, statistics.upstream_subscriptions) == (0, 0, 0)
    assert (statistics.cache_bytes, statistics.namespaces) == (0, 0)
    book = node.forwarder._book
    assert (book.roles, book.waiting, book.retired) == ({}, {}, {})
    assert book.timers.next_deadline() is None
    for actor in actors:
        if actor.client.is_open:
            actor.client.close()
    world.run(40.0)
    assert node.surroundings.limits.statistics().sessions == 0


@pytest.mark.parametrize("seed", range(20))
def test_anything_may_happen(seed: int) -> None:
    nothing_stays(*play(seed, Weather(delay_s=0.005)))


@pytest.mark.parametrize("seed", range(100, 106))
def test_anything_may_happen_on_a_bad_network(seed: int) -> None:
    weather = Weather(delay_s=0.02, jitter_s=0.02, loss=0.05, reorder=0.1, duplicate=0.05)
    nothing_stays(*play(seed, weather))
