"""Fetch streams on the wire: golden bytes, any split of them, round trips, and what nobody may write."""

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
)
from tests.moqt.wire_values import DRAFTS, fetched, numbers
from tradewind.moqt.errors import MisuseError, ProtocolViolation
from tradewind.moqt.fetched import (
    FetchDecoder,
    FetchEncoder,
    FetchItem,
    RangeMark,
    decode_fetch_header,
    encode_fetch_header,
)
from tradewind.moqt.model import FetchObject, GroupOrder, Location, ObjectHeader, ObjectStatus, RangeEnd
from tradewind.moqt.pieces import Piece
from tradewind.moqt.profiles import Profile


@cases("fetch")
class TestFetchVectors:
    def test_whole_and_in_any_pieces(self, profile: Profile, vector: dict[str, Any]) -> None:
        data = fetch_vector(profile, vector)
        header = decode_fetch_header(profile, data)
        assert header == (4, 2)
        for step in range(1, len(data)):
            decoder = FetchDecoder(profile, GroupOrder(vector["order"]))
            assert [spelled(item) for item in joined(in_steps(decoder, data[2:], step))] == vector["items"]

    def test_encoded(self, profile: Profile, vector: dict[str, Any]) -> None:
        data = fetch_vector(profile, vector)
        encoder = FetchEncoder(profile, GroupOrder(vector["order"]))
        decoder = FetchDecoder(profile, GroupOrder(vector["order"]))
        written = encode_fetch_header(profile, 4)
        for item in decoder.receive(data[2:]):
            if isinstance(item, Piece):
                written += item.data
            elif isinstance(item, RangeMark):
                written += encoder.range_end(item.kind, item.location)
            else:
                written += encoder.object(item)
        assert written.hex() == data.hex()


def fetch_vector(profile: Profile, vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector.get("hex_18", vector["hex"]) if profile.draft > 16 else vector["hex"])


@cases("fetch_refused")
def test_fetches_that_break_the_draft(profile: Profile, vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    for step in (len(data), 1):
        with pytest.raises(ProtocolViolation):
            in_steps(FetchDecoder(profile, GroupOrder.ASCENDING, ANY_ID), data, step)


@every_draft
@settings(parent=QUICK, max_examples=60)
@given(rest=st.binary(max_size=60), step=st.integers(1, 5), order=st.sampled_from(GroupOrder))
def test_any_split_of_any_fetch_gives_the_same(profile: Profile, rest: bytes, step: int, order: GroupOrder) -> None:
    data = b"\x1c\x05\x05\x80\x00" + rest
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    assert outcome(FetchDecoder(profile, order), pieces) == outcome(FetchDecoder(profile, order), [data])


def test_a_descending_fetch_cannot_pass_group_0() -> None:
    decoder = FetchDecoder(D20, GroupOrder.DESCENDING)
    with pytest.raises(ProtocolViolation):
        list(decoder.receive(bytes.fromhex("1c 02 00 80 00  0c 02 00 00")))


@every_draft
@pytest.mark.parametrize("order", GroupOrder, ids=lambda order: order.name)
@QUICK
@given(data=st.data())
def test_fetches_come_back(profile: Profile, order: GroupOrder, data: st.DataObject) -> None:
    encoder = FetchEncoder(profile, order)
    written = b""
    expected: list[Any] = []
    for sent, payload in data.draw(fetched(profile, order)):
        written += encoder.object(sent) + payload
        expected += [sent, Piece(payload, True)] if payload else [sent]
        if data.draw(st.booleans()):
            kind = data.draw(st.sampled_from([RangeEnd.DOES_NOT_EXIST, RangeEnd.UNKNOWN]))
            location = Location(sent.group, sent.header.id)
            written += encoder.range_end(kind, location)
            expected.append(RangeMark(kind, location))
    step = data.draw(st.integers(1, 9))
    assert joined(in_steps(FetchDecoder(profile, order, ANY_ID), written, step)) == expected
    assert in_steps(FetchDecoder(profile, order, ANY_ID), written, max(len(written), 1)) == expected


@every_draft
@QUICK
@given(data=st.data())
def test_fetch_header_comes_back(profile: Profile, data: st.DataObject) -> None:
    request = data.draw(numbers(profile))
    encoded = encode_fetch_header(profile, request)
    assert decode_fetch_header(profile, encoded + b"\x1c") == (request, len(encoded))
    for end in range(len(encoded)):
        assert decode_fetch_header(profile, encoded[:end]) is None


def test_timed_out_is_unknown_where_the_draft_has_no_word_for_it() -> None:
    def marked(profile: Profile) -> list[FetchItem]:
        encoded = FetchEncoder(profile, GroupOrder.ASCENDING).range_end(RangeEnd.TIMED_OUT, Location(3, 4))
        return list(FetchDecoder(profile, GroupOrder.ASCENDING).receive(encoded))

    assert marked(D20) == marked(D22) == [RangeMark(RangeEnd.TIMED_OUT, Location(3, 4))]
    assert marked(D16) == marked(D18) == [RangeMark(RangeEnd.UNKNOWN, Location(3, 4))]


def test_fetch_objects_that_nobody_may_write() -> None:
    def sent(group: int, id: int, status: ObjectStatus = ObjectStatus.NORMAL) -> FetchObject:
        return FetchObject(group, 0, ObjectHeader(id, 0, status), 1)

    for profile in DRAFTS:
        encoder = FetchEncoder(profile, GroupOrder.ASCENDING)
        encoder.object(sent(5, 5))
        for wrong in [sent(4, 0), sent(5, 5), sent(5, 4), sent(6, 0, ObjectStatus.END_OF_GROUP)]:
            with pytest.raises(MisuseError):
                encoder.object(wrong)
