"""Packets read our own short way do what they do by aioquic's: two servers get the same, one of them never steady."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.tls import Epoch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.quic.pair import CLIENT, Pair, make_pair
from tradewind.quic.events import Closed, DatagramReceived
from tradewind.quic.packets import seal
from tradewind.quic.wire import push_varint


class Twin:
    """A pair whose server gets packets that nobody's rules wrote."""

    def __init__(self, *, steady: bool) -> None:
        self.pair: Pair = make_pair()
        self.pair.run(1.0)
        self.server = self.pair.at_server._core
        self.steady = steady
        self._client = self.pair.at_client._core
        self._numbers = self._client._packet_number
        assert self.server.steady

    def give(self, payload: bytes, skip: int, wait_s: float) -> None:
        """One packet, `skip` numbers beyond the next, after some time; then what the server has to say is dropped."""
        pair = self.pair
        pair.link.now += wait_s
        self._numbers += skip + 1
        crypto = self._client._cryptos[Epoch.ONE_RTT]
        (data,) = seal(crypto, self._client._peer_cid.cid, False, self._numbers - 1, [payload])
        self.server.steady = self.server.steady and self.steady
        pair.server.events += pair.server.endpoint.receive_datagrams([(data, CLIENT)], pair.link.now)
        pair.server.endpoint.datagrams_to_send(pair.link.now)

    def again(self, data: bytes) -> None:
        self.pair.server.endpoint.receive_datagrams([(data, CLIENT)], self.pair.link.now)

    def state(self) -> dict[str, Any]:
        core, space = self.server, self.server._spaces[Epoch.ONE_RTT]
        return {
            "told": [(type(event).__name__, *_plain(event)) for event in self.pair.server.events],
            "acks": list(space.ack_queue),
            "ack_at": space.ack_at,
            "largest": (space.largest_received_packet, space.largest_received_time),
            "in_flight": list(space.sent_packets),
            "acked": space.largest_acked_packet,
            "streams": sorted(core.streams),
            "credit": (core.credit.received, core.credit.limit, core.credit.held_bytes),
            "ours": (core.queue.max_data, core._remote_max_streams_uni, core._remote_max_streams_bidi),
            "closes": core._close_at,
            "spin": core._spin_bit,
            "ended": (core.ended, core._close_event and core._close_event.error_code),
        }


def _plain(event: Any) -> list[object]:
    names = [name for name in ("stream", "data", "fin", "code", "by_peer") if hasattr(event, name)]
    return [getattr(event, name) for name in names]


numbers = st.one_of(st.integers(0, 70), st.integers(0, 1 << 62 - 1))
varint = numbers.map(push_varint)


def frame(kind: int, *fields: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(st.just(push_varint(kind)), *fields).map(b"".join)


def sized(start: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(start, st.binary(max_size=60)).map(lambda both: both[0] + push_varint(len(both[1])) + both[1])


streams = st.integers(0, 12).map(push_varint)
offsets = st.one_of(st.integers(0, 90), st.just(1 << 40)).map(push_varint)
sent = st.integers(0, 3).map(push_varint)
"""Packet numbers that the server has used."""
frames = st.one_of(
    frame(0x00, st.binary(max_size=0)),
    st.just(bytes(9)),
    frame(0x01),
    frame(0x02, sent, varint, st.just(b"\0"), varint),
    frame(0x02, sent, varint, st.just(b"\1"), st.just(b"\0"), varint, varint),
    frame(0x03, sent, varint, st.just(b"\0"), st.just(b"\0"), st.just(b"\1\2\3")),
    frame(0x10, varint),
    frame(0x11, streams, varint),
    frame(0x12, varint),
    frame(0x04, streams, varint, offsets),
    frame(0x05, streams, varint),
    frame(0x1C, st.just(b"\0\0\0")),
    frame(0x1E),
    sized(frame(0x0A, streams)),
    sized(frame(0x0B, streams)),
    sized(st.tuples(st.just(b"\x0e"), streams, offsets).map(b"".join)),
    sized(st.tuples(st.just(b"\x0f"), streams, offsets).map(b"".join)),
    frame(0x0C, streams, offsets, st.binary(max_size=20)),
    sized(st.just(b"\x31")),
    frame(0x30, st.binary(max_size=20)),
    frame(0x30, st.just(b"\xff" * 5)),
    st.binary(max_size=12),
    st.sampled_from([b"\x0a", b"\x31\x40", b"\x02\x05", b"\x0e\x00\xff", b"\x21", b"\x40\x01", b"\x1a12345678"]),
)
packets = st.tuples(st.lists(frames, max_size=5).map(b"".join), st.integers(0, 3), st.floats(0.0, 0.03))


@given(st.lists(packets, min_size=1, max_size=8))
@example([(bytes(40), 0, 0.0)])
@example([(b"\x02\x00\x00\x00\x00", 2, 0.001), (b"\x01", 70, 0.0), (b"\x30abc", 200, 0.0)])
@settings(deadline=None)
def test_both_ways_of_reading_agree(given_packets: list[tuple[bytes, int, float]]) -> None:
    ours, theirs = Twin(steady=True), Twin(steady=False)
    start = max(ours.pair.link.now, theirs.pair.link.now)
    ours.pair.link.now = theirs.pair.link.now = start
    for payload, skip, wait_s in given_packets:
        for twin in (ours, theirs):
            twin.give(payload.ljust(4, b"\0"), skip, wait_s)
        assert ours.state() == theirs.state()
        if not ours.server.ended:
            ours.server.check_invariants()


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"\x02\x40\xff\x00\x00\x00", 0x0A, "a packet that was never sent"),
        (b"\x02\x02\x00\x00\x06", 0x07, "a packet number below zero"),
        (b"\x02\x02\x00\x01\x02\x03\x00", 0x07, "a packet number below zero"),
        (b"\x02\x02\x00\x3f\x00\x00\x00", 0x07, "Failed to parse frame"),
        (b"\x31\x10abc", 0x07, "Failed to parse frame"),
        (b"\x0a\x00\x10abc", 0x07, "Failed to parse frame"),
    ],
)
def test_what_no_packet_may_hold_closes_the_connection(payload: bytes, code: int, reason: str) -> None:
    twin = Twin(steady=True)
    twin.give(payload, 0, 0.0)
    (closed,) = twin.pair.server.told(Closed)
    assert reason in closed.reason
    assert twin.server._close_event is not None and twin.server._close_event.error_code == code


def test_a_packet_counts_once_however_often_it_comes() -> None:
    pair = make_pair()
    pair.run(1.0)
    pair.at_client.datagram((b"once",), pair.link.now + 1)
    ((_, (packet,)),) = pair.client.endpoint.datagrams_to_send(pair.link.now)
    for _ in range(3):
        pair.server.events += pair.server.endpoint.receive_datagrams([(packet, CLIENT)], pair.link.now)
    assert len(pair.server.told(DatagramReceived)) == 1


@pytest.mark.parametrize("cut", [0, 1, 9, 12, 20, 28, 29])
def test_a_packet_cut_short_is_dropped(cut: int) -> None:
    twin = Twin(steady=True)
    crypto = twin._client._cryptos[Epoch.ONE_RTT]
    (data,) = seal(crypto, twin._client._peer_cid.cid, False, 50, [b"\x01" + bytes(30)])
    before = twin.state()
    twin.again(data[:cut])
    twin.again(data[:-1] + bytes([data[-1] ^ 1]))
    twin.server.check_invariants()
    assert twin.state() == before
