"""What a relay has promised in a room, and which epoch gave which places: kept in the store, in one value.

`Standing` is written in the same transaction as the records that it speaks of. Its `lineage` is compared between a
home and a follower: where two differ, the follower's records were never part of the order (they were on one disk when
that disk's home was replaced), and are taken out of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tradewind.contract.copies import MAX_RUNS, Lineage, Run


class StandingError(Exception):
    """Bytes that are no standing."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A relay's promises in one room."""

    promised: int = 0
    """Nothing of an older epoch is taken, acknowledged or ordered here."""
    home: str = ""
    """Who is the home of the promised epoch."""
    whole: int = 0
    """The newest epoch of which every record that was acknowledged as stored twice is here."""
    lineage: Lineage = ()


NEW = Standing()


def epoch_at(lineage: Lineage, seq: int) -> int:
    """Which epoch gave a place; 0: not known."""
    epoch = 0
    for run in lineage:
        if run.start > seq:
            break
        epoch = run.epoch
    return epoch


def first_difference(ours: Lineage, held: int, theirs: Lineage) -> int:
    """The first of our places 0..held-1 that was given in another epoch than theirs; `held`: none was."""
    for point in sorted({run.start for run in (*ours, *theirs)}):
        if point >= held:
            break
        if (epoch := epoch_at(ours, point)) and (other := epoch_at(theirs, point)) and epoch != other:
            return point
    return held


def opened(lineage: Lineage, epoch: int, start: int) -> Lineage:
    """A lineage that goes on with `epoch` at `start`; an epoch that gave no place is forgotten."""
    kept = tuple(run for run in lineage if run.start < start)
    return (*kept[-(MAX_RUNS - 1) :], Run(epoch, start))


def pack_standing(standing: Standing) -> bytes:
    """Bytes for a store; `unpack_standing` reads them."""
    return json.dumps([standing.promised, standing.home, standing.whole, standing.lineage]).encode()


def unpack_standing(data: bytes) -> Standing:
    """What `pack_standing` wrote. Raises StandingError for anything else."""
    try:
        promised, home, whole, runs = json.loads(data)
        return Standing(int(promised), str(home), int(whole), tuple(Run(int(e), int(start)) for e, start in runs))
    except (ValueError, TypeError) as error:
        raise StandingError("not a standing") from error
