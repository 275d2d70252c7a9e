"""Where a placed viewer goes next, whom it asks and when: decided from answers of `/v1/place` and what failed. No I/O.

`placed.PlacedViewer` owns one. The same rules as `web/place.js`; docs/placement.md tells them. Times are `now`,
monotonic seconds; dice are passed in.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

FIRST_ADMITS_S = 60.0
"""For so long the first candidate takes the placement token; the others for hours."""
MAX_CANDIDATES = 8
MAX_URI_CHARACTERS = 24_576
"""An access token and a placement token stand in it."""
MAX_FAILED = 4
MAX_RTTS = 8
"""As many as an answerer reads."""
MAX_REMEMBERED = 64
"""Relays of which it is known that they failed, or how far they are."""
MAX_WAIT_S = 3600.0
FINAL = frozenset({400, 401, 403})
"""Refusals that asking again does not change."""


class AnswerError(ValueError):
    """What came is no answer of `/v1/place`; says why."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A relay that a viewer may go to."""

    id: str
    uri: str
    """Can be dialled as it is."""
    region: str = ""
    certificate_sha256: bytes | None = None
    """Of a certificate that no authority signed."""

    @property
    def host(self) -> str:
        """Host and port, as the URI has them."""
        return urlsplit(self.uri).netloc


@dataclass(frozen=True, slots=True)
class Answer:
    """Where to go, best first."""

    candidates: tuple[Candidate, ...]
    probes: int
    """How many of the first ones to measure."""
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nobody says where to go."""

    reason: str
    is_final: bool = False
    retry_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a viewer waits for what. Seconds."""

    ttl_s: float = 30.0
    """Where an answer has none."""
    failed_for_s: float = 60.0
    """A relay that failed is not tried before the others for so long."""
    moves_every_s: float = 300.0
    """Moves to better relays; failing ones are left at once."""
    jitter_s: float = 0.15
    """Before a move away from a dead relay: a crowd does not land in one instant."""
    leave_jitter_s: float = 1.5
    """The same where the old relay still serves: GOAWAY, or a better place."""
    backoff_first_s: float = 1.0
    """When every candidate failed."""
    backoff_most_s: float = 30.0
    connect_s: float = 3.0
    """For a handshake."""
    grace_s: float = 0.03
    """After the first relay answered a probe, a better ranked one may still."""
    hedge_s: float = 1.2
    """A relay that was dialled for a move and has not answered for so long: dial the next one as well."""
    start_s: float = 2.5
    """A relay that shows nothing for so long after its handshake has failed."""
    stall_s: float = 0.5
    """Nothing for so long, and not an answer to a ping either: the relay is gone."""
    stall_frames: float = 12.0
    """The same in times between two objects, where that is longer."""
    alive_ratio: float = 4.0
    """A relay that answers pings has so many times longer: the fault lies behind it, where relays mend their ways, or
    with the publisher, where moving helps nobody."""
    answer_s: float = 3.0
    """For one placement endpoint."""
    ask_hedge_s: float = 0.6
    """An endpoint silent for so long: ask the next one as well."""


def read_answer(body: bytes, default_ttl_s: float = 30.0) -> Answer:
    """Read a document of `/v1/place`. Raises AnswerError."""
    document = _load(body)
    listed = document.get("candidates")
    if not isinstance(listed, list) or not listed:
        raise AnswerError("it names no relay")
    ranked = [(_candidate(entry), _whole(entry, "prio", n)) for n, entry in enumerate(listed[:MAX_CANDIDATES])]
    ranked.sort(key=lambda pair: pair[1])
    candidates = tuple(candidate for candidate, _ in ranked)
    if len({candidate.id for candidate in candidates}) < len(candidates):
        raise AnswerError("it names a relay twice")
    ttl = document.get("ttl")
    ttl_s = min(float(ttl), MAX_WAIT_S) if isinstance(ttl, (int, float)) and ttl > 0 else default_ttl_s
    probe = document.get("probe")
    probes = _whole(probe, "n", 3) if isinstance(probe, dict) else 3
    return Answer(candidates, max(probes, 0), ttl_s)


def read_refusal(status: int, body: bytes) -> Refusal:
    """Read what came with a status other than 200, whatever it is."""
    try:
        document = _load(body)
    except AnswerError:
        document = {}
    retry = document.get("retry_s")
    retry_s = float(retry) if isinstance(retry, (int, float)) and 0 < retry <= MAX_WAIT_S else 0.0
    reason = document.get("reason")
    return Refusal(reason[:200] if isinstance(reason, str) else f"status {status}", status in FINAL, retry_s)


