"""Control messages: golden bytes, round trips of everything a draft can say, and hostile bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.moqt.wire_values import ALL_MESSAGES, DRAFTS, MESSAGE_IDS, messages
from tradewind.moqt import messages as m
from tradewind.moqt.errors import DoneCode, MisuseError, ProtocolViolation, RequestCode, ResetCode, SessionCode
from tradewind.moqt.events import Redirect
from tradewind.moqt.model import (
    MAX_VARINT,
    NEXT_OBJECT,
    NO_FILTER,
    FilterKind,
    FullTrackName,
    Location,
    LocationFilter,
    Parameters,
)
from tradewind.moqt.parameters import RawParameters
from tradewind.moqt.profiles import PROFILES, Profile

QUICK = settings(
    max_examples=8,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
D16, D18, D20, D22 = (PROFILES[name] for name in ("moqt-16", "moqt-18", "moqt-20", "moqt-22"))
VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "moqt_messages.json").read_text())
TRACK = FullTrackName((b"room", b"alice"), b"video")


def body_of(profile: Profile, whole: bytes) -> tuple[int, bytes]:
    decoded = profile.varint.decode(whole, 0)
    assert decoded is not None
    number, offset = decoded
    assert int.from_bytes(whole[offset : offset + 2], "big") == len(whole) - offset - 2
    return number, whole[offset + 2 :]


def decoded(profile: Profile, data: bytes, step: int | None = None) -> list[m.Message]:
    """The messages in `data`, fed in pieces of `step` bytes."""
    decoder = m.ControlDecoder(profile)
    found = []
    for start in range(0, len(data), step or max(len(data), 1)):
        decoder.receive(data[start : start + (step or len(data))])
        while (message := decoder.next_message()) is not None:
            found.append(message)
    decoder.finish()
    assert decoder.buffered_bytes == 0
    return found


def plain(value: Any) -> Any:
    """A decoded value in the words of the vectors: only what differs from saying nothing."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        blank = {name: field.default for name, field in value.__dataclass_fields__.items()}
        return {
            name: plain(getattr(value, name)) for name in blank if getattr(value, name) != blank[name] or name == "code"
        }
    if isinstance(value, FilterKind):
        return value.value
    return value


CASES = [
    pytest.param(PROFILES[name], vector, id=f"{name}-{vector['id']}") for vector in VECTORS for name in vector["drafts"]
]


@pytest.mark.parametrize(("profile", "vector"), CASES)
class TestVectors:
    def test_whole(self, profile: Profile, vector: dict[str, Any]) -> None:
        [message] = decoded(profile, bytes.fromhex(vector["hex"]))
        assert {type(message).__name__: plain(message)} == vector["value"]

    def test_byte_by_byte_with_another_behind(self, profile: Profile, vector: dict[str, Any]) -> None:
        data = bytes.fromhex(vector["hex"])
        [message] = decoded(profile, data)
        assert decoded(profile, data + data, step=1) == [message, message]
        assert decoded(profile, data + data) == [message, message]

    def test_encoded(self, profile: Profile, vector: dict[str, Any]) -> None:
        data = bytes.fromhex(vector["hex"])
        [message] = decoded(profile, data)
        expected = bytes.fromhex(vector.get("canonical", vector["hex"]))
        assert m.encode(profile, message).hex() == expected.hex()

    def test_longer_than_the_message(self, profile: Profile, vector: dict[str, Any]) -> None:
        number, body = body_of(profile, bytes.fromhex(vector["hex"]))
        with pytest.raises(ProtocolViolation):
            m.decode(profile, number, body + b"\0")

    def test_cut_anywhere(self, profile: Profile, vector: dict[str, Any]) -> None:
        data = bytes.fromhex(vector["hex"])
        for length in range(1, len(data)):
            decoder = m.ControlDecoder(profile)
            decoder.receive(data[:length])
            assert decoder.next_message() is None
            with pytest.raises(ProtocolViolation):
                decoder.finish()


