"""EDGE: the demo's publisher: `python -m control.demo.publishing --relay URL... --sha256 HEX --token JWT FILE...`.

It publishes looping clips, and says on standard output when each object was handed over (`time.perf_counter`):

    {"kind": "sent", "track": "video-180p", "group": 1785000000000, "object": 3, "at": 12.345, "size": 811}

Where its relay is gone it goes to the next one, and goes on with the groups that are due then.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence

import trio

from tradewind.client.connect import ClientSettings, State, connect
from tradewind.client.dialing import ConnectFailed
from tradewind.client.exchange import LinkLost, RequestFailed
from tradewind.client.timeline import MediaObject
from tradewind.client.tools.inputs import open_sources
from tradewind.client.tools.options import ToolError
from tradewind.client.tools.publishing import Progress, publish_media
from tradewind.moqt.model import Namespace
from tradewind.quic.config import ServerTrust

RETRY_S = 0.2
SILENCE_S = 1.5
"""The network says nothing of those who are gone: a relay that is silent for so long is one of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish looping clips until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="control.demo.publishing", description=__doc__.split("\n")[0])
    parser.add_argument("--relay", action="append", required=True, help="URL; those after the first are for its death")
    parser.add_argument("--namespace", default="live/demo")
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--source", help="the local address that it has")
    parser.add_argument("files", nargs="+")
    given = parser.parse_args(arguments)
    namespace: Namespace = tuple(part.encode() for part in given.namespace.split("/"))
    settings = ClientSettings(
        trust=ServerTrust(pinned_sha256=bytes.fromhex(given.sha256)),
        idle_timeout_s=SILENCE_S,
        keep_alive_s=SILENCE_S / 4,
        source=given.source,
    )
    try:
        trio.run(_run, tuple(given.relay), namespace, given.token, settings, tuple(given.files))
    except ToolError as error:
        sys.stderr.write(f"publishing: {error}\n")
        return 1
    return 0


async def _run(
    relays: tuple[str, ...], namespace: Namespace, token: str, settings: ClientSettings, files: tuple[str, ...]
) -> None:
    offset = time.perf_counter() - trio.current_time()

    def written(made: MediaObject, now: float) -> None:
        group, number = made.location
        _say(kind="sent", track=made.track, group=group, object=number, at=now + offset, size=len(made.payload))

    def ready(_: Progress) -> None:
        _say(kind="publishing", at=time.perf_counter())

    async def publish(relay: str) -> None:
        with trio.CancelScope() as scope:

            def report(state: State, reason: str) -> None:
                _say(kind="publisher", at=time.perf_counter(), state=state.value, reason=reason)
                if state is State.LOST:
                    scope.cancel()

            async with connect(relay, token=token, settings=settings, report=report) as client:
                sources = open_sources(list(files))
                await publish_media(client, namespace, sources, loop=True, ready=ready, written=written)

    async def publish_somewhere() -> None:
        for attempt in range(sys.maxsize):
            try:
                await publish(relays[attempt % len(relays)])
            except (ConnectFailed, LinkLost, RequestFailed) as problem:
                _say(kind="publisher", at=time.perf_counter(), state="failed", reason=str(problem))
            await trio.sleep(RETRY_S)

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_somewhere)
            await anext(signals)
            nursery.cancel_scope.cancel()


def _say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
