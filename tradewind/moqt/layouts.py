"""The fields that control messages are laid out with: how each is read into a message and written from one.

`tradewind.moqt.profiles` puts them in order, a row a message and draft; `tradewind.moqt.messages` walks the rows.
Source: the format figures under "Control Messages" in drafts 16, 18 and 20.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tradewind.moqt.errors import MisuseError, RequestCode
from tradewind.moqt.events import Redirect
from tradewind.moqt.fields import (
    Reader,
    decode_pairs,
    encode_pairs,
    read_location,
    read_namespace,
    read_reason,
    read_track,
    read_track_name,
    read_uri,
    violation,
    write_location,
    write_namespace,
    write_number,
    write_prefixed,
    write_reason,
    write_track,
    write_uri,
)
from tradewind.moqt.filters import Flaw
from tradewind.moqt.model import MAX_VARINT, NO_FILTER, FilterKind, FullTrackName, Location, LocationFilter
from tradewind.moqt.parameters import RawParameters, Scope, decode_parameters, encode_parameters
from tradewind.moqt.setup import read_setup, write_setup

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile

_STANDALONE, _RELATIVE_JOINING, _ABSOLUTE_JOINING = 1, 2, 3
_FEWEST_UNKNOWN_STREAMS = 2**62 - 1
"""PUBLISH_DONE's "I do not know" up to draft 18, and below draft 20's: nobody opens that many."""


@dataclass(slots=True)
class Decoding:
    """One message while it is read: where its fields are, and what they were so far."""

    reader: Reader
    scopes: frozenset[Scope]
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Encoding:
    """What a message is written for."""

    profile: Profile
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Field:
    """One field, or a few that depend on each other."""

    read: Callable[[Decoding], None]
    write: Callable[[Encoding, Any], bytes]


def _plain(name: str, read: Callable[[Reader], Any], write: Callable[[Profile, Any], bytes]) -> Field:
    """A field that is one attribute of the message and needs no other."""

    def read_into(decoding: Decoding) -> None:
        decoding.values[name] = read(decoding.reader)

    return Field(read_into, lambda encoding, message: write(encoding.profile, getattr(message, name)))


def _number(name: str) -> Field:
    return _plain(name, Reader.varint, write_number)


def _answered(encoding: Encoding, message: Any) -> bytes:
    if message.request is None:
        raise MisuseError(f"{encoding.profile.name} names the request in {type(message).__name__}")
    return write_number(encoding.profile, message.request)


def _read_parameters(decoding: Decoding) -> None:
    found = decode_parameters(decoding.reader, decoding.scopes)
    flaw = decoding.values.pop("flaw", None)
    decoding.values["parameters"] = found if flaw is None else replace(found, flaw=flaw)


def _write_parameters(encoding: Encoding, message: Any) -> bytes:
    return encode_parameters(encoding.profile, message.parameters, encoding.scopes)


def _read_fetch_parameters(decoding: Decoding) -> None:
    """From draft 20 a FETCH has its range in LOCATION_FILTER; the message has it as a field of its own."""
    found = decode_parameters(decoding.reader, decoding.scopes)
    chosen = found.values.filter
    if chosen is not None:
        found = replace(found, values=replace(found.values, filter=None))
        decoding.values["filter"] = chosen
    decoding.values["parameters"] = found


def _write_fetch_track(encoding: Encoding, message: Any) -> bytes:
    if message.track is None:
        raise MisuseError(f"{encoding.profile.name} has no joining FETCH")
    return write_track(encoding.profile, message.track)


def _write_fetch_parameters(encoding: Encoding, message: Any) -> bytes:
    parameters: RawParameters = message.parameters
    chosen = None if message.filter == NO_FILTER else message.filter
    with_filter = replace(parameters, values=replace(parameters.values, filter=chosen))
    return encode_parameters(encoding.profile, with_filter, encoding.scopes)


def _read_fetch_range(decoding: Decoding) -> None:
    """Draft 16 and 18: a Fetch Type and what it announces. An end before the start only refuses the request."""
    reader, values = decoding.reader, decoding.values
    kind = reader.varint()
    if kind == _STANDALONE:
        values["track"] = read_track(reader)
        start, end = read_location(reader), _inclusive(read_location(reader))
        if end < start:
            values["flaw"] = Flaw(RequestCode.INVALID_RANGE, "the end comes before the start")
        end_object = None if end.object == MAX_VARINT else end.object
        values["filter"] = LocationFilter(FilterKind.ABSOLUTE, start=start, end_group=end.group, end_object=end_object)
    elif kind in (_RELATIVE_JOINING, _ABSOLUTE_JOINING):
        values["track"] = None
        values["joining"] = reader.varint()
        values["joining_groups" if kind == _RELATIVE_JOINING else "joining_start"] = reader.varint()
    else:
        raise violation(f"fetch type {kind:#x}")


def _write_fetch_range(encoding: Encoding, message: Any) -> bytes:
    profile = encoding.profile
    encode = profile.varint.encode
    if message.joining is not None:
        if message.joining_groups is not None:
            return encode(_RELATIVE_JOINING) + encode(message.joining) + encode(message.joining_groups)
        return encode(_ABSOLUTE_JOINING) + encode(message.joining) + encode(message.joining_start)
    chosen: LocationFilter = message.filter
    if chosen.kind in (FilterKind.RELATIVE_GROUP, FilterKind.NEXT_OBJECT):
        raise MisuseError(f"{profile.name} has no FETCH relative to the largest object")
    # Open-ended: whatever lies behind the largest object is not fetched anyway.
    end_group = MAX_VARINT if chosen.end_group is None else chosen.end_group
    end = Location(end_group, MAX_VARINT if chosen.end_object is None else chosen.end_object)
    track: FullTrackName = message.track
    locations = write_location(profile, chosen.start) + _write_end(profile, end)
    return encode(_STANDALONE) + write_track(profile, track) + locations


def _inclusive(end: Location) -> Location:
    """From "plus one, 0 for the whole group"."""
    return Location(end.group, end.object - 1 if end.object else MAX_VARINT)


def _read_end(reader: Reader) -> Location:
    end = read_location(reader)
    return _inclusive(end) if reader.profile.fetch_end_is_exclusive else end


def _write_end(profile: Profile, end: Location) -> bytes:
    if not profile.fetch_end_is_exclusive:
        return write_location(profile, end)
    whole = end.object >= profile.varint.maximum
    return write_location(profile, Location(end.group, 0 if whole else end.object + 1))


def _read_end_of_track(reader: Reader) -> bool:
    value = reader.byte()
    if value > 1:
        raise violation(f"End Of Track {value}")
    return value == 1


def _write_end_of_track(profile: Profile, value: bool) -> bytes:  # noqa: ARG001 - one signature for all fields
    return bytes((value,))


def _read_first_unprocessed(decoding: Decoding) -> None:
    """There only on the control stream, and nothing says so but the length."""
    reader = decoding.reader
    if reader.offset < reader.end:
        decoding.values["first_unprocessed"] = reader.varint()


def _write_first_unprocessed(encoding: Encoding, message: Any) -> bytes:
    first: int | None = message.first_unprocessed
    return b"" if first is None else write_number(encoding.profile, first)


def _read_redirect(decoding: Decoding) -> None:
    if decoding.values["code"] == RequestCode.REDIRECT:
        reader = decoding.reader
        decoding.values["redirect"] = Redirect(read_uri(reader), read_track(reader))


def _write_redirect(encoding: Encoding, message: Any) -> bytes:
    redirect: Redirect | None = message.redirect
    if (redirect is None) == (message.code == RequestCode.REDIRECT):
        raise MisuseError("REDIRECT and only REDIRECT carries a redirect")
    if redirect is None:
        return b""
    return write_uri(encoding.profile, redirect.uri) + write_track(encoding.profile, redirect.track)


def _read_retry(reader: Reader) -> int | None:
    interval = reader.varint()
    return interval - 1 if interval else None


def _write_retry(profile: Profile, retry_ms: int | None) -> bytes:
    return write_number(profile, 0 if retry_ms is None else retry_ms + 1)


def _read_stream_count(reader: Reader) -> int | None:
    count = reader.varint()
    return None if count >= _FEWEST_UNKNOWN_STREAMS else count


def _write_stream_count(profile: Profile, count: int | None) -> bytes:
    unknown = profile.varint.maximum if profile.draft >= 20 else _FEWEST_UNKNOWN_STREAMS
    return write_number(profile, unknown if count is None else count)


def _read_subscribe_options(reader: Reader) -> int:
    options = reader.varint()
    if options > 2:
        raise violation(f"Subscribe Options {options:#x}")
    return options


def _read_skipped_name(decoding: Decoding) -> None:
    decoding.values["name"] = read_track_name(decoding.reader, decoding.values["suffix"])


ALIAS = _number("alias")
ANSWERED = Field(_number("request").read, _answered)
END = _plain("end", _read_end, _write_end)
END_OF_TRACK = _plain("end_of_track", _read_end_of_track, _write_end_of_track)
EXISTING = _number("existing")
FETCH_PARAMETERS = Field(_read_fetch_parameters, _write_fetch_parameters)
FETCH_RANGE = Field(_read_fetch_range, _write_fetch_range)
FIRST_UNPROCESSED = Field(_read_first_unprocessed, _write_first_unprocessed)
LIMIT = _number("limit")
NAMESPACE = _plain(
    "namespace", lambda reader: read_namespace(reader, reader.profile.fewest_namespace_fields), write_namespace
)
NAMESPACE_PREFIX = _plain("prefix", read_namespace, write_namespace)
OPTIONS = _plain("options", read_setup, write_setup)
PARAMETERS = Field(_read_parameters, _write_parameters)
PROPERTIES = _plain(
    "properties",
    lambda reader: decode_pairs(reader.profile.varint, reader.rest()),
    lambda profile, value: encode_pairs(profile.varint, value),
)
REASON = _plain("reason", read_reason, write_reason)
REDIRECT = Field(_read_redirect, _write_redirect)
REQUEST = _number("request")
REQUEST_CODE = _plain(
    "code",
    Reader.varint,
    lambda profile, code: write_number(profile, profile.codes.request_to_wire(code)),
)
RETRY = _plain("retry_ms", _read_retry, _write_retry)
SKIPPED_NAME = Field(_read_skipped_name, lambda encoding, message: write_prefixed(encoding.profile, message.name))
STATUS = _plain(
    "status",
    lambda reader: reader.profile.codes.done_from_wire(reader.varint()),
    lambda profile, status: write_number(profile, profile.codes.done_to_wire(status)),
)
STREAM_COUNT = _plain("stream_count", _read_stream_count, _write_stream_count)
SUBSCRIBE_OPTIONS = _plain(
    "options", _read_subscribe_options, lambda profile, value: profile.varint.encode(2 if value is None else value)
)
SUFFIX = _plain("suffix", read_namespace, write_namespace)
TIMEOUT = _number("timeout_ms")
TRACK = _plain("track", read_track, write_track)
FETCH_TRACK = Field(TRACK.read, _write_fetch_track)
URI = _plain("uri", read_uri, write_uri)
