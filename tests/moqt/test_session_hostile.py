"""Peers that break every rule: nothing raises, nothing grows, and what is wrong closes the session once."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.moqt.pair import DRAFTS, Bytes, Pair, Peer, Side, made, send_fetch, send_subgroup, subgroup_bytes
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import RequestCode, SessionCode
from tradewind.moqt.model import (
    NEXT_OBJECT,
    NO_FILTER,
    FullTrackName,
    Location,
    ObjectHeader,
    Parameters,
    SubgroupHeader,
    Token,
)
from tradewind.moqt.parameters import RawParameters, SetupOptions
from tradewind.moqt.session import SessionSettings

TRACK = FullTrackName((b"live", b"demo"), b"video")
RICH = RawParameters.of(
    Parameters(tokens=(Token(1, b"token"),), forward=True, priority=200, filter=NEXT_OBJECT, object_timeout_ms=70)
)
REQUESTS: list[m.Message] = [
    m.Subscribe(0, TRACK, RICH),
    m.Publish(0, TRACK, 9, RICH, ((2, 5), (0x21, b"bytes"))),
    m.Fetch(0, TRACK, NO_FILTER, RICH),
    m.TrackStatus(0, TRACK, RICH),
    m.PublishNamespace(0, TRACK.namespace, RICH),
    m.SubscribeNamespace(0, TRACK.namespace, RICH, options=2),
]


# --- Cut short --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("request_", range(len(REQUESTS)))
def test_every_request_cut_at_every_byte(draft: int, request_: int) -> None:
    probe = Peer(draft)
    data = m.encode(probe.profile, REQUESTS[request_])
    for cut in range(len(data)):
        there = Peer(draft, setup=SetupOptions())
        own_stream = draft >= 17 or isinstance(REQUESTS[request_], m.SubscribeNamespace)
        stream = there.bidi_id() if own_stream else there.control
        events = there.side.receive(Bytes(stream, data[:cut], fin=True))
        assert there.closed == SessionCode.PROTOCOL_VIOLATION
        assert [type(event) for event in events] == [e.SessionClosed]
        assert there.side.receive(Bytes(stream + 4, data)) == []


@pytest.mark.parametrize("draft", DRAFTS)
def test_message_longer_or_shorter_than_it_says(draft: int) -> None:
    for message in REQUESTS:
        for change in (-1, 1):
            there = Peer(draft, setup=SetupOptions())
            data = bytearray(m.encode(there.profile, message))
            place = len(data) - int.from_bytes(data[1:3], "big") - 1
            data[place] = (data[place] + change) % 256
            stream = there.bidi_id() if draft >= 17 or isinstance(message, m.SubscribeNamespace) else there.control
            there.side.receive(Bytes(stream, bytes(data) + bytes(300)))
            assert there.closed is not None


@pytest.mark.parametrize("draft", DRAFTS)
def test_setup_cut_at_every_byte(draft: int) -> None:
    options = SetupOptions(path="/live", authority="h", implementation="x", others=((0x40B5A, 1),))
    probe = Side(draft, is_client=True)
    probe.session.start(options)
    (sent,) = probe.transport.take()
    for cut in range(1, len(sent.data) + 1):
        there = Side(draft, is_client=False)
        there.session.start(SetupOptions())
        there.receive(Bytes(sent.stream, sent.data[:cut], fin=True))
        assert there.transport.closed is not None
        assert there.transport.closed[0] == SessionCode.PROTOCOL_VIOLATION


@pytest.mark.parametrize("draft", DRAFTS)
def test_unknown_message_types(draft: int) -> None:
    for number in (0x00, 0x01, 0x12, 0x14, 0x3F):
        there = Peer(draft, setup=SetupOptions())
        there.side.receive(Bytes(there.control, bytes((number, 0, 0))))
        assert there.closed == SessionCode.PROTOCOL_VIOLATION
        there = Peer(draft, setup=SetupOptions())
        there.side.receive(Bytes(there.bidi_id(), bytes((number, 0, 0))))
        assert there.closed == SessionCode.PROTOCOL_VIOLATION


# --- Noise ------------------------------------------------------------------------------------------------------------


CHUNKS = st.lists(
    st.tuples(
        st.sampled_from([0, 2, 4, 6, 1, 3, 5, 8]),
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [b"\x03\x00\x09\x00\x01\x01a\x01t\x00", b"\x10\x00\x00", b"\x05\x01", b"\x50\x00\x03\x00\x00\x00"]
            ),
        ),
        st.sampled_from(["data", "data", "data", "fin", "reset", "stop", "datagram", "wait"]),
    ),
    max_size=12,
)


def feed(side: Side, chunks: list[tuple[int, bytes, str]]) -> None:
    over: set[int] = set()
    for stream, data, what in chunks:
        if what == "datagram":
            side.events += side.session.receive_datagram(data, side.now)
        elif what == "wait":
            side.wait(0.7)
        elif what == "stop":
            side.receive(Bytes(stream, stop=1))
        elif stream not in over:
            if what in {"fin", "reset"}:
                over.add(stream)
            side.receive(Bytes(stream, reset=4) if what == "reset" else Bytes(stream, data, what == "fin"))
    closings = [event for event in side.events if isinstance(event, e.SessionClosed)]
    assert len(closings) == (side.transport.closed is not None)
    if closings:
        assert side.events[-1] == closings[0]


@given(chunks=CHUNKS, draft=st.sampled_from(DRAFTS), ready=st.booleans(), is_client=st.booleans())
@settings(max_examples=150, deadline=None)
def test_noise_never_raises(chunks: list[tuple[int, bytes, str]], draft: int, ready: bool, is_client: bool) -> None:
    there = Peer(draft, is_client=is_client, setup=SetupOptions() if ready else None)
    if not ready:
        there.session.start(SetupOptions())
    made_or_not = there.session.subscribe(TRACK)
    assert made_or_not is not None or draft == 16
    there.side.take()
    feed(there.side, chunks)


def dialogue(draft: int) -> list[tuple[bool, Bytes]]:
    """What a client and a server said in a busy session, in order; True: the client."""
    pair = Pair(draft, start=False)
    said: list[tuple[bool, Bytes]] = []

    def run() -> None:
        moved = True
        while moved:
            moved = False
            for is_client, source, target in ((True, pair.client, pair.server), (False, pair.server, pair.client)):
                for sent in source.transport.take():
                    moved = True
                    said.append((is_client, sent))
                    target.receive(sent)

    pair.client.session.start(SetupOptions(path="/x", authority="h"))
    pair.server.session.start(SetupOptions())
    run()
    pair.client.session.publish_namespace(TRACK.namespace, Parameters(tokens=(Token(1, b"t"),)))
    pair.client.session.subscribe_namespace(())
    number = made(pair.server.session.subscribe(TRACK, Parameters(filter=NEXT_OBJECT)))
    fetch = made(pair.server.session.fetch(TRACK, NO_FILTER))
    run()
    pair.client.session.accept_subscribe(number, 4, Parameters(largest=Location(1, 1)), ((0x0E, 7),))
    pair.client.session.accept_fetch(fetch, Location(1, 1), False)
    send_subgroup(pair.client, 4, 2, [b"object", b"", b"other"])
    send_fetch(pair.client, fetch, [(Location(1, 0), b"a"), (Location(1, 1), b"b")])
    pair.server.session.update(number, Parameters(forward=True))
    pair.server.session.accept(0)
    run()
    pair.client.session.publish_done(number, 2, 1, "over")
    pair.server.session.goaway("moqt://elsewhere")
    run()
    return said


DIALOGUES = {draft: dialogue(draft) for draft in DRAFTS}


@given(data=st.data(), draft=st.sampled_from(DRAFTS), to_server=st.booleans())
@settings(max_examples=150, deadline=None)
def test_changed_bytes_never_raise(data: st.DataObject, draft: int, to_server: bool) -> None:
    said = [sent for is_client, sent in DIALOGUES[draft] if is_client is to_server]
    side = Side(draft, is_client=not to_server)
    side.session.start(SetupOptions(path="/x", authority="h") if not to_server else SetupOptions())
    for _ in range(3):
        side.session.subscribe(TRACK)
    where = data.draw(st.integers(0, len(said) - 1))
    for number, sent in enumerate(said):
        content = bytearray(sent.data)
        if number == where and content:
            for _ in range(data.draw(st.integers(1, 3))):
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        side.receive(Bytes(sent.stream, bytes(content), sent.fin, sent.reset, sent.stop))


@given(data=st.data(), draft=st.sampled_from(DRAFTS))
@settings(max_examples=60, deadline=None)
def test_any_order_of_streams_never_raises(data: st.DataObject, draft: int) -> None:
    said = [sent for is_client, sent in DIALOGUES[draft] if is_client]
    side = Side(draft, is_client=False)
    side.session.start(SetupOptions())
    for sent in data.draw(st.permutations(said)):
        side.receive(sent)


# --- Floods -----------------------------------------------------------------------------------------------------------


def growth(work: Any, times: int) -> int:
    """Bytes that `work(n)` leaves allocated when it is called `times` times, past a warm-up."""
    for number in range(times // 10):
        work(number)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(times // 10, times):
        work(number)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


def test_early_streams_leave_memory_flat() -> None:
    there = Peer(20)
    there.session.start(SetupOptions())
    data = m.encode(there.profile, m.Subscribe(0, TRACK)) + bytes(200)

    def work(number: int) -> None:
        there.session.receive_stream(4 * number, data, False, 0.0)
        there.session.receive_stream(4 * number + 2, b"\x10" + bytes(200), False, 0.0)
        there.side.transport.sent.clear()
        there.side.transport.finished.clear()

    assert growth(work, 10_000) < 20_000
    statistics = there.session.statistics()
    assert (statistics.early_streams, there.closed) == (64, None)
    assert statistics.early_bytes <= 256 * 1024
    there.session.check_invariants()


def test_unknown_aliases_leave_memory_flat() -> None:
    there = Peer(20, setup=SetupOptions())
    fields = SubgroupHeader(77, 0, 0, 128, has_properties=False)
    data = subgroup_bytes(there.profile, fields, [(ObjectHeader(0, 3000), bytes(3000))])

    def work(number: int) -> None:
        there.session.receive_stream(4 * number + 6, data, False, number * 0.0001)
        there.side.transport.sent.clear()
        there.side.transport.consumed_bytes.clear()

    assert growth(work, 5_000) < 150_000
    assert there.session.statistics().waiting_streams <= 64
    assert there.closed is None


@pytest.mark.parametrize("draft", [16, 20])
def test_refused_requests_leave_memory_flat(draft: int) -> None:
    there = Peer(draft, setup=SetupOptions(), settings=SessionSettings(max_requests=10, max_retired_aliases=16))

    def work(number: int) -> None:
        data = m.encode(there.profile, m.Publish(2 * number, TRACK, number))
        stream = 4 * number + 4 if draft >= 17 else there.control
        events = there.session.receive_stream(stream, data, draft >= 17, 0.0)
        for event in events:
            if isinstance(event, e.PublishRequested):
                there.session.reject(event.request, RequestCode.UNINTERESTED, "")
        there.side.transport.sent.clear()
        there.side.transport.finished.clear()
        there.side.transport.consumed_bytes.clear()

    assert growth(work, 1_500) < 20_000
    assert there.closed is None


def test_endless_namespaces_cost_one_request() -> None:
    there = Peer(20, setup=SetupOptions(), settings=SessionSettings(max_namespaces=100))
    there.session.subscribe_namespace(())
    there.say(1, m.RequestOk())
    for number in range(300):
        there.say(1, m.NamespaceAdded((number.to_bytes(2, "big"),)))
    found = [event for event in there.side.take() if isinstance(event, e.NamespaceFound)]
    assert len(found) == 100
    assert there.closed is None


def test_huge_message_that_never_ends_is_bounded() -> None:
    there = Peer(20, setup=SetupOptions())
    there.side.receive(Bytes(there.bidi_id(), b"\x03\xff\xff"))
    for _ in range(65):
        there.side.receive(Bytes(0, bytes(1024)))
    # 64 kB of zeros are no SUBSCRIBE.
    assert there.closed == SessionCode.PROTOCOL_VIOLATION


def test_stream_ids_full_of_holes_are_a_fault() -> None:
    there = Peer(20, setup=SetupOptions(), settings=SessionSettings(max_id_gaps=16))
    for number in range(40):
        if there.closed is None:
            there.reset(4 * (3 * number + 1))
    assert there.closed == SessionCode.INTERNAL_ERROR
