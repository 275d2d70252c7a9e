"""How much one address, one token or one session may have: counters and token buckets, and nothing else.

`relay.node` opens an `Allowance` for each session and asks it before it accepts a subscription or a namespace; what a
session sends is `spend`ed, and whoever spends too much gets its receive credit later (the answer is how much later), so
that a limit on bytes slows a publisher down and loses nothing. Handshakes are counted by `tradewind.quic`, which knows
them.

An account (of an address or a token) lives as long as a session of it, and while its bucket still remembers what it
spent: reconnecting is no way round a limit, and idle accounts are forgotten.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

BURST_S = 2.0
"""How many seconds of its rate a bucket holds: a key frame may come at once."""
IDLE_KEEP_S = 60.0
MAX_IDLE_ACCOUNTS = 16_384


class Limit(Enum):
    """Every limit that can be met here: a closed list, a metric's label, and the name of its setting."""

    SESSIONS = "sessions"
    SESSIONS_PER_ADDRESS = "sessions_per_address"
    SESSIONS_PER_TOKEN = "sessions_per_token"
    SUBSCRIPTIONS_PER_SESSION = "subscriptions_per_session"
    SUBSCRIPTIONS_PER_ADDRESS = "subscriptions_per_address"
    SUBSCRIPTIONS_PER_TOKEN = "subscriptions_per_token"
    NAMESPACES_PER_SESSION = "namespaces_per_session"
    NAMESPACES_PER_ADDRESS = "namespaces_per_address"
    NAMESPACES_PER_TOKEN = "namespaces_per_token"
    BYTES_PER_S_PER_SESSION = "bytes_per_s_per_session"
    BYTES_PER_S_PER_ADDRESS = "bytes_per_s_per_address"
    BYTES_PER_S_PER_TOKEN = "bytes_per_s_per_token"


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """0 is no limit. The names are those of `Limit`; bytes are what sessions send to us."""

    sessions: int = 4096
    sessions_per_address: int = 256
    sessions_per_token: int = 0
    subscriptions_per_session: int = 1024
    subscriptions_per_address: int = 0
    subscriptions_per_token: int = 0
    namespaces_per_session: int = 256
    namespaces_per_address: int = 0
    namespaces_per_token: int = 0
    bytes_per_s_per_session: int = 16 * 1024 * 1024
    bytes_per_s_per_address: int = 0
    bytes_per_s_per_token: int = 0


class LimitStatistics(NamedTuple):
    """What `/state` shows."""

    sessions: int
    accounts: int
    idle_accounts: int


class Bucket:
    """A token bucket that may be overdrawn: what was received has been received."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate_bytes_per_s: float, now: float) -> None:
        self._rate = rate_bytes_per_s
        self._burst = rate_bytes_per_s * BURST_S
        self._left = self._burst
        self._at = now

    def spend(self, size: int, now: float) -> float:
        """Take `size` bytes and return after how many seconds the bucket is out of debt; 0.0: it is."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - size
        self._at = now
        return -self._left / self._rate if self._left < 0 else 0.0


class Account:
    """What one address, token or session has. `kind` is the end of its limits' names."""

    __slots__ = ("bucket", "idle_since", "key", "kind", "namespaces", "sessions", "subscriptions")

    def __init__(self, kind: str, key: str, rate_bytes_per_s: int, now: float) -> None:
        self.kind = kind
        self.key = key
        self.sessions = 0
        self.subscriptions = 0
        self.namespaces = 0
        self.bucket = Bucket(rate_bytes_per_s, now) if rate_bytes_per_s else None
        self.idle_since: float | None = None


class Overdraft(NamedTuple):
    """Too much was sent: give receive credit back after `wait_s`."""

    limit: Limit
    wait_s: float


