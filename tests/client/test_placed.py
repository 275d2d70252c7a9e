"""A placed viewer between relays that die, leave and fall silent, over real sockets, with an answerer of ours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from random import Random
from typing import Any
from urllib.parse import parse_qs

import pytest
import trio
from trio.testing import MockClock

from tests.client.relay_beside import RelayBeside
from tests.client.test_connect import NAMESPACE, TRUST, settings
from tradewind.client.catalog import MSF_TRACK, encode_msf
from tradewind.client.choices import Patience
from tradewind.client.connect import connect
from tradewind.client.fmp4 import Kind
from tradewind.client.media import Broadcast, Rendition
from tradewind.client.placed import Change, PlacedSettings, PlacedViewer
from tradewind.client.receiving import ReceivedObject
from tradewind.client.tracks import TrackWriter
from tradewind.http1 import HttpServer, Request, Response
from tradewind.moqt.model import Location

GROUP_OBJECTS = 25
BETWEEN_S = 0.01
QUICK = Patience(
    stall_s=0.2,
    jitter_s=0.02,
    leave_jitter_s=0.05,
    hedge_s=0.3,
    start_s=0.5,
    backoff_first_s=0.05,
    backoff_most_s=0.2,
    connect_s=1.0,
    ask_hedge_s=0.1,
    answer_s=1.0,
)
pytestmark = pytest.mark.filterwarnings("error")


@dataclass
class Town:
    """Relays that all have the same show, each from a connection of the publisher's own, and who answers."""

    nursery: trio.Nursery
    relays: dict[str, RelayBeside] = field(default_factory=dict)
    tracks: dict[str, TrackWriter] = field(default_factory=dict)
    written: list[Location] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    """What is answered: names of relays, best first."""
    status: HTTPStatus = HTTPStatus.OK
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    control: str = ""
    pause: bool = False

    async def answer(self, request: Request) -> Response:
        assert request.path.startswith("/v1/place")
        self.asked.append(parse_qs(request.query))
        if self.status is not HTTPStatus.OK:
            return Response(b'{"reason": "because", "retry_s": 0.1}', self.status)
        listed = [
            {"id": name, "uri": f"https://127.0.0.1:{self.relays[name].port}/?jwt=T", "prio": number}
            for number, name in enumerate(self.order)
        ]
        return Response(json.dumps({"version": 1, "ttl": 30, "candidates": listed, "probe": {"n": 3}}).encode())

    async def publish(self, name: str, *, task_status: trio.TaskStatus[None]) -> None:
        """A relay, and the publisher's connection to it."""
        relay = self.relays[name] = RelayBeside()
        self.nursery.start_soon(relay.run)
        async with connect(relay.quic_url, settings=settings(reconnect=False)) as client:
            publication = client.publication(NAMESPACE)
            catalog = publication.track(MSF_TRACK)
            self.tracks[name] = publication.track(b"video")
            await client.publish_namespace(publication)
            picture = Rendition("video", Kind.VIDEO, "avc1.42c01f", width=320, height=180, timescale=1000)
            catalog.write(1, 0, encode_msf(Broadcast((picture,)), 0))
            self.order.append(name)
            task_status.started()
            await trio.sleep_forever()

    async def play(self) -> None:
        """One object every so often, to every relay that is there."""
        number = 0
        while True:
            if not self.pause:
                group, item = divmod(number, GROUP_OBJECTS)
                location = Location(100 + group, item)
                self.written.append(location)
                for name, track in self.tracks.items():
                    if not self.relays[name].stopped:
                        track.write(*location, payload=b"%d" % number)
                number += 1
            await trio.sleep(BETWEEN_S)


