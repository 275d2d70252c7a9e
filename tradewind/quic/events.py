"""What one turn of the QUIC room tells its caller.

`Endpoint.receive_datagrams` and `Endpoint.handle_deadline` return lists of these; `relay.node` and `tradewind.client`
read them. A *connection* here is a raw QUIC connection or one WebTransport session: both wear the same face
(`tradewind.quic.connection.Connection`) and their streams have the same kind of ids, so nobody above this room asks
which it is, except to log it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tradewind.quic.connection import Connection


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake is over and the application protocol is chosen: streams may be opened."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class StreamData:
    """Bytes in order on one stream. Nothing after `fin`. Call `connection.consumed` when they are dealt with."""

    connection: Connection
    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer abandoned the stream it was sending; `code` is the application's (already unmapped from HTTP/3)."""

    connection: Connection
    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The peer no longer wants what we send on this stream. Our side has been reset already."""

    connection: Connection
    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """One unreliable datagram."""

    connection: Connection
    data: bytes


@dataclass(frozen=True, slots=True)
class Released:
    """Every byte offered on this egress stream was acknowledged, or the stream was abandoned: its parts may change."""

    connection: Connection
    stream: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is gone. `code` is the application's error code, or None where QUIC itself ended it."""

    connection: Connection
    code: int | None
    reason: str
    by_peer: bool


Event: TypeAlias = Opened | StreamData | StreamReset | Stopped | DatagramReceived | Released | Closed
