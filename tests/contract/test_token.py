"""Tokens: what moq-token made is read as it was meant; whatever else anybody sends raises TokenError at most."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tradewind.contract.token as token_module
from tradewind.contract.token import (
    ALGORITHMS,
    CLOCK_SKEW_S,
    MAX_PREFIXES,
    Claims,
    Fault,
    Key,
    KeyFormatError,
    TokenError,
    generate_key,
    parse_claims,
    parse_keys,
    peek,
    public_key,
    sign,
    split_path,
    verify,
)

NOW = 1_795_340_900.0
VECTORS = json.loads((Path(__file__).parent.parent / "vectors/moq_token.json").read_text())["vectors"]

SECRET = {"kty": "oct", "alg": "HS256", "k": "c" * 43, "key_ops": ["sign", "verify"]}


def key(**changes: Any) -> Key:
    return parse_keys(json.dumps({**SECRET, **changes}))[0]


def signed(payload: Any, key_: Key | None = None) -> str:
    """A token with any payload at all, signed as `sign` would."""
    from joserfc import jws

    key_ = key_ or key()
    header = {"alg": key_.algorithm} | ({"kid": key_.id} if key_.id else {})
    return jws.serialize_compact(
        header, payload if isinstance(payload, bytes) else json.dumps(payload).encode(), key_.material
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["alg"])
def test_reads_what_moq_token_made(vector: dict[str, Any]) -> None:
    keys = parse_keys(json.dumps(vector["key"]))
    claims = verify(vector["token"], keys, NOW)
    assert (claims.root, claims.put, claims.get, claims.expires_at) == ("rooms/123", ("alice",), ("",), 4102444800.0)
    assert claims.publish_prefixes() == ((b"rooms", b"123", b"alice"),)
    assert claims.subscribe_prefixes() == ((b"rooms", b"123"),)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["alg"])
def test_another_key_of_the_same_kind_is_refused(vector: dict[str, Any]) -> None:
    if vector["alg"].startswith(("RS", "PS")):
        other = next(v for v in VECTORS if v["alg"][:2] in {"RS", "PS"} and v is not vector)
        document = {**other["key"], "alg": vector["alg"]}
    else:
        document = generate_key(vector["alg"], None)
    with pytest.raises(TokenError) as caught:
        verify(vector["token"], parse_keys(json.dumps(document)), NOW)
    assert caught.value.fault is Fault.BAD_SIGNATURE


@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if not a.startswith(("RS", "PS"))])
def test_what_we_sign_verifies_with_the_public_half(algorithm: str) -> None:
    document = generate_key(algorithm, "k1")
    private = parse_keys(json.dumps(document))[0]
    half = document if algorithm.startswith("HS") else public_key(document)
    claims = Claims("live", ("a", "b/c"), ("",), expires_at=NOW + 60, issued_at=NOW, subject="shop", id="t1")
    assert verify(sign(claims, private), parse_keys(json.dumps(half)), NOW) == claims
    if not algorithm.startswith("HS"):
        assert "d" not in half
        with pytest.raises(TokenError):
            sign(claims, parse_keys(json.dumps(half))[0])


def test_a_shared_secret_has_no_public_half() -> None:
    with pytest.raises(KeyFormatError):
        public_key(SECRET)


def test_key_files_as_moq_token_writes_them() -> None:
    plain = json.dumps(SECRET)
    coded = base64.urlsafe_b64encode(plain.encode()).rstrip(b"=").decode()
    legacy = json.dumps({name: value for name, value in SECRET.items() if name != "kty"} | {"k": SECRET["k"] + "="})  # type: ignore[operator]
    token = sign(Claims(get=("",)), key())
    for text in (plain, f"\n{coded}\n", legacy, json.dumps({"keys": [SECRET]})):
        assert verify(token, parse_keys(text), NOW).get == ("",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither"),
        ("%%%", "neither"),
        ("[1]", "neither"),
        (json.dumps({**SECRET, "alg": "none"}), "alg"),
        (json.dumps({**SECRET, "alg": "ES256"}), "does not go"),
        (json.dumps({**SECRET, "k": "c" * 20}), "32 bytes"),
        (json.dumps({**SECRET, "k": 7}), "not a string"),
        (json.dumps({**SECRET, "kid": ""}), "kid"),
        (json.dumps({**SECRET, "key_ops": "sign"}), "key_ops"),
        (json.dumps({**SECRET, "kty": "EC"}), "usable"),
        (json.dumps({**SECRET, "scope": {}}), "useless"),
        (json.dumps({**SECRET, "scope": {"publish": ["live/**"]}}), "understood"),
        (json.dumps({**SECRET, "scope": {"put": 1}}), "scope"),
        (json.dumps({"keys": [1]}), "not a JSON object"),
    ],
)
def test_bad_key_files_say_why_and_keep_the_secret(text: str, says: str) -> None:
    with pytest.raises(KeyFormatError, match=says) as caught:
        parse_keys(text)
    assert "ccc" not in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        ({"get": "", "exp": NOW + 1}, None),
        ({"get": "", "exp": NOW}, Fault.EXPIRED),
        ({"get": "", "exp": None}, None),
        ({"get": "", "nbf": NOW + CLOCK_SKEW_S}, None),
        ({"get": "", "nbf": NOW + CLOCK_SKEW_S + 1}, Fault.NOT_YET_VALID),
        ({"get": "", "iat": NOW + CLOCK_SKEW_S + 1}, Fault.NOT_YET_VALID),
        ({"root": "live"}, Fault.USELESS),
        ({"put": [], "get": []}, Fault.USELESS),
        ({"get": "", "aud": "relay"}, Fault.MALFORMED),
        ({"get": "", "publish": ["**"]}, Fault.MALFORMED),
        ({"get": ["a"] * (MAX_PREFIXES + 1)}, Fault.MALFORMED),
        ({"get": "a/" * 33}, Fault.MALFORMED),
        ({"get": "\ud800"}, Fault.MALFORMED),
        ({"get": [1]}, Fault.MALFORMED),
        ({"get": "", "root": 1}, Fault.MALFORMED),
        ({"get": "", "exp": "soon"}, Fault.MALFORMED),
        ({"get": "", "exp": True}, Fault.MALFORMED),
        ({"get": "", "exp": 1e300}, Fault.MALFORMED),
        (b'{"get":"","exp":NaN}', Fault.MALFORMED),
        (b'{"get":"","get":"x"}', Fault.MALFORMED),
        ([], Fault.MALFORMED),
        ({"get": "", "cluster": True, "iss": "shop"}, None),
    ],
)
def test_claims(payload: Any, fault: Fault | None) -> None:
    if fault is None:
        assert verify(signed(payload), [key()], NOW).get == ("",)
    else:
        with pytest.raises(TokenError) as caught:
            verify(signed(payload), [key()], NOW)
        assert caught.value.fault is fault


def test_which_key_is_used() -> None:
    first, second = key(kid="a"), key(kid="b", k="A" * 43)
    token = sign(Claims(get=("",)), second)
    assert verify(token, [first, second], NOW).get
    # A lone key is tried whatever the token calls it, as moq-relay's --auth-key does.
    assert verify(token, [key(kid="other", k="A" * 43)], NOW).get
    for keys in ([], [first, key(kid="c")]):
        with pytest.raises(TokenError) as caught:
            verify(token, keys, NOW)
        assert caught.value.fault is Fault.UNKNOWN_KEY
    with pytest.raises(TokenError):
        verify(sign(Claims(get=("",)), key()), [first, second], NOW)


def test_a_lone_key_takes_its_file_name() -> None:
    assert parse_keys(json.dumps(SECRET), "shop")[0].id == "shop"
    assert parse_keys(json.dumps({**SECRET, "kid": "own"}), "shop")[0].id == "own"


def test_a_key_that_may_not_verify_is_not_used() -> None:
    token = sign(Claims(get=("",)), key())
    with pytest.raises(TokenError) as caught:
        verify(token, [key(key_ops=["sign"])], NOW)
    assert caught.value.fault is Fault.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("scope", "claims", "allowed"),
    [
        ({"root": "live", "put": "shop"}, Claims("live", put=("shop/a",)), True),
        ({"root": "live", "put": "shop"}, Claims("", put=("live/shop",)), True),
        ({"root": "live", "put": "shop"}, Claims("live", put=("shopping",)), False),
        ({"root": "live", "put": "shop"}, Claims("live", put=("",)), False),
        ({"root": "live", "put": "shop"}, Claims("live", get=("shop",)), False),
        ({"root": "live", "put": "shop", "get": ""}, Claims("live", put=("shop",), get=("x",)), True),
    ],
)
def test_a_scoped_key_grants_no_more_than_its_scope(scope: dict[str, Any], claims: Claims, allowed: bool) -> None:
    scoped, free = key(scope=scope), key()
    if allowed:
        assert verify(sign(claims, scoped), [scoped], NOW) == claims
        return
    for action in (lambda: sign(claims, scoped), lambda: verify(sign(claims, free), [scoped], NOW)):
        with pytest.raises(TokenError) as caught:
            action()
        assert caught.value.fault is Fault.BEYOND_KEY


def test_the_algorithm_is_the_keys_never_the_tokens() -> None:
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    payload = base64.urlsafe_b64encode(b'{"get":""}').rstrip(b"=").decode()
    confused = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=").decode()
    public = public_key(generate_key("ES256", None))
    for token in (f"{header}.{payload}.", f"{confused}.{payload}.AAAA"):
        with pytest.raises(TokenError):
            verify(token, parse_keys(json.dumps(public)), NOW)


def test_peek_reads_without_a_key() -> None:
    assert peek(sign(Claims("live", get=("a",)), key())) == Claims("live", get=("a",))
    with pytest.raises(TokenError):
        peek("no.token")


@given(st.one_of(st.text(max_size=200), st.from_regex(r"[\w-]{0,60}\.[\w-]{0,60}\.[\w-]{0,60}", fullmatch=True)))
def test_anything_sent_as_a_token_raises_token_error(token: str) -> None:
    for keys in ([key()], [key(kid="a"), key(kid="b")]):
        with pytest.raises(TokenError):
            verify(token, keys, NOW)
    with pytest.raises(TokenError):
        peek(token)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda c: st.lists(c, max_size=3)))
def test_any_claim_value_is_read_or_refused(value: Any) -> None:
    for name in ("root", "put", "get", "exp", "iat", "nbf", "sub", "jti"):
        try:
            claims = parse_claims(json.dumps({name: value}).encode())
            claims.publish_prefixes(), claims.subscribe_prefixes()
        except TokenError as error:
            assert error.fault is Fault.MALFORMED


@given(st.binary(max_size=100))
def test_any_payload_is_read_or_refused(payload: bytes) -> None:
    try:
        parse_claims(payload)
    except TokenError as error:
        assert error.fault is Fault.MALFORMED


@pytest.mark.parametrize(
    ("text", "fields"),
    [("", ()), ("/", ()), ("/a//b/", (b"a", b"b")), ("a%2Fb", (b"a%2Fb",)), ("直播", ("直播".encode(),))],
)
def test_paths(text: str, fields: tuple[bytes, ...]) -> None:
    assert split_path(text) == fields


@pytest.mark.parametrize("algorithm", ["EdDSA", "HS256"])
@given(part=st.integers(0, 2), place=st.integers(0, 400), other=st.sampled_from("AQgwZz09-_=.+/\n"))
def test_plain_headers_go_a_shorter_way_to_the_same_answer(algorithm: str, part: int, place: int, other: str) -> None:
    """The general way, with the short one shut, is the twin; only what is no base64url at all may differ."""
    key = PLAIN_KEYS[algorithm]
    parts = sign(Claims("live", (), ("",), 2e9, subject="x"), key).split(".")
    text = parts[part]
    parts[part] = text[: place % len(text)] + other + text[place % len(text) + 1 :]
    token = ".".join(parts)
    found: list[object] = []
    for shut in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if shut:
                patch.setattr(token_module, "_PLAIN_ALGORITHMS", ())
            try:
                found.append(verify(token, [key], 1e9))
            except TokenError as error:
                found.append(error.fault)
    assert found[0] == found[1] or (other in "+/=\n" and found[0] is Fault.BAD_SIGNATURE)


def test_a_plain_header_of_another_algorithm_opens_nothing() -> None:
    secret, pair = PLAIN_KEYS["HS256"], PLAIN_KEYS["EdDSA"]
    token = sign(Claims("live", (), ("",), 2e9), secret)
    for key in (pair, replace(secret, algorithm="HS384")):
        with pytest.raises(TokenError) as raised:
            verify(token, [key], 1e9)
        assert raised.value.fault is Fault.BAD_SIGNATURE


PLAIN_KEYS = {name: parse_keys(json.dumps(generate_key(name, "k")))[0] for name in ("EdDSA", "HS256")}
