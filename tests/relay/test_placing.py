"""A relay's own placement: whom it answers, how often, from what; and the tokens that it lets in by."""

from __future__ import annotations

import json
import ssl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st

from relay import placing as room
from relay.access import Access, AccessSettings, Grant, Placement, Reason, Refusal
from relay.ops import Questions, listen, public_server
from relay.placing import Placing, PlacingSettings
from tests.relay.test_ops import ask, body, get, status
from tradewind.contract.admission import (
    FIRST_S,
    admission_keys,
    announced_key,
    mint_admission,
    relay_signer,
    signer,
    verify_admission,
    viewer_digest,
)
from tradewind.contract.messages import RelayEntry, RouteTable
from tradewind.contract.token import Claims, generate_key, parse_keys, sign
from tradewind.http1 import HttpServer
from tradewind.keys import SEED_FILE, KeyMaterialError, placement_seed
from tradewind.placing.answering import PlaceAnswer, Placed, Refused
from tradewind.settings.values import Address

NOW, WALL = 100.0, 1_800_000_000.0
(ACCESS_KEY,) = parse_keys(json.dumps(generate_key("HS256", "shop")))
(CONTROL_KEY,) = parse_keys(json.dumps(generate_key("EdDSA", "control-1")))
TOKEN = sign(Claims("live", get=("",), expires_at=WALL + 3600), ACCESS_KEY)
SEED = bytes(range(32))
OWN = relay_signer("eu-0", SEED)
RELAYS = tuple(
    RelayEntry(
        f"eu-{number}", "eu", f"https://eu-{number}.example", (f"eu-{number}", 443), "serving", 0.1, 700,
        placement_key=announced_key(OWN) if number == 0 else b"",
    )
    for number in range(3)
)  # fmt: skip
TABLE = RouteTable("mesh", "eu-0", 7, 41, WALL, (), RELAYS, ())
QUERY = f"namespace=live/shop1&jwt={TOKEN}"


def make(table: RouteTable | None = TABLE, **more: float) -> Placing:
    made = Placing("eu-0", OWN, [ACCESS_KEY], PlacingSettings(**more))
    if table is not None:
        made.apply_table(table, NOW)
    return made


def put(made: Placing, query: str = QUERY, address: str = "192.0.2.1", now: float = NOW) -> PlaceAnswer:
    answer = made.answer(query, address, None, now, WALL + now - NOW)
    made.check_invariants()
    return answer


def reason(answer: PlaceAnswer) -> str:
    assert isinstance(answer, Refused), answer
    return answer.reason.value


# --- Answers ---


def test_answers_admit_where_they_send() -> None:
    answer = put(make())
    assert isinstance(answer, Placed)
    token = json.loads(answer.body)["tok"]
    for relay in answer.relays:
        assert verify_admission(token, admission_keys(TABLE), relay, TOKEN, "/live", WALL).issuer == "eu-0"


def test_without_a_table_it_says_so_and_asks_to_come_back() -> None:
    answer = put(make(None))
    assert reason(answer) == "no_table"
    assert isinstance(answer, Refused) and answer.status == 503 and answer.retry_s is not None


def test_nobody_without_a_good_token() -> None:
    made = make()
    assert reason(put(made, "namespace=live/shop1")) == "token_missing"
    assert reason(put(made, "namespace=live/shop1&jwt=rubbish")) == "token_bad"
    assert made.statistics().answers == {"token_missing": 1, "token_bad": 1}


def test_new_keys_count_and_the_table_stays() -> None:
    (other,) = parse_keys(json.dumps(generate_key("HS256", "shop-2")))
    made = make()
    made.replace_keys([other], NOW)
    assert reason(put(made)) == "token_bad"
    assert isinstance(put(made, f"namespace=live/a&jwt={sign(Claims('live', get=('',)), other)}"), Placed)
    assert made.statistics().generation == 41


def test_what_is_played_here_is_known_for_some_seconds() -> None:
    asked: list[int] = []

    def carried() -> Sequence[tuple[bytes, ...]]:
        asked.append(1)
        return [(b"live", b"shop1", b"cam")]

    made = Placing("eu-0", OWN, [ACCESS_KEY], carried=carried)
    made.apply_table(TABLE, NOW)
    for after_s in (0.0, 1.0, room.LOOK_AGAIN_S - 0.1):
        answer = put(made, now=NOW + after_s)
        assert isinstance(answer, Placed) and answer.relays[0] == "eu-0"
    assert len(asked) == 1
    put(made, now=NOW + room.LOOK_AGAIN_S)
    assert len(asked) == 2


# --- How often ---


