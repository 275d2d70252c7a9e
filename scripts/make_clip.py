"""Make the demo's clip: control/demo/clip-360p.mp4 (with sound) and clip-180p.mp4. Needs ffmpeg with libx264.

The files are committed, so that the demo needs no ffmpeg. They loop without a seam: 240 frames at 30/s are exactly 375
AAC frames at 48 kHz, picture and sound repeat after 8 s, and what is kept is the middle of three rounds, which both
encoders entered as they leave it. A GOP is 16 frames (0.53 s, 25 AAC frames), so a viewer joins within half a second.
Burnt in: the frame's number, the clip's clock, and the number again as eight squares, lowest bit first, for programs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tradewind.client.fmp4 import Frame, Joiner, Kind, MediaTrack, Reader, Tracks, encode_chunk

FRAMES, RATE, GOP = 240, 30, 16
AUDIO_RATE, AUDIO_FRAME = 48_000, 1024
SECONDS = FRAMES // RATE
ROUNDS = 3
SIZES = {"360p": (640, 360, 390), "180p": (320, 180, 95)}
"""Width, height and kbit/s."""
FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf"
SQUARE_BITS = 8


def main() -> int:
    """Write both files and say how large they are."""
    parser = argparse.ArgumentParser(description="Make the demo's clip.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "control/demo")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, (width, height, kbit) in SIZES.items():
            encoded = Path(scratch) / f"{name}.mp4"
            encode(encoded, width, height, kbit, with_sound=name == "360p")
            target = out / f"clip-{name}.mp4"
            target.write_bytes(cut_middle_round(encoded.read_bytes()))
            print(f"{target}: {target.stat().st_size} bytes")
    return 0


def encode(target: Path, width: int, height: int, kbit: int, *, with_sound: bool) -> None:
    """Encode three rounds of the clip as fragmented MP4."""
    seconds = ROUNDS * SECONDS
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"{picture(width, height)},trim=duration={seconds}"]
    if with_sound:
        command += ["-f", "lavfi", "-i", f"{sound()}:d={seconds}:s={AUDIO_RATE}"]
        command += ["-c:a", "aac", "-b:a", "32k", "-ac", "1"]
    x264 = f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=0:threads=1"
    command += ["-c:v", "libx264", "-profile:v", "baseline", "-preset", "veryslow", "-pix_fmt", "yuv420p"]
    command += ["-x264-params", x264, "-b:v", f"{kbit}k", "-maxrate", f"{kbit}k", "-bufsize", f"{kbit // 2}k"]
    command += ["-bitexact", "-movflags", "cmaf+frag_keyframe+empty_moov+default_base_moof", str(target)]
    subprocess.run(command, check=True)


def picture(width: int, height: int) -> str:
    """A filter graph of one source whose frames repeat every round."""
    unit = height // 12
    turn = f"2*PI*n/{FRAMES}"
    number = f"mod(n\\,{FRAMES})"
    squares = ",".join(
        f"drawbox=x={unit + bit * unit * 5 // 4}:y={height - unit * 2}:w={unit}:h={unit}:t=fill:color=white"
        f":enable='mod(floor({number}/{2**bit})\\,2)'"
        for bit in range(SQUARE_BITS)
    )

    def text(what: str, size: int, x: str, y: str, color: str = "white") -> str:
        return f"drawtext=fontfile={FONT}:fontsize={size}:fontcolor={color}:x={x}:y={y}:text='{what}'"

    clock = f"%{{eif\\:floor({number}/{RATE})\\:d\\:2}}.%{{eif\\:floor(mod({number}\\,{RATE})*1000/{RATE})\\:d\\:3}} s"
    colors = "c0=0x0b3954:c1=0x087e8b:nb_colors=2"
    layers = [
        f"gradients=s={width}x{height}:r={RATE}:{colors}:x0=0:y0=0:x1={width}:y1={height}:speed=0.00001:seed=7",
        text("●", unit * 4, f"(w-tw)*(0.5+0.42*cos({turn}))", f"(h-th)*(0.5+0.42*sin(2*{turn}))", "0xff5a5f"),
        text("●", unit * 2, f"(w-tw)*(0.5+0.42*sin({turn}))", f"(h-th)*(0.5+0.35*cos(3*{turn}))", "0xffb400"),
        text("tradewind", unit, f"{unit}", f"{unit}", "white@0.8"),
        text(f"%{{eif\\:{number}\\:d\\:3}}", unit * 3, "(w-tw)/2", "(h-th)/2"),
        text(clock, unit, f"w-tw-{unit}", f"h-{unit * 2}"),
        squares,
    ]
    return ",".join(layers)


def sound() -> str:
    """A soft tone at each second, higher at the first of a round, silent at the seam."""
    pitch = f"if(lt(mod(t\\,{SECONDS})\\,1)\\,880\\,440)"
    return f"aevalsrc=0.2*sin(2*PI*{pitch}*t)*exp(-18*mod(t\\,1))*(1-exp(-400*mod(t\\,1)))"


def cut_middle_round(data: bytes) -> bytes:
    """The second round as a fragmented MP4 of its own, one fragment a GOP and track, times from 0."""
    reader = Reader()
    told = reader.receive(data)
    reader.finish()
    header = told[0]
    assert isinstance(header, Tracks)
    frames = [frame for frame in told if isinstance(frame, Frame)]
    fragments: list[tuple[float, bytes]] = []
    for number, track in enumerate(header.tracks, 1):
        fragments += cut_track(number, track, [frame for frame in frames if frame.track == track.id])
    fragments.sort(key=lambda fragment: fragment[0])
    return Joiner([track.init for track in header.tracks]).header() + b"".join(data for _, data in fragments)


def cut_track(number: int, track: MediaTrack, frames: Sequence[Frame]) -> list[tuple[float, bytes]]:
    """(start in seconds, fragment) of one track's second round."""
    start, end = SECONDS * track.timescale, 2 * SECONDS * track.timescale
    kept = [frame for frame in frames if start <= frame.decode_time < end]
    expected = FRAMES if track.kind is Kind.VIDEO else SECONDS * AUDIO_RATE // AUDIO_FRAME
    if len(kept) != expected or sum(frame.duration for frame in kept) != end - start or not kept[0].sync:
        raise SystemExit(f"track {number}: {len(kept)} frames where {expected} were expected: the loop has a seam")
    size = GOP if track.kind is Kind.VIDEO else GOP * AUDIO_RATE // (RATE * AUDIO_FRAME)
    parts = [kept[at : at + size] for at in range(0, len(kept), size)]
    return [
        ((part[0].decode_time - start) / track.timescale, encode_chunk(number, at, part[0].decode_time - start, part))
        for at, part in enumerate(parts, 1)
    ]


if __name__ == "__main__":
    sys.exit(main())
