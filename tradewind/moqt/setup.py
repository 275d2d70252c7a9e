"""Setup Options: the bodies of SETUP and of draft 16's CLIENT_SETUP and SERVER_SETUP.

`tradewind.moqt.messages` is the caller. Which side may send PATH and AUTHORITY, and over which transport, is the
session's to check. Source: draft-20, "Setup Options".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tradewind.moqt.errors import SessionCode
from tradewind.moqt.fields import Reader, decode_pairs, encode_pairs, violation
from tradewind.moqt.kinds import read_token, write_token
from tradewind.moqt.parameters import MAX_TOKENS, RawToken, SetupOptions

if TYPE_CHECKING:
    from tradewind.moqt.model import Properties
    from tradewind.moqt.profiles import Profile

MAX_IMPLEMENTATION_CHARACTERS = 128
MAX_OTHER_OPTIONS = 64
"""Options that we do not know are kept for extensions, this many; more are ignored."""

_PATH, _TOKEN, _AUTHORITY, _IMPLEMENTATION = 0x01, 0x03, 0x05, 0x07
_NUMBERS = {
    0x02: "max_request_id",
    0x04: "max_token_cache_bytes",
    0x06: "max_filter_ranges",
    0x08: "max_request_updates",
}
_PATH_FORM = re.compile(rb"(/[!$&-;=@-Z_a-z~%]*)?(\?[!$&-;=?-Z_a-z~%/]*)?")
_AUTHORITY_FORM = re.compile(rb"[!$&-.0-;=@-Z\[\]_a-z~%]*")


def read_setup(reader: Reader) -> SetupOptions:
    """All of a SETUP's body.

    Raises ProtocolViolation for a known option twice, for a PATH or AUTHORITY that breaks the URI rules, and for a
    token that cannot be decoded.
    """
    profile = reader.profile
    if profile.parameters_are_pairs:
        count = reader.varint()
        pairs = decode_pairs(profile.varint, reader.rest())
        if len(pairs) != count:
            raise violation(f"{len(pairs)} setup parameters where {count} were announced")
    else:
        pairs = decode_pairs(profile.varint, reader.rest())
    return _collect(profile, pairs)


def write_setup(profile: Profile, options: SetupOptions) -> bytes:
    """A SETUP's body: every option that differs from what silence means and that the draft has."""
    pairs: list[tuple[int, int | bytes]] = list(options.others)
    pairs += ((_TOKEN, write_token(profile, token)) for token in options.tokens)
    for type, name in _NUMBERS.items():
        value = getattr(options, name)
        if value and type in profile.setup_options:
            pairs.append((type, value))
    if options.path is not None:
        pairs.append((_PATH, options.path.encode("ascii")))
    if options.authority is not None:
        pairs.append((_AUTHORITY, options.authority.encode("ascii")))
    if options.implementation:
        pairs.append((_IMPLEMENTATION, options.implementation.encode()))
    count = profile.varint.encode(len(pairs)) if profile.parameters_are_pairs else b""
    return count + encode_pairs(profile.varint, tuple(pairs))


def _collect(profile: Profile, pairs: Properties) -> SetupOptions:
    found: dict[str, Any] = {}
    tokens: list[RawToken] = []
    others: list[tuple[int, int | bytes]] = []
    for type, value in pairs:
        if type not in profile.setup_options:
            if len(others) < MAX_OTHER_OPTIONS:
                others.append((type, value))
        elif type == _TOKEN and isinstance(value, bytes):
            tokens.append(read_token(value, profile))
        else:
            name, checked = _option(type, value)
            if name in found:
                raise violation(f"setup option {type:#x} twice")
            found[name] = checked
    if len(tokens) > MAX_TOKENS:
        raise violation(f"more than {MAX_TOKENS} tokens in one message")
    return SetupOptions(tokens=tuple(tokens), others=tuple(others), **found)


def _option(type: int, value: int | bytes) -> tuple[str, int | str]:
    if isinstance(value, int):
        return _NUMBERS[type], value
    name, convert = _TEXTS[type]
    return name, convert(value)


def _path(value: bytes) -> str:
    if not _PATH_FORM.fullmatch(value):
        raise violation("a PATH that is no path", SessionCode.MALFORMED_PATH)
    return value.decode("ascii")


def _authority(value: bytes) -> str:
    if not _AUTHORITY_FORM.fullmatch(value):
        raise violation("an AUTHORITY that is no authority", SessionCode.MALFORMED_AUTHORITY)
    return value.decode("ascii")


def _implementation(value: bytes) -> str:
    """What is safe to log: printable ASCII, and not much of it."""
    text = value[:MAX_IMPLEMENTATION_CHARACTERS].decode("ascii", "replace")
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)


_TEXTS: dict[int, tuple[str, Callable[[bytes], str]]] = {
    _PATH: ("path", _path),
    _AUTHORITY: ("authority", _authority),
    _IMPLEMENTATION: ("implementation", _implementation),
}
