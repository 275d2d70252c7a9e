"""Route tables and bytes: what a controller signs, differences that end in the same bytes, and tables in pieces.

A table has one encoding, whoever makes it, and its signature is over those bytes. Every relay's own table has the same
relays and rooms in it: `Press` encodes them once for all, and deflates them once, and a `PackedTable` carries a table
as pieces that inflate to its bytes. Controllers make tables with this, relays read them (`relay.orders`).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias, get_type_hints

import msgspec
from msgspec import Struct

from tradewind.contract.codec import TABLE, VERSIONS, Codec, ContractError, Reason, open_envelope
from tradewind.contract.messages import PackedTable, RelayEntry, RoomEntry, Route, RouteTable, SignedTable, TableDelta

TABLE_VERSION: Final = 1
"""The version in which route tables are written: that of their last change. The two ends of a link may speak different
versions with others, but a table is signed once, and a difference has to end in the same bytes everywhere."""
KEPT_DIFFERENCES: Final = 8
"""Of the parts that tables have in common: relays follow tables that are a few generations apart."""
DEFLATE_LEVEL: Final = 1
"""Names come again and again: more work saves nothing."""


def encode_table(table: RouteTable, version: int = TABLE_VERSION) -> bytes:
    """The bytes that a table is signed over: relays, routes and rooms by their keys. Raises ContractError."""
    return _table_codec(version).encode(_in_order(table))


def decode_table(data: bytes) -> RouteTable:
    """The table in `SignedTable.table`, of any version that we speak. Raises ContractError.

    Also where it is not the one encoding of its entries: out of order, or two with one key.
    """
    version, tree = open_envelope(data, TABLE)
    if version not in VERSIONS:
        raise ContractError(Reason.VERSION, f"a table of version {version}")
    table = _table_codec(version).read(tree)
    for keyed in _KEYED:
        _check_ascending(keyed, getattr(table, keyed.name))
    return table


def delta_between(
    old: RouteTable, new: RouteTable, signed: SignedTable | None = None, press: Press | None = None
) -> TableDelta:
    """What makes `new` out of `old`: `apply_delta` gives a table with the bytes of `new`.

    `signed` is `new` as it was signed; without it the difference carries no signature. `press` has encoded both, and
    knows what the differences of others have in common with this one. Raises ContractError where the two are not for
    one relay of one mesh.
    """
    if (old.mesh, old.relay) != (new.mesh, new.relay):
        raise ContractError(Reason.OTHER_TABLE, "not for the same relay")
    changes: dict[str, Any] = {}
    for keyed in _KEYED:
        parts = (getattr(old, keyed.name), getattr(new, keyed.name))
        difference = _difference if press is None or keyed is _ROUTES else press.difference
        changes[keyed.name], changes[f"{keyed.name}_gone"] = difference(keyed, *parts)
    return TableDelta(
        since=old.generation,
        term=new.term,
        generation=new.generation,
        issued_wall=new.issued_wall,
        certificate=signed.certificate if signed else b"",
        signature=signed.signature if signed else b"",
        neighbours=None if old.neighbours == new.neighbours else new.neighbours,
        placement_keys=None if old.placement_keys == new.placement_keys else new.placement_keys,
        markets=None if old.markets == new.markets else new.markets,
        **changes,
    )


def apply_delta(table: RouteTable, delta: TableDelta) -> RouteTable:
    """The table after a difference, in order. Raises ContractError where the difference is not from this table.

    Whether it really was is only known when `encode_table` of the result verifies under the difference's signature.
    """
    if delta.since != table.generation or delta.term < table.term:
        raise ContractError(
            Reason.OTHER_TABLE,
            f"from generation {delta.since} to term {delta.term}, here is {table.generation} of {table.term}",
        )
    changes: dict[str, Any] = {}
    for keyed in _KEYED:
        entries = {keyed.key(entry): entry for entry in getattr(table, keyed.name)}
        gone = getattr(delta, f"{keyed.name}_gone")
        if len(set(gone)) != len(gone) or not entries.keys() >= set(gone):
            raise ContractError(Reason.OTHER_TABLE, f"{keyed.name}_gone names what is not there")
        changed = getattr(delta, keyed.name)
        _check_ascending(keyed, changed)
        for key in gone:
            del entries[key]
        entries.update((keyed.key(entry), entry) for entry in changed)
        changes[keyed.name] = tuple(entries[key] for key in sorted(entries))
    if delta.neighbours is not None:
        changes["neighbours"] = delta.neighbours
    if delta.placement_keys is not None:
        changes["placement_keys"] = delta.placement_keys
    if delta.markets is not None:
        changes["markets"] = delta.markets
    return msgspec.structs.replace(
        table, term=delta.term, generation=delta.generation, issued_wall=delta.issued_wall, **changes
    )


class EncodedTable(NamedTuple):
    """A table's bytes, and the same in deflated pieces for `PackedTable`."""

    data: bytes
    pieces: tuple[bytes, ...]


