"""Placement tokens: they admit one viewer, at the relays they name, on the path they name, while they hold."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tradewind.contract.admission import (
    FAILOVER_S,
    FIRST_S,
    MAX_TABLE_KEYS,
    MAX_TOKEN_BYTES,
    AdmissionError,
    AdmissionFault,
    TableKeys,
    admission_keys,
    admission_of,
    announced_key,
    mint_admission,
    relay_signer,
    signer,
    verify_admission,
    viewer_digest,
)
from tradewind.contract.messages import RelayEntry, RouteTable
from tradewind.contract.token import (
    Claims,
    KeyFormatError,
    TokenError,
    generate_key,
    parse_keys,
    public_key,
    sign,
    verify,
)

NOW = 1_800_000_000.0
ACCESS = "an.access.token"
DOCUMENT = generate_key("EdDSA", "controller-1")
(KEY,) = parse_keys(json.dumps(DOCUMENT))
SIGNING = signer(KEY)
RELAY = relay_signer("fra-9", bytes(range(32)))
RELAYS = ("fra-1", "fra-2", "ams-1")


def table(*keys: str, relay_key: bytes = b"") -> RouteTable:
    entry = RelayEntry("fra-9", "eu", "https://fra-9:443", ("fra-9", 443), "serving", 0.1, 100, placement_key=relay_key)
    return RouteTable("mesh", "fra-1", 1, 1, NOW, (), (entry,), (), placement_keys=keys)


KEYS = admission_keys(table(json.dumps(public_key(DOCUMENT))))
TOKEN = mint_admission(SIGNING, viewer_digest(ACCESS), "live", RELAYS, NOW)


def test_who_was_placed_by_a_relay_that_has_died_is_let_in_where_it_was_placed() -> None:
    keys, own = TableKeys(), announced_key(RELAY)
    token = mint_admission(RELAY, viewer_digest(ACCESS), "live", RELAYS, NOW)
    others = RouteTable("mesh", "fra-1", 1, 2, NOW, (), (), ())
    assert keys.apply(table(json.dumps(public_key(DOCUMENT)), relay_key=own), 100.0).keys() == {"fra-9", "controller-1"}
    after = keys.apply(others, 101.0)
    assert verify_admission(token, after, "fra-2", ACCESS, "live", NOW).issuer == "fra-9"
    assert after.keys() == {"fra-9"}, "a controller's key goes with the tables that have it"
    assert not keys.apply(others, 100.0 + FAILOVER_S)


def test_keys_of_who_has_gone_are_no_more_than_so_many() -> None:
    keys = TableKeys()
    entry = replace(table().relays[0], placement_key=announced_key(RELAY))
    for first in range(0, 3 * MAX_TABLE_KEYS, 500):
        relays = tuple(replace(entry, id=f"r-{number}") for number in range(first, first + 500))
        known = keys.apply(RouteTable("mesh", "fra-1", 1, 2, NOW, (), relays, ()), 1.0)
        assert {relay.id for relay in relays} <= known.keys()
        assert len(known) <= MAX_TABLE_KEYS


def fault(token: str = TOKEN, relay: str = "fra-2", access: str = ACCESS, path: str = "live", now: float = NOW) -> Any:
    with pytest.raises(AdmissionError) as caught:
        verify_admission(token, KEYS, relay, access, path, now)
    return caught.value.fault


def forged(header: Any, payload: Any) -> str:
    """Anything at all, signed with the right key."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    signed = b".".join(parts)
    return (signed + b"." + base64.urlsafe_b64encode(SIGNING.key.sign(signed)).rstrip(b"=")).decode()


HEADER = {"alg": "EdDSA", "kid": "controller-1", "typ": "place+jwt"}
PAYLOAD = {"aud": ["fra-2"], "exp": NOW + 60, "first": 60, "iat": NOW, "root": "live", "sub": viewer_digest(ACCESS)}
PAYLOAD = {name: int(value) if isinstance(value, float) else value for name, value in PAYLOAD.items()}


def test_admits_at_every_relay_it_names_and_no_other() -> None:
    for relay in RELAYS:
        admission = verify_admission(TOKEN, KEYS, relay, ACCESS, "/live/shop1", NOW + 1)
        assert (admission.relays, admission.root, admission.issuer) == (RELAYS, (b"live",), "controller-1")
    assert fault(relay="fra-3") is AdmissionFault.ANOTHER_RELAY


def test_first_relay_takes_it_for_a_minute_and_the_others_for_hours() -> None:
    assert verify_admission(TOKEN, KEYS, "fra-1", ACCESS, "live", NOW + FIRST_S - 1).until_wall == NOW + FIRST_S
    assert fault(relay="fra-1", now=NOW + FIRST_S) is AdmissionFault.EXPIRED
    verify_admission(TOKEN, KEYS, "fra-2", ACCESS, "live", NOW + 4 * 3600 - 1)
    assert fault(now=NOW + 4 * 3600) is AdmissionFault.EXPIRED
    assert fault(now=NOW - 61) is AdmissionFault.NOT_YET_VALID


