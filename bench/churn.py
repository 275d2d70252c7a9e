"""Whether memory stays flat while everybody comes and goes.

    python -m bench.churn [--minutes 30] [--viewers 20] [--json FILE]

Viewers join, watch for a while and leave: most close, some just stop answering. Two publishers, one of datagrams and
one of 20 kB objects on streams, restart again and again under the same names. Resident memory of the relay is sampled
every few seconds, and what is left once everybody has gone is looked at as well. Flat means: the middle of the last
quarter is at most 5 % and 2 MB above the middle of the second quarter; the first quarter fills caches and pools.
Exit code: 0, or 1 where memory grew or a viewer that watched got nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.dialing import RECEIVE_BYTES, Dialed
from bench.load import SHAPES, Media
from bench.receiving import ACK_POLICIES, Broken, Receiver
from bench.targets import LOAD_CORE, Server, Target, pin_self, targets
from tests.interop.relay_process import HOST
from tradewind.moqt.model import FullTrackName
from tradewind.moqt.profiles import PROFILES

NAMES = ("datagrams", "objects")
STEP_S = 0.01
SAMPLE_S = 5.0
WATCH_S = (5.0, 60.0)
PUBLISH_S = (20.0, 60.0)
SILENT_SHARE = 0.1
"""Of those who go, how many say nothing."""
SETTLE_S = 0.2
GROWTH_RATIO, GROWTH_BYTES = 1.05, 2 * 2**20
LAST_WORDS_S = 5.0
OPEN_WITHIN_S = 10.0


@dataclass(slots=True)
class Counts:
    """What happened."""

    joined: int = 0
    left: int = 0
    vanished: int = 0
    restarts: int = 0
    failed: int = 0
    """Connections that came to nothing."""
    objects: int = 0
    silent: int = 0
    """Viewers that watched for five seconds or longer and got nothing."""
    samples: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, resident bytes."""


class Viewer:
    """One who joins, watches a track and goes."""

    def __init__(self, server: Server, track: FullTrackName, until: float) -> None:
        self.until = until
        self.objects = 0
        self.watching_since: float | None = None
        self.dialed = Dialed(HOST, server.port, server.target.viewer_alpn)
        self._track = track
        self._asked = False
        self._settled: float | None = None
        self._receiver: Receiver | None = None
        self._began = time.monotonic()
        self.dialed.connect()

    def step(self, now: float) -> bool:
        """Do what there is to do; False where it came to nothing. Raises Broken."""
        if self._receiver is not None:
            self._watch(self._receiver, now)
            return True
        self.dialed.step()
        if self.dialed.ready and not self._asked:
            self._asked = True
            self.dialed.subscribe(self._track)
        if self.dialed.subscribed and self._settled is None:
            self._settled = now + SETTLE_S
        if self._settled is not None and now >= self._settled and self.dialed.quiet:
            self._receiver = Receiver(0, self.dialed.detach(), ACK_POLICIES["timer"], self._arrived)
            self.watching_since = now
        return not self.dialed.closed and (self._asked or now - self._began < OPEN_WITHIN_S)

    def leave(self, *, silently: bool) -> None:
        """Go."""
        if self._receiver is None:
            self.dialed.leave()
            return
        if not silently:
            with contextlib.suppress(OSError):
                self.dialed.socket.send(self._receiver.close())
        self.dialed.socket.close()

    def _watch(self, receiver: Receiver, now: float) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                receiver.receive(self.dialed.socket.recv(RECEIVE_BYTES), now)
        if receiver.ack_at is not None:
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                self.dialed.socket.send(receiver.ack(now))

    def _arrived(self, index: int, group: int, number: int, size: int, now: float) -> None:
        self.objects += 1


class Publisher:
    """One life of a track's publisher; the next one goes on with the group numbers."""

    def __init__(self, server: Server, name: str, draft: int, group: int, until: float) -> None:
        self.name = name
        self.until = until
        self.group = group
        self.dialed = Dialed(HOST, server.port, server.target.publisher_alpn)
        self._profile = PROFILES[f"moqt-{draft}"]
        self._announced = False
        self._media: Media | None = None
        self.dialed.connect()

    def step(self, publish: bool) -> None:
        """Keep the connection going, and publish one object where somebody wants it."""
        dialed = self.dialed
        dialed.step()
        if dialed.ready and not self._announced:
            self._announced = True
            dialed.announce(track(self.name).namespace)
        if not publish or dialed.alias is None or dialed.closed:
            return
        if self._media is None:
            self._media = Media(SHAPES[self.name], self._profile, dialed.alias)
        if self.name == "datagrams":
            dialed.quic.send_datagram_frame(self._media.datagram(self.group))
        else:
            stream = dialed.quic.get_next_available_stream_id(is_unidirectional=True)
            dialed.quic.send_stream_data(stream, self._media.stream(self.group), end_stream=True)
        self.group += 1
        dialed.flush()

    def leave(self, *, silently: bool) -> None:
        """Go, in order or not."""
        if silently:
            self.dialed.socket.close()
        else:
            self.dialed.leave()


