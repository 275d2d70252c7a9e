"""At most 32 links under one deadline: who is measured, who is looked at when, and what that costs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.links.datagrams import Probe, encode_probe
from relay.links.neighbours import MOST_NEIGHBOURS, Neighbours
from relay.links.settings import DEFAULTS
from relay.links.states import Direction, State

BOOT = bytes(16)


def connected(count: int, now: float = 0.0) -> Neighbours:
    room = Neighbours(BOOT)
    for name in room.set_neighbours([f"relay-{number}" for number in range(count)], now).added:
        room.connect(name, bytes(32), now)
    return room


def test_who_is_measured() -> None:
    room = Neighbours(BOOT)
    names = [f"r-{number}" for number in range(40)]
    wanted = room.set_neighbours(["r-0", "r-0", "No Name", *names], 0.0)
    assert wanted.added == tuple(names[:MOST_NEIGHBOURS])
    kept = room.get("r-3")
    assert room.set_neighbours(["r-3", "other"], 1.0) == (("other",), tuple(n for n in names[:32] if n != "r-3"))
    assert room.get("r-3") is kept
    assert len(room) == 2
    room.check_invariants()
    assert room.connect("r-5", bytes(32), 1.0) is None
    room.receive_datagram("r-5", b"\0", 1.0)


def test_wake_ups_are_shared() -> None:
    """32 idle links would wake the relay 320 times a second by themselves."""
    room, now, wakes, datagrams = connected(32), 0.0, 0, 0
    while now < 5.0:
        due = room.next_deadline()
        assert due is not None
        now = max(now, due)
        wakes += 1
        room.handle_deadline(now)
        for name, packets in room.datagrams_to_send(now):
            datagrams += len(packets)
            link = room.get(name)
            assert link is not None
            for data in packets:
                if data[0] == 1:
                    room.receive_datagram(name, data, now)
    assert wakes / 5.0 < 160
    assert datagrams / 5.0 > 32 * 20
    room.check_invariants()


def test_only_what_is_due_is_looked_at() -> None:
    room = connected(32)
    for link in room.links():
        room.receive_datagram(link.neighbour, encode_probe(Probe(1, 0, 1_000_000), 48), 0.0)
    room.datagrams_to_send(0.0)
    due = room.next_deadline()
    assert due is not None
    before = {link.neighbour: link.next_deadline() for link in room.links()}
    room.handle_deadline(due)
    looked = [name for name, _ in room.datagrams_to_send(due)]
    assert set(looked) == {name for name, at in before.items() if at <= due + DEFAULTS.slack_s}
    assert len(looked) < 16


def test_lag_is_everybodys() -> None:
    room = connected(4)
    now = 0.0
    for step in range(1, 30):
        now = step * 0.1
        for link in room.links():
            room.receive_datagram(link.neighbour, encode_probe(Probe(step, int(now * 1e6), 100_000), 48), now)
        room.handle_deadline(now)
        room.datagrams_to_send(now)
    assert all(link.inbound is State.UP for link in room.links())
    room.take_changes()
    now += 1.0
    room.note_lag(1.0, now)
    room.handle_deadline(now)
    assert [change for change in room.take_changes() if change.direction is Direction.INBOUND] == []
    now += 0.5
    room.handle_deadline(now)
    assert len([change for change in room.take_changes() if change.direction is Direction.INBOUND]) == 4


def test_media_make_a_link_wake_sooner() -> None:
    room = connected(1)
    (link,) = room.links()
    due = room.next_deadline()
    assert due is not None
    room.handle_deadline(due)
    room.datagrams_to_send(due)
    assert room.next_deadline() > due + 0.08  # type: ignore[operator]
    room.set_active(link.neighbour, True)
    assert room.next_deadline() <= due + DEFAULTS.active_period_s  # type: ignore[operator]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["neighbours", "connect", "probe", "packets", "active", "lag", "time"]),
        st.integers(0, 7),
        st.floats(0, 0.2),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_deadline_is_the_earliest_of_all(steps: list[tuple[str, int, float]]) -> None:
    room, now = connected(4), 0.0
    for what, number, wait_s in steps:
        now += wait_s
        name = f"relay-{number}"
        if what == "neighbours":
            room.set_neighbours([f"relay-{n}" for n in range(number, number + 4)], now)
        elif what == "connect":
            room.connect(name, bytes(32), now)
        elif what == "probe":
            room.receive_datagram(name, encode_probe(Probe(number + 1, 0, 25_000), 48), now)
        elif what == "packets":
            room.receive_packets(name, number, number // 3, now)
        elif what == "active":
            room.set_active(name, number % 2 == 0)
        elif what == "lag":
            room.note_lag(wait_s, now)
        else:
            room.handle_deadline(now)
            room.datagrams_to_send(now)
        room.check_invariants()
        due = room.next_deadline()
        assert due == min((link.next_deadline() for link in room.links()), default=None)
