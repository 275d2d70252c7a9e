"""A viewer that is placed and that moves: it plays for ever, on whichever relay is best. An EDGE file.

    viewer = PlacedViewer(PlacedSettings(("https://steer.example",), "live/demo", token), choose, on_object, on_change)
    await viewer.run()

It asks `/v1/place`, measures the nearest relays, plays on the best of those that answer, and goes on to the next one
when its relay fails, stalls or leaves; docs/placement.md tells when. The counterpart of `web/place.js`, with one thing
more: objects go on where they stopped, each is handed out once, and none is lost that the next relay can still get.

One task decides (`_turn`: what happened, then what follows); each visit has its own, and hands out objects in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

import trio

from tradewind.client.asking import ask, http_trust
from tradewind.client.choices import Answer, Candidate, Choices, Patience, Refusal, new_session
from tradewind.client.continuity import Continuity
from tradewind.client.media import Broadcast
from tradewind.client.receiving import ReceivedObject
from tradewind.client.visit import Visit, VisitSettings
from tradewind.client.watching import Verdict, Watch
from tradewind.moqt.profiles import NATIVE_ORDER
from tradewind.quic.config import ServerTrust

MAX_ATTEMPTS = 3
"""Relays dialled at once for one move."""
MAX_TRACKS = 64
"""Of which it is remembered what came, besides those that are read."""
GRACEFUL = frozenset({"goaway", "better"})
"""Moves away from a relay that still serves."""
_ALL_TRACKS_S = 1.0
"""In such a move: how long after its first object a relay may take to have brought something of every track."""


@dataclass(frozen=True, slots=True)
class PlacedSettings:
    """Whom to ask, for what, and how to dial."""

    control: tuple[str, ...]
    """Controllers: `https://host[:port]`, or the whole URL of their `/v1/place`."""
    namespace: str
    """Global, fields joined by slashes."""
    token: str | Callable[[], str] = ""
    """The access token; a function is asked before each question."""
    viewer: str = ""
    """Tells viewers of one token and address apart."""
    source: str | None = None
    """The local address that everything leaves from."""
    trust: ServerTrust = ServerTrust()
    protocols: tuple[str, ...] = NATIVE_ORDER
    raw_quic: bool = True
    patience: Patience = Patience()


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a viewer."""

    state: str
    """asking, moving, playing, waiting (nobody answers, or nothing is to see: it goes on trying), refused, closed."""
    relay: str
    """Where it is, or goes to; empty: nowhere."""
    was: str
    """Where it was before."""
    reason: str
    """first, error, stall, goaway, better, recovered, or why nothing is to be had."""
    at: float
    """trio's clock."""


@dataclass(slots=True)
class _Move:
    """A move that is under way, or about to begin."""

    reason: str
    began: float
    not_before: float
    """A crowd does not land in one instant."""
    candidate: Candidate | None = None
    """Where to go first; None: the best."""
    was: str = ""
    attempts: list[Visit] = field(default_factory=list)
    racing: list[Visit] | None = None
    """Relays that are being measured before the first is chosen."""
    raced: bool = False
    asked: bool = False
    """Whether there was a question since everybody was tried."""


