"""Where a placed viewer goes next and whom it asks, against what answerers say and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.client.choices import (
    FIRST_ADMITS_S,
    MAX_CANDIDATES,
    Answer,
    AnswerError,
    Candidate,
    Choices,
    Patience,
    beneath,
    endpoint_of,
    new_session,
    read_answer,
    read_refusal,
    relay_base,
)
from tradewind.placing.answering import PlaceRequest, read_request

PATIENCE = Patience()
NAMES = ("ams-1", "fra-1", "hkg-1", "sin-1")


def candidate(name: str, path: str = "live") -> Candidate:
    return Candidate(name, f"https://{name}.example:443/{path}?jwt=T&place=P", "eu")


def answer(names: Sequence[str] = NAMES, probes: int = 3, ttl_s: float = 30.0) -> Answer:
    return Answer(tuple(map(candidate, names)), probes, ttl_s)


def knowing(names: Sequence[str] = NAMES, now: float = 0.0) -> Choices:
    made = Choices(PATIENCE)
    made.receive_answer(answer(names), now)
    return made


def document(**changes: Any) -> bytes:
    listed = [{"id": name, "uri": candidate(name).uri, "prio": n, "region": "eu"} for n, name in enumerate(NAMES)]
    whole = {"version": 1, "ttl": 20, "candidates": listed, "tok": "P", "probe": {"n": 2, "bytes": 1200}}
    return json.dumps({**whole, **changes}).encode()


# --- Answers ---


def test_an_answer_as_relays_and_controllers_write_it() -> None:
    read = read_answer(document())
    assert read == Answer(tuple(map(candidate, NAMES)), 2, 20.0)
    listed = json.loads(document())["candidates"][::-1]
    assert read_answer(document(candidates=listed)).candidates == read.candidates, "prio is the order, not the place"
    listed[0]["certificate_sha256"] = "ab" * 32
    assert read_answer(document(candidates=listed)).candidates[-1].certificate_sha256 == b"\xab" * 32
    without = json.loads(document())
    del without["ttl"], without["probe"]
    read = read_answer(json.dumps(without).encode(), 7.0)
    assert (read.probes, read.ttl_s) == (3, 7.0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        document(candidates=[]),
        document(candidates={}),
        document(candidates=[7]),
        document(candidates=[{"id": "a"}]),
        document(candidates=[{"id": "", "uri": "https://a"}]),
        document(candidates=[{"id": "a,b", "uri": "https://a"}]),
        document(candidates=[{"id": "a", "uri": "http://a"}]),
        document(candidates=[{"id": "a", "uri": "https://"}]),
        document(candidates=[{"id": "a", "uri": "https://a:x/"}]),
        document(candidates=[{"id": "a", "uri": "https://[/"}]),
        document(candidates=[{"id": "a", "uri": "https://a/" + "x" * 30_000}]),
        document(candidates=[{"id": "a", "uri": "https://a/"}] * 2),
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(AnswerError):
        read_answer(body)


def test_more_relays_than_anybody_needs() -> None:
    listed = [{"id": f"r{n}", "uri": f"https://r{n}/"} for n in range(100)]
    assert len(read_answer(document(candidates=listed)).candidates) == MAX_CANDIDATES


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["candidates", "id", "uri", "prio", "ttl", "probe", "n", "reason", "retry_s"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()), st.integers(100, 999))
def test_anything_is_an_answer_or_an_error(body: bytes, status: int) -> None:
    try:
        read = read_answer(body)
    except AnswerError:
        pass
    else:
        assert read.candidates and read.ttl_s > 0 and read.probes >= 0
    refusal = read_refusal(status, body)
    assert refusal.reason is not None and refusal.retry_s >= 0.0


def test_refusals() -> None:
    refusal = read_refusal(503, b'{"version": 1, "reason": "no_table", "detail": "...", "retry_s": 3}')
    assert (refusal.reason, refusal.is_final, refusal.retry_s) == ("no_table", False, 3.0)
    assert read_refusal(401, b"rubbish").is_final
    assert read_refusal(502, b"<html>").reason == "status 502"


# --- Who is next ---


@given(
    st.lists(st.sampled_from(NAMES), unique=True, min_size=1),
    st.lists(st.tuples(st.sampled_from(NAMES), st.floats(0, 100)), max_size=8),
    st.sets(st.sampled_from(NAMES)),
    st.floats(0, 200),
)
def test_the_best_that_has_not_failed(
    names: list[str], failures: list[tuple[str, float]], besides: set[str], now: float
) -> None:
    choices = knowing(names)
    last: dict[str, float] = {}
    for name, at in sorted(failures, key=lambda failure: failure[1]):
        choices.fail(name, at)
        last[name] = at
    choices.check_invariants()
    order = names if now < FIRST_ADMITS_S else names[1:] + names[:1]
    fit = [name for name in order if not (name in last and now < last[name] + PATIENCE.failed_for_s)]
    found = choices.next_candidate(now, besides)
    wanted = next((name for name in fit if name not in besides), None)
    assert (found.id if found is not None else None) == wanted
    racing = [one.id for one in choices.racing(now)]
    assert racing == (fit or order)[:3]


def test_who_works_after_all_and_all_at_once() -> None:
    choices = knowing()
    for name in NAMES:
        choices.fail(name, 0.0)
    assert choices.next_candidate(1.0) is None
    choices.heal("hkg-1")
    found = choices.next_candidate(1.0)
    assert found is not None and found.id == "hkg-1"
    choices.forgive()
    found = choices.next_candidate(1.0)
    assert found is not None and found.id == "ams-1"


def test_what_is_remembered_is_bounded() -> None:
    choices = knowing()
    for number in range(500):
        choices.fail(f"r{number}", number)
        choices.note_rtt(f"r{number}", 0.01)
        choices.check_invariants()
    assert choices.is_failed("r499", 499.0)


@given(st.integers())
def test_the_pauses_grow_to_their_bound(seed: int) -> None:
    choices, dice = Choices(PATIENCE), Random(seed)
    pauses = [choices.next_backoff_s(dice) for _ in range(12)]
    for number, pause in enumerate(pauses):
        whole = min(PATIENCE.backoff_first_s * 2**number, PATIENCE.backoff_most_s)
        assert whole / 2 <= pause <= whole * 1.5
    choices.reset_backoff()
    assert choices.next_backoff_s(dice) <= PATIENCE.backoff_first_s * 1.5


def test_a_better_relay_and_one_that_left() -> None:
    choices = knowing()
    assert choices.better("ams-1", 0.0) is None
    assert choices.better("fra-1", 0.0) == (candidate("ams-1"), True)
    assert choices.better("lon-1", 0.0) == (candidate("ams-1"), False)
    choices.note_better(0.0)
    assert choices.better("fra-1", PATIENCE.moves_every_s - 1) is None
    assert choices.better("lon-1", 1.0) == (candidate("ams-1"), False), "where it is not named it may not stay"
    assert choices.better("fra-1", PATIENCE.moves_every_s) is not None
    choices.fail("ams-1", 400.0)
    assert choices.better("fra-1", 401.0) is None
    assert Choices().better("fra-1", 0.0) is None


# --- Questions ---


def test_answerers_read_what_is_asked() -> None:
    choices = knowing()
    for name in (*NAMES, "fra-1"):
        choices.fail(name, 10.0)
        choices.note_rtt(name, 0.0234)
    query = choices.query(11.0, namespace="live/shop1", token="a.b+c/d=", viewer="viewer-1", here="sin-1")
    assert choices.rtt_s("ams-1") == pytest.approx(0.0234) and choices.rtt_s("unknown") == 0.0
    read = read_request(query, "192.0.2.1")
    assert isinstance(read, PlaceRequest)
    assert (read.namespace, read.token, read.viewer, read.here) == ("live/shop1", "a.b+c/d=", "viewer-1", "sin-1")
    assert sorted(read.failed) == sorted(NAMES) and read.failed[-1] == "fra-1"
    assert dict(read.rtts_ms) == dict.fromkeys(NAMES, 23.4)
    assert "failed" not in choices.query(100.0, namespace="live/shop1", token="", viewer="")


def test_whom_to_ask() -> None:
    control = ("https://a.example", "https://b.example/mine", "http://127.0.0.1:9480/")
    urls = [endpoint_of(address) for address in control]
    assert urls == ["https://a.example/v1/place", "https://b.example/mine", "http://127.0.0.1:9480/v1/place"]
    choices = Choices()
    firsts = {choices.endpoints(control, "", Random(seed))[0] for seed in range(20)}
    assert firsts == set(urls), "a crowd spreads"
    choices = knowing(("ams-1", "fra-1"))
    asked = choices.endpoints(control, urls[1], Random(1))
    assert asked == [
        *(urls[1], urls[2], urls[0]),
        *("https://ams-1.example:443/v1/place", "https://fra-1.example:443/v1/place"),
    ]
    assert choices.endpoints((), "", Random(1)) == asked[3:]
    assert relay_base("https://127.0.0.1:4443/live?jwt=T") == "http://127.0.0.1:4443"


def test_what_to_ask_a_relay_for() -> None:
    assert beneath("live/shop1/cam", "/live") == (b"shop1", b"cam")
    assert beneath("/live/shop1", "") == (b"live", b"shop1")
    assert beneath("live", "/live") == ()


# --- Where GOAWAY sends ---


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("", None),
        ("http://ams-1.example:443/live", None),
        ("ftp://x/", None),
        ("https://", None),
        ("https://x:0/", None),
        ("https://x:y/", None),
        ("https://[/", None),
        ("https://x/" + "y" * 30_000, None),
        ("https://ams-1.example:443/other", candidate("ams-1").uri),
        ("https://new.example/", "https://new.example/live?jwt=T"),
        ("moqt://new.example:4443", "moqt://new.example:4443/live?jwt=T"),
        ("https://new.example/shop?jwt=theirs#x", "https://new.example/shop?jwt=theirs"),
        ("https://new.example/shop?a=1", "https://new.example/shop?a=1&jwt=T"),
    ],
)
def test_new_session_uris(uri: str, wanted: str | None) -> None:
    found = new_session(uri, knowing(), candidate("fra-1"))
    assert (found.uri if found is not None else None) == wanted
