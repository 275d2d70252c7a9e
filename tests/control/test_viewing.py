"""The process of placed viewers: its command line, what it reads of a catalogue, and the lines that it writes."""

from __future__ import annotations

import json
import os

import pytest

from control.demo import viewing
from control.demo.viewing import ObjectLines, TraceWriter, ViewingSettings, chooser, parse
from tradewind.client.fmp4 import Kind
from tradewind.client.media import Broadcast, Rendition
from tradewind.client.receiving import ReceivedObject
from tradewind.moqt.model import Location


def test_the_command_line() -> None:
    assert parse(["--control", "http://a", "--control", "http://b", "--namespace", "live/demo"]) == ViewingSettings(
        ("http://a", "http://b"), "live/demo", ""
    )
    flags = "--control http://a --namespace n --token T --viewers 3 --first 21 --source 127.10.2.1 --rendition low"
    given = parse([*flags.split(), "--spread", "500ms", "--sha256", "ab" * 32])
    assert (given.token, given.viewers, given.first, given.source) == ("T", 3, 21, "127.10.2.1")
    assert (given.rendition, given.spread_s, given.sha256) == ("low", 0.5, "ab" * 32)


@pytest.mark.parametrize("words", ["--sha256 abc", "--spread soon", "--rendition best"])
def test_what_cannot_be_read(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--control", "http://a", "--namespace", "n", *words.split()])
    assert words.partition(" ")[0] in capsys.readouterr().err


def test_one_picture_and_the_sound() -> None:
    big = Rendition("big", Kind.VIDEO, "avc1", width=640, height=360)
    small = Rendition("small", Kind.VIDEO, "avc1", width=320, height=180)
    sound = Rendition("sound", Kind.AUDIO, "mp4a")
    broadcast = Broadcast((small, big, sound))
    assert list(chooser("low")(broadcast)) == ["small", "sound"]
    assert list(chooser("high")(broadcast)) == list(chooser("auto")(broadcast)) == ["big", "sound"]
    assert list(chooser("low")(Broadcast((big,)))) == ["big"]
    assert list(chooser("auto")(Broadcast(()))) == []


def test_the_lines() -> None:
    reading, writing = os.pipe()
    trace = TraceWriter(writing)
    trace.put(kind="object", viewer="viewer-1", received=1.5)
    trace.put(kind="change", state="playing")
    trace.put_line('{"kind":"object"}')
    trace.flush()
    os.close(writing)
    with os.fdopen(reading) as lines:
        said = [json.loads(line) for line in lines]
    assert said == [
        {"kind": "object", "viewer": "viewer-1", "received": 1.5},
        {"kind": "change", "state": "playing"},
        {"kind": "object"},
    ]


def test_the_line_of_an_object() -> None:
    lines = ObjectLines("viewer-1", 1.25, 100.0)
    item = ReceivedObject(Location(7, 3), b"four", received=2.5)
    said = [json.loads(lines.line(relay, 'video "1"', item)) for relay in ("a", "b", "a")]
    first = {"kind": "object", "viewer": "viewer-1", "dialled": 1.25, "relay": "a", "track": 'video "1"'}
    assert said[0] == {**first, "group": 7, "object": 3, "received": 102.5, "size": 4}
    assert [one["relay"] for one in said] == ["a", "b", "a"]


def test_a_trace_that_nobody_reads_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewing, "MAX_WAITING_BYTES", 100)
    trace = TraceWriter(-1)
    with pytest.raises(BrokenPipeError):
        for _ in range(100):
            trace.put(kind="object")
