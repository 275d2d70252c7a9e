"""Two links and a path between them: which faults are seen, in which direction, and what is nobody's fault."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.links import Way, World
from relay.links.datagrams import (
    LinkViolation,
    Probe,
    decode_datagram,
    encode_probe,
    encode_report,
)
from relay.links.link import Link
from relay.links.settings import DEFAULTS, LinkSettings
from relay.links.states import Direction, LinkChange, State, Symptom
from tradewind.contract.messages import LinkHello, Received

REPORT = Received(highest=0, probes=0, lost=0, arrived=0, state="up", loss_ratio=0.0, echo=0, waited_us=0, lag_us=0)


def report(**changes: Any) -> Received:
    return msgspec.structs.replace(REPORT, **changes)


def calm(media: bool = False, forth: Way | None = None, back: Way | None = None, seed: int = 1) -> World:
    """Two ends whose links are UP."""
    world = World(seed, (forth or Way(loss_ratio=0.0), back or Way(loss_ratio=0.0)))
    if media:
        world.carry_media()
    world.run(world.now + 3.0)
    for end in world.ends:
        assert (end.link.inbound, end.link.outbound) == (State.UP, State.UP)
    world.changes.clear()
    return world


def changes(world: World, end: int, direction: Direction) -> list[tuple[State, Symptom]]:
    return [(c.new, c.cause) for number, c in world.changes if number == end and c.direction is direction]


def check(world: World) -> None:
    for end in world.ends:
        end.link.check_invariants()


def test_a_new_link_is_up_soon() -> None:
    world = calm()
    first = [change for number, change in world.changes if number == 1]
    assert first == []
    assert world.ends[0].link.statistics(world.now).rtt_s == pytest.approx(0.08, abs=0.002)
    assert world.ends[1].link.report(world.now).rtt_ms == pytest.approx(80, abs=2)


@pytest.mark.parametrize("media", [True, False])
@pytest.mark.parametrize("loss", [1.0, 0.3])
def test_only_the_faulty_direction_changes(media: bool, loss: float) -> None:
    """S2: what goes from 0 to 1 fails; the way back is as it was, at both ends."""
    world = calm(media)
    world.ways[0].loss_ratio = loss
    world.run(world.now + 4.0)
    zero, one = world.ends
    assert one.link.inbound is State.BAD
    assert zero.link.outbound is State.BAD
    assert (zero.link.inbound, one.link.outbound) == (State.UP, State.UP)
    assert changes(world, 0, Direction.INBOUND) == changes(world, 1, Direction.OUTBOUND) == []
    check(world)


def test_who_leaves_says_so_and_may_stay_after_all() -> None:
    world = calm()
    zero, one = world.ends
    for leaving in (True, False):
        zero.link.leaving = leaving
        world.run(world.now + 0.3)
        assert one.link.far_leaves is leaving
        assert not zero.link.far_leaves
    assert (one.link.inbound, one.link.outbound) == (State.UP, State.UP)
    zero.link.leaving = True
    world.run(world.now + 0.3)
    one.link.restart(b"another".ljust(32), world.now)
    assert not one.link.far_leaves, "who comes back has forgotten it"
    check(world)


def test_where_all_is_silent_nobody_blames_what_cannot_be_seen() -> None:
    world = calm(media=True)
    for way in world.ways:
        way.loss_ratio = 1.0
    world.run(world.now + 2.0)
    for number, end in enumerate(world.ends):
        assert end.link.inbound is State.BAD
        assert changes(world, number, Direction.OUTBOUND) == []


def test_a_link_that_heals_is_on_probation_first() -> None:
    world = calm(media=True)
    world.ways[0].loss_ratio = 1.0
    world.run(world.now + 1.0)
    world.ways[0].loss_ratio = 0.0
    healed = world.now
    world.run(healed + 10.0)
    assert changes(world, 1, Direction.INBOUND) == [
        (State.SUSPECT, Symptom.SILENT),
        (State.BAD, Symptom.DEAD),
        (State.PROBATION, Symptom.WORKING),
        (State.UP, Symptom.HELD),
    ]
    up = next(c.at for n, c in world.changes if n == 1 and c.direction is Direction.INBOUND and c.new is State.UP)
    assert 2.0 <= up - healed <= 2.5
    assert world.ends[0].link.outbound is State.UP


def test_a_moment_of_loss_is_no_verdict() -> None:
    """An outage of 30 ms, many packets long, brings suspicion at most."""
    world = calm(media=True)
    for _ in range(20):
        world.ways[0].loss_ratio = 1.0
        world.run(world.now + 0.03)
        world.ways[0].loss_ratio = 0.0
        world.run(world.now + 1.0)
    assert all(new is not State.BAD for new, _ in changes(world, 1, Direction.INBOUND))
    assert world.ends[1].link.inbound is State.UP


class Shifted:
    """A link whose far end shows another time."""

    def __init__(self, link: Link, step_s: float) -> None:
        self._link = link
        self._step_us = int(step_s * 1e6)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def receive_datagram(self, data: bytes, now: float) -> None:
        found = decode_datagram(data)
        if isinstance(found, Probe):
            data = encode_probe(found._replace(sent_us=found.sent_us + self._step_us), len(data))
        self._link.receive_datagram(data, now)


@pytest.mark.parametrize("step_s", [5.0, -5.0, 0.2])
def test_clocks_may_be_anywhere_and_be_set(step_s: float) -> None:
    """S10: the far end's clock jumps; nothing is made of it. (Its own monotonic one does not.)"""
    world = calm()
    link = world.ends[0].link

    world.ends[0].link = Shifted(link, step_s)  # type: ignore[assignment]
    world.run(world.now + 6.0)
    assert world.changes == []
    assert link.statistics(world.now).jitter_s < 0.001


