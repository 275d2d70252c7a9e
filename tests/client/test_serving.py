"""What a relay gets from a publisher of ours, on every draft, whatever its connection takes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.joined import NAMESPACE, VIDEO, Joined, fill, payload
from tests.moqt.pair import DRAFTS
from tradewind.client.receiving import GroupEnded, InOrder, ReceivedObject
from tradewind.client.tracks import Publication, Retention, TrackWriter
from tradewind.moqt import events as e
from tradewind.moqt.errors import DoneCode, RequestCode, ResetCode
from tradewind.moqt.model import (
    CURRENT_GROUP,
    NEXT_GROUP,
    NEXT_OBJECT,
    NO_PARAMETERS,
    Fill,
    FilterKind,
    FullTrackName,
    GroupOrder,
    Location,
    LocationFilter,
    Parameters,
)

every_draft = pytest.mark.parametrize("draft", DRAFTS)
with_fills = pytest.mark.parametrize("draft", [draft for draft in DRAFTS if draft >= 20])
with_joining = pytest.mark.parametrize("draft", [draft for draft in DRAFTS if draft < 20])


def absolute(start: tuple[int, int], end: tuple[int, int] | None = None) -> LocationFilter:
    if end is None:
        return LocationFilter(FilterKind.ABSOLUTE, start=Location(*start))
    return LocationFilter(FilterKind.ABSOLUTE, start=Location(*start), end_group=end[0], end_object=end[1])


def group(number: int, count: int, start: int = 0, size: int = 10) -> list[tuple[Location, bytes]]:
    return [(Location(number, n), payload(number, n, size)) for n in range(start, count)]


# --- Subscriptions ------------------------------------------------------------------------------------------------


@every_draft
def test_objects_go_out_as_they_are_written(draft: int) -> None:
    world = Joined(draft)
    track = world.track(priority=7)
    request = world.subscribe(filter=NEXT_OBJECT)
    accepted = world.last(e.SubscribeAccepted)
    assert isinstance(accepted, e.SubscribeAccepted)
    assert accepted.properties == ((0x0E, 7),)
    assert accepted.parameters.largest is None
    for number in range(3):
        track.write(5, number, payload(5, number))
        world.run()
        assert world.objects(request) == group(5, number + 1)
    fill(track, 6, 2)
    world.run()
    assert world.objects(request) == group(5, 3) + group(6, 2)
    assert GroupEnded(5) in world.arrivals[request]
    assert GroupEnded(6) not in world.arrivals[request]
    assert len(world.egress.opened) == 2


@every_draft
def test_a_late_subscription_begins_with_the_next_object(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    fill(track, 5, 3)
    request = world.subscribe(filter=NEXT_OBJECT)
    accepted = world.last(e.SubscribeAccepted)
    assert isinstance(accepted, e.SubscribeAccepted)
    assert accepted.parameters.largest == Location(5, 2)
    assert world.objects(request) == []
    track.write(5, 3, payload(5, 3))
    world.run()
    assert world.objects(request) == group(5, 4, start=3)
    opened = world.last(e.SubgroupOpened)
    assert isinstance(opened, e.SubgroupOpened)
    assert not opened.header.first_object


@every_draft
def test_next_group_waits_for_it(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    fill(track, 5, 3)
    request = world.subscribe(filter=NEXT_GROUP)
    track.write(5, 3, payload(5, 3))
    fill(track, 9, 1)
    world.run()
    assert world.objects(request) == group(9, 1)


@with_fills
def test_the_current_group_as_a_fill(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    fill(track, 4, 3)
    fill(track, 5, 3)
    request = world.subscribe(filter=NEXT_OBJECT, fill=Fill(filter=CURRENT_GROUP))
    track.write(5, 3, payload(5, 3))
    world.run()
    assert sorted(world.objects(request)) == group(5, 4)
    closed = world.last(e.FetchClosed)
    assert isinstance(closed, e.FetchClosed)
    assert closed.code is None


@with_fills
def test_a_fill_of_a_track_without_objects_opens_no_stream(draft: int) -> None:
    world = Joined(draft)
    world.track()
    world.subscribe(filter=NEXT_OBJECT, fill=Fill(filter=CURRENT_GROUP))
    assert world.egress.opened == []


@with_joining
def test_the_current_group_as_a_joining_fetch(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    fill(track, 4, 3)
    fill(track, 5, 3)
    request = world.subscribe(filter=NEXT_OBJECT)
    # What comes between the two belongs to the subscription, not to the fetch.
    track.write(5, 3, payload(5, 3))
    joining = world.pair.server.session.fetch(VIDEO, NEXT_OBJECT, NO_PARAMETERS, joining=request, joining_groups=1)
    assert joining is not None
    world.run()
    assert world.objects(joining) == group(4, 3) + group(5, 3)
    assert world.objects(request) == group(5, 4, start=3)


@every_draft
def test_unknown_tracks_are_refused(draft: int) -> None:
    world = Joined(draft)
    world.track()
    for name in (FullTrackName(NAMESPACE, b"nothing"), FullTrackName((b"elsewhere",), b"video")):
        world.subscribe(name)
        refused = world.last(e.RequestRefused)
        assert isinstance(refused, e.RequestRefused)
        assert refused.code == RequestCode.DOES_NOT_EXIST
    world.pair.server.session.track_status(VIDEO)
    world.run()
    assert isinstance(world.told[-1], e.RequestAccepted)


@every_draft
def test_the_end_of_a_track(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    request = world.subscribe(filter=NEXT_OBJECT)
    fill(track, 5, 2)
    fill(track, 6, 2)
    track.finish()
    world.run()
    done = world.last(e.PublishDone)
    assert isinstance(done, e.PublishDone)
    assert (done.request, done.status, done.stream_count) == (request, DoneCode.TRACK_ENDED, 2)
    assert world.objects(request) == group(5, 2) + group(6, 2)
    assert world.serving.statistics().subscriptions == 0


@every_draft
def test_a_cancelled_subscription_is_reset(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    request = world.subscribe(filter=NEXT_OBJECT)
    fill(track, 5, 2)
    world.run()
    world.pair.server.session.cancel(request)
    world.run()
    assert [stream for stream, _ in world.egress.resets] == world.egress.opened
    fill(track, 6, 2)
    world.run()
    assert len(world.egress.opened) == 1


@every_draft
def test_a_stopped_stream_is_not_opened_again(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    request = world.subscribe(filter=NEXT_OBJECT)
    fill(track, 5, 2)
    world.run()
    (stream,) = world.egress.opened
    world.pair.client.transport.reset(stream, 0)
    world.serving.stopped(stream)
    track.write(5, 2, payload(5, 2))
    fill(track, 6, 1)
    world.run()
    assert world.objects(request) == group(5, 2) + group(6, 1)


@every_draft
def test_forward_off_and_on(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    request = world.subscribe(filter=NEXT_OBJECT)
    fill(track, 5, 1)
    world.run()

    def forward(on: bool) -> None:
        assert world.pair.server.session.update(request, Parameters(forward=on)) is not None
        world.run()

    forward(False)
    assert len(world.egress.resets) == 1
    track.write(5, 1, payload(5, 1))
    world.run()
    forward(True)
    track.write(5, 2, payload(5, 2))
    world.run()
    assert world.objects(request) == [*group(5, 1), *group(5, 3, start=2)]


@with_fills
def test_an_update_may_ask_for_a_fill(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    fill(track, 4, 2)
    request = world.subscribe(filter=NEXT_OBJECT)
    world.pair.server.session.update(request, Parameters(fill=Fill(filter=CURRENT_GROUP)))
    world.run()
    assert world.objects(request) == group(4, 2)


@every_draft
def test_namespaces_are_told_to_whoever_asks(draft: int) -> None:
    world = Joined(draft)
    world.pair.server.session.subscribe_namespace((b"live",))
    world.run()
    found = world.last(e.NamespaceFound)
    assert isinstance(found, e.NamespaceFound)
    assert found.namespace == NAMESPACE
    world.serving.announce((b"live", b"other"))
    world.serving.announce((b"dead",))
    world.run()
    assert [event.namespace for event in world.told if isinstance(event, e.NamespaceFound)] == [
        NAMESPACE, (b"live", b"other"),
    ]  # fmt: skip


# --- Fetches ------------------------------------------------------------------------------------------------------


def fetch(world: Joined, chosen: LocationFilter, **parameters: object) -> int:
    request = world.pair.server.session.fetch(VIDEO, chosen, Parameters(**parameters))  # type: ignore[arg-type]
    assert request is not None
    world.run()
    return request


@every_draft
def test_a_fetch_of_what_is_kept(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    for number in (3, 4, 5):
        fill(track, number, 3)
    request = fetch(world, absolute((3, 1), (5, 0)))
    assert world.objects(request) == [*group(3, 3, start=1), *group(4, 3), *group(5, 1)]
    accepted = world.last(e.FetchAccepted)
    assert isinstance(accepted, e.FetchAccepted)
    assert (accepted.end, accepted.end_of_track) == (Location(5, 0), False)
    newest_first = fetch(world, absolute((3, 0), (5, 9)), order=GroupOrder.DESCENDING)
    assert world.objects(newest_first) == group(5, 3) + group(4, 3) + group(3, 3)


@every_draft
def test_a_fetch_beyond_the_end_is_ended_there_or_refused(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    assert isinstance((fetch(world, absolute((0, 0), (1, 0))), world.told[-1])[1], e.RequestRefused)
    fill(track, 5, 2)
    track.finish()
    fetch(world, absolute((5, 0), (99, 9)))
    accepted = world.last(e.FetchAccepted)
    assert isinstance(accepted, e.FetchAccepted)
    assert (accepted.end, accepted.end_of_track) == (Location(5, 1), True)
    fetch(world, absolute((6, 0), (7, 0)))
    refused = world.last(e.RequestRefused)
    assert isinstance(refused, e.RequestRefused)
    assert refused.code == RequestCode.INVALID_RANGE


@every_draft
def test_what_was_forgotten_is_unknown_not_absent(draft: int) -> None:
    world = Joined(draft)
    track = world.publication.track(b"video", retention=Retention(groups=2))
    for number in range(5):
        fill(track, number, 2)
    request = fetch(world, absolute((1, 0), (4, 1)))
    ended = world.last(e.FetchRangeEnded)
    assert isinstance(ended, e.FetchRangeEnded)
    assert ended.kind.name == "UNKNOWN"
    assert ended.location.group == 2
    assert world.objects(request) == group(3, 2) + group(4, 2)


# --- Credit -------------------------------------------------------------------------------------------------------


def test_a_slow_relay_skips_to_the_newest_group() -> None:
    world = Joined()
    track = world.track()
    request = world.subscribe(filter=NEXT_OBJECT)
    world.egress.session_bytes = 25
    fill(track, 1, 4)
    world.run()
    came = world.objects(request)
    fill(track, 2, 4)
    world.run()
    assert world.egress.resets == []
    fill(track, 3, 4)
    world.run()
    assert world.egress.resets == [(world.egress.opened[0], ResetCode.TOO_FAR_BEHIND)]
    world.egress.session_bytes = 1 << 20
    world.run()
    assert world.objects(request) == came + group(3, 4)
    assert world.serving.statistics().groups_skipped == 2


def test_the_urgent_track_goes_first() -> None:
    world = Joined()
    slow, urgent = world.track(b"slow", priority=200), world.track(b"urgent", priority=1)
    requests = [world.subscribe(FullTrackName(NAMESPACE, name), filter=NEXT_OBJECT) for name in (b"slow", b"urgent")]
    world.egress.session_bytes = 0
    fill(slow, 1, 3, size=100)
    fill(urgent, 1, 3, size=100)
    world.run()
    world.egress.session_bytes = 310
    world.run()
    assert [len(world.objects(request)) for request in requests] == [0, 3]
    # What the subscriber asks for counts before what the publisher thinks.
    world.pair.server.session.update(requests[0], Parameters(priority=0))
    world.run()
    fill(urgent, 2, 3, size=100)
    world.egress.session_bytes = 310
    world.run()
    assert [len(world.objects(request)) for request in requests] == [3, 3]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 40)),
        st.tuples(st.just("group"), st.integers(1, 3)),
        st.tuples(st.just("bytes"), st.integers(1, 120)),
        st.tuples(st.just("streams"), st.integers(1, 2)),
        st.tuples(st.just("room"), st.integers(0, 60)),
    ),
    max_size=60,
)


@given(steps, st.sampled_from(DRAFTS))
@settings(max_examples=60)
def test_whatever_credit_comes_nothing_is_reordered_torn_or_invented(plan: list[tuple[str, int]], draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    request = world.subscribe(filter=NEXT_OBJECT)
    world.egress.session_bytes = world.egress.streams = 0
    written: dict[Location, bytes] = {}
    at = Location(1, 0)
    for what, amount in plan:
        if what == "write":
            data = payload(at.group, at.object, amount)
            track.write(at.group, at.object, data)
            written[at] = data
            at = Location(at.group, at.object + 1)
        elif what == "group":
            at = Location(at.group + amount, 0)
        elif what == "bytes":
            world.egress.session_bytes = max(0, world.egress.session_bytes) + amount
        elif what == "streams":
            world.egress.streams += amount
        else:
            world.egress.stream_bytes = amount
        world.run()
        track.check_invariants()
    world.egress.session_bytes = world.egress.streams = world.egress.stream_bytes = 1 << 30
    world.run()
    came = world.objects(request)
    assert [location for location, _ in came] == sorted({location for location, _ in came})
    assert all(written[location] == data for location, data in came)
    # The newest group is whole whatever happened before.
    newest = [location for location in written if location.group == at.group]
    assert [location for location, _ in came if location.group == at.group] == newest
    skipped = world.serving.statistics().groups_skipped
    assert skipped or {location for location, _ in came} == set(written)


# --- Tracks -------------------------------------------------------------------------------------------------------


def test_locations_only_grow() -> None:
    writes = 0

    def written() -> None:
        nonlocal writes
        writes += 1

    track = TrackWriter(VIDEO, written, retention=Retention(groups=3, total_bytes=50, group_bytes=40))
    fill(track, 3, 2)
    for where in ((3, 1), (2, 9)):
        with pytest.raises(ValueError, match="after"):
            track.write(*where, b"x")
    with pytest.raises(ValueError, match="after"):
        track.write(4, 0, b"")
    for number in range(4, 9):
        fill(track, number, 2)
        track.check_invariants()
    assert track.oldest() == (7, 0)
    with pytest.raises(ValueError, match="larger than"):
        track.write(8, 9, bytes(30))
    track.finish()
    with pytest.raises(ValueError, match="ended"):
        track.write(10, 0, b"x")
    assert writes == 14


def test_one_track_a_name() -> None:
    publication = Publication(NAMESPACE, lambda: None)
    publication.track(b"a")
    with pytest.raises(ValueError, match="already"):
        publication.track(b"a")


# --- In order -----------------------------------------------------------------------------------------------------


@given(st.permutations(range(12)), st.lists(st.booleans(), min_size=12, max_size=12))
def test_in_order_whatever_overtakes(order: list[int], twice: list[bool]) -> None:
    things = [ReceivedObject(Location(n // 4, n % 4), bytes([n]), received=1.0) for n in range(12)]
    sorter = InOrder(patience_s=1.0)
    out: list[ReceivedObject] = []
    for index, number in enumerate(order):
        sorter.receive(things[number])
        if twice[index]:
            sorter.receive(things[number])
        mates = {n for n in range(12) if n // 4 == number // 4}
        if mates <= set(order[: index + 1]):
            sorter.receive(GroupEnded(number // 4))
        out += sorter.ready(1.0)
        sorter.check_invariants()
    # Only a first group that was not the oldest keeps older ones out: nobody knew that they would come.
    numbers = [thing.payload[0] for thing in out]
    assert numbers == list(range(numbers[0], 12))
    assert numbers[0] % 4 == 0
    assert sorter.gaps == 0
    assert sorter.next_deadline() is None


def arrive(sorter: InOrder, *locations: tuple[int, int], at: float = 0.0) -> None:
    for location in locations:
        sorter.receive(ReceivedObject(Location(*location), b"x", received=at))


def test_a_gap_is_waited_for_and_then_counted() -> None:
    sorter = InOrder(patience_s=1.0)
    arrive(sorter, (1, 0), (1, 2))
    assert [item.location for item in sorter.ready(0.5)] == [(1, 0)]
    assert sorter.next_deadline() == 1.0
    assert [item.location for item in sorter.ready(1.0)] == [(1, 2)]
    arrive(sorter, (1, 1), (3, 0), at=2.0)
    assert sorter.duplicates == 1
    assert sorter.ready(2.5) == []
    assert [item.location for item in sorter.flush()] == [(3, 0)]
    assert sorter.gaps == 2


def test_a_group_without_its_start_is_left_out() -> None:
    sorter = InOrder(patience_s=1.0)
    arrive(sorter, (1, 5), (1, 6))
    assert sorter.ready(0.5) == []
    arrive(sorter, (2, 0), at=0.6)
    assert [item.location for item in sorter.ready(1.0)] == [(2, 0)]
    assert sorter.gaps == 0


@every_draft
def test_what_a_track_has_forgotten_nobody_gets(draft: int) -> None:
    world = Joined(draft)
    track = world.track()
    fill(track, 5, 3)
    track.forget()
    track.check_invariants()
    request = world.subscribe(filter=NEXT_OBJECT)
    world.run()
    assert world.objects(request) == []
    fill(track, 6, 2)
    world.run()
    assert world.objects(request) == group(6, 2)
