"""EDGE: `tradewind cert`: a mesh's authority, and the certificates by which its nodes know each other.

`ca` makes ca.crt and ca.key; `issue` and `renew` need both, nodes only ca.crt. Who has ca.key can be any node of the
mesh: it belongs to whoever issues, and on no relay. Files are replaced whole, by renaming; a running node reads them
again and goes on with its old pair while only one of the two is new.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from tradewind.contract.identity import (
    Authority,
    IdentityError,
    NodeIdentity,
    PrivateKey,
    parse_authority,
    parse_pem_certificate,
    parse_pem_key,
    public_key,
    server_name,
    validity,
)
from tradewind.contract.ids import Role
from tradewind.contract.issuing import (
    Order,
    OrderError,
    Terms,
    certificate_pem,
    generate_key,
    issue,
    key_pem,
    make_authority,
    order_of,
)

DAY_S = 86_400.0
BACKDATED_S = 300.0
"""A certificate begins this long before it is made: the clocks of those who check it may be behind."""
MAX_FILE_BYTES = 2**20
GOOD = "good"

T = TypeVar("T")
Days = click.IntRange(1, 36_500)
Directory = click.Path(path_type=Path, file_okay=False)
File = click.Path(path_type=Path, dir_okay=False, exists=True)


@dataclass(frozen=True, slots=True)
class Issuer:
    """A mesh's authority with the key to issue: the newest of those in ca.crt, which ca.key must be of."""

    authority: Authority
    der: bytes
    key: PrivateKey
    ends: float
    """Wall seconds."""


@click.group()
def command() -> None:
    """Make and renew the certificates by which the nodes of a mesh know each other."""


@command.command("ca")
@click.option("--mesh", required=True, metavar="NAME", help="The name of the mesh; stands in every certificate.")
@click.option("--days", type=Days, default=3650, show_default=True, help="How long it is good for.")
@click.option("--after", type=File, help="The ca.crt that this one takes over from; both go into the new ca.crt.")
@click.option(
    "-o", "--out", "directory", type=Directory, default=".", help="Where ca.crt and ca.key go; default: here."
)
def make_ca(mesh: str, days: int, after: Path | None, directory: Path) -> None:
    """Make a mesh's authority: ca.crt, which every node gets, and ca.key, which none does.

    Nothing is ever written over. To renew an authority make another one --after it, elsewhere; give every node the new
    ca.crt, which has both in it; renew the nodes' certificates with --ca; then give them a ca.crt without the old one.
    """
    key = generate_key()
    der = _wanted(lambda: make_authority(mesh, key, _terms(time.time(), days * DAY_S)))
    ders = [der]
    if after is not None:
        ders += _believed(after, lambda: parse_authority(_read(after))).certificates
        _believed(after, lambda: Authority(ders))
    _write_pair(directory, "ca", b"".join(map(certificate_pem, ders)), key_pem(key))
    click.echo(f"{directory / 'ca.crt'}: the authority of {mesh}, good for {days} days")


@command.command("issue")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.option("--id", "node", required=True, help="The node's name; files are called like it.")
@click.option("--region", required=True, help="Where it runs.")
@click.option("--name", "names", multiple=True, metavar="HOST_OR_IP", help="Where it is dialled; may be given again.")
@click.option("--days", type=Days, default=90, show_default=True, help="How long it is good for.")
@click.option("--ca", "authority", type=Directory, help="Where ca.crt and ca.key are; default: as --out.")
@click.option(
    "-o", "--out", "directory", type=Directory, default=".", help="Where ID.crt and ID.key go; default: here."
)
def issue_node(
    role: str, node: str, region: str, names: tuple[str, ...], days: int, authority: Path | None, directory: Path
) -> None:
    """Make a node's certificate and its key: ID.crt and ID.key. Nothing is written over; see `renew`."""
    issuer = _issuer(authority or directory)
    order = _wanted(lambda: Order(issuer.authority.mesh, Role(role), region, node, names))
    made, key = _issue(issuer, order, days * DAY_S)
    _write_pair(directory, node, certificate_pem(made.der), key_pem(key))
    _say(made, directory / f"{node}.crt")


