"""What a controller sees of a relay and has it do: reports, tables, orders and questions, on a node.

`relay.helm` calls it between turns; `relay.run` makes one where the relay is part of a mesh.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from relay import listing
from relay.flows import FlowMeter
from relay.node import Node
from relay.overrides import OverrideMeter
from relay.placing import Placing
from tradewind.contract.admission import TableKeys
from tradewind.contract.messages import (
    Answer,
    Command,
    Done,
    LinkReport,
    Origin,
    Question,
    Report,
    RouteTable,
    StreamReport,
)
from tradewind.moqt.errors import SessionCode

MOST_NAMESPACES = 20_000
MOST_ANSWER_CHARACTERS = 4_000_000
MOST_KICKS = 1024
"""Remembered, so that the same one again gets the same answer."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What this relay can take; what it uses of it is its load."""

    bytes_per_s: float
    sessions: int


@dataclass(frozen=True, slots=True)
class Readings:
    """What only the process knows. Totals since its start."""

    cpu_s: float
    lag_s: float
    """Of the event loop, of late."""


class Steering:
    """One node, as controllers steer it. Satisfies `helm.Steered`."""

    def __init__(
        self,
        node: Node,
        placing: Placing,
        capacity: Capacity,
        read: Callable[[], Readings],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`wake`: an order was obeyed, and the node may have something to do at once."""
        self._node = node
        self._wake = wake
        self._placing = placing
        self._capacity = capacity
        self._read = read
        self._flows = FlowMeter(node)
        self.overrides = OverrideMeter(node)
        self._table_keys = TableKeys()
        self._kicked: OrderedDict[str, Done] = OrderedDict()
        self._last = (0.0, 0, 0.0)
        """When the last report was made, and bytes sent and processor time then."""

    def report(self, sequence: int, now: float, wall_now: float) -> Report:
        """How the relay is. Rates are since the last report."""
        node, readings = self._node, self._read()
        sent = sum(attachment.sink.bytes_out for attachment in node.attachments.values() if attachment.sink is not None)
        before, sent_before, cpu_before = self._last
        span_s = max(now - before, 1e-3)
        self._last = (now, sent, readings.cpu_s)
        egress = max(sent - sent_before, 0) / span_s if before else 0.0
        cpu = max(readings.cpu_s - cpu_before, 0.0) / span_s if before else 0.0
        sessions = sum(attachment.neighbour is None for attachment in node.attachments.values())
        used = max(egress / self._capacity.bytes_per_s, sessions / self._capacity.sessions, cpu)
        origins = node.forwarder.origins()
        own = {namespace for namespace, _ in origins}
        counted = Counter(node.forwarder.carried())
        carried = [name for name in counted if name not in own]
        flows = self._flows.take(now)
        mesh = node.mesh
        return Report(
            sequence=sequence,
            stage=node.stage_name,
            load=min(used, 1.0),
            sessions=sessions,
            egress_bytes_per_s=egress,
            cpu_ratio=cpu,
            loop_lag_ms=readings.lag_s * 1000,
            generation=0 if mesh is None or mesh.table is None else mesh.table.generation,
            links=() if mesh is None else self._links(now),
            origins=tuple(Origin(namespace, hop) for namespace, hop in origins[:MOST_NAMESPACES]),
            carried=tuple(carried[:MOST_NAMESPACES]),
            overrides=self.overrides.take(now, wall_now),
            rooms=() if node.rooms is None else node.rooms.rooms.reports(),
            overstayed=node.tally.overstayed,
            tracks=counted.total(),
            streams=None if flows is None else flows.rows,
            streams_more=0 if flows is None else flows.more,
        )

    def apply_table(self, table: RouteTable, now: float) -> None:
        """Go by a verified table: neighbours, routes, rooms, and who places viewers."""
        node = self._node
        if node.mesh is not None:
            node.mesh.apply_table(table, now)
        self._placing.apply_table(table, now, () if node.mesh is None else node.mesh.silent)
        node.replace_access(node.access.replace_admission_keys(self._table_keys.apply(table, now)))
        node.apply_rooms(table.rooms, now)

    def obey(self, command: Command, now: float) -> Done | None:
        """Do what is ordered. An order that takes time is done once it has begun: its progress is in the reports."""
        node = self._node
        match command.action:
            case "cordon":
                node.cordon(now, cordoned=True)
            case "uncordon":
                node.cordon(now, cordoned=False)
            case "drain":
                node.begin_emptying(now, command.deadline_s or 60.0)
            case "undrain":
                node.stop_emptying(now)
                node.cordon(now, cordoned=False)
            case "kick":
                done = self._kick(command)
                self._wake()
                return done
        self._wake()
        return Done(command.id, ok=True)

    def answer(self, question: Question, now: float) -> Answer:
        """Show something to an operator, as JSON."""
        forwarder = self._node.forwarder
        found: list[dict[str, object]]
        match question.what:
            case "sessions" if question.after is not None:
                body = listing.page(self._node, question.after, question.limit, question.match, question.namespace, now)
                return Answer(question.id, body)
            case "sessions":
                found = [listing.brief(one, now) for one in self._node.attachments.values()]
            case "tracks":
                found = forwarder.describe_tracks()
            case "links":
                found = [msgspec.to_builtins(link) for link in self._links(now)]
            case "streams":
                found = [_stream(row) for row in self._flows.of(question.namespace)]
            case _:
                found = forwarder.describe_namespaces()
        chosen = [entry for entry in found if not question.match or question.match in str(entry)][: question.limit]
        body = msgspec.json.encode(chosen, enc_hook=str).decode()
        return Answer(question.id, body if len(body) <= MOST_ANSWER_CHARACTERS else "[]")

    def controller_heard(self, now: float) -> None:
        """A controller said something just now."""
        self._node.controller_heard(now)

    def _kick(self, command: Command) -> Done:
        """End a session; the same command again ends nothing twice. It is no way to get rid of a neighbour."""
        done = self._kicked.get(command.id)
        if done is None:
            attachment = self._node.attachments.get(command.session)
            if attachment is None:
                done = Done(command.id, ok=False, detail="no such session")
            elif attachment.neighbour is not None:
                done = Done(command.id, ok=False, detail=f"that is the session of the relay {attachment.neighbour.id}")
            else:
                attachment.session.close(
                    SessionCode.UNAUTHORIZED, _ENDED + (f": {command.reason}" if command.reason else "")
                )
                done = Done(command.id, ok=True)
            self._kicked[command.id] = done
            if len(self._kicked) > MOST_KICKS:
                self._kicked.popitem(last=False)
        return done

    def _links(self, now: float) -> tuple[LinkReport, ...]:
        mesh = self._node.mesh
        return () if mesh is None else tuple(link.report(now) for link in mesh.neighbours.links())


_ENDED = "ended by an operator"
"""What the session is told, and what stands in the relay's log."""


def _stream(row: StreamReport) -> dict[str, object]:
    return {
        "source": row.source,
        "tracks": row.tracks,
        "subscribers": row.subscribers,
        "bytes_per_s": row.bytes_per_s,
    }
