"""Anything at all that a peer can say, cut, changed or out of place, said to the inside of a relay.

What comes of it: an answer, or the draft's code for one session; never an exception, never a trace of it afterwards,
and two honest sessions on the same relay are none the wiser.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.core import BY_DRAFT, Core, Visitor
from tests.moqt.wire_values import datagrams, messages, subgroups
from tests.sim.tokens import token
from tradewind.moqt import messages as m
from tradewind.moqt.errors import SessionCode
from tradewind.moqt.fetched import encode_fetch_header
from tradewind.moqt.model import (
    NEXT_OBJECT,
    FilterKind,
    FullTrackName,
    Location,
    LocationFilter,
    ObjectHeader,
    Parameters,
    SubgroupHeader,
    Token,
)
from tradewind.moqt.objects import encode_datagram, encode_object_header, encode_subgroup_header
from tradewind.moqt.parameters import RawParameters
from tradewind.moqt.profiles import Profile

DRAFTS = (20, 22, 18, 16)
TRACK = FullTrackName((b"live", b"demo"), b"video")
RANGE = LocationFilter(FilterKind.ABSOLUTE, start=Location(0, 0), end_group=4, end_object=2)
OPENERS = (m.Subscribe, m.Publish, m.Fetch, m.TrackStatus, m.PublishNamespace, m.SubscribeNamespace, m.SubscribeTracks)


class Honest:
    """A publisher and a subscriber of one track, by hand."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.publisher, self.viewer = core.join(20), core.join(20)
        profile = self.publisher.profile
        offer = m.Publish(self.publisher.request_id(), TRACK, 5, RawParameters.of(Parameters(forward=True)), ())
        self.publisher.request(m.encode(profile, offer))
        asked = m.Subscribe(self.viewer.request_id(), TRACK, RawParameters())
        self.viewer.request(m.encode(profile, asked))
        self.group = 0

    def check(self) -> None:
        """An object still passes, byte for byte."""
        profile = self.publisher.profile
        payload = b"object of group %d" % self.group
        header = SubgroupHeader(5, self.group, 0, 128, has_properties=False)
        head = encode_object_header(profile, None, ObjectHeader(0, len(payload)), False)
        before = sum(payload in data for data in self.viewer.recorder.sent.values())
        self.publisher.uni(encode_subgroup_header(profile, header) + head + payload, fin=True)
        after = sum(payload in data for data in self.viewer.recorder.sent.values())
        assert (before, after) == (0, 1)
        assert self.publisher.closed is None
        assert self.viewer.closed is None
        self.group += 1


@pytest.fixture(scope="module")
def honest() -> Honest:
    return Honest(Core())


def samples(profile: Profile) -> list[m.Message]:
    """One of every request, with everything that it may carry."""
    rich = RawParameters.of(
        Parameters(
            tokens=(Token(0, token("", put=[""], get=[""]).encode()),),
            forward=True,
            priority=9,
            filter=NEXT_OBJECT,
            object_timeout_ms=50,
        )
    )
    found: list[m.Message] = [
        m.Subscribe(0, TRACK, rich),
        m.Publish(0, FullTrackName((b"mine",), b"x"), 9, rich, ((2, 5), (0x21, b"bytes"))),
        m.Fetch(0, TRACK, RANGE, rich),
        m.TrackStatus(0, TRACK, rich),
        m.PublishNamespace(0, (b"mine",), rich),
        m.SubscribeNamespace(0, (b"live",), rich, options=2),
    ]
    if profile.has(m.SubscribeTracks):
        found.append(m.SubscribeTracks(0, (b"live",), rich))
    return found


def encoded(profile: Profile) -> list[bytes]:
    return [m.encode(profile, message) for message in samples(profile)]


def gone(visitor: Visitor) -> None:
    """Nothing of a visitor is left in the relay."""
    core = visitor.core
    if visitor.attached:
        visitor.attachment.session.close(0, "")
        core.settle()
    assert not core.forwarder.requests(visitor.attachment.id)
    core.visitors.remove(visitor)


# --- Cut short, changed, doubled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["fin", "reset", "silence"])
@pytest.mark.parametrize("draft", DRAFTS)
def test_every_request_cut_at_every_byte(honest: Honest, draft: int, end: str) -> None:
    core = honest.core
    for number, data in enumerate(encoded(BY_DRAFT[draft])):
        own_stream = draft > 16 or isinstance(samples(BY_DRAFT[draft])[number], m.SubscribeNamespace)
        for cut in range(1, len(data)):
            visitor = core.join(draft)
            stream = visitor.bidi(data[:cut]) if own_stream else visitor.request(data[:cut])
            if end == "fin":
                visitor.more(stream, b"", fin=True)
                assert visitor.closed == SessionCode.PROTOCOL_VIOLATION
            elif end == "reset":
                visitor.reset(stream)
                assert visitor.closed == (None if own_stream else SessionCode.PROTOCOL_VIOLATION)
            else:
                assert visitor.closed is None
                visitor.more(stream, data[cut:])
                assert visitor.closed is None, "in two pieces it is the same message"
            gone(visitor)
    core.wait(5.0)
    honest.check()