def test_ends_with_the_access_token() -> None:
    short = mint_admission(SIGNING, viewer_digest(ACCESS), "live", RELAYS, NOW, access_ends_wall=NOW + 30)
    for relay in RELAYS:
        assert verify_admission(short, KEYS, relay, ACCESS, "live", NOW + 29).until_wall == NOW + 30
        assert fault(short, relay, now=NOW + 30) is AdmissionFault.EXPIRED


def test_is_bound_to_viewer_and_path() -> None:
    assert fault(access="another") is AdmissionFault.ANOTHER_VIEWER
    assert fault(path="") is AdmissionFault.ANOTHER_PATH
    assert fault(path="lively") is AdmissionFault.ANOTHER_PATH


def test_keys_rotate_by_kid_and_relays_have_their_own() -> None:
    later = generate_key("EdDSA", "controller-2")
    keys = admission_keys(
        table(
            json.dumps(public_key(DOCUMENT)),
            json.dumps(public_key(later)),
            "not a key",
            json.dumps(generate_key("HS256", "controller-3")),
            relay_key=announced_key(RELAY),
        )
    )
    assert set(keys) == {"controller-1", "controller-2", "fra-9"}
    token = mint_admission(RELAY, viewer_digest(ACCESS), "live", RELAYS, NOW)
    assert verify_admission(token, keys, "ams-1", ACCESS, "live", NOW).issuer == "fra-9"
    assert fault(token) is AdmissionFault.UNKNOWN_KEY
    claimed = mint_admission(relay_signer("controller-1", bytes(32)), viewer_digest(ACCESS), "live", RELAYS, NOW)
    assert fault(claimed) is AdmissionFault.BAD_SIGNATURE


@pytest.mark.parametrize("document", [generate_key("HS256", "a"), generate_key("EdDSA", None), public_key(DOCUMENT)])
def test_what_cannot_sign_placement_tokens(document: dict[str, Any]) -> None:
    with pytest.raises(KeyFormatError):
        signer(parse_keys(json.dumps(document))[0])


def test_neither_kind_of_token_passes_as_the_other() -> None:
    access = sign(Claims("live", (), ("",), NOW + 60), KEY)
    assert fault(access) is AdmissionFault.MALFORMED
    with pytest.raises(TokenError):
        verify(TOKEN, [KEY], NOW)


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        (HEADER | {"alg": "none"}, PAYLOAD),
        (HEADER | {"alg": "HS256"}, PAYLOAD),
        (HEADER | {"typ": "JWT"}, PAYLOAD),
        (HEADER | {"crit": ["b64"]}, PAYLOAD),
        (HEADER | {"kid": 1}, PAYLOAD),
        ([], PAYLOAD),
        (HEADER, PAYLOAD | {"aud": []}),
        (HEADER, PAYLOAD | {"aud": ["a", "b", "c", "d", "e"]}),
        (HEADER, PAYLOAD | {"aud": "fra-2"}),
        (HEADER, PAYLOAD | {"exp": 1e300}),
        (HEADER, PAYLOAD | {"first": -1}),
        (HEADER, PAYLOAD | {"get": [""]}),
        (HEADER, PAYLOAD | {"root": "x" * 2049}),
        (HEADER, {name: value for name, value in PAYLOAD.items() if name != "sub"}),
    ],
)
def test_hostile_tokens_even_well_signed(header: Any, payload: Any) -> None:
    verify_admission(forged(HEADER, PAYLOAD), KEYS, "fra-2", ACCESS, "live", NOW)
    assert fault(forged(header, payload)) is AdmissionFault.MALFORMED


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_is_refused_in_our_words(text: str) -> None:
    assert fault(text) is AdmissionFault.MALFORMED


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("AZaz09-_.=\n"))
def test_any_change_is_noticed(place: int, character: str) -> None:
    changed = TOKEN[:place] + character + TOKEN[place + 1 :]
    try:
        verify_admission(changed, KEYS, "fra-2", ACCESS, "live", NOW)
    except AdmissionError:
        return
    # The last character of a part has bits that mean nothing.
    pad = [part + "=" * (-len(part) % 4) for part in changed.split(".")]
    assert [base64.urlsafe_b64decode(part) for part in pad] == [
        base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in TOKEN.split(".")
    ]


def test_too_long_is_not_looked_at() -> None:
    assert fault(TOKEN + "A" * MAX_TOKEN_BYTES) is AdmissionFault.MALFORMED


@pytest.mark.parametrize(
    ("target", "token"),
    [
        ("/live?jwt=a&place=b", "b"),
        ("/live?place=a&place=b&place=", "b"),
        ("/live?place=a%2Eb#place=c", "a.b"),
        ("/live?jwt=a", None),
        ("/place=b", None),
        ("/live?place=b&" + "x" * 16_384, None),
    ],
)
def test_finds_the_token_in_what_was_dialled(target: str, token: str | None) -> None:
    assert admission_of(target) == token
