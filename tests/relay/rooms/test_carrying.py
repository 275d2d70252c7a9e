"""What an edge relay carries to a room's home, and what it says when there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.rooms.carrying import FORGET_S, MAX_WAITING, REACH_S, SILENT_S, Carrying, ForWriter
from tests.relay.rooms.town import ROOM, key_of, publish
from tradewind.contract.copies import Answered
from tradewind.contract.rooms import Ack, Nak, RoomMessageError, Why, encode

ANN, BOB = (b"ann",), (b"bob", b"phone")


def put(carrying: Carrying, number: int, now: float, writer: tuple[bytes, ...] = ANN) -> None:
    carrying.receive_publish(ROOM, writer, key_of(number), encode(publish(number)), now)
    carrying.check_invariants()


def test_what_waits_leaves_in_order_once_the_home_is_reached_and_answers_find_their_writer() -> None:
    carrying = Carrying(7)
    put(carrying, 1, 0.0)
    put(carrying, 2, 0.0, BOB)
    assert carrying.take() == ([], [])
    carrying.receive_reachable(ROOM, 0.0, reachable=True)
    carried, _ = carrying.take()
    assert [(one.writer, one.publish) for one in carried] == [(ANN, encode(publish(1))), (BOB, encode(publish(2)))]
    ack = Ack(key_of(2), 1, 0, False, 1, 5)
    carrying.receive_answered(Answered(ROOM, carried[1].number, encode(ack)), 0.0)
    better = Ack(key_of(2), 1, 0, False, 2, 5)
    carrying.receive_answered(Answered(ROOM, carried[1].number, encode(better)), 0.0)
    assert carrying.take() == ([], [ForWriter(ROOM, BOB, ack), ForWriter(ROOM, BOB, better)])


def test_a_message_that_no_home_saw_is_refused_and_one_that_a_home_saw_never_is() -> None:
    carrying = Carrying(0)
    carrying.receive_reachable(ROOM, 0.0, reachable=True)
    put(carrying, 1, 0.0)
    carrying.receive_reachable(ROOM, 0.0, reachable=False)
    put(carrying, 2, 0.0)
    carrying.take()
    assert carrying.next_deadline() == REACH_S
    carrying.handle_deadline(REACH_S)
    _, told = carrying.take()
    assert [(answer.message.key, answer.message) for answer in told] == [(key_of(2), Nak(key_of(2), Why.NO_HOME, 500))]
    carrying.receive_reachable(ROOM, 0.0, reachable=True)
    assert [one.publish for one in carrying.take()[0]] == [encode(publish(1))]
    carrying.handle_deadline(FORGET_S)
    assert carrying.take() == ([], [])
    assert carrying.next_deadline() is None


def test_a_home_that_answers_nothing_gets_nothing_new_until_it_answers() -> None:
    carrying = Carrying(0)
    carrying.receive_reachable(ROOM, 0.0, reachable=True)
    put(carrying, 1, 0.0)
    number = carrying.take()[0][0].number
    put(carrying, 2, 1.0)
    carrying.take()
    assert carrying.next_deadline() == SILENT_S
    carrying.handle_deadline(SILENT_S)
    assert [one.publish for one in carrying.take()[0]] == [encode(publish(1))], "an old one: does it answer?"
    put(carrying, 3, SILENT_S)
    put(carrying, 1, SILENT_S)
    assert carrying.take() == ([], [])
    carrying.handle_deadline(SILENT_S + REACH_S)
    carried, told = carrying.take()
    assert [one.publish for one in carried] == [encode(publish(2))]
    assert [answer.message for answer in told] == [Nak(key_of(3), Why.NO_HOME, 500)]
    put(carrying, 4, 4.0)
    carrying.receive_answered(Answered(ROOM, number, encode(Ack(key_of(2), 1, 0, False, 1, 5))), 4.5)
    carried, told = carrying.take()
    assert [one.publish for one in carried] == [encode(publish(1)), encode(publish(4))]
    assert [answer.message.key for answer in told] == [key_of(2)]
    put(carrying, 5, 4.5)
    assert [one.publish for one in carrying.take()[0]] == [encode(publish(5))]


def test_a_silent_home_that_owes_nothing_is_sent_one_message() -> None:
    carrying = Carrying(0)
    carrying.receive_reachable(ROOM, 0.0, reachable=True)
    put(carrying, 1, 0.0)
    carrying.handle_deadline(SILENT_S)
    carrying.handle_deadline(FORGET_S)
    carrying.take()
    put(carrying, 2, FORGET_S)
    put(carrying, 3, FORGET_S)
    assert [one.publish for one in carrying.take()[0]] == [encode(publish(2))]


def test_who_becomes_the_home_itself_takes_what_waits() -> None:
    carrying = Carrying(0)
    put(carrying, 1, 0.0)
    put(carrying, 2, 0.0, BOB)
    assert carrying.settle_here(ROOM) == [(ANN, encode(publish(1))), (BOB, encode(publish(2)))]
    assert carrying.settle_here(ROOM) == []


def test_answers_to_a_former_life_or_to_nobody_are_passed_over() -> None:
    carrying = Carrying(100)
    put(carrying, 1, 0.0)
    answer = encode(Nak(key_of(1), Why.RATE, 1))
    carrying.receive_answered(Answered(ROOM, 5, answer), 0.0)
    carrying.receive_answered(Answered((b"other",), 101, answer), 0.0)
    carrying.forget_writer(ROOM, ANN)
    carrying.receive_answered(Answered(ROOM, 101, answer), 0.0)
    assert carrying.take() == ([], [])
    with pytest.raises(RoomMessageError):
        carrying.receive_answered(Answered(ROOM, 101, encode(publish(1))), 0.0)


def test_so_many_wait_and_no_more() -> None:
    carrying = Carrying(0)
    for number in range(MAX_WAITING):
        carrying.receive_publish(ROOM, ANN, key_of(number), b"", 0.0)
    put(carrying, MAX_WAITING, 0.0)
    put(carrying, 0, 0.0)
    assert [answer.message for answer in carrying.take()[1]] == [Nak(key_of(MAX_WAITING), Why.RATE, 100)]


@given(st.lists(st.tuples(st.sampled_from("prft"), st.integers(0, 3)), max_size=30))
def test_nothing_that_was_carried_is_refused(steps: list[tuple[str, int]]) -> None:
    carrying = Carrying(0)
    now, reachable = 0.0, False
    seen: set[bytes] = set()
    for step, number in steps:
        if step == "p":
            put(carrying, number, now)
        elif step == "r":
            reachable = not reachable
            carrying.receive_reachable(ROOM, now, reachable=reachable)
        elif step == "f":
            carrying.forget_writer(ROOM, ANN)
            seen.clear()
        else:
            now += 0.8 * (1 + number)
            carrying.handle_deadline(now)
        carried, told = carrying.take()
        seen |= {one.publish for one in carried}
        for answer in told:
            refused = encode(publish(int.from_bytes(answer.message.key, "big")))
            assert refused not in seen or now >= FORGET_S
        carrying.check_invariants()
