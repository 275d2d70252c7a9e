"""The rooms' checker: it passes what is right, and finds each fault that is put in, an early acknowledgement too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.check_rooms import RecordError, check, gather, main
from relay.rooms import room as room_module
from tests.relay.rooms.test_machine import AcksWhenItCuts
from tests.relay.rooms.town import Town, publish
from tradewind.contract.rooms import Ack, decode_record

Line = dict[str, Any]


def history() -> list[Line]:
    """Two writers, ten messages, one refusal, one retry, two readers."""
    lines: list[Line] = []
    log: list[Line] = []
    for number in range(10):
        key, writer = f"{number:02x}", "xy"[number % 2]
        lines.append({"what": "sent", "writer": writer, "key": key})
        if number == 4:
            lines.append({"what": "nak", "writer": writer, "key": key, "why": "rate"})
            continue
        seq = len(log)
        place = {"key": key, "epoch": 1 + (seq >= 5), "seq": seq}
        log.append(place)
        lines.append({"what": "acked", "writer": writer, "stored": 2, "dup": False} | place)
    lines.append({"what": "sent", "writer": "x", "key": "02"})
    lines.append({"what": "acked", "writer": "x", "stored": 2, "dup": True} | log[2])
    for reader, first in (("p", 0), ("q", 3)):
        lines += [{"what": "read", "reader": reader} | place for place in log[first:]]
        lines += [{"what": "log", "reader": reader} | place for place in log]
    return lines


def kinds(lines: list[Line], lost_once_stored: int = 0) -> set[str]:
    return set(check(gather(map(json.dumps, lines)), lost_once_stored).faults)


def at(lines: list[Line], **wanted: object) -> int:
    return next(i for i, line in enumerate(lines) if wanted.items() <= line.items())


def change(**changed: object) -> Callable[[list[Line]], None]:
    what = changed.pop("at")
    assert isinstance(what, dict)

    def apply(lines: list[Line]) -> None:
        lines[at(lines, **what)] |= changed

    return apply


def drop(**wanted: object) -> Callable[[list[Line]], None]:
    return lambda lines: lines.__setitem__(slice(None), [one for one in lines if not wanted.items() <= one.items()])


def swap(lines: list[Line]) -> None:
    one, other = at(lines, what="read", reader="p", seq=3), at(lines, what="read", reader="p", seq=4)
    lines[one], lines[other] = lines[other], lines[one]


def tail_is_lost(lines: list[Line]) -> None:
    lines[:] = [line for line in lines if line["what"] not in {"log", "read"} or line["seq"] < 8]


def other_order(lines: list[Line]) -> None:
    for line in lines:
        if line.get("reader") == "q" and line["seq"] in {6, 7}:
            line["key"] = {6: "08", 7: "07"}[line["seq"]]


def log_turned(lines: list[Line]) -> None:
    """All agree, but one writer's two messages changed places."""
    turned = {"06": ("08", 7), "08": ("06", 5)}
    for line in lines:
        if line.get("key") in turned and "seq" in line:
            place = {"06": 7, "08": 5}[line["key"]]
            line["seq"] = place
    for reader in "pq":
        for what in ("log", "read"):
            mine = [i for i, line in enumerate(lines) if (line["what"], line.get("reader")) == (what, reader)]
            rows = sorted((lines[i] for i in mine), key=lambda line: line["seq"])
            for i, row in zip(mine, rows):
                lines[i] = row


def key_twice(lines: list[Line]) -> None:
    lines += [{"what": "log", "reader": reader, "key": "00", "epoch": 2, "seq": 9} for reader in "pq"]


FAULTS = {
    "lost": tail_is_lost,
    "duplicate": key_twice,
    "overlap": swap,
    "hole": drop(what="read", reader="p", seq=5),
    "logs differ": drop(what="log", reader="q", seq=8),
    "order": other_order,
    "moved": change(at={"what": "acked", "dup": True}, seq=7),
    "writer's order": log_turned,
    "refused, and stored": change(at={"what": "acked", "key": "06"}, what="nak", why="full"),
    "stray": drop(what="sent", key="03"),
}


def test_what_is_right() -> None:
    assert not kinds(history())
    report = check(gather(map(json.dumps, history())))
    assert report.counts["acked"] == report.counts["stored twice"] == report.counts["log"] == 9
    assert (report.counts["sent"], report.counts["refused"], report.counts["read"]) == (11, 1, 15)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault: str) -> None:
    lines = history()
    FAULTS[fault](lines)
    assert fault in kinds(lines)


def test_what_was_stored_once_may_be_lost_where_that_is_allowed() -> None:
    lines = history()
    for line in lines:
        if line["what"] == "acked" and line["seq"] >= 7:
            line["stored"] = 1
    tail = [line for line in lines if line["what"] not in {"log", "read"} or line["seq"] < 7]
    assert kinds(tail) == {"lost, stored once"}
    assert not kinds(tail, lost_once_stored=2)


def test_a_reader_may_see_what_was_taken_back_and_then_the_new_epoch() -> None:
    lines = history()
    first = at(lines, what="read", reader="p", seq=5)
    lines.insert(first, {"what": "read", "reader": "p", "key": "ff", "epoch": 1, "seq": 5})
    assert not kinds(lines)


def recorded(town: Town) -> list[Line]:
    """A room whose home dies in the middle, as its clients write it down."""
    lines: list[Line] = []

    def hear() -> None:
        for writer, answer in town.answers:
            if isinstance(answer, Ack):
                place = {"epoch": answer.epoch, "seq": answer.seq, "stored": answer.stored, "dup": answer.dup}
                lines.append({"what": "acked", "writer": writer, "key": answer.key.hex()} | place)
            else:
                lines.append({"what": "nak", "writer": writer, "key": answer.key.hex(), "why": answer.why.name})
        town.answers.clear()

    town.name_home("a", "b")
    town.settle()
    for number in range(40):
        home = "a" if number < 20 else "b"
        message = publish(number)
        lines.append({"what": "sent", "writer": "w", "key": message.key.hex()})
        town.publish(home, message, writer="w")
        hear()
        if number == 19:
            town.crash("a")
            town.name_home("b", "c")
        town.settle()
        hear()
    for payload in town.relays["b"].visible():
        record = decode_record(payload)
        lines.append({"what": "log", "reader": "r", "key": record.key.hex(), "epoch": record.epoch, "seq": record.seq})
    return lines


def test_a_home_that_dies_loses_nothing() -> None:
    lines = recorded(Town())
    assert not kinds(lines)
    assert sum(line["what"] == "acked" for line in lines) == 39


def test_a_build_that_acknowledges_before_it_stores_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "Sequencer", AcksWhenItCuts)
    assert "lost" in kinds(recorded(Town()))


@pytest.mark.parametrize("text", ["{", "[]", '{"what": "sent"}', '{"what": "other"}', ""])
def test_what_is_no_record(text: str) -> None:
    with pytest.raises(RecordError):
        gather([text])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    lines = history()
    good.write_text("\n".join(map(json.dumps, lines)))
    assert main([str(good)]) == 0
    assert json.loads(capsys.readouterr().out)["acked"] == 9
    tail_is_lost(lines)
    bad.write_text("\n".join(map(json.dumps, lines)))
    assert main([str(bad)]) == 1
    assert "lost: " in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 2
