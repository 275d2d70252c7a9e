"""Route tables as a relay takes them: poisoned, truncated and older ones leave the last good one where it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from relay.orders import Fault, Orders
from tests.contract.mesh import CONTROLLER, DAY_S, MESH, NOW, RELAY, Node, make_mesh
from tradewind.contract.identity import sign_table
from tradewind.contract.ids import Role
from tradewind.contract.messages import RelayEntry, Route, RouteTable, SignedTable, TableDelta
from tradewind.contract.tables import Press, delta_between, encode_table, pack


def entry(id: str) -> RelayEntry:
    return RelayEntry(id, "fra", f"https://{id}:443", (id, 443), "serving", 0.1, 100)


def table(generation: int = 1, term: int = 3, **more) -> RouteTable:
    fields = {"mesh": "shop", "relay": "fra-1", "neighbours": ("ams-2",), "routes": (Route("ams-2", ()),)}
    fields["relays"] = (entry("ams-2"), entry("fra-1"))
    return RouteTable(term=term, generation=generation, issued_wall=NOW, **{**fields, **more})


def signed(made: RouteTable, by: Node = CONTROLLER) -> SignedTable:
    return sign_table(encode_table(made), by.key, by.der)


def delta(old: RouteTable, new: RouteTable) -> TableDelta:
    return delta_between(old, new, signed(new))


def orders() -> Orders:
    return Orders("shop", "fra-1", MESH.authority)


def test_a_good_table_is_taken_once_and_persisted_once() -> None:
    own = orders()
    assert own.to_persist() is None and own.generation == 0
    assert own.receive_table(signed(table()), NOW) == (None, "", True)
    assert own.table == table() and own.to_persist() is not None and own.to_persist() is None
    assert own.receive_table(signed(table()), NOW) == (None, "", False)
    assert own.to_persist() is None
    own.check_invariants()


def test_a_table_in_pieces_is_taken_as_one_that_is_whole_and_kept_on_disk_as_such() -> None:
    own, twin = orders(), orders()
    encoded, whole = Press().encode(table()), signed(table())
    packed = pack(encoded, whole)
    assert own.receive_packed(packed, NOW).fresh and own.table == table()
    assert own.statistics().tables == 1
    kept = own.to_persist()
    twin.receive_table(whole, NOW)
    assert kept is not None and kept == twin.to_persist()
    own.check_invariants()
    assert own.receive_packed(replace(packed, pieces=packed.pieces[:2]), NOW).fault is Fault.UNSIGNED
    assert own.receive_packed(replace(packed, pieces=(b"x",)), NOW).fault is Fault.UNREADABLE
    assert own.table == table()
    assert own.receive_delta(delta(table(1), table(2)), NOW).fresh, "differences follow it"


def test_differences_are_checked_over_what_they_make() -> None:
    own = orders()
    assert own.receive_delta(delta(table(1), table(2)), NOW).fault is Fault.ANOTHER_BASE
    own.receive_table(signed(table(1)), NOW)
    newer = table(2, relays=(entry("ams-2"), entry("fra-1"), entry("osl-1")))
    assert own.receive_delta(delta(table(1), newer), NOW).fresh
    assert own.table == newer
    assert own.receive_delta(delta(table(1), table(3)), NOW).fault is Fault.ANOTHER_BASE
    other = table(2, neighbours=())
    assert own.receive_delta(delta(other, table(3, neighbours=())), NOW).fault is Fault.UNSIGNED, "of another table 2"
    assert own.receive_delta(delta(newer, table(3)), NOW).fresh
    forged = replace(delta(table(3), table(4)), neighbours=("osl-1",))
    assert own.receive_delta(forged, NOW).fault is Fault.UNSIGNED
    assert own.generation == 3 and own.statistics().deltas == 2
    own.check_invariants()


IMPOSTOR = make_mesh(number=9).node("main", Role.CONTROLLER, 13)
BAD = [
    (signed(table(5), RELAY), Fault.UNSIGNED),
    (signed(table(5), IMPOSTOR), Fault.UNSIGNED),
    (signed(table(5), MESH.node("main", Role.CONTROLLER, 13, begins=-DAY_S, ends=-100.0)), Fault.UNSIGNED),
    (replace(signed(table(5)), table=encode_table(table(6))), Fault.UNSIGNED),
    (sign_table(b"\x00", CONTROLLER.key, CONTROLLER.der), Fault.UNREADABLE),
    (signed(table(5, relay="ams-2")), Fault.ANOTHER_RELAY),
    (signed(table(5, mesh="other")), Fault.ANOTHER_MESH),
    (signed(table(1)), Fault.OLDER),
    (signed(table(9, term=2)), Fault.OLDER),
    (signed(table(2, neighbours=())), Fault.CONTRADICTION),
]


@pytest.mark.parametrize(("bad", "fault"), BAD)
def test_what_is_not_good_leaves_the_last_good_one(bad: SignedTable, fault: Fault) -> None:
    own = orders()
    own.receive_table(signed(table(2)), NOW)
    own.to_persist()
    taken = own.receive_table(bad, NOW)
    assert taken.fault is fault and not taken.fresh
    assert own.table == table(2) and own.to_persist() is None
    assert own.statistics().refused == {fault.value: 1}
    assert own.receive_table(signed(table(1, term=4)), NOW).fresh, "a newer term counts from one"


def written(made: RouteTable) -> bytes:
    own = orders()
    own.receive_table(signed(made), NOW)
    data = own.to_persist()
    assert data is not None
    return data


def test_a_relay_starts_with_its_last_table_even_when_the_controllers_certificate_has_ended_since() -> None:
    own = orders()
    assert own.restore(written(table(7))) == (None, "", True)
    assert own.table == table(7) and own.to_persist() is None
    late = NOW + 365 * DAY_S
    assert own.receive_table(signed(table(8)), late).fault is Fault.UNSIGNED
    assert own.receive_table(signed(table(6)), NOW).fault is Fault.OLDER


DATA = written(table(7))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_to_the_file_is_believed(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(DATA) - 1))
    bad = data.draw(
        st.sampled_from([DATA[:at], DATA[:at] + bytes([DATA[at] ^ 0x10]) + DATA[at + 1 :], DATA + b"x", DATA[at:][1:]])
    )
    own = orders()
    assert own.restore(bad).fault is Fault.UNREADABLE and own.table is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), max_size=12))
def test_terms_and_generations_never_go_back(numbers: list[tuple[int, int]]) -> None:
    own, best = orders(), (0, 0)
    for term, generation in numbers:
        taken = own.receive_table(signed(table(generation, term)), NOW)
        assert (taken.fault is Fault.OLDER) == ((term, generation) < best)
        best = max(best, (term, generation))
        assert own.table is not None and (own.table.term, own.table.generation) == best


def test_releases_around_this_one_read_the_file() -> None:
    """The file stays in the version that both the release before and this one write."""
    own = orders()
    own.receive_table(signed(table()), NOW)
    data = own.to_persist()
    assert data is not None
    envelope = data[len(b"tradewind table 1\n") + 40 :]
    assert envelope[:2] == b"\x92\x01" and len(envelope) > 100
    again = orders()
    assert again.restore(data).fault is None and again.table == table()
