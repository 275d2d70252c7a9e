"""EDGE: `tradewind NOUN VERB`, the console script.

Commands are found by name and imported when they are used, so that `--help` stays quick. What needs a relay starts its
process (`python -m relay`): nothing here imports one. Exit codes: 0 done, 1 failed, 2 wrongly asked, 3 refused or no
right, 4 no controller reached; those of a process that was started are its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, NoReturn

import click

COMMANDS = {
    "audit": "control.cli.mesh:audit",
    "cert": "control.cli.cert:command",
    "control": "control.cli.main:control",
    "demo": "control.cli.demo:command",
    "events": "control.cli.mesh:events",
    "link": "control.cli.mesh:link",
    "node": "control.cli.mesh:node",
    "overrides": "control.cli.mesh:overrides",
    "place": "control.cli.place:place",
    "publish": "tradewind.client.tools.publish:command",
    "relay": "control.cli.main:relay",
    "room": "tradewind.client.tools.room:command",
    "route": "control.cli.mesh:route",
    "session": "control.cli.session:session",
    "stream": "control.cli.stream:stream",
    "subscribe": "tradewind.client.tools.subscribe:command",
    "token": "control.cli.token:command",
    "top": "control.cli.top:top",
    "version": "control.cli.main:version",
}
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for; one that is not installed is not there."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, place in COMMANDS.items() if _is_there(place.partition(":")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None or not _is_there(place.partition(":")[0]):
            return None
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def tradewind() -> None:
    """Live media from relay to relay: run a relay, publish to it, watch it."""


@click.group()
def relay() -> None:
    """Run one relay, or look at its settings."""


@relay.command("run", context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def relay_run(arguments: tuple[str, ...]) -> None:
    """Run a relay.

    --dev --listen HOST:PORT --ops HOST:PORT --cert FILE --key FILE -c FILE; --help lists the rest, and `relay config
    docs` explains every setting.
    """
    become_relay(arguments)


@relay.command("config", context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def relay_config(arguments: tuple[str, ...]) -> None:
    """Check, show or explain settings: check|show|docs|schema [-c FILE] [FLAGS]."""
    become_relay(("config", *arguments))


@click.group()
def control() -> None:
    """Run a controller, or look at its settings."""


@control.command("run", context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def control_run(arguments: tuple[str, ...]) -> None:
    """Run a controller.

    --listen HOST:PORT --ops HOST:PORT --cert FILE --key FILE --ca FILE --state FILE -c FILE; --help lists the rest, and
    `control config docs` explains every setting.
    """
    become("control", arguments)


@control.command("config", context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def control_config(arguments: tuple[str, ...]) -> None:
    """Check, show or explain settings: check|show|docs|schema [-c FILE] [FLAGS]."""
    become("control", ("config", *arguments))


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def version(output: str) -> None:
    """Print what is installed here, and which MoQT drafts it speaks."""
    from tradewind.moqt.profiles import NATIVE_ORDER

    packages = {name: _installed(name) for name in ("tradewind", "aioquic", "trio")}
    found: dict[str, Any] = {**packages, "python": platform.python_version(), "drafts": list(NATIVE_ORDER)}
    if output == "json":
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        click.echo(f"{name:<10} {' '.join(value) if isinstance(value, list) else value}")


def become_relay(arguments: tuple[str, ...]) -> NoReturn:
    """Turn this process into a relay's: signals reach it and its exit code is ours, with nothing in between."""
    become("relay", arguments)


def become(program: str, arguments: tuple[str, ...]) -> NoReturn:
    """Turn this process into one of our programs."""
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-P", "-m", program, *arguments]
    os.execve(sys.executable, command, relay_environment())


def relay_command(arguments: tuple[str, ...]) -> list[str]:
    """The command line of a relay. -P: a folder named `relay` where somebody happens to stand is not ours."""
    return [sys.executable, "-P", "-m", "relay", *arguments]


def relay_environment() -> dict[str, str]:
    """The environment of a relay: ours, and the place of our own packages where they are not installed."""
    spec = importlib.util.find_spec("control")
    assert spec is not None
    assert spec.origin is not None
    root = str(Path(spec.origin).parent.parent)
    if any(root == place for place in map(os.path.normpath, _installed_places())):
        return dict(os.environ)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def main() -> None:
    """Run the console script."""
    tradewind.main(prog_name="tradewind")


def _installed_places() -> list[str]:
    """Where Python finds what pip installed: on the path, and not by PYTHONPATH or where we stand."""
    return [place for place in sys.path if place.endswith(("site-packages", "dist-packages"))]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _installed(name: str) -> str:
    try:
        return installed_version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
