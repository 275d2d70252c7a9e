"""What the registry is told and tells: settings, findings, and views of relays and links."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from tradewind.contract.messages import Hello, RelayEntry, Report, StageName

NEVER = float("-inf")
WITNESSES = 2
"""One may be cut off itself."""


class Condition(Enum):
    """Whether a relay is there."""

    ALIVE = "alive"
    DETACHED = "detached"
    """Not heard by us, but by others, or by nobody and not yet given up."""
    DEAD = "dead"


class EventKind(Enum):
    """What may change paths: a closed list, and a metric's label."""

    JOINED = "joined"
    ATTACHED = "attached"
    DETACHED = "detached"
    DIED = "died"
    STAGE = "stage"
    LINK_DOWN = "link_down"
    LINK_UP = "link_up"


class AlarmKind(Enum):
    """What an operator has to hear: a closed list, and a metric's label."""

    TWO_BOOTS = "two_boots"
    MESH_FULL = "mesh_full"
    REGION_SILENT = "region_silent"
    PLAN_REFUSED = "plan_refused"
    NO_PATH = "no_path"
    ROOM_STUCK = "room_stuck"
    """Nobody who is here may be named as a room's home."""


class Event(NamedTuple):
    """Something changed. For links `relay` is the sending end and `other` the receiving one."""

    kind: EventKind
    relay: str
    other: str = ""


class Alarm(NamedTuple):
    """What went wrong, with whom (a relay or a region, if anybody)."""

    kind: AlarmKind
    who: str
    detail: str


Finding = Event | Alarm


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """When relays and links count as gone, and for how long."""

    silence_s: float = 1.5
    confirmed_s: float = 1.2
    """So long where `WITNESSES` neighbours or more hear nothing of it either and none does: a report is overdue then,
    and with its way to us nobody places viewers there for longer than `silence_s`."""
    stale_s: float = 5.0
    """Evidence younger than this is as good as new."""
    forget_s: float = 120.0
    """Evidence older than this is none."""
    hold_first_s: float = 2.0
    hold_most_s: float = 120.0
    flap_forgiven_s: float = 300.0
    dead_region_ratio: float = 0.5
    late_s: float = 0.5
    """Deadlines handled so much too late say that we slept, not that relays are silent."""
    impostor_s: float = 5.0
    """So long neighbours may speak for a relay whose control link has closed, against one that came with its name."""


class Place(NamedTuple):
    """Where something stands, in degrees."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class RelayView:
    """A relay as it was when asked for."""

    id: str
    region: str
    place: Place | None
    hello: Hello
    report: Report | None
    condition: Condition
    heard_age_s: float
    last_stage: StageName = "serving"
    """What a controller before us heard last."""

    @property
    def stage(self) -> StageName:
        """What it last said."""
        return self.report.stage if self.report else self.last_stage

    @property
    def load_ratio(self) -> float:
        """The highest of what it has used up."""
        return self.report.load if self.report else 0.0

    @property
    def headroom_ratio(self) -> float:
        """What it can still take, 0 to 1; nothing where it takes nobody new."""
        return 1.0 - self.load_ratio if self.stage == "serving" else 0.0

    def entry(self) -> RelayEntry:
        """The relay as everybody in the mesh is told of it."""
        sessions = self.report.sessions if self.report else 0
        free = min(self.hello.capacity_sessions - sessions, int(self.headroom_ratio * self.hello.capacity_sessions))
        latitude, longitude = self.place or Place(0.0, 0.0)
        return RelayEntry(
            id=self.id,
            region=self.region,
            uri=self.hello.uri,
            address=self.hello.address,
            stage=self.stage,
            load=self.load_ratio,
            headroom_sessions=max(0, free),
            latitude=latitude,
            longitude=longitude,
            placement_key=self.hello.placement_key,
        )


class Evidence(NamedTuple):
    """What both ends together say of one directed link."""

    sender: str
    receiver: str
    rtt_ms: float
    jitter_ms: float
    loss_ratio: float
    usable: bool
    """Not bad at either end, not in probation, not held down."""
    age_s: float
    """Since the younger of the views that count."""


class RegistryStatistics(NamedTuple):
    """What `/state` shows."""

    alive: int
    detached: int
    dead: int
    links_troubled: int
