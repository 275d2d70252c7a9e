"""Both catalogues, written and read, and read from people who write them differently or badly."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.client.catalog import (
    MAX_CATALOG_BYTES,
    CatalogError,
    MsfReader,
    decode_hang,
    encode_hang,
    encode_msf,
)
from tradewind.client.fmp4 import Kind
from tradewind.client.media import Broadcast, Rendition

HIGH = Rendition(
    "video-360p", Kind.VIDEO, "avc1.42c01f", b"init high", timescale=15360, width=640, height=360, framerate=30,
    bitrate=420_000, average_bitrate=390_000, gop_ms=533, alternatives=1,
)  # fmt: skip
LOW = replace(HIGH, name="video-180p", init=b"init low", width=320, height=180, bitrate=110_000)
SOUND = Rendition(
    "audio", Kind.AUDIO, "mp4a.40.2", b"init sound", timescale=48000, sample_rate=48000, channels=2, language="en",
    bitrate=64_000, average_bitrate=64_000,
)  # fmt: skip
BROADCAST = Broadcast((HIGH, LOW, SOUND))


def msf(**root: Any) -> Broadcast:
    return MsfReader().receive(json.dumps({"version": "draft-01", **root}).encode())


# --- MSF ----------------------------------------------------------------------------------------------------------


def test_msf_as_it_is_written() -> None:
    root = json.loads(encode_msf(BROADCAST, 1_763_800_000_000))
    # initDataList must stand after the tracks, and namespace is inherited from the catalogue's.
    assert list(root) == ["version", "generatedAt", "tracks", "initDataList"]
    assert (root["version"], root["generatedAt"]) == ("draft-01", 1_763_800_000_000)
    high, low, sound = root["tracks"]
    assert high == {
        "name": "video-360p", "packaging": "cmaf", "isLive": True, "role": "video", "renderGroup": 1, "altGroup": 1,
        "initRef": "init-1", "codec": "avc1.42c01f", "timescale": 15360, "bitrate": 420_000, "avgBitrate": 390_000,
        "width": 640, "height": 360, "framerate": 30, "maxGopDuration": 533, "maxGrpSapStartingType": 2,
    }  # fmt: skip
    assert (low["altGroup"], low["initRef"]) == (1, "init-2")
    assert "altGroup" not in sound
    assert (sound["samplerate"], sound["channelConfig"], sound["lang"]) == (48000, "2", "en")
    assert [base64.b64decode(entry["data"]) for entry in root["initDataList"]] == [
        b"init high",
        b"init low",
        b"init sound",
    ]
    assert {entry["type"] for entry in root["initDataList"]} == {"inline"}


def test_equal_initialization_is_written_once() -> None:
    root = json.loads(encode_msf(Broadcast((HIGH, replace(HIGH, name="again"))), 0))
    assert len(root["initDataList"]) == 1
    assert [track["initRef"] for track in root["tracks"]] == ["init-1", "init-1"]


def test_msf_says_when_it_is_complete() -> None:
    ended = Broadcast(tuple(replace(rendition, is_live=False) for rendition in BROADCAST.renditions))
    root = json.loads(encode_msf(ended, 0, complete=True))
    assert root["isComplete"] is True
    assert "isComplete" not in json.loads(encode_msf(ended, 0))
    assert not any(rendition.is_live for rendition in MsfReader().receive(encode_msf(ended, 0)).renditions)


TEXT = st.text(min_size=1, max_size=8)
NUMBER = st.integers(0, 2**53 - 1)


@st.composite
def renditions(draw: st.DrawFn) -> Rendition:
    shared: dict[str, Any] = {
        "name": draw(TEXT), "codec": draw(TEXT), "init": draw(st.binary(min_size=1)), "bitrate": draw(NUMBER),
        "average_bitrate": draw(NUMBER), "timescale": draw(NUMBER), "alternatives": draw(st.none() | NUMBER),
        "is_live": draw(st.booleans()),
    }  # fmt: skip
    if draw(st.booleans()):
        sizes: dict[str, Any] = {"width": draw(NUMBER), "height": draw(NUMBER), "gop_ms": draw(NUMBER)}
        return Rendition(kind=Kind.VIDEO, framerate=draw(st.floats(0, 1000)), **sizes, **shared)
    sizes = {"sample_rate": draw(NUMBER), "channels": draw(st.integers(0, 99))}
    return Rendition(kind=Kind.AUDIO, **sizes, **shared)


@given(st.lists(renditions(), unique_by=lambda rendition: rendition.name))
def test_msf_round_trip(given_renditions: list[Rendition]) -> None:
    broadcast = Broadcast(tuple(given_renditions))
    assert MsfReader().receive(encode_msf(broadcast, 1)) == broadcast


def test_msf_of_others() -> None:
    """Draft 00: a number for a version, inline initData, no role."""
    init = base64.b64encode(b"moov").decode()
    got = msf(
        version=1,
        tracks=[
            {"name": "hd", "packaging": "cmaf", "initData": init, "codec": "avc1.64001f", "width": 1280, "new": []},
            {"name": "a", "packaging": "loc", "codec": "opus", "samplerate": 48000, "channelConfig": "mixed-up"},
            {"name": "t", "packaging": "mediatimeline", "depends": ["hd"]},
            {"name": "c", "packaging": "loc", "role": "caption"},
        ],
    )
    assert [(r.name, r.kind, r.packaging, r.init, r.channels) for r in got.renditions] == [
        ("hd", Kind.VIDEO, "cmaf", b"moov", 0), ("a", Kind.AUDIO, "loc", b"", 0),
    ]  # fmt: skip


def test_msf_deltas_apply_in_order() -> None:
    reader = MsfReader()
    reader.receive(encode_msf(BROADCAST, 1))

    def delta(*operations: tuple[str, dict[str, Any]], **root: Any) -> Broadcast:
        update = [{"op": op, "tracks": [track]} for op, track in operations]
        return reader.receive(json.dumps({"deltaUpdate": update, "generatedAt": 2, **root}).encode())

    got = delta(
        ("clone", {"parentName": "video-180p", "name": "video-90p", "width": 160, "height": 90}),
        ("update", {"parentName": "audio", "bitrate": 1}),
        ("remove", {"name": "video-360p"}),
    )
    assert [r.name for r in got.renditions] == ["video-180p", "audio", "video-90p"]
    cloned = got.named("video-90p")
    assert cloned is not None
    assert (cloned.width, cloned.codec, cloned.init) == (160, HIGH.codec, b"init low")
    assert got.of(Kind.AUDIO)[0].bitrate == 1
    # A later delta builds on the one before; one that fails changes nothing.
    with pytest.raises(CatalogError, match="unknown track"):
        delta(("remove", {"name": "audio"}), ("update", {"parentName": "nobody"}))
    got = delta(
        ("add", {"name": "new", "role": "video", "initRef": "x"}),
        initDataList=[{"id": "x", "type": "inline", "data": "eA=="}],
    )
    assert [(r.name, r.init) for r in got.renditions][-1] == ("new", b"x")
    # An independent catalogue forgets all of it.
    assert reader.receive(encode_msf(BROADCAST, 3)) == BROADCAST


# --- hang ---------------------------------------------------------------------------------------------------------


def test_hang_as_it_is_written() -> None:
    root = json.loads(encode_hang(BROADCAST))
    assert root["video"]["renditions"]["video-360p"] == {
        "codec": "avc1.42c01f",
        "container": {"kind": "cmaf", "init": base64.b64encode(b"init high").decode()},
        "codedWidth": 640, "codedHeight": 360, "framerate": 30, "bitrate": 420_000, "optimizeForLatency": True,
        "jitter": 34,
    }  # fmt: skip
    assert root["video"]["display"] == {"width": 640, "height": 360}
    assert root["audio"]["renditions"]["audio"] == {
        "codec": "mp4a.40.2",
        "container": {"kind": "cmaf", "init": base64.b64encode(b"init sound").decode()},
        "sampleRate": 48000, "numberOfChannels": 2, "bitrate": 64_000,
    }  # fmt: skip
    assert "audio" not in json.loads(encode_hang(Broadcast((HIGH,))))


@given(st.lists(renditions(), unique_by=lambda rendition: rendition.name))
def test_hang_round_trip(given_renditions: list[Rendition]) -> None:
    """What hang can say at all comes back."""

    def said(broadcast: Broadcast) -> set[tuple[object, ...]]:
        return {
            (r.name, r.kind, r.codec, r.init, r.width, r.height, r.framerate, r.sample_rate, r.channels, r.bitrate)
            for r in broadcast.renditions
        }

    broadcast = Broadcast(tuple(given_renditions))
    assert said(decode_hang(encode_hang(broadcast))) == said(broadcast)


def test_hang_of_others() -> None:
    got = decode_hang(
        json.dumps({
            "video": {"renditions": {
                "a": {"codec": "avc3.42c01e", "description": "0142"},
                "b": {"codec": "av01", "container": {"kind": "hologram"}},
                "c": {"codec": "vp8", "broadcast": "../source"},
            }, "rotation": 90},
            "chat": {"message": {"name": "chat"}},
        }).encode()
    )  # fmt: skip
    assert [(r.name, r.packaging, r.alternatives) for r in got.renditions] == [("a", "legacy", 1), ("b", "hologram", 1)]


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{", b"null", b"\xff\xfe", b'{"version": NaN}', b"[" * 100_000, b" " * (MAX_CATALOG_BYTES + 1),
        b'{"version": 1' + b"0" * 5000 + b"}",
    ],
)  # fmt: skip
def test_not_json(data: bytes) -> None:
    with pytest.raises(CatalogError):
        MsfReader().receive(data)
    with pytest.raises(CatalogError):
        decode_hang(data if data != b'{"version": NaN}' else b'{"a": NaN}')


@pytest.mark.parametrize(
    "root",
    [
        {"version": "draft-99", "tracks": []},
        {"tracks": {}},
        {"tracks": [1]},
        {"tracks": [{}]},
        {"tracks": [{"name": ""}]},
        {"tracks": [{"name": "x" * 2000}]},
        {"tracks": [{"name": str(n)} for n in range(300)]},
        {"tracks": [{"name": "v", "role": "video", "width": "wide"}]},
        {"tracks": [{"name": "v", "role": "video", "bitrate": -1}]},
        {"tracks": [{"name": "v", "role": "video", "framerate": True}]},
        {"tracks": [{"name": "v", "role": "video", "width": 1e300}]},
        {"tracks": [{"name": "v", "role": "video", "initData": "not base64!"}]},
        {"tracks": [], "initDataList": [{"id": "i", "data": "%%%"}]},
        {"deltaUpdate": [{"op": "explode", "tracks": [{"name": "x"}]}]},
        {"deltaUpdate": "x"},
    ],
)
def test_msf_refused(root: dict[str, Any]) -> None:
    with pytest.raises(CatalogError):
        msf(**root)


@pytest.mark.parametrize(
    "rendition",
    [
        5, {}, {"codec": 5}, {"codec": "x", "container": {}}, {"codec": "x", "container": {"kind": "cmaf"}},
        {"codec": "x", "container": {"kind": "cmaf", "init": "?"}}, {"codec": "x", "codedWidth": 2**60},
    ],
)  # fmt: skip
def test_hang_refused(rendition: object) -> None:
    with pytest.raises(CatalogError):
        decode_hang(json.dumps({"video": {"renditions": {"v": rendition}}}).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["version", "tracks", "name", "role", "width", "initDataList", "id", "data", "deltaUpdate", "op", "video",
             "renditions", "codec", "container", "kind", "init", "parentName"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_any_json_is_a_catalogue_or_an_error(value: object) -> None:
    data = json.dumps(value).encode()
    for read in (MsfReader().receive, decode_hang):
        try:
            assert isinstance(read(data), Broadcast)
        except CatalogError as error:
            assert str(error)
