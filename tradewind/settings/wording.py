"""Settings in words: every key explained, what is in force and why, and a JSON Schema for editors.

`config docs|show|schema` of each program prints these; all three are derived from its `Schema` and nothing else.
"""

from __future__ import annotations

import json
import textwrap
from typing import Any

from tradewind.settings.schema import VERSION, Key, Loaded, Schema


def docs(schema: Schema[Any]) -> str:
    """A whole settings file as TOML, every key with its default commented out and explained."""
    lines = [
        f"# Tradewind {schema.what} settings. Every key is here with its default, commented out.",
        "# Precedence: flag, environment, this file, default; --dev has the defaults marked so.",
        f"schema = {VERSION}",
    ]
    for section, declared in schema.sections.items():
        lines += ["", f"[{section}]  # {declared.__doc__}"]
        for key in _keys_of(schema, section):
            lines += ["", *_explained(schema, key), f"# {key.name} = {_toml(key.kind.write(key.default))}"]
    return "\n".join(lines) + "\n"


def effective(schema: Schema[Any], loaded: Loaded[Any]) -> str:
    """What is in force, as TOML, with where each value comes from."""
    lines = [f"schema = {VERSION}"]
    for section in schema.sections:
        lines += ["", f"[{section}]"]
        for key in _keys_of(schema, section):
            value = getattr(getattr(loaded.config, section), key.name)
            source = loaded.sources.get(str(key)) or _default_name(key, loaded)
            lines.append(f"{key.name} = {_toml(key.kind.write(value))}  # {source}")
    return "\n".join(lines) + "\n"


def json_schema(schema: Schema[Any]) -> dict[str, Any]:
    """JSON Schema of the settings file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Tradewind {schema.what} settings",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "schema": {"const": VERSION},
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
                        for key in _keys_of(schema, section)
                    },
                }
                for section, declared in schema.sections.items()
            },
        },
    }


def usage(schema: Schema[Any]) -> str:
    """What `{schema.program} --help` prints."""
    short = "\n".join(f"  {flag:<12} {key:<14} {schema.keys[key].help}" for flag, key in schema.aliases.items())
    return f"""{schema.program} [-c FILE] [FLAGS]            run a {schema.what}
{schema.program} config check [-c FILE] [FLAGS]   say what is wrong with the settings, all of it
{schema.program} config show [-c FILE] [FLAGS]    print what is in force, and why
{schema.program} config docs|schema               print every setting explained, or as JSON Schema

Every setting is a flag too (--SECTION.KEY VALUE). Short ones:
{short}
"""


def _keys_of(schema: Schema[Any], section: str) -> list[Key]:
    return [key for key in schema.keys.values() if key.section == section]


def _explained(schema: Schema[Any], key: Key) -> list[str]:
    short = [flag for flag, name in schema.aliases.items() if name == str(key)]
    dev = f" --dev: {_toml(key.kind.write(key.dev_default))}." if key.dev_default != key.default else ""
    said = [
        key.help,
        f"{key.kind.expected[0].upper()}{key.kind.expected[1:]}.{dev}",
        f"{key.variable}, {', '.join([*short, f'--{key}'])}",
    ]
    return [line for part in said for line in textwrap.wrap(part, 100, initial_indent="# ", subsequent_indent="#   ")]


def _default_name(key: Key, loaded: Loaded[Any]) -> str:
    return "default of --dev" if loaded.dev and key.dev_default != key.default else "default"


def _toml(value: Any) -> str:
    """A value in TOML, which for texts, numbers, booleans and lists is what JSON would write."""
    return json.dumps(value, ensure_ascii=False)
