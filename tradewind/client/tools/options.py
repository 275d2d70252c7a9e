"""What both tools ask about the relay, and how they speak to people: options, messages, signals, a live table."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import click
import trio

from tradewind.client.connect import ClientSettings, ConnectFailed, LinkLost, RequestFailed, State, TargetError
from tradewind.client.dialing import parse_fingerprint
from tradewind.moqt.profiles import NATIVE_ORDER, PROFILES
from tradewind.quic.config import ServerTrust

_DRAFTS = {profile.draft: profile.name for profile in PROFILES.values()}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "h": 3600.0}


class ToolError(Exception):
    """What a tool cannot do, in words for whoever called it."""


class Seconds(click.ParamType[float]):
    """A duration such as 20s, 500ms or 5m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration such as 20s, 500ms or 5m", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


def relay_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how to reach and trust a relay; `client_settings` reads them."""
    options = [
        click.option("--token", envvar="TRADEWIND_TOKEN", help="Access token (JWT); also TRADEWIND_TOKEN."),
        click.option("--insecure", is_flag=True, help="Do not check the relay's certificate."),
        click.option("--fingerprint", metavar="SHA256", help="Trust exactly this certificate (hexadecimal)."),
        click.option(
            "--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Trust this authority (PEM) instead of the system's.",
        ),
        click.option(
            "--draft", "drafts", multiple=True, type=click.Choice([str(draft) for draft in _DRAFTS]),
            help="Offer only this MoQT draft; may be repeated.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def client_settings(
    insecure: bool, fingerprint: str | None, ca: Path | None, drafts: Sequence[str], **changes: Any
) -> ClientSettings:
    """The settings that `relay_options` and the caller's `changes` say. Raises ConnectFailed for a bad fingerprint."""
    trust = ServerTrust(
        verify=not insecure,
        authorities_pem=ca.read_bytes() if ca is not None else None,
        pinned_sha256=parse_fingerprint(fingerprint) if fingerprint else None,
    )
    protocols = tuple(name for name in NATIVE_ORDER if not drafts or PROFILES[name].draft in map(int, drafts))
    return ClientSettings(protocols=protocols, trust=trust, **changes)


def run_tool(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run a tool until it ends or SIGINT or SIGTERM comes; end the process with 1 and one line where it fails."""
    try:
        trio.run(_until_signal, work)
    except (ToolError, ConnectFailed, LinkLost, RequestFailed, TargetError) as error:
        say(f"tradewind {name}: {error}")
        sys.exit(1)


async def _until_signal(work: Callable[[], Awaitable[None]]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

        async def stop() -> None:
            async for _ in signals:
                return

        await beside(work, stop, first_ends_all=True)


async def beside(
    work: Callable[[], Awaitable[None]], *others: Callable[[], Awaitable[None]], first_ends_all: bool = False
) -> None:
    """Do `work` with `others` beside it, which are cancelled when it ends; with `first_ends_all` any one ends all.

    What fails is raised as it is, where a nursery would wrap it in a group.
    """
    failure: list[Exception] = []

    async def run(task: Callable[[], Awaitable[None]], ends_all: bool) -> None:
        try:
            await task()
        except Exception as error:  # noqa: BLE001 - raised again below
            failure.append(error)
        if ends_all or failure:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, work, True)
        for other in others:
            nursery.start_soon(run, other, first_ends_all)
    if failure:
        raise failure[0]


def say(text: str) -> None:
    """One line for people: standard error, so that it never mixes with media."""
    print(text, file=sys.stderr, flush=True)


def report(state: State, words: str) -> None:
    """Say what became of the connection; the first success is the tool's own to announce."""
    if state is not State.CONNECTED:
        say(f"{state.value}: {words}")


class Display:
    """A table that is drawn again in place, on a terminal; elsewhere nothing."""

    def __init__(self, title: str, columns: Iterable[str]) -> None:
        self.title = title
        self._columns = tuple(columns)
        self._live: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def is_shown(self) -> bool:
        return self._live is not None

    def show(self, rows: Iterable[Sequence[str]]) -> None:
        """Draw these rows."""
        if self._live is None:
            return
        from rich.table import Table

        table = Table(title=self.title, title_justify="left", box=None, pad_edge=False)
        for number, column in enumerate(self._columns):
            table.add_column(column, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        self._live.update(table)


def bits(per_second: float) -> str:
    """A bit rate for people: 434 kbit/s, 2.1 Mbit/s."""
    return f"{per_second / 1e6:.1f} Mbit/s" if per_second >= 1e6 else f"{per_second / 1e3:.0f} kbit/s"