def spelled_out(body: str) -> bytes:
    """Bytes in hexadecimal, where `61*4` is 61616161."""
    parts = (part.partition("*") for part in body.split())
    return b"".join(bytes.fromhex(unit) * int(times or 1) for unit, _, times in parts)


REFUSED = json.loads((Path(__file__).parent.parent / "vectors" / "moqt_refused.json").read_text())


@pytest.mark.parametrize(
    ("profile", "vector"),
    [
        pytest.param(PROFILES[name], vector, id=f"{name}-{vector['id']}")
        for vector in REFUSED
        for name in vector["drafts"]
    ],
)
def test_what_a_draft_forbids(profile: Profile, vector: dict[str, Any]) -> None:
    number, body = int(vector["type"], 16), spelled_out(vector["body"])
    if "flaw" in vector:
        message = m.decode(profile, number, body)
        flaw = message.parameters.flaw  # type: ignore[union-attr]
        assert flaw is not None
        assert RequestCode(flaw.code).name == vector["flaw"]
        return
    with pytest.raises(ProtocolViolation) as raised:
        m.decode(profile, number, body)
    assert SessionCode(raised.value.code).name == vector.get("code", "PROTOCOL_VIOLATION")


@pytest.mark.parametrize(("profile", "kind"), ALL_MESSAGES, ids=MESSAGE_IDS)
class TestEveryMessage:
    @QUICK
    @given(data=st.data())
    def test_comes_back(self, profile: Profile, kind: type[m.Message], data: st.DataObject) -> None:
        message = data.draw(messages(profile, kind))
        whole = m.encode(profile, message)
        assert decoded(profile, whole) == [message]
        assert decoded(profile, whole, step=1) == [message]

    @QUICK
    @given(data=st.data())
    def test_shortened_or_damaged(self, profile: Profile, kind: type[m.Message], data: st.DataObject) -> None:
        number, body = body_of(profile, m.encode(profile, data.draw(messages(profile, kind))))
        places = st.tuples(st.integers(0, max(len(body) - 1, 0)), st.integers(0, 255))
        for at, value in data.draw(st.lists(places, max_size=3)):
            body = body[:at] + bytes((value,)) + body[at + 1 :]
        ends = range(len(body) + 1) if len(body) < 200 else (*range(100), len(body) - 1, len(body))
        for end in ends:
            _decodes_or_violates(profile, number, body[:end])


def _decodes_or_violates(profile: Profile, number: int, body: bytes) -> None:
    try:
        message = m.decode(profile, number, body)
    except ProtocolViolation:
        return
    assert isinstance(message, profile.by_type[number][1])


@pytest.mark.parametrize("profile", DRAFTS, ids=lambda profile: profile.name)
@settings(parent=QUICK, max_examples=60)
@given(body=st.binary(max_size=60), number=st.integers(0, 0x60) | st.just(0x2F00))
def test_any_bytes(profile: Profile, body: bytes, number: int) -> None:
    if number not in profile.by_type:
        with pytest.raises(ProtocolViolation, match="unknown message type"):
            m.decode(profile, number, body)
    else:
        _decodes_or_violates(profile, number, body)


@pytest.mark.parametrize("profile", DRAFTS, ids=lambda profile: profile.name)
@settings(parent=QUICK, max_examples=40)
@given(data=st.binary(max_size=80), step=st.integers(1, 7))
def test_any_split_of_any_bytes_gives_the_same(profile: Profile, data: bytes, step: int) -> None:
    def run(pieces: list[bytes]) -> tuple[list[m.Message], str | None]:
        decoder = m.ControlDecoder(profile)
        found: list[m.Message] = []
        try:
            for piece in pieces:
                decoder.receive(piece)
                while (message := decoder.next_message()) is not None:
                    found.append(message)
        except ProtocolViolation as violation:
            return found, violation.reason
        return found, None

    assert run([data]) == run([data[start : start + step] for start in range(0, len(data), step)])


