"""A region of several relays that all have viewers of one track from far away: what crosses the sea, and what fails.

Links, proofs, measuring and the controller's tables are real: see `tests.sim.scene`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from control.topology.planner import TopologySettings
from control.topology.trees import TreeSettings
from tests.sim.client import TRACK
from tests.sim.scene import Scene
from tests.sim.show import Seat
