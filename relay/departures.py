"""A drain as it is carried out: whose turn it is hears where to go, who stays too long is ended, others are told.

`relay.node` owns one `Departures` and calls it when it is due. `drain` says whose turn it is, `leaving` where each
goes; forwarding hears which publishers will go, neighbours and placement that we take nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from relay.attachment import Attachment
from relay.drain import Emptying
from relay.forwarding.forwarder import Forwarder
from relay.leaving import Here, NoUri, NowhereReason, new_uri
from relay.mesh.mesh import Mesh
from relay.placing import Placing
from relay.tally import Tally
from tradewind.contract.messages import StageName
from tradewind.moqt.errors import SessionCode

AGAIN_S = 1.0
"""How often those are ended who come when a drain is over."""


class Host(Protocol):
    """What is asked of the node."""

    attachments: dict[int, Attachment]
    forwarder: Forwarder
    mesh: Mesh | None
    tally: Tally

    @property
    def stage_name(self) -> StageName: ...

    def look_at(self, attachment: Attachment) -> None:
        """Its deadline may have moved."""


class Departures:
    """Who leaves one relay, and to where."""

    __slots__ = ("_host", "_leaving", "_silent", "cordoned", "emptying", "for_good_at", "placing", "uri")

    def __init__(self, host: Host) -> None:
        self.emptying: Emptying | None = None
        """The drain that is under way."""
        self.placing: Placing | None = None
        """Knows where sessions go that are asked to move; None: they hear no URI."""
        self.for_good_at: float | None = None
        """When the relay stops; nobody can come here again. None: it serves on."""
        self.cordoned = False
        """Nobody new is to be sent here."""
        self.uri = ""
        """Where all go, whatever placement says; empty: nobody said."""
        self._host = host
        self._silent: frozenset[str] = frozenset()
        """Neighbours that look dead, as placement was told."""
        self._leaving: frozenset[str] = frozenset()
        """Neighbours that are being emptied, the same."""

    def begin(self, now: float, deadline_s: float) -> None:
        """Ask everybody to move, a wave at a time. Asked again, the sooner deadline counts."""
        if self.emptying is not None:
            self.emptying.hasten(now, deadline_s)
            return
        publishers: list[int] = []
        others: list[int] = []
        for number, attachment in self._host.attachments.items():
            if attachment.dialled is not None:
                (publishers if self._host.forwarder.publishes(number) else others).append(number)
        self.emptying = Emptying(others, now, deadline_s, publishers)
        self.tell_stage(now)

    def stop(self, now: float) -> None:
        """Who has not been asked to move stays."""
        if self.emptying is not None:
            for number in self.emptying.asked:
                self._host.forwarder.note_leaving(number, now, leaving=False)
            self.emptying = None
            self.tell_stage(now)

    def next_deadline(self) -> float | None:
        return None if self.emptying is None else self.emptying.next_deadline()

    def handle_deadline(self, now: float, wall_now: float) -> None:
        """Ask those whose turn it is; once the time is over, end those who stayed, and who came since."""
        emptying, attachments = self.emptying, self._host.attachments
        if emptying is None:
            return
        left_ms = max(round((emptying.ends_at - now) * 1000), 1)
        for number in emptying.take_due(now):
            attachment = attachments.get(number)
            if attachment is not None:
                self._ask(attachment, self.uri or self._uri_for(attachment, now, wall_now), left_ms, now)
        looks = emptying.is_time_to_look(now)
        if emptying.is_over(now):
            self._end(emptying, now)
        elif looks:
            self._send_on(emptying, left_ms, now, wall_now)

    def tell_stage(self, now: float) -> None:
        """Placement and neighbours go by where we are in our life before any table says so."""
        if self.placing is not None:
            self.placing.note_stage(self._host.stage_name, now)
        if self._host.mesh is not None:
            self._host.mesh.neighbours.set_leaving(leaving=self.emptying is not None)

    def tell_neighbours(self, mesh: Mesh, now: float) -> None:
        """Placement hears which neighbours look dead from here, and which say that they go."""
        if self.placing is None:
            return
        if mesh.silent != self._silent:
            self._silent = mesh.silent
            self.placing.note_suspects(mesh.silent, now)
        if mesh.leaving != self._leaving:
            self._leaving = mesh.leaving
            self.placing.note_leaving(mesh.leaving, now)

    def is_empty(self, attachments: Mapping[int, Attachment]) -> bool:
        """Whether nobody is here but neighbours, and none of them reads from here.

        Who reads on when a drain is over has no other way.
        """
        if any(attachment.neighbour is None for attachment in attachments.values()):
            return False
        over = self.emptying is not None and self.emptying.was_over
        return over or not any(self._host.forwarder.reads_and_feeds(number)[0] for number in attachments)

    # --- Private ---

    def _send_on(self, emptying: Emptying, left_ms: int, now: float, wall_now: float) -> None:
        """Those who came since, from somebody who did not know. Without a URI they would come again, if they can."""
        for attachment in self._host.attachments.values():
            if attachment.dialled is not None and not emptying.knows(attachment.id):
                uri = self.uri or self._uri_for(attachment, now, wall_now)
                if isinstance(uri, str) or self.for_good_at is not None:
                    emptying.add(attachment.id)
                    self._ask(attachment, uri, left_ms, now)

    def _ask(self, attachment: Attachment, uri: str | NowhereReason, left_ms: int, now: float) -> None:
        host = self._host
        host.tally.goaways["given" if isinstance(uri, str) else uri.value] += 1
        attachment.session.goaway(uri if isinstance(uri, str) else "", left_ms)
        host.forwarder.note_leaving(attachment.id, now, leaving=True)
        host.look_at(attachment)

    def _end(self, emptying: Emptying, now: float) -> None:
        host = self._host
        stayed = [attachment for attachment in host.attachments.values() if attachment.neighbour is None]
        host.tally.overstayed += sum(attachment.id in emptying.asked for attachment in stayed)
        for attachment in stayed:
            attachment.session.close(SessionCode.GOAWAY_TIMEOUT, "the relay is drained")
            host.look_at(attachment)
        emptying.go_on(now + AGAIN_S)

    def _uri_for(self, attachment: Attachment, now: float, wall_now: float) -> str | NowhereReason:
        """Where a session is to go on; or why nobody can say."""
        if self.placing is None:
            return NoUri.NOT_PLACING
        if attachment.dialled is None:
            return NoUri.UNKNOWN_TARGET
        connection, grant = attachment.connection, attachment.grant
        address = connection.peer_address
        here = Here(
            attachment.id,
            str(address[0]) if address else "",
            connection.statistics().rtt_s,
            None if grant is None else grant.expires_at,
        )
        return new_uri(self.placing, attachment.dialled, here, now, wall_now)