def test_draft_21_is_draft_20_under_another_name() -> None:
    d21 = PROFILES["moqt-21"]
    assert d21.layouts == D20.layouts
    assert d21.parameters == D20.parameters
    assert (d21.codes, d21.data, d21.varint) == (D20.codes, D20.data, D20.varint)


def test_unknown_type_is_refused_before_its_body() -> None:
    decoder = m.ControlDecoder(D20)
    decoder.receive(b"\x7f")
    with pytest.raises(ProtocolViolation, match="unknown message type"):
        decoder.next_message()


def test_what_a_draft_lacks_is_our_mistake_to_send() -> None:
    unsayable: list[tuple[Profile, m.Message]] = [
        (D20, m.Unsubscribe(0)),
        (D16, m.SubscribeTracks(0, ())),
        (D18, m.PublishStateNotify()),
        (D20, m.Fetch(0, None, joining=2, joining_groups=1)),
        (D18, m.Fetch(0, TRACK, NEXT_OBJECT)),
        (D16, m.SubscribeOk(1)),
        (D16, m.Subscribe(0, FullTrackName((), b"x"))),
        (D20, m.RequestError(RequestCode.REDIRECT)),
        (D20, m.RequestError(RequestCode.TIMEOUT, redirect=Redirect("", TRACK))),
        (D20, m.Goaway("x" * 8193)),
        (D20, m.Goaway("moqt://exämple/")),
        (D20, m.Subscribe(0, FullTrackName((b"a" * 4096,), b"x"))),
        (D20, m.Subscribe(0, FullTrackName((b"",), b"x"))),
        (D20, m.Subscribe(0, FullTrackName((b"a",) * 33, b"x"))),
        (D20, m.Publish(0, TRACK, 1, properties=((1, b"x" * 65000), (3, b"x" * 600)))),
    ]
    for profile, message in unsayable:
        with pytest.raises(MisuseError):
            m.encode(profile, message)


def test_a_message_as_long_as_can_be() -> None:
    properties = ((1, b"x" * 65_000), (3, b"y" * 507))
    whole = m.encode(D20, m.Publish(0, TRACK, 1, properties=properties))
    assert whole[1:3] == b"\xff\xff"
    [message] = decoded(D20, whole)
    assert isinstance(message, m.Publish)
    assert message.properties == properties


def test_parameters_that_a_draft_lacks_are_left_out() -> None:
    values = Parameters(rendezvous_timeout_ms=5, include_properties=False, forward=True, expires_ms=9)
    written = {
        p.name: decoded(p, m.encode(p, m.Subscribe(0, TRACK, RawParameters.of(values)))) for p in (D16, D18, D20)
    }
    expected = {
        "moqt-16": Parameters(forward=True),
        "moqt-18": Parameters(forward=True, rendezvous_timeout_ms=5),
        "moqt-20": Parameters(forward=True, rendezvous_timeout_ms=5, include_properties=False),
    }
    assert written == {name: [m.Subscribe(0, TRACK, RawParameters(values))] for name, values in expected.items()}


@pytest.mark.parametrize(
    ("profile", "asked", "arrives"),
    [
        (D20, Location(4, 9), Location(4, 9)),
        (D18, Location(4, 9), Location(4, 9)),
        (D16, Location(4, MAX_VARINT), Location(4, MAX_VARINT)),
        (D18, Location(4, MAX_VARINT), Location(4, MAX_VARINT)),
    ],
)
def test_fetch_ok_end_is_inclusive_everywhere(profile: Profile, asked: Location, arrives: Location) -> None:
    request = None if profile.request_streams else 0
    [message] = decoded(profile, m.encode(profile, m.FetchOk(asked, request=request)))
    assert isinstance(message, m.FetchOk)
    assert message.end == arrives