class PlacedViewer:
    """One viewer. Make it and run it; it may be run once."""

    def __init__(
        self,
        settings: PlacedSettings,
        choose: Callable[[Broadcast], Sequence[str]],
        on_object: Callable[[str, str, ReceivedObject], None],
        on_change: Callable[[Change], None] = lambda _: None,
        on_group_end: Callable[[str, int], None] = lambda _track, _group: None,
        dice: random.Random | None = None,
    ) -> None:
        """`choose` names tracks of a catalogue; `on_object` gets (relay, track, object), each object once, in the order
        of arrival; `received` of an object and `at` of a change are trio's clock.
        """
        self.settings = settings
        self.names: tuple[str, ...] = ()
        self.state = "asking"
        self._told = (choose, on_object, on_change, on_group_end)
        self._dice = dice or random.Random()  # noqa: S311 - who goes when, not secrets
        self._choices = Choices(settings.patience)
        self._continuities: dict[str, Continuity] = {}
        self._watch = Watch(settings.patience)
        self._visit_settings = VisitSettings(
            settings.namespace,
            settings.trust,
            settings.protocols,
            settings.raw_quic,
            settings.source,
            settings.patience,
        )
        self._tls = http_trust(settings.trust)
        self._current: Visit | None = None
        self._move: _Move | None = None
        self._has_played = False
        self._ask_at = inf
        self._asking = False
        self._endpoint = ""
        self._news = trio.Event()
        self._nursery: trio.Nursery | None = None

    @property
    def visit(self) -> Visit | None:
        """Where it plays now."""
        return self._current

    def ask_again(self) -> None:
        """Ask now, and not only when the last answer is old."""
        self._ask_at = trio.current_time()
        self.wake()

    async def run(self) -> None:
        """Play until cancelled, or until whoever is asked refuses for good."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                now = trio.current_time()
                self._move = _Move("first", now, now)
                self._change("asking", "", "", "first")
                self._ask_at = now
                while self.state != "refused":
                    self._news = trio.Event()
                    now = trio.current_time()
                    self._turn(now)
                    with trio.CancelScope(deadline=self._next_deadline(now)):
                        await self._news.wait()
                nursery.cancel_scope.cancel()
        finally:
            if self.state != "refused":
                self._change("closed", self._here(), "", "closed")

    # --- What visits ask ----------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something became of a visit."""
        self._news.set()

    def continuity(self, name: str) -> Continuity:
        """What came of a track so far."""
        known = self._continuities
        if name not in known and len(known) >= MAX_TRACKS:
            self._continuities = known = {name: known[name] for name in self.names if name in known}
        return known.setdefault(name, Continuity())

    def choose(self, broadcast: Broadcast) -> Sequence[str]:
        """Which tracks of a catalogue to read."""
        return self._told[0](broadcast)

    def receive_object(self, visit: Visit, track: str, item: ReceivedObject, *, fresh: bool) -> None:
        """Hand out what is new; whoever waits to see a relay deliver wakes up."""
        if visit is self._current:
            if self._watch.is_quiet:
                self._watch.restart()
                self._change("playing", visit.id, "", "recovered" if self._has_played else "first")
                self._has_played = True
            self._watch.receive(item.received)
        if self._move is not None:
            self._news.set()
        if fresh:
            self._told[1](visit.id, track, item)

    def receive_group_end(self, track: str, group: int) -> None:
        """Hand on that a group is complete."""
        self._told[3](track, group)

    # --- Turns --------------------------------------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        self._reap(now)
        self._ask_when_due(now)
        self._take_over(now)
        self._look_at_goaway(now)
        self._look_for_stall(now)
        if self._move is not None:
            self._race(self._move, now)
        if self._move is not None:
            self._go_on(self._move, now)

    def _next_deadline(self, now: float) -> float:
        moments = [self._ask_at if not self._asking else inf]
        move = self._move
        if move is None and self._current is not None:
            moments.append(self._watch.next_deadline(now))
        if move is not None:
            if move.racing is not None:
                moments.append(self._race_ends_at(move))
            else:
                moments.append(self._next_attempt_at(move, now))
            waits = (v.first_at + _ALL_TRACKS_S for v in move.attempts if v.first_at is not None)
            moments += [moment for moment in waits if moment > now]
        return min(moments)

    def _reap(self, now: float) -> None:
        """Visits that are over."""
        move = self._move
        if move is not None:
            for visit in [visit for visit in move.attempts if visit.over or visit.goaway is not None]:
                move.attempts.remove(visit)
                self._choices.fail(visit.id, now)
                visit.leave("unusable")
        current = self._current
        if current is None or not current.over:
            return
        self._current = None
        self._choices.fail(current.id, now)
        self._choices.reset_backoff()
        if move is None:
            self._leave_failed("error", current, now)
        else:
            # It was leaving or standing still: now there is nothing left to be gentle with.
            move.reason = "error" if move.reason == "better" else move.reason
            move.not_before = min(move.not_before, now)

    # --- Asking -------------------------------------------------------------------------------------------------------

    def _ask_when_due(self, now: float) -> None:
        if self._asking or now < self._ask_at or self._nursery is None:
            return
        self._asking = True
        self._nursery.start_soon(self._ask)

    async def _ask(self) -> None:
        settings, now = self.settings, trio.current_time()
        try:
            token = settings.token if isinstance(settings.token, str) else settings.token()
        except Exception as error:  # noqa: BLE001 - what its owner got wrong ends no viewer
            self._asking = False
            self._receive_answer(Refusal(f"no token: {error}"), "", now)
            return
        query = self._choices.query(
            now, namespace=settings.namespace, token=token, viewer=settings.viewer, here=self._here()
        )
        endpoints = self._choices.endpoints(settings.control, self._endpoint, self._dice)
        asked = await ask(endpoints, query, settings.patience, self._tls, settings.source)
        self._asking = False
        self._receive_answer(asked.said, asked.endpoint, trio.current_time())
        self.wake()

    def _receive_answer(self, said: Answer | Refusal, endpoint: str, now: float) -> None:
        move = self._move
        if move is not None:
            move.asked = True
            if move.not_before == inf:
                move.not_before = now
        if isinstance(said, Answer):
            self._endpoint = endpoint
            self._choices.receive_answer(said, now)
            self._ask_at = now + self._choices.ttl_s(self._dice)
            if move is None:
                self._consider_better(now)
            return
        nothing_known = not self._choices.candidates(now)
        if said.is_final and self._current is None and nothing_known:
            self._change("refused", "", "", said.reason)
        elif nothing_known:
            self._change("waiting", "", "", said.reason)
            self._ask_at = now + max(self._choices.next_backoff_s(self._dice), said.retry_s)
        else:
            # The last answer still holds.
            self._ask_at = now + max(self._choices.ttl_s(self._dice), said.retry_s)

    def _consider_better(self, now: float) -> None:
        if self._current is None or (found := self._choices.better(self._here(), now)) is None:
            return
        candidate, named = found
        self._choices.note_better(now)
        wait_s = self._dice.random() * self.settings.patience.leave_jitter_s
        self._move = _Move("better" if named else "goaway", now, now + wait_s, candidate, self._here())

    # --- Moving -------------------------------------------------------------------------------------------------------

    def _leave_failed(self, reason: str, current: Visit, now: float) -> None:
        wait_s = self._dice.random() * self.settings.patience.jitter_s
        self._move = _Move(reason, now, now + wait_s, was=current.id)

    def _race(self, move: _Move, now: float) -> None:
        """At the very beginning: measure the first candidates, and go to the best of those that answer."""
        if move.reason != "first":
            return
        if move.racing is None:
            if not move.raced and (racing := self._choices.racing(now)):
                move.racing = [self._dial(candidate, now) for candidate in racing]
                move.raced = True
            return
        for visit in move.racing:
            if visit.opened_at is not None:
                self._choices.note_rtt(visit.id, visit.rtt_s or (visit.opened_at - visit.began) / 2)
        left = [visit for visit in move.racing if not visit.over]
        ready = [visit for visit in left if visit.opened_at is not None]
        if left and not (ready and (ready[0] is left[0] or now >= self._race_ends_at(move))):
            return
        for visit in move.racing:
            if visit.over:
                self._choices.fail(visit.id, now)
            elif visit not in ready[:1]:
                visit.leave("measured")
        move.attempts, move.racing = ready[:1], None
        for visit in ready[:1]:
            visit.play()

    def _race_ends_at(self, move: _Move) -> float:
        opened = [visit.opened_at for visit in move.racing or () if visit.opened_at is not None and not visit.over]
        return min(opened) + self.settings.patience.grace_s if opened else inf

    def _go_on(self, move: _Move, now: float) -> None:
        """Dial the next relay where those that were dialled show nothing."""
        if move.racing is not None or now < self._next_attempt_at(move, now):
            return
        here = {self._current.id} if self._current is not None else set()
        candidate = move.candidate
        if candidate is None and move.reason != "better":
            besides = here | {visit.id for visit in move.attempts}
            candidate = self._choices.next_candidate(now, besides)
        move.candidate = None
        if candidate is None:
            self._nobody_left(move, now)
            return
        if len(move.attempts) >= MAX_ATTEMPTS:
            self._give_up(move, move.attempts[0], now)
        visit = self._dial(candidate, now)
        visit.play()
        move.attempts.append(visit)
        self._change("moving", candidate.id, move.was, move.reason)

    def _next_attempt_at(self, move: _Move, now: float) -> float:
        """When to dial the next relay: at once where the others failed, later while they may yet deliver."""
        if move.reason == "first" and not move.attempts and not self._choices.candidates(now):
            return inf
        return max([move.not_before, *(visit.overdue_at(self._choices.rtt_s(visit.id)) for visit in move.attempts)])

    def _nobody_left(self, move: _Move, now: float) -> None:
        """Every relay was tried. More likely that is us, or there is nothing to see."""
        current = self._current
        if move.reason == "better":
            for visit in tuple(move.attempts):
                self._give_up(move, visit, now)
            self._move = None
            return
        if not move.asked:
            # Others may be known by now.
            self._ask_at, move.not_before = now, inf
            self._ask_when_due(now)
            return
        opened = [visit for visit in move.attempts if visit.opened_at is not None]
        began = min((visit.began for visit in move.attempts if visit.opened_at is None), default=-inf)
        if now < began + self.settings.patience.connect_s:
            # There is nobody else to try: a slow handshake has all its time.
            move.not_before = began + self.settings.patience.connect_s
            return
        stays = current is not None and move.reason == "stall" and self._watch.answers(current.heard_bytes())
        if stays or (opened and (current is None or move.reason == "stall" or self._watch.is_quiet)):
            # They answer, and none shows anything: no relay's fault, and a crowd that waits shall not wander.
            chosen = current if stays else opened[0]
            assert chosen is not None
            self._settle(chosen, "waiting", "nothing to see", now)
            self._watch.restart(quiet=True)
            return
        for visit in tuple(move.attempts):
            self._give_up(move, visit, now)
        self._choices.forgive()
        move.asked = False
        move.not_before = now + self._choices.next_backoff_s(self._dice)
        self._change("waiting", self._here(), move.was, "no relay answers")

    def _give_up(self, move: _Move, visit: Visit, now: float) -> None:
        move.attempts.remove(visit)
        self._choices.fail(visit.id, now)
        visit.leave("unusable")

    def _take_over(self, now: float) -> None:
        """A relay that delivers is where we are; the others are left."""
        move, current = self._move, self._current
        if move is None:
            return
        if current is not None and move.reason == "stall" and (self._watch.last_at or 0.0) > move.began:
            self._settle(current, "playing", "recovered", now)
            self._watch.restart()
            self._watch.receive(now)
            return
        for visit in move.attempts:
            if self._delivers(visit, move, now):
                self._settle(visit, "playing", move.reason, now)
                return

    def _delivers(self, visit: Visit, move: _Move, now: float) -> bool:
        if move.reason not in GRACEFUL or self._current is None:
            return visit.fresh_at is not None
        # The old relay may well be the quicker one: whatever the new one brings shows that it serves.
        first = visit.first_at
        return first is not None and (visit.heard.issuperset(self.names) or now >= first + _ALL_TRACKS_S)

    def _settle(self, visit: Visit, state: str, reason: str, now: float) -> None:
        """Stay at this relay and leave all others."""
        move, old = self._move, self._current
        assert move is not None
        self._move = None
        for other in (*move.attempts, *(move.racing or ()), *((old,) if old is not None else ())):
            if other is not visit:
                other.leave("moved")
        self._current = visit
        self._choices.note_rtt(visit.id, visit.rtt_s)
        if state == "playing":
            self._has_played = True
            self._choices.heal(visit.id)
            self._choices.reset_backoff()
        if visit is not old:
            self._watch.restart()
            if visit.first_at is not None:
                self._watch.receive(now)
            if move.reason != "first":
                # The others may have news by now, and we want candidates for the next time.
                soon_s = self.settings.patience.backoff_first_s * (1 + self._dice.random())
                self._ask_at = min(self._ask_at, now + soon_s)
        self._change(state, visit.id, move.was, reason)

    def _dial(self, candidate: Candidate, now: float) -> Visit:
        assert self._nursery is not None
        visit = Visit(self, candidate, self._visit_settings, now)
        self._nursery.start_soon(visit.run)
        return visit

    # --- Watching -----------------------------------------------------------------------------------------------------

    def _look_at_goaway(self, now: float) -> None:
        current, move = self._current, self._move
        if current is None or current.goaway is None or move is not None:
            return
        goaway = current.goaway
        wait_s = min(self.settings.patience.leave_jitter_s, goaway.timeout_ms / 4000 or inf)
        self._choices.fail(current.id, now)
        candidate = new_session(goaway.uri, self._choices, current.candidate)
        self._move = _Move("goaway", now, now + self._dice.random() * wait_s, candidate, current.id)

    def _look_for_stall(self, now: float) -> None:
        current = self._current
        if current is None or self._move is not None:
            return
        verdict = self._watch.look(now, current.heard_bytes(), current.rtt_s)
        if verdict is Verdict.PING:
            current.ping()
        elif verdict is not Verdict.FINE:
            self._choices.fail(current.id, now)
            if self._watch.is_quiet:
                # Nothing will come from it: there is no picture to wait for.
                current.leave("silent")
                self._current = None
            self._leave_failed("stall", current, now)

    def _here(self) -> str:
        return self._current.id if self._current is not None else ""

    def _change(self, state: str, relay: str, was: str, reason: str) -> None:
        self.state = state
        self._told[2](Change(state, relay, was, reason, trio.current_time()))
