"""What a controller told this relay: the last good route table, from the network or from disk, and nothing less good.

`control_link` hands in tables and differences as they come, writes what `to_persist` gives, and hands in at the start
what it wrote last. A table is taken when a controller of the mesh signed it, it is for this relay, and it is not older
than the one in force. Whatever else comes is counted with its reason, and the one in force stays: a relay goes on with
its last table for as long as it takes.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from enum import Enum
from typing import NamedTuple

from tradewind.contract.codec import TO_RELAY, Codec, ContractError
from tradewind.contract.identity import Authority, IdentityError, verify_table
from tradewind.contract.messages import PackedTable, RouteTable, SignedTable, TableDelta
from tradewind.contract.tables import apply_delta, decode_table, encode_table, unpack

MAX_FILE_BYTES = 9 * 2**20
FILE_VERSION = 1
"""Of the contract, in which the file is written: signed tables have not changed since, and a relay that goes back to an
earlier release, or comes from one, finds a table that it can read."""
_MAGIC = b"tradewind table 1\n"
_HEAD = struct.Struct(">32sd")


class Fault(Enum):
    """Why a table was not taken: a closed list, and a metric's label."""

    UNREADABLE = "unreadable"
    """A file that is truncated or damaged, or bytes that are no table."""
    UNSIGNED = "unsigned"
    """Not signed by a controller of this mesh, or its certificate is not valid."""
    ANOTHER_MESH = "another_mesh"
    ANOTHER_RELAY = "another_relay"
    OLDER = "older"
    """Of an earlier term or generation than the one in force."""
    ANOTHER_BASE = "another_base"
    """A difference to another table than the one in force: the whole one comes within a cycle."""
    CONTRADICTION = "contradiction"
    """The number of the one in force, and other content."""


class Taken(NamedTuple):
    """What became of a table. `fault` None: it is in force; `fresh`: it was not before."""

    fault: Fault | None
    detail: str = ""
    fresh: bool = False


class OrdersStatistics(NamedTuple):
    """Since the start."""

    tables: int
    deltas: int
    refused: dict[str, int]


class Orders:
    """The route table of one relay. `authority` says who is a controller."""

    __slots__ = ("_authority", "_bytes", "_codec", "_mesh", "_persist", "_refused", "_relay", "_taken", "table")

    def __init__(self, mesh: str, relay: str, authority: Authority) -> None:
        self._mesh = mesh
        self._relay = relay
        self._authority = authority
        self._codec = Codec(TO_RELAY, FILE_VERSION)
        self.table: RouteTable | None = None
        """In force."""
        self._bytes = b""
        self._persist: bytes | None = None
        self._refused: Counter[Fault] = Counter()
        self._taken = {"tables": 0, "deltas": 0}

    def restore(self, data: bytes) -> Taken:
        """Take what `to_persist` gave in an earlier life. Signatures are checked as of when it was first accepted."""
        try:
            signed, accepted_wall = self._read(data)
        except (ContractError, ValueError) as error:
            return self._refuse(Fault.UNREADABLE, str(error))
        taken = self._take(signed, accepted_wall)
        self._persist = None
        return taken

    def receive_table(self, signed: SignedTable, wall_now: float) -> Taken:
        """Take a whole table."""
        taken = self._take(signed, wall_now)
        self._taken["tables"] += taken.fault is None
        return taken

    def receive_packed(self, packed: PackedTable, wall_now: float) -> Taken:
        """Take a whole table that came in pieces."""
        try:
            signed = unpack(packed)
        except ContractError as error:
            return self._refuse(Fault.UNREADABLE, str(error))
        return self.receive_table(signed, wall_now)

    def receive_delta(self, delta: TableDelta, wall_now: float) -> Taken:
        """Take a difference to the table in force."""
        if self.table is None:
            return self._refuse(Fault.ANOTHER_BASE, "there is no table yet")
        if self._is_older(delta.term, delta.generation):
            return self._refuse(Fault.OLDER, f"{delta.generation} of {delta.term}")
        try:
            made = encode_table(apply_delta(self.table, delta))
        except ContractError as error:
            return self._refuse(Fault.ANOTHER_BASE, str(error))
        taken = self._take(SignedTable(made, delta.certificate, delta.signature), wall_now)
        self._taken["deltas"] += taken.fault is None
        return taken

    def to_persist(self) -> bytes | None:
        """What to write to disk, whole and flushed; None: nothing new. Each is told once."""
        data, self._persist = self._persist, None
        return data

    @property
    def generation(self) -> int:
        """Of the table in force; 0: there is none."""
        return self.table.generation if self.table else 0

    def statistics(self) -> OrdersStatistics:
        """What was taken and what was not, since the start."""
        return OrdersStatistics(**self._taken, refused={fault.value: count for fault, count in self._refused.items()})

    def check_invariants(self) -> None:
        """Raise AssertionError where table and bytes disagree."""
        assert (self.table is None) == (not self._bytes)
        assert self.table is None or encode_table(self.table) == self._bytes

    def _take(self, signed: SignedTable, wall_now: float) -> Taken:
        try:
            table = decode_table(verify_table(signed, self._authority, wall_now))
        except IdentityError as error:
            return self._refuse(Fault.UNSIGNED, str(error))
        except ContractError as error:
            return self._refuse(Fault.UNREADABLE, str(error))
        if table.mesh != self._mesh:
            return self._refuse(Fault.ANOTHER_MESH, table.mesh)
        if table.relay != self._relay:
            return self._refuse(Fault.ANOTHER_RELAY, table.relay)
        if self._is_older(table.term, table.generation):
            return self._refuse(Fault.OLDER, f"{table.generation} of {table.term}")
        if self.table is not None and (table.term, table.generation) == (self.table.term, self.table.generation):
            same = signed.table == self._bytes
            return Taken(None) if same else self._refuse(Fault.CONTRADICTION, f"two of {table.generation}")
        self.table, self._bytes = table, signed.table
        self._persist = self._written(signed, wall_now)
        return Taken(None, fresh=True)

    def _is_older(self, term: int, generation: int) -> bool:
        return self.table is not None and (term, generation) < (self.table.term, self.table.generation)

    def _refuse(self, fault: Fault, detail: str) -> Taken:
        self._refused[fault] += 1
        return Taken(fault, detail)

    def _written(self, signed: SignedTable, accepted_wall: float) -> bytes:
        body = self._codec.encode(signed)
        digest = hashlib.sha256(struct.pack(">d", accepted_wall) + body).digest()
        return _MAGIC + _HEAD.pack(digest, accepted_wall) + body

    def _read(self, data: bytes) -> tuple[SignedTable, float]:
        """What was written. Raises ContractError or ValueError."""
        start = len(_MAGIC) + _HEAD.size
        if not data.startswith(_MAGIC) or len(data) < start or len(data) > MAX_FILE_BYTES:
            raise ValueError("not a table that a relay wrote")
        digest, accepted_wall = _HEAD.unpack_from(data, len(_MAGIC))
        body = data[start:]
        if hashlib.sha256(struct.pack(">d", accepted_wall) + body).digest() != digest:
            raise ValueError("the file is damaged")
        message = self._codec.decode(body)
        if not isinstance(message, SignedTable):
            raise ValueError("not a table")
        return message, accepted_wall