@pytest.mark.parametrize("profile", [D16, D18], ids=lambda profile: profile.name)
def test_an_open_fetch_reaches_to_the_end_of_all_groups(profile: Profile) -> None:
    [message] = decoded(profile, m.encode(profile, m.Fetch(0, TRACK, NO_FILTER)))
    assert isinstance(message, m.Fetch)
    assert message.filter == LocationFilter(
        FilterKind.ABSOLUTE, start=Location(0, 0), end_group=profile.varint.maximum, end_object=None
    )


def test_codes_are_draft_20s_on_our_side() -> None:
    for ours, wire in [(DoneCode.TOO_FAR_BEHIND, 6), (DoneCode.EXPIRED, 5), (DoneCode.TRACK_ENDED, 2)]:
        data = m.encode(D16, m.PublishDone(ours, 1, request=0))
        assert data[4] == wire
        assert decoded(D16, data) == [m.PublishDone(ours, 1, request=0)]
    assert decoded(D16, m.encode(D16, m.PublishDone(DoneCode.EXCESSIVE_LOAD, request=0))) == [
        m.PublishDone(DoneCode.INTERNAL_ERROR, request=0)
    ]
    assert D16.codes.reset_to_wire(ResetCode.UNKNOWN_OBJECT_STATUS) == 4
    assert D16.codes.reset_from_wire(4) == ResetCode.UNKNOWN_OBJECT_STATUS
    for code in (ResetCode.CANCELLED, ResetCode.DELIVERY_TIMEOUT, ResetCode.INTERNAL_ERROR, 0x9D):
        assert D16.codes.reset_from_wire(code) == code
    assert all(p.codes.reset_to_wire(code) == code for p in (D18, D20, D22) for code in ResetCode)


def test_numbers_from_a_new_draft_are_cut_to_what_an_old_one_can_say() -> None:
    huge, largest = 2**63, 2**62 - 1
    answer = m.SubscribeOk(1, RawParameters(Parameters(largest=Location(huge, 1), expires_ms=huge)), ((2, huge),), 0)
    assert decoded(D16, m.encode(D16, answer)) == [
        m.SubscribeOk(1, RawParameters(Parameters(largest=Location(largest, 1), expires_ms=largest)), (), 0)
    ]
    chosen = LocationFilter(FilterKind.ABSOLUTE, start=Location(huge, 5), end_group=huge + 1)
    bounded = LocationFilter(FilterKind.ABSOLUTE, start=Location(largest, 5), end_group=largest)
    asked = m.Subscribe(0, TRACK, RawParameters(Parameters(filter=chosen)))
    assert decoded(D16, m.encode(D16, asked)) == [m.Subscribe(0, TRACK, RawParameters(Parameters(filter=bounded)))]
    assert decoded(D16, m.encode(D16, m.Fetch(0, TRACK, chosen))) == [m.Fetch(0, TRACK, bounded)]
    for message in (m.PublishDone(huge, huge, request=0), m.RequestError(huge, "", huge, request=0)):
        assert len(decoded(D16, m.encode(D16, message))) == 1


def test_stream_count_unknown_is_what_each_draft_calls_it() -> None:
    assert m.encode(D16, m.PublishDone(0, None, request=0)).hex().endswith("ffffffffffffffff00")
    assert m.encode(D18, m.PublishDone(0, None)).hex().endswith("ff3fffffffffffffff00")
    assert m.encode(D20, m.PublishDone(0, None)).hex().endswith("ffffffffffffffffff00")


def test_reasons_are_cut_between_characters() -> None:
    [message] = decoded(D20, m.encode(D20, m.RequestError(0, "é" * 600)))
    assert isinstance(message, m.RequestError)
    assert message.reason == "é" * 512


def test_retry_is_plus_one_on_the_wire() -> None:
    for retry_ms, wire in [(None, "00"), (0, "01"), (99, "64")]:
        data = m.encode(D20, m.RequestError(2, "", retry_ms))
        assert data.hex() == f"05000302{wire}00"
        assert decoded(D20, data) == [m.RequestError(2, "", retry_ms)]
