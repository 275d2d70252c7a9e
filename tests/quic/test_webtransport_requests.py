"""Who gets a WebTransport session, in which protocol, and who is refused."""

from __future__ import annotations

import pytest

from tests.quic.hand import AIOMOQT, CHROMIUM, MOQ_FFI, Hand, settings_frame
from tests.quic.pair import CLIENT, body, open_bidi
from tradewind.quic.config import ConnectRequest, Limits
from tradewind.quic.events import Closed, Opened, StreamData


@pytest.mark.parametrize("said", [CHROMIUM, MOQ_FFI, AIOMOQT], ids=["chromium", "moq-ffi", "aiomoqt"])
def test_clients_as_they_are(said):
    hand = Hand(said)
    stream = hand.connect()
    hand.run()
    response = hand.response(stream)
    assert response[b":status"] == b"200"
    assert response[b"wt-protocol"] == b'"moqt-20"'
    assert response[b"sec-webtransport-http3-draft"] == b"draft02"
    session = hand.session
    assert (session.path, session.origin) == ("/live?jwt=abc", "https://shop.test")
    assert session.offered == ("moqt-20", "moqt-16")
    control = body(hand.client.events, 3)
    assert b"\xab\x60\x37\x42\x01" in control, "SETTINGS say WebTransport"


def test_a_browser_gets_its_own_order_and_others_theirs():
    table = {"protocols": ("moqt-22", "moqt-20", "moqt-16"), "browser_protocols": ("moqt-16", "moqt-20")}
    for origin, expected in ((b"https://shop.test", b'"moqt-16"'), (None, b'"moqt-20"')):
        hand = Hand(CHROMIUM, **table)
        stream = hand.connect(origin=origin)
        hand.run()
        assert hand.response(stream)[b"wt-protocol"] == expected


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"offered": ("moqt-99",)}, 400),
        ({"offered": ()}, 400),
        ({"path": b"/forbidden"}, 403),
        ({"path": b"/full"}, 429),
    ],
)
def test_refusals(changes, status):
    def admit(request: ConnectRequest) -> int:
        assert request.peer_address == CLIENT
        return {"/forbidden": 403, "/full": 429}.get(request.path, 200)

    hand = Hand(admit=admit)
    stream = hand.connect(**changes)
    hand.run()
    assert hand.response(stream) == {b":status": b"%d" % status}
    assert not hand.server.told(Opened)
    again = hand.connect()
    hand.run()
    assert hand.response(again)[b":status"] == b"200", "a refused session is not the connection's only one"


def test_what_is_no_webtransport_is_not_found():
    hand = Hand()
    stream = open_bidi(hand.connection)
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"relay.test"), (b":path", b"/")]
    hand.connection.send(stream, hand.headers(stream, fields), fin=True)
    hand.run()
    assert hand.response(stream) == {b":status": b"404"}


def test_a_second_session_is_refused_and_the_first_lives():
    hand = Hand()
    hand.connect()
    second = hand.connect()
    hand.run()
    assert hand.response(second) == {b":status": b"429"}
    hand.uni(b"\x40\x54\x00hello")
    hand.run()
    assert [event.data for event in hand.server.told(StreamData)] == [b"hello"]


def test_a_request_waits_for_the_settings():
    hand = Hand(None)
    stream = hand.connect()
    hand.run()
    assert not hand.response(stream)
    hand.uni(b"\x00" + settings_frame(CHROMIUM))
    hand.run()
    assert hand.response(stream)[b":status"] == b"200"


def test_settings_without_webtransport_are_refused():
    hand = Hand({0x33: 1})
    stream = hand.connect()
    hand.run()
    assert hand.response(stream) == {b":status": b"400"}


def test_no_session_no_connection():
    hand = Hand(limits=Limits(handshake_timeout_s=2.0))
    hand.run(10.0)
    assert hand.client.told(Closed)
    assert not hand.server.events, "a connection that was never told open is not told closed"
    assert hand.server.endpoint.statistics().connections == 0
