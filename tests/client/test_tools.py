"""`tradewind publish` and `tradewind subscribe`: from a file through a relay into a file, and what they say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from tests.client import mp4_by_hand as mp4
from tests.client.relay_beside import relay_beside
from tests.client.test_connect import settings
from tradewind.client.catalog import HANG_TRACK, MSF_TRACK, MsfReader, decode_hang
from tradewind.client.connect import Client, ConnectFailed, connect
from tradewind.client.fmp4 import Frame, Kind, Reader, Tracks, encode_chunk
from tradewind.client.media import Broadcast, Rendition
from tradewind.client.receiving import GroupEnded, ReceivedObject
from tradewind.client.recording import CannotRecord, Recorder
from tradewind.client.tools import publish, subscribe
from tradewind.client.tools.inputs import FileSource, PipeSource, open_sources
from tradewind.client.tools.options import Seconds, ToolError, beside, bits, client_settings
from tradewind.client.tools.publishing import Progress, publish_media
from tradewind.client.tools.showing import choose_renditions
from tradewind.moqt.model import FullTrackName, Location

NAMESPACE = (b"live", b"demo")
CLIPS = [Path(__file__).resolve().parent.parent.parent / f"control/demo/clip-{name}.mp4" for name in ("360p", "180p")]


def short_bytes(frames: int, ticks: int = 600) -> bytes:
    """Frames of 20 ms, in groups of three; each is 100 times its own number."""
    out = mp4.VIDEO_HEADER
    for start in range(0, frames, 3):
        rows = [(ticks, 100, mp4.KEY if n == start else mp4.DELTA, 0) for n in range(start, start + 3)]
        data = b"".join(bytes([n]) * 100 for n in range(start, start + 3))
        out += mp4.fragment([mp4.traf(1, mp4.run(rows), time=start * ticks)], data)
    return out


def short_file(tmp_path: Path, frames: int = 6, name: str = "short.mp4") -> str:
    path = tmp_path / name
    path.write_bytes(short_bytes(frames))
    return str(path)


async def in_background(nursery: trio.Nursery, work: Callable[[], Awaitable[None]]) -> trio.CancelScope:
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await work()

    nursery.start_soon(run)
    return scope


# --- Publishing ---------------------------------------------------------------------------------------------------


async def test_a_file_becomes_a_broadcast(tmp_path: Path) -> None:
    with trio.fail_after(5):
        async with relay_beside() as relay, connect(relay.quic_url, settings=settings()) as client:
            async with connect(relay.quic_url, settings=settings()) as viewer, trio.open_nursery() as nursery:
                told = trio.Event()
                progress: list[Progress] = []

                def ready(made: Progress) -> None:
                    progress.append(made)
                    told.set()

                sources = open_sources([short_file(tmp_path), short_file(tmp_path, name="again.mp4")])

                async def work() -> None:
                    await publish_media(client, NAMESPACE, sources, loop=True, ready=ready)

                scope = await in_background(nursery, work)
                await told.wait()
                catalogs = {}
                for name in (MSF_TRACK, HANG_TRACK):
                    catalogs[name] = (await anext(await viewer.subscribe(FullTrackName(NAMESPACE, name)))).payload
                msf, hang = MsfReader().receive(catalogs[MSF_TRACK]), decode_hang(catalogs[HANG_TRACK])
                assert [r.name for r in msf.renditions] == ["video-180p", "video-180p-2"]
                assert {r.alternatives for r in msf.renditions} == {1}
                assert [r.init for r in hang.renditions] == [r.init for r in msf.renditions]
                renditions = [await viewer.subscribe(FullTrackName(NAMESPACE, r.name.encode())) for r in msf.renditions]
                seen: list[list[Location]] = [[], []]
                for index, subscription in enumerate(renditions):
                    while len(seen[index]) < 12:
                        seen[index].append((await anext(subscription)).location)
                both = set(seen[0]) & set(seen[1])
                assert len(both) >= 9, "the renditions are not aligned"
                groups = sorted({location.group for location in seen[0]})
                assert groups == list(range(groups[0], groups[-1] + 1)), "a loop leaves out no group"
                assert progress[0].tracks["video-180p"].objects >= 12
                assert progress[0].loops >= 1
                scope.cancel()
            assert client.publications == ()


async def test_the_end_of_a_file_is_the_end_of_its_tracks(tmp_path: Path) -> None:
    with trio.fail_after(5):
        async with (
            relay_beside() as relay,
            connect(relay.quic_url, settings=settings()) as client,
            connect(relay.quic_url, settings=settings(rendezvous_ms=3000)) as viewer,
            trio.open_nursery() as nursery,
        ):
            seen: list[bytes] = []

            async def watch() -> None:
                subscription = await viewer.subscribe(FullTrackName(NAMESPACE, b"video-180p"))
                seen.extend([item.payload[-1:] async for item in subscription])

            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            await publish_media(client, NAMESPACE, open_sources([short_file(tmp_path)]))
        assert seen == [bytes([n]) for n in range(6)]


async def test_live_input_goes_out_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faster than real time, and cut off in the middle of a fragment, as a killed ffmpeg does."""
    reading, writing = os.pipe()
    whole = short_bytes(90)
    with trio.fail_after(10), os.fdopen(reading, "rb") as stdin, os.fdopen(writing, "wb", buffering=0) as pipe:
        monkeypatch.setattr("sys.stdin", stdin)
        async with (
            relay_beside() as relay,
            connect(relay.quic_url, settings=settings()) as client,
            connect(relay.quic_url, settings=settings(rendezvous_ms=5000)) as viewer,
            trio.open_nursery() as nursery,
        ):
            seen: list[bytes] = []

            async def watch() -> None:
                subscription = await viewer.subscribe(FullTrackName(NAMESPACE, b"video-180p"))
                seen.extend([item.payload[-1:] async for item in subscription])

            async def feed() -> None:
                await trio.to_thread.run_sync(pipe.write, whole[:-50])
                pipe.close()

            nursery.start_soon(watch)
            nursery.start_soon(feed)
            sources = open_sources(["-"])
            assert isinstance(sources[0], PipeSource)
            await publish_media(client, NAMESPACE, sources)
        # What came before there were subscribers is theirs from the current group on; what follows is whole.
        assert seen[-1] == bytes([86])
        assert seen == [bytes([n]) for n in range(87 - len(seen), 87)]


