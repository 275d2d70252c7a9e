"""WebTransport's bytes: codes, capsules, protocol lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.quic.wire import (
    CapsuleError,
    CapsuleReader,
    CloseCapsule,
    DrainCapsule,
    decode_protocols,
    encode_close,
    encode_protocols,
    from_http_code,
    pull_varint,
    stream_header,
    to_http_code,
)

RESERVED = [0x52E4A40FA8F9 + 0x1F * number for number in range(8)]


def test_codes_as_the_draft_lists_them():
    assert to_http_code(0) == 0x52E4A40FA8DB
    assert to_http_code(0xFF) == 0x52E4A40FA9E2
    assert to_http_code(0xFFFFFFFF) == 0x52E5AC983162
    assert [from_http_code(code) for code in RESERVED] == [None] * 8
    assert from_http_code(0x52E4A40FA8DA) is from_http_code(0x52E5AC983163) is from_http_code(0x100) is None


@given(st.integers(0, 0xFFFFFFFF))
def test_codes_come_back(code):
    assert from_http_code(to_http_code(code)) == code


def test_stream_headers():
    assert stream_header(True, 0) == b"\x40\x54\x00"
    assert stream_header(False, 4) == b"\x40\x41\x04"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x25", (37, 1)),
        (b"\x7b\xbd", (15293, 2)),
        (b"\x9d\x7f\x3e\x7d", (494878333, 4)),
        (b"\x7b", None),
        (b"", None),
    ],
)
def test_varints(data, value):
    assert pull_varint(data, 0) == value


CAPSULES = b"\x41\x05\x03abc" + b"\x80\x00\x78\xae\x00" + encode_close(42, "bye")
READ = [DrainCapsule(), CloseCapsule(42, "bye")]


@pytest.mark.parametrize("cut", range(len(CAPSULES) + 1))
def test_capsules_in_two_pieces(cut):
    reader = CapsuleReader()
    got = reader.feed(CAPSULES[:cut])
    assert reader.midway is (cut not in (0, 6, 11, len(CAPSULES)))
    assert got + reader.feed(CAPSULES[cut:]) == READ
    assert not reader.midway


def test_capsules_byte_by_byte():
    reader = CapsuleReader()
    assert [capsule for byte in CAPSULES for capsule in reader.feed(bytes([byte]))] == READ


def test_unknown_capsules_are_not_kept():
    reader = CapsuleReader()
    assert reader.feed(b"\x41\x05\xbf\xff\xff\xff" + bytes(100_000)) == []
    assert not reader._buffer


@pytest.mark.parametrize("data", [b"\x68\x43\x03abc", b"\x68\x43\x44\x05" + bytes(1029), b"\x68\x43\x05\0\0\0\0\xff"])
def test_bad_close_capsules(data):
    with pytest.raises(CapsuleError):
        CapsuleReader().feed(data)


@given(st.integers(0, 0xFFFFFFFF), st.text(max_size=3000))
def test_close_comes_back_cut(code, reason):
    (capsule,) = CapsuleReader().feed(encode_close(code, reason))
    assert isinstance(capsule, CloseCapsule)
    assert capsule.code == code
    assert reason.startswith(capsule.reason)
    assert len(capsule.reason.encode()) > 1020 or capsule.reason == reason


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_capsules_or_an_error(pieces):
    reader = CapsuleReader()
    try:
        for piece in pieces:
            reader.feed(piece)
    except CapsuleError:
        return
    assert len(reader._buffer) <= 1028 + 16


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10), min_size=1, max_size=20))
def test_protocol_lists_come_back(protocols):
    assert decode_protocols([encode_protocols(protocols).encode()]) == tuple(protocols)


@pytest.mark.parametrize(
    ("values", "protocols"),
    [
        ([b'"moqt-20", "moqt-16"'], ("moqt-20", "moqt-16")),
        ([b'"a"', b' "b";q=1; t="x,\\"y"\t,"c"'], ("a", "b", "c")),
        ([b'"a\\\\\\"b"'], ('a\\"b',)),
        ([], ()),
        ([b""], ()),
        ([b"moqt-20"], ()),
        ([b'"a", b'], ()),
        ([b'"a",'], ()),
        ([b'"a" "b"'], ()),
        ([b'"a" ;q=1'], ()),
        ([b'"a'], ()),
        ([b'"a\\x"'], ()),
        ([b'"\xc3\xa4"'], ()),
        ([b'"a";x="'], ()),
        ([b'"' + b"a" * 5000 + b'"'], ()),
        ([b'"a",' * 65 + b'"a"'], ()),
    ],
)
def test_protocol_lists_as_they_come(values, protocols):
    assert decode_protocols(values) == protocols


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_any_protocol_list_is_taken(values):
    assert all(isinstance(protocol, str) for protocol in decode_protocols(values))