def test_round_trips_that_rise_are_the_slower_directions() -> None:
    for slow in (0, 1):
        world = calm(media=True)
        for _ in range(10):
            world.ways[slow].delay_s += 0.01
            world.run(world.now + 0.1)
        world.run(world.now + 1.0)
        for number, end in enumerate(world.ends):
            faulty = Direction.OUTBOUND if number == slow else Direction.INBOUND
            other = Direction.INBOUND if number == slow else Direction.OUTBOUND
            assert (State.SUSPECT, Symptom.SLOW) in changes(world, number, faulty)
            assert changes(world, number, other) == []
            assert end.link.rtt_steps >= 2
        world.run(world.now + 12.0)
        assert world.ends[0].link.inbound is world.ends[0].link.outbound is State.UP, "it is the new normal"


def test_too_far_is_bad() -> None:
    world = calm()
    for _ in range(40):
        world.ways[0].delay_s += 0.01
        world.run(world.now + 0.1)
    assert (State.BAD, Symptom.FAR) in changes(world, 0, Direction.INBOUND)
    assert (State.BAD, Symptom.FAR) in changes(world, 1, Direction.INBOUND)


@pytest.mark.parametrize("media", [True, False])
@pytest.mark.parametrize("dropped", [0.0, 0.5])
def test_our_own_stalls_are_nobodys_fault(media: bool, dropped: float) -> None:
    world = calm(media)
    world.stall(1.5, 0.4, dropped)
    world.run(world.now + 30.0)
    assert changes(world, 1, Direction.INBOUND) == []
    assert world.ends[1].link.report(world.now).rtt_ms == pytest.approx(80, abs=5)


def test_the_far_ends_stall_is_excused_when_it_says_so() -> None:
    """End 1 stands still: 0 hears nothing and must act, and takes it back with the first report."""
    world = calm(media=True)
    world.ends[1].link.active = True
    world.run(world.now + 1.0)
    world.changes.clear()
    world.stall(1000.0, 0.4)
    world.next_stall = world.now + 0.01
    world.run(world.now + 2.0)
    seen = changes(world, 0, Direction.INBOUND)
    assert seen == [(State.SUSPECT, Symptom.SILENT), (State.BAD, Symptom.DEAD), (State.UP, Symptom.EXCUSED)]
    assert world.ends[0].link.statistics(world.now).inbound_flaps == 0


def test_excuses_do_not_pay_for_everything() -> None:
    """A far end that always says it was late is excused once in a while, and a real silence not at all."""
    world = calm(media=True)
    link = world.ends[1].link
    for _ in range(3):
        world.ways[0].loss_ratio = 1.0
        world.run(world.now + 0.6)
        world.ends[0].link.note_lag(0.3, world.now)
        world.ways[0].loss_ratio = 0.0
        world.run(world.now + 0.3)
    assert link.inbound is not State.UP
    assert (State.UP, Symptom.EXCUSED) not in changes(world, 1, Direction.INBOUND)


