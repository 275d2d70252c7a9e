"""Everything that a draft can say, as Hypothesis strategies: built from what the profile allows, so it round-trips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tradewind.moqt import messages as m
from tradewind.moqt.errors import RequestCode
from tradewind.moqt.events import Redirect
from tradewind.moqt.model import (
    MAX_VARINT,
    NEXT_GROUP,
    NEXT_OBJECT,
    NO_FILTER,
    DatagramObject,
    FetchObject,
    Fill,
    FilterKind,
    FilterSubject,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    ObjectHeader,
    ObjectStatus,
    Parameters,
    Properties,
    RangeFilter,
    SubgroupHeader,
    TokenUse,
)
from tradewind.moqt.parameters import RawParameters, RawToken, Scope, SetupOptions
from tradewind.moqt.profiles import PROFILES, Profile

DRAFTS = [profile for profile in PROFILES.values() if profile.draft != 21]
"""Draft 21 is draft 20 under another name; one test says so."""

UPDATES: list[Scope] = [scope for scope in Scope if scope.name.startswith("UPDATE_") and scope is not Scope.UPDATE_OK]
OKS: list[Scope] = [
    Scope.UPDATE_OK,
    Scope.TRACK_STATUS_OK,
    Scope.PUBLISH_NAMESPACE_OK,
    Scope.SUBSCRIBE_NAMESPACE_OK,
]


def numbers(profile: Profile, highest: int | None = None) -> st.SearchStrategy[int]:
    """Integers that the draft can write, with the edges of every length among them."""
    top = profile.varint.maximum if highest is None else highest
    edges = [edge for bits in (6, 7, 14, 21, 28, 30, 35, 49, 56, 62) for edge in (2**bits - 1, 2**bits) if edge <= top]
    return st.one_of(st.integers(0, min(300, top)), st.sampled_from([*edges, top]), st.integers(0, top))


def fields() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=1, max_size=12)


def namespaces(fewest: int = 0) -> st.SearchStrategy[tuple[bytes, ...]]:
    return st.lists(fields(), min_size=fewest, max_size=5).map(tuple)


def tracks(profile: Profile) -> st.SearchStrategy[FullTrackName]:
    return st.builds(FullTrackName, namespaces(profile.fewest_namespace_fields), st.binary(max_size=12))


def locations(profile: Profile) -> st.SearchStrategy[Location]:
    return st.builds(Location, numbers(profile), numbers(profile))


def pairs(profile: Profile) -> st.SearchStrategy[Properties]:
    """Key-Value-Pairs in wire order, repeated types among them."""
    types = numbers(profile).map(lambda number: number & ~1)
    whole = st.tuples(types, numbers(profile))
    blob = st.tuples(types.map(lambda even: even | 1), st.binary(max_size=20))
    return st.lists(st.one_of(whole, blob), max_size=4).map(
        lambda found: tuple(sorted(found, key=lambda pair: pair[0]))
    )


@st.composite
def absolute_filters(draw: st.DrawFn, profile: Profile) -> LocationFilter:
    start = draw(locations(profile))
    end_group = draw(st.none() | st.integers(start.group, profile.varint.maximum))
    end_object = draw(st.none() | numbers(profile)) if end_group is not None and profile.draft >= 20 else None
    if start == (0, 0) and end_group is None and profile.draft in (20, 21):
        return NO_FILTER
    return LocationFilter(FilterKind.ABSOLUTE, start=start, end_group=end_group, end_object=end_object)


def filters(profile: Profile) -> st.SearchStrategy[LocationFilter]:
    if profile.draft < 20:
        return st.one_of(st.sampled_from([NEXT_GROUP, NEXT_OBJECT]), absolute_filters(profile))
    relative = numbers(profile).map(lambda groups: LocationFilter(FilterKind.RELATIVE_GROUP, groups=groups))
    return st.one_of(st.sampled_from([NO_FILTER, NEXT_OBJECT]), relative, absolute_filters(profile))


@st.composite
def range_filters(draw: st.DrawFn, subject: FilterSubject) -> RangeFilter:
    top = 255 if subject is FilterSubject.PRIORITY else MAX_VARINT
    bounds = sorted(draw(st.lists(st.integers(0, top), min_size=2, max_size=6)))
    found: list[tuple[int, int | None]] = list(zip(bounds[::2], bounds[1::2]))
    if len(bounds) % 2:
        found.append((bounds[-1], None))
    about_property = subject in (FilterSubject.OBJECT_PROPERTY, FilterSubject.TRACK_PROPERTY)
    property_type = draw(st.integers(0, 1000)) * 2 if about_property else None
    return RangeFilter(subject, draw(st.integers(0, 255)), property_type, tuple(found))


def range_filter_sets(profile: Profile, scope: Scope) -> st.SearchStrategy[tuple[RangeFilter, ...]]:
    subjects = [
        s for s in FilterSubject if s.value in profile.parameters and scope in profile.parameters[s.value].scopes
    ]
    if not subjects:
        return st.just(())
    one = st.sampled_from(subjects).flatmap(range_filters)
    chosen = st.lists(one, max_size=3, unique_by=lambda f: (f.subject, f.set_id, f.property_type))
    return chosen.map(lambda found: tuple(sorted(found, key=lambda f: f.subject.value)))


def tokens(profile: Profile) -> st.SearchStrategy[RawToken]:
    alias, type, value = numbers(profile), numbers(profile), st.binary(max_size=20)
    return st.one_of(
        st.builds(RawToken, st.sampled_from([TokenUse.DELETE, TokenUse.USE_ALIAS]), alias),
        st.builds(RawToken, st.just(TokenUse.REGISTER), alias, type, value),
        st.builds(RawToken, st.just(TokenUse.USE_VALUE), st.none(), type, value),
    )


def fills(profile: Profile) -> st.SearchStrategy[Fill]:
    return st.builds(
        Fill,
        st.none() | filters(profile),
        st.none() | st.integers(0, 255),
        st.none() | st.sampled_from(GroupOrder),
        st.none() | numbers(profile),
        range_filter_sets(profile, Scope.FILL),
    )


def parameters(profile: Profile, scope: Scope, without: str = "") -> st.SearchStrategy[RawParameters]:
    """Raw parameters that may all stand in `scope` on this draft."""
    values: dict[str, st.SearchStrategy[Any]] = {
        "largest": locations(profile),
        "forward": st.booleans(),
        "priority": st.integers(0, 255),
        "filter": filters(profile),
        "order": st.sampled_from(GroupOrder),
        "fill": fills(profile),
        "prefix": namespaces(),
        "include_properties": st.booleans(),
    }
    chosen: dict[str, st.SearchStrategy[Any]] = {}
    raw: st.SearchStrategy[tuple[RawToken, ...]] = st.just(())
    for row in profile.parameters.values():
        if scope not in row.scopes or row.field == without:
            continue
        if row.field == "tokens":
            raw = st.lists(tokens(profile), max_size=2).map(tuple)
        elif row.field == "range_filters":
            chosen[row.field] = range_filter_sets(profile, scope)
        else:
            whole = numbers(profile)
            if row.name == "DELIVERY_TIMEOUT":
                whole = whole.map(lambda number: max(number, 1))
            chosen[row.field] = st.none() | values.get(row.field, whole)
    return st.builds(RawParameters, st.builds(Parameters, **chosen), raw)


def setup_options(profile: Profile) -> st.SearchStrategy[SetupOptions]:
    def option(type: int, values: st.SearchStrategy[Any], silent: Any) -> st.SearchStrategy[Any]:
        return st.just(silent) | values if type in profile.setup_options else st.just(silent)

    number = numbers(profile)
    return st.builds(
        SetupOptions,
        path=st.none() | st.sampled_from(["", "/", "/live/a?token=x.y-z", "/a%20b"]),
        authority=st.none() | st.sampled_from(["example.com", "[::1]:4443", ""]),
        tokens=st.lists(tokens(profile), max_size=2).map(tuple),
        max_request_id=option(0x02, number, 0),
        max_token_cache_bytes=number,
        max_filter_ranges=option(0x06, number, 0),
        max_request_updates=option(0x08, number, 0),
        implementation=st.sampled_from(["", "tradewind 1.0", "x" * 128]),
        others=pairs(profile).map(lambda found: tuple(pair for pair in found if pair[0] not in profile.setup_options)),
    )


@st.composite
def fetches(draw: st.DrawFn, profile: Profile) -> m.Fetch:
    request = draw(numbers(profile))
    raw = draw(parameters(profile, Scope.FETCH, "filter"))
    if profile.joining_fetch and draw(st.booleans()):
        groups = draw(st.none() | numbers(profile))
        start_at = draw(numbers(profile)) if groups is None else None
        return m.Fetch(request, None, NO_FILTER, raw, draw(numbers(profile)), groups, start_at)
    track = draw(tracks(profile))
    if not profile.joining_fetch:
        return m.Fetch(request, track, draw(filters(profile)), raw)
    start = draw(locations(profile))
    end_group = draw(st.integers(start.group, profile.varint.maximum))
    lowest = start.object if end_group == start.group else 0
    highest = profile.varint.maximum - 1
    end_object = draw(st.none() | st.integers(lowest, highest)) if lowest <= highest else None
    chosen = LocationFilter(FilterKind.ABSOLUTE, start=start, end_group=end_group, end_object=end_object)
    return m.Fetch(request, track, chosen, raw)


def ends(profile: Profile) -> st.SearchStrategy[Location]:
    if not profile.fetch_end_is_exclusive:
        return locations(profile)
    objects = st.just(MAX_VARINT) | numbers(profile, profile.varint.maximum - 1)
    return st.builds(Location, numbers(profile), objects)


def reasons() -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), max_size=20)


def request_errors(profile: Profile) -> st.SearchStrategy[m.RequestError]:
    codes = numbers(profile).filter(lambda code: code not in profile.codes.request and code != RequestCode.REDIRECT)
    retry = st.none() | numbers(profile, profile.varint.maximum - 1)
    plain = st.builds(m.RequestError, codes, reasons(), retry, st.none(), answered(profile))
    if not profile.draft > 16:
        return plain
    redirect = st.builds(Redirect, st.sampled_from(["", "moqt://example.com/a"]), tracks(profile))
    return plain | st.builds(m.RequestError, st.just(int(RequestCode.REDIRECT)), reasons(), retry, redirect)


def answered(profile: Profile) -> st.SearchStrategy[int | None]:
    return st.none() if profile.request_streams else numbers(profile)


def goaways(profile: Profile) -> st.SearchStrategy[m.Goaway]:
    return st.builds(
        m.Goaway,
        st.sampled_from(["", "moqt://relay.example/", "x" * 8192]),
        numbers(profile) if profile.draft > 16 else st.just(0),
        st.none() | numbers(profile) if profile.draft == 18 else st.none(),
    )


def _of_scopes(profile: Profile, scopes: list[Scope]) -> st.SearchStrategy[RawParameters]:
    return st.sampled_from(scopes).flatmap(lambda scope: parameters(profile, scope))


_BY_CLASS: dict[type[m.Message], Callable[[Profile], st.SearchStrategy[Any]]] = {
    m.Setup: lambda p: st.builds(m.Setup, setup_options(p)),
    m.ClientSetup: lambda p: st.builds(m.ClientSetup, setup_options(p)),
    m.ServerSetup: lambda p: st.builds(m.ServerSetup, setup_options(p)),
    m.Goaway: goaways,
    m.MaxRequestId: lambda p: st.builds(m.MaxRequestId, numbers(p)),
    m.RequestsBlocked: lambda p: st.builds(m.RequestsBlocked, numbers(p)),
    m.Subscribe: lambda p: st.builds(m.Subscribe, numbers(p), tracks(p), parameters(p, Scope.SUBSCRIBE)),
    m.TrackStatus: lambda p: st.builds(m.TrackStatus, numbers(p), tracks(p), parameters(p, Scope.TRACK_STATUS)),
    m.Publish: lambda p: st.builds(
        m.Publish, numbers(p), tracks(p), numbers(p), parameters(p, Scope.PUBLISH), pairs(p)
    ),
    m.Fetch: fetches,
    m.PublishNamespace: lambda p: st.builds(
        m.PublishNamespace,
        numbers(p),
        namespaces(p.fewest_namespace_fields),
        parameters(p, Scope.PUBLISH_NAMESPACE),
    ),
    m.SubscribeNamespace: lambda p: st.builds(
        m.SubscribeNamespace,
        numbers(p),
        namespaces(),
        parameters(p, Scope.SUBSCRIBE_NAMESPACE),
        st.none() if p.request_streams else st.integers(0, 2),
    ),
    m.SubscribeTracks: lambda p: st.builds(
        m.SubscribeTracks, numbers(p), namespaces(), parameters(p, Scope.SUBSCRIBE_TRACKS)
    ),
    m.RequestUpdate: lambda p: st.builds(m.RequestUpdate, numbers(p), _of_scopes(p, UPDATES), answered(p)),
    m.SubscribeOk: lambda p: st.builds(
        m.SubscribeOk, numbers(p), parameters(p, Scope.SUBSCRIBE_OK), pairs(p), answered(p)
    ),
    m.FetchOk: lambda p: st.builds(
        m.FetchOk, ends(p), st.booleans(), parameters(p, Scope.FETCH_OK), pairs(p), answered(p)
    ),
    m.RequestOk: lambda p: st.builds(
        m.RequestOk, _of_scopes(p, OKS), pairs(p) if p.draft > 16 else st.just(()), answered(p)
    ),
    m.PublishOk: lambda p: st.builds(m.PublishOk, parameters(p, Scope.PUBLISH_OK), answered(p)),
    m.RequestError: request_errors,
    m.PublishDone: lambda p: st.builds(
        m.PublishDone,
        numbers(p).filter(lambda code: code != 0x9),
        st.none() | numbers(p, 2**62 - 2),
        reasons(),
        answered(p),
    ),
    m.PublishStateNotify: lambda p: st.builds(m.PublishStateNotify, parameters(p, Scope.PUBLISH_STATE_NOTIFY)),
    m.NamespaceAdded: lambda p: st.builds(m.NamespaceAdded, namespaces()),
    m.NamespaceDone: lambda p: st.builds(m.NamespaceDone, namespaces()),
    m.PublishSkipped: lambda p: st.builds(m.PublishSkipped, namespaces(), st.binary(max_size=12)),
    m.Unsubscribe: lambda p: st.builds(m.Unsubscribe, numbers(p)),
    m.FetchCancel: lambda p: st.builds(m.FetchCancel, numbers(p)),
    m.PublishNamespaceDone: lambda p: st.builds(m.PublishNamespaceDone, numbers(p)),
    m.PublishNamespaceCancel: lambda p: st.builds(
        m.PublishNamespaceCancel,
        numbers(p),
        numbers(p).filter(lambda code: code not in p.codes.request),
        reasons(),
    ),
}


def messages(profile: Profile, kind: type[m.Message]) -> st.SearchStrategy[Any]:
    """Any message of one kind."""
    return _BY_CLASS[kind](profile)


ALL_MESSAGES = [
    (profile, kind) for profile in DRAFTS for kind in sorted(profile.by_class, key=lambda kind: kind.__name__)
]
MESSAGE_IDS = [f"{profile.name}-{kind.__name__}" for profile, kind in ALL_MESSAGES]


def object_properties(profile: Profile) -> st.SearchStrategy[Properties]:
    return pairs(profile)


@st.composite
def subgroups(draw: st.DrawFn, profile: Profile) -> tuple[SubgroupHeader, list[tuple[ObjectHeader, bytes]]]:
    """A subgroup stream's header and objects with their payload."""
    has_properties = draw(st.booleans())
    header = SubgroupHeader(
        draw(numbers(profile)),
        draw(numbers(profile)),
        draw(st.none() | numbers(profile)),
        draw(st.none() | st.integers(0, 255)),
        end_of_group=draw(st.booleans()),
        first_object=draw(st.booleans()) and profile.data.first_object_flag,
        has_properties=has_properties,
    )
    ids = sorted(draw(st.sets(numbers(profile), max_size=4)))
    objects = []
    for id in ids:
        payload = draw(st.binary(max_size=30))
        status = ObjectStatus.NORMAL if payload else draw(st.sampled_from([0, 3, 4]).map(ObjectStatus))
        properties = draw(pairs(profile)) if has_properties and status is ObjectStatus.NORMAL else ()
        objects.append((ObjectHeader(id, len(payload), status, properties), payload))
    return header, objects


