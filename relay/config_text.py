"""The settings in words: every key explained, what is in force and why, and a JSON Schema for editors.

`python -m relay config docs|show|schema` prints these; all three are derived from `relay.config` and nothing else.
"""

from __future__ import annotations

import json
import textwrap
from typing import Any

from relay.config import ALIASES, KEYS, SCHEMA, SECTIONS, Key, Loaded


def docs() -> str:
    """A whole settings file as TOML, every key with its default commented out and explained."""
    lines = [
        "# Tradewind relay settings. Every key is here with its default, commented out.",
        "# Precedence: flag, environment, this file, default; --dev has the defaults marked so.",
        f"schema = {SCHEMA}",
    ]
    for section, declared in SECTIONS.items():
        lines += ["", f"[{section}]  # {declared.__doc__}"]
        for key in _keys_of(section):
            lines += ["", *_explained(key), f"# {key.name} = {_toml(key.kind.write(key.default))}"]
    return "\n".join(lines) + "\n"


def effective(loaded: Loaded) -> str:
    """What is in force, as TOML, with where each value comes from."""
    lines = [f"schema = {SCHEMA}"]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for key in _keys_of(section):
            value = getattr(getattr(loaded.config, section), key.name)
            source = loaded.sources.get(str(key)) or _default_name(key, loaded)
            lines.append(f"{key.name} = {_toml(key.kind.write(value))}  # {source}")
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """JSON Schema of the settings file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tradewind relay settings",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "schema": {"const": SCHEMA},
            **{
                section: {
                    "type": "object",
                    "description": declared.__doc__,
                    "additionalProperties": False,
                    "properties": {
                        key.name: {
                            **key.kind.schema,
                            "description": key.help,
                            "default": key.kind.write(key.default),
                        }
                        for key in _keys_of(section)
                    },
                }
                for section, declared in SECTIONS.items()
            },
        },
    }


def usage() -> str:
    """What `python -m relay --help` prints."""
    short = "\n".join(f"  {flag:<12} {key:<14} {KEYS[key].help}" for flag, key in ALIASES.items())
    return f"""python -m relay [-c FILE] [FLAGS]            run a relay
python -m relay config check [-c FILE] [FLAGS]   say what is wrong with the settings, all of it
python -m relay config show [-c FILE] [FLAGS]    print what is in force, and why
python -m relay config docs|schema               print every setting explained, or as JSON Schema

Every setting is a flag too (--cache.max_bytes 512MiB). Short ones:
{short}
"""


def _keys_of(section: str) -> list[Key]:
    return [key for key in KEYS.values() if key.section == section]


def _explained(key: Key) -> list[str]:
    short = [flag for flag, name in ALIASES.items() if name == str(key)]
    dev = f" --dev: {_toml(key.kind.write(key.dev_default))}." if key.dev_default != key.default else ""
    said = [
        key.help,
        f"{key.kind.expected[0].upper()}{key.kind.expected[1:]}.{dev}",
        f"{key.variable}, {', '.join([*short, f'--{key}'])}",
    ]
    return [line for part in said for line in textwrap.wrap(part, 100, initial_indent="# ", subsequent_indent="#   ")]


def _default_name(key: Key, loaded: Loaded) -> str:
    return "default of --dev" if loaded.config.relay.dev and key.dev_default != key.default else "default"


def _toml(value: Any) -> str:
    """A value in TOML, which for texts, numbers, booleans and lists is what JSON would write."""
    return json.dumps(value, ensure_ascii=False)
