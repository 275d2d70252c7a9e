"""A peer past SETUP and SUBSCRIBE_OK, and its data streams and datagrams as bytes."""

from __future__ import annotations

from typing import Any

from tests.moqt.pair import Peer, made, subgroup_bytes
from tradewind.moqt import events as e
from tradewind.moqt import messages as m
from tradewind.moqt.errors import ResetCode
from tradewind.moqt.fetched import FetchEncoder, encode_fetch_header
from tradewind.moqt.model import DatagramObject, FetchObject, FullTrackName, GroupOrder, ObjectHeader, SubgroupHeader
from tradewind.moqt.objects import encode_datagram
from tradewind.moqt.parameters import SetupOptions

TRACK = FullTrackName((b"live", b"demo"), b"video")
OTHER = FullTrackName((b"live", b"demo"), b"audio")
SETUP = SetupOptions()
CANCELLED = ResetCode.CANCELLED
OPENED = ["SubgroupOpened", "ObjectStarted", "ObjectData"]


def peer(draft: int = 20, **options: Any) -> Peer:
    return Peer(draft, setup=SETUP, **options)


def subscribed(draft: int = 20, alias: int = 5, **options: Any) -> Peer:
    """A session under test with an accepted subscription."""
    there = peer(draft, **options)
    number = made(there.session.subscribe(TRACK))
    assert number == 1
    there.say(1 if draft >= 17 else there.control, m.SubscribeOk(alias, request=number))
    there.side.take()
    there.heard()
    return there


def subgroup(there: Peer, alias: int, group: int = 0, count: int = 1, **header: object) -> bytes:
    fields = SubgroupHeader(alias, group, 0, 128, has_properties=False)
    return subgroup_bytes(there.profile, fields, [(ObjectHeader(n, 3), b"abc") for n in range(count)])


def fetched(there: Peer, request: int, *objects: tuple[int, int], order: GroupOrder = GroupOrder.ASCENDING) -> bytes:
    encoder = FetchEncoder(there.profile, order)
    parts = [encode_fetch_header(there.profile, request)]
    for group, number in objects:
        parts += (encoder.object(FetchObject(group, 0, ObjectHeader(number, 2), 128)), b"xy")
    return b"".join(parts)


def datagram(there: Peer, alias: int, payload: bytes = b"abc") -> bytes:
    fields = DatagramObject(alias, 1, ObjectHeader(2, len(payload)), 128, False, payload)
    return encode_datagram(there.profile, fields) + payload


def names(events: list[e.Event]) -> list[str]:
    return [type(event).__name__ for event in events]