class Allowance:
    """One open session's share. Close it exactly once."""

    __slots__ = ("_accounts", "_limits", "_open")

    def __init__(self, limits: Limits, accounts: tuple[Account, ...]) -> None:
        self._limits = limits
        self._accounts = accounts
        self._open = True

    def add_subscription(self) -> Limit | None:
        """Count one more subscription, fetch or track subscription; or say which limit forbids it."""
        return self._add("subscriptions")

    def remove_subscription(self) -> None:
        self._remove("subscriptions")

    def add_namespace(self) -> Limit | None:
        """Count one more published namespace or namespace subscription; or say which limit forbids it."""
        return self._add("namespaces")

    def remove_namespace(self) -> None:
        self._remove("namespaces")

    def spend(self, size: int, now: float) -> Overdraft | None:
        """Count bytes received; where that was too fast, which limit and how long to wait."""
        worst: Overdraft | None = None
        for account in self._accounts:
            if account.bucket is not None:
                wait_s = account.bucket.spend(size, now)
                if wait_s and (worst is None or wait_s > worst.wait_s):
                    worst = Overdraft(Limit(f"bytes_per_s_per_{account.kind}"), wait_s)
        return worst

    @property
    def counted(self) -> int:
        """Requests of this session that count."""
        own = self._accounts[0]
        return own.subscriptions + own.namespaces

    def close(self, now: float) -> None:
        """Give everything back that this session held."""
        if self._open:
            self._open = False
            self._limits._closed(self._accounts, now)

    def _add(self, what: str) -> Limit | None:
        for account in self._accounts:
            limit = Limit(f"{what}_per_{account.kind}")
            if _reached(getattr(account, what), getattr(self._limits.settings, limit.value)):
                return limit
        for account in self._accounts:
            setattr(account, what, getattr(account, what) + 1)
        return None

    def _remove(self, what: str) -> None:
        for account in self._accounts:
            setattr(account, what, getattr(account, what) - 1)


class Limits:
    """All accounts of one relay."""

    __slots__ = ("_accounts", "_idle", "_sessions", "settings")

    def __init__(self, settings: LimitSettings) -> None:
        self.settings = settings
        self._accounts: dict[tuple[str, str], Account] = {}
        self._idle: OrderedDict[tuple[str, str], Account] = OrderedDict()
        self._sessions = 0

    def open_session(self, address: str, token_id: str | None, now: float) -> Allowance | Limit:
        """Count a session of `address` (as a socket gives it) and token; or say which limit forbids it."""
        self._forget(now)
        if _reached(self._sessions, self.settings.sessions):
            return Limit.SESSIONS
        shared = [self._account("address", whose_address(address), now)]
        if token_id is not None:
            shared.append(self._account("token", token_id, now))
        for account in shared:
            limit = Limit(f"sessions_per_{account.kind}")
            if _reached(account.sessions, getattr(self.settings, limit.value)):
                return limit
        own = Account("session", "", self.settings.bytes_per_s_per_session, now)
        for account in shared:
            self._busy(account)
        self._sessions += 1
        return Allowance(self, (own, *shared))

    def statistics(self) -> LimitStatistics:
        """Counts for the state page."""
        return LimitStatistics(self._sessions, len(self._accounts), len(self._idle))

    def check_invariants(self) -> None:
        """What must always hold; for tests and for the state page."""
        assert self._sessions == sum(a.sessions for a in self._accounts.values() if a.kind == "address")
        for key, account in self._accounts.items():
            assert key == (account.kind, account.key)
            assert account.sessions >= 0
            assert (account.idle_since is not None) == (key in self._idle) == (account.sessions == 0)
            assert account.sessions or not (account.subscriptions or account.namespaces)
        assert len(self._idle) <= MAX_IDLE_ACCOUNTS

    def _account(self, kind: str, key: str, now: float) -> Account:
        """The account, made where there is none; a new one is kept only once a session is counted."""
        known = self._accounts.get((kind, key))
        return known or Account(kind, key, getattr(self.settings, f"bytes_per_s_per_{kind}"), now)

    def _busy(self, account: Account) -> None:
        account.sessions += 1
        account.idle_since = None
        self._accounts[account.kind, account.key] = account
        self._idle.pop((account.kind, account.key), None)

    def _closed(self, accounts: tuple[Account, ...], now: float) -> None:
        own, *shared = accounts
        self._sessions -= 1
        for account in shared:
            account.sessions -= 1
            account.subscriptions -= own.subscriptions
            account.namespaces -= own.namespaces
            if not account.sessions:
                account.idle_since = now
                self._idle[account.kind, account.key] = account
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop accounts that have been idle for long, the oldest first, or are too many."""
        while self._idle:
            key, account = next(iter(self._idle.items()))
            assert account.idle_since is not None
            if len(self._idle) <= MAX_IDLE_ACCOUNTS and account.idle_since + IDLE_KEEP_S > now:
                return
            del self._idle[key], self._accounts[key]


def whose_address(address: str) -> str:
    """Whose account an address counts on: an IPv4 host, mapped or not, or an IPv6 /64, which one party holds whole."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(ip) >> 64 << 64)}/64"


def _reached(count: int, limit: int) -> bool:
    return 0 < limit <= count
