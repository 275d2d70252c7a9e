"""A raw connection: control and media out, events in, credit, and peers that misbehave."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.buffer import encode_uint_var
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.quic.pair import Weather, body, eat_all, inject, make_pair, open_bidi, open_uni
from tradewind.quic.config import Limits
from tradewind.quic.egress import Offered
from tradewind.quic.events import Closed, DatagramReceived, Released, Stopped, StreamData, StreamReset


def stream_frame(stream: int, offset: int, data: bytes, fin: bool = False) -> bytes:
    return b"%c%b%b%b%b" % (
        0x0E | fin,
        encode_uint_var(stream),
        encode_uint_var(offset),
        encode_uint_var(len(data)),
        data,
    )


def test_who_is_who():
    pair = make_pair()
    assert (pair.at_client.is_client, pair.at_server.is_client) == (True, False)
    assert pair.at_client.protocol == pair.at_server.protocol == "moqt-20", "the server's first choice"
    assert pair.at_server.peer_address == pair.client.address
    assert pair.at_client.peer_address == pair.server.address
    assert pair.at_client.transport == "quic"
    assert pair.at_client.certificate_sha256() == pair.at_server.certificate_sha256() != b""


def test_streams_both_ways_with_their_ends():
    pair = make_pair()
    request = open_bidi(pair.at_client)
    pair.at_client.send(request, b"subscribe", fin=True)
    media = open_uni(pair.at_server)
    assert pair.at_server.offer(media, (b"he", memoryview(b"ader"), b""), fin=False) is Offered.TAKEN
    pair.run(0.1)
    pair.at_server.send(request, b"ok", fin=True)
    pair.at_server.offer(media, (b" payload",), fin=True)
    pair.run(0.5)
    assert body(pair.server.events, request) == b"subscribe"
    assert body(pair.client.events, request) == b"ok"
    assert body(pair.client.events, media) == b"header payload"
    assert [event.fin for event in pair.client.told(StreamData)].count(True) == 2
    assert [event.stream for event in pair.server.told(Released)] == [media], "control streams are not told"
    assert not pair.at_client._core.streams
    assert not pair.at_server._core.streams
    pair.check()


def test_media_leaves_in_the_order_it_was_offered_and_control_before_it():
    pair = make_pair()
    first, second = open_uni(pair.at_client), open_uni(pair.at_client)
    request = open_bidi(pair.at_client)
    pair.at_client.offer(first, (bytes(6000),), fin=True)
    pair.at_client.offer(second, (bytes(2000),), fin=True)
    pair.at_client.send(request, b"now")
    pair.run(0.5)
    order = list(dict.fromkeys(event.stream for event in pair.server.told(StreamData)))
    assert order == [request, first, second]


def test_at_most_sixteen_kilobytes_wait_and_a_blocked_stream_counts_for_four():
    pair = make_pair(server_limits=Limits(stream_window_bytes=10_000))
    blocked, free = open_uni(pair.at_client), open_uni(pair.at_client)
    assert pair.at_client.writable(0).session_bytes == 16_384
    pair.at_client.offer(blocked, (bytes(10_000),), fin=False)
    assert pair.at_client.writable(0).session_bytes == 6_384
    assert pair.at_client.room(blocked) == 4_096
    pair.at_client.offer(blocked, (bytes(90_000),), fin=False)
    assert pair.at_client.writable(0).session_bytes == 16_384 - 10_000 - 4_096
    pair.run(1.0)
    assert len(body(pair.server.events, blocked)) == 10_000
    assert pair.at_client.unsent(blocked) == 90_000
    assert pair.at_client.room(blocked) == 0
    assert pair.at_client.writable(0).session_bytes == 12_288
    pair.at_client.offer(free, (bytes(10_000),), fin=True)
    pair.run(1.0)
    assert len(body(pair.server.events, free)) == 10_000
    pair.at_client.reset(blocked, 5)
    assert pair.at_client.writable(0).session_bytes == 16_384
    pair.check()


def test_opening_stops_at_the_peers_limit_and_goes_on_as_streams_finish():
    pair = make_pair(server_limits=Limits(uni_streams=4, bidi_streams=2))
    eat_all(pair)
    streams = [open_uni(pair.at_client) for _ in range(4)]
    assert pair.at_client.open_uni() is None
    assert pair.at_client.writable(0).streams == 0
    assert pair.at_client.open_bidi() is not None
    for stream in streams:
        pair.at_client.offer(stream, (b"x",), fin=True)
    pair.run(1.0)
    assert pair.at_client.writable(0).streams == 4
    for _ in range(50):
        stream = open_uni(pair.at_client)
        pair.at_client.offer(stream, (b"y" * 100,), fin=True)
        pair.run(0.2)
    assert len(pair.server.told(StreamData)) == 54
    assert len(pair.at_server._core.streams) == 0
    pair.check()


def test_stop_sending_meets_writes_without_a_raise():
    pair = make_pair()
    media, request = open_uni(pair.at_client), open_bidi(pair.at_client)
    pair.at_client.offer(media, (bytes(1000),), fin=False)
    pair.at_client.send(request, b"a")
    pair.run(0.1)
    pair.at_server.stop(media, 7)
    pair.at_server.stop(request, 8)
    pair.at_client.offer(media, (bytes(20_000),), fin=False)
    pair.run(0.1)
    assert [(event.stream, event.code) for event in pair.client.told(Stopped)] == [(media, 7), (request, 8)]
    assert pair.at_client.offer(media, (b"more",), fin=True) is Offered.STOPPED
    assert pair.at_client.unsent(media) == 0
    assert [event.stream for event in pair.client.told(Released)] == [media]
    pair.at_client.send(request, b"ignored")
    pair.at_client.reset(media, 1)
    pair.run(1.0)
    assert not pair.server.told(StreamReset), "who stopped a stream is not told that it was reset"
    assert pair.at_client.offer(media, (b"gone",), fin=False) is Offered.STOPPED
    pair.check()


def test_reset_is_told_with_its_code_and_releases():
    pair = make_pair()
    media = open_uni(pair.at_client)
    pair.at_client.offer(media, (bytes(5000),), fin=False)
    pair.run(0.1)
    pair.at_client.reset(media, 0x33)
    pair.at_client.reset(media, 0x44)
    assert pair.at_client.offer(media, (b"x",), fin=False) is Offered.STOPPED
    pair.run(1.0)
    assert [(event.stream, event.code) for event in pair.server.told(StreamReset)] == [(media, 0x33)]
    assert [event.stream for event in pair.client.told(Released)] == [media]
    assert not pair.at_client._core.streams
    assert not pair.at_server._core.streams


def test_calls_about_streams_that_are_no_more_change_nothing():
    pair = make_pair()
    for connection in (pair.at_client, pair.at_server):
        connection.send(4000, b"x")
        connection.reset(4000, 1)
        connection.stop(4000, 1)
        connection.consumed(4000, 10)
        assert connection.offer(4000, (b"x",), fin=False) is Offered.STOPPED
        assert connection.unsent(4000) == connection.room(4000) == 0
    pair.run(0.5)
    assert not pair.client.told(Closed)
    pair.check()


def test_datagrams_are_size_checked_and_expire_here():
    pair = make_pair()
    most = pair.at_client.writable(0).datagram_bytes
    assert most == 1202
    assert not pair.at_client.datagram((bytes(most + 1),), pair.link.now + 9)
    assert pair.at_client.datagram((bytes(most),), pair.link.now + 9)
    assert pair.at_client.datagram((b"late",), pair.link.now)
    assert pair.at_client.datagram((b"in", b"time"), pair.link.now + 9)
    pair.run(0.2)
    assert [len(event.data) for event in pair.server.told(DatagramReceived)] == [most, 6]
    assert pair.at_client.statistics().datagrams_expired == 1


def test_waiting_datagrams_are_bounded_and_the_oldest_go_first():
    pair = make_pair(client_limits=Limits(datagram_backlog_bytes=5_000))
    for number in range(20):
        pair.at_client.datagram((bytes([number]) * 1000,), pair.link.now + 9)
    assert pair.at_client.statistics().datagram_unsent_bytes <= 5_000
    pair.run(1.0)
    assert [event.data[0] for event in pair.server.told(DatagramReceived)] == [16, 17, 18, 19]
    assert pair.at_client.statistics().datagrams_dropped == 16


def test_a_peer_that_never_reads_its_control_stream_is_closed():
    pair = make_pair(
        server_limits=Limits(control_backlog_bytes=100_000), client_limits=Limits(stream_window_bytes=1000)
    )
    request = open_bidi(pair.at_client)
    pair.at_client.send(request, b"hello")
    pair.run(0.2)
    for _ in range(200):
        pair.at_server.send(request, bytes(1000))
        pair.run(0.01)
    (closed,) = pair.server.told(Closed)
    assert "does not read" in closed.reason
    assert closed.code is None
    assert pair.at_server.is_closed
    assert pair.at_server.open_uni() is None


@pytest.mark.parametrize("seed", range(6))
def test_everything_arrives_through_a_bad_network(seed):
    weather = Weather(delay_s=0.02, jitter_s=0.03, loss=0.08, duplicate=0.05)
    pair = make_pair(weather=weather, seed=seed)
    eat_all(pair)
    content = bytes(range(256)) * 150
    streams = [open_uni(pair.at_client) for _ in range(5)]
    for stream in streams:
        pair.at_client.offer_many([stream], (content[:10_000], memoryview(content)[10_000:]), fin=True)
    request = open_bidi(pair.at_client)
    pair.at_client.send(request, content[:5000], fin=True)
    pair.run(30.0, until=lambda: len(pair.client.told(Released)) == 5)
    pair.run(1.0)
    assert [body(pair.server.events, stream) for stream in streams] == [content] * 5
    assert body(pair.server.events, request) == content[:5000]
    assert list(pair.at_client._core.streams) == [request]
    pair.check()


@given(
    stream_window=st.sampled_from([2_000, 20_000]),
    eats=st.lists(st.booleans(), min_size=4, max_size=4),
    sizes=st.lists(st.integers(1, 30_000), min_size=4, max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_withheld_stream_credit_starves_that_stream_only(stream_window, eats, sizes):
    pair = make_pair(server_limits=Limits(stream_window_bytes=stream_window))
    streams = [open_uni(pair.at_client) for _ in sizes]
    eaten = {stream for stream, eat in zip(streams, eats) if eat}

    def eat_some(events: list[Any]) -> None:
        for event in events:
            if isinstance(event, StreamData) and event.stream in eaten:
                event.connection.consumed(event.stream, len(event.data))

    pair.server.on_events = eat_some
    for stream, size in zip(streams, sizes):
        pair.at_client.offer(stream, (bytes(size),), fin=True)
    pair.run(3.0)
    for stream, size in zip(streams, sizes):
        expected = size if stream in eaten else min(size, stream_window)
        assert len(body(pair.server.events, stream)) == expected
    pair.check()


def test_withheld_session_credit_starves_streams_but_not_datagrams_and_nothing_grows():
    pair = make_pair(server_limits=Limits(session_window_bytes=20_000, stream_window_bytes=20_000))
    streams = [open_uni(pair.at_client) for _ in range(3)]
    for stream in streams:
        pair.at_client.offer(stream, (bytes(16_000),), fin=True)
    pair.run(1.0)
    got = sum(len(event.data) for event in pair.server.told(StreamData))
    assert got == 20_000
    assert pair.at_client.writable(0).session_bytes == 0
    pair.at_client.datagram((b"still",), pair.link.now + 1)
    pair.at_client.reset(streams[2], 1)
    pair.run(0.2)
    assert len(pair.server.told(DatagramReceived)) == 1
    assert [event.stream for event in pair.server.told(StreamReset)] == [streams[2]]
    eat_all(pair)
    for event in pair.server.told(StreamData):
        pair.at_server.consumed(event.stream, len(event.data))
    pair.run(1.0)
    assert sum(len(event.data) for event in pair.server.told(StreamData)) == 32_000
    pair.check()


def test_withheld_stream_count_starves_new_streams_only():
    pair = make_pair(server_limits=Limits(bidi_streams=3))
    requests = [open_bidi(pair.at_client) for _ in range(3)]
    assert pair.at_client.open_bidi() is None
    for request in requests:
        pair.at_client.send(request, b"x", fin=True)
    pair.run(0.5)
    assert pair.at_client.open_bidi() is None, "the server has not ended its half"
    pair.at_client.offer(open_uni(pair.at_client), (b"media",), fin=True)
    pair.run(0.5)
    assert len(pair.server.told(StreamData)) == 4
    pair.at_server.send(requests[0], b"", fin=True)
    pair.run(0.5)
    assert pair.at_client.open_bidi() is not None
    assert pair.at_client.open_bidi() is None


def test_credit_comes_back_for_streams_that_were_stopped_or_reset():
    pair = make_pair(server_limits=Limits(session_window_bytes=40_000, stream_window_bytes=20_000))

    def stop_all(events: list[Any]) -> None:
        for event in events:
            if isinstance(event, StreamData):
                event.connection.consumed(event.stream, len(event.data))
                event.connection.stop(event.stream, 1)

    pair.server.on_events = stop_all
    for number in range(40):
        stream = open_uni(pair.at_client)
        pair.at_client.offer(stream, (bytes(10_000),), fin=number % 3 == 0)
        if number % 2:
            pair.run(0.005)
            pair.at_client.reset(stream, 2)
        pair.run(0.2)
    credit = pair.at_server._core.credit
    assert credit.received > 100_000
    assert credit.consumed == credit.received
    assert not pair.client.told(Closed)


# Hostile peers.


def test_gaps_cost_what_they_carry_and_no_more():
    """1,440 datagrams that claimed far offsets took 2 GB of aioquic; here the claim itself is over the credit."""
    pair = make_pair()
    core = pair.at_server._core
    for number in range(16):
        inject(pair.at_client, stream_frame(2 + 4 * number, 256 * 1024 - 1, b"x"))
    pair.run(1.0)
    assert 0 < core.credit.held_bytes < 16 * 200
    inject(pair.at_client, stream_frame(2 + 4 * 20, 256 * 1024 - 1, b"x"))
    pair.run(1.0)
    (closed,) = pair.server.told(Closed)
    assert "credit" in closed.reason


def test_tiny_chunks_out_of_order_are_counted_with_their_overhead():
    limits = Limits(session_window_bytes=64 * 1024, stream_window_bytes=64 * 1024)
    pair = make_pair(server_limits=limits)
    for offset in range(1, 4000, 2):
        inject(pair.at_client, stream_frame(2, offset, b"x"))
    most = 0
    for _ in range(300):
        pair.link.step()
        most = max(most, pair.at_server._core.credit.held_bytes)
    assert most <= 2 * 64 * 1024 + 200
    (closed,) = pair.server.told(Closed)
    assert closed.reason == "too much held out of order"


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([stream_frame(2, 256 * 1024, b"x")], "over the stream's credit"),
        ([stream_frame(0 + 4 * 128, 0, b"x")], "too many streams"),
        ([stream_frame(2 + 4 * 128, 0, b"x")], "too many streams"),
        ([stream_frame(2, 0, b"abc", True), stream_frame(2, 3, b"d")], None),
        ([stream_frame(0, 0, b"abc", True), stream_frame(0, 3, b"d")], "beyond the final size"),
        ([b"\x04\x02\x00" + encode_uint_var(300_000)], "over the stream's credit"),
        ([stream_frame(0, 10, b"x"), b"\x04\x00\x00\x05"], "final size"),
        ([stream_frame(1, 0, b"x")], "never opened"),
        ([stream_frame(3, 0, b"x")], "send-only"),
        ([b"\x05\x02\x00"], "receive-only"),
        ([b"\x11\x02\x10"], "receive-only"),
        ([b"\x05\x03\x00"], "never opened"),
        ([b"\x1f\x00"], "Unknown frame type"),
        ([b"\x0e\x02"], "parse"),
    ],
)
def test_violations_close_with_a_named_reason(frames, reason):
    pair = make_pair()
    inject(pair.at_client, *frames)
    pair.run(1.0)
    closed = pair.server.told(Closed)
    if reason is None:
        assert not closed, "late bytes of a stream that is over are only ignored"
    else:
        assert reason in closed[0].reason
        assert closed[0].code is None
        assert pair.client.told(Closed)[0].by_peer


FRAME_TYPES = [*range(0x20), 0x30, 0x31, 0x40, 0x21]


@given(st.lists(st.tuples(st.sampled_from(FRAME_TYPES), st.binary(min_size=1, max_size=40)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_frames_are_taken_or_close(frames):
    pair = make_pair()
    open_uni(pair.at_server)
    request = open_bidi(pair.at_server)
    pair.at_server.send(request, b"x")
    for kind, rest in frames:
        inject(pair.at_client, encode_uint_var(kind) + rest)
        pair.run(0.01)
    pair.run(0.3)
    pair.server.endpoint.check_invariants()
    assert len(pair.server.told(Closed)) <= 1
    assert pair.at_server._core.credit.held_bytes < 10_000


def test_one_frame_opens_all_lower_streams_within_the_limit():
    pair = make_pair()
    inject(pair.at_client, stream_frame(4 * 127, 0, b"last", True))
    pair.run(0.5)
    assert len(pair.at_server._core.streams) == 128
    inject(pair.at_client, stream_frame(0, 0, b"first", True))
    pair.run(0.5)
    assert body(pair.server.events, 0) == b"first"
    pair.check()


def test_gaps_in_packet_numbers_show_the_loss_towards_us():
    dropped: list[bytes] = []

    def every_fifth(data: bytes) -> bool:
        if len(data) < 1000 or data[0] & 0x80:
            return False
        dropped.append(data)
        return len(dropped) % 5 == 0

    pair = make_pair(weather=Weather(drop=every_fifth))
    pair.run(0.5)
    before = pair.at_server.statistics()
    for _ in range(100):
        pair.at_client.datagram((bytes(1100),), pair.link.now + 9)
        pair.run(0.02)
    pair.at_client.datagram((b"the last one was lost",), pair.link.now + 9)
    pair.run(0.02)
    after = pair.at_server.statistics()
    came = after.packets_received - before.packets_received
    assert after.largest_received_packet - before.largest_received_packet - came == len(dropped) // 5 == 20


def test_idle_timeout_is_told():
    pair = make_pair(server_limits=Limits(idle_timeout_s=2.0))
    pair.run(10.0)
    for end in (pair.server, pair.client):
        (closed,) = end.told(Closed)
        assert (closed.code, closed.by_peer) == (None, False)
        assert "dle" in closed.reason
    assert not pair.server.endpoint.connections


def test_silence_after_the_end():
    pair = make_pair()
    pair.at_server.close(1, "x" * 5000)
    pair.at_server.close(2, "again")
    pair.run(5.0)
    assert len(pair.client.told(Closed)) == len(pair.server.told(Closed)) == 1
    assert pair.client.told(Closed)[0].code == 1
    assert pair.at_client.writable(0) == (0, 0, 0)
    assert pair.at_client.open_uni() is None
    assert not pair.at_client.datagram((b"x",), 99)
    assert pair.at_client.offer(2, (b"x",), fin=True) is Offered.STOPPED
