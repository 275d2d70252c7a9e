"""Two owners who keep to the rules, over a wire that delivers streams in any order: nobody is ever at fault.

The machine asks, answers, updates, cancels and publishes at random on both sides, and delivers what was written in
random order between streams and in pieces. Whatever happens, neither session may close, and once all is delivered
both must hold the same requests.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.moqt.pair import DRAFTS, Bytes, Side, send_datagram, send_fetch, send_subgroup
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode
from tradewind.moqt.model import (
    NEXT_OBJECT,
    NO_FILTER,
    Fill,
    FullTrackName,
    GroupOrder,
    Location,
    Parameters,
)
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.session import SessionSettings
from tradewind.moqt.states import Kind, Phase

KIND_OF_EVENT: dict[type[Any], Kind] = {
    e.SubscribeRequested: Kind.SUBSCRIBE,
    e.PublishRequested: Kind.PUBLISH,
    e.FetchRequested: Kind.FETCH,
    e.TrackStatusRequested: Kind.TRACK_STATUS,
    e.PublishNamespaceRequested: Kind.PUBLISH_NAMESPACE,
    e.SubscribeNamespaceRequested: Kind.SUBSCRIBE_NAMESPACE,
    e.SubscribeTracksRequested: Kind.SUBSCRIBE_TRACKS,
}
TRACKS = [FullTrackName((b"live",), bytes([65 + number])) for number in range(3)]


class Owner:
    """What an application remembers of one session, from its events and its own calls alone."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.ours: dict[int, tuple[Kind, bool]] = {}
        """Our requests: kind, and whether they were accepted."""
        self.theirs: dict[int, tuple[Kind, bool]] = {}
        self.updates: list[tuple[int, int]] = []
        self.namespaces: set[int] = set()
        """SUBSCRIBE_NAMESPACEs of theirs that were told of a namespace."""
        self.streams: set[int] = set()
        """Data streams that were opened and not closed."""
        self.aliases = 0
        self.prefixes = 0
        self.goaway = False

    def hear(self) -> None:
        for event in self.side.take():
            kind = KIND_OF_EVENT.get(type(event))
            if kind is not None:
                opened: Any = event
                assert opened.request not in self.theirs
                self.theirs[opened.request] = kind, False
            else:
                self._other(event)

    def _other(self, event: e.Event) -> None:
        match event:
            case e.SubscribeAccepted() | e.FetchAccepted() | e.RequestAccepted():
                kind, accepted = self.ours[event.request]
                assert not accepted
                self.ours[event.request] = kind, True
                if kind is Kind.TRACK_STATUS:
                    del self.ours[event.request]
            case e.RequestRefused():
                assert not self.ours.pop(event.request)[1]
            case e.RequestCancelled():
                self.forget(event.request)
            case e.PublishDone():
                self.ours.pop(event.request, None)
                self.theirs.pop(event.request, None)
            case e.UpdateRequested():
                self.updates.append((event.request, event.update))
            case e.SubgroupOpened() | e.FetchOpened():
                assert event.stream not in self.streams
                self.streams.add(event.stream)
            case e.SubgroupClosed() | e.FetchClosed():
                self.streams.remove(event.stream)
            case e.ObjectStarted() | e.ObjectData() | e.FetchObjectStarted():
                assert event.stream in self.streams
            case e.SessionClosed():
                raise AssertionError(event.reason)
            case _:
                pass

    def forget(self, request: int) -> None:
        self.ours.pop(request, None)
        self.theirs.pop(request, None)
        self.updates = [update for update in self.updates if update[0] != request]
        self.namespaces.discard(request)

    def drop(self, request: int) -> None:
        """We ended it ourselves: its streams end without an event."""
        self.forget(request)
        self.streams &= self.side.session._table.handlers.keys()

    def published(self) -> list[int]:
        """Subscriptions that we publish and that were accepted."""
        mine = [n for n, (kind, accepted) in self.ours.items() if kind is Kind.PUBLISH and accepted]
        return mine + [n for n, (kind, accepted) in self.theirs.items() if kind is Kind.SUBSCRIBE and accepted]


