"""This relay's own placement: answers to `/v1/place` from the last route table, bounds on who may ask, and counts.

`relay.ops` hands in questions as they came over HTTP, `relay.run` and the mesh the tables and keys of the moment;
`relay.node` asks where sessions go that it asks to move. The answers themselves are `tradewind.placing`'s. Whoever asks
too often hears 429 before anything costs: what is signed here, media waits for.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from msgspec.structs import replace

from tradewind.contract.admission import Signer, announced_key
from tradewind.contract.messages import RouteTable, StageName
from tradewind.contract.token import Key, Path, split_path
from tradewind.placing.answering import PlaceAnswer, Refused, read_request, refused
from tradewind.placing.last_table import Elsewhere, LastTable, Leaver
from tradewind.placing.locating import Locator
from tradewind.placing.policy import Reason

BURST_S = 10.0
"""How many seconds of its rate somebody may ask at once: a page is opened in many tabs, an office comes back."""
MAX_ADDRESSES = 16_384
"""Addresses remembered; who was silent longest is forgotten first, and by then has its burst back or nearly so."""
LOOK_AGAIN_S = 5.0
"""How long what we carry counts as known."""
MAX_CARRIED = 20_000
"""Namespaces looked at: what lies beyond is not known to be carried."""


@dataclass(frozen=True, slots=True)
class PlacingSettings:
    """How often may be asked."""

    questions_per_s: float = 200.0
    """By everybody."""
    questions_per_s_per_address: float = 10.0


class PlacingStatistics(NamedTuple):
    """What `/state` and metrics show."""

    answers: dict[str, int]
    """Since the start: "placed", or why not."""
    generation: int | None
    """Of the table that answers are made from; None: there is none yet."""
    addresses: int


class Placing:
    """Answers from one relay. `signing` is its own; `keys` check access tokens; `carried` says what is played here."""

    __slots__ = (
        *("_all", "_answers", "_by_address", "_carried", "_keys", "_known", "_known_until", "_last", "_locator"),
        *("_leaving", "_own", "_settings", "_signing", "_stage", "_table"),
    )

    def __init__(
        self,
        own: str,
        signing: Signer,
        keys: Sequence[Key],
        settings: PlacingSettings = PlacingSettings(),
        locator: Locator | None = None,
        carried: Callable[[], Iterable[Path]] = tuple,
    ) -> None:
        self._own = own
        self._signing = signing
        self._keys = tuple(keys)
        self._settings = settings
        self._locator = locator
        self._carried = carried
        self._known: frozenset[Path] = frozenset()
        self._known_until = -math.inf
        self._stage: StageName = "serving"
        self._leaving: frozenset[str] = frozenset()
        self._table: tuple[RouteTable, frozenset[str]] | None = None
        self._last = LastTable(own, signing, keys, locator=locator)
        self._all = _Bucket(settings.questions_per_s)
        self._by_address: OrderedDict[str, _Bucket] = OrderedDict()
        self._answers: Counter[str] = Counter()

    @property
    def announced(self) -> bytes:
        """What others check our placement tokens with: `Hello.placement_key`."""
        return announced_key(self._signing)

    def apply_table(self, table: RouteTable, now: float, suspects: Collection[str] = ()) -> None:
        """Answer from this table from now on. It was verified; `suspects` are relays that seem dead from here."""
        self._table = (table, frozenset(suspects))
        self._apply(now)

    def note_stage(self, stage: StageName, now: float) -> None:
        """Where this relay is in its life: it knows before any table, and places nobody here who shall not."""
        if stage != self._stage:
            self._stage = stage
            self._apply(now)

    def note_suspects(self, suspects: Collection[str], now: float) -> None:
        """Which relays seem dead from here: nobody is placed on them."""
        if self._table is not None and frozenset(suspects) != self._table[1]:
            self._table = (self._table[0], frozenset(suspects))
            self._apply(now)

    def note_leaving(self, leaving: Collection[str], now: float) -> None:
        """Which relays say themselves that they are being emptied, before any table does."""
        if frozenset(leaving) != self._leaving:
            self._leaving = frozenset(leaving)
            self._apply(now)

    def move(self, leaver: Leaver, now: float, wall_now: float) -> Elsewhere | Reason:
        """Where somebody goes who is here and is asked to move."""
        return self._last.move(leaver, now, wall_now)

    def replace_keys(self, keys: Sequence[Key], now: float) -> None:
        """Check access tokens with other keys."""
        self._keys = tuple(keys)
        self._last = LastTable(self._own, self._signing, self._keys, locator=self._locator)
        self._apply(now)

    def replace_locator(self, locator: Locator | None) -> None:
        """Look addresses up there from now on."""
        self._locator = locator
        self._last.replace_locator(locator)

    def answer(self, query: str, address: str, authorization: str | None, now: float, wall_now: float) -> PlaceAnswer:
        """Answer the question that came from `address` as the query of a URL, with its bearer if it had one."""
        answer = self._too_many(address, now) or self._answer(query, address, authorization, now, wall_now)
        self._answers[answer.reason.value if isinstance(answer, Refused) else "placed"] += 1
        return answer

    def statistics(self) -> PlacingStatistics:
        """What was asked, and what the answers are made from."""
        generation = None if self._table is None else self._table[0].generation
        return PlacingStatistics(dict(self._answers), generation, len(self._by_address))

    def check_invariants(self) -> None:
        """What holds between any two calls."""
        assert len(self._by_address) <= MAX_ADDRESSES
        assert len(self._known) <= MAX_CARRIED

    def _apply(self, now: float) -> None:
        if self._table is None:
            return
        table, suspects = self._table
        stages: dict[str, StageName] = {**dict.fromkeys(self._leaving, "draining"), self._own: self._stage}
        if self._leaving or self._stage != "serving":
            known = (stages.get(entry.id, "serving") for entry in table.relays)
            entries = (
                entry if stage == "serving" else replace(entry, stage=stage)
                for entry, stage in zip(table.relays, known, strict=True)
            )
            table = replace(table, relays=tuple(entries))
        self._last.apply(table, now, suspects)

    def _answer(self, query: str, address: str, authorization: str | None, now: float, wall_now: float) -> PlaceAnswer:
        request = read_request(query, address, authorization)
        if isinstance(request, Refused):
            return request
        carries = self._carries(split_path(request.namespace), now)
        return self._last.answer(request, now, wall_now, carries=carries)

    def _carries(self, namespace: Path, now: float) -> bool:
        """Whether a track is here at or beneath a namespace, as of some seconds ago."""
        if now >= self._known_until:
            self._known_until = now + LOOK_AGAIN_S
            self._known = frozenset(islice(self._carried(), MAX_CARRIED))
        return namespace in self._known or any(one[: len(namespace)] == namespace for one in self._known)

    def _too_many(self, address: str, now: float) -> Refused | None:
        key = _account(address)
        bucket = self._by_address.get(key)
        if bucket is None:
            if len(self._by_address) >= MAX_ADDRESSES:
                self._by_address.popitem(last=False)
            bucket = self._by_address[key] = _Bucket(self._settings.questions_per_s_per_address)
        self._by_address.move_to_end(key)
        # Who is over its own bound takes nothing from what is for everybody.
        wait_s = bucket.take(now) or self._all.take(now)
        if not wait_s:
            return None
        return refused(Reason.TOO_MANY_QUESTIONS, "asked too often", math.ceil(wait_s))


class _Bucket:
    """So many a second, `BURST_S` of them at once."""

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = max(rate * BURST_S, 1.0)
        self._at = -math.inf

    def take(self, now: float) -> float:
        """Take one and return 0.0; or take nothing and return after how many seconds there is one."""
        if self._at < now:
            most = max(self._rate * BURST_S, 1.0)
            self._left = min(most, self._left + (now - self._at) * self._rate)
            self._at = now
        if self._left < 1.0:
            return (1.0 - self._left) / self._rate
        self._left -= 1.0
        return 0.0


def _account(address: str) -> str:
    """An IPv6 address counts as its /64; one that wraps IPv4 as that."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
    return address
