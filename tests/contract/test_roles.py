"""Operators' tokens: who they are, what they may, and that no viewer's token is one."""

from __future__ import annotations

import json

import pytest

from tradewind.contract.roles import Operator, OperatorRole, sign_operator, verify_operator
from tradewind.contract.token import Claims, Fault, TokenError, generate_key, parse_keys, sign, sign_payload, verify

NOW = 1_795_340_900.0
(KEY,) = parse_keys(json.dumps(generate_key("ES256", "ops")))
(OTHER,) = parse_keys(json.dumps(generate_key("ES256", "ops")))
(SCOPED,) = parse_keys(json.dumps({**generate_key("HS256", "ops"), "scope": {"put": [""], "get": [""]}}))
ANN = Operator("ann", OperatorRole.OPERATOR)


def fault(token: str, key=KEY, now: float = NOW) -> Fault:
    with pytest.raises(TokenError) as caught:
        verify_operator(token, [key], now)
    return caught.value.fault


def test_a_token_says_who_and_what() -> None:
    token = sign_operator(ANN, KEY, NOW, NOW + 60)
    assert verify_operator(token, [KEY], NOW) == ANN
    assert fault(token, now=NOW + 60) is Fault.EXPIRED
    assert fault(token, now=NOW - 3600) is Fault.NOT_YET_VALID
    assert fault(token, OTHER) is Fault.BAD_SIGNATURE
    assert fault("a.b") is Fault.MALFORMED


def test_what_a_viewer_has_makes_no_operator_and_the_other_way_round() -> None:
    assert fault(sign(Claims("live", (), ("",), NOW + 60, subject="ann"), KEY)) is Fault.MALFORMED
    mixed = {"role": "admin", "sub": "ann", "exp": NOW + 60, "get": [""]}
    assert fault(sign_payload(mixed, KEY)) is Fault.MALFORMED
    with pytest.raises(TokenError, match="useless"):
        verify(sign_operator(ANN, KEY, NOW, NOW + 60), [KEY], NOW)
    with pytest.raises(TokenError, match="beyond-key"):
        sign_operator(ANN, SCOPED, NOW, NOW + 60)
    plain = {"role": "admin", "sub": "ann", "exp": NOW + 60}
    assert fault(sign_payload(plain, SCOPED), SCOPED) is Fault.BEYOND_KEY


@pytest.mark.parametrize("change", [{"role": "root"}, {"role": None}, {"sub": ""}, {"exp": None}, {"exp": "soon"}])
def test_what_is_not_as_it_should_be_is_malformed(change: dict) -> None:
    claims = {"role": "viewer", "sub": "ann", "exp": NOW + 60, **change}
    assert fault(sign_payload(claims, KEY)) is Fault.MALFORMED


def test_a_token_always_ends() -> None:
    assert fault(sign_payload({"role": "viewer", "sub": "ann"}, KEY)) is Fault.MALFORMED
