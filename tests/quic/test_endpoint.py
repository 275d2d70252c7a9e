"""One port's connections: routing, admission, deadlines, certificates, and whatever else the network sends."""

from __future__ import annotations

import dataclasses
from random import Random

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.quic.certificates import AUTHORITY_PEM, CERTIFICATE, CERTIFICATE_PEM, KEY_PEM
from tests.quic.pair import CLIENT, SERVER, End, Link, Weather, client_settings, make_pair, server_settings
from tradewind.quic.config import Limits, QuicSettings, ServerTrust, SettingsError, load_certificate
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Closed, DatagramReceived, Opened, StreamData


def initial(alpn: str = "moqt-20") -> bytes:
    """A client's first datagram."""
    client = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=[alpn], verify_mode=0))
    client.connect(SERVER, 0.0)
    return client.datagrams_to_send(0.0)[0][0]


INITIAL = initial()


def flood(count: int) -> list[tuple[bytes, tuple[str, int]]]:
    """Initials from as many addresses, each of a client of its own."""
    return [(initial(), (f"198.51.{number >> 8}.{number & 255}", 5000)) for number in range(count)]


def test_many_clients_on_one_port_and_each_hears_its_own():
    link = Link(server := End(Endpoint(server_settings()), SERVER))
    clients = []
    for number in range(5):
        end = End(Endpoint(client_settings(), is_client=True), (f"192.0.2.{10 + number}", 1))
        link.ends[end.address] = end
        clients.append((end, end.endpoint.connect(SERVER, link.now, server_name="relay.test")))
    link.run(2.0)
    assert len(server.told(Opened)) == 5
    for event in server.told(Opened):
        event.connection.datagram((event.connection.peer_address[0].encode(),), link.now + 1)
    link.run(1.0)
    for end, connection in clients:
        (heard,) = end.told(DatagramReceived)
        assert heard.connection is connection
        assert heard.data == end.address[0].encode()
    assert len(server.endpoint.connections) == 5
    server.endpoint.check_invariants()


def test_one_endpoint_serves_and_connects():
    ends = [
        End(Endpoint(dataclasses.replace(server_settings(), trust=ServerTrust(authorities_pem=AUTHORITY_PEM))), address)
        for address in (("192.0.2.7", 443), ("192.0.2.8", 443))
    ]
    link = Link(*ends)
    for end, other in zip(ends, reversed(ends)):
        end.endpoint.connect(other.address, link.now, server_name="relay.test", protocols=("moqt-18",))
    link.run(2.0)
    for end in ends:
        assert sorted(event.connection.is_client for event in end.told(Opened)) == [False, True]
        assert {event.connection.protocol for event in end.told(Opened)} == {"moqt-18"}


def test_untouched_connections_are_not_looked_at():
    pair = make_pair()
    pair.run(2.0)
    assert pair.server.endpoint.datagrams_to_send(pair.link.now) == []
    pair.at_server.datagram((b"x",), pair.link.now + 1)
    ((address, datagrams),) = pair.server.endpoint.datagrams_to_send(pair.link.now)
    assert address == pair.client.address
    assert len(datagrams) == 1


def test_deadlines_stay_few_however_long_it_runs():
    pair = make_pair()
    for _ in range(300):
        pair.at_server.datagram((b"x",), pair.link.now + 1)
        pair.run(0.05)
    assert len(pair.client.told(DatagramReceived)) == 300
    assert len(pair.server.endpoint._deadlines) < 8
    assert len(pair.client.endpoint._deadlines) < 8


# Admission.


