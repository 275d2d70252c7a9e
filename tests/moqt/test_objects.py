"""Subgroups and datagrams on the wire: golden bytes, any split of them, round trips, limits, and hostile bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.moqt.decoding import (
    ANY_ID,
    D16,
    D18,
    D20,
    D22,
    QUICK,
    cases,
    every_draft,
    in_steps,
    joined,
    outcome,
    spelled,
    spelled_datagram,
)
from tests.moqt.wire_values import datagrams, subgroups
from tradewind.moqt.errors import MisuseError, ProtocolViolation, SessionCode
from tradewind.moqt.fetched import FetchDecoder, FetchEncoder, RangeMark, encode_fetch_header
from tradewind.moqt.model import (
    MAX_VARINT,
    DatagramObject,
    FetchObject,
    GroupOrder,
    Location,
    ObjectHeader,
    ObjectStatus,
    Properties,
    RangeEnd,
    SubgroupHeader,
)
from tradewind.moqt.objects import (
    StreamKind,
    SubgroupDecoder,
    decode_datagram,
    encode_datagram,
    encode_object_header,
    encode_subgroup_header,
    stream_kind,
)
from tradewind.moqt.pieces import ObjectLimits, ObjectTooLarge, Piece
from tradewind.moqt.profiles import Profile

# --- Subgroup streams ------------------------------------------------------------------------------------------------


def subgroup_bytes(profile: Profile, header: SubgroupHeader, objects: list[tuple[ObjectHeader, bytes]]) -> bytes:
    parts = [encode_subgroup_header(profile, header)]
    previous = None
    for found, payload in objects:
        parts += (encode_object_header(profile, previous, found, header.has_properties), payload)
        previous = found.id
    return b"".join(parts)


@cases("subgroup")
class TestSubgroupVectors:
    def test_whole_and_in_any_pieces(self, profile: Profile, vector: dict[str, Any]) -> None:
        data = bytes.fromhex(vector["hex"])
        assert [spelled(item) for item in in_steps(SubgroupDecoder(profile), data, len(data))] == vector["items"]
        for step in range(1, len(data)):
            items = joined(in_steps(SubgroupDecoder(profile), data, step))
            assert [spelled(item) for item in items] == vector["items"]

    def test_encoded(self, profile: Profile, vector: dict[str, Any]) -> None:
        data = bytes.fromhex(vector["hex"])
        header, *items = in_steps(SubgroupDecoder(profile), data, len(data))
        objects: list[tuple[ObjectHeader, bytes]] = []
        for item in items:
            if isinstance(item, Piece):
                objects[-1] = (objects[-1][0], item.data)
            else:
                objects.append((item, b""))
        expected = bytes.fromhex(vector.get("canonical", vector["hex"]))
        assert subgroup_bytes(profile, header, objects).hex() == expected.hex()

    def test_fin_inside_anything(self, profile: Profile, vector: dict[str, Any]) -> None:
        data = bytes.fromhex(vector["hex"])
        whole = SubgroupDecoder(profile)
        ends = {0}
        for end in range(1, len(data) + 1):
            match list(whole.receive(data[end - 1 : end])):
                case [*_, SubgroupHeader() | Piece(last=True) | ObjectHeader(length=0)]:
                    ends.add(end)
        for end in range(1, len(data)):
            decoder = SubgroupDecoder(profile)
            list(decoder.receive(data[:end]))
            if end in ends:
                decoder.finish()
            else:
                with pytest.raises(ProtocolViolation):
                    decoder.finish()


@cases("subgroup_refused")
def test_subgroups_that_break_the_draft(profile: Profile, vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    for step in (len(data), 1):
        decoder = SubgroupDecoder(profile, ANY_ID)
        with pytest.raises(ProtocolViolation) as raised:
            in_steps(decoder, data, step)
        assert SessionCode(raised.value.code).name == vector.get("code", "PROTOCOL_VIOLATION")


@every_draft
@QUICK
@given(data=st.data())
def test_subgroups_come_back(profile: Profile, data: st.DataObject) -> None:
    header, objects = data.draw(subgroups(profile))
    whole = subgroup_bytes(profile, header, objects)
    expected: list[Any] = [header]
    for found, payload in objects:
        expected += [found, Piece(payload, True)] if payload else [found]
    assert in_steps(SubgroupDecoder(profile, ANY_ID), whole, len(whole)) == expected
    step = data.draw(st.integers(1, 9))
    assert joined(in_steps(SubgroupDecoder(profile, ANY_ID), whole, step)) == expected


@every_draft
@settings(parent=QUICK, max_examples=60)
@given(start=st.sampled_from([b"\x10", b"\x11", b"\x14", b"\x39"]), rest=st.binary(max_size=60), step=st.integers(1, 5))
def test_any_split_of_any_bytes_gives_the_same(profile: Profile, start: bytes, rest: bytes, step: int) -> None:
    data = start + rest
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    assert outcome(SubgroupDecoder(profile), pieces) == outcome(SubgroupDecoder(profile), [data])


def test_payload_is_handed_on_as_it_comes_and_not_copied() -> None:
    decoder = SubgroupDecoder(D20)
    start = subgroup_bytes(D20, SubgroupHeader(1, 0, 0, None, has_properties=False), [(ObjectHeader(0, 3000), b"")])
    assert len(list(decoder.receive(start))) == 2
    chunk = b"x" * 1200
    [piece] = decoder.receive(chunk)
    assert isinstance(piece, Piece)
    assert piece.data is chunk
    assert list(decoder.receive(chunk)) == [Piece(chunk, False)]
    assert list(decoder.receive(b"")) == []
    assert list(decoder.receive(b"y" * 600 + b"\x00")) == [Piece(b"y" * 600, True)]
    assert decoder.buffered_bytes == 1


def test_limits_on_one_object() -> None:
    limits = ObjectLimits(payload_bytes=100, properties_bytes=10)
    header = encode_subgroup_header(D20, SubgroupHeader(1, 0, 0, None))
    fits = encode_object_header(D20, None, ObjectHeader(0, 100, properties=((1, b"x" * 8),)), True)
    assert len(list(SubgroupDecoder(D20, limits).receive(header + fits))) == 2
    for length, properties in [(101, ()), (1, ((1, b"x" * 9),))]:
        over = encode_object_header(D20, None, ObjectHeader(0, length, properties=properties), True)
        with pytest.raises(ObjectTooLarge):
            list(SubgroupDecoder(D20, limits).receive(header + over))
        fetch = FetchEncoder(D20, GroupOrder.ASCENDING)
        over = fetch.object(FetchObject(0, 0, ObjectHeader(0, length, properties=properties), 1))
        with pytest.raises(ObjectTooLarge):
            list(FetchDecoder(D20, GroupOrder.ASCENDING, limits).receive(over))
        datagram = DatagramObject(1, 0, ObjectHeader(0, length, properties=properties), 1, False, b"x" * length)
        with pytest.raises(ObjectTooLarge):
            decode_datagram(D20, encode_datagram(D20, datagram) + datagram.payload, limits)


def test_ids_that_an_older_draft_could_not_carry_are_not_taken() -> None:
    over = 2**62
    headers: list[tuple[SubgroupHeader, list[tuple[ObjectHeader, bytes]]]] = [
        (SubgroupHeader(1, over, 0, None, has_properties=False), []),
        (SubgroupHeader(1, 0, over, None, has_properties=False), []),
        (SubgroupHeader(1, 0, 0, None, has_properties=False), [(ObjectHeader(over, 1), b"x")]),
    ]
    for header, objects in headers:
        with pytest.raises(ObjectTooLarge):
            list(SubgroupDecoder(D20).receive(subgroup_bytes(D20, header, objects)))
    for group, subgroup, id in [(over, 0, 0), (0, over, 0), (0, 0, over)]:
        fetch = FetchEncoder(D20, GroupOrder.ASCENDING).object(FetchObject(group, subgroup, ObjectHeader(id, 0), 1))
        with pytest.raises(ObjectTooLarge):
            list(FetchDecoder(D20, GroupOrder.ASCENDING).receive(fetch))
        with pytest.raises(ObjectTooLarge):
            sent = DatagramObject(1, group, ObjectHeader(id or subgroup, 0), 1, False, b"")
            decode_datagram(D20, encode_datagram(D20, sent))
    largest = SubgroupHeader(2**64 - 1, over - 1, over - 1, None, has_properties=False)
    assert list(SubgroupDecoder(D20).receive(encode_subgroup_header(D20, largest))) == [largest]


def test_what_comes_over_a_new_draft_can_be_written_for_an_old_one() -> None:
    header = ObjectHeader(1, 1, properties=((2, 2**62), (4, 5), (5, b"x"), (2**62, 1)))
    decoder = SubgroupDecoder(D16)
    start = encode_subgroup_header(D16, SubgroupHeader(1, 0, 0, None))
    items = list(decoder.receive(start + encode_object_header(D16, None, header, True)))
    assert items[1] == ObjectHeader(1, 1, properties=((4, 5), (5, b"x")))
    mark = FetchEncoder(D16, GroupOrder.ASCENDING).range_end(RangeEnd.UNKNOWN, Location(2**63, MAX_VARINT))
    expected = RangeMark(RangeEnd.UNKNOWN, Location(2**62 - 1, 2**62 - 1))
    assert list(FetchDecoder(D16, GroupOrder.ASCENDING).receive(mark)) == [expected]


def test_a_long_header_in_single_bytes_is_read_once() -> None:
    properties: Properties = ((1, b"x" * 60_000),)
    data = subgroup_bytes(D20, SubgroupHeader(1, 0, 0, None), [(ObjectHeader(0, 1, properties=properties), b"!")])
    decoder = SubgroupDecoder(D20)
    asked = []
    read = decoder._next

    def counting(pending: bytes, offset: int) -> Any:
        asked.append(len(pending))
        return read(pending, offset)

    list(decoder.receive(data[:4]))
    read, decoder._next = decoder._next, counting
    items = [item for at in range(4, len(data)) for item in decoder.receive(data[at : at + 1])]
    assert items == [ObjectHeader(0, 1, properties=properties), Piece(b"!", True)]
    assert len(asked) < 10


def test_object_headers_that_nobody_may_write() -> None:
    for previous, header, has_properties in [
        (5, ObjectHeader(5, 1), False),
        (5, ObjectHeader(4, 1), False),
        (None, ObjectHeader(0, 1, ObjectStatus.END_OF_GROUP), False),
        (None, ObjectHeader(0, 1, properties=((2, 1),)), False),
    ]:
        with pytest.raises(MisuseError):
            encode_object_header(D20, previous, header, has_properties)


def test_first_object_flag_is_left_out_where_the_draft_lacks_it() -> None:
    header = SubgroupHeader(1, 0, 0, None, first_object=True, has_properties=False)
    assert encode_subgroup_header(D16, header).hex() == "300100"
    assert encode_subgroup_header(D20, header).hex() == "700100"


# --- Datagrams -------------------------------------------------------------------------------------------------------


@cases("datagram")
def test_datagram_vectors(profile: Profile, vector: dict[str, Any]) -> None:
    found = decode_datagram(profile, bytes.fromhex(vector["hex"]))
    assert spelled_datagram(found) == vector["value"]
    assert found is not None
    expected = bytes.fromhex(vector.get("canonical", vector["hex"]))
    assert (encode_datagram(profile, found) + found.payload).hex() == expected.hex()


@cases("datagram_refused")
def test_datagrams_that_break_the_draft(profile: Profile, vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolation):
        decode_datagram(profile, bytes.fromhex(vector["hex"]))


@every_draft
@QUICK
@given(data=st.data())
def test_datagrams_come_back(profile: Profile, data: st.DataObject) -> None:
    sent = data.draw(datagrams(profile))
    whole = encode_datagram(profile, sent) + sent.payload
    assert decode_datagram(profile, whole, ANY_ID) == sent
    for end in range(len(whole)):
        try:
            shorter = decode_datagram(profile, whole[:end], ANY_ID)
        except ProtocolViolation:
            continue
        assert shorter is None or len(shorter.payload) <= len(sent.payload)


@every_draft
@settings(parent=QUICK, max_examples=100)
@given(data=st.binary(max_size=30))
def test_any_datagram(profile: Profile, data: bytes) -> None:
    try:
        found = decode_datagram(profile, data)
    except ProtocolViolation:
        return
    assert found is None or found.header.length == len(found.payload)


def test_padding_is_read_and_thrown_away() -> None:
    for profile in (D18, D20, D22):
        assert decode_datagram(profile, profile.varint.encode(0x132B3E29) + b"\0" * 50) is None


# --- Kinds of streams ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("05", StreamKind.FETCH),
        ("10", StreamKind.SUBGROUP),
        ("7d", StreamKind.SUBGROUP),
        ("af00", StreamKind.SETUP),
        ("f0132b3e28", StreamKind.PADDING),
        ("f0132b3e", None),
        ("af", None),
        ("", None),
    ],
)
def test_stream_kinds(data: str, kind: StreamKind | None) -> None:
    assert stream_kind(D20, bytes.fromhex(data)) is kind


@pytest.mark.parametrize(
    ("profile", "data"),
    [(D20, "00"), (D20, "06"), (D20, "20"), (D20, "8090"), (D16, "6f00"), (D16, "932b3e28")],
)
def test_unknown_stream_kinds(profile: Profile, data: str) -> None:
    with pytest.raises(ProtocolViolation, match="unknown stream type"):
        stream_kind(profile, bytes.fromhex(data))


@every_draft
def test_own_streams_are_recognised(profile: Profile) -> None:
    header = encode_subgroup_header(profile, SubgroupHeader(1, 2, 3, 4, end_of_group=True, first_object=True))
    assert stream_kind(profile, header) is StreamKind.SUBGROUP
    assert stream_kind(profile, encode_fetch_header(profile, 9)) is StreamKind.FETCH
