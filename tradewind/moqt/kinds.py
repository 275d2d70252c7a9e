"""The ways to write one Message Parameter's value, by name.

`tradewind.moqt.scopes` gives each parameter of each draft one of them. Source: draft-20, "Message Parameters".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tradewind.moqt.errors import ProtocolViolation, SessionCode
from tradewind.moqt.fields import (
    MAX_TRACK_NAME_BYTES,
    Reader,
    read_location,
    read_namespace,
    violation,
    write_location,
    write_namespace,
    write_number,
    write_prefixed,
)
from tradewind.moqt.filters import (
    FilterFlaw,
    read_location_filter,
    read_range_filter,
    read_subscription_filter,
    read_typed_filter,
    write_location_filter,
    write_range_filter,
    write_subscription_filter,
    write_typed_filter,
)
from tradewind.moqt.model import Fill, FilterSubject, GroupOrder, Location, Namespace, Parameters, TokenUse
from tradewind.moqt.parameters import (
    NO_RAW_PARAMETERS,
    Kind,
    RawParameters,
    RawToken,
    Scope,
    decode_rows,
    encode_parameters,
)

if TYPE_CHECKING:
    from tradewind.moqt.profiles import Profile

MAX_HOPS = 32
"""Far more relays than any path here has."""
MAX_NAMES = 256
"""Of tracks, in TRACKS."""

_FILL = frozenset({Scope.FILL})


# --- Tokens -----------------------------------------------------------------------------------------------------------


def read_token(data: bytes, profile: Profile) -> RawToken:
    """A Token structure that is the whole of `data`.

    Raises ProtocolViolation with KEY_VALUE_FORMATTING_ERROR where it cannot be decoded.
    """
    reader = Reader(profile, data)
    try:
        use = TokenUse(reader.varint())
        if use is TokenUse.USE_VALUE:
            return RawToken(use, None, reader.varint(), reader.rest())
        alias = reader.varint()
        if use is TokenUse.REGISTER:
            return RawToken(use, alias, reader.varint(), reader.rest())
        reader.finish("a token")
        return RawToken(use, alias)
    except (ValueError, ProtocolViolation):
        raise violation("a token cannot be decoded", SessionCode.KEY_VALUE_FORMATTING_ERROR) from None


def write_token(profile: Profile, token: RawToken) -> bytes:
    """A Token structure without any length before it."""
    numbers = [token.use, *(number for number in (token.alias, token.type) if number is not None)]
    return b"".join(map(profile.varint.encode, numbers)) + (token.value or b"")


# --- The wire kinds, which `moqt.profiles` hands out -----------------------------------------------------------------


def _read_positive(reader: Reader) -> int:
    value = reader.varint()
    if value == 0:
        raise violation("a delivery timeout of 0")
    return value


def _read_byte_varint(reader: Reader) -> int:
    value = reader.varint()
    if value > 0xFF:
        raise violation(f"a priority of {value}")
    return value


def _to_flag(value: int) -> bool:
    if value > 1:
        raise violation(f"{value} where only 0 and 1 are allowed")
    return value == 1


def _to_order(value: int) -> GroupOrder:
    if value not in (1, 2):
        raise violation(f"group order {value}")
    return GroupOrder(value)


def _read_order_varint(reader: Reader) -> GroupOrder | None:
    value = reader.varint()
    if value == 0 and reader.quirks.allows("group-order-zero"):
        return None
    return _to_order(value)


def _read_prefixed_location(reader: Reader) -> Location:
    inner = reader.nested("LARGEST_OBJECT")
    location = read_location(inner)
    inner.finish("LARGEST_OBJECT")
    return location


def _read_token_parameter(reader: Reader) -> RawToken:
    return read_token(reader.nested("a token").rest(), reader.profile)


def _read_prefix(reader: Reader) -> Namespace:
    """The last parameter that any REQUEST_UPDATE can carry, so its value is the rest of the message.

    Drafts before 22 do not say whether it has a length, and peers disagree; no rest can be read both ways.
    """
    start = reader.offset
    try:
        prefix = read_namespace(reader)
        reader.finish("TRACK_NAMESPACE_PREFIX")
        return prefix
    except ProtocolViolation:
        if reader.profile.draft >= 22:
            raise
        reader.offset = start
    inner = reader.nested("TRACK_NAMESPACE_PREFIX")
    prefix = read_namespace(inner)
    inner.finish("TRACK_NAMESPACE_PREFIX")
    return prefix


def _read_fill(reader: Reader) -> Fill:
    inner = reader.nested("FILL_PARAMETERS")
    found = _read_fill_parameters(inner) if inner.offset < inner.end else NO_RAW_PARAMETERS
    if found.flaw is not None:
        raise FilterFlaw(found.flaw)
    values = found.values
    return Fill(values.filter, values.priority, values.order, values.fill_timeout_ms, values.range_filters)


def _read_fill_parameters(inner: Reader) -> RawParameters:
    """With a count before them or, as some peers write them, without: the draft can be taken either way.

    Where both readings work the count wins, but that takes more parameters than any real fill has.
    """
    start = inner.offset
    first = inner.varint()
    row = inner.profile.parameters.get(first)
    try:
        return _read_all(inner, first)
    except ProtocolViolation:
        if row is None or Scope.FILL not in row.scopes:
            raise
        inner.offset = start
        return _read_all(inner, None)


def _read_all(inner: Reader, count: int | None) -> RawParameters:
    found = decode_rows(inner, count, _FILL)
    inner.finish("FILL_PARAMETERS")
    return found


def _write_fill(profile: Profile, fill: Fill) -> bytes:
    values = Parameters(
        filter=fill.filter,
        priority=fill.priority,
        order=fill.order,
        fill_timeout_ms=fill.timeout_ms,
        range_filters=fill.range_filters,
    )
    return write_prefixed(profile, encode_parameters(profile, RawParameters(values), _FILL))


def _write_byte(profile: Profile, value: int) -> bytes:  # noqa: ARG001 - one signature for all kinds
    return bytes((value,))


def _read_hops(reader: Reader) -> tuple[int, ...]:
    """HOP_PATH (MoQ Cluster): at least one Hop ID, and none but 0 twice."""
    inner = reader.nested("HOP_PATH")
    hops: list[int] = []
    while inner.offset < inner.end:
        hops.append(inner.varint())
    known = [hop for hop in hops if hop]
    if not hops or len(hops) > MAX_HOPS or len(set(known)) < len(known):
        raise violation("a HOP_PATH that is empty, too long or a loop")
    return tuple(hops)


def _write_hops(profile: Profile, hops: tuple[int, ...]) -> bytes:
    return write_prefixed(profile, b"".join(map(profile.varint.encode, hops)))


def _read_names(reader: Reader) -> frozenset[bytes]:
    """TRACKS (ours): names of tracks, each once."""
    inner = reader.nested("TRACKS")
    names: set[bytes] = set()
    while inner.offset < inner.end:
        name = inner.prefixed(MAX_TRACK_NAME_BYTES, "a track's name")
        if name in names or len(names) == MAX_NAMES:
            raise violation("TRACKS with a name twice, or with too many")
        names.add(name)
    return frozenset(names)


def _write_names(profile: Profile, names: frozenset[bytes]) -> bytes:
    return write_prefixed(profile, b"".join(write_prefixed(profile, name) for name in sorted(names)))


def _range_kind(subject: FilterSubject) -> Kind:
    return Kind(lambda reader: read_range_filter(reader, subject), write_range_filter)


VARINT = Kind(Reader.varint, write_number)
POSITIVE_VARINT = Kind(_read_positive, write_number)
BYTE = Kind(Reader.byte, _write_byte)
BYTE_AS_VARINT = Kind(_read_byte_varint, write_number)
FLAG = Kind(lambda reader: _to_flag(reader.byte()), _write_byte)
FLAG_AS_VARINT = Kind(lambda reader: _to_flag(reader.varint()), write_number)
ORDER = Kind(lambda reader: _to_order(reader.byte()), _write_byte)
ORDER_AS_VARINT = Kind(_read_order_varint, write_number)
LOCATION = Kind(read_location, write_location)
PREFIXED_LOCATION = Kind(
    _read_prefixed_location, lambda profile, value: write_prefixed(profile, write_location(profile, value))
)
TOKEN = Kind(_read_token_parameter, lambda profile, token: write_prefixed(profile, write_token(profile, token)))
SUBSCRIPTION_FILTER = Kind(read_subscription_filter, write_subscription_filter)
LOCATION_FILTER = Kind(read_location_filter, write_location_filter)
TYPED_FILTER = Kind(read_typed_filter, write_typed_filter)
FILL = Kind(_read_fill, _write_fill)
PREFIX = Kind(_read_prefix, write_namespace)
HOPS = Kind(_read_hops, _write_hops)
NAMES = Kind(_read_names, _write_names)
RANGE_FILTERS = {subject: _range_kind(subject) for subject in FilterSubject}
