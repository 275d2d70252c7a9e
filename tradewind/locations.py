"""EDGE: where addresses are, from the operator's own file, read again when it changes.

`control.run` (`place.prefixes`) and `relay.run` (`questions.locations`) load one and `watch` it as they do with keys. A
file whose name ends in `.mmdb` is a MaxMind-format database (GeoIP2, GeoLite2, DB-IP, IPinfo); any other is text
(`tradewind.placing.locating.parse_prefixes`). What comes out is a `Locator`.
"""

from __future__ import annotations

import io
import ipaddress
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradewind.keys import KeyMaterialError, Watched, read_file
from tradewind.placing.locating import Address, Locator, PrefixTableError, Spot, parse_prefixes, plain_address

if TYPE_CHECKING:
    from maxminddb import Reader

MAX_FILE_BYTES = 2**29
"""Of a table or database; the largest that is sold has a third of it."""
_PROBES = tuple(ipaddress.IPv4Address(number << 24 | 0x010101) for number in range(1, 224))
_FAULTS = (
    *(RuntimeError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError),
    struct.error,
)
"""What the library raises at bytes that are no database. Each means the same to an operator."""


class Database:
    """A MaxMind-format database in memory: who writes over the file on disk changes nothing here."""

    __slots__ = ("_families", "_reader")

    def __init__(self, data: bytes) -> None:
        """Open and try it. Raises ValueError where it is no database, or says neither countries nor places."""
        try:
            self._reader = _open(data)
            about = self._reader.metadata()
            self._families = (4, 6) if about.ip_version == 6 else (4,)
            if about.ip_version not in {4, 6}:
                raise ValueError(f"addresses of version {about.ip_version}")
            found = [record for probe in _PROBES if (record := self._reader.get(probe)) is not None]
        except _FAULTS as error:
            raise ValueError("not a MaxMind-format database, or a broken one") from error
        if found and not any(_spot(record) for record in found):
            raise ValueError(f"a {about.database_type} database says neither countries nor places"[:200])

    def locate(self, address: Address) -> Spot | None:
        """Where `address` is; None where the database does not say, or is broken at this place."""
        address = plain_address(address)
        if address.version not in self._families:
            return None
        try:
            record = self._reader.get(address)
        except _FAULTS:
            return None
        return _spot(record)


def locations(name: str | None) -> Watched[Locator | None]:
    """The file `name`, to be loaded and watched; both raise KeyMaterialError where it cannot be used. None: nothing."""
    if name is None:
        return Watched(lambda: (), lambda _wall_now: None)
    file = Path(name)
    return Watched(lambda: (file,), lambda _wall_now: _load(file))


def _load(file: Path) -> Locator:
    data = read_file(file, MAX_FILE_BYTES)
    try:
        return Database(data) if file.suffix == ".mmdb" else parse_prefixes(data.decode())
    except (ValueError, PrefixTableError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise KeyMaterialError(f"{file}: {reason}") from error


def _open(data: bytes) -> Reader:
    """A reader of these bytes: the library's fast half where it is installed, which reads nothing but files."""
    import maxminddb

    if not hasattr(os, "memfd_create"):
        return maxminddb.open_database(io.BytesIO(data), maxminddb.MODE_FD)
    descriptor = os.memfd_create("locations")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        return maxminddb.open_database(f"/proc/self/fd/{descriptor}", maxminddb.MODE_AUTO)
    finally:
        os.close(descriptor)


def _spot(record: object) -> Spot | None:
    """What a record says, in MaxMind's way (`country.iso_code`, `location.latitude`) or flat, as others have it."""
    if not isinstance(record, Mapping):
        return None
    country = record.get("country", record.get("country_code"))
    if isinstance(country, Mapping):
        country = country.get("iso_code")
    known = country.upper() if isinstance(country, str) and len(country) == 2 and country.isascii() else None
    location = record.get("location")
    place: Mapping[str, Any] = location if isinstance(location, Mapping) else record
    latitude = _degrees(place.get("latitude", place.get("lat")), 90.0)
    longitude = _degrees(place.get("longitude", place.get("lng")), 180.0)
    if latitude is None or longitude is None:
        return Spot(known) if known else None
    return Spot(known, latitude, longitude)


def _degrees(value: object, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, float | int | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) <= most else None