class Press:
    """Encodes one mesh's tables, one after the other: parts that are the same objects as before are not encoded again.

    Tables come as a builder makes them: `relays` and `rooms` are the same tuples in many, a relay's `routes` are the
    same tuple as in its last table where no route changed.
    """

    __slots__ = ("_differences", "_own", "_shared")

    def __init__(self) -> None:
        self._differences: deque[_Kept] = deque(maxlen=KEPT_DIFFERENCES)
        self._shared: _Shared | None = None
        self._own: dict[str, _Own] = {}

    def encode(self, table: RouteTable) -> EncodedTable:
        """What `encode_table` gives, and its pieces. Raises ContractError as that does."""
        bare = encode_table(msgspec.structs.replace(table, relays=(), rooms=(), routes=()))
        tail = _tail(table.term)
        seam = b"".join((*(_written(keyed, ()) for keyed in (_RELAYS, _ROOMS, _ROUTES)), tail))
        assert bare.endswith(seam)
        head = bare[: -len(seam)]
        shared = self._shared
        if shared is None or shared.relays is not table.relays or shared.rooms is not table.rooms:
            shared = self._shared = _share(table.relays, table.rooms)
        own = self._own.get(table.relay)
        if own is None or own.routes is not table.routes or own.tail != tail:
            own = self._own[table.relay] = _own(table.routes, tail, own)
        data = b"".join((head, shared.data, _written(_ROUTES, own.checked), tail))
        if len(data) > TABLE.max_frame_bytes:
            raise ContractError(Reason.TOO_LONG, f"{len(data)} bytes {TABLE.name}")
        return EncodedTable(data, (zlib.compress(head, DEFLATE_LEVEL), shared.deflated, own.deflated))

    def difference(self, keyed: _Keyed, old: tuple[Any, ...], new: tuple[Any, ...]) -> _Difference:
        """Of a part that is in many tables: found once."""
        for kept in self._differences:
            if kept.old is old and kept.new is new:
                return kept.found
        found = _difference(keyed, old, new)
        self._differences.append(_Kept(old, new, found))
        return found

    def forget(self, relay: str) -> None:
        """A relay is gone."""
        self._own.pop(relay, None)


def pack(encoded: EncodedTable, signed: SignedTable) -> PackedTable:
    """A signed table as it goes to relays that know pieces. `signed` has the bytes of `encoded`."""
    return PackedTable(encoded.pieces, signed.certificate, signed.signature)


def unpack(packed: PackedTable) -> SignedTable:
    """The signed table in pieces. Raises ContractError where they are no such thing, or inflate to too much."""
    data = bytearray()
    for piece in packed.pieces:
        inflater = zlib.decompressobj()
        try:
            data += inflater.decompress(piece, TABLE.max_frame_bytes + 1 - len(data))
        except zlib.error as error:
            raise ContractError(Reason.MALFORMED, "a piece that does not inflate") from error
        if len(data) > TABLE.max_frame_bytes:
            raise ContractError(Reason.TOO_LONG, f"more than {TABLE.max_frame_bytes} bytes in pieces")
        if not inflater.eof or inflater.unused_data:
            raise ContractError(Reason.MALFORMED, "a piece that has no end, or more behind it")
    return SignedTable(bytes(data), packed.certificate, packed.signature)


def _difference(keyed: _Keyed, old: Sequence[Any], new: Sequence[Any]) -> _Difference:
    if old is new:
        return (), ()
    before = {keyed.key(entry): entry for entry in old}
    after = {keyed.key(entry): entry for entry in new}
    changed = tuple(after[key] for key in sorted(after) if key not in before or not keyed.same(before[key], after[key]))
    return changed, tuple(sorted(before.keys() - after.keys()))


_Difference: TypeAlias = tuple[tuple[Any, ...], tuple[Any, ...]]
"""Entries that changed, and keys that are gone, in order."""


