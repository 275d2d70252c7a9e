"""EDGE: what every program of ours does with its arguments: run with its settings, or check, show or explain them.

Exit codes: 0 ended in order, 1 failed, 2 settings that cannot be used.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tradewind.settings.schema import ConfigError, Loaded, Problem, Schema
from tradewind.settings.wording import docs, effective, json_schema, usage

EXIT_SETTINGS = 2
C = TypeVar("C")


def main(
    arguments: Sequence[str], schema: Schema[C], warnings: Callable[[C], Sequence[str]], run: Callable[[C], int]
) -> int:
    """Do what the arguments say and return the exit code. `run` gets settings that were checked."""
    if {"-h", "--help"} & set(arguments):
        print(usage(schema))
        return 0
    if arguments[:1] == ["config"]:
        return _config(arguments[1:], schema, warnings)
    try:
        loaded = _load(arguments, schema)
    except ConfigError as error:
        return _refuse(error)
    return run(loaded.config)


def _config(arguments: Sequence[str], schema: Schema[C], warnings: Callable[[C], Sequence[str]]) -> int:
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if verb == "docs":
        print(docs(schema), end="")
    elif verb == "schema":
        print(json.dumps(json_schema(schema), indent=2))
    elif verb in {"check", "show"}:
        try:
            loaded = _load(rest, schema)
        except ConfigError as error:
            return _refuse(error)
        if verb == "show":
            print(effective(schema, loaded), end="")
        for warning in warnings(loaded.config):
            print(f"warning: {warning}", file=sys.stderr)
        if verb == "check":
            print("ok")
    else:
        print(usage(schema), file=sys.stderr)
        return EXIT_SETTINGS
    return 0


def _load(arguments: Sequence[str], schema: Schema[C]) -> Loaded[C]:
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
        return schema.load(flags, os.environ)
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError([Problem(name, "", f"cannot be read: {reason}")]) from error
    return schema.load(flags, os.environ, (name, text))


def _refuse(error: ConfigError) -> int:
    for problem in error.problems:
        print(problem, file=sys.stderr)
    return EXIT_SETTINGS
