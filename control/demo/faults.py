"""What may happen to the demo: `--kill fra-1@20s`, `--start fra-1@40s`, `--loss hkg-1-fra-1=10%@20s`. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from control.demo.world import RELAYS

CONTROL = "control"
_WHEN = re.compile(r"(.+)@(\d+(?:\.\d+)?)s?")


class FaultError(ValueError):
    """A fault that cannot be read, or is of nobody; says which and what would do."""


class Kind(Enum):
    """What happens."""

    KILL = "kill"
    """SIGKILL."""
    DRAIN = "drain"
    """As an operator would: GOAWAY in waves."""
    START = "start"
    """A process that is gone runs again, with what it has on disk."""
    LOSS = "loss"
    """One direction between two relays loses so much."""
    HEAL = "heal"
    """The same direction is what it was at first."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens at a second of the show."""

    at_s: float
    kind: Kind
    node: str = ""
    to: str = ""
    """Where the direction ends; it begins at `node`."""
    loss_ratio: float = 0.0

    def __str__(self) -> str:
        match self.kind:
            case Kind.LOSS:
                return f"{self.node} to {self.to} loses {self.loss_ratio:.1%}"
            case Kind.HEAL:
                return f"{self.node} to {self.to} is well again"
            case _:
                return f"{self.kind.value} {self.node}"


def parse_faults(
    kills: Iterable[str] = (), starts: Iterable[str] = (), losses: Iterable[str] = (), drains: Iterable[str] = ()
) -> tuple[Fault, ...]:
    """Everything that shall happen, in order. Raises FaultError.

    `hkg-1-fra-1=10%@20s+5s` ends by itself five seconds later.
    """
    faults = [_of_node(Kind.KILL, text) for text in kills]
    faults += [_of_node(Kind.START, text) for text in starts]
    faults += [_of_node(Kind.DRAIN, text) for text in drains]
    for text in losses:
        faults += _loss(text)
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def _of_node(kind: Kind, text: str) -> Fault:
    matched = _WHEN.fullmatch(text.strip())
    if matched is None:
        raise FaultError(f"{text!r} is not NODE@SECONDS, such as fra-1@20s")
    names = _relays() if kind is Kind.DRAIN else (*_relays(), CONTROL)
    return Fault(float(matched[2]), kind, _known(matched[1], names))


def _loss(text: str) -> list[Fault]:
    matched = re.fullmatch(r"(.+)=(\d+(?:\.\d+)?)%@(\d+(?:\.\d+)?)s?(?:\+(\d+(?:\.\d+)?)s?)?", text.strip())
    if matched is None:
        raise FaultError(f"{text!r} is not FROM-TO=LOSS%@SECONDS, such as hkg-1-fra-1=10%@20s")
    ends = [(one, other) for one in _relays() for other in _relays() if matched[1] == f"{one}-{other}"]
    if not ends or ends[0][0] == ends[0][1]:
        pairs = [f"{one}-{other}" for one in _relays() for other in _relays() if one != other]
        _known(matched[1], pairs)
    if float(matched[2]) > 100:
        raise FaultError(f"{text!r} loses more than everything")
    (one, other), at_s = ends[0], float(matched[3])
    faults = [Fault(at_s, Kind.LOSS, one, other, float(matched[2]) / 100)]
    if matched[4] is not None:
        faults.append(Fault(at_s + float(matched[4]), Kind.HEAL, one, other))
    return faults


def _relays() -> tuple[str, ...]:
    return tuple(spot.id for spot in RELAYS)


def _known(name: str, names: Iterable[str]) -> str:
    known = list(names)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, 1, 0.0)
    raise FaultError(f"there is no {name!r}; did you mean {near[0]!r}?" if near else f"there is no {name!r}")
