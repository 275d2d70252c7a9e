"""Reads what `moq-interop-client` prints: the Test Anything Protocol, version 14."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RESULT = re.compile(r"^(?P<not>not )?ok \d+ - (?P<name>\S+)(?: # SKIP (?P<skip>.*?))?(?P<compat> # COMPAT)?$")
_MESSAGE = re.compile(r"^\s+message: (?P<text>.*)$")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One test point: whether it passed, why it was skipped, and whether it passed only by leniency."""

    name: str
    passed: bool
    skipped: str
    lenient: bool
    message: str


def outcomes(text: str) -> list[Outcome]:
    """Every test point of a TAP text, in order, each with the message of its YAML block."""
    found: list[Outcome] = []
    for line in text.splitlines():
        if result := _RESULT.match(line):
            passed, lenient = result["not"] is None, result["compat"] is not None
            found.append(Outcome(result["name"], passed, result["skip"] or "", lenient, ""))
        elif found and (message := _MESSAGE.match(line)):
            last = found[-1]
            found[-1] = Outcome(last.name, last.passed, last.skipped, last.lenient, message["text"])
    return found
