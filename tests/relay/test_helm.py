"""A relay's dealings with controllers, over a conversation that a test holds the other end of."""

from __future__ import annotations

from math import inf
from typing import Any

from relay.helm import BACKOFF_MOST_S, CONNECT_S, MAX_OBEYING, MAX_REMEMBERED, OBEY_AGAIN_S, SOON_S, Helm
from relay.orders import Orders
from tests.contract.mesh import CONTROLLER, MESH, NOW
from tests.control.mesh import hello, report
from tradewind.contract.identity import NodeIdentity
from tradewind.contract.ids import Role
from tradewind.contract.messages import Answer, Command, Done, Hello, Question, Report, RouteTable, ToRelay, Welcome
from tradewind.quic.events import Event

PEER = NodeIdentity("shop", Role.CONTROLLER, "eu", "main", 0.0, 2**40, CONTROLLER.der)


class Talk:
    """A conversation that is proven at its first event, and says what a test put there."""

    def __init__(self) -> None:
        self.controller: NodeIdentity | None = None
        self.ended: str | None = None
        self.coming: list[ToRelay] = []
        self.said: list[Any] = []
        self.newest_packet = 0

    def receive(self, event: Event | None, now: float, wall_now: float) -> list[ToRelay]:
        self.controller = PEER
        coming, self.coming = self.coming, []
        return coming

    def send(self, message: Any) -> None:
        self.said.append(message)

    def next_deadline(self) -> float | None:
        return None

    def handle_deadline(self, now: float) -> None: ...

    def end(self, why: str) -> None:
        self.ended = self.ended or why


class Steered:
    def __init__(self) -> None:
        self.obeyed: list[Command] = []
        self.slow = False
        self.heard = 0

    def report(self, sequence: int, now: float, wall_now: float) -> Report:
        return report(sequence=sequence)

    def apply_table(self, table: RouteTable, now: float) -> None: ...

    def obey(self, command: Command, now: float) -> Done | None:
        if self.slow:
            return None
        self.obeyed.append(command)
        return Done(command.id, ok=len(self.obeyed) == 1, detail=f"{len(self.obeyed)}")

    def answer(self, question: Question, now: float) -> Answer:
        return Answer(question.id, "[]")

    def controller_heard(self, now: float) -> None:
        self.heard += 1


class Town:
    def __init__(self) -> None:
        self.steered = Steered()
        self.helm = Helm(hello(1), Orders("shop", "fra-1", MESH.authority), self.steered)
        self.now = 100.0
        self.talk = self.connect()

    def connect(self) -> Talk:
        self.talk = Talk()
        conversation: Any = self.talk
        self.helm.begin(conversation, self.now)
        return self.talk

    def hear(self, *messages: ToRelay) -> list[Any]:
        """What the relay says to these."""
        self.talk.coming = list(messages)
        self.talk.said.clear()
        event: Any = None
        self.helm.receive(event, self.now, NOW)
        self.helm.handle_deadline(self.now, NOW)
        self.helm.check_invariants()
        return list(self.talk.said)


def test_it_says_hello_then_reports_by_the_clock_and_when_told() -> None:
    town = Town()
    said = town.hear(Welcome("main", report_every_ms=500))
    assert [type(message) for message in said] == [Hello, Report]
    assert town.helm.next_deadline() == 100.5 and town.steered.heard == 0, "no table of its is followed"
    town.helm.report_now()
    assert town.helm.next_deadline() == -inf
    assert [message.sequence for message in town.hear()] == [2]
    town.helm.report_soon(town.now)
    town.helm.report_soon(town.now + 0.05)
    assert town.helm.next_deadline() == town.now + SOON_S, "what moves meanwhile is in it"
    assert town.hear(Question(7, "links")) == [Answer(7, "[]")]


def test_who_is_not_welcomed_in_time_or_is_refused_goes_on_to_another() -> None:
    town = Town()
    assert town.helm.next_deadline() == 100.0 + CONNECT_S
    town.now += CONNECT_S
    town.helm.handle_deadline(town.now, NOW)
    assert town.helm.ended == "no welcome in time"
    waits = []
    for _ in range(8):
        waits.append(town.helm.wait_s(1.0))
        town.connect()
        town.hear(Welcome("main", "two_boots: elsewhere"))
        assert town.helm.ended == "refused: two_boots: elsewhere"
    assert waits == sorted(waits) and waits[0] == 1.0 and waits[-1] == BACKOFF_MOST_S
    assert town.helm.statistics.refused == 8
    town.connect()
    town.hear(Welcome("main"))
    assert town.helm.wait_s(1.0) == 0.5 and town.helm.wait_s(0.0) == 0.0, "who was welcome begins anew"


def test_an_order_is_done_once_however_often_it_comes() -> None:
    town = Town()
    town.hear(Welcome("main"))
    first = town.hear(Command("x", "kick", session=3))[0]
    assert first == Done("x", ok=True, detail="1")
    assert town.hear(Command("x", "kick", session=3)) == [first]
    town.connect()
    town.hear(Welcome("main"))
    assert town.hear(Command("x", "kick", session=3)) == [first], "over another link as well"
    assert town.hear(Command("x", "drain")) == [Done("x", ok=False, detail="the id of another command")]
    assert len(town.steered.obeyed) == 1
    assert (town.helm.statistics.repeated, town.helm.statistics.conflicting) == (2, 1)


def test_an_order_that_takes_time_is_asked_for_again_and_stands_for_nothing_else_meanwhile() -> None:
    town = Town()
    town.hear(Welcome("main"))
    town.steered.slow = True
    assert town.hear(Command("x", "drain")) == [] and town.hear(Command("x", "drain")) == []
    assert town.hear(Command("x", "cordon"))[0].ok is False
    assert town.helm.next_deadline() == 100.0 + OBEY_AGAIN_S
    town.steered.slow = False
    town.now += OBEY_AGAIN_S
    assert town.hear()[0] == Done("x", ok=True, detail="1")


def test_what_is_remembered_is_bounded() -> None:
    town = Town()
    town.hear(Welcome("main"))
    for number in range(MAX_REMEMBERED + 5):
        town.now += 1.0
        town.hear(Command(f"x{number}", "cordon"))
    assert town.hear(Command("x0", "cordon"))[0].detail == str(MAX_REMEMBERED + 6), "so long ago that it is done again"
    town.steered.slow = True
    town.hear(*(Command(f"y{number}", "cordon") for number in range(MAX_OBEYING + 5)))
    town.steered.slow = False
    town.now += 1.0
    assert sum(isinstance(message, Done) for message in town.hear()) == MAX_OBEYING
