"""Ranks: why relays never forward in a circle, whatever they know of each other and whenever they learn it.

`upstreams` and `circles` ask here, per track, before a relay subscribes to a neighbour and before it serves one.

Every subscription from one relay to another carries a *claim*: the subscriber's rank is at least that, and stays so.
The publisher serves it only while its own rank is lower, and takes no upstream that would raise it to the claim. So the
rank grows along every subscription that is served, at every moment, in any order of messages: a circle would have to
grow for ever. Ranks end at 3, so that at most two relays stand between an origin and any relay.

An origin, which has the track from its own publisher, has rank 0. A relay without relays below it claims as much as
there is, which leaves those above it the most freedom to change places; but one that takes a track into its region, for
others to take it from there, leaves room for them.
"""

from __future__ import annotations

from collections.abc import Iterable

HIGHEST = 3


def rank(claims_above: Iterable[int]) -> int:
    """A relay's rank for a track: the highest of what it claimed of its upstreams; 0 for an origin."""
    return max(claims_above, default=0)


def admits(claims_above: Iterable[int], claim: int) -> bool:
    """Whether a relay that made these claims may serve a neighbour that makes this one."""
    return rank(claims_above) < claim <= HIGHEST


def claim(relays: int, claims_below: Iterable[int], *, leaves_room: bool = False) -> int | None:
    """What to claim of a neighbour that says it has the track over `relays` relays, itself counted.

    None: those we serve leave no room; the claim must be above the neighbour's rank and below theirs. `leaves_room`:
    for a relay below us that is still to come, where the neighbour's way is short enough.
    """
    most = min(claims_below, default=HIGHEST + 1) - 1
    if relays == 1:
        return 1 if most >= 1 else None
    if leaves_room and relays < HIGHEST:
        most = min(most, relays)
    return most if most >= 2 else None
