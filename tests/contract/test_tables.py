"""Route tables: one encoding for each, and differences that end in the same bytes."""

from __future__ import annotations

import contextlib
import zlib
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.contract.values import any_of
from tradewind.contract import messages as m
from tradewind.contract.codec import (
    TABLE,
    TO_RELAY,
    VERSION,
    VERSIONS,
    Codec,
    ContractError,
    Reason,
)
from tradewind.contract.tables import (
    TABLE_VERSION,
    Press,
    apply_delta,
    decode_table,
    delta_between,
    encode_table,
    pack,
    unpack,
)


def relay(name: str, **changes: Any) -> m.RelayEntry:
    return m.RelayEntry(
        **{
            "id": name,
            "region": "fra",
            "uri": f"https://{name}.example:443",
            "address": ("192.0.2.1", 443),
            "stage": "serving",
            "load": 0.5,
            "headroom_sessions": 10,
            **changes,
        }
    )


def table(**changes: Any) -> m.RouteTable:
    return m.RouteTable(
        **{
            "mesh": "shop",
            "relay": "r1",
            "term": 3,
            "generation": 7,
            "issued_wall": 1.5,
            "neighbours": ("r2",),
            "relays": (relay("r1"), relay("r2")),
            "routes": (m.Route("r2", (m.Candidate("r2", cost_ms=1.5),)),),
            "rooms": (m.RoomEntry((b"a",), "r1"), m.RoomEntry((b"b",), "r2", "r1", 4)),
            **changes,
        }
    )


def unique(found: m.RouteTable) -> bool:
    keys: list[list[Any]] = [
        [r.id for r in found.relays],
        [r.origin for r in found.routes],
        [r.room for r in found.rooms],
    ]
    return all(len(set(part)) == len(part) for part in keys)


TABLES = any_of(m.RouteTable).filter(unique)


def refused(data: bytes) -> Reason:
    with pytest.raises(ContractError) as caught:
        decode_table(data)
    return caught.value.reason


def raw(found: m.RouteTable, version: int = TABLE_VERSION, **changes: Any) -> bytes:
    """A table with whatever stands in it, in whatever order."""
    tree = msgspec.to_builtins(found, builtin_types=(bytes,), order="sorted")
    data: bytes = msgpack.packb([version, {**tree, **changes}])
    return data


@given(found=TABLES, data=st.data())
@settings(max_examples=60)
def test_a_table_has_one_encoding(found: m.RouteTable, data: st.DataObject) -> None:
    encoded = encode_table(found)
    shuffled = {name: tuple(data.draw(st.permutations(getattr(found, name)))) for name in ("relays", "routes", "rooms")}
    assert encode_table(replace(found, **shuffled)) == encoded
    assert encode_table(decode_table(encoded)) == encoded


@st.composite
def changed(draw: st.DrawFn, old: m.RouteTable) -> m.RouteTable:
    """Another table that has much in common with `old`."""
    fresh = draw(TABLES)
    kept: dict[str, Any] = {}
    for name in ("relays", "routes", "rooms"):
        flags = [draw(st.booleans()) for _ in getattr(old, name)]
        # Copies: what is equal need not be the same object.
        kept[name] = (
            *(replace(entry) for entry, keep in zip(getattr(old, name), flags) if keep),
            *getattr(fresh, name),
        )
    new = replace(fresh, mesh=old.mesh, relay=old.relay, term=max(old.term, fresh.term), **kept)
    assume(unique(new))
    return new


@given(data=st.data())
@settings(max_examples=100)
def test_a_difference_ends_in_the_same_bytes(data: st.DataObject) -> None:
    old = data.draw(TABLES)
    new = data.draw(changed(old))
    delta = delta_between(old, new)
    codec = Codec(TO_RELAY)
    received = codec.decode(codec.encode(delta))
    assert isinstance(received, m.TableDelta)
    assert encode_table(apply_delta(decode_table(encode_table(old)), received)) == encode_table(new)
    assert apply_delta(old, delta_between(old, old)).generation == old.generation


