"""`python -m relay`: settings from file, environment and flags, then a relay; or settings checked and shown.

Exit codes: 0 ended in order, 1 failed, 2 settings that cannot be used.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from relay.config import ConfigError, Loaded, Problem, load, warnings
from relay.config_text import docs, effective, schema, usage

EXIT_SETTINGS = 2


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say and return the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(usage())
        return 0
    if arguments[:1] == ["config"]:
        return _config(arguments[1:])
    try:
        loaded = _load(arguments)
    except ConfigError as error:
        return _refuse(error)
    from relay.run import main as run

    return run(loaded.config)


def _config(arguments: Sequence[str]) -> int:
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if verb == "docs":
        print(docs(), end="")
    elif verb == "schema":
        print(json.dumps(schema(), indent=2))
    elif verb in {"check", "show"}:
        try:
            loaded = _load(rest)
        except ConfigError as error:
            return _refuse(error)
        if verb == "show":
            print(effective(loaded), end="")
        for warning in warnings(loaded.config):
            print(f"warning: {warning}", file=sys.stderr)
        if verb == "check":
            print("ok")
    else:
        print(usage(), file=sys.stderr)
        return EXIT_SETTINGS
    return 0


def _load(arguments: Sequence[str]) -> Loaded:
    """Read the file that `-c` names, if any, and put everything together. Raises ConfigError."""
    flags, name = list(arguments), None
    for position, flag in enumerate(flags):
        if flag in {"-c", "--config"}:
            if position + 1 == len(flags):
                raise ConfigError([Problem("flag", flag, "expected the path of a file")])
            name = flags[position + 1]
            del flags[position : position + 2]
            break
    if name is None:
        return load(flags, os.environ)
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError([Problem(name, "", f"cannot be read: {reason}")]) from error
    return load(flags, os.environ, (name, text))


def _refuse(error: ConfigError) -> int:
    for problem in error.problems:
        print(problem, file=sys.stderr)
    return EXIT_SETTINGS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
