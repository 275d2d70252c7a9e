"""TRACK_STATUS: answered here where the track is established, else by its publisher.

Source: draft-20, "TRACK_STATUS".
"""

from __future__ import annotations

from functools import partial

from relay.forwarding.book import Asked, Book
from relay.forwarding.routes import Party
from relay.forwarding.upstreams import Upstreams
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.model import FullTrackName, Location, Parameters, Properties


class Status:
    """Questions about tracks, passed on one for one."""

    def __init__(self, book: Book, upstreams: Upstreams) -> None:
        self._book = book
        self._upstreams = upstreams

    def request(self, party: Party, name: FullTrackName, parameters: Parameters, now: float) -> None:
        """TRACK_STATUS of theirs."""
        book = self._book
        track = book.tracks.get(name)
        if track is not None and track.established:
            properties = () if parameters.include_properties is False else track.properties
            book.peer(party).accept(party.request, Parameters(largest=track.largest), properties)
            return
        for session, budget in self._upstreams.who_knows(name.namespace, party.session, parameters.rank):
            request = book.members[session].peer.track_status(name, Parameters(rank=budget))
            if request is not None:
                asked = Asked(Party(session, request), party)
                asked.timer = book.timers.at(now + book.settings.answer_timeout_s, partial(self._time_out, asked))
                book.give(asked.party, asked)
                book.give(party, asked)
                return
        book.peer(party).reject(party.request, RequestCode.DOES_NOT_EXIST, "nobody publishes this track")

    def answered(self, asked: Asked, largest: Location | None, properties: Properties) -> None:
        """The publisher's answer."""
        self._over(asked)
        self._book.peer(asked.for_party).accept(asked.for_party.request, Parameters(largest=largest), properties)

    def refused(self, asked: Asked, code: int, reason: str) -> None:
        """The publisher's refusal, or its end."""
        self._over(asked)
        self._book.peer(asked.for_party).reject(asked.for_party.request, code, reason)

    def cancelled(self, asked: Asked, party: Party) -> None:
        """One of the two requests is over before its answer."""
        if party == asked.party:
            self.refused(asked, RequestCode.INTERNAL_ERROR, "the publisher went away")
        else:
            self._over(asked)
            self._book.peer(asked.party).cancel(asked.party.request)

    def _time_out(self, asked: Asked, _now: float) -> None:
        self._book.peer(asked.party).cancel(asked.party.request)
        self.refused(asked, RequestCode.TIMEOUT, "the publisher did not answer in time")

    def _over(self, asked: Asked) -> None:
        if asked.timer is not None:
            asked.timer.cancel()
        self._book.take(asked.party)
        self._book.take(asked.for_party)
