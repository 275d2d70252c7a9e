"""Relays that say what a test wants them to say, for the registry and what stands above it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from control.registry.relays import Registry
from control.registry.values import Alarm, Event, Finding, Place, RegistrySettings
from tradewind.contract.messages import Hello, LinkReport, Report


def hello(number: int = 1, **changes) -> Hello:
    fields = {
        "boot": number.to_bytes(16, "big"),
        "uri": f"https://relay-{number}.test:4433",
        "address": (f"192.0.2.{number % 256}", 4433),
        "software": "test",
        "generation": 0,
        "capacity_bytes_per_s": 1e9,
        "capacity_sessions": 1000,
    }
    return Hello(**{**fields, **changes})


def link(neighbour: str, rtt_ms: float = 20.0, state: Any = "up", **changes) -> LinkReport:
    fields = {"jitter_ms": 0.0, "loss_ratio": 0.0, "carried_bytes_per_s": 0.0}
    return LinkReport(neighbour=neighbour, rtt_ms=rtt_ms, state=state, **{**fields, **changes})


def report(links: Iterable[LinkReport] = (), **changes) -> Report:
    fields = {
        "sequence": 1,
        "stage": "serving",
        "load": 0.1,
        "sessions": 10,
        "egress_bytes_per_s": 0.0,
        "cpu_ratio": 0.1,
        "loop_lag_ms": 0.0,
        "generation": 0,
    }
    return Report(links=tuple(links), **{**fields, **changes})


class Mesh:
    """A registry and relays in full mesh; `rtt_ms` and `state` per directed link may be set, silence too."""

    def __init__(self, regions: dict[str, str], places: dict[str, Place] | None = None, **settings) -> None:
        self.registry = Registry(RegistrySettings(**settings), places)
        self.regions = regions
        self.rtt_ms: dict[tuple[str, str], float] = {}
        self.state: dict[tuple[str, str], str] = {}
        self.stage: dict[str, str] = {}
        self.load: dict[str, float] = {}
        self.silent: set[str] = set()
        self.now = 100.0
        self.findings: list[Finding] = []
        for number, (relay, region) in enumerate(regions.items(), start=1):
            self.findings += self.registry.receive_hello(relay, region, hello(number), self.now)

    def report_of(self, relay: str) -> Report:
        links = [
            link(
                other,
                self.rtt_ms.get((other, relay), self.rtt_ms.get((relay, other), 20.0)),
                "bad" if other in self.silent else self.state.get((other, relay), "up"),
                away_state=self.state.get((relay, other), "up"),
            )
            for other in self.regions
            if other != relay
        ]
        return report(links, stage=self.stage.get(relay, "serving"), load=self.load.get(relay, 0.1))

    def tell(self, *relays: str) -> list[Finding]:
        """These, or everybody who is not silent, report; then deadlines that are due are handled."""
        found: list[Finding] = []
        for relay in relays or [relay for relay in self.regions if relay not in self.silent]:
            found += self.registry.receive_report(relay, self.report_of(relay), self.now)
        due = self.registry.next_deadline()
        if due is not None and due <= self.now:
            found += self.registry.handle_deadline(self.now)
        self.registry.check_invariants()
        self.findings += found
        return found

    def run(self, seconds: float, step_s: float = 0.5) -> list[Finding]:
        """Let time pass, with everybody who is not silent reporting at every step."""
        found: list[Finding] = []
        for _ in range(round(seconds / step_s)):
            self.now += step_s
            found += self.tell()
        return found


def events(findings: Iterable[Finding]) -> list[tuple[str, ...]]:
    """Events as (kind, relay[, other])."""
    return [
        (found.kind.value, *(name for name in (found.relay, found.other) if name))
        for found in findings
        if isinstance(found, Event)
    ]


def alarms(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(found.kind.value, found.who) for found in findings if isinstance(found, Alarm)]
