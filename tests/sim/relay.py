"""A `Node` as a host of a `Network`: what `relay.run` does around one, without sockets and clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from relay.access import Access, AccessSettings
from relay.forwarding.book import Feeding, ForwardingSettings
from relay.forwarding.routes import Party
from relay.limits import LimitSettings
from relay.node import Ended, Fault, Node, NodeSettings
from tests.sim.certificate import CERTIFICATE
from tests.sim.network import Parcel
from tradewind.moqt.profiles import BROWSER_ORDER, NATIVE_ORDER
from tradewind.moqt.settings import ALL_QUIRKS, SessionSettings
from tradewind.quic.config import Address, Limits, QuicSettings

RELAY: Address = ("198.51.100.1", 4443)
ANYBODY = Access((), AccessSettings(anonymous=True))


def quic_settings(**changes: Any) -> QuicSettings:
    """A server's, with every draft."""
    return QuicSettings(
        **{
            "protocols": tuple(NATIVE_ORDER),
            "browser_protocols": tuple(BROWSER_ORDER),
            "certificate": CERTIFICATE,
            **changes,
        }
    )


def node_settings(
    *,
    quic: QuicSettings | None = None,
    quic_limits: Limits | None = None,
    forwarding: ForwardingSettings | None = None,
    session: SessionSettings | None = None,
    limits: LimitSettings | None = None,
    **changes: Any,
) -> NodeSettings:
    """One relay's settings; what is not named is as an operator gets it."""
    quic = quic or quic_settings()
    return NodeSettings(
        quic=quic if quic_limits is None else replace(quic, limits=quic_limits),
        forwarding=forwarding or ForwardingSettings(),
        session=session or SessionSettings(),
        limits=limits or LimitSettings(),
        **{"quirks": ALL_QUIRKS, **changes},
    )


class Relay:
    """One relay with a port at each of its addresses."""

    def __init__(
        self, settings: NodeSettings | None = None, access: Access = ANYBODY, *, addresses: Sequence[Address] = (RELAY,)
    ) -> None:
        self.addresses = tuple(addresses)
        self.node = Node(settings or node_settings(), access, len(self.addresses))
        self.ended: list[Ended] = []
        self.forgives: tuple[type[Exception], ...] = ()
        """Errors of our own that a test brought about on purpose; any other fails it."""
        self.forgiven: list[Fault] = []
        self.checks = True
        """Look at every invariant after every turn: dear, and worth it."""

    def __repr__(self) -> str:
        return f"Relay({self.addresses[0][0]})"

    def receive(self, address: Address, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        self.node.receive_datagrams(self.addresses.index(address), batch, now, wall_now)
        if self.node.next_deadline() <= now:
            self.node.handle_deadline(now, wall_now)

    def next_deadline(self) -> float | None:
        return self.node.next_deadline()

    def handle_deadline(self, now: float, wall_now: float) -> None:
        self.node.handle_deadline(now, wall_now)

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        output = self.node.take_output(now)
        self.ended += self.node.ended
        self.node.ended.clear()
        for fault in self.node.faults:
            if not isinstance(fault.error, self.forgives):
                raise fault.error
        self.forgiven += self.node.faults
        self.node.faults.clear()
        if self.checks:
            self.node.check_invariants()
            self._check_streams()
        parcels = [
            Parcel(self.addresses[port], target, datagrams)
            for port, batches in output.datagrams
            for target, datagrams in batches
        ]
        return parcels, output.more

    def _check_streams(self) -> None:
        """Forwarding holds no stream, and no request, that its session has forgotten."""
        for number, attachment in self.node.attachments.items():
            member = self.node.forwarder._book.members.get(number)
            # Events that a call of ours caused come with the next deadline, which is at once.
            settled = not attachment.session.is_closed and not attachment.session._context.events
            if member is not None and settled:
                held = member.inlets.keys() | member.fetch_inlets.keys()
                assert held <= attachment.session._table.handlers.keys()
                for request in member.requests - attachment.session._requests.table.keys():
                    role = self.node.forwarder._book.roles[Party(number, request)]
                    assert isinstance(role, Feeding) and role.source.done is not None, role
