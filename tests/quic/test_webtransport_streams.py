"""Whose a stream or datagram is: headers cut anywhere, sessions that are still to come, and none of ours."""

from __future__ import annotations

import pytest
from aioquic.buffer import encode_uint_var

from tests.quic.hand import Hand
from tests.quic.pair import body, open_bidi, open_uni
from tradewind.quic.config import Limits
from tradewind.quic.events import Closed, DatagramReceived, Opened, Stopped, StreamData, StreamReset
from tradewind.quic.wire import to_http_code


@pytest.mark.parametrize("header", [b"\x40\x54\x00", b"\x80\x00\x00\x54\x40\x00"])
def test_stream_headers_cut_at_every_byte(header):
    for cut in range(len(header) + 3):
        hand = Hand()
        hand.connect()
        whole = header + b"ab"
        stream = hand.uni(whole[:cut])
        hand.run(0.2)
        hand.connection.send(stream, whole[cut:], fin=True)
        hand.run(0.2)
        assert body(hand.server.events, stream) == b"ab"
        assert hand.server.told(StreamData)[-1].fin
        assert stream not in hand.session._core.streams


def test_bidirectional_headers_cut_at_every_byte_and_answered():
    whole = b"\x40\x41\x00question"
    for cut in range(len(whole)):
        hand = Hand()
        hand.connect()
        stream = hand.bidi(whole[:cut])
        hand.run(0.2)
        hand.connection.send(stream, whole[cut:], fin=True)
        hand.run(0.2)
        assert body(hand.server.events, stream) == b"question"
        hand.session.send(stream, b"answer", fin=True)
        hand.run(0.2)
        assert body(hand.client.events, stream) == b"answer"


@pytest.mark.parametrize("cut", range(4))
def test_a_stream_that_ends_inside_its_header_is_nobodys(cut):
    hand = Hand()
    hand.connect()
    stream = hand.uni(b"\x40\x54\x40\x00"[:cut], fin=True)
    hand.run()
    assert not hand.server.told(StreamData)
    assert not hand.server.told(Closed)
    assert stream not in hand.session._core.streams


def test_an_empty_stream_is_told():
    hand = Hand()
    hand.connect()
    stream = hand.uni(b"\x40\x54\x00", fin=True)
    hand.run()
    assert [(event.stream, event.data, event.fin) for event in hand.server.told(StreamData)] == [(stream, b"", True)]


@pytest.mark.parametrize("sent", [b"", b"\x40", b"\x40\x54", b"\x40\x54\x00"])
def test_reset_before_during_and_after_the_header(sent):
    hand = Hand()
    hand.connect()
    stream = open_uni(hand.connection)
    hand.connection.send(stream, sent)
    hand.run(0.2)
    hand.connection.reset(stream, to_http_code(9))
    hand.run()
    assert [(event.stream, event.code) for event in hand.server.told(StreamReset)] == [(stream, 9)]
    assert not hand.server.told(Closed)
    other = open_uni(hand.connection)
    hand.connection.reset(other, 0x10C)
    hand.run()
    assert len(hand.server.told(StreamReset)) == 1, "not a code of an application"


def test_what_comes_before_the_session_waits_for_it():
    hand = Hand()
    early = hand.uni(b"\x40\x54\x00early", fin=True)
    request = hand.bidi(b"")
    hand.connection.send(request, b"")
    later = open_bidi(hand.connection)
    hand.connection.send(later, b"\x40\x41\x00req")
    hand.connection.datagram((b"\x00dgram",), hand.link.now + 1)
    foreign = hand.uni(b"\x40\x54\x10other")
    hand.run(0.3)
    assert not hand.server.events
    hand.connection.send(request, hand.headers(request, hand.request()))
    hand.run()
    assert request == 0
    kinds = [type(event) for event in hand.server.events]
    assert kinds[0] is Opened
    assert body(hand.server.events, early) == b"early"
    assert body(hand.server.events, later) == b"req"
    assert [event.data for event in hand.server.told(DatagramReceived)] == [b"dgram"]
    assert [(event.stream, event.code) for event in hand.client.told(Stopped)] == [(foreign, 0x3994BD84)]
    hand.session.send(later, b"ok")
    hand.run()
    assert body(hand.client.events, later) == b"ok"


def test_what_waits_for_a_session_is_bounded():
    limits = Limits(early_streams=3, early_bytes=1000, early_datagrams=2)
    hand = Hand(limits=limits)
    request = hand.bidi(b"")
    streams = [hand.uni(b"\x40\x54\x00%d" % number) for number in range(5)]
    for _ in range(5):
        hand.connection.datagram((b"\x00d",), hand.link.now + 1)
    hand.run()
    assert {event.stream for event in hand.client.told(Stopped)} == set(streams[3:])
    hand.connection.send(streams[0], bytes(2000))
    hand.run()
    assert streams[0] in {event.stream for event in hand.client.told(Stopped)}
    hand.connection.send(request, hand.headers(request, hand.request()))
    hand.run()
    assert {event.stream for event in hand.server.told(StreamData)} == set(streams[1:3])
    assert len(hand.server.told(DatagramReceived)) == 2


def test_datagrams_of_other_sessions_are_dropped_and_headless_ones_are_errors():
    hand = Hand()
    hand.connect()
    hand.run()
    hand.connection.datagram((b"\x04other",), hand.link.now + 1)
    hand.run()
    assert not hand.server.told(DatagramReceived)
    hand.connection.datagram((b"\xc0",), hand.link.now + 1)
    hand.run()
    assert hand.client.told(Closed)[0].code == 0x108


def test_streams_of_unknown_type_are_stopped_not_errors():
    hand = Hand()
    hand.connect()
    hand.run()
    grease = hand.uni(encode_uint_var(0x21) + bytes(100))
    hand.run()
    assert [(event.stream, event.code) for event in hand.client.told(Stopped)] == [(grease, 0x103)]
    assert not hand.client.told(Closed)


@pytest.mark.parametrize("data", [b"\x40\x54\x01", b"\x40\x54\x02x", b"\x40\x54\x03"])
def test_session_ids_that_cannot_be_are_errors(data):
    hand = Hand()
    hand.connect()
    hand.uni(data)
    hand.run()
    assert hand.client.told(Closed)[0].code == 0x108
    assert hand.server.told(Closed)[0].code is None
