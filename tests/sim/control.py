"""Controllers on a virtual network, and relays' control links to them: real QUIC, proofs, frames, plane and store.

What is left out is what only processes have: trio, sockets and files. `ControlHost` does what `control.controller` does
around a plane, `ControlSocket` what `relay.control_link` does around a `Helm`. A relay's disk is a value that outlives
it; a controller's store is an SQLite database, in memory unless a test names a file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from control.links import Links, pass_on
from control.outgoing import Reply
from control.placement import Placement
from control.plane import Plane, PlaneSettings
from control.publishing import Signing
from control.state import FencedError, Order
from control.store import SqliteStore
from relay.control_link import QUIC
from relay.conversation import ALPN, Conversation, Papers
from relay.helm import Helm
from tests.sim import pki
from tests.sim.network import Network, Parcel
from tests.sim.tokens import KEY
from tradewind.contract.admission import announced_key, relay_signer
from tradewind.contract.identity import Authority
from tradewind.contract.ids import Role
from tradewind.placing.policy import Policy
from tradewind.quic.config import Address, Limits, QuicSettings
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Event

_LIMITS = Limits(idle_timeout_s=5.0, control_backlog_bytes=64 * 2**20, bidi_streams=4, uni_streams=4)


class ControlHost:
    """One controller. It lives from `start` to `kill`, as often as wanted."""

    def __init__(self, network: Network, mesh: str, name: str, address: Address, store: Path, **settings: Any) -> None:
        self.network = network
        self.name = name
        self.addresses = (address,)
        self.store = SqliteStore(store)
        self.replies: dict[int, Reply] = {}
        self.alarms: list[tuple[float, str, str]] = []
        """When, of which kind, about whom: of all its lives."""
        self._mesh = mesh
        self._settings = settings
        self._dice = Random(f"{mesh} {name}")
        self._endpoint: Endpoint | None = None
        self._links = Links(Authority([pki.authority(mesh)]), self._nonce)
        self._plane: Plane | None = None
        self._heard = 0

    def __repr__(self) -> str:
        return f"ControlHost({self.name})"

    @property
    def plane(self) -> Plane:
        assert self._plane is not None, "it is dead"
        return self._plane

    @property
    def is_alive(self) -> bool:
        return self._plane is not None

    def start(self) -> None:
        """Begin a term with what the store has."""
        assert self._plane is None
        network = self.network
        signing = relay_signer(self.name, self.name.encode().ljust(32, b"."))
        public = json.dumps(_public_key(self.name, announced_key(signing)))
        settings = PlaneSettings(self._mesh, self.name, placement_keys=(public,), **self._settings)
        certificate = pki.node(self._mesh, self.name, "somewhere", Role.CONTROLLER)
        state = self.store.load(network.wall_now)
        self._plane = Plane(
            settings,
            state,
            Signing(pki.key_of(self.name), certificate),
            Placement(Policy(), signing, [KEY]),
            network.now,
            network.wall_now,
        )
        served = pki.served(self._mesh, self.name, "somewhere", Role.CONTROLLER)
        self._endpoint = Endpoint(
            QuicSettings(protocols=(ALPN,), webtransport=False, certificate=served, limits=_LIMITS)
        )
        self._links = Links(Authority([pki.authority(self._mesh)]), self._nonce)
        self._heard = 0
        network.add(self)

    def kill(self) -> None:
        """It is gone without a word; its store stays."""
        self._plane = self._endpoint = None
        self.network.remove(self)

    def order(self, order: Order) -> Reply | None:
        """An operator wants something done."""
        ticket = self.plane.order(order, self.network.now, self.network.wall_now)
        self.network.touch(self)
        return self.replies.get(ticket)

    def receive(self, address: Address, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        assert self._endpoint is not None
        self._take(self._endpoint.receive_datagrams(batch, now), now, wall_now)

    def next_deadline(self) -> float | None:
        if self._endpoint is None:
            return None
        moments = (
            self._endpoint.next_deadline(),
            self._links.next_deadline(),
            self.plane.next_deadline(self.network.now),
        )
        return min((moment for moment in moments if moment is not None), default=None)

    def handle_deadline(self, now: float, wall_now: float) -> None:
        assert self._endpoint is not None
        due = self._endpoint.next_deadline()
        if due is not None and due <= now:
            self._take(self._endpoint.handle_deadline(now), now, wall_now)
        self._links.handle_deadline(now)
        due = self.plane.next_deadline(now)
        if due is not None and due <= now:
            self.plane.handle_deadline(now, wall_now)

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        if self._endpoint is None:
            return [], False
        while any(output := self.plane.output()):
            for batch in output.batches:
                try:
                    self.store.save(batch)
                except FencedError:
                    # As `control.run` does: another writer has begun, this one ends.
                    self.kill()
                    return [], False
                self.plane.receive_saved(batch.number, now, self.network.wall_now)
            for link, message in output.send:
                self._links.send(link, message)
            for link, why in output.close:
                self._links.close(link, why)
            self.replies.update((reply.ticket, reply) for reply in output.replies)
        self.plane.check_invariants()
        fresh = self.plane.events.after(self._heard, 10_000)
        for line in fresh:
            if line.alarm:
                self.alarms.append((now, line.kind, line.relay))
            self._heard = line.number
        batches = self._endpoint.datagrams_to_send(now)
        return [Parcel(self.addresses[0], target, datagrams) for target, datagrams in batches], False

    def _take(self, events: list[Event], now: float, wall_now: float) -> None:
        for happening in self._links.receive(events, now, wall_now):
            pass_on(happening, happening.link, self.plane, now, wall_now)

    def _nonce(self) -> bytes:
        return self._dice.randbytes(32)


class ControlSocket:
    """A relay's control link: dials controllers in any order, and again after a while. `wake` tells its relay."""

    def __init__(
        self,
        network: Network,
        address: Address,
        papers: Papers,
        helm: Helm,
        controllers: Sequence[Address],
        dice: Random,
        wake: Callable[[], None],
    ) -> None:
        self.network = network
        self.addresses = (address,)
        self.helm = helm
        self.controllers = list(controllers)
        self.disk: bytes | None = None
        """What is in the file of the last table."""
        self.ends: list[tuple[float, str]] = []
        """When each connection was over, and why."""
        self._papers = papers
        self._dice = dice
        self._wake = wake
        self._round: list[Address] = []
        self._endpoint = Endpoint(QUIC, is_client=True)
        self._dial_at: float | None = network.now
        network.add(self)

    def receive(self, address: Address, batch: Sequence[tuple[bytes, Address]], now: float, wall_now: float) -> None:
        self._take(self._endpoint.receive_datagrams(batch, now), now, wall_now)

    def next_deadline(self) -> float | None:
        moments = (self._endpoint.next_deadline(), self.helm.next_deadline(), self._dial_at)
        return min((moment for moment in moments if moment is not None), default=None)

    def handle_deadline(self, now: float, wall_now: float) -> None:
        if self._dial_at is not None and self._dial_at <= now:
            self._dial(now)
        due = self._endpoint.next_deadline()
        self._take(self._endpoint.handle_deadline(now) if due is not None and due <= now else [], now, wall_now)

    def take_output(self, now: float) -> tuple[list[Parcel], bool]:
        batches = self._endpoint.datagrams_to_send(now)
        return [Parcel(self.addresses[0], target, datagrams) for target, datagrams in batches], False

    def _dial(self, now: float) -> None:
        self._dial_at = None
        if not self._round:
            self._round = self._dice.sample(self.controllers, len(self.controllers))
        self._endpoint = Endpoint(QUIC, is_client=True)
        connection = self._endpoint.connect(self._round.pop(), now, protocols=(ALPN,))
        self.helm.begin(Conversation(connection, self._papers), now)

    def _take(self, events: list[Event], now: float, wall_now: float) -> None:
        for event in events:
            self.helm.receive(event, now, wall_now)
        self.helm.handle_deadline(now, wall_now)
        self.helm.check_invariants()
        assert self.helm.misfit is None, self.helm.misfit
        data = self.helm.to_persist()
        self.disk = data or self.disk
        why = self.helm.ended
        if why is not None and self._dial_at is None:
            self.ends.append((now, why))
            self._dial_at = now + self.helm.wait_s(self._dice.random())
        self._wake()


def _public_key(kid: str, key: bytes) -> dict[str, object]:
    text = base64.urlsafe_b64encode(key).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "key_ops": ["verify"], "x": text}
