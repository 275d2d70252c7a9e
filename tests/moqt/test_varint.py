"""Variable-length integers: the drafts' examples, every length's edges, and every way to be cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.moqt.errors import MisuseError
from tradewind.moqt.varint import QUIC, VI64, VarintCodec

CODECS = {codec.name: codec for codec in (QUIC, VI64)}
VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "moqt_varint.json").read_text())
CASES = [
    pytest.param(CODECS[name], bytes.fromhex(encoding), value, id=f"{name}-{encoding}")
    for name, rows in VECTORS.items()
    for encoding, value in rows
]
QUICK = settings(max_examples=200, derandomize=True, database=None, deadline=None)
EDGES = [edge for bits in range(65) for edge in (2**bits - 1, 2**bits)]


@pytest.mark.parametrize(("codec", "encoding", "value"), CASES)
class TestVectors:
    def test_decode_with_bytes_behind(self, codec: VarintCodec, encoding: bytes, value: int) -> None:
        for buffer in (encoding, bytearray(encoding), memoryview(encoding)):
            assert codec.decode(buffer, 0) == (value, len(encoding))
        assert codec.decode(b"\x7f" + encoding + b"\xff\x00", 1) == (value, 1 + len(encoding))

    def test_cut_short(self, codec: VarintCodec, encoding: bytes, value: int) -> None:
        for length in range(len(encoding)):
            assert codec.decode(encoding[:length], 0) is None

    def test_never_longer_than_needed(self, codec: VarintCodec, encoding: bytes, value: int) -> None:
        shortest = codec.encode(value)
        assert len(shortest) <= len(encoding)
        assert codec.decode(shortest, 0) == (value, len(shortest))


@pytest.mark.parametrize("codec", [QUIC, VI64], ids=lambda codec: codec.name)
class TestEveryValue:
    def test_edges(self, codec: VarintCodec) -> None:
        for value in (edge for edge in EDGES if edge <= codec.maximum):
            encoded = codec.encode(value)
            assert codec.decode(encoded, 0) == (value, len(encoded))
            assert (len(encoded) == 1) == (value < codec.one_byte_limit)

    @QUICK
    @given(data=st.data())
    def test_comes_back(self, codec: VarintCodec, data: st.DataObject) -> None:
        value = data.draw(st.integers(0, codec.maximum))
        encoded = codec.encode(value)
        assert codec.decode(encoded, 0) == (value, len(encoded))

    @QUICK
    @given(buffer=st.binary(max_size=12), offset=st.integers(0, 14))
    def test_any_bytes(self, codec: VarintCodec, buffer: bytes, offset: int) -> None:
        decoded = codec.decode(buffer, offset)
        if decoded is not None:
            value, end = decoded
            assert offset < end <= len(buffer)
            assert 0 <= value <= codec.maximum
            assert len(codec.encode(value)) <= end - offset

    def test_out_of_range(self, codec: VarintCodec) -> None:
        for value in (-1, codec.maximum + 1):
            with pytest.raises(MisuseError):
                codec.encode(value)


def test_lengths_are_the_drafts_table() -> None:
    for length in range(1, 9):
        assert len(VI64.encode(2 ** (7 * length) - 1)) == length
        assert len(VI64.encode(2 ** (7 * length))) == length + 1
    assert len(VI64.encode(2**64 - 1)) == 9
    assert [len(QUIC.encode(2**bits - 1)) for bits in (6, 14, 30, 62)] == [1, 2, 4, 8]
    assert [len(QUIC.encode(2**bits)) for bits in (6, 14, 30)] == [2, 4, 8]