class _Keyed(NamedTuple):
    """A part of a table whose entries have keys."""

    name: str
    key: Callable[[Any], Any]
    same: Callable[[Any, Any], bool]
    """Whether two entries have the same bytes."""
    decoder: msgspec.msgpack.Decoder[Any]
    """Of the whole part."""


def _same_bytes(one: Struct, other: Struct) -> bool:
    # 0.0 equals -0.0 and has other bytes; repr tells them apart.
    return one is other or (one == other and repr(one) == repr(other))


def _equal(one: Struct, other: Struct) -> bool:
    return one is other or one == other


def _decoder(name: str) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(get_type_hints(RouteTable, include_extras=True)[name])


_KEYED = (
    _Keyed("relays", lambda entry: entry.id, _same_bytes, _decoder("relays")),
    _Keyed("routes", lambda entry: entry.origin, _same_bytes, _decoder("routes")),
    _Keyed("rooms", lambda entry: entry.room, _equal, _decoder("rooms")),
)
_RELAYS, _ROUTES, _ROOMS = _KEYED


@cache
def _table_codec(version: int) -> Codec[RouteTable]:
    return Codec(TABLE, version)


def _in_order(table: RouteTable) -> RouteTable:
    changes: dict[str, Any] = {}
    for keyed in _KEYED:
        entries = sorted(getattr(table, keyed.name), key=keyed.key)
        _check_ascending(keyed, entries)
        changes[keyed.name] = tuple(entries)
    return msgspec.structs.replace(table, **changes)


def _check_ascending(keyed: _Keyed, entries: Sequence[Any]) -> None:
    if not all(one < other for one, other in pairwise(map(keyed.key, entries))):
        raise ContractError(Reason.SHAPE, f"{keyed.name} are out of order, or two have one key")


# --- Pieces ---


class _Kept(NamedTuple):
    """A difference that was found."""

    old: tuple[Any, ...]
    new: tuple[Any, ...]
    found: _Difference


class _Shared(NamedTuple):
    """What is in many tables."""

    relays: tuple[RelayEntry, ...]
    rooms: tuple[RoomEntry, ...]
    data: bytes
    deflated: bytes


class _Own(NamedTuple):
    """One relay's routes. `checked` are the same with every number as its field has it."""

    routes: tuple[Route, ...]
    tail: bytes
    checked: tuple[Route, ...]
    deflated: bytes


_ENCODER = msgspec.msgpack.Encoder(order="sorted")


def _written(keyed: _Keyed, entries: Sequence[Any]) -> bytes:
    """A part as it stands in a table: its key, and its entries. They are checked already."""
    return _ENCODER.encode(keyed.name) + _ENCODER.encode(entries)


def _tail(term: int) -> bytes:
    """What stands behind the routes."""
    return b"".join(map(_ENCODER.encode, ("t", "table", "term", term)))


def _share(relays: tuple[RelayEntry, ...], rooms: tuple[RoomEntry, ...]) -> _Shared:
    data = _written(_RELAYS, _checked(_RELAYS, relays)) + _written(_ROOMS, _checked(_ROOMS, rooms))
    return _Shared(relays, rooms, data, zlib.compress(data, DEFLATE_LEVEL))


def _own(routes: tuple[Route, ...], tail: bytes, before: _Own | None) -> _Own:
    """One relay's routes, those that were there `before` taken as they are."""
    checked = before.checked if before is not None else ()
    known = set(map(id, checked))
    fresh = [route for route in routes if id(route) not in known]
    if _written(_ROUTES, _checked(_ROUTES, fresh)) == _written(_ROUTES, sorted(fresh, key=_ROUTES.key)):
        # Nearly always: all of them twice would be much.
        checked = tuple(sorted(routes, key=_ROUTES.key))
        _check_ascending(_ROUTES, checked)
    else:
        checked = _checked(_ROUTES, routes)
    data = _written(_ROUTES, checked)
    return _Own(routes, tail, checked, zlib.compress(data + tail, DEFLATE_LEVEL))


def _checked(keyed: _Keyed, entries: Sequence[Any]) -> tuple[Any, ...]:
    """A part in order, every number as its field has it. Raises ContractError where it does not fit."""
    ordered = sorted(entries, key=keyed.key)
    _check_ascending(keyed, ordered)
    try:
        checked: tuple[Any, ...] = keyed.decoder.decode(_ENCODER.encode(ordered))
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise ContractError(Reason.SHAPE, f"{keyed.name} do not fit their type") from error
    return checked
