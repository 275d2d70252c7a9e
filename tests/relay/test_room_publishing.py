"""Messages on tracks: which of them share a group, and who hears of what."""

from __future__ import annotations

from typing import cast

from relay.local import LocalParty
from relay.room_publishing import MESSAGES_A_GROUP, MessageTrack
from tradewind.moqt.model import FullTrackName, Location

TRACK = FullTrackName((b"app", b"r", b"show"), b"pub")


class Party:
    """What a track tells its party: streams by number, each with its group and whether it has ended."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.sent: list[tuple[int, int]] = []
        self.ended: set[int] = set()

    def accept_subscription(self, request: int, largest: Location | None, now: float) -> None:
        """Taken."""

    def open_stream(self, request: int, group: int, first_object: bool, priority: int, now: float) -> int:
        assert first_object
        self.groups.append(group)
        return len(self.groups) - 1

    def send(self, stream: int, number: int, payload: bytes, now: float) -> None:
        assert stream not in self.ended
        self.sent.append((self.groups[stream], number))

    def close_stream(self, stream: int, code: int | None, now: float) -> None:
        self.ended.add(stream)


def track_of(party: Party, most: int) -> MessageTrack:
    track = MessageTrack(cast("LocalParty", party), TRACK, 7, most=most)
    track.want(1, 0.0)
    return track


def write(track: MessageTrack, count: int) -> None:
    for _ in range(count):
        track.write(b"x", 0.0)


def test_a_group_ends_when_it_is_full() -> None:
    party = Party()
    write(track_of(party, 64), 130)
    assert party.groups == [7, 8, 9]
    assert party.sent == [(7 + number // 64, number % 64) for number in range(130)]
    assert party.ended == {0, 1}


def test_a_long_group_ends_at_rest_and_a_short_one_does_not() -> None:
    party = Party()
    track = track_of(party, 1000)
    write(track, MESSAGES_A_GROUP - 1)
    track.rest(0.0)
    write(track, 500)
    assert party.groups == [7]
    track.rest(0.0)
    track.rest(0.0)
    write(track, 1)
    assert party.groups == [7, 8]
    assert party.sent[-1] == (8, 0)
