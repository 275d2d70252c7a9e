"""The client over real sockets: what it publishes arrives, and it finds its way back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.client.relay_beside import RelayBeside, relay_beside
from tests.quic.certificates import AUTHORITY_PEM
from tradewind.client.connect import (
    Client,
    ClientSettings,
    ConnectFailed,
    Join,
    LinkLost,
    RequestFailed,
    State,
    Subscription,
    connect,
)
from tradewind.client.dialing import parse_fingerprint
from tradewind.client.link import Link
from tradewind.client.target import TargetError, parse_namespace, parse_target
from tradewind.client.tracks import TrackWriter
from tradewind.moqt import events as e
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import FullTrackName, Location
from tradewind.quic.config import QuicSettings, ServerTrust
from tradewind.quic.connection import Connection

NAMESPACE = (b"live", b"demo")
VIDEO = FullTrackName(NAMESPACE, b"video")
TRUST = ServerTrust(authorities_pem=AUTHORITY_PEM)
pytestmark = pytest.mark.filterwarnings("error")


def settings(**changes: Any) -> ClientSettings:
    quick = {"trust": TRUST, "first_pause_s": 0.01, "longest_pause_s": 0.05, "rendezvous_ms": 0}
    return ClientSettings(**{**quick, **changes})


@asynccontextmanager
async def two_clients(url: str, **changes: Any) -> AsyncIterator[tuple[Client, Client]]:
    """A publisher and a subscriber; the test is over after five seconds."""
    with trio.fail_after(5):
        async with (
            connect(url, settings=settings(**changes)) as publisher,
            connect(url, settings=settings(**changes)) as subscriber,
        ):
            yield publisher, subscriber


async def publish(client: Client) -> TrackWriter:
    publication = client.publication(NAMESPACE)
    track = publication.track(b"video")
    await client.publish_namespace(publication)
    return track


async def take(subscription: Subscription, count: int) -> list[tuple[Location, bytes]]:
    return [((item := await anext(subscription)).location, item.payload) for _ in range(count)]


# --- Publish, subscribe, fetch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("webtransport", [False, True])
@pytest.mark.parametrize("protocol", ["moqt-22", "moqt-20", "moqt-18", "moqt-16"])
async def test_what_is_published_arrives(protocol: str, webtransport: bool, autojump_clock: MockClock) -> None:
    async with relay_beside() as relay:
        url = relay.web_url if webtransport else relay.quic_url
        async with two_clients(url, protocols=(protocol,)) as (publisher, subscriber):
            assert publisher.protocol == protocol
            track = await publish(publisher)
            track.write(1, 0, b"old")
            for number in range(3):
                track.write(2, number, bytes([number]) * 3000)
            subscription = await subscriber.subscribe(VIDEO)
            got = await take(subscription, 3)
            assert sorted(got) == [((2, number), bytes([number]) * 3000) for number in range(3)]
            track.write(2, 3, b"new")
            assert await take(subscription, 1) == [((2, 3), b"new")]
            assert await subscriber.fetch(VIDEO, Location(2, 1), Location(2, 2)) != []
            track.finish()
            with pytest.raises(StopAsyncIteration):
                await anext(subscription)
            assert publisher.rtt_s > 0


async def test_joining_later_than_the_current_group(autojump_clock: MockClock) -> None:
    async with relay_beside() as relay, two_clients(relay.quic_url) as (publisher, subscriber):
        track = await publish(publisher)
        track.write(1, 0, b"a")
        first = await subscriber.subscribe(VIDEO, join=Join.NEXT_OBJECT)
        assert first.largest == (1, 0)
        second = await subscriber.subscribe(VIDEO, join=Join.NEXT_GROUP)
        track.write(1, 1, b"b")
        track.write(2, 0, b"c")
        assert await take(first, 2) == [((1, 1), b"b"), ((2, 0), b"c")]
        assert await take(second, 1) == [((2, 0), b"c")]


async def test_subscribers_that_come_first(autojump_clock: MockClock) -> None:
    async with (
        relay_beside() as relay,
        two_clients(relay.quic_url, rendezvous_ms=3000) as (publisher, subscriber),
        trio.open_nursery() as nursery,
    ):

        async def subscribe() -> None:
            subscription = await subscriber.subscribe(VIDEO)
            assert await take(subscription, 1) == [((7, 0), b"x")]

        nursery.start_soon(subscribe)
        await trio.testing.wait_all_tasks_blocked()
        track = await publish(publisher)
        track.write(7, 0, b"x")


async def test_refusals(autojump_clock: MockClock) -> None:
    async with relay_beside() as relay, two_clients(relay.quic_url) as (publisher, subscriber):
        for ask in (subscriber.subscribe(VIDEO), subscriber.fetch(VIDEO, Location(0, 0))):
            with pytest.raises(RequestFailed) as raised:
                await ask
            assert raised.value.code in (RequestCode.DOES_NOT_EXIST, RequestCode.TIMEOUT)
        await publish(publisher)
        with pytest.raises(RequestFailed):
            await subscriber.subscribe(FullTrackName(NAMESPACE, b"nothing"))


async def test_namespaces_come_and_go(autojump_clock: MockClock) -> None:
    async with relay_beside() as relay, two_clients(relay.quic_url) as (publisher, subscriber):
        news = await subscriber.watch_namespaces((b"live",))
        publication = await publisher.publish_namespace(NAMESPACE)
        found = await news.receive()
        assert isinstance(found, e.NamespaceFound)
        assert found.namespace == NAMESPACE
        with pytest.raises(ValueError, match="already"):
            await publisher.publish_namespace(NAMESPACE)
        publisher.withdraw(publication)
        assert isinstance(await news.receive(), e.NamespaceGone)


async def test_cancelling_a_subscription_ends_it(autojump_clock: MockClock) -> None:
    async with relay_beside() as relay, two_clients(relay.quic_url) as (publisher, subscriber):
        track = await publish(publisher)
        subscription = await subscriber.subscribe(VIDEO)
        subscription.cancel()
        track.write(1, 0, b"x")
        assert [item async for item in subscription] == []
        assert subscription.ended == "cancelled"


# --- Coming back --------------------------------------------------------------------------------------------------


async def write_until(track: TrackWriter, stop: trio.Event) -> None:
    """One object of one group every 10 ms: an encoder."""
    group = 1
    while not stop.is_set():
        track.write(group, 0, str(group).encode())
        group += 1
        await trio.sleep(0.01)


async def test_a_relay_that_crashes_and_comes_back(autojump_clock: MockClock) -> None:
    states: list[State] = []
    with trio.fail_after(8):
        async with trio.open_nursery() as nursery:
            relay = RelayBeside()
            nursery.start_soon(relay.run)
            patient = settings(idle_timeout_s=0.4, keep_alive_s=0.1, connect_timeout_s=0.2)
            async with (
                connect(relay.quic_url, settings=patient, report=lambda state, _: states.append(state)) as publisher,
                connect(relay.quic_url, settings=patient) as subscriber,
            ):
                track, stop = await publish(publisher), trio.Event()
                nursery.start_soon(write_until, track, stop)
                subscription = await subscriber.subscribe(VIDEO)
                before = (await take(subscription, 3))[-1][0]
                relay.stop()
                again = RelayBeside(relay.port)
                nursery.start_soon(again.run)
                after = []
                while not after or after[-1].group < before.group + 20:
                    after.append((await anext(subscription)).location)
                assert after == sorted(set(after))
                assert after[0] > before
                assert states == [State.CONNECTED, State.LOST, State.CONNECTED]
                stop.set()
            again.stop()


async def test_who_knows_other_relays_goes_there_when_its_own_is_gone(autojump_clock: MockClock) -> None:
    states: list[State] = []
    patient = settings(idle_timeout_s=0.4, keep_alive_s=0.1, connect_timeout_s=0.2)
    with trio.fail_after(8):
        async with relay_beside() as near, relay_beside() as far, trio.open_nursery() as nursery:
            async with (
                connect(
                    near.quic_url, others=[far.quic_url], settings=patient, report=lambda state, _: states.append(state)
                ) as publisher,
                connect(far.quic_url, settings=patient) as subscriber,
            ):
                track, stop = await publish(publisher), trio.Event()
                nursery.start_soon(write_until, track, stop)
                near.stop()
                await take(await subscriber.subscribe(VIDEO, wait_s=5.0), 3)
                assert states == [State.CONNECTED, State.LOST, State.CONNECTED]
                stop.set()
            async with connect(near.quic_url, others=[far.quic_url], settings=patient) as late:
                assert late.protocol, "the first one may be gone from the start"
    with pytest.raises(ConnectFailed, match=f"port {near.port}"):
        async with connect(near.quic_url, others=[far.quic_url], settings=patient):
            pass


async def test_a_relay_that_asks_to_move_loses_nobody(autojump_clock: MockClock) -> None:
    states: list[State] = []
    async with relay_beside() as old, relay_beside() as new:
        with trio.fail_after(8):
            async with (
                connect(old.quic_url, settings=settings(), report=lambda state, _: states.append(state)) as publisher,
                connect(old.quic_url, settings=settings()) as subscriber,
                trio.open_nursery() as nursery,
            ):
                track, stop = await publish(publisher), trio.Event()
                nursery.start_soon(write_until, track, stop)
                subscription = await subscriber.subscribe(VIDEO)
                await take(subscription, 3)
                old.node.drain(trio.current_time(), 0.5, new.quic_url)
                old.act()
                seen = [location.group for location, _ in await take(subscription, 40)]
                assert len(seen) == len(set(seen))
                while not new.node.attachments or old.node.attachments:
                    seen.append((await anext(subscription)).location.group)
                more = [location.group for location, _ in await take(subscription, 20)]
                assert more == sorted(set(more))
                assert states == [State.CONNECTED, State.MOVING, State.CONNECTED]
                assert publisher.target.port == old.port
                stop.set()


async def test_without_reconnecting_the_loss_is_told(autojump_clock: MockClock) -> None:
    async with relay_beside() as relay, two_clients(relay.quic_url, reconnect=False) as (publisher, subscriber):
        await publish(publisher)
        subscription = await subscriber.subscribe(VIDEO)
        relay.node.close(trio.current_time())
        relay.act()
        assert [item async for item in subscription] == []
        with pytest.raises(LinkLost):
            await subscriber.subscribe(VIDEO)


# --- Not getting there --------------------------------------------------------------------------------------------


async def test_nobody_answers(autojump_clock: MockClock) -> None:
    silent = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await silent.bind(("127.0.0.1", 0))
    url = f"moqt://127.0.0.1:{silent.getsockname()[1]}/"
    with pytest.raises(ConnectFailed, match="no answer over UDP within"):
        async with connect(url, settings=settings(connect_timeout_s=0.05)):
            pass
    silent.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trust": ServerTrust()}, "certificate"),
        ({"trust": ServerTrust(pinned_sha256=bytes(32))}, "certificate"),
        ({"protocols": ("moqt-16",)}, "protocol"),
    ],
)
async def test_refused_at_the_door(changes: dict[str, Any], words: str, autojump_clock: MockClock) -> None:
    async with relay_beside(protocols=("moqt-20",)) as relay:
        with trio.fail_after(5), pytest.raises(ConnectFailed, match=words):
            async with connect(relay.quic_url, settings=settings(**changes)):
                pass


async def test_what_fails_inside_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    async with relay_beside() as relay:
        with pytest.raises(KeyError, match="mine"):
            async with connect(relay.quic_url, settings=settings()):
                raise KeyError("mine")


async def test_a_development_relay_says_its_certificate(autojump_clock: MockClock) -> None:
    from hashlib import sha256

    from cryptography.hazmat.primitives.serialization import Encoding

    from tests.quic.certificates import CERTIFICATE

    digest = sha256(CERTIFICATE.chain[0].public_bytes(Encoding.DER)).hexdigest()
    async with relay_beside() as relay, trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(relay.port, host="127.0.0.1")

        async def answer(stream: trio.SocketStream) -> None:
            request = await stream.receive_some()
            assert request.startswith(b"GET /certificate.sha256 ")
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest.encode())
            await stream.send_eof()

        nursery.start_soon(trio.serve_listeners, answer, [listener])
        async with connect(f"http://127.0.0.1:{relay.port}/", settings=settings(trust=ServerTrust())) as client:
            assert client.protocol
        nursery.cancel_scope.cancel()


# --- Targets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "token", "path", "authority", "shown"),
    [
        ("moqt://relay.test", None, "", "relay.test", "moqt://relay.test"),
        ("moqt://relay.test:4433/a b", None, "/a%20b", "relay.test:4433", "moqt://relay.test:4433/a%20b"),
        ("https://[::1]:4433/x", "t.o/k", "/x?jwt=t.o/k", "[::1]:4433", "https://[::1]:4433/x"),
        ("https://r/?a=1", "t", "/?a=1&jwt=t", "r", "https://r/"),
        ("https://r/?jwt=mine", "t", "/?jwt=mine", "r", "https://r/"),
    ],
)
def test_targets(url: str, token: str | None, path: str, authority: str, shown: str) -> None:
    target = parse_target(url, token)
    assert (target.path, target.authority, str(target)) == (path, authority, shown)
    assert target.webtransport == url.startswith("https")


@pytest.mark.parametrize("url", ["relay.test:4433", "ftp://relay.test", "moqt://", "moqt://h:99999/", "moqt://h:x/"])
def test_targets_that_are_none(url: str) -> None:
    with pytest.raises(TargetError):
        parse_target(url)


def test_namespaces() -> None:
    assert parse_namespace("/live/démo/") == (b"live", "démo".encode())
    for text in ("", "/", "a//b", "/".join("x" * 33)):
        with pytest.raises(TargetError):
            parse_namespace(text)


def test_fingerprints() -> None:
    assert parse_fingerprint(" " + "aB:" * 31 + "ab\n") == b"\xab" * 32
    for text in ("", "abcd", "zz" * 32, "ab" * 33):
        with pytest.raises(ConnectFailed):
            parse_fingerprint(text)


@pytest.mark.parametrize(("protocol", "early"), [("moqt-22", True), ("moqt-16", False)])
async def test_requests_do_not_wait_for_the_relays_setup(protocol: str, early: bool, autojump_clock: MockClock) -> None:
    """A round trip less, where each request has a stream of its own."""
    ready: list[tuple[bool, bool]] = []

    class Watched(Link):
        def _open_session(self, connection: Connection, now: float) -> None:
            super()._open_session(connection, now)
            assert self.session is not None
            ready.append((self.started.is_set(), self.session.is_ready))

    with trio.fail_after(5):
        async with relay_beside() as relay, trio.open_nursery() as nursery:
            quic = QuicSettings(protocols=(protocol,), trust=TRUST)
            link = Watched(parse_target(relay.quic_url), ("127.0.0.1", relay.port), quic, (protocol,), tuple)
            nursery.start_soon(link.run)
            await link.opened.wait()
            assert link.started.is_set()
            link.close()
    assert ready == [(early, False)]
