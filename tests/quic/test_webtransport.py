"""WebTransport sessions: both ends ours, and a client written by hand that says what Chromium says, or worse."""

from __future__ import annotations

import pylsqpack
import pytest
from aioquic.buffer import encode_uint_var
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.quic.pair import CLIENT, SERVER, End, Link, Pair, Weather, client_settings, make_pair, server_settings
from tests.quic.test_connection import body, eat_all, inject, open_bidi, open_uni
from tradewind.quic.config import ConnectRequest, Limits
from tradewind.quic.connection import Connection
from tradewind.quic.egress import Offered
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Closed, DatagramReceived, Opened, Released, Stopped, StreamData, StreamReset
from tradewind.quic.webtransport import WebTransportConnection
from tradewind.quic.wire import encode_close, encode_protocols, to_http_code

URL = "https://relay.test:4433/live?jwt=abc"
CHROMIUM = {0x01: 65536, 0x06: 16384, 0x07: 100, 0x33: 1, 0xFFD277: 1, 0x2B603742: 1}
MOQ_FFI = {0x2B603742: 1, 0xC671706A: 1, 0x2B603743: 1, 0x33: 1, 0xFFD277: 1, 0x08: 1}
AIOMOQT = {0x2C7CF000: 1, 0x14E9CD29: 1, 0xC671706A: 1, 0x2B603742: 1, 0x33: 1, 0x08: 1, 0x06: 16384}


def frame(kind: int, payload: bytes) -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(payload)) + payload


def settings_frame(values: dict[int, int]) -> bytes:
    return frame(4, b"".join(encode_uint_var(key) + encode_uint_var(value) for key, value in values.items()))


class Hand:
    """An HTTP/3 client written by hand on a raw connection: any bytes on any stream."""

    def __init__(self, said: dict[int, int] | None = CHROMIUM, **server) -> None:
        self.server = End(Endpoint(server_settings(**server)), SERVER)
        self.client = End(Endpoint(client_settings(protocols=("h3",)), is_client=True), CLIENT)
        self.link = Link(self.server, self.client)
        self.connection: Connection = self.client.endpoint.connect(SERVER, self.link.now, server_name="relay.test")
        self.link.run(1.0)
        self.encoder = pylsqpack.Encoder()
        if said is not None:
            self.control = self.uni(b"\x00" + settings_frame(said))

    def uni(self, data: bytes, fin: bool = False) -> int:
        stream = open_uni(self.connection)
        self.connection.send(stream, data, fin)
        return stream

    def bidi(self, data: bytes, fin: bool = False) -> int:
        stream = open_bidi(self.connection)
        self.connection.send(stream, data, fin)
        return stream

    def headers(self, stream: int, fields: list[tuple[bytes, bytes]]) -> bytes:
        _, block = self.encoder.encode(stream, fields)
        return frame(1, block)

    def request(
        self, offered=("moqt-20", "moqt-16"), path=b"/live?jwt=abc", origin: bytes | None = b"https://shop.test"
    ):
        fields = [
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", b"relay.test:4433"),
            (b":path", path),
            (b":protocol", b"webtransport"),
            (b"sec-webtransport-http3-draft02", b"1"),
        ]
        if origin is not None:
            fields.append((b"origin", origin))
        if offered:
            fields.append((b"wt-available-protocols", encode_protocols(offered).encode()))
        return fields

    def connect(self, **changes) -> int:
        stream = open_bidi(self.connection)
        self.connection.send(stream, self.headers(stream, self.request(**changes)))
        return stream

    def response(self, stream: int) -> dict[bytes, bytes]:
        data = body(self.client.events, stream)
        if not data:
            return {}
        assert data[0] == 1
        _, fields = pylsqpack.Decoder(0, 0).feed_header(stream, data[2 : 2 + data[1]])
        return dict(fields)

    def run(self, duration_s: float = 0.5) -> None:
        self.link.run(duration_s)

    @property
    def session(self) -> WebTransportConnection:
        session: WebTransportConnection = self.server.told(Opened)[0].connection
        return session


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


# A client by hand.


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


CLOSE = frame(0, encode_close(0x2A, "bye"))


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


def test_no_session_no_connection():
    hand = Hand(limits=Limits(handshake_timeout_s=2.0))
    hand.run(10.0)
    assert hand.client.told(Closed)
    assert not hand.server.events, "a connection that was never told open is not told closed"
    assert hand.server.endpoint.statistics().connections == 0


@pytest.mark.parametrize(
    ("said", "attack"),
    [
        (CHROMIUM, lambda hand: hand.bidi(frame(1, b"")[:1] + encode_uint_var(1 << 30) + bytes(70_000))),
        (None, lambda hand: hand.uni(b"\x00\x04" + encode_uint_var(1 << 30) + bytes(70_000))),
        (CHROMIUM, lambda hand: hand.uni(b"\x02" + bytes(70_000))),
        (
            CHROMIUM,
            lambda hand: hand.connection.send(hand.connect(), b"\x01" + encode_uint_var(1 << 30) + bytes(70_000)),
        ),
        (CHROMIUM, lambda hand: [hand.connection.send(hand.control, frame(0x21, bytes(1000))) for _ in range(70)]),
    ],
    ids=["headers", "settings", "qpack", "trailers", "grease"],
)
def test_what_http_may_buffer_is_bounded(said, attack):
    hand = Hand(said)
    attack(hand)
    hand.run(3.0)
    assert hand.client.told(Closed)[0].code in (0x107, 0x201)


def test_a_long_session_body_is_not_http_overhead():
    hand = Hand()
    stream = hand.connect()
    for _ in range(40):
        hand.connection.send(stream, frame(0, b"\x41\x05\x47\xd0" + bytes(2000)))
        hand.run(0.1)
    assert not hand.client.told(Closed)


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


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["uni", "bidi", "more", "reset", "stop", "datagram", "inject"]),
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from([b"\x40\x54\x00", b"\x40\x41\x00", b"\x00\x04\x00", b"\x02", b"\x03", b"\x01", CLOSE]),
            ),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_bytes_on_any_stream_only_ever_close(actions, connected):
    hand = Hand()
    if connected:
        hand.connect()
        hand.run(0.1)
    streams: list[int] = []
    for kind, data, fin in actions:
        if kind in ("uni", "bidi"):
            opened = hand.connection.open_uni() if kind == "uni" else hand.connection.open_bidi()
            if opened is not None:
                streams.append(opened)
                hand.connection.send(opened, data, fin)
        elif kind == "datagram":
            hand.connection.datagram((data,), hand.link.now + 1)
        elif kind == "inject" and len(data) > 1:
            inject(hand.connection, data)
        elif streams and kind == "more":
            hand.connection.send(streams[len(data) % len(streams)], data, fin)
        elif streams:
            getattr(hand.connection, kind if kind in ("reset", "stop") else "reset")(
                streams[len(data) % len(streams)], len(data)
            )
        hand.run(0.05)
    hand.run(0.5)
    hand.server.endpoint.check_invariants()
    assert len(hand.server.told(Closed)) <= len(hand.server.told(Opened))


def test_pair_is_a_pair():
    assert isinstance(make_pair(url=URL), Pair)
