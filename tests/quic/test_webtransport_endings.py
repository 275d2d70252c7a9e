"""How a WebTransport session ends: with a goodbye, without, in the middle of one; and that it is drained."""

from __future__ import annotations

import pytest

from tests.quic.hand import CLOSE, Hand, frame
from tradewind.quic.events import Closed, Stopped


@pytest.mark.parametrize("cut", range(len(CLOSE) + 1))
def test_the_goodbye_cut_at_every_byte(cut):
    hand = Hand()
    stream = hand.connect()
    hand.connection.send(stream, CLOSE[:cut])
    hand.run(0.3)
    assert bool(hand.server.told(Closed)) is (cut == len(CLOSE))
    hand.connection.send(stream, CLOSE[cut:], fin=True)
    hand.run(5.0)
    (closed,) = hand.server.told(Closed)
    assert (closed.code, closed.reason, closed.by_peer) == (0x2A, "bye", True)
    assert hand.server.endpoint.statistics().connections == 0


@pytest.mark.parametrize("cut", range(len(CLOSE)))
def test_a_connect_stream_that_ends_anywhere_ends_the_session(cut):
    hand = Hand()
    stream = hand.connect()
    hand.run(0.2)
    hand.connection.send(stream, CLOSE[:cut], fin=True)
    hand.run(5.0)
    (closed,) = hand.server.told(Closed)
    assert closed.by_peer or closed.code is None
    assert hand.server.endpoint.statistics().connections == 0


def test_a_clean_end_without_a_goodbye_is_code_zero():
    hand = Hand()
    stream = hand.connect()
    hand.run()
    hand.connection.send(stream, b"", fin=True)
    hand.run()
    assert [(event.code, event.reason) for event in hand.server.told(Closed)] == [(0, "")]


@pytest.mark.parametrize("how", ["reset", "stop"])
def test_the_connect_stream_breaks(how):
    hand = Hand()
    stream = hand.connect()
    media = hand.uni(b"\x40\x54\x00x")
    hand.run()
    getattr(hand.connection, how)(stream, 0x10C)
    hand.run()
    assert [(event.code, event.by_peer) for event in hand.server.told(Closed)] == [(None, True)]
    assert media in {event.stream for event in hand.client.told(Stopped)}
    hand.run(6.0)
    assert hand.server.endpoint.statistics().connections == 0


def test_drain_is_noted():
    hand = Hand()
    stream = hand.connect()
    hand.connection.send(stream, frame(0, b"\x80\x00\x78\xae\x00"))
    hand.run()
    assert hand.session.peer_draining
    assert not hand.server.told(Closed)
