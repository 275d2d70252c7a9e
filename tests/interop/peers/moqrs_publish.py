"""Publishes `tests/interop/clip.py` with the Rust client of PyPI's `moq-rs`, as its standard input says.

`moqrs_publish.py RELAY_URL PATH FIRST_GROUP GROUPS FRAMES_A_GROUP`. Lines on standard output are JSON. Lines on
standard input: `write` publishes what is left, `partial` publishes half of it and stops inside a group, `close` ends
the tracks and the broadcast in order, `drop` closes the session with an error and ends nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys

import moq  # type: ignore[import-not-found,unused-ignore]

from tests.interop import clip

FRAME_INTERVAL_S = 0.004


async def main(url: str, path: str, first_group: int, groups: int, frames_a_group: int) -> None:
    frames = clip.frames(first_group, groups, frames_a_group)
    async with moq.Client(url, tls_verify=False, websocket_enabled=False, reconnect=False) as client:
        broadcast = client.create_broadcast(path)
        container = broadcast.publish_container(moq.ContainerFormat.FMP4, clip.init_segment())
        container.seek(first_group)
        broadcast.announce()
        tell(announced=path)
        written = 0
        while True:
            order = (await asyncio.to_thread(sys.stdin.readline)).strip()
            if order in {"write", "partial"}:
                end = len(frames) if order == "write" else len(frames) // 2 + frames_a_group // 2
                for frame in frames[written:end]:
                    container.write(frame.fragment)
                    await asyncio.sleep(FRAME_INTERVAL_S)
                written = end
                tell(written=written)
            elif order == "drop":
                client.session.cancel(1)
                tell(dropped=True)
                return
            else:
                container.finish()
                broadcast.close()
                tell(closed=True)
                # Nothing says when the last bytes have left; the test reads them at the other end and then hangs up.
                await asyncio.to_thread(sys.stdin.readline)
                return


def tell(**words: object) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
