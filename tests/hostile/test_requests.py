"""Requests in floods, ranges without end and readers that do not read: what they cost is bounded, and theirs alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from relay.forwarding.book import ForwardingSettings
from relay.forwarding.cache import CacheLimits
from relay.limits import LimitSettings
from tests.hostile.town import Town, closed_with, flat
from tests.sim.client import TRACK, Client
from tests.sim.network import BLACKOUT
from tests.sim.relay import node_settings
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import RequestCode, SessionCode
from tradewind.moqt.model import (
    NEXT_OBJECT,
    Fill,
    FilterKind,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    Parameters,
)
from tradewind.moqt.parameters import RawParameters
from tradewind.moqt.settings import SessionSettings
from tradewind.quic.config import Limits
from tradewind.quic.endpoint import Endpoint

DRAFTS = (20, 22, 18, 16)
EVERYTHING = LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=2**62 - 1, end_object=2**62 - 1)


@pytest.fixture(scope="module")
def town() -> Town:
    return Town()


def held_of(town: Town, client: Client) -> Any:
    """The relay's side of a client."""
    return next(a for a in town.node.attachments.values() if a.connection.peer_address == client.addresses[0])


# --- Who does not read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reads nothing", "is gone"])
def test_a_subscriber_that_never_reads(how: str) -> None:
    """It may have a stream's window and 16 kB of the relay's memory, never more, however long it goes on."""
    cache = CacheLimits(total_bytes=4_000_000, track_bytes=1_000_000, track_groups=4, age_s=5.0)
    town = Town(node_settings(forwarding=ForwardingSettings(cache=cache)))
    lazy = town.join(limits=Limits(stream_window_bytes=16_384, session_window_bytes=65_536))
    lazy.subscribe()
    lazy.subscribe(fill=Fill())
    town.run()
    if how == "reads nothing":
        lazy.reading = False
    else:
        town.network.set_weather(lazy.addresses[0], town.relay.addresses[0], BLACKOUT, both=True)
    held = held_of(town, lazy)
    most = 0
    for _ in range(60):
        town.served.group(town.group, [bytes(20_000)] * 3, end_of_group=True)
        town.sent += [(town.network.now, Location(town.group, n), bytes(20_000)) for n in range(3)]
        town.group += 1
        town.run(0.3)
        if not held.connection.is_closed:
            statistics = held.connection.statistics()
            most = max(most, statistics.media_unsent_bytes + statistics.control_unsent_bytes)
        assert town.node.forwarder.statistics().cache_bytes < 1_100_000
        members = town.node.forwarder._book.members.get(held.id)
        if members is not None:
            cursors = [len(track.subscriptions) for track in town.node.forwarder._book.tracks.values()]
            assert sum(cursors) <= 8
    assert most < 64 * 1024
    town.check()


def test_a_subscriber_that_reads_no_control(town: Town) -> None:
    """Control is never dropped: who leaves a megabyte of it unread is closed."""
    attacker = town.join(limits=Limits(stream_window_bytes=1200, session_window_bytes=4000))
    publisher = town.join()
    attacker.ask("subscribe_namespace", ())
    town.run()
    attacker.reading = False
    most = 0
    for number in range(400):
        request = publisher.announce((b"n" * 3000, b"%d" % number))
        town.run(0.02)
        publisher.do("cancel", request)
        town.run(0.02)
        if attacker.closed is not None:
            break
        most = max(most, held_of(town, attacker).connection.statistics().control_unsent_bytes)
    assert attacker.closed is not None
    assert "does not read" in attacker.closed.reason
    assert 900_000 < most <= 1024 * 1024
    assert not [a for a in town.node.attachments.values() if a.connection.peer_address == attacker.addresses[0]]
    publisher.close()
    town.check()


# --- Floods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", DRAFTS)
def test_subscribe_and_leave_in_a_loop(town: Town, draft: int) -> None:
    attacker = town.join(draft)

    def loop() -> int:
        for _ in range(30):
            requests = [attacker.subscribe(), attacker.ask("fetch", TRACK, EVERYTHING)]
            requests.append(attacker.ask("subscribe_namespace", (b"demo",)))
            town.run(0.05)
            for request in requests:
                attacker.do("cancel", request)
            town.run(0.03)
        town.live(8.0)
        return 90

    flat(town, loop)
    assert attacker.is_open
    attacker.close()
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_flood_of_updates(town: Town, draft: int) -> None:
    """Those that are answered at once may be many; unanswered ones may not be more than the relay said."""
    attacker = town.join(draft)
    request = attacker.subscribe()
    town.run()

    def flood() -> int:
        for number in range(400):
            attacker.session.update(request, Parameters(priority=number % 256, forward=bool(number % 2)))
            if number % 20 == 0:
                attacker.touch()
                town.run(0.02)
        attacker.touch()
        town.live(0.3)
        return 400

    flat(town, flood)
    assert attacker.is_open
    attacker.close()
    town.check()


