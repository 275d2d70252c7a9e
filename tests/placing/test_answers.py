"""Questions as they come from anybody, answers as players read them, and a relay that answers on its own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.contract.admission import (
    admission_keys,
    admission_of,
    announced_key,
    relay_signer,
    verify_admission,
)
from tradewind.contract.messages import MarketEntry, RelayEntry, RouteTable
from tradewind.contract.token import Claims, generate_key, parse_keys, sign
from tradewind.placing.answering import Placed, PlaceRequest, Refused, read_request
from tradewind.placing.last_table import LastTable
from tradewind.placing.locating import parse_address, parse_prefixes
from tradewind.placing.policy import Policy, Reason

NOW, WALL = 100.0, 1_800_000_000.0
(ACCESS,) = parse_keys(json.dumps(generate_key("HS256", "shop")))
SIGNING = relay_signer("eu-0", bytes(32))
LOCATOR = parse_prefixes("192.0.2.0/24,DE,52.5,13.4\n198.51.100.0/24,KP,39,125.8\n")


def token(root: str = "live", expires: float | None = WALL + 3600, **more: Any) -> str:
    return sign(Claims(root, **({"get": ("",)} | more), expires_at=expires), ACCESS)


TOKEN = token()


def entry(region: str, number: int, place: tuple[float, float], **more: Any) -> RelayEntry:
    name = f"{region}-{number}"
    made = RelayEntry(name, region, f"https://{name}.example:443", (name, 443), "serving", 0.3, 700, *place)
    return msgspec.structs.replace(made, **more)


RELAYS = tuple(
    entry(region, number, place, placement_key=announced_key(relay_signer(f"{region}-{number}", bytes(32))))
    for region, place in (("eu", (50.1, 8.7)), ("jp", (35.7, 139.7)))
    for number in range(3)
)
TABLE = RouteTable("mesh", "eu-0", 7, 41, WALL, (), RELAYS, ())
REQUEST = PlaceRequest("live/shop1", TOKEN)


def last_table(table: RouteTable | None = TABLE, policy: Policy | None = None) -> LastTable:
    made = LastTable("eu-0", SIGNING, [ACCESS], policy, LOCATOR)
    if table is not None:
        made.apply(table, NOW)
    return made


def ask(query: str, made: LastTable | None = None, address: str = "192.0.2.9", bearer: str | None = None) -> Any:
    request = read_request(query, address, bearer)
    return request if isinstance(request, Refused) else (made or last_table()).answer(request, NOW, WALL)


def reason(answer: Any) -> Reason:
    assert isinstance(answer, Refused)
    document = json.loads(answer.body)
    assert document["reason"] == answer.reason.value and document.get("retry_s") == answer.retry_s
    return answer.reason


def test_an_answer_can_be_dialled_as_it_is() -> None:
    answer = ask(f"namespace=live/shop1&jwt={TOKEN}")
    assert isinstance(answer, Placed) and answer.status == 200
    document = json.loads(answer.body)
    assert [document[name] for name in ("version", "ttl", "epoch", "generation", "panic")] == [1, 30, 7, 41, False]
    assert document["probe"] == {"n": 3, "bytes": 1200}
    keys = admission_keys(TABLE)
    assert [candidate["prio"] for candidate in document["candidates"]] == [0, 1, 2, 3]
    for candidate in document["candidates"]:
        parts = urlsplit(candidate["uri"])
        assert (parts.scheme, parts.hostname, parts.path) == ("https", f"{candidate['id']}.example", "/live")
        assert parse_qs(parts.query)["jwt"] == [TOKEN]
        admission = admission_of(f"{parts.path}?{parts.query}")
        assert admission is not None and admission == document["tok"]
        assert verify_admission(admission, keys, candidate["id"], TOKEN, parts.path, WALL).issuer == "eu-0"
    assert document["candidates"][0]["region"] == "eu"
    assert set(document) == {
        *("version", "ttl", "epoch", "generation", "candidates", "tok", "probe", "reload", "panic"),
    }


def test_asking_again_by_the_answers_own_reference() -> None:
    document = json.loads(ask(f"namespace=live/shop1&jwt={TOKEN}&viewer=a%26b").body)
    request = read_request(document["reload"].removeprefix("?"), "192.0.2.9", f"Bearer {TOKEN}")
    assert isinstance(request, PlaceRequest)
    assert (request.namespace, request.viewer, request.token) == ("live/shop1", "a&b", TOKEN)
    assert request.here == document["candidates"][0]["id"]
    again = last_table().answer(request, NOW, WALL)
    assert isinstance(again, Placed) and again.relays[0] == request.here


def test_a_steering_player_gets_a_manifest() -> None:
    for query in ("&format=steering", '&_HLS_pathway="jp-1"', "&_DASH_pathway=%22jp-1,eu-1%22&_DASH_throughput=5"):
        answer = ask(f"namespace=live/shop1&jwt={TOKEN}{query}")
        document = json.loads(answer.body)
        assert (document["VERSION"], document["TTL"]) == (1, 30)
        assert document["PATHWAY-PRIORITY"] == [candidate["id"] for candidate in document["candidates"]]
        request = read_request(document["RELOAD-URI"].removeprefix("?"), "192.0.2.9")
        assert isinstance(request, PlaceRequest) and request.token == TOKEN and request.steering
        assert ("pathway" in query) == (answer.relays[0] == "jp-1")


@pytest.mark.parametrize(
    ("query", "expected", "status"),
    [
        ("namespace=live/shop1", Reason.TOKEN_MISSING, 401),
        ("namespace=live/shop1&jwt=x", Reason.TOKEN_BAD, 401),
        (f"namespace=live/shop1&jwt={token(expires=WALL)}", Reason.TOKEN_BAD, 401),
        (f"namespace=other&jwt={TOKEN}", Reason.OUTSIDE_TOKEN, 403),
        (f"namespace=lively/x&jwt={TOKEN}", Reason.OUTSIDE_TOKEN, 403),
        (f"namespace=&jwt={TOKEN}", Reason.BAD_REQUEST, 400),
        (f"jwt={TOKEN}", Reason.BAD_REQUEST, 400),
        (f"namespace=live/shop1&path=live/shop2&jwt={TOKEN}", Reason.BAD_REQUEST, 400),
        (f"namespace=live/a%20b&path=live/a%20b&jwt={TOKEN}", Reason.BAD_REQUEST, 400),
        (f"namespace=live/{'a/' * 40}&jwt={TOKEN}", Reason.BAD_REQUEST, 400),
        ("namespace=live&" + "x" * 17_000, Reason.BAD_REQUEST, 400),
        ("namespace=live" + "&x=1" * 64, Reason.BAD_REQUEST, 400),
    ],
)
def test_refusals(query: str, expected: Reason, status: int) -> None:
    answer = ask(query)
    assert reason(answer) is expected
    assert (answer.status, answer.retry_s) == (status, None)


def test_the_token_may_be_a_bearer_or_a_publishers() -> None:
    assert isinstance(ask("namespace=live/shop1", bearer=f"bearer {TOKEN}"), Placed)
    assert reason(ask("namespace=live/shop1", bearer=f"Basic {TOKEN}")) is Reason.TOKEN_MISSING
    publishers = token(get=(), put=("shop1",))
    assert isinstance(ask(f"namespace=live/shop1&jwt={publishers}"), Placed)
    assert reason(ask(f"namespace=live/shop2&jwt={publishers}")) is Reason.OUTSIDE_TOKEN


def test_a_token_seen_before_still_ends() -> None:
    made = last_table()
    assert isinstance(made.answer(REQUEST, NOW, WALL + 3599), Placed)
    assert reason(made.answer(REQUEST, NOW, WALL + 3600)) is Reason.TOKEN_BAD
    assert reason(made.answer(REQUEST, NOW, WALL + 3600)) is Reason.TOKEN_BAD


def test_a_root_that_cannot_be_dialled_is_dialled_as_far_as_it_can() -> None:
    answer = ask(f"namespace=live/%E7%9B%B4%E6%92%AD/a&jwt={token('live/直播')}")
    assert isinstance(answer, Placed)
    assert urlsplit(json.loads(answer.body)["candidates"][0]["uri"]).path == "/live"


def test_no_room_says_when_to_ask_again_and_not_to_all_the_same() -> None:
    full = msgspec.structs.replace(TABLE, relays=tuple(msgspec.structs.replace(r, load=0.97) for r in RELAYS))
    made = last_table(full)
    answers = [made.answer(replace(REQUEST, viewer=str(number)), NOW, WALL) for number in range(50)]
    assert {reason(answer) for answer in answers} == {Reason.NO_CAPACITY}
    waits = {answer.retry_s for answer in answers if isinstance(answer, Refused)}
    assert len(waits) > 5 and min(filter(None, waits)) >= 5 and max(filter(None, waits)) <= 15
    assert reason(last_table(None).answer(REQUEST, NOW, WALL)) is Reason.NO_TABLE


def test_market_rules_hold_without_a_controller() -> None:
    ruled = msgspec.structs.replace(TABLE, markets=(MarketEntry("DE", ("jp",)), MarketEntry("KP", ())))
    made = last_table(ruled)
    answer = ask(f"namespace=live/shop1&jwt={TOKEN}&here=eu-1", made)
    assert isinstance(answer, Placed) and {name[:2] for name in answer.relays} == {"jp"}
    assert reason(ask(f"namespace=live/shop1&jwt={TOKEN}", made, "198.51.100.1")) is Reason.NOT_SERVED_HERE
    assert reason(ask(f"namespace=live/shop1&jwt={TOKEN}", made, "203.0.113.1")) is Reason.NO_MARKET
    # Rules that contradict themselves never leave everybody free.
    made.apply(msgspec.structs.replace(TABLE, markets=(MarketEntry("DE", ("eu",)), MarketEntry("DE", ("jp",)))), NOW)
    assert reason(ask(f"namespace=live/shop1&jwt={TOKEN}", made, "198.51.100.1")) is Reason.NOT_SERVED_HERE


def test_on_its_own_a_relay_moves_nobody_who_is_well() -> None:
    made = last_table()
    for here in ("jp-2", "eu-2"):
        answer = made.answer(replace(REQUEST, here=here), NOW, WALL)
        assert isinstance(answer, Placed) and answer.relays[0] == here and len(set(answer.relays)) == 4
    answer = made.answer(replace(REQUEST, here="jp-2", failed=("jp-2",)), NOW, WALL)
    assert isinstance(answer, Placed) and "jp-2" not in answer.relays
    draining = tuple(msgspec.structs.replace(r, stage="draining") if r.id == "jp-2" else r for r in RELAYS)
    made.apply(msgspec.structs.replace(TABLE, relays=draining), NOW)
    answer = made.answer(replace(REQUEST, here="jp-2"), NOW, WALL)
    assert isinstance(answer, Placed) and "jp-2" not in answer.relays


def test_what_the_relay_itself_carries_draws_viewers_to_it() -> None:
    made, request = last_table(), replace(REQUEST, address=parse_address("192.0.2.9"))
    answers = [made.answer(replace(request, viewer=str(number)), NOW, WALL, carries=True) for number in range(20)]
    assert {answer.relays[0] for answer in answers if isinstance(answer, Placed)} == {"eu-0"}


def test_one_viewer_hears_the_same_from_everybody() -> None:
    requests = [replace(REQUEST, viewer=str(number)) for number in range(20)]
    heard = []
    for _ in range(2):
        answers = [last_table().answer(request, NOW, WALL) for request in requests]
        heard.append([answer.relays for answer in answers if isinstance(answer, Placed)])
    assert heard[0] == heard[1] and len(heard[0]) == 20
    assert len({relays[0] for relays in heard[0]}) > 2


@given(st.text(max_size=300), st.text(max_size=40), st.none() | st.text(max_size=60))
def test_any_question_gets_an_answer(query: str, address: str, bearer: str | None) -> None:
    for text in (query, f"namespace=live/shop1&jwt={TOKEN}&{query}", f"jwt={TOKEN}&namespace={query}"):
        answer = ask(text, address=address, bearer=bearer)
        assert isinstance(answer, Placed | Refused)
        json.loads(answer.body)


def test_what_a_viewer_says_is_bounded() -> None:
    rtts = ",".join(f"r{number}:5" for number in range(100))
    request = read_request(f"namespace=a&rtt={rtts}&failed={'x,' * 90}&viewer={'v' * 900}&here=NOT/A/NAME", "nowhere")
    assert isinstance(request, PlaceRequest)
    assert (len(request.rtts_ms), len(request.failed), len(request.viewer)) == (8, 4, 128)
    assert (request.here, request.address) == ("", None)
    odd = read_request("namespace=a&rtt=a:nan,b:1e9,c:-1,d:5,e:٣,F:5,g:123456,h:7.25", "1.2.3.4")
    assert isinstance(odd, PlaceRequest) and odd.rtts_ms == (("d", 5.0), ("h", 7.25))