@st.composite
def datagrams(draw: st.DrawFn, profile: Profile) -> DatagramObject:
    payload = draw(st.binary(max_size=30))
    status = ObjectStatus.NORMAL if payload else draw(st.sampled_from([0, 3, 4]).map(ObjectStatus))
    normal = status is ObjectStatus.NORMAL
    header = ObjectHeader(draw(numbers(profile)), len(payload), status, draw(pairs(profile)) if normal else ())
    return DatagramObject(
        draw(numbers(profile)),
        draw(numbers(profile)),
        header,
        draw(st.none() | st.integers(0, 255)),
        draw(st.booleans()) and normal,
        payload,
    )


@st.composite
def fetched(draw: st.DrawFn, profile: Profile, order: GroupOrder) -> list[tuple[FetchObject, bytes]]:
    """What a fetch stream carries: in order, each with its payload."""
    found = draw(st.sets(st.tuples(numbers(profile), numbers(profile)), max_size=5))
    sign = 1 if order is GroupOrder.ASCENDING else -1
    objects = []
    for group, id in sorted(found, key=lambda place: (sign * place[0], place[1])):
        payload = draw(st.binary(max_size=20))
        subgroup = draw(st.none() | st.integers(0, 3) | numbers(profile))
        header = ObjectHeader(id, len(payload), ObjectStatus.NORMAL, draw(pairs(profile)))
        objects.append((FetchObject(group, subgroup, header, draw(st.sampled_from([0, 128, 255]))), payload))
    return objects
