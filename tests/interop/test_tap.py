from __future__ import annotations

from tests.interop.tap import Outcome, outcomes

REPORT = """TAP version 14
# target: moqt://127.0.0.1:4443/
1..4
ok 1 - setup-only
  ---
  duration_ms: 8
  message: "SERVER_SETUP received"
  ...
not ok 2 - join
  ---
  message: "no objects"
  ...
ok 3 - rendezvous-timeout # SKIP RENDEZVOUS_TIMEOUT is draft-18; negotiated draft-16
ok 4 - announce-subscribe # COMPAT
  ---
  message: "held"
"""


def test_reads_results_skips_and_leniency() -> None:
    assert outcomes(REPORT) == [
        Outcome("setup-only", True, "", False, '"SERVER_SETUP received"'),
        Outcome("join", False, "", False, '"no objects"'),
        Outcome("rendezvous-timeout", True, "RENDEZVOUS_TIMEOUT is draft-18; negotiated draft-16", False, ""),
        Outcome("announce-subscribe", True, "", True, '"held"'),
    ]


def test_a_report_without_results_has_none() -> None:
    assert outcomes("Traceback (most recent call last):\n") == []
