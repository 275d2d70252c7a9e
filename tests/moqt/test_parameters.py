"""Message Parameters, Setup Options and Properties: scopes, ambiguities that peers disagree on, meaning of values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.moqt.wire_values import DRAFTS, pairs, parameters, setup_options
from tradewind.moqt import messages as m
from tradewind.moqt.errors import MisuseError, ProtocolViolation, SessionCode
from tradewind.moqt.fields import Reader, decode_pairs, encode_pairs
from tradewind.moqt.model import (
    CURRENT_GROUP,
    NEXT_GROUP,
    NEXT_OBJECT,
    NO_FILTER,
    Fill,
    FilterKind,
    FilterSubject,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    Parameters,
    Properties,
    RangeFilter,
    Token,
    TokenUse,
)
from tradewind.moqt.parameters import RawParameters, RawToken, Scope, SetupOptions, check_scope
from tradewind.moqt.profiles import BROWSER_ORDER, NATIVE_ORDER, PROFILES, Profile, choose
from tradewind.moqt.properties import check_track_properties, find_property, malformed_reason, unknown_mandatory
from tradewind.moqt.setup import read_setup, write_setup

D16, D18, D20, D22 = (PROFILES[name] for name in ("moqt-16", "moqt-18", "moqt-20", "moqt-22"))
TRACK = FullTrackName((b"ns",), b"t")
QUICK = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def by_name(profile: Profile) -> str:
    return profile.name


class CountingQuirks:
    def __init__(self, *names: str) -> None:
        self.names = names
        self.uses: list[str] = []

    def allows(self, name: str) -> bool:
        if name in self.names:
            self.uses.append(name)
        return name in self.names


def subscribed(profile: Profile, body: str) -> Parameters:
    """The parameters of a SUBSCRIBE to `TRACK` with this parameter block."""
    message = m.decode(profile, 0x3, bytes.fromhex("00 01 026e73 0174" + body))
    assert isinstance(message, m.Subscribe)
    assert message.parameters.flaw is None
    return message.parameters.values


# --- Where a parameter may stand -------------------------------------------------------------------------------------

SUBSCRIPTION = {"SUBSCRIBE", "UPDATE_SUBSCRIPTION", "SUBSCRIBE_TRACKS", "UPDATE_SUBSCRIBE_TRACKS"}


@pytest.mark.parametrize(
    ("profile", "type", "scopes"),
    [
        (D16, 0x02, "SUBSCRIBE PUBLISH_OK UPDATE_SUBSCRIPTION UPDATE_PUBLISH"),
        (D16, 0x09, "SUBSCRIBE_OK PUBLISH UPDATE_OK TRACK_STATUS_OK"),
        (D16, 0x10, "SUBSCRIBE PUBLISH PUBLISH_OK UPDATE_SUBSCRIPTION UPDATE_PUBLISH SUBSCRIBE_NAMESPACE"),
        (D16, 0x22, "SUBSCRIBE PUBLISH_OK FETCH"),
        (D18, 0x04, "SUBSCRIBE"),
        (D18, 0x0A, "FETCH"),
        (D18, 0x10, "SUBSCRIBE PUBLISH PUBLISH_OK UPDATE_SUBSCRIPTION UPDATE_PUBLISH SUBSCRIBE_TRACKS"),
        (D18, 0x34, "UPDATE_SUBSCRIBE_NAMESPACE UPDATE_SUBSCRIBE_TRACKS"),
        (D20, 0x0A, "FETCH FILL"),
        (D20, 0x29, "SUBSCRIBE_TRACKS UPDATE_SUBSCRIBE_TRACKS"),
        (D20, 0x35, "SUBSCRIBE TRACK_STATUS FETCH SUBSCRIBE_TRACKS"),
        (D22, 0x09, "SUBSCRIBE_OK PUBLISH UPDATE_OK TRACK_STATUS_OK PUBLISH_STATE_NOTIFY"),
        (D22, 0x23, "SUBSCRIBE UPDATE_SUBSCRIPTION SUBSCRIBE_TRACKS UPDATE_SUBSCRIBE_TRACKS"),
    ],
)
def test_scopes_are_the_drafts(profile: Profile, type: int, scopes: str) -> None:
    assert {scope.name for scope in profile.parameters[type].scopes} == set(scopes.split())


def test_types_are_the_drafts() -> None:
    assert sorted(D16.parameters) == [0x02, 0x03, 0x08, 0x09, 0x10, 0x20, 0x21, 0x22, 0x32]
    assert sorted(D18.parameters) == [2, 3, 4, 6, 8, 9, 0xA, 0x10, 0x20, 0x21, 0x22, 0x32, 0x34]
    assert sorted(set(D20.parameters) - set(D18.parameters)) == [0x23, 0x25, 0x26, 0x27, 0x28, 0x29, 0x35]
    assert sorted(D22.parameters) == sorted(D20.parameters)
    assert [p.name for p in DRAFTS if p.fill] == [p.name for p in DRAFTS if p.range_filters] == ["moqt-20", "moqt-22"]


def test_draft_16_ignores_what_stands_in_the_wrong_message() -> None:
    # PUBLISH_NAMESPACE with FORWARD, a filter that would not even parse, and LARGEST_OBJECT of no length.
    body = bytes.fromhex("00 01 026e73 03 09 00 07 01 11 01 ff")
    assert m.decode(D16, 0x6, body) == m.PublishNamespace(0, (b"ns",))


def test_check_scope_tells_the_answers_of_different_requests_apart() -> None:
    answer = RawParameters(Parameters(expires_ms=5, largest=Location(1, 2)))
    assert check_scope(D20, answer, Scope.UPDATE_OK) == answer
    with pytest.raises(ProtocolViolation, match="LARGEST_OBJECT may not stand in PUBLISH_OK"):
        check_scope(D20, answer, Scope.PUBLISH_OK)
    assert check_scope(D16, answer, Scope.TRACK_STATUS_OK) == RawParameters(Parameters(largest=Location(1, 2)))


def test_check_scope_sees_tokens_and_range_filters() -> None:
    with_token = RawParameters(tokens=(RawToken(TokenUse.USE_ALIAS, 1),))
    with pytest.raises(ProtocolViolation):
        check_scope(D20, with_token, Scope.UPDATE_OK)
    assert check_scope(D16, with_token, Scope.UPDATE_OK) == RawParameters()
    by_track = RawParameters(Parameters(range_filters=(RangeFilter(FilterSubject.TRACK_PROPERTY, 0, 2, ((1, 1),)),)))
    assert check_scope(D20, by_track, Scope.UPDATE_SUBSCRIBE_TRACKS) == by_track
    with pytest.raises(ProtocolViolation, match="TRACK_PROPERTY_FILTER"):
        check_scope(D20, by_track, Scope.UPDATE_SUBSCRIPTION)


@pytest.mark.parametrize("profile", DRAFTS, ids=by_name)
@settings(parent=QUICK, max_examples=60)
@given(data=st.data())
def test_what_a_scope_holds_passes_it(profile: Profile, data: st.DataObject) -> None:
    scope = data.draw(st.sampled_from(sorted(Scope, key=lambda scope: scope.name)))
    drawn = data.draw(parameters(profile, scope))
    assert check_scope(profile, drawn, scope) == drawn


def test_encode_narrows_an_update_to_its_request() -> None:
    update = m.RequestUpdate(2, RawParameters(Parameters(priority=3, forward=True, prefix=(b"a",))))

    def arrives(scope: Scope) -> Parameters:
        whole = m.encode(D20, update, scope)
        decoded = m.decode(D20, 0x2, whole[3:])
        assert isinstance(decoded, m.RequestUpdate)
        return decoded.parameters.values

    assert arrives(Scope.UPDATE_FETCH) == Parameters(priority=3)
    assert arrives(Scope.UPDATE_SUBSCRIPTION) == Parameters(priority=3, forward=True)
    assert arrives(Scope.UPDATE_SUBSCRIBE_NAMESPACE) == Parameters(prefix=(b"a",))


# --- What peers write differently ------------------------------------------------------------------------------------


def test_group_order_zero_is_a_quirk_that_is_counted() -> None:
    body = bytes.fromhex("00 01 026e73 0174 02 1001 1200")
    quirks = CountingQuirks("group-order-zero")
    message = m.decode(D16, 0x3, body, quirks)
    assert message == m.Subscribe(0, TRACK, RawParameters(Parameters(forward=True)))
    assert quirks.uses == ["group-order-zero"]
    with pytest.raises(ProtocolViolation):
        m.decode(D20, 0x3, body, quirks)


@pytest.mark.parametrize(
    ("body", "fill"),
    [
        ("01 2300", Fill()),
        ("01 230100", Fill()),
        ("01 2302 0a05", Fill(timeout_ms=5)),
        ("01 2303 010a05", Fill(timeout_ms=5)),
        ("01 2304 0a05 16c8", Fill(timeout_ms=5, priority=200)),
        ("01 2305 02 0a05 16c8", Fill(timeout_ms=5, priority=200)),
        ("01 2302 2202", Fill(order=GroupOrder.DESCENDING)),
    ],
)
def test_fill_parameters_with_and_without_a_count(body: str, fill: Fill) -> None:
    assert subscribed(D20, body).fill == fill
    assert subscribed(D22, body).fill == fill


@pytest.mark.parametrize("profile", [D18, D20, D22], ids=by_name)
@pytest.mark.parametrize("prefix", [(), (b"a",), (b"\x01", b"\x01"), (b"a" * 40,), tuple(b"%d" % n for n in range(32))])
def test_prefix_with_and_without_a_length(profile: Profile, prefix: tuple[bytes, ...]) -> None:
    bare = profile.varint.encode(len(prefix)) + b"".join(profile.varint.encode(len(f)) + f for f in prefix)
    expected = m.RequestUpdate(0, RawParameters(Parameters(prefix=prefix)))
    assert m.decode(profile, 0x2, b"\x00\x01\x34" + bare) == expected
    prefixed = b"\x00\x01\x34" + profile.varint.encode(len(bare)) + bare
    if profile.draft < 22:
        assert m.decode(profile, 0x2, prefixed) == expected
    else:
        with pytest.raises(ProtocolViolation):
            m.decode(profile, 0x2, prefixed)


# --- Filters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "body", "chosen"),
    [
        (D16, "01 2101 02", NEXT_OBJECT),
        (D16, "01 2101 01", NEXT_GROUP),
        (D18, "01 2103 030405", LocationFilter(FilterKind.ABSOLUTE, start=Location(4, 5))),
        (D20, "01 2100", NO_FILTER),
        (D20, "01 2101 00", NEXT_GROUP),
        (D20, "01 2101 01", CURRENT_GROUP),
        (D20, "01 2102 0000", NEXT_OBJECT),
        (D20, "01 2102 0001", LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 1))),
        (D20, "01 2103 000000", LocationFilter(FilterKind.ABSOLUTE, end_group=0)),
        (D20, "01 2104 00000000", LocationFilter(FilterKind.ABSOLUTE, end_group=0, end_object=0)),
        (D22, "01 2100", NO_FILTER),
        (D22, "01 210100", NEXT_GROUP),
        (D22, "01 21020000", LocationFilter(FilterKind.ABSOLUTE)),
        (D22, "01 2103010203", LocationFilter(FilterKind.ABSOLUTE, start=Location(1, 2), end_group=4)),
        (D22, "01 2105", NEXT_OBJECT),
    ],
)
def test_location_filters(profile: Profile, body: str, chosen: LocationFilter) -> None:
    assert subscribed(profile, body).filter == chosen
    written = m.encode(profile, m.Subscribe(0, TRACK, RawParameters(Parameters(filter=chosen))))
    assert written.hex().endswith(body.replace(" ", ""))


@pytest.mark.parametrize("profile", [D16, D18], ids=by_name)
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (NO_FILTER, LocationFilter(FilterKind.ABSOLUTE)),
        (CURRENT_GROUP, LocationFilter(FilterKind.ABSOLUTE)),
        (
            LocationFilter(FilterKind.ABSOLUTE, start=Location(3, 1), end_group=7, end_object=4),
            LocationFilter(FilterKind.ABSOLUTE, start=Location(3, 1), end_group=7),
        ),
    ],
)
def test_old_drafts_say_a_wider_filter_never_a_narrower(
    profile: Profile, asked: LocationFilter, said: LocationFilter
) -> None:
    whole = m.encode(profile, m.Subscribe(0, TRACK, RawParameters(Parameters(filter=asked))))
    message = m.decode(profile, 0x3, whole[3:])
    assert isinstance(message, m.Subscribe)
    assert message.parameters.values.filter == said


def test_an_open_filter_from_the_start_is_none_where_it_would_read_as_next_object() -> None:
    whole = m.encode(D20, m.Subscribe(0, TRACK, RawParameters(Parameters(filter=LocationFilter(FilterKind.ABSOLUTE)))))
    assert whole.hex().endswith("012100")


def test_range_filter_of_the_drafts_example() -> None:
    found = subscribed(D20, "01 2505 00 03020505").range_filters
    assert found == (RangeFilter(FilterSubject.SUBGROUP, 0, None, ((3, 5), (10, 15))),)


def test_range_filter_left_open_and_removed() -> None:
    [left_open] = subscribed(D20, "01 2805 07 02 01 02 04").range_filters
    assert left_open == RangeFilter(FilterSubject.OBJECT_PROPERTY, 7, 2, ((1, 3), (7, None)))
    [removed] = subscribed(D20, "01 2500").range_filters
    assert removed == RangeFilter(FilterSubject.SUBGROUP, 0, None, ())


# --- Tokens ----------------------------------------------------------------------------------------------------------


def test_tokens_go_out_whole_and_come_in_raw() -> None:
    values = Parameters(tokens=(Token(1, b"secret"), Token(0, b"")), forward=True)
    raw = RawParameters.of(values)
    assert raw.tokens == (
        RawToken(TokenUse.USE_VALUE, None, 1, b"secret"),
        RawToken(TokenUse.USE_VALUE, None, 0, b""),
    )
    whole = m.encode(D20, m.Subscribe(0, TRACK, raw))
    message = m.decode(D20, 0x3, whole[3:])
    assert isinstance(message, m.Subscribe)
    assert message.parameters == raw
    assert message.parameters.resolved(values.tokens) == values


@pytest.mark.parametrize(
    ("body", "token"),
    [
        ("01 0302 0007", RawToken(TokenUse.DELETE, 7)),
        ("01 0305 01070261ff", RawToken(TokenUse.REGISTER, 7, 2, b"a\xff")),
        ("01 0302 0207", RawToken(TokenUse.USE_ALIAS, 7)),
        ("01 0303 030261", RawToken(TokenUse.USE_VALUE, None, 2, b"a")),
    ],
)
def test_token_structures(body: str, token: RawToken) -> None:
    message = m.decode(D20, 0x3, bytes.fromhex("00 01 026e73 0174" + body))
    assert isinstance(message, m.Subscribe)
    assert message.parameters.tokens == (token,)


# --- Setup Options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", DRAFTS, ids=by_name)
@QUICK
@given(data=st.data())
def test_setup_comes_back(profile: Profile, data: st.DataObject) -> None:
    options = data.draw(setup_options(profile))
    assert read_setup(Reader(profile, write_setup(profile, options))) == options


def test_setup_keeps_unknown_options_for_extensions_and_repeats_of_them() -> None:
    body = bytes.fromhex("07 03 6d6f71 c40b4e 01 2a 00 01 2b")
    assert read_setup(Reader(D20, body)) == SetupOptions(
        implementation="moq", others=((0x40B55, b"*"), (0x40B55, b"+"))
    )
    many = encode_pairs(D20.varint, tuple((0x100, n) for n in range(100)))
    assert len(read_setup(Reader(D20, many)).others) == 64


def test_setup_implementation_is_safe_to_log() -> None:
    value = b"evil\n\x1b[31m\xff" + b"x" * 200
    options = read_setup(Reader(D20, encode_pairs(D20.varint, ((7, value),))))
    assert options.implementation == ("evil??[31m?" + "x" * 200)[:128]


def test_setup_says_only_what_the_draft_has() -> None:
    options = SetupOptions(max_request_id=9, max_filter_ranges=8, max_request_updates=7, max_token_cache_bytes=6)
    arrived = {p.draft: read_setup(Reader(p, write_setup(p, options))) for p in DRAFTS}
    assert arrived[16] == SetupOptions(max_request_id=9, max_token_cache_bytes=6)
    assert arrived[18] == SetupOptions(max_token_cache_bytes=6)
    assert arrived[20] == arrived[22] == replace(options, max_request_id=0)


# --- Properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", DRAFTS, ids=by_name)
@QUICK
@given(data=st.data())
def test_pairs_come_back(profile: Profile, data: st.DataObject) -> None:
    found = data.draw(pairs(profile))
    encoded = encode_pairs(profile.varint, found)
    assert decode_pairs(profile.varint, encoded) == found
    assert decode_pairs(profile.varint, b"\x05" + encoded + b"\x00\x00", 1, 1 + len(encoded)) == found
    for end in range(len(encoded)):
        with_less = encoded[:end]
        try:
            decode_pairs(profile.varint, with_less)
        except ProtocolViolation as violation:
            assert violation.code == SessionCode.KEY_VALUE_FORMATTING_ERROR


def test_pairs_that_nobody_can_write() -> None:
    unwritable: list[Properties] = [((1, 5),), ((2, b"x"),), ((3, b"x" * 65536),)]
    for wrong in unwritable:
        with pytest.raises(MisuseError):
            encode_pairs(D20.varint, wrong)


def test_pairs_are_limited_in_number() -> None:
    most = tuple((0x100, n) for n in range(256))
    assert decode_pairs(D20.varint, encode_pairs(D20.varint, most)) == most
    with pytest.raises(ProtocolViolation) as raised:
        decode_pairs(D20.varint, encode_pairs(D20.varint, (*most, (0x100, 0))))
    assert raised.value.code == SessionCode.INTERNAL_ERROR


def test_a_property_is_found_in_the_open_and_among_the_immutable() -> None:
    inner = encode_pairs(D20.varint, ((0x0E, 7), (0x4001, b"x")))
    properties = ((0x0B, inner), (0x22, 2))
    assert find_property(D20, properties, 0x0E) == 7
    assert find_property(D20, properties, 0x22) == 2
    assert find_property(D20, properties, 0x30) is None
    assert find_property(D20, ((0x0B, b"\x0e"),), 0x0E) is None
    assert unknown_mandatory(D20, properties) == 0x4001
    assert unknown_mandatory(D20, properties, {0x4001}) is None
    assert unknown_mandatory(D16, ((0x4000, 1),)) is None


@pytest.mark.parametrize(
    "properties", [((0x0E, 256),), ((0x22, 0),), ((0x22, 3),), ((0x30, 2),), ((0x0B, b"\x30\x02"),)]
)
def test_track_properties_with_a_value_that_closes_the_session(properties: tuple[tuple[int, int | bytes], ...]) -> None:
    for profile in DRAFTS:
        with pytest.raises(ProtocolViolation):
            check_track_properties(profile, properties)


def test_track_properties_as_they_should_be() -> None:
    for profile in DRAFTS:
        check_track_properties(profile, ((0x02, 1), (0x0E, 255), (0x22, 2), (0x30, 1), (0x3801, b"ours")))
    check_track_properties(D20, ((0x02, 0),))
    with pytest.raises(ProtocolViolation):
        check_track_properties(D16, ((0x02, 0),))


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (((0x3C, 1), (0x3C, 1)), "property 0x3c twice"),
        (((0x0B, b""), (0x0B, b"")), "property 0xb twice"),
        (((0x4000, 1),), "track property 0x4000 on an object"),
        (((0x0B, b"\x0b\x00"),), "immutable properties inside immutable properties"),
        (((0x0B, b"\x0e"),), "immutable properties that cannot be read"),
        (((0x3C, 6),), "a gap of 6 before 5"),
        (((0x3E, 3),), "a gap of 3 before 2"),
        (((0x0B, b"\x3e\x03"),), "a gap of 3 before 2"),
        (((0x3C, 5), (0x3E, 2), (0x99, b"x")), None),
    ],
)
def test_malformed_objects(properties: Properties, reason: str | None) -> None:
    assert malformed_reason(D20, 5, 2, properties) == reason


# --- Version choice --------------------------------------------------------------------------------------------------


def test_choose_prefers_new_drafts_and_16_for_browsers() -> None:
    everything = set(PROFILES)
    assert choose(everything, None, everything) == "moqt-22"
    assert choose(everything, "https://player.example", everything) == "moqt-16"
    assert choose(["moqt-20", "moqt-16"], None, everything) == "moqt-20"
    assert choose(["moqt-20", "moqt-16"], None, {"moqt-16"}) == "moqt-16"
    assert choose(["moq-00", "moqt-17"], None, everything) is None
    assert choose([], "https://player.example", everything) is None


@QUICK
@given(
    offered=st.lists(st.sampled_from([*NATIVE_ORDER, "moqt-17", "moq-lite-06", "h3"])),
    allowed=st.sets(st.sampled_from([*NATIVE_ORDER, "moqt-17"])),
    origin=st.none() | st.just("https://a.example"),
)
def test_choose_never_takes_what_was_not_offered(offered: list[str], allowed: set[str], origin: str | None) -> None:
    chosen = choose(offered, origin, allowed)
    possible = set(offered) & allowed & set(PROFILES)
    assert chosen in possible if possible else chosen is None


def test_orders_name_every_profile() -> None:
    assert set(NATIVE_ORDER) == set(BROWSER_ORDER) == set(PROFILES)
    assert all(profile.name == name for name, profile in PROFILES.items())
