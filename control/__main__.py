"""`python -m control`: settings from file, environment and flags, then a controller; or settings checked and shown.

Exit codes: 0 ended in order, 1 failed, 2 settings that cannot be used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from control.config import CONTROL, Config, warnings
from tradewind.settings import program


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say and return the exit code."""
    return program.main(arguments, CONTROL, warnings, _run)


def _run(config: Config) -> int:
    from control.run import main as run

    return run(config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