class TwoSessions(RuleBasedStateMachine):
    """Rules name a side by True (client) or False."""

    @initialize(draft=st.sampled_from(DRAFTS), ready=st.booleans())
    def begin(self, draft: int, ready: bool) -> None:
        settings = SessionSettings(done_linger_s=1.0, max_requests=8, max_request_updates=3, request_window=6)
        self.draft = draft
        self.owners = {
            is_client: Owner(Side(draft, is_client=is_client, settings=settings)) for is_client in (True, False)
        }
        self.queues: dict[bool, dict[int, deque[Bytes]]] = {True: {}, False: {}}
        self.alias: dict[tuple[bool, int], int] = {}
        """Which alias a side gave a request that it publishes."""
        for owner in self.owners.values():
            names = SetupOptions(path="/x", authority="h") if owner.side.transport.is_client else SetupOptions()
            owner.side.session.start(names)
        self.collect()
        if ready:
            self.deliver_all(0)

    def collect(self) -> None:
        """Put what was written into the queues of its streams."""
        for is_client, owner in self.owners.items():
            for sent in owner.side.transport.take():
                queue = self.queues[is_client].setdefault(sent.stream, deque())
                if sent.reset is not None:
                    # RESET_STREAM overtakes what was not read.
                    kept = [item for item in queue if item.stop is not None]
                    queue.clear()
                    queue.extend(kept)
                queue.append(sent)

    def session(self, side: bool) -> Any:
        return self.owners[side].side.session

    # --- What owners do -----------------------------------------------------------------------------------------------

    @rule(side=st.booleans(), kind=st.sampled_from(list(Kind)), track=st.sampled_from(TRACKS), fill=st.booleans())
    def ask(self, side: bool, kind: Kind, track: FullTrackName, fill: bool) -> None:
        owner, session = self.owners[side], self.session(side)
        alias = None
        match kind:
            case Kind.SUBSCRIBE:
                chosen = Fill(order=GroupOrder.ASCENDING) if fill else None
                number = session.subscribe(track, Parameters(filter=NEXT_OBJECT, fill=chosen))
            case Kind.PUBLISH:
                owner.aliases += 1
                alias = owner.aliases
                number = session.publish(track, alias)
            case Kind.FETCH:
                number = session.fetch(track, NO_FILTER)
            case Kind.TRACK_STATUS:
                number = session.track_status(track)
            case Kind.PUBLISH_NAMESPACE:
                number = session.publish_namespace(track.namespace)
            case _:
                owner.prefixes += 1
                ask = session.subscribe_namespace if kind is Kind.SUBSCRIBE_NAMESPACE else session.subscribe_tracks
                number = ask((b"p", str(owner.prefixes).encode()))
        if number is not None:
            owner.ours[number] = kind, False
            if alias is not None:
                self.alias[side, number] = alias
        self.collect()

    @rule(side=st.booleans(), data=st.data(), accept=st.sampled_from([True, True, True, False]))
    def answer(self, side: bool, data: st.DataObject, accept: bool) -> None:
        waiting = [number for number, (_, accepted) in self.owners[side].theirs.items() if not accepted]
        if waiting:
            self.answer_one(side, data.draw(st.sampled_from(waiting)), accept)

    @rule(
        side=st.booleans(),
        kind=st.sampled_from([Kind.SUBSCRIBE, Kind.PUBLISH, Kind.FETCH]),
        track=st.sampled_from(TRACKS),
        fill=st.booleans(),
        last=st.booleans(),
    )
    def establish(self, side: bool, kind: Kind, track: FullTrackName, fill: bool, last: bool) -> None:
        """The short way to a request that is answered, and perhaps known to be."""
        self.ask(side=side, kind=kind, track=track, fill=fill)
        self.deliver_all(choice=1)
        for number, (_, accepted) in list(self.owners[not side].theirs.items()):
            if not accepted and number in self.owners[not side].theirs:
                self.answer_one(not side, number, True)
        if last:
            self.deliver_all(choice=2)

    def answer_one(self, side: bool, number: int, accept: bool) -> None:
        owner, session = self.owners[side], self.session(side)
        kind, _ = owner.theirs.pop(number)
        if not accept:
            session.reject(number, RequestCode.UNINTERESTED, "no")
            owner.drop(number)
        elif kind is Kind.SUBSCRIBE:
            owner.aliases += 1
            self.alias[side, number] = owner.aliases
            session.accept_subscribe(number, owner.aliases)
        elif kind is Kind.FETCH:
            session.accept_fetch(number, Location(9, 9), False)
        else:
            session.accept(number)
        if accept and kind is not Kind.TRACK_STATUS:
            owner.theirs[number] = kind, True
        owner.side.events += session.handle_deadline(owner.side.now)
        owner.hear()
        self.collect()

    @rule(side=st.booleans(), data=st.data(), fill=st.booleans())
    def update(self, side: bool, data: st.DataObject, fill: bool) -> None:
        owner = self.owners[side]
        able = [number for number, (kind, _) in owner.ours.items() if kind is not Kind.TRACK_STATUS]
        able += [number for number, (kind, accepted) in owner.theirs.items() if kind is Kind.PUBLISH and accepted]
        if able:
            number = data.draw(st.sampled_from(able))
            chosen = Fill(order=GroupOrder.ASCENDING) if fill else None
            self.session(side).update(number, Parameters(priority=4, fill=chosen))
        self.collect()

    @rule(side=st.booleans(), accept=st.booleans())
    def answer_update(self, side: bool, accept: bool) -> None:
        owner, session = self.owners[side], self.session(side)
        if not owner.updates:
            return
        number, update = owner.updates.pop(0)
        kind = (owner.ours.get(number) or owner.theirs.get(number) or (None, False))[0]
        if accept or kind is None:
            session.accept_update(number, update)
        else:
            pending = number in owner.theirs and not owner.theirs[number][1]
            session.reject_update(number, update, RequestCode.UNAUTHORIZED, "no")
            if pending or (kind not in {Kind.SUBSCRIBE, Kind.PUBLISH} and self.draft >= 17):
                owner.drop(number)
            elif number in owner.published():
                session.publish_done(number, DoneCode.UPDATE_FAILED, None)
                owner.forget(number)
        self.collect()

    @rule(side=st.booleans(), data=st.data())
    def cancel(self, side: bool, data: st.DataObject) -> None:
        owner = self.owners[side]
        known = [*owner.ours, *owner.theirs]
        if known:
            number = data.draw(st.sampled_from(known))
            self.session(side).cancel(number)
            owner.drop(number)
        self.collect()

    @rule(side=st.booleans(), data=st.data(), fin=st.booleans(), datagram=st.booleans())
    def publish_objects(self, side: bool, data: st.DataObject, fin: bool, datagram: bool) -> None:
        owner = self.owners[side]
        able = [number for number in owner.published() if (side, number) in self.alias]
        able += [n for n, (kind, accepted) in owner.ours.items() if kind is Kind.PUBLISH and not accepted]
        if able:
            number = data.draw(st.sampled_from(able))
            alias = self.alias[side, number]
            if datagram:
                send_datagram(owner.side, alias, Location(1, 1), b"datagram")
                other = self.owners[not side]
                other.side.events += other.side.session.receive_datagram(
                    owner.side.transport.datagrams.popleft(), other.side.now
                )
                other.hear()
            else:
                send_subgroup(owner.side, alias, data.draw(st.integers(0, 9)), [b"object", b"", b"more"], fin=fin)
        self.collect()

    @rule(side=st.booleans(), data=st.data())
    def answer_fetch(self, side: bool, data: st.DataObject) -> None:
        owner = self.owners[side]
        able = [number for number, (kind, accepted) in owner.theirs.items() if kind is Kind.FETCH and accepted]
        if able:
            number = data.draw(st.sampled_from(able))
            send_fetch(owner.side, number, [(Location(1, 0), b"x"), (Location(2, 0), b"y")])
            self.session(side).finish(number)
            owner.forget(number)
        self.collect()

    @rule(side=st.booleans(), data=st.data(), count=st.sampled_from([None, 0, 1]))
    def done(self, side: bool, data: st.DataObject, count: int | None) -> None:
        owner = self.owners[side]
        able = owner.published()
        if able:
            number = data.draw(st.sampled_from(able))
            self.session(side).publish_done(number, DoneCode.TRACK_ENDED, count)
            owner.forget(number)
        self.collect()

    @rule(side=st.booleans(), data=st.data(), request=st.booleans())
    def say_goaway(self, side: bool, data: st.DataObject, request: bool) -> None:
        owner = self.owners[side]
        if request and owner.ours:
            self.session(side).goaway_request(data.draw(st.sampled_from(sorted(owner.ours))))
        else:
            self.session(side).goaway()
        self.collect()

    @rule(side=st.booleans(), data=st.data())
    def namespaces(self, side: bool, data: st.DataObject) -> None:
        owner, session = self.owners[side], self.session(side)
        for number, (kind, accepted) in owner.theirs.items():
            if kind is Kind.SUBSCRIBE_NAMESPACE and accepted:
                prefix = session._requests.table[number].prefix if number in session._requests.table else None
                if prefix is None:
                    continue
                if number in owner.namespaces:
                    session.withdraw_namespace(number, (*prefix, b"n"))
                    owner.namespaces.discard(number)
                else:
                    session.notify_namespace(number, (*prefix, b"n"))
                    owner.namespaces.add(number)
            elif kind is Kind.SUBSCRIBE_TRACKS and accepted and number in session._requests.table:
                session.skip_publish(number, FullTrackName((*session._requests.table[number].prefix, b"n"), b"t"))
        self.collect()

    # --- What the wire does -------------------------------------------------------------------------------------------

    def full_queues(self) -> list[tuple[bool, int]]:
        return [(side, stream) for side in (True, False) for stream, queue in self.queues[side].items() if queue]

    @rule(data=st.data(), split=st.integers(0, 5), count=st.integers(1, 6))
    def deliver(self, data: st.DataObject, split: int, count: int) -> None:
        for _ in range(count):
            able = self.full_queues()
            if not able:
                return
            side, stream = data.draw(st.sampled_from(able))
            self.deliver_one(side, stream, split)

    @rule(choice=st.integers(0, 1000))
    def deliver_all(self, choice: int) -> None:
        """Everything, in an order that `choice` names."""
        for _ in range(2000):
            able = self.full_queues()
            if not able:
                return
            self.deliver_one(*able[choice % len(able)], 0)
            choice = choice * 7 + 3

    def deliver_one(self, side: bool, stream: int, split: int) -> None:
        arrived = self.queues[side][stream].popleft()
        owner = self.owners[not side]
        owner.side.receive(arrived, split=split)
        owner.hear()
        self.collect()

    @rule(seconds=st.sampled_from([0.1, 0.4, 2.0]))
    def wait(self, seconds: float) -> None:
        for owner in self.owners.values():
            owner.side.wait(seconds)
            owner.hear()
        self.collect()

    @precondition(lambda self: hasattr(self, "owners"))
    @invariant()
    def nobody_is_at_fault(self) -> None:
        for owner in self.owners.values():
            assert owner.side.transport.closed is None
            owner.side.session.check_invariants()
            assert owner.streams <= owner.side.session._table.handlers.keys()

    def teardown(self) -> None:
        if not hasattr(self, "owners"):
            return
        self.deliver_all(0)
        self.wait(3.0)
        self.deliver_all(0)
        self.nobody_is_at_fault()
        for side in (True, False):
            here, there = self.session(side)._requests.table, self.session(not side)._requests.table
            mine = {number for number, request in here.items() if request.ours}
            theirs = {number for number, request in there.items() if not request.ours}
            apart = {number: here.get(number) or there[number] for number in mine ^ theirs}
            # Draft 16 has no word for the end of these two: an answer, or the data stream, will say it.
            silent = {Kind.FETCH, Kind.TRACK_STATUS} if self.draft == 16 else set()
            # And a subscription that is done waits for the streams that it still has open.
            open_ended = [number for number, request in apart.items() if request.phase is not Phase.DONE]
            assert all(apart[number].kind in silent for number in open_ended), (mine, theirs)


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = hypothesis_settings(max_examples=40, stateful_step_count=50, deadline=None)
