"""What `tradewind publish` reads: files, again and again where they loop, or standard input. An EDGE file."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import trio

from tradewind.client.fmp4 import Frame, Mp4Error, Reader, Tracks
from tradewind.client.tools.options import ToolError

READ_BYTES = 64 * 1024


class Source(Protocol):
    """Bytes of one MP4."""

    name: str
    is_live: bool
    """It comes as it is made, and cannot be read twice."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end, after which a file begins again."""

    async def rewind(self) -> None:
        """Begin again; a pipe cannot."""

    async def close(self) -> None:
        """Let go of the file; it may be read again all the same."""


class FileSource:
    """A regular file."""

    is_live = False

    def __init__(self, name: str, path: Path | int) -> None:
        """`path` may be a file descriptor, which stays open."""
        self.name = name
        self._path = path
        self._file: Any = None

    async def read(self) -> bytes:
        """The next bytes; empty at the end, after which it begins again. Raises ToolError."""
        try:
            if self._file is None:
                self._file = await trio.open_file(self._path, "rb", closefd=not isinstance(self._path, int))
                if isinstance(self._path, int):
                    await self._file.seek(0)
            data = bytes(await self._file.read(READ_BYTES))
        except OSError as error:
            raise ToolError(f"{self.name}: {error.strerror}") from error
        if not data:
            await self.rewind()
        return data

    async def rewind(self) -> None:
        """Begin again with the next read."""
        if self._file is not None:
            await self._file.aclose()
            self._file = None

    async def close(self) -> None:
        """Let go of the file."""
        await self.rewind()


class PipeSource:
    """Standard input from another program."""

    name = "standard input"
    is_live = True

    def __init__(self) -> None:
        self._stream = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))

    async def read(self) -> bytes:
        """The next bytes, as soon as there are some; empty at the end."""
        return bytes(await self._stream.receive_some(READ_BYTES))

    async def rewind(self) -> None:
        """A pipe cannot."""
        raise ToolError(f"{self.name} cannot be read twice")

    async def close(self) -> None:
        """Read no more."""
        await self._stream.aclose()


def open_sources(names: Sequence[str]) -> list[Source]:
    """The sources that the command line names. Raises ToolError."""
    if "-" not in names:
        for name in names:
            if not Path(name).is_file():
                raise ToolError(f"{name}: no such file")
        return [FileSource(name, Path(name)) for name in names]
    if len(names) > 1:
        raise ToolError("standard input cannot be mixed with files")
    if stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode):
        return [FileSource("standard input", sys.stdin.fileno())]
    return [PipeSource()]


class FrameInput:
    """One source taken apart into tracks and frames."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tracks: Tracks | None = None
        self._reader = Reader()

    async def next_frames(self) -> list[Frame] | None:
        """The frames of the next bytes, often none; None: the input has ended, and starts over when it is a file.

        Raises ToolError for what is not fragmented MP4.
        """
        data = await self.source.read()
        try:
            if not data:
                # A program that is stopped in the middle of a fragment is how live input ends.
                if self.tracks is None or not self.source.is_live:
                    self._reader.finish()
                self._reader = Reader()
                return None
            told = self._reader.receive(data)
        except Mp4Error as error:
            raise ToolError(f"{self.source.name}: {error}") from error
        frames = []
        for event in told:
            if isinstance(event, Tracks):
                self.tracks = event
            else:
                frames.append(event)
        return frames
