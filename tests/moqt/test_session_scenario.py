"""One scenario from announcement to GOAWAY: the same events on every draft, and however the bytes are cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.moqt.pair import DRAFTS, Pair, made, send_datagram, send_fetch, send_subgroup
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode
from tradewind.moqt.model import (
    NEXT_OBJECT,
    FilterKind,
    FullTrackName,
    Location,
    LocationFilter,
    Parameters,
)

NAMESPACE = (b"live", b"demo")
TRACK = FullTrackName(NAMESPACE, b"video")
OTHER = FullTrackName(NAMESPACE, b"audio")
RANGE = LocationFilter(FilterKind.ABSOLUTE, start=Location(2, 0), end_group=3, end_object=1)


@dataclass(slots=True)
class Told:
    """What both sides heard."""

    client: list[e.Event]
    server: list[e.Event]


def play(draft: int, split: int = 0) -> Told:
    """A client that publishes and a server that subscribes, and the other way round for discovery."""
    pair = Pair(draft, split=split)
    client, server = pair.client, pair.server
    told = Told([], [])

    def hear() -> None:
        pair.run()
        mine, theirs = pair.take()
        told.client += mine
        told.server += theirs

    discovery = made(client.session.subscribe_namespace((b"live",)))
    hear()
    server.session.accept(discovery)
    server.session.notify_namespace(discovery, NAMESPACE)
    hear()
    announced = made(client.session.publish_namespace(NAMESPACE))
    hear()
    server.session.accept(announced)
    subscription = made(server.session.subscribe(TRACK, Parameters(filter=NEXT_OBJECT, priority=3, forward=True)))
    refused = made(server.session.subscribe(OTHER))
    hear()
    client.session.accept_subscribe(
        subscription, 1, Parameters(largest=Location(3, 1), expires_ms=5000), ((0x0E, 90), (0x22, 2))
    )
    client.session.reject(refused, RequestCode.DOES_NOT_EXIST, "no such track", 250)
    send_subgroup(client, 1, 4, [b"key", b"", b"delta" * 100])
    send_datagram(client, 1, Location(4, 7), b"datagram")
    hear()
    update = made(server.session.update(subscription, Parameters(forward=False)))
    hear()
    client.session.accept_update(subscription, update, Parameters(largest=Location(4, 2)))
    fetch = made(server.session.fetch(TRACK, RANGE, Parameters(priority=9)))
    hear()
    client.session.accept_fetch(fetch, Location(3, 1), False)
    send_fetch(client, fetch, [(Location(2, 0), b"a"), (Location(2, 1), b""), (Location(3, 1), b"bcd")])
    hear()
    client.session.finish(fetch)
    status = made(server.session.track_status(TRACK))
    hear()
    client.session.accept(status, Parameters(largest=Location(4, 2)))
    published = made(client.session.publish(OTHER, 2, Parameters(forward=True), ((0x0E, 10),)))
    send_subgroup(client, 2, 0, [b"early"])
    hear()
    server.session.accept(published)
    hear()
    client.session.publish_done(published, DoneCode.TRACK_ENDED, 1, "over")
    client.session.publish_done(subscription, DoneCode.GOING_AWAY, 1, "moving")
    server.session.withdraw_namespace(discovery, NAMESPACE)
    hear()
    client.session.cancel(announced)
    client.session.cancel(discovery)
    server.session.goaway("moqt://elsewhere.example/live")
    hear()
    assert client.transport.closed is None and server.transport.closed is None
    assert client.session.statistics().requests_ours == server.session.statistics().requests_ours == 0
    assert client.session.statistics().requests_theirs == server.session.statistics().requests_theirs == 0
    return told


def test_scenario_tells_what_happened() -> None:
    told = play(20)
    client = [type(event).__name__ for event in told.client]
    server = [type(event).__name__ for event in told.server]
    assert client == [
        "SetupReceived",
        "RequestAccepted",
        "NamespaceFound",
        "RequestAccepted",
        "SubscribeRequested",
        "SubscribeRequested",
        "UpdateRequested",
        "FetchRequested",
        "TrackStatusRequested",
        "RequestAccepted",
        "NamespaceGone",
        "GoawayReceived",
    ]
    assert server == [
        "SetupReceived",
        "SubscribeNamespaceRequested",
        "PublishNamespaceRequested",
        "SubscribeAccepted",
        "RequestRefused",
        "SubgroupOpened",
        *["ObjectStarted", "ObjectData", "ObjectStarted", "ObjectStarted", "ObjectData"],
        "SubgroupClosed",
        "DatagramArrived",
        "UpdateAccepted",
        "FetchAccepted",
        "FetchOpened",
        *["FetchObjectStarted", "ObjectData", "FetchObjectStarted", "FetchObjectStarted", "ObjectData"],
        "FetchClosed",
        "RequestAccepted",
        "PublishRequested",
        *["SubgroupOpened", "ObjectStarted", "ObjectData", "SubgroupClosed"],
        "PublishDone",
        "PublishDone",
        "RequestCancelled",
        "RequestCancelled",
    ]


@pytest.mark.parametrize("draft", [draft for draft in DRAFTS if draft != 20])
def test_every_draft_tells_the_same(draft: int) -> None:
    there, reference = play(draft), play(20)
    assert there.client == reference.client
    assert renumbered(there.server) == renumbered(reference.server)


def renumbered(events: list[e.Event]) -> list[e.Event]:
    """Streams numbered as they appear: draft 16 has one unidirectional stream less."""
    numbers: dict[int, int] = {}
    result: list[Any] = list(events)
    for place, event in enumerate(result):
        if hasattr(event, "stream"):
            result[place] = replace(event, stream=numbers.setdefault(event.stream, len(numbers)))
    return result


def joined(events: list[e.Event]) -> list[e.Event]:
    """Payload pieces of one object put together: how they were cut is no difference."""
    result: list[e.Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, e.ObjectData) and isinstance(last, e.ObjectData) and not last.last:
            assert last.stream == event.stream
            result[-1] = e.ObjectData(event.stream, last.data + event.data, event.last)
        else:
            result.append(event)
    return result


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("split", [1, 2, 7])
def test_any_cut_tells_the_same(draft: int, split: int) -> None:
    there, reference = play(draft, split), play(draft)
    assert joined(there.client) == joined(reference.client)
    assert joined(there.server) == joined(reference.server)


@given(split=st.integers(1, 200), draft=st.sampled_from(DRAFTS))
@settings(max_examples=15, deadline=None)
def test_any_cut_of_any_size_tells_the_same(split: int, draft: int) -> None:
    assert joined(play(draft, split).server) == joined(play(draft).server)
