"""What a run wrote down, for those who check it: a file, or standard input."""

from __future__ import annotations

import sys
from pathlib import Path


def read_text(name: str, wrong: type[Exception]) -> str:
    """All of the file `name`, or with "-" of standard input; raises `wrong` where it cannot be read."""
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(f"{name} cannot be read: {error}") from error
