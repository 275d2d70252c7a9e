"""EDGE: how commands talk to a controller: one HTTP call each, answers as tables for people or as JSON.

Exit codes: 0 done, 1 failed, 2 wrongly asked, 3 refused or no right, 4 controller not reachable.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.parse import urlencode

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

FAILED, WRONGLY_ASKED, REFUSED, UNREACHABLE = 1, 2, 3, 4
TIMEOUT_S = 15.0
MOST_COLUMNS = 4096


class CallError(Exception):
    """A call that came to nothing; says why. `code` is the exit code for it."""

    def __init__(self, why: object, code: int) -> None:
        super().__init__(str(why))
        self.code = code


def call(url: str, token: str, body: bytes | None = None) -> Any:
    """The JSON document at a URL of a controller, or what it says to this body. Raises CallError."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - the operator's own URL
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            raise CallError(_said(error.read()), _exit_code(error.code)) from error
    except (OSError, ValueError, HTTPException) as error:
        raise CallError(f"{url}: {getattr(error, 'reason', error)}", UNREACHABLE) from error


class Asker:
    """A controller, by its URL, and the token that is shown to it."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token

    def get(self, path: str, **query: object) -> Any:
        """The document at a path. Ends the program where there is none."""
        try:
            return self.ask(path, **query)
        except CallError as error:
            fail(error, error.code)

    def ask(self, path: str, **query: object) -> Any:
        """The document at a path; parameters that are None are left out. Raises CallError."""
        asked = {name: value for name, value in query.items() if value is not None}
        return self._call(path + (f"?{urlencode(asked)}" if asked else ""), None)

    def post(self, path: str, document: Mapping[str, Any]) -> Any:
        """What a change came to. Ends the program where it is refused."""
        try:
            return self._call(path, json.dumps(document).encode())
        except CallError as error:
            fail(error, error.code)

    def _call(self, path: str, body: bytes | None) -> Any:
        return call(self._url + path, self._token, body)


def fail(why: object, code: int) -> NoReturn:
    """Say why on standard error, and end."""
    click.echo(f"error: {why}", err=True)
    sys.exit(code)


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every command that asks a controller: the command gets `asker` and `output`."""

    @wraps(command)
    def asking(*, controller: str, token: str, **given: Any) -> None:
        command(asker=Asker(controller, token), **given)

    options = (
        click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True),
        click.option(
            "--controller",
            envvar="TRADEWIND_CONTROLLER",
            default="http://127.0.0.1:9480",
            show_default=True,
            metavar="URL",
            help="Its operators' listener [TRADEWIND_CONTROLLER].",
        ),
        click.option(
            "--token", envvar="TRADEWIND_OPERATOR_TOKEN", default="", help="An operator's [TRADEWIND_OPERATOR_TOKEN]."
        ),
    )
    for option in options:
        asking = option(asking)
    return asking


def show(document: Any, output: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Print a document: as JSON whole, for people as a table of some of its columns."""
    if output == "json":
        click.echo(json.dumps(document))
        return
    found = document if rows is None else rows
    table([column.replace("_", " ") for column in columns], [[row.get(name) for name in columns] for row in found])


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table."""
    drawn = Table(box=None, pad_edge=False)
    for column in columns:
        drawn.add_column(column)
    for row in rows:
        # What peers said of themselves is text and nothing else.
        drawn.add_row(*(Text(_printable(_cell(value))) for value in row))
    # As wide as it is: a row that a narrow terminal wraps can be read, and a cell that was cut cannot.
    Console(width=MOST_COLUMNS).print(drawn)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return "the controller did not say why"


def _exit_code(status: int) -> int:
    if status in {401, 403, 409}:
        return REFUSED
    return WRONGLY_ASKED if status in {400, 404} else FAILED
