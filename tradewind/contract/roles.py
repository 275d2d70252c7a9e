"""Operators' tokens: JWTs that say who somebody is and which role they have with the control plane.

They are signed with keys of their own, in the same files and forms as access tokens' (`token`); `tradewind token
operator` makes them and `control.api` checks them. One that also grants paths is none: nobody shall be able to act as
an operator with what was handed to a viewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from tradewind.contract.token import CLOCK_SKEW_S, Fault, Key, TokenError, open_signed, sign_payload

RoleName = Literal["viewer", "operator", "admin"]


class OperatorRole(IntEnum):
    """What somebody may do; each may do what those before it may."""

    VIEWER = 1
    """Look."""
    OPERATOR = 2
    """Drain, cordon, and undo it; end sessions."""
    ADMIN = 3
    """See who did what."""


ROLES = {role.name.lower(): role for role in OperatorRole}


@dataclass(frozen=True, slots=True)
class Operator:
    """Who asks, and what they may."""

    name: str
    role: OperatorRole


class _Claims(Struct, frozen=True):
    """Times are wall seconds."""

    role: RoleName
    sub: Annotated[str, Meta(min_length=1, max_length=128)]
    exp: Annotated[float, Meta(ge=0, le=2**53)]
    iat: Annotated[float, Meta(ge=0, le=2**53)] = 0.0
    put: None = None
    get: None = None
    aud: None = None


def sign_operator(operator: Operator, key: Key, wall_now: float, ends_wall: float) -> str:
    """Sign a token. Raises TokenError where the key may not."""
    if key.scope is not None:
        raise TokenError(Fault.BEYOND_KEY, "a key with a scope makes no operators")
    claims = {"role": operator.role.name.lower(), "sub": operator.name, "iat": int(wall_now), "exp": int(ends_wall)}
    return sign_payload(claims, key)


def verify_operator(token: str, keys: Sequence[Key], wall_now: float) -> Operator:
    """Who shows this token. Raises TokenError only."""
    payload, key = open_signed(token, keys)
    if key.scope is not None:
        raise TokenError(Fault.BEYOND_KEY, "a key with a scope makes no operators")
    try:
        claims = msgspec.json.decode(payload, type=_Claims)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TokenError(Fault.MALFORMED, "not an operator's token: role, sub and exp, and no paths") from error
    if wall_now >= claims.exp:
        raise TokenError(Fault.EXPIRED, f"since {wall_now - claims.exp:.0f} s")
    if claims.iat > wall_now + CLOCK_SKEW_S:
        raise TokenError(Fault.NOT_YET_VALID, f"iat is {claims.iat - wall_now:.0f} s ahead")
    return Operator(claims.sub, ROLES[claims.role])
