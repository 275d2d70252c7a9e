"""A UDP port before several relays, for clients that know one address only: who comes n-th is sent to the n-th relay.

The client behind it is unmodified and does not notice: every QUIC connection has a socket of its own, whose datagrams
all go to the relay that its first one was sent to.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.interop.relay_process import HOST

LONGEST_DATAGRAM = 65_536
BUFFER_BYTES = 1 << 21


class Front:
    """Forwards datagrams while it is entered. `ports` says where the first client goes, the second, and so on; who
    comes after the last goes where the last went.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self.sent_to: list[int] = []
        """The relays' ports, in the order in which clients came."""
        self._ports = ports
        self._clients: dict[tuple[str, int], socket.socket] = {}
        self._outside = _udp()
        self._outside.bind((HOST, 0))
        self.port = int(self._outside.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._outside, selectors.EVENT_READ)
        # Whoever closes this end tells the thread to stop.
        self._stop, stopped = socket.socketpair()
        self._stopped = stopped
        self._selector.register(stopped, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join(5)
        self._selector.close()
        for one in (self._outside, self._stopped, *self._clients.values()):
            one.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stopped:
                    return
                if key.fileobj is self._outside:
                    self._from_outside()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._from_relay(key.fileobj, key.data)

    def _from_outside(self) -> None:
        while True:
            try:
                data, client = self._outside.recvfrom(LONGEST_DATAGRAM)
            except OSError:
                return
            _send(self._clients.get(client) or self._meet(client), data)

    def _from_relay(self, inside: socket.socket, client: tuple[str, int]) -> None:
        while True:
            try:
                data = inside.recv(LONGEST_DATAGRAM)
            except OSError:
                return
            try:
                self._outside.sendto(data, client)
            except OSError:
                return

    def _meet(self, client: tuple[str, int]) -> socket.socket:
        """Somebody new: give him a socket of his own towards the relay whose turn it is."""
        port = self._ports[min(len(self.sent_to), len(self._ports) - 1)]
        self.sent_to.append(port)
        inside = self._clients[client] = _udp()
        inside.connect((HOST, port))
        self._selector.register(inside, selectors.EVENT_READ, client)
        return inside


def _udp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    made.setblocking(False)
    return made


def _send(through: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # lost, as datagrams are
        through.send(data)
