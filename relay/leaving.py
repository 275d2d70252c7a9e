"""Where a session goes that this relay asks to move: the New Session URI of its GOAWAY, or why there is none.

`relay.attachment` keeps what a client dialled (`Dialled`), `relay.node` asks here when it is that session's turn. The
URI can be dialled as it is: scheme and path are those that the client used, and the placement token in it admits the
client where `auth.placement` is required. Source: draft-20, "GOAWAY" and "Session Migration".

Access tokens: what stood in the query that the client dialled stands in the new URI too, since a client has to use that
URI and would come without its rights otherwise. It goes back to the one who gave it to us, over the same encrypted
session, and leads to a relay of the signed table, which checks it with the keys that we do. What came in SETUP is in no
URI of ours, for URIs end up in logs and histories: the client shows it again by itself.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from relay.access import split_target
from relay.placing import Placing
from tradewind.contract.admission import PARAMETER, viewer_digest
from tradewind.placing.last_table import Leaver
from tradewind.placing.locating import parse_address
from tradewind.placing.policy import Reason

MAX_URI_BYTES: Final = 8192
"""The draft's bound: whoever gets more has to end the session."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")
_QUERY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*")
_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
"""What clients leave out of a path by themselves: they would dial another one."""


class NoUri(Enum):
    """Why a GOAWAY says no URI, besides placement's reasons: a closed list, and a metric's label."""

    NOT_PLACING = "not_placing"
    """This relay places nobody."""
    UNKNOWN_TARGET = "unknown_target"
    """It has not said yet what it dials."""
    UNFIT_TARGET = "unfit_target"
    """What it dialled, with a token more, makes no URI of the draft's."""
    NOT_SAFE = "not_safe"
    """Its access token would follow a URI that proves nobody: http, to another machine."""


NowhereReason: TypeAlias = NoUri | Reason


@dataclass(frozen=True, slots=True)
class Dialled:
    """How a client came. Its repr says no token."""

    webtransport: bool
    target: str | None
    """Path and query; None: too long to be a URI's."""
    digest: str
    """Of the access token that counted, wherever it came from."""

    def __repr__(self) -> str:
        return f"Dialled({(self.target or '').partition('?')[0]!r})"


def dialled(target: str, token: str | None, *, webtransport: bool) -> Dialled:
    """Note what a client dialled that was let in, and with which access token."""
    return Dialled(webtransport, target if len(target) <= MAX_URI_BYTES else None, viewer_digest(token or ""))


@dataclass(frozen=True, slots=True)
class Here:
    """What is known of a session besides what it dialled."""

    number: int
    address: str
    rtt_s: float
    access_ends_wall: float | None


def new_uri(placing: Placing, came: Dialled, here: Here, now: float, wall_now: float) -> str | NowhereReason:
    """The URI that a session is to go on at; or why there is none.

    Each answer counts at the relay it names: ask once for each session.
    """
    if came.target is None:
        return NoUri.UNFIT_TARGET
    path, token = split_target(came.target)
    query = [pair for pair in came.target.partition("?")[2].partition("#")[0].split("&") if pair]
    kept = "&".join(pair for pair in query if pair.partition("=")[0] != PARAMETER)
    # Looked at before anybody is counted anywhere.
    if _PATH.fullmatch(path) is None or _QUERY.fullmatch(kept) is None or _DOTS.search(path):
        return NoUri.UNFIT_TARGET
    address = parse_address(here.address)
    leaver = Leaver(came.digest, path, address, here.rtt_s * 1000, _seed(came, here), here.access_ends_wall)
    found = placing.move(leaver, now, wall_now)
    if isinstance(found, Reason):
        return found
    relay = urlsplit(found.uri)
    if relay.scheme == "http" and came.webtransport and token and relay.hostname not in LOOPBACK:
        return NoUri.NOT_SAFE
    scheme = relay.scheme if came.webtransport else "moqt"
    admitted = "&".join(part for part in (kept, f"{PARAMETER}={found.token}") if part)
    uri = f"{scheme}://{relay.netloc}{path or '/'}?{admitted}"
    return uri if len(uri) <= MAX_URI_BYTES and uri.isascii() else NoUri.UNFIT_TARGET


def _seed(came: Dialled, here: Here) -> int:
    text = f"{came.digest} {here.address} {here.number}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