def beneath(namespace: str, path: str) -> tuple[bytes, ...]:
    """What is left of a global namespace beneath the path that is dialled: what to ask that relay for."""
    fields = [field for field in namespace.split("/") if field]
    depth = sum(1 for field in path.split("/") if field)
    return tuple(field.encode() for field in fields[depth:])


class Choices:
    """What one viewer knows of relays: the last answer, who failed until when, how far they are."""

    __slots__ = (
        "_answer",
        "_answered_at",
        "_backoff_s",
        "_failed",
        "_moved_at",
        "_patience",
        "_rtts_ms",
    )

    def __init__(self, patience: Patience = Patience()) -> None:
        self._patience = patience
        self._answer: Answer | None = None
        self._answered_at = 0.0
        self._failed: dict[str, float] = {}
        self._rtts_ms: dict[str, float] = {}
        self._backoff_s = patience.backoff_first_s
        self._moved_at = float("-inf")

    def receive_answer(self, answer: Answer, now: float) -> None:
        """Take an answer; it replaces the one before."""
        self._answer, self._answered_at = answer, now

    def candidates(self, now: float) -> tuple[Candidate, ...]:
        """The last answer's relays in the order in which to try them, those that failed too."""
        if self._answer is None:
            return ()
        listed = self._answer.candidates
        # By then the first one may take nobody with this token any more.
        return listed[1:] + listed[:1] if now - self._answered_at >= FIRST_ADMITS_S else listed

    def racing(self, now: float) -> tuple[Candidate, ...]:
        """Those to measure before the first is chosen, best first; never empty where there is a candidate."""
        listed = self.candidates(now)
        usable = [candidate for candidate in listed if not self.is_failed(candidate.id, now)] or listed
        most = self._answer.probes if self._answer is not None else 0
        return tuple(usable[: max(most, 1)])

    def next_candidate(self, now: float, besides: Collection[str] = ()) -> Candidate | None:
        """The best candidate that has not failed lately and is none of `besides`."""
        fitting = (c for c in self.candidates(now) if c.id not in besides and not self.is_failed(c.id, now))
        return next(fitting, None)

    def better(self, here: str, now: float) -> tuple[Candidate, bool] | None:
        """Whereto an answer sends a viewer that is at `here`, and whether `here` may still be stayed at."""
        if self._answer is None:
            return None
        best = self._answer.candidates[0]
        if best.id == here or self.is_failed(best.id, now):
            return None
        # Whoever answers keeps a viewer where it is unless there is a reason. A relay not even named has left.
        named = any(candidate.id == here for candidate in self._answer.candidates)
        if named and now - self._moved_at < self._patience.moves_every_s:
            return None
        return best, named

    def note_better(self, now: float) -> None:
        """A move to a better relay begins."""
        self._moved_at = now

    def at_host(self, host: str) -> Candidate | None:
        """The candidate whose URI has this host and port."""
        listed = self._answer.candidates if self._answer is not None else ()
        return next((candidate for candidate in listed if candidate.host == host), None)

    def fail(self, id: str, now: float) -> None:
        """A relay could not be used."""
        _put(self._failed, id, now + self._patience.failed_for_s)

    def heal(self, id: str) -> None:
        """A relay works after all."""
        self._failed.pop(id, None)

    def is_failed(self, id: str, now: float) -> bool:
        return self._failed.get(id, 0.0) > now

    def forgive(self) -> None:
        """Try everybody again: when all failed, it was more likely us."""
        self._failed.clear()

    def note_rtt(self, id: str, rtt_s: float) -> None:
        """A relay was measured."""
        if rtt_s > 0:
            _put(self._rtts_ms, id, max(round(rtt_s * 1000, 1), 0.1))

    def rtt_s(self, id: str) -> float:
        """The round trip to a relay as it was measured last; 0 where it was not."""
        return self._rtts_ms.get(id, 0.0) / 1000

    def next_backoff_s(self, dice: Random) -> float:
        """How long to wait before going round again: longer every time."""
        wait_s = self._backoff_s * (0.5 + dice.random())
        self._backoff_s = min(2 * self._backoff_s, self._patience.backoff_most_s)
        return wait_s

    def reset_backoff(self) -> None:
        """Something played."""
        self._backoff_s = self._patience.backoff_first_s

    def ttl_s(self, dice: Random) -> float:
        """When to ask again, from now: not everybody at once."""
        ttl_s = self._answer.ttl_s if self._answer is not None else self._patience.ttl_s
        return ttl_s * (0.9 + dice.random() / 5)

    def query(self, now: float, *, namespace: str, token: str, viewer: str, here: str = "") -> str:
        """The question, as the query of a URL."""
        asked = {"namespace": namespace}
        if viewer:
            asked["viewer"] = viewer
        if here:
            asked["here"] = here
        failed = [id for id in self._failed if self.is_failed(id, now)][-MAX_FAILED:]
        if failed:
            asked["failed"] = ",".join(failed)
        rtts = list(self._rtts_ms.items())[-MAX_RTTS:]
        if rtts:
            asked["rtt"] = ",".join(f"{id}:{ms:g}" for id, ms in rtts)
        asked["jwt"] = token
        return urlencode(asked, safe="/,:")

    def endpoints(self, control: Sequence[str], last: str, dice: Random) -> list[str]:
        """URLs to ask, without queries: controllers first, the one that answered last before others; then relays."""
        controllers = [endpoint_of(address) for address in control]
        if controllers:
            turn = controllers.index(last) if last in controllers else dice.randrange(len(controllers))
            controllers = controllers[turn:] + controllers[:turn]
        listed = self._answer.candidates if self._answer is not None else ()
        relays = [f"{relay_base(candidate.uri)}/v1/place" for candidate in listed]
        return list(dict.fromkeys([*controllers, *relays]))

    def statistics(self) -> Mapping[str, int]:
        """How much is known."""
        known = len(self._answer.candidates) if self._answer is not None else 0
        return {"candidates": known, "failed": len(self._failed), "measured": len(self._rtts_ms)}

    def check_invariants(self) -> None:
        assert len(self._failed) <= MAX_REMEMBERED and len(self._rtts_ms) <= MAX_REMEMBERED
        assert self._answer is None or 0 < len(self._answer.candidates) <= MAX_CANDIDATES
        assert self._patience.backoff_first_s <= self._backoff_s <= self._patience.backoff_most_s


