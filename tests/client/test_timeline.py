"""Where frames go and when: order, groups, loops, restarts, and the clock on the wire."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client import mp4_by_hand as mp4
from tradewind.client.fmp4 import Frame, Kind, MediaTrack, Reader, Tracks
from tradewind.client.media import Measured, Rendition, TrackKey, describe, measure
from tradewind.client.timeline import Grouper, Interleaver, MediaObject, Packager, choose_anchor, earliest
from tradewind.moqt.model import Location

CLIPS = [Path(__file__).resolve().parent.parent.parent / f"control/demo/clip-{name}.mp4" for name in ("360p", "180p")]

VIDEO, LOW, AUDIO = TrackKey(0, 1), TrackKey(1, 1), TrackKey(0, 2)
RENDITIONS = {
    VIDEO: Rendition("high", Kind.VIDEO, "avc1", mp4.VIDEO_HEADER, timescale=30000, framerate=30),
    LOW: Rendition("low", Kind.VIDEO, "avc1", mp4.VIDEO_HEADER, timescale=90000, framerate=30),
    AUDIO: Rendition("sound", Kind.AUDIO, "opus", b"", timescale=48000),
}
TIMESCALES = {key: rendition.timescale for key, rendition in RENDITIONS.items()}
WALL = 1_763_800_000.25
FIRST = 1_763_800_000_250


def frame(key: TrackKey, time_s: float, *, sync: bool = False, duration_s: float = 1 / 30, shift_s: float = 0) -> Frame:
    scale = TIMESCALES[key]
    return Frame(
        key.track,
        round(time_s * scale),
        round(duration_s * scale),
        round(shift_s * scale),
        sync or key == AUDIO,
        0,
        b"x",
    )


def video(key: TrackKey, count: int, gop: int = 15, start: int = 0) -> list[tuple[TrackKey, Frame]]:
    return [(key, frame(key, n / 30, sync=n % gop == 0)) for n in range(start, start + count)]


def audio(count: int, start: int = 0) -> list[tuple[TrackKey, Frame]]:
    return [(AUDIO, frame(AUDIO, n / 50, duration_s=1 / 50)) for n in range(start, start + count)]


def packager(*keys: TrackKey, first_group: int = FIRST, wall: float = WALL) -> Packager:
    return Packager({key: RENDITIONS[key] for key in keys}, wall, Fraction(0), first_group)


def package(target: Packager, frames: list[tuple[TrackKey, Frame]]) -> list[MediaObject]:
    ordered = sorted(frames, key=lambda item: item[1].decode_time / TIMESCALES[item[0]])
    return [made for key, one in ordered if (made := target.package(key, one)) is not None]


def wire_time(made: MediaObject) -> int:
    """The decode time in the chunk, read back from its tfdt."""
    at = made.payload.index(b"tfdt") + 8
    return int.from_bytes(made.payload[at : at + 8], "big")


# --- Groups -------------------------------------------------------------------------------------------------------


def test_a_group_is_a_gop_and_an_object_a_frame() -> None:
    made = package(packager(VIDEO), video(VIDEO, 31))
    assert [one.location for one in made] == [Location(FIRST + n // 15, n % 15) for n in range(31)]
    assert [one.sync for one in made] == [n % 15 == 0 for n in range(31)]


def test_renditions_share_groups_of_the_same_time() -> None:
    made = package(packager(VIDEO, LOW), video(VIDEO, 45) + video(LOW, 45))
    high, low = ([one for one in made if one.track == name] for name in ("high", "low"))
    assert [one.location for one in high] == [one.location for one in low]


def test_a_longer_gop_skips_ids_and_stays_aligned() -> None:
    made = package(packager(VIDEO, LOW), video(VIDEO, 60) + video(LOW, 60, gop=30))
    starts = {
        name: [one.location.group - FIRST for one in made if one.track == name and one.location.object == 0]
        for name in ("high", "low")
    }
    assert starts == {"high": [0, 1, 2, 3], "low": [0, 2]}


def test_a_gop_that_starts_between_boundaries_stays_in_its_group() -> None:
    # The low rendition comes late, so its key frames at 0.25 s find boundaries at 0 and 0.5 s.
    target = packager(VIDEO, LOW)
    package(target, video(VIDEO, 31))
    shifted = [(LOW, replace(one, decode_time=one.decode_time + 22500)) for _, one in video(LOW, 20)]
    made = package(target, shifted)
    assert {one.location.group - FIRST for one in made} == {0, 1}
    assert [one.location.object for one in made] == [*range(15), *range(5)]


def test_frames_before_the_first_key_frame_are_left_out() -> None:
    made = package(packager(VIDEO), video(VIDEO, 20, start=10))
    assert made[0].location == Location(FIRST, 0)
    assert len(made) == 15


def test_sound_is_grouped_with_the_picture() -> None:
    made = package(packager(VIDEO, AUDIO), video(VIDEO, 45) + audio(75))
    sound = [one.location for one in made if one.track == "sound"]
    assert [location.group - FIRST for location in sound] == [n // 25 for n in range(75)]
    assert [location.object for location in sound] == [n % 25 for n in range(75)]


def test_sound_alone_has_groups_of_half_a_second() -> None:
    made = package(packager(AUDIO), audio(75))
    assert [one.location for one in made] == [Location(FIRST + n // 25, n % 25) for n in range(75)]


def test_sound_that_comes_first_is_in_the_first_group() -> None:
    made = package(packager(VIDEO, AUDIO), audio(10) + video(VIDEO, 5, start=15))
    assert {one.location.group for one in made} == {FIRST}


@given(
    st.lists(st.tuples(st.sampled_from([VIDEO, LOW, AUDIO]), st.floats(0, 20), st.booleans()), max_size=80),
)
def test_locations_only_grow(moments: list[tuple[TrackKey, float, bool]]) -> None:
    """Whatever comes, no track goes back to an older group, leaves out an object, or uses a location twice."""
    grouper = Grouper(100, has_video=True)
    seen: dict[TrackKey, Location] = {}
    for key, time_s, sync in moments:
        where = grouper.place(key, Kind.AUDIO if key == AUDIO else Kind.VIDEO, time_s, sync=sync)
        if where is None:
            assert key not in seen
            continue
        before = seen.get(key)
        assert where.object == (before.object + 1 if before and before.group == where.group else 0)
        assert before is None or where > before
        seen[key] = where


# --- Times --------------------------------------------------------------------------------------------------------


def test_media_time_is_wall_time() -> None:
    made = package(packager(VIDEO), video(VIDEO, 3))
    assert [one.due for one in made] == pytest.approx([WALL, WALL + 1 / 30, WALL + 2 / 30])
    assert [wire_time(one) for one in made] == [round(one.due * 30000) for one in made]


def test_an_input_may_start_anywhere() -> None:
    frames = [(VIDEO, replace(one, decode_time=one.decode_time + 30000 * 1000 - 500)) for _, one in video(VIDEO, 3)]
    start = earliest(frames, TIMESCALES)
    target = Packager({VIDEO: RENDITIONS[VIDEO]}, WALL, start, FIRST)
    assert package(target, frames)[0].due == pytest.approx(WALL)


def test_encoder_priming_before_zero() -> None:
    frames = [(AUDIO, replace(one, decode_time=one.decode_time - 1024)) for _, one in audio(3)]
    target = Packager({AUDIO: RENDITIONS[AUDIO]}, WALL, earliest(frames, TIMESCALES), FIRST)
    assert [wire_time(one) for one in package(target, frames)] == [round(WALL * 48000) + 960 * n for n in range(3)]


def test_a_loop_goes_on_in_time_and_in_groups() -> None:
    target = packager(VIDEO, AUDIO)
    # The sound ends 20 ms after the picture: the longest track decides, and both go on together.
    clip = video(VIDEO, 30) + audio(51)
    once, twice = package(target, clip), []
    target.next_pass()
    twice += package(target, clip)
    target.next_pass()
    thrice = package(target, clip)
    for later, passed in ((twice, 1.02), (thrice, 2.04)):
        assert [one.due for one in later] == pytest.approx([one.due + passed for one in once])
    groups = [one.location.group - FIRST for one in once + twice + thrice if one.track == "high"]
    assert groups == [n // 15 for n in range(90)]


def test_a_frame_without_duration_gets_the_distance_of_the_last_ones() -> None:
    times = [0, 1500, 3000, 9000]
    target = packager(VIDEO)
    made = [target.package(VIDEO, Frame(1, time, 0, 0, True, 0, b"x")) for time in times]
    durations = [
        int.from_bytes(one.payload[(at := one.payload.index(b"tfhd") + 12) : at + 4], "big") for one in made if one
    ]
    assert durations == [1000, 1500, 1500, 6000]


def test_sound_loses_the_jitter_of_rounded_timestamps() -> None:
    """What ffmpeg makes of RTMP: a duration that is off, and two frames at the time of the second."""
    said = [(0, 1024), (1014, 1017), (2028, 1024), (4090, 0), (4090, 1024), (5100, 1024), (20_000, 1024), (21_000, 480)]
    made = package(packager(AUDIO), [(AUDIO, Frame(2, time, duration, 0, True, 0, b"x")) for time, duration in said])
    times = [wire_time(one) - wire_time(made[0]) for one in made]
    assert times == [0, 1024, 2048, 3072, 4096, 5120, 20_000, 21_024]


def test_a_later_start_has_larger_groups_and_times() -> None:
    before = package(packager(VIDEO), video(VIDEO, 300, gop=1))
    again = package(packager(VIDEO, wall=WALL + 10.5, first_group=FIRST + 10_500), video(VIDEO, 1))
    assert again[0].location > before[-1].location
    assert wire_time(again[0]) > wire_time(before[-1])


def test_a_burst_at_the_start_is_not_latency_for_ever() -> None:
    # Two seconds of media arrive at once, after ffmpeg has looked at them; the rest as it is made.
    burst = [(WALL + 2.0, VIDEO, frame(VIDEO, n / 30)) for n in range(60)]
    live = [(WALL + n / 30 + 0.01, VIDEO, frame(VIDEO, n / 30)) for n in range(60, 70)]
    assert choose_anchor(burst + live, TIMESCALES, Fraction(0)) == pytest.approx(WALL + 0.01)


# --- Order --------------------------------------------------------------------------------------------------------


def test_fragments_come_out_in_decode_order() -> None:
    order = Interleaver({VIDEO: 30000, AUDIO: 48000})
    for key, one in video(VIDEO, 30) + audio(50):
        order.push(key.source, one)
    out = []
    while (item := order.pop()) is not None:
        out.append(item[1].decode_time / TIMESCALES[item[0]])
        order.check_invariants()
    assert out == sorted(out)
    # One queue is empty: only more input, or its end, lets the rest out.
    assert order.starved() == 0
    order.end(0)
    rest = []
    while (item := order.pop()) is not None:
        rest.append(item)
    assert len(out) + len(rest) == 80


def test_a_track_that_says_nothing_holds_nothing_up_for_ever() -> None:
    order = Interleaver({VIDEO: 30000, AUDIO: 48000}, limit_bytes=10)
    for _, one in video(VIDEO, 10):
        assert order.pop() is None
        order.push(0, one)
    assert order.pop() is not None
    assert order.starved() == 0


def test_unknown_tracks_are_ignored() -> None:
    order = Interleaver({VIDEO: 30000})
    order.push(0, replace(frame(VIDEO, 0), track=9))
    order.push(5, frame(VIDEO, 0))
    assert order.starved() == 0
    assert packager(VIDEO).package(TrackKey(9, 9), frame(VIDEO, 0)) is None


# --- What is measured and named -----------------------------------------------------------------------------------


def test_measured() -> None:
    frames = [Frame(1, 1000 * n, 1000, 0, n % 15 == 0, 0, bytes(892 if n < 30 else 392)) for n in range(60)]
    got = measure(frames, 30000)
    assert got == Measured(average_bitrate=180_000, peak_bitrate=240_000, framerate=30.0, gop_ms=500)
    assert measure(frames[:1], 30000) == Measured()
    assert measure([frames[0], frames[0]], 30000) == Measured()


def test_alternatives_and_names() -> None:
    high = MediaTrack(1, Kind.VIDEO, "avc1", 90000, b"", height=360)
    tracks = {
        TrackKey(0, 1): high,
        TrackKey(1, 1): replace(high, height=180),
        TrackKey(2, 1): high,
        TrackKey(0, 2): MediaTrack(2, Kind.AUDIO, "opus", 48000, b"", language="deu"),
        TrackKey(1, 2): MediaTrack(2, Kind.AUDIO, "opus", 48000, b"", language="eng", bitrate=7),
    }
    got = describe(tracks, {TrackKey(0, 1): Measured(1, 2, 25.0, 3)})
    assert [(r.name, r.alternatives) for r in got.values()] == [
        ("video-360p", 1), ("video-180p", 1), ("video-360p-2", 1), ("audio", None), ("audio-2", None),
    ]  # fmt: skip
    first = got[TrackKey(0, 1)]
    assert (first.average_bitrate, first.bitrate, first.framerate, first.gop_ms) == (1, 2, 25.0, 3)
    assert got[TrackKey(1, 2)].bitrate == 7


def test_the_demo_clips_are_aligned() -> None:
    tracks: dict[TrackKey, MediaTrack] = {}
    frames: list[tuple[TrackKey, Frame]] = []
    for source, path in enumerate(CLIPS):
        told = Reader().receive(path.read_bytes())
        assert isinstance(told[0], Tracks)
        tracks |= {TrackKey(source, track.id): track for track in told[0].tracks}
        frames += [(TrackKey(source, one.track), one) for one in told[1:] if isinstance(one, Frame)]
    scales = {key: track.timescale for key, track in tracks.items()}
    renditions = describe(tracks, {k: measure([f for key, f in frames if key == k], scales[k]) for k in tracks})
    assert [r.name for r in renditions.values()] == ["video-360p", "audio", "video-180p"]
    assert all(r.framerate == 30 and r.gop_ms == 533 for r in renditions.values() if r.kind is Kind.VIDEO)
    target = Packager(renditions, WALL, earliest(frames, scales), FIRST)
    frames.sort(key=lambda item: item[1].decode_time / scales[item[0]])
    made = [one for key, item in frames if (one := target.package(key, item)) is not None]
    places = {name: [one.location for one in made if one.track == name] for name in ("video-360p", "video-180p")}
    assert places["video-360p"] == places["video-180p"]
    assert len(places["video-180p"]) == 240
