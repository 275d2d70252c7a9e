"""What an earlier version of the contract holds, written down: a field or a word that came later and has no entry in
`SINCE` would be sent to nodes that refuse it.
"""

from __future__ import annotations

from typing import Any

from msgspec import inspect

from tradewind.contract.codec import ON_LINK, SINCE, TABLE, TO_CONTROLLER, TO_RELAY, VERSIONS, Direction

DIRECTIONS: tuple[Direction[Any], ...] = (TO_CONTROLLER, TO_RELAY, ON_LINK, TABLE)
STAGE, STATE = "cordoned|draining|empty|serving", "bad|probation|suspect|up"
FIRST = {
    "Answer": "question body",
    "Candidate": "next_hop through cost_ms loss_ratio",
    "Command": "id action=cordon|drain|kick|uncordon|undrain deadline_s session reason",
    "Done": "command ok detail",
    "Hello": "boot uri address software generation capacity_bytes_per_s capacity_sessions placement_key",
    "LinkHello": "boot ticket",
    "LinkReport": (
        f"neighbour state={STATE} rtt_ms jitter_ms loss_ratio carried_bytes_per_s away_state={STATE} away_loss_ratio"
    ),
    "MarketEntry": "country regions",
    "Origin": "namespace hop",
    "Override": "origin instead_of next_hop cause since_wall",
    "Question": "id what=links|rooms|sessions|state|tracks limit match",
    "Received": f"highest probes lost arrived state={STATE} loss_ratio echo waited_us lag_us",
    "RelayEntry": f"id region uri address stage={STAGE} load headroom_sessions latitude longitude placement_key",
    "Report": (
        f"sequence stage={STAGE} load sessions egress_bytes_per_s cpu_ratio loop_lag_ms generation links "
        "origins carried overrides rooms"
    ),
    "RoomEntry": "room home follower epoch base",
    "RoomReport": "room epoch whole records writing",
    "Route": "origin candidates",
    "RouteTable": "mesh relay term generation issued_wall neighbours relays routes rooms placement_keys markets",
    "SignedTable": "table certificate signature",
    "TableDelta": (
        "since term generation issued_wall certificate signature neighbours relays relays_gone routes "
        "routes_gone rooms rooms_gone placement_keys markets"
    ),
    "Welcome": "controller refused report_every_ms",
}
"""Version 1: structs, their fields, and the words of closed lists. It goes when 1 is not spoken any more."""


def held(version: int) -> dict[str, str]:
    """The same of any version, as the types and `SINCE` have it."""
    found: dict[str, str] = {}

    def walk(kind: inspect.Type) -> None:
        match kind:
            case inspect.StructType() if SINCE.get(kind.cls, 1) <= version:
                fields = [field for field in kind.fields if SINCE.get((kind.cls, field.name), 1) <= version]
                found[kind.cls.__name__] = " ".join(field.name + _words(kind, field, version) for field in fields)
                for field in fields:
                    walk(field.type)
            case inspect.UnionType(types=types) | inspect.TupleType(item_types=types):
                for one in types:
                    walk(one)
            case inspect.VarTupleType():
                walk(kind.item_type)

    for direction in DIRECTIONS:
        walk(inspect.type_info(direction.kind))
    return found


def _words(kind: inspect.StructType, field: inspect.Field, version: int) -> str:
    if not isinstance(field.type, inspect.LiteralType):
        return ""
    there = sorted(
        word for word in map(str, field.type.values) if SINCE.get((kind.cls, field.name, word), 1) <= version
    )
    return "=" + "|".join(there)


def test_an_earlier_version_stays_as_it_was() -> None:
    assert 1 in VERSIONS, "FIRST can go"
    assert held(1) == FIRST


def test_a_later_one_has_more() -> None:
    more = {name for name, fields in held(2).items() if fields != FIRST.get(name)}
    assert more >= {"Report", "Question", "StreamReport"}
