"""Runs one of moq-interop-client's own tests with its two clients on different drafts.

Started by `tests/interop/test_cross_draft.py` with aiomoqt's Python:
`mixed_drafts.py RELAY_URL TEST FIRST_DRAFT SECOND_DRAFT`, where "first" is the client that the test makes first.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aiomoqt.tools import moq_interop_client as suite  # type: ignore[import-not-found,unused-ignore]


def main(url: str, test: str, first: int, second: int) -> int:
    drafts = iter((first, second))
    make_client = suite._make_client

    def make_client_of_its_draft(*arguments: Any, **options: Any) -> Any:
        return make_client(*arguments, **{**options, "supported_drafts": next(drafts)})

    suite._make_client = make_client_of_its_draft
    host, port, path, use_quic = suite.parse_relay_url(url)
    # Several runs share one relay: a namespace of this run's own keeps their tracks apart.
    suite.INTEROP_NAMESPACE = f"mixed/{suite._run_id()}"
    result = asyncio.run(suite.TEST_FUNCTIONS[test](host, port, path, use_quic, True, False))
    reporter = suite.TAPReporter(target_url=url)
    reporter.add(result)
    print(reporter.report())
    used = {int(session["moqt_version"].removeprefix("moqt-")) for session in result.sessions.values()}
    print(f"# drafts used: {sorted(used)}")
    return 0 if result.passed and used == {first, second} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
