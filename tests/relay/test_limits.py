"""Limits: nobody gets more than the settings say, what is given back counts no more, idle accounts are forgotten."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from relay.limits import (
    BURST_S,
    IDLE_KEEP_S,
    MAX_IDLE_ACCOUNTS,
    Allowance,
    Bucket,
    Limit,
    Limits,
    LimitSettings,
    whose_address,
)

UNLIMITED = LimitSettings(**dict.fromkeys((field.name for field in dataclasses.fields(LimitSettings)), 0))


def limits(**settings: int) -> Limits:
    return Limits(dataclasses.replace(UNLIMITED, **settings))


def opened(limits_: Limits, address: str = "192.0.2.1", token: str | None = None, now: float = 0.0) -> Allowance:
    answer = limits_.open_session(address, token, now)
    assert isinstance(answer, Allowance), answer
    return answer


def test_every_limit_is_a_setting() -> None:
    assert {limit.value for limit in Limit} == {field.name for field in dataclasses.fields(LimitSettings)}


@pytest.mark.parametrize(
    ("setting", "others"),
    [
        ("sessions", ("192.0.2.2", "t2")),
        ("sessions_per_address", ("192.0.2.1", "t2")),
        ("sessions_per_token", ("192.0.2.2", "t1")),
    ],
)
def test_sessions_are_counted(setting: str, others: tuple[str, str]) -> None:
    room = limits(**{setting: 1})
    first = opened(room, "192.0.2.1", "t1")
    assert room.open_session(*others, 0.0) is Limit(setting)
    if setting != "sessions":
        opened(room, "192.0.2.9", "t9").close(0.0)
    first.close(1.0)
    opened(room, *others, 1.0)
    room.check_invariants()


@pytest.mark.parametrize("what", ["subscription", "namespace"])
@pytest.mark.parametrize("who", ["session", "address", "token"])
def test_requests_are_counted(what: str, who: str) -> None:
    limit = Limit(f"{what}s_per_{who}")
    room = limits(**{limit.value: 2})
    one, other = opened(room, "192.0.2.1", "t1"), opened(room, "192.0.2.1", "t1")
    stranger = opened(room, "192.0.2.2", "t2")

    def add(allowance: Allowance) -> Limit | None:
        return allowance.add_subscription() if what == "subscription" else allowance.add_namespace()

    assert add(one) is None
    assert add(one) is None
    assert add(one) is limit
    assert add(other) is (None if who == "session" else limit)
    assert add(stranger) is None
    (one.remove_subscription if what == "subscription" else one.remove_namespace)()
    assert add(one) is None
    one.close(0.0)
    assert add(other) is None
    room.check_invariants()


def test_a_refused_request_takes_nothing() -> None:
    room = limits(subscriptions_per_session=1, subscriptions_per_token=5)
    session = opened(room, token="t")
    session.add_subscription()
    for _ in range(10):
        assert session.add_subscription() is Limit.SUBSCRIPTIONS_PER_SESSION
    others = [opened(room, token="t").add_subscription() for _ in range(5)]
    assert others == [None] * 4 + [Limit.SUBSCRIPTIONS_PER_TOKEN]


def test_spending_too_fast_costs_time() -> None:
    room = limits(bytes_per_s_per_session=1000, bytes_per_s_per_token=500)
    session = opened(room, token="t")
    assert session.spend(1000, 0.0) is None
    over = session.spend(500, 0.0)
    assert over is not None
    assert (over.limit, over.wait_s) == (Limit.BYTES_PER_S_PER_TOKEN, 1.0)
    assert session.spend(0, 1.0) is None
    over = session.spend(1500, 1.0)
    assert over is not None
    assert over.wait_s == pytest.approx(3.0)


def test_reconnecting_does_not_fill_the_bucket() -> None:
    room = limits(bytes_per_s_per_address=1000)
    first = opened(room)
    first.spend(5000, 0.0)
    first.close(0.0)
    over = opened(room, now=1.0).spend(0, 1.0)
    assert over is not None
    assert over.wait_s == pytest.approx(2.0)


def test_idle_accounts_are_forgotten() -> None:
    room = limits()
    for number in range(100):
        opened(room, f"192.0.2.{number}", f"t{number}").close(float(number) / 100)
    assert room.statistics().idle_accounts == 200
    opened(room, "192.0.2.200", None, IDLE_KEEP_S + 0.5)
    assert 90 <= room.statistics().idle_accounts <= 100
    opened(room, "192.0.2.200", None, IDLE_KEEP_S + 5)
    assert room.statistics() == (2, 1, 0)


def test_idle_accounts_are_bounded() -> None:
    room = limits()
    for number in range(MAX_IDLE_ACCOUNTS + 10):
        opened(room, f"host-{number}").close(0.0)
    assert room.statistics().idle_accounts == MAX_IDLE_ACCOUNTS
    room.check_invariants()


def test_refused_strangers_leave_nothing_behind() -> None:
    room = limits(sessions=1)
    opened(room)
    for number in range(50):
        room.open_session(f"198.51.100.{number}", f"t{number}", 0.0)
    assert room.statistics().accounts == 1


def test_closing_twice_counts_once() -> None:
    room = limits(sessions=5)
    session = opened(room)
    session.close(0.0)
    session.close(0.0)
    assert room.statistics().sessions == 0


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("not an address", "not an address"),
    ],
)
def test_whose_address(address: str, whose: str) -> None:
    assert whose_address(address) == whose


def test_a_bucket_holds_no_more_than_its_burst() -> None:
    bucket = Bucket(100, 0.0)
    assert bucket.spend(int(100 * BURST_S), 1000.0) == 0.0
    assert bucket.spend(1, 1000.0) == pytest.approx(0.01)


class LimitsMachine(RuleBasedStateMachine):
    """Against the obvious twin: a list of open sessions, counted anew each time."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.settings = dataclasses.replace(
            UNLIMITED, sessions=6, sessions_per_address=3, sessions_per_token=2, subscriptions_per_token=3
        )
        self.limits = Limits(self.settings)
        self.now = 0.0
        self.open: dict[int, list[object]] = {}

    @rule(target=sessions, address=st.sampled_from("abc"), token=st.sampled_from(["t", "u", None]))
    def open_session(self, address: str, token: str | None) -> object:
        rows = list(self.open.values())
        expected = (
            Limit.SESSIONS
            if len(rows) >= 6
            else Limit.SESSIONS_PER_ADDRESS
            if sum(row[1] == address for row in rows) >= 3
            else Limit.SESSIONS_PER_TOKEN
            if token and sum(row[2] == token for row in rows) >= 2
            else None
        )
        answer = self.limits.open_session(address, token, self.now)
        if expected is not None:
            assert answer is expected
            return None
        assert isinstance(answer, Allowance)
        self.open[id(answer)] = [answer, address, token, 0]
        return answer

    @rule(session=sessions)
    def subscribe(self, session: Allowance | None) -> None:
        row = self.open.get(id(session))
        if session is None or row is None:
            return
        held = sum(int(str(other[3])) for other in self.open.values() if other[2] == row[2])
        expected = Limit.SUBSCRIPTIONS_PER_TOKEN if row[2] and held >= 3 else None
        assert session.add_subscription() is expected
        row[3] = int(str(row[3])) + (expected is None)

    @rule(session=consumes(sessions))
    def close(self, session: Allowance | None) -> None:
        if session is not None:
            session.close(self.now)
            self.open.pop(id(session), None)

    @rule(seconds=st.sampled_from([1.0, IDLE_KEEP_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def holds(self) -> None:
        self.limits.check_invariants()
        assert self.limits.statistics().sessions == len(self.open)


TestLimitsMachine = LimitsMachine.TestCase