def test_a_difference_holds_what_changed_and_no_more() -> None:
    old = table()
    new = table(
        generation=8,
        relays=(relay("r1"), relay("r3")),
        routes=(m.Route("r2", (m.Candidate("r2", cost_ms=-0.0),)), m.Route("r3", ())),
        rooms=(m.RoomEntry((b"b",), "r2", "r1", 5), m.RoomEntry((b"a",), "r1")),
    )
    signed = m.SignedTable(table=encode_table(new), certificate=b"c", signature=b"s")
    delta = delta_between(old, new, signed)
    assert delta == m.TableDelta(
        since=7,
        term=3,
        generation=8,
        issued_wall=1.5,
        certificate=b"c",
        signature=b"s",
        relays=(relay("r3"),),
        relays_gone=("r2",),
        routes=new.routes,
        rooms=(m.RoomEntry((b"b",), "r2", "r1", 5),),
    )
    assert encode_table(apply_delta(old, delta)) == signed.table
    same = delta_between(new, replace(new, relays=tuple(map(replace, new.relays))))
    assert (same.relays, same.routes, same.rooms, same.neighbours, same.placement_keys) == ((), (), (), None, None)


def test_zero_and_its_negative_are_other_bytes() -> None:
    old, new = (table(relays=(relay("r1", latitude=zero),)) for zero in (0.0, -0.0))
    assert old == new
    assert encode_table(old) != encode_table(new)
    assert encode_table(apply_delta(old, delta_between(old, new))) == encode_table(new)


def test_a_number_is_written_as_its_field_says() -> None:
    assert encode_table(table(issued_wall=2, relays=(relay("r1", load=1),))) == encode_table(
        table(issued_wall=2.0, relays=(relay("r1", load=1.0),))
    )


@pytest.mark.parametrize(
    "change",
    [
        {"since": 6},
        {"since": 8},
        {"term": 2},
        {"relays_gone": ("r9",)},
        {"relays_gone": ("r2", "r2")},
        {"rooms_gone": ((b"z",),)},
        {"relays": (relay("r2"), relay("r1"))},
        {"relays": (relay("r2"), relay("r2"))},
    ],
)
def test_a_difference_from_another_table(change: dict[str, Any]) -> None:
    delta = replace(delta_between(table(), table(generation=8)), **change)
    with pytest.raises(ContractError) as caught:
        apply_delta(table(), delta)
    assert caught.value.reason in {Reason.OTHER_TABLE, Reason.SHAPE}


@pytest.mark.parametrize("other", [{"mesh": "other"}, {"relay": "r2"}])
def test_tables_of_different_relays(other: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="other-table"):
        delta_between(table(), table(**other))


@pytest.mark.parametrize("name", ["relays", "routes", "rooms"])
def test_out_of_order_is_refused(name: str) -> None:
    found = table(routes=(m.Route("r1", ()), m.Route("r2", ())))
    entries = msgspec.to_builtins(getattr(found, name), builtin_types=(bytes,))
    assert decode_table(raw(found)) == found
    assert refused(raw(found, **{name: entries[::-1]})) is Reason.SHAPE
    assert refused(raw(found, **{name: entries[:1] * 2})) is Reason.SHAPE
    with pytest.raises(ContractError, match="two have one key"):
        encode_table(replace(found, **{name: getattr(found, name)[:1] * 2}))


def test_a_table_says_its_version() -> None:
    assert refused(raw(table(), version=VERSION + 1)) is Reason.VERSION
    assert refused(b"") is Reason.MALFORMED
    assert refused(Codec(TO_RELAY).encode(m.Welcome(controller="c"))) is Reason.SHAPE


def test_a_table_has_the_same_bytes_whatever_else_is_spoken() -> None:
    """Signed once for relays of every version: what came later than its version is in no table."""
    assert msgpack.unpackb(encode_table(table()))[0] == TABLE_VERSION <= min(VERSIONS)
    later = Codec(TABLE, VERSION)
    for version in VERSIONS:
        assert encode_table(table(), version)[2:] == later.encode(table())[2:]
    signed = m.SignedTable(encode_table(table()), b"c", b"s")
    assert all(
        Codec(TO_RELAY, version).encode(signed)[2:] == Codec(TO_RELAY).encode(signed)[2:] for version in VERSIONS
    )


