"""What relays of one mesh say to each other, and nobody else may (MoQ Cluster)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.moqt.pair import Pair, made
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import ProtocolViolation, RequestCode, SessionCode
from tradewind.moqt.fields import Reader
from tradewind.moqt.kinds import NAMES
from tradewind.moqt.model import FullTrackName, Parameters
from tradewind.moqt.parameters import RawParameters
from tradewind.moqt.profiles import NEIGHBOUR

LIVE = (b"live", b"demo")


def advertised(hops: tuple[int, ...], cost: int | None = None) -> tuple[Pair, int]:
    pair = Pair(NEIGHBOUR)
    number = made(pair.client.session.publish_namespace(LIVE, Parameters(hop_path=hops, route_cost=cost)))
    pair.run()
    return pair, number


def test_a_namespace_says_by_which_way_it_came() -> None:
    pair, number = advertised((7, 2**61), 3)
    event = pair.server.take()[-1]
    assert event == e.PublishNamespaceRequested(number, LIVE, Parameters(hop_path=(7, 2**61), route_cost=3))


@pytest.mark.parametrize("answered", [False, True])
def test_another_way_replaces_it_on_the_same_stream(answered: bool) -> None:
    pair, number = advertised((7, 1))
    if answered:
        pair.server.session.accept(number)
        pair.run()
    pair.take()
    pair.client.session.readvertise(number, Parameters(hop_path=(7, 2, 1)))
    pair.run()
    assert pair.server.take() == [e.NamespaceReadvertised(number, Parameters(hop_path=(7, 2, 1)))]


def test_a_namespace_says_which_of_its_tracks_are_published() -> None:
    pair, number = advertised((7, 1))
    pair.take()
    now = Parameters(hop_path=(7, 1), tracks=frozenset((b"", b"video", b"\xff" * 4096)), announced=False)
    pair.client.session.readvertise(number, now)
    pair.run()
    assert pair.server.take() == [e.NamespaceReadvertised(number, now)]


@pytest.mark.parametrize(
    "names",
    [[b"video", b"video"], [b"%d" % number for number in range(257)], [b"x" * 4097]],
    ids=["twice", "too many", "too long"],
)
def test_names_that_cannot_be_are_violations(names: list[bytes]) -> None:
    encode = NEIGHBOUR.varint.encode
    value = b"".join(encode(len(name)) + name for name in names)
    with pytest.raises(ProtocolViolation):
        NAMES.read(Reader(NEIGHBOUR, encode(len(value)) + value))


@given(st.binary(max_size=64))
def test_any_bytes_are_names_or_a_violation(value: bytes) -> None:
    data = NEIGHBOUR.varint.encode(len(value)) + value
    with contextlib.suppress(ProtocolViolation):
        found = NAMES.read(Reader(NEIGHBOUR, data))
        assert NAMES.read(Reader(NEIGHBOUR, NAMES.write(NEIGHBOUR, found) or b"")) == found


def test_what_crosses_a_refusal_is_late() -> None:
    pair, number = advertised((7, 1))
    pair.take()
    pair.client.session.readvertise(number, Parameters(hop_path=(7, 2, 1)))
    pair.server.session.reject(number, RequestCode.UNINTERESTED, "")
    pair.run()
    assert pair.server.transport.closed is None
    assert pair.client.transport.closed is None
    pair.client.session.readvertise(number, Parameters(hop_path=(7, 3)))
    pair.run()
    assert pair.server.take() == []


def test_nobody_else_may() -> None:
    pair = Pair(20)
    number = made(pair.client.session.publish_namespace(LIVE, Parameters(hop_path=(7, 1))))
    pair.run()
    assert pair.server.take()[-1] == e.PublishNamespaceRequested(number, LIVE, Parameters())
    pair.client.session.readvertise(number, Parameters())
    pair.run()
    assert pair.server.transport.closed is not None
    assert pair.server.transport.closed[0] == SessionCode.PROTOCOL_VIOLATION


def test_one_namespace_does_not_become_another() -> None:
    pair, number = advertised((7, 1))
    stream = pair.client.session._requests.table[number].stream
    message = m.PublishNamespace(number, (b"other",), RawParameters(Parameters(hop_path=(7, 1))))
    pair.client.transport.send(stream, m.encode(NEIGHBOUR, message))
    pair.run()
    assert pair.server.transport.closed is not None


def test_a_rank_stands_in_subscribe() -> None:
    pair = Pair(NEIGHBOUR)
    number = made(pair.client.session.subscribe(FullTrackName(LIVE, b"video"), Parameters(rank=3)))
    pair.run()
    event = pair.server.take()[-1]
    assert isinstance(event, e.SubscribeRequested)
    assert (event.request, event.parameters.rank) == (number, 3)


@given(st.lists(st.integers(0, 2**62 - 1), max_size=40))
def test_paths_that_loop_or_never_end_are_violations(hops: list[int]) -> None:
    known = [hop for hop in hops if hop]
    message = m.PublishNamespace(0, LIVE, RawParameters(Parameters(hop_path=tuple(hops))))
    decoder = m.ControlDecoder(NEIGHBOUR)
    decoder.receive(m.encode(NEIGHBOUR, message))
    if hops and len(hops) <= 32 and len(set(known)) == len(known):
        assert decoder.next_message() == message
    else:
        with pytest.raises(ProtocolViolation):
            decoder.next_message()