def test_fills_in_a_flood_of_updates(town: Town) -> None:
    """Each update may ask for a fill, and each fill is a stream: the reader's stream limit bounds them."""
    attacker = town.join()
    request = attacker.subscribe()
    town.run()

    def flood() -> int:
        for _ in range(30):
            attacker.session.update(request, Parameters(fill=Fill(filter=EVERYTHING)))
            attacker.touch()
            town.run(0.002)
        town.live(1.0)
        return 30

    flat(town, flood, rounds=5)
    attacker.close()
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("order", GroupOrder)
def test_fetch_of_everything_there_could_be(town: Town, draft: int, order: GroupOrder) -> None:
    attacker = town.join(draft)
    town.live()
    requests = [attacker.ask("fetch", TRACK, EVERYTHING, Parameters(order=order)) for _ in range(5)]
    town.live(1.0)
    for request in requests:
        assert isinstance(attacker.answer(request), e.FetchAccepted)
    asked = town.publisher.told(e.FetchRequested)
    assert len(asked) <= 2, "what nobody has here is asked for once"
    for fetch in asked:
        town.publisher.do("reject", fetch.request, RequestCode.DOES_NOT_EXIST, "")
    town.publisher.events.clear()
    town.live(1.0)
    for request in requests:
        assert len(attacker.objects(request)) >= 2
    assert len(attacker.told(e.FetchClosed)) == 5
    attacker.close()
    town.check()


@pytest.mark.parametrize("draft", [20, 16])
def test_ten_thousand_namespaces(draft: int) -> None:
    """A session may have 256 and is told so; forty of them have ten thousand, and whoever looks is answered."""
    town = Town(node_settings(limits=LimitSettings(sessions_per_address=0), quic_limits=Limits(bidi_streams=512)))
    crowd = [town.join(draft, limits=Limits(bidi_streams=512)) for _ in range(10)]
    for index, client in enumerate(crowd):
        for number in range(300):
            while client.session.publish_namespace((b"crowd", b"%d" % index, b"%d" % number)) is None:
                client.touch()  # Draft 16 gives credit by the request.
                town.run(0.05)
        client.touch()
        town.live(0.2)
    refused = [event.code for client in crowd for event in client.told(e.RequestRefused)]
    assert len(refused) == 10 * 44
    expected = crowd[0].session.profile.codes.request_to_wire(RequestCode.EXCESSIVE_LOAD)
    assert set(refused) == {expected}
    looker = town.join(draft)
    looker.ask("subscribe_namespace", (b"crowd",))
    town.live(1.0)
    assert len(looker.told(e.NamespaceFound)) == 2560
    for client in crowd:
        client.close()
    town.live(1.0)
    town.live(6.0)
    assert len(looker.told(e.NamespaceGone)) == 2560
    assert town.node.forwarder.statistics().namespaces == 1
    town.check()


def test_looking_at_ten_thousand_namespaces_in_a_storm() -> None:
    """Who asks for everything again and again pays with its own share; the others are not late."""
    town = Town(node_settings(limits=LimitSettings(namespaces_per_session=0), quic_limits=Limits(bidi_streams=2100)))
    publisher = town.join(limits=Limits(bidi_streams=2100))
    for number in range(2000):
        publisher.session.publish_namespace((b"crowd", b"%d" % number))
    publisher.touch()
    town.live(2.0)
    attacker = town.join()

    def storm() -> int:
        for _ in range(8):
            request = attacker.ask("subscribe_namespace", ())
            town.run(0.05)
            attacker.do("cancel", request)
            town.run(0.05)
        town.live(0.5)
        return 8 * 2000

    flat(town, storm, rounds=2)
    attacker.close()
    publisher.close()
    town.check()