# --- Pieces ---


@given(data=st.data())
@settings(max_examples=25)
def test_a_press_makes_the_same_bytes_however_much_it_has_made_before(data: st.DataObject) -> None:
    """Of several relays, one table after the other: parts are shared, kept, changed, and numbers may be whole."""
    press, made = Press(), data.draw(TABLES)
    for _ in range(4):
        encoded = press.encode(made)
        assert encoded.data == encode_table(made)
        signed = m.SignedTable(encoded.data, b"c", b"s")
        assert unpack(pack(encoded, signed)) == signed
        other = data.draw(changed(made))
        kept = data.draw(st.sets(st.sampled_from(["relays", "rooms", "routes"])))
        made = replace(other, **{name: getattr(made, name) for name in kept}, relay=data.draw(st.sampled_from("ab")))


def test_what_many_tables_have_in_common_is_encoded_once() -> None:
    press, first = Press(), table()
    other = replace(first, relay="r2", neighbours=("r1",), routes=(m.Route("r1", ()),))
    ours, theirs, again = press.encode(first), press.encode(other), press.encode(replace(first, generation=8))
    assert ours.pieces[1] is theirs.pieces[1] is again.pieces[1]
    assert ours.pieces[2] is again.pieces[2] and ours.pieces[2] != theirs.pieces[2]
    press.forget("r1")
    assert press.encode(first).pieces[2] is not ours.pieces[2]


def test_a_press_refuses_what_is_no_table() -> None:
    wrong: list[Any] = [
        table(relays=(relay("r1"), relay("r1"))),
        table(routes=(m.Route("r2", ()), m.Route("r2", ()))),
        table(routes=(m.Route("NOT A NAME", ()),)),
        table(relays=(relay("r1", load=2.0),)),
        table(term=-1),
    ]
    for made in wrong:
        with pytest.raises(ContractError, match="shape"):
            Press().encode(made)


@given(data=st.data())
@settings(max_examples=25)
def test_a_difference_is_the_same_with_a_press(data: st.DataObject) -> None:
    old, press = data.draw(TABLES), Press()
    new = data.draw(changed(old))
    for before, after in ((old, new), (new, replace(old, term=new.term)), (old, new)):
        assert delta_between(before, after, press=press) == delta_between(before, after)


def test_pieces_that_are_none() -> None:
    whole = zlib.compress(b"table")
    bomb = zlib.compress(bytes(TABLE.max_frame_bytes))
    for pieces, reason in (
        ((b"",), Reason.MALFORMED),
        ((b"plain",), Reason.MALFORMED),
        ((whole[:-1],), Reason.MALFORMED),
        ((whole + b"x",), Reason.MALFORMED),
        ((whole, whole[:-5]), Reason.MALFORMED),
        ((whole, bomb), Reason.TOO_LONG),
        ((bomb, whole), Reason.TOO_LONG),
        ((bomb,) * 16, Reason.TOO_LONG),
    ):
        with pytest.raises(ContractError) as caught:
            unpack(m.PackedTable(pieces, b"c", b"s"))
        assert caught.value.reason is reason
    assert unpack(m.PackedTable((whole, whole), b"c", b"s")) == m.SignedTable(b"tabletable", b"c", b"s")
    assert len(unpack(m.PackedTable((bomb,), b"c", b"s")).table) == TABLE.max_frame_bytes


@given(pieces=st.lists(st.binary(max_size=60), max_size=4))
def test_any_pieces(pieces: list[bytes]) -> None:
    with contextlib.suppress(ContractError):
        unpack(m.PackedTable(tuple(pieces), b"c", b"s"))


def test_version_1_knows_no_pieces() -> None:
    packed = m.PackedTable((zlib.compress(b"t"),), b"c", b"s")
    assert Codec(TO_RELAY, 2).decode(Codec(TO_RELAY, 2).encode(packed)) == packed
    with pytest.raises(ContractError, match="too-new"):
        Codec(TO_RELAY, 1).encode(packed)