def test_a_liar_is_not_believed() -> None:
    """S9: the far end reports no loss and says UP; its own count of our probes gives it away."""
    link = Link("paris-1", bytes(16), bytes(32), DEFAULTS, 0.0)
    now, sent, theirs = 0.0, 0, 0
    while now < 8.0:
        now += 0.1
        theirs += 1
        link.receive_datagram(encode_probe(Probe(theirs, int(now * 1e6), 100_000), 48), now)
        link.handle_deadline(now)
        sent += sum(data[0] == 1 for data in link.datagrams_to_send(now))
        came = sent - int(sent * 0.3) if now > 2.0 else sent
        lie = {"highest": sent, "probes": came, "arrived": came, "lost": 0, "state": "up", "echo": sent}
        link.receive_datagram(encode_report(report(**lie)), now)
    assert link.outbound is State.BAD
    assert link.inbound is State.UP


def test_who_never_reports_is_suspect() -> None:
    link, now = Link("paris-1", bytes(16), bytes(32), DEFAULTS, 0.0), 0.0
    for number in range(1, 40):
        now += 0.1
        link.receive_datagram(encode_probe(Probe(number, int(now * 1e6), 100_000), 48), now)
        link.handle_deadline(now)
        link.datagrams_to_send(now)
    assert (link.inbound, link.outbound) == (State.UP, State.BAD)


@pytest.mark.parametrize(
    ("period_s", "most", "minutes"),
    [
        (1.0, 1, 0.5),
        pytest.param(1.0, 1, 10, marks=pytest.mark.slow),
        pytest.param(0.5, 1, 10, marks=pytest.mark.slow),
        pytest.param(3.0, 1, 10, marks=pytest.mark.slow),
        pytest.param(10.0, 3, 10, marks=pytest.mark.slow),
    ],
)
def test_flapping_does_not_make_paths_flap(period_s: float, most: int, minutes: float) -> None:
    """T13: a path is left with BAD and taken again with UP, and no sooner than 2 s after the last change."""
    for seed in (1, 2):
        world = calm(media=True, seed=seed)
        began, on_it, switched, moves = world.now, True, world.now - 10.0, []
        while world.now < began + minutes * 60:
            fault = (world.now - began) % period_s < period_s / 2
            world.ways[0].loss_ratio = 1.0 if fault else 0.0
            world.run(world.now + period_s / 2)
            for number, change in world.changes:
                if number == 1 and change.direction is Direction.INBOUND:
                    leave, back = change.new is State.BAD, change.new is State.UP
                    if (on_it and leave) or (not on_it and back and change.at >= switched + 2.0):
                        on_it, switched = not on_it, change.at
                        moves.append(change.at)
            world.changes.clear()
        assert max(sum(at <= move < at + 10.0 for move in moves) for at in moves) <= most
        assert len(moves) <= 12


def test_wake_ups_and_probes() -> None:
    world = calm(media=True)
    for end in world.ends:
        end.wakes = end.sent = 0
    began = world.ends[0].link.statistics(world.now).probes_sent
    world.run(world.now + 10.0)
    zero, one = world.ends
    assert 380 <= zero.wakes <= 430
    assert 95 <= one.wakes <= 110
    assert 1950 <= zero.link.statistics(world.now).probes_sent - began + 200 <= 2300, "200 of media, of 200 a second"


def test_dense_media_need_few_probes() -> None:
    world = World(1, (Way(loss_ratio=0.0), Way(loss_ratio=0.0)))
    world.carry_media(400.0)
    world.run(world.now + 3.0)
    began = world.ends[0].link.statistics(world.now).probes_sent
    world.run(world.now + 5.0)
    assert 95 <= world.ends[0].link.statistics(world.now).probes_sent - began <= 105
    assert world.ends[1].link.inbound is State.UP


