"""Messages of a room as bytes: whole, torn, bent, and in each other's place."""

from __future__ import annotations

import contextlib
import zlib

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tradewind.contract import rooms
from tradewind.contract.rooms import Ack, Message, Nak, Opening, Publish, Record, RoomMessageError, Why, decode, encode

numbers = st.integers(0, 2**53)
keys = st.binary(min_size=16, max_size=16)
fields = st.binary(min_size=1, max_size=20)
names = st.lists(fields, min_size=1, max_size=4).map(tuple)
bodies = st.binary(max_size=100)
maybe = st.none() | numbers
langs = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=35)
messages = st.one_of(
    st.builds(Publish, names, keys, st.integers(0, 3), numbers, bodies, langs, maybe, maybe, maybe),
    st.builds(Ack, keys, numbers, numbers, st.booleans(), st.integers(1, 2), numbers),
    st.builds(Nak, keys, st.sampled_from(Why), maybe, st.none() | st.just("relay-1")),
    st.builds(Record, numbers, numbers, keys, fields, st.integers(0, 3), numbers, numbers, bodies,
              st.binary(min_size=8, max_size=8), langs, maybe),
    st.builds(Opening, numbers, numbers, st.just("relay-1")),
)  # fmt: skip
RECORD = Record(3, 513, b"k" * 16, b"ann", 3, 1, 2, b"hello", b"p" * 8, "en")


@given(messages)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    assert encode(decode(data)) == data


@given(messages, st.data())
def test_torn_and_lengthened(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    for bad in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\0"):
        with pytest.raises(RoomMessageError):
            decode(bad)


@given(st.integers(0, 8 * len(encode(RECORD)) - 1))
def test_no_bit_of_a_record_may_flip(bit: int) -> None:
    data = bytearray(encode(RECORD))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RoomMessageError):
        decode(bytes(data))


@given(st.binary(max_size=300))
@example(b"\x81" * 3000)
@example(b"\x91" * 3000)
@example(b"\xd6\xff\0\0\0\0")
@example(b"\x81\x90\x01")
@example(b"\x81\xa1\xff\x01")
@example(b"\xdf\xff\xff\xff\xff")
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(RoomMessageError):
        decode(data)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=20) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 16) | st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.integers(0, 6), st.dictionaries(st.integers(0, 15), anything, max_size=12))
def test_any_map(tag: int, more: dict[int, object]) -> None:
    try:
        message = decode(msgpack.packb({0: tag} | {key: value for key, value in more.items() if key}))
    except RoomMessageError:
        return
    assert decode(encode(message)) == message


@given(messages, st.integers(0, 12), anything)
def test_one_field_bent(message: Message, number: int, value: object) -> None:
    known = msgpack.unpackb(encode(message), strict_map_key=False)
    known.pop(15, None)
    packed = msgpack.packb(known | {number: value, 15: 0xFFFFFFFF})[:-4]
    with contextlib.suppress(RoomMessageError):
        decode(packed + zlib.crc32(packed).to_bytes(4, "big"))


def test_a_key_twice() -> None:
    data = encode(Opening(1, 2, "a"))
    assert data[0] == 0x84
    with pytest.raises(RoomMessageError):
        decode(b"\x85" + data[1:] + b"\x01\x01")


@pytest.mark.parametrize(
    "message",
    [
        Publish((), b"k" * 16, 3, 0, b""),
        Publish((b"r",), b"k" * 15, 3, 0, b""),
        Publish((b"r",), b"k" * 16, 4, 0, b""),
        Publish((b"r",), b"k" * 16, 3, -1, b""),
        Publish((b"r",), b"k" * 16, 3, 0, bytes(rooms.MAX_BODY_BYTES + 1)),
        Publish((b"r",), b"k" * 16, 3, 0, b"", "\ud800"),
        Ack(b"k" * 16, 1, 1, False, 3, 0),
    ],
)
def test_what_nobody_may_send(message: Message) -> None:
    with pytest.raises(RoomMessageError):
        encode(message)


def test_the_longest_message_fits() -> None:
    room = (b"f" * 255,) * rooms.MAX_ROOM_FIELDS
    whole = Publish(room, b"k" * 16, 3, 2**53, bytes(rooms.MAX_BODY_BYTES), "\U0001f600" * 35, 2**53, 2**53, 2**53)
    assert decode(encode(whole)) == whole


def test_places() -> None:
    assert rooms.location_of(0) == (0, 0)
    assert rooms.location_of(513) == (2, 1)
    room = (b"app", b"r", b"show")
    assert rooms.log_namespace(room, 7) == (b"app", b"r", b"show", b"7")
    assert rooms.writer_of(room, rooms.writer_namespace(room, (b"ann",))) == (b"ann",)
    assert rooms.writer_of(room, rooms.writer_namespace(room, (b"ann", b"phone"))) == (b"ann", b"phone")
    for other in ((b"app", b"r", b"show", b"w"), (*room, b"w", b"a", b"b", b"c"), (*room, b"a", b"ann"), room):
        assert rooms.writer_of(room, other) is None


def test_a_record_on_the_wire() -> None:
    """By hand: what another implementation has to write."""
    data = encode(RECORD)
    packed = (
        b"\x8c\x00\x04\x01\x03\x02\xcd\x02\x01\x03\xc4\x10" + b"k" * 16 + b"\x04\xc4\x03ann\x05\x03\x06\x01\x07\x02"
        b"\x08\xc4\x05hello\x09\xc4\x08" + b"p" * 8 + b"\x0a\xa2en\x0f\xce"
    )
    assert data == packed + zlib.crc32(packed).to_bytes(4, "big")
    assert len(rooms.chain_of(data)) == 8
