"""The Rust client in PyPI's `moq-rs` publishes fragmented MP4 through our relay and another one plays it."""

from __future__ import annotations

import itertools

import pytest

from tests.interop import clip
from tests.interop.clip import Frame
from tests.interop.conftest import Between, Meshes
from tests.interop.ends import Ends
from tests.interop.peer_process import PeerProcess, Words
from tests.interop.relay_process import ALL_ACROSS, STAND_IN

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("moq_rs")]

GROUPS, FRAMES_A_GROUP = 10, 12
DRAFTS = (20, 16)
TRANSPORTS = ("quic", "webtransport")
BETWEEN = [
    *(("one relay", draft) for draft in DRAFTS),
    *(("two relays", draft) for draft in (DRAFTS if ALL_ACROSS else DRAFTS[:1])),
]
at_one_and_two = pytest.mark.parametrize(("between", "draft"), BETWEEN, indirect=["between"])
_names = itertools.count()


@pytest.fixture
def path() -> str:
    """A broadcast of the test's own, so that tests share a relay."""
    return f"live/show-{next(_names)}"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("draft", DRAFTS)
def test_every_frame_arrives_in_order(between: Between, path: str, draft: int, transport: str) -> None:
    ends = between(draft)
    to, at = ends.publishing.url(transport), ends.playing.url(transport)
    with publisher(to, path, 0, GROUPS) as publishes, subscriber(at, path) as plays:
        plays.wait_for(lambda words: "subscribed" in words)
        publishes.order("write")
        publishes.order("close")
        plays.wait_for(lambda words: "ended" in words)
        assert received(plays, life=0) == sent(clip.frames(0, GROUPS, FRAMES_A_GROUP))
    ends.assert_crossed()


@at_one_and_two
def test_a_late_subscriber_begins_with_the_current_group(between: Between, path: str, draft: int) -> None:
    ends = between(draft)
    to, at = ends.publishing.url("quic"), ends.playing.url("quic")
    with publisher(to, path, 0, GROUPS) as publishes, subscriber(at, path) as first:
        first.wait_for(lambda words: "subscribed" in words)
        publishes.order("partial")
        expected = clip.frames(0, GROUPS, FRAMES_A_GROUP)
        stopped_at = publishes.wait_for(lambda words: "written" in words)["written"]
        first.wait_for(lambda words: words.get("sha256") == expected[stopped_at - 2].digest)
        with subscriber(at, path) as late:
            group_begin = stopped_at // FRAMES_A_GROUP * FRAMES_A_GROUP
            assert group_begin < stopped_at - 2, "the publisher stopped inside a group"
            # The picture is there before the publisher writes another byte.
            late.wait_for(lambda words: words.get("sha256") == expected[group_begin].digest)
            publishes.order("write")
            publishes.order("close")
            late.wait_for(lambda words: "ended" in words)
            assert received(late, life=0) == sent(expected[group_begin:])
        first.wait_for(lambda words: "ended" in words)
        assert received(first, life=0) == sent(expected)
    ends.assert_crossed()


@pytest.mark.parametrize("ending", ["drop", "kill"])
@at_one_and_two
def test_a_publisher_that_comes_back_goes_on(between: Between, path: str, draft: int, ending: str) -> None:
    ends = between(draft)
    to, at = ends.publishing.url("quic"), ends.playing.url("quic")
    expected = clip.frames(0, 2 * GROUPS, FRAMES_A_GROUP)
    with subscriber(at, path) as plays:
        with publisher(to, path, 0, GROUPS) as publishes:
            plays.wait_for(lambda words: "subscribed" in words)
            write_but_the_last_frame(publishes, plays, expected)
            if ending == "kill":
                publishes.kill()
            else:
                publishes.order("drop")
                publishes.wait_for(lambda words: "dropped" in words)
        with publisher(to, path, GROUPS, GROUPS) as publishes:
            write_to_the_end(publishes, plays, expected)
        assert_nothing_lost_but_in_flight(plays, expected)
    ends.assert_crossed()


@pytest.mark.skipif(STAND_IN, reason="the stand-in has no setting for it")
@at_one_and_two
def test_the_end_of_a_publishers_dead_session_ends_nothing(between: Between, path: str, draft: int) -> None:
    ends = between(draft, flags=("--quic.idle_timeout_s", "2s"))
    to, at = ends.publishing.url("quic"), ends.playing.url("quic")
    expected = clip.frames(0, 2 * GROUPS, FRAMES_A_GROUP)
    with subscriber(at, path) as plays:
        with publisher(to, path, 0, GROUPS) as publishes:
            plays.wait_for(lambda words: "subscribed" in words)
            write_but_the_last_frame(publishes, plays, expected)
            publishes.kill()
        with publisher(to, path, GROUPS, GROUPS) as publishes:
            publishes.order("partial")
            publishes.wait_for(lambda words: "written" in words)
            # Only now does the relay find out that the first publisher is gone.
            ends.publishing.wait_for_log("Idle timeout")
            write_to_the_end(publishes, plays, expected)
        lives = {words["life"] for words in plays.heard if "sha256" in words}
        assert lives == {0}
    ends.assert_crossed()


@at_one_and_two
def test_a_new_subscriber_is_served_by_the_publisher_that_lives(between: Between, path: str, draft: int) -> None:
    ends = between(draft)
    to, at = ends.publishing.url("quic"), ends.playing.url("quic")
    expected = clip.frames(0, 2 * GROUPS, FRAMES_A_GROUP)
    with publisher(to, path, 0, GROUPS) as publishes:
        with subscriber(at, path) as first:
            first.wait_for(lambda words: "subscribed" in words)
            publishes.order("partial")
            first.wait_for(lambda words: words.get("sha256") == expected[FRAMES_A_GROUP].digest)
            first.leave()
        # The relay may keep the subscription to this publisher, which is silent from now on and not known to be dead.
        publishes.kill()
    with publisher(to, path, GROUPS, GROUPS) as publishes, subscriber(at, path) as second:
        second.wait_for(lambda words: "subscribed" in words)
        write_to_the_end(publishes, second, expected)
    ends.assert_crossed()


