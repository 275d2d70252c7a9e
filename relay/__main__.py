"""`python -m relay`: settings from file, environment and flags, then a relay; or settings checked and shown.

Exit codes: 0 ended in order, 1 failed, 2 settings that cannot be used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from relay.config import RELAY, Config, warnings
from tradewind.settings import program


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say and return the exit code."""
    return program.main(arguments, RELAY, warnings, _run)


def _run(config: Config) -> int:
    from relay.run import main as run

    return run(config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