async def test_what_cannot_be_published(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    text = tmp_path / "text.mp4"
    text.write_bytes(b"not a film at all")
    header = tmp_path / "header.mp4"
    header.write_bytes(mp4.VIDEO_HEADER)
    async with relay_beside() as relay, connect(relay.quic_url, settings=settings()) as client:
        for path, words in ((empty, "before its header"), (text, "not MP4"), (header, "no frame")):
            with pytest.raises(ToolError, match=words):
                await publish_media(client, NAMESPACE, [FileSource(path.name, path)])
    with pytest.raises(ToolError, match="no such file"):
        open_sources([str(tmp_path / "nothing.mp4")])
    with pytest.raises(ToolError, match="cannot be mixed"):
        open_sources(["-", str(text)])


# --- Recording ----------------------------------------------------------------------------------------------------


def rendition(name: str = "video", **changes: Any) -> Rendition:
    told = Reader().receive(mp4.VIDEO_HEADER)[0]
    assert isinstance(told, Tracks)
    return Rendition(**{"name": name, "kind": Kind.VIDEO, "codec": "avc1", "init": told.tracks[0].init, **changes})


def arrival(group: int, number: int, time: int, received: float = 0.0) -> ReceivedObject:
    frame = Frame(1, time, 1000, 0, number == 0, mp4.KEY if number == 0 else mp4.DELTA, b"%d.%d" % (group, number))
    return ReceivedObject(Location(group, number), encode_chunk(1, 1, time, [frame]), received=received)


def written(data: bytes) -> list[tuple[int, int, bytes]]:
    return [(f.track, f.decode_time, f.payload) for f in Reader().receive(data) if isinstance(f, Frame)]


def test_recordings_are_in_order_and_start_at_zero() -> None:
    recorder = Recorder([rendition("a"), rendition("b")])
    wall = 1_763_800_000 * 30000
    recorder.receive(0, arrival(5, 1, wall + 1000), 0.0)
    recorder.receive(0, arrival(5, 0, wall), 0.0)
    assert recorder.output(0.5) == b""
    recorder.receive(1, arrival(5, 0, wall + 500), 0.6)
    out = recorder.output(0.6)
    assert written(out) == [(1, 0, b"5.0"), (1, 1000, b"5.1"), (2, 500, b"5.0")]
    recorder.receive(0, arrival(6, 0, wall + 2000), 0.7)
    assert recorder.output(0.7) == b""
    recorder.receive(0, GroupEnded(5), 0.8)
    out += recorder.output(0.8)
    assert written(out)[-1] == (1, 2000, b"6.0")
    assert recorder.media_times[0] == (wall + 2000) / 30000
    assert recorder.statistics().frames == 4


def test_a_recording_does_not_wait_for_ever() -> None:
    recorder = Recorder([rendition("a"), rendition("b")])
    recorder.receive(0, arrival(5, 0, 9000), 0.0)
    assert recorder.next_deadline() == 2.0
    assert written(recorder.output(2.0)) == [(1, 0, b"5.0")]
    recorder.receive(0, arrival(5, 2, 11000, received=2.5), 2.5)
    recorder.receive(0, ReceivedObject(Location(5, 3), b"broken", received=2.5), 2.5)
    out = recorder.finish()
    assert out.count(b"moof") == 1
    seen = recorder.statistics()
    assert (seen.frames, seen.gaps, seen.broken) == (2, 1, 1)
    assert Recorder([rendition()]).finish() == b""


@pytest.mark.parametrize("changes", [{"packaging": "loc"}, {"init": b""}, {"init": b"garbage?"}])
def test_what_cannot_be_recorded(changes: dict[str, Any]) -> None:
    with pytest.raises(CannotRecord):
        Recorder([rendition(**changes)])


def test_choosing() -> None:
    low, high = rendition("low", width=320, height=180), rendition("high", width=640, height=360)
    sound, other = (Rendition(name, Kind.AUDIO, "opus") for name in ("sound", "other"))
    choose = choose_renditions
    assert choose(Broadcast((low, high, sound, other)), ()) == [high, sound]
    assert choose(Broadcast((low, high, sound)), ["low"]) == [low]
    with pytest.raises(ToolError, match="no track nothing: the catalogue has low, high"):
        choose(Broadcast((low, high)), ["low", "nothing"])
    with pytest.raises(ToolError, match="no video and no audio"):
        choose(Broadcast(()), ())


# --- The commands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "arguments", "code", "words"),
    [
        (publish.command, ["nothing.mp4", "--to", "moqt://h/", "--namespace", "a"], 1, "nothing.mp4: no such file"),
        (publish.command, ["x", "--to", "moqt://h/"], 2, "Missing option '--namespace'"),
        (publish.command, ["--to", "moqt://h/", "--namespace", "a"], 2, "Missing argument"),
        (subscribe.command, ["h:1", "--namespace", "a"], 1, "expected moqt://HOST:PORT/PATH"),
        (subscribe.command, ["moqt://h/", "--namespace", "a", "--fingerprint", "xyz"], 1, "not a SHA-256"),
        (subscribe.command, ["moqt://h/", "--namespace", "a", "--for", "soon"], 2, "not a duration"),
        (subscribe.command, ["moqt://h/", "--namespace", "a", "--draft", "15"], 2, "Invalid value for '--draft'"),
        (subscribe.command, ["moqt://nowhere.invalid/", "--namespace", "a"], 1, "cannot find nowhere.invalid"),
    ],
)
def test_commands_say_what_is_wrong(command: Any, arguments: list[str], code: int, words: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == code
    assert words in result.output
    assert "Traceback" not in result.output


def test_small_words() -> None:
    assert [Seconds().convert(text, None, None) for text in ("20s", "500ms", "2m", "3", "1.5h")] == [
        20.0, 0.5, 120.0, 3.0, 5400.0,
    ]  # fmt: skip
    assert [bits(rate) for rate in (999, 434_000, 2_100_000)] == ["1 kbit/s", "434 kbit/s", "2.1 Mbit/s"]
    chosen = client_settings(False, None, None, ["16", "20"])
    assert chosen.protocols == ("moqt-20", "moqt-16")
    with pytest.raises(ConnectFailed):
        client_settings(False, "12", None, [])


async def test_beside_raises_what_failed_and_ends_the_rest() -> None:
    ended = []

    async def fails() -> None:
        raise ToolError("mine")

    async def other() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("other")

    with pytest.raises(ToolError, match="mine"):
        await beside(fails, other)
    await beside(trio.lowlevel.checkpoint, other)
    await beside(trio.sleep_forever, trio.lowlevel.checkpoint, first_ends_all=True)
    assert ended == ["other", "other"]


async def record(client: Client, target: Path, names: tuple[str, ...] = ()) -> None:
    await subscribe._watch(client, NAMESPACE, str(target), names, "auto", 5.0)


async def test_from_file_to_file(tmp_path: Path) -> None:
    """The whole way: what is recorded are the frames of the file, in order."""
    target = tmp_path / "out.mp4"
    with trio.fail_after(8):
        async with (
            relay_beside() as relay,
            connect(relay.quic_url, settings=settings()) as client,
            connect(relay.web_url, settings=settings(protocols=("moqt-16",))) as viewer,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(record, viewer, target)
            await publish_media(client, NAMESPACE, open_sources([short_file(tmp_path, frames=30)]))
    frames = written(target.read_bytes())
    first = 30 - len(frames)
    assert first % 3 == 0
    assert first <= 12
    assert frames == [(1, 600 * (n - first), bytes([n]) * 100) for n in range(first, 30)]


# --- Programs that others wrote -----------------------------------------------------------------------------------

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffmpeg is not installed")


def probe(path: Path) -> list[dict[str, Any]]:
    """What ffprobe says of each stream, having read all of it without a complaint."""
    checked = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "null", "-"], capture_output=True, text=True, check=True
    )
    assert checked.stderr == ""
    asked = ["ffprobe", "-v", "error", "-count_packets", "-show_streams", "-of", "json", str(path)]
    streams = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)["streams"]
    assert isinstance(streams, list)
    return streams