@at_one_and_two
def test_a_new_subscriber_sees_nothing_of_a_former_life(between: Between, path: str, draft: int) -> None:
    ends = between(draft)
    to, at = ends.publishing.url("quic"), ends.playing.url("quic")
    with publisher(to, path, 0, GROUPS) as publishes:
        with subscriber(at, path) as first:
            first.wait_for(lambda words: "subscribed" in words)
            publishes.order("partial")
            publishes.wait_for(lambda words: "written" in words)
            first.leave()
        publishes.kill()
    # The same group ids again, with other frames: what the relay holds of them is of no use to anyone.
    anew = clip.frames(0, GROUPS, FRAMES_A_GROUP - 3)
    with publisher(to, path, 0, GROUPS, FRAMES_A_GROUP - 3) as publishes, subscriber(at, path) as second:
        second.wait_for(lambda words: "subscribed" in words)
        publishes.order("write")
        publishes.order("close")
        second.wait_for(lambda words: "ended" in words)
        assert received(second, life=0) == sent(anew)
    ends.assert_crossed()


@at_one_and_two
def test_a_publisher_that_starts_anew_is_a_new_life_of_the_track(between: Between, path: str, draft: int) -> None:
    ends = between(draft)
    to, at = ends.publishing.url("quic"), ends.playing.url("quic")
    again = clip.frames(0, GROUPS, FRAMES_A_GROUP)
    with subscriber(at, path) as plays:
        with publisher(to, path, 0, GROUPS) as publishes:
            plays.wait_for(lambda words: "subscribed" in words)
            publishes.order("write")
            publishes.order("close")
            plays.wait_for(lambda words: "ended" in words)
        with publisher(to, path, 0, GROUPS) as publishes:
            life = plays.wait_for(lambda words: words.get("life", 0) > 0 and "subscribed" in words)["life"]
            publishes.order("write")
            publishes.order("close")
            plays.wait_for(lambda words: words.get("ended") == life)
        assert received(plays, life=0) == sent(again)
        assert received(plays, life=life) == sent(again)
    ends.assert_crossed()


@pytest.mark.parametrize("there_first", [True, False])
def test_a_publisher_may_come_back_at_the_other_relay(meshes: Meshes, path: str, there_first: bool) -> None:
    ends = Ends(*meshes(20))
    here, there = ends.playing.url("quic"), ends.publishing.url("quic")
    first_at, then_at = (there, here) if there_first else (here, there)
    expected = clip.frames(0, 2 * GROUPS, FRAMES_A_GROUP)
    with subscriber(here, path) as plays:
        with publisher(first_at, path, 0, GROUPS) as publishes:
            plays.wait_for(lambda words: "subscribed" in words)
            write_but_the_last_frame(publishes, plays, expected)
            publishes.kill()
        with publisher(then_at, path, GROUPS, GROUPS) as publishes:
            write_to_the_end(publishes, plays, expected)
        assert_nothing_lost_but_in_flight(plays, expected)
    ends.assert_crossed()


def publisher(url: str, path: str, first_group: int, groups: int, frames_a_group: int = FRAMES_A_GROUP) -> PeerProcess:
    """A publisher that has announced its broadcast and waits for orders."""
    peer = PeerProcess("moqrs_publish.py", url, path, str(first_group), str(groups), str(frames_a_group))
    peer.wait_for(lambda words: "announced" in words)
    return peer


def subscriber(url: str, path: str) -> PeerProcess:
    """A subscriber that has connected."""
    peer = PeerProcess("moqrs_subscribe.py", url, path)
    peer.wait_for(lambda words: "connected" in words)
    return peer


def write_but_the_last_frame(publishes: PeerProcess, plays: PeerProcess, expected: list[Frame]) -> None:
    """The first publisher's frames, as far as the player can know them to be whole: the last one it holds back."""
    publishes.order("write")
    plays.wait_for(lambda words: words.get("sha256") == expected[GROUPS * FRAMES_A_GROUP - 2].digest)


def write_to_the_end(publishes: PeerProcess, plays: PeerProcess, expected: list[Frame]) -> None:
    publishes.order("write")
    publishes.order("close")
    plays.wait_for(lambda words: words.get("sha256") == expected[-1].digest)


def assert_nothing_lost_but_in_flight(plays: PeerProcess, expected: list[Frame]) -> None:
    """The frame that was being sent when the first publisher went may be lost with it; nothing else is."""
    in_flight = expected[GROUPS * FRAMES_A_GROUP - 1].digest
    arrived = [words["sha256"] for words in plays.heard if "sha256" in words]
    wanted = [frame.digest for frame in expected if frame.digest != in_flight]
    assert [digest for digest in arrived if digest != in_flight] == wanted


def received(peer: PeerProcess, life: int) -> list[tuple[str, int, bool]]:
    """The frames that the subscriber has told of since the broadcast's announcement number `life`."""
    return [_frame(words) for words in peer.heard if "sha256" in words and words["life"] == life]


def sent(frames: list[Frame]) -> list[tuple[str, int, bool]]:
    """The same of the frames that were published."""
    return [(frame.digest, frame.timestamp_us, frame.keyframe) for frame in frames]


def _frame(words: Words) -> tuple[str, int, bool]:
    return words["sha256"], words["timestamp_us"], words["keyframe"]
