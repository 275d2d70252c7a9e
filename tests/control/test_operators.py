"""What operators type about streams, sessions and placement: tables, JSON, and codes that say what happened."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from control.cli import asking
from control.cli.asking import CallError
from control.cli.main import tradewind
from control.cli.stream import trace
from control.cli.top import row, totals

Answers = dict[str, Callable[[dict[str, str], Any], Any]]


def stream(relay: str, source: str, subscribers: int = 0, namespace: str = "live/demo") -> dict[str, Any]:
    figures = {"tracks": 2, "subscribers": subscribers, "bytes_per_s": 125_000}
    return {"namespace": namespace, "relay": relay, "source": source, **figures}


def node(id: str, **more: Any) -> dict[str, Any]:
    known = {"id": id, "region": "eu", "condition": "alive", "connected": True, "stage": "serving", "wanted": "serving"}
    figures = {"sessions": 7, "tracks": 4, "streams": 2, "egress_bytes_per_s": 250_000, "load_ratio": 0.25}
    return {**known, **figures, "troubled": [], **more}


class Canned:
    """A controller that says what a test wants it to say, and keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: Answers = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        canned = self

        class Asker(asking.Asker):
            def _call(self, path: str, body: bytes | None) -> Any:
                path, _, query = path.partition("?")
                asked = dict(parse_qsl(query))
                canned.asked.append((path, asked))
                return canned.answers[path](asked, None if body is None else json.loads(body))

        monkeypatch.setattr(asking, "Asker", Asker)

    def run(self, *words: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(tradewind, [*words, "--token", "t"])
        return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Canned:
    return Canned(monkeypatch)


# --- Streams ---


def test_streams_are_listed_and_sifted(canned: Canned) -> None:
    rows = [stream("a", "publisher", 3), stream("b", "a"), stream("b", "", 1, "live/demolition")]
    canned.answers["/v1/streams"] = lambda _query, _body: {"streams": list(rows), "more": {"b": 9}}
    code, out, error = canned.run("stream", "ls")
    assert code == 0 and out.splitlines()[1].split() == ["live/demo", "a", "publisher", "2", "3", "125000"]
    assert out.splitlines()[3].split() == ["live/demolition", "b", "-", "2", "1", "125000"]
    assert "9 others at b" in error
    for arguments, wanted in (
        (("--node", "a"), rows[:1]),
        (("--namespace", "/live/demo/"), rows[:2]),
        (("--namespace", "live"), rows),
        (("--namespace", "liv"), []),
    ):
        assert json.loads(canned.run("stream", "ls", "-o", "json", *arguments)[1])["streams"] == wanted


def test_a_trace_is_a_tree_from_the_publisher_on(canned: Canned) -> None:
    rows = [stream("hkg-1", "publisher"), stream("sin-1", "hkg-1", 2), stream("fra-1", "sin-1", 20)]
    rows += [stream("lhr-1", "sin-1", 1), stream("sao-1", "", 5)]
    hop = {"sender": "sin-1", "receiver": "fra-1", "rtt_ms": 160.4, "loss_ratio": 0.0123, "usable": False}
    canned.answers["/v1/streams"] = lambda query, _body: {
        "streams": rows if query["namespace"] == "live/demo" else [],
        "more": {},
    }
    canned.answers["/v1/links"] = lambda _query, _body: [hop]
    code, out, _ = canned.run("stream", "trace", "live/demo")
    figures = "2 tracks, {} viewers, 1.0 Mbit/s"
    assert code == 0 and out.splitlines() == [
        "live/demo: 5 relays, 28 viewers",
        f"hkg-1 (publisher): {figures.format(0)}",
        f"└─ sin-1: {figures.format(2)}",
        f"   ├─ fra-1: {figures.format(20)}, over 160 ms, 1.2 % lost, NOT UP",
        f"   └─ lhr-1: {figures.format(1)}",
        f"?? sao-1: {figures.format(5)}, from nobody",
    ]
    tree = json.loads(canned.run("stream", "trace", "live/demo", "-o", "json")[1])
    assert tree["origins"][0]["takers"][0]["takers"][0]["link"] == hop and tree["astray"] == [rows[4]]
    code, _, error = canned.run("stream", "trace", "live/nothing")
    assert code == 2 and "no relay has live/nothing" in error


RELAYS = [*(f"r{number}" for number in range(6)), "publisher"]


@given(st.dictionaries(st.sampled_from(RELAYS), st.sampled_from([*RELAYS, ""])))
def test_a_trace_has_every_relay_once_whatever_they_say(sources: dict[str, str]) -> None:
    tree = trace([stream(relay, source) for relay, source in sources.items()], {})
    reached = {relay for relay, source in sources.items() if source == "publisher"}
    while more := {relay for relay, source in sources.items() if source in reached} - reached:
        reached |= more
    found: list[str] = []

    def walk(one: dict[str, Any], source: str) -> None:
        assert one["source"] == source
        found.append(one["relay"])
        for taker in one["takers"]:
            walk(taker, one["relay"])

    for origin in tree["origins"]:
        walk(origin, "publisher")
    assert sorted(found) == sorted(reached)
    assert {one["relay"] for one in tree["astray"]} == sources.keys() - reached


# --- Sessions ---


def pages(ids: dict[str, list[int]], size: int) -> Callable[[dict[str, str], Any], Any]:
    """Relays with these sessions, `size` of them on a page; a relay without any does not answer."""

    def answer(query: dict[str, str], _body: Any) -> Any:
        here = ids[query["node"]]
        if not here:
            raise CallError("it did not answer", 1)
        rest = [number for number in here if number > int(query["after"])]
        shown = rest[: min(size, int(query["limit"]))]
        sessions = [{"id": number, "address": "203.0.113.7", "namespaces": ["live/demo"]} for number in shown]
        return {"sessions": sessions, "next": shown[-1] if len(rest) > len(shown) else None, "total": len(here)}

    return answer


def test_sessions_of_all_relays_page_by_page(canned: Canned) -> None:
    nodes = [node("a"), node("b"), node("c", connected=False)]
    canned.answers["/v1/nodes"] = lambda _query, _body: nodes
    canned.answers["/v1/sessions"] = pages({"a": [1, 5, 6, 9, 12], "b": [2]}, size=2)
    code, out, error = canned.run("session", "ls")
    assert code == 0 and [line.split()[0] for line in out.splitlines()[1:]] == [
        "a/1",
        "a/5",
        "a/6",
        "a/9",
        "a/12",
        "b/2",
    ]
    assert not error
    asked = [query for path, query in canned.asked if path == "/v1/sessions"]
    assert [(query["node"], query["after"]) for query in asked] == [("a", "0"), ("a", "5"), ("a", "9"), ("b", "0")]
    code, out, error = canned.run("session", "ls", "--node", "a", "--limit", "3", "-o", "json", "--namespace", "live")
    found = json.loads(out)
    assert code == 0 and [one["session"] for one in found["sessions"]] == ["a/1", "a/5", "a/6"]
    assert (found["totals"], found["more_after"], found["failed"]) == ({"a": 5}, {"a": 6}, {})
    assert canned.asked[-1][1]["namespace"] == "live"
    assert "a has more" in canned.run("session", "ls", "--node", "a", "--limit", "3")[2]


def test_a_relay_that_does_not_answer_keeps_no_other_from_it(canned: Canned) -> None:
    canned.answers["/v1/nodes"] = lambda _query, _body: [node("a"), node("b")]
    canned.answers["/v1/sessions"] = pages({"a": [], "b": [2]}, size=2)
    code, out, error = canned.run("session", "ls")
    assert code == 1 and "b/2" in out and "error: a: it did not answer" in error
    code, out, error = canned.run("session", "ls", "--node", "a")
    assert code == 1 and not out and "it did not answer" in error


def test_a_kick_is_a_command(canned: Canned) -> None:
    given: list[Any] = []

    def take(_query: dict[str, str], body: Any) -> Any:
        given.append(body)
        return {**body, "progress": "open", "detail": ""}

    ended = {"id": "k1", "relay": "fra-1", "action": "kick", "progress": "done", "detail": ""}
    canned.answers["/v1/commands"] = take
    canned.answers["/v1/commands/k1"] = lambda _query, _body: ended
    code, out, _ = canned.run("session", "kick", "fra-1/42", "--reason", "spam", "--id", "k1")
    assert code == 0 and "done" in out
    assert given == [{"id": "k1", "relay": "fra-1", "action": "kick", "session": 42, "reason": "spam"}]
    canned.answers["/v1/commands/k1"] = lambda _query, _body: {
        **ended,
        "progress": "failed",
        "detail": "no such session",
    }
    code, _, error = canned.run("session", "kick", "fra-1/42", "--id", "k1")
    assert code == 1 and "kick fra-1: failed no such session" in error
    code, out, _ = canned.run("session", "kick", "fra-1/42", "--id", "k1", "--wait", "0", "-o", "json")
    assert code == 0 and json.loads(out)["progress"] == "open"
    for wrong in ("fra-1", "fra-1/0", "fra-1/x", "/4", "FRA/4", "fra-1/4/5"):
        assert canned.run("session", "kick", wrong)[0] == 2


# --- Placement ---


def relay(place: int | None, id: str, verdict: str) -> dict[str, Any]:
    parts = ("rtt_ms", "price_ms", "order_ms", "load_ms", "rush_ms", "track_ms", "full_ms", "here_ms")
    costs = {**dict.fromkeys(parts, 0.0), "rtt_ms": 23.456, "cost_ms": 23.456}
    return {"relay": id, "region": "eu", "load": 0.25, **costs, "place": place, "verdict": verdict}


def explained(**more: Any) -> dict[str, Any]:
    relays = [relay(0, "fra-1", "chosen"), relay(None, "sin-1", "too far")]
    known = {"country": "DE", "measured_ms": {"eu": 20.5}, "guessed": False, "panic": False, "refused": None}
    return {"seed": 1, **known, "relays": relays, **more}


def test_where_a_viewer_would_go(canned: Canned) -> None:
    canned.answers["/v1/place/explain"] = lambda _query, _body: explained()
    code, out, _ = canned.run("place", "live/demo", "--from", "DE", "--viewer", "ann")
    assert code == 0 and [line.split() for line in out.splitlines()[1:]] == [["0", "fra-1", "eu", "23.46"]]
    assert canned.asked == [("/v1/place/explain", {"namespace": "live/demo", "from": "DE", "viewer": "ann"})]
    code, out, _ = canned.run("place", "live/demo", "--explain")
    assert code == 0 and "for a viewer in DE; measured eu 20.5 ms" in out
    assert "sin-1" in out and "too far" in out and "track ms" in out
    assert json.loads(canned.run("place", "live/demo", "-o", "json")[1]) == explained()


def test_a_refusal_is_an_answer_with_a_code(canned: Canned) -> None:
    canned.answers["/v1/place/explain"] = lambda _query, _body: explained(refused="no_market", relays=[])
    code, _, error = canned.run("place", "live/demo", "--from", "KP")
    assert code == 3 and "no_market" in error
    assert json.loads(canned.run("place", "live/demo", "-o", "json")[1])["refused"] == "no_market"


# --- Top ---


def test_top_says_it_once_where_there_is_no_terminal(canned: Canned) -> None:
    nodes = [
        node("fra-1", troubled=["hkg-1 bad", "sin-1 suspect"], overridden=3),
        node("hkg-1", stage="serving", wanted="draining"),
        node("sin-1", stage="empty", wanted="draining"),
        node("old-1", condition="dead", stage=None, egress_bytes_per_s=None, sessions=None, tracks=None),
    ]
    canned.answers["/v1/nodes"] = lambda _query, _body: nodes
    code, out, _ = canned.run("top")
    assert code == 0 and out.splitlines()[0] == "3 nodes, 21 sessions, 6.0 Mbit/s" and len(out.splitlines()) == 6
    assert len(canned.asked) == 1
    told = ("fra-1", "eu", "serving", "7", "4", "2", "2.0 Mbit/s", "25 %", "3", "hkg-1 bad, sin-1 suspect")
    assert row(nodes[0]) == told and row(nodes[1])[-2:] == ("-", "-")
    assert [row(one)[2] for one in nodes[1:]] == ["serving, to be draining", "empty", "dead"]
    document = json.loads(canned.run("top", "-o", "json")[1])
    assert document["nodes"] == nodes and document["totals"] == totals(nodes)


# --- Overrides ---

OVERRIDE = {
    "origin": "hkg-1",
    "instead_of": "hkg-1",
    "next_hop": "sin-1",
    "cause": "the link is bad: lossy",
    "since_wall": 1_767_225_600.0,
}


def test_what_relays_do_instead_of_their_tables(canned: Canned) -> None:
    told = [{"relay": relay, **OVERRIDE} for relay in ("fra-1", "lhr-1")]
    canned.answers["/v1/overrides"] = lambda _query, _body: told
    code, out, _ = canned.run("overrides")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 3
    assert lines[1].split()[:4] == ["fra-1", "hkg-1", "hkg-1", "sin-1"] and lines[1].endswith("the link is bad: lossy")
    assert json.loads(canned.run("overrides", "--node", "lhr-1", "-o", "json")[1]) == told[1:]


def test_a_route_says_what_its_relay_does_instead(canned: Canned) -> None:
    way = {"next_hop": "hkg-1", "through": [], "cost_ms": 91.0, "chosen_at_ms": 91.0, "links": [], "relays": []}
    known = {"generation": 7, "cause": "first", "better_cycles": 0, "cycles_wanted": 3, "candidates": [way]}
    canned.answers["/v1/routes"] = lambda _query, _body: {**known, "overrides": [OVERRIDE]}
    code, out, _ = canned.run("route", "fra-1", "hkg-1")
    assert code == 0 and "overridden: sin-1 instead of hkg-1 since " in out and "the link is bad: lossy" in out
    canned.answers["/v1/routes"] = lambda _query, _body: known
    code, out, _ = canned.run("route", "fra-1", "hkg-1", "--explain")
    assert code == 0 and "overridden" not in out, "a controller of before says nothing of them"


# --- What everything shares ---


@pytest.mark.parametrize("words", [("stream", "ls"), ("session", "ls"), ("place", "live"), ("top",), ("audit",)])
@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_codes_say_what_went_wrong(canned: Canned, words: tuple[str, ...], code: int) -> None:
    def refuse(_query: dict[str, str], _body: Any) -> Any:
        raise CallError("because", code)

    canned.answers = dict.fromkeys(("/v1/streams", "/v1/nodes", "/v1/place/explain", "/v1/audit"), refuse)
    found, out, error = canned.run(*words)
    assert (found, out, error) == (code, "", "error: because\n")


def test_what_peers_say_cannot_paint_the_terminal(canned: Canned) -> None:
    rows = [stream("a", "publisher", 3, "live/\u001b[31m[red]x")]
    canned.answers["/v1/streams"] = lambda _query, _body: {"streams": rows, "more": {}}
    canned.answers["/v1/links"] = lambda _query, _body: []
    for words in (("stream", "ls"), ("stream", "trace", "live/x")):
        out = canned.run(*words)[1]
        assert "\u001b" not in out
    assert "live/?[31m[red]x" in canned.run("stream", "ls")[1]
