"""What a relay writes to its log about sessions, links and tracks: one line each, safe to read.

`relay.run` calls it between turns. Nothing here is on the path of an object.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

from relay.links.states import LinkChange, State
from tradewind.moqt.model import FullTrackName
from tradewind.quic.statistics import Mismatch


def session_ended(session: int, code: int | None, reason: str, *, by_peer: bool) -> None:
    """A session is over."""
    logging.getLogger("relay").info(
        "session ended",
        extra={"session": session, "code": code, "reason": _printable(reason), "by": "peer" if by_peer else "relay"},
    )


def versions_differ(mismatches: deque[Mismatch]) -> None:
    """Clients that speak nothing we speak: what each offered, against what is supported there. Takes them all."""
    while mismatches:
        one = mismatches.popleft()
        offered = [_printable(name) for name in one.offered]
        logging.getLogger("relay").info(
            "no common version",
            extra={
                "address": one.host,
                "transport": one.transport,
                "offered": offered,
                "supported": list(one.supported),
            },
        )


def links_changed(changes: Iterable[LinkChange]) -> None:
    """Links between this relay and neighbours are judged otherwise; what is BAD now, or was, is a warning."""
    for change in changes:
        bad = State.BAD in {change.old, change.new}
        logging.getLogger("relay").log(
            logging.WARNING if bad else logging.INFO,
            "link changed",
            extra={
                "neighbour": change.neighbour,
                "direction": change.direction.value,
                "was": change.old.value,
                "is": change.new.value,
                "cause": change.cause.value,
            },
        )


def track_moved(track: FullTrackName, was: str, now: str) -> None:
    """A track comes from another neighbour."""
    namespace = _printable("/".join(field.decode("utf-8", "replace") for field in track.namespace))
    name = _printable(track.name.decode("utf-8", "replace"))
    logging.getLogger("relay").info(
        "track moved", extra={"namespace": namespace, "track": name, "was": was, "now": now}
    )


def _printable(text: str) -> str:
    """What a peer said, safe to log (draft-20, "Logging of Untrusted String Fields")."""
    return "".join(c if c.isascii() and c.isprintable() else f"\\x{ord(c):02x}" for c in text[:200])
