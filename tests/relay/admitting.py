"""What tests of letting sessions in have in common: who may what, and what counts."""

from __future__ import annotations

from relay.access import Access, AccessSettings
from relay.limits import LimitSettings
from tests.sim.relay import node_settings
from tests.sim.tokens import KEY, token
from tests.sim.world import World
from tradewind.moqt.model import FilterKind, Location, LocationFilter

DRAFTS = (20, 22, 18, 16)
LOCKED = Access((KEY,), AccessSettings(public_subscribe=("lobby",)))
WIDE = token("", put=[""], get=[""])
RANGE = LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=0)


def with_limits(access: Access | None = None, **limits: int) -> World:
    world = World(node_settings(limits=LimitSettings(**limits)))
    if access is not None:
        world.node.replace_access(access)
    return world


def counts(world: World) -> list[int]:
    """What counts against limits, session by session in the order in which they came."""
    return [len(found.quota.counted) for _, found in sorted(world.node.attachments.items()) if found.quota is not None]
