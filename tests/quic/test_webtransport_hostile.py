"""What a client may make HTTP/3 keep, and any bytes on any stream."""

from __future__ import annotations

import pytest
from aioquic.buffer import encode_uint_var
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.quic.hand import CHROMIUM, CLOSE, Hand, frame
from tests.quic.pair import inject
from tradewind.quic.events import Closed, Opened


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
