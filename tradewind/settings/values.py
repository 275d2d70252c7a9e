"""What people write for a setting and what it becomes: sizes, durations, addresses, names.

A `Kind` reads a TOML value or the text of an environment variable or flag, and says what it expected where it cannot.
`relay.config` and `control.config` declare settings with these.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

_SIZES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DURATIONS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


class Address(NamedTuple):
    """Where to listen. Port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of setting."""

    expected: str
    """Completes "expected ..."."""
    read: Callable[[Any], Any]
    """Raises ValueError, whose message (if any) says more than `expected`."""
    schema: dict[str, Any]
    """The same as JSON Schema."""
    write: Callable[[Any], Any] = lambda value: value
    """The value as somebody would write it in TOML."""
    is_list: bool = False


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The valid name that somebody most likely meant."""
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return found[0] if found else None


def number(lowest: int = 0, highest: int | None = None) -> Kind:
    """A whole number in a range, ends included."""

    def read(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int | str):
            raise ValueError
        return int(_in_range(int(raw), lowest, highest))

    bounds = {"minimum": lowest} | ({"maximum": highest} if highest is not None else {})
    return Kind(f"a whole number{_range_text(lowest, highest)}", read, {"type": "integer", **bounds})


def size(lowest: int = 0, highest: int | None = None) -> Kind:
    """Bytes: a number, or one with B, kB, MB, GB, KiB, MiB or GiB."""

    def read(raw: Any) -> int:
        return int(_in_range(int(_quantity(raw, _SIZES)), lowest, highest))

    least, most = (bound and _write_size(bound) for bound in (lowest, highest))
    expected = f'a size such as "512MiB"{_range_text(least, most)}'
    return Kind(expected, read, _quantity_schema(_SIZES), _write_size)


def duration(lowest_s: float = 0.0, highest_s: float | None = None) -> Kind:
    """Seconds: a number, or one with us, ms, s, m (or min), h or d."""

    def read(raw: Any) -> float:
        return _in_range(_quantity(raw, _DURATIONS), lowest_s, highest_s)

    least, most = (bound and _write_duration(bound) for bound in (lowest_s, highest_s))
    expected = f'a duration such as "10s" or "4ms"{_range_text(least, most)}'
    return Kind(expected, read, _quantity_schema(_DURATIONS), _write_duration)


def choice(*names: str) -> Kind:
    """One of a few words."""

    def read(raw: Any) -> str:
        if raw not in names:
            raise ValueError(_not_one_of(str(raw), names))
        return str(raw)

    return Kind(f"one of {', '.join(names)}", read, {"enum": list(names)})


def choices(names: Sequence[str], expected: str, *, empty: bool = True) -> Kind:
    """Several of a few words, in order and each once."""

    def read(raw: Any) -> tuple[str, ...]:
        listed = tuple(dict.fromkeys(_texts(raw)))
        wrong = [name for name in listed if name not in names]
        if wrong:
            raise ValueError("; ".join(_not_one_of(name, names) for name in wrong))
        if not listed and not empty:
            raise ValueError("it is empty")
        return listed

    schema = {"type": "array", "items": {"enum": list(names)}, "minItems": 0 if empty else 1}
    return Kind(expected, read, schema, list, is_list=True)


def drafts(known: Sequence[int]) -> Kind:
    """MoQT drafts by number (20, "20" or "moqt-20"), in order of preference."""

    def read(raw: Any) -> tuple[int, ...]:
        named = [raw] if isinstance(raw, int) else raw
        words = [str(word) for word in named] if isinstance(named, list | tuple) else _texts(named)
        listed = tuple(dict.fromkeys(int(word.removeprefix("moqt-").removeprefix("draft-")) for word in words))
        unknown = [draft for draft in listed if draft not in known]
        if unknown or not listed:
            raise ValueError(f"no draft {unknown[0]} here" if unknown else "it is empty")
        return listed

    schema = {"type": "array", "items": {"enum": list(known)}, "minItems": 1}
    return Kind(f"drafts out of {', '.join(map(str, known))}", read, schema, list, is_list=True)


