"""The demo's narrow link: what it says of its shape, and what it does to datagrams."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from control.demo.shaper import QUEUE_S, LinkError, LinkShape, Narrow, Shaper, parse_link, parse_schedule
from tradewind.quic.udp import UdpSocket


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("600kbit,2%", LinkShape(600_000, 0.02, 0)),
        ("2%, 40ms ,1.5mbit", LinkShape(1_500_000, 0.02, 0.04)),
        ("0.2s", LinkShape(None, 0, 0.2)),
        ("", LinkShape()),
    ],
)
def test_parse(text: str, shape: LinkShape) -> None:
    assert parse_link(text) == shape


@pytest.mark.parametrize("text", ["fast", "600", "0kbit", "120%", "-1ms", "2%%"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(LinkError):
        parse_link(text)


def test_schedule() -> None:
    assert parse_schedule(["@12.5s", "600kbit,2%", "1mbit@3"]) == (
        (0, LinkShape(600_000, 0.02)),
        (3, LinkShape(1_000_000)),
        (12.5, LinkShape()),
    )
    with pytest.raises(LinkError):
        parse_schedule(["600kbit@soon"])


@given(sizes=st.lists(st.integers(100, 1500), min_size=1, max_size=60), rate=st.integers(100_000, 5_000_000))
def test_rate_order_and_queue(sizes: list[int], rate: int) -> None:
    """All at once at time 0: what comes out is in order, never faster than the rate, and what waits is bounded."""
    narrow = Narrow(LinkShape(rate), random.Random(1))
    for number, size in enumerate(sizes):
        narrow.put(bytes(size), number, now=0.0)
    out: list[tuple[float, int, int]] = []
    while narrow.waiting:
        due = narrow.next_at()
        out += [(due, len(data), where) for data, where in narrow.take(due)]
    assert [where for _, _, where in out] == sorted(where for _, _, where in out)
    total = 0
    for due, size, _ in out:
        total += size
        assert total * 8 / rate <= due + 1e-9
    assert out[-1][0] <= QUEUE_S + 1500 * 8 / rate + 1e-9
    assert len(out) + narrow.overflowed == len(sizes)


def test_loss_is_about_what_was_asked() -> None:
    narrow = Narrow(LinkShape(loss_ratio=0.1), random.Random(7))
    for number in range(5000):
        narrow.put(b"x", number, now=float(number))
    assert 400 < narrow.lost < 600
    assert narrow.passed + narrow.lost == 5000


def test_delay_and_rate_add_up() -> None:
    narrow = Narrow(LinkShape(80_000, 0, 0.05), random.Random(1))
    narrow.put(bytes(100), "a", now=1.0)
    assert narrow.next_at() == pytest.approx(1.0 + 100 * 8 / 80_000 + 0.05)
    assert narrow.take(1.0) == []


async def test_both_ways_over_udp() -> None:
    relay, viewer = UdpSocket("127.0.0.1"), UdpSocket("127.0.0.1")
    shaper = Shaper((str(relay.address[0]), int(relay.address[1])), LinkShape())
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shaper.run)
            viewer.send([(("127.0.0.1", shaper.port), [b"hello"])])
            await relay.wait_readable()
            ((data, source),) = relay.receive()
            assert data == b"hello"
            relay.send([(source, [b"welcome"])])
            await viewer.wait_readable()
            ((data, source),) = viewer.receive()
            assert data == b"welcome"
            assert source[1] == shaper.port
            nursery.cancel_scope.cancel()
    shaper.close()
    relay.close()
    viewer.close()
