"""EDGE: free ports on loopback for the demo's fronts, its page and its controller."""

from __future__ import annotations

import socket

from control.demo.processes import ShowError
from control.demo.world import relay_host

FRONT_PORTS = range(4443, 4943)
PAGE_PORTS = range(8080, 8180)


def front_ports(count: int) -> list[int]:
    """Free ports for the fronts; the first is also where the relays themselves listen. Raises ShowError."""
    found: list[int] = []
    for port in FRONT_PORTS:
        hosts = ["127.0.0.1"] + ([] if found else [relay_host(number) for number in range(count)])
        if all(_is_free(port, kind, host) for host in hosts for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)):
            found.append(port)
            if len(found) == count:
                return found
    raise ShowError(f"no {count} free ports in {FRONT_PORTS.start}..{FRONT_PORTS.stop - 1}")


def page_port() -> int:
    """Where the page is to be. Raises ShowError."""
    for port in PAGE_PORTS:
        if _is_free(port, socket.SOCK_STREAM):
            return port
    raise ShowError(f"no free port in {PAGE_PORTS.start}..{PAGE_PORTS.stop - 1}")


def free_port(kind: socket.SocketKind) -> int:
    """Of UDP or TCP, wherever there is one."""
    with socket.socket(socket.AF_INET, kind) as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def _is_free(port: int, kind: socket.SocketKind, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET, kind) as held:
        if kind is socket.SOCK_STREAM:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((host, port))
        except OSError:
            return False
    return True