@pytest.mark.interop
@needs_ffmpeg
async def test_ffprobe_accepts_a_recording(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    async with (
        relay_beside() as relay,
        connect(relay.quic_url, settings=settings()) as client,
        connect(relay.quic_url, settings=settings()) as viewer,
        trio.open_nursery() as nursery,
    ):

        async def play() -> None:
            await publish_media(client, NAMESPACE, open_sources([str(clip) for clip in CLIPS]), loop=True)

        scope = await in_background(nursery, play)
        with trio.move_on_after(10):
            await record(viewer, target)
        scope.cancel()
    video, audio = probe(target)
    assert (video["codec_name"], video["width"], audio["codec_name"]) == ("h264", 640, "aac")
    # Ten seconds are more than one round of the clip: 30 frames and 47 a second, over the seam.
    assert int(video["nb_read_packets"]) == pytest.approx(30 * 9.5, abs=25)
    assert int(audio["nb_read_packets"]) == pytest.approx(47 * 9.5, abs=40)
    assert abs(float(video["duration"]) - float(audio["duration"])) < 0.1


@pytest.mark.interop
@needs_ffmpeg
@pytest.mark.parametrize("extra", [["-tune", "zerolatency"], ["-bf", "2"]], ids=["obs-low-latency", "b-frames"])
async def test_rtmp_through_ffmpeg(tmp_path: Path, extra: list[str]) -> None:
    """OBS' way: RTMP into ffmpeg into `tradewind publish -`, with the line that the documentation gives."""
    target = tmp_path / "out.mp4"
    with trio.fail_after(40):
        async with relay_beside() as relay, connect(relay.quic_url, settings=settings(rendezvous_ms=15_000)) as viewer:
            probe_socket = trio.socket.socket()
            await probe_socket.bind(("127.0.0.1", 0))
            rtmp = f"rtmp://127.0.0.1:{probe_socket.getsockname()[1]}/live/demo"
            probe_socket.close()
            line = publish.RTMP_LINE.format(rtmp=rtmp, relay=relay.quic_url, namespace="live/demo")
            tradewind = f"{sys.executable} -c 'from tradewind.client.tools.publish import command; command()'"
            line = line.replace("tradewind publish -", f"{tradewind} - --insecure")
            async with trio.open_nursery() as nursery:
                environment = os.environ | {"PYTHONPATH": str(CLIPS[0].parent.parent.parent)}
                nursery.start_soon(partial(trio.run_process, ["sh", "-c", line], env=environment, check=False))
                # ffmpeg listens after it has started; the camera does not try twice.
                await trio.sleep(1.0)
                camera = ["ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30"]
                camera += ["-f", "lavfi", "-i", "sine=440:sample_rate=44100", "-t", "8", "-c:v", "libx264"]
                camera += ["-preset", "ultrafast", *extra, "-g", "30", "-c:a", "aac", "-f", "flv", rtmp]
                nursery.start_soon(trio.run_process, camera)
                await record(viewer, target)
    video, audio = probe(target)
    # The first second or so is gone before the relay has the catalogue; the end is whole.
    assert int(video["nb_read_packets"]) > 5 * 30
    assert int(audio["nb_read_packets"]) > 5 * 43
    assert abs(float(video["duration"]) - float(audio["duration"])) < 1.5
