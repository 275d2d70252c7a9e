"""Where addresses are: databases in MaxMind's format, what is wrong with them, and a file that changes."""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import mmdb
from tradewind.keys import KeyMaterialError
from tradewind.locations import Database, locations
from tradewind.placing.locating import PrefixTable, Spot, parse_address, parse_prefixes

BERLIN = {
    "country": {"iso_code": "DE", "names": {"en": "Germany"}},
    "location": {"latitude": 52.5, "longitude": 13.4, "time_zone": "Europe/Berlin"},
}
HONG_KONG = {"country": {"iso_code": "HK"}, "location": {"latitude": 22.3, "longitude": 114.2}}
RECORDS = {"198.51.0.0/16": BERLIN, "198.51.100.0/24": HONG_KONG, "2001:db8::/32": {"country": {"iso_code": "JP"}}}


def look(database: Database, address: str) -> Spot | None:
    found = parse_address(address)
    assert found is not None
    return database.locate(found)


@pytest.mark.parametrize("record_size", [24, 28, 32])
def test_the_longest_prefix_counts(record_size: int) -> None:
    database = Database(mmdb.write(RECORDS, record_size=record_size))
    assert look(database, "198.51.1.1") == Spot("DE", 52.5, 13.4)
    assert look(database, "198.51.100.7") == look(database, "::ffff:198.51.100.7") == Spot("HK", 22.3, 114.2)
    assert look(database, "2001:db8::1") == Spot("JP")
    assert look(database, "203.0.113.1") is None and look(database, "2001:db9::1") is None


def test_a_database_of_ipv4_alone_knows_no_ipv6() -> None:
    database = Database(mmdb.write({"198.51.100.0/24": HONG_KONG}, ip_version=4))
    assert look(database, "198.51.100.7") == Spot("HK", 22.3, 114.2)
    assert look(database, "2001:db8::1") is None


@pytest.mark.parametrize(
    ("record", "spot"),
    [
        ({"country": "SG", "lat": "1.3", "lng": "103.8"}, Spot("SG", 1.3, 103.8)),
        ({"country_code": "sg"}, Spot("SG")),
        ({"location": {"latitude": 1.5, "longitude": 2.5}}, Spot(None, 1.5, 2.5)),
        ({"country": {"iso_code": "SG"}, "location": {"latitude": 91.0, "longitude": 0.0}}, Spot("SG")),
        ({"country": {"iso_code": "SG"}, "location": {"latitude": float("nan"), "longitude": 0.0}}, Spot("SG")),
        ({"country": {"iso_code": "SGP"}, "location": {"latitude": "north", "longitude": 1.0}}, None),
        ({"country": {"names": {"en": "?"}}}, None),
        (["DE"], None),
    ],
)
def test_records_as_others_write_them(record: object, spot: Spot | None) -> None:
    assert look(Database(mmdb.write({"198.51.100.0/24": record})), "198.51.100.1") == spot


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)).map(
            lambda pair: str(ipaddress.ip_network(pair, strict=False))
        ),
        st.sampled_from(["DE", "HK", "SG", "BR"]),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.integers(0, 2**32 - 1), max_size=20),
)
def test_it_agrees_with_the_table_of_prefixes(prefixes: dict[str, str], addresses: list[int]) -> None:
    database = Database(mmdb.write({prefix: {"country": country} for prefix, country in prefixes.items()}))
    table = parse_prefixes("\n".join(f"{prefix},{country}" for prefix, country in prefixes.items()))
    asked = [*addresses, *(int(ipaddress.ip_network(prefix)[0]) for prefix in prefixes)]
    for number in asked:
        address = ipaddress.IPv4Address(number)
        assert database.locate(address) == table.locate(address)


GOOD = mmdb.write({f"{number}.0.0.0/8": BERLIN for number in range(1, 224)})


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(GOOD)))
def test_broken_bytes_are_refused_or_say_nothing_wrong(changes: list[tuple[int, int]], length: int) -> None:
    broken = bytearray(GOOD)
    for at, value in changes:
        broken[at] = value
    for data in (bytes(broken), bytes(broken[:length])):
        with contextlib.suppress(ValueError):
            database = Database(data)
            for address in ("1.2.3.4", "198.51.100.1", "::1", "2001:db8::1", "255.255.255.255"):
                look(database, address)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a MaxMind-format database"),
        (b"PREFIX,COUNTRY\n", "not a MaxMind-format database"),
        (GOOD[: len(GOOD) // 2], "not a MaxMind-format database"),
        (mmdb.write({"0.0.0.0/1": {"asn": "AS1"}}, database_type="Test-ASN"), "Test-ASN database says neither"),
    ],
)
def test_what_is_wrong_is_told_with_the_files_name(data: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "where.mmdb"
    file.write_bytes(data)
    with pytest.raises(KeyMaterialError, match=rf"where\.mmdb: .*{words}"):
        locations(str(file)).load(0.0)
    with pytest.raises(KeyMaterialError, match="No such file"):
        locations(str(tmp_path / "none.mmdb")).load(0.0)


def test_a_file_that_changes_is_read_again_and_a_broken_one_leaves_the_last(tmp_path: Path) -> None:
    file = tmp_path / "where.mmdb"
    file.write_bytes(mmdb.write(RECORDS))
    watched = locations(str(file))
    first = watched.load(0.0)
    assert watched.poll(1.0) is None
    # Written over in place, as `cp` does: what is in use stays whole.
    file.write_bytes(b"half")
    with pytest.raises(KeyMaterialError):
        watched.poll(2.0)
    assert first is not None and first.locate(ipaddress.IPv4Address("198.51.100.1")) == Spot("HK", 22.3, 114.2)
    file.write_bytes(mmdb.write({"198.51.100.0/24": BERLIN}))
    second = watched.poll(3.0)
    assert second is not None and second.locate(ipaddress.IPv4Address("198.51.100.1")) == Spot("DE", 52.5, 13.4)


def test_text_is_read_as_before(tmp_path: Path) -> None:
    file = tmp_path / "where.csv"
    file.write_text("198.51.100.0/24,HK\n")
    assert isinstance(locations(str(file)).load(0.0), PrefixTable)
    file.write_text("198.51.100.0/24,HKG\n")
    with pytest.raises(KeyMaterialError, match=r"where\.csv: line 1"):
        locations(str(file)).load(0.0)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(KeyMaterialError, match=r"where\.csv: not UTF-8"):
        locations(str(file)).load(0.0)
