"""Publishes a live broadcast for browsers with the Rust client of PyPI's `moq-rs`: two renditions, both catalogues.

`publish.py RELAY_URL PATH HIGH.mp4 LOW.mp4`: fragmented MP4 with one frame a fragment, looped at its own pace.
Media time is wall time and the first group is numbered by it, so a publisher that is killed and started again goes on.
The catalogues are the Rust client's own.

It says `{"announced": PATH}` and runs until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import moq  # type: ignore[import-not-found,unused-ignore]


@dataclass(frozen=True, slots=True)
class Clip:
    """One file, taken apart: its initialization segment, its frames, and how long each lasts."""

    init: bytes
    frames: tuple[bytes, ...]
    timescale: int
    codec: str
    ticks: int

    @property
    def frame_s(self) -> float:
        """How long a frame is shown."""
        return self.ticks / self.timescale


def main(url: str, path: str, high: str, low: str) -> None:
    asyncio.run(publish(url, path, {"high": read(Path(high)), "low": read(Path(low))}))


async def publish(url: str, path: str, clips: dict[str, Clip]) -> None:
    async with moq.Client(url, tls_verify=False, websocket_enabled=False, reconnect=False) as client:
        broadcast = client.create_broadcast(path)
        # The lower rendition first: the catalogue's order is the order of creation.
        containers = {
            name: broadcast.publish_container(moq.ContainerFormat.FMP4, clips[name].init)
            for name in sorted(clips)[::-1]
        }
        broadcast.announce()
        print(json.dumps({"announced": path}), flush=True)
        await asyncio.gather(*(play(containers[name], clip) for name, clip in clips.items()))


async def play(container: moq.ContainerProducer, clip: Clip) -> None:
    # Both renditions begin at the same boundary of wall time, so that their groups have the same numbers.
    number = int(time.time() / clip.frame_s)
    begun = False
    while True:
        due = number * clip.frame_s
        fragment = clip.frames[number % len(clip.frames)]
        await asyncio.sleep(max(0.0, due - time.time()))
        if is_sync(fragment) and not begun:
            container.seek(int(due * 1000))
            begun = True
        if begun:
            container.write(at(fragment, round(due * clip.timescale)))
        number += 1


def read(file: Path) -> Clip:
    """Take a file apart that has one track and one frame in every fragment."""
    init, frames, moof = b"", [], b""
    for kind, box in boxes(file.read_bytes()):
        if kind in (b"ftyp", b"moov"):
            init += box
        elif kind == b"moof":
            moof = box
        elif kind == b"mdat":
            frames.append(moof + box)
    mdhd = init.index(b"mdhd")
    (timescale,) = struct.unpack_from(">I", init, mdhd + 16)
    avcc = init.index(b"avcC") + 4
    times = [struct.unpack_from(">Q", frame, frame.index(b"tfdt") + 8)[0] for frame in frames[:2]]
    return Clip(init, tuple(frames), timescale, f"avc1.{init[avcc + 1 : avcc + 4].hex()}", times[1] - times[0])


def at(fragment: bytes, decode_time: int) -> bytes:
    """The fragment with another decode time."""
    field = fragment.index(b"tfdt") + 8
    return fragment[:field] + struct.pack(">Q", decode_time) + fragment[field + 8 :]


def is_sync(fragment: bytes) -> bool:
    """Whether the fragment's frame can be decoded by itself: its first NAL unit of picture data is of type 5."""
    position, end = fragment.index(b"mdat") + 4, len(fragment)
    while position + 5 <= end:
        (size,) = struct.unpack_from(">I", fragment, position)
        if fragment[position + 4] & 0x1F in (1, 5):
            return fragment[position + 4] & 0x1F == 5
        position += 4 + size
    return False


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position : position + size]
        position += size


if __name__ == "__main__":
    main(*sys.argv[1:5])
