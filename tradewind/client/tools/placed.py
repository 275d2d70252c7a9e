"""`tradewind subscribe --place`: between a placed viewer and what is made of its objects."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from tradewind.client.media import Broadcast, Rendition
from tradewind.client.placed import Change, PlacedViewer
from tradewind.client.receiving import GroupEnded, ReceivedObject
from tradewind.client.recording import CannotRecord, Recorder
from tradewind.client.tools.options import ToolError, beside, say
from tradewind.client.tools.publish import describe_rendition
from tradewind.client.tools.showing import Sink, Watcher, choose_renditions


class PlacedWatching:
    """What a placed viewer calls, and the table and the file that come of it."""

    def __init__(self, namespace: str, names: Sequence[str], output: str | None) -> None:
        self._namespace = namespace
        self._names = names
        self._output = output
        self._chosen: list[Rendition] = []
        self._watcher: Watcher | None = None
        self._begun = trio.Event()
        self._where = ""
        self._trouble = ""

    def choose(self, broadcast: Broadcast) -> list[str]:
        """What to read: chosen once, because the file's tracks are laid down with it."""
        if self._watcher is not None:
            names = [rendition.name for rendition in self._chosen]
            return names if all(broadcast.named(name) is not None for name in names) else []
        try:
            self._chosen = choose_renditions(broadcast, self._names)
            recorder = Recorder(self._chosen)
            sink = Sink(self._output)
        except (CannotRecord, ToolError) as error:
            self._trouble = str(error)
            self._begun.set()
            return []
        self._watcher = Watcher(self._title, self._chosen, recorder, sink, trio.current_time())
        self._begun.set()
        return [rendition.name for rendition in self._chosen]

    def on_object(self, relay: str, track: str, item: ReceivedObject) -> None:
        """Take an object."""
        index = self._index(track)
        if self._watcher is not None and index is not None:
            self._watcher.take(index, item)

    def on_group_end(self, track: str, group: int) -> None:
        """Take the news that a group is complete."""
        index = self._index(track)
        if self._watcher is not None and index is not None:
            self._watcher.take(index, GroupEnded(group))

    def on_change(self, change: Change) -> None:
        """Say what became of the viewer; `run` says that it plays at first."""
        self._where = change.relay
        if change.state == "refused":
            self._trouble = f"refused: {change.reason}"
            self._begun.set()
        elif change.state in ("moving", "waiting") or (change.state == "playing" and change.reason != "first"):
            where = f" {change.relay}" if change.relay else ""
            say(f"{change.state}{where}: {change.reason}")

    async def run(self, viewer: PlacedViewer, wait_s: float) -> None:
        """Show and write until cancelled. Raises ToolError where no broadcast comes within `wait_s`."""
        with trio.move_on_after(wait_s):
            await self._begun.wait()
        if self._watcher is None:
            raise ToolError(self._trouble or f"no broadcast at {self._namespace} within {wait_s:g} s")
        tracks = ", ".join(describe_rendition(rendition) for rendition in self._chosen)
        visit = viewer.visit
        say(f"ready: {self._namespace}, placed{f' at {visit.id}' if visit is not None else ''}: {tracks}")
        watcher = self._watcher
        try:
            await beside(watcher.keep_writing, watcher.keep_showing, watcher.keep_time)
        finally:
            with trio.move_on_after(1.0, shield=True):
                await watcher.finish()

    def _index(self, track: str) -> int | None:
        return next((index for index, rendition in enumerate(self._chosen) if rendition.name == track), None)

    def _title(self) -> str:
        return f"{self._namespace} <- {self._where}"
