"""The section of settings about logs: the same in every program of ours. `tradewind.logs` does what it says."""

from __future__ import annotations

from dataclasses import dataclass

from tradewind.settings import values
from tradewind.settings.schema import setting


@dataclass(frozen=True, slots=True)
class LogSection:
    """What is written to standard error."""

    level: str = setting("info", values.choice("debug", "info", "warning", "error"), "The least that is logged.")
    format: str = setting("auto", values.choice("auto", "console", "json"), "auto: console on a terminal, else JSON.")