def test_a_flood_of_initials_meets_retry_then_caps_and_a_client_still_gets_in():
    limits = Limits(pending_handshakes=20, retry_above_pending=5, pending_handshakes_per_address=4)
    server = End(Endpoint(server_settings(limits=limits)), SERVER)
    client = End(Endpoint(client_settings(), is_client=True), CLIENT)
    link = Link(server, client)
    server.endpoint.receive_datagrams(flood(100), link.now, new_handshakes=50)
    replies = server.endpoint.datagrams_to_send(link.now)
    statistics = server.endpoint.statistics()
    assert statistics.pending_handshakes == statistics.accepted == 5
    assert statistics.retries_sent <= 64
    assert sum(len(data) for _, group in replies for data in group) < 3 * 1280 * 100
    client.endpoint.connect(SERVER, link.now, server_name="relay.test")
    link.run(3.0)
    assert len(client.told(Opened)) == len(server.told(Opened)) == 1
    link.run(20.0)
    statistics = server.endpoint.statistics()
    assert statistics.pending_handshakes == 0
    assert statistics.handshakes_timed_out == 5
    server.endpoint.check_invariants()


def test_pending_handshakes_are_capped_in_all_and_per_address():
    limits = Limits(pending_handshakes=10, retry_above_pending=100, pending_handshakes_per_address=3)
    endpoint = Endpoint(server_settings(limits=limits))
    endpoint.receive_datagrams([(initial(), CLIENT) for _ in range(6)], 1.0, new_handshakes=50)
    assert endpoint.statistics().refused_per_address == 3
    endpoint.receive_datagrams(flood(20), 1.0, new_handshakes=50)
    statistics = endpoint.statistics()
    assert statistics.pending_handshakes == 10
    assert statistics.refused_pending == 13
    endpoint.check_invariants()


def test_more_handshakes_than_a_call_may_take_are_asked_for_their_address_then_wait():
    server = End(Endpoint(server_settings()), SERVER)
    link = Link(server)
    ends = []
    for number in range(12):
        end = End(Endpoint(client_settings(), is_client=True), (f"192.0.2.{10 + number}", 1))
        link.ends[end.address] = end
        end.endpoint.connect(SERVER, link.now, server_name="relay.test")
        ends.append(end)
    link.run(5.0)
    assert server.endpoint.statistics().retries_sent == 4
    assert len(server.told(Opened)) == 12
    assert all(end.told(Opened) for end in ends)


def test_a_retry_token_is_good_for_its_address_only():
    limits = Limits(retry_above_pending=1)
    server = End(Endpoint(server_settings(limits=limits)), SERVER)
    client = End(Endpoint(client_settings(), is_client=True), CLIENT)
    link = Link(server, client)
    server.endpoint.receive_datagrams(flood(1), link.now)
    client.endpoint.connect(SERVER, link.now, server_name="relay.test")
    sent: list[bytes] = []
    for _ in range(2):
        link.step()
        for _, group in client.endpoint.datagrams_to_send(link.now):
            sent += group
    assert len(sent) == 1, "the Initial with the token"
    before = server.endpoint.statistics()
    server.endpoint.receive_datagrams([(sent[0], ("203.0.113.9", 1))], link.now)
    after = server.endpoint.statistics()
    assert after.refused_tokens == before.refused_tokens + 1
    assert after.accepted == before.accepted
    server.endpoint.receive_datagrams([(sent[0], CLIENT)], link.now)
    assert server.endpoint.statistics().accepted == before.accepted + 1


def test_unknown_versions_are_answered_once_and_negotiation_never():
    endpoint = Endpoint(server_settings())
    strange = (
        bytes([0xC0]) + bytes.fromhex("1a2a3a4a") + bytes([8]) + b"12345678" + bytes([8]) + b"abcdefgh" + bytes(1200)
    )
    endpoint.receive_datagrams([(strange, CLIENT)], 1.0)
    ((address, (reply,)),) = endpoint.datagrams_to_send(1.0)
    assert address == CLIENT
    assert reply[1:5] == bytes(4)
    assert b"abcdefgh" in reply[:24]
    endpoint.receive_datagrams([(reply + bytes(1200 - len(reply)), CLIENT), (strange[:1100], CLIENT)], 1.0)
    assert endpoint.datagrams_to_send(1.0) == []