class Churn:
    """Everybody at one server, for as long as it runs."""

    def __init__(self, server: Server, viewers: int, draft: int, dice: random.Random) -> None:
        self.counts = Counts()
        self._server = server
        self._wanted = viewers
        self._draft = draft
        self._dice = dice
        self._viewers: list[Viewer] = []
        self._publishers: dict[str, Publisher] = {}
        self._groups = dict.fromkeys(NAMES, 0)

    def run(self, seconds: float, objects_per_s: float) -> None:
        """Come and go for so long, then let everybody leave."""
        began = time.monotonic()
        publish_at = sample_at = began
        while (now := time.monotonic()) < began + seconds:
            publish = now >= publish_at
            if publish:
                publish_at += 1 / objects_per_s
            self._step_publishers(now, publish)
            self._step_viewers(now)
            if now >= sample_at:
                sample_at += min(SAMPLE_S, seconds / 20)
                self._sample(now - began)
            time.sleep(STEP_S)
        for viewer in self._viewers:
            self._see_off(viewer, now, lives=True)
        for publisher in self._publishers.values():
            publisher.leave(silently=False)

    def _sample(self, at_s: float) -> None:
        self._server.check()
        self.counts.samples.append((at_s, self._server.rss_bytes()))
        if len(self.counts.samples) % 12 == 0:
            counts, size = self.counts, self.counts.samples[-1][1] / 2**20
            said = f"{at_s:6.0f} s  {size:6.1f} MB  {len(self._viewers)} viewers, {counts.joined} joined"
            print(f"  {said}, {counts.objects} objects", file=sys.stderr, flush=True)

    def _step_publishers(self, now: float, publish: bool) -> None:
        for name in NAMES:
            publisher = self._publishers.get(name)
            if publisher is not None and (now >= publisher.until or publisher.dialed.closed):
                publisher.leave(silently=self._dice.random() < SILENT_SHARE)
                self._groups[name] = publisher.group
                self.counts.restarts += 1
                publisher = None
            if publisher is None:
                until = now + self._dice.uniform(*PUBLISH_S)
                publisher = Publisher(self._server, name, self._draft, self._groups[name], until)
                self._publishers[name] = publisher
            publisher.step(publish)

    def _step_viewers(self, now: float) -> None:
        staying = []
        for viewer in self._viewers:
            try:
                lives = viewer.step(now)
            except Broken:
                lives = False
            if lives and now < viewer.until:
                staying.append(viewer)
            else:
                self._see_off(viewer, now, lives)
        self._viewers = staying
        if len(staying) < self._wanted:
            until = now + self._dice.uniform(*WATCH_S)
            self._viewers.append(Viewer(self._server, track(self._dice.choice(NAMES)), until))
            self.counts.joined += 1

    def _see_off(self, viewer: Viewer, now: float, lives: bool) -> None:
        counts = self.counts
        silently = self._dice.random() < SILENT_SHARE
        counts.objects += viewer.objects
        if not lives:
            counts.failed += 1
        elif silently:
            counts.vanished += 1
        else:
            counts.left += 1
        since = viewer.watching_since
        if since is not None and now - since >= WATCH_S[0] and not viewer.objects:
            counts.silent += 1
        viewer.leave(silently=silently)


def track(name: str) -> FullTrackName:
    """The track of one of the publishers: each has a namespace of its own."""
    return FullTrackName((b"bench", name.encode()), b"media")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and judge; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.churn", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="30 for the figure that the README quotes")
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--objects-per-s", type=float, default=10.0, help="of each of the two tracks")
    parser.add_argument("--draft", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--relay-flag", action="append", default=[], help="handed to our relay as it is; may repeat")
    parser.add_argument("--json", help="write counts and samples to this file")
    options = parser.parse_args(arguments)
    pin_self(LOAD_CORE)
    (target,) = targets(["ours"], options.draft, None, tuple(options.relay_flag))
    assert isinstance(target, Target)
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as directory, Server(target, Path(directory)) as server:
        churn = Churn(server, options.viewers, options.draft, random.Random(options.seed))
        churn.run(options.minutes * 60, options.objects_per_s)
        time.sleep(LAST_WORDS_S)
        after = server.rss_bytes()
        cpu_ratio = server.cpu_s() / (options.minutes * 60)
    return _judge(churn.counts, after, cpu_ratio, options)


def _judge(counts: Counts, after: int, cpu_ratio: float, options: argparse.Namespace) -> int:
    sizes = [size for _, size in counts.samples]
    quarter = max(len(sizes) // 4, 1)
    early, late = median(sizes[quarter : 2 * quarter] or sizes), median(sizes[-quarter:])
    flat = late <= max(early * GROWTH_RATIO, early + GROWTH_BYTES)
    print(
        f"{options.minutes:g} minutes, {options.viewers} viewers: {counts.joined} joined, {counts.left} left, "
        f"{counts.vanished} vanished, {counts.failed} failed, {counts.silent} got nothing; {counts.restarts} "
        f"publishers restarted; {counts.objects} objects delivered, {cpu_ratio:.0%} of a core"
    )
    print(
        f"resident memory: second quarter {early / 2**20:.1f} MB, last quarter {late / 2**20:.1f} MB, "
        f"highest {max(sizes) / 2**20:.1f} MB, when all had gone {after / 2**20:.1f} MB"
    )
    served = not counts.silent and counts.objects > 0
    print(f"{'PASS' if flat else 'FAIL'}  memory is flat")
    print(f"{'PASS' if served else 'FAIL'}  everybody who watched for {WATCH_S[0]:g} s got something")
    if options.json:
        document = {name: getattr(counts, name) for name in Counts.__slots__}
        document |= {"early_bytes": early, "late_bytes": late, "after_bytes": after, "flat": flat}
        Path(options.json).write_text(json.dumps(document) + "\n", encoding="utf-8")
    return 0 if flat and served else 1


if __name__ == "__main__":
    sys.exit(main())
