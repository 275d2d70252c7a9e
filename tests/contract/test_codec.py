"""Messages and bytes: everything comes back as it was, and any bytes give a message or ContractError."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.values import any_of
from tradewind.contract import messages as m
from tradewind.contract.codec import (
    MAX_VALUES,
    ON_LINK,
    SINCE,
    TO_CONTROLLER,
    TO_RELAY,
    VERSION,
    VERSIONS,
    Codec,
    ContractError,
    Direction,
    Frames,
    Reason,
    Since,
    choose_version,
    frame,
)

DIRECTIONS: tuple[Direction[Any], ...] = (TO_CONTROLLER, TO_RELAY, ON_LINK)
NAMED = pytest.mark.parametrize("direction", DIRECTIONS, ids=lambda direction: direction.name)
DONE = m.Done(command="c1", ok=True)


def refused(act: Callable[..., object], *arguments: object) -> Reason:
    with pytest.raises(ContractError) as caught:
        act(*arguments)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()
    return caught.value.reason


def envelope(body: Any, version: Any = VERSION) -> bytes:
    data: bytes = msgpack.packb([version, body])
    return data


@NAMED
@given(data=st.data())
@settings(max_examples=60)
def test_what_is_sent_is_what_comes(direction: Direction[Any], data: st.DataObject) -> None:
    codec = Codec(direction)
    message = data.draw(any_of(direction.kind))
    encoded = codec.encode(message)
    again = codec.decode(encoded)
    assert again == message
    assert type(again) is type(message)
    assert codec.encode(again) == encoded


def test_the_bytes_themselves() -> None:
    """A version does not change: keys by the alphabet, defaults written out, floats as floats."""
    said = "84a7636f6d6d616e64a26331a664657461696ca0a26f6bc3a174a4646f6e65"
    assert Codec(TO_CONTROLLER, 1).encode(DONE).hex() == "9201" + said
    assert Codec(TO_CONTROLLER, 2).encode(DONE).hex() == "9202" + said
    received = m.Received(
        highest=1, probes=2, lost=3, arrived=4, state="up", loss_ratio=0, echo=5, waited_us=6, lag_us=7
    )
    assert b"loss_ratio\xcb" + bytes(8) in Codec(ON_LINK).encode(received)


@NAMED
@given(data=st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes(direction: Direction[Any], data: bytes) -> None:
    for attempt in (data, b"\x92\x02" + data):
        try:
            Codec(direction).decode(attempt)
        except ContractError as error:
            assert str(error).isprintable()


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
TAGS = ["hello", "report", "done", "answer", "welcome", "signed", "delta", "command", "question", "link", "received"]
FIELDS = sorted({field for tag in (m.Report, m.Hello, m.TableDelta, m.Received) for field in tag.__struct_fields__})


@NAMED
@given(
    body=st.dictionaries(st.sampled_from(FIELDS), TREES, max_size=6),
    tag=st.sampled_from(TAGS) | TREES,
    version=st.just(VERSION) | TREES,
)
@settings(max_examples=100)
def test_any_msgpack(direction: Direction[Any], body: dict[str, Any], tag: Any, version: Any) -> None:
    try:
        Codec(direction).decode(envelope({**body, "t": tag}, version))
    except ContractError as error:
        assert str(error).isprintable()


@NAMED
@given(data=st.data())
@settings(max_examples=60)
def test_broken_messages(direction: Direction[Any], data: st.DataObject) -> None:
    codec = Codec(direction)
    encoded = bytearray(codec.encode(data.draw(any_of(direction.kind))))
    cut = data.draw(st.integers(0, len(encoded) - 1))
    assert refused(codec.decode, bytes(encoded[:cut])) is Reason.MALFORMED
    assert refused(codec.decode, bytes(encoded) + b"\xc0") is Reason.MALFORMED
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        codec.decode(bytes(encoded))
    except ContractError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"t": "done", "command": "c", "ok": True, "extra": 1}, Reason.SHAPE),
        ({"t": "done", "command": "c", "ok": True, "\u001b[31m": 1}, Reason.SHAPE),
        ({"t": "done", "command": "c", "ok": 1}, Reason.SHAPE),
        ({"t": "done", "command": "c", "ok": "true"}, Reason.SHAPE),
        ({"t": "done", "command": b"c", "ok": True}, Reason.SHAPE),
        ({"t": "done", "command": "c" * 513, "ok": True}, Reason.SHAPE),
        ({"t": "done", "ok": True}, Reason.SHAPE),
        ({"t": "answer", "question": 1.0, "body": ""}, Reason.SHAPE),
        ({"t": "answer", "question": True, "body": ""}, Reason.SHAPE),
        ({"t": "answer", "question": -1, "body": ""}, Reason.SHAPE),
        ({"t": "answer", "question": "1", "body": ""}, Reason.SHAPE),
        ({"t": "welcome", "controller": "c"}, Reason.SHAPE),
        ({"command": "c", "ok": True}, Reason.SHAPE),
        ({"t": "\u001b[31m" * 200}, Reason.SHAPE),
        ({str(number): 1 for number in range(33)}, Reason.MALFORMED),
        ({b"t": "done", b"command": "c", b"ok": True}, Reason.SHAPE),
        ({"t": msgpack.Timestamp(1), "command": "c"}, Reason.SHAPE),
        ({"t": "done", "command": msgpack.ExtType(5, b"x"), "ok": True}, Reason.MALFORMED),
        ([], Reason.MALFORMED),
        (None, Reason.MALFORMED),
    ],
)
def test_strictness(body: Any, reason: Reason) -> None:
    assert refused(Codec(TO_CONTROLLER).decode, envelope(body)) is reason


def test_bytes_are_bytes() -> None:
    """Text in base64 is no way to write bytes here."""
    body = {"t": "link", "boot": "AAAAAAAAAAAAAAAAAAAAAA==", "ticket": bytes(32)}
    assert refused(Codec(ON_LINK).decode, envelope(body)) is Reason.SHAPE


def test_a_key_stands_there_once() -> None:
    data = b"\x92\x02\x84\xa1t\xa4done\xa2ok\xc3\xa7command\xa1a\xa2ok\xc2"
    assert refused(Codec(TO_CONTROLLER).decode, data) is Reason.MALFORMED


@pytest.mark.parametrize("version", [0, 1, 3, "2", True, 2.0, None, [2]])
def test_another_version(version: Any) -> None:
    data = envelope(msgspec.to_builtins(DONE), version)
    reason = Reason.VERSION if type(version) is int else Reason.MALFORMED
    assert refused(Codec(TO_CONTROLLER).decode, data) is reason


def test_memory_is_bounded() -> None:
    codec = Codec(TO_CONTROLLER)
    many = b"\x92\x02" + b"\xdc\x4e\x20" + (b"\xdc\x00\xc8" + b"\x90" * 200) * 20_000
    assert len(many) < TO_CONTROLLER.max_frame_bytes
    assert MAX_VALUES < 20_000 * 200
    assert refused(codec.decode, many) is Reason.TOO_LONG
    assert refused(codec.decode, b"\x92\x02\xdd\x00\x00\x4e\x21") is Reason.MALFORMED
    assert refused(Codec(ON_LINK).decode, envelope({"t": [0] * 16})) is Reason.SHAPE
    assert refused(Codec(ON_LINK).decode, envelope({"t": [0] * 17})) is Reason.MALFORMED
    assert refused(codec.decode, b"\x91" * 4000) is Reason.MALFORMED
    assert refused(codec.decode, bytes(TO_CONTROLLER.max_frame_bytes + 1)) is Reason.TOO_LONG


def test_what_does_not_fit_is_not_sent() -> None:
    codec = Codec(TO_CONTROLLER)
    wrong: list[Any] = [
        m.Done(command="x" * 513, ok=True),
        m.Done(command="\ud800", ok=True),
        m.Done(command=1, ok=True),  # type: ignore[arg-type]
        m.Welcome(controller="c"),
        m.Answer(question=2**60, body=""),
        object(),
    ]
    for message in wrong:
        assert refused(codec.encode, message) is Reason.SHAPE
    assert refused(codec.encode, m.Answer(question=1, body="\u00e9" * 4_000_000)) is Reason.TOO_LONG
    codec.decode(codec.encode(m.Answer(question=1, body="e" * 4_000_000)))
    table = m.SignedTable(table=bytes(8_000_000), certificate=bytes(8192), signature=bytes(512))
    Codec(TO_RELAY).decode(Codec(TO_RELAY).encode(table))
    largest = m.Received(*[2**53] * 4, "probation", 1.0, *[2**53] * 3)  # type: ignore[arg-type, call-arg]
    assert len(Codec(ON_LINK).encode(largest)) < ON_LINK.max_frame_bytes


# --- Frames ---


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    cuts=st.lists(st.integers(0, 260), max_size=8),
    end=st.sampled_from([b"", b"\0", b"\0\0\0\x28abc", b"\0\0\0\0", b"\0\0\0\x29"]),
)
def test_frames_however_they_were_cut(payloads: list[bytes], cuts: list[int], end: bytes) -> None:
    stream = b"".join(map(frame, payloads)) + end
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    frames = Frames(40)
    found, failed = [], False
    for begin, stop in pairwise(places):
        frames.receive(stream[begin:stop])
        try:
            while (data := frames.take()) is not None:
                found.append(data)
        except ContractError:
            failed = True
        assert frames.held_bytes < 44
    assert found == payloads
    assert failed == (len(end) == 4)
    if failed or end:
        with pytest.raises(ContractError):
            frames.take() if failed else frames.finish()
    else:
        frames.finish()


def test_a_broken_stream_stays_broken() -> None:
    frames = Frames(8)
    frames.receive(frame(b"first") + b"\xff\xff\xff\xff" + frame(b"later"))
    assert frames.take() == b"first"
    for _ in range(2):
        assert refused(frames.take) is Reason.TOO_LONG
        frames.receive(frame(b"later"))
        assert frames.held_bytes == 0
    ended = Frames(8)
    ended.receive(b"\0\0")
    assert refused(ended.finish) is Reason.TRUNCATED


def test_the_rest_is_for_somebody_else() -> None:
    frames = Frames(8)
    frames.receive(frame(b"ours") + b"theirs")
    assert (frames.take(), frames.rest(), frames.rest()) == (b"ours", b"theirs", b"")
    frames.finish()


def test_a_frame_of_a_message() -> None:
    frames = Frames(TO_CONTROLLER.max_frame_bytes)
    frames.receive(Codec(TO_CONTROLLER).encode_frame(DONE))
    data = frames.take()
    assert data is not None
    assert Codec(TO_CONTROLLER).decode(data) == DONE


# --- Versions ---


class Wheel(m.Part, frozen=True):
    size: m.Count
    worn: m.Ratio = 0.0


class Car(m.Message, frozen=True, tag="car"):
    wheels: tuple[Wheel, ...]
    gear: Literal["p", "d", "fly"]
    spare: Wheel | None = None
    colour: m.Text = ""


class Boat(m.Message, frozen=True, tag="boat"):
    length: m.Count


VEHICLES: Direction[Car | Boat] = Direction("vehicles", Car | Boat, 4096, 16)
NEWER: Since = {Boat: 2, (Car, "colour"): 2, (Car, "gear", "fly"): 2, (Wheel, "worn"): 2}
OLD, NEW = Codec(VEHICLES, 1, NEWER), Codec(VEHICLES, 2, NEWER)
BARE = {"t": "car", "gear": "d", "spare": None, "wheels": [{"size": 1}]}


def test_the_highest_version_in_common() -> None:
    assert choose_version((2, 1), (3, 2)) == 2
    assert choose_version((3, 2), (3, 2)) == 3
    assert choose_version(VERSIONS, VERSIONS) == VERSION
    assert refused(choose_version, (4, 3), (2, 1)) is Reason.VERSION
    assert refused(choose_version, (4, 3), ()) is Reason.VERSION


def test_newer_fields_are_left_out_and_refused() -> None:
    car = Car(wheels=(Wheel(1, 0.5), Wheel(2)), gear="d", spare=Wheel(3, 1.0), colour="red")
    assert NEW.decode(NEW.encode(car)) == car
    old = OLD.encode(car)
    assert msgpack.unpackb(old) == [
        1,
        {"t": "car", "gear": "d", "spare": {"size": 3}, "wheels": [{"size": 1}, {"size": 2}]},
    ]
    assert OLD.decode(old) == Car(wheels=(Wheel(1), Wheel(2)), gear="d", spare=Wheel(3))
    assert OLD.decode(envelope(BARE, 1)) == Car(wheels=(Wheel(1),), gear="d")
    for more in (
        {"colour": ""},
        {"wheels": [{"size": 1}, {"size": 1, "worn": 0.0}]},
        {"spare": {"size": 1, "worn": 1}},
    ):
        assert refused(OLD.decode, envelope({**BARE, **more}, 1)) is Reason.TOO_NEW
        NEW.decode(envelope({**BARE, **more}, 2))


def test_newer_messages_and_words() -> None:
    for newer in (Boat(1), Car(wheels=(), gear="fly")):
        assert refused(OLD.encode, newer) is Reason.TOO_NEW
        data = NEW.encode(newer)
        assert NEW.decode(data) == newer
        assert refused(OLD.decode, data) is Reason.VERSION
        assert refused(OLD.decode, b"\x92\x01" + data[2:]) is Reason.TOO_NEW


@given(car=any_of(Car), version=st.sampled_from([1, 2]))
def test_every_version_round_trips(car: Car, version: int) -> None:
    codec = Codec(VEHICLES, version, {**NEWER, (Car, "gear", "fly"): 1})
    data = codec.encode(car)
    assert codec.encode(codec.decode(data)) == data


@pytest.mark.parametrize("place", [(Car, "gear"), (Car, "no_such_field"), (Car, "nor_this", "word")])
def test_what_cannot_be_left_out(place: Any) -> None:
    with pytest.raises(ValueError, match="not a field with a default"):
        Codec(VEHICLES, 1, {place: 2})


def test_the_table_of_versions() -> None:
    """The entries in use name what there is, and every direction can be spoken in every version."""
    assert VERSIONS[0] == VERSION
    assert VERSIONS in {(VERSION,), (VERSION, VERSION - 1)}
    for place, came in SINCE.items():
        assert came in VERSIONS
        struct = place[0] if isinstance(place, tuple) else place
        assert getattr(m, struct.__name__) is struct
    for direction in DIRECTIONS:
        for version in VERSIONS:
            Codec(direction, version)


def test_version_1_knows_no_streams() -> None:
    """What a release that speaks 1 says is taken, and what it cannot read is not sent to it."""
    old, new = Codec(TO_CONTROLLER, 1), Codec(TO_CONTROLLER, 2)
    plain = m.Report(1, "serving", 0.1, 2, 3.0, 0.1, 0.0, 4)
    row = m.StreamReport((b"live",), "publisher", 2, 20, 1e5)
    full = msgspec.structs.replace(plain, tracks=2, streams=(row,), streams_more=1)
    assert old.decode(old.encode(full)) == plain and new.decode(new.encode(full)) == full
    assert refused(old.decode, b"\x92\x01" + new.encode(full)[2:]) is Reason.TOO_NEW
    asks = m.Question(1, "sessions", 10, "", after=5, namespace=(b"live",))
    assert Codec(TO_RELAY, 1).decode(Codec(TO_RELAY, 1).encode(asks)) == m.Question(1, "sessions", 10)
    assert refused(Codec(TO_RELAY, 1).encode, m.Question(1, "streams")) is Reason.TOO_NEW
    many = msgspec.structs.replace(full, streams=(row,) * (m.MAX_STREAMS + 1))
    assert refused(new.encode, many) is Reason.SHAPE


def test_a_report_takes_any_hop_id() -> None:
    origins = (m.Origin((b"live",), 2**62 - 1), m.Origin((b"shop",), 2**53 + 1))
    told = m.Report(1, "serving", 0.1, 1, 0.0, 0.0, 0.0, 1, origins=origins)
    codec = Codec(TO_CONTROLLER)
    assert codec.decode(codec.encode(told)) == told
    with pytest.raises(ContractError):
        codec.encode(m.Report(1, "serving", 0.1, 1, 0.0, 0.0, 0.0, 1, origins=(m.Origin((), 2**62),)))
