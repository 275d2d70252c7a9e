"""EDGE: `tradewind token`: make keys and access tokens, and say what a token allows.

The same files and tokens as moq-token's, so either tool serves either relay.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import click
from rich.console import Console
from rich.table import Table

from tradewind.contract.roles import ROLES, Operator, sign_operator
from tradewind.contract.token import (
    ALGORITHMS,
    Claims,
    Key,
    KeyFormatError,
    TokenError,
    generate_key,
    parse_keys,
    peek,
    public_key,
    sign,
    verify,
)

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Duration(click.ParamType[float]):
    """Seconds, written as 90s, 30m, 2h or 7d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+)([smhd])", str(value))
        if not found:
            self.fail(f"{value!r} is not a duration such as 90s, 30m, 2h or 7d", param, ctx)
        return int(found[1]) * _UNITS_S[found[2]]


@click.group()
def command() -> None:
    """Make keys and access tokens, and say what a token allows."""


@command.command("key")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default="ES256", show_default=True)
@click.option("--id", "key_id", help="The key's name in tokens; its file's name where it is not given.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The private key.")
@click.option("--public", type=click.Path(path_type=Path, dir_okay=False), help="The half that a relay needs.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
def make_key(algorithm: str, key_id: str | None, out: Path, public: Path | None, force: bool) -> None:
    """Make a key and write it to a file.

    Give a relay the --public half (or, for HS256 and its kin, the one secret) with --auth-key.
    """
    key_id = key_id or out.stem
    if not _KEY_ID.fullmatch(key_id):
        raise click.UsageError(f"{key_id!r} is not 1 to 128 letters, digits, - and _: say --id")
    document = generate_key(algorithm, key_id)
    halves = {out: document}
    if public is not None:
        try:
            halves[public] = public_key(document)
        except KeyFormatError as error:
            raise click.UsageError(f"--public: {error}") from error
    for file in halves:
        if file.exists() and not force:
            raise click.ClickException(f"{file} is there already; --force writes over it")
    for file, half in halves.items():
        _write(file, json.dumps(half) + "\n", secret=file == out)


@command.command("create")
@click.option("--key", "key_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True)
@click.option("--root", default="", help="The path that put and get are under.")
@click.option("--put", "--publish", multiple=True, metavar="PATH", help='May publish here; "" is everything.')
@click.option("--get", "--subscribe", multiple=True, metavar="PATH", help='May subscribe here; "" is everything.')
@click.option("--ttl", type=Duration(), default="1h", show_default=True, help="How long it is good for.")
@click.option("--subject", help="Whom it is for; shown in logs.")
@click.option("--url", help="Print this address with the token in it instead of the token alone.")
def create(
    key_file: Path,
    root: str,
    put: tuple[str, ...],
    get: tuple[str, ...],
    ttl: float,
    subject: str | None,
    url: str | None,
) -> None:
    """Sign a token and print it."""
    wall_now = time.time()
    claims = Claims(root, put, get, expires_at=wall_now + ttl, issued_at=wall_now, subject=subject)
    keys = [key for key in _keys(key_file) if key.can_sign]
    if len(keys) != 1:
        raise click.ClickException(f"{key_file} has {len(keys) or 'no'} keys that can sign; it takes one")
    try:
        token = sign(claims, keys[0])
    except TokenError as error:
        raise click.UsageError(f"{error.detail}: say --put or --get") from error
    click.echo(_with_token(url, token) if url else token)


@command.command("operator")
@click.option("--key", "key_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True)
@click.option("--role", type=click.Choice(list(ROLES)), default="viewer", show_default=True)
@click.option("--name", required=True, help="Who it is for; stands in the audit.")
@click.option("--ttl", type=Duration(), default="8h", show_default=True, help="How long it is good for.")
def operator(key_file: Path, role: str, name: str, ttl: float) -> None:
    """Sign an operator's token for the control plane and print it.

    A viewer looks, an operator drains, cordons and ends sessions, an admin also reads the audit. Use a key that signs
    nothing else.
    """
    keys = [key for key in _keys(key_file) if key.can_sign]
    if len(keys) != 1:
        raise click.ClickException(f"{key_file} has {len(keys) or 'no'} keys that can sign; it takes one")
    wall_now = time.time()
    try:
        click.echo(sign_operator(Operator(name, ROLES[role]), keys[0], wall_now, wall_now + ttl))
    except TokenError as error:
        raise click.UsageError(error.detail) from error


@command.command("inspect")
@click.argument("token")
@click.option("--key", "key_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Check it too.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def inspect(token: str, key_file: Path | None, output: str) -> None:
    """Say what a token (or an address with one in it, or - for standard input) allows.

    With --key the exit code says whether a relay with that key would take it now.
    """
    token = _bare(sys.stdin.read() if token == "-" else token)
    try:
        claims = peek(token)
    except TokenError as error:
        raise click.ClickException(str(error)) from error
    verdict = "not checked (no --key)"
    good = True
    if key_file is not None:
        try:
            verify(token, _keys(key_file), time.time())
            verdict = "good"
        except TokenError as error:
            verdict, good = str(error), False
    _show(claims, verdict, output)
    if not good:
        raise SystemExit(1)


def _show(claims: Claims, verdict: str, output: str) -> None:
    publish, subscribe = map(_paths, (claims.publish_prefixes(), claims.subscribe_prefixes()))
    times = {"issued": claims.issued_at, "not_before": claims.not_before, "expires": claims.expires_at}
    if output == "json":
        names = {"subject": claims.subject, "id": claims.id}
        click.echo(json.dumps({"publish": publish, "subscribe": subscribe, **times, **names, "verdict": verdict}))
        return
    table = Table(show_header=False, box=None)
    table.add_row("publish", ", ".join(publish) or "-")
    table.add_row("subscribe", ", ".join(subscribe) or "-")
    for name, moment in times.items():
        if moment is not None:
            table.add_row(name.replace("_", " "), f"{dt.datetime.fromtimestamp(moment, dt.UTC):%Y-%m-%d %H:%M:%S} UTC")
    for name, value in (("subject", claims.subject), ("id", claims.id)):
        if value is not None:
            table.add_row(name, value)
    table.add_row("verdict", verdict)
    Console().print(table)


def _paths(prefixes: tuple[tuple[bytes, ...], ...]) -> list[str]:
    return ["/" + "/".join(field.decode(errors="replace") for field in prefix) for prefix in prefixes]


def _keys(file: Path) -> tuple[Key, ...]:
    try:
        return parse_keys(file.read_text(encoding="utf-8"), default_id=file.stem)
    except (KeyFormatError, OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: {error}") from error


def _write(file: Path, text: str, *, secret: bool) -> None:
    """Write a file; a secret one is never readable by others, not even for a moment."""
    try:
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if secret else 0o644)
        with os.fdopen(opened, "w", encoding="utf-8") as out:
            if secret:
                os.fchmod(out.fileno(), 0o600)
            out.write(text)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error


def _with_token(url: str, token: str) -> str:
    parts = urlsplit(url)
    query = "&".join(filter(None, [parts.query, f"jwt={quote(token)}"]))
    return urlunsplit(parts._replace(query=query))


def _bare(text: str) -> str:
    """The token alone, out of an address too."""
    found = re.search(r"[?&]jwt=([^&#\s]+)", text)
    return found[1] if found else text.strip()