def test_a_client_accepts_nobody():
    endpoint = Endpoint(client_settings(), is_client=True)
    endpoint.receive_datagrams([(INITIAL, CLIENT)], 1.0)
    assert endpoint.datagrams_to_send(1.0) == []
    assert endpoint.statistics().unroutable == 1


@given(st.lists(st.binary(max_size=1300), max_size=5))
def test_garbage_makes_nothing(datagrams):
    endpoint = Endpoint(server_settings())
    assert endpoint.receive_datagrams([(data, CLIENT) for data in datagrams], 1.0) == []
    assert endpoint.statistics().connections == 0
    endpoint.check_invariants()


@given(
    st.lists(st.tuples(st.integers(0, len(INITIAL) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 80),
)
@settings(max_examples=60, deadline=None)
def test_broken_initials_make_nothing_or_a_pending_handshake(changes, cut):
    data = bytearray(INITIAL)
    for position, value in changes:
        data[position] = value
    endpoint = Endpoint(server_settings())
    assert endpoint.receive_datagrams([(bytes(data[: len(data) - cut]), CLIENT)], 1.0) == []
    endpoint.datagrams_to_send(1.0)
    statistics = endpoint.statistics()
    assert statistics.connections == statistics.pending_handshakes
    endpoint.check_invariants()


def test_bits_flipped_in_flight_break_nothing():
    random = Random(3)
    pair = make_pair()
    stream = pair.at_client.open_uni()
    assert stream is not None
    pair.at_client.offer(stream, (bytes(60_000),), fin=True)
    original = pair.link.throw

    def corrupt(data, source, target):
        if random.random() < 0.2:
            data = bytearray(data)
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        original(bytes(data), source, target)

    pair.link.throw = corrupt
    pair.run(20.0)
    assert sum(len(event.data) for event in pair.server.told(StreamData)) == 60_000
    pair.check()


def test_a_client_that_moves_is_followed():
    pair = make_pair()
    pair.run(1.0)
    moved = ("192.0.2.99", 7777)
    end = pair.link.ends.pop(pair.client.address)
    end.address = moved
    pair.link.ends[moved] = end
    pair.at_client.datagram((b"from elsewhere",), pair.link.now + 1)
    pair.run(2.0)
    assert pair.at_server.peer_address == moved
    pair.at_server.datagram((b"found you",), pair.link.now + 1)
    pair.run(1.0)
    assert [event.data for event in pair.client.told(DatagramReceived)] == [b"found you"]
    pair.check()


def test_a_fault_costs_one_connection(caplog):
    pair = make_pair()
    pair.run(0.5)
    other = pair.client.endpoint.connect(SERVER, pair.link.now, server_name="relay.test")
    pair.run(0.5)

    pair.at_server._core.queue.signals.append(("no bytes", None))  # type: ignore[arg-type]
    pair.at_server.datagram((b"x",), 99)
    pair.run(0.5)
    assert [event.reason for event in pair.server.told(Closed)] == ["internal error"]
    assert pair.server.endpoint.statistics().faults == 1
    assert pair.server.endpoint.statistics().connections == 1
    assert "TypeError" in caplog.text
    other.datagram((b"still here",), pair.link.now + 1)
    pair.run(0.5)
    assert [event.data for event in pair.server.told(DatagramReceived)] == [b"still here"]


def test_no_more_than_three_times_goes_to_an_address_not_proven():
    client = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], verify_mode=0))
    client.connect(SERVER, 0.0)
    endpoint = Endpoint(server_settings())
    sent = 0
    (first, _), *_ = client.datagrams_to_send(0.0)
    endpoint.receive_datagrams([(first, CLIENT)], 0.0)
    now = 0.0
    while now < 9.0:
        sent += sum(len(data) for _, group in endpoint.datagrams_to_send(now) for data in group)
        deadline = endpoint.next_deadline()
        assert deadline is not None
        now = deadline
        endpoint.handle_deadline(now)
    assert 1200 < sent <= 3 * len(first)