def addresses(*, empty: bool = False) -> Kind:
    """One or more HOST:PORT; with `empty` also none."""

    def read(raw: Any) -> tuple[Address, ...]:
        listed = tuple(dict.fromkeys(_address(text) for text in _texts(raw)))
        if not listed and not empty:
            raise ValueError("it is empty")
        return listed

    def write(value: tuple[Address, ...]) -> list[str]:
        return [str(address) for address in value]

    schema = {"type": "array", "items": {"type": "string"}, "minItems": 0 if empty else 1}
    return Kind('addresses such as "0.0.0.0:4443" or "[::]:4443"', read, schema, write, is_list=True)


def address_or_off() -> Kind:
    """HOST:PORT, or "off"."""

    def read(raw: Any) -> Address | None:
        if raw is False or raw == "off":
            return None
        return _address(_text(raw))

    def write(value: Address | None) -> str:
        return "off" if value is None else str(value)

    return Kind('an address such as "127.0.0.1:9464", or "off"', read, {"type": "string"}, write)


def flag() -> Kind:
    """Yes or no."""

    def read(raw: Any) -> bool:
        if isinstance(raw, bool):
            return raw
        if str(raw).lower() in _TRUE | _FALSE:
            return str(raw).lower() in _TRUE
        raise ValueError

    return Kind("true or false", read, {"type": "boolean"})


def text(expected: str, pattern: str = ".+") -> Kind:
    """Text that matches a pattern."""

    def read(raw: Any) -> str:
        value = _text(raw)
        if not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return Kind(expected, read, {"type": "string", "pattern": f"^(?:{pattern})$"})


def file() -> Kind:
    """A file's path; "" is none."""

    def read(raw: Any) -> str | None:
        return _text(raw) or None

    return Kind("the path of a file", read, {"type": "string"}, lambda value: value or "")


def directory() -> Kind:
    """A directory's path; "" is none."""
    return replace(file(), expected="the path of a directory")


def rate() -> Kind:
    """How often a second: a number above zero."""

    def read(raw: Any) -> float:
        return _in_range(_quantity(raw, {"": 1.0}), 0.001, 1e6)

    return Kind("a number a second, from 0.001 to 1000000", read, {"type": ["number", "string"]})


def texts(expected: str) -> Kind:
    """A list of words; in an environment variable or flag, joined by commas."""

    def read(raw: Any) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_texts(raw)))

    return Kind(expected, read, {"type": "array", "items": {"type": "string"}}, list, is_list=True)


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError
    return raw.strip()


def _texts(raw: Any) -> list[str]:
    """A list, or words joined by commas. [""] keeps its empty word: it is a prefix that covers everything."""
    if isinstance(raw, list | tuple) and all(isinstance(word, str) for word in raw):
        return [word.strip() for word in raw]
    return [word.strip() for word in _text(raw).split(",") if word.strip()]


def _address(written: str) -> Address:
    host, colon, port = written.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{written!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port))
    if ":" in host:
        raise ValueError(f"an IPv6 address goes into brackets: [{host}]:{port}")
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{written!r} names no host; every address is 0.0.0.0:{port} and [::]:{port}")
    return Address(host, int(port))


def _quantity(raw: Any, units: dict[str, float] | dict[str, int]) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise ValueError
    if isinstance(raw, int | float):
        return raw
    found = _QUANTITY.fullmatch(raw.strip())
    if not found:
        raise ValueError
    if found[2] not in units:
        raise ValueError(_not_one_of(found[2], [unit for unit in units if unit]).replace("it is", "the unit is"))
    return float(found[1]) * units[found[2]]


def _in_range(value: float, lowest: float, highest: float | None) -> float:
    if not value >= lowest or (highest is not None and value > highest):
        raise ValueError
    return value


def _range_text(least: object, most: object) -> str:
    if most is None:
        return f" of at least {least}" if least else ""
    return f" from {least} to {most}"


def _not_one_of(name: str, names: Sequence[str]) -> str:
    meant = nearest(name, names)
    return f"{name!r} is none of them" + (f"; did you mean {meant!r}?" if meant else "")


def _quantity_schema(units: dict[str, float] | dict[str, int]) -> dict[str, Any]:
    return {"type": ["number", "string"], "pattern": rf"^\d+(\.\d+)?\s*({'|'.join(units)})$"}


def _write_size(value: int) -> int | str:
    for unit in ("GiB", "MiB", "KiB"):
        if value and value % _SIZES[unit] == 0:
            return f"{value // _SIZES[unit]}{unit}"
    return value


def _write_duration(value: float) -> str:
    return f"{value * 1000:g}ms" if 0 < value < 1 else f"{value:g}s"
