"""`bench.contract` at its smallest: it runs, and measures what it says."""

from __future__ import annotations

import pytest

from bench import contract
from tradewind.contract.tables import apply_delta, decode_table, delta_between, encode_table


def test_what_is_measured() -> None:
    table = contract.make_table(20, 5)
    after = contract.next_table(table)
    delta = delta_between(table, after)
    assert (len(delta.routes), delta.relays, delta.rooms) == (2, (), ())
    assert decode_table(encode_table(apply_delta(table, delta))) == after


@pytest.mark.slow
def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert contract.main(["--relays", "5", "--rooms", "5", "--runs", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 16
