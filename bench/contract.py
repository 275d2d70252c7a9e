"""What nodes pay to talk to each other: messages and tables as bytes, differences, proofs, hostile bytes.

    python -m bench.contract [--relays 500] [--rooms 2000] [--runs 5]

CPU time of this process for one of each, the median of `--runs`. A report comes from every relay every second, a table
goes to every relay every ten; what one costs is a pause in somebody's turn. The last line is memory: the most that the
worst frame we know takes while it is refused.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

from msgspec.structs import replace

from tests.contract.mesh import CONTROLLER, MESH, NOW, RELAY
from tradewind.contract import messages as m
from tradewind.contract.codec import (
    TO_CONTROLLER,
    Codec,
    ContractError,
)
from tradewind.contract.identity import sign_table, verify_table
from tradewind.contract.ids import Role
from tradewind.contract.proving import Prover, Verifier
from tradewind.contract.tables import apply_delta, decode_table, delta_between, encode_table

CHANGED = 0.1
"""The part of routes that changes from one table to the next."""


def make_table(relays: int, rooms: int) -> m.RouteTable:
    """A table for one relay of a mesh of this size: three candidates to every other relay."""
    names = [f"relay-{number:04}" for number in range(relays)]
    return m.RouteTable(
        mesh="shop",
        relay=names[0],
        term=1,
        generation=1,
        issued_wall=NOW,
        neighbours=tuple(names[1:17]),
        relays=tuple(
            m.RelayEntry(name, "fra", f"https://{name}.example:443", ("192.0.2.1", 443), "serving", 0.5, 1000)
            for name in names
        ),
        routes=tuple(
            m.Route(name, tuple(m.Candidate(names[hop % relays], (name,), 20.5, 0.001) for hop in range(1, 4)))
            for name in names[1:]
        ),
        rooms=tuple(m.RoomEntry((b"live", b"room-%d" % number), names[number % relays]) for number in range(rooms)),
    )


def make_report() -> m.Report:
    """A busy relay's: eight links, fifty namespaces."""
    namespaces = [(b"live", b"shop-%d" % number) for number in range(50)]
    links = tuple(m.LinkReport(f"relay-{number:04}", "up", 20.5, 1.5, 0.001, 1e6) for number in range(8))
    origins = tuple(m.Origin(name, number) for number, name in enumerate(namespaces[:10]))
    return m.Report(7, "serving", 0.5, 900, 1e8, 0.6, 1.5, 4, links, origins, tuple(namespaces[10:]))


def next_table(table: m.RouteTable) -> m.RouteTable:
    """The same a moment later: every entry a new object, some of them different."""
    every = max(1, round(1 / CHANGED))
    routes = tuple(
        replace(route, candidates=route.candidates[::-1]) if number % every == 0 else replace(route)
        for number, route in enumerate(table.routes)
    )
    relays = tuple(map(replace, table.relays))
    return replace(table, generation=table.generation + 1, relays=relays, routes=routes)


def prove() -> None:
    """One whole proof, both ends."""
    shared: dict[str, Any] = {"server": CONTROLLER.der, "alpn": "control", "now": 1.0, "wall_now": NOW}
    verifier = Verifier(MESH.authority, role=Role.RELAY, nonce=bytes(32), **shared)
    prover = Prover(MESH.authority, RELAY.der, RELAY.key, role=Role.CONTROLLER, **shared)
    prover.receive(verifier.bytes_to_send(), 1.0)
    verifier.receive(prover.bytes_to_send(), 1.0)
    assert prover.receive(verifier.bytes_to_send(), 1.0) is not None


def hostile_frames() -> dict[str, bytes]:
    """The worst that we know: as many values as fit, and lists that promise more than they hold."""
    values = b"\x92\x02\xdc\x4e\x20" + (b"\xdc\x00\xc8" + b"\x80" * 200) * 20_000
    promises = b"\x92\x02" + b"\xdc\x4e\x20" * 1000 + bytes(17_000)
    return {"4 MB of empty maps": values, "20 kB of promises": promises}


def refuse(data: bytes) -> None:
    """Decode what must not be."""
    try:
        Codec(TO_CONTROLLER).decode(data)
    except ContractError:
        return
    raise AssertionError("a hostile frame was taken")


def cases(relays: int, rooms: int) -> dict[str, tuple[Callable[[], object], int]]:
    """What is measured: its name, a call, and the bytes that it makes or reads."""
    table = make_table(relays, rooms)
    after = next_table(table)
    data, after_data = encode_table(table), encode_table(after)
    signed = sign_table(after_data, CONTROLLER.key, CONTROLLER.der)
    delta = delta_between(table, after, signed)
    report, codec = make_report(), Codec(TO_CONTROLLER)
    rows = tuple(m.StreamReport((b"live", b"shop-%d" % number), "relay-0001", 2, 20, 1e5) for number in range(256))
    told = replace(report, streams=rows)
    reported, told_bytes = codec.encode(report), codec.encode(told)
    found: dict[str, tuple[Callable[[], object], int]] = {
        "encode a report": (lambda: codec.encode(report), len(reported)),
        "decode a report": (lambda: codec.decode(reported), len(reported)),
        "encode one with 256 streams": (lambda: codec.encode(told), len(told_bytes)),
        "decode one with 256 streams": (lambda: codec.decode(told_bytes), len(told_bytes)),
        "encode a table": (lambda: encode_table(table), len(data)),
        "decode a table": (lambda: decode_table(data), len(data)),
        "find a difference": (lambda: delta_between(table, after, signed), len(data)),
        "apply it and encode": (lambda: encode_table(apply_delta(table, delta)), len(after_data)),
        "sign a table": (lambda: sign_table(data, CONTROLLER.key, CONTROLLER.der), len(data)),
        "verify a table": (lambda: verify_table(signed, MESH.authority, NOW), len(after_data)),
        "prove, both ends": (prove, 0),
    }
    for name, hostile in hostile_frames().items():
        found[f"refuse {name}"] = (partial(refuse, hostile), len(hostile))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.contract")
    parser.add_argument("--relays", type=int, default=500)
    parser.add_argument("--rooms", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    print(f"{options.relays} relays, {options.rooms} rooms, median of {options.runs}")
    for name, (act, size) in cases(options.relays, options.rooms).items():
        taken = []
        for _ in range(options.runs):
            begun = time.process_time()
            act()
            taken.append(time.process_time() - begun)
        print(f"{name:<32} {median(taken) * 1e3:>9.3f} ms {size:>9} bytes")
    for name, hostile in hostile_frames().items():
        tracemalloc.start()
        refuse(hostile)
        print(f"{'memory of ' + name:<32} {tracemalloc.get_traced_memory()[1] / 1e6:>9.1f} MB")
        tracemalloc.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
