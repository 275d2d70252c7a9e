"""One session life, from SETUP to objects, in both roles and on every draft."""

from __future__ import annotations

import pytest

from tests.moqt.pair import DRAFTS, Pair, made, send_subgroup
from tradewind.moqt.events import (
    ObjectData,
    ObjectStarted,
    SetupReceived,
    SubgroupClosed,
    SubgroupOpened,
    SubscribeAccepted,
    SubscribeRequested,
)
from tradewind.moqt.model import NO_PARAMETERS, FullTrackName, ObjectHeader, Parameters, SubgroupHeader

TRACK = FullTrackName((b"live", b"demo"), b"video")


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("publisher_is_server", [False, True])
def test_from_subscribe_to_object(draft: int, publisher_is_server: bool) -> None:
    pair = Pair(draft)
    assert pair.take() == (
        [SetupReceived("", "", (), "pair")],
        [SetupReceived("relay.example:4443", "/live", (), "")],
    )
    subscriber, publisher = (pair.client, pair.server) if publisher_is_server else (pair.server, pair.client)
    request = made(subscriber.session.subscribe(TRACK, Parameters(forward=True, priority=7)))
    assert request is not None
    pair.run()
    assert publisher.take() == [SubscribeRequested(request, TRACK, Parameters(forward=True, priority=7))]
    publisher.session.accept_subscribe(request, 5)
    stream = send_subgroup(publisher, 5, 9, [b"key frame", b"delta"])
    pair.run()
    assert subscriber.take() == [
        SubscribeAccepted(request, 5, NO_PARAMETERS, ()),
        SubgroupOpened(stream, (request,), SubgroupHeader(5, 9, 0, 128, has_properties=False)),
        ObjectStarted(stream, ObjectHeader(0, 9)),
        ObjectData(stream, b"key frame", True),
        ObjectStarted(stream, ObjectHeader(1, 5)),
        ObjectData(stream, b"delta", True),
        SubgroupClosed(stream, None),
    ]
    assert pair.client.transport.closed is None and pair.server.transport.closed is None
