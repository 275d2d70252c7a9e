"""S1 and S2: a link that begins to lose packets, or falls silent, in one direction. T1, for whole relays.

A few faults here, each in a show of its own; hundreds, and the figures in full: `python -m bench.faults --virtual`.
"""

from __future__ import annotations

import pytest

from bench.links import percentile
from tests.sim.show import Fault, Show

MESHES = (("fra-1", "iad-1", "lhr-1"), ("hkg-1", "nrt-1", "sin-1"))
pytestmark = pytest.mark.slow


def faults(loss: float, count: int, seed: int) -> list[Fault]:
    return [Show(MESHES[n % 2], seed + n).fault(n, loss, heal=False) for n in range(count)]


def first_ms(found: list[Fault]) -> list[float]:
    return [value for fault in found for value in fault.first_ms]


def stalls_ms(found: list[Fault]) -> list[float]:
    return [value for fault in found for value in (*fault.stalls_ms, *fault.others_ms)]


def test_s1_ten_percent_lost_in_one_direction() -> None:
    found = faults(0.10, 4, 1)
    assert percentile(first_ms(found), 0.5) <= 300.0
    assert percentile(first_ms(found), 0.99) <= 600.0
    assert max(stalls_ms(found)) <= 300.0
    assert not any(fault.reverse_bad or fault.reverse_moved for fault in found), "the other direction is left alone"


def test_s2_silence_in_one_direction() -> None:
    """The other direction is not called bad by who receives it; but nobody acknowledges there any more, so it is left.

    QUIC stops sending where nothing is acknowledged: what comes from a relay that hears nothing of us would run dry.
    """
    found = faults(1.0, 4, 11)
    assert percentile(first_ms(found), 0.99) <= 500.0
    assert max(stalls_ms(found)) <= 300.0
    assert not any(fault.reverse_bad for fault in found), "nobody called it bad"
