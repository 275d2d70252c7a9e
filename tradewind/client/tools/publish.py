"""`tradewind publish`: fragmented MP4 from files or a pipe as live tracks, with catalogues for MSF and hang players."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import trio

from tradewind.client.connect import Client, connect
from tradewind.client.fmp4 import Kind
from tradewind.client.media import Rendition
from tradewind.client.target import parse_namespace
from tradewind.client.tools.inputs import open_sources
from tradewind.client.tools.options import Display, beside, bits, client_settings, relay_options, report, run_tool, say
from tradewind.client.tools.publishing import Progress, publish_media
from tradewind.moqt.model import Namespace

RTMP_LINE = (
    "ffmpeg -v error -fflags nobuffer -listen 1 -i {rtmp} -c copy -f mp4"
    " -movflags cmaf+frag_every_frame+delay_moov - | tradewind publish - --to {relay} --namespace {namespace}"
)
"""OBS, or whatever else speaks RTMP, through ffmpeg; `rtmp` is e.g. rtmp://0.0.0.0:1935/live/demo."""
_REFRESH_S = 0.25


@click.command("publish")
@click.argument("files", nargs=-1, required=True, metavar="FILE|- [FILE2 ...]")
@click.option(
    "--to", "url", required=True, metavar="URL", help="The relay: moqt://HOST:PORT/PATH, https://... or http://..."
)
@click.option("--namespace", required=True, metavar="A/B", help="The namespace to publish, e.g. live/demo.")
@click.option("--loop", is_flag=True, help="Begin the files again when they end; timestamps go on.")
@relay_options
def command(
    files: tuple[str, ...],
    url: str,
    namespace: str,
    loop: bool,
    token: str | None,
    insecure: bool,
    fingerprint: str | None,
    ca: Path | None,
    drafts: tuple[str, ...],
) -> None:
    """Publish fragmented MP4 as live media.

    Several files become renditions that players switch between. "-" reads standard input as it comes: live video from
    ffmpeg (`-f mp4 -movflags cmaf+frag_every_frame+delay_moov -`). Files are sent in real time.
    """

    async def work() -> None:
        settings = client_settings(insecure, fingerprint, ca, drafts)
        sources = open_sources(files)
        async with connect(url, token=token, settings=settings, report=report) as client:
            shown = _Shown(client)

            async def publish() -> None:
                await publish_media(client, parse_namespace(namespace), sources, loop=loop, ready=shown.ready)

            await beside(publish, shown.keep_showing)

    run_tool("publish", work)


class _Shown:
    """What people see: one line when it is ready, and on a terminal a table."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._progress: Progress | None = None

    def ready(self, progress: Progress) -> None:
        self._progress = progress
        tracks = ", ".join(describe_rendition(track.rendition) for track in progress.tracks.values())
        name = show_namespace(progress.namespace)
        say(f"ready: publishing {name} to {self._client.target} ({self._client.protocol}): {tracks}")

    async def keep_showing(self) -> None:
        """Draw the table until cancelled."""
        with Display("", ("track", "rate", "objects", "group", "late")) as display:
            while display.is_shown:
                if self._progress is not None:
                    display.title = f"{show_namespace(self._progress.namespace)} -> {self._where()}"
                    display.show(self._rows(self._progress))
                await trio.sleep(_REFRESH_S)

    def _where(self) -> str:
        return f"{self._client.target}  {self._client.protocol}  rtt {self._client.rtt_s * 1000:.1f} ms"

    def _rows(self, progress: Progress) -> Sequence[Sequence[str]]:
        rows = []
        for name, track in progress.tracks.items():
            elapsed = max(trio.current_time() - progress.began, _REFRESH_S)
            late = f"{max(track.late_s, 0) * 1000:.0f} ms"
            rows.append((name, bits(8 * track.bytes / elapsed), str(track.objects), str(track.group), late))
        return rows


def describe_rendition(rendition: Rendition) -> str:
    """A rendition in a few words."""
    shape = f"{rendition.width}x{rendition.height}" if rendition.kind is Kind.VIDEO else f"{rendition.sample_rate} Hz"
    return f"{rendition.name} {rendition.codec} {shape} {bits(rendition.bitrate)}"


def show_namespace(namespace: Namespace) -> str:
    """A namespace as it is typed."""
    return "/".join(field.decode("utf-8", "replace") for field in namespace)
