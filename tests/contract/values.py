"""Any value of a message type, drawn from what the type itself says: bounds, patterns, lengths, closed lists."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

SHORT = 4
"""Tuples and texts are no longer than this: their bounds have tests of their own."""
NAMES = st.one_of(st.sampled_from(["a", "b", "r1", "r2", "fra-3"]), st.from_regex(r"[a-z0-9]{1,3}", fullmatch=True))


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a struct type, or of a union of them."""
    return _values(inspect.type_info(kind))


def _values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType():
            required = {field.name: _values(field.type) for field in kind.fields if field.required}
            optional = {field.name: _values(field.type) for field in kind.fields if not field.required}
            return st.fixed_dictionaries(required, optional=optional).map(lambda fields: kind.cls(**fields))
        case inspect.UnionType():
            return st.one_of(*map(_values, kind.types))
        case inspect.VarTupleType():
            return st.lists(_values(kind.item_type), max_size=min(kind.max_length or SHORT, SHORT)).map(tuple)
        case inspect.TupleType():
            return st.tuples(*map(_values, kind.item_types))
        case inspect.StrType() if kind.pattern and "a-z" in kind.pattern:
            return NAMES
        case inspect.StrType() if kind.pattern:
            return st.from_regex(kind.pattern, fullmatch=True)
        case inspect.StrType():
            return st.text(max_size=min(kind.max_length or SHORT, SHORT))
        case inspect.BytesType():
            return st.binary(min_size=kind.min_length or 0, max_size=max(kind.min_length or 0, SHORT))
        case inspect.IntType():
            return st.integers(kind.ge, kind.le)
        case inspect.FloatType():
            whole = st.integers(int(kind.ge or 0), int(kind.le or 0))
            return st.floats(kind.ge, kind.le) | st.sampled_from([0.0, -0.0]) | whole
        case inspect.BoolType():
            return st.booleans()
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.NoneType():
            return st.none()
    raise AssertionError(f"no values for {kind}")
