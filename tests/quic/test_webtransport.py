"""WebTransport sessions between two ends of ours."""

from __future__ import annotations

import pytest

from tests.quic.pair import Weather, body, client_settings, eat_all, make_pair, open_bidi, open_uni, server_settings
from tradewind.quic.egress import Offered
from tradewind.quic.events import Closed, DatagramReceived, Opened, Released, Stopped, StreamData, StreamReset
from tradewind.quic.webtransport import WebTransportConnection

URL = "https://relay.test:4433/live?jwt=abc"


def test_a_session_between_ours():
    pair = make_pair(url=URL)
    client, server = pair.at_client, pair.at_server
    assert client.transport == server.transport == "webtransport"
    assert client.protocol == server.protocol == "moqt-20"
    assert (server.authority, server.path, server.origin) == ("relay.test:4433", "/live?jwt=abc", None)
    assert server.offered == ("moqt-18", "moqt-20")
    assert pair.server.endpoint.connections == [server]
    assert client.certificate_sha256() == server.certificate_sha256()


def test_streams_both_ways_opened_by_either_end():
    pair = make_pair(url=URL)
    for opener, sender, hearer in (
        (pair.at_client, pair.client, pair.server),
        (pair.at_server, pair.server, pair.client),
    ):
        request, media = open_bidi(opener), open_uni(opener)
        opener.send(request, b"question", fin=True)
        assert opener.offer(media, (b"part", memoryview(b"ial")), fin=False) is Offered.TAKEN
        pair.run(0.2)
        other = pair.at_server if opener is pair.at_client else pair.at_client
        other.send(request, b"answer", fin=True)
        opener.offer(media, (b" rest",), fin=True)
        pair.run(0.5)
        assert body(hearer.events, request) == b"question"
        assert body(sender.events, request) == b"answer"
        assert body(hearer.events, media) == b"partial rest"
        assert [event.stream for event in sender.told(Released)] == [media]
    pair.check()


def test_errors_keep_their_codes():
    pair = make_pair(url=URL)
    for code in (0, 0x1D, 0x1E, 0x1F, 0xFF, 0x12345):
        media, request = open_uni(pair.at_client), open_bidi(pair.at_client)
        pair.at_client.offer(media, (b"x",), fin=False)
        pair.at_client.send(request, b"y")
        pair.run(0.2)
        pair.at_client.reset(media, code)
        pair.at_server.stop(request, code)
        pair.run(0.2)
        assert pair.server.told(StreamReset)[-1].code == code
        assert pair.client.told(Stopped)[-1].code == code
        assert pair.client.told(Stopped)[-1].stream == request


def test_datagrams_carry_the_session_and_know_their_size():
    pair = make_pair(url=URL)
    most = pair.at_server.writable(0).datagram_bytes
    assert most == 1201
    assert pair.at_server.datagram((bytes(most),), pair.link.now + 1)
    assert not pair.at_server.datagram((bytes(most + 1),), pair.link.now + 1)
    pair.at_client.datagram((b"up",), pair.link.now + 1)
    pair.run(0.2)
    assert [len(event.data) for event in pair.client.told(DatagramReceived)] == [most]
    assert [event.data for event in pair.server.told(DatagramReceived)] == [b"up"]


@pytest.mark.parametrize("by_server", [True, False])
def test_closing_says_why_and_ends_the_connection(by_server):
    pair = make_pair(url=URL)
    media = open_uni(pair.at_client)
    pair.at_client.offer(media, (b"x",), fin=False)
    pair.run(0.2)
    closer, heard = (pair.at_server, pair.client) if by_server else (pair.at_client, pair.server)
    closer.close(0x10, "reason " * 300)
    closer.close(0x11, "again")
    assert closer.is_closed
    assert closer.open_uni() is None
    assert not closer.datagram((b"x",), 99)
    pair.run(1.0)
    (closed,) = heard.told(Closed)
    assert (closed.code, closed.by_peer) == (0x10, True)
    assert closed.reason == ("reason " * 300)[:1024]
    assert len(pair.client.told(Closed)) == len(pair.server.told(Closed)) == 1
    assert pair.client.endpoint.statistics().connections == pair.server.endpoint.statistics().connections == 0


def test_closing_through_a_bad_network_still_says_why():
    for seed in range(5):
        pair = make_pair(url=URL, weather=Weather(loss=0.2), seed=seed)
        pair.at_server.close(7, "lossy")
        pair.run(20.0)
        assert [(event.code, event.reason) for event in pair.client.told(Closed)] == [(7, "lossy")]


def test_finished_streams_are_forgotten():
    pair = make_pair(url=URL)
    eat_all(pair)
    for number in range(400):
        media, request = open_uni(pair.at_client), open_bidi(pair.at_client)
        pair.at_client.offer(media, (b"x" * 50,), fin=True)
        pair.at_client.send(request, b"q", fin=True)
        pair.run(0.03)
        if number % 2:
            pair.at_server.send(request, b"a", fin=True)
        else:
            pair.at_server.reset(request, 1)
        back = open_uni(pair.at_server)
        pair.at_server.offer(back, (b"z",), fin=True)
        pair.run(0.03)
    pair.run(1.0)
    for end in (pair.at_client, pair.at_server):
        assert isinstance(end, WebTransportConnection)
        assert end._http is not None
        assert len(end._core.streams) <= 8, "CONNECT and HTTP's own"
        assert len(end._http._taken) <= 8
        assert len(end._http._h3._stream) <= 8
    assert len(pair.server.told(StreamData)) >= 800
    pair.check()


def test_the_client_wants_what_it_offered():
    server = server_settings(browser_protocols=("moqt-18",))
    pair = make_pair(url=URL, server=server, client=client_settings(protocols=("moqt-99",)), open_it=False)
    pair.run(3.0)
    assert "400" in pair.client.told(Closed)[0].reason
    assert not pair.server.told(Opened)


def test_the_client_closes_before_it_is_open():
    pair = make_pair(url=URL, open_it=False)
    pair.at_client.close(3, "changed my mind")
    pair.run(3.0)
    assert [event.reason for event in pair.client.told(Closed)] == ["changed my mind"]
    assert pair.client.endpoint.statistics().connections == 0


def test_media_through_a_bad_network():
    for seed in range(4):
        pair = make_pair(url=URL, weather=Weather(delay_s=0.02, jitter_s=0.03, loss=0.08, duplicate=0.05), seed=seed)
        eat_all(pair)
        content = bytes(range(256)) * 100
        streams = [open_uni(pair.at_server) for _ in range(4)]
        for stream in streams:
            pair.at_server.offer(stream, (content[:9], content[9:]), fin=True)
        pair.run(10.0)
        assert [body(pair.client.events, stream) for stream in streams] == [content] * 4
        pair.check()
