"""When probes and reports leave, and how many: the sending half of a link.

An idle link has one wake-up every 100 ms, with a probe and a report. One that carries media has more, of a few probes
each: wake-ups cost more than packets. Every probe says when the next one comes at the latest, so that the far end knows
how long a silence is without knowing what we carry. A promise is kept before a slower pace begins.
"""

from __future__ import annotations

from math import ceil, inf

from relay.links.datagrams import Probe, encode_probe
from relay.links.settings import LinkSettings

REMEMBERED = 4096
"""Probes of which the sending time is known: what is acknowledged later than that tells nothing."""
GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, spread evenly and never repeat: a jitter that needs no dice."""
EARLIEST = -inf
NEARLY = 0.8
"""Of a report's period: it leaves with the wake-up that is nearest, and never has one of its own."""


class Outgoing:
    """Probes and reports of one link."""

    __slots__ = (
        "_active",
        "_extra",
        "_last_wake",
        "_phase",
        "_reported_at",
        "_sent_at",
        "_settings",
        "_tokens",
        "_tokens_at",
        "_urgent_at",
        "_wake_at",
        "number",
        "other_per_s",
        "period_s",
        "watched",
    )

    def __init__(self, settings: LinkSettings, seed: int, now: float) -> None:
        """`seed` is where the variation of periods begins: another for each link."""
        self._settings = settings
        self._phase = (seed % 65_536) * GOLDEN % 1.0
        self._active = False
        self.watched = False
        """The direction from us is not UP: it wants packets to prove itself with."""
        self.other_per_s = 0.0
        """Packets of other connections that arrive there."""
        self.number = 0
        """Of the newest probe; 0: none yet."""
        self.period_s = settings.idle_period_s
        self._sent_at = [EARLIEST] * REMEMBERED
        self._wake_at = now + settings.idle_period_s * self._phase
        self._last_wake = now
        self._reported_at = EARLIEST
        self._urgent_at = inf
        """When a report leaves that does not wait for a wake-up."""
        self._extra = 0
        self._tokens = float(settings.inspect_most)
        self._tokens_at = now

    @property
    def active(self) -> bool:
        """Whether the link carries media from us."""
        return self._active

    @active.setter
    def active(self, value: bool) -> None:
        if value and not self._active:
            self._wake_at = min(self._wake_at, self._last_wake + self._settings.active_period_s)
        self._active = value

    def sent_at(self, number: int) -> float | None:
        """When a probe left; None where that is forgotten or never was."""
        if not 0 < number <= self.number or number <= self.number - REMEMBERED:
            return None
        return self._sent_at[number % REMEMBERED]

    def next_deadline(self) -> float:
        """When something is to be sent; what is past: now."""
        return self._last_wake if self._extra else min(self._wake_at, self._urgent_at)

    def report_soon(self) -> None:
        """There is something to say that cannot wait."""
        self._urgent_at = min(self._urgent_at, self._reported_at + self._settings.report_spacing_s)

    def inspect(self, losses: int, now: float) -> None:
        """The far end has found losses: probe at once, as far as the bucket allows."""
        settings = self._settings
        filled = self._tokens + (now - self._tokens_at) * settings.inspect_per_s
        self._tokens, self._tokens_at = min(filled, float(settings.inspect_most)), now
        extra = min(int(self._tokens), losses * settings.inspect_probes)
        self._tokens -= extra
        self._extra += extra

    def report_is_due(self, now: float) -> bool:
        """Whether a report leaves now; asked before the probes. It counts as sent."""
        settings = self._settings
        waking = now + settings.slack_s >= self._wake_at
        if now < self._urgent_at and not (waking and now >= self._reported_at + settings.report_period_s * NEARLY):
            return False
        self._reported_at, self._urgent_at = now, inf
        return True

    def probes_to_send(self, now: float) -> list[bytes]:
        """Probes that are due, each a packet of its own: in one packet they would say the same."""
        count, self._extra = self._extra, 0
        if now + self._settings.slack_s >= self._wake_at:
            period_s, burst = self._pace()
            count += burst
            self._phase = (self._phase + GOLDEN) % 1.0
            self.period_s = period_s * (1.0 + self._settings.period_jitter * (2.0 * self._phase - 1.0))
            self._last_wake = now
            self._wake_at = now + self.period_s
        if not count:
            return []
        sent_us, next_us = int(now * 1e6), max(int((self._wake_at - now) * 1e6), 0)
        size, first = self._settings.probe_bytes, self.number + 1
        self.number += count
        for number in range(first, self.number + 1):
            self._sent_at[number % REMEMBERED] = now
        return [encode_probe(Probe(number, sent_us, next_us), size) for number in range(first, self.number + 1)]

    def _pace(self) -> tuple[float, int]:
        """Until the next wake-up, and how many probes at this one."""
        settings = self._settings
        if not self._active:
            return settings.idle_period_s, settings.watch_burst if self.watched else 1
        lacking = (settings.active_packets_per_s - self.other_per_s) * settings.active_period_s
        if lacking < 1.0:
            return settings.dense_period_s, 1
        return settings.active_period_s, ceil(lacking)