@command.command("renew")
@click.argument("file", type=File)
@click.option("--days", type=Days, help="How long it is good for; default: as long as it was.")
@click.option("--if-expiring", "within", type=Days, metavar="DAYS", help="Only if it ends within so many days.")
@click.option("--ca", "authority", type=Directory, help="Where ca.crt and ca.key are; default: beside FILE.")
def renew(file: Path, days: int | None, within: int | None, authority: Path | None) -> None:
    """Make a node's certificate (FILE, with its .key beside it) anew: the same names, another key, another life."""
    old = _believed(file, lambda: parse_pem_certificate(_read(file)))
    order = _believed(file, lambda: order_of(old))
    begins, ends = validity(old)
    wall_now = time.time()
    if within is not None and ends - wall_now > within * DAY_S:
        click.echo(f"{file}: good until {_moment(ends)}, left as it is")
        return
    issuer = _issuer(authority or file.parent)
    # At a moment of its own life: one that has ended is renewed, one of another mesh is not.
    _believed(file, lambda: issuer.authority.verify(old, max(begins, min(wall_now, ends))))
    lifetime_s = days * DAY_S if days is not None else max(DAY_S, ends - begins - BACKDATED_S)
    made, key = _issue(issuer, order, lifetime_s)
    _replace(file.with_suffix(".key"), key_pem(key), 0o600)
    _replace(file, certificate_pem(made.der), 0o644)
    _say(made, file)