@pytest.mark.parametrize("draft", [20, 16])
def test_every_request_with_every_byte_changed(honest: Honest, draft: int) -> None:
    core = honest.core
    codes = set(SessionCode)
    for data in encoded(BY_DRAFT[draft]):
        for position in range(len(data)):
            for change in (0x01, 0x80):
                visitor = core.join(draft)
                changed = bytearray(data)
                changed[position] ^= change
                visitor.request(bytes(changed))
                assert visitor.closed is None or visitor.closed in codes
                gone(visitor)
    core.wait(5.0)
    honest.check()


@pytest.mark.parametrize("draft", DRAFTS)
def test_bytes_after_a_message(honest: Honest, draft: int) -> None:
    """What is longer than it says, or says less than it is."""
    for data in encoded(BY_DRAFT[draft]):
        # The length is 16 bits behind the type, and every type here is one byte but two of draft 18 on.
        at = 2 if data[0] & 0x80 or (draft == 16 and data[0] & 0x40) else 1
        for difference in (-1, 1):
            visitor = honest.core.join(draft)
            length = int.from_bytes(data[at : at + 2], "big") + difference
            visitor.request(data[:at] + length.to_bytes(2, "big") + data[at + 2 :] + b"\x00" * 3)
            assert visitor.closed is not None
            gone(visitor)
    honest.check()


# --- At random --------------------------------------------------------------------------------------------------------


@given(data=st.data(), draft=st.sampled_from(DRAFTS))
@settings(max_examples=60, deadline=None)
def test_any_messages_in_any_order(data: st.DataObject, draft: int) -> None:
    honest = Honest(Core())
    visitor = honest.core.join(draft)
    profile = visitor.profile
    streams = [0]
    for _ in range(data.draw(st.integers(1, 12))):
        act = data.draw(st.sampled_from(["open", "open", "open", "say", "media", "datagram", "fetch", "end", "wait"]))
        if act == "open":
            streams.append(visitor.request(m.encode(profile, _opener(data, visitor))))
        elif act == "say":
            kind = data.draw(st.sampled_from(sorted(profile.by_class, key=lambda kind: kind.__name__)))
            visitor.more(data.draw(st.sampled_from(streams)), m.encode(profile, data.draw(messages(profile, kind))))
        elif act == "media":
            streams.append(visitor.uni(_subgroup(data, profile), data.draw(st.booleans())))
        elif act == "datagram":
            found = data.draw(datagrams(profile))
            visitor.datagram(encode_datagram(profile, found) + found.payload)
        elif act == "fetch":
            streams.append(visitor.uni(encode_fetch_header(profile, data.draw(st.integers(0, 9)))))
        elif act == "end":
            stream = data.draw(st.sampled_from(streams))
            data.draw(st.sampled_from([visitor.reset, visitor.stop]))(stream)
        else:
            honest.core.wait(data.draw(st.sampled_from([0.1, 1.1, 6.0])))
        if not visitor.attached:
            break
    honest.check()
    gone(visitor)
    honest.core.wait(10.0)
    honest.core.wait(60.0)
    assert honest.core.forwarder.statistics().tracks == 1
    honest.check()


def _opener(data: st.DataObject, visitor: Visitor) -> m.Message:
    """A request that the relay takes for one: its id is right, its names are often somebody's."""
    profile = visitor.profile
    kind = data.draw(st.sampled_from([kind for kind in OPENERS if profile.has(kind)]))
    message: Any = data.draw(messages(profile, kind))
    message = replace(message, request=visitor.request_id())
    if data.draw(st.booleans()):
        if hasattr(message, "track") and message.track is not None:
            message = replace(message, track=TRACK)
        elif hasattr(message, "namespace"):
            message = replace(message, namespace=TRACK.namespace)
        elif hasattr(message, "prefix"):
            message = replace(message, prefix=TRACK.namespace[:1])
    found: m.Message = message
    return found


def _subgroup(data: st.DataObject, profile: Profile) -> bytes:
    header, objects = data.draw(subgroups(profile))
    if data.draw(st.booleans()):
        header = replace(header, alias=data.draw(st.integers(0, 9)))
    parts, previous = [encode_subgroup_header(profile, header)], None
    for fields, payload in objects:
        parts += (encode_object_header(profile, previous, fields, header.has_properties), payload)
        previous = fields.id
    return b"".join(parts)


@given(chunks=st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=60), st.booleans()), max_size=12),
       draft=st.sampled_from(DRAFTS))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_noise(chunks: list[tuple[int, bytes, bool]], draft: int) -> None:
    honest = Honest(Core())
    visitor = honest.core.join(draft)
    ended: set[int] = set()
    for number, data, fin in chunks:
        stream = (0, 4, 8, 12, 6, 10, 14, 18, 1, 5)[number]
        if stream not in ended and visitor.attached:
            visitor.more(stream, data, fin)
            ended |= {stream} if fin else set()
    honest.check()
    gone(visitor)
