"""The socket: drain a batch of datagrams in, put a batch out. An EDGE file: the only one in this room that does I/O.

One raw non-blocking socket a listening address. Nothing here awaits per datagram: trio only says when the socket is
readable (or writable again after the kernel's buffer was full). Runs of equal-sized datagrams to one address leave
in one call where the kernel has UDP segmentation offload.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import trio

from tradewind.quic.config import Address

BATCH_DATAGRAMS = 64
RECEIVE_BYTES = 16 * 1024
"""Longer than any datagram that a QUIC peer may send us over a real path."""
SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
BACKLOG_BYTES = 4 * 1024 * 1024
"""What waits here while the kernel's buffer is full; past it the newest are dropped and counted."""
SOL_UDP = 17
UDP_SEGMENT = 103
SO_MEMINFO = 55
SEGMENTS = 48
SEGMENT_BYTES = 60_000
"""One offloaded send: the kernel takes 64 segments and 64 kB with headers."""
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3


@dataclass(frozen=True, slots=True)
class SocketStatistics:
    """One socket since it was opened."""

    datagrams_received: int
    datagrams_sent: int
    send_calls: int
    dropped_backlog: int
    """Datagrams dropped because too much waited for the kernel."""
    dropped_errors: int
    """Datagrams the kernel refused (no route, too long, filtered)."""
    backlog_bytes: int
    receive_drops: int
    """Datagrams that the kernel dropped because its receive buffer was full; 0 where it does not say."""
    segmentation_offload: bool


class UdpSocket:
    """One UDP socket bound to one address; `receive` and `send` never block, nor raise for the network's faults."""

    def __init__(
        self,
        host: str,
        port: int = 0,
        *,
        reuse_port: bool = False,
        offload: bool = True,
        backlog_bytes: int = BACKLOG_BYTES,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            _configure(self._socket, family, reuse_port)
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise
        self.address: Address = self._socket.getsockname()
        self._offload = offload and _has_offload(self._socket)
        self._backlog: deque[tuple[Address, Sequence[bytes]]] = deque()
        self._backlog_limit = backlog_bytes
        self._backlog_bytes = 0
        self._received = self._sent = self._calls = self._dropped_backlog = self._dropped_errors = 0

    async def wait_readable(self) -> None:
        """Wait until `receive` has something."""
        await trio.lowlevel.wait_readable(self._socket)

    async def wait_writable(self) -> None:
        """Wait until the kernel takes datagrams again; wanted only while `backlogged`."""
        await trio.lowlevel.wait_writable(self._socket)

    @property
    def backlogged(self) -> bool:
        """Whether datagrams wait for the kernel: call `flush` when writable."""
        return bool(self._backlog)

    def receive(self, most: int = BATCH_DATAGRAMS) -> list[tuple[bytes, Address]]:
        """Take up to `most` datagrams that have arrived; empty when there are none."""
        batch: list[tuple[bytes, Address]] = []
        receive = self._socket.recvfrom
        try:
            while len(batch) < most:
                batch.append(receive(RECEIVE_BYTES))
        except BlockingIOError:
            pass
        except OSError as error:
            # An earlier send's ICMP answer may surface here; the datagram itself is not lost by it.
            if error.errno in (errno.EBADF, errno.ENOTSOCK):
                raise
        self._received += len(batch)
        return batch

    def send(self, batches: Iterable[tuple[Address, Sequence[bytes]]]) -> None:
        """Send datagrams grouped by destination, in order; what the kernel does not take now waits."""
        if self._backlog:
            self.flush()
        for address, datagrams in batches:
            done = 0 if self._backlog else self._push(address, datagrams)
            if done < len(datagrams):
                self._wait(address, datagrams[done:])

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it."""
        backlog = self._backlog
        while backlog:
            address, datagrams = backlog[0]
            done = self._push(address, datagrams)
            self._backlog_bytes -= sum(map(len, datagrams[:done]))
            if done < len(datagrams):
                backlog[0] = (address, datagrams[done:])
                return
            backlog.popleft()

    def close(self) -> None:
        """Close the socket; what waits is lost."""
        self._backlog.clear()
        self._socket.close()

    def statistics(self) -> SocketStatistics:
        """A snapshot of the counters."""
        return SocketStatistics(
            datagrams_received=self._received,
            datagrams_sent=self._sent,
            send_calls=self._calls,
            dropped_backlog=self._dropped_backlog,
            dropped_errors=self._dropped_errors,
            backlog_bytes=self._backlog_bytes,
            receive_drops=_receive_drops(self._socket),
            segmentation_offload=self._offload,
        )

    def _push(self, address: Address, datagrams: Sequence[bytes]) -> int:
        """Send a run to one address; returns how many were dealt with, sent or refused, before the kernel was full."""
        done = 0
        offload = self._offload
        while done < len(datagrams):
            count = _segments(datagrams, done) if offload else 1
            self._calls += 1
            try:
                if count > 1:
                    size = struct.pack("@H", len(datagrams[done]))
                    self._socket.sendmsg(datagrams[done : done + count], [(SOL_UDP, UDP_SEGMENT, size)], 0, address)
                else:
                    self._socket.sendto(datagrams[done], address)
            except BlockingIOError:
                return done
            except OSError as error:
                if count > 1:
                    # EIO: this device cannot; anything else may be this path's: one by one tells.
                    offload = False
                    self._offload = error.errno != errno.EIO
                    continue
                self._dropped_errors += 1
            else:
                self._sent += count
            done += count
        return done

    def _wait(self, address: Address, datagrams: Sequence[bytes]) -> None:
        size = sum(map(len, datagrams))
        if self._backlog_bytes + size > self._backlog_limit:
            self._dropped_backlog += len(datagrams)
            return
        self._backlog.append((address, datagrams))
        self._backlog_bytes += size


def _segments(datagrams: Sequence[bytes], start: int) -> int:
    """How many datagrams from `start` may leave in one offloaded send: equal sizes, and a shorter last one."""
    size = len(datagrams[start])
    most = min(SEGMENTS, SEGMENT_BYTES // size, len(datagrams) - start)
    count = 1
    while count < most:
        following = len(datagrams[start + count])
        if following > size:
            break
        count += 1
        if following < size:
            break
    return count


def _configure(raw: socket.socket, family: socket.AddressFamily, reuse_port: bool) -> None:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    if reuse_port:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # QUIC datagrams must not be fragmented (RFC 9000, Datagram Size); "probe" also ignores forged path MTU messages.
    if family == socket.AF_INET6:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        raw.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
    else:
        raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)


def _receive_drops(raw: socket.socket) -> int:
    """What the kernel counts for this socket (SO_MEMINFO: Linux from 4.12)."""
    try:
        counts = struct.unpack("@9I", raw.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
    except (OSError, struct.error):
        return 0
    return int(counts[8])


def _has_offload(raw: socket.socket) -> bool:
    """Ask the kernel once whether it knows segmentation offload."""
    try:
        raw.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
    except OSError:
        return False
    return True
