"""Access tokens for tests, and the key that they are checked with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tradewind.contract.token import Claims, parse_keys, sign

KEY = parse_keys(json.dumps({"kty": "oct", "alg": "HS256", "k": "c" * 43, "key_ops": ["sign", "verify"]}))[0]


def token(root: str = "", put: Sequence[str] = (), get: Sequence[str] = (), **more: Any) -> str:
    """Sign a token: what it is for, and (beneath that) what may be published and read."""
    return sign(Claims(root, tuple(put), tuple(get), **more), KEY)
