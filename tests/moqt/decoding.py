"""Decoders of objects run over whole and cut bytes, and what they gave, spelled as the vectors spell it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.moqt.wire_values import DRAFTS
from tradewind.moqt.errors import ProtocolViolation
from tradewind.moqt.fetched import FetchDecoder, FetchItem, RangeMark
from tradewind.moqt.model import MAX_VARINT, DatagramObject, FetchObject, ObjectHeader, ObjectStatus, SubgroupHeader
from tradewind.moqt.objects import SubgroupDecoder, SubgroupItem
from tradewind.moqt.pieces import ObjectLimits, Piece
from tradewind.moqt.profiles import PROFILES

D16, D18, D20, D22 = (PROFILES[name] for name in ("moqt-16", "moqt-18", "moqt-20", "moqt-22"))
VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "moqt_objects.json").read_text())
QUICK = settings(
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
ANY_ID = ObjectLimits(largest_id=MAX_VARINT)
"""For everything that a draft can say, beyond what we take from strangers."""
every_draft = pytest.mark.parametrize("profile", DRAFTS, ids=lambda profile: profile.name)


def cases(section: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("profile", "vector"),
        [
            pytest.param(PROFILES[name], vector, id=f"{name}-{vector['id']}")
            for vector in VECTORS[section]
            for name in vector["drafts"]
        ],
    )


def in_steps(decoder: SubgroupDecoder | FetchDecoder, data: bytes, step: int) -> list[Any]:
    """Everything a decoder gives for `data` in pieces of `step` bytes, and then FIN, which must be in order."""
    found: list[Any] = []
    for start in range(0, len(data), step):
        found += decoder.receive(data[start : start + step])
    decoder.finish()
    assert decoder.buffered_bytes == 0
    return found


def joined(items: list[Any]) -> list[Any]:
    """The same with each object's pieces put together; `last` must stand on the last and only there."""
    found: list[Any] = []
    parts: list[bytes] = []
    for item in items:
        if not isinstance(item, Piece):
            assert not parts, "an object before the last piece of the one before it"
            found.append(item)
            continue
        assert item.data
        parts.append(item.data)
        if item.last:
            found.append(Piece(b"".join(parts), True))
            parts = []
    assert not parts
    return found


def outcome(decoder: SubgroupDecoder | FetchDecoder, pieces: list[bytes]) -> tuple[list[Any], str | None]:
    """What was told before the first violation, with payload as one string of bytes an object, and the violation."""
    found: list[Any] = []
    try:
        for piece in pieces:
            for item in decoder.receive(piece):
                if isinstance(item, Piece) and found and isinstance(found[-1], bytes):
                    found[-1] += item.data
                else:
                    found.append(item.data if isinstance(item, Piece) else item)
    except ProtocolViolation as violation:
        return found, violation.reason
    return found, None


# --- Decoded items as one line each, as the vectors spell them --------------------------------------------------------


def spelled(item: SubgroupItem | FetchItem) -> str:
    match item:
        case Piece():
            return item.data.decode("latin-1") + ("!" if item.last else "")
        case RangeMark():
            return f"{item.kind.name} up to {item.location.group}/{item.location.object}"
        case SubgroupHeader():
            return spelled_subgroup(item)
        case ObjectHeader():
            return f"object {item.id} " + spelled_object(item)
        case FetchObject():
            subgroup = "none" if item.subgroup is None else item.subgroup
            place = f"{item.group}/{item.header.id} subgroup={subgroup} priority={item.priority} "
            return place + spelled_object(item.header)


def spelled_subgroup(header: SubgroupHeader) -> str:
    subgroup = "first" if header.subgroup is None else header.subgroup
    line = f"header alias={header.alias} group={header.group} subgroup={subgroup} " + spelled_priority(header.priority)
    flags = [("end", header.end_of_group), ("first", header.first_object), ("properties", header.has_properties)]
    return line + "".join(f" +{name}" for name, on in flags if on)


def spelled_priority(priority: int | None) -> str:
    return f"priority={'default' if priority is None else priority}"


def spelled_object(header: ObjectHeader) -> str:
    line = f"length={header.length}"
    if header.status is not ObjectStatus.NORMAL:
        line += f" {header.status.name}"
    if header.properties:
        line += f" properties=[{', '.join(spelled_property(*pair) for pair in header.properties)}]"
    return line


def spelled_property(type: int, value: int | bytes) -> str:
    return f"{type}: {value.decode() if isinstance(value, bytes) else value}"


def spelled_datagram(found: DatagramObject | None) -> str:
    assert found is not None
    line = f"alias={found.alias} group={found.group} {spelled_priority(found.priority)}"
    line += " +end" if found.end_of_group else ""
    return f"{line} | {spelled(found.header)} | {found.payload.decode()}"
