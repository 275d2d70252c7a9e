"""One session as a way out for media: forwarding's `Sink`, written in the session's draft onto its connection.

`relay.attachment` makes one a session. Headers are encoded once for each draft and kept with the cached object, since
every session gets a track under the same alias.
"""

from __future__ import annotations

from collections.abc import Sequence

from relay.forwarding.cache import CachedObject
from tradewind.moqt.fetched import FetchEncoder, encode_fetch_header
from tradewind.moqt.model import (
    DatagramObject,
    FetchObject,
    GroupOrder,
    Location,
    ObjectHeader,
    RangeEnd,
    SubgroupHeader,
)
from tradewind.moqt.objects import encode_datagram, encode_object_header, encode_subgroup_header
from tradewind.moqt.profiles import Profile
from tradewind.quic.connection import Connection
from tradewind.quic.egress import Offered


class SessionSink:
    """Encodes for one draft, offers to one connection, counts what goes."""

    __slots__ = ("_connection", "_fetches", "_profile", "bytes_out", "datagrams_out", "objects_out")

    def __init__(self, connection: Connection, profile: Profile) -> None:
        self._connection = connection
        self._profile = profile
        self._fetches: dict[int, FetchEncoder] = {}
        self.objects_out = 0
        self.datagrams_out = 0
        self.bytes_out = 0

    def room(self, now: float) -> int:
        return self._connection.writable_bytes(now)

    def open_subgroup(self, header: SubgroupHeader) -> int | None:
        stream = self._connection.open_uni()
        if stream is not None:
            self._connection.offer(stream, (encode_subgroup_header(self._profile, header),), False)
        return stream

    def object_header(self, item: CachedObject, previous: int | None, has_properties: bool) -> bytes:
        self.objects_out += 1
        key = (self._profile.name, item.id if previous is None else item.id - previous - 1, has_properties)
        found = item.encodings.get(key)
        if found is None:
            header = ObjectHeader(item.id, item.length, item.status, item.properties if has_properties else ())
            found = item.encodings[key] = encode_object_header(self._profile, previous, header, has_properties)
        return found

    def open_fetch(self, request: int, order: GroupOrder) -> int | None:
        stream = self._connection.open_uni()
        if stream is not None:
            self._connection.offer(stream, (encode_fetch_header(self._profile, request),), False)
            self._fetches[stream] = FetchEncoder(self._profile, order)
        return stream

    def fetch_header(self, handle: int, item: CachedObject, default_priority: int) -> bytes:
        self.objects_out += 1
        header = ObjectHeader(item.id, item.length, item.status, item.properties)
        priority = default_priority if item.priority is None else item.priority
        return self._fetches[handle].object(FetchObject(item.group, item.subgroup, header, priority))

    def fetch_range_end(self, handle: int, kind: RangeEnd, location: Location) -> bytes:
        return self._fetches[handle].range_end(kind, location)

    def offer(self, handle: int, parts: Sequence[bytes | memoryview], fin: bool) -> bool:
        taken = self._connection.offer(handle, parts, fin) is Offered.TAKEN
        if taken:
            self.bytes_out += sum(map(len, parts))
        if fin or not taken:
            self._fetches.pop(handle, None)
        return taken

    def unsent(self, handle: int) -> int:
        return self._connection.unsent(handle)

    def reset(self, handle: int, code: int) -> None:
        self._fetches.pop(handle, None)
        self._connection.reset(handle, self._profile.codes.reset_to_wire(code))

    def datagram(self, alias: int, item: CachedObject, expires: float) -> bool:
        key = self._profile.name
        found = item.encodings.get(key)
        if found is None:
            header = ObjectHeader(item.id, item.length, item.status, item.properties)
            object = DatagramObject(alias, item.group, header, item.priority, item.ends_group, b"")
            found = item.encodings[key] = encode_datagram(self._profile, object) + item.payload()
        if not self._connection.datagram((found,), expires):
            return False
        self.datagrams_out += 1
        self.bytes_out += len(found)
        return True
