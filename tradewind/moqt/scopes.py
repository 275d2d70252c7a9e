"""Which Message Parameters each draft has, how each is written, and in which messages it may stand.

`tradewind.moqt.profiles` is the caller. One row a parameter; drafts differ by the rows they lack, by wire kind and by
scope. Source: the parameter's own section under "Message Parameters" in drafts 16, 18, 20 and 22.
"""

from __future__ import annotations

from collections.abc import Mapping

from tradewind.moqt import kinds as p
from tradewind.moqt.model import FilterSubject
from tradewind.moqt.parameters import Kind, ParameterRow, Scope

_GROUPS = {
    "UPDATE": "UPDATE_SUBSCRIPTION UPDATE_PUBLISH",
    # From draft 20 what may stand in SUBSCRIBE may stand here too ("Parameters on SUBSCRIBE_TRACKS").
    "TRACKS": "SUBSCRIBE_TRACKS UPDATE_SUBSCRIBE_TRACKS",
    "ALL": (
        "SUBSCRIBE PUBLISH FETCH TRACK_STATUS PUBLISH_NAMESPACE SUBSCRIBE_NAMESPACE SUBSCRIBE_TRACKS"
        " UPDATE_SUBSCRIPTION UPDATE_PUBLISH UPDATE_FETCH UPDATE_PUBLISH_NAMESPACE UPDATE_SUBSCRIBE_NAMESPACE"
        " UPDATE_SUBSCRIBE_TRACKS"
    ),
}


def _row(type: int, name: str, field: str, kind: Kind, scopes: str) -> ParameterRow:
    names = " ".join(_GROUPS.get(scope, scope) for scope in scopes.split())
    return ParameterRow(type, name, field, kind, frozenset(Scope[scope] for scope in names.split()))


def _table(*rows: ParameterRow) -> Mapping[int, ParameterRow]:
    return {row.type: row for row in sorted(rows, key=lambda row: row.type)}


_SUBSCRIBER_16 = "SUBSCRIBE PUBLISH_OK UPDATE"
_LARGEST_16 = "SUBSCRIBE_OK PUBLISH UPDATE_OK TRACK_STATUS_OK"
# Draft 16 has a "TODO: or REQUEST_OK" here: taken as the answer to an update, as later drafts have it.
_EXPIRES_16 = "SUBSCRIBE_OK PUBLISH PUBLISH_OK UPDATE_OK"

DRAFT_16 = _table(
    _row(0x02, "DELIVERY_TIMEOUT", "object_timeout_ms", p.POSITIVE_VARINT, _SUBSCRIBER_16),
    _row(0x03, "AUTHORIZATION_TOKEN", "tokens", p.TOKEN, "ALL"),
    _row(0x08, "EXPIRES", "expires_ms", p.VARINT, _EXPIRES_16),
    _row(0x09, "LARGEST_OBJECT", "largest", p.PREFIXED_LOCATION, _LARGEST_16),
    _row(0x10, "FORWARD", "forward", p.FLAG_AS_VARINT, f"{_SUBSCRIBER_16} PUBLISH SUBSCRIBE_NAMESPACE"),
    _row(0x20, "SUBSCRIBER_PRIORITY", "priority", p.BYTE_AS_VARINT, f"{_SUBSCRIBER_16} FETCH UPDATE_FETCH"),
    _row(0x21, "SUBSCRIPTION_FILTER", "filter", p.SUBSCRIPTION_FILTER, _SUBSCRIBER_16),
    _row(0x22, "GROUP_ORDER", "order", p.ORDER_AS_VARINT, "SUBSCRIBE PUBLISH_OK FETCH"),
    _row(0x32, "NEW_GROUP_REQUEST", "new_group", p.VARINT, _SUBSCRIBER_16),
)

_PREFIX_ROW = _row(
    0x34, "TRACK_NAMESPACE_PREFIX", "prefix", p.PREFIX, "UPDATE_SUBSCRIBE_NAMESPACE UPDATE_SUBSCRIBE_TRACKS"
)

DRAFT_18 = _table(
    _row(0x02, "OBJECT_DELIVERY_TIMEOUT", "object_timeout_ms", p.VARINT, _SUBSCRIBER_16),
    _row(0x03, "AUTHORIZATION_TOKEN", "tokens", p.TOKEN, "ALL"),
    _row(0x04, "RENDEZVOUS_TIMEOUT", "rendezvous_timeout_ms", p.VARINT, "SUBSCRIBE"),
    _row(0x06, "SUBGROUP_DELIVERY_TIMEOUT", "subgroup_timeout_ms", p.VARINT, _SUBSCRIBER_16),
    _row(0x08, "EXPIRES", "expires_ms", p.VARINT, _EXPIRES_16),
    _row(0x09, "LARGEST_OBJECT", "largest", p.LOCATION, _LARGEST_16),
    _row(0x0A, "FILL_TIMEOUT", "fill_timeout_ms", p.VARINT, "FETCH"),
    _row(0x10, "FORWARD", "forward", p.FLAG, f"{_SUBSCRIBER_16} PUBLISH SUBSCRIBE_TRACKS"),
    _row(0x20, "SUBSCRIBER_PRIORITY", "priority", p.BYTE, f"{_SUBSCRIBER_16} FETCH UPDATE_FETCH"),
    _row(0x21, "SUBSCRIPTION_FILTER", "filter", p.SUBSCRIPTION_FILTER, _SUBSCRIBER_16),
    _row(0x22, "GROUP_ORDER", "order", p.ORDER, "SUBSCRIBE PUBLISH_OK FETCH"),
    _row(0x32, "NEW_GROUP_REQUEST", "new_group", p.VARINT, _SUBSCRIBER_16),
    _PREFIX_ROW,
)

