"""One schema for a program's TOML file, environment and flags, read from a frozen dataclass of sections.

Precedence: flag, then environment, then file, then default (a development switch has defaults of its own). Everything
that is wrong is reported at once, each problem with its key, what was expected and the nearest valid name. A field
declared with `setting` has its key, variable, flag, check and docs by that alone. `relay.config` and `control.config`
each make one `Schema`; nothing here reads a file.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from tradewind.settings.values import Kind, nearest

VERSION = 1
ENVIRONMENT_PREFIX = "TRADEWIND_"
C = TypeVar("C")


def setting(default: Any, kind: Kind, text: str, dev: Any = dataclasses.MISSING) -> Any:
    """Declare one setting: its default (and the one of development), its kind, and what an operator reads about it."""
    return dataclasses.field(default=default, metadata={"kind": kind, "help": text, "dev": dev})


class Key(NamedTuple):
    """One setting as it is declared."""

    section: str
    name: str
    default: Any
    dev_default: Any
    kind: Kind
    help: str

    def __str__(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{ENVIRONMENT_PREFIX}{self.section}__{self.name}".upper()


class Problem(NamedTuple):
    """One thing that is wrong: where it stands, which key it is about, and what to do."""

    where: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.what}" if self.key else f"{self.where}: {self.what}"


class ConfigError(Exception):
    """The settings cannot be used; `problems` has all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class Loaded(NamedTuple, Generic[C]):
    """Settings, and where each key that is not a default came from."""

    config: C
    sources: Mapping[str, str]
    dev: bool


class Written(NamedTuple):
    """A value as somebody wrote it."""

    raw: Any
    where: str


class Schema(Generic[C]):
    """All settings of one program, as `config` declares them: a dataclass of sections, each a dataclass of settings.

    `aliases`: short flags. `dev`: the key that turns development on. `contradictions`: what only values together show.
    """

    __slots__ = ("_config", "_contradictions", "_dev", "aliases", "keys", "program", "sections", "what")

    def __init__(
        self,
        config: type[C],
        program: str,
        what: str,
        aliases: Mapping[str, str],
        contradictions: Callable[[C, Mapping[str, Written]], Iterable[Problem]],
        dev: str | None = None,
    ) -> None:
        self.program = program
        self.what = what
        self.aliases = dict(aliases)
        self.sections: dict[str, type[Any]] = {
            field.name: type(field.default)
            for field in dataclasses.fields(config)  # type: ignore[arg-type]
        }
        self.keys: dict[str, Key] = {str(key): key for key in _declared(self.sections)}
        self._config = config
        self._contradictions = contradictions
        self._dev = dev

    def load(
        self,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        file: tuple[str, str] | None = None,
    ) -> Loaded[C]:
        """Put settings together and check them. `file` is its name and text. Raises ConfigError with every problem."""
        problems: list[Problem] = []
        written: dict[str, Written] = {}
        if file is not None:
            written |= self._from_file(*file, problems)
        written |= self._from_environment(environment or {}, problems)
        written |= self._from_flags(flags, problems)
        dev = False
        if self._dev is not None and self._dev in written:
            dev = _read(self.keys[self._dev], written[self._dev], False, [])
        config = self._build(written, problems, dev=dev)
        problems += self._contradictions(config, written)
        if problems:
            raise ConfigError(problems)
        return Loaded(config, {key: value.where for key, value in written.items()}, dev)

    def _from_file(self, name: str, text: str, problems: list[Problem]) -> dict[str, Written]:
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            problems.append(Problem(name, "", f"not TOML: {error}"))
            return {}
        if document.pop("schema", VERSION) != VERSION:
            problems.append(Problem(name, "schema", f"expected {VERSION}"))
        found = {}
        for section, body in document.items():
            if section not in self.sections or not isinstance(body, dict):
                problems.append(_unknown(name, section, list(self.sections), "section"))
                continue
            for key, raw in body.items():
                if f"{section}.{key}" in self.keys:
                    found[f"{section}.{key}"] = Written(raw, name)
                else:
                    problems.append(_unknown(name, f"{section}.{key}", list(self.keys), "key"))
        return found

    def _from_environment(self, environment: Mapping[str, str], problems: list[Problem]) -> dict[str, Written]:
        """TRADEWIND_SECTION__KEY; other variables, and sections that are not ours at all, are not about us."""
        variables = {key.variable: name for name, key in self.keys.items()}
        sections = [name.upper() for name in self.sections]
        found = {}
        for variable, raw in environment.items():
            section, separator, _ = variable.removeprefix(ENVIRONMENT_PREFIX).partition("__")
            if variable in variables:
                found[variables[variable]] = Written(raw, f"environment {variable}")
            elif variable.startswith(ENVIRONMENT_PREFIX) and separator and nearest(section, sections):
                problems.append(_unknown("environment", variable, list(variables), "variable"))
        return found

    def _from_flags(self, flags: Sequence[str], problems: list[Problem]) -> dict[str, Written]:
        found: dict[str, Written] = {}
        names = [*self.aliases, *(f"--{key}" for key in self.keys)]
        waiting = list(flags)
        while waiting:
            flag, equals, raw = waiting.pop(0).partition("=")
            name = self.aliases.get(flag, flag.removeprefix("--"))
            if not flag.startswith("--") or name not in self.keys:
                problems.append(_unknown("flag", flag, names, "flag"))
                # A flag that we do not know had a value, most likely.
                if flag.startswith("--") and not equals and waiting and not waiting[0].startswith("--"):
                    waiting.pop(0)
                continue
            if not equals and self.keys[name].kind.schema.get("type") == "boolean":
                raw = "true"
            elif not equals and (not waiting or waiting[0].startswith("--")):
                problems.append(Problem("flag", flag, f"expected {self.keys[name].kind.expected}"))
                continue
            elif not equals:
                raw = waiting.pop(0)
            if name in found and self.keys[name].kind.is_list:
                raw = f"{found[name].raw},{raw}"
            found[name] = Written(raw, f"flag {flag}")
        return found

    def _build(self, written: Mapping[str, Written], problems: list[Problem], *, dev: bool) -> C:
        """Read every value; one that cannot be read is a problem and counts as its default."""
        sections: dict[str, dict[str, Any]] = {}
        for name, key in self.keys.items():
            default = key.dev_default if dev else key.default
            value = _read(key, written[name], default, problems) if name in written else default
            sections.setdefault(key.section, {})[key.name] = value
        return self._config(**{name: declared(**sections[name]) for name, declared in self.sections.items()})


def _declared(sections: Mapping[str, type[Any]]) -> Iterator[Key]:
    for section, declared in sections.items():
        for field in dataclasses.fields(declared):
            meta = field.metadata
            dev = field.default if meta["dev"] is dataclasses.MISSING else meta["dev"]
            yield Key(section, field.name, field.default, dev, meta["kind"], meta["help"])


def _read(key: Key, written: Written, default: Any, problems: list[Problem]) -> Any:
    try:
        return key.kind.read(written.raw)
    except ValueError as error:
        # int("x") and ipaddress say things of their own; what a Kind says on purpose is worth adding.
        said = str(error)
        more = f" ({said})" if said and not said.startswith("invalid literal") else ""
        problems.append(Problem(written.where, str(key), f"expected {key.kind.expected}, not {written.raw!r}{more}"))
        return default


def _unknown(where: str, name: str, names: Sequence[str], what: str) -> Problem:
    meant = nearest(name, names)
    return Problem(where, name, f"no such {what}" + (f"; did you mean {meant}?" if meant else ""))