def calls(action: Callable[[], object]) -> int:
    """How many Python calls something takes: a measure of work that is the same on every machine."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def test_two_thousand_idle_requests_cost_nothing_per_packet() -> None:
    """Namespace subscriptions that nothing happens to: an object to the same session takes the work it took before."""
    settings = node_settings(
        quic_limits=Limits(bidi_streams=4096),
        limits=LimitSettings(namespaces_per_session=0),
        session=SessionSettings(max_requests=4096),
    )
    town = Town(settings)
    town.relay.checks = False
    client = town.join(limits=Limits(bidi_streams=4096))
    client.subscribe()
    town.run()
    town.live(0.5)
    before = calls(lambda: town.live(0.5))
    requests = [client.session.subscribe_namespace((b"idle", b"%d" % number)) for number in range(2000)]
    client.touch()
    town.live(2.0)
    assert all(isinstance(client.answer(request), e.RequestAccepted) for request in requests[::100])
    assert not client.told(e.RequestRefused)
    after = calls(lambda: town.live(0.5))
    assert after < 1.3 * before, f"{before} calls without idle requests, {after} with"
    town.relay.checks = True
    town.check()


# --- Handshakes -------------------------------------------------------------------------------------------------------


def test_a_flood_of_handshakes() -> None:
    """Thousands of first packets from everywhere: Retry, a cap, and who is there stays there."""
    town = Town()
    probe = town.dial(address=("203.0.113.99", 9))
    first = _first_packets(town, probe)
    start = len(town.node.endpoints[0].connections)
    for number in range(1500):
        source = (f"198.18.{number // 250}.{number % 250}", 1000 + number)
        town.network.throw(_vary(first[0], number), source, town.relay.addresses[0])
        if number % 100 == 0:
            town.live(0.02)
    town.live(0.5)
    statistics = town.node.endpoints[0].statistics()
    assert statistics.pending_handshakes <= 64 + 8
    assert statistics.retries_sent > 500
    assert len(town.node.endpoints[0].connections) <= start + 1
    assert len(town.node.attachments) <= start + 1
    town.check()
    town.live(12.0)
    assert town.node.endpoints[0].statistics().pending_handshakes == 0


def _first_packets(town: Town, client: Client) -> list[bytes]:
    endpoint = Endpoint(client.endpoint.settings, is_client=True)
    endpoint.connect(town.relay.addresses[0], town.network.now, server_name="relay.test")
    return [data for _, datagrams in endpoint.datagrams_to_send(town.network.now) for data in datagrams]


def _vary(initial: bytes, number: int) -> bytes:
    """The same first packet with another destination id: it decrypts no more, and looks like a new client."""
    return initial[:6] + number.to_bytes(8, "big") + initial[14:]


# --- Words that mean nothing ------------------------------------------------------------------------------------------


def say(client: Client, data: bytes, fin: bool = False) -> None:
    """Bytes where the draft has requests: a stream of their own, or the control stream."""
    if client.session.profile.request_streams:
        stream = client.connection.open_bidi()
        assert stream is not None
    else:
        stream = 0
    client.connection.send(stream, data, fin)
    client.touch()


@pytest.mark.parametrize("draft", DRAFTS)
def test_an_unknown_parameter(town: Town, draft: int) -> None:
    attacker = town.join(draft)
    profile = attacker.session.profile
    message = m.Subscribe(0, TRACK, RawParameters.of(Parameters(priority=3)))
    data = bytearray(m.encode(profile, message))
    data[data.index(b"\x20\x03")] = 0x1B
    say(attacker, bytes(data))
    town.live()
    assert attacker.closed is not None
    assert attacker.closed.code in (SessionCode.PROTOCOL_VIOLATION, SessionCode.KEY_VALUE_FORMATTING_ERROR)
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_same_request_id_twice(town: Town, draft: int) -> None:
    attacker = town.join(draft)
    data = m.encode(attacker.session.profile, m.Subscribe(0, TRACK, RawParameters.of(Parameters(filter=NEXT_OBJECT))))
    say(attacker, data)
    say(attacker, data)
    town.live()
    assert closed_with(attacker) == SessionCode.INVALID_REQUEST_ID
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_length_that_promises_more(town: Town, draft: int) -> None:
    """A message of 65,535 bytes that never comes, on every stream there may be."""
    attacker = town.join(draft)
    for _ in range(100 if draft > 16 else 1):
        say(attacker, b"\x03\xff\xff" + bytes(1000))
    town.live()
    assert town.node.forwarder.statistics().tracks == 1
    attacker.close()
    town.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_answers_to_nothing(town: Town, draft: int) -> None:
    attacker = town.join(draft)
    profile = attacker.session.profile
    say(attacker, m.encode(profile, m.SubscribeOk(5, RawParameters(), (), request=1 if draft == 16 else None)))
    town.live()
    assert closed_with(attacker) == SessionCode.PROTOCOL_VIOLATION
    town.check()


def test_track_names_as_long_as_they_get(town: Town) -> None:
    """4,096 bytes each, a thousand of them, for tracks that nobody publishes: nothing of them stays."""
    attacker = town.join()

    def flood() -> int:
        for number in range(100):
            name = FullTrackName((b"n" * 2000, b"%d" % number), b"t" * 2000)
            attacker.session.subscribe(name, Parameters(rendezvous_timeout_ms=100))
            if number % 10 == 0:
                attacker.touch()
                town.run(0.1)
        attacker.touch()
        town.live(2.0)
        return 100

    flat(town, flood)
    attacker.close()
    town.check()