def test_handshakes_that_fail_are_counted():
    pair = make_pair(client=client_settings(protocols=("moqt-99",)), open_it=False)
    pair.run(5.0)
    statistics = pair.server.endpoint.statistics()
    assert (statistics.handshakes_failed, statistics.connections, statistics.handshakes_timed_out) == (1, 0, 0)


class Greedy:
    """An engine that takes every second datagram."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def ingest(self, connection, data, now) -> bool:
        self.seen.append(connection.id)
        return len(self.seen) % 2 == 0


def test_an_engine_sees_established_datagrams_first():
    engine = Greedy()
    pair = make_pair()
    pair.run(1.0)
    pair.server.endpoint._engine = engine
    for _ in range(10):
        pair.at_client.datagram((b"x",), pair.link.now + 1)
        pair.run(0.05)
    assert len(engine.seen) >= 10
    assert set(engine.seen) == {pair.at_server.id}
    assert 0 < len(pair.server.told(DatagramReceived)) < 10


# Certificates and settings.


def test_the_certificate_is_checked():
    pair = make_pair(client=QuicSettings(protocols=("moqt-20",)), open_it=False)
    pair.run(3.0)
    (closed,) = pair.client.told(Closed)
    assert closed.code is None
    assert "certificate" in closed.reason.lower()
    assert not pair.server.told(Opened)


def test_the_name_is_checked():
    server, client = End(Endpoint(server_settings()), SERVER), End(Endpoint(client_settings(), is_client=True), CLIENT)
    link = Link(server, client)
    client.endpoint.connect(SERVER, link.now, server_name="other.test")
    link.run(3.0)
    assert "other.test" in client.told(Closed)[0].reason


@pytest.mark.parametrize("right", [True, False])
def test_a_pinned_certificate_decides_alone(right):
    pin = make_pair().at_client.certificate_sha256() if right else bytes(32)
    trust = ServerTrust(pinned_sha256=pin)
    pair = make_pair(client=QuicSettings(protocols=("moqt-20",), trust=trust), open_it=False)
    pair.run(3.0)
    assert bool(pair.client.told(Opened)) is right
    if not right:
        assert "pinned" in pair.client.told(Closed)[0].reason


def test_a_renewed_certificate_is_used_for_new_connections():
    pair = make_pair()
    renewed = load_certificate(CERTIFICATE_PEM + AUTHORITY_PEM, KEY_PEM)
    pair.server.endpoint.replace_settings(server_settings(certificate=renewed, protocols=("moqt-18",)))
    again = pair.client.endpoint.connect(SERVER, pair.link.now, server_name="relay.test")
    pair.run(2.0)
    assert again.protocol == "moqt-18"
    assert pair.at_client.protocol == "moqt-20"


def test_no_common_protocol_is_told_to_the_client():
    pair = make_pair(client=client_settings(protocols=("moqt-99",)), open_it=False)
    pair.run(3.0)
    assert "ALPN" in pair.client.told(Closed)[0].reason
    assert not pair.server.told(Opened)
    assert pair.server.endpoint.statistics().pending_handshakes == 0


def test_nobody_answers():
    pair = make_pair(weather=Weather(loss=1.0), open_it=False, client_limits=Limits(handshake_timeout_s=3.0))
    pair.run(20.0)
    assert [event.reason for event in pair.client.told(Closed)] == ["handshake timeout"]
    assert pair.client.endpoint.statistics().connections == 0


@pytest.mark.parametrize("url", [None, "https://relay.test/"])
def test_keep_alive_outlives_the_idle_timeout(url):
    limits = Limits(idle_timeout_s=3.0)
    pair = make_pair(url=url, client=client_settings(limits=limits, keep_alive_s=1.0), server_limits=limits)
    pair.run(20.0)
    assert not pair.client.told(Closed)
    assert not pair.server.told(Closed)
    assert pair.link.carried < 120


def test_close_all():
    pair = make_pair()
    pair.server.endpoint.close_all(0x10, "going away", pair.link.now)
    pair.run(2.0)
    assert [(event.code, event.reason) for event in pair.client.told(Closed)] == [(0x10, "going away")]
    assert pair.server.endpoint.statistics().connections == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: QuicSettings(max_datagram_size=1199),
        lambda: QuicSettings(max_datagram_size=16_001),
        lambda: QuicSettings(limits=Limits(uni_streams=0)),
        lambda: QuicSettings(limits=Limits(session_window_bytes=1000)),
        lambda: QuicSettings(trust=ServerTrust(pinned_sha256=b"short")),
        lambda: QuicSettings(keep_alive_s=30.0),
        lambda: QuicSettings(ack_delay_s=0.0),
        lambda: QuicSettings(ack_delay_s=0.026),
        lambda: Endpoint(QuicSettings()),
        lambda: Endpoint(client_settings(), is_client=True).connect(SERVER, 0.0, url="http://relay.test/"),
        lambda: load_certificate(b"", KEY_PEM),
    ],
)
def test_settings_are_checked(make):
    with pytest.raises((SettingsError, ValueError)):
        make()


def test_the_key_is_not_printed():
    assert "PRIVATE" not in repr(server_settings())
    assert repr(CERTIFICATE.key) not in repr(server_settings())


@pytest.mark.parametrize("size", [1200, 1452, 9000])
def test_packets_are_as_large_as_the_settings_say(size):
    seen: list[int] = []

    def see(data: bytes) -> bool:
        seen.append(len(data))
        return False

    pair = make_pair(client=client_settings(max_datagram_size=size), weather=Weather(drop=see))
    stream = pair.at_client.open_uni()
    assert stream is not None
    pair.at_client.offer(stream, (bytes(30_000),), fin=True)
    pair.run(2.0)
    assert seen.count(size) > 2
    assert sum(len(event.data) for event in pair.server.told(StreamData)) == 30_000


def test_packets_of_one_stream_that_come_together_are_told_together():
    pair = make_pair()
    pair.run(1.0)
    first, second = pair.at_client.open_uni(), pair.at_client.open_uni()
    assert first is not None and second is not None
    for stream, data, fin in ((first, b"a" * 5000, False), (second, b"b" * 3000, True), (first, b"c" * 2000, True)):
        pair.at_client.offer(stream, (data,), fin)
        sent = [(data, CLIENT) for _, batch in pair.client.endpoint.datagrams_to_send(pair.link.now) for data in batch]
        pair.server.events += pair.server.endpoint.receive_datagrams(sent[:1], pair.link.now)
        pair.server.events += pair.server.endpoint.receive_datagrams(sent[1:], pair.link.now)
    told = pair.server.told(StreamData)
    assert [event.stream for event in told] == [first, first, second, second, first, first]
    assert b"".join(event.data for event in told if event.stream == first) == b"a" * 5000 + b"c" * 2000
    assert [event.fin for event in told] == [False, False, False, True, False, True]


@pytest.mark.parametrize(("ack_delay_s", "most"), [(None, 40), (0.02, 15)])
def test_acknowledgements_wait_for_each_other_where_they_may(ack_delay_s, most):
    """A packet every 10 ms: each has one of its own, or two or three share one; nothing is taken for lost."""
    pair = make_pair(client=client_settings(ack_delay_s=ack_delay_s))
    pair.run(1.0)
    before = pair.at_client.statistics().packets_sent
    stream = pair.at_server.open_uni()
    assert stream is not None
    for _ in range(40):
        pair.at_server.offer(stream, [bytes(500)], False)
        pair.run(0.01)
    pair.run(0.1)
    sent = pair.at_client.statistics().packets_sent - before
    assert 0.7 * most <= sent <= most + 2
    assert not pair.at_server.statistics().packets_lost
    assert pair.at_server.statistics().in_flight_bytes == 0