def test_losses_are_looked_into_within_a_bucket() -> None:
    link = Link("paris-1", bytes(16), bytes(32), DEFAULTS, 0.0)
    sent = 0
    for turn in range(1, 200):
        now = turn * 0.02
        sent += sum(data[0] == 1 for data in link.datagrams_to_send(now))
        lossy = {"highest": sent, "probes": sent // 2, "arrived": sent // 2, "lost": turn * 1000}
        link.receive_datagram(encode_report(report(**lossy)), now)
    assert sent <= DEFAULTS.inspect_most + 4 * (DEFAULTS.inspect_per_s + 50)


def test_another_connection_begins_its_counts_anew() -> None:
    world = calm()
    for end in world.ends:
        end.link.restart(bytes(32), world.now)
    world.queue.clear()
    world.run(world.now + 3.0)
    assert (world.ends[0].link.inbound, world.ends[1].link.inbound) == (State.UP, State.UP)
    assert world.ends[0].link.statistics(world.now).lost == 0
    assert all(new is not State.BAD for end in (0, 1) for d in Direction for new, _ in changes(world, end, d))


def test_greetings() -> None:
    one, other = (Link(name, name.encode().ljust(16), bytes(32)) for name in ("a", "b"))
    other.receive_hello(one.hello())
    assert other.far == LinkHello(boot=b"a".ljust(16), ticket=bytes(32))
    with pytest.raises(LinkViolation):
        other.receive_hello(one.hello())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x03abc",
        b"\x01" + bytes(19),
        encode_probe(Probe(0, 0, 0), 48),
        encode_probe(Probe(2**53 + 1, 0, 0), 48),
        bytes(1201),
        b"\x02",
        b"\x02\x80",
        b"\x02" + msgspec.msgpack.encode(LinkHello(boot=bytes(16), ticket=bytes(32))),
        encode_report(REPORT) + b"\0",
        encode_report(report(highest=1, probes=1)),
        encode_report(report(probes=1)),
        encode_report(report(echo=1)),
    ],
)
def test_what_no_link_sends(data: bytes) -> None:
    with pytest.raises(LinkViolation):
        Link("paris-1", bytes(16), bytes(32)).receive_datagram(data, 0.0)


@given(st.lists(st.tuples(st.binary(max_size=60), st.floats(0, 1), st.booleans())))
def test_hostile_bytes(steps: list[tuple[bytes, float, bool]]) -> None:
    link, now = Link("paris-1", bytes(16), bytes(32)), 0.0
    for data, wait_s, probe in steps:
        now += wait_s
        with contextlib.suppress(LinkViolation):
            link.receive_datagram(b"\x01" + data.ljust(20, b"\0") if probe else data, now)
        link.handle_deadline(now)
        link.datagrams_to_send(now)
        link.check_invariants()
        assert link.report(now).loss_ratio <= 1.0


@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.3),
            st.sampled_from(["probe", "skip", "late", "packets", "report", "lag", "time"]),
            st.integers(0, 40),
        ),
        max_size=80,
    )
)
def test_any_order_of_calls(steps: list[tuple[float, str, int]]) -> None:
    """Counts only grow but for what came late, states follow the table, and no deadline lies in a closed loop."""
    link, now, number, sent = Link("paris-1", bytes(16), bytes(32)), 0.0, 0, 0
    for wait_s, what, amount in steps:
        now += wait_s
        if what in {"probe", "skip", "late"}:
            number += {"probe": 1, "skip": amount + 1, "late": 0}[what]
            late = max(number - amount, 1)
            link.receive_datagram(encode_probe(Probe(late if what == "late" else max(number, 1), 0, 25_000), 48), now)
            number = max(number, 1)
        elif what == "packets":
            link.receive_packets(amount, amount // 7 - 2, now, amount * 1200)
        elif what == "report":
            came = max(sent - amount, 0)
            counts = {"highest": came, "probes": came // 2, "arrived": came, "lost": amount, "echo": came}
            link.receive_datagram(encode_report(report(**counts)), now)
        elif what == "lag":
            link.note_lag(amount / 100, now)
        link.handle_deadline(now)
        sent += sum(data[0] == 1 for data in link.datagrams_to_send(now))
        link.check_invariants()
        assert link.next_deadline() > now
        for change in link.take_changes():
            assert isinstance(change, LinkChange)
            assert change.old is not change.new


@pytest.mark.parametrize(
    "changes",
    [
        {"idle_period_s": -1.0},
        {"loss_bad_ratio": 0.001},
        {"slow_bad_ratio": 0.001},
        {"loss_suspect_score": 99.0},
        {"suspect_silence_s": 1.0},
        {"active_period_s": 0.2},
        {"period_jitter": 1.0},
        {"hold_s": 500.0},
        {"flap_decay_s": 0.0},
    ],
)
def test_settings_that_cannot_work(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes)).split("_")[0]):
        LinkSettings(**changes)  # type: ignore[arg-type]