_SUBSCRIPTION_20 = "SUBSCRIBE PUBLISH UPDATE TRACKS"
_SUBSCRIBER_20 = "SUBSCRIBE UPDATE_SUBSCRIPTION TRACKS"
_RANGES_20 = f"{_SUBSCRIBER_20} FETCH FILL"
_EXPIRES_20 = (
    "SUBSCRIBE_OK PUBLISH PUBLISH_OK SUBSCRIBE_NAMESPACE_OK SUBSCRIBE_TRACKS_OK PUBLISH_NAMESPACE_OK UPDATE_OK"
    # "The same parameters ... it would have set in a SUBSCRIBE_OK" ("TRACK_STATUS").
    " TRACK_STATUS_OK"
)


def _from_20(location_filter: Kind) -> Mapping[int, ParameterRow]:
    ranges = p.RANGE_FILTERS
    return _table(
        _row(0x02, "OBJECT_DELIVERY_TIMEOUT", "object_timeout_ms", p.VARINT, _SUBSCRIPTION_20),
        _row(0x03, "AUTHORIZATION_TOKEN", "tokens", p.TOKEN, "ALL"),
        _row(0x04, "RENDEZVOUS_TIMEOUT", "rendezvous_timeout_ms", p.VARINT, "SUBSCRIBE TRACKS"),
        _row(0x06, "SUBGROUP_DELIVERY_TIMEOUT", "subgroup_timeout_ms", p.VARINT, _SUBSCRIPTION_20),
        _row(0x08, "EXPIRES", "expires_ms", p.VARINT, _EXPIRES_20),
        _row(0x09, "LARGEST_OBJECT", "largest", p.LOCATION, f"{_LARGEST_16} PUBLISH_STATE_NOTIFY"),
        _row(0x0A, "FILL_TIMEOUT", "fill_timeout_ms", p.VARINT, "FETCH FILL"),
        _row(0x10, "FORWARD", "forward", p.FLAG, f"{_SUBSCRIPTION_20} PUBLISH_STATE_NOTIFY"),
        _row(0x20, "SUBSCRIBER_PRIORITY", "priority", p.BYTE, f"{_SUBSCRIPTION_20} FETCH UPDATE_FETCH FILL"),
        _row(0x21, "LOCATION_FILTER", "filter", location_filter, f"{_SUBSCRIPTION_20} FETCH PUBLISH_STATE_NOTIFY FILL"),
        _row(0x22, "GROUP_ORDER", "order", p.ORDER, "SUBSCRIBE PUBLISH TRACKS FETCH FILL"),
        _row(0x23, "FILL_PARAMETERS", "fill", p.FILL, _SUBSCRIBER_20),
        _row(0x25, "SUBGROUP_FILTER", "range_filters", ranges[FilterSubject.SUBGROUP], _RANGES_20),
        _row(0x26, "OBJECTID_FILTER", "range_filters", ranges[FilterSubject.OBJECT_ID], _RANGES_20),
        _row(0x27, "PRIORITY_FILTER", "range_filters", ranges[FilterSubject.PRIORITY], _RANGES_20),
        _row(0x28, "OBJECT_PROPERTY_FILTER", "range_filters", ranges[FilterSubject.OBJECT_PROPERTY], _RANGES_20),
        _row(0x29, "TRACK_PROPERTY_FILTER", "range_filters", ranges[FilterSubject.TRACK_PROPERTY], "TRACKS"),
        _row(0x32, "NEW_GROUP_REQUEST", "new_group", p.VARINT, _SUBSCRIBER_20),
        _PREFIX_ROW,
        _row(0x35, "INCLUDE_PROPERTIES", "include_properties", p.FLAG, "SUBSCRIBE TRACK_STATUS FETCH SUBSCRIBE_TRACKS"),
    )


DRAFT_20 = _from_20(p.LOCATION_FILTER)
BETWEEN_RELAYS = _table(
    *DRAFT_20.values(),
    # MoQ Cluster, "Namespace Advertisements".
    _row(0x40B57, "HOP_PATH", "hop_path", p.HOPS, "PUBLISH_NAMESPACE"),
    _row(0x40B58, "ROUTE_COST", "route_cost", p.VARINT, "PUBLISH_NAMESPACE"),
    # Ours: docs/wire.md, "Neighbours' sessions" and "Ranks".
    _row(0x54571, "RANK", "rank", p.VARINT, "SUBSCRIBE FETCH TRACK_STATUS"),
    _row(0x54573, "TRACKS", "tracks", p.NAMES, "PUBLISH_NAMESPACE"),
    _row(0x54575, "ANNOUNCED", "announced", p.FLAG, "PUBLISH_NAMESPACE"),
)
DRAFT_22 = _from_20(p.TYPED_FILTER)
