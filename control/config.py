"""The controller's settings: one schema for the TOML file, the environment and the flags (`tradewind.settings`).

    [control] listen = "0.0.0.0:4480"      TRADEWIND_CONTROL__LISTEN=0.0.0.0:4480      --control.listen 0.0.0.0:4480

A change takes a restart, but for access and operators' keys and where addresses are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tradewind.contract.ids import is_name
from tradewind.settings import values
from tradewind.settings.logs import LogSection
from tradewind.settings.schema import Problem, Schema, Written, setting
from tradewind.settings.values import Address

ALIASES = {
    "--listen": "control.listen",
    "--state": "control.state",
    "--ops": "http.ops",
    "--public": "http.public",
    "--cert": "mesh.cert",
    "--key": "mesh.key",
    "--ca": "mesh.ca",
    "--auth-key": "place.keys",
    "--operator-key": "operators.keys",
    "--log-level": "log.level",
}
"""Short flags for what is typed by hand."""


@dataclass(frozen=True, slots=True)
class ControlSection:
    """Where relays find this controller, and what it keeps."""

    listen: tuple[Address, ...] = setting(
        (Address("0.0.0.0", 4480), Address("::", 4480)),  # noqa: S104 - relays come from everywhere
        values.addresses(),
        "UDP addresses that relays dial.",
    )
    state: str | None = setting("control.sqlite", values.file(), "SQLite file with everything that must survive.")
    places: tuple[str, ...] = setting(
        (),
        values.texts('a list such as "eu-central=50.1/8.7"'),
        "Where relays or regions are: latitude and longitude in degrees, by id.",
    )
    rooms: tuple[str, ...] = setting(
        (), values.texts('a list of rooms such as "live/r/lobby"'), "Rooms that have a home before anybody writes."
    )


@dataclass(frozen=True, slots=True)
class MeshSection:
    """Who this controller is: its certificate says its mesh, region and id (`tradewind cert`)."""

    ca: str | None = setting(None, values.file(), "PEM file: the mesh's authority, or the old one and the new one.")
    cert: str | None = setting(None, values.file(), "PEM file: this controller's certificate.")
    key: str | None = setting(None, values.file(), "PEM file: its private key.")


@dataclass(frozen=True, slots=True)
class HttpSection:
    """HTTP, without TLS: put a proxy before what is public."""

    ops: Address | None = setting(
        Address("127.0.0.1", 9480),
        values.address_or_off(),
        "Everything: /livez /readyz /metrics /state /version, /v1/place and the operators' API. Keep it on loopback.",
    )
    public: Address | None = setting(
        None, values.address_or_off(), "/livez, /v1/place and the operators' API, for others; every call has a token."
    )


@dataclass(frozen=True, slots=True)
class PlaceSection:
    """Where viewers go."""

    keys: tuple[str, ...] = setting(
        (),
        values.texts("a list of files or directories"),
        "JWK or JWK set files, or directories of them: access tokens of who asks for a place are checked with these.",
    )
    signing: str | None = setting(
        None, values.file(), "JWK file, Ed25519: placement tokens are signed with it. None: a key made at each start."
    )
    policy: str | None = setting(None, values.file(), "TOML file: weights, markets and prices of placement.")
    prefixes: str | None = setting(
        None,
        values.file(),
        "Where addresses are: a MaxMind database (.mmdb), or lines of PREFIX,COUNTRY,LATITUDE,LONGITUDE.",
    )
    reload: str = setting("", values.text("a URL, or nothing", ".*"), "Where viewers ask again; none: where they did.")


@dataclass(frozen=True, slots=True)
class OperatorsSection:
    """Who may look and act."""

    keys: tuple[str, ...] = setting(
        (),
        values.texts("a list of files or directories"),
        "JWK files, as for access tokens: operators' tokens (`tradewind token operator`) are checked with these alone.",
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one controller, checked."""

    control: ControlSection = ControlSection()
    mesh: MeshSection = MeshSection()
    http: HttpSection = HttpSection()
    place: PlaceSection = PlaceSection()
    operators: OperatorsSection = OperatorsSection()
    log: LogSection = LogSection()


def warnings(config: Config) -> list[str]:
    """What is allowed but deserves a second look."""
    said = []
    if config.http.ops is not None and not config.http.ops.is_loopback:
        said.append(f"http.ops: {config.http.ops} is open to others, and shows /metrics and /state to anybody")
    if not config.operators.keys:
        said.append("operators.keys: none, so that nobody may look or act")
    if not config.place.keys:
        said.append("place.keys: none, so that no viewer is placed")
    return said


def parse_place(text: str) -> tuple[str, float, float] | None:
    """An id and its latitude and longitude, from `ID=LATITUDE/LONGITUDE`; None where it is not one."""
    found = _PLACE.fullmatch(text)
    if not found or not is_name(found[1]):
        return None
    latitude, longitude = float(found[2]), float(found[3])
    return (found[1], latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


_PLACE = re.compile(r"([a-z0-9-]+)=(-?\d{1,3}(?:\.\d+)?)/(-?\d{1,3}(?:\.\d+)?)")


def _contradictions(config: Config, written: Mapping[str, Written]) -> Iterator[Problem]:
    for name in ("ca", "cert", "key"):
        if not getattr(config.mesh, name) and f"mesh.{name}" not in written:
            yield Problem("settings", f"mesh.{name}", "expected a PEM file; `tradewind cert` makes it")
    for place in config.control.places:
        if parse_place(place) is None:
            where = written["control.places"].where
            yield Problem(where, "control.places", f'expected "ID=LATITUDE/LONGITUDE" in degrees, not {place!r}')
    if not config.control.state:
        where = written["control.state"].where if "control.state" in written else "settings"
        yield Problem(where, "control.state", "expected the path of a file")


CONTROL = Schema(Config, "python -m control", "controller", ALIASES, _contradictions)
