"""Tracks that come from another neighbour than the route table puts first for their origin, and what is in the way.

`relay.overrides` asks through `forwarder`, about once a second. One pass over the tracks, and nothing more where all
is as the table says. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from relay.forwarding.book import Book, Member, Standing
from relay.forwarding.feed import Source
from relay.forwarding.track import Track
from relay.forwarding.upstreams import Upstreams

LOOKED_AT = 8
"""Of the tracks that go one way together so many are asked what is in theirs."""


class Hindrance(Enum):
    """What keeps a track from the neighbour that the table puts first."""

    ABSENT = "absent"
    """There is no session with it."""
    LINK = "link"
    """The link from it is not well."""
    LEAVING = "leaving"
    """It is being emptied."""
    UNTOLD = "untold"
    """It has told us of no way to the namespace, or of one whose publisher has gone."""
    DECLINED = "declined"
    """It would not serve us a moment ago."""
    BELOW = "below"
    """It reads the track from us, or those that we serve leave no room: see `ranks`."""


class Astray(NamedTuple):
    """Tracks of one origin that come from one neighbour, and not from the first. Relays are Hop IDs."""

    origin: int
    first: int
    session: int
    """That they come from."""
    hindrance: Hindrance | None
    """Of the first of them that has any; None: nothing is in the way."""
    standing: Standing
    """The link from the first candidate; UP where there is no session with it."""
    since: float
    """When the first of them came from there."""
    tracks: int


def feeder(track: Track) -> Source | None:
    """The neighbour's subscription that a track comes by; None: a publisher here feeds it, or nobody does yet.

    Of several it is the one that is to be let go once its successor has caught up: see `moving`.
    """
    found: Source | None = None
    for source in track.sources.values():
        if source.way is None:
            return None
        if found is None and source.established_at is not None and source.succeeds is None and not source.doubles:
            found = source
    return found


def astray(book: Book, upstreams: Upstreams, firsts: Mapping[int, int]) -> list[Astray]:
    """What comes by another way than `firsts` says: origin -> neighbour, both as Hop IDs. Others are not looked at."""
    found: dict[tuple[int, int], list[tuple[Track, Source]]] = {}
    for track in book.tracks.values():
        source = feeder(track)
        if source is None or source.way is None:
            continue
        hops = source.way.hops
        if firsts.get(hops[1], hops[-1]) != hops[-1]:
            found.setdefault((hops[1], source.party.session), []).append((track, source))
    if not found:
        return []
    neighbours = {member.hop: member for member in book.members.values() if member.hop is not None}
    return [
        _describe(upstreams, origin, firsts[origin], session, neighbours.get(firsts[origin]), fed)
        for (origin, session), fed in found.items()
    ]


def _describe(
    upstreams: Upstreams,
    origin: int,
    first: int,
    session: int,
    member: Member | None,
    fed: list[tuple[Track, Source]],
) -> Astray:
    hindrances = (_hindrance(upstreams, track, source, member) for track, source in fed[:LOOKED_AT])
    return Astray(
        origin,
        first,
        session,
        next((one for one in hindrances if one is not None), None),
        Standing.UP if member is None else member.standing,
        min(source.established_at for _, source in fed if source.established_at is not None),
        len(fed),
    )


def _hindrance(upstreams: Upstreams, track: Track, source: Source, member: Member | None) -> Hindrance | None:
    if member is None:
        return Hindrance.ABSENT
    if member.standing is not Standing.UP:
        return Hindrance.LINK
    if member.leaving:
        return Hindrance.LEAVING
    way = upstreams.way_of(member.session, track.name.namespace)
    if way is None or (source.way is not None and way.cost > source.way.cost):
        return Hindrance.UNTOLD
    if member.session in track.neighbours.declined:
        return Hindrance.DECLINED
    asked = (party.session for party, _ in upstreams.candidates(track))
    return None if member.session in asked else Hindrance.BELOW