@command.command("show")
@click.argument("file", type=File)
@click.option("--ca", "authority", type=File, help="The mesh's ca.crt: check the certificate against it.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def show(file: Path, authority: Path | None, output: str) -> None:
    """Say whom a certificate is for and how long it is good for.

    With --ca the exit code says whether the nodes of that mesh would take it now.
    """
    pem = _read(file)
    wall_now = time.time()
    try:
        authorities = parse_authority(pem).certificates
    except IdentityError:
        authorities = ()
    if authorities and authority is not None:
        raise click.UsageError("--ca checks a node's certificate, and this is an authority's")
    for der in authorities:
        _print(_shown_authority(der, wall_now), output)
    if not authorities:
        der = _believed(file, lambda: parse_pem_certificate(pem))
        verdict = _verdict(der, authority, wall_now)
        _print({**_shown_node(_believed(file, lambda: order_of(der)), der, wall_now), "verdict": verdict}, output)
        if authority is not None and verdict != GOOD:
            raise SystemExit(1)


def _issue(issuer: Issuer, order: Order, lifetime_s: float) -> tuple[NodeIdentity, PrivateKey]:
    """A certificate, as every node will check it, for a fresh key; never for longer than its authority is good for."""
    wall_now = time.time()
    if wall_now >= issuer.ends:
        raise click.ClickException(f"the authority ended {_moment(issuer.ends)}: make another one with `cert ca`")
    terms = _terms(wall_now, lifetime_s)
    if terms.ends > issuer.ends:
        click.echo(f"the authority ends {_moment(issuer.ends)}, and the certificate with it", err=True)
        terms = Terms(terms.serial, terms.begins, issuer.ends)
    key = generate_key()
    der = _wanted(lambda: issue(order, key.public_key(), issuer.der, issuer.key, terms))
    try:
        return issuer.authority.verify(der, wall_now, role=order.role, id=order.id), key
    except IdentityError as error:
        raise click.ClickException(f"no node would take this certificate: {error}") from error


def _terms(wall_now: float, lifetime_s: float) -> Terms:
    # A serial number as RFC 5280 wants it: positive, at most 20 bytes, and nobody's but this certificate's.
    return Terms(secrets.randbits(158) + 1, wall_now - BACKDATED_S, wall_now + lifetime_s)


def _verdict(der: bytes, authority: Path | None, wall_now: float) -> str:
    """Whether the nodes of that authority's mesh would take a certificate, or why not."""
    if authority is None:
        return "not checked (no --ca)"
    trusted = _believed(authority, lambda: parse_authority(_read(authority)))
    try:
        trusted.verify(der, wall_now)
    except IdentityError as error:
        return str(error)
    return GOOD


def _issuer(directory: Path) -> Issuer:
    crt, key_file = directory / "ca.crt", directory / "ca.key"
    authority = _believed(crt, lambda: parse_authority(_read(crt)))
    key = _believed(key_file, lambda: parse_pem_key(_read(key_file)))
    for der in authority.certificates:
        if public_key(der) == key.public_key():
            return Issuer(authority, der, key, validity(der)[1])
    raise click.ClickException(f"{key_file}: not the key of {crt}")


def _wanted(make: Callable[[], T]) -> T:
    """What was asked for on the command line, or how it was asked wrongly."""
    try:
        return make()
    except OrderError as error:
        raise click.UsageError(str(error)) from error


def _believed(file: Path, read: Callable[[], T]) -> T:
    """What a file says, or why it is no good."""
    try:
        return read()
    except (IdentityError, OrderError) as error:
        raise click.ClickException(f"{file}: {error}") from error


def _say(identity: NodeIdentity, file: Path) -> None:
    click.echo(f"{file}: {identity.uri}, good until {_moment(identity.not_after)}")


def _shown_authority(der: bytes, wall_now: float) -> dict[str, Any]:
    return {"kind": "authority", "mesh": Authority([der]).mesh, **_shown(der, wall_now)}


def _shown_node(order: Order, der: bytes, wall_now: float) -> dict[str, Any]:
    place = {"role": order.role.value, "region": order.region, "id": order.id, "names": list(order.names)}
    place["server_name"] = server_name(order.mesh, order.id)
    return {"kind": "node", "mesh": order.mesh, **place, **_shown(der, wall_now)}


def _shown(der: bytes, wall_now: float) -> dict[str, Any]:
    begins, ends = validity(der)
    return {
        "not_before": begins,
        "not_after": ends,
        "days_left": round((ends - wall_now) / DAY_S, 2),
        "sha256": hashlib.sha256(der).hexdigest(),
    }


def _print(found: dict[str, Any], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(found))
        return
    table = Table(show_header=False, box=None)
    for name, value in found.items():
        if name in {"not_before", "not_after"}:
            value = _moment(value)
        elif isinstance(value, list):
            value = ", ".join(value) or "-"
        table.add_row(name.replace("_", " "), str(value))
    Console(soft_wrap=True).print(table)


def _moment(wall: float) -> str:
    return f"{dt.datetime.fromtimestamp(wall, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise click.ClickException(f"{file}: more than {MAX_FILE_BYTES} bytes")
    return data


def _write_pair(directory: Path, stem: str, certificate: bytes, key: bytes) -> None:
    """Two new files, or none."""
    files = {directory / f"{stem}.key": (key, 0o600), directory / f"{stem}.crt": (certificate, 0o644)}
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file in files:
            if file.exists():
                raise click.ClickException(f"{file} is there already, and is not written over")
        for file, (data, mode) in files.items():
            _create(file, data, mode)
            written.append(file)
    except OSError as error:
        for file in written:
            file.unlink(missing_ok=True)
        raise click.ClickException(f"{error.filename or directory}: {error.strerror}") from error


def _replace(file: Path, data: bytes, mode: int) -> None:
    """Put a file in another's place, with its owner and mode: whoever reads finds the one or the other, whole."""
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        old = file.stat() if file.exists() else None
        _create(beside, data, stat.S_IMODE(old.st_mode) if old else mode)
        if old is not None and (old.st_uid, old.st_gid) != (beside.stat().st_uid, beside.stat().st_gid):
            # Renewed by root, read by a node that is not.
            os.chown(beside, old.st_uid, old.st_gid)
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise click.ClickException(f"{file}: {error.strerror}") from error


def _create(file: Path, data: bytes, mode: int) -> None:
    """Write a file that was not there; a secret one is never readable by others, not even for a moment."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
        os.fchmod(out.fileno(), mode)
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
