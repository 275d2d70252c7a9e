"""A controller's, or a relay's, `/v1/place` with a fleet behind it and nothing else, for `bench.placement --http`.

    python -m bench.place_server DIRECTORY control|relay PORT RELAYS

The listener, the API and the choice are the real ones, put together as `control.run` and `relay.run` do. What is left
out is the rest of the process: paths, tables and links, or media. A controller takes in all relays anew every second,
each with another load; a relay has one table. DIRECTORY has `shop.jwk`, which access tokens are checked with.
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import trio
from msgspec.structs import replace

from control.api import Api
from control.controller import Controller
from control.metrics import Metrics
from control.placement import Placement
from control.plane import Plane, PlaneSettings
from control.run import COLLECTIONS as CONTROL_COLLECTIONS
from control.state import State
from relay import ops
from relay.placing import Placing, PlacingSettings
from relay.run import COLLECTIONS as RELAY_COLLECTIONS
from tradewind.contract.admission import relay_signer, signer
from tradewind.contract.messages import RelayEntry, RouteTable
from tradewind.contract.token import Key, generate_key, parse_keys
from tradewind.placing.answering import PlaceAnswer
from tradewind.placing.policy import Policy

REGIONS, NAMESPACES, CARRIED = 50, 500, 20


def entries(relays: int, seed: int = 1) -> list[RelayEntry]:
    """Relays in regions all over the earth, 30 to 75 % full."""
    from bench.placement import mesh

    dice = random.Random(seed)
    same = mesh(random.Random(1), min(REGIONS, relays), relays, (0.3, 0.75))
    return [replace(one, load=min(0.95, one.load + dice.uniform(0.0, 0.02))) for one in same]


def controller_placement(keys: tuple[Key, ...], relays: list[RelayEntry]) -> Placement:
    """A controller's placement that knows these relays, and what they carry."""
    (key,) = parse_keys(json.dumps(generate_key("EdDSA", "controller-1")))
    placement = Placement(Policy(), signer(key), keys)
    dice = random.Random(2)
    placement.apply(relays, trio.current_time())
    for entry in relays:
        placement.apply_carried(entry.id, [(b"live", b"shop-%d" % dice.randrange(NAMESPACES)) for _ in range(CARRIED)])
    return placement


async def serve_control(keys: tuple[Key, ...], port: int, relays: int) -> None:
    """Answer as a controller, for ever."""
    moments = [entries(relays, second) for second in range(20)]
    placement = controller_placement(keys, moments[0])
    # No relay is connected: nothing is signed, nothing is stored.
    nothing: Any = None
    plane = Plane(PlaneSettings("bench", "main"), State(1), nothing, placement, trio.current_time(), time.time())
    controller = Controller(plane, nothing, [], Metrics())
    public = Api(controller).servers()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(public.serve, await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=256))
        _ready(CONTROL_COLLECTIONS)
        for loads in itertools.cycle(moments):
            await trio.sleep(1.0)
            placement.apply(loads, trio.current_time())


async def serve_relay(keys: tuple[Key, ...], port: int, relays: int) -> None:
    """Answer as a relay with a table, for ever."""
    known = tuple(entries(relays))
    settings = PlacingSettings(questions_per_s=1e6, questions_per_s_per_address=1e6)
    dice = random.Random(2)
    carried = tuple((b"live", b"shop-%d" % dice.randrange(NAMESPACES)) for _ in range(CARRIED))
    placing = Placing(known[0].id, relay_signer(known[0].id, bytes(32)), keys, settings, carried=lambda: carried)
    table = RouteTable("bench", known[0].id, 1, 1, time.time(), (), known, ())
    placing.apply_table(table, trio.current_time())

    def answer(query: str, address: str, authorization: str | None) -> PlaceAnswer:
        return placing.answer(query, address, authorization, trio.current_time(), time.time())

    public = ops.public_server(lambda: "", ops.Questions(answer, plain_http=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(public.serve, await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=256))
        _ready(RELAY_COLLECTIONS)


def _ready(collections: tuple[int, int, int]) -> None:
    """As the real ones begin."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*collections)
    print("ready", flush=True)


if __name__ == "__main__":
    found = parse_keys((Path(sys.argv[1]) / "shop.jwk").read_text())
    trio.run({"control": serve_control, "relay": serve_relay}[sys.argv[2]], found, int(sys.argv[3]), int(sys.argv[4]))
