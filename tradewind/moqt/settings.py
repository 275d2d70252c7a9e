"""What one session allows its peer, and which of a peer's known faults it forgives.

`relay.config` and `tradewind.client` build these; `tradewind.moqt.session` and its parts read them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tradewind.moqt.errors import MisuseError


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Limits on everything that a peer can make a session keep. All are per session."""

    setup_timeout_s: float = 10.0
    """From the first sign of the peer to its SETUP; then CONTROL_MESSAGE_TIMEOUT."""
    max_early_streams: int = 64
    """Request and data streams that may wait for the peer's SETUP; further ones are stopped and reset."""
    max_early_bytes: int = 256 * 1024
    max_requests: int = 1024
    """Requests of the peer that may be open at once; further ones are refused with EXCESSIVE_LOAD."""
    overload_retry_ms: int = 1000
    """The Retry Interval of such a refusal."""
    request_window: int = 128
    """Draft 16: how many requests the peer may have sent, with updates, before MAX_REQUEST_ID grows."""
    max_id_gaps: int = 8192
    """Holes in the peer's Request IDs, and among its streams that are over, that are remembered; more close the
    session. Must be more than the streams that the transport lets the peer have open at once."""
    max_request_updates: int = 16
    """Unanswered REQUEST_UPDATEs of the peer on one request; told to it where the draft has a word for it."""
    max_filter_ranges: int = 64
    """Ranges in the Range Filters of one request; told to the peer."""
    max_token_cache_bytes: int = 16 * 1024
    """Registered authorization tokens, counted as the draft does; told to the peer."""
    max_tokens: int = 16
    """Authorization tokens in one message."""
    max_path_bytes: int = 4096
    max_authority_bytes: int = 512
    max_waiting_streams: int = 64
    """Data streams that wait for a control message to say what they belong to."""
    max_waiting_bytes: int = 256 * 1024
    waiting_timeout_s: float = 1.0
    max_waiting_datagrams: int = 16
    max_waiting_datagram_bytes: int = 32 * 1024
    max_retired_aliases: int = 4096
    """Track aliases remembered after their last subscription, so that late objects are dropped quietly."""
    done_linger_s: float = 5.0
    """How long after PUBLISH_DONE late streams of a subscription are still taken."""
    max_namespaces: int = 65536
    """Namespaces that one SUBSCRIBE_NAMESPACE of ours may be told of."""
    known_mandatory_properties: frozenset[int] = field(default_factory=frozenset)
    """Mandatory Track Properties (0x4000 to 0x7FFF) that the owner understands."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value < 0:
                raise MisuseError(f"{name} must not be negative")
        if self.request_window < 1:
            raise MisuseError("request_window must be at least 1: draft-16 peers could send nothing")


ALL_QUIRKS = frozenset(
    {
        "group-order-zero",
        "unknown-namespace-done",
        "fin-withdraws-namespace",
        "update-before-publish-ok",
        "bare-subscribe-ok",
        "join-at-group-start",
    }
)
"""Every lenience that the session, the codec and the relay know.

* group-order-zero: GROUP_ORDER 0 means that the sender did not say (codec; seen from shaka-player 5.2.12, draft 16).
* unknown-namespace-done: a NAMESPACE_DONE for what was never announced says nothing.
* fin-withdraws-namespace: after the answer, FIN withdraws a PUBLISH_NAMESPACE or a namespace subscription on every
  draft, as it did up to draft 18.
* update-before-publish-ok: a subscriber may update a PUBLISH that it has not answered yet.
* bare-subscribe-ok: to ShakaPlayer, whose control reader loses its place in Track Properties, SUBSCRIBE_OK goes
  without them.
* join-at-group-start: to @moq/net and ShakaPlayer on draft 16, which ask for the next object and can only begin with a
  group's first, the relay sends what it has of the current group as well.
"""


class QuirkSet:
    """The leniences of one session, and how often each was needed."""

    __slots__ = ("allowed", "uses")

    def __init__(self, allowed: frozenset[str] = frozenset()) -> None:
        self.allowed = allowed
        self.uses: Counter[str] = Counter()

    def allows(self, name: str) -> bool:
        """Whether `name` is forgiven here; a call that says yes counts as one use."""
        if name not in self.allowed:
            return False
        self.uses[name] += 1
        return True
