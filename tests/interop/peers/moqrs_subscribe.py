"""Plays a broadcast with the Rust client of PyPI's `moq-rs` and says, a JSON line each, what arrives.

`moqrs_subscribe.py RELAY_URL PATH`. When the broadcast ends it waits for it to be announced again, until standard input
closes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys

import moq  # type: ignore[import-not-found,unused-ignore]

LATENESS_ALLOWED_US = 3_000_000


async def main(url: str, path: str) -> None:
    async with moq.Client(url, tls_verify=False, websocket_enabled=False) as client:
        tell(connected=True)
        playing = asyncio.create_task(play(client, path))
        await asyncio.to_thread(sys.stdin.read)
        playing.cancel()


async def play(client: moq.Client, path: str) -> None:
    life = 0
    while True:
        broadcast = await client.announced_broadcast(path).available()
        tell(available=life)
        try:
            catalog = await broadcast.catalog()
            name, video = next(iter(catalog.video.items()))
            # Every frame is to be counted: a group may stand still for this long before the player gives it up.
            wanted = moq.Subscription(max_age_us=LATENESS_ALLOWED_US)
            media = await broadcast.subscribe_media(name, video, wanted)
            tell(subscribed=name, life=life)
            async for frame in media:
                digest = hashlib.sha256(frame.payload).hexdigest()
                tell(life=life, sha256=digest, timestamp_us=frame.timestamp_us, keyframe=frame.keyframe)
            tell(ended=life)
        except (moq.Error, StopAsyncIteration) as error:
            tell(failed=life, error=str(error))
            await asyncio.sleep(0.1)
        life += 1


def tell(**words: object) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