def test_one_address_asks_so_often_and_no_more() -> None:
    made = make(questions_per_s_per_address=1.0)
    told = [put(made) for _ in range(int(room.BURST_S) + 1)]
    assert all(isinstance(answer, Placed) for answer in told[:-1])
    refused = told[-1]
    assert isinstance(refused, Refused) and (refused.status, refused.retry_s) == (429, 1)
    assert isinstance(put(made, address="192.0.2.2"), Placed)
    assert isinstance(put(made, now=NOW + 1.0), Placed)


def test_everybody_together_too() -> None:
    made = make(questions_per_s=0.5)
    told = [put(made, address=f"192.0.2.{number}") for number in range(6)]
    assert [isinstance(answer, Placed) for answer in told] == [True] * 5 + [False]
    assert isinstance(told[-1], Refused) and told[-1].retry_s == 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    made = make(questions_per_s_per_address=0.1)
    assert isinstance(put(made, address=one), Placed)
    assert isinstance(put(made, address=other), Refused) is same


def test_addresses_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_ADDRESSES", 4)
    made = make(None)
    for number in range(9):
        put(made, "", address=f"192.0.2.{number}")
    assert made.statistics().addresses == 4


@given(st.lists(st.floats(0.0, 3.0), max_size=60), st.floats(0.2, 3.0))
def test_a_bucket_lets_no_more_through_than_its_rate(gaps: list[float], rate: float) -> None:
    """In any stretch of time at most the burst and the rate over that time pass."""
    bucket, now = room._Bucket(rate), NOW
    passed: list[float] = []
    for gap in gaps:
        now += gap
        wait_s = bucket.take(now)
        assert wait_s >= 0.0
        if not wait_s:
            passed.append(now)
    burst = max(rate * room.BURST_S, 1.0)
    for first, began in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - began) + 1e-6


# --- The key ---


def test_the_key_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    seed = placement_seed(str(directory))
    assert placement_seed(str(directory)) == seed and len(seed) == 32
    file = directory / SEED_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in directory.iterdir()] == [SEED_FILE]
    assert placement_seed(None) != placement_seed(None)
    file.chmod(0o640)
    with pytest.raises(KeyMaterialError, match="others may read"):
        placement_seed(str(directory))
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(KeyMaterialError, match="not 32 bytes"):
        placement_seed(str(directory))
    with pytest.raises(KeyMaterialError):
        placement_seed(str(file))


# --- HTTP ---


def http(made: Placing, plain_http: bool = True) -> HttpServer:
    def answer(query: str, address: str, bearer: str | None) -> PlaceAnswer:
        return made.answer(query, address, bearer, NOW, WALL)

    return public_server(lambda: "ab", Questions(answer, plain_http))


async def test_players_of_any_origin_ask_over_http() -> None:
    said = await ask(http(make()), get(f"/v1/place?{QUERY}"))
    assert status(said) == 200 and len(json.loads(body(said))["candidates"]) == 3
    assert b"Access-Control-Allow-Origin: *" in said and b"application/json" in said
    said = await ask(http(make()), get("/v1/place?namespace=live/a", headers=f"Authorization: Bearer {TOKEN}\r\n"))
    assert status(said) == 200
    said = await ask(http(make()), get("/v1/place", method="OPTIONS"))
    assert status(said) == 204 and b"Access-Control-Allow-Headers: Authorization" in said


async def test_refusals_over_http() -> None:
    said = await ask(http(make()), get("/v1/place?namespace=live/a"))
    assert status(said) == 401 and b"WWW-Authenticate: Bearer" in said
    assert json.loads(body(said))["reason"] == "token_missing"
    said = await ask(http(make(None)), get(f"/v1/place?{QUERY}"))
    assert status(said) == 503 and b"Retry-After: " in said and b"Access-Control-Expose-Headers: Retry-After" in said
    said = await ask(public_server(lambda: "ab"), get(f"/v1/place?{QUERY}"))
    assert status(said) == 404


async def test_tokens_do_not_travel_in_the_clear() -> None:
    """Plain HTTP is told to use TLS, on the same port that takes it; the address of who asks is seen either way."""
    seen: list[str] = []

    def answer(query: str, address: str, bearer: str | None) -> PlaceAnswer:
        seen.append(address)
        return make().answer(query, address, bearer, NOW, WALL)

    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    server = public_server(lambda: "ab", Questions(answer), server_side)
    (listener,) = await listen([Address("127.0.0.1", 0)])
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, [listener])
        said = []
        for secure in (False, True):
            plain = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
            stream: trio.abc.Stream = plain
            if secure:
                stream = trio.SSLStream(plain, client_side, server_hostname="127.0.0.1", https_compatible=True)
            async with plain:
                await stream.send_all(get(f"/v1/place?{QUERY}", headers="Connection: close\r\n"))
                said.append(b"".join([data async for data in stream]))
        nursery.cancel_scope.cancel()
    assert [status(one) for one in said] == [403, 200]
    assert seen == ["127.0.0.1"]


