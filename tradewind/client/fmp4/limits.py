"""How much of a hostile or broken file is taken in before it is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a `Reader` buffers and counts at most."""

    header_bytes: int = 1 << 20
    """One moov, or one moof: what must be whole before it can be read."""
    fragment_bytes: int = 64 << 20
    """One mdat: 25 s of 20 Mbit/s. Frames come out when it is whole."""
    tracks: int = 16
    samples: int = 1 << 16
    """Samples of one fragment, all tracks together. Bounds what a run of a few bytes can claim."""


DEFAULT_LIMITS = Limits()