def new_session(uri: str, known: Choices, here: Candidate) -> Candidate | None:
    """Where a GOAWAY sends to: None where its New Session URI cannot be followed.

    A relay that we know is dialled as the answer has it: its tokens admit us. What has no token of its own gets ours.
    """
    if not uri or len(uri) > MAX_URI_CHARACTERS:
        return None
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("https", "moqt") or not parts.hostname or port == 0:
        return None
    candidate = known.at_host(parts.netloc)
    if candidate is not None:
        return candidate
    asked = dict(parse_qsl(parts.query))
    ours = dict(parse_qsl(urlsplit(here.uri).query)).get("jwt")
    query = parts.query
    if ours and "jwt" not in asked:
        query = f"{query}&jwt={quote(ours, safe='')}" if query else f"jwt={quote(ours, safe='')}"
    path = parts.path if parts.path.strip("/") else urlsplit(here.uri).path
    return replace(here, id=parts.netloc, uri=parts._replace(path=path, query=query, fragment="").geturl(), region="")


def endpoint_of(address: str) -> str:
    """The URL to ask a controller at, given as `https://host[:port]` or whole."""
    parts = urlsplit(address)
    path = parts.path if parts.path.strip("/") else "/v1/place"
    return f"{parts.scheme}://{parts.netloc}{path}"


def relay_base(uri: str) -> str:
    """Where a relay answers questions: TCP at its UDP port's number. Plain HTTP on loopback alone."""
    parts = urlsplit(uri)
    return f"{'http' if is_loopback(parts.hostname or '') else 'https'}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _put(table: dict[str, float], name: str, value: float) -> None:
    """Set a value, as the newest; the oldest goes where there are too many."""
    table.pop(name, None)
    table[name] = value
    if len(table) > MAX_REMEMBERED:
        del table[next(iter(table))]


def _load(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnswerError("it is not JSON") from error
    if not isinstance(document, dict):
        raise AnswerError("it is not an object")
    return document


def _candidate(entry: object) -> Candidate:
    if not isinstance(entry, dict):
        raise AnswerError("a candidate is not an object")
    id, uri, region, digest = (entry.get(name, "") for name in ("id", "uri", "region", "certificate_sha256"))
    if not isinstance(id, str) or not 0 < len(id) <= 64 or not id.isprintable() or set(id) & set(",:"):
        raise AnswerError("a candidate has no id")
    if not isinstance(uri, str) or len(uri) > MAX_URI_CHARACTERS:
        raise AnswerError(f"{id} has no uri")
    try:
        parts = urlsplit(uri)
        usable = parts.scheme in ("https", "moqt") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise AnswerError(f"{id} has a uri that cannot be dialled")
    return Candidate(id, uri, region[:64] if isinstance(region, str) else "", _digest(digest))


def _digest(text: object) -> bytes | None:
    try:
        found = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return None
    return found if len(found) == 32 else None


def _whole(entry: Mapping[str, Any], name: str, default: int) -> int:
    value = entry.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default