# --- Admission ---


def rules(placement: Placement, relay: str = "eu-0") -> Access:
    return Access((ACCESS_KEY,), AccessSettings(placement=placement, relay=relay)).replace_admission_keys(
        admission_keys(TABLE)
    )


def placed(relays: Sequence[str] = ("eu-0", "eu-1"), token: str = TOKEN, root: str = "live", at: float = WALL) -> str:
    return mint_admission(OWN, viewer_digest(token), root, relays, at)


def decided(answer: Grant | Refusal) -> Reason | None:
    return answer.reason if isinstance(answer, Refusal) else None


@pytest.mark.parametrize("placement", list(Placement))
def test_what_a_relay_makes_of_placement_tokens(placement: Placement) -> None:
    access = rules(placement)
    off, required = placement is Placement.OFF, placement is Placement.REQUIRED
    assert decided(access.grant(TOKEN, "/live", WALL)) is (Reason.PLACEMENT_MISSING if required else None)
    assert decided(access.grant(TOKEN, "/live", WALL, "")) is (Reason.PLACEMENT_MISSING if required else None)
    assert decided(access.grant(TOKEN, "/live", WALL, placed())) is None
    assert decided(access.grant(TOKEN, "/live/shop1", WALL, placed())) is None
    assert decided(access.grant(TOKEN, "/live", WALL, "rubbish")) is (None if off else Reason.PLACEMENT_MALFORMED)


def test_why_a_placement_token_opens_nothing() -> None:
    access = rules(Placement.REQUIRED)
    stranger = mint_admission(relay_signer("eu-0", bytes(32)), viewer_digest(TOKEN), "live", ["eu-0"], WALL)
    unknown = mint_admission(relay_signer("zz", bytes(32)), viewer_digest(TOKEN), "live", ["eu-0"], WALL)
    other = sign(Claims("live", get=("",), subject="other"), ACCESS_KEY)
    for token, wanted in [
        (stranger, Reason.PLACEMENT_UNTRUSTED),
        (unknown, Reason.PLACEMENT_UNTRUSTED),
        (placed(("eu-1",)), Reason.PLACEMENT_ELSEWHERE),
        (placed(root="live/shop2"), Reason.PLACEMENT_ELSEWHERE),
        (placed(token=other), Reason.PLACEMENT_OF_ANOTHER),
        (placed(at=WALL - FIRST_S), Reason.PLACEMENT_EXPIRED),
        (placed(at=WALL + 3600), Reason.PLACEMENT_NOT_YET_VALID),
    ]:
        assert decided(access.grant(TOKEN, "/live", WALL, token)) is wanted
    # As a fail-over candidate it is taken for longer than as the first.
    assert decided(access.grant(TOKEN, "/live", WALL, placed(("eu-1", "eu-0"), at=WALL - FIRST_S))) is None


def test_rights_are_the_access_tokens_alone() -> None:
    access = rules(Placement.REQUIRED)
    assert decided(access.grant(None, "/live", WALL, placed(token=""))) is Reason.TOKEN_MISSING
    assert decided(access.grant(TOKEN, "/other", WALL, placed(root="other"))) is Reason.OUTSIDE_TOKEN
    with_it, without = access.grant(TOKEN, "/live", WALL, placed()), rules(Placement.OFF).grant(TOKEN, "/live", WALL)
    assert with_it == without and isinstance(with_it, Grant) and with_it.expires_at == WALL + 3600


def test_keys_of_a_new_table_count_and_access_keys_change_apart() -> None:
    control = signer(CONTROL_KEY)
    token = mint_admission(control, viewer_digest(TOKEN), "live", ["eu-0"], WALL)
    access = rules(Placement.OFFERED)
    assert decided(access.grant(TOKEN, "/live", WALL, token)) is Reason.PLACEMENT_UNTRUSTED
    keys = {"control-1": control.key.public_key()}
    fresh = access.replace_admission_keys(keys)
    assert decided(fresh.grant(TOKEN, "/live", WALL, token)) is None
    (other,) = parse_keys(json.dumps(generate_key("HS256", "shop-2")))
    rotated = fresh.replace_keys((other,))
    assert rotated == replace(fresh, keys=(other,)) and rotated.admission_keys is keys
