"""Fragmented MP4 in any splits, with every way of saying where a sample is, and none of it trusted."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client import mp4_by_hand as mp4
from tradewind.client.fmp4 import Frame, Joiner, Kind, Limits, MediaTrack, Mp4Error, Reader, Tracks, encode_chunk

CLIP = Path(__file__).resolve().parent.parent.parent / "control/demo/clip-360p.mp4"


def read(data: bytes) -> list[Tracks | Frame]:
    reader = Reader()
    told = reader.receive(data)
    reader.check_invariants()
    reader.finish()
    return told


def frames(data: bytes) -> list[Frame]:
    return [told for told in read(data) if isinstance(told, Frame)]


def tracks(data: bytes) -> Tracks:
    told = read(data)[0]
    assert isinstance(told, Tracks)
    return told


def only_track(entry: bytes, handler: bytes = b"vide") -> MediaTrack:
    (track,) = tracks(mp4.header(mp4.trak(1, entry, handler=handler))).tracks
    return track


# --- Splits -------------------------------------------------------------------------------------------------------


def test_whole_file() -> None:
    told = read(mp4.simple_file())
    assert isinstance(told[0], Tracks)
    (track,) = told[0].tracks
    assert (track.kind, track.codec, track.timescale) == (Kind.VIDEO, "avc1.42c01e", 30000)
    assert (track.width, track.height, track.language) == (320, 180, "eng")
    assert [frame.decode_time for frame in frames(mp4.simple_file())] == [0, 1000, 2000, 3000, 4000, 5000]
    assert [frame.sync for frame in frames(mp4.simple_file())] == [True, False, False] * 2
    assert [frame.payload for frame in frames(mp4.simple_file())] == [bytes([n]) * (n + 1) for n in range(6)]


def test_byte_by_byte() -> None:
    data = mp4.simple_file()
    reader = Reader()
    told = [event for at in range(len(data)) for event in reader.receive(data[at : at + 1])]
    reader.finish()
    assert told == read(data)
    assert reader.statistics().received_bytes == len(data)


@given(st.lists(st.integers(0, len(mp4.simple_file())), max_size=8))
def test_any_splits_give_the_same(cuts: list[int]) -> None:
    data = mp4.simple_file()
    edges = [0, *sorted(cuts), len(data)]
    reader = Reader()
    told = [event for start, end in pairwise(edges) for event in reader.receive(data[start:end])]
    reader.check_invariants()
    assert told == read(data)


def test_truncated_at_every_byte() -> None:
    data = mp4.simple_file(groups=1)
    whole = read(data)
    for cut in range(len(data)):
        reader = Reader()
        told = reader.receive(data[:cut])
        assert told == whole[: len(told)]
        if cut == len(mp4.VIDEO_HEADER):
            reader.finish()
            continue
        with pytest.raises(Mp4Error, match="ended") as raised:
            reader.finish()
        assert raised.value.offset <= cut


def test_boxes_of_no_interest_pass_by_unbuffered() -> None:
    data = mp4.VIDEO_HEADER + mp4.box("free", bytes(100_000)) + mp4.simple_file()[len(mp4.VIDEO_HEADER) :]
    reader = Reader(Limits(header_bytes=2000, fragment_bytes=100))
    for at in range(0, len(data), 1000):
        reader.receive(data[at : at + 1000])
        assert reader.statistics().buffered_bytes < 3000
    assert reader.statistics().frames == 6


def test_64_bit_sizes() -> None:
    body = mp4.simple_file(groups=1)
    at = body.index(b"mdat") - 4
    large = body[:at] + (1).to_bytes(4, "big") + b"mdat" + (len(body) - at + 8).to_bytes(8, "big") + body[at + 8 :]
    # The data moved by eight bytes, so the run must say so.
    offset = at - body.index(b"moof") + 4 + 8
    large = large.replace(mp4.u32(offset), mp4.u32(offset + 8), 1)
    assert frames(large) == frames(body)


# --- Where samples are --------------------------------------------------------------------------------------------


def test_defaults_from_trex_tfhd_and_first_sample_flags() -> None:
    header = mp4.header(mp4.trak(1, mp4.AVC), extensions=[mp4.trex(1, 512, 2, mp4.DELTA)])
    runs = mp4.full("trun", 0, 0x5, mp4.u32(3), b"@DAT", mp4.u32(mp4.KEY))
    from_trex = frames(header + mp4.fragment([mp4.traf(1, runs)], b"aabbcc"))
    assert [(f.decode_time, f.duration, f.payload, f.sync) for f in from_trex] == [
        (0, 512, b"aa", True), (512, 512, b"bb", False), (1024, 512, b"cc", False),
    ]  # fmt: skip
    traf = mp4.traf(1, runs, defaults=mp4.u32(100, 1), flags=0x020000 | 0x8 | 0x10)
    from_tfhd = frames(header + mp4.fragment([traf], b"abc"))
    assert [(f.decode_time, f.payload) for f in from_tfhd] == [(0, b"a"), (100, b"b"), (200, b"c")]


def test_two_tracks_and_several_runs_in_one_fragment() -> None:
    video = mp4.traf(1, mp4.run([(1000, 1, mp4.KEY, 0)]), mp4.run([(1000, 2, mp4.DELTA, 500)], offset=None), time=9000)
    # Without "base is moof" a second traf starts where the first one's data ended.
    audio = mp4.traf(2, mp4.run([(1024, 3, 0, 0)], offset=None), time=2048, flags=0)
    got = frames(mp4.BOTH_HEADER + mp4.fragment([video, audio], b"vVVaaa"))
    assert [(f.track, f.decode_time, f.presentation_time, f.payload) for f in got] == [
        (1, 9000, 9000, b"v"), (1, 10000, 10500, b"VV"), (2, 2048, 2048, b"aaa"),
    ]  # fmt: skip
    assert got[2].sync


def test_absolute_data_position() -> None:
    row = mp4.full("trun", 0, 0x300, mp4.u32(1), mp4.u32(1000, 4))

    def fragment(at: int) -> bytes:
        return mp4.fragment([mp4.traf(1, row, defaults=mp4.u64(at), flags=0x1)], b"data")

    at = len(mp4.VIDEO_HEADER + fragment(0)) - 4
    assert [f.payload for f in frames(mp4.VIDEO_HEADER + fragment(at))] == [b"data"]


def test_without_tfdt_time_goes_on() -> None:
    part = mp4.fragment([mp4.traf(1, mp4.run([(1000, 1, mp4.KEY, 0), (500, 1, mp4.DELTA, 0)]), time=None)], b"ab")
    assert [f.decode_time for f in frames(mp4.VIDEO_HEADER + part + part)] == [0, 1000, 1500, 2500]


def test_edit_list_becomes_part_of_the_times() -> None:
    # An empty edit of 500/1000 s, then 1024 ticks of priming cut off.
    trak = mp4.trak(1, mp4.AAC, 48000, b"soun", edits=[(500, -1), (0, 1024)])
    part = mp4.fragment([mp4.traf(1, mp4.run([(1024, 1, 0, 0)]))], b"a")
    data = mp4.header(trak) + part
    assert frames(data)[0].decode_time == 24000 - 1024
    assert b"elst" not in tracks(data).tracks[0].init


def test_samples_without_bytes_are_left_out() -> None:
    part = mp4.fragment([mp4.traf(1, mp4.run([(1000, 0, mp4.KEY, 0), (1000, 1, mp4.KEY, 0)]))], b"b")
    assert [(f.decode_time, f.payload) for f in frames(mp4.VIDEO_HEADER + part)] == [(1000, b"b")]


def test_each_track_gets_a_header_of_its_own() -> None:
    told = tracks(mp4.BOTH_HEADER)
    for track in told.tracks:
        (alone,) = tracks(track.init).tracks
        assert (alone.id, alone.codec, alone.init) == (track.id, track.codec, track.init)


def test_unpublishable_tracks_are_named_and_ignored() -> None:
    header = mp4.header(
        mp4.trak(1, mp4.AVC),
        mp4.trak(2, mp4.box("tmcd", bytes(40)), handler=b"tmcd"),
        mp4.trak(3, mp4.visual_entry("encv", mp4.AVCC)),
    )
    rows = mp4.fragment(
        [mp4.traf(3, mp4.run([(1, 1, 0, 0)])), mp4.traf(1, mp4.run([(1, 1, 0, 0)], offset=None), flags=0)], b"xy"
    )
    told = read(header + rows)
    assert isinstance(told[0], Tracks)
    assert [track.id for track in told[0].tracks] == [1]
    assert told[0].skipped == (
        "track 2 is neither video nor audio", "track 3: encrypted media is not supported",
    )  # fmt: skip
    assert [frame.payload for frame in told[1:] if isinstance(frame, Frame)] == [b"y"]


# --- Codecs -------------------------------------------------------------------------------------------------------

HVCC = mp4.box("hvcC", bytes.fromhex("010160000000900000000000" + "5d" + "00" * 10))


@pytest.mark.parametrize(
    ("entry", "codec"),
    [
        (mp4.AVC, "avc1.42c01e"),
        (mp4.visual_entry("avc3", mp4.AVCC), "avc3.42c01e"),
        (mp4.visual_entry("hvc1", HVCC), "hvc1.1.6.L93.90"),
        (mp4.visual_entry("vp09", mp4.full("vpcC", 1, 0, bytes.fromhex("021f a3".replace(" ", "")))), "vp09.02.31.10"),
        (mp4.visual_entry("av01", mp4.box("av1C", bytes.fromhex("8105cc00"))), "av01.0.05H.10"),
    ],
)
def test_video_codec_strings(entry: bytes, codec: str) -> None:
    assert only_track(entry).codec == codec


@pytest.mark.parametrize(
    ("entry", "codec", "rate", "channels", "bitrate"),
    [
        (mp4.AAC, "mp4a.40.2", 48000, 2, 64000),
        (mp4.audio_entry("mp4a", mp4.esds(bytes.fromhex("2b8a0800"))), "mp4a.40.5", 44100, 1, 64000),
        (mp4.audio_entry("mp4a", mp4.esds(b"\x12\x10"), version=1), "mp4a.40.2", 44100, 2, 64000),
        (mp4.audio_entry("mp4a", mp4.esds(b"", 0x6B, 128000)), "mp4a.6b", 48000, 2, 128000),
        (mp4.audio_entry("Opus", mp4.box("dOps", bytes([0, 1]) + bytes(9)), rate=44100), "opus", 48000, 1, 0),
        (
            mp4.audio_entry("fLaC", mp4.full("dfLa", 0, 0, bytes(14), ((96000 << 12) | (5 << 9)).to_bytes(4, "big"))),
            "flac", 96000, 6, 0,
        ),
    ],
)  # fmt: skip
def test_audio_codec_strings(entry: bytes, codec: str, rate: int, channels: int, bitrate: int) -> None:
    track = only_track(entry, b"soun")
    assert (track.codec, track.sample_rate, track.channels, track.bitrate) == (codec, rate, channels, bitrate)


def test_a_declared_bitrate_wins() -> None:
    declared = mp4.box("btrt", mp4.u32(0, 900_000, 500_000))
    assert only_track(mp4.visual_entry("avc1", mp4.AVCC, declared)).bitrate == 500_000


# --- What is refused ----------------------------------------------------------------------------------------------


def simple_fragment(rows: bytes = b"", data: bytes = b"ab") -> bytes:
    return mp4.fragment([mp4.traf(1, rows or mp4.run([(1, 1, 0, 0)] * 2))], data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"G@\x00\x10" * 47, "this is not MP4"),
        (b"RIFF\0\0\0\0AVI LIST", "this is not MP4"),
        (mp4.box("moof"), "before the file's header"),
        (mp4.box("ftyp") + mp4.box("mdat", b"x"), "is not fragmented: remux it with `ffmpeg"),
        (mp4.box("ftyp") + mp4.moov([mp4.trak(1, mp4.AVC)], None), "is not fragmented"),
        (mp4.header(mp4.trak(1, mp4.AVC), mp4.trak(1, mp4.AVC)), "occurs twice"),
        (mp4.header(mp4.trak(1, mp4.box("xxxx", bytes(90)))), "no track that can be published"),
        (mp4.header(mp4.trak(1, mp4.AVC, timescale=0)), "timescale 0"),
        (mp4.header(*[mp4.trak(n, mp4.AVC) for n in range(1, 18)]), "more than 16 tracks"),
        (mp4.VIDEO_HEADER + mp4.BOTH_HEADER, "header changes"),
        (mp4.VIDEO_HEADER + simple_fragment() + simple_fragment()[:-10] * 2, "followed by another"),
        (mp4.VIDEO_HEADER + simple_fragment(data=b"a"), "outside its fragment's data"),
        (mp4.VIDEO_HEADER + simple_fragment(mp4.full("trun", 0, 1, mp4.u32(1 << 31), b"@DAT")), "more samples"),
        (mp4.VIDEO_HEADER + simple_fragment(mp4.full("trun", 0, 0x101, mp4.u32(9), b"@DAT")), "truncated"),
        (mp4.VIDEO_HEADER + mp4.box("moof", mp4.box("traf", mp4.box("free") * 2000)), "more than 1024 boxes"),
        (mp4.VIDEO_HEADER + b"\x7f\xff\xff\xffmoof", "more than the 1048576 allowed"),
        (mp4.VIDEO_HEADER + mp4.box("moof", b"\0\0\0\x40traf"), "reaches beyond its container"),
        (mp4.VIDEO_HEADER + mp4.box("moof", b"\0\0\0\4traf"), "smaller than a box header"),
        (mp4.VIDEO_HEADER + b"\0\0\0\0mdat", "without an end"),
    ],
)
def test_refused_in_words(data: bytes, words: str) -> None:
    reader = Reader()
    with pytest.raises(Mp4Error, match=words.replace("`", ".")) as raised:
        reader.receive(data)
    with pytest.raises(Mp4Error):
        reader.receive(b"")
    assert 0 <= raised.value.offset <= len(data)


def test_a_repeated_header_is_harmless() -> None:
    data = mp4.simple_file(groups=1)
    told = read(data + data)
    assert [type(event) for event in told].count(Tracks) == 1
    assert len(told) == 1 + 6


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_damage_is_an_error_or_harmless(seed: int, count: int) -> None:
    dice = random.Random(seed)
    data = bytearray(mp4.BOTH_HEADER + mp4.simple_file()[len(mp4.VIDEO_HEADER) :])
    for _ in range(count):
        data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    reader = Reader(Limits(samples=64))
    try:
        told = reader.receive(bytes(data))
        reader.finish()
    except Mp4Error:
        return
    assert sum(len(frame.payload) for frame in told if isinstance(frame, Frame)) <= len(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error_or_harmless(data: bytes) -> None:
    for start in (b"", mp4.box("ftyp"), mp4.VIDEO_HEADER):
        try:
            Reader().receive(start + data)
        except Mp4Error as error:
            assert str(error)


# --- Writing ------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(-(2**20), 2**20), st.binary(min_size=1)), min_size=1),
    st.integers(0, 2**60),
)
def test_what_is_written_reads_the_same(rows: list[tuple[int, int, bytes]], start: int) -> None:
    given_frames, time = [], start
    for duration, shift, payload in rows:
        given_frames.append(Frame(1, time, duration, shift, False, mp4.DELTA, payload))
        time += duration
    chunk = encode_chunk(1, 7, start, given_frames)
    assert frames(mp4.VIDEO_HEADER + chunk) == given_frames
    first = encode_chunk(1, 7, start, given_frames[:1])
    assert len(first) - len(rows[0][2]) == (112 if rows[0][1] else 108)


@pytest.mark.parametrize(("time", "count"), [(-1, 1), (0, 0)])
def test_impossible_chunks(time: int, count: int) -> None:
    with pytest.raises(ValueError, match="a chunk of"):
        encode_chunk(1, 1, time, [Frame(1, 0, 1, 0, True, 0, b"x")] * count)


def test_joined_tracks_are_renumbered_and_readable() -> None:
    video, audio = tracks(mp4.BOTH_HEADER).tracks
    joiner = Joiner([audio.init, video.init])
    key = Frame(1, 90, 1000, 0, True, mp4.KEY, b"key")
    sound = Frame(2, 1024, 1024, 0, True, 0, b"sound")
    data = joiner.header()
    data += joiner.add(1, encode_chunk(1, 1, 90, [key]))
    data += joiner.add(0, encode_chunk(2, 1, 1024, [sound, sound]))
    told = read(data)
    assert isinstance(told[0], Tracks)
    assert [(track.id, track.codec) for track in told[0].tracks] == [(1, "mp4a.40.2"), (2, "avc1.42c01e")]
    assert [(f.track, f.decode_time, f.payload) for f in told[1:] if isinstance(f, Frame)] == [
        (2, 90, b"key"), (1, 1024, b"sound"), (1, 2048, b"sound"),
    ]  # fmt: skip


def test_a_broken_chunk_does_not_end_a_joined_track() -> None:
    (track,) = tracks(mp4.VIDEO_HEADER).tracks
    joiner = Joiner([track.init])
    chunk = encode_chunk(1, 1, 0, [Frame(1, 0, 1, 0, True, mp4.KEY, b"x")])
    for broken in (chunk[:-1], chunk + b"\0", chunk.replace(b"mdat", b"\0\0\0\0")):
        with pytest.raises(Mp4Error):
            joiner.add(0, broken)
    assert len(frames(joiner.header() + joiner.add(0, chunk))) == 1


def test_a_joiner_wants_one_track_a_header() -> None:
    with pytest.raises(Mp4Error, match="exactly one track"):
        Joiner([mp4.BOTH_HEADER])


# --- The demo's clip ----------------------------------------------------------------------------------------------


def test_the_clip_loops_without_a_seam() -> None:
    told = read(CLIP.read_bytes())
    assert isinstance(told[0], Tracks)
    for track in told[0].tracks:
        mine = [frame for frame in told if isinstance(frame, Frame) and frame.track == track.id]
        assert mine[0].decode_time == 0
        assert mine[-1].decode_time + mine[-1].duration == 8 * track.timescale
        if track.kind is Kind.VIDEO:
            assert [at for at, frame in enumerate(mine) if frame.sync] == list(range(0, 240, 16))