@asynccontextmanager
async def town(*names: str, show: bool = True) -> AsyncIterator[Town]:
    """Relays with a show and an answerer; the test is over after ten seconds."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            made = Town(nursery)
            for name in names:
                await nursery.start(made.publish, name)
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            made.control = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
            nursery.start_soon(HttpServer(made.answer).serve, [listener])
            if show:
                nursery.start_soon(made.play)
            try:
                yield made
            finally:
                for relay in made.relays.values():
                    relay.stop()
                nursery.cancel_scope.cancel()


class Viewer:
    """A placed viewer, and what it was told."""

    def __init__(self, town: Town, *control: str, **changes: Any) -> None:
        self.objects: list[tuple[str, Location]] = []
        self.changes: list[Change] = []
        self._news = trio.Event()
        asked = control or (town.control,)
        wanted = {"trust": TRUST, "patience": QUICK, "viewer": "viewer-1", **changes}
        self.placed = PlacedViewer(
            PlacedSettings(asked, "live/demo", "T", **wanted),
            lambda broadcast: [rendition.name for rendition in broadcast.renditions],
            self._take,
            self._note,
            dice=Random(1),
        )
        self.town = town
        town.nursery.start_soon(self.placed.run)

    def _take(self, relay: str, track: str, item: ReceivedObject) -> None:
        assert track == "video"
        self.objects.append((relay, item.location))
        self._wake()

    def _note(self, change: Change) -> None:
        self.changes.append(change)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def until(self, found: Callable[[], object]) -> None:
        while not found():
            await self._news.wait()

    async def plays_at(self, relay: str, count: int = 25) -> None:
        """Until it is there and had some objects."""
        await self.until(
            lambda: self.changes and (self.changes[-1].state, self.changes[-1].relay) == ("playing", relay)
        )
        target = len(self.objects) + count
        await self.until(lambda: len(self.objects) >= target)

    @property
    def state(self) -> str:
        return self.changes[-1].state if self.changes else ""

    def story(self) -> list[tuple[str, str, str]]:
        return [(change.state, change.relay, change.reason) for change in self.changes]

    def check_whole(self) -> None:
        """Every object that was published since this viewer began came once."""
        got = [location for _, location in self.objects]
        assert len(got) == len(set(got)), "twice"
        begun = self.town.written.index(min(got))
        wanted = self.town.written[begun : self.town.written.index(max(got)) + 1]
        assert sorted(got) == wanted
        assert min(got).object == 0, "it begins where a decoder can"


async def left(relay: RelayBeside) -> None:
    """Until the publisher alone is there."""
    while len(relay.node.attachments) > 1:  # noqa: ASYNC110 - relays tell nobody
        await trio.sleep(0.01)


# --- Beginning ---


@pytest.mark.parametrize("raw_quic", [True, False])
async def test_it_goes_to_the_best_that_answers(raw_quic: bool, autojump_clock: MockClock) -> None:
    async with town("a", "b") as made:
        viewer = Viewer(made, raw_quic=raw_quic)
        await viewer.plays_at("a")
        viewer.check_whole()
        assert viewer.story() == [("asking", "", "first"), ("playing", "a", "first")]
        assert made.asked[0]["viewer"] == ["viewer-1"] and made.asked[0]["jwt"] == ["T"]
        assert viewer.placed.visit is not None and viewer.placed.visit.protocol == "moqt-22"
        await left(made.relays["b"])


async def test_the_first_relay_does_not_answer(autojump_clock: MockClock) -> None:
    async with town("a", "b") as made:
        made.relays["a"].stop()
        viewer = Viewer(made)
        await viewer.plays_at("b")
        viewer.check_whole()


async def test_nobody_is_to_be_had_at_first(autojump_clock: MockClock) -> None:
    async with town("a") as made:
        made.status = HTTPStatus.SERVICE_UNAVAILABLE
        viewer = Viewer(made)
        await viewer.until(lambda: ("waiting", "", "because") in viewer.story())
        made.status = HTTPStatus.OK
        await viewer.plays_at("a")
        viewer.check_whole()


async def test_a_refusal_is_final(autojump_clock: MockClock) -> None:
    async with town("a") as made:
        made.status = HTTPStatus.UNAUTHORIZED
        viewer = Viewer(made, made.control, f"{made.control}/v1/place/too")
        await viewer.until(lambda: viewer.state == "refused")
        assert viewer.story()[1:] == [("refused", "", "because")]
        assert len(made.asked) == 1


async def test_the_second_controller_is_asked_beside_a_silent_one(autojump_clock: MockClock) -> None:
    async with town("a") as made:
        (silent,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        patient = replace(QUICK, answer_s=30.0)
        viewer = Viewer(made, f"http://127.0.0.1:{silent.socket.getsockname()[1]}", made.control, patience=patient)
        await viewer.plays_at("a")
        await silent.aclose()


async def test_relays_are_asked_where_controllers_are_gone(autojump_clock: MockClock) -> None:
    async with town("a") as made:
        viewer = Viewer(made)
        await viewer.plays_at("a")
        made.status = HTTPStatus.SERVICE_UNAVAILABLE
        asked: list[str] = []

        async def answer(request: Request) -> Response:
            asked.append(request.path)
            made.status = HTTPStatus.OK
            return await made.answer(request)

        (listener,) = await trio.open_tcp_listeners(made.relays["a"].port, host="127.0.0.1")
        made.nursery.start_soon(HttpServer(answer).serve, [listener])
        viewer.placed.ask_again()
        await viewer.until(lambda: asked)
        assert asked == ["/v1/place"] and made.asked[-1]["here"] == ["a"]


# --- Moving ---


async def test_a_relay_that_dies_costs_no_object(autojump_clock: MockClock) -> None:
    async with town("a", "b") as made:
        viewer = Viewer(made)
        await viewer.plays_at("a")
        made.relays["a"].stop()
        await viewer.plays_at("b")
        viewer.check_whole()
        assert viewer.story()[2:] == [("moving", "b", "stall"), ("playing", "b", "stall")]
        assert viewer.changes[-1].was == "a"
        await viewer.until(lambda: len(made.asked) > 1)
        assert made.asked[1]["failed"] == ["a"] and made.asked[1]["here"] == ["b"]


async def test_a_relay_that_leaves_costs_no_object(autojump_clock: MockClock) -> None:
    async with town("a", "b") as made:
        viewer = Viewer(made)
        await viewer.plays_at("a")
        left_at = made.written[-1]
        made.relays["a"].node.drain(trio.current_time(), 60.0)
        made.relays["a"].act()
        await viewer.plays_at("b")
        viewer.check_whole()
        assert viewer.story()[2:] == [("moving", "b", "goaway"), ("playing", "b", "goaway")]
        from_old = [location for relay, location in viewer.objects if relay == "a"]
        assert max(from_old) > left_at, "it plays on until the new one does"
        await left(made.relays["a"])


async def test_a_relay_that_leaves_is_left_only_for_one_that_delivers(autojump_clock: MockClock) -> None:
    async with town("a", "b", "c") as made:
        del made.tracks["b"]
        viewer = Viewer(made)
        await viewer.plays_at("a")
        made.relays["a"].node.drain(trio.current_time(), 5.0)
        made.relays["a"].act()
        await viewer.plays_at("c")
        viewer.check_whole()
        dialled_b, dialled_c = (change.at for change in viewer.changes if change.state == "moving")
        assert dialled_c - dialled_b > 0.5 * QUICK.start_s
        assert {relay for relay, _ in viewer.objects} == {"a", "c"}
        assert [change.reason for change in viewer.changes[2:]] == ["goaway"] * 3, "nothing stood still"


@pytest.mark.parametrize(("scheme", "goes_to"), [("https", "c"), ("moqt", "c"), ("http", "b")])
async def test_where_goaway_sends_to(scheme: str, goes_to: str, autojump_clock: MockClock) -> None:
    async with town("a", "b", "c") as made:
        made.order.remove("c")
        viewer = Viewer(made)
        await viewer.plays_at("a")
        port = made.relays["c"].port
        made.relays["a"].node.drain(trio.current_time(), 2.0, f"{scheme}://127.0.0.1:{port}/")
        made.relays["a"].act()
        await viewer.plays_at(f"127.0.0.1:{port}" if goes_to == "c" else "b")
        viewer.check_whole()


async def test_the_session_ends(autojump_clock: MockClock) -> None:
    async with town("a", "b") as made:
        viewer = Viewer(made)
        await viewer.plays_at("a")
        made.relays["a"].node.close(trio.current_time())
        made.relays["a"].act()
        await viewer.plays_at("b")
        viewer.check_whole()
        assert viewer.story()[-1] == ("playing", "b", "error")


async def test_two_relays_die_one_after_the_other_and_the_answerers_too(autojump_clock: MockClock) -> None:
    async with town("a", "b", "c") as made:
        viewer = Viewer(made)
        await viewer.plays_at("a")
        made.status = HTTPStatus.BAD_GATEWAY
        made.relays["a"].stop()
        await viewer.plays_at("b", 120)
        made.relays["b"].stop()
        await viewer.plays_at("c")
        viewer.check_whole()


async def test_a_candidate_that_is_gone_as_well(autojump_clock: MockClock) -> None:
    async with town("a", "b", "c") as made:
        viewer = Viewer(made)
        await viewer.plays_at("a")
        made.relays["b"].stop()
        made.relays["a"].stop()
        await viewer.plays_at("c")
        viewer.check_whole()
        assert [change.relay for change in viewer.changes if change.state == "moving"] == ["b", "c"]


async def test_the_last_relay_may_take_its_time(autojump_clock: MockClock) -> None:
    """A handshake that is slower than it takes to dial the next one, where there is no next one."""
    async with town("a", "b") as made:
        viewer = Viewer(made, patience=replace(QUICK, hedge_s=0.01, connect_s=3.0))
        await viewer.plays_at("a")
        held = made.relays["b"]
        held.held = True
        made.relays["a"].stop()
        await viewer.until(lambda: viewer.state == "moving")
        await trio.sleep(0.3)
        held.held = False
        held.act()
        await viewer.plays_at("b")
        viewer.check_whole()
        assert viewer.story()[2:] == [("moving", "b", "stall"), ("playing", "b", "stall")]


async def test_a_relay_that_answers_slowly_is_not_left_for_another(autojump_clock: MockClock) -> None:
    """Its first packet came: whoever dials the next one as well makes a crowd of movers twice as large."""
    async with town("a", "b", "c") as made:
        viewer = Viewer(made, patience=replace(QUICK, start_s=2.0))
        await viewer.plays_at("a")
        slow = made.relays["b"]
        slow.held = True
        made.relays["a"].stop()
        await viewer.until(lambda: viewer.state == "moving")
        await trio.sleep(0.05)
        slow.turn()
        await trio.sleep(2 * QUICK.hedge_s)
        slow.held = False
        await viewer.plays_at("b")
        viewer.check_whole()
        assert viewer.story()[2:] == [("moving", "b", "stall"), ("playing", "b", "stall")]


async def test_an_answer_that_knows_better(autojump_clock: MockClock) -> None:
    async with town("a", "b") as made:
        made.order.reverse()
        viewer = Viewer(made)
        await viewer.plays_at("b")
        made.order.reverse()
        viewer.placed.ask_again()
        await viewer.plays_at("a")
        viewer.check_whole()
        assert viewer.story()[2:] == [("moving", "a", "better"), ("playing", "a", "better")]


# --- Nothing to see ---


async def test_the_old_relay_delivers_first_after_all(autojump_clock: MockClock) -> None:
    async with town("a", "b") as made:
        del made.tracks["b"]
        viewer = Viewer(made)
        await viewer.plays_at("a", 120)
        made.pause = True
        await viewer.until(lambda: viewer.state == "moving")
        made.pause = False
        await viewer.plays_at("a")
        viewer.check_whole()
        assert viewer.story()[2:] == [("moving", "b", "stall"), ("playing", "a", "recovered")]
        viewer.placed.ask_again()
        await viewer.until(lambda: len(made.asked) > 1)
        assert "failed" not in made.asked[-1]


async def test_the_publisher_pauses_and_nobody_is_blamed(autojump_clock: MockClock) -> None:
    """Relays that answer have nothing to show: the viewer stays, and goes on there."""
    async with town("a", "b") as made:
        viewer = Viewer(made, patience=QUICK)
        await viewer.plays_at("a", 120)
        made.pause = True
        await viewer.until(lambda: viewer.state == "waiting")
        made.pause = False
        await viewer.until(lambda: viewer.state == "playing")
        target = len(viewer.objects) + 20
        await viewer.until(lambda: len(viewer.objects) >= target)
        viewer.check_whole()
        assert viewer.story()[2:] == [
            ("moving", "b", "stall"),
            ("waiting", "a", "nothing to see"),
            ("playing", "a", "recovered"),
        ]


async def test_the_show_begins_late(autojump_clock: MockClock) -> None:
    async with town("a", "b", show=False) as made:
        viewer = Viewer(made)
        await viewer.until(lambda: viewer.state == "waiting")
        made.nursery.start_soon(made.play)
        await viewer.until(lambda: len(viewer.objects) > 20)
        viewer.check_whole()
        assert viewer.story()[-1][::2] == ("playing", "first")
